//! What an error of Postgres means for a batch: try again, move one row, take the staged path, or stop. The messages
//! that people see are made in `pg`.

use tokio_postgres::error::{DbError, SqlState};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server or the connection, not the data: try the same again later.
    Retry,
    /// One row: dead letter.
    Row,
    /// No partition takes the row.
    NoPartition,
    /// A unique key: staged path.
    Duplicate,
    /// Wrong schema, wrong grants, or a bug: stop, nothing moves.
    Stop,
}

/// Classifies any error of the driver.
pub fn classify(error: &tokio_postgres::Error) -> Class {
    match error.as_db_error() {
        Some(db) if *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none() => {
            Class::NoPartition
        }
        Some(db) => classify_code(db.code().code()),
        // Not from the server: the connection broke. Encoding errors cannot arise, rows are encoded beforehand.
        None => Class::Retry,
    }
}

/// Classifies an SQLSTATE.
pub fn classify_code(code: &str) -> Class {
    match code {
        "23505" => Class::Duplicate,
        // Our binary encoding is wrong: no row is to blame.
        "22P04" => Class::Stop,
        "23502" | "23514" | "54000" | "54001" => Class::Row,
        "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "40001" | "40P01" | "55P03" | "25006" | "25P03"
        | "25P04" => Class::Retry,
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => Class::Retry,
        _ if code.starts_with("22") => Class::Row,
        _ => Class::Stop,
    }
}

/// The row to blame, counted from 0, as the context line of a COPY names it (`COPY events, line 1702, ...`).
pub fn copy_row(error: &DbError) -> Option<usize> {
    let context = error.where_()?;
    let at = context.lines().find_map(|l| l.strip_prefix("COPY ").and_then(|l| l.split_once(", line ")))?;
    let digits = at.1.bytes().take_while(u8::is_ascii_digit).count();
    at.1[..digits].parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infrastructure_is_retried_and_rows_are_not() {
        for (code, class) in [
            ("08006", Class::Retry),
            ("53100", Class::Retry),
            ("53300", Class::Retry),
            ("57P01", Class::Retry),
            ("57P05", Class::Retry),
            ("57014", Class::Retry),
            ("40P01", Class::Retry),
            ("55P03", Class::Retry),
            ("25006", Class::Retry),
            ("25P03", Class::Retry),
            ("22P02", Class::Row),
            ("22P05", Class::Row),
            ("22021", Class::Row),
            ("22003", Class::Row),
            ("23502", Class::Row),
            ("54001", Class::Row),
            ("23505", Class::Duplicate),
            ("22P04", Class::Stop),
            ("42501", Class::Stop),
            ("42P01", Class::Stop),
            ("28P01", Class::Stop),
            ("3D000", Class::Stop),
            ("XX000", Class::Stop),
        ] {
            assert_eq!(classify_code(code), class, "{code}");
        }
    }
}
