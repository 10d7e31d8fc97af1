//! `tidemark load`: a file, or standard input, through the same batch pipeline as Kafka. A file is known by its
//! content: position is kept for it like for a Kafka partition, with the line number as offset.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, watch};

use super::events::Events;
use super::options;
use super::{Database, migrate};
use tidemark_loader::batch::{BatchLimits, Counts, Encoder, RawBatch, RecordKind, Slot};
use tidemark_loader::config::Config;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::Limits;
use tidemark_loader::event::envelope::preset::Format;
use tidemark_loader::event::time::Micros;
use tidemark_loader::files::{self, Input};
use tidemark_loader::files::{Identity, Lines, identify, is_blank, without_bom};
use tidemark_loader::lanes;
use tidemark_loader::lanes::sink::{Patience, Sink, SinkError};
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position;
use tidemark_loader::postgres::target::Target;

/// Arguments of `tidemark load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with one event a line, plain or compressed by gzip or zstd, or - for standard input
    ///
    /// A file is known by its content, whatever its name and its compression: one that was loaded completely is not
    /// loaded again, and an interrupted load continues at the line after the last one committed. Standard input and
    /// pipes have no such memory; there, only the event ids keep events from being loaded twice.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    events: Events,
}

impl Args {
    /// The configuration in force.
    pub fn config(&self) -> Result<Config> {
        let mut config = self.database.load()?;
        self.events.over(&mut config)?;
        Ok(config)
    }
}

