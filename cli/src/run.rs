//! `tidemark run`: from Kafka into bronze until it is told to stop. Starts sessions (`kafka::session`) one after the
//! other, each with lanes of its own, and handles signals.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kafka_options::{self, Options};
use super::{load, maintain, migrate, options};
use tidemark_loader::batch::Encoder;
use tidemark_loader::config::Config;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::kafka::bounded;
use tidemark_loader::kafka::session;
use tidemark_loader::kafka::topics::Topics;
use tidemark_loader::kafka::{Ended, Settings};
use tidemark_loader::lanes::sink::{Patience, Sink, SinkError};
use tidemark_loader::lanes::{self, Lane};
use tidemark_loader::operations::health::LIMITS;
use tidemark_loader::operations::http;
use tidemark_loader::operations::state::{Now, Shared};
use tidemark_loader::operations::supervisor::{Supervisor, Voice};
use tidemark_loader::operations::supervisor::{notify, watchdog};
use tidemark_loader::postgres::backends;
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::partitions::Dates;
use tidemark_loader::postgres::position;
use tidemark_loader::postgres::target::Target;

/// Arguments of `tidemark run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Stop once everything is loaded that the topics held at the start
    #[arg(long)]
    until_caught_up: bool,
}

/// How events are read and where they go.
struct Reading {
    encoder: Encoder,
    target: Target,
    dates: Arc<Dates>,
}

impl Args {
    /// The configuration in force.
    pub fn config(&self) -> Result<Config> {
        self.options.load()
    }
}

/// Loads until a signal comes, or until it has caught up; then prints a summary to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.config()?;
    let postgres = options::postgres(&config)?;
    let kafka = kafka_options::kafka(&config)?;
    let topics = kafka_options::topics(&config)?;
    let name = config.get("pipeline.name").unwrap_or("web").to_owned();
    let dates = Arc::new(Dates::new(config.get("record.event_time_floor").is_none()));
    let encoder = options::encoder(&config)?.with_floor(dates.floor());
    let reading = Reading { encoder, target: options::target(&config)?, dates };
    let lanes = options::lanes(&config)?;
    let limits = options::batch_limits(&config, lanes)?;
    // Before anything that takes time: who is asked to leave while it starts leaves in peace.
    let stop = watch_signals(config.time("shutdown.timeout")?.unwrap_or(Duration::from_secs(25)))?;
    let started = Instant::now();
    let bounded = args.until_caught_up;
    let (asked, wanted) = (kafka.clone(), topics.clone());
    let survey = tokio::task::spawn_blocking(move || asked.survey(&wanted, bounded)).await;
    let survey = survey.map_err(|e| Error::bug("cannot ask Kafka", e))??;
    // A run with an end cannot know the end of a topic that is not there, and one without has to have something to read.
    if bounded || survey.found.topics.is_empty() && !topics.has_patterns() {
        survey.all_there()?;
    }
    let topics = if bounded { Topics::only(survey.found.topics) } else { topics };

    let client = connection::connect_once(&postgres).await?;
    backends::refuse_pooler(&client, &postgres).await?;
    migrate::expect_current(&client, &postgres).await?;
    let what = "cannot open the pipeline";
    let explain = |e: tokio_postgres::Error| connection::explain(what, &postgres, &e);
    backends::be_patient(&client).await.map_err(explain)?;
    let opened = backends::watched(&postgres, &client, what, position::pipeline(&client, &name)).await;
    let (pipeline_id, known_cluster) = opened.map_err(explain)?;
    if let Some(cluster) = &survey.cluster_id {
        match known_cluster {
            None => position::set_cluster(&client, pipeline_id, cluster).await.map_err(explain)?,
            Some(known) if known != *cluster => {
                return Err(Error::new(
                    Kind::Config,
                    format!("cannot continue pipeline {name}"),
                    format!("it belongs to Kafka cluster {known}, and {} is {cluster}", kafka.brokers),
                    "correct --brokers, or start another --pipeline",
                ));
            }
            Some(_) => {}
        }
    }
    reading.target.check(&client, &postgres).await?;
    options::prepare(&reading.encoder, &client, &postgres).await?;
    reading.dates.refresh(&client, &reading.target).await.map_err(explain)?;
    let owner = super::owner();
    let state = Shared::new(&name, &owner);
    let breaker = options::breaker(&config)?;
    let schema = migrate::ours();
    let supervisor = Supervisor::new(state.clone(), breaker, &name, pipeline_id, &owner, schema);
    let supervisor = Arc::new(supervisor);
    supervisor.begin(&client).await.map_err(explain)?;
    drop(client);

    if let Some(listen) = config.get("http.listen") {
        let address = http::serve(listen, state.clone()).await?;
        tracing::info!("listening on http://{address}");
    }
    tokio::spawn(supervisor.clone().watch(postgres.clone(), stop.clone()));
    if let Some(every) = config.time("maintenance.every")? {
        tokio::spawn(maintain::every(postgres.clone(), every, state.clone(), stop.clone()));
    }
    tokio::spawn(watchdog(state.clone()));
    tokio::spawn(bounded::watch(kafka.clone(), state.clone(), stop.clone()));
    notify("READY=1");
    let settings = Arc::new(Settings {
        group: kafka_options::group(&config),
        kafka,
        topics,
        postgres,
        pipeline_id,
        owner,
        lanes,
        limits,
        state: state.clone(),
        end_stuck_writers: config.get("fencing.terminate_previous_backend") == Some("true"),
        on_data_loss: kafka_options::on_data_loss(&config)?,
        link: Mutex::default(),
        until: bounded.then_some(survey.ends),
    });
    let result = sessions(&settings, &reading, &stop, &supervisor).await;
    notify("STOPPING=1");
    if result.is_ok() {
        load::print_summary(&state.with(|s| s.counts()), started.elapsed());
    }
    result
}

