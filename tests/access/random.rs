//! Random callers, records, requests and writes, among them such that change owners: every cached answer is the one past the
//! caches, and no answer holds anything that is not its caller's to see.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SUBJECTS: [&str; 3] = ["ann", "bob", "eve"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, &'static str, Vec<Value>),
    Read(usize, String),
}

/// Everybody who asks.
fn callers() -> Vec<Caller> {
    vec![
        Caller::ANONYMOUS,
        known("ann", Role::Viewer),
        known("bob", Role::Viewer),
        known("eve", Role::Editor),
        known("root", Role::Admin),
        Caller::OPERATOR,
        with_scopes("ann", Role::Editor, Some(&["notes:*", "rooms:read"])),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(KEYS.to_vec())
}

/// Members of a note; the title says whose it was made for, if that is said.
fn note() -> impl Strategy<Value = Value> {
    let owner = prop::option::weighted(0.4, prop::sample::select(SUBJECTS.to_vec()));
    let kind = prop::option::of(prop::sample::select(vec!["x", "y"]));
    let (salary, stage) = (
        prop::option::weighted(0.3, 76_543_210_001..76_543_210_004_i64),
        prop::option::weighted(0.3, prop::sample::select(vec!["new", "old"])),
    );
    let (room, parent) = (prop::option::weighted(0.2, Just("r")), prop::option::weighted(0.2, key()));
    (owner, kind, salary, stage, room, parent).prop_map(|(owner, kind, salary, stage, room, parent)| {
        let mut note = json!({"title": format!("note {}", kind.unwrap_or("z"))});
        for (name, value) in [
            ("owner", json!(owner)),
            ("kind", json!(kind)),
            ("salary", json!(salary)),
            ("stage", json!(stage)),
            ("room", json!(room)),
            ("parent", json!(parent)),
        ] {
            if !value.is_null() {
                note[name] = value;
            }
        }
        note
    })
}

fn post() -> impl Strategy<Value = Value> {
    let author = prop::option::weighted(0.4, prop::sample::select(SUBJECTS.to_vec()));
    (author, prop::option::of(key()), prop::option::weighted(0.3, Just("remarked")), any::<bool>()).prop_map(
        |(author, note, remark, in_room)| {
            let mut post = json!({});
            for (name, value) in [
                ("author", json!(author)),
                ("note", json!(note)),
                ("remark", json!(remark)),
                ("room", if in_room { json!("r") } else { Value::Null }),
            ] {
                if !value.is_null() {
                    post[name] = value;
                }
            }
            post
        },
    )
}

fn operation(data: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    let data = data.boxed();
    prop_oneof![
        3 => (key(), data.clone()).prop_map(|(key, data)| json!({"op": "upsert", "id": key, "data": data})),
        2 => (key(), data).prop_map(|(key, data)| json!({"op": "patch", "id": key, "data": data})),
        2 => (key(), prop::sample::select(SUBJECTS.to_vec())).prop_map(|(key, subject)| json!({"op": "patch", "id": key, "data": {"owner": subject}})),
        1 => key().prop_map(|key| json!({"op": "delete", "id": key})),
    ]
    .boxed()
}

fn write() -> impl Strategy<Value = Step> {
    let notes = prop::collection::vec(operation(note()), 1..3).prop_map(|operations| ("notes", operations));
    let posts = prop::collection::vec(operation(post()), 1..3).prop_map(|operations| ("posts", operations));
    let rooms = prop::sample::select(vec!["1", "2"]).prop_map(|code| {
        ("rooms", vec![json!({"op": "upsert", "id": "r", "data": {"floor": 1, "code": format!("coded{code}")}})])
    });
    (0..7_usize, prop_oneof![5 => notes, 3 => posts, 1 => rooms])
        .prop_map(|(who, (collection, operations))| Step::Write(who, collection, operations))
}

fn read() -> impl Strategy<Value = Step> {
    let subject = || prop::sample::select(SUBJECTS.to_vec());
    let condition = prop_oneof![
        Just("kind=x".to_owned()),
        Just("stage=new".to_owned()),
        Just("filter[kind][null]=true".to_owned()),
        subject().prop_map(|subject| format!("owner={subject}")),
        subject().prop_map(|subject| format!("filter={{\"or\":[{{\"owner\":\"{subject}\"}},{{\"kind\":\"x\"}}]}}")),
        Just("salary=76543210001".to_owned()),
        Just("q=note&sort=key".to_owned()),
    ];
    let extra = prop::sample::select(vec![
        "",
        "limit=1",
        "limit=1&page=2",
        "sort=-key",
        "limit=1&cursor=",
        "count=none",
        "fields=owner,kind",
        "include=room",
        "include=parent",
        "sort=kind",
    ]);
    let list = (prop::collection::vec(condition, 0..2), extra).prop_map(|(mut parts, extra)| {
        parts.push(extra.to_owned());
        parts.retain(|part| !part.is_empty());
        format!("notes?{}", parts.join("&"))
    });
    let path = prop_oneof![
        4 => (key(), prop::sample::select(vec!["", "?fields=title", "?include=room"])).prop_map(|(key, shape)| format!("notes/{key}{shape}")),
        6 => list,
        2 => prop::sample::select(vec!["", "?by=kind", "?by=owner,stage", "?by=salary", "?kind=x"]).prop_map(|query| format!("notes/_stats{query}")),
        2 => (key(), prop::sample::select(vec!["", "?include=note", "?include=room"])).prop_map(|(key, shape)| format!("posts/{key}{shape}")),
        2 => prop::sample::select(vec!["", "?include=room", "?author=ann", "?fields=author"]).prop_map(|query| format!("posts{query}")),
        1 => prop::sample::select(vec!["rooms/r", "rooms", "rooms?code=coded1", "floors", "salaries"]).prop_map(str::to_owned),
    ];
    (0..7_usize, path).prop_map(|(who, path)| Step::Read(who, path))
}

/// The records that an answer shows.
fn records(body: &Value) -> Vec<&Value> {
    match body.get("data").and_then(Value::as_array) {
        Some(page) => page.iter().collect(),
        None => vec![body],
    }
}

/// Nothing that a rule keeps from the caller, whatever was asked and however it was answered.
fn check(caller: &Caller, path: &str, shown: &Shown) -> Result<(), TestCaseError> {
    let Shown::Found { text, headers, .. } = shown else { return Ok(()) };
    let role = caller.principal.role();
    let all = format!("{text} {headers:?}");
    if role != Some(Role::Admin) {
        prop_assert!(!all.contains("salary") && !all.contains("76543210"), "{path}: {all}");
    }
    if role < Some(Role::Editor) {
        prop_assert!(!all.contains("remark") && !all.contains("code"), "{path}: {all}");
    }
    let body: Value = serde_json::from_str(text).unwrap();
    if path.starts_with("notes") && role != Some(Role::Admin) {
        prop_assert!(role.is_some(), "{path}: {all}");
        let subject = caller.principal.subject().unwrap();
        for other in SUBJECTS.iter().filter(|other| **other != subject) {
            // A page may repeat the filter that was asked for.
            prop_assert!(!text.contains(&format!("\"{other}\"")), "{path} for {subject}: {all}");
        }
        for record in records(&body).into_iter().filter(|record| record.get("key").is_some() && !path.contains("fields=title")) {
            prop_assert_eq!(&record["owner"], subject, "{}", path);
        }
    }
    Ok(())
}

#[test]
fn every_cached_answer_is_the_one_past_the_caches_and_shows_nothing_of_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = server();
    let (cached, truth) = runtime.block_on(async {
        let mut settings = server.settings.clone();
        let cached = App::open(settings.clone()).await.unwrap();
        settings.cache.enabled = false;
        (cached, App::open(settings).await.unwrap())
    });
    let (records, truth) = (cached.records(), truth.records());
    let callers = callers();
    let counts = std::cell::Cell::new((0, 0, 0));
    let config = Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let step = prop_oneof![1 => write(), 3 => read()];
    TestRunner::new(config)
        .run(&prop::collection::vec(step, 30..80), |steps| {
            runtime.block_on(async {
                for step in steps {
                    match step {
                        // Many are refused; that is fine.
                        Step::Write(who, collection, operations) => {
                            let body = json!({"operations": operations});
                            let written = records.batch(records.resource(collection).unwrap(), &callers[who], body, None).await;
                            let (hits, founds, writes) = counts.get();
                            counts.set((hits, founds, writes + usize::from(written.is_ok())));
                        }
                        Step::Read(who, path) => {
                            let answer = answer(records, &callers[who], &path).await;
                            let hit = answer.as_ref().is_ok_and(is_hit);
                            let (seen, expected) =
                                (shown(answer).await, shown(super::answer(truth, &callers[who], &path).await).await);
                            prop_assert_eq!(&seen, &expected, "{} for {:?}", &path, &callers[who].principal);
                            check(&callers[who], &path, &seen)?;
                            let (hits, founds, writes) = counts.get();
                            let found = matches!(seen, Shown::Found { .. });
                            counts.set((hits + usize::from(hit), founds + usize::from(found), writes));
                        }
                    }
                }
                Ok(())
            })
        })
        .unwrap();
    let (hits, founds, writes) = counts.get();
    assert!(
        hits > 50 && founds > 200 && writes > 20,
        "too little happened to tell: {hits} hits, {founds} found, {writes} writes"
    );
}
