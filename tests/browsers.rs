//! What browsers are told: what an answer may do on a page, and which pages may ask.

use reqwest::Method;
use serde_json::json;

use crate::support::fixture::{ITEMS, item};
use crate::support::{Reply, Server};

const ORIGIN: &str = "https://app.example.com";

async fn with_origins(origins: &[&str]) -> Server {
    let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let server = Server::fixture_with(|settings| settings.cors.origins = origins);
    server.create_item(item("A", "a")).await;
    server
}

async fn preflight(server: &Server, path: &str, origin: &str, method: &str, headers: &str) -> Reply {
    let asked = [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", headers)];
    server.send_with(Method::OPTIONS, path, &asked, None).await
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let server = Server::fixture();
    server.create_item(item("A", "a")).await;
    let hit = server.get("/api/items/A").await;
    let answers = [
        hit,
        server.get("/api/items/A").await,
        server.get(ITEMS).await,
        server.get("/api/items/none").await,
        server.get("/nothing").await,
        server.get("/docs/none.js").await,
        server.post(ITEMS, &json!({})).await,
        server.delete("/api/items/none").await,
        server.get("/health").await,
        server.get("/metrics").await,
        server.get("/openapi.json").await,
    ];
    for answer in &answers {
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", answer.text);
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{}", answer.text);
        assert_eq!(answer.header("referrer-policy"), "", "data has no links: {}", answer.text);
        assert_eq!(answer.header("strict-transport-security"), "", "this is no TLS");
    }
    let known = server.get_with("/api/items/A", &[("if-none-match", answers[0].header("etag"))]).await;
    assert_eq!((known.status.as_u16(), known.header("content-security-policy")), (304, ""));
    assert_eq!(known.header("x-content-type-options"), "nosniff");
    let page = server.get("/docs/").await;
    assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
    assert!(page.header("content-security-policy").contains("frame-ancestors"));
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "no-referrer"));
}

#[tokio::test]
async fn pages_of_other_origins_may_do_nothing_unless_the_settings_name_them() {
    let silent = with_origins(&[]).await;
    let reply = silent.get_with("/api/items/A", &[("origin", ORIGIN)]).await;
    assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (200, ""));
    assert!(!reply.header("vary").to_lowercase().contains("origin"), "{}", reply.header("vary"));
    let refused = preflight(&silent, ITEMS, ORIGIN, "POST", "content-type").await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (204, ""));

    let server = with_origins(&[ORIGIN, "http://localhost:5173"]).await;
    for origin in ["https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"] {
        let reply = server.get_with("/api/items/A", &[("origin", origin)]).await;
        assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (200, ""), "{origin}");
        let refused = preflight(&server, ITEMS, origin, "POST", "content-type").await;
        assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (400, ""), "{origin}");
    }
}

#[tokio::test]
async fn pages_of_named_origins_may_send_and_read_what_terrace_has() {
    let server = with_origins(&[ORIGIN, "http://localhost:5173"]).await;
    for origin in [ORIGIN, "http://localhost:5173"] {
        for outcome in ["MISS", "HIT"] {
            let path = if origin == ORIGIN { "/api/items/A?fields=sku" } else { "/api/items/A?fields=name" };
            let reply = server.get_with(path, &[("origin", origin)]).await;
            assert_eq!((reply.cache(), reply.header("access-control-allow-origin")), (outcome, origin));
            let vary = reply.headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_lowercase());
            let vary = vary.collect::<Vec<_>>().join(", ");
            assert!(vary.contains("origin") && vary.contains("accept-encoding"), "{vary}");
            assert_eq!(reply.header("access-control-allow-credentials"), "", "no cookies");
        }
    }
    let reply = server.get_with("/api/items", &[("origin", ORIGIN)]).await;
    let shown = reply.header("access-control-expose-headers").to_lowercase();
    for name in reply.headers.keys().map(|name| name.as_str()) {
        // Those that pages may read anyway, and those that are for the browser alone.
        let always = ["cache-control", "content-length", "content-type"].contains(&name);
        let browsers = ["date", "vary", "content-security-policy", "referrer-policy", "x-content-type-options"].contains(&name);
        let listed = shown.split(',').any(|shown| shown.trim() == name);
        assert!(always || browsers || listed || name.starts_with("access-control-"), "{name} is not in {shown}");
    }
    let allowed = preflight(&server, "/api/items/A", ORIGIN, "PATCH", "authorization, if-match, content-type").await;
    assert_eq!((allowed.status.as_u16(), allowed.header("access-control-allow-origin")), (200, ORIGIN));
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(allowed.header("access-control-max-age"), "3600");
    let strange = preflight(&server, "/api/items/A", ORIGIN, "PATCH", "x-strange").await;
    assert_eq!(strange.status, 400);
    // Not a question of a browser's, but of anybody's.
    let options = server.send_with(Method::OPTIONS, "/api/items/A", &[], None).await;
    assert_eq!(options.status, 204);
    assert!(options.header("allow").contains("PATCH"));
}

#[tokio::test]
async fn all_origins_are_a_star_and_never_get_credentials() {
    let server = with_origins(&["*"]).await;
    let reply = server.get_with("/api/items/A", &[("origin", "https://anybody.example")]).await;
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(reply.header("access-control-allow-credentials"), "");
    let problem = server.get_with("/api/items/none", &[("origin", "https://anybody.example")]).await;
    assert_eq!((problem.status.as_u16(), problem.header("access-control-allow-origin")), (404, "*"));
}
