//! Full-text search over a small corpus of our own, `corpus/instruments.ndjson`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::fixture::members;
use crate::support::{Server, root};

const INSTRUMENTS: &str = r#"
name = "instruments"
path = "/instruments"
id = "key"
sort = "key"
indexes = ["kind"]
[search]
name = "A"
description = "C"
[access]
read = "public"
write = "public"
[schema]
required = ["key", "name"]
additionalProperties = false
[schema.properties]
key = { type = "string" }
name = { type = "string" }
description = { type = "string" }
kind = { type = "string" }
"#;

async fn filled() -> Server {
    let server = Server::with_collections(&[("instruments", INSTRUMENTS)]);
    let corpus = std::fs::read_to_string(root().join("tests/corpus/instruments.ndjson")).unwrap();
    let documents = corpus.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let operations: Vec<Value> = documents.map(|document| json!({"op": "create", "data": document})).collect();
    assert!(operations.len() > 60);
    server.post("/instruments/_batch", &json!({"operations": operations})).await.expect(200);
    server
}

/// The page of a search, whose other parameters are `flags`.
async fn page(server: &Server, text: &str, flags: &str) -> Value {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("q", text).finish();
    server.get(&format!("/instruments?{query}{flags}")).await.expect(200)
}

async fn keys(server: &Server, text: &str) -> Vec<String> {
    let page = page(server, text, "&limit=100").await;
    let keys = members(&page, "key");
    assert_eq!(page["pagination"]["total"], keys.len(), "{text}: the total counts what is found");
    keys
}

async fn set(server: &Server, text: &str) -> BTreeSet<String> {
    keys(server, text).await.into_iter().collect()
}

#[tokio::test]
async fn all_words_must_be_there_in_any_order_and_case() {
    let server = filled().await;
    let found = set(&server, "database duration").await;
    assert_eq!(found, BTreeSet::from(["database.request_duration".to_owned()]));
    assert_eq!(set(&server, "DURATION Database").await, found);
    assert_eq!(set(&server, "duration of the database").await, found, "stop words do not count");
    assert!(keys(&server, "database nonexistent").await.is_empty());
    assert!(keys(&server, "the of").await.is_empty());
    assert_eq!(set(&server, "process memory bytes").await, BTreeSet::from(["process.memory_usage".to_owned()]));
}

#[tokio::test]
async fn a_phrase_wants_its_words_side_by_side() {
    let server = filled().await;
    assert_eq!(set(&server, "dead letter queue").await, BTreeSet::from(["phrase.apart".to_owned(), "phrase.exact".to_owned()]));
    assert_eq!(keys(&server, "\"dead letter queue\"").await, ["phrase.exact"]);
    assert!(keys(&server, "\"queue letter dead\"").await.is_empty());
    assert_eq!(keys(&server, "\"dead letter\" messages").await, ["phrase.exact"]);
    assert_eq!(keys(&server, "aspnetcore.rate_limiting").await, ["dotted"], "a name as in code is a phrase");
}

#[tokio::test]
async fn a_minus_excludes_and_or_means_either() {
    let server = filled().await;
    let lanterns = set(&server, "lantern").await;
    assert_eq!(lanterns.len(), 4, "{lanterns:?}");
    assert_eq!(set(&server, "lantern -oil").await.len(), 3);
    assert_eq!(set(&server, "lantern -\"call it\" -oil -script").await, BTreeSet::from(["lantern.name".to_owned()]));
    let either = set(&server, "zebra or parrot").await;
    assert_eq!(either, BTreeSet::from(["html".to_owned(), "phrase.apart".to_owned()]));
    assert_eq!(set(&server, "parrot OR zebra").await, either);
    assert_eq!(set(&server, "lantern oil or zebra").await, BTreeSet::from(["html".to_owned(), "lantern.both".to_owned()]));
    let query = "/instruments?q=-lantern";
    assert_eq!(server.get(query).await.problem(400, "invalid_parameter")["parameter"], "q");
}

#[tokio::test]
async fn a_match_in_the_name_comes_before_one_in_the_description() {
    let server = filled().await;
    let found = keys(&server, "lantern").await;
    let place = |key: &str| found.iter().position(|one| one == key).unwrap();
    assert!(place("lantern.name") < place("lantern.description"), "{found:?}");
    assert!(place("lantern.both") < place("lantern.description"), "{found:?}");
    assert!(place("lantern.name") < place("html"), "{found:?}");
}

#[tokio::test]
async fn equal_ranks_are_in_the_order_of_their_ids_every_time() {
    let server = filled().await;
    for _ in 0..3 {
        assert_eq!(keys(&server, "exactly same words").await, ["twin.a", "twin.b", "twin.c"]);
        // A write makes the next search ask the database again.
        let touch = json!({"name": "Touched", "kind": "twin"});
        server.put("/instruments/touched", &touch).await;
        server.delete("/instruments/touched").await;
    }
}

