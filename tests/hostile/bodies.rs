//! Hostile bodies: malformed, of the wrong type, too large, too deep.

use reqwest::Method;
use serde_json::json;

use super::{Target, fault};
use crate::support::Reply;
use crate::support::fixture::{ITEMS, item};

/// Sends `body` as it is, as JSON.
async fn send(target: &Target, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Reply {
    Reply::read(target.server.request(method, path).header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn a_body_that_is_no_json_document_is_refused_wherever_it_is_sent() {
    let target = Target::new().await;
    let deep_array = "[".repeat(10_000) + &"]".repeat(10_000);
    let deep_object = format!("{{\"sku\":\"X\",\"extra\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let bodies: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"".to_vec(), 400, "malformed_json"),
        (b"   ".to_vec(), 400, "malformed_json"),
        (b"{".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":\"X\",}".to_vec(), 400, "malformed_json"),
        (b"{'sku':'X'}".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":\"X\"} {}".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":NaN}".to_vec(), 400, "malformed_json"),
        (b"{\"tier\":1e999}".to_vec(), 400, "malformed_json"),
        (b"{\"tier\":01}".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":\"\\ud800\"}".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":\"\x00\"}".to_vec(), 400, "malformed_json"),
        (b"\xef\xbb\xbf{}".to_vec(), 400, "malformed_json"),
        (b"{\"sku\":\"\xff\xfe\"}".to_vec(), 400, "invalid_utf8"),
        (b"{\"sku\":\"\xc0\xaf\"}".to_vec(), 400, "invalid_utf8"),
        (b"\xff\xfe{\x00}\x00".to_vec(), 400, "invalid_utf8"),
        (deep_array.into_bytes(), 400, "too_deep"),
        (deep_object.into_bytes(), 400, "too_deep"),
        (b"null".to_vec(), 422, "validation_failed"),
        (b"[]".to_vec(), 422, "validation_failed"),
        (b"\"text\"".to_vec(), 422, "validation_failed"),
        (b"1".to_vec(), 422, "validation_failed"),
        (b"true".to_vec(), 422, "validation_failed"),
        (vec![b' '; 1024 * 1024 + 1], 413, "payload_too_large"),
    ];
    for (method, path) in [
        (Method::POST, "/api/items"),
        (Method::PUT, "/api/items/X"),
        (Method::PATCH, "/api/items/A"),
        (Method::POST, "/api/items/_batch"),
    ] {
        for (body, status, code) in &bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let reply = send(&target, method.clone(), path, body.clone()).await;
            assert_eq!(reply.status.as_u16(), *status, "{method} {path} {shown}: {}", reply.text);
            reply.problem(*status, code);
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn the_place_of_a_member_with_a_strange_name_is_a_pointer_to_it() {
    let target = Target::new().await;
    let reply = target.server.post("/api/items/_batch", &json!({"operations": [{}], "a~/b": 1})).await;
    assert_eq!(fault(&reply, "a batch"), ["/a~0~1b"]);
    let reply = target.server.post("/admin/cache/invalidate", &json!({"a~/b": 1})).await;
    assert_eq!(fault(&reply, "an invalidation"), ["/a~0~1b"]);
    target.assert_untouched().await;
}

#[tokio::test]
async fn a_document_that_breaks_a_rule_is_refused_at_its_place() {
    let target = Target::new().await;
    let good = item("X", "a");
    let with = |name: &str, value: serde_json::Value| {
        let mut one = good.clone();
        one[name] = value;
        one
    };
    for (document, pointer) in [
        (with("name", json!("nul \u{0} inside")), "/name"),
        (with("tags", json!(["\u{0}"])), "/tags/0"),
        (with("extra", json!({"deep": [{"text": "\u{0}"}]})), "/extra/deep/0/text"),
        (with("category", json!("z")), "/category"),
        (with("category", json!(null)), "/category"),
        (with("category", json!(["a"])), "/category"),
        (with("name", json!(5)), "/name"),
        (with("name", json!("")), "/name"),
        (with("tier", json!("1")), "/tier"),
        (with("tier", json!(1.5)), "/tier"),
        (with("tier", json!(true)), "/tier"),
        (with("tier", json!(1e19)), "/tier"),
        (with("tier", json!(18_446_744_073_709_551_615_u64)), "/tier"),
        (with("price", json!("1.5")), "/price"),
        (with("price", json!(-0.01)), "/price"),
        (with("active", json!("true")), "/active"),
        (with("active", json!(1)), "/active"),
        (with("tags", json!("red")), "/tags"),
        (with("tags", json!([["red"]])), "/tags/0"),
        (with("tags", json!([null])), "/tags/0"),
        (with("codes", json!([1, 1e300])), "/codes/1"),
        (with("extra", json!([])), "/extra"),
        (with("shelf_id", json!({"id": "s"})), "/shelf_id"),
        (with("colour", json!("red")), "/colour"),
        (with("__proto__", json!({})), "/__proto__"),
        (with("", json!(1)), "/"),
        (with("a/b~c", json!(1)), "/a~1b~0c"),
        (with("sku", json!(5)), "/sku"),
        (with("sku", json!(null)), "/sku"),
        (with("sku", json!("")), "/sku"),
        (with("sku", json!("../etc/passwd")), "/sku"),
        (with("sku", json!("..")), "/sku"),
        (with("sku", json!("_batch")), "/sku"),
        (with("sku", json!("nul\u{0}l")), "/sku"),
        (with("sku", json!("line\nbreak")), "/sku"),
        (with("sku", json!("x".repeat(256))), "/sku"),
    ] {
        let case = document.to_string();
        let places = fault(&send(&target, Method::POST, ITEMS, case.clone()).await, &case);
        assert_eq!(places, [pointer], "POST {case}");
        let batch = json!({"operations": [{"op": "create", "data": document}]});
        let places = fault(&send(&target, Method::POST, "/api/items/_batch", batch.to_string()).await, &case);
        assert_eq!(places, [format!("/operations/0/data{pointer}")], "batch {case}");
        if pointer != "/sku" {
            let places = fault(&send(&target, Method::PUT, "/api/items/X", case.clone()).await, &case);
            assert_eq!(places, [pointer], "PUT {case}");
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn text_that_is_hostile_to_databases_is_stored_as_it_is() {
    let target = Target::new().await;
    for (number, text) in [
        "'; DROP TABLE records; --",
        "\u{feff}mark",
        "\"quotes\" and \\ and %_",
        "🦀 \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} e\u{301}",
        "</script><mark>",
        "\u{202e}right to left",
        "\u{ffff}\u{10ffff}",
        "\r\n\t\u{7f}\u{1b}[31m",
        "{{7*7}} ${7*7} $1 :name ?",
    ]
    .into_iter()
    .enumerate()
    {
        let mut one = item(&format!("T{number}"), "c");
        (one["name"], one["tags"]) = (json!(text), json!([text]));
        let created = target.server.create_item(one).await.json();
        assert_eq!(created["name"], text);
        assert_eq!(target.server.get(&format!("/api/items/T{number}")).await.expect(200)["name"], text);
        let query: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("name", text).append_pair("tags", text).finish();
        let page = target.server.get(&format!("/api/items?{query}")).await.expect(200);
        assert_eq!(page["pagination"]["total"], 1, "{text:?}");
        let stats = target.server.get(&format!("/api/items/_stats?by=name&{query}")).await.expect(200);
        assert_eq!(stats["by"]["name"]["values"][0]["value"], text);
    }
}

#[tokio::test]
async fn unusual_ids_are_kept_and_found_under_their_escaped_path() {
    let target = Target::new().await;
    for id in ["50%", "a b", "%2e%2e", "emoji 🦀", "a?b#c", "x'; DROP TABLE records; --", "...", "ä", "+", &"x".repeat(255)] {
        let created = target.server.create_item(item(id, "c")).await;
        let path = created.header("location").to_owned();
        assert_eq!(target.server.get(&path).await.expect(200)["sku"], *id, "{path}");
        assert_eq!(target.server.delete(&path).await.status, 204, "{path}");
    }
    assert_eq!(target.server.get("/api/items").await.json()["pagination"]["total"], 2);
}

#[tokio::test]
async fn the_largest_body_is_taken_and_one_byte_more_is_not() {
    let server = crate::support::Server::fixture_with(|settings| settings.http.max_body_bytes = bytesize::ByteSize::b(1_000));
    let document = |length: usize| {
        let empty = json!({"sku": "L", "name": "n", "category": "a", "description": ""}).to_string().len();
        json!({"sku": "L", "name": "n", "category": "a", "description": "x".repeat(length - empty)})
    };
    let problem = server.post(ITEMS, &document(1_001)).await.problem(413, "payload_too_large");
    assert!(problem["detail"].as_str().unwrap().contains("1000"), "{problem}");
    server.get("/api/items/L").await.problem(404, "not_found");
    server.post(ITEMS, &document(1_000)).await.expect(201);
}

/// What a patch adds is small; what it makes of a record must not be large.
#[tokio::test]
async fn no_write_makes_a_record_larger_than_the_largest_body() {
    let server = crate::support::Server::fixture_with(|settings| settings.http.max_body_bytes = bytesize::ByteSize::b(4_000));
    server.create_item(item("A", "a")).await;
    let grow = |number: usize| json!({"extra": {format!("m{number}"): "x".repeat(1_000)}});
    let mut taken = 0;
    let refusal = loop {
        let reply = server.patch("/api/items/A", &grow(taken)).await;
        if reply.status != 200 {
            break reply;
        }
        taken += 1;
        assert!(taken < 10, "it grows and grows");
    };
    let problem = refusal.problem(422, "validation_failed");
    let error = &problem["errors"][0];
    assert_eq!((&error["pointer"], &error["code"]), (&json!(""), &json!("document_too_large")), "{problem}");
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("4000 bytes") && detail.contains("http.max_body_bytes"), "{problem}");
    assert_eq!(taken, 3);
    let operations = json!({"operations": [
        {"op": "create", "data": item("B", "a")}, {"op": "patch", "id": "A", "data": grow(4)},
        {"op": "patch", "id": "B", "data": grow(0)}, {"op": "patch", "id": "B", "data": grow(1)},
    ]});
    let problem = server.post("/api/items/_batch", &operations).await.problem(422, "batch_failed");
    let told = problem["errors"].as_array().unwrap();
    assert_eq!((told.len(), &told[0]["pointer"]), (1, &json!("/operations/1/data")), "{problem}");
    // What goes on is what does not grow, and what shrinks.
    assert_eq!(server.patch("/api/items/A", &json!({"tier": 1})).await.status, 200);
    assert_eq!(server.patch("/api/items/A", &json!({"extra": {"m0": null}})).await.status, 200);
    assert_eq!(server.patch("/api/items/A", &grow(5)).await.status, 200);
}

/// A line of an import may be larger than a body, and the limit may have been higher once.
#[tokio::test]
async fn a_record_that_is_larger_than_a_body_is_changed_and_does_not_grow() {
    let server = crate::support::Server::fixture_with(|settings| settings.http.max_body_bytes = bytesize::ByteSize::b(4_000));
    let app = server.app().await;
    let mut large = item("L", "a");
    large["extra"] = json!({"m": "x".repeat(6_000), "list": [1, 2, 3, {"a": "b"}]});
    let items = app.records().resource("items").unwrap();
    let imported =
        app.records().import(items, &terrace::model::Caller::OPERATOR, vec![large], terrace::records::ImportMode::Create);
    assert!(imported.await.unwrap()[0].is_ok());
    let path = "/api/items/L";
    for number in 0..12 {
        // Its version gets another digit on the way.
        let name = format!("Item {}", number % 2);
        assert_eq!(server.patch(path, &json!({"name": name})).await.status, 200);
    }
    server.patch(path, &json!({"name": "Item 10"})).await.problem(422, "validation_failed");
    assert_eq!(server.patch(path, &json!({"extra": {"m": "x".repeat(3_000)}})).await.status, 200);
    server.patch(path, &json!({"extra": {"n": "x".repeat(3_000)}})).await.problem(422, "validation_failed");
}
