//! The five plans that Terrace replaces: each one's directory is started as it is shipped, and answers the requests of
//! that plan's own load script, at the paths that the plan calls.

use serde_json::{Value, json};
use terrace::config::Settings;

use crate::support::fixture::members;
use crate::support::{Server, root};

/// A server on `config/examples/<name>`, with nothing changed but the port and the place of the database.
fn example(name: &str) -> Server {
    let file = root().join("config/examples").join(name).join("terrace.toml");
    let shipped = Settings::load(Some(&file), std::iter::empty()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    Server::start_with(|settings| {
        settings.cache = shipped.cache.clone();
        settings.http.max_body_bytes = shipped.http.max_body_bytes;
        settings.collections.dir = root().join(&shipped.collections.dir);
        settings.collections.views_dir = root().join(&shipped.collections.views_dir);
        settings.collections.samples_dir = root().join(&shipped.collections.samples_dir);
    })
}

async fn create(server: &Server, path: &str, document: Value) -> Value {
    server.post(path, &document).await.expect(201)
}

/// The first of two equal requests loads, the second hits; returns the answer.
async fn cached(server: &Server, path: &str) -> Value {
    let first = server.get(path).await;
    let answer = first.expect(200);
    assert_eq!(first.cache(), "MISS", "{path}");
    let second = server.get(path).await;
    assert_eq!((second.cache(), second.expect(200)), ("HIT", answer.clone()), "{path}");
    answer
}

/// The counts of one field of a part of a view.
fn count(view: &Value, part: &str, field: &str, value: &Value) -> Option<u64> {
    let values = view["data"][part]["by"][field]["values"].as_array().unwrap_or_else(|| panic!("{part}.{field}: {view}"));
    values.iter().find(|one| &one["value"] == value).and_then(|one| one["count"].as_u64())
}

#[tokio::test]
async fn plan_004_lists_reads_filters_and_counts_metrics() {
    let server = Server::start();
    // Its k6 script: the first page, which must have data, from the cache.
    let page = cached(&server, "/api/v1/metrics?page=1&limit=50").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 50);
    assert!(
        page["pagination"]["total"].as_u64().unwrap() >= 50 && page["pagination"]["hasNext"] == true,
        "{}",
        page["pagination"]
    );
    for record in page["data"].as_array().unwrap() {
        for name in ["metric_id", "name", "category"] {
            assert!(record[name].is_string(), "{record}");
        }
    }
    // Its filters: category, tier, owner, business_domain, tags.
    let first = &page["data"][0];
    for (name, value) in [
        ("category", &first["category"]),
        ("tier", &first["tier"]),
        ("owner", &first["owner"]),
        ("business_domain", &first["business_domain"]),
    ] {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let found = cached(&server, &format!("/api/v1/metrics?{name}={text}&limit=100")).await;
        assert!(found["data"].as_array().unwrap().iter().all(|record| record[name] == *value), "{name}");
        assert!(members(&found, "metric_id").contains(&first["metric_id"].as_str().unwrap().to_owned()), "{name}");
    }
    let both = cached(&server, "/api/v1/metrics?filter[tags][any]=checkout,revenue").await;
    assert!(both["pagination"]["total"].as_u64().unwrap() >= 4, "{both}");
    // Its search, ranked, and its statistics in one query.
    let found = cached(&server, "/api/v1/metrics?q=checkout+conversion").await;
    assert_eq!(found["data"][0]["metric_id"], "CHECKOUT-CONVERSION");
    let stats = cached(&server, "/api/v1/metrics/_stats?by=category,owner,business_domain").await;
    assert_eq!(stats["total"], page["pagination"]["total"]);
    let sum: u64 = stats["by"]["category"]["values"].as_array().unwrap().iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert_eq!(stats["total"], sum);
    cached(&server, "/api/v1/metrics/CHECKOUT-CONVERSION").await;
    for path in
        ["/api/v1/domains", "/api/v1/objectives", "/api/v1/objectives?domain_id=commerce&include=domain_id", "/api/v1/overview"]
    {
        cached(&server, path).await;
    }
    let metric = json!({"metric_id": "LOAD-TEST", "name": "Load test", "category": "operational", "tags": ["checkout"]});
    create(&server, "/api/v1/metrics", metric).await;
    let after = server.get("/api/v1/metrics?page=1&limit=50").await.expect(200);
    assert_eq!(after["data"][0]["metric_id"], "LOAD-TEST", "the newest is the first");
    assert_eq!(server.get("/api/v1/domains").await.cache(), "HIT");
}

