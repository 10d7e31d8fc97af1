//! `tidemark migrate`: versioned migrations, then the warehouse scripts that changed. Everything under one advisory
//! lock: of two at once, the second waits and finds nothing to do. Nothing waits for another lock longer than seconds, since
//! everybody else would queue behind it; it is tried again instead.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::Database;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::sha256;
use tidemark_loader::postgres::backends;
use tidemark_loader::postgres::connection::{self, Config};
use tidemark_loader::postgres::position;
use tidemark_loader::postgres::retry::{self, Class, Verdict};

// MIGRATIONS as (version, name, text), in the order of the versions; SCRIPTS, those of the warehouse, as (name below
// `sql/`, text): silver, then gold, each in the order of the file names.
include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
const HISTORY: &str = "loader.schema_history";
/// Any number that nobody else takes for an advisory lock: "tidemark" in ASCII.
const LOCK: i64 = 0x7469_6465_6d61_726b;
/// How long the locks that one script needs are tried for: a deployment must come to an end, and a report takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Begins the line of a migration that says which is the oldest binary that may go on after it, by the last migration that
/// the binary knows. Without such a line nothing older than the migration may.
const OLDEST: &str = "-- oldest binary: ";

/// Arguments of `tidemark migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
}

/// Brings the database to the state that this binary expects. Prints what it did to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot migrate", &config, &e);
    client.batch_execute("RESET search_path").await.map_err(explain)?;
    check_server(&client, &config).await?;
    alone(&client).await.map_err(explain)?;
    backends::be_patient(&client).await.map_err(explain)?;
    let history = format!(
        "CREATE SCHEMA IF NOT EXISTS loader;
         CREATE TABLE IF NOT EXISTS {HISTORY} (
             version integer PRIMARY KEY, name text NOT NULL, applied_on timestamptz NOT NULL DEFAULT now(),
             checksum bytea NOT NULL, oldest_binary integer NOT NULL)"
    );
    client.batch_execute(&history).await.map_err(explain)?;
    refuse_newer_schema(&client, &config).await?;

    let mut changed = 0;
    for (version, name, script) in MIGRATIONS {
        let what = format!("cannot apply migration V{version}__{name}");
        let applied = patiently(&client, &config, &what, async || {
            apply_migration(&client, version, name, script).await
        });
        match applied.await? {
            Applied::Now => say!("applied V{version}__{name}"),
            Applied::Before => continue,
            Applied::Otherwise => {
                let why = "another text was applied under this number";
                return Err(Error::new(Kind::Config, what, why, "use the tidemark that made this database"));
            }
        }
        changed += 1;
    }
    for (name, script) in SCRIPTS {
        let what = format!("cannot apply sql/{name}");
        if patiently(&client, &config, &what, async || apply_script(&client, name, script).await).await? {
            say!("applied sql/{name}");
            changed += 1;
        }
    }
    if changed == 0 {
        say!("nothing to do: the database is up to date");
    }
    Ok(())
}

/// Waits until no other migration is at work here. For the session, because a migration may need a step outside
/// transactions; it goes with the connection.
async fn alone(client: &Client) -> Result<(), tokio_postgres::Error> {
    let mut waiting = false;
    while !client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.get::<_, bool>(0) {
        if !waiting {
            tracing::info!("another migration of this database is at work, waiting for its end");
        }
        waiting = true;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Does something in a transaction, and once more as long as others hold locks that it needs: in between, those who have
/// queued behind it get on.
async fn patiently<T>(
    client: &Client,
    config: &Config,
    what: &str,
    work: impl AsyncFn() -> Result<T, tokio_postgres::Error>,
) -> Result<T> {
    let started = Instant::now();
    let mut failures = 0;
    loop {
        let error = match backends::watched(config, client, what, work()).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let explained = connection::explain(what, config, &error);
        client.batch_execute("ROLLBACK").await.map_err(|_| explained.clone())?;
        if retry::classify(&error) != Class::Contended || started.elapsed() > PATIENCE {
            return Err(explained);
        }
        failures += 1;
        let pause = retry::pause(Verdict::Retry, failures).max(Duration::from_secs(1));
        tracing::warn!(
            "{what} (try again in {} ms): {}",
            pause.as_millis(),
            connection::full_message(&error)
        );
        tokio::time::sleep(pause).await;
    }
}

async fn check_server(client: &Client, config: &Config) -> Result<()> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                      current_setting('server_encoding'), pg_is_in_recovery(),
                      EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'tidemark')";
    let row = client
        .query_one(sql, &[])
        .await
        .map_err(|e| connection::explain("cannot check the server", config, &e))?;
    let what = "cannot migrate";
    let version: &str = row.get(1);
    if row.get::<_, i32>(0) < 150_000 {
        let why = format!("the server is PostgreSQL {version}");
        return Err(Error::new(Kind::Config, what, why, "use PostgreSQL 15 or later"));
    }
    if row.get::<_, &str>(2) != "UTF8" {
        let why = format!("the database's encoding is {}", row.get::<_, &str>(2));
        return Err(Error::new(Kind::Config, what, why, "create the database with ENCODING 'UTF8'"));
    }
    if row.get(3) {
        return Err(Error::new(Kind::Config, what, "the server is a standby", "connect to the primary"));
    }
    if !row.get::<_, bool>(4) {
        let why = "the server does not have the extension tidemark";
        let next = "run `make install PG_CONFIG=...` with the pg_config of this server";
        return Err(Error::new(Kind::Config, what, why, next));
    }
    Ok(())
}

