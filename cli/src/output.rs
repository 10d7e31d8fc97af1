//! What commands have in common that show rows or ask before they act: tables, JSON, questions, times on the command line.

use std::io::{self, IsTerminal, Write};

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::status::{Row, table};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::time::{self, Micros};

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// A JSON array of objects
    Json,
}

/// Runs a query and shows its rows. Its columns must be text, so that both forms can be made of them; for JSON each one
/// is what `to_jsonb` gives for the row.
pub async fn show(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
    output: Output,
) -> Result<u64, tokio_postgres::Error> {
    match output {
        Output::Json => {
            let sql = format!("SELECT pg_catalog.to_jsonb(q)::text FROM ({sql}) AS q");
            let rows = client.query(&sql, parameters).await?;
            let objects: Vec<String> =
                rows.iter().map(|row| format!("  {}", row.get::<_, String>(0))).collect();
            if objects.is_empty() {
                say!("[]");
            } else {
                say!("[\n{}\n]", objects.join(",\n"));
            }
            Ok(rows.len() as u64)
        }
        Output::Table => {
            let statement = client.prepare(sql).await?;
            let names: Vec<String> = statement.columns().iter().map(|c| c.name().to_owned()).collect();
            let list: Vec<String> =
                (0..names.len()).map(|i| format!("({})::text", quoted(&names[i]))).collect();
            let sql = format!("SELECT {} FROM ({sql}) AS q", list.join(", "));
            let rows: Vec<Row> = client
                .query(&sql, parameters)
                .await?
                .iter()
                .map(|row| (0..row.len()).map(|i| row.get(i)).collect())
                .collect();
            if rows.is_empty() {
                say!("none");
            } else {
                say!("{}", table(&names, &rows).trim_end_matches('\n'));
            }
            Ok(rows.len() as u64)
        }
    }
}

/// Shows rows that were put together here. In JSON whole numbers and booleans are what they are, except in the columns
/// that hold names.
pub fn print(names: &[&str], rows: &[Row], output: Output) {
    if output == Output::Table {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        if rows.is_empty() {
            say!("none");
        } else {
            say!("{}", table(&names, rows).trim_end_matches('\n'));
        }
        return;
    }
    let value = |name: &str, text: &Option<String>| match text {
        None => serde_json::Value::Null,
        Some(text) if matches!(name, "pipeline" | "topic" | "owner") => text.as_str().into(),
        Some(text) => match (text.parse::<i64>(), text.parse::<bool>()) {
            (Ok(n), _) => n.into(),
            (_, Ok(b)) => b.into(),
            _ => text.as_str().into(),
        },
    };
    let object = |row: &Row| -> serde_json::Map<String, serde_json::Value> {
        names.iter().zip(row).map(|(name, text)| ((*name).to_owned(), value(name, text))).collect()
    };
    let list: Vec<String> =
        rows.iter().map(|row| format!("  {}", serde_json::Value::Object(object(row)))).collect();
    if list.is_empty() {
        say!("[]");
    } else {
        say!("[\n{}\n]", list.join(",\n"));
    }
}

fn quoted(name: &str) -> String {
    format!("q.\"{}\"", name.replace('"', "\"\""))
}

/// Asks before something that cannot be taken back, unless `yes` was said on the command line. Without a terminal there
/// is nobody to ask.
pub fn confirm(what: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::new(
            Kind::Usage,
            "nothing was done",
            "there is no terminal to ask at",
            "add --yes if this is what you want",
        ));
    }
    eprint!("{what} [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, "nothing was done", "the answer was no", "run it again to change your mind"))
}

/// Reads a moment: an RFC 3339 time, a date (its first moment, UTC), or how long ago, such as 30m, 2h or 7d.
pub fn parse_moment(text: &str) -> Result<Micros, String> {
    if let Some(time) = time::parse_time(text) {
        return Ok(time);
    }
    if let Some(day) = time::parse_day(text) {
        return Ok(i64::from(day) * time::DAY_US);
    }
    let ago = text.char_indices().last().and_then(|(at, unit)| {
        let number: i64 = text[..at].parse().ok().filter(|n| (0..1_000_000).contains(n))?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        Some(time::now() - number * seconds * 1_000_000)
    });
    ago.ok_or_else(|| {
        "write an RFC 3339 time with an offset, a date, or how long ago, such as 2h or 7d".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_dates_or_ages() {
        assert_eq!(parse_moment("2000-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(parse_moment("2000-01-02"), Ok(time::DAY_US));
        let hour = time::now() - parse_moment("1h").unwrap();
        assert!((3_599_000_000..3_700_000_000).contains(&hour), "{hour}");
        for bad in ["", "h", "-1h", "1.5h", "yesterday", "2000-01-01T00:00:01", "5é"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
