//! One connection that writes batches, each in one transaction, until it is known to be committed. Makes missing
//! partitions beforehand, reconnects, retries what a retry can cure, and asks when a COMMIT got no answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::{Client, Error as PgError, Row};

use crate::batch::{Batch, Counts};
use crate::error::Error;
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::dedupe::Dedupe;
use crate::operations::supervisor::Voice;
use crate::operations::tally::Phase;
use crate::postgres::backends;
use crate::postgres::connection::{self, Config, Kept, PgDay, full_message};
use crate::postgres::dimensions;
use crate::postgres::ledger;
use crate::postgres::letters::Letters;
use crate::postgres::partitions::{Dates, too_many_new_dates};
use crate::postgres::position;
use crate::postgres::retry::{self, Situation, Verdict};
use crate::postgres::target::Target;
use crate::postgres::transaction::{self, Context, Failure, WritePath, Written};

/// How long a sink goes on when Postgres cannot be reached or is overloaded.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Until it is told to stop.
    Forever,
    /// This long for each batch.
    For(Duration),
}

/// Why a batch could not be written.
#[derive(Debug)]
pub enum SinkError {
    /// Another process has claimed a partition of the batch: nothing was committed, claim again or leave it.
    Fenced,
    /// Postgres has lost commits, so the batch does not follow any more: claim again and read from where it is.
    WentBack(String),
    /// We were told to stop while Postgres was away.
    Stopped,
    /// Too many dead letters: nothing was committed, the pipeline is paused.
    Paused,
    /// A batch that Postgres has no room or no time for: write less at once.
    TooMuch(Error),
    /// Nothing that waiting would cure.
    Fatal(Error),
}

/// Writes batches of one pipeline over one connection.
pub struct Sink {
    config: Config,
    pipeline_id: i32,
    owner: String,
    patience: Patience,
    stop: watch::Receiver<bool>,
    pub(super) voice: Voice,
    client: Option<Kept>,
    target: Target,
    letters: Option<Letters>,
    /// Dates whose partition exists, as far as we know.
    known_days: HashSet<i32>,
    /// What bounds the new ones; `None` for who is told what to load.
    dates: Option<Arc<Dates>>,
    /// Moving average of the share of batches with duplicates against the table.
    duplicate_share: f64,
}

enum Attempt {
    Done(Written),
    NoPartition,
    /// The supervisor does not want it.
    Refused,
    /// COMMIT got no answer, or one that does not tell whether it went through.
    Unknown(i64, PgError),
}

impl Sink {
    /// A sink that connects when it gets its first batch. `stop` ends waiting for a Postgres that is away.
    pub fn new(
        config: Config,
        pipeline_id: i32,
        owner: String,
        patience: Patience,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Sink {
            config,
            pipeline_id,
            owner,
            patience,
            stop,
            voice: Voice::default(),
            client: None,
            target: Target::default(),
            letters: None,
            known_days: HashSet::new(),
            dates: None,
            duplicate_share: 0.0,
        }
    }

    /// Makes it write into this table.
    pub fn into_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Writes the records of dead letters of one pipeline, and marks the letters in the same transaction. They were
    /// resolved by somebody else meanwhile if this is [`SinkError::Fenced`].
    pub async fn write_letters(&mut self, batch: &mut Batch, letters: Letters) -> Result<Written, SinkError> {
        self.pipeline_id = letters.pipeline_id;
        self.letters = Some(letters);
        self.write(batch).await
    }

    /// Has this one told how it gets on, and asked before each commit.
    pub fn heard_by(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }

    /// Gives a connection back that has become old, while there is nothing to write.
    pub fn rest(&mut self) {
        self.client = self.client.take().and_then(Kept::usable);
    }

    /// Bounds the dates that it begins.
    pub fn within(mut self, dates: Arc<Dates>) -> Self {
        self.dates = Some(dates);
        self
    }

    /// Writes a batch in one transaction and returns when it is committed, or known not to be.
    pub async fn write(&mut self, batch: &mut Batch) -> Result<Written, SinkError> {
        let started = Instant::now();
        let written = self.write_until_known(batch).await?;
        self.voice.committed(batch, &written, started.elapsed());
        Ok(written)
    }

