//! Reading settings: each source in turn, each leaf checked on its own, so that every mistake is found and each is
//! told with the source that has it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source as _, ValueKind};
use serde_json::Value;

use super::allowed::{allowed, in_range};
use super::{Mistake, Settings, Source};

/// Read when it exists, before the file named by `--config`.
const DEFAULT_FILE: &str = "config/terrace.toml";

/// What the names of environment variables begin with.
const PREFIX: &str = "TERRACE_";

impl Settings {
    /// The defaults, then `config/terrace.toml` if there is one, then `file`, which must exist, then the variables of
    /// `environment` that begin with `TERRACE_`. All mistakes of all sources are reported.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Vec<Mistake>> {
        let (settings, mistakes) = Self::read(file, environment);
        if mistakes.is_empty() { Ok(settings) } else { Err(mistakes) }
    }

    /// As [`Settings::load`], but with the settings that are right beside the mistakes, for who goes on checking.
    pub fn read(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> (Self, Vec<Mistake>) {
        Self::read_with_default(Path::new(DEFAULT_FILE), file, environment)
    }

    fn read_with_default(
        default_file: &Path,
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> (Self, Vec<Mistake>) {
        let mut layers = match Layers::new() {
            Ok(layers) => layers,
            Err(mistake) => return (Self::default(), vec![mistake]),
        };
        layers.add_file(default_file, Presence::Optional);
        if let Some(file) = file {
            layers.add_file(file, Presence::Required);
        }
        layers.add_environment(environment);
        layers.finish()
    }
}

/// Whether a file must exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Optional,
    Required,
}

/// The settings so far. `template` stays the defaults: a leaf that is put into it and makes it unreadable is at fault
/// itself, whatever other leaves are.
struct Layers {
    template: Value,
    merged: Value,
    mistakes: Vec<Mistake>,
}

impl Layers {
    fn new() -> Result<Self, Mistake> {
        let template = serde_json::to_value(Settings::default())
            .map_err(|error| Mistake::new(Source::File("defaults".into()), "", error.to_string()))?;
        Ok(Self { merged: template.clone(), template, mistakes: Vec::new() })
    }

    fn finish(mut self) -> (Settings, Vec<Mistake>) {
        // Each leaf was accepted on its own and no rule spans two, so this cannot fail.
        let settings = serde_json::from_value(self.merged).unwrap_or_else(|error| {
            self.mistakes.push(Mistake::new(Source::File("settings".into()), "", error.to_string()));
            Settings::default()
        });
        self.mistakes.sort();
        (settings, self.mistakes)
    }

