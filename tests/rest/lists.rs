//! Lists: envelope, order, shape, and parameters that are refused.

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::fixture::{ITEMS, item, members, skus};

#[tokio::test]
async fn a_list_has_the_envelope_and_the_four_headers() {
    let server = Server::fixture();
    server.create_items((0..7).map(|number| item(&format!("I{number}"), "a"))).await;
    let reply = server.get("/api/items?limit=3&page=2").await;
    let page = reply.expect(200);
    assert_eq!(page.as_object().unwrap().keys().collect::<Vec<_>>(), ["data", "pagination"]);
    assert_eq!(page["pagination"], json!({"page": 2, "limit": 3, "total": 7, "pages": 3, "hasNext": true, "hasPrev": true}));
    for (name, value) in [("x-total-count", "7"), ("x-page", "2"), ("x-per-page", "3"), ("x-total-pages", "3")] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert_eq!(page["data"].as_array().unwrap().len(), 3);

    let defaults = server.get(ITEMS).await;
    assert_eq!(defaults.json()["pagination"]["limit"], 50);
    let most = server.get("/api/items?limit=5000").await;
    assert_eq!((&most.json()["pagination"]["limit"], most.header("x-per-page")), (&json!(100), "100"));
}

#[tokio::test]
async fn an_empty_list_and_a_page_past_the_end_are_no_errors() {
    let server = Server::fixture();
    let empty = server.get(ITEMS).await;
    assert_eq!(empty.expect(200)["data"], json!([]));
    assert_eq!(
        empty.json()["pagination"],
        json!({"page": 1, "limit": 50, "total": 0, "pages": 0, "hasNext": false, "hasPrev": false})
    );
    assert_eq!(empty.header("x-total-count"), "0");
    server.create_items([item("A", "a")]).await;
    let past = server.get("/api/items?page=9").await;
    assert_eq!(past.expect(200)["data"], json!([]));
    assert_eq!(
        past.json()["pagination"],
        json!({"page": 9, "limit": 50, "total": 1, "pages": 1, "hasNext": false, "hasPrev": true})
    );
    assert!(past.header("link").contains("page=1>; rel=\"prev\""), "{}", past.header("link"));
}

#[tokio::test]
async fn the_default_order_is_the_declared_one() {
    let server = Server::fixture();
    for sku in ["A", "B", "C"] {
        server.create_item(item(sku, "a")).await;
    }
    assert_eq!(skus(&server.get(ITEMS).await.json()), ["C", "B", "A"]);
    server.patch("/api/items/A", &json!({"tier": 1})).await.expect(200);
    assert_eq!(skus(&server.get(ITEMS).await.json()), ["A", "C", "B"]);
}

#[tokio::test]
async fn ties_are_broken_by_the_id_and_missing_values_come_first_going_up() {
    let server = Server::fixture();
    let with = |sku: &str, tier: Value, price: Value| {
        let mut one = item(sku, "a");
        one.as_object_mut().unwrap().extend([("tier".to_owned(), tier), ("price".to_owned(), price)]);
        one.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        one
    };
    server
        .create_items([
            with("E", json!(1), json!(2)),
            with("D", json!(1), json!(10)),
            with("C", Value::Null, json!(1.5)),
            with("B", json!(2), Value::Null),
            with("A", json!(1), json!(2.0)),
        ])
        .await;
    for (sort, expected) in [
        ("tier", "C A D E B"),
        ("-tier", "B A D E C"),
        ("tier,-sku", "C E D A B"),
        ("tier,price", "C A E D B"),
        ("-tier,-price", "B D A E C"),
        ("price", "B C A E D"),
        ("-price,sku", "D A E C B"),
        ("sku", "A B C D E"),
        ("-sku,tier", "E D C B A"),
        ("version,-tier", "B A D E C"),
        ("tier,-tier", "C A D E B"),
    ] {
        let page = server.get(&format!("/api/items?sort={sort}")).await.expect(200);
        assert_eq!(skus(&page).join(" "), expected, "sort={sort}");
    }
}

#[tokio::test]
async fn a_list_shows_only_the_fields_that_are_asked_for() {
    let server = Server::fixture();
    server.post("/api/shelves", &json!({"id": "s", "room": "attic"})).await.expect(201);
    let mut one = item("A", "a");
    one["shelf_id"] = json!("s");
    one["tags"] = json!(["x"]);
    server.create_items([one, item("B", "b")]).await;
    let page = server.get("/api/items?fields=tags,name&sort=sku").await.expect(200);
    let names: Vec<Vec<&String>> =
        page["data"].as_array().unwrap().iter().map(|record| record.as_object().unwrap().keys().collect()).collect();
    for (shown, expected) in names.into_iter().zip([vec!["name", "sku", "tags"], vec!["name", "sku"]]) {
        let mut shown: Vec<&str> = shown.into_iter().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, expected);
    }
    assert_eq!(page["data"][0]["tags"], json!(["x"]));
    let included = server.get("/api/items?include=shelf_id&sort=sku").await.expect(200);
    assert_eq!(included["data"][0]["_include"]["shelf_id"]["room"], "attic");
    assert_eq!(included["data"][1]["_include"], json!({"shelf_id": null}));
    let both = server.get("/api/items?include=shelf_id&fields=name&sku=A").await.expect(200);
    assert_eq!(both["data"][0]["_include"]["shelf_id"]["id"], "s", "{both}");
}

