//! `terrace copy` up to PostgreSQL and down again.

use serde_json::Value;

use super::*;
use crate::support::schema::{Schema, Session};

/// Lines of JSON with documents as text in them, as values. All numbers are doubles, for `1e2` is `100` on PostgreSQL; the
/// command itself has compared every digit.
fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| comparable(serde_json::from_str(line).unwrap_or_else(|_| Value::from(line.as_str())))).collect()
}

fn comparable(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::String(text) if text.starts_with('{') => serde_json::from_str(&text).map_or(Value::String(text), comparable),
        Value::Array(elements) => elements.into_iter().map(comparable).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, comparable(value))).collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn number(session: &mut Session, query: &str) -> i64 {
    session.query(query).unwrap()[0][0].as_ref().unwrap().parse().unwrap()
}

#[test]
fn an_installation_goes_up_to_postgresql_and_comes_down_again() {
    let installation = busy_installation();
    // Members in another order, a number in another spelling, and more digits than a double has.
    installation.import_items(100, 1500);
    installation.source().run(
        "UPDATE records SET data = '{\"weight\":1e2,\"size\":9007199254740993,' || substr(data, 2) WHERE id BETWEEN 'k0200' AND 'k0300'",
    );
    let schema = Schema::create();
    let up = installation.run(&["copy", "--from", SOURCE, "--to", &schema.url()]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let mut session = Session::open(&schema.url()).unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM records_items WHERE search IS NULL"), 0);
    assert!(
        number(&mut session, "SELECT sum(reltuples)::bigint FROM pg_class WHERE relname = 'records_items'") > 1500,
        "no statistics"
    );
    let mut planned = installation.command(&["migrate", "--plan"]);
    let planned = Ran::of(planned.env("TERRACE_DATABASE__URL", schema.url()).output().unwrap());
    assert_eq!(planned.stdout, "There is nothing to do.\n", "{planned:?}");

    let down = installation.run(&["copy", "--from", &schema.url(), "--to", TARGET]);
    assert_eq!(down.code, Some(0), "{down:?}");
    let (source, target) = (installation.source().everything(), installation.target().everything());
    assert_eq!(target.len(), source.len());
    for (target, source) in parsed(&target).iter().zip(&parsed(&source)) {
        assert_eq!(target, source);
    }
    let across = Schema::create();
    let copied = installation.run(&["copy", "--from", &schema.url(), "--to", &across.url()]);
    assert_eq!(copied.code, Some(0), "{copied:?}");

    let last = installation.source().number("SELECT seq FROM sqlite_sequence WHERE name = 'changes'");
    installation.write("new.ndjson", "{\"key\":\"new\",\"title\":\"t\"}\n");
    let mut import = installation.command(&["import", "items", "new.ndjson"]);
    let imported = Ran::of(import.env("TERRACE_DATABASE__URL", schema.url()).output().unwrap());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(number(&mut session, "SELECT max(position) FROM changes"), last + 1);
}

#[test]
fn a_copy_to_postgresql_that_was_killed_goes_on_and_damage_is_reported() {
    let installation = Installation::embedded();
    installation.import_items(0, 1000);
    let schema = Schema::create();
    let url = schema.url();
    let migrated = Ran::of(installation.command(&["migrate"]).env("TERRACE_DATABASE__URL", &url).output().unwrap());
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let mut session = Session::open(&url).unwrap();
    session.execute(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN new; END';\
         CREATE TRIGGER hang BEFORE INSERT ON records_items FOR EACH ROW WHEN (new.id = 'k0500') EXECUTE FUNCTION hang()",
    );
    let mut command = installation.command(&["copy", "--from", SOURCE, "--to", &url, "--batch-size", "100"]);
    let mut copy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(&mut copy, || number(&mut session, "SELECT count(*) FROM records") == 500);
    let sleeping = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'INSERT INTO records_items %' AND pid IN \
        (SELECT pid FROM pg_locks WHERE relation = 'records_items'::regclass)";
    eventually(&mut copy, || number(&mut session, &format!("SELECT count(*) {sleeping}")) == 1);
    assert!(Command::new("kill").args(["-KILL", &copy.id().to_string()]).status().unwrap().success());
    assert_eq!(copy.wait().unwrap().code(), None);
    session.query(&format!("SELECT pg_terminate_backend(pid) {sleeping}")).unwrap();
    session.execute("DROP TRIGGER hang ON records_items");

    let refused = Ran::of(installation.command(&["export", "items"]).env("TERRACE_DATABASE__URL", &url).output().unwrap());
    assert!(refused.code == Some(1) && refused.stderr.contains("holds a copy that is not whole"), "{refused:?}");
    // What the source changed since then is brought over, and what was damaged in the target is told.
    installation.import_items(999, 10);
    assert_eq!(installation.pipe(&["import", "items", "-", "--upsert"], b"{\"key\":\"k0003\",\"title\":\"n\"}\n").code, Some(0));
    session.execute(
        "SET terrace.writer = 'server'; UPDATE records SET data = jsonb_set(data, '{title}', '\"T\"') WHERE id = 'k0005'",
    );
    let again = ["copy", "--from", SOURCE, "--to", &url];
    let copied = installation.run(&again);
    assert_eq!(copied.code, Some(1), "{copied:?}");
    let expected = "going on with an interrupted copy: 500 records and 0 changes are there\nerror: --to is not equal to --from; 1 \
        rows differ:\n  items \"k0005\": the document differs\n--to cannot be served like this; --overwrite copies anew\n";
    assert_eq!(copied.stderr, expected);
    let anew = installation.run(&[&again[..], &["--overwrite"]].concat());
    assert_eq!(anew.code, Some(0), "{anew:?}");
    assert!(
        anew.stderr.starts_with("removed 1,009 records and 1,010 changes from --to\ncopied 1,009 records and 1,010 changes in ")
    );
    let refused = installation.run(&again);
    assert!(refused.stderr.starts_with("error: --to is not empty: it has 1,009 records and 1,010 changes"), "{refused:?}");
}

#[test]
fn what_postgresql_refuses_is_named_without_a_password() {
    let installation = Installation::embedded();
    installation.import_items(0, 1);
    let schema = Schema::create();
    let url = schema.url();
    let up = installation.run(&["copy", "--from", SOURCE, "--to", &url]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let other = url.replacen('?', "?application_name=other&", 1);
    let same = installation.run(&["copy", "--from", &url, "--to", &other]);
    assert_eq!((same.code, same.stderr.as_str()), (Some(1), "error: --from and --to are the same database\n"), "{same:?}");
    for flags in [["--from", SOURCE, "--to"], ["--to", SOURCE, "--from"]] {
        let away = installation.run(&[&["copy"], &flags[..], &["postgres://me:secret@127.0.0.1:1/db"]].concat());
        assert!(away.code == Some(1) && away.stderr.contains(flags[2]) && !away.stderr.contains("secret"), "{away:?}");
    }
    // jsonb cannot hold the character U+0000.
    installation.source().run("UPDATE records SET data = replace(data, '\"t0\"', '\"\\u0000\"') WHERE id = 'k0000'");
    let refused = installation.run(&["copy", "--from", SOURCE, "--to", &url, "--overwrite"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("items \"k0000\" cannot be written: --to: "), "{refused:?}");
}
