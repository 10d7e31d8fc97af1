//! `tidemark enrich`: which user agents and networks the data files know, and new files. What becomes of the events is in
//! `sql/silver/070_apply_enrichment.sql`; what the files say, in the loader.

use tokio_postgres::{Client, Error as PgError};

use super::output::{Output, show};
use super::{Database, options};
use tidemark_loader::enrich::{Enrichment, Strangers};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::postgres::{connection, dimensions};

/// Arguments of `tidemark enrich`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how many user agents and networks the files of the configuration know
    Status(Options),
    /// Look up anew what was looked up in other files, and change the events of which it says something else
    ///
    /// Only these are changed, and models compute only the persons and dates of them again. What no file of the
    /// configuration is about stays: user agents without user_agent_file and bot_file, networks without place_files.
    Update(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    #[command(flatten)]
    database: Database,
}

const CANNOT_UPDATE: &str = "cannot update what user agents and networks are";

/// Shows or updates; prints to standard output.
pub async fn run(args: Args) -> Result<()> {
    let (options, update) = match args.action {
        Action::Status(options) => (options, false),
        Action::Update(options) => (options, true),
    };
    let settings = options.database.load()?;
    let config = options::postgres(&settings)?;
    let enrichment = options::enrichment(&settings)?;
    for problem in enrichment.take_problems() {
        if update && !problem.usable {
            // It would take away what the file said.
            let (why, next) = problem.why.split_once(": ").unwrap_or((&problem.why, "name another file"));
            let why = format!("{} {why}", problem.file.display());
            return Err(Error::new(Kind::Config, CANNOT_UPDATE, why, next));
        }
        eprintln!("tidemark: {problem}");
    }
    let client = connection::connect_once(&config).await?;
    if update {
        let explain = |e| connection::explain(CANNOT_UPDATE, &config, &e);
        return self::update(&client, &enrichment).await.map_err(explain);
    }
    let explain = |e| connection::explain("cannot count user agents and networks", &config, &e);
    status(&client, &enrichment).await.map_err(explain)
}

async fn status(client: &Client, enrichment: &Enrichment) -> std::result::Result<(), PgError> {
    let sql = "
        SELECT v.of, coalesce(v.by, 'none') AS files, v.rows, v.these AS by_these_files, v.others AS by_others,
               v.rows - v.these - v.others AS by_none, v.known
          FROM (SELECT 'user agents' AS of, $1::text AS by, count(*) AS rows,
                       count(*) FILTER (WHERE enriched_by = $1) AS these,
                       count(*) FILTER (WHERE enriched_by <> $1 OR $1 IS NULL AND enriched_by IS NOT NULL) AS others,
                       count(*) FILTER (WHERE coalesce(browser, os, bot) IS NOT NULL) || ', '
                       || count(bot) || ' of them bots' AS known
                  FROM silver.user_agents
                UNION ALL
                SELECT 'networks', $2, count(*), count(*) FILTER (WHERE enriched_by = $2),
                       count(*) FILTER (WHERE enriched_by <> $2 OR $2 IS NULL AND enriched_by IS NOT NULL),
                       count(country)::text
                  FROM silver.networks) AS v";
    show(client, sql, &[&enrichment.agents_by(), &enrichment.places_by()], Output::Table).await?;
    Ok(())
}

/// How many are looked up and written at a time.
const CHUNK: usize = 10_000;

async fn update(client: &Client, enrichment: &Enrichment) -> std::result::Result<(), PgError> {
    // By itself, since a loader that meets one of them waits for it.
    let missing = Strangers::of(
        enrichment,
        texts(client, "SELECT silver.unknown_user_agents()", &[]).await?,
        texts(client, "SELECT silver.unknown_networks()", &[]).await?,
    );
    dimensions::add(client, enrichment, &missing).await?;
    say!("{} user agents and {} networks were missing", missing.agents.len(), missing.networks.len());
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;

    if let Some(by) = enrichment.agents_by() {
        let sql =
            "SELECT user_agent FROM silver.user_agents WHERE enriched_by IS DISTINCT FROM $1 ORDER BY 1";
        let old = texts(client, sql, &[&by]).await?;
        let mut changed = 0;
        for texts in old.chunks(CHUNK) {
            changed += dimensions::change_agents(client, enrichment, texts).await?;
        }
        say!("{} user agents were looked up in {by}, {changed} are something else now", old.len());
    }
    if let Some(by) = enrichment.places_by() {
        let sql = "SELECT ip_prefix FROM silver.networks WHERE enriched_by IS DISTINCT FROM $1 ORDER BY 1";
        let old = texts(client, sql, &[&by]).await?;
        let mut changed = 0;
        for texts in old.chunks(CHUNK) {
            changed += dimensions::change_networks(client, enrichment, texts).await?;
        }
        say!("{} networks were looked up in {by}, {changed} are somewhere else now", old.len());
    }
    let row = client.query_one("SELECT events, dates FROM silver.apply_enrichment()", &[]).await?;
    let (events, dates): (i64, i64) = (row.get(0), row.get(1));
    client.batch_execute("COMMIT").await?;
    let next = if events > 0 { "; tidemark maintain refreshes what reads them" } else { "" };
    say!("{events} events of {dates} dates changed{next}");
    Ok(())
}

async fn texts(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> std::result::Result<Vec<String>, PgError> {
    Ok(client.query(sql, parameters).await?.iter().map(|row| row.get(0)).collect())
}
