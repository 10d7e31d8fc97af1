//! Maintenance of partitions from outside: what `CALL tidemark.run_maintenance()` does, but with DETACH ... CONCURRENTLY,
//! which Postgres runs at top level only. The extension says what to do next, one step and transaction at a time, and
//! repairs what a maintainer that died left half done.
//!
//! And which dates `run` begins: none that is too old, and no more than so many an hour. Broken clocks otherwise make a
//! partition for each date that they can think of, which takes the time of the stream beside them and stays for ever. Shared
//! by the lanes of a process; `load` and `replay` do what they are told and have none of this.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error as PgError};

use crate::error::{Error, Kind};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::time::DAY_US;
use crate::postgres::connection::{self, Config};
use crate::postgres::retry::{Class, classify};
use crate::postgres::target::Target;

/// How often a step is tried whose lock is not to be had.
const TRIES: u32 = 3;

/// What can be done about a table's partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Make those that will be needed.
    Create,
    /// Detach those past their retention.
    Retire,
    /// Drop what was detached to be dropped.
    Drop,
}

/// A managed table.
struct Table {
    oid: u32,
    name: String,
    owner: String,
    /// Whether we may act as its owner; else Postgres's own procedure detaches, with a short exclusive lock.
    ours: bool,
}

/// Something that did not work: for people, and for the settings of the table.
struct Failed {
    error: Error,
    /// SQLSTATE and message; `None` if the server did not say it.
    note: Option<String>,
}

/// What a step did.
enum Step {
    Nothing,
    Something,
    /// Postgres refused to detach this partition: to the step, or to us.
    Refused(String),
    RefusedUs(String, PgError),
}

/// Does this work on every managed table that we may insert into and adds up the partitions created or detached. A
/// table that fails holds up no other; one that another session maintains is passed over.
pub async fn maintain(
    client: &Client,
    config: &Config,
    works: &[Work],
    count: &mut i64,
    failures: &mut Vec<Error>,
) {
    // In an older snapshot the marks of a writer that we waited for would not be seen.
    let prepare = "SET default_transaction_isolation = 'read committed';
                   SELECT tidemark_internal.forget_missing_tables()";
    let tables = match client.batch_execute(prepare).await {
        Ok(()) => tables(client).await,
        Err(error) => Err(error),
    };
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) => {
            failures.push(connection::explain("maintaining partitions failed", config, &error));
            return;
        }
    };
    for table in tables {
        // A success is noted only once everything was done.
        let what = table.what();
        let last = works.contains(&Work::Drop) && !failures.iter().any(|f| f.to_string().starts_with(&what));
        if let Err(error) = one_table(client, config, &table, works, last, count).await {
            failures.push(error);
            if client.is_closed() {
                return;
            }
        }
    }
}

/// How many dates are past their retention but still needed by a model, in all tables.
pub async fn refused(client: &Client) -> Result<i64, PgError> {
    let sql = "SELECT coalesce(sum(refused_dates), 0)::bigint FROM tidemark.partition_health";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// What maintenance would do now, as lines for people.
pub async fn plan(client: &Client) -> Result<Vec<String>, PgError> {
    let sql = "SELECT parent::text, action, coalesce(sql, ''), coalesce(lock_level, ''), reason
                 FROM tidemark.plan_maintenance()";
    let mut lines = Vec::new();
    for row in client.query(sql, &[]).await? {
        let [table, action, sql, lock, reason]: [&str; 5] = std::array::from_fn(|i| row.get(i));
        lines.push(format!("-- {table}: {action} ({reason})"));
        if !sql.is_empty() {
            lines.push(format!("-- locks {lock}"));
            lines.push(format!("{sql};"));
        }
    }
    if lines.is_empty() {
        lines.push("-- nothing to do".to_owned());
    }
    Ok(lines)
}

/// Today and the first date that retention keeps, if there is one, in days since 2000-01-01 and by the server's clock.
pub async fn kept(client: &Client, table: &str) -> Result<(i32, Option<i32>), PgError> {
    let sql = "SELECT d.today - date '2000-01-01', d.today - date '2000-01-01' - c.retention_days
                 FROM (SELECT (now() AT TIME ZONE 'UTC')::date) AS d(today)
                 LEFT JOIN tidemark_internal.partition_config AS c ON c.parent = pg_catalog.to_regclass($1)";
    let row = client.query_one(sql, &[&table]).await?;
    Ok((row.get(0), row.get(1)))
}

async fn tables(client: &Client) -> Result<Vec<Table>, PgError> {
    let sql =
        "SELECT parent::oid, parent::text, owner::text, as_owner FROM tidemark_internal.managed_tables()";
    let rows = client.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|r| Table { oid: r.get(0), name: r.get(1), owner: r.get(2), ours: r.get(3) })
        .collect())
}