/// The last migration that this binary brings.
pub fn ours() -> i32 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

/// How this binary stands to the schema of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Made for each other, or the schema is newer and says that this binary may go on.
    Fits(i32),
    /// Not migrated, or not so far.
    Older(Option<i32>),
    /// Migrated further, by something that this binary does not know.
    Newer(i32),
}

/// Looks how this binary stands to the schema.
pub async fn standing(client: &Client) -> Result<Standing, tokio_postgres::Error> {
    let exists: bool =
        client.query_one("SELECT pg_catalog.to_regclass($1) IS NOT NULL", &[&HISTORY]).await?.get(0);
    if !exists {
        return Ok(Standing::Older(None));
    }
    let found: Option<i32> =
        client.query_one(&format!("SELECT max(version) FROM {HISTORY}"), &[]).await?.get(0);
    Ok(match found {
        Some(found) if position::outgrown(client, ours()).await?.is_some() => Standing::Newer(found),
        Some(found) if found >= ours() => Standing::Fits(found),
        older => Standing::Older(older),
    })
}

/// Refuses to work with a schema that this binary was not made for and that does not say that it may go on.
pub async fn expect_current(client: &Client, config: &Config) -> Result<()> {
    let found = standing(client)
        .await
        .map_err(|e| connection::explain("cannot read the version of the schema", config, &e))?;
    let (why, next) = match found {
        Standing::Fits(_) => return Ok(()),
        Standing::Newer(found) => {
            let why = format!("its schema is at version {found}, this binary knows only up to {}", ours());
            (why, "use the newer tidemark".to_owned())
        }
        Standing::Older(found) => {
            let found = found.map_or_else(|| "missing".to_owned(), |v| format!("at version {v}"));
            let why = format!("its schema is {found}, this binary needs {}", ours());
            (why, format!("run `tidemark migrate` against {} first", connection::describe(config)))
        }
    };
    Err(Error::new(Kind::Config, "cannot use the database", why, next))
}

/// An older binary changes nothing about a newer schema, even if it may go on loading into it.
async fn refuse_newer_schema(client: &Client, config: &Config) -> Result<()> {
    let found = standing(client).await;
    let found = found.map_err(|e| connection::explain("cannot read the migration history", config, &e))?;
    match found {
        Standing::Newer(found) | Standing::Fits(found) if found > ours() => {
            let why = format!("the schema is at version {found}, this binary knows only up to {}", ours());
            Err(Error::new(Kind::Config, "cannot migrate", why, "use the newer tidemark"))
        }
        _ => Ok(()),
    }
}

/// What was found, or done, about a migration.
enum Applied {
    Now,
    Before,
    /// Its number is taken by another one.
    Otherwise,
}

/// Applies a migration unless it was applied before.
async fn apply_migration(
    client: &Client,
    version: &i32,
    name: &str,
    script: &str,
) -> Result<Applied, tokio_postgres::Error> {
    let sum = sha256(script.as_bytes());
    let find = format!("SELECT name = $2 AND checksum = $3 FROM {HISTORY} WHERE version = $1");
    let known = client.query_opt(&find, &[version, &name, &sum.as_slice()]).await?;
    if let Some(row) = known {
        return Ok(if row.get(0) { Applied::Before } else { Applied::Otherwise });
    }
    let remember =
        format!("INSERT INTO {HISTORY} (version, name, checksum, oldest_binary) VALUES ($1, $2, $3, $4)");
    let oldest = oldest_binary(script).unwrap_or(*version);
    apply(client, script, &remember, &[version, &name, &sum.as_slice(), &oldest]).await?;
    Ok(Applied::Now)
}

/// What a migration says about the oldest binary that may go on after it.
fn oldest_binary(script: &str) -> Option<i32> {
    script.lines().find_map(|line| line.strip_prefix(OLDEST)?.trim().parse().ok())
}

/// Applies a script of the warehouse unless this very text was applied before. Returns whether it ran.
async fn apply_script(client: &Client, name: &str, script: &str) -> Result<bool, tokio_postgres::Error> {
    let sum = sha256(script.as_bytes());
    let find = "SELECT sha256 = $2 FROM loader.repeatable_scripts WHERE name = $1";
    if client.query_opt(find, &[&name, &sum.as_slice()]).await?.is_some_and(|row| row.get(0)) {
        return Ok(false);
    }
    let remember = "INSERT INTO loader.repeatable_scripts (name, sha256) VALUES ($1, $2)
                    ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()";
    apply(client, script, remember, &[&name, &sum.as_slice()]).await?;
    Ok(true)
}

/// Runs a script, and the statement that remembers it, in a transaction of their own; after an error it is open.
async fn apply(
    client: &Client,
    script: &str,
    remember: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.batch_execute(script).await?;
    // A script may set a role or a search_path for itself, with SET LOCAL; ours must not depend on it.
    client.batch_execute("RESET ROLE").await?;
    client.execute(remember, values).await?;
    client.batch_execute("COMMIT").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_says_which_binaries_may_go_on() {
        assert_eq!(oldest_binary("-- Adds a column.\n-- oldest binary: 5\nALTER TABLE x;"), Some(5));
        assert_eq!(oldest_binary("ALTER TABLE x; -- oldest binary: 5"), None);
        for (version, name, script) in MIGRATIONS {
            let oldest = oldest_binary(script).unwrap_or(*version);
            assert!((1..=*version).contains(&oldest), "V{version}__{name} is not in step: {oldest}");
            assert_eq!(script.contains(OLDEST), oldest_binary(script).is_some(), "V{version}__{name}");
        }
    }
}
