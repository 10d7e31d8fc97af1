//! Watches over one pipeline of this process: whether somebody paused it, whether Postgres answers, and whether so many
//! records of a topic are bad that it must be paused. What it learns is in `state`; the rule for bad records is in `breaker`.
//! And tells systemd that we are ready, alive, or about to stop (sd_notify), where NOTIFY_SOCKET says that it listens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::{Client, Error as PgError};

use crate::batch::{Batch, Counts};
use crate::operations::breaker::{self, Breaker, Verdict};
use crate::operations::health::{LIMITS, line};
use crate::operations::state::{Now, Shared, State};
use crate::postgres::connection::{self, Config, Kept};
use crate::postgres::position::{self, Pause};
use crate::postgres::transaction::Written;

/// How often loader.pipelines is read.
const PERIOD: Duration = Duration::from_secs(2);
/// How often the log says how it goes.
const SUMMARY: Duration = Duration::from_secs(60);
/// A Postgres that takes longer for one row does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Shared by the lanes, the reading thread and the task that asks Postgres.
#[derive(Debug)]
pub struct Supervisor {
    /// What is known.
    pub state: Arc<Shared>,
    breakers: Mutex<Breakers>,
    /// What Postgres was told about topics that are missing.
    told_missing: Mutex<Option<BTreeMap<String, String>>>,
    pipeline: String,
    pipeline_id: i32,
    owner: String,
    /// The last migration that this binary knows.
    schema: i32,
}

/// One for each topic: what is bad about one does not stop the others.
#[derive(Debug)]
struct Breakers {
    limits: breaker::Limits,
    of: HashMap<Arc<str>, Breaker>,
    /// Topics whose dead letters somebody accepts, as far as we have heard.
    accepting: BTreeSet<Arc<str>>,
}

impl Breakers {
    fn of(&mut self, topic: &Arc<str>) -> &mut Breaker {
        let limits = self.limits;
        self.of.entry(topic.clone()).or_insert_with(|| Breaker::new(limits))
    }

    /// What the breaker of a topic thinks of a batch.
    fn judge(&mut self, topic: &Arc<str>, batch: &Batch) -> Verdict {
        let slots = batch.slots();
        self.of(topic).judge(slots, batch.judged().filter(|(slot, _)| slots[*slot].topic == *topic))
    }
}