async fn one_table(
    client: &Client,
    config: &Config,
    table: &Table,
    works: &[Work],
    last: bool,
    count: &mut i64,
) -> Result<(), Error> {
    if !table.ours {
        // It does all of it at once; the loader makes what events need.
        if !works.contains(&Work::Retire) {
            return Ok(());
        }
        return by_procedure(client, table, count).await.map_err(|e| table.failed(config, &e).error);
    }
    let mut first: Option<Failed> = None;
    for work in works {
        if let Err(failed) = all_steps(client, config, table, *work, count).await {
            first.get_or_insert(failed);
        }
    }
    let note = first.as_ref().and_then(|failed| failed.note.as_ref());
    if note.is_some() || first.is_none() && last {
        record(client, table, note).await.map_err(|e| table.failed(config, &e).error)?;
    }
    first.map_or(Ok(()), |failed| Err(failed.error))
}

/// Everything that is due, by the procedure: its steps hold no lock that we could keep.
async fn by_procedure(client: &Client, table: &Table, count: &mut i64) -> Result<(), PgError> {
    let sql = "SELECT count(DISTINCT partition) FROM tidemark.retired_dates WHERE parent = $1::oid::regclass";
    let before: i64 = client.query_one(sql, &[&table.oid]).await?.get(0);
    client.batch_execute(&format!("CALL tidemark.run_maintenance({}::oid::regclass)", table.oid)).await?;
    *count += client.query_one(sql, &[&table.oid]).await?.get::<_, i64>(0) - before;
    Ok(())
}

async fn record(client: &Client, table: &Table, note: Option<&String>) -> Result<(), PgError> {
    let sql = "SELECT tidemark_internal.record_maintenance($1::oid::regclass, $2)";
    client.execute(sql, &[&table.oid, &note]).await.map(|_| ())
}

/// Steps of one kind until none is left, each tried some times when others hold the table. A partition that Postgres
/// refuses to detach does not hold up the next.
async fn all_steps(
    client: &Client,
    config: &Config,
    table: &Table,
    work: Work,
    count: &mut i64,
) -> Result<(), Failed> {
    let mut tries = 0;
    let mut first: Option<Failed> = None;
    let mut refused: Option<String> = None;
    loop {
        let (error, partition) = match step(client, table, work, count).await {
            Ok(Step::Nothing) => return first.map_or(Ok(()), Err),
            Ok(Step::Something) => {
                tries = 0;
                continue;
            }
            Ok(Step::Refused(note)) => {
                let next = "tidemark.plan_maintenance names what stands against it";
                let error = Error::new(Kind::Config, table.what(), &note, next);
                first.get_or_insert(Failed { error, note: Some(note) });
                continue;
            }
            Ok(Step::RefusedUs(partition, error)) => (error, Some(partition)),
            Err(error) => (error, None),
        };
        let code = error.as_db_error().map_or("", |db| db.code().code()).to_owned();
        let locked = classify(&error) == Class::Contended;
        let failed = table.failed(config, &error);
        // At once: the date of a DETACH that was refused is free again only when that is known.
        let note = if locked { Some(&code) } else { failed.note.as_ref() };
        if note.is_some() {
            record(client, table, note).await.map_err(|e| table.failed(config, &e))?;
        }
        if locked && tries + 1 < TRIES {
            tries += 1;
            tokio::time::sleep(Duration::from_millis(500) * tries).await;
        } else if locked || partition.is_none() || partition == refused {
            return Err(first.unwrap_or(failed));
        } else {
            refused = partition;
            first.get_or_insert(failed);
        }
    }
}

impl Table {
    fn what(&self) -> String {
        format!("maintaining the partitions of {} failed", self.name)
    }

    fn failed(&self, config: &Config, error: &PgError) -> Failed {
        let note = error.as_db_error().map(|db| format!("{} {}", db.code().code(), db.message()));
        Failed { error: connection::explain(&self.what(), config, error), note }
    }
}

