//! Checking, migrating, serving, and what refuses them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use diesel::SqliteConnection;
use diesel::connection::{Connection as _, SimpleConnection as _};

use super::*;

#[test]
fn check_prints_every_mistake_and_serve_refuses_with_the_same_words() {
    let installation = Installation::embedded();
    installation.write("config/terrace.toml", "[http]\nlisten = \"nowhere\"");
    installation.write("config/collections/bad.toml", "name = \"Bad\"\nsort = 5");
    let checked = installation.run(&["check"]);
    assert_eq!(checked.code, Some(1));
    let lines: Vec<_> = checked.stderr.lines().collect();
    let begins = [
        "config/terrace.toml: http.listen: \"nowhere\" is not allowed; write an IP address with a port",
        "config/collections/bad.toml: name: \"Bad\" is not a name",
        "config/collections/bad.toml: schema: this table is missing",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    assert!(lines.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{lines:#?}");

    installation.write("config/terrace.toml", "[http]\nlisten = \"127.0.0.1:0\"");
    let (checked, served) = (installation.run(&["check"]), installation.run(&["serve"]));
    assert_eq!((served.code, checked.code), (Some(1), Some(1)));
    assert_eq!(served.stderr, checked.stderr);
    assert!(!installation.path("data").exists(), "a refused start must not create a database");
}

#[test]
fn check_reads_the_lists_to_warm_as_a_server_would() {
    let installation = Installation::new();
    let warm = "[cache.warm]\nlists = [\"group=a&sort=title\", \"size=5\"]";
    installation.write("config/collections/items.toml", &format!("{ITEMS}\n{warm}"));
    let checked = installation.run(&["check"]);
    let expected = "config/collections/items.toml: cache.warm.lists[1]: ";
    assert!(checked.code == Some(1) && checked.stderr.starts_with(expected), "{checked:?}");
    for word in ["size", "llowed are", "title"] {
        assert!(checked.stderr.contains(word), "{checked:?}");
    }
}

#[test]
fn check_says_so_when_all_is_well() {
    let checked = Installation::new().run(&["check"]);
    assert_eq!((checked.code, checked.stdout.as_str(), checked.stderr.as_str()), (Some(0), "ok: 2 collections, 0 views\n", ""));
}

#[test]
fn what_is_shipped_has_no_mistake() {
    let shipped = &crate::support::root();
    let default = Ran::of(terrace(shipped, &["check"]).output().unwrap());
    assert_eq!((default.code, default.stdout.as_str()), (Some(0), "ok: 3 collections, 1 view\n"), "{default:?}");
    let examples: Vec<_> = fs::read_dir(shipped.join("config/examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        let settings = example.join("terrace.toml");
        let checked = Ran::of(terrace(shipped, &["check", "--config", settings.to_str().unwrap()]).output().unwrap());
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
}

#[test]
fn settings_come_from_the_named_file_and_the_environment() {
    let installation = Installation::new();
    installation.write("other.toml", "[collections]\ndir = \"nowhere\"");
    let checked = installation.run(&["check", "--config", "other.toml"]);
    assert!(checked.code == Some(1) && checked.stderr.starts_with("nowhere: the directory cannot be read"), "{checked:?}");
    let mut command = installation.command(&["--config", "other.toml", "check"]);
    let checked = Ran::of(command.env("TERRACE_COLLECTIONS__DIR", "config/collections").output().unwrap());
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let checked = Ran::of(installation.command(&["check"]).env("TERRACE_HTTP__PORT", "80").output().unwrap());
    assert!(checked.stderr.starts_with("TERRACE_HTTP__PORT: http.port: there is no such setting"), "{checked:?}");
}

#[test]
fn a_plan_changes_nothing_and_migrate_does_what_it_says() {
    let installation = Installation::embedded();
    let planned = installation.run(&["migrate", "--plan"]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.stdout.starts_with("create database data/terrace.db\ncreate "), "{planned:?}");
    assert!(!installation.path("data").exists());
    let migrated = installation.run(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_eq!(migrated.stdout, planned.stdout.replace("create database data/terrace.db\n", ""));
    assert_eq!(installation.run(&["migrate"]).stdout, "There was nothing to do.\n");
    assert_eq!(installation.run(&["migrate", "--plan"]).stdout, "There is nothing to do.\n");

    installation.write("config/collections/items.toml", ITEMS.replace("\"title\", \"group\", ", "\"size\", "));
    let planned = installation.run(&["migrate", "--plan"]);
    let steps: Vec<_> = planned.stdout.lines().collect();
    assert!(steps.iter().any(|step| step.starts_with("create index on items (size")), "{steps:#?}");
    assert_eq!(installation.run(&["migrate", "--plan"]).stdout, planned.stdout);
    assert_eq!(installation.run(&["migrate"]).stdout, planned.stdout);
}

#[test]
fn a_plan_writes_nothing_and_so_waits_for_nobody() {
    let installation = Installation::embedded();
    installation.write("data/terrace.db", "");
    let planned = installation.run(&["migrate", "--plan"]);
    assert!(planned.stdout.starts_with("create database data/terrace.db\ncreate "), "{planned:?}");
    let file = installation.path("data/terrace.db");
    assert_eq!(fs::metadata(&file).unwrap().len(), 0);
    assert_eq!(installation.run(&["migrate"]).code, Some(0));
    let mut writer = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    writer.batch_execute("BEGIN IMMEDIATE").unwrap();
    let planned = installation.run(&["migrate", "--plan"]);
    assert_eq!((planned.code, planned.stdout.as_str()), (Some(0), "There is nothing to do.\n"), "{planned:?}");
}

#[test]
fn usage_that_is_not_understood_is_refused() {
    let installation = Installation::embedded();
    for arguments in
        [&["fly"][..], &[], &["import", "items"], &["import", "items", "-", "--format", "xml"], &["serve", "--port", "1"]]
    {
        let ran = installation.run(arguments);
        assert!(ran.code == Some(1) && !ran.stderr.is_empty() && ran.stdout.is_empty(), "{arguments:?}: {ran:?}");
    }
    let help = installation.run(&["--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("openapi"), "{help:?}");
    for arguments in [["import", "nowhere", "/dev/null"], ["export", "nowhere", "-"]] {
        let ran = installation.run(&arguments);
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.stderr, "error: there is no collection \"nowhere\"; allowed are groups, items\n");
    }
    let ran = installation.run(&["export", "items"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error: there is no database data/terrace.db to export from\n"));
    assert!(!installation.path("data").exists());
}

#[test]
fn openapi_prints_json_without_a_database() {
    let installation = Installation::new();
    let described = installation.run(&["openapi"]);
    assert_eq!((described.code, described.stderr.as_str()), (Some(0), ""));
    let document: serde_json::Value = serde_json::from_str(&described.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/api/v1/items/{id}"].is_object(), "{:?}", document["paths"]);
    assert!(!installation.path("data").exists());
}

#[test]
fn serve_says_where_it_is_and_ends_with_sigterm() {
    let installation = Installation::new();
    let mut command = installation.command(&["serve"]);
    command.env("TERRACE_HTTP__LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let banner: Vec<String> = lines.take(4).collect();
    assert!(banner[1].starts_with("  address  http://127.0.0.1:") && !banner[1].ends_with(":0"), "{banner:?}");
    assert!(banner[3].ends_with("/api/v1/items?limit=2'"), "{banner:?}");
    let stopped = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_requests_in_flight() {
    let installation = Installation::new();
    let mut command = installation.command(&["serve"]);
    command.env("TERRACE_HTTP__LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut banner = BufReader::new(server.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let address = banner.nth(1).unwrap().replace("  address  http://", "");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut unfinished = TcpStream::connect(&address).unwrap();
    let head = "POST /api/v1/items HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    unfinished.write_all(head.as_bytes()).unwrap();
    let has_begun = || {
        let mut asking = TcpStream::connect(&address).unwrap();
        asking.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).unwrap();
        answer.contains("terrace_http_requests_in_flight 2\n")
    };
    while !has_begun() {
        assert!(Instant::now() < deadline, "the request does not begin");
    }
    let terminate = || assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    terminate();
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "the server still takes connections");
    }
    terminate();
    assert_eq!(server.wait().unwrap().code(), Some(1));
    assert!(Instant::now() < deadline, "it waited for the request");
}

#[test]
fn processes_that_migrate_one_database_at_once_all_succeed() {
    let installation = Installation { schema: Some(Schema::create()), ..Installation::embedded() };
    let children = [(); 3].map(|()| {
        let mut command = installation.command(&["migrate"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for child in children {
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let again = installation.run(&["import", "items", "/dev/null"]);
    assert_eq!(again.code, Some(0), "{again:?}");
}
