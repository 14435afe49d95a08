//! The checker itself: histories made by hand, right ones and what must not pass for one.

use super::checker::Bounds;
use super::history::{Document, History, Micros, Question, Read, Shown, Source, State};

const BOUNDS: Bounds = Bounds { elsewhere: 100, marked: 1_000 };

fn document(number: u64) -> Document {
    Document { number, group: (number % 2) as u8, word: 0 }
}

fn written(began: Micros, acknowledged: Option<Micros>, document: Option<Document>) -> State {
    State { document, began, acknowledged, instance: 0, token: Some(format!("token of {began}")) }
}

/// Record 0 has number 1 from 10 to 20 on, number 2 from 210 to 220 on, and is gone from 410 to 420 on. Record 1 has
/// number 3 from 310 to 320 on.
fn history() -> History {
    let mut history = History::new(2);
    history.records[0].extend([
        written(10, Some(20), Some(document(1))),
        written(210, Some(220), Some(document(2))),
        written(410, Some(420), None),
    ]);
    history.records[1].push(written(310, Some(320), Some(document(3))));
    history
}

fn asked(began: Micros, shown: Shown) -> Read {
    Read { began, ended: began + 5, instance: 1, token: None, source: Source::Hit, shown }
}

fn read(began: Micros, number: Option<u64>) -> Read {
    asked(began, Shown::Record { record: 0, number })
}

fn list(began: Micros, group: u8, records: &[(usize, u64)]) -> Read {
    asked(began, Shown::List { question: Question::Group(group), records: records.to_vec() })
}

fn count(began: Micros, total: u64) -> Read {
    asked(began, Shown::Count { question: Question::Since(0), total })
}

#[track_caller]
fn right(history: &History, read: &Read, staleness: Micros) {
    assert_eq!(history.check_read(read, BOUNDS), Ok(staleness), "{read:?}");
}

#[track_caller]
fn wrong(history: &History, read: &Read, because: &str) {
    let violation = history.check_read(read, BOUNDS).unwrap_err();
    assert!(violation.contains(because), "{violation}");
}

#[test]
fn a_read_may_be_as_old_as_its_bound_and_no_older() {
    let history = history();
    right(&history, &read(5, None), 0);
    // Its write has begun, and may have happened.
    right(&history, &read(8, Some(1)), 0);
    wrong(&history, &read(4, Some(1)), "no state of it fits");
    right(&history, &read(319, Some(1)), 99);
    wrong(&history, &read(320, Some(1)), "state 2 was acknowledged");
    wrong(&history, &read(320, None), "state 2 was acknowledged");
    right(&history, &read(519, Some(2)), 99);
    wrong(&history, &read(520, Some(2)), "state 3 was acknowledged");
    wrong(&history, &read(300, Some(7)), "no state of it fits");
    right(&history, &read(9_000, None), 0);
}

#[test]
fn the_own_instance_and_a_token_have_no_time() {
    let history = history();
    let own = |began, number| Read { instance: 0, ..read(began, Some(number)) };
    right(&history, &own(219, 1), 0);
    wrong(&history, &own(220, 1), "state 2 was acknowledged");
    right(&history, &own(220, 2), 0);
    let named = |number| Read { token: Some("token of 210".into()), ..read(230, Some(number)) };
    wrong(&history, &named(1), "state 2 was acknowledged");
    right(&history, &named(2), 0);
    let other = Read { token: Some("token of 10".into()), ..read(230, Some(1)) };
    right(&history, &other, 10);
}

#[test]
fn an_own_write_brings_what_happened_to_its_record_before() {
    let mut history = history();
    // Another instance moved record 0 from group 1 to group 0; this one moved it on, and never listed it in group 1.
    history.records[0][2].instance = 7;
    history.records[0][3] = State { instance: 1, ..written(230, Some(240), Some(document(4))) };
    right(&history, &list(235, 1, &[(0, 1)]), 15);
    wrong(&history, &list(240, 1, &[(0, 1)]), "state 3 was acknowledged");
    wrong(&history, &read(240, Some(2)), "state 3 was acknowledged");
}

