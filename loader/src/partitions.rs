//! Maintenance of partitions from outside: what `CALL tidemark.run_maintenance()` does, but with DETACH ... CONCURRENTLY,
//! which Postgres runs at top level only. The extension says what to do next, one step and transaction at a time, and
//! repairs what a maintainer that died left half done.

use std::time::Duration;

use tokio_postgres::{Client, Error};

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

/// Something that did not work, and why.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub what: String,
    /// What Postgres said.
    pub error: Error,
}

/// A managed table.
struct Table {
    oid: u32,
    name: String,
    owner: String,
    /// Whether we may act as its owner; else partitions are detached inside Postgres, with a short exclusive lock.
    ours: bool,
}

/// Does this work on every managed table that we may insert into and adds up the partitions created or detached. A
/// table that fails holds up no other; one that another session maintains is passed over.
pub async fn maintain(client: &Client, works: &[Work], count: &mut i64, failures: &mut Vec<Failure>) {
    let failed = |what: &str, error| Failure { what: what.to_owned(), error };
    // In an older snapshot the marks of a writer that we waited for would not be seen.
    let prepare = "SET default_transaction_isolation = 'read committed'; SELECT tidemark_internal.forget_missing_tables()";
    if let Err(error) = client.batch_execute(prepare).await {
        failures.push(failed("maintaining partitions", error));
        return;
    }
    let tables = match tables(client).await {
        Ok(tables) => tables,
        Err(error) => {
            failures.push(failed("maintaining partitions", error));
            return;
        }
    };
    for table in tables {
        let what = format!("maintaining the partitions of {}", table.name);
        // A success is noted only once everything was done.
        let last = works.contains(&Work::Drop) && !failures.iter().any(|f| f.what == what);
        if let Err(error) = one_table(client, &table, works, last, count).await {
            failures.push(failed(&what, error));
            if client.is_closed() {
                return;
            }
        }
    }
}

/// How many dates are past their retention but still needed by a model, in all tables.
pub async fn refused(client: &Client) -> Result<i64, Error> {
    let sql = "SELECT coalesce(sum(refused_dates), 0)::bigint FROM tidemark.partition_health";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// What maintenance would do now, as lines for people.
pub async fn plan(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT parent::text, action, coalesce(sql, ''), coalesce(lock_level, ''), reason FROM tidemark.plan_maintenance()";
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

async fn tables(client: &Client) -> Result<Vec<Table>, Error> {
    let sql =
        "SELECT t.oid, t.oid::regclass::text, t.relowner::regrole::text, pg_has_role(t.relowner, 'MEMBER')
                 FROM tidemark_internal.partition_config AS c JOIN pg_class AS t ON t.oid = c.parent
                WHERE has_table_privilege(t.oid, 'INSERT') OR pg_has_role(t.relowner, 'MEMBER') ORDER BY 2";
    let rows = client.query(sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|r| Table { oid: r.get(0), name: r.get(1), owner: r.get(2), ours: r.get(3) })
        .collect())
}

async fn one_table(
    client: &Client,
    table: &Table,
    works: &[Work],
    last: bool,
    count: &mut i64,
) -> Result<(), Error> {
    // Held over several transactions; it goes with the connection should we die.
    let lock = "SELECT tidemark_internal.try_maintenance_lock($1::oid::regclass)";
    if !client.query_one(lock, &[&table.oid]).await?.get::<_, bool>(0) {
        tracing::debug!(table = table.name, "another session maintains it");
        return Ok(());
    }
    let mut result = Ok(());
    for work in works {
        if let Err(error) = all_steps(client, table, *work, count).await
            && result.is_ok()
        {
            result = Err(error);
        }
    }
    let error = result.as_ref().err().map(|e| match e.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => e.to_string(),
    });
    if error.is_some() || last {
        let sql = "SELECT tidemark_internal.record_maintenance($1::oid::regclass, $2)";
        result = result.and(client.execute(sql, &[&table.oid, &error]).await.map(|_| ()));
    }
    let unlock = "SELECT tidemark_internal.release_maintenance_lock($1::oid::regclass)";
    result.and(client.execute(unlock, &[&table.oid]).await.map(|_| ()))
}

/// Steps of one kind until none is left, each tried some times when others hold the table.
async fn all_steps(client: &Client, table: &Table, work: Work, count: &mut i64) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        match step(client, table, work, count).await {
            Ok(true) => tries = 0,
            Ok(false) => return Ok(()),
            Err(error) => {
                let code = error.as_db_error().map_or("", |db| db.code().code()).to_owned();
                if !matches!(code.as_str(), "55P03" | "40P01") {
                    return Err(error);
                }
                let sql = "SELECT tidemark_internal.record_maintenance($1::oid::regclass, $2)";
                client.execute(sql, &[&table.oid, &code]).await?;
                tries += 1;
                if tries == TRIES {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(500) * tries).await;
            }
        }
    }
}

/// One step; false when nothing is left to do.
async fn step(client: &Client, table: &Table, work: Work, count: &mut i64) -> Result<bool, Error> {
    let name = match work {
        Work::Create => "create",
        Work::Retire if table.ours => "retire concurrently",
        Work::Retire => "retire",
        Work::Drop => "drop",
    };
    let sql = "SELECT action, event_date::text, partition, detail FROM tidemark_internal.maintenance_step($1::oid::regclass, $2)";
    let row = client.query_one(sql, &[&table.oid, &name]).await?;
    let [action, date, partition, detail]: [Option<String>; 4] = std::array::from_fn(|i| row.get(i));
    let Some(action) = action.filter(|action| action != "skip") else { return Ok(false) };
    let (date, partition) = (date.unwrap_or_default(), partition.unwrap_or_default());
    tracing::debug!(table = table.name, date, partition, "{action}");
    match (action.as_str(), detail) {
        ("create", Some(created)) => *count += created.parse::<i64>().unwrap_or_default(),
        ("detached", _) => *count += 1,
        // As the owner, never with more rights than that; a lock that we wait for makes others wait behind us.
        ("detach", Some(statement)) => {
            client.batch_execute(&format!("SET ROLE {}; SET lock_timeout = '2s'", table.owner)).await?;
            let detached = client.batch_execute(&statement).await;
            client.batch_execute("RESET lock_timeout; RESET ROLE").await?;
            detached?;
        }
        _ => {}
    }
    Ok(true)
}
