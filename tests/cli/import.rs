//! Importing: what is written, what is left out, what is told.

use super::*;
use crate::support::schema::Session;

#[test]
fn bad_lines_are_told_and_left_out_and_the_rest_is_written() {
    let installation = Installation::new();
    let lines = "\u{feff}{\"key\":\"a\",\"title\":\"A\"}\n\nnot json\n{\"key\":\"b\",\"title\":5}\n{\"key\":\"c\",\"title\":\"C\",\"group\":\"none\"}\n\
        {\"key\":\"d/e\",\"title\":\"D\"}\n[]\n{\"title\":\"E\"}\n{\"key\":\"f\",\"title\":\"F\",\"colour\":1,\"size\":\"x\"}\r\n{\"key\":\"g\",\"title\":\"G\"}";
    installation.write("lines.ndjson", lines);
    let ran = installation.run(&["import", "items", "lines.ndjson"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let (told, summary) = ran.report();
    let begins = [
        "lines.ndjson:3: this is not JSON: ",
        "lines.ndjson:4: /title: 5 is not of type \"string\".",
        "lines.ndjson:5: /group: ",
        "lines.ndjson:6: /key: An id has no control characters and no slash.",
        "lines.ndjson:7: A document is a JSON object.",
        "lines.ndjson:8: /key: ",
        "lines.ndjson:9: /",
        "lines.ndjson:9: /",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    assert!(told.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{told:#?}");
    assert_eq!(summary, "created 2, updated 0, unchanged 0, failed 7");
    assert_eq!(installation.keys(), ["a", "g"]);
}

#[test]
fn lines_that_change_a_record_and_change_it_back_leave_it_unchanged() {
    let installation = Installation::new();
    let there_and_back = b"{\"key\":\"a\",\"title\":\"B\"}\n{\"key\":\"a\",\"title\":\"A\"}\n";
    let summary = |ran: Ran| ran.report().1.to_owned();
    let first = installation.pipe(&["import", "items", "-", "--upsert"], there_and_back);
    assert_eq!(summary(first), "created 1, updated 1, unchanged 0, failed 0");
    let again = installation.pipe(&["import", "items", "-", "--upsert"], there_and_back);
    assert_eq!(summary(again), "created 0, updated 0, unchanged 2, failed 0");
}

#[test]
fn an_existing_id_stops_the_import_and_undoes_its_batch() {
    let installation = Installation::new();
    let line = |key: &str| format!("{{\"key\":\"{key}\",\"title\":\"T\"}}\n");
    let input: String = ["a", "b", "c", "d", "b", "e", "f"].map(line).concat();
    let ran = installation.pipe(&["import", "items", "-", "--batch-size", "3"], input.as_bytes());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let (told, summary) = ran.report();
    assert_eq!(
        told,
        [
            "error: -:5: /key: There is a record \"b\" already: nothing of lines 4 to 6 was written; 3 records were written before and stay \
          (--upsert replaces)"
        ]
    );
    assert_eq!(summary, "created 3, updated 0, unchanged 0, failed 0");
    assert_eq!(installation.keys(), ["a", "b", "c"]);

    let twice: String = ["x", "y", "x"].map(line).concat();
    let ran = installation.pipe(&["import", "items", "-"], twice.as_bytes());
    assert!(ran.code == Some(1) && ran.stderr.contains("-:3: /key: "), "{ran:?}");
    assert_eq!(installation.keys(), ["a", "b", "c"]);
}

#[test]
fn upsert_replaces_and_leaves_alone_what_is_equal() {
    let installation = Installation::new();
    let first = "{\"key\":\"a\",\"title\":\"A\"}\n{\"key\":\"b\",\"title\":\"B\",\"size\":1}\n";
    let second = "{\"title\":\"A\",\"key\":\"a\"}\n{\"key\":\"b\",\"title\":\"B2\"}\n{\"key\":\"c\",\"title\":\"C\"}\n";
    assert_eq!(installation.pipe(&["import", "items", "-", "--upsert"], first.as_bytes()).code, Some(0));
    let ran = installation.pipe(&["import", "items", "-", "--upsert"], second.as_bytes());
    assert_eq!((ran.code, ran.report().1), (Some(0), "created 1, updated 1, unchanged 1, failed 0"));
    let versions: Vec<_> = installation.run(&["export", "items"]).stdout.lines().map(version).collect();
    assert_eq!(versions, [1, 2, 1]);
    assert_eq!(installation.items()[1], serde_json::json!({"key": "b", "title": "B2"}));
}

fn version(line: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap()["version"].as_i64().unwrap()
}

#[test]
fn invalid_utf8_and_long_lines_are_bad_lines() {
    let installation = Installation::new();
    let mut input = b"{\"key\":\"a\",\"title\":\"\xff\"}\n{\"key\":\"b\",\"title\":\"".to_vec();
    input.extend(std::iter::repeat_n(b'x', 2 * 1024 * 1024));
    input.extend(b"\"}\n{\"key\":\"c\",\"title\":\"C\"}\n");
    let ran = installation.pipe(&["import", "items", "-"], &input);
    let (told, summary) = ran.report();
    assert_eq!((ran.code, summary), (Some(2), "created 1, updated 0, unchanged 0, failed 2"));
    assert_eq!(told[0], "-:1: this is not UTF-8 after 20 bytes");
    assert!(told[1].starts_with("-:2: a line has at most "), "{told:?}");
}

#[test]
fn csv_is_typed_by_the_schema() {
    let installation = Installation::new();
    let table = "key,title,size,weight,done,tags,sizes,meta\r\n0123,\"a \"\"b\"\", c\",7,1.5,true,x;y,1;2,\"{\"\"a\"\":[1]}\"\r\n\
        \r\nk2,\"two\nlines\",,,,,,\nk3,bad,many,,,,,\nk4,short\n";
    installation.write("items.csv", table);
    let ran = installation.run(&["import", "items", "items.csv"]);
    let (told, summary) = ran.report();
    assert_eq!((ran.code, summary), (Some(2), "created 2, updated 0, unchanged 0, failed 2"));
    assert_eq!(
        told,
        ["items.csv:6: /size: \"many\" is not of type \"integer\".", "items.csv:7: the row has 2 cells, but the header 8",]
    );
    let expected = [
        serde_json::json!({"key": "0123", "title": "a \"b\", c", "size": 7, "weight": 1.5, "done": true, "tags": ["x", "y"],
            "sizes": [1, 2], "meta": {"a": [1]}}),
        serde_json::json!({"key": "k2", "title": "two\nlines"}),
    ];
    assert_eq!(installation.items(), expected);
}

#[test]
fn a_csv_file_without_a_good_header_is_refused() {
    let installation = Installation::new();
    for (table, reason) in [("", "begins with the names of its fields"), ("key,key\n", "\"key\""), ("key,\n", "\"\"")] {
        let ran = installation.pipe(&["import", "items", "-", "--format", "csv"], table.as_bytes());
        assert!(ran.code == Some(1) && ran.stderr.contains("error: -:1: ") && ran.stderr.contains(reason), "{table:?}: {ran:?}");
    }
    let unknown = installation.pipe(&["import", "items", "-", "--format", "csv"], b"key,title,colour\na,A,red\n");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.starts_with("-:2: /colour: There is no such property; allowed are key, title,"), "{unknown:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let installation = Installation::new();
    for file in ["missing.ndjson", "config"] {
        let ran = installation.run(&["import", "items", file]);
        assert!(ran.code == Some(1) && ran.stderr.starts_with(&format!("error: {file} cannot be read: ")), "{ran:?}");
    }
    assert!(!installation.path("data").exists());
}

#[test]
fn an_import_ends_with_the_statistics_that_postgresql_plans_by() {
    let schema = Schema::create();
    let mut session = Session::open(&schema.url()).unwrap();
    let installation = Installation { schema: Some(schema), ..Installation::embedded() };
    let mut lines: String = (0..5_000).map(|at| format!("{{\"key\":\"k{at}\",\"title\":\"T\"}}\n")).collect();
    // There already: the import is stopped, and what it wrote before stays.
    lines.push_str("{\"key\":\"k0\",\"title\":\"T\"}\n");
    let ran = installation.pipe(&["import", "items", "-"], lines.as_bytes());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let counted = session.query("SELECT reltuples FROM pg_class WHERE oid = 'records_items'::regclass").unwrap();
    assert_eq!(counted[0][0].as_deref(), Some("5000"));
}
