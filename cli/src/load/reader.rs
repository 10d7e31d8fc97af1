//! From a file to batches: what it is, which records of it come next.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{is_stdin, joined, unreadable};
use tidemark_loader::batch::{BatchLimits, RawBatch, RecordKind, Slot};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::files::{self, Content, Identity, Record, Records};

pub(super) async fn open(file: &Path) -> Result<Content> {
    let path = file.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let progress = files::Progress::default();
        if is_stdin(&path) { files::stream(io::stdin(), progress) } else { files::open(&path, progress) }
    });
    joined(opened.await)?.map_err(|e| unreadable(file, e))
}

/// Reads the whole file once. A compressed one that is damaged or cut short fails here, before anything is loaded: a part
/// of a file has another identity than the whole.
pub(super) async fn identify_file(file: &Path) -> Result<Identity> {
    let path = file.to_owned();
    let progress = files::Progress::default();
    let bar = io::stderr().is_terminal().then(|| {
        let size = std::fs::metadata(file).map(|m| m.len()).ok();
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("reading {bar:40} {bytes}/{total_bytes}, {eta} left")
        {
            bar.set_style(style);
        }
        bar
    });
    let read = progress.clone();
    let mut identity =
        tokio::task::spawn_blocking(move || files::open(&path, progress).and_then(files::identify));
    let identity = loop {
        tokio::select! {
            identity = &mut identity => break identity,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                if let Some(bar) = &bar {
                    bar.set_position(read.load(Ordering::Relaxed));
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    joined(identity)?.map_err(|e| {
        let what = format!("cannot read {}", file.display());
        let next = "nothing of it was loaded";
        Error::new(Kind::Input, what, e, next)
    })
}

pub(super) struct Reader {
    pub(super) records: Records,
    pub(super) record: Record,
    pub(super) number: i64,
    /// Number of the record to stop at.
    pub(super) end: i64,
    pub(super) slot: Slot,
    pub(super) batches: BatchLimits,
    /// What is to be said after the records before it are handed out.
    pub(super) failed: Option<io::Error>,
}

impl Reader {
    /// Passes over the records before `until`.
    pub(super) fn skip(&mut self, until: i64) -> io::Result<()> {
        while self.number < until && self.records.read(&mut self.record)? {
            self.number += 1;
        }
        Ok(())
    }

    pub(super) fn next_batch(&mut self) -> io::Result<Option<RawBatch>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut batch = RawBatch::default();
        while self.number < self.end && !self.batches.reached(&batch) {
            match self.records.read(&mut self.record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if batch.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            let kind = if self.record.is_blank() { RecordKind::Filtered } else { RecordKind::Value };
            let oversize = self.record.oversize.take();
            batch.push_cut(0, self.number, None, kind, None, None, &self.record.bytes, oversize);
            self.number += 1;
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let mut slot = self.slot.clone();
        slot.to = self.number;
        self.slot.from = self.number;
        batch.slots.push(slot);
        Ok(Some(batch))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn lines_appended_while_loading_are_left_for_the_next_load() {
        let content = files::stream(&b"{a\n{b\n{c\n{appended\n"[..], files::Progress::default()).unwrap();
        let slot = Slot {
            topic: Arc::from("f"),
            topic_id: 1,
            partition: 0,
            epoch: 1,
            run: 1,
            from: 0,
            to: 0,
            leader_epoch: None,
        };
        let batches = BatchLimits { rows: 2, bytes: 1000, delay: Duration::ZERO, keep: 100 };
        let mut reader = Reader {
            records: Records::new(content),
            record: Record::new(100),
            number: 0,
            end: 3,
            slot,
            batches,
            failed: None,
        };
        let mut ranges = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            ranges.push((batch.len(), batch.slots[0].from, batch.slots[0].to));
        }
        assert_eq!(ranges, [(2, 0, 2), (1, 2, 3)]);
    }
}
