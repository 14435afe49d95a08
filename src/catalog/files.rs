//! The TOML files of a directory, in the order of their names.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use toml::Table;

use crate::config::{Mistake, Source};

/// Whether a directory must exist and hold files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
}

/// A file, and its table or what is wrong with it.
pub(super) struct TomlFile {
    pub(super) path: PathBuf,
    pub(super) table: Result<Table, Mistake>,
}

/// Reads every `*.toml` of `directory`. Other files and directories in it are left alone.
pub(super) fn read(directory: &Path, presence: Presence, mistakes: &mut Vec<Mistake>) -> Vec<TomlFile> {
    let mut mistake = |detail: String| mistakes.push(Mistake::new(Source::File(directory.to_owned()), "", detail));
    let paths = match list(directory) {
        Ok(paths) => paths,
        Err(error) if error.kind() == ErrorKind::NotFound && presence == Presence::Optional => return Vec::new(),
        Err(error) => {
            mistake(format!("the directory cannot be read: {error}"));
            return Vec::new();
        }
    };
    if paths.is_empty() && presence == Presence::Required {
        mistake("the directory holds no *.toml file; each declares a collection".to_owned());
    }
    paths.into_iter().map(|path| TomlFile { table: read_file(&path), path }).collect()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<Table, Mistake> {
    let source = || Source::File(path.to_owned());
    let text =
        fs::read_to_string(path).map_err(|error| Mistake::new(source(), "", format!("the file cannot be read: {error}")))?;
    text.parse::<Table>().map_err(|error| Mistake::syntax(source(), &text, &error))
}
