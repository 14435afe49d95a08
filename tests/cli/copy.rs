//! `terrace copy` from one database to another: what arrives, what is refused, and what an interruption leaves.

mod postgres;
mod refusals;

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::{Connection as _, SimpleConnection as _};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::sqlite::SqliteConnection;

use super::round_trip::hostile_items;
use super::*;

const SOURCE: &str = "sqlite://data/terrace.db";
const TARGET: &str = "sqlite://data/copy.db";

/// A join that does not end while a test runs.
const ENDLESS: &str = "SELECT count(*) FROM artifacts a, artifacts b, artifacts c, artifacts d, artifacts e, artifacts f, \
    artifacts g, artifacts h, artifacts i, artifacts j, artifacts k, artifacts l, artifacts m, artifacts n;";

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// A look into a database from outside.
struct Look(SqliteConnection);

impl Look {
    fn lines(&mut self, query: &str) -> Vec<String> {
        diesel::sql_query(query).load::<Line>(&mut self.0).unwrap().into_iter().map(|row| row.line).collect()
    }

    fn number(&mut self, query: &str) -> i64 {
        self.lines(&format!("SELECT CAST(({query}) AS TEXT) AS line"))[0].parse().unwrap()
    }

    fn run(&mut self, statements: &str) {
        self.0.batch_execute(statements).unwrap();
    }

    /// Everything of an installation, as text.
    fn everything(&mut self) -> Vec<String> {
        let mut all = self.lines(
            "SELECT json_array(collection, id, version, data, created_at, updated_at) AS line FROM records ORDER BY collection, id",
        );
        all.extend(self.lines(
            "SELECT json_array(position, collection, id, operation, version, actor, at, before, after) AS line FROM changes \
             ORDER BY position",
        ));
        all.extend(self.lines("SELECT 'last number ' || seq AS line FROM sqlite_sequence WHERE name = 'changes'"));
        all.extend(self.lines("SELECT name AS line FROM artifacts ORDER BY name"));
        all.extend(self.lines("SELECT json_array(field, value, records.id) AS line FROM array_terms JOIN records ON record = records.rowid ORDER BY 1"));
        all
    }
}

