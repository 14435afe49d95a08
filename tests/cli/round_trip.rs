//! What is exported can be imported again, whatever the text; and exporting into a closed pipe.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::*;

pub(super) fn hostile_items() -> Vec<Value> {
    let texts = [
        "plain",
        "",
        "comma, semicolon; quote \" apostrophe '",
        "\"quoted\"",
        "line\nbreak\r\nand\ttab",
        "emoji 🦀👩‍👩‍👧 e\u{301}",
        "  spaces  ",
        "=1+1",
        "[1,2]",
        "{\"a\":1}",
        "null",
        "true",
        "0123",
        "1e5",
        "\\\\ \\n \u{1} \u{7f} \u{2028}",
        "'; DROP TABLE records; --",
    ];
    let mut items: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            json!({"key": format!("k{number:02}"), "title": text, "size": number, "weight": number as f64 / 3.0, "done": number % 2 == 0,
                "tags": [text, "x"], "sizes": [number, -1], "meta": {*text: [text, null, 1.5]}})
        })
        .collect();
    items.push(json!({"key": "no tags 🦀", "title": "t", "tags": [], "sizes": [], "meta": {}}));
    items.push(json!({"key": "k;1", "title": "t", "tags": [""]}));
    items.push(json!({"key": "k,\"2\"", "title": "t", "tags": ["[\"a\"]"], "weight": 1e300, "size": 9007199254740993_i64}));
    items
}

#[test]
fn exported_records_come_back_equal_in_both_formats() {
    let items = hostile_items();
    let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
    let source = Installation::new();
    let ran = source.pipe(&["import", "items", "-"], lines.as_bytes());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let stored = source.items();
    assert_eq!(stored.len(), items.len());
    assert!(items.iter().all(|item| stored.contains(item)));
    for format in ["ndjson", "csv"] {
        let file = source.path(&format!("items.{format}"));
        let exported = source.run(&["export", "items", file.to_str().unwrap()]);
        assert!(exported.code == Some(0) && exported.stdout.is_empty(), "{exported:?}");
        assert!(exported.stderr.starts_with(&format!("exported {} records of items to ", items.len())), "{exported:?}");
        let target = Installation::new();
        let imported = target.run(&["import", "items", file.to_str().unwrap()]);
        assert_eq!(imported.code, Some(0), "{imported:?}");
        assert_eq!(target.items(), stored, "{format}");
        let again = source.run(&["import", "items", file.to_str().unwrap(), "--upsert"]);
        assert_eq!(again.report().1, format!("created 0, updated 0, unchanged {}, failed 0", items.len()), "{format}");
    }
}

#[test]
fn generated_ids_come_back_too() {
    let source = Installation::new();
    let ran = source.pipe(&["import", "groups", "-"], b"{\"title\":\"one\"}\n{\"title\":\"two\"}\n");
    assert_eq!((ran.code, ran.report().1), (Some(0), "created 2, updated 0, unchanged 0, failed 0"));
    for format in ["ndjson", "csv"] {
        let exported = source.run(&["export", "groups", "--format", format]).stdout;
        let target = Installation::new();
        let ran = target.pipe(&["import", "groups", "-", "--format", format], exported.as_bytes());
        assert_eq!(ran.report().1, "created 2, updated 0, unchanged 0, failed 0");
        let ids = |text: &str| -> Vec<String> {
            let documents = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            documents.map(|document| document["id"].as_str().unwrap().to_owned()).collect()
        };
        let (there, here) = (source.run(&["export", "groups"]).stdout, target.run(&["export", "groups"]).stdout);
        assert_eq!(ids(&there), ids(&here));
    }
}

#[test]
fn an_empty_collection_exports_nothing_but_a_header() {
    let installation = Installation::new();
    assert_eq!(installation.run(&["migrate"]).code, Some(0));
    assert_eq!(installation.run(&["export", "items"]).stdout, "");
    let header = installation.run(&["export", "groups", "-", "--format", "csv"]).stdout;
    assert_eq!(header, "id,title,version,created_at,updated_at\n");
}

#[test]
fn a_closed_pipe_ends_an_export_quietly() {
    let installation = Installation::new();
    let title = "x".repeat(1000);
    let lines: String = (0..2000).map(|number| format!("{{\"key\":\"{number}\",\"title\":\"{title}\"}}\n")).collect();
    assert_eq!(installation.pipe(&["import", "items", "-"], lines.as_bytes()).code, Some(0));
    for format in ["ndjson", "csv"] {
        let mut command = installation.command(&["export", "items", "--format", format]);
        let mut export = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = export.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let ran = Ran::of(export.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{format}");
    }
}
