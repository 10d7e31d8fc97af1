//! `tidemark status`: what the loader's books say, as small tables for a person.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::Database;
use tidemark_loader::error::Result;
use tidemark_loader::postgres::connection;

/// Arguments of `tidemark status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
}

const SECTIONS: &[(&str, &str)] = &[
    (
        "Pipelines",
        "SELECT pipeline, read, loaded, duplicate, late_diverted, dead, filtered, tombstone, missing, batches,
                to_char(last_committed_at, 'YYYY-MM-DD HH24:MI:SS') AS last_batch_utc
           FROM loader.pipeline_totals ORDER BY pipeline",
    ),
    (
        "Offsets (the 50 moved last)",
        "SELECT p.name AS pipeline,
                CASE WHEN length(o.topic) > 40 THEN left(o.topic, 20) || '...' ELSE o.topic END AS topic,
                o.partition, o.next_offset, o.epoch, to_char(o.updated_at, 'YYYY-MM-DD HH24:MI:SS') AS updated_utc,
                round(extract(epoch FROM now() - o.last_received_at))::bigint AS seconds_behind_receipt
           FROM (SELECT * FROM loader.offsets ORDER BY updated_at DESC LIMIT 50) AS o
           JOIN loader.pipelines AS p USING (pipeline_id)
          ORDER BY p.name, o.topic, o.partition",
    ),
    (
        "Open dead letters",
        "SELECT stage, reason, count(*) AS letters,
                to_char(max(quarantined_at), 'YYYY-MM-DD HH24:MI:SS') AS newest_utc
           FROM loader.dead_letters WHERE status = 'open' GROUP BY stage, reason ORDER BY letters DESC, reason",
    ),
    (
        "Gaps",
        "SELECT topic, partition, expected, resumed_at, cause,
                to_char(recorded_at, 'YYYY-MM-DD HH24:MI:SS') AS recorded_utc
           FROM loader.offset_gaps WHERE acknowledged_by IS NULL ORDER BY gap_id DESC LIMIT 20",
    ),
    (
        "Models",
        "SELECT model, dirty_dates, oldest_dirty_date, newest_dirty_date, frozen_dirty_dates,
                coalesce(to_char(last_refreshed_at, 'YYYY-MM-DD HH24:MI:SS'), 'never') AS last_refreshed_utc,
                freshness_seconds, nullif(array_to_string(missing_sources, ', '), '') AS missing_sources, last_error,
                to_char(last_error_at, 'YYYY-MM-DD HH24:MI:SS') AS last_error_utc
           FROM tidemark.model_status ORDER BY model",
    ),
];

/// Prints the tables to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    for (title, sql) in SECTIONS {
        let (names, rows) = query(&client, sql)
            .await
            .map_err(|e| connection::explain("cannot read the status", &config, &e))?;
        say!("{title}");
        if rows.is_empty() {
            say!("  none");
        } else {
            say!("{}", table(&names, &rows).trim_end_matches('\n'));
        }
        say!("");
    }
    Ok(())
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
