//! The event generator: the events of a made-up shop as NDJSON, with late, duplicated and malformed lines whose numbers
//! are known exactly. Same arguments, same bytes, on every machine and in every build.
//!
//! Here: arguments, summary, and the merge of the three kinds of lines into one file. `shopper` decides who visits,
//! `visit` what happens in a visit, `timeline` when, `line` how it looks, `malformed` how it breaks.

mod calendar;
mod catalog;
mod line;
mod malformed;
mod rng;
mod shopper;
mod timeline;
mod visit;

#[cfg(feature = "kafka")]
pub mod produce;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use calendar::Date;
use line::{LineWriter, Timestamp};
pub use malformed::Defect;
use rng::Rng;
use timeline::{Event, Timeline, purpose};

/// Arguments of `tidemark-shop generate`.
///
/// The file holds `events` distinct well-formed events, and on top of them `duplicates` x `events` repeated lines and
/// `malformed` x `events` malformed ones (each rounded to the nearest whole number).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of distinct well-formed events; duplicates and malformed lines come on top
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub events: u64,
    /// Number of UTC days over which event times spread, counted from --start
    #[arg(long, value_name = "D", default_value_t = 14, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    pub days: u64,
    /// Number of shoppers; a few are busy and most are not, and with few events some stay away
    #[arg(long, value_name = "U", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub users: u32,
    /// Seed of all random choices: the same arguments give the same bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// First UTC day of event times
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-09-01")]
    pub start: Date,
    /// Share of events that reach the broker 1 hour to 6 days after they happened (met to within one visit)
    #[arg(long, value_name = "SHARE", default_value_t = 0.03, value_parser = share)]
    pub late: f64,
    /// Repeated lines as a share of --events: the same bytes again, mostly seconds later, some days later
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub duplicates: f64,
    /// Malformed lines as a share of --events; every kind of defect in turn, and every one a dead letter
    #[arg(long, value_name = "SHARE", default_value_t = 0.002, value_parser = share)]
    pub malformed: f64,
    /// Version of the UUIDs in messageId: 4 (random) or 7 (rising with the event time)
    #[arg(long, value_name = "VERSION", default_value = "4")]
    pub id_version: IdVersion,
    /// File to write; it appears under this name when it is complete [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl Default for Args {
    /// The defaults of the command line.
    fn default() -> Self {
        Args {
            events: 100_000,
            days: 14,
            users: 2_000,
            seed: 1,
            // 2026-09-01
            start: Date::DEFAULT,
            late: 0.03,
            duplicates: 0.01,
            malformed: 0.002,
            id_version: IdVersion::V4,
            out: None,
        }
    }
}

impl Args {
    /// Digits of the numbers in user ids: 6, or as many as the last user needs.
    fn user_digits(&self) -> u32 {
        self.users.ilog10().max(5) + 1
    }

    /// Repeated lines to write.
    fn duplicate_lines(&self) -> u64 {
        (self.duplicates * self.events as f64).round() as u64
    }

    /// Malformed lines to write.
    fn malformed_lines(&self) -> u64 {
        (self.malformed * self.events as f64).round() as u64
    }

    fn check(&self) -> Result<(), GenerateError> {
        let usage = |why: String| Err(GenerateError::Usage(why));
        for (option, value) in
            [("--late", self.late), ("--duplicates", self.duplicates), ("--malformed", self.malformed)]
        {
            if !(0.0..=1.0).contains(&value) {
                return usage(format!("{option} is {value}; give a share from 0 to 1"));
            }
        }
        if self.events == 0 || self.days == 0 || self.users == 0 {
            return usage("--events, --days and --users must be at least 1".to_owned());
        }
        // Events of the year 2100 stand for "far in the future".
        if self.start.days() + self.days > Date::YEAR_2099 {
            return usage(format!("{} days from {} end after 2098; start earlier", self.days, self.start));
        }
        Ok(())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("\"{text}\" is not a number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a share is from 0 to 1".to_owned()) }
}

/// Version of generated UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IdVersion {
    /// Random.
    #[value(name = "4")]
    V4,
    /// Rising with the event time, in milliseconds.
    #[value(name = "7")]
    V7,
}

impl fmt::Display for IdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdVersion::V4 => "4",
            IdVersion::V7 => "7",
        })
    }
}

