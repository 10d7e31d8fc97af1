//! `tidemark check`: one line for each thing that `tidemark run` needs, with what to do where it is not as it must be.
//! Changes nothing.

use serde_json::json;
use tokio_postgres::{Client, Error as PgError};

use super::kafka_options::{self, Options};
use super::migrate::{self, Standing};
use super::options;
use tidemark_loader::config::Config;
use tidemark_loader::enrich::Enrichment;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::kafka::Kafka;
use tidemark_loader::kafka::bounded::Range;
use tidemark_loader::postgres::backends;
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position::{self, Position};

/// Arguments of `tidemark check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// How to print what was found
    #[arg(long, default_value = "text", value_enum)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

/// What came of one check.
struct Finding {
    check: &'static str,
    /// `Err` has what is wrong and what to do.
    result: Result<String, (String, String)>,
}

#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.0.push(Finding { check, result: Ok(detail.into()) });
    }

    fn problem(&mut self, check: &'static str, what: impl Into<String>, next: impl Into<String>) {
        self.0.push(Finding { check, result: Err((what.into(), next.into())) });
    }

    fn of(&mut self, check: &'static str, good: bool, detail: impl Into<String>, next: &str) {
        if good { self.ok(check, detail) } else { self.problem(check, detail, next) }
    }

    fn error(&mut self, check: &'static str, error: &Error) {
        // Ours end with what to do.
        let text = error.to_string();
        let (what, next) = text.rsplit_once("; ").unwrap_or((&text, "see above"));
        self.problem(check, what, next);
    }

    fn problems(&self) -> usize {
        self.0.iter().filter(|f| f.result.is_err()).count()
    }
}

/// Checks everything that can be checked and prints it to standard output. Problems are an error of their own kind.
pub async fn run(args: Args) -> Result<()> {
    let mut report = Report::default();
    let config = match args.options.load() {
        Ok(config) => Some(config),
        Err(e) if e.kind == Kind::Usage => return Err(e),
        Err(e) => {
            report.error("configuration", &e);
            None
        }
    };
    if let Some(config) = &config {
        check_all(config, &mut report).await;
    }
    match args.output {
        Output::Text => print(&report),
        Output::Json => {
            let checks = report.0.iter().map(|finding| match &finding.result {
                Ok(detail) => json!({ "check": finding.check, "ok": true, "detail": detail }),
                Err((what, next)) => {
                    json!({ "check": finding.check, "ok": false, "detail": what, "next": next })
                }
            });
            let checks = checks.collect();
            let ok = report.problems() == 0;
            say!("{:#}", json!({ "ok": ok, "checks": serde_json::Value::Array(checks) }));
        }
    }
    match report.problems() {
        0 => Ok(()),
        n => {
            let next = "what to do about each is said there";
            Err(Error::new(
                Kind::Problems,
                "not ready to run",
                format!("{n} of {} checks found a problem", report.0.len()),
                next,
            ))
        }
    }
}

fn print(report: &Report) {
    let width = report.0.iter().map(|f| f.check.len()).max().unwrap_or(0);
    for Finding { check, result } in &report.0 {
        match result {
            Ok(detail) => say!("ok       {check:<width$}  {detail}"),
            Err((what, next)) => say!("problem  {check:<width$}  {what}; {next}"),
        }
    }
}