#[tokio::test]
async fn without_a_count_there_is_no_total_but_still_a_next_page() {
    let server = Server::fixture();
    server.create_items((0..5).map(|number| item(&format!("I{number}"), "a"))).await;
    let first = server.get("/api/items?count=none&limit=2").await;
    assert_eq!(first.expect(200)["pagination"], json!({"page": 1, "limit": 2, "hasNext": true, "hasPrev": false}));
    assert_eq!((first.header("x-total-count"), first.header("x-total-pages")), ("", ""));
    assert!(first.header("link").contains("rel=\"next\"") && !first.header("link").contains("rel=\"last\""));
    let last = server.get("/api/items?count=none&limit=2&page=3").await.expect(200);
    assert_eq!(last["pagination"], json!({"page": 3, "limit": 2, "hasNext": false, "hasPrev": true}));
    // A page that is exactly full and the last one must not promise more.
    let full = server.get("/api/items?count=none&limit=5").await.expect(200);
    assert_eq!(full["pagination"]["hasNext"], false);
    let cursor = server.get("/api/items?cursor=&count=exact&limit=2").await.expect(200);
    assert_eq!(cursor["pagination"]["total"], 5);
}

#[tokio::test]
async fn what_is_unknown_or_not_indexed_is_refused_with_what_is_allowed() {
    let server = Server::fixture();
    for (query, parameter, allowed) in [
        ("colour=red", "colour", "category"),
        ("unindexed=x", "unindexed", "category"),
        ("description=x", "description", "category"),
        ("sort=unindexed", "sort", "category"),
        ("sort=tags", "sort", "category"),
        ("sort=", "sort", "category"),
        ("sort=name,", "sort", "category"),
        ("filter[colour][eq]=x", "filter[colour][eq]", "category"),
        ("filter[category][like]=x", "filter[category][like]", "gte"),
        ("filter={\"colour\":1}", "filter", "category"),
        ("filter={\"unindexed\":\"x\"}", "filter", "category"),
        ("fields=colour", "fields", "description"),
        ("fields=", "fields", "description"),
        ("include=category", "include", "shelf_id"),
        ("count=maybe", "count", "none"),
    ] {
        let problem = server.get(&format!("/api/items?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{query}");
        let names: Vec<&str> = problem["allowed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(names.contains(&allowed), "{query}: {names:?}");
    }
    for (query, parameter) in [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=1.5", "page"),
        ("limit=0", "limit"),
        ("limit=-5", "limit"),
        ("limit=", "limit"),
        ("page=1&page=2", "page"),
        ("category=a&category=b", "category"),
        ("cursor=x&page=1", "cursor"),
        ("cursor=nonsense", "cursor"),
        ("q=x&cursor=", "cursor"),
        ("prefix=yes", "prefix"),
        ("highlight=1", "highlight"),
        ("tier=one", "tier"),
        ("tier=1.5", "tier"),
        ("active=yes", "active"),
        ("filter=[1]", "filter"),
        ("filter={", "filter"),
        ("filter[tags][gt]=x", "filter[tags][gt]"),
        ("filter[category][all]=a", "filter[category][all]"),
        ("filter[tier][null]=maybe", "filter[tier][null]"),
    ] {
        let problem = server.get(&format!("/api/items?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
}

#[tokio::test]
async fn a_collection_without_search_fields_cannot_be_searched() {
    let server = Server::fixture();
    let problem = server.get("/api/notes?q=x").await.problem(400, "invalid_parameter");
    assert_eq!(problem["parameter"], "q");
}

#[tokio::test]
async fn the_second_field_of_an_index_can_be_used_where_the_first_is_fixed() {
    let server = Server::fixture();
    for (sku, owner, tier) in [("A", "ann", 2), ("B", "ann", 1), ("C", "bob", 3)] {
        let mut one = item(sku, "a");
        (one["owner"], one["tier"]) = (json!(owner), json!(tier));
        server.create_item(one).await;
    }
    let page = server.get("/api/items?owner=ann&sort=tier").await.expect(200);
    assert_eq!(members(&page, "sku"), ["B", "A"]);
    let page = server.get("/api/items?filter[owner][in]=ann,bob&filter[tier][gte]=2&sort=sku").await.expect(200);
    assert_eq!(members(&page, "sku"), ["A", "C"]);
}
