//! `tidemark offsets`: where pipelines stand in Kafka, and moving them by hand. A position is moved under the fence of
//! the loaders: a new epoch keeps out whoever still holds the old one.

use std::collections::HashMap;

use tokio_postgres::{Client, Config, Row as PgRow};

use super::Database;
use super::output::{Output, confirm, parse_moment, print};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::time::Micros;
use tidemark_loader::kafka::bounded::Range;
use tidemark_loader::kafka::{Kafka, Setting};
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position::{self, Position};

/// Arguments of `tidemark offsets`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show positions, and with --brokers how far they are behind
    Show(Show),
    /// Move the position of a pipeline; no loader may be running on it
    Set(Set),
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    database: Database,
    /// Kafka brokers, as host:port, separated by commas: to show the ends of the partitions and the lag
    #[arg(long, env = "TIDEMARK_BROKERS", value_name = "LIST")]
    brokers: Option<String>,
    /// Setting of librdkafka, such as socket.timeout.ms=30000; can be repeated
    #[arg(long = "kafka-config", value_name = "KEY=VALUE", value_parser = Setting)]
    settings: Vec<(String, String)>,
    /// Only this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Files too, not only topics of Kafka
    #[arg(long)]
    files: bool,
    /// How they are shown
    #[arg(long, default_value = "table", value_enum)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["to_offset", "to_time", "earliest", "latest"]))]
struct Set {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    kafka: Kafka,
    /// Pipeline to move
    #[arg(long, default_value = "web", value_name = "NAME")]
    pipeline: String,
    /// Topic of which the position is moved
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Partition; all of them if not given
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Go on at this offset; needs --partition
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// Go on at the first record of this time or later (RFC 3339, a date, or how long ago: 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    to_time: Option<Micros>,
    /// Go on at the oldest record
    #[arg(long)]
    earliest: bool,
    /// Go on behind the newest record
    #[arg(long)]
    latest: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Whether the backend that made the claim still lives. Its number may have been given out again since.
const ALIVE: &str = "EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a
                              WHERE a.pid = o.owner_pid AND a.datname = pg_catalog.current_database()
                                AND (a.backend_start IS NULL OR a.backend_start <= o.claimed_at))";

/// Does what the command line says.
pub async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Show(args) => show(args).await,
        Action::Set(args) => set(args).await,
    }
}

async fn ranges(kafka: &Kafka, topic: &str, partitions: Option<Vec<i32>>) -> Result<Vec<Range>> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || kafka.ranges(&topic, partitions.as_deref()))
        .await
        .map_err(|e| Error::bug("cannot ask Kafka", e))?
}

async fn show(args: Show) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let sql = format!(
        "SELECT p.name, o.topic, o.partition, o.next_offset, o.run, o.epoch, o.owner, {ALIVE},
                to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                to_char(o.last_received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), o.leader_epoch, o.kafka_topic_id
           FROM loader.offsets AS o JOIN loader.pipelines AS p USING (pipeline_id)
          WHERE ($1::text IS NULL OR p.name = $1) AND ($2::text IS NULL OR o.topic = $2)
            AND ($3 OR o.topic !~ '^(file|stdin):')
          ORDER BY p.name, o.topic, o.partition"
    );
    let rows = client
        .query(&sql, &[&args.pipeline, &args.topic, &args.files])
        .await
        .map_err(|e| connection::explain("cannot read the positions", &config, &e))?;
    let mut ends: HashMap<(String, i32), Range> = HashMap::new();
    if let Some(brokers) = args.brokers.filter(|brokers| !brokers.is_empty()) {
        let kafka = &Kafka::at(brokers, args.settings, Vec::new());
        let mut topics: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
        topics.dedup();
        topics.sort();
        topics.dedup();
        for topic in topics.iter().filter(|t| !t.starts_with("file:") && !t.starts_with("stdin:")) {
            // A topic that is gone is no reason to hide the others.
            match ranges(kafka, topic, None).await {
                Ok(found) => ends.extend(found.into_iter().map(|r| ((topic.clone(), r.partition), r))),
                Err(e) if e.kind == Kind::Config => eprintln!("tidemark: {e}"),
                Err(e) => return Err(e),
            }
        }
    }
    let names = [
        "pipeline",
        "topic",
        "partition",
        "next_offset",
        "low_offset",
        "end_offset",
        "lag_records",
        "run",
        "epoch",
        "owner",
        "owner_alive",
        "updated_at",
        "last_received_at",
        "leader_epoch",
        "kafka_topic_id",
    ];
    let table: Vec<Vec<Option<String>>> = rows
        .iter()
        .map(|row| {
            let (topic, partition, next): (String, i32, i64) = (row.get(1), row.get(2), row.get(3));
            let range = ends.get(&(topic.clone(), partition));
            vec![
                Some(row.get(0)),
                Some(topic),
                Some(partition.to_string()),
                Some(next.to_string()),
                range.map(|r| r.low.to_string()),
                range.map(|r| r.high.to_string()),
                range.map(|r| (r.high - next).to_string()),
                Some(row.get::<_, i32>(4).to_string()),
                Some(row.get::<_, i64>(5).to_string()),
                Some(row.get(6)),
                Some(row.get::<_, bool>(7).to_string()),
                Some(row.get(8)),
                row.get(9),
                row.get::<_, Option<i32>>(10).map(|epoch| epoch.to_string()),
                row.get(11),
            ]
        })
        .collect();
    print(&names, &table, args.output);
    Ok(())
}

