//! The shipped installations behind a login, as their comments say to write it.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::support::root;

/// The files of `directory` in a new one below `to`, for viewers to read and editors to write.
fn closed(directory: &str, part: &str, to: &TempDir) -> std::path::PathBuf {
    let (from, to) = (root().join(directory).join(part), to.path().join(part));
    fs::create_dir(&to).unwrap();
    for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&file).unwrap();
        let closed = text.replace("read = \"public\"", "read = \"viewer\"").replace("write = \"public\"", "write = \"editor\"");
        assert_ne!(closed, text, "{} says nothing of access", file.display());
        fs::write(to.join(file.file_name().unwrap()), closed).unwrap();
    }
    to
}

#[tokio::test]
async fn every_shipped_installation_can_be_put_behind_a_login() {
    for directory in [
        "config",
        "config/examples/projects-issues",
        "config/examples/workflows-templates",
        "config/examples/regions-simulations",
        "config/examples/tasks",
    ] {
        let files = TempDir::new().unwrap();
        let (collections, views) = (closed(directory, "collections", &files), closed(directory, "views", &files));
        let server = Server::start_with(|settings| {
            settings.collections.dir = collections;
            settings.collections.views_dir = views;
            settings.collections.samples_dir = root().join(directory).join("samples");
        });
        let app = App::open(server.settings.clone()).await.unwrap();
        let (viewer, editor) = (known("v", Role::Viewer), known("e", Role::Editor));
        let declared = app.records().declared();
        let mut records = 0;
        for resource in declared.collections() {
            let path = resource.collection().path.as_str();
            server.get(path).await.problem(401, "unauthenticated");
            server.get(&format!("{path}/_stats")).await.problem(401, "unauthenticated");
            server.post(path, &json!({})).await.problem(401, "unauthenticated");
            let name = resource.collection().name.as_str();
            let Shown::Found { text, .. } = shown(answer(app.records(), &viewer, name).await).await else { panic!("{name}") };
            records += serde_json::from_str::<Value>(&text).unwrap()["data"].as_array().unwrap().len();
            let nothing = app.records().create(resource, &viewer, json!({}), None).await.map(|_| ()).unwrap_err();
            assert_eq!(nothing.code(), "forbidden", "{name}");
            let invalid = app.records().create(resource, &editor, json!({}), None).await.map(|_| ());
            assert!(invalid.as_ref().map_or_else(|error| error.code() == "validation_failed", |()| true), "{name}: {invalid:?}");
        }
        for view in declared.views() {
            server.get(view.view().path.as_str()).await.problem(401, "unauthenticated");
            assert!(app.records().view(view, &viewer, &Freshness::ANY).await.is_ok());
        }
        assert!(records > 0, "{directory}: the samples are not imported");
    }
}