#[tokio::test]
async fn plan_000_lists_projects_and_creates_issues() {
    let server = example("projects-issues");
    cached(&server, "/api/projects").await;
    let issue = json!({"title": "Test Issue", "description": "This is a test issue", "projectId": "project-id"});
    if server.get("/api/projects/project-id").await.status == 404 {
        // The script names a project that nobody has made yet.
        let problem = server.post("/api/issues", &issue).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/projectId");
        create(&server, "/api/projects", json!({"id": "project-id", "name": "Load test"})).await;
    }
    let before = server.get("/api/issues?projectId=project-id").await.expect(200)["pagination"]["total"].as_u64().unwrap();
    let created = create(&server, "/api/issues", issue).await;
    let listed = server.get("/api/issues?projectId=project-id").await.expect(200);
    assert_eq!((&listed["data"][0]["id"], &listed["pagination"]["total"]), (&created["id"], &json!(before + 1)));
    assert!(members(&server.get("/api/projects").await.expect(200), "id").contains(&"project-id".to_owned()));
    // By status, across moves.
    let path = format!("/api/issues/{}", created["id"].as_str().unwrap());
    server.patch(&path, &json!({"status": "open", "priority": "urgent"})).await.expect(200);
    let open = cached(&server, "/api/issues?projectId=project-id&status=open&include=projectId").await;
    assert!(open["data"][0]["_include"]["projectId"]["name"].is_string(), "{open}");
    let board = cached(&server, "/api/board").await;
    assert!(count(&board, "urgent_issues", "projectId", &json!("project-id")) >= Some(1), "{board}");
    server.patch(&path, &json!({"status": "closed"})).await.expect(200);
    assert!(
        !members(&server.get("/api/issues?status=open&projectId=project-id").await.json(), "id")
            .contains(&created["id"].as_str().unwrap().to_owned())
    );
    let after = server.get("/api/board").await.expect(200);
    assert!(
        count(&after, "urgent_issues", "projectId", &json!("project-id"))
            < count(&board, "urgent_issues", "projectId", &json!("project-id"))
    );
    server.delete("/api/projects/project-id").await.problem(409, "referenced");
}

#[tokio::test]
async fn plan_001_reads_workflows_and_templates_and_logs_executions() {
    let server = example("workflows-templates");
    create(
        &server,
        "/api/templates",
        json!({"id": "plan-report", "name": "Weekly report", "category": "operations", "tags": ["report"]}),
    )
    .await;
    create(&server, "/api/integrations", json!({"id": "plan-mail", "name": "Mail", "kind": "messaging"})).await;
    let workflow = json!({"id": "plan-flow", "name": "Remind trial users", "trigger": "schedule", "status": "active",
        "template_id": "plan-report", "integrations": ["plan-mail"], "tags": ["trial"]});
    create(&server, "/api/workflows", workflow).await;
    // `workflow:${id}`, kept for 300 s.
    let read = cached(&server, "/api/workflows/plan-flow").await;
    assert_eq!(read["trigger"], "schedule");
    for path in [
        "/api/workflows",
        "/api/workflows?status=active&tags=trial",
        "/api/templates?category=operations",
        "/api/integrations",
        "/api/workflows/plan-flow?include=template_id",
    ] {
        let page = cached(&server, path).await;
        assert!(page["data"].as_array().is_none_or(|data| !data.is_empty()), "{path}: {page}");
    }
    let run =
        create(&server, "/api/executions", json!({"workflow_id": "plan-flow", "status": "queued", "trigger": "schedule"})).await;
    let path = format!("/api/executions/{}", run["id"].as_str().unwrap());
    let metadata = cached(&server, "/api/metadata").await;
    server.patch(&path, &json!({"status": "failed", "error": "The mail server refused the message"})).await.expect(200);
    let failed = cached(&server, "/api/executions?workflow_id=plan-flow&status=failed").await;
    assert_eq!(failed["data"][0]["id"], run["id"]);
    assert_eq!(cached(&server, "/api/executions?q=refused+message").await["data"][0]["id"], run["id"]);
    let after = cached(&server, "/api/metadata").await;
    let failures = |view: &Value| count(view, "failures", "workflow_id", &json!("plan-flow")).unwrap_or(0);
    assert_eq!(failures(&after), failures(&metadata) + 1);
    assert!(count(&after, "workflows", "tags", &json!("trial")) >= Some(1), "{after}");
    // "Batch operations for bulk updates."
    let batch = json!({"operations": [{"op": "patch", "id": "plan-flow", "data": {"status": "paused"}}]});
    server.post("/api/workflows/_batch", &batch).await.expect(200);
    assert_eq!(server.get("/api/workflows/plan-flow").await.expect(200)["status"], "paused");
}

