//! The backends on the other side of connections, in the sight of people.
//!
//! Whoever waits for a lock says for whom, and gives up soon: a lock that somebody waits for makes others wait behind it.
//! Which connections write on behalf of an owner, and how an heir ends those that are stuck. The fence itself, the epoch in
//! `loader.offsets`, needs none of this: it keeps a stale owner from committing. But a process that was frozen in the
//! middle of a batch holds its ids, and maybe the row of its position, until Postgres gives it up. And whether a pooler
//! gives our statements to changing backends (PgBouncer with pool_mode transaction or statement): temporary tables,
//! prepared statements and settings would get lost between them.

use std::time::Duration;

use tokio_postgres::{Client, Error as PgError, SimpleQueryMessage};

use crate::error::{Error, Kind};
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

/// Tries; a pooler that hands out servers in turn may need more than one.
const TRIES: usize = 3;

/// What gave it away; `None` when the connection keeps its backend. Outside a transaction, `client` must have the same
/// backend before and after somebody else began one, and nobody else may have it.
pub async fn detect_pooler(client: &Client, config: &Config) -> Result<Option<String>, PgError> {
    for _ in 0..TRIES {
        let before = backend(client).await?;
        let other = connection::open(config).await?;
        if let Err(e) = other.batch_execute("BEGIN").await {
            // Statement pooling does not know transactions.
            return match e.as_db_error() {
                Some(db) => Ok(Some(db.message().to_owned())),
                None => Err(e),
            };
        }
        let theirs = backend(&other).await?;
        if theirs == before {
            return Ok(Some(format!("two connections at once have the same backend {before}")));
        }
        let after = backend(client).await?;
        if after != before {
            return Ok(Some(format!("one connection had backend {before}, then {after}")));
        }
    }
    Ok(None)
}

/// The simple protocol: a pooler may not know prepared statements.
async fn backend(client: &Client) -> Result<String, PgError> {
    let messages = client.simple_query("SELECT pg_catalog.pg_backend_pid()").await?;
    let row = messages.into_iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

/// What to do about it.
pub const POOLER_ADVICE: &str = "connect to Postgres itself, or to a pool with pool_mode = session";

/// Refuses to work through such a pooler.
pub async fn refuse_pooler(client: &Client, config: &Config) -> Result<(), Error> {
    let found = detect_pooler(client, config)
        .await
        .map_err(|e| connection::explain("cannot connect to the database", config, &e))?;
    match found {
        None => Ok(()),
        Some(why) => {
            let what = format!("cannot load through the pooler at {}", connection::describe(config));
            Err(Error::new(
                Kind::Config,
                what,
                format!("it does not keep a backend for a session ({why})"),
                POOLER_ADVICE,
            ))
        }
    }
}
