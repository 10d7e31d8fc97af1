//! How the rows of a batch get into a table: one COPY where that goes, without the rows that are known, or through the
//! staging table in pieces; a row that Postgres refuses becomes a dead letter and the rest is written. Runs inside the
//! transaction of the parent.

use std::collections::HashSet;

use futures_util::SinkExt;
use futures_util::future::try_join_all;
use tokio_postgres::types::Type;
use tokio_postgres::{Error as PgError, Row as PgRow};
use uuid::Uuid;

use super::{Context, Failure, WritePath};
use crate::batch::copy::{COLUMNS, Chunks, TYPED_COLUMNS};
use crate::batch::{Batch, Known, Row};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::time::DAY_US;
use crate::postgres::connection::{PgTime, full_message};
use crate::postgres::retry::{Class, classify, copy_row};
use crate::postgres::target::BRONZE;

/// COPYs of one whole batch that may fail on a row before it is written in pieces.
const MAX_ROW_RETRIES: u32 = 8;

/// Rows to try after the first row of a piece was the bad one.
const MIN_PIECE: usize = 64;

/// A table that rows go to.
pub(super) struct Place {
    name: String,
    /// Where the transaction stood before its rows.
    savepoint: &'static str,
    /// Finds what is there already of ids ($3) with a time from $1 to before $2.
    lookup: String,
}

impl Place {
    /// The table of the target, by its name for SQL.
    pub(super) fn events(table: &str) -> Self {
        Place { name: table.to_owned(), savepoint: "rows", lookup: found_in(table) }
    }

    /// Where events are set aside that came too late for bronze.
    pub(super) fn late() -> Self {
        let lookup = format!("{} UNION ALL {}", found_in(BRONZE), found_in(LATE));
        Place { name: LATE.to_owned(), savepoint: "late", lookup }
    }
}

const LATE: &str = "bronze.late_events";

fn found_in(table: &str) -> String {
    format!(
        "SELECT event_id, payload_hash FROM {table}
          WHERE event_time >= $1 AND event_time < $2 AND event_id = ANY ($3)"
    )
}

/// Writes the rows of a batch into a place, by COPY as long as Postgres takes them.
pub(super) struct RowWriter<'a, 'b> {
    pub(super) cx: &'a Context<'b>,
    pub(super) batch: &'a mut Batch,
    pub(super) place: &'a Place,
    pub(super) batch_id: i64,
    pub(super) give_up_partition: bool,
    pub(super) retries: u32,
}

impl RowWriter<'_, '_> {
    /// Leaves in the batch the rows that were new, and returns the path that they took.
    pub(super) async fn write(&mut self, prefer: WritePath) -> Result<WritePath, Failure> {
        if self.batch.rows.is_empty() {
            return Ok(WritePath::Direct);
        }
        let mut path = prefer;
        while path != WritePath::Staged && self.retries < MAX_ROW_RETRIES {
            if path == WritePath::Probed {
                self.take_known_out().await?;
            }
            if self.batch.rows.is_empty() {
                return Ok(path);
            }
            let error = match self.copy(&self.place.name, 0, self.batch.rows.len()).await {
                Ok(n) => return all_written(n, self.batch.rows.len()).map(|()| path),
                Err(error) => error,
            };
            let class = self.class(&error)?;
            let unexpected = class == Class::Duplicate && !self.cx.target.dedupe.by_id();
            if !matches!(class, Class::Row | Class::Duplicate) || unexpected {
                return Err(error.into());
            }
            self.back_to(self.place.savepoint).await?;
            if class == Class::Duplicate {
                // A duplicate after the ids were looked up was committed since: only the staged path is sure to end.
                path = if path == WritePath::Direct { WritePath::Probed } else { WritePath::Staged };
                continue;
            }
            self.retries += 1;
            let Some(row) = self.row_to_blame(&error, 0, self.batch.rows.len()) else { break };
            self.batch.reject_row(row, refused(&error));
        }
        self.write_pieces().await?;
        Ok(WritePath::Staged)
    }

    /// Looks the ids up in the partitions of their dates and takes those out that are there. Cheaper than the staged
    /// path, which writes every row twice.
    async fn take_known_out(&mut self) -> Result<(), PgError> {
        let known = self.lookup(&self.batch.rows.iter().collect::<Vec<_>>()).await?;
        self.batch.drop_known(&known);
        Ok(())
    }

    /// Which of these rows, which are sorted by date, the target has.
    async fn lookup(&self, rows: &[&Row]) -> Result<Known, PgError> {
        // A freshly filled partition has no statistics; a scan of all of it would cost more than the lookups.
        self.cx.client.batch_execute("SET LOCAL enable_seqscan = off").await?;
        let (sql, client) = (self.place.lookup.as_str(), self.cx.client);
        // One query a date, planned with its bounds, so that each one opens a single partition.
        let lookups = rows.chunk_by(|a, b| a.day == b.day).map(|rows| {
            let day = rows[0].day;
            let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
            let from = PgTime(i64::from(day) * DAY_US);
            let to = PgTime((i64::from(day) + 1) * DAY_US);
            async move {
                let types = (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ, Type::UUID_ARRAY);
                let found =
                    client.query_typed(sql, &[(&from, types.0), (&to, types.1), (&ids, types.2)]).await?;
                Ok::<_, PgError>((day, found))
            }
        });
        let found = try_join_all(lookups).await?;
        client.batch_execute("SET LOCAL enable_seqscan = on").await?;
        let rows = found.iter().flat_map(|(day, rows)| rows.iter().map(|row| (row, *day)));
        Ok(rows.map(|(row, day)| ((row.get(0), day), row.get(1))).collect())
    }