async fn check_all(config: &Config, report: &mut Report) {
    let pipeline = config.get("pipeline.name").unwrap_or("web");
    let settings = (|| {
        options::encoder(config)?;
        options::target(config)?;
        options::breaker(config)?;
        options::batch_limits(config, options::lanes(config)?)?;
        Ok::<_, Error>((
            options::postgres(config),
            kafka_options::kafka(config),
            kafka_options::topics(config),
        ))
    })();
    let (postgres, kafka, topics) = match settings {
        Ok(settings) => settings,
        Err(e) => return report.error("configuration", &e),
    };
    let batch = options::lanes(config).and_then(|lanes| {
        let l = options::batch_limits(config, lanes)?;
        let lanes = if lanes == 1 { "1 lane".to_owned() } else { format!("{lanes} lanes") };
        Ok(format!("{lanes}, batches of up to {} records and {} KiB", l.rows, l.bytes >> 10))
    });
    report.ok("configuration", batch.unwrap_or_default());
    match options::enrichment(config) {
        Err(e) => report.error("enrichment", &e),
        Ok(enrichment) => check_enrichment(&enrichment, config, report),
    }

    let mut books = None;
    match &postgres {
        Err(e) => report.error("postgres", e),
        Ok(postgres) => match connection::connect_once(postgres).await {
            Err(e) => report.error("postgres", &e),
            Ok(client) => {
                if let Err(e) = check_postgres(&client, postgres, config, report).await {
                    report.error(
                        "postgres",
                        &connection::explain("cannot look into the database", postgres, &e),
                    );
                }
                books = Some(client);
            }
        },
    }
    let (kafka, topics) = match (kafka, topics) {
        (Ok(kafka), Ok(topics)) => (kafka, topics),
        (kafka, topics) => {
            kafka.err().iter().chain(topics.err().iter()).for_each(|e| report.error("kafka", e));
            return;
        }
    };
    let asked = kafka.clone();
    let survey = match tokio::task::spawn_blocking(move || asked.survey(&topics, false)).await {
        Ok(Ok(survey)) => survey,
        Ok(Err(e)) => return report.error("kafka", &e),
        Err(e) => return report.error("kafka", &Error::bug("cannot ask Kafka", e)),
    };
    let cluster = survey.cluster_id.as_deref().unwrap_or("unknown");
    report.ok("kafka", format!("{}, cluster {cluster}", kafka.brokers));
    for (topic, why) in survey.found.missing {
        if topic.starts_with('^') {
            report.ok("topic", format!("{topic}: {why}"));
        } else {
            report.problem(
                "topic",
                format!("cannot read topic {topic}: {why}"),
                "create it or correct --topic",
            );
        }
    }
    for topic in survey.found.topics {
        let (asked, wanted) = (kafka.clone(), topic.clone());
        let id = survey.cluster_id.clone();
        let logs = match tokio::task::spawn_blocking(move || asked.ranges(&wanted, None)).await {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => {
                report.error("topic", &e);
                continue;
            }
            Err(e) => return report.error("kafka", &Error::bug("cannot ask Kafka", e)),
        };
        let records: i64 = logs.iter().map(|log| log.high).sum();
        report.ok("topic", format!("{topic}: {} partitions, ends add up to {records}", logs.len()));
        if let Some(client) = &books {
            check_positions(client, pipeline, &kafka, &topic, (id, logs), report).await;
        }
    }
}

/// Whether the files about user agents and networks can be used.
fn check_enrichment(enrichment: &Enrichment, config: &Config, report: &mut Report) {
    for problem in enrichment.take_problems() {
        let (what, next) = problem.why.split_once(": ").unwrap_or((&problem.why, "name another file"));
        report.problem("enrichment", format!("{} {what}", problem.file.display()), next);
    }
    let addresses = match config.get("enrich.addresses") {
        Some("keep") => "addresses are kept",
        _ => "addresses are cut",
    };
    let by = |what: &str, by: Option<&str>| match by {
        Some(by) => format!("{what} by {by}"),
        None => format!("nothing says what {what} are"),
    };
    let (agents, places) =
        (by("user agents", enrichment.agents_by()), by("networks", enrichment.places_by()));
    report.ok("enrichment", format!("{addresses}, {agents}, {places}"));
}

