//! Precision: a write forgets what it touches and nothing else.

use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{SHELVES, item};
use crate::support::schema::Tested;

/// Warms `paths`, writes, and says which of them are still answered from the cache.
async fn survivors<'a>(server: &Server, paths: &[&'a str], write: impl AsyncFnOnce(&Server)) -> Vec<&'a str> {
    for path in paths {
        server.get(path).await.expect(200);
        assert_eq!(server.get(path).await.cache(), "HIT", "{path}");
    }
    write(server).await;
    let mut survivors = Vec::new();
    for path in paths {
        if server.get(path).await.cache() == "HIT" {
            survivors.push(*path);
        }
    }
    survivors
}

#[tokio::test]
async fn a_list_of_another_category_stays_a_hit() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "b"), item("C", "c")]).await;
    let paths = [
        "/api/items?category=a",
        "/api/items?category=a&page=2&limit=1",
        "/api/items?category=b",
        "/api/items?category=c",
        "/api/items",
    ];
    let kept = survivors(&server, &paths, async |server| drop(server.create_item(item("B2", "b")).await)).await;
    assert_eq!(kept, [paths[0], paths[1], paths[3]]);
    let kept = survivors(&server, &paths, async |server| {
        server.patch("/api/items/A", &json!({"category": "b"})).await.expect(200);
    })
    .await;
    assert_eq!(kept, [paths[3]], "a move touches the list it leaves and the one it enters");
    let kept = survivors(&server, &paths, async |server| drop(server.delete("/api/items/C").await)).await;
    assert_eq!(kept, [paths[0], paths[1], paths[2]]);
}

#[tokio::test]
async fn another_record_stays_a_hit() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a")]).await;
    let paths = ["/api/items/A", "/api/items/A?fields=name", "/api/items/B"];
    let kept = survivors(&server, &paths, async |server| {
        server.patch("/api/items/B", &json!({"tier": 1})).await.expect(200);
    })
    .await;
    assert_eq!(kept, [paths[0], paths[1]]);
}

#[tokio::test]
async fn another_collection_stays_a_hit() {
    let server = Server::fixture();
    server.post(SHELVES, &json!({"id": "s", "room": "cellar"})).await.expect(201);
    server.create_items([item("A", "a")]).await;
    let paths =
        ["/api/items", "/api/items/A", "/api/items/_stats?by=tier", "/api/items?include=shelf_id", "/api/shelves", "/api/totals"];
    let kept = survivors(&server, &paths, async |server| {
        server.patch("/api/shelves/s", &json!({"room": "attic"})).await.expect(200);
    })
    .await;
    assert_eq!(kept, paths[..3]);
}

#[tokio::test]
async fn the_most_telling_term_of_a_filter_is_the_one_that_counts() {
    let server = Server::fixture();
    let with = |sku: &str, category: &str, tags: &[&str]| {
        let mut one = item(sku, category);
        one["tags"] = json!(tags);
        one
    };
    server.create_items([with("A", "a", &["red"]), with("B", "a", &["blue"])]).await;
    let paths = [
        "/api/items?category=a&tags=red",
        "/api/items?tags=red",
        "/api/items/_stats?by=tier&tags=red",
        "/api/items?tags=red&tags=blue",
    ];
    let kept = survivors(&server, &paths, async |server| drop(server.create_item(with("C", "a", &["green"])).await)).await;
    assert_eq!(kept, paths, "the category is the same, the tag is not");
    let kept = survivors(&server, &paths, async |server| drop(server.create_item(with("D", "b", &["red"])).await)).await;
    assert!(!kept.contains(&paths[1]), "{kept:?}");
}

