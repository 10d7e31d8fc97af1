//! `tidemark status`: what the database knows of all pipelines, as small tables for a person or as one object. What a
//! loader knows beyond that - what it reads, what it meets - is on its page /status, under the same names.

use serde_json::{Map, Value};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Database;
use super::output::Output;
use tidemark_loader::error::{Error, Result};
use tidemark_loader::postgres::connection;

/// Arguments of `tidemark status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
    /// How to show it; json has all partitions, and whole names
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Title, name in JSON, and query of each table. `MOST` is how many rows a person wants to see.
const SECTIONS: &[(&str, &str, &str)] = &[
    (
        "Pipelines",
        "pipelines",
        "SELECT pipeline, read, loaded, duplicate, late_diverted AS late, dead, filtered, tombstone, missing, batches,
                to_char(last_committed_at, 'YYYY-MM-DD HH24:MI:SS') AS last_commit_utc,
                CASE WHEN p.paused THEN coalesce(p.pause_reason, 'no reason was given') || coalesce(
                     ' (by ' || p.paused_by || ')', '') END AS paused
           FROM loader.pipeline_totals AS t JOIN loader.pipelines AS p ON p.name = t.pipeline ORDER BY pipeline",
    ),
    (
        "Partitions (the 50 moved last)",
        "partitions",
        "SELECT p.name AS pipeline, o.topic, o.partition, o.epoch, o.next_offset,
                to_char(o.updated_at, 'YYYY-MM-DD HH24:MI:SS') AS updated_utc,
                to_char(o.last_received_at, 'YYYY-MM-DD HH24:MI:SS') AS last_received_utc
           FROM (SELECT * FROM loader.offsets ORDER BY updated_at DESC LIMIT MOST) AS o
           JOIN loader.pipelines AS p USING (pipeline_id)
          ORDER BY p.name, o.topic, o.partition",
    ),
    (
        "Topics not read",
        "topics_not_read",
        "SELECT p.name AS pipeline, s.topic, s.state, s.reason, s.changed_by AS by,
                to_char(s.changed_at, 'YYYY-MM-DD HH24:MI:SS') AS since_utc
           FROM loader.topic_states AS s JOIN loader.pipelines AS p USING (pipeline_id)
          WHERE s.state <> 'accepting' ORDER BY p.name, s.topic",
    ),
    (
        "Open dead letters",
        "dead_letters",
        "SELECT stage, reason, count(*) AS letters,
                to_char(max(quarantined_at), 'YYYY-MM-DD HH24:MI:SS') AS newest_utc
           FROM loader.dead_letters WHERE status = 'open' GROUP BY stage, reason ORDER BY letters DESC, reason",
    ),
    (
        "Gaps",
        "gaps",
        "SELECT topic, partition, expected, resumed_at, cause,
                to_char(recorded_at, 'YYYY-MM-DD HH24:MI:SS') AS recorded_utc
           FROM loader.offset_gaps WHERE acknowledged_by IS NULL ORDER BY gap_id DESC LIMIT MOST",
    ),
    (
        "Models",
        "models",
        "SELECT model, dirty_dates, oldest_dirty_date, newest_dirty_date, frozen_dirty_dates,
                coalesce(to_char(last_refreshed_at, 'YYYY-MM-DD HH24:MI:SS'), 'never') AS last_refreshed_utc,
                freshness_seconds, nullif(array_to_string(missing_sources, ', '), '') AS missing_sources, last_error,
                to_char(last_error_at, 'YYYY-MM-DD HH24:MI:SS') AS last_error_utc
           FROM tidemark.model_status ORDER BY model",
    ),
];

/// Prints it to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e| connection::explain("cannot read the status", &config, &e);
    if args.output == Output::Json {
        let mut all = Map::new();
        for (_, name, sql) in SECTIONS {
            let sql = format!(
                "SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]')::text FROM ({}) AS q",
                sql.replace("MOST", "ALL")
            );
            let rows: String = client.query_one(&sql, &[]).await.map_err(explain)?.get(0);
            let rows: Value =
                serde_json::from_str(&rows).map_err(|e| Error::bug("cannot read the status", e))?;
            all.insert((*name).to_owned(), rows);
        }
        say!("{:#}", Value::Object(all));
        return Ok(());
    }
    for (title, _, sql) in SECTIONS {
        let (names, mut rows) = query(&client, &sql.replace("MOST", "50")).await.map_err(explain)?;
        say!("{title}");
        if rows.is_empty() {
            say!("  none");
        } else {
            rows.iter_mut().flatten().flatten().for_each(shorten);
            say!("{}", table(&names, &rows).trim_end_matches('\n'));
        }
        say!("");
    }
    Ok(())
}

/// Files are topics with the SHA-256 in their names.
fn shorten(text: &mut String) {
    if text.len() > 40 && text.starts_with("file:") {
        text.truncate(20);
        text.push_str("...");
    }
}

/// Every value as text.
pub(super) type Row = Vec<Option<String>>;

async fn query(client: &Client, sql: &str) -> Result<(Vec<String>, Vec<Row>), tokio_postgres::Error> {
    let mut names = Vec::new();
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|c| c.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
            }
            _ => {}
        }
    }
    Ok((names, rows))
}

/// Columns as wide as their widest entry; numbers to the right.
pub(super) fn table(names: &[String], rows: &[Row]) -> String {
    let cell = |row: &Row, i: usize| row.get(i).cloned().flatten().unwrap_or_else(|| "-".to_owned());
    let mut out = String::new();
    let mut lines = vec![String::new(); rows.len() + 1];
    for (i, name) in names.iter().enumerate() {
        let cells: Vec<String> = rows.iter().map(|row| cell(row, i)).collect();
        let width = cells.iter().chain([name]).map(|c| c.chars().count()).max().unwrap_or(0);
        let numeric = cells.iter().all(|c| c == "-" || c.parse::<f64>().is_ok());
        for (line, text) in lines.iter_mut().zip([name].into_iter().chain(&cells)) {
            let padded = if numeric { format!("  {text:>width$}") } else { format!("  {text:<width$}") };
            line.push_str(&padded);
        }
    }
    for line in lines {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let names = ["name".to_owned(), "n".to_owned()];
        let rows =
            vec![vec![Some("a".to_owned()), Some("10".to_owned())], vec![Some("bcdef".to_owned()), None]];
        assert_eq!(table(&names, &rows), "  name    n\n  a      10\n  bcdef   -\n");
    }
}
