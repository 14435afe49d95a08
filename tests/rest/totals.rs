//! Totals: exact on every page, and paid for by at most one count for each filter and guard.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::Server;
use crate::support::fixture::{ITEMS, item};

/// How many operations of this name the database has carried out.
async fn operations(server: &Server, name: &str) -> u64 {
    let label = format!("operation=\"{name}\"");
    let text = server.get("/metrics").await.text;
    let series = text
        .lines()
        .filter(|line| line.starts_with("terrace_database_operation_duration_seconds_count{") && line.contains(&label));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

async fn counts(server: &Server) -> u64 {
    operations(server, "record_count").await
}

/// 60 items of category a, 5 of b.
async fn filled() -> Server {
    let server = Server::fixture();
    server.create_items((0..65).map(|number| item(&format!("I{number:02}"), if number < 60 { "a" } else { "b" }))).await;
    server
}

#[tokio::test]
async fn many_pages_of_one_filter_asked_at_once_cause_one_count() {
    let server = filled().await;
    // Pages that do not show their own end; two of them in another order, which has the same count.
    let paths: Vec<String> = (1..=8)
        .map(|page| format!("{ITEMS}?category=a&limit=5&page={page}"))
        .chain(["name", "-name"].map(|sort| format!("{ITEMS}?category=a&limit=7&sort={sort}")))
        .collect();
    let replies = join_all(paths.iter().map(|path| server.get(path))).await;
    for reply in &replies {
        assert_eq!((reply.expect(200)["pagination"]["total"].as_u64(), reply.header("x-total-count")), (Some(60), "60"));
    }
    assert_eq!(operations(&server, "record_list").await, paths.len() as u64);
    assert_eq!(counts(&server).await, 1);
}

#[tokio::test]
async fn with_a_fresh_count_at_hand_no_page_causes_one_and_a_write_moves_it() {
    let server = filled().await;
    let total =
        async |page: u32| server.get(&format!("{ITEMS}?category=a&limit=20&page={page}")).await.expect(200)["pagination"].clone();
    assert_eq!(total(1).await, json!({"page": 1, "limit": 20, "total": 60, "pages": 3, "hasNext": true, "hasPrev": false}));
    assert_eq!(counts(&server).await, 1);
    // The second shows no end, the third shows one, the fifth is behind it.
    for page in [2, 3, 5] {
        assert_eq!(total(page).await["total"], 60);
    }
    assert_eq!(counts(&server).await, 1);
    // A write beside the filter leaves its count alone; one into it moves it.
    server.create_item(item("other", "b")).await;
    assert_eq!(server.get(&format!("{ITEMS}?category=a&limit=21")).await.expect(200)["pagination"]["total"], 60);
    assert_eq!(counts(&server).await, 1);
    server.create_item(item("new", "a")).await;
    assert_eq!(total(1).await["total"], 61);
    assert_eq!(total(2).await["total"], 61);
    assert_eq!(counts(&server).await, 2);
}

#[tokio::test]
async fn a_page_that_shows_its_own_end_counts_for_all_pages() {
    let server = filled().await;
    let whole = server.get(&format!("{ITEMS}?category=b")).await.expect(200);
    assert_eq!(whole["pagination"], json!({"page": 1, "limit": 50, "total": 5, "pages": 1, "hasNext": false, "hasPrev": false}));
    let none = server.get(&format!("{ITEMS}?category=c")).await.expect(200);
    assert_eq!(none["pagination"]["total"], 0);
    let last = server.get(&format!("{ITEMS}?category=a&limit=20&page=3")).await.expect(200);
    assert_eq!((&last["pagination"]["total"], &last["pagination"]["hasNext"]), (&json!(60), &json!(false)));
    // What it showed is at hand for those that do not.
    let first = server.get(&format!("{ITEMS}?category=a&limit=20")).await.expect(200);
    assert_eq!((&first["pagination"]["total"], &first["pagination"]["hasNext"]), (&json!(60), &json!(true)));
    let behind = server.get(&format!("{ITEMS}?category=b&page=9")).await.expect(200);
    assert_eq!(behind["pagination"]["total"], 5);
    let counted = server.get(&format!("{ITEMS}?category=b&cursor=&count=exact")).await.expect(200);
    assert_eq!(counted["pagination"]["total"], 5);
    assert_eq!(counts(&server).await, 0);
    // Behind the end of a filter that nobody has counted, only a count can tell.
    assert_eq!(server.get(&format!("{ITEMS}?category=a&tier=1&page=2")).await.expect(200)["pagination"]["total"], 0);
    assert_eq!(counts(&server).await, 1);
}

#[tokio::test]
async fn without_a_count_there_is_no_count() {
    let server = filled().await;
    let mut cursor = String::new();
    let mut seen = BTreeSet::new();
    loop {
        let page = server.get(&format!("{ITEMS}?category=a&limit=25&cursor={cursor}")).await.expect(200);
        seen.extend(crate::support::fixture::skus(&page));
        match page["pagination"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 60);
    for path in ["?count=none", "?count=none&limit=10&page=2", "?count=none&q=item", "?count=none&category=a&page=99"] {
        let page = server.get(&format!("{ITEMS}{path}")).await;
        assert!(page.expect(200)["pagination"].get("total").is_none() && page.header("x-total-count").is_empty(), "{path}");
    }
    assert_eq!(counts(&server).await, 0);
    assert!(operations(&server, "record_list").await >= 7, "the metric counts");
}