#[tokio::test]
async fn a_page_stays_a_hit_if_an_update_changes_neither_its_records_nor_what_it_reads() {
    let server = Server::fixture();
    server.create_items([item("A", "a"), item("B", "a"), item("C", "a")]).await;
    let paths = [
        "/api/items?category=a&sort=sku&limit=2",
        "/api/items?category=a&sort=tier,sku&limit=2",
        "/api/items?q=item&limit=1",
        "/api/items?sort=sku&limit=2&count=none",
        // These show the record, are ordered by its time of update, or are never looked at again.
        "/api/items?category=a&sort=sku&limit=2&page=2",
        "/api/items?category=a&limit=2",
        "/api/items?category=a&sort=sku&limit=2&cursor=",
        "/api/items?category=a&sort=sku&limit=2&include=shelf_id",
        "/api/items/_stats?by=tier",
    ];
    let patched = async |change| {
        survivors(&server, &paths, async |server| drop(server.patch("/api/items/C", &change).await.expect(200))).await
    };
    assert_eq!(patched(json!({"unindexed": "x"})).await, paths[..4]);
    assert_eq!(patched(json!({"tier": 9})).await, [paths[0], paths[2], paths[3]], "one is ordered by it");
    assert_eq!(patched(json!({"description": "bright"})).await, [paths[0], paths[1], paths[3]], "one searches it");
    assert_eq!(patched(json!({"category": "b"})).await, paths[2..4], "three are filtered by it, and their counts");
    assert_eq!(patched(json!({"category": "a"})).await, paths[2..4]);
    let kept = survivors(&server, &paths, async |server| drop(server.create_item(item("D", "a")).await)).await;
    assert!(kept.is_empty(), "a new record may be anywhere: {kept:?}");
    let kept = survivors(&server, &paths, async |server| drop(server.delete("/api/items/D").await)).await;
    assert!(kept.is_empty(), "what is gone may have been anywhere: {kept:?}");
}

#[tokio::test]
async fn equal_requests_share_one_entry() {
    let server = Server::fixture();
    server.create_items([item("A", "a")]).await;
    assert_eq!(server.get("/api/items?category=a&tier=1&limit=50").await.cache(), "MISS");
    for same in [
        "/api/items?tier=1&category=a",
        "/api/items?page=1&filter[tier][eq]=1&category=%61",
        "/api/items?filter=%7B%22tier%22%3A1.0%7D&filter[category][in]=a&count=exact&sort=-updated_at",
        "/api/items?filter={\"and\":[{\"category\":\"a\"},{\"tier\":{\"eq\":1}}]}&highlight=false",
    ] {
        assert_eq!(server.get(same).await.cache(), "HIT", "{same}");
    }
}

/// On SQLite ranks follow from all records, so every change of a searched text may be one of every search.
#[tokio::test]
async fn a_search_stays_a_hit_if_its_words_stand_neither_in_the_old_nor_in_the_new_text() {
    let server = Server::fixture();
    let text = |sku: &str, description: &str| {
        let mut one = item(sku, "a");
        one["description"] = json!(description);
        one
    };
    server.create_items([text("A", "a brass lamp"), text("B", "wooden shelves"), text("C", "brass shelf")]).await;
    let paths = [
        "/api/items?q=brass",
        "/api/items?q=brass+lamp",
        "/api/items?q=shelf",
        "/api/items?q=shel&prefix=true&limit=1",
        "/api/items?q=copper",
        "/api/items?q=copper+or+wood",
        "/api/items?q=brass+-lamp&sort=sku",
        "/api/items?q=caf%C3%A9",
    ];
    let kept = |kept: &[usize]| match Tested::now() {
        Tested::Postgres => kept.iter().map(|at| paths[*at]).collect(),
        Tested::Sqlite => Vec::new(),
    };
    let patched = async |sku: &str, description: &str| {
        survivors(&server, &paths, async |server| {
            drop(server.patch(&format!("/api/items/{sku}"), &json!({"description": description})).await.expect(200));
        })
        .await
    };
    assert_eq!(patched("B", "wooden shelf").await, kept(&[0, 1, 4, 5, 6]));
    assert_eq!(
        patched("A", "a copper lamp").await,
        kept(&[2, 3]),
        "it leaves two and enters two, and the last is not plain English"
    );
    assert_eq!(patched("A", "a copper lamp, Café").await, kept(&[]), "of other letters nothing is certain");
    assert_eq!(patched("A", "a tin lamp").await, kept(&[]), "nor of what they were");
    assert_eq!(patched("A", "a tin box").await, kept(&[0, 1, 2, 3, 4, 5, 6]));
    let create = async |server: &Server| drop(server.create_item(text("D", "lamps")).await);
    assert_eq!(survivors(&server, &paths, create).await, kept(&[0, 1, 2, 3, 4, 5, 6]));
    let delete = async |server: &Server| drop(server.delete("/api/items/C").await);
    assert_eq!(survivors(&server, &paths, delete).await, kept(&[1, 4, 5]));
}