    async fn write_until_known(&mut self, batch: &mut Batch) -> Result<Written, SinkError> {
        let started = Instant::now();
        let mut failures = 0;
        let mut unknown: Option<i64> = None;
        let mut refused: Option<PgError> = None;
        let mut give_up_partition = false;
        loop {
            let result = match unknown {
                Some(batch_id) => match self.ask(batch, batch_id).await {
                    Ok(Some(counts)) => {
                        tracing::info!(batch_id, "the commit without an answer had gone through");
                        return Ok(Written { batch_id, counts, path: WritePath::Direct });
                    }
                    Ok(None) => {
                        // Rolled back, so the reason is like any other: wait, and not for ever.
                        unknown = None;
                        match refused.take() {
                            Some(error) => Err(Failure::Postgres(error)),
                            None => continue,
                        }
                    }
                    Err(e) => Err(Failure::Postgres(e)),
                },
                None => self.attempt(batch, give_up_partition).await,
            };
            let failure = match result {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::NoPartition) => {
                    // Retention was faster: make it once more, then give the rows up.
                    self.known_days.clear();
                    give_up_partition = true;
                    continue;
                }
                Ok(Attempt::Refused) => return Err(SinkError::Paused),
                Ok(Attempt::Unknown(batch_id, error)) => {
                    tracing::warn!(batch_id, "COMMIT got no answer, asking again: {}", full_message(&error));
                    unknown = Some(batch_id);
                    refused = Some(error);
                    self.client = None;
                    continue;
                }
                Err(failure) => failure,
            };
            // Dropping the connection rolls back whatever is open.
            self.client = None;
            let error = match failure {
                Failure::Fenced => {
                    self.voice.tell(|state, _| state.tally.fenced += 1);
                    return Err(SinkError::Fenced);
                }
                Failure::WentBack(why) => {
                    self.voice.tell(|state, _| state.tally.commits_lost += 1);
                    batch.forget_strangers();
                    return Err(SinkError::WentBack(why));
                }
                Failure::NoPartition => continue,
                Failure::TakenAway(rows) => return Err(SinkError::Fatal(self.target.taken_away(rows))),
                Failure::NoKey => return Err(SinkError::Fatal(self.target.no_key())),
                Failure::Postgres(error) => error,
            };
            let situation = if failures == 0 { Situation::Batch } else { Situation::BatchAgain };
            let verdict = retry::verdict(&error, situation);
            failures += 1;
            if matches!(verdict, Verdict::Final(_) | Verdict::Rows) {
                return Err(SinkError::Fatal(connection::explain(
                    "cannot write a batch",
                    &self.config,
                    &error,
                )));
            }
            let halve = verdict == Verdict::Halve && batch.counts().read > 1;
            if let Patience::For(limit) = self.patience
                && started.elapsed() > limit
                && !halve
            {
                return Err(SinkError::Fatal(connection::explain(
                    "gave up writing a batch",
                    &self.config,
                    &error,
                )));
            }
            let pause = retry::pause(verdict, failures);
            let code = error.as_db_error().map_or("io", |db| db.code().code());
            self.voice.tell(|state, lane| state.failed(lane, code, full_message(&error), pause));
            tracing::warn!(
                "cannot write a batch ({verdict} in {} ms): {}",
                pause.as_millis(),
                full_message(&error)
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stop.wait_for(|stop| *stop) => return Err(SinkError::Stopped),
            }
            if halve {
                let error = connection::explain("cannot write a batch at once", &self.config, &error);
                return Err(SinkError::TooMuch(error));
            }
        }
    }

    async fn client(&mut self) -> Result<&Client, PgError> {
        let client = match self.client.take().and_then(Kept::usable) {
            Some(client) => client,
            None => {
                let client = connection::connect(&self.config).await?;
                backends::mark_writer(&client, &self.owner).await?;
                Kept::new(client)
            }
        };
        Ok(self.client.insert(client))
    }

    async fn attempt(&mut self, batch: &mut Batch, give_up_partition: bool) -> Result<Attempt, Failure> {
        batch.admit_heirs();
        if let Some(dates) = self.dates.clone() {
            let target = self.target.clone();
            dates.refresh(self.client().await?, &target).await?;
        }
        self.ensure_partitions(batch).await?;
        if let Some((enrichment, strangers)) = batch.strangers() {
            dimensions::add(self.client().await?, enrichment, strangers).await?;
            batch.strangers_are_known();
        }
        let prefer = if self.duplicate_share > 0.2 { WritePath::Probed } else { WritePath::Direct };
        let pipeline_id = self.pipeline_id;
        let owner = self.owner.clone();
        let (target, letters) = (self.target.clone(), self.letters.clone());
        let voice = self.voice.clone();
        let started = Instant::now();
        let client = self.client().await?;
        if target.dedupe == Dedupe::IdWindow {
            ledger::begin(client, &target).await?;
        }
        let batch_id: i64 = client.query_one("SELECT nextval('loader.batch_ids')", &[]).await?.get(0);
        let cx = Context { client, pipeline_id, owner: &owner, target: &target, letters: letters.as_ref() };
        let written = match transaction::run(&cx, batch, batch_id, prefer, give_up_partition).await {
            Ok(written) => written,
            Err(Failure::NoPartition) => {
                client.batch_execute("ROLLBACK").await?;
                return Ok(Attempt::NoPartition);
            }
            Err(failure) => return Err(failure),
        };
        if voice.refuses(batch) {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Attempt::Refused);
        }
        voice.tell(|state, _| state.tally.phase(Phase::Write, started.elapsed()));
        let started = Instant::now();
        if let Err(e) = client.batch_execute("COMMIT").await {
            return Ok(Attempt::Unknown(batch_id, e));
        }
        voice.tell(|state, _| state.tally.phase(Phase::Commit, started.elapsed()));
        let hit = written.counts.duplicate > batch.duplicates;
        self.duplicate_share = 0.9 * self.duplicate_share + if hit { 0.1 } else { 0.0 };
        Ok(Attempt::Done(written))
    }

    async fn ask(&mut self, batch: &Batch, batch_id: i64) -> Result<Option<Counts>, PgError> {
        let (pipeline_id, owner) = (self.pipeline_id, self.owner.clone());
        let client = self.client().await?;
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = '60s'").await?;
        let outcome = position::outcome(client, pipeline_id, &owner, batch_id, batch.slots()).await?;
        client.batch_execute("ROLLBACK").await?;
        Ok(outcome)
    }

    /// Makes the partitions of dates that were not seen yet, in transactions of their own: the lock on the parent must
    /// not last as long as the batch. Rows whose date gets none become dead letters.
    async fn ensure_partitions(&mut self, batch: &mut Batch) -> Result<(), PgError> {
        let mut most = MAX_DATES;
        loop {
            // Asked anew each time: a row that is refused may let in another one with its id.
            let mut days: Vec<i32> =
                batch.days().into_iter().filter(|d| !self.known_days.contains(d)).collect();
            // The newest first, which are the stream's own.
            let days = days.split_off(days.len().saturating_sub(most));
            if days.is_empty() {
                return Ok(());
            }
            let missing = self.missing_days(&days).await?;
            let (free, mut refused): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, no)| no.is_none());
            if let Some(dates) = &self.dates {
                let free = free.iter().map(|(day, _)| *day).collect();
                let too_many = dates.too_many(free, Instant::now());
                refused.extend(too_many.into_iter().map(|day| (day, Some(too_many_new_dates()))));
            }
            if !refused.is_empty() {
                for (day, rejection) in refused {
                    rejection.iter().for_each(|rejection| batch.reject_day(day, rejection));
                }
                continue;
            }
            let result = if free.is_empty() { Ok(()) } else { self.ensure_days(&days).await };
            match (result, days.as_slice()) {
                (Ok(()), _) => {
                    self.known_days.extend(days);
                    most = MAX_DATES;
                }
                // Nothing that the extension could tell beforehand, such as a table of that name: which date is it?
                (Err(e), [day]) if is_refusal(&e) => {
                    let sqlstate = e.as_db_error().map(|db| db.code().code().to_owned());
                    let detail = full_message(&e);
                    batch.reject_day(*day, &Rejection { reason: Reason::PartitionSealed, detail, sqlstate });
                }
                (Err(e), [_, _, ..])
                    if is_refusal(&e) || retry::verdict(&e, Situation::Batch) == Verdict::Halve =>
                {
                    most = days.len() / 2;
                }
                (Err(e), _) => return Err(e),
            }
        }
    }

    async fn ensure_days(&mut self, days: &[i32]) -> Result<(), PgError> {
        let table = self.target.table().to_owned();
        let days: Vec<PgDay> = days.iter().copied().map(PgDay).collect();
        let client = self.client().await?;
        client.query("SELECT tidemark.ensure_partitions($1::text::regclass, $2)", &[&table, &days]).await?;
        Ok(())
    }

    /// Those of the dates that have no partition, and why this role gets none if it does not.
    async fn missing_days(&mut self, days: &[i32]) -> Result<Vec<(i32, Option<Rejection>)>, PgError> {
        let table = self.target.table().to_owned();
        let days: Vec<PgDay> = days.iter().copied().map(PgDay).collect();
        let sql = "SELECT m.event_date - date '2000-01-01', m.code, concat(m.message, ': ', m.detail, ' ' || m.hint)
                     FROM pg_catalog.pg_roles AS u
                    CROSS JOIN LATERAL tidemark_internal.missing_dates($1::text::regclass, $2,
                          tidemark_internal.may_act_for(u.oid, $1::text::regclass)) AS m
                    WHERE u.rolname = current_user";
        let rows = self.client().await?.query(sql, &[&table, &days]).await?;
        let why = |code: String, detail: String| {
            let retired = code == "55000" && detail.contains(" is retired");
            let reason = if retired { Reason::PartitionRetired } else { Reason::PartitionSealed };
            Rejection { reason, detail, sqlstate: Some(code) }
        };
        let of = |row: &Row| (row.get(0), row.get::<_, Option<String>>(1).map(|code| why(code, row.get(2))));
        Ok(rows.iter().map(of).collect())
    }
}

/// For how many dates partitions are made in one transaction, which holds locks on all of them.
const MAX_DATES: usize = 100;

/// Whether `ensure_partitions` refused a date itself (retired, out of its bounds, in the way of something).
fn is_refusal(error: &PgError) -> bool {
    error.as_db_error().is_some_and(|db| {
        let code = db.code().code();
        // 42P07: a table of the partition's name is there but detached. Its date is closed; whoever makes a partition
        // at the same moment is no reason for this error, since both lock the parent first.
        matches!(code, "55000" | "23514" | "42P07") || code.starts_with("22")
    })
}
