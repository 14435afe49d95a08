//! The rooms of the house and who may use whom, held against the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Every room, and the rooms it may use besides itself, `model` and `error`. `*` is all.
const ROOMS: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("error", &[]),
    ("config", &[]),
    ("faults", &[]),
    ("telemetry", &["config"]),
    ("overload", &["telemetry"]),
    ("tls", &[]),
    ("redis_client", &["config", "telemetry", "tls"]),
    ("store", &["config", "telemetry", "tls"]),
    ("cache", &["config", "faults", "overload", "telemetry", "redis_client"]),
    ("catalog", &["config"]),
    ("auth", &["cache", "config", "faults", "store", "telemetry"]),
    ("limits", &["config", "redis_client", "telemetry"]),
    ("records", &["faults", "cache", "store", "catalog", "auth", "overload", "telemetry"]),
    ("jobs", &["records", "store"]),
    ("http", &["config", "telemetry", "overload", "records", "auth", "limits", "jobs"]),
    ("app", &["*"]),
    ("cli", &["*"]),
    ("lib", &["*"]),
];

/// All source files: their path below `src`, their text, and their code without comments, literals and tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let mut files = Vec::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = if is_test(&path) { String::new() } else { code_of(&text) };
                files.push((path.strip_prefix(root().join("src")).unwrap().to_owned(), text, code));
            }
        }
    }
    assert!(files.len() > 50, "the source was not found");
    files
}

/// Tests of a room may set up what the room itself must not know.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The text without comments, and without a module of tests at its end; literals become `""`.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            code.push_str("\"\"");
            length
        } else {
            code.push(character);
            character.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// The length of the literal that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return raw[hashes + 1..].find(&end).map(|at| 1 + hashes + 1 + at + end.len());
        }
    }
    if text.starts_with("'\"'") {
        return Some(3);
    }
    if text.starts_with("'\\\"'") {
        return Some(4);
    }
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            '"' if !escaped => return Some(at + 2),
            _ => escaped = character == '\\' && !escaped,
        }
    }
    None
}

/// The first segments of everything that is named below `crate::`, also in nested braces.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(group_heads(group)),
            None => rooms.extend(head(rest)),
        }
    }
    rooms
}

fn head(path: &str) -> Option<String> {
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// The heads of `a::{b, c}, d::e}`: `a` and `d`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.extend(head(group[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn room_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Mistakes in `files` against the table: a room that is not in it, and an edge that it does not have.
fn mistakes<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Vec<String> {
    let table: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    let mut mistakes = Vec::new();
    for (path, code) in files {
        let room = room_of(path);
        // The binary is the other crate; it uses the library by its name.
        if room == "main" {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            mistakes.push(format!("{} is in no room of the table", path.display()));
            continue;
        };
        for used in crate_paths(code) {
            let known = table.contains_key(used.as_str());
            let own = used == room || used == "model" || used == "error";
            let forbidden = room == "model" && used != "model" && used != "error" || room == "error" && used != "error";
            if !known || forbidden || !(own || allowed.contains(&"*") || allowed.contains(&used.as_str())) {
                mistakes.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    mistakes
}

#[test]
fn no_room_uses_one_that_the_table_does_not_allow() {
    let sources = sources();
    let found = mistakes(sources.iter().map(|(path, _, code)| (path.as_path(), code.as_str())));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_forbidden_use_is_found_in_every_spelling() {
    for (path, code) in [
        ("http/reads.rs", "use crate::store::Store;"),
        ("http/reads.rs", "use crate::{error::{Error, Result}, store::{Row, Stats}};"),
        ("http/reads.rs", "use crate::{\n    records::Records,\n    cache,\n};"),
        ("http/x/y.rs", "fn f() { crate::cache::Cache::new() }"),
        ("http/reads.rs", "fn f(x: &dyn Fn() -> crate::store::Row) {}"),
        ("model/query.rs", "use crate::config::Settings;"),
        ("error.rs", "use crate::model::Term;"),
        ("cache/mod.rs", "use crate::store::Store;"),
        ("store/mod.rs", "pub(crate) use crate::records::Records;"),
        ("attic/mod.rs", ""),
        ("store/mod.rs", "use crate::attic::Box;"),
    ] {
        assert_eq!(mistakes([(Path::new(path), code)]).len(), 1, "{path}: {code}");
    }
    for (path, code) in [
        ("http/reads.rs", "use crate::{error::{Error, Result}, records::{Answer}};"),
        ("app.rs", "use crate::store::Store;"),
        ("http/reads.rs", "use other_crate::store::Store;"),
        ("records/read.rs", "use crate::cache::{Cache, CacheKey};\nuse crate::store::{Row, Store};"),
    ] {
        assert_eq!(mistakes([(Path::new(path), code)]), [""; 0], "{code}");
    }
    assert_eq!(code_of("a /* crate::b */ \"crate::c\" r#\"crate::\"d\"# '\"' // crate::e\nf").trim(), "a  \"\" \"\" \"\" \nf");
}

#[test]
fn the_map_in_the_library_has_every_room_and_says_the_same() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    for declared in map.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let room = declared.trim_end_matches(';');
        let row = map.lines().find(|line| line.starts_with(&format!("//! | [`{room}`]")));
        let row = row.unwrap_or_else(|| panic!("{room} is not on the map"));
        let told = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        for used in told.split(", ").filter(|used| !matches!(*used, "nothing" | "all")) {
            assert!(table[room].contains(&used), "the map lets {room} use {used}");
        }
        assert_eq!(told == "all", table[room].contains(&"*"), "{room}");
    }
}

#[test]
fn only_the_store_knows_the_database_and_only_http_the_web_server() {
    for (path, _, code) in sources() {
        let room = room_of(&path);
        let mentions = |word: &str| code.contains(word);
        for word in ["diesel", "libsqlite3_sys", "deadpool"] {
            assert!(room == "store" || !mentions(word), "{} mentions {word}", path.display());
        }
        // The limit of bursts is actix-governor's.
        let may_know_actix = matches!(room.as_str(), "http" | "app") || path.ends_with("limits/burst.rs");
        assert!(may_know_actix || !mentions("actix"), "{} mentions actix", path.display());
        assert!(matches!(room.as_str(), "cache") || !mentions("moka::"), "{} mentions moka", path.display());
    }
}

#[test]
fn every_file_says_what_it_owns_and_stays_short() {
    for (path, text, _) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with what it owns", path.display());
        assert!(text.lines().count() <= 400, "{} has {} lines", path.display(), text.lines().count());
    }
}