/// What a generated file holds. After loading it whole, `bronze.events` has [`Summary::events`] rows and there are
/// [`Summary::malformed`] dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// All lines: events + duplicates + malformed.
    pub lines: u64,
    /// Distinct well-formed events.
    pub events: u64,
    /// Of these, received 1 hour or more after they happened (never more than 6 days).
    pub late: u64,
    /// Repeated lines, byte for byte like an earlier one.
    pub duplicates: u64,
    /// Malformed lines.
    pub malformed: u64,
    /// Malformed lines by what is wrong with them, in the order of [`Defect::ALL`].
    pub by_defect: [u64; Defect::ALL.len()],
    /// Sessions of persons: runs of a shopper's events, over all devices, without a pause of more than 30 minutes.
    pub sessions: u64,
    /// Persons that can be told apart: everybody who logged in, with all devices on which they did, and each device on
    /// which nobody did.
    pub persons: u64,
    /// Purchases among the events.
    pub purchases: u64,
    /// Size in bytes, newlines included.
    pub bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            lines, events, late, duplicates, malformed, sessions, persons, purchases, bytes, ..
        } = self;
        write!(f, "lines={lines} events={events} late={late} duplicates={duplicates} malformed={malformed}")?;
        for (defect, count) in Defect::ALL.iter().zip(self.by_defect) {
            write!(f, " {}={count}", defect.name())?;
        }
        write!(f, " sessions={sessions} persons={persons} purchases={purchases} bytes={bytes}")
    }
}

/// Why generating failed.
#[derive(Debug)]
pub enum GenerateError {
    /// Arguments that make no sense together.
    Usage(String),
    /// The output could not be written.
    Output {
        /// File name, or "standard output".
        to: String,
        /// What the system said.
        source: io::Error,
    },
}

impl GenerateError {
    /// Exit code of the process: 64 for wrong arguments, 77 where permission is missing, else 75.
    pub fn exit_code(&self) -> u8 {
        match self {
            GenerateError::Usage(_) => 64,
            GenerateError::Output { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            GenerateError::Output { .. } => 75,
        }
    }
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenerateError::Usage(why) => write!(f, "cannot generate events: {why}"),
            GenerateError::Output { to, source } => {
                let advice = match source.kind() {
                    io::ErrorKind::NotFound => "create the directory or name another file with --out",
                    io::ErrorKind::PermissionDenied => "name a file with --out that you may write",
                    io::ErrorKind::BrokenPipe => "the reader closed the pipe; let it read to the end",
                    _ => "check the disk or name another file with --out",
                };
                write!(f, "cannot write events to {to}: {source}; {advice}")
            }
        }
    }
}

impl std::error::Error for GenerateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            GenerateError::Usage(_) => None,
            GenerateError::Output { source, .. } => Some(source),
        }
    }
}

