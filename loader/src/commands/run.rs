//! `tidemark run`: from Kafka into bronze until it is told to stop. Starts sessions (`kafka::session`) one after the
//! other, each with a lane of its own, and handles signals.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::limits::Times;
use super::{Database, load, maintain};
use crate::batch::{Counts, Encoder};
use crate::envelope::Limits;
use crate::envelope::preset::{Format, FormatArgs};
use crate::error::{Error, Kind, Result};
use crate::kafka::Kafka;
use crate::kafka::in_flight::InFlight;
use crate::kafka::plan::{BatchLimits, Ended, OutOfRange, Settings};
use crate::kafka::session;
use crate::sink::{Patience, Sink, SinkError};
use crate::target::{BRONZE, DedupeArgs, Target};
use crate::{lane, pg, position};

/// Shorter than the 30 s that systemd waits before it kills.
const SHUTDOWN: Duration = Duration::from_secs(25);

/// Arguments of `tidemark run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    kafka: Kafka,
    /// Topic to read; can be repeated
    #[arg(long = "topic", required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Name of the position in Postgres; another name reads everything once more
    #[arg(long, default_value = "web", value_name = "NAME")]
    pipeline: String,
    /// Kafka consumer group; loaders that share one share the partitions [default: tidemark-<PIPELINE>]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Stop once everything is loaded that the topics held at the start
    #[arg(long)]
    until_caught_up: bool,
    /// How often to refresh models and make partitions ahead, such as 30s or 5m, or off
    #[arg(long, default_value = "30s", value_name = "TIME|off", value_parser = parse_every)]
    maintain_every: Every,
    /// What to do when Kafka no longer has the records at our position
    #[arg(long, default_value = "fail", value_enum)]
    on_offset_out_of_range: OutOfRange,
    /// Most records in one transaction
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: u32,
    /// Longest time that a record waits for others before it is committed, in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    batch_delay_ms: u64,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    dedupe: DedupeArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// How events are read and where they go.
struct Reading {
    target: Target,
    format: Format,
}

/// How often to do something; `None` is never.
type Every = Option<Duration>;

fn parse_every(text: &str) -> Result<Every, String> {
    if text == "off" {
        return Ok(None);
    }
    let bad = || "write a whole number with s, m or h, such as 30s, or off".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    if number == 0 || number > 100_000 {
        return Err(bad());
    }
    Ok(Some(Duration::from_secs(number * seconds)))
}

/// Loads until a signal comes, or until it has caught up; then prints a summary to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let started = Instant::now();
    let kafka = args.kafka.clone();
    let topics = args.topics.clone();
    let bounded = args.until_caught_up;
    let survey = tokio::task::spawn_blocking(move || kafka.survey(&topics, bounded)).await;
    let survey = survey.map_err(|e| Error::bug("cannot ask Kafka", e))??;

    let client = pg::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| pg::explain("cannot open the pipeline", &config, &e);
    let (pipeline_id, known_cluster) = position::pipeline(&client, &args.pipeline).await.map_err(explain)?;
    if let Some(cluster) = &survey.cluster_id {
        match known_cluster {
            None => position::set_cluster(&client, pipeline_id, cluster).await.map_err(explain)?,
            Some(known) if known != *cluster => {
                return Err(Error::new(
                    Kind::Config,
                    format!("cannot continue pipeline {}", args.pipeline),
                    format!("it belongs to Kafka cluster {known}, and {} is {cluster}", args.kafka.brokers),
                    "correct --brokers, or start another --pipeline",
                ));
            }
            Some(_) => {}
        }
    }
    let target = Target::new(BRONZE, args.dedupe).map_err(|why| Error::bug("cannot load", why))?;
    target.takes(args.times.limits().late_policy)?;
    target.check(&client, &config).await?;
    drop(client);
    let reading = Reading { target, format: args.format.format() };

    let stop = watch_signals()?;
    if let Some(every) = args.maintain_every {
        tokio::spawn(maintain::every(config.clone(), every, stop.clone()));
    }
    let limits = args.times.limits();
    let settings = Arc::new(Settings {
        group: args.group.unwrap_or_else(|| format!("tidemark-{}", args.pipeline)),
        kafka: args.kafka,
        topics: args.topics,
        postgres: config,
        pipeline_id,
        owner: super::owner(),
        limits: BatchLimits {
            rows: args.batch_rows as usize,
            bytes: 16 << 20,
            delay: Duration::from_millis(args.batch_delay_ms),
            keep: limits.max_bytes,
        },
        out_of_range: args.on_offset_out_of_range,
        until: args.until_caught_up.then_some(survey.ends),
    });
    let total = Arc::new(Mutex::new(Counts::default()));
    let result = sessions(&settings, limits, &reading, &stop, &total).await;
    let total = *total.lock().unwrap_or_else(PoisonError::into_inner);
    if result.is_ok() {
        load::print_summary(&total, started.elapsed());
    }
    result
}

