//! Finds out whether a connection pooler gives our statements to changing backends (PgBouncer with pool_mode
//! transaction or statement). Temporary tables, prepared statements and settings would get lost between them.

use tokio_postgres::{Client, Error as PgError, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};
use crate::postgres::connection::{self, Config};

/// Tries; a pooler that hands out servers in turn may need more than one.
const TRIES: usize = 3;

/// What gave it away; `None` when the connection keeps its backend. Outside a transaction, `client` must have the same
/// backend before and after somebody else began one, and nobody else may have it.
pub async fn detect(client: &Client, config: &Config) -> Result<Option<String>, PgError> {
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
pub const ADVICE: &str = "connect to Postgres itself, or to a pool with pool_mode = session";

/// Refuses to work through such a pooler.
pub async fn refuse(client: &Client, config: &Config) -> Result<()> {
    let found = detect(client, config)
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
                ADVICE,
            ))
        }
    }
}
