//! What an operator sees of a copy while it runs: a bar on a terminal, which begins anew for each stage.

use indicatif::{ProgressBar, ProgressStyle};

/// The bar.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// It does not show where standard error is no terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{msg:22} {bar:40} {percent:>3} % {human_pos} of {human_len} {eta} left")
        {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Begins a stage of `rows` rows, of which `done` need nothing.
    pub(super) fn stage(&self, name: &'static str, rows: u64, done: u64) {
        self.0.set_message(name);
        self.0.set_length(rows);
        self.0.set_position(done);
        self.0.reset_eta();
    }

    pub(super) fn advance(&self, rows: u64) {
        self.0.inc(rows);
    }
}

/// Also where an error ends the command, nothing of the bar stays.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