#[tokio::test]
async fn plan_002_lists_regions_creates_simulations_and_shows_the_dashboard() {
    let server = example("regions-simulations");
    cached(&server, "/api/regions").await;
    if server.get("/api/regions/test-region").await.status == 404 {
        create(&server, "/api/regions", json!({"id": "test-region", "name": "Test region", "kind": "test"})).await;
    }
    let simulation = json!({"regionId": "test-region", "interventions": ["noise-reduction"]});
    let dashboard = cached(&server, "/api/dashboard").await;
    let runs = |view: &Value| count(view, "simulations", "regionId", &json!("test-region")).unwrap_or(0);
    // "Should handle concurrent simulation requests": ten at once, each a 201.
    let replies = futures_util::future::join_all((0..10).map(|_| server.post("/api/simulations", &simulation))).await;
    let mut ids: Vec<Value> = replies.iter().map(|reply| reply.expect(201)["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 10);
    let after = cached(&server, "/api/dashboard").await;
    assert_eq!(runs(&after), runs(&dashboard) + 10);
    assert!(count(&after, "simulations", "interventions", &json!("noise-reduction")) >= Some(10), "{after}");
    // The plan's query: the last ten completed runs of a user, with their results.
    let run = format!("/api/simulations/{}", ids[0].as_str().unwrap());
    server.patch(&run, &json!({"status": "COMPLETED", "user_id": "ann"})).await.expect(200);
    create(&server, "/api/simulation-results", json!({"run_id": ids[0], "metric": "cai_after", "result_value": 71.5})).await;
    let completed = cached(&server, "/api/simulations?user_id=ann&status=COMPLETED&limit=10").await;
    assert_eq!(members(&completed, "id"), [ids[0].as_str().unwrap()]);
    let results = cached(&server, &format!("/api/simulation-results?run_id={}&include=run_id", ids[0].as_str().unwrap())).await;
    assert_eq!(
        (&results["data"][0]["result_value"], &results["data"][0]["_include"]["run_id"]["user_id"]),
        (&json!(71.5), &json!("ann"))
    );
    create(&server, "/api/discussions", json!({"id": "plan-talk", "title": "Quiet nights", "regionId": "test-region"})).await;
    for body in ["First", "Second"] {
        create(&server, "/api/posts", json!({"discussion_id": "plan-talk", "body": body})).await;
    }
    let posts = cached(&server, "/api/posts?discussion_id=plan-talk").await;
    assert_eq!(members(&posts, "body"), ["Second", "First"], "newest first");
}

#[tokio::test]
async fn plan_003_creates_and_reads_tasks_and_says_that_it_is_healthy() {
    let server = example("tasks");
    let created = create(&server, "/tasks", json!({"task": "Load test task"})).await;
    assert_eq!((created["task"].as_str(), created["version"].as_i64()), (Some("Load test task"), Some(1)));
    let tasks = cached(&server, "/tasks").await;
    assert_eq!(tasks["data"][0]["id"], created["id"]);
    let path = format!("/tasks/{}", created["id"].as_str().unwrap());
    cached(&server, &path).await;
    let summary = cached(&server, "/summary").await;
    server.patch(&path, &json!({"done": true})).await.expect(200);
    let after = server.get("/summary").await.expect(200);
    assert_eq!(after["data"]["open_tasks"]["total"], summary["data"]["open_tasks"]["total"].as_u64().unwrap() - 1);
    assert_eq!(cached(&server, "/tasks?done=true").await["data"][0]["id"], created["id"]);
    assert_eq!(server.delete(&path).await.status, 204);
    server.get(&path).await.problem(404, "not_found");
    assert_eq!(server.get("/health").await.expect(200)["status"], "healthy");
}

#[tokio::test]
async fn the_shipped_samples_are_loaded_once_and_are_believable() {
    let server = Server::start();
    for (path, least) in [("/api/v1/metrics", 40), ("/api/v1/domains", 5), ("/api/v1/objectives", 10)] {
        let page = server.get(path).await.expect(200);
        assert!(page["pagination"]["total"].as_u64().unwrap() >= least, "{path}");
    }
    let missing = server.get("/api/v1/metrics?filter[domain_id][null]=true").await.expect(200);
    assert_eq!(missing["pagination"]["total"], 0, "every sample metric belongs to a domain");
    server.delete("/api/v1/objectives/OBJ-2026-PRIVACY").await;
    let again = server.beside(|_| {});
    again.get("/api/v1/objectives/OBJ-2026-PRIVACY").await.problem(404, "not_found");
}

#[tokio::test]
async fn samples_that_did_not_go_in_at_the_first_start_go_in_at_the_next() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut settings = crate::support::settings(directory.path());
    settings.collections.samples_dir = directory.path().join("samples");
    std::fs::create_dir(&settings.collections.samples_dir).unwrap();
    let file = settings.collections.samples_dir.join("domains.ndjson");
    let shipped = std::fs::read_to_string(root().join("config/samples/domains.ndjson")).unwrap();
    std::fs::write(&file, format!("{shipped}{{\"half a line")).unwrap();
    let refused = terrace::app::App::open(settings.clone()).await.unwrap().serve().await.map(drop).unwrap_err();
    assert!(refused.detail().contains("domains.ndjson"), "{refused}");
    std::fs::write(&file, &shipped).unwrap();
    let server = Server::start_again(directory, settings);
    let page = server.get("/api/v1/domains").await.expect(200);
    assert_eq!(page["pagination"]["total"], shipped.lines().count());
}