async fn sessions(
    settings: &Arc<Settings>,
    reading: &Reading,
    stop: &watch::Receiver<bool>,
    supervisor: &Arc<Supervisor>,
) -> Result<()> {
    let state = &supervisor.state;
    let mut pause = Duration::from_millis(500);
    loop {
        if let Some(why) = state.with(|s| s.paused.clone()) {
            if settings.until.is_some() {
                let next = "see tidemark resume --help";
                return Err(Error::new(
                    Kind::Temporary,
                    "cannot load",
                    format!("the pipeline is paused: {why}"),
                    next,
                ));
            }
            if !wait(state, stop, Duration::from_millis(500)).await {
                return Ok(());
            }
            continue;
        }
        if settings.until.is_some() {
            refuse_paused_topics(settings)?;
        }
        let began = Instant::now();
        let why = match session(settings, reading, stop, supervisor).await? {
            Ended::Stopped | Ended::CaughtUp => return Ok(()),
            Ended::Paused => continue,
            Ended::Failed(error) => return Err(error),
            Ended::Restart(why) => why,
            Ended::LaneEnded => return Err(Error::bug("loading stopped", "a lane ended without a reason")),
        };
        if *stop.borrow() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            pause = Duration::from_millis(500);
        }
        tracing::warn!("joining the group again in {} ms: {why}", pause.as_millis());
        if !wait(state, stop, pause).await {
            return Ok(());
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// A run with an end does not come to it without a topic that is paused.
fn refuse_paused_topics(settings: &Settings) -> Result<()> {
    let state = settings.state.get();
    let paused = state.paused_topics.iter().find(|(topic, _)| settings.topics.want(topic));
    let Some((topic, paused)) = paused else { return Ok(()) };
    let why = format!("topic {topic} is paused: {}", paused.why);
    Err(Error::new(Kind::Temporary, "cannot load", why, "see tidemark resume --help"))
}

/// Waits, alive. Returns false when we are told to stop.
async fn wait(state: &Shared, stop: &watch::Receiver<bool>, time: Duration) -> bool {
    let mut stopped = stop.clone();
    let until = Instant::now() + time;
    loop {
        state.with(|s| s.polled());
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(Duration::from_secs(5))) => {}
            _ = stopped.wait_for(|stop| *stop) => return false,
        }
    }
}

