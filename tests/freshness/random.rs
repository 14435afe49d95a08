//! Random writes and reads: every answer of the cache is the one of the same request past it.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::Server;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Value>),
    Read(String),
}

fn id() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["A", "B", "C", "D", "E"]).prop_map(str::to_owned)
}

fn category() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn tags() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["red", "green", "blue"]), 0..3)
}

fn members() -> impl Strategy<Value = Value> {
    (category(), prop::option::of(0..4_i64), prop::option::of(tags()), any::<Option<bool>>(), prop::option::of(0..3_u8)).prop_map(
        |(category, tier, tags, active, price)| {
            let mut record = json!({"name": format!("lamp {category}"), "category": category, "shelf_id": "s"});
            for (name, value) in
                [("tier", json!(tier)), ("tags", json!(tags)), ("active", json!(active)), ("price", json!(price))]
            {
                if !value.is_null() {
                    record[name] = value;
                }
            }
            record
        },
    )
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["running", "runs", "connections", "Connect", "v2beta", "café", "cafe", "b"]);
    prop::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
}

fn operation() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (id(), members()).prop_map(|(id, data)| json!({"op": "upsert", "id": id, "data": data})),
        3 => (id(), prop_oneof![
            category().prop_map(|category| json!({"category": category})),
            prop::option::of(0..4_i64).prop_map(|tier| json!({"tier": tier})),
            prop::option::of(tags()).prop_map(|tags| json!({"tags": tags})),
            prop::option::of(0..3_u8).prop_map(|price| json!({"price": price})),
            category().prop_map(|word| json!({"name": format!("lamp {word}")})),
            prop::option::of(words()).prop_map(|words| json!({"description": words})),
            any::<Option<u8>>().prop_map(|number| json!({"extra": {"number": number}})),
        ]).prop_map(|(id, data)| json!({"op": "patch", "id": id, "data": data})),
        1 => id().prop_map(|id| json!({"op": "delete", "id": id})),
    ]
}

fn read() -> impl Strategy<Value = String> {
    let condition = prop_oneof![
        category().prop_map(|category| format!("category={category}")),
        (0..4).prop_map(|tier| format!("tier={tier}")),
        (0..4).prop_map(|tier| format!("filter[tier][lte]={tier}")),
        prop::sample::select(vec!["red", "green", "blue"]).prop_map(|tag| format!("tags={tag}")),
        prop::sample::select(vec!["red,blue", "green"]).prop_map(|tags| format!("filter[tags][all]={tags}")),
        Just("filter[category][ne]=a".to_owned()),
        Just("filter[active][null]=true".to_owned()),
        Just("filter={\"or\":[{\"category\":\"a\"},{\"tier\":1}]}".to_owned()),
        Just("q=lamp".to_owned()),
        category().prop_map(|word| format!("q={word}")),
        prop::sample::select(vec![
            "run",
            "connect",
            "v2beta",
            "beta",
            "caf%C3%A9",
            "run+connect",
            "%22runs+cafe%22",
            "run+or+lamp+-b",
            "runn&prefix=true",
            "con&prefix=true"
        ])
        .prop_map(|words| format!("q={words}")),
    ];
    let extra = prop::sample::select(vec![
        "",
        "sort=sku",
        "sort=-tier,price",
        "sort=price&limit=1",
        "sort=name&limit=2",
        "sort=sku&limit=2&page=2",
        "sort=created_at&limit=1&count=none",
        "sort=sku&limit=2&fields=tier",
        "limit=2",
        "limit=2&page=2",
        "limit=1&cursor=&sort=sku",
        "count=none",
        "fields=tier",
        "include=shelf_id",
    ]);
    let joined = (prop::collection::vec(condition, 0..3), extra).prop_map(|(mut parts, extra)| {
        parts.sort();
        parts.dedup_by_key(|part| part.split('=').next().unwrap_or_default().to_owned());
        parts.push(extra.to_owned());
        parts.retain(|part| !part.is_empty());
        parts.join("&")
    });
    prop_oneof![
        2 => id().prop_map(|id| format!("/api/items/{id}")),
        1 => id().prop_map(|id| format!("/api/items/{id}?include=shelf_id")),
        6 => joined.prop_map(|query| format!("/api/items?{query}")),
        1 => prop::sample::select(vec!["by=tier", "by=category,active", "by=tier&category=a"]).prop_map(|query| format!("/api/items/_stats?{query}")),
        1 => Just("/api/totals".to_owned()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec(operation(), 1..4).prop_map(Step::Write),
        3 => read().prop_map(Step::Read),
    ]
}

#[test]
fn no_answer_of_the_cache_differs_from_the_one_past_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::fixture();
    let truth = server.beside(|settings| settings.cache.enabled = false);
    runtime.block_on(async { server.post("/api/shelves", &json!({"id": "s", "room": "x"})).await.expect(201) });
    let hits = std::cell::Cell::new(0);
    let config = Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 20..60), |steps| {
            runtime.block_on(async {
                for step in steps {
                    match step {
                        // Some are refused, for example a patch of a record that is not there; that is fine.
                        Step::Write(operations) => {
                            let reply = server.post("/api/items/_batch", &json!({"operations": operations})).await;
                            prop_assert!(reply.status.as_u16() < 500, "{}", reply.text);
                        }
                        Step::Read(path) => {
                            let (cached, expected) = (server.get(&path).await, truth.get(&path).await);
                            prop_assert_eq!(cached.status, expected.status, "{}", &path);
                            hits.set(hits.get() + usize::from(cached.cache() == "HIT"));
                            if expected.status == 200 {
                                prop_assert_eq!(&cached.text, &expected.text, "{}", &path);
                                prop_assert_eq!(cached.header("etag"), expected.header("etag"), "{}", &path);
                            } else {
                                prop_assert_eq!(expected.status.as_u16(), 404, "{} {}", &path, &expected.text);
                            }
                        }
                    }
                }
                Ok(())
            })
        })
        .unwrap();
    assert!(hits.get() > 50, "too few hits to tell: {}", hits.get());
}

