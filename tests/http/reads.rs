//! Headers of reads, conditional requests, codings.

use reqwest::Method;

use crate::support::{Reply, Server};

const LIST: &str = "/api/v1/metrics?limit=20";

async fn get_with(server: &Server, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = headers.iter().fold(server.request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
    Reply::read(request).await
}

/// The path of some record.
async fn record_path(server: &Server) -> String {
    let page = server.get("/api/v1/metrics?limit=1").await.expect(200);
    format!("/api/v1/metrics/{}", page["data"][0]["metric_id"].as_str().unwrap())
}

#[tokio::test]
async fn a_read_says_how_it_came_about_and_how_long_it_may_be_kept() {
    let server = Server::start();
    let path = record_path(&server).await;
    let miss = server.get(&path).await;
    assert_eq!((miss.header("x-cache"), miss.header("cache-status")), ("MISS", "terrace; fwd=uri-miss; stored"));
    let hit = server.get(&path).await;
    assert_eq!((hit.header("x-cache"), hit.header("age"), hit.header("vary")), ("HIT", "0", "accept-encoding"));
    let status = hit.header("cache-status");
    assert!(status.starts_with("terrace; hit; ttl=") && status.ends_with("; detail=l1"), "{status}");
    assert_eq!(hit.header("cache-control"), "public, max-age=0, stale-if-error=3600");
    assert_eq!(hit.header("content-type"), "application/json");
    assert_eq!(hit.header("x-content-type-options"), "nosniff");
    assert_eq!(hit.text, miss.text);
}

#[tokio::test]
async fn a_client_that_has_the_entity_gets_no_body() {
    let server = Server::start();
    let path = record_path(&server).await;
    let etag = server.get(&path).await.header("etag").to_owned();
    let coded = format!("{}-br\"", etag.trim_end_matches('"'));
    for known in [etag.as_str(), "*", &format!("W/{etag}"), &format!("\"x\", {etag}"), &coded] {
        let reply = get_with(&server, &path, &[("if-none-match", known)]).await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (304, ""), "{known}");
        assert_eq!(reply.header("etag"), etag);
        assert!(!reply.header("cache-control").is_empty() && !reply.header("vary").is_empty());
    }
    assert_eq!(get_with(&server, &path, &[("if-none-match", "\"other\"")]).await.status, 200);
}

#[tokio::test]
async fn each_coding_has_bytes_and_an_etag_of_its_own() {
    let server = Server::start();
    let plain = server.get(LIST).await;
    assert_eq!(plain.header("content-encoding"), "");
    for (accepted, coding) in [("zstd, br", "zstd"), ("br;q=1, gzip;q=0.5", "br"), ("gzip", "gzip"), ("deflate", "deflate")] {
        let request = server.request(Method::GET, LIST).header("accept-encoding", accepted);
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-encoding"), coding);
        assert_eq!(header("etag"), format!("{}-{coding}\"", plain.header("etag").trim_end_matches('"')));
        let length: usize = header("content-length").parse().unwrap();
        assert!(length * 2 < plain.text.len(), "{coding}: {length}");
    }
    let refused = get_with(&server, LIST, &[("accept-encoding", "br"), ("x-no-compression", "1")]).await;
    assert_eq!((refused.header("content-encoding"), &refused.text), ("", &plain.text));
    let small = get_with(&server, "/api/v1/metrics/_stats", &[("accept-encoding", "br")]).await;
    assert_eq!(small.header("content-encoding"), "");
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start();
    let path = record_path(&server).await;
    for path in [LIST, &path, "/api/v1/metrics/_stats?by=category", "/api/v1/metrics/none", "/health", "/nothing"] {
        let get = server.get(path).await;
        let head = Reply::read(server.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["etag", "content-type", "content-length", "x-total-count", "link"] {
            if (name, path) != ("content-length", "/health") {
                assert_eq!(head.header(name), get.header(name), "{path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn absence_is_cached_too() {
    let server = Server::start();
    server.get("/api/v1/metrics/ABSENT").await.problem(404, "not_found");
    let again = server.get("/api/v1/metrics/ABSENT").await;
    again.problem(404, "not_found");
    assert_eq!(again.header("x-cache"), "HIT");
}
