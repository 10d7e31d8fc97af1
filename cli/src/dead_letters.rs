//! `tidemark dead-letters`: look at events that could not be loaded, try them again, export or discard them. How a
//! letter is tried again is in `letters`; how one is printed whole is in `letter_text`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config};

use super::events::Events;
use super::letter_filter::{Filter, Letter, condition, parse_letter, part_of};
use super::letter_text;
use super::options;
use super::output::{self, Output, confirm};
use super::{Database, migrate, position_pipeline};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::lanes::sink::{Patience, Sink, SinkError};
use tidemark_loader::postgres::connection::{self, PgMoment, PgTime};
use tidemark_loader::postgres::letters;

/// Arguments of `tidemark dead-letters`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List dead letters, the newest first
    List(List),
    /// Print one letter whole: coordinates, reason, key, headers and raw bytes
    Show(Show),
    /// Try open letters again: what can be loaded now is loaded, exactly once
    Replay(Replay),
    /// Mark open letters as not wanted; their bytes stay
    Discard(Discard),
    /// Write letters with their raw bytes, one JSON object a line
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Which state they are in
    #[arg(long, default_value = "open", value_enum)]
    status: Status,
    /// Most letters shown
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// How they are shown
    #[arg(long, default_value = "table", value_enum)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The letter, as `list` shows it: TOPIC:PARTITION:OFFSET, with #N for one event of a record with several
    #[arg(value_name = "LETTER", value_parser = parse_letter)]
    letter: Letter,
    #[command(flatten)]
    database: Database,
    /// Only that of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Replay {
    #[command(flatten)]
    filter: Filter,
    /// Most letters tried [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    events: Events,
}

#[derive(Debug, clap::Args)]
struct Discard {
    #[command(flatten)]
    filter: Filter,
    /// Why nobody wants them; kept with the letters
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    note: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Export {
    #[command(flatten)]
    filter: Filter,
    /// Which state they are in
    #[arg(long, default_value = "open", value_enum)]
    status: Status,
    /// Most letters written [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// File to write to [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// State of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Status {
    /// Waiting for a decision
    Open,
    /// Loaded since
    Replayed,
    /// Not wanted
    Discarded,
    /// Any of these
    All,
}

impl Status {
    fn word(self) -> Option<&'static str> {
        match self {
            Status::Open => Some("open"),
            Status::Replayed => Some("replayed"),
            Status::Discarded => Some("discarded"),
            Status::All => None,
        }
    }
}

/// Does what the command line says.
pub async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::List(args) => list(args).await,
        Action::Show(args) => show(args).await,
        Action::Replay(args) => replay(args).await,
        Action::Discard(args) => discard(args).await,
        Action::Export(args) => export(args).await,
    }
}

async fn list(args: List) -> Result<()> {
    let config = args.filter.database.config()?;
    let client = connection::connect_once(&config).await?;
    let time =
        |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    let sql = format!(
        "SELECT d.topic || ':' || d.partition || ':' || d.\"offset\"
                    || CASE WHEN d.source_index > 0 THEN '#' || d.source_index ELSE '' END AS letter, p.name AS pipeline, d.stage, d.reason,
                d.status, d.attempts, d.event_type, d.event_id, {} AS event_time, {} AS quarantined_at,
                coalesce(length(d.payload), 0) AS bytes, d.detail
           FROM loader.dead_letters AS d JOIN loader.pipelines AS p USING (pipeline_id)
          WHERE {} AND ($11::text IS NULL OR d.status = $11)
          ORDER BY d.quarantined_at DESC, d.topic, d.partition, d.\"offset\", d.source_index LIMIT $12",
        time("d.event_time"),
        time("d.quarantined_at"),
        condition(1)
    );
    let (p, status) = (args.filter.parameters(), args.status.word());
    let mut parameters = args.filter.list(&p);
    parameters.extend([&status as &(dyn ToSql + Sync), &args.limit]);
    let explain = |e| connection::explain("cannot list the dead letters", &config, &e);
    let shown = output::show(&client, &sql, &parameters, args.output).await.map_err(explain)?;
    if shown == args.limit as u64 && args.output == Output::Table {
        eprintln!("tidemark: there may be more than these {shown}; --limit shows more");
    }
    Ok(())
}

