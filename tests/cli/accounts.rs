//! `terrace user` and `terrace key`, and the first key that `terrace serve` makes.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use super::*;

const PASSWORD: &[u8] = b"correct horse battery staple\n";

/// The lines that a server prints, until it has said where it is and, perhaps, its first key; and the server.
fn served(installation: &Installation) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = installation.command(&["serve"]);
    command.env("TERRACE_HTTP__LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    let mut banner = String::new();
    while !banner.contains("  try ") {
        assert!(lines.read_line(&mut banner).unwrap() > 0, "{banner}");
    }
    (server, lines, banner)
}

/// Ends it; what else it has printed, and its log.
fn ended(mut server: Child, mut lines: BufReader<std::process::ChildStdout>) -> (String, String) {
    let (mut rest, mut log) = (String::new(), String::new());
    assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
    std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
    std::io::Read::read_to_string(&mut server.stderr.take().unwrap(), &mut log).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0), "{log}");
    (rest, log)
}

#[test]
fn the_first_server_prints_one_key_that_is_nowhere_else_and_no_other_does() {
    let installation = Installation::new();
    let (server, lines, banner) = served(&installation);
    let address = banner.split("address  http://").nth(1).unwrap().lines().next().unwrap().to_owned();
    // Its second server finds it.
    let (beside, beside_lines, _) = served(&installation);
    let (rest, _) = ended(beside, beside_lines);
    assert!(!rest.contains("trk_"), "{rest}");
    let mut lines = lines;
    let mut printed = String::new();
    while !printed.contains("end it") {
        assert!(lines.read_line(&mut printed).unwrap() > 0, "{printed}");
    }
    let key = printed.split_whitespace().find(|word| word.starts_with("trk_")).unwrap().to_owned();
    assert!(printed.contains(&format!("curl -H 'Authorization: Bearer {key}' http://{address}/admin/cache")), "{printed}");
    let asked = |key: &str| {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let head = format!("GET /admin/cache HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(asked(&key).starts_with("HTTP/1.1 200 "));
    let (rest, log) = ended(server, lines);
    let secret = key.split('_').nth(2).unwrap();
    assert!(!rest.contains("trk_") && !log.contains(secret), "{rest}{log}");
    let (server, lines, _) = served(&installation);
    assert!(!ended(server, lines).0.contains("trk_"), "there is a second first key");
    let listed = installation.run(&["key", "list"]).stdout;
    assert!(listed.contains(key.split('_').nth(1).unwrap()) && !listed.contains(secret), "{listed}");
}

#[test]
fn a_server_where_somebody_is_known_makes_no_key() {
    let installation = Installation::new();
    assert_eq!(installation.run(&["key", "create", "mine", "--role", "admin"]).code, Some(0));
    let (server, lines, _) = served(&installation);
    assert!(!ended(server, lines).0.contains("trk_"));
    assert_eq!(installation.run(&["key", "list"]).stdout.lines().count(), 2);
    // What a new database needs was left to the server.
    assert_eq!(installation.run(&["migrate", "--plan"]).stdout, "There is nothing to do.\n");
}

#[test]
fn users_are_added_listed_disabled_and_enabled() {
    let installation = Installation::new();
    let added = installation.pipe(&["user", "add", "Ada@example.org", "--role", "editor"], PASSWORD);
    assert_eq!((added.code, added.stdout.as_str()), (Some(0), "added Ada@example.org, editor\n"), "{added:?}");
    let again = installation.pipe(&["user", "add", "ada@example.org", "--role", "viewer"], PASSWORD);
    assert_eq!((again.code, again.stderr.as_str()), (Some(1), "error: There is a user \"ada@example.org\" already.\n"));
    for (arguments, input, says) in [
        (&["user", "add", "bob@example.org", "--role", "viewer"][..], &b"short\n"[..], "at least 12 characters"),
        (&["user", "add", "bob", "--role", "viewer"], PASSWORD, "NAME@HOST"),
        (&["user", "add", "bob@example.org", "--role", "owner"], PASSWORD, "viewer, editor and admin"),
        (&["user", "add", "bob@example.org"], PASSWORD, "--role"),
        (&["user", "disable", "bob@example.org"], b"", "no user \"bob@example.org\""),
        (&["user", "passwd", "bob@example.org"], PASSWORD, "no user"),
    ] {
        let refused = installation.pipe(arguments, input);
        assert!(refused.code == Some(1) && refused.stderr.contains(says), "{arguments:?}: {refused:?}");
    }
    let listed = |word: &str| installation.run(&["user", "list"]).stdout.lines().nth(1).unwrap().contains(word);
    assert!(listed("ada@example.org  editor  active"));
    assert_eq!(installation.run(&["user", "disable", "ada@example.org"]).code, Some(0));
    assert!(listed("editor  disabled 2"));
    let refused = installation.run(&["key", "create", "hers", "--role", "viewer", "--user", "ada@example.org"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("is disabled"), "{refused:?}");
    assert_eq!(installation.run(&["user", "enable", "ada@example.org"]).code, Some(0));
    assert!(listed("editor  active"));
    assert_eq!(installation.pipe(&["user", "passwd", "ada@example.org"], PASSWORD).code, Some(0));
}

#[test]
fn a_key_is_printed_once_and_listed_without_its_secret() {
    let installation = Installation::new();
    assert_eq!(installation.pipe(&["user", "add", "ada@example.org", "--role", "admin"], PASSWORD).code, Some(0));
    let arguments = ["key", "create", "robot\t1", "--role", "editor", "--scope", "items:read", "--scope", "*:write"];
    let refused = installation.run(&arguments);
    assert!(refused.code == Some(1) && refused.stderr.contains("no control characters"), "{refused:?}");
    let more = ["--user", "ada@example.org", "--expires", "90days", "--quota", "100/15m"];
    let created = installation.run(&[&["key", "create", "robot"], &arguments[3..], &more].concat());
    assert_eq!(created.code, Some(0), "{created:?}");
    let key = created.stdout.trim_end();
    let (prefix, secret) = key.strip_prefix("trk_").unwrap().split_once('_').unwrap();
    assert!(created.stderr.contains(&format!("key revoke {prefix}")) && !created.stderr.contains(secret), "{created:?}");
    let listed = installation.run(&["key", "list"]).stdout;
    let row = listed.lines().find(|line| line.starts_with(prefix)).unwrap();
    for cell in ["robot", "editor", "items:read *:write", "ada@example.org", "100/15m", "until 2"] {
        assert!(row.contains(cell), "{row}");
    }
    assert!(!listed.contains(secret));
    assert_eq!(installation.run(&["key", "revoke", prefix]).stdout, format!("revoked {prefix}\n"));
    assert!(installation.run(&["key", "list"]).stdout.contains("revoked 2"));
    for (arguments, says) in [
        (&["key", "revoke", "nothing"][..], "There is no key with the prefix \"nothing\"."),
        (&["key", "create", "x", "--role", "viewer", "--scope", "items"], "COLLECTION:read"),
        (&["key", "create", "x", "--role", "viewer", "--quota", "5"], "100/15m"),
        (&["key", "create", "x", "--role", "viewer", "--expires", "soon"], "90days"),
        (&["key", "create", "x", "--role", "viewer", "--expires", "9000years"], "before the year 10000"),
        (&["key", "create", "x"], "--role"),
    ] {
        let refused = installation.run(arguments);
        assert!(
            refused.code == Some(1) && refused.stderr.contains(says) && refused.stdout.is_empty(),
            "{arguments:?}: {refused:?}"
        );
    }
}

#[test]
fn what_is_asked_of_a_database_that_is_not_there_does_not_make_one() {
    let installation = Installation::embedded();
    for arguments in [&["user", "list"][..], &["key", "list"], &["key", "revoke", "x"], &["user", "disable", "a@x"]] {
        let refused = installation.run(arguments);
        assert!(refused.code == Some(1) && refused.stderr.contains("there is no database data/terrace.db"), "{refused:?}");
    }
    assert!(!installation.path("data").exists());
}