/// A partition and where it is to go.
struct Move {
    partition: i32,
    from: Option<i64>,
    to: i64,
    topic_id: Option<String>,
}

async fn set(args: Set) -> Result<()> {
    let config = args.database.config()?;
    let what = format!("cannot move pipeline {} on {}", args.pipeline, args.topic);
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain(&what, &config, &e);
    let sql = "SELECT pipeline_id, cluster_id FROM loader.pipelines WHERE name = $1";
    let Some(pipeline) = client.query_opt(sql, &[&args.pipeline]).await.map_err(explain)? else {
        let next = "correct --pipeline; `tidemark offsets show` lists them";
        return Err(Error::new(Kind::Usage, &what, "there is no pipeline of that name", next));
    };
    let (pipeline_id, cluster): (i32, Option<String>) = (pipeline.get(0), pipeline.get(1));
    check_cluster(&args.kafka, &args.topic, cluster, &what).await?;

    let ranges = ranges(&args.kafka, &args.topic, args.partition.map(|p| vec![p])).await?;
    let at: Option<HashMap<i32, i64>> = match args.to_time {
        None => None,
        Some(time) => {
            let (kafka, topic, ranges) = (args.kafka.clone(), args.topic.clone(), ranges.clone());
            let asked = tokio::task::spawn_blocking(move || kafka.offsets_at(&topic, &ranges, time)).await;
            Some(asked.map_err(|e| Error::bug("cannot ask Kafka", e))??)
        }
    };
    let rows = positions(&client, pipeline_id, &args.topic, "").await.map_err(explain)?;
    let current: HashMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut moves = Vec::new();
    for range in &ranges {
        let to = match (&at, args.to_offset) {
            (Some(at), _) => at.get(&range.partition).copied().unwrap_or(range.high),
            (None, Some(to)) if (range.low..=range.high).contains(&to) => to,
            (None, Some(to)) => {
                let why = format!(
                    "partition {} has the offsets {} to {} (its end), and {to} is none of them",
                    range.partition, range.low, range.high
                );
                return Err(Error::new(Kind::Usage, &what, why, "correct --to-offset"));
            }
            (None, None) if args.earliest => range.low,
            (None, None) => range.high,
        };
        let from = current.get(&range.partition).copied();
        if from != Some(to) {
            moves.push(Move { partition: range.partition, from, to, topic_id: range.topic_id.clone() });
        }
    }
    if moves.is_empty() {
        say!("all positions are there already, nothing to do");
        return Ok(());
    }
    refuse_alive(&rows, &moves, &what)?;
    for m in &moves {
        let effect = match m.from {
            None => "it had no position yet".to_owned(),
            Some(from) if m.to < from => format!("the {} offsets before that are read again", from - m.to),
            Some(from) => format!("the {} offsets between are skipped", m.to - from),
        };
        let from = m.from.map_or("nowhere".to_owned(), |from| from.to_string());
        say!("{} [{}]: from {from} to {}: {effect}", args.topic, m.partition, m.to);
    }
    confirm(&format!("Move {} positions of pipeline {}?", moves.len(), args.pipeline), args.yes)?;
    commit(&client, &config, pipeline_id, &args.topic, &moves, &what).await?;
    say!("moved {} positions; each gap is noted in loader.offset_gaps", moves.len());
    Ok(())
}