/// One session and its lanes, from start to end.
async fn session(
    settings: &Arc<Settings>,
    reading: &Reading,
    stop: &watch::Receiver<bool>,
    supervisor: &Arc<Supervisor>,
) -> Result<Ended> {
    supervisor.state.with(|s| s.begin(settings.lanes));
    let (mut entrances, mut running) = (Vec::new(), Vec::new());
    for number in 0..settings.lanes {
        let lane = start_lane(number, settings, reading, stop, supervisor);
        entrances.push(lane.batches);
        running.push(lane.done);
    }
    let (ended, ends) = tokio::sync::oneshot::channel();
    let (settings, handle, stopped) = (settings.clone(), tokio::runtime::Handle::current(), stop.clone());
    std::thread::Builder::new()
        .name("kafka".to_owned())
        .spawn(move || {
            if ended.send(session::run(settings, handle, stopped, entrances)).is_err() {
                // What it has said of the state since it was given up may be untrue, of claims that are another's now.
                eprintln!(
                    "tidemark: stopped the hard way: a reading thread came back that had been given up"
                );
                std::process::exit(i32::from(Kind::Temporary.exit_code()));
            }
        })
        .map_err(|e| Error::new(Kind::Temporary, "cannot start a thread", e, "free some resources"))?;
    let ended = tokio::select! {
        ended = ends => ended.map_err(|e| Error::bug("the reading thread died", e))?,
        silence = stuck(&supervisor.state) => {
            // As after a kill: what was in flight is rolled back, or was committed with its position.
            running.iter().for_each(JoinHandle::abort);
            futures_util::future::join_all(running).await;
            supervisor.state.with(|s| s.ended());
            let seconds = silence.as_secs();
            return Ok(Ended::Restart(format!(
                "the reading thread has been silent for {seconds} s and is given up: librdkafka does not come back"
            )));
        }
    };
    // The reading thread is gone; while the last batches wait for Postgres, it is for us to be alive. Each lane comes to
    // its own end: one that has failed does not take from the others what they have in hand.
    let mut alive = tokio::time::interval(Duration::from_secs(5));
    let mut done = futures_util::future::join_all(running);
    let done = loop {
        tokio::select! {
            done = &mut done => break done,
            _ = alive.tick() => supervisor.state.with(|s| s.polled()),
        }
    };
    supervisor.state.with(|s| s.ended());
    let mut errors = Vec::new();
    for result in done {
        if let Err(error) = result.map_err(|e| Error::bug("a writing task died", e))? {
            errors.push(error);
        }
    }
    Ok(outcome(ended, errors))
}

/// Comes back when the reading thread does not, with how long it has been silent. librdkafka has deadlocks (its issue 5476: a
/// broker that is taken out of the cluster while a partition that it led is validated), after which the group has gone
/// on without us. A process that was stopped itself for so long is seen alive at the second look.
async fn stuck(state: &Shared) -> Duration {
    let mut looks = 0;
    loop {
        let silence = state.with(|s| s.silence(Now::get()));
        looks = if silence < 2 * LIMITS.silence { 0 } else { looks + 1 };
        if looks == 2 {
            return silence;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Starts the lane of this number.
fn start_lane(
    number: usize,
    settings: &Settings,
    reading: &Reading,
    stop: &watch::Receiver<bool>,
    supervisor: &Arc<Supervisor>,
) -> Lane {
    let sink = Sink::new(
        settings.postgres.clone(),
        settings.pipeline_id,
        settings.owner.clone(),
        Patience::Forever,
        stop.clone(),
    );
    let sink = sink.heard_by(Voice::new(supervisor.clone(), number)).into_target(reading.target.clone());
    lanes::start(sink.within(reading.dates.clone()), reading.encoder.clone(), |_, _| {})
}

/// What became of a session, given how reading ended and why lanes failed. The reason that counts is the one that is
/// hardest to cure.
fn outcome(ended: Ended, errors: Vec<SinkError>) -> Ended {
    let weight = |error: &SinkError| match error {
        SinkError::Fatal(_) | SinkError::TooMuch(_) => 4,
        SinkError::Paused => 3,
        SinkError::Stopped => 2,
        SinkError::WentBack(_) => 1,
        SinkError::Fenced => 0,
    };
    match errors.into_iter().max_by_key(weight) {
        None => ended,
        Some(SinkError::Fenced) => {
            Ended::Restart("another loader has claimed one of our partitions".to_owned())
        }
        Some(SinkError::WentBack(why)) => Ended::Restart(why),
        Some(SinkError::Stopped) => Ended::Stopped,
        Some(SinkError::Paused) => Ended::Paused,
        Some(SinkError::Fatal(error) | SinkError::TooMuch(error)) => Ended::Failed(error),
    }
}

/// The first SIGTERM or SIGINT asks to stop, the second one ends the process, and so does the deadline after the
/// first: closing a Kafka consumer can hang, and a killed loader loses nothing.
pub(super) fn watch_signals(deadline: Duration) -> Result<watch::Receiver<bool>> {
    let failed = |e| Error::new(Kind::Temporary, "cannot watch for signals", e, "try again");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (sender, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        notify("STOPPING=1");
        tracing::info!("stopping: finishing the batches in flight");
        let _ = sender.send(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(deadline) => {
                eprintln!(
                    "tidemark: stopped the hard way: batches in flight did not finish within {} s; \
                     they were rolled back and will be read again",
                    deadline.as_secs()
                );
            }
        }
        std::process::exit(i32::from(Kind::Temporary.exit_code()));
    });
    Ok(stop)
}
