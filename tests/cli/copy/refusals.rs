//! What `terrace copy` refuses, and how it says so.

use super::*;

#[test]
fn a_target_that_is_not_empty_is_left_alone_unless_told() {
    let installation = Installation::embedded();
    installation.import_items(0, 30);
    assert_eq!(installation.copy(&[]).code, Some(0));
    // Also what is not declared goes.
    installation.target().run(
        "INSERT INTO records (collection, id, version, data, created_at, updated_at) VALUES ('past', 'a', 1, '{}', '', '');\
         UPDATE records SET version = 9 WHERE id = 'k0001'",
    );
    installation.import_items(30, 1);
    let before = installation.target().everything();
    let refused = installation.copy(&[]);
    let expected = "error: --to is not empty: it has 31 records and 30 changes (--overwrite removes them)\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), expected));
    assert_eq!(installation.target().everything(), before);
    let copied = installation.copy(&["--overwrite"]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert!(copied.stderr.starts_with("removed 31 records and 30 changes from --to\ncopied 31 records and 31 changes in "));
    assert_eq!(installation.target().everything(), installation.source().everything());
    // Only the log of records long deleted: that is not empty either.
    installation.target().run("DELETE FROM records");
    assert_eq!(installation.copy(&[]).code, Some(1));
}

#[test]
fn a_record_that_the_target_refuses_is_named() {
    let installation = Installation::embedded();
    installation.import_items(0, 300);
    assert_eq!(installation.run_on_target(&["migrate"]).code, Some(0));
    let refuse = "BEGIN SELECT raise(ABORT, 'not this one'); END";
    installation.target().run(&format!("CREATE TRIGGER no BEFORE INSERT ON records WHEN new.id = 'k0123' {refuse}"));
    let copied = installation.copy(&[]);
    assert_eq!(copied.code, Some(1), "{copied:?}");
    assert!(copied.stderr.starts_with("error: items \"k0123\" cannot be written: --to: not this one"), "{copied:?}");
    installation
        .target()
        .run(&format!("DROP TRIGGER no; CREATE TRIGGER no BEFORE INSERT ON changes WHEN new.position = 17 {refuse}"));
    let copied = installation.copy(&[]);
    assert!(copied.stderr.contains("error: change 17 (items \"k0016\") cannot be written: --to: not this one"), "{copied:?}");
    installation.target().run("DROP TRIGGER no");
    assert_eq!(installation.copy(&[]).code, Some(0));
    assert_eq!(installation.target().everything(), installation.source().everything());
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_made() {
    let installation = Installation::embedded();
    #[track_caller]
    fn refuse(installation: &Installation, from: &str, to: &str, expected: &str) {
        let ran = installation.run(&["copy", "--from", from, "--to", to]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with(&format!("error: {expected}")), "{expected:?}: {ran:?}");
        assert!(!ran.stderr.contains("secret"), "{ran:?}");
    }
    refuse(&installation, SOURCE, TARGET, "there is no database data/terrace.db to copy from (--from)");
    assert!(!installation.path("data").exists());
    installation.import_items(0, 3);
    refuse(&installation, SOURCE, SOURCE, "--from and --to are the same database");
    std::os::unix::fs::symlink("terrace.db", installation.path("data/link.db")).unwrap();
    refuse(&installation, SOURCE, "sqlite://data/link.db", "--from and --to are the same database");
    refuse(&installation, "mysql://me:secret@host/db", TARGET, "--from is not one that Terrace understands");
    refuse(&installation, SOURCE, "mysql://me:secret@host/db", "--to is not one that Terrace understands");
    let ran = installation.run(&["copy", "--from", SOURCE, "postgres://me:secret@host/db"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("postgres://***@host/db") && !ran.stderr.contains("secret"), "{ran:?}");

    installation.look("data/other.db").run("CREATE TABLE other (a)");
    refuse(&installation, "sqlite://data/other.db", TARGET, "--from has no tables of Terrace");
    installation
        .source()
        .run("INSERT INTO records (collection, id, version, data, created_at, updated_at) VALUES ('past', 'a', 1, '{}', '', '')");
    refuse(
        &installation,
        SOURCE,
        TARGET,
        "--from has records of collections that are not declared, so they have no place in --to: past (1)",
    );
    installation.source().run("DELETE FROM records WHERE collection = 'past'");
    installation.source().run("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')");
    refuse(&installation, SOURCE, TARGET, "The database that --from names was migrated by a newer Terrace");
    installation.source().run("DELETE FROM __diesel_schema_migrations");
    refuse(&installation, SOURCE, TARGET, "--from was made by an older Terrace; run `terrace migrate` on it first");
    assert!(!installation.path("data/copy.db").exists(), "nothing was made for nothing");
}