/// Loads the files and prints a summary to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.config()?;
    let started = Instant::now();
    // All of them, before any is loaded: a mistyped name must not come to light after an hour.
    for file in args.files.iter().filter(|file| !is_stdin(file)) {
        let readable = std::fs::File::open(file).and_then(|file| file.metadata());
        if readable.map_err(|e| unreadable(file, e))?.is_dir() {
            return Err(unreadable(file, io::ErrorKind::IsADirectory.into()));
        }
    }
    let target = options::target(&config)?;
    let load = Load {
        pipeline: if target.is_bronze() { "file".to_owned() } else { format!("file into {}", target.name()) },
        target,
        encoder: options::encoder(&config, None)?,
        format: options::format(&config)?,
        limits: options::limits(&config)?,
        batches: options::batch_limits(&config, 1)?,
        config: options::postgres(&config)?,
    };
    let mut total = None;
    for file in &args.files {
        if let Some(counts) = load.file(file).await? {
            *total.get_or_insert_with(Counts::default) += counts;
        }
    }
    if let Some(total) = total {
        print_summary(&total, started.elapsed());
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What is the same for all files of a command.
struct Load {
    config: connection::Config,
    pipeline: String,
    target: Target,
    encoder: Encoder,
    format: Format,
    limits: Limits,
    batches: BatchLimits,
}

impl Load {
    /// Loads one file; `None` when there was nothing to do.
    async fn file(&self, file: &Path) -> Result<Option<Counts>> {
        let (config, limits) = (&self.config, self.limits);
        // A pipe can be read only once, so there is no identity to be had from it.
        let once = is_stdin(file) || std::fs::metadata(file).is_ok_and(|m| !m.is_file());
        let identity = if once { None } else { Some(identify_file(file).await?) };

        let client = connection::connect_once(config).await?;
        migrate::expect_current(&client, config).await?;
        let explain = |e: tokio_postgres::Error| connection::explain("cannot claim the file", config, &e);
        let owner = super::owner();
        let topic: Arc<str> = match &identity {
            Some(identity) => format!("file:{}", identity.sha256).into(),
            None => format!("stdin:{}", uuid::Uuid::new_v4()).into(),
        };
        let (pipeline_id, _) = position::pipeline(&client, &self.pipeline).await.map_err(explain)?;
        if let Some(identity) = &identity {
            let done = position::find(&client, pipeline_id, &topic, 0).await.map_err(explain)?;
            if done.is_some_and(|done| done.next_offset >= identity.lines as i64) {
                say!("{}: all {} lines are loaded already, nothing to do", file.display(), identity.lines);
                return Ok(None);
            }
            if identity.lines == 0 {
                say!("{}: empty, nothing to do", file.display());
                return Ok(None);
            }
        }
        self.target.check(&client, config).await?;
        let topic_id = position::topic_id(&client, &topic).await.map_err(explain)?;
        let first = position::Position::default();
        let (claim, _) =
            position::claim(&client, pipeline_id, &topic, 0, &first, &owner).await.map_err(explain)?;
        drop(client);
        if claim.next_offset > 0 {
            eprintln!(
                "tidemark: continuing behind line {}, which was the last one committed",
                claim.next_offset
            );
        }

        let (_stop, stopped) = watch::channel(false);
        let patience = Patience::For(Duration::from_secs(30));
        let sink =
            Sink::new(config.clone(), pipeline_id, owner, patience, stopped).into_target(self.target.clone());
        let (report, mut reports) = mpsc::unbounded_channel::<Counts>();
        let slot = Slot {
            topic,
            topic_id,
            partition: 0,
            epoch: claim.epoch,
            run: claim.run,
            from: claim.next_offset,
            to: claim.next_offset,
            leader_epoch: None,
        };
        let mut reader = Reader {
            lines: Lines::new(open(file).await?, limits.max_bytes),
            line: 0,
            // What is appended meanwhile belongs to another content, which has another name.
            end: identity.as_ref().map_or(i64::MAX, |i| i.lines as i64),
            slot,
            batches: self.batches,
            failed: None,
        };
        // The lines before the resumption point tell the receipt time that later lines without one inherit.
        let format = self.format.clone();
        let skipped = tokio::task::spawn_blocking(move || {
            let last = reader.skip(claim.next_offset, &format, &limits);
            (reader, last)
        });
        let (mut reader, last_received) = joined(skipped.await)?;
        let last_received = last_received.map_err(|e| unreadable(file, e))?;

        let encoder = self.encoder.clone().after(last_received);
        let lane = lanes::start(sink, encoder, move |written, _| {
            let _ = report.send(written.counts);
        });
        let batches = lane.batches;
        let source = tokio::task::spawn_blocking(move || -> io::Result<()> {
            while let Some(batch) = reader.next_batch()? {
                if batches.blocking_send(batch).is_err() {
                    break;
                }
            }
            Ok(())
        });

        let mut progress = Progress::new(identity.as_ref(), claim.next_offset as u64);
        let mut total = Counts::default();
        let mut tick = tokio::time::interval(Duration::from_secs(3));
        tick.tick().await;
        loop {
            tokio::select! {
                counts = reports.recv() => match counts {
                    Some(counts) => {
                        total += counts;
                        progress.at(total.read);
                    }
                    None => break,
                },
                _ = tick.tick() => progress.tick(total),
            }
        }
        progress.finish();
        // First the lane: when it has failed, the source may wait for input that never comes.
        match joined(lane.done.await)? {
            Ok(()) => {}
            Err(SinkError::Fatal(e) | SinkError::TooMuch(e)) => return Err(e),
            Err(SinkError::Fenced) => {
                return Err(Error::new(
                    Kind::Temporary,
                    "stopped",
                    "another tidemark has started to load the same file",
                    "let that one finish; nothing is lost or doubled",
                ));
            }
            Err(SinkError::WentBack(why)) => {
                let next = "load the same file again: it goes on where Postgres is";
                return Err(Error::new(Kind::Temporary, "stopped", why, next));
            }
            Err(SinkError::Stopped | SinkError::Paused) => {
                return Err(Error::bug("cannot load", "stopped without being told to"));
            }
        }
        joined(source.await)?.map_err(|e| cut_short(file, total.read, e))?;
        Ok(Some(total))
    }
}

/// Prints the counts and the speed to standard output.
pub fn print_summary(n: &Counts, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    say!(
        "read {} = loaded {} + duplicate {} + late_diverted {} + dead {} + filtered {} + tombstone {}",
        n.read,
        n.loaded,
        n.duplicate,
        n.late,
        n.dead,
        n.filtered,
        n.tombstone
    );
    say!("{seconds:.1} seconds, {:.0} events/s", n.read as f64 / seconds.max(0.001));
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|e| Error::bug("cannot load", e))
}

fn unreadable(file: &Path, e: io::Error) -> Error {
    Error::new(
        Kind::Input,
        format!("cannot read {}", file.display()),
        e,
        "check the path and its permissions",
    )
}

