//! `tidemark replay`: a stretch of a topic once more, into bronze (where known ids are duplicates) or into another
//! table of the same shape. A pipeline of its own with positions of its own and no consumer group, so that the daemon's
//! positions never move; interrupted, it goes on where it stopped.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio_postgres::{Client, Config};

use super::events::Events;
use super::kafka_options::{self, Brokers};
use super::output::parse_moment;
use super::{Database, load, migrate, options};
use tidemark_loader::batch::{Counts, Encoder};
use tidemark_loader::config::Config as Configuration;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::dedupe::Dedupe;
use tidemark_loader::event::time::Micros;
use tidemark_loader::kafka::Kafka;
use tidemark_loader::kafka::bounded::{Range, Read, Stretch};
use tidemark_loader::lanes;
use tidemark_loader::lanes::sink::{Patience, Sink, SinkError};
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position::{self, Position};
use tidemark_loader::postgres::target::Target;

/// Arguments of `tidemark replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    brokers: Brokers,
    /// Topic to read
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Begin at the first record of this time or later (RFC 3339, a date, or how long ago: 2h) [default: the oldest]
    #[arg(long, value_name = "TIME", value_parser = parse_moment, conflicts_with = "from_offset")]
    from_time: Option<Micros>,
    /// Stop before the first record of this time or later [default: the end as it is now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment, conflicts_with = "to_offset")]
    to_time: Option<Micros>,
    /// Begin at this offset, inclusive; needs --partition unless the topic has only one
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Stop before this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// Create the table like bronze.events if it is not there
    #[arg(long)]
    create: bool,
    /// Name of the pipeline that keeps the positions [default: made of topic, partition, range and table as given]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Forget how far an earlier replay of that name came
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    events: Events,
}

impl Args {
    /// The configuration in force.
    pub fn config(&self) -> Result<Configuration> {
        let mut config = self.database.load()?;
        self.brokers.over(&mut config)?;
        self.events.over(&mut config)?;
        Ok(config)
    }

    /// The same command line gives the same name, so that it goes on where it stopped. How long ago is no name: it
    /// means another time with every minute that passes.
    fn pipeline(&self, target: &Target) -> String {
        let bound = |time: Option<Micros>, offset: Option<i64>| match (time, offset) {
            (Some(time), _) => format!("@{}", tidemark_loader::event::time::to_unix_millis(time)),
            (None, Some(offset)) => offset.to_string(),
            (None, None) => String::new(),
        };
        let partition = self.partition.map(|p| format!(" [{p}]")).unwrap_or_default();
        let (from, to) = (bound(self.from_time, self.from_offset), bound(self.to_time, self.to_offset));
        self.name.clone().unwrap_or_else(|| {
            format!("replay {}{partition} {from}..{to} into {}", self.topic, target.name())
        })
    }
}