/// The topics that a batch has records of.
fn topics_of(batch: &Batch) -> BTreeSet<Arc<str>> {
    batch.slots().iter().map(|slot| slot.topic.clone()).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// Of a process that starts to load.
    pub fn new(
        state: Arc<Shared>,
        limits: breaker::Limits,
        pipeline: &str,
        pipeline_id: i32,
        owner: &str,
        schema: i32,
    ) -> Self {
        Supervisor {
            state,
            breakers: Mutex::new(Breakers { limits, of: HashMap::new(), accepting: BTreeSet::new() }),
            told_missing: Mutex::new(None),
            pipeline: pipeline.to_owned(),
            pipeline_id,
            owner: owner.to_owned(),
            schema,
        }
    }

    /// Whether this batch must not be committed. If so, one of its topics is paused from now on.
    fn refuses(&self, batch: &Batch) -> bool {
        let mut breakers = locked(&self.breakers);
        for topic in topics_of(batch) {
            let Some(why) = breakers.judge(&topic, batch).open else { continue };
            let reason = format!("{why}; {}", commonest(batch, &topic));
            if self.state.with(|s| s.pause_topic(&topic, &reason)) {
                self.state.with(|s| s.tally.circuit_opened += 1);
                let resume = format!("tidemark resume {} --topic {topic}", self.pipeline);
                tracing::error!(
                    "topic {topic} is paused, its position does not move: {reason}. Correct the producer or the \
                     configuration and run `{resume}`; or let them become dead letters: `{resume} --accept-dead-letters`"
                );
            }
            return true;
        }
        false
    }

    /// A batch was committed.
    fn committed(&self, lane: usize, batch: &Batch, written: &Written, took: Duration) {
        let mut breakers = locked(&self.breakers);
        for topic in topics_of(batch) {
            let verdict = breakers.judge(&topic, batch);
            let breaker = breakers.of(&topic);
            let was_armed = breaker.is_armed();
            breaker.accept(verdict);
            if breaker.is_armed() && !was_armed {
                tracing::info!(
                    "what comes of {topic} is good again: it is paused again when too many records are not"
                );
            }
        }
        drop(breakers);
        self.state.with(|s| s.committed(lane, batch, written));
        let n = written.counts;
        tracing::debug!(
            lane,
            batch_id = written.batch_id,
            path = ?written.path,
            read = n.read,
            loaded = n.loaded,
            duplicate = n.duplicate,
            late = n.late,
            dead = n.dead,
            bytes = batch.bytes(),
            milliseconds = took.as_millis() as u64,
            "batch committed"
        );
    }

    /// Asks Postgres once and takes over what it says.
    async fn refresh(&self, client: &Client) -> Result<(), PgError> {
        let untold = self.state.with(|s| s.untold());
        for (topic, reason) in untold {
            position::pause_topic(client, self.pipeline_id, &topic, &self.owner, &reason).await?;
            self.state.with(|s| s.told(&topic));
        }
        let (joined, missing) = self.state.with(|s| (s.joined, s.missing.clone()));
        if joined && locked(&self.told_missing).as_ref() != Some(&missing) {
            position::set_missing(client, self.pipeline_id, &self.owner, &missing).await?;
            *locked(&self.told_missing) = Some(missing);
        }
        self.ask_orders(client, position::outgrown(client, self.schema).await?).await?;
        let held = self.state.with(|s| s.holdings());
        let (found, lost) = position::compare(client, self.pipeline_id, &self.owner, &held).await?;
        self.state.with(|s| s.compared(&held, &found, lost));
        Ok(())
    }

    /// What people, and other loaders, have ordered about the pipeline and its topics.
    async fn ask_orders(&self, client: &Client, outgrown: Option<i32>) -> Result<(), PgError> {
        self.take_over(position::pause_of(client, self.pipeline_id).await?, outgrown);
        let topics = position::topic_states(client, self.pipeline_id).await?;
        let of_state = |state: &str| {
            let found: Vec<_> = topics.iter().filter(|topic| topic.state == state).collect();
            found.into_iter().map(|found| (Arc::from(found.topic.as_str()), found.why.clone()))
        };
        let paused: BTreeMap<Arc<str>, String> = of_state("paused").collect();
        let (news, resumed) = self.state.with(|s| s.order(&paused));
        news.iter().for_each(|topic| tracing::warn!("topic {topic} is paused: {}", paused[topic]));
        let accepting: BTreeSet<Arc<str>> = of_state("accepting").map(|(topic, _)| topic).collect();
        let mut good = Vec::new();
        {
            let mut breakers = locked(&self.breakers);
            for topic in resumed {
                tracing::info!("topic {topic} is resumed");
                breakers.of(&topic).reset(true);
            }
            for topic in &accepting {
                if !breakers.accepting.contains(topic) {
                    breakers.of(topic).reset(false);
                } else if breakers.of(topic).is_armed() {
                    good.push(topic.clone());
                }
            }
            breakers.accepting = accepting;
        }
        for topic in good {
            position::expect_good(client, self.pipeline_id, &topic).await?;
        }
        if !paused.is_empty() {
            let positions = position::positions_of_paused(client, self.pipeline_id).await?;
            self.state.with(|s| positions.iter().for_each(|(topic, n, next)| s.stands(topic, *n, *next)));
        }
        Ok(())
    }

    fn take_over(&self, found: Pause, outgrown: Option<i32>) {
        let reason = found.paused.then(|| {
            let by = found.by.as_deref().unwrap_or("somebody");
            format!("{} (by {by})", found.reason.as_deref().unwrap_or("no reason was given"))
        });
        let reason = reason.or(outgrown.map(|oldest| {
            format!("the database was migrated for a newer tidemark: only those go on that know migration {oldest}")
        }));
        match (self.state.with(|s| s.paused.clone()), &reason) {
            (Some(_), None) => tracing::info!("pipeline {} is resumed", self.pipeline),
            (None, Some(reason)) => tracing::warn!("pipeline {} is paused: {reason}", self.pipeline),
            _ => {}
        }
        self.state.with(|s| s.paused = reason);
    }

    /// Before the first batch: what was ordered before this process began.
    pub async fn begin(&self, client: &Client) -> Result<(), PgError> {
        self.ask_orders(client, None).await
    }

    /// Goes on asking until told to stop.
    pub async fn watch(self: Arc<Self>, config: Config, mut stop: watch::Receiver<bool>) {
        let mut open: Option<Kept> = None;
        let mut status = String::new();
        let mut told = (Instant::now(), 0, Counts::default());
        loop {
            let asked = tokio::time::timeout(TIMEOUT, async {
                let client = match open.take().and_then(Kept::usable) {
                    Some(client) => client,
                    None => Kept::new(connection::connect(&config).await?),
                };
                self.refresh(&client).await?;
                Ok::<_, PgError>(client)
            });
            let failure = match asked.await {
                Ok(Ok(client)) => {
                    open = Some(client);
                    None
                }
                Ok(Err(e)) => Some(connection::full_message(&e)),
                Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
            };
            self.state.with(|s| s.postgres = failure);
            let state = self.state.get();
            let now = line(&state, Now::get(), &LIMITS);
            if now != status {
                notify(&format!("STATUS={now}"));
                status = now;
            }
            if told.0.elapsed() >= SUMMARY {
                summarize(&state, &status, &mut told);
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// One line about the time since the last one: batches and records, and how far behind the loader is.
fn summarize(state: &State, status: &str, told: &mut (Instant, u64, Counts)) {
    let (all, batches) = (state.counts(), state.tally.batches.values().sum());
    let n = all - told.2;
    tracing::info!(
        batches = batches - told.1,
        read = n.read,
        loaded = n.loaded,
        duplicate = n.duplicate,
        late = n.late,
        dead = n.dead,
        lag_records = state.lag(),
        lag_seconds = (state.lag_seconds(Now::get()) * 10.0).round() / 10.0,
        "{status}"
    );
    *told = (Instant::now(), batches, all);
}

/// Where a lane says how it gets on; nowhere in a command that no one watches, such as `tidemark load`.
#[derive(Clone, Debug, Default)]
pub struct Voice(Option<(Arc<Supervisor>, usize)>);

impl Voice {
    /// Of the lane of this number.
    pub fn new(supervisor: Arc<Supervisor>, lane: usize) -> Self {
        Voice(Some((supervisor, lane)))
    }

    /// Says something.
    pub fn tell(&self, what: impl FnOnce(&mut State, usize)) {
        if let Some((supervisor, lane)) = &self.0 {
            supervisor.state.with(|state| what(state, *lane));
        }
    }

    /// A batch was committed.
    pub fn committed(&self, batch: &Batch, written: &Written, took: Duration) {
        match &self.0 {
            Some((supervisor, lane)) => supervisor.committed(*lane, batch, written, took),
            None => tracing::debug!(batch_id = written.batch_id, "batch committed"),
        }
    }

    /// Whether a batch must not be committed, to be asked as the last thing before its COMMIT.
    pub fn refuses(&self, batch: &Batch) -> bool {
        self.0.as_ref().is_some_and(|(supervisor, _)| supervisor.refuses(batch))
    }
}

/// The commonest reason among the dead letters of a topic in a batch, and where to look for an example.
fn commonest(batch: &Batch, topic: &str) -> String {
    let mut reasons: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    let mut all = 0;
    for letter in batch.dead_letters().filter(|letter| letter.slot.topic.as_ref() == topic) {
        all += 1;
        let entry = reasons.entry(letter.dead.rejection.reason.as_str()).or_insert_with(|| {
            (0, format!("{} [{}] offset {}", letter.slot.topic, letter.slot.partition, letter.offset))
        });
        entry.0 += 1;
    }
    let most = reasons.into_iter().max_by_key(|(_, (n, _))| *n);
    most.map_or_else(String::new, |(reason, (n, at))| {
        format!("of this batch {n} of {all} for {reason}, such as {at}")
    })
}

/// Sends a message such as `READY=1`.
pub fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|p| !p.is_empty()) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &a));
    if let Err(e) = sent {
        tracing::debug!("cannot notify systemd: {e}");
    }
}

/// Tells the watchdog that we are alive, for as long as the reading thread is.
pub async fn watchdog(state: Arc<Shared>) {
    let limit = std::env::var("WATCHDOG_USEC").ok().and_then(|v| v.parse().ok()).map(Duration::from_micros);
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let Some(limit) = limit.filter(|l| ours && !l.is_zero()) else { return };
    let mut timer = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        timer.tick().await;
        if state.with(|s| s.silence(Now::get())) < LIMITS.silence {
            notify("WATCHDOG=1");
        }
    }
}