async fn show(args: Show) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let sql = format!(
        "{} WHERE d.topic = $1 AND d.partition = $2 AND d.\"offset\" = $3 AND ($4::text IS NULL OR p.name = $4)
            AND ($5::int IS NULL OR d.source_index = $5) ORDER BY p.name, d.source_index, d.quarantined_at",
        letter_text::SELECT
    );
    let Letter { topic, partition, offset, index } = &args.letter;
    let rows = client
        .query(&sql, &[topic, partition, offset, &args.pipeline, index])
        .await
        .map_err(|e| connection::explain("cannot read the dead letter", &config, &e))?;
    if rows.is_empty() {
        return Err(Error::new(
            Kind::Usage,
            format!("there is no dead letter {topic}:{partition}:{offset}{}", part_of(*index)),
            "nothing was recorded there",
            "see tidemark dead-letters list --status all",
        ));
    }
    for row in &rows {
        say!("{}", letter_text::page(row));
    }
    Ok(())
}

async fn export(args: Export) -> Result<()> {
    let config = args.filter.database.config()?;
    let client = connection::connect_once(&config).await?;
    let sql = format!(
        "{} WHERE {} AND ($11::text IS NULL OR d.status = $11)
          ORDER BY d.quarantined_at, p.name, d.topic, d.partition, d.\"offset\", d.source_index LIMIT $12",
        letter_text::SELECT,
        condition(1)
    );
    let (p, status) = (args.filter.parameters(), args.status.word());
    let mut parameters = args.filter.list(&p);
    parameters.extend([&status as &(dyn ToSql + Sync), &args.limit]);
    let explain = |e: tokio_postgres::Error| connection::explain("cannot read the dead letters", &config, &e);
    let unwritable = |e: std::io::Error| {
        Error::new(Kind::Input, "cannot write the dead letters", e, "check --out and the space on its disk")
    };
    let mut out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(std::io::BufWriter::new(std::fs::File::create(path).map_err(unwritable)?)),
        None => Box::new(std::io::stdout()),
    };
    let rows = client.query_raw(&sql, parameters.iter().copied()).await.map_err(explain)?;
    let mut rows = std::pin::pin!(rows);
    let mut written = 0u64;
    while let Some(row) = rows.try_next().await.map_err(explain)? {
        match writeln!(out, "{}", letter_text::json(&row)) {
            Ok(()) => written += 1,
            // Whoever reads it has seen enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe && args.out.is_none() => return Ok(()),
            Err(e) => return Err(unwritable(e)),
        }
    }
    out.flush().map_err(unwritable)?;
    eprintln!("tidemark: {written} dead letters written");
    Ok(())
}

async fn discard(args: Discard) -> Result<()> {
    let config = args.filter.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e| connection::explain("cannot discard the dead letters", &config, &e);
    let p = args.filter.parameters();
    let mut parameters = args.filter.list(&p);
    let count = format!(
        "SELECT count(*) FROM loader.dead_letters AS d JOIN loader.pipelines AS p USING (pipeline_id)
          WHERE d.status = 'open' AND {}",
        condition(1)
    );
    let open: i64 = client.query_one(&count, &parameters).await.map_err(explain)?.get(0);
    if open == 0 {
        say!("no open dead letter matches, nothing to do");
        return Ok(());
    }
    confirm(&format!("Discard {open} open dead letters?"), args.yes)?;
    let by = who(&client).await.map_err(explain)?;
    let update = format!(
        "UPDATE loader.dead_letters AS d
            SET status = 'discarded', resolved_at = now(), resolved_by = $11, note = $12
           FROM loader.pipelines AS p
          WHERE p.pipeline_id = d.pipeline_id AND d.status = 'open' AND {}",
        condition(1)
    );
    parameters.extend([&by as &(dyn ToSql + Sync), &args.note]);
    let discarded = client.execute(&update, &parameters).await.map_err(explain)?;
    say!("discarded {discarded} dead letters");
    Ok(())
}

/// The role in the database, and who sits at this machine as far as that is known.
async fn who(client: &Client) -> Result<String, tokio_postgres::Error> {
    let role: String = client.query_one("SELECT session_user::text", &[]).await?.get(0);
    let user = std::env::var("USER").unwrap_or_default();
    Ok(if user.is_empty() { role } else { format!("{role} ({user})") })
}