async fn check_postgres(
    client: &Client,
    postgres: &connection::Config,
    config: &Config,
    report: &mut Report,
) -> Result<(), PgError> {
    let pipeline = config.get("pipeline.name").unwrap_or("web");
    if let Some(why) = backends::detect_pooler(client, postgres).await? {
        report.problem(
            "pooler",
            format!("a pooler changes backends between statements: {why}"),
            backends::POOLER_ADVICE,
        );
        return Ok(());
    }
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
                      pg_catalog.pg_is_in_recovery(), current_user::text,
                      coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false)";
    let row = client.query_one(sql, &[]).await?;
    let (number, version, standby, user, tls): (i32, &str, bool, &str, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    let tls = if tls { "with TLS" } else { "without TLS" };
    let password = postgres.password_from().map(|from| format!(", password from {from}")).unwrap_or_default();
    let at = format!("{}, PostgreSQL {version}, as {user}, {tls}{password}", connection::describe(postgres));
    report.of("postgres", number >= 150_000, at, "use PostgreSQL 15 or later");
    report.ok("pooler", "each connection keeps its backend");
    report.of(
        "primary",
        !standby,
        if standby { "the server is a standby" } else { "the server takes writes" },
        "connect to the primary, with target_session_attrs=read-write where the address leads to either",
    );
    let sql = "SELECT e.extversion, a.default_version FROM pg_catalog.pg_extension AS e
                 LEFT JOIN pg_catalog.pg_available_extensions AS a ON a.name = e.extname WHERE e.extname = 'tidemark'";
    match client.query_opt(sql, &[]).await? {
        None => {
            report.problem("extension", "tidemark is not installed in this database", "run tidemark migrate")
        }
        Some(row) => {
            let (installed, offered): (&str, Option<&str>) = (row.get(0), row.get(1));
            let good = offered.is_none_or(|offered| offered == installed);
            let detail = format!("version {installed}, the server offers {}", offered.unwrap_or("none"));
            report.of("extension", good, detail, "ALTER EXTENSION tidemark UPDATE");
        }
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                                JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
                               WHERE s.nspname = 'loader' AND c.relname = 'schema_history')";
    let migrated: bool = client.query_one(sql, &[]).await?.get(0);
    if !migrated {
        report.problem("schema", "there is none", "run tidemark migrate");
        return Ok(());
    }
    // From the catalog alone, which everybody may read.
    let lacking: Vec<String> = client.query(LACKING, &[]).await?.iter().map(|row| row.get(0)).collect();
    if lacking.is_empty() {
        report.ok("grants", format!("{user} may do what loading needs"));
    } else {
        // A right on the database is no part of what the group role has.
        let (database, objects): (Vec<&String>, Vec<&String>) =
            lacking.iter().partition(|l| l.starts_with("TEMPORARY "));
        let to = connection::quoted(user);
        let mut next: Vec<String> = database.iter().map(|right| format!("GRANT {right} TO {to}")).collect();
        if !objects.is_empty() {
            next.push(format!("GRANT tidemark_loader TO {to}"));
        }
        report.problem("grants", format!("{user} lacks {}", lacking.join(", ")), next.join("; "));
    }
    check_partition(client, report).await?;
    if lacking.iter().any(|l| l.ends_with(" on schema loader") || l.ends_with(" on loader.schema_history")) {
        return Ok(());
    }
    let (standing, ours) = (migrate::standing(client).await?, migrate::ours());
    let (found, next) = match standing {
        Standing::Fits(found) => (Some(found), ""),
        Standing::Newer(found) => (Some(found), "use the newer tidemark"),
        Standing::Older(found) => (found, "run tidemark migrate"),
    };
    let found = found.map_or("none".to_owned(), |v| v.to_string());
    let fits = matches!(standing, Standing::Fits(_));
    report.of("schema", fits, format!("version {found}, this binary knows up to {ours}"), next);

    let sql = "SELECT paused, coalesce(pause_reason, '') FROM loader.pipelines WHERE name = $1";
    if lacking.is_empty() && fits {
        if let Ok(target) = options::target(config) {
            match target.check(client, postgres).await {
                Ok(()) => report.ok("target", format!("{} takes events", target.name())),
                Err(e) => report.error("target", &e),
            }
        }
        match client.query_opt(sql, &[&pipeline]).await? {
            None => report.ok("pipeline", format!("{pipeline} begins with its first run")),
            Some(row) if row.get(0) => {
                let what = format!("{pipeline} is paused: {}", row.get::<_, &str>(1));
                report.problem("pipeline", what, format!("tidemark resume {pipeline}"));
            }
            Some(_) => report.ok("pipeline", format!("{pipeline} is not paused")),
        }
        let sql = "SELECT topic, reason FROM loader.topic_states JOIN loader.pipelines USING (pipeline_id)
                    WHERE name = $1 AND state = 'paused' ORDER BY topic";
        for row in client.query(sql, &[&pipeline]).await? {
            let (topic, reason): (&str, &str) = (row.get(0), row.get(1));
            let next = format!("tidemark resume {pipeline} --topic {topic}");
            report.problem("topic", format!("{topic} is paused: {reason}"), next);
        }
    }
    Ok(())
}