/// The input ended with an error after `read` lines were committed.
fn cut_short(file: &Path, read: u64, e: io::Error) -> Error {
    Error::new(
        Kind::Input,
        format!("cannot read {} to its end", file.display()),
        e,
        format!(
            "the {read} whole lines before that are loaded; get all of it and load again, known ids are duplicates then"
        ),
    )
}

async fn open(file: &Path) -> Result<Input> {
    let path = file.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let progress = files::Progress::default();
        if is_stdin(&path) { files::standard_input(progress) } else { files::open(&path, progress) }
    });
    joined(opened.await)?.map_err(|e| unreadable(file, e))
}

/// Reads the whole file once. A compressed one that is damaged or cut short fails here, before anything is loaded: a part
/// of a file has another identity than the whole.
async fn identify_file(file: &Path) -> Result<Identity> {
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
    let mut identity = tokio::task::spawn_blocking(move || files::open(&path, progress).and_then(identify));
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
        let next = "nothing of it was loaded; check the path, its permissions and that it is whole";
        Error::new(Kind::Input, what, e, next)
    })
}

struct Reader {
    lines: Lines<Input>,
    line: i64,
    /// Line number to stop at.
    end: i64,
    slot: Slot,
    batches: BatchLimits,
    /// What is to be said after the lines before it are handed out.
    failed: Option<io::Error>,
}

impl Reader {
    /// Passes over the lines before `until`; returns the last receipt time among them.
    fn skip(&mut self, until: i64, format: &Format, limits: &Limits) -> io::Result<Option<Micros>> {
        let mut last = None;
        while self.line < until {
            let Some((line, oversize)) = self.lines.next_line()? else { break };
            if oversize.is_none() {
                last = format.received_at(None, without_bom(self.line, line), limits).or(last);
            }
            self.line += 1;
        }
        Ok(last)
    }

    fn next_batch(&mut self) -> io::Result<Option<RawBatch>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut batch = RawBatch::default();
        while self.line < self.end && !self.batches.reached(&batch) {
            let (line, oversize) = match self.lines.next_line() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) if batch.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let line = without_bom(self.line, line);
            let blank = oversize.is_none() && is_blank(line);
            let kind = if blank { RecordKind::Filtered } else { RecordKind::Value };
            batch.push_cut(0, self.line, None, kind, None, None, line, oversize);
            self.line += 1;
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let mut slot = self.slot.clone();
        slot.to = self.line;
        self.slot.from = self.line;
        batch.slots.push(slot);
        Ok(Some(batch))
    }
}

/// A bar on a terminal, a line every few seconds elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    lines: Option<u64>,
    before: u64,
    started: Instant,
}

impl Progress {
    fn new(identity: Option<&Identity>, before: u64) -> Self {
        let lines = identity.map(|i| i.lines);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(lines, ProgressDrawTarget::stderr());
            let template = match lines {
                Some(_) => "loading {bar:40} {human_pos}/{human_len} lines, {per_sec}, {eta} left",
                None => "loading {spinner} {human_pos} lines, {per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(before);
            bar.reset_eta();
            bar
        });
        Progress { bar, lines, before, started: Instant::now() }
    }

    fn at(&mut self, read: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.before + read);
        }
    }

    fn tick(&mut self, n: Counts) {
        if self.bar.is_none() {
            let done = self.before + n.read;
            let of = self.lines.map_or(String::new(), |lines| format!(" of {lines}"));
            let speed = n.read as f64 / self.started.elapsed().as_secs_f64();
            eprintln!("loaded {done}{of} lines, {} dead letters, {speed:.0} events/s", n.dead);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_appended_while_loading_are_left_for_the_next_load() {
        let input: Input = Box::new(&b"a\nb\nc\nappended\n"[..]);
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
        let mut reader =
            Reader { lines: Lines::new(input, 100), line: 0, end: 3, slot, batches, failed: None };
        let mut ranges = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            ranges.push((batch.len(), batch.slots[0].from, batch.slots[0].to));
        }
        assert_eq!(ranges, [(2, 0, 2), (1, 2, 3)]);
    }
}
