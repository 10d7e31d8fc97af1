//! `tidemark person`: everything that is known of somebody, to hand out or to erase. What is erased in the database is in
//! `sql/identity/060_erase.sql`; here is what comes with it: the suppression list, whose key only the loader has, models,
//! and statistics.

use std::io::Write;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error as PgError};

use super::output::{Output, confirm, show};
use super::{Database, options};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::suppression::bounded;
use tidemark_loader::postgres::connection;

/// Arguments of `tidemark person`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the accounts and devices of a person
    Ids(Ids),
    /// Write every event that carries one of some ids to standard output, one JSON object a line
    Export(Export),
    /// Erase every event that carries one of some ids, and what is derived from it
    Erase(Erase),
}

#[derive(Debug, clap::Args)]
struct Ids {
    /// A person, as `known_person` has it
    #[arg(value_name = "PERSON")]
    person: String,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Accounts (user_id) and devices (anonymous_id), as `tidemark person ids` lists them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
struct Erase {
    /// Accounts (user_id) and devices (anonymous_id), as `tidemark person ids` lists them
    ///
    /// What is not named stays. An event that carries a named id goes, also where somebody else was logged in on that
    /// device.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Print what would go, and erase nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Erase without erasure.key: what is loaded again, as by `replay`, comes back
    #[arg(long)]
    no_suppression: bool,
    #[command(flatten)]
    database: Database,
}

/// What cannot be reached from here.
const ELSEWHERE: &str = "not reached from here: backups, the WAL archive and replicas that lag, Kafka until its \
    retention, exported files, tables of your own, partitions that were retired and kept; on disk, bytes stay until \
    VACUUM";

/// Lists, writes or erases; prints to standard output.
pub async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Ids(args) => ids(args).await,
        Action::Export(args) => export(args).await,
        Action::Erase(args) => erase(args).await,
    }
}

async fn ids(args: Ids) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let sql = "SELECT kind, id, from_time, to_time FROM identity.ids($1)";
    let shown = show(&client, sql, &[&args.person], Output::Table).await;
    shown.map(|_| ()).map_err(|e| connection::explain("cannot list ids", &config, &e))
}

async fn export(args: Export) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot export the person", &config, &e);
    let sql = "SELECT event::text FROM identity.export_person($1) AS event";
    let rows = client.query_raw(sql, [&args.ids]).await.map_err(explain)?;
    let mut rows = std::pin::pin!(rows);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some(row) = rows.try_next().await.map_err(explain)? {
        // Whoever reads it may have gone.
        if writeln!(out, "{}", row.get::<_, String>(0)).is_err() {
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

async fn erase(args: Erase) -> Result<()> {
    let configuration = args.database.load()?;
    let config = options::postgres(&configuration)?;
    let keys = options::suppression(&configuration)?;
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot erase the person", &config, &e);
    let sql = "SELECT relation AS table, rows FROM identity.erase_person($1)";
    let tables = show(&client, sql, &[&args.ids], Output::Table).await.map_err(explain)?;
    if args.dry_run {
        say!("nothing is erased");
        return Ok(());
    }
    if keys.is_none() && !args.no_suppression {
        let why = "there is no key for the suppression list, so what is loaded again would come back";
        let next = "make one (openssl rand -hex 32), give it to every loader and to this command as erasure.key_file \
                    (TIDEMARK__ERASURE__KEY_FILE), or say --no-suppression";
        return Err(Error::new(Kind::Usage, "nothing is erased", why, next));
    }
    let used = client.query("SELECT key_hash FROM loader.suppression_keys", &[]).await.map_err(explain)?;
    let used: Vec<uuid::Uuid> = used.iter().map(|row| row.get(0)).collect();
    if keys.as_ref().is_some_and(|keys| !keys.know(&used)) {
        let why = "the suppression list was begun under another key, which is not among those in erasure.key";
        let next = "give both, one a line, the one for new entries first, here and to every loader";
        return Err(Error::new(Kind::Config, "nothing is erased", why, next));
    }
    confirm(&format!("Erase this from {tables} tables for good?"), args.yes)?;

    // Only the newest key is for new entries.
    let hash = |id: &String| keys.as_ref().and_then(|keys| keys.hashes(bounded(id).as_bytes()).next());
    let listed: Option<Vec<_>> = keys.as_ref().map(|_| args.ids.iter().filter_map(hash).collect());
    let name = keys.as_ref().and_then(|keys| keys.names().into_iter().next());
    client.batch_execute("BEGIN").await.map_err(explain)?;
    let sql = "SELECT count(*) FROM identity.erase_person($1, false, $2, $3)";
    client.query_one(sql, &[&args.ids, &listed, &name]).await.map_err(explain)?;
    let sql = "SELECT max(erasure_id) FROM identity.erasures WHERE erased_at = pg_catalog.now()";
    let receipt: Option<i64> = client.query_one(sql, &[]).await.map_err(explain)?.get(0);
    client.batch_execute("COMMIT").await.map_err(explain)?;
    say!("erased; {} ids are on the suppression list", listed.map_or(0, |listed| listed.len()));
    say!("receipt: identity.erasures, erasure_id {}", receipt.unwrap_or_default());

    let mut failures = derive(&client).await.map_err(explain)?;
    let sql = "SELECT count(*) FROM identity.forget_statistics($1)";
    match client.query_one(sql, &[&args.ids]).await {
        Ok(row) => say!("models are refreshed, statistics of {} tables gathered anew", row.get::<_, i64>(0)),
        Err(error) => failures.push(("identity.forget_statistics".to_owned(), error)),
    }
    say!("{ELSEWHERE}");
    let Some((what, error)) = failures.pop() else { return Ok(()) };
    for (what, error) in &failures {
        tracing::warn!("{what} failed: {}", connection::full_message(error));
    }
    let what = format!("the person is erased, but not yet from all that is derived: {what} failed");
    Err(connection::explain(&what, &config, &error))
}

/// What follows from events: models, who everybody else is, views across dates, and texts that only timelines knew. One
/// that fails stops no other.
async fn derive(client: &Client) -> Result<Vec<(String, PgError)>, PgError> {
    let sql = "SELECT pg_catalog.format('SELECT tidemark.forget_values(%L)', t.timeline)
                 FROM tidemark.timeline_status AS t";
    let timelines = client.query(sql, &[]).await?;
    let mut failures = Vec::new();
    let calls = [
        "CALL tidemark.refresh()",
        "CALL identity.resolve()",
        "CALL tidemark.refresh()",
        "CALL tidemark.refresh_materialized_views()",
    ];
    for call in calls.map(str::to_owned).into_iter().chain(timelines.iter().map(|row| row.get(0))) {
        if let Err(error) = client.batch_execute(&call).await {
            failures.push((call, error));
        }
    }
    Ok(failures)
}
