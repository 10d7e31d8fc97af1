//! `tidemark load`: files, or standard input, through the same batch pipeline as Kafka. A file is known by its
//! content: position is kept for it like for a Kafka partition, with the number of the record as offset.

mod progress;
mod reader;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use self::progress::Progress;
use self::reader::{Reader, identify_file, open};
use super::events::Events;
use super::options;
use super::{Database, migrate};
use tidemark_loader::batch::{BatchLimits, Counts, Encoder, Slot};
use tidemark_loader::config::Config;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::Limits;
use tidemark_loader::files::{Record, Records};
use tidemark_loader::lanes;
use tidemark_loader::lanes::sink::{Patience, Sink, SinkError};
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position;
use tidemark_loader::postgres::target::Target;

/// Arguments of `tidemark load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, directories of files, or - for standard input
    ///
    /// Their events are JSON, one a line, in an array or over several lines, or rows of a table with a header (CSV, TSV);
    /// plain, compressed by gzip, zstd, xz or bzip2, or in archives (tar, zip). What a file is, its first bytes say.
    ///
    /// A file is known by its content, whatever its name and its compression: one that was loaded completely is not
    /// loaded again, and an interrupted load continues behind the last record committed. Standard input and pipes have
    /// no such memory; there, only the event ids keep events from being loaded twice.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Read files from their beginning, whatever was loaded of them; events that are there are duplicates then
    #[arg(long)]
    restart: bool,
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
    let mut files = Vec::new();
    for file in &args.files {
        add_files(file, &mut files)?;
    }
    let target = options::target(&config)?;
    let load = Load {
        pipeline: if target.is_bronze() { "file".to_owned() } else { format!("file into {}", target.name()) },
        target,
        encoder: options::encoder(&config)?,
        limits: options::limits(&config)?,
        batches: options::batch_limits(&config, 1)?,
        config: options::postgres(&config)?,
        restart: args.restart,
    };
    let (mut total, mut without) = (None, Vec::new());
    for file in &files {
        let Some(counts) = load.file(file).await? else { continue };
        if counts.dead > 0 && counts.dead == counts.read - counts.filtered - counts.tombstone {
            without.push(file);
        }
        *total.get_or_insert_with(Counts::default) += counts;
    }
    if let Some(total) = total {
        print_summary(&total, started.elapsed());
    }
    let Some(first) = without.first() else { return Ok(()) };
    let others = match without.len() {
        1 => String::new(),
        n => format!(" and {} other files", n - 1),
    };
    Err(Error::new(
        Kind::Input,
        format!("nothing was loaded of {}{others}", first.display()),
        "each record became a dead letter",
        "see why: tidemark dead-letters list; tidemark inspect helps to mend --mapping or --envelope; then try them again as said above",
    ))
}

/// A file, or all files in a directory and below it, by name, but hidden ones.
fn add_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if is_stdin(path) {
        files.push(path.to_owned());
        return Ok(());
    }
    let wrong = |e| unreadable(path, e);
    if !std::fs::metadata(path).map_err(wrong)?.is_dir() {
        std::fs::File::open(path).map_err(wrong)?;
        files.push(path.to_owned());
        return Ok(());
    }
    let entries: io::Result<Vec<_>> = std::fs::read_dir(path).map_err(wrong)?.collect();
    let mut entries: Vec<PathBuf> = entries.map_err(wrong)?.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    entries.iter().filter(|path| !hidden(path)).try_for_each(|path| add_files(path, files))
}

