//! The checker itself: histories made by hand, a right one and what must not pass for one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use terrace::model::Position;

use super::checker::{Answer, Answered, History, Logged, Request};
use super::model::{Members, Operation, Verb};

fn members(value: &Value) -> Members {
    value.as_object().unwrap().clone()
}

/// A stored document: its members, and the server's.
fn stored(version: i64, members: &Value) -> Value {
    let mut document = json!({"key": "r"});
    document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    document["version"] = json!(version);
    document["created_at"] = json!("2026-01-01T00:00:01.000000Z");
    document["updated_at"] = json!(format!("2026-01-01T00:00:0{version}.000000Z"));
    document
}

fn write(verb: Verb, if_match: Option<&str>) -> Request {
    Request::Write(Operation { id: "r".into(), verb, if_match: if_match.map(str::to_owned) })
}

fn patch(patch: Value) -> Verb {
    Verb::Patch(members(&patch))
}

fn position(sequence: i64) -> Option<Position> {
    Some(Position { transaction: sequence as u64, sequence })
}

fn answered(
    (began, ended): (u64, u64),
    request: Request,
    status: u16,
    body: Value,
    etag: &str,
    token: Option<Position>,
) -> Answered {
    Answered { request, server: 0, began, ended, answer: Answer { status, body, etag: etag.into(), token, is_hit: false } }
}

fn row(sequence: i64, operation: &str, version: i64, before: Option<&Value>, after: Option<&Value>) -> Logged {
    let (before, after) = (before.cloned(), after.cloned());
    Logged { transaction: None, sequence, id: "r".into(), operation: operation.into(), version, before, after }
}

/// A record is created; two patches of two members, at once; a read that sees one of them; a patch with a tag that is no
/// longer right; the last state.
fn right() -> History {
    let (first, second, third) = (stored(1, &json!({})), stored(2, &json!({"a": 1})), stored(3, &json!({"a": 1, "b": 2})));
    let create = Verb::Create(members(&json!({"key": "r"})));
    History {
        answered: vec![
            answered((0, 10), write(create, None), 201, first.clone(), "\"1\"", position(1)),
            answered((20, 40), write(patch(json!({"a": 1})), None), 200, second.clone(), "\"2\"", position(2)),
            answered((20, 45), write(patch(json!({"b": 2})), None), 200, third.clone(), "\"3\"", position(3)),
            answered((25, 30), Request::Read("r".into()), 200, second.clone(), "\"2\"", None),
            answered((50, 60), write(patch(json!({"b": 9})), Some("\"1\"")), 412, json!({}), "\"3\"", None),
        ],
        log: vec![
            row(1, "create", 1, None, Some(&first)),
            row(2, "update", 2, Some(&first), Some(&second)),
            row(3, "update", 3, Some(&second), Some(&third)),
        ],
        last: BTreeMap::from([("r".to_owned(), Some(third))]),
        lag: 0,
    }
}

#[track_caller]
fn refused(because: &str, change: impl FnOnce(&mut History)) {
    let mut history = right();
    change(&mut history);
    let wrong = history.check().unwrap_err();
    assert!(wrong.contains(because), "{wrong}");
}

#[test]
fn a_right_history_passes() {
    right().check().unwrap();
}

#[test]
fn a_lost_update_is_found() {
    // The second patch was made from the state before the first one, and everything else agrees with that.
    let lost = stored(3, &json!({"b": 2}));
    refused("its body is not what was written", |history| {
        history.answered[2].answer.body = lost.clone();
        history.log[2].after = Some(lost.clone());
        history.last.insert("r".into(), Some(lost.clone()));
    });
    let twice = stored(2, &json!({"b": 2}));
    refused("does not begin where the last one ended", |history| {
        history.answered[2].answer.body = twice.clone();
        history.log[2] = row(3, "update", 2, Some(&stored(1, &json!({}))), Some(&twice));
        history.last.insert("r".into(), Some(twice.clone()));
    });
}

#[test]
fn an_acknowledged_write_that_the_log_lacks_is_found() {
    refused("the log lacks what was acknowledged", |history| {
        history.log.pop();
    });
    refused("is behind the position", |history| {
        history.answered[2].answer.token = None;
        history.log[2].transaction = Some(2);
    });
    refused("nobody was answered for the row", |history| history.answered[2].answer.token = None);
    refused("its position is missing", |history| {
        history.answered[2].answer.token = None;
        history.log.pop();
    });
}

#[test]
fn versions_that_skip_or_repeat_are_found() {
    let skipped = stored(4, &json!({"a": 1, "b": 2}));
    refused("its version should be 3", |history| {
        history.answered[2].answer.body = skipped.clone();
        history.log[2] = row(3, "update", 4, Some(&stored(2, &json!({"a": 1}))), Some(&skipped));
    });
    refused("the version is another one", |history| history.log[2].version = 2);
    refused("this is a update", |history| history.log[2].operation = "create".into());
}

