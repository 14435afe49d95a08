//! What the benches share: a seeded corpus, an installation to run them on, and servers in processes of their own.

#![allow(dead_code, reason = "each bench uses its part")]

pub mod corpus;
pub mod cpu;
pub mod installation;
pub mod load;
pub mod process;
pub mod processors;
pub mod requests;
pub mod second_tier;

use std::path::{Path, PathBuf};

use terrace::config::Settings;

/// Terrace as shipped, with the sample collections, on a database in `directory` and any free port.
pub fn settings(directory: &Path) -> Settings {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut settings = Settings::default();
    settings.http.listen = "127.0.0.1:0".to_owned();
    settings.database.url = format!("sqlite://{}", directory.join("terrace.db").display());
    settings.collections.dir = root.join("config/collections");
    settings.collections.views_dir = root.join("config/views");
    settings.collections.samples_dir = root.join("config/samples");
    settings
}

/// What `measure` says of each of two in run `number`. Who goes first takes turns: a machine that warms up or is throttled favours one
/// of them.
pub fn in_turn<S, T>([first, second]: [S; 2], number: usize, mut measure: impl FnMut(S) -> T) -> [T; 2] {
    if number.is_multiple_of(2) {
        return [first, second].map(measure);
    }
    let second = measure(second);
    [measure(first), second]
}

/// The middle one of `values`.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