pub(super) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What is the same for all files of a command.
struct Load {
    config: connection::Config,
    pipeline: String,
    target: Target,
    encoder: Encoder,
    limits: Limits,
    batches: BatchLimits,
    restart: bool,
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
            let (name, records) = (file.display(), identity.records);
            let done = position::find(&client, pipeline_id, &topic, 0).await.map_err(explain)?;
            if !self.restart && done.is_some_and(|done| done.next_offset >= records as i64) {
                let letters = match open_letters(&client, pipeline_id, &topic).await.map_err(explain)? {
                    0 => String::new(),
                    n => format!(
                        "; {n} of them became dead letters: {}, --restart reads the file again",
                        again(&topic)
                    ),
                };
                say!("{name}: all {records} records were read before, nothing to do{letters}");
                return Ok(None);
            }
            if records == 0 {
                say!("{name}: empty, nothing to do");
                return Ok(None);
            }
        }
        self.target.check(&client, config).await?;
        options::prepare(&self.encoder, &client, config).await?;
        let topic_id = position::topic_id(&client, &topic).await.map_err(explain)?;
        let first = position::Position::default();
        let (mut claim, _) =
            position::claim(&client, pipeline_id, &topic, 0, &first, &owner).await.map_err(explain)?;
        if self.restart && claim.next_offset > 0 {
            let back = position::jump(&client, pipeline_id, &topic, 0, claim, &first, "manual");
            let Some(back) = back.await.map_err(explain)? else { return Err(fenced()) };
            claim = back;
        }
        drop(client);
        if claim.next_offset > 0 {
            eprintln!(
                "tidemark: continuing behind record {}, which was the last one committed",
                claim.next_offset
            );
        }

        let (_stop, stopped) = watch::channel(false);
        let patience = Patience::For(Duration::from_secs(30));
        let sink =
            Sink::new(config.clone(), pipeline_id, owner, patience, stopped).into_target(self.target.clone());
        let (report, mut reports) = mpsc::unbounded_channel::<Counts>();
        let slot = Slot {
            topic: topic.clone(),
            topic_id,
            partition: 0,
            epoch: claim.epoch,
            run: claim.run,
            from: claim.next_offset,
            to: claim.next_offset,
            leader_epoch: None,
        };
        let mut reader = Reader {
            records: Records::new(open(file).await?),
            record: Record::new(limits.max_bytes),
            number: 0,
            // What is appended meanwhile belongs to another content, which has another name.
            end: identity.as_ref().map_or(i64::MAX, |i| i.records as i64),
            slot,
            batches: self.batches,
            failed: None,
        };
        let skipped = tokio::task::spawn_blocking(move || {
            let skipped = reader.skip(claim.next_offset);
            (reader, skipped)
        });
        let (mut reader, skipped) = joined(skipped.await)?;
        skipped.map_err(|e| unreadable(file, e))?;
        let lane = lanes::start(sink, self.encoder.clone(), move |written, _| {
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
            Err(SinkError::Fenced) => return Err(fenced()),
            Err(SinkError::WentBack(why)) => {
                let next = "load the same file again: it goes on where Postgres is";
                return Err(Error::new(Kind::Temporary, "stopped", why, next));
            }
            Err(SinkError::Stopped | SinkError::Paused) => {
                return Err(Error::bug("cannot load", "stopped without being told to"));
            }
        }
        joined(source.await)?.map_err(|e| cut_short(file, total.read, e))?;
        if total.dead > 0 {
            let letters = if total.dead == 1 { "a dead letter" } else { "dead letters" };
            let said =
                format!("{}: {} of {} records became {letters}", file.display(), total.dead, total.read);
            eprintln!("tidemark: {said}; {}", again(&topic));
        }
        Ok(Some(total))
    }
}

/// The command for the dead letters of a file, once what was wrong is mended.
fn again(topic: &str) -> String {
    format!("`tidemark dead-letters replay --topic {topic}` tries them again")
}

async fn open_letters(
    client: &tokio_postgres::Client,
    pipeline_id: i32,
    topic: &str,
) -> Result<i64, tokio_postgres::Error> {
    let sql =
        "SELECT count(*) FROM loader.dead_letters WHERE pipeline_id = $1 AND topic = $2 AND status = 'open'";
    Ok(client.query_one(sql, &[&pipeline_id, &topic]).await?.get(0))
}

fn fenced() -> Error {
    let why = "another tidemark has started to load the same file";
    Error::new(Kind::Temporary, "stopped", why, "let that one finish; nothing is lost or doubled")
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

pub(super) fn unreadable(file: &Path, e: io::Error) -> Error {
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
            "the {read} whole records before that are loaded; get all of it and load again, known ids are duplicates then"
        ),
    )
}