/// The offsets of another cluster would mean other records.
async fn check_cluster(kafka: &Kafka, topic: &str, known: Option<String>, what: &str) -> Result<()> {
    let (asked, topic) = (kafka.clone(), topic.to_owned());
    let survey = tokio::task::spawn_blocking(move || asked.survey_one(&topic, false)).await;
    let found = survey.map_err(|e| Error::bug("cannot ask Kafka", e))??.cluster_id;
    match (known, found) {
        (Some(known), Some(found)) if known != found => {
            let why = format!("it belongs to Kafka cluster {known}, and {} is {found}", kafka.brokers);
            Err(Error::new(Kind::Config, what, why, "correct --brokers"))
        }
        _ => Ok(()),
    }
}

async fn positions(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    lock: &str,
) -> Result<Vec<PgRow>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT o.partition, o.next_offset, o.owner, {ALIVE} FROM loader.offsets AS o
          WHERE o.pipeline_id = $1 AND o.topic = $2 ORDER BY o.partition {lock}"
    );
    client.query(&sql, &[&pipeline_id, &topic]).await
}

fn refuse_alive(rows: &[PgRow], moves: &[Move], what: &str) -> Result<()> {
    let holder =
        rows.iter().find(|row| row.get(3) && moves.iter().any(|m| m.partition == row.get::<_, i32>(0)));
    let Some(row) = holder else { return Ok(()) };
    let (partition, owner): (i32, String) = (row.get(0), row.get(2));
    let why = format!("loader {owner} is running and holds partition {partition}");
    Err(Error::new(Kind::Temporary, what, why, "stop it first, then try again"))
}

async fn commit(
    client: &Client,
    config: &Config,
    pipeline_id: i32,
    topic: &str,
    moves: &[Move],
    what: &str,
) -> Result<()> {
    let explain = |e: tokio_postgres::Error| connection::explain(what, config, &e);
    client.batch_execute("BEGIN; SET LOCAL lock_timeout = '10s'").await.map_err(explain)?;
    // Once more, now that nobody can claim or advance: a loader may have started while a person read the question.
    let rows = positions(client, pipeline_id, topic, "FOR UPDATE OF o").await.map_err(explain)?;
    refuse_alive(&rows, moves, what)?;
    let now: HashMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    if let Some(m) = moves.iter().find(|m| now.get(&m.partition).copied() != m.from) {
        let why = format!("partition {} has moved meanwhile", m.partition);
        return Err(Error::new(Kind::Temporary, what, why, "stop whoever loads it, then try again"));
    }
    let owner: String =
        client.query_one("SELECT 'set by ' || session_user", &[]).await.map_err(explain)?.get(0);
    for m in moves {
        let to = Position { next_offset: m.to, leader_epoch: None, topic_id: m.topic_id.clone() };
        let partition = m.partition;
        let (claim, _) =
            position::claim(client, pipeline_id, topic, partition, &to, &owner).await.map_err(explain)?;
        if m.from.is_some() {
            position::jump(client, pipeline_id, topic, partition, claim, &to, "manual")
                .await
                .map_err(explain)?;
        }
    }
    let nobody =
        "UPDATE loader.offsets SET owner_pid = NULL WHERE pipeline_id = $1 AND topic = $2 AND owner = $3";
    client.execute(nobody, &[&pipeline_id, &topic, &owner]).await.map_err(explain)?;
    client.batch_execute("COMMIT").await.map_err(explain)
}
