//! Which connections write on behalf of an owner, and how an heir ends those that are stuck. The fence itself, the epoch
//! in `loader.offsets`, needs none of this: it keeps a stale owner from committing. But a process that was frozen in the
//! middle of a batch holds its ids, and maybe the row of its position, until Postgres gives it up.

use tokio_postgres::{Client, Error as PgError};

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
