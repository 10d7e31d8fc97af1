//! Waiting for locks, in the sight of people: whoever waits says for whom, and gives up soon. A lock that somebody waits for
//! makes others wait behind it.
//!
//! And which connections write on behalf of an owner, and how an heir ends those that are stuck. The fence itself, the epoch
//! in `loader.offsets`, needs none of this: it keeps a stale owner from committing. But a process that was frozen in the
//! middle of a batch holds its ids, and maybe the row of its position, until Postgres gives it up.

use std::time::Duration;

use tokio_postgres::{Client, Error as PgError};

use crate::postgres::connection::{self, Config};

/// How long a statement waits for a lock.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// After how long it says so.
const NOTICE: Duration = Duration::from_secs(1);

/// Lets no statement on this connection wait for a lock longer than [`PATIENCE`].
pub async fn be_patient(client: &Client) -> Result<(), PgError> {
    client.batch_execute(&format!("SET lock_timeout = {}", PATIENCE.as_millis())).await
}

/// Does some work on a connection, and logs who stands in the way if it takes long.
pub async fn watched<T>(
    config: &Config,
    client: &Client,
    what: &str,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let pid: i32 = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.get(0);
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(NOTICE, &mut work).await {
        return done;
    }
    let ask = async {
        if let Ok(Some(blockers)) = blockers(config, pid).await {
            tracing::warn!("{what}: it waits for a lock of {blockers}");
        }
    };
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = ask => {}
    }
    work.await
}

/// The connections that hold up another one, with what this role may know about them. `None` when it waits for nobody.
pub async fn blockers(config: &Config, pid: i32) -> Result<Option<String>, PgError> {
    let sql =
        "SELECT pg_catalog.string_agg(pg_catalog.concat('pid ', b.pid, ' (' || pg_catalog.concat_ws(', ',
                          a.usename, nullif(a.application_name, ''), a.state,
                          'in a transaction for ' || pg_catalog.date_trunc('second',
                              pg_catalog.clock_timestamp() - a.xact_start)) || ')'), ', ' ORDER BY b.pid)
                 FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b (pid)
                 LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid";
    Ok(connection::connect(config).await?.query_one(sql, &[&pid]).await?.get(0))
}

/// A healthy owner does not keep Postgres waiting for so many seconds within a transaction.
const STUCK_SECONDS: i32 = 5;

/// Makes this connection known as one that writes for the owner, as long as it lasts: by a shared advisory lock, which
/// everybody can see and nobody waits for.
pub async fn mark_writer(client: &Client, owner: &str) -> Result<(), PgError> {
    let sql =
        "SELECT pg_catalog.pg_advisory_lock_shared(pg_catalog.hashtextextended('tidemark writer ' || $1, 0))";
    client.query(sql, &[&owner]).await?;
    Ok(())
}

/// Ends the connections of the present owner of a partition that are stuck in a transaction: Postgres has been waiting
/// for them. Returns how many. Those of another role are left alone.
pub async fn end_stuck_writers(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    partition: i32,
    heir: &str,
) -> Result<u64, PgError> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(a.pid)
                 FROM loader.offsets AS o
                 JOIN pg_catalog.pg_locks AS l
                   ON l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                      AND ((l.classid::bigint << 32) | l.objid::bigint)
                          = pg_catalog.hashtextextended('tidemark writer ' || o.owner, 0)
                 JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid AND a.datid = l.database
                WHERE o.pipeline_id = $1 AND o.topic = $2 AND o.partition = $3 AND o.owner <> $4
                  AND a.datname = pg_catalog.current_database() AND a.usename = current_user
                  AND a.xact_start IS NOT NULL AND a.wait_event = 'ClientRead'
                  AND a.state_change < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $5)";
    let seconds = f64::from(STUCK_SECONDS);
    let ended = client.query(sql, &[&pipeline_id, &topic, &partition, &heir, &seconds]).await?;
    Ok(ended.len() as u64)
}