/// Generates to the file of the arguments, or to standard output, and prints the summary as one line to standard error.
///
/// A regular file is written beside its final name first (`FILE.partial`), so that a file under the final name is
/// always whole.
pub fn run(args: &Args) -> Result<Summary, GenerateError> {
    let summary = match &args.out {
        None => generate(args, &mut io::stdout().lock())?,
        Some(path) => {
            let failed = |source| GenerateError::Output { to: path.display().to_string(), source };
            // A pipe or a device cannot be replaced by renaming.
            let special = path.metadata().is_ok_and(|meta| !meta.is_file());
            let target = if special { path.clone() } else { partial(path) };
            args.check()?;
            let mut file = File::create(&target).map_err(failed)?;
            let summary = generate(args, &mut file);
            if !special {
                match &summary {
                    Ok(_) => file.sync_all().and_then(|()| std::fs::rename(&target, path)).map_err(failed)?,
                    // The first error is the one to report.
                    Err(_) => drop(std::fs::remove_file(&target)),
                }
            }
            summary?
        }
    };
    eprintln!("generated {summary}");
    Ok(summary)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Generates to `out`: the same arguments give the same bytes. Holds about 40 bytes of memory per event.
///
/// Lines stand in the order of their `receivedAt`, except repeated lines, which stand where their repetition was
/// received while their bytes are those of the first time.
pub fn generate<W: Write>(args: &Args, out: &mut W) -> Result<Summary, GenerateError> {
    args.check()?;
    let timeline = timeline::build(args);
    let extras = choose_extras(args, &timeline);
    let mut summary = Summary {
        lines: args.events + extras.len() as u64,
        events: args.events,
        late: timeline.late,
        duplicates: args.duplicate_lines(),
        malformed: args.malformed_lines(),
        by_defect: [0; Defect::ALL.len()],
        sessions: timeline.sessions,
        persons: timeline.persons,
        purchases: timeline.events.iter().filter(|event| event.kind == visit::Kind::PurchaseCompleted).count()
            as u64,
        bytes: 0,
    };
    write_lines(args, &timeline, &extras, &mut summary, out).map_err(|source| {
        let to = args.out.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        GenerateError::Output { to, source }
    })?;
    Ok(summary)
}

/// A line besides those of the events.
#[derive(Debug, Clone, Copy)]
struct Extra {
    /// Stands in the file before events received after this.
    at_ms: u64,
    /// The event it is made from, as index into the timeline.
    event: u32,
    /// `None`: the event's line again.
    defect: Option<Defect>,
}

/// Exactly as many extra lines as the shares ask for, each made from another event, in the order of the file.
fn choose_extras(args: &Args, timeline: &Timeline) -> Vec<Extra> {
    let mut extras = Vec::new();
    let mut rng = Rng::new(args.seed, purpose::DUPLICATES, 0);
    choose(&mut rng, args.duplicate_lines(), &timeline.events, |rng, event, at_ms| {
        // A producer that retries does so within seconds; a few times a whole queue is sent again much later.
        let after = match rng.weighted([72, 20, 8]) {
            0 => rng.between(200, 5_000),
            1 => rng.between(5_000, 300_000),
            _ => rng.between(3_600_000, 3 * calendar::DAY_MS),
        };
        extras.push(Extra { at_ms: at_ms + after, event, defect: None });
    });
    let mut rng = Rng::new(args.seed, purpose::MALFORMED, 0);
    let mut turn = Defect::ALL.iter().cycle();
    choose(&mut rng, args.malformed_lines(), &timeline.events, |_, event, at_ms| {
        extras.push(Extra { at_ms, event, defect: turn.next().copied() });
    });
    extras.sort_unstable_by_key(|extra| (extra.at_ms, extra.event, extra.defect.is_some()));
    extras
}

/// Calls `chosen` for exactly `wanted` of the events, all sets of events equally likely (selection sampling,
/// Knuth 3.4.2, algorithm S), with the index of the event and when it was received.
fn choose(rng: &mut Rng, wanted: u64, events: &[Event], mut chosen: impl FnMut(&mut Rng, u32, u64)) {
    let mut wanted = wanted;
    for (index, event) in events.iter().enumerate() {
        if wanted == 0 {
            return;
        }
        if rng.below((events.len() - index) as u64) < wanted {
            wanted -= 1;
            chosen(rng, index as u32, event.received_ms);
        }
    }
}

fn write_lines(
    args: &Args,
    timeline: &Timeline,
    extras: &[Extra],
    summary: &mut Summary,
    out: &mut dyn Write,
) -> io::Result<()> {
    let lines = LineWriter::new(args, timeline);
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let mut line = Vec::with_capacity(4_096);
    let mut extras = extras.iter().peekable();
    let mut rng = Rng::new(args.seed, purpose::MALFORMED, 1);
    let mut events = timeline.events.iter().peekable();
    loop {
        line.clear();
        let extra_first = match (events.peek(), extras.peek()) {
            (Some(event), Some(extra)) => extra.at_ms < event.received_ms,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => break,
        };
        if !extra_first {
            if let Some(event) = events.next() {
                lines.write(&mut line, event, 0, Timestamp::Event);
            }
        } else if let Some(extra) = extras.next() {
            let event = &timeline.events[extra.event as usize];
            match extra.defect {
                None => lines.write(&mut line, event, 0, Timestamp::Event),
                Some(defect) => {
                    summary.by_defect[defect as usize] += 1;
                    malformed::write(&mut line, &lines, event, defect, &mut rng);
                }
            }
        }
        line.push(b'\n');
        summary.bytes += line.len() as u64;
        out.write_all(&line)?;
    }
    out.flush()
}