/// Privileges that loading needs and this role does not have. A table that is missing altogether is a matter of
/// migrations, not of grants.
const LACKING: &str = "
WITH needed (privilege, kind, name, columns) AS (VALUES
    ('USAGE', 'schema', 'bronze', NULL), ('USAGE', 'schema', 'loader', NULL), ('USAGE', 'schema', 'tidemark', NULL),
    ('INSERT', 'table', 'bronze.events', NULL), ('INSERT', 'table', 'bronze.late_events', NULL),
    ('SELECT', 'columns', 'bronze.events', 'event_id, event_time, payload_hash'),
    ('SELECT', 'columns', 'bronze.late_events', 'event_id, event_time, payload_hash'),
    ('SELECT', 'table', 'loader.seen_ids', NULL), ('INSERT', 'table', 'loader.seen_ids', NULL),
    ('DELETE', 'table', 'loader.seen_ids', NULL), ('SELECT', 'table', 'loader.seen_dates', NULL),
    ('EXECUTE', 'function', 'begin_seen_date', NULL),
    ('SELECT', 'table', 'loader.offsets', NULL), ('INSERT', 'table', 'loader.offsets', NULL),
    ('UPDATE', 'table', 'loader.offsets', NULL), ('INSERT', 'table', 'loader.offset_gaps', NULL),
    ('SELECT', 'table', 'loader.pipelines', NULL), ('INSERT', 'table', 'loader.pipelines', NULL),
    ('UPDATE', 'columns', 'loader.pipelines',
     'cluster_id, paused, paused_at, paused_by, pause_reason'),
    ('SELECT', 'table', 'loader.topic_states', NULL), ('INSERT', 'table', 'loader.topic_states', NULL),
    ('UPDATE', 'table', 'loader.topic_states', NULL), ('DELETE', 'table', 'loader.topic_states', NULL),
    ('SELECT', 'table', 'loader.topics', NULL), ('INSERT', 'table', 'loader.topics', NULL),
    ('SELECT', 'table', 'loader.batches', NULL), ('INSERT', 'table', 'loader.batches', NULL),
    ('SELECT', 'table', 'loader.mappings', NULL), ('INSERT', 'table', 'loader.mappings', NULL),
    ('UPDATE', 'columns', 'loader.mappings', 'name'),
    ('INSERT', 'table', 'loader.batch_ranges', NULL),
    ('SELECT', 'table', 'loader.suppression_keys', NULL), ('SELECT', 'table', 'loader.suppressed', NULL),
    ('USAGE', 'schema', 'silver', NULL), ('SELECT', 'table', 'loader.own_networks', NULL),
    ('INSERT', 'table', 'silver.user_agents', NULL), ('INSERT', 'table', 'silver.networks', NULL),
    ('SELECT', 'table', 'loader.dead_letters', NULL), ('INSERT', 'table', 'loader.dead_letters', NULL),
    ('UPDATE', 'columns', 'loader.dead_letters', 'batch_id, stage, reason, detail, sqlstate, attempts'),
    ('SELECT', 'table', 'loader.schema_history', NULL), ('USAGE', 'sequence', 'loader.batch_ids', NULL),
    ('SELECT', 'columns', 'tidemark_internal.partition_config', 'parent, unique_columns'),
    ('EXECUTE', 'function', 'ensure_partitions', NULL), ('EXECUTE', 'function', 'mark_loaded', NULL))
SELECT lacking FROM (
    SELECT n.privilege || ' on schema ' || n.name AS lacking
      FROM needed AS n JOIN pg_catalog.pg_namespace AS s ON s.nspname = n.name
     WHERE n.kind = 'schema' AND NOT pg_catalog.has_schema_privilege(s.oid, n.privilege)
    UNION ALL
    SELECT n.privilege || coalesce(' (' || n.columns || ')', '') || ' on ' || n.name
      FROM needed AS n
      JOIN pg_catalog.pg_class AS c ON c.relname = split_part(n.name, '.', 2)
      JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace AND s.nspname = split_part(n.name, '.', 1)
     WHERE CASE n.kind WHEN 'table' THEN NOT pg_catalog.has_table_privilege(c.oid, n.privilege)
                       WHEN 'sequence' THEN NOT pg_catalog.has_sequence_privilege(c.oid, n.privilege)
                       -- A column that is missing is a matter of migrations as well.
                       WHEN 'columns' THEN EXISTS (
                           SELECT FROM pg_catalog.pg_attribute AS a
                            WHERE a.attrelid = c.oid AND a.attname = ANY (string_to_array(n.columns, ', '))
                              AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, n.privilege)) END
    UNION ALL
    SELECT 'EXECUTE on function ' || p.oid::pg_catalog.regprocedure
      FROM needed AS n
      JOIN pg_catalog.pg_proc AS p ON p.proname = n.name
       AND p.pronamespace IN ('tidemark'::pg_catalog.regnamespace, 'loader'::pg_catalog.regnamespace)
     WHERE n.kind = 'function' AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    UNION ALL
    SELECT 'TEMPORARY ON DATABASE ' || pg_catalog.quote_ident(pg_catalog.current_database())
     WHERE NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')
) AS all_of_them";

