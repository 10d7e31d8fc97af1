//! `tidemark migrate`: versioned migrations, then the warehouse scripts that changed. Everything under one advisory
//! lock: of two at once, the second waits and finds nothing to do.

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::Database;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::sha256;
use tidemark_loader::postgres::connection::{self, Config};

// MIGRATIONS as (version, name, text), in the order of the versions; SCRIPTS, those of the warehouse, as (name below
// `sql/`, text): silver, then gold, each in the order of the file names.
include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
const HISTORY: &str = "loader.schema_history";
/// Any number that nobody else takes for an advisory lock: "tidemark" in ASCII.
const LOCK: i64 = 0x7469_6465_6d61_726b;

/// Arguments of `tidemark migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
}

/// Brings the database to the state that this binary expects. Prints what it did to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let mut client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot migrate", &config, &e);
    client.batch_execute("RESET search_path").await.map_err(explain)?;
    check_server(&client, &config).await?;
    // Of the session, because a migration may need a step outside transactions; it goes with the connection.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(explain)?;
    let history =
        "version integer PRIMARY KEY, name text NOT NULL, applied_on timestamptz NOT NULL DEFAULT now(),
                   checksum bytea NOT NULL";
    let history =
        format!("CREATE SCHEMA IF NOT EXISTS loader; CREATE TABLE IF NOT EXISTS {HISTORY} ({history})");
    client.batch_execute(&history).await.map_err(explain)?;
    refuse_newer_schema(&client, &config).await?;

    let mut changed = 0;
    for (version, name, script) in MIGRATIONS {
        let what = format!("cannot apply migration V{version}__{name}");
        match apply_migration(&mut client, version, name, script).await {
            Ok(Applied::Now) => say!("applied V{version}__{name}"),
            Ok(Applied::Before) => continue,
            Ok(Applied::Otherwise) => {
                let why = "another text was applied under this number";
                return Err(Error::new(Kind::Config, what, why, "use the tidemark that made this database"));
            }
            Err(e) => return Err(connection::explain(&what, &config, &e)),
        }
        changed += 1;
    }
    for (name, script) in SCRIPTS {
        let explain = |e| connection::explain(&format!("cannot apply sql/{name}"), &config, &e);
        if apply_script(&mut client, name, script).await.map_err(explain)? {
            say!("applied sql/{name}");
            changed += 1;
        }
    }
    if changed == 0 {
        say!("nothing to do: the database is up to date");
    }
    Ok(())
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

/// The version of the schema in the database and the one that this binary brings.
pub async fn versions(client: &Client) -> Result<(Option<i64>, i64), tokio_postgres::Error> {
    let ours = MIGRATIONS.last().map(|(version, ..)| i64::from(*version));
    let exists: bool =
        client.query_one("SELECT pg_catalog.to_regclass($1) IS NOT NULL", &[&HISTORY]).await?.get(0);
    let found = match exists {
        true => client.query_one(&format!("SELECT max(version)::bigint FROM {HISTORY}"), &[]).await?.get(0),
        false => None,
    };
    Ok((found, ours.unwrap_or(0)))
}

/// Refuses to work with another schema than this binary was made for, older or newer.
pub async fn expect_current(client: &Client, config: &Config) -> Result<()> {
    let found = versions(client)
        .await
        .map_err(|e| connection::explain("cannot read the version of the schema", config, &e))?;
    let what = "cannot use the database";
    match found {
        (Some(found), ours) if found == ours => Ok(()),
        (Some(found), ours) if found > ours => {
            let why = format!("its schema is at version {found}, this binary knows only up to {ours}");
            Err(Error::new(Kind::Config, what, why, "use the newer tidemark"))
        }
        (found, ours) => {
            let found = found.map_or_else(|| "missing".to_owned(), |v| format!("at version {v}"));
            let next = format!("run `tidemark migrate` against {} first", connection::describe(config));
            Err(Error::new(
                Kind::Config,
                what,
                format!("its schema is {found}, this binary needs {ours}"),
                next,
            ))
        }
    }
}

/// An older binary must leave a newer schema alone.
async fn refuse_newer_schema(client: &Client, config: &Config) -> Result<()> {
    let found = versions(client).await;
    let (found, ours) =
        found.map_err(|e| connection::explain("cannot read the migration history", config, &e))?;
    match found {
        Some(found) if found > ours => {
            let why = format!("the schema is at version {found}, this binary knows only up to {ours}");
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
    client: &mut Client,
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
    let remember = format!("INSERT INTO {HISTORY} (version, name, checksum) VALUES ($1, $2, $3)");
    apply(client, script, &remember, &[version, &name, &sum.as_slice()]).await?;
    Ok(Applied::Now)
}

/// Applies a script of the warehouse unless this very text was applied before. Returns whether it ran.
async fn apply_script(client: &mut Client, name: &str, script: &str) -> Result<bool, tokio_postgres::Error> {
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

/// Runs a script, and the statement that remembers it, in a transaction of their own.
async fn apply(
    client: &mut Client,
    script: &str,
    remember: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(script).await?;
    // A script may set a role or a search_path for itself, with SET LOCAL; ours must not depend on it.
    transaction.batch_execute("RESET ROLE").await?;
    transaction.execute(remember, values).await?;
    transaction.commit().await
}