#[tokio::test]
async fn the_last_word_may_be_a_beginning() {
    let server = filled().await;
    assert!(keys(&server, "lanter").await.is_empty());
    assert_eq!(members(&page(&server, "lanter", "&prefix=true").await, "key").len(), 4);
    assert_eq!(members(&page(&server, "oil lant", "&prefix=true").await, "key"), ["lantern.both"]);
    assert!(members(&page(&server, "lant oil", "&prefix=true").await, "key").is_empty(), "only the last word");
    assert_eq!(members(&page(&server, "\"dead lett", "&prefix=true").await, "key"), ["phrase.exact"]);
    assert!(members(&page(&server, "lanter", "&prefix=false").await, "key").is_empty());
}

#[tokio::test]
async fn words_of_other_scripts_are_found() {
    let server = filled().await;
    assert_eq!(keys(&server, "übertragung").await, ["unicode.umlaut"]);
    assert_eq!(keys(&server, "ЗАПРОСОВ").await, ["unicode.cyrillic"]);
    assert_eq!(keys(&server, "请求").await, ["unicode.cjk"]);
    assert_eq!(keys(&server, "p99").await, ["number"]);
}

#[tokio::test]
async fn highlights_mark_the_matches_and_escape_everything_else() {
    let server = filled().await;
    let found = page(&server, "zebra bold", "&highlight=true").await;
    let highlight = &found["data"][0]["_highlight"];
    assert_eq!(highlight["name"], "Tags &lt;b&gt;<mark>bold</mark>&lt;/b&gt; &amp; &quot;quotes&quot;");
    assert_eq!(
        highlight["description"],
        "It says &lt;script&gt;alert(&#39;lantern&#39;)&lt;/script&gt; &amp; more about <mark>zebra</mark>."
    );
    let one_field = page(&server, "parrot", "&highlight=true").await;
    assert_eq!(one_field["data"][0]["_highlight"].as_object().unwrap().keys().collect::<Vec<_>>(), ["description"]);
    assert!(page(&server, "parrot", "").await["data"][0].get("_highlight").is_none());
    let shaped = page(&server, "parrot", "&highlight=true&fields=kind").await;
    assert_eq!(shaped["data"][0]["_highlight"], one_field["data"][0]["_highlight"]);
    assert!(shaped["data"][0].get("description").is_none());
    // What was read with a highlight may be written back.
    let record = &found["data"][0];
    assert_eq!(server.put("/instruments/html", record).await.expect(200)["version"], 1);
}

#[tokio::test]
async fn a_search_has_pages_that_meet_every_match_once_in_the_order_of_rank() {
    let server = filled().await;
    let all = keys(&server, "requests or connections or measured").await;
    assert!(all.len() > 40, "{}", all.len());
    let mut paged = Vec::new();
    for number in 1..=all.len().div_ceil(9) {
        let page = page(&server, "requests or connections or measured", &format!("&limit=9&page={number}")).await;
        assert_eq!(page["pagination"]["total"], all.len());
        paged.extend(members(&page, "key"));
    }
    assert_eq!(paged, all);
    let reply = server.get("/instruments?q=measured&limit=9").await;
    assert!(reply.header("link").contains("</instruments?q=measured&limit=9&page=2>; rel=\"next\""), "{}", reply.header("link"));
}

#[tokio::test]
async fn a_search_can_be_filtered_sorted_and_walked_by_cursor() {
    let server = filled().await;
    let filtered = page(&server, "requests", "&kind=disk").await;
    let found: BTreeSet<String> = members(&filtered, "key").into_iter().collect();
    assert!(!found.is_empty() && found.iter().all(|key| key.starts_with("disk.")), "{found:?}");
    assert_eq!(filtered["pagination"]["total"], found.len());
    let sorted = members(&page(&server, "requests", "&sort=-key&limit=100").await, "key");
    assert!(sorted.is_sorted_by(|one, other| one > other), "{sorted:?}");
    let mut walked = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = page(&server, "requests", &format!("&sort=-key&limit=4&cursor={cursor}")).await;
        walked.extend(members(&page, "key"));
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(walked, sorted);
}

#[tokio::test]
async fn the_index_follows_updates_and_deletions() {
    let server = filled().await;
    server.patch("/instruments/lantern.name", &json!({"name": "Torch"})).await.expect(200);
    assert!(!keys(&server, "lantern").await.contains(&"lantern.name".to_owned()));
    assert_eq!(keys(&server, "torch").await, ["lantern.name"]);
    assert_eq!(keys(&server, "lamp").await, ["lantern.name"]);
    server.patch("/instruments/lantern.name", &json!({"description": null})).await.expect(200);
    assert!(keys(&server, "lamp").await.is_empty());
    server.delete("/instruments/lantern.name").await;
    assert!(keys(&server, "torch").await.is_empty());
    server.post("/instruments", &json!({"key": "lantern.name", "name": "Torch again"})).await.expect(201);
    assert_eq!(keys(&server, "torch").await, ["lantern.name"]);
}