/// Whether there is a partition for today.
async fn check_partition(client: &Client, report: &mut Report) -> Result<(), PgError> {
    // Without its name as a regclass, which needs a right on the schema.
    let sql = "SELECT d.today::text, EXISTS (
                      SELECT FROM pg_catalog.pg_class AS p
                        JOIN pg_catalog.pg_namespace AS s ON s.oid = p.relnamespace AND s.nspname = 'bronze'
                       CROSS JOIN LATERAL tidemark_internal.partition_bounds(p.oid) AS b
                       WHERE p.relname = 'events' AND NOT b.pending AND b.from_time <= now() AND b.to_time > now())
                 FROM (SELECT (now() AT TIME ZONE 'UTC')::date) AS d(today)";
    let row = client.query_one(sql, &[]).await?;
    let (today, there): (&str, bool) = (row.get(0), row.get(1));
    let detail =
        format!("bronze.events has {} for {today}", if there { "a partition" } else { "no partition" });
    report.of(
        "partitions",
        there,
        detail,
        "run tidemark maintain; tidemark run does it by itself as events come",
    );
    Ok(())
}

async fn check_positions(
    client: &Client,
    pipeline: &str,
    kafka: &Kafka,
    topic: &str,
    (cluster, logs): (Option<String>, Vec<Range>),
    report: &mut Report,
) {
    let sql = "SELECT pipeline_id, cluster_id FROM loader.pipelines WHERE name = $1";
    let Ok(Some(row)) = client.query_opt(sql, &[&pipeline]).await else { return };
    let (id, known): (i32, Option<String>) = (row.get(0), row.get(1));
    if let (Some(known), Some(cluster)) = (&known, &cluster)
        && known != cluster
    {
        let what = format!("pipeline {pipeline} belongs to Kafka cluster {known}, not to {cluster}");
        report.problem("position", what, "correct kafka.brokers, or choose another pipeline.name");
        return;
    }
    let mut behind = 0;
    let mut lost = Vec::new();
    for log in logs {
        let at = match position::find(client, id, topic, log.partition).await {
            Ok(Some(at)) => at,
            Ok(None) => Position { next_offset: log.low, ..Position::default() },
            Err(_) => return,
        };
        behind += (log.high - at.next_offset).max(0);
        let (asked, name, next, partition) = (kafka.clone(), topic.to_owned(), at.next_offset, log.partition);
        match tokio::task::spawn_blocking(move || asked.change(&name, &at, &log)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(change))) => lost.push(format!("[{partition}] at offset {next}: {}", change.why)),
            Ok(Err(e)) => return report.error("position", &e),
            Err(e) => return report.error("position", &Error::bug("cannot ask Kafka", e)),
        }
    }
    if !lost.is_empty() {
        let what = format!("{topic} cannot be continued: {}", lost.join(", "));
        let next = "choose on_data_loss = \"earliest\" or \"latest\", or another pipeline.name";
        return report.problem("position", what, next);
    }
    let sql = "SELECT count(*), coalesce(string_agg(DISTINCT cause, ', '), '') FROM loader.offset_gaps
                WHERE pipeline_id = $1 AND topic = $2 AND acknowledged_by IS NULL";
    let Ok(row) = client.query_one(sql, &[&id, &topic]).await else { return };
    let gaps = match row.get(0) {
        0i64 => String::new(),
        n => format!(
            "; {n} gaps in loader.offset_gaps that nobody has acknowledged: {}",
            row.get::<_, &str>(1)
        ),
    };
    report.ok("position", format!("{topic}: at most {behind} records to load{gaps}"));
}