/// Reads the stretch and prints a summary to standard output.
pub async fn run(args: Args) -> Result<()> {
    let settings = args.config()?;
    let started = Instant::now();
    let (config, kafka) = (options::postgres(&settings)?, kafka_options::kafka(&settings)?);
    let target = options::target(&settings)?;
    let encoder = options::encoder(&settings)?;
    let (ranges, cluster) = survey(&args, &kafka).await?;
    let client = connection::connect_once(&config).await?;
    migrate::expect_current(&client, &config).await?;
    if args.create {
        create(&client, &config, &target).await?;
    }
    target.check(&client, &config).await?;
    options::prepare(&encoder, &client, &config).await?;

    let name = args.pipeline(&target);
    let explain =
        |e: tokio_postgres::Error| connection::explain("cannot open the pipeline of the replay", &config, &e);
    let (pipeline_id, known) = position::pipeline(&client, &name).await.map_err(explain)?;
    match (known, cluster) {
        (None, Some(cluster)) => {
            position::set_cluster(&client, pipeline_id, &cluster).await.map_err(explain)?
        }
        (Some(known), Some(found)) if known != found => {
            let why = format!("it belongs to Kafka cluster {known}, and {} is {found}", kafka.brokers);
            let what = format!("cannot continue {name}");
            return Err(Error::new(Kind::Config, what, why, "correct --brokers, or choose another --name"));
        }
        _ => {}
    }
    let owner = super::owner();
    let topic_id = position::topic_id(&client, &args.topic).await.map_err(explain)?;
    let mut stretches = Vec::new();
    for (log, wanted) in &ranges {
        let (partition, topic_id) = (wanted.partition, log.topic_id.clone());
        let first = Position { next_offset: wanted.low, leader_epoch: None, topic_id: topic_id.clone() };
        let topic = &args.topic;
        let claimed = position::claim(&client, pipeline_id, topic, partition, &first, &owner).await;
        let (mut claim, at) = claimed.map_err(explain)?;
        if let Some((cause, to)) = correction(&args, &kafka, at, log, wanted).await? {
            let to = Position { next_offset: to, ..first };
            let moved = position::jump(&client, pipeline_id, topic, partition, claim, &to, cause).await;
            claim = moved.map_err(explain)?.unwrap_or(claim);
        }
        if claim.next_offset < wanted.high {
            stretches.push(Stretch { partition, claim, topic_id, end: wanted.high });
        }
    }
    drop(client);
    let offsets: i64 = stretches.iter().map(|s| s.end - s.claim.next_offset).sum();
    if offsets == 0 {
        say!(
            "everything in that stretch is loaded by this replay already, nothing to do; --restart does it again"
        );
        return Ok(());
    }
    let stop =
        super::run::watch_signals(settings.time("shutdown.timeout")?.unwrap_or(Duration::from_secs(25)))?;
    let sink = Sink::new(config, pipeline_id, owner, Patience::For(Duration::from_secs(60)), stop.clone());
    let job = Job { args: &args, settings: &settings, kafka, target, topic_id, stretches, offsets, encoder };
    let (total, end) = job.run(sink, stop).await?;
    load::print_summary(&total, started.elapsed());
    if total.dead > 0 {
        eprintln!(
            "tidemark: {} dead letters of this replay's own; tidemark dead-letters list --pipeline '{name}' shows them",
            total.dead
        );
    }
    if matches!(end, Read::Stopped) {
        eprintln!("tidemark: stopped before the end; the same command goes on from there");
    }
    Ok(())
}

/// What the broker has, and what of it is to be read: `low` and `high` are the first offset and the end. And the
/// cluster.
async fn survey(args: &Args, kafka: &Kafka) -> Result<(Vec<(Range, Range)>, Option<String>)> {
    let (kafka, topic, partition) = (kafka.clone(), args.topic.clone(), args.partition);
    let (from_time, to_time) = (args.from_time, args.to_time);
    let asked = tokio::task::spawn_blocking(move || {
        let cluster = kafka.survey_one(&topic, false)?.cluster_id;
        let ranges = kafka.ranges(&topic, partition.map(|p| vec![p]).as_deref())?;
        let from = from_time.map(|time| kafka.offsets_at(&topic, &ranges, time)).transpose()?;
        let to = to_time.map(|time| kafka.offsets_at(&topic, &ranges, time)).transpose()?;
        Ok::<_, Error>((cluster, ranges, from, to))
    });
    let (cluster, ranges, from, to) = asked.await.map_err(|e| Error::bug("cannot ask Kafka", e))??;
    if (args.from_offset.is_some() || args.to_offset.is_some()) && ranges.len() > 1 {
        return Err(Error::new(
            Kind::Usage,
            "cannot replay by offset",
            format!("topic {} has {} partitions, each with offsets of its own", args.topic, ranges.len()),
            "add --partition, or use --from-time and --to-time",
        ));
    }
    let cut = |range: Range| {
        let low = from.as_ref().map_or(args.from_offset.unwrap_or(range.low), |from| from[&range.partition]);
        let high = to.as_ref().map_or(args.to_offset.unwrap_or(range.high), |to| to[&range.partition]);
        if low < range.low {
            eprintln!(
                "tidemark: {} [{}] begins at offset {}: the broker has deleted what was before",
                args.topic, range.partition, range.low
            );
        }
        let high = high.min(range.high);
        let wanted = Range { low: low.max(range.low).min(high), high, ..range.clone() };
        (range, wanted)
    };
    Ok((ranges.into_iter().map(cut).collect(), cluster))
}

/// Where a replay goes on instead of at its position, and why: at its beginning if it is to start again, or at the
/// oldest record it has not read where the log is not the same any more.
async fn correction(
    args: &Args,
    kafka: &Kafka,
    at: Position,
    log: &Range,
    wanted: &Range,
) -> Result<Option<(&'static str, i64)>> {
    let next = at.next_offset;
    if args.restart {
        return Ok((next != wanted.low).then_some(("manual", wanted.low)));
    }
    let (kafka, topic, partition) = (kafka.clone(), args.topic.clone(), log.partition);
    let log = log.clone();
    let asked = tokio::task::spawn_blocking(move || kafka.change(&topic, &at, &log)).await;
    if let Some(change) = asked.map_err(|e| Error::bug("cannot ask Kafka", e))?? {
        let to = change.earliest.max(wanted.low);
        eprintln!(
            "tidemark: {} [{partition}] goes on at offset {to} instead of {next}: {}",
            args.topic, change.why
        );
        return Ok(Some((change.cause, to)));
    }
    Ok((next < wanted.low).then_some(("manual", wanted.low)))
}

