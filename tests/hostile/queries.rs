//! Hostile paths and query strings.

use reqwest::Method;
use serde_json::json;

use super::{Target, fault};
use crate::support::fixture::item;

#[tokio::test]
async fn absurd_and_malformed_parameters_are_refused_by_name() {
    let target = Target::new().await;
    let long = "x".repeat(10_240);
    let names = (0..200).map(|number| format!("tier{number}")).collect::<Vec<_>>().join(",");
    let many = (0..101).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let tests = (0..101).map(|number| format!("{{\"tier\":{number}}}")).collect::<Vec<_>>().join(",");
    let nested = format!("{}{{\"tier\":1}}{}", "{\"or\":[".repeat(9), "]}".repeat(9));
    let deep = "[".repeat(10_000);
    for (query, parameter) in [
        ("page=1000000000000000000", "page"),
        ("page=18446744073709551616", "page"),
        ("page=1e3", "page"),
        ("page=%00", "page"),
        ("page=", "page"),
        ("page=1&page=1", "page"),
        ("page=1000002&limit=1", "page"),
        ("limit=-1", "limit"),
        ("limit=%F0%9F%A6%80", "limit"),
        ("limit=0x10", "limit"),
        ("limit=10&limit=20", "limit"),
        ("sort=name;drop", "sort"),
        ("sort=--name", "sort"),
        ("sort=name%00", "sort"),
        ("sort=data", "sort"),
        ("sort=rowid", "sort"),
        (&format!("sort={names}"), "sort"),
        ("q=x&q=y", "q"),
        (&format!("q={long}"), "q"),
        ("q=-only", "q"),
        ("highlight=maybe&q=x", "highlight"),
        ("cursor=%00", "cursor"),
        ("cursor=WyJuYW1lIixbXV0", "cursor"),
        (&format!("cursor={long}"), "cursor"),
        ("fields=*", "fields"),
        ("fields=name%2Cdata", "fields"),
        ("include=../shelves", "include"),
        ("include=shelf_id,owner", "include"),
        ("category%00=a", "category\0"),
        ("rowid=1", "rowid"),
        ("collection=items", "collection"),
        ("data=1", "data"),
        ("tier=99999999999999999999", "tier"),
        ("tier=NaN", "tier"),
        ("tier=1%27%20OR%201=1", "tier"),
        ("price=Infinity", "price"),
        ("price=1e999", "price"),
        ("created_at=yesterday", "created_at"),
        ("version=one", "version"),
        ("filter=", "filter"),
        ("filter=null", "filter"),
        ("filter=%22x%22", "filter"),
        (&format!("filter={deep}"), "filter"),
        (&format!("filter={nested}"), "filter"),
        (&format!("filter={{\"or\":[{tests}]}}"), "filter"),
        (&format!("filter[tier][in]={many}"), "filter[tier][in]"),
        ("filter={\"tier\":{\"in\":[]}}", "filter"),
        ("filter={\"tier\":{\"in\":1}}", "filter"),
        ("filter={\"tier\":{\"eq\":{\"a\":1}}}", "filter"),
        ("filter={\"tier\":null}", "filter"),
        ("filter={\"or\":{\"tier\":1}}", "filter"),
        ("filter={\"tier\":{\"regex\":\".*\"}}", "filter"),
        ("filter[]=1", "filter[]"),
        ("filter[tier]=1", "filter[tier]"),
        ("filter[tier][eq=1", "filter[tier][eq"),
        ("filter[tier][eq][eq]=1", "filter[tier][eq][eq]"),
        ("filter[extra][eq]=1", "filter[extra][eq]"),
        ("=x", ""),
        ("x", "x"),
        ("__proto__=1", "__proto__"),
    ] {
        let case: String = query.chars().take(60).collect();
        let reply = target.server.get(&format!("/api/items?{query}")).await;
        assert_eq!(fault(&reply, &case), [parameter], "{case}: {}", reply.text);
        assert_eq!(reply.status, 400, "{case}");
        assert!(reply.text.len() < 30_000, "{case}: an answer must not be larger than what provoked it");
    }
    let half = target.server.get("/api/items?filter[tier]=1").await.problem(400, "invalid_parameter");
    assert_eq!(half["detail"], "A filter is written filter[field][operator]=value.");
    for query in ["category=%FF", "%FF=a", "q=%C0%AF", "filter=%ED%A0%80"] {
        target.server.get(&format!("/api/items?{query}")).await.problem(400, "invalid_encoding");
        target.server.get(&format!("/api/items/_stats?{query}")).await.problem(400, "invalid_encoding");
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn hostile_search_text_never_fails() {
    let target = Target::new().await;
    let words = (0..32).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    for text in [
        "\"",
        "\"\"",
        "\"unclosed phrase",
        "*",
        "a*",
        "**",
        "NEAR(",
        "NEAR(a b, 2)",
        "a AND",
        "AND",
        "OR",
        "or or",
        "NOT x",
        "a NOT",
        "name:x",
        "name : x",
        "{name description}: x",
        "^x",
        "x + y",
        "(((",
        ")))",
        "-",
        "--",
        "- x",
        "x -",
        "';--",
        "\\",
        "%",
        "_",
        "\u{0}",
        "a\u{0}b",
        "\u{feff}",
        "🦀",
        "日本語",
        "é",
        "e\u{301}",
        "ﬁ",
        "İ",
        "ß",
        "a\u{200d}b",
        "\u{202e}",
        "x\ny",
        "\t",
        "<mark>",
        "items_search",
        "rank",
        "MATCH",
        "1 2 3",
        "1.5",
        "a-b",
        "a_b",
        "C++",
        "\"a\" \"b",
        "the",
        "\"the\"",
        "-the x",
        &words,
    ] {
        for flags in
            ["", "&prefix=true", "&highlight=true&prefix=true", "&sort=name", "&count=none", "&fields=name&highlight=true"]
        {
            let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("q", text).finish();
            let reply = target.server.get(&format!("/api/items?{query}{flags}")).await;
            assert!(reply.status == 200 || reply.status == 400, "{text:?}{flags}: {} {}", reply.status, reply.text);
            if reply.status == 400 {
                assert_eq!(fault(&reply, text), ["q"], "{text:?}");
            }
        }
    }
    target.assert_untouched().await;
}

#[tokio::test]
async fn hostile_ids_and_paths_are_refused_by_every_method() {
    let target = Target::new().await;
    let long = "x".repeat(1_024);
    let body = item("A", "a");
    for segment in
        ["%00", "a%00b", "%2e%2e%2fA", "..%2fA", "%2F", "A%2FB", "%0a", "%7f", "%FF", "%C0%AE", "%", "%4", "%zz", "100%", &long]
    {
        for (method, body) in [
            (Method::GET, None),
            (Method::HEAD, None),
            (Method::PUT, Some(&body)),
            (Method::PATCH, Some(&body)),
            (Method::DELETE, None),
        ] {
            let path = format!("/api/items/{segment}");
            let reply = target.server.send_with(method.clone(), &path, &[], body).await;
            // A client may refuse to send some of them as they are; the raw tests send the rest.
            assert!(matches!(reply.status.as_u16(), 400 | 404), "{method} {segment}: {} {}", reply.status, reply.text);
            if method != Method::HEAD {
                fault(&reply, segment);
            }
        }
    }
    for id in ["%F0%9F%A6%80", "%2541", "'%20OR%201=1", "null", "undefined", "0", "-1", "%20"] {
        target.server.get(&format!("/api/items/{id}")).await.problem(404, "not_found");
    }
    for path in [
        "/api/unknown",
        "/api/unknown/A",
        "/api/unknown/_batch",
        "/api/items/A/tags",
        "/docs/../Cargo.toml",
        "/docs/%2e%2e%2fCargo.toml",
    ] {
        target.server.get(path).await.problem(404, "not_found");
        let reply = target.server.post(path, &json!({})).await;
        assert!(matches!(reply.status.as_u16(), 404 | 405), "{path}: {}", reply.status);
    }
    target.assert_untouched().await;
}
