//! A mistake in a file or an environment variable, with its place and what is allowed there. `catalog` reports in
//! the same words.

use std::fmt;
use std::path::PathBuf;

/// Where a setting or a declaration was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file, or the directory that should hold it.
    File(PathBuf),
    /// An environment variable, by its name.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Variable(name) => formatter.write_str(name),
        }
    }
}

/// One mistake. Whoever finds one goes on looking, so that a person sees all of them at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it is.
    pub source: Source,
    /// The dotted key, for example `cache.l1_bytes`, or `line 3` when the file cannot be read as TOML. Empty when the
    /// whole source is at fault.
    pub key: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl Mistake {
    /// A mistake at `key` of `source`.
    pub fn new(source: Source, key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { source, key: key.into(), detail: detail.into() }
    }

    /// What keeps `text`, read from `source`, from being TOML.
    pub fn syntax(source: Source, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        let key = line.map(|line| format!("line {line}")).unwrap_or_default();
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Self::new(source, key, format!("this is not TOML: {message}"))
    }
}

/// `source: key: detail`.
impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.detail)
    }
}