#[test]
fn an_answer_that_no_state_of_its_time_explains_is_found() {
    refused("no state of the record at that time", |history| {
        // It began when the second patch had been answered, and does not see it.
        (history.answered[3].began, history.answered[3].ended) = (46, 48);
    });
    refused("no state of the record at that time", |history| history.answered[3].answer.body["a"] = json!(7));
    refused("its status should be 200", |history| {
        history.answered[4].request = write(patch(json!({"b": 9})), Some("\"3\""));
    });
    refused("its status should be 409", |history| {
        history.answered[4].request = write(Verb::Create(members(&json!({"key": "r"}))), None);
        history.answered[4].answer.status = 404;
    });
    refused("the current entity tag is \"3\"", |history| history.answered[4].answer.etag = "\"2\"".into());
    refused("r is", |history| {
        history.last.insert("r".into(), None);
    });
}

#[test]
fn an_order_that_contradicts_the_clock_is_found() {
    refused("no order explains these", |history| {
        // The one that the log has second was answered before the one that the log has first began.
        (history.answered[1].began, history.answered[1].ended) = (30, 40);
        (history.answered[2].began, history.answered[2].ended) = (20, 25);
        history.answered.remove(3);
    });
}

#[test]
fn a_read_may_lag_behind_another_server_and_not_behind_its_own() {
    // It shows the second state. The third one was answered at 45.
    let at = |(began, ended): (u64, u64), server: usize| {
        let mut history = right();
        history.lag = 100;
        (history.answered[3].began, history.answered[3].ended, history.answered[3].server) = (began, ended, server);
        history.check()
    };
    assert_eq!(at((145, 150), 1), Ok(()));
    assert!(at((146, 150), 1).unwrap_err().contains("no state of the record at that time"));
    assert_eq!(at((45, 150), 0), Ok(()));
    assert!(at((46, 150), 0).unwrap_err().contains("no state of the record at that time"));
    // Nor may it run ahead: the second one began at 20.
    assert!(at((10, 19), 1).unwrap_err().contains("no state of the record at that time"));
}

/// Two batches over two records, each of which writes both.
fn batches() -> History {
    let mut history = History::default();
    let (mut before, mut sequence) = (BTreeMap::new(), 0);
    for (batch, verb) in [(1_u64, "create"), (2, "update")] {
        let mut results = Vec::new();
        let mut operations = Vec::new();
        for id in ["p", "q"] {
            sequence += 1;
            let mut after = stored(batch as i64, &json!({"a": batch}));
            after["key"] = json!(id);
            let (after, sent) = (after, members(&json!({"key": id, "a": batch})));
            operations.push(Operation { id: id.into(), verb: Verb::Upsert(sent), if_match: None });
            results.push(json!({"id": id, "status": format!("{verb}d"), "etag": format!("\"{id}{batch}\"")}));
            history.log.push(Logged { id: id.into(), ..row(sequence, verb, batch as i64, before.get(id), Some(&after)) });
            history.last.insert(id.into(), Some(after.clone()));
            before.insert(id, after);
        }
        let (times, body) = ((batch * 10, batch * 10 + 15), json!({"results": results}));
        history.answered.push(answered(times, Request::Batch(operations), 200, body, "", position(sequence)));
    }
    history
}

#[test]
fn batches_that_are_mixed_or_only_half_written_are_found() {
    batches().check().unwrap();
    let mut half = batches();
    half.log.remove(2);
    half.last.insert("p".into(), half.log[0].after.clone());
    assert!(half.check().unwrap_err().contains("p was not written"));

    // On p the second one comes last, on q the first one.
    let mut mixed = batches();
    let one = |history: &History, at: usize| history.log[at].clone();
    let (first, second) = (one(&mixed, 1), one(&mixed, 3));
    mixed.log[1] = Logged {
        after: second.after.clone().map(|mut document| {
            document["version"] = json!(1);
            document
        }),
        ..first.clone()
    };
    assert!(mixed.check().is_err());

    // Numbers given out by turns, as PostgreSQL may, are no fault if the transactions are whole.
    let mut by_turns = batches();
    for (at, transaction) in [(0, 2), (1, 2), (2, 4), (3, 4)] {
        by_turns.log[at].transaction = Some(transaction);
    }
    by_turns.log.swap(1, 2);
    by_turns.log[1].sequence = 2;
    by_turns.log[2].sequence = 3;
    by_turns.answered[0].answer.token = Some(Position { transaction: 2, sequence: 3 });
    by_turns.check().unwrap();
}
