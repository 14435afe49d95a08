//! What an operator sees of an import: a bar on a terminal, and a summary on any standard error.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::Counts;
use crate::cli::grouped;

/// The bar and the clock.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// A bar over the bytes of `file`, or a spinner for a pipe; neither shows where standard error is no terminal.
    pub(super) fn new(file: &Path) -> Self {
        let size = fs::metadata(file).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match size {
            Some(_) => "{bar:40} {percent:>3} % {msg} {eta} left",
            None => "{spinner} {bytes} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    /// Lets the bar follow what is read of `input`.
    pub(super) fn watch(&self, input: Box<dyn BufRead + Send>) -> Box<dyn BufRead + Send> {
        Box::new(BufReader::with_capacity(64 * 1024, self.bar.wrap_read(input)))
    }

    pub(super) fn advance(&self, counts: &Counts) {
        self.bar.set_message(format!("{} records", grouped(counts.total())));
    }

    /// Writes lines where the bar would stand.
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn finish(&self, counts: &Counts) {
        self.bar.finish_and_clear();
        let _ = writeln!(io::stderr(), "{}", summary(counts, self.started.elapsed().as_secs_f64()));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a rounded rate")]
fn summary(counts: &Counts, seconds: f64) -> String {
    let rate = counts.total() as f64 / seconds.max(0.001);
    format!(
        "created {}, updated {}, unchanged {}, failed {} in {seconds:.1} s ({} records/s)",
        grouped(counts.created),
        grouped(counts.updated),
        grouped(counts.unchanged),
        grouped(counts.failed),
        grouped(rate as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_all_counts_and_the_rate() {
        let counts = Counts { created: 536, updated: 2, unchanged: 0, failed: 0 };
        assert_eq!(summary(&counts, 0.4), "created 536, updated 2, unchanged 0, failed 0 in 0.4 s (1,345 records/s)");
    }
}
