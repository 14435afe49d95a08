//! The commands as processes: what they print, what they leave behind, and their exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "these are tests; what fails here is the test")]

mod accounts;
mod copy;
mod import;
mod round_trip;
mod start;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::support::schema::{Schema, Tested};
use crate::support::terrace;

const ITEMS: &str = r#"
name = "items"
id = "key"
sort = "title"
indexes = ["title", "group", "tags"]
[search]
title = "A"
[references]
group = "groups"
[schema]
required = ["key", "title"]
additionalProperties = false
[schema.properties]
key = { type = "string" }
title = { type = "string" }
group = { type = ["string", "null"] }
size = { type = "integer" }
weight = { type = "number" }
done = { type = "boolean" }
tags = { type = "array", items = { type = "string" } }
sizes = { type = "array", items = { type = "integer" } }
meta = { type = "object" }
"#;

const GROUPS: &str = "name = \"groups\"\n[schema.properties]\ntitle = { type = \"string\" }\n";

/// A directory with declarations, and a database of its own: of the kind that this run is about, if that is a server's.
struct Installation {
    directory: tempfile::TempDir,
    schema: Option<Schema>,
}

/// What a command came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Installation {
    fn new() -> Self {
        let schema = (Tested::now() == Tested::Postgres).then(Schema::create);
        Self { schema, ..Self::embedded() }
    }

    /// On the default database, the file `data/terrace.db`, in every run: for what is said about that file.
    fn embedded() -> Self {
        let installation = Self { directory: tempfile::tempdir().unwrap(), schema: None };
        installation.write("config/collections/items.toml", ITEMS);
        installation.write("config/collections/groups.toml", GROUPS);
        installation
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = terrace(self.directory.path(), arguments);
        command.envs(self.schema.iter().map(|schema| ("TERRACE_DATABASE__URL", schema.url())));
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs with `input` on standard input.
    fn pipe(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that refuses at once does not read.
        let _ = stdin.write_all(input);
        drop(stdin);
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Every record of `items`, without the server's fields, by id.
    fn items(&self) -> Vec<serde_json::Value> {
        let exported = self.run(&["export", "items"]);
        assert_eq!(exported.code, Some(0), "{exported:?}");
        let documents = exported.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        documents
            .map(|mut document| {
                for field in ["version", "created_at", "updated_at"] {
                    assert!(document.as_object_mut().unwrap().remove(field).is_some(), "{field}");
                }
                document
            })
            .collect()
    }

    fn keys(&self) -> Vec<String> {
        self.items().iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect()
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The lines of standard error but the summary, which has a time in it, and the counts of the summary.
    fn report(&self) -> (Vec<&str>, &str) {
        let (summaries, others): (Vec<_>, Vec<_>) = self.stderr.lines().partition(|line| line.starts_with("created "));
        assert_eq!(summaries.len(), 1, "{self:?}");
        (others, summaries[0].split(" in ").next().unwrap())
    }
}
