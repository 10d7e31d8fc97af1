//! Watches over one pipeline of this process: whether somebody paused it, whether Postgres answers, and whether so many
//! records are bad that it must pause itself. What it learns is in `state`; the rule for bad records is in `breaker`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::{Client, Error as PgError};

use crate::batch::{Batch, Counts};
use crate::operations::breaker::Breaker;
use crate::operations::health::{LIMITS, line};
use crate::operations::notify;
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
    breaker: Mutex<Breaker>,
    /// Why we must pause, until Postgres has it.
    unannounced: Mutex<Option<String>>,
    pipeline: String,
    pipeline_id: i32,
    owner: String,
    /// The last migration that this binary knows.
    schema: i32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// Of a process that starts to load.
    pub fn new(
        state: Arc<Shared>,
        breaker: Breaker,
        pipeline: &str,
        pipeline_id: i32,
        owner: &str,
        schema: i32,
    ) -> Self {
        Supervisor {
            state,
            breaker: Mutex::new(breaker),
            unannounced: Mutex::new(None),
            pipeline: pipeline.to_owned(),
            pipeline_id,
            owner: owner.to_owned(),
            schema,
        }
    }

    /// Whether this batch must not be committed. If so, the pipeline is paused from now on.
    fn refuses(&self, batch: &Batch) -> bool {
        let Some(why) = locked(&self.breaker).judge(batch.slots(), batch.judged()).open else { return false };
        let reason = format!("{why}; {}", commonest(batch));
        let mut unannounced = locked(&self.unannounced);
        if unannounced.is_none() && self.state.with(|s| s.paused.is_none()) {
            self.state.with(|s| s.tally.circuit_opened += 1);
            tracing::error!(
                "pipeline {0} is paused, its position does not move: {reason}. Correct the producer or the \
                 configuration and run `tidemark resume {0}`; or let them become dead letters: \
                 `tidemark resume {0} --accept-dead-letters`",
                self.pipeline
            );
        }
        self.state.with(|s| s.paused = Some(reason.clone()));
        unannounced.get_or_insert(reason);
        true
    }

    /// A batch was committed.
    fn committed(&self, lane: usize, batch: &Batch, written: &Written, took: Duration) {
        let mut breaker = locked(&self.breaker);
        let was_armed = breaker.is_armed();
        let verdict = breaker.judge(batch.slots(), batch.judged());
        breaker.accept(verdict);
        if breaker.is_armed() && !was_armed {
            tracing::info!(
                "what comes is good again: the pipeline pauses again when too many records are not"
            );
        }
        drop(breaker);
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
        let unannounced = locked(&self.unannounced).clone();
        if let Some(reason) = unannounced {
            position::pause(client, self.pipeline_id, &self.owner, &reason).await?;
            *locked(&self.unannounced) = None;
        }
        let found = position::pause_of(client, self.pipeline_id).await?;
        let accept = found.accept_dead_letters && !found.paused;
        self.take_over(found, position::outgrown(client, self.schema).await?);
        if accept && locked(&self.breaker).is_armed() {
            position::expect_good(client, self.pipeline_id).await?;
        }
        let held = self.state.with(|s| s.holdings());
        let (found, lost) = position::compare(client, self.pipeline_id, &self.owner, &held).await?;
        self.state.with(|s| s.compared(&held, &found, lost));
        Ok(())
    }

    fn take_over(&self, found: Pause, outgrown: Option<i32>) {
        let unannounced = locked(&self.unannounced);
        if unannounced.is_some() {
            // It came up since; Postgres does not know yet.
            return;
        }
        let reason = found.paused.then(|| {
            let by = found.by.as_deref().unwrap_or("somebody");
            format!("{} (by {by})", found.reason.as_deref().unwrap_or("no reason was given"))
        });
        let reason = reason.or(outgrown.map(|oldest| {
            format!("the database was migrated for a newer tidemark: only those go on that know migration {oldest}")
        }));
        match (self.state.with(|s| s.paused.clone()), &reason) {
            (Some(_), None) => {
                locked(&self.breaker).reset(!found.accept_dead_letters);
                tracing::info!("pipeline {} is resumed", self.pipeline);
            }
            (None, Some(reason)) => tracing::warn!("pipeline {} is paused: {reason}", self.pipeline),
            _ => {}
        }
        self.state.with(|s| s.paused = reason);
    }

    /// Before the first batch: what was ordered before this process began.
    pub async fn begin(&self, client: &Client) -> Result<(), PgError> {
        let found = position::pause_of(client, self.pipeline_id).await?;
        locked(&self.breaker).reset(!found.accept_dead_letters);
        self.take_over(found, None);
        Ok(())
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
                notify::notify(&format!("STATUS={now}"));
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

/// The commonest reason among the dead letters of a batch, and where to look for an example.
fn commonest(batch: &Batch) -> String {
    let mut reasons: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for letter in batch.dead_letters() {
        let entry = reasons.entry(letter.dead.rejection.reason.as_str()).or_insert_with(|| {
            (0, format!("{} [{}] offset {}", letter.slot.topic, letter.slot.partition, letter.offset))
        });
        entry.0 += 1;
    }
    let most = reasons.into_iter().max_by_key(|(_, (n, _))| *n);
    most.map_or_else(String::new, |(reason, (n, at))| {
        format!("of this batch {n} of {} for {reason}, such as {at}", batch.dead.len())
    })
}