async fn sessions(
    settings: &Arc<Settings>,
    limits: Limits,
    reading: &Reading,
    stop: &watch::Receiver<bool>,
    total: &Arc<Mutex<Counts>>,
) -> Result<()> {
    let mut pause = Duration::from_millis(500);
    loop {
        let began = Instant::now();
        let why = match session(settings, limits, reading, stop, total).await? {
            Ended::Stopped | Ended::CaughtUp => return Ok(()),
            Ended::Failed(error) => return Err(error),
            Ended::Restart(why) => why,
            Ended::LaneEnded => return Err(Error::bug("loading stopped", "the lane ended without a reason")),
        };
        if *stop.borrow() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            pause = Duration::from_millis(500);
        }
        tracing::warn!("joining the group again in {} ms: {why}", pause.as_millis());
        let mut stopped = stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// One session and its lane, from start to end.
async fn session(
    settings: &Arc<Settings>,
    limits: Limits,
    reading: &Reading,
    stop: &watch::Receiver<bool>,
    total: &Arc<Mutex<Counts>>,
) -> Result<Ended> {
    let sink = Sink::new(
        settings.postgres.clone(),
        settings.pipeline_id,
        settings.owner.clone(),
        Patience::Forever,
        stop.clone(),
    )
    .into_target(reading.target.clone());
    let encoder =
        Encoder::new(limits, None).with_format(reading.format.clone()).with_dedupe(reading.target.dedupe);
    let in_flight = Arc::new(InFlight::default());
    let (heard, total) = (in_flight.clone(), total.clone());
    let lane = lane::start(sink, encoder, move |written, slots| {
        *total.lock().unwrap_or_else(PoisonError::into_inner) += written.counts;
        heard.committed(slots);
    });
    let (ended, ends) = tokio::sync::oneshot::channel();
    let (settings, handle, stopped, batches) =
        (settings.clone(), tokio::runtime::Handle::current(), stop.clone(), lane.batches);
    std::thread::Builder::new()
        .name("kafka".to_owned())
        .spawn(move || {
            let _ = ended.send(session::run(settings, handle, stopped, batches, in_flight));
        })
        .map_err(|e| Error::new(Kind::Temporary, "cannot start a thread", e, "free some resources"))?;
    let ended = ends.await.map_err(|e| Error::bug("the reading thread died", e))?;
    match lane.done.await.map_err(|e| Error::bug("the writing task died", e))? {
        Ok(()) => Ok(ended),
        Err(SinkError::Fenced) => {
            Ok(Ended::Restart("another loader has claimed one of our partitions".to_owned()))
        }
        Err(SinkError::Stopped) => Ok(Ended::Stopped),
        Err(SinkError::Fatal(error)) => Ok(Ended::Failed(error)),
    }
}

/// The first SIGTERM or SIGINT asks to stop, the second one ends the process, and so does the deadline after the
/// first: closing a Kafka consumer can hang, and a killed loader loses nothing.
pub(super) fn watch_signals() -> Result<watch::Receiver<bool>> {
    let failed = |e| Error::new(Kind::Temporary, "cannot watch for signals", e, "try again");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (sender, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!("stopping: finishing the batches in flight");
        let _ = sender.send(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(SHUTDOWN) => {
                eprintln!(
                    "tidemark: stopped the hard way: batches in flight did not finish within {} s; \
                     they were rolled back and will be read again",
                    SHUTDOWN.as_secs()
                );
            }
        }
        std::process::exit(i32::from(Kind::Temporary.exit_code()));
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_numbers_with_a_unit() {
        assert_eq!(parse_every("30s"), Ok(Some(Duration::from_secs(30))));
        assert_eq!(parse_every("5m"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(parse_every("off"), Ok(None));
        for bad in ["", "s", "0s", "30", "-1s", "1.5h", "30é"] {
            assert!(parse_every(bad).is_err(), "{bad}");
        }
    }
}