/// A table like bronze.events with partitions made by tidemark, for whoever may do that.
async fn create(client: &Client, config: &Config, target: &Target) -> Result<()> {
    let what = format!("cannot create {}", target.name());
    let explain = |e: tokio_postgres::Error| connection::explain(&what, config, &e);
    let sql = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
    if client.query_one(sql, &[&target.table()]).await.map_err(explain)?.get(0) {
        return Ok(());
    }
    let table = target.table();
    let unique = if target.dedupe == Dedupe::Offsets { "NULL" } else { "ARRAY['event_id']" };
    let sql = format!(
        "BEGIN;
         CREATE TABLE {table} (LIKE bronze.events INCLUDING ALL) PARTITION BY RANGE (event_time);
         ALTER TABLE {table} OWNER TO tidemark_admin;
         GRANT INSERT, SELECT (event_id, event_time, payload_hash) ON {table} TO tidemark_loader;
         SELECT tidemark.manage_partitions(parent => '{}'::regclass, premake_days => 0,
             partition_schema => 'bronze_partitions', partition_unique => {unique}::name[]);
         COMMIT",
        table.replace('\'', "''")
    );
    client.batch_execute(&sql).await.map_err(explain)?;
    eprintln!("tidemark: created table {}", target.name());
    Ok(())
}

struct Job<'a> {
    args: &'a Args,
    settings: &'a Configuration,
    kafka: Kafka,
    target: Target,
    topic_id: i32,
    stretches: Vec<Stretch>,
    offsets: i64,
    encoder: Encoder,
}

impl Job<'_> {
    async fn run(self, sink: Sink, stop: watch::Receiver<bool>) -> Result<(Counts, Read)> {
        let args = self.args;
        // Counts, and offsets passed.
        let done = Arc::new(Mutex::new((Counts::default(), 0i64)));
        let heard = done.clone();
        let lane = lanes::start(sink.into_target(self.target), self.encoder, move |written, slots| {
            let mut done = heard.lock().unwrap_or_else(PoisonError::into_inner);
            done.0 += written.counts;
            done.1 += slots.iter().map(|s| s.to - s.from).sum::<i64>();
        });
        let (kafka, topic, topic_id, stretches) =
            (self.kafka, args.topic.clone(), self.topic_id, self.stretches);
        let batch_limits = options::batch_limits(self.settings, 1)?;
        let batches = lane.batches;
        let mut reading = tokio::task::spawn_blocking(move || {
            kafka.read_stretches(&topic, topic_id, &stretches, batch_limits, &stop, &batches)
        });
        let progress = Progress::new(self.offsets);
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    progress.at(&done.lock().unwrap_or_else(PoisonError::into_inner));
                }
            }
        };
        let read = read.map_err(|e| Error::bug("the reading thread died", e))?;
        let lane = lane.done.await.map_err(|e| Error::bug("the writing task died", e))?;
        progress.finish();
        match lane {
            Ok(()) => {}
            Err(SinkError::Fatal(e) | SinkError::TooMuch(e)) => return Err(e),
            Err(SinkError::Fenced) => {
                let why = "another tidemark has started the same replay";
                return Err(Error::new(
                    Kind::Temporary,
                    "stopped",
                    why,
                    "let that one finish; nothing is lost or doubled",
                ));
            }
            Err(SinkError::WentBack(why)) => {
                let next = "run the same command again: it goes on where Postgres is";
                return Err(Error::new(Kind::Temporary, "stopped", why, next));
            }
            Err(SinkError::Stopped | SinkError::Paused) => {}
        }
        let read = read?;
        let total = done.lock().unwrap_or_else(PoisonError::into_inner).0;
        Ok((total, read))
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(offsets: i64) -> Self {
        Progress(std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(u64::try_from(offsets).ok(), ProgressDrawTarget::stderr());
            let template = "replaying {bar:40} {human_pos}/{human_len} offsets, {per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        }))
    }

    fn at(&self, done: &(Counts, i64)) {
        if let Some(bar) = &self.0 {
            bar.set_position(u64::try_from(done.1).unwrap_or(0));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