    fn add_file(&mut self, path: &Path, presence: Presence) {
        let source = Source::File(path.to_owned());
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && presence == Presence::Optional => return,
            Err(error) => {
                self.mistakes.push(Mistake::new(source, "", format!("the file cannot be read: {error}")));
                return;
            }
        };
        match File::from_str(&text, FileFormat::Toml).collect() {
            Ok(sections) => self.add_sections(&source, &sections),
            Err(error) => self.mistakes.push(syntax_mistake(source, &text, &error)),
        }
    }

    fn add_sections(&mut self, source: &Source, sections: &Map<String, config::Value>) {
        for (section, value) in sections {
            let Some(known) = self.keys_of(section) else {
                self.push(source, section, format!("there is no such section; allowed are {}", self.sections()));
                continue;
            };
            let ValueKind::Table(leaves) = &value.kind else {
                self.push(source, section, format!("this is a section, [{section}], with the keys {known}"));
                continue;
            };
            for (key, value) in leaves {
                self.add_leaf(source, section, key, to_json(value));
            }
        }
    }

    fn add_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let variables: Map<String, String> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let source = Environment::with_prefix("TERRACE").prefix_separator("_").separator("__").source(Some(variables));
        let leaves = match source.collect() {
            Ok(leaves) => leaves,
            Err(error) => {
                self.push(&Source::Variable(format!("{PREFIX}*")), "", error.to_string());
                return;
            }
        };
        for (dotted, value) in &leaves {
            let source = Source::Variable(format!("{PREFIX}{}", dotted.replace('.', "__").to_uppercase()));
            let Some((section, key)) = dotted.split_once('.') else {
                let detail = match self.keys_of(dotted) {
                    Some(known) => format!("a setting is named {PREFIX}<SECTION>__<KEY>; the keys of {dotted} are {known}"),
                    None => format!(
                        "there is no such setting; a setting is named {PREFIX}<SECTION>__<KEY>, the sections are {}",
                        self.sections()
                    ),
                };
                self.push(&source, dotted, detail);
                continue;
            };
            let value = self.typed(section, key, value);
            self.add_leaf(&source, section, key, value);
        }
    }

    /// Variables are text. Only where the setting is a number, a truth value or a list does the text become one, so a
    /// password `0123` stays what it is. The elements of a list are separated by commas.
    fn typed(&self, section: &str, key: &str, value: &config::Value) -> Value {
        let text = match &value.kind {
            ValueKind::String(text) => text.as_str(),
            _ => return to_json(value),
        };
        let parsed = match self.template.get(section).and_then(|settings| settings.get(key)) {
            Some(Value::Bool(_)) => text.parse().ok().map(Value::Bool),
            Some(Value::Number(_)) => text.parse::<u64>().ok().map(Value::from),
            Some(Value::Array(_)) => Some(text.split(',').map(str::trim).filter(|element| !element.is_empty()).collect()),
            _ => None,
        };
        parsed.unwrap_or_else(|| Value::from(text))
    }

    fn add_leaf(&mut self, source: &Source, section: &str, key: &str, value: Value) {
        let dotted = format!("{section}.{key}");
        let mut alone = self.template.clone();
        match alone.get_mut(section) {
            None => {
                return self.push(source, &dotted, format!("there is no section {section}; allowed are {}", self.sections()));
            }
            Some(settings) => match settings.get_mut(key) {
                None => {
                    let known = self.keys_of(section).unwrap_or_default();
                    return self.push(source, &dotted, format!("there is no such setting; [{section}] has {known}"));
                }
                Some(leaf) => *leaf = value.clone(),
            },
        }
        if serde_json::from_value::<Settings>(alone).is_ok_and(|settings| in_range(&settings)) {
            if let Some(leaf) = self.merged.get_mut(section).and_then(|settings| settings.get_mut(key)) {
                *leaf = value;
            }
        } else {
            // A database address may carry a password: it is not repeated.
            let shown = if dotted == "database.url" { "this value".to_owned() } else { value.to_string() };
            self.push(source, &dotted, format!("{shown} is not allowed; write {}", allowed(&dotted)));
        }
    }

    fn push(&mut self, source: &Source, key: &str, detail: String) {
        self.mistakes.push(Mistake::new(source.clone(), key, detail));
    }

    fn sections(&self) -> String {
        keys(&self.template)
    }

    fn keys_of(&self, section: &str) -> Option<String> {
        self.template.get(section).map(keys)
    }
}

fn keys(object: &Value) -> String {
    let keys = object.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn syntax_mistake(source: Source, text: &str, error: &config::ConfigError) -> Mistake {
    if let config::ConfigError::FileParse { cause, .. } = error
        && let Some(error) = cause.downcast_ref::<toml::de::Error>()
    {
        return Mistake::syntax(source, text, error);
    }
    Mistake::new(source, "", error.to_string())
}

fn to_json(value: &config::Value) -> Value {
    match &value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => Value::from(*flag),
        ValueKind::I64(number) => Value::from(*number),
        ValueKind::U64(number) => Value::from(*number),
        // No setting is that large; the text is refused where it is put.
        ValueKind::I128(number) => Value::from(number.to_string()),
        ValueKind::U128(number) => Value::from(number.to_string()),
        ValueKind::Float(number) => Value::from(*number),
        ValueKind::String(text) => Value::from(text.as_str()),
        ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
        ValueKind::Array(elements) => elements.iter().map(to_json).collect(),
    }
}

#[cfg(test)]
mod tests;