/// What is patched and what is read, so that nearly every list is read after each kind of change that it might not notice.
#[test]
fn after_each_update_every_list_is_the_one_past_the_cache() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::fixture();
    let truth = server.beside(|settings| settings.cache.enabled = false);
    let mut random = fastrand::Rng::with_seed(4);
    let lists = [
        "category=a&sort=sku&limit=2",
        "sort=price&limit=2",
        "sort=-price,tier&limit=1&page=2",
        "sort=name&limit=2&page=2",
        "tier=1&sort=name&limit=1",
        "tags=red&sort=sku&limit=1",
        "filter[tier][lte]=1&sort=sku&limit=1&count=none",
        "filter[category][ne]=a&sort=name&limit=1",
        "filter={\"or\":[{\"category\":\"a\"},{\"tier\":1}]}&sort=sku&limit=1",
        "q=lamp&limit=2",
        "q=a&category=b&limit=1",
        "q=lamp&sort=price&limit=1",
        "limit=2&page=2",
        "sort=sku&limit=1&page=3&fields=tier",
    ];
    let mut hits = 0;
    runtime.block_on(async {
        for sku in ["A", "B", "C", "D", "E", "F"] {
            server.create_item(json!({"sku": sku, "name": format!("lamp {sku}"), "category": "a", "price": 1, "tier": 1})).await;
        }
        for _ in 0..200 {
            let sku = random.choice(["A", "B", "C", "D", "E", "F"]).unwrap();
            let word = random.choice(["a", "b", "c"]).unwrap();
            let patch = match random.u8(0..7) {
                0 => json!({"category": word}),
                1 => json!({"tier": random.u8(0..3)}),
                2 => json!({"price": random.u8(0..5)}),
                3 => json!({"name": format!("lamp {word}")}),
                4 => json!({"description": word.repeat(random.usize(1..3))}),
                5 => json!({"tags": if random.bool() { vec!["red"] } else { Vec::new() }}),
                _ => json!({"extra": {"number": random.u8(..)}}),
            };
            server.patch(&format!("/api/items/{sku}"), &patch).await.expect(200);
            for list in lists {
                let path = format!("/api/items?{list}");
                let (cached, expected) = (server.get(&path).await, truth.get(&path).await);
                assert_eq!(cached.text, expected.text, "{path} after {sku} {patch}");
                hits += usize::from(cached.cache() == "HIT");
            }
        }
    });
    assert!(hits > 500, "too few hits to tell: {hits}");
}
