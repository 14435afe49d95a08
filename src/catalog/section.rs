//! Walking a TOML table: each getter reads one key, reports what is wrong with it and goes on with a default, so that
//! one mistake hides no other.

use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use crate::config::{Mistake, Source};
use crate::model::{AccessRule, CollectionName};

/// What no declared name begins with.
const RESERVED: &str = "terrace_";

/// The mistakes of one file.
#[derive(Debug)]
pub(super) struct Report {
    source: Source,
    mistakes: Vec<Mistake>,
}

impl Report {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { source: Source::File(file), mistakes: Vec::new() }
    }

    pub(super) fn add(&mut self, key: impl Into<String>, detail: impl Into<String>) {
        self.mistakes.push(Mistake::new(self.source.clone(), key, detail));
    }

    pub(super) fn len(&self) -> usize {
        self.mistakes.len()
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }
}

/// One table of a file, and where it stands.
pub(super) struct Section<'a> {
    table: &'a Table,
    prefix: String,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a Table) -> Self {
        Self { table, prefix: String::new() }
    }

    /// The dotted key of `key` in this table, as mistakes name it.
    pub(super) fn dotted(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.table.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn refuse_unknown(&self, report: &mut Report, allowed: &[&str]) {
        for key in self.table.keys().filter(|key| !allowed.contains(&key.as_str())) {
            report.add(self.dotted(key), format!("there is no such key; allowed are {}", allowed.join(", ")));
        }
    }

    pub(super) fn text(&self, report: &mut Report, key: &str) -> Option<&'a str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            other => {
                report.add(self.dotted(key), format!("this is {}, but must be a string", type_name(other)));
                None
            }
        }
    }

    pub(super) fn section(&self, report: &mut Report, key: &str) -> Option<Section<'a>> {
        match self.get(key)? {
            Value::Table(table) => Some(Section { table, prefix: format!("{}{key}.", self.prefix) }),
            other => {
                report.add(self.dotted(key), format!("this is {}, but must be a table", type_name(other)));
                None
            }
        }
    }

    pub(super) fn name(&self, report: &mut Report) -> Option<CollectionName> {
        if self.get("name").is_none() {
            report.add(self.dotted("name"), "this key is missing; a name has a to z, 0 to 9 and _, beginning with a letter");
        }
        let text = self.text(report, "name")?;
        let name = CollectionName::parse(text).map_err(|error| report.add(self.dotted("name"), error.detail())).ok()?;
        if text.starts_with(RESERVED) {
            // The change log has accounts under such names.
            report.add(self.dotted("name"), format!("{text:?} begins with {RESERVED}, as only what is the server's own does"));
            return None;
        }
        Some(name)
    }

    pub(super) fn duration(&self, report: &mut Report, key: &str, default: Duration) -> Duration {
        let Some(text) = self.text(report, key) else { return default };
        humantime::parse_duration(text).unwrap_or_else(|_| {
            report.add(self.dotted(key), format!("{text:?} is not a duration; write for example \"30s\", \"10m\" or \"1h\""));
            default
        })
    }

    /// A whole number from `least` to `most`; `least` where there is none.
    pub(super) fn whole_number(&self, report: &mut Report, key: &str, least: u32, most: u32) -> u32 {
        let allowed = format!("allowed are whole numbers from {least} to {most}");
        let detail = match self.get(key) {
            None => return least,
            Some(Value::Integer(number)) => match u32::try_from(*number) {
                Ok(number) if (least..=most).contains(&number) => return number,
                Ok(_) | Err(_) => format!("this is {number}; {allowed}"),
            },
            Some(other) => format!("this is {}; {allowed}", type_name(other)),
        };
        report.add(self.dotted(key), detail);
        least
    }

    /// An access rule; `default` where there is none.
    pub(super) fn access(&self, report: &mut Report, key: &str, default: AccessRule) -> AccessRule {
        match self.text(report, key) {
            None => default,
            Some("public") => AccessRule::Public,
            Some("viewer") => AccessRule::Viewer,
            Some("editor") => AccessRule::Editor,
            Some("admin") => AccessRule::Admin,
            Some("owner") => AccessRule::Owner,
            Some(other) => {
                let allowed = "allowed are public, viewer, editor, admin, owner";
                report.add(self.dotted(key), format!("{other:?} is not an access rule; {allowed}"));
                default
            }
        }
    }
}

/// How mistakes name the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}