async fn step(client: &Client, table: &Table, work: Work, count: &mut i64) -> Result<Step, PgError> {
    let name = match work {
        Work::Create => "create",
        Work::Retire => "retire concurrently",
        Work::Drop => "drop",
    };
    let sql = "SELECT action, event_date::text, partition, detail
                 FROM tidemark_internal.maintenance_step($1::oid::regclass, $2)";
    let row = client.query_one(sql, &[&table.oid, &name]).await?;
    let [action, date, partition, detail]: [Option<String>; 4] = std::array::from_fn(|i| row.get(i));
    let Some(action) = action.filter(|action| action != "skip") else { return Ok(Step::Nothing) };
    let (date, partition) = (date.unwrap_or_default(), partition.unwrap_or_default());
    tracing::debug!(table = table.name, date, partition, "{action}");
    match (action.as_str(), detail) {
        ("create", Some(created)) => *count += created.parse::<i64>().unwrap_or_default(),
        ("detached", _) => *count += 1,
        ("failed", Some(note)) => return Ok(Step::Refused(note)),
        // As the owner, never with more rights than that; a lock that we wait for makes others wait behind us.
        ("detach", Some(statement)) => {
            client.batch_execute(&format!("SET ROLE {}; SET lock_timeout = '2s'", table.owner)).await?;
            let detached = client.batch_execute(&statement).await;
            client.batch_execute("RESET lock_timeout; RESET ROLE").await?;
            if let Err(error) = detached {
                return Ok(Step::RefusedUs(partition, error));
            }
        }
        _ => {}
    }
    Ok(Step::Something)
}

/// Oldest date that is loaded unless a floor is set, in days before today. A year of comparisons and what was offline for
/// a month; a device without a clock believes in 1970, or in the year of its firmware.
const MAX_AGE: i32 = 400;

/// New dates an hour. More than a topic of 90 days brings when it is loaded for the first time; even so many at once do not
/// hold the stream up for long.
const MAX_NEW: usize = 100;

const HOUR: Duration = Duration::from_secs(3600);

/// How often Postgres is asked what it keeps.
const PERIOD: Duration = Duration::from_secs(60);

/// What bounds the dates of a process.
#[derive(Debug)]
pub struct Dates {
    max_age: Option<i32>,
    floor: Arc<AtomicI64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    today: i32,
    /// Dates that were new, and when.
    begun: HashMap<i32, Instant>,
}

impl Dates {
    /// Bounds that are not known yet. Without `by_age` only retention says what is too old.
    pub fn new(by_age: bool) -> Self {
        Dates {
            max_age: by_age.then_some(MAX_AGE),
            floor: Arc::new(AtomicI64::new(i64::MIN)),
            state: Mutex::default(),
        }
    }

    /// The earliest event time that is accepted, as far as it is known at any moment.
    pub fn floor(&self) -> Arc<AtomicI64> {
        self.floor.clone()
    }

    /// Asks Postgres again if it is time to.
    pub async fn refresh(&self, client: &Client, target: &Target) -> Result<(), PgError> {
        if self.state().asked.is_some_and(|asked| asked.elapsed() < PERIOD) {
            return Ok(());
        }
        let (today, kept) = kept(client, target.table()).await?;
        let first = kept.max(self.max_age.map(|age| today - age));
        self.floor.store(first.map_or(i64::MIN, |day| i64::from(day) * DAY_US), Ordering::Relaxed);
        let mut state = self.state();
        (state.asked, state.today) = (Some(Instant::now()), today);
        Ok(())
    }

    /// Those of the dates without a partition that are too many now. Yesterday and later ones never are: a day must
    /// begin whatever came before.
    pub fn too_many(&self, mut missing: Vec<i32>, now: Instant) -> Vec<i32> {
        let mut state = self.state();
        state.begun.retain(|_, begun| now.duration_since(*begun) < HOUR);
        missing.sort_unstable_by(|a, b| b.cmp(a));
        missing.retain(|day| {
            if *day >= state.today - 1 || state.begun.contains_key(day) {
                return false;
            }
            let full = state.begun.len() >= MAX_NEW;
            if !full {
                state.begun.insert(*day, now);
            }
            full
        });
        missing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the events of such a date become.
pub fn too_many_new_dates() -> Rejection {
    let detail = format!(
        "its date has no partition, and {MAX_NEW} dates were begun within the hour; if it is no mistake, make the \
         partitions with tidemark.ensure_partitions, then replay"
    );
    Rejection::new(Reason::TooManyNewDates, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_dates_begin_an_hour_the_newest_first_and_the_stream_of_today_always() {
        let dates = Dates::new(true);
        dates.state().today = 10_000;
        let began = Instant::now();
        let old: Vec<i32> = (9_000..9_000 + MAX_NEW as i32 + 5).collect();
        let left: Vec<i32> = (9_000..9_005).rev().collect();
        assert_eq!(dates.too_many(old.clone(), began), left);
        // Asked again, as after a failure, it is the same dates.
        assert_eq!(dates.too_many(old, began), left);
        assert_eq!(dates.too_many(vec![9_998, 9_999, 10_000, 10_001], began), [9_998]);
        assert_eq!(dates.too_many(vec![9_998], began + HOUR / 2), [9_998]);
        assert!(dates.too_many(vec![9_998], began + HOUR).is_empty());
    }
}