async fn replay(args: Replay) -> Result<()> {
    let mut settings = args.filter.database.load()?;
    args.events.over(&mut settings)?;
    let config = options::postgres(&settings)?;
    let target = options::target(&settings)?;
    let (encoder, format) = (options::encoder(&settings)?, options::format(&settings)?);
    let mut chunk_rows = options::batch_limits(&settings, 1)?.rows.min(letters::CHUNK) as u64;
    let client = connection::connect_once(&config).await?;
    migrate::expect_current(&client, &config).await?;
    target.check(&client, &config).await?;
    options::prepare(&encoder, &client, &config).await?;
    let explain =
        |e: tokio_postgres::Error| connection::explain("cannot replay the dead letters", &config, &e);
    may_resolve(&client, &config).await?;
    let audit = position_pipeline(&client, letters::PIPELINE).await.map_err(explain)?;
    let by = who(&client).await.map_err(explain)?;
    let (_stop, stopped) = watch::channel(false);
    let patience = Patience::For(Duration::from_secs(30));
    let mut sink =
        Sink::new(config.clone(), audit, super::owner(), patience, stopped).into_target(target.clone());

    let p = args.filter.parameters();
    let parameters = args.filter.list(&p);
    let condition = condition(9);
    let (mut loaded, mut known, mut late, mut failed, mut cut) = (0, 0, 0, 0, 0);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after = letters::first();
    let begun = client.query_one("SELECT pg_catalog.clock_timestamp()", &[]).await.map_err(explain)?;
    let begun = PgTime(begun.get::<_, PgMoment>(0).0);
    while left > 0 {
        let most = left.min(chunk_rows) as i64;
        let chunk =
            letters::read(&client, &after, &begun, &condition, &parameters, &format, &by, audit, most)
                .await
                .map_err(explain)?;
        let Some(next) = chunk.next else { break };
        let (cut_now, tried) = (chunk.cut, chunk.cut + chunk.letters.keys.len() as u64);
        if !chunk.letters.keys.is_empty() {
            let mut batch = encoder.clone().encode(chunk.raw);
            match sink.write_letters(&mut batch, chunk.letters).await {
                Ok(written) => {
                    loaded += written.counts.loaded;
                    known += written.counts.duplicate;
                    late += written.counts.late;
                    failed += written.counts.dead;
                }
                // Somebody else is at the same letters: look again which of them are still open.
                Err(SinkError::Fenced) => continue,
                Err(SinkError::TooMuch(_)) => {
                    chunk_rows = (tried / 2).max(1);
                    continue;
                }
                Err(SinkError::Fatal(e)) => return Err(e),
                // Letters move no position.
                Err(SinkError::Stopped | SinkError::Paused | SinkError::WentBack(_)) => {
                    return Err(Error::bug("cannot replay", "stopped without being told to"));
                }
            }
        }
        cut += cut_now;
        left = left.saturating_sub(tried);
        after = next;
    }
    say!("tried {} dead letters", loaded + known + late + failed + cut);
    say!("  {loaded} loaded");
    say!("  {known} were loaded already");
    if late > 0 {
        say!("  {late} diverted because they are late");
    }
    say!("  {failed} cannot be loaded and stay open");
    if cut > 0 {
        say!("  {cut} stay open because they are too long: only their beginning was kept");
    }
    Ok(())
}

/// Loading would succeed and marking the letter would fail: better to know before.
async fn may_resolve(client: &Client, config: &Config) -> Result<()> {
    let sql = "SELECT pg_catalog.has_column_privilege('loader.dead_letters', 'status', 'UPDATE'), session_user::text";
    let row = client
        .query_one(sql, &[])
        .await
        .map_err(|e| connection::explain("cannot replay the dead letters", config, &e))?;
    if row.get(0) {
        return Ok(());
    }
    let role: String = row.get(1);
    Err(Error::new(
        Kind::Permission,
        "cannot replay the dead letters",
        format!("role {role} may not mark them as replayed"),
        "connect as a member of tidemark_admin",
    ))
}