#[test]
fn an_answer_that_says_that_it_is_stale_has_longer_unless_there_is_a_token() {
    let history = history();
    let stale = |began, instance, token: Option<&str>| Read {
        instance,
        token: token.map(str::to_owned),
        source: Source::Stale,
        ..read(began, Some(1))
    };
    right(&history, &stale(1_219, 1, None), 999);
    right(&history, &stale(1_219, 0, None), 999);
    wrong(&history, &stale(1_220, 1, None), "state 2 was acknowledged");
    wrong(&history, &stale(230, 1, Some("token of 210")), "state 2 was acknowledged");
}

#[test]
fn a_write_without_an_answer_may_have_happened_or_not() {
    let mut history = history();
    history.records[0].truncate(2);
    history.records[0].push(written(210, None, Some(document(2))));
    right(&history, &read(9_000, Some(1)), 0);
    right(&history, &read(9_000, Some(2)), 0);
    wrong(&history, &read(200, Some(2)), "no state of it fits");
    // Until somebody knows better.
    history.records[0].push(written(500, Some(510), Some(document(4))));
    right(&history, &read(609, Some(1)), 99);
    wrong(&history, &read(610, Some(1)), "state 3 was acknowledged");
    wrong(&history, &read(610, Some(2)), "state 3 was acknowledged");
}

#[test]
fn a_list_shows_all_records_at_one_time() {
    let history = history();
    right(&history, &list(100, 1, &[(0, 1)]), 0);
    right(&history, &list(230, 0, &[(0, 2)]), 0);
    // Number 1 was replaced before number 3 was there: no time has both, though each alone would do.
    right(&history, &list(315, 1, &[(0, 1)]), 95);
    right(&history, &list(315, 1, &[(1, 3)]), 0);
    wrong(&history, &list(315, 1, &[(1, 3), (0, 1)]), "no state of it fits");
    // A record that is missing, one that does not belong there any more, one that is gone.
    wrong(&history, &list(420, 1, &[]), "record 1: it shows state 0");
    wrong(&history, &list(330, 1, &[(0, 1)]), "state 2 was acknowledged");
    wrong(&history, &list(530, 0, &[(0, 2)]), "state 3 was acknowledged");
    wrong(&history, &list(100, 0, &[(0, 1)]), "no state of it fits");
    let own = Read { instance: 0, ..list(325, 1, &[]) };
    wrong(&history, &own, "record 1: it shows state 0");
}

#[test]
fn what_a_list_does_not_show_does_not_make_it_older() {
    let mut history = history();
    // The list of group 0 lacks nothing of what its own instance wrote, and is as old as number 2 allows.
    history.records[0][3].instance = 7;
    let own = Read { instance: 0, ..list(450, 0, &[(0, 2)]) };
    right(&history, &own, 30);
    right(&history, &Read { instance: 0, ..count(325, 2) }, 0);
    history.records[1].push(written(425, Some(430), Some(document(5))));
    right(&history, &own, 30);
    right(&history, &Read { instance: 0, ..count(450, 2) }, 30);
    history.records[1].push(written(435, Some(440), Some(document(6))));
    wrong(&history, &own, "record 1: it shows state 2");
}

#[test]
fn a_list_out_of_order_is_found() {
    let newest_first = asked(330, Shown::List { question: Question::Since(2), records: vec![(1, 3), (0, 2)] });
    right(&history(), &newest_first, 0);
    let oldest_first = asked(330, Shown::List { question: Question::Since(2), records: vec![(0, 2), (1, 3)] });
    wrong(&history(), &oldest_first, "out of order");
}

#[test]
fn a_count_is_that_of_some_time_that_is_allowed() {
    let mut history = history();
    right(&history, &count(100, 1), 0);
    right(&history, &count(330, 2), 0);
    right(&history, &count(404, 1), 84);
    right(&history, &count(519, 2), 99);
    wrong(&history, &count(520, 2), "no time that is allowed");
    wrong(&history, &count(520, 0), "no time that is allowed");
    history.records[1].push(written(600, None, None));
    right(&history, &count(9_000, 1), 0);
    right(&history, &count(9_000, 0), 0);
}

#[test]
fn the_verdict_has_every_violation_and_the_oldest_answer() {
    let mut history = history();
    history.reads = vec![read(319, Some(1)), read(320, Some(1)), Read { source: Source::Stale, ..read(900, Some(1)) }];
    history.problems.push("500".into());
    let verdict = history.check(BOUNDS);
    assert_eq!((verdict.violations.len(), verdict.largest_staleness), (2, 99), "{verdict:?}");
}
