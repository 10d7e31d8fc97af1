//! Waiting for locks, in the sight of people: whoever waits says for whom, and gives up soon. A lock that somebody waits for
//! makes others wait behind it.

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