    /// Writes piece by piece, so that a batch full of bad rows or duplicates takes no more than a few times as long as
    /// a clean one. A piece that fails shrinks to the rows before the one to blame, and grows again from there.
    async fn write_pieces(&mut self) -> Result<(), Failure> {
        let mut from = 0;
        let mut size = self.batch.rows.len();
        while from < self.batch.rows.len() {
            let to = self.batch.rows.len().min(from + size);
            self.cx.client.batch_execute("SAVEPOINT piece").await?;
            let mut result = self.copy(&self.place.name, from, to).await;
            match &result {
                Ok(n) => all_written(*n, to - from)?,
                Err(error) if classify(error) == Class::Duplicate && self.cx.target.dedupe.by_id() => {
                    self.back_to("piece").await?;
                    result = self.stage(from, to).await?;
                }
                Err(_) => {}
            }
            let error = match result {
                Ok(n) => {
                    self.cx.client.batch_execute("RELEASE SAVEPOINT piece").await?;
                    from += n as usize;
                    size = size.saturating_mul(2);
                    continue;
                }
                Err(error) => error,
            };
            if self.class(&error)? != Class::Row {
                return Err(error.into());
            }
            self.back_to("piece").await?;
            self.retries += 1;
            size = match self.row_to_blame(&error, from, to) {
                Some(row) => {
                    self.batch.reject_row(row, refused(&error));
                    if row > from { row - from } else { MIN_PIECE }
                }
                None => ((to - from) / 2).max(1),
            };
        }
        Ok(())
    }

    /// Writes some rows but those whose id exists on their date, and takes those out; returns how many were new.
    async fn stage(&mut self, from: usize, to: usize) -> Result<Result<u64, PgError>, Failure> {
        let inserted = match self.insert_new(from, to).await {
            Ok(inserted) => inserted,
            Err(error) => return Ok(Err(error)),
        };
        if inserted.len() < to - from {
            let new: HashSet<(Uuid, i32)> = inserted.iter().map(|row| (row.get(0), row.get(1))).collect();
            let piece = self.batch.rows[from..to].iter();
            let old: Vec<&Row> = piece.filter(|row| !new.contains(&(row.id, row.day))).collect();
            let known = self.lookup(&old).await?;
            all_written(known.len() as u64, old.len())?;
            self.batch.drop_known(&known);
        }
        Ok(Ok(inserted.len() as u64))
    }

    /// Writes some rows but those whose id exists on their date; returns id and date of the others.
    async fn insert_new(&self, from: usize, to: usize) -> Result<Vec<PgRow>, PgError> {
        // Gone with the transaction: autovacuum cannot freeze what a session keeps for itself, and the age of the whole
        // database would grow for as long as a loader lives.
        let sql = format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS tidemark_stage ({TYPED_COLUMNS}) ON COMMIT DROP;
             TRUNCATE pg_temp.tidemark_stage"
        );
        self.cx.client.batch_execute(&sql).await?;
        self.copy("pg_temp.tidemark_stage", from, to).await?;
        let sql = format!(
            "INSERT INTO {} ({COLUMNS}) SELECT {COLUMNS} FROM pg_temp.tidemark_stage ON CONFLICT DO NOTHING
             RETURNING event_id, (event_time AT TIME ZONE 'UTC')::date - date '2000-01-01'",
            self.place.name
        );
        self.cx.client.query(&sql, &[]).await
    }

    async fn copy(&self, table: &str, from: usize, to: usize) -> Result<u64, PgError> {
        let sql = format!("COPY {table} ({COLUMNS}) FROM STDIN (FORMAT binary)");
        let sink = self.cx.client.copy_in(&sql).await?;
        let mut sink = std::pin::pin!(sink);
        for chunk in Chunks::new(self.batch, self.batch_id, from, to) {
            sink.send(chunk).await?;
        }
        sink.finish().await
    }

    async fn back_to(&self, savepoint: &str) -> Result<(), PgError> {
        self.cx.client.batch_execute(&format!("ROLLBACK TO SAVEPOINT {savepoint}")).await
    }

    fn class(&self, error: &PgError) -> Result<Class, Failure> {
        match classify(error) {
            Class::NoPartition if self.give_up_partition => Ok(Class::Row),
            Class::NoPartition => Err(Failure::NoPartition),
            class => Ok(class),
        }
    }

    /// The index of the row that an error of the rows `from..to` names; a single row needs no naming.
    fn row_to_blame(&self, error: &PgError, from: usize, to: usize) -> Option<usize> {
        let named = error.as_db_error().and_then(copy_row).map(|line| from + line).filter(|row| *row < to);
        named.or_else(|| (to - from == 1).then_some(from))
    }
}

/// A row that Postgres neither wrote nor refused was taken away by a trigger, and nobody can say which one it was.
fn all_written(written: u64, rows: usize) -> Result<(), Failure> {
    match (rows as u64).saturating_sub(written) {
        0 => Ok(()),
        taken => Err(Failure::TakenAway(taken)),
    }
}

fn refused(error: &PgError) -> Rejection {
    let (reason, sqlstate) = match (classify(error), error.as_db_error()) {
        (Class::NoPartition, db) => (Reason::PartitionSealed, db.map(|db| db.code().code().to_owned())),
        (_, db) => (Reason::RefusedByDatabase, db.map(|db| db.code().code().to_owned())),
    };
    Rejection { reason, detail: full_message(error), sqlstate }
}
