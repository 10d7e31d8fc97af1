//! How far a load is, for whoever waits for it.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use tidemark_loader::batch::Counts;
use tidemark_loader::files::Identity;

/// A bar on a terminal, a line every few seconds elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    records: Option<u64>,
    before: u64,
    started: Instant,
}

impl Progress {
    pub(super) fn new(identity: Option<&Identity>, before: u64) -> Self {
        let records = identity.map(|i| i.records);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(records, ProgressDrawTarget::stderr());
            let template = match records {
                Some(_) => "loading {bar:40} {human_pos}/{human_len} records, {per_sec}, {eta} left",
                None => "loading {spinner} {human_pos} records, {per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(before);
            bar.reset_eta();
            bar
        });
        Progress { bar, records, before, started: Instant::now() }
    }

    pub(super) fn at(&mut self, read: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.before + read);
        }
    }

    pub(super) fn tick(&mut self, n: Counts) {
        if self.bar.is_none() {
            let done = self.before + n.read;
            let of = self.records.map_or(String::new(), |records| format!(" of {records}"));
            let speed = n.read as f64 / self.started.elapsed().as_secs_f64();
            eprintln!("loaded {done}{of} records, {} dead letters, {speed:.0} events/s", n.dead);
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