impl Installation {
    fn look(&self, file: &str) -> Look {
        let mut connection = SqliteConnection::establish(self.path(file).to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 20000").unwrap();
        Look(connection)
    }

    fn source(&self) -> Look {
        self.look("data/terrace.db")
    }

    fn target(&self) -> Look {
        self.look("data/copy.db")
    }

    /// Runs over the target's database.
    fn run_on_target(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).env("TERRACE_DATABASE__URL", TARGET).output().unwrap())
    }

    fn copy(&self, more: &[&str]) -> Ran {
        self.run(&[&["copy", "--from", SOURCE, "--to", TARGET], more].concat())
    }

    /// Imports `count` items from `first` on, with ids in the order of their numbers.
    fn import_items(&self, first: usize, count: usize) {
        let lines: String = (first..first + count)
            .map(|number| format!("{{\"key\":\"k{number:04}\",\"title\":\"t{number}\",\"tags\":[\"x\",\"y{}\"]}}\n", number % 7))
            .collect();
        let ran = self.pipe(&["import", "items", "-", "--upsert"], lines.as_bytes());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// A target with tables, in which the insertion of one record does not end.
    fn hang_at(&self, id: &str) {
        assert_eq!(self.run_on_target(&["migrate"]).code, Some(0));
        self.target().run(&format!("CREATE TRIGGER hang BEFORE INSERT ON records WHEN new.id = '{id}' BEGIN {ENDLESS} END"));
    }

    /// Copies until the record at which it hangs, and kills the process there.
    fn interrupt_at(&self, id: &str) {
        self.hang_at(id);
        let mut command = self.command(&["copy", "--from", SOURCE, "--to", TARGET, "--batch-size", "100"]);
        let mut copy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut target = self.target();
        let expected: i64 = id[1..].parse().unwrap();
        eventually(&mut copy, || target.number("SELECT count(*) FROM records") == expected);
        let killed = Command::new("kill").args(["-KILL", &copy.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(copy.wait().unwrap().code(), None, "it was killed");
        target.run("DROP TRIGGER hang");
    }
}

/// Waits for a condition while the process runs.
fn eventually(process: &mut Child, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline && process.try_wait().unwrap().is_none(), "it did not come true");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A source with creations, updates and a deletion, of whose log retention has removed the oldest and the newest row.
fn busy_installation() -> Installation {
    let installation = Installation::embedded();
    let lines: String = hostile_items().iter().map(|item| format!("{item}\n")).collect();
    assert_eq!(installation.pipe(&["import", "items", "-"], lines.as_bytes()).code, Some(0));
    let groups = b"{\"title\":\"one\"}\n{\"title\":\"two\"}\n";
    assert_eq!(installation.pipe(&["import", "groups", "-"], groups).code, Some(0));
    installation.import_items(0, 5);
    installation.import_items(3, 5);
    let updated = b"{\"key\":\"k0000\",\"title\":\"new\"}\n";
    assert_eq!(installation.pipe(&["import", "items", "-", "--upsert"], updated).code, Some(0));
    installation.source().run(
        "INSERT INTO changes (collection, id, operation, version, actor, at, before, after) SELECT collection, id, 'delete', \
         version, 'me', updated_at, data, NULL FROM records WHERE id = 'k0001'; DELETE FROM records WHERE id = 'k0001';\
         INSERT INTO changes (collection, id, operation, version, actor, at, before, after) \
         VALUES ('gone', 'x', 'create', 1, 'me', '2020', NULL, '{}');\
         DELETE FROM changes WHERE position IN (1, (SELECT max(position) FROM changes))",
    );
    installation
}

#[test]
fn a_copy_is_equal_and_goes_on_with_the_next_number() {
    let installation = busy_installation();
    let all = installation.source().everything();
    let copied = installation.copy(&["--batch-size", "3"]);
    assert_eq!((copied.code, copied.stdout.as_str()), (Some(0), ""), "{copied:?}");
    let (records, changes) = (28, 30);
    let said = format!("copied {records} records and {changes} changes in ");
    assert!(copied.stderr.starts_with(&said), "{copied:?}");
    assert!(copied.stderr.contains(&format!("; all {records} records and {changes} changes are equal to their source (")));
    assert_eq!(installation.target().everything(), all);
    assert_eq!(installation.run_on_target(&["migrate", "--plan"]).stdout, "There is nothing to do.\n");
    let is_new = "SELECT user_version FROM pragma_user_version";
    assert_eq!(installation.target().number(is_new), 0, "samples must not be loaded into a copy");

    let back = installation.run(&["copy", "--from", TARGET, "--to", "sqlite://data/back.db"]);
    assert_eq!(back.code, Some(0), "{back:?}");
    assert_eq!(installation.look("data/back.db").everything(), all);

    let newest = "SELECT max(position) FROM changes";
    let before = installation.source().number("SELECT seq FROM sqlite_sequence WHERE name = 'changes'");
    let mut command = installation.command(&["import", "items", "new.ndjson"]);
    installation.write("new.ndjson", "{\"key\":\"new\",\"title\":\"t\"}\n");
    let imported = Ran::of(command.env("TERRACE_DATABASE__URL", TARGET).output().unwrap());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(installation.target().number(newest), before + 1);
}

#[test]
fn either_url_may_come_from_the_settings() {
    let installation = Installation::embedded();
    installation.import_items(0, 3);
    let copied = installation.run(&["copy", "--to", TARGET]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(installation.target().everything(), installation.source().everything());
    let mut back = installation.command(&["copy", "--from", TARGET]);
    let back = Ran::of(back.env("TERRACE_DATABASE__URL", "sqlite://data/third.db").output().unwrap());
    assert_eq!(back.code, Some(0), "{back:?}");
    assert_eq!(installation.look("data/third.db").everything(), installation.source().everything());
}

#[test]
fn a_killed_copy_goes_on_where_it_stopped() {
    let installation = Installation::embedded();
    installation.import_items(0, 1500);
    installation.interrupt_at("k0700");
    let refused = installation.run_on_target(&["export", "items"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("holds a copy that is not whole"), "{refused:?}");

    let other = Installation::embedded();
    other.import_items(0, 1);
    let url = format!("sqlite://{}", other.path("data/terrace.db").display());
    let refused = installation.run(&["copy", "--from", &url, "--to", TARGET]);
    let expected =
        "error: --to holds an interrupted copy of another database: 700 records and 0 changes (--overwrite removes them)\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), expected));

    let copied = installation.copy(&[]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let begins =
        "going on with an interrupted copy: 700 records and 0 changes are there\ncopied 800 records and 1,500 changes in ";
    assert!(copied.stderr.starts_with(begins), "{copied:?}");
    assert!(copied.stderr.contains("all 1,500 records and 1,500 changes are equal"), "{copied:?}");
    assert_eq!(installation.target().everything(), installation.source().everything());
    assert_eq!(installation.run_on_target(&["migrate"]).code, Some(0));
}

#[test]
fn what_the_source_changed_since_an_interruption_is_brought_over() {
    let installation = Installation::embedded();
    installation.import_items(0, 1000);
    installation.interrupt_at("k0500");
    installation.import_items(998, 40);
    let updated = b"{\"key\":\"k0003\",\"title\":\"new\",\"tags\":[\"z\"]}\n{\"key\":\"k0003a\",\"title\":\"between\"}\n";
    assert_eq!(installation.pipe(&["import", "items", "-", "--upsert"], updated).code, Some(0));
    installation.source().run(
        "INSERT INTO changes (collection, id, operation, version, actor, at, before, after) SELECT collection, id, 'delete', \
         version, 'me', updated_at, data, NULL FROM records WHERE id = 'k0004'; DELETE FROM records WHERE id = 'k0004'",
    );
    let copied = installation.copy(&["--batch-size", "7"]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(installation.target().everything(), installation.source().everything());
}

#[test]
fn a_damaged_target_is_reported_row_by_row() {
    let installation = Installation::embedded();
    installation.import_items(0, 800);
    installation.interrupt_at("k0700");
    installation.target().run(
        "UPDATE records SET data = replace(data, '\"t5\"', '\"T5\"') WHERE id = 'k0005';\
         UPDATE records SET version = 7 WHERE id = 'k0006';\
         DELETE FROM records WHERE id = 'k0007';\
         INSERT INTO records (collection, id, version, data, created_at, updated_at) VALUES ('items', 'k0007b', 1, '{}', '', '');\
         UPDATE records SET updated_at = '2020' WHERE id BETWEEN 'k0100' AND 'k0149'",
    );
    let copied = installation.copy(&[]);
    assert_eq!(copied.code, Some(1), "{copied:?}");
    let lines: Vec<&str> = copied.stderr.lines().collect();
    assert_eq!(
        lines[1..7],
        [
            "error: --to is not equal to --from; 54 rows differ:",
            "  items \"k0005\": the document differs",
            "  items \"k0006\": the version differs",
            "  items \"k0007\": is missing in --to",
            "  items \"k0007b\": is in --to only",
            "  items \"k0100\": updated_at differs",
        ],
        "{copied:?}"
    );
    assert_eq!(lines.len(), 24, "20 are told: {copied:?}");
    assert_eq!(lines[22], "  and 34 more");
    assert_eq!(installation.run_on_target(&["export", "items"]).code, Some(1), "it must not be served");

    let anew = installation.copy(&["--overwrite"]);
    assert_eq!(anew.code, Some(0), "{anew:?}");
    assert!(anew.stderr.starts_with("removed 800 records and 800 changes from --to\ncopied 800 records and "), "{anew:?}");
    assert_eq!(installation.target().everything(), installation.source().everything());
}

#[test]
fn a_damaged_log_is_reported_too() {
    let installation = Installation::embedded();
    installation.import_items(0, 300);
    assert_eq!(installation.run_on_target(&["migrate"]).code, Some(0));
    let stop = "BEGIN SELECT raise(ABORT, 'stop'); END";
    installation.target().run(&format!("CREATE TRIGGER stop BEFORE INSERT ON changes WHEN new.position = 250 {stop}"));
    assert_eq!(installation.copy(&["--batch-size", "20"]).code, Some(1));
    installation
        .target()
        .run("DROP TRIGGER stop; UPDATE changes SET actor = 'nobody' WHERE position = 3; DELETE FROM changes WHERE position = 5");
    let copied = installation.copy(&[]);
    assert_eq!(copied.code, Some(1), "{copied:?}");
    let expected = "error: --to is not equal to --from; 2 rows differ:\n  change 3 (items \"k0002\"): the actor differs\n  \
        change 5 (items \"k0004\"): is missing in --to\n--to cannot be served like this; --overwrite copies anew\n";
    assert!(copied.stderr.ends_with(expected), "{copied:?}");
    // What retention has removed from the source since is no damage.
    installation.target().run("UPDATE changes SET actor = 'operator' WHERE position = 3");
    installation.source().run("DELETE FROM changes WHERE position < 10");
    let copied = installation.copy(&[]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
}

#[test]
fn a_source_that_does_not_rest_is_noticed_and_the_rest_brought_over() {
    let installation = Installation::embedded();
    installation.import_items(0, 2000);
    let stopped = Arc::new(AtomicBool::new(false));
    let mut source = installation.source();
    let writer = thread::spawn({
        let stopped = Arc::clone(&stopped);
        move || {
            let mut writes = 0;
            while !stopped.load(Ordering::Relaxed) {
                source.run(&format!(
                    "BEGIN IMMEDIATE; UPDATE records SET version = version + 1 WHERE id = 'k{:04}';\
                     INSERT INTO changes (collection, id, operation, version, actor, at, before, after) SELECT collection, id, \
                     'update', version, 'me', updated_at, data, data FROM records WHERE id = 'k{0:04}'; COMMIT",
                    writes % 2000
                ));
                writes += 1;
            }
        }
    });
    let copied = installation.copy(&[]);
    stopped.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(copied.code, Some(1), "{copied:?}");
    assert!(copied.stderr.starts_with("error: --from was written to while it was copied"), "{copied:?}");
    let again = installation.copy(&[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(installation.target().everything(), installation.source().everything());
}
