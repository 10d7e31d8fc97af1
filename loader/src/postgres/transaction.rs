//! The body of the batch transaction: rows, dead letters, dirty dates, audit, position. Reports what went wrong as a
//! [`Failure`]; connecting, retrying and the question whether a COMMIT arrived belong to `sink`.

mod rows;

use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use self::rows::{Place, RowWriter};
use crate::batch::Statistics;
use crate::batch::{Batch, Counts};
use crate::event::dedupe::Dedupe;
use crate::event::time::Micros;
use crate::postgres::connection::{PgDay, PgTime};
use crate::postgres::ledger;
use crate::postgres::letters::Letters;
use crate::postgres::position::{self, Holding};
use crate::postgres::retry::{Class, classify};
use crate::postgres::target::Target;

/// Events with one id of which Postgres may refuse one after the other before the rest become dead letters untried.
const MAX_HEIRS: u32 = 8;

/// How the rows got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePath {
    /// COPY into bronze.
    Direct,
    /// The same after the ids were looked up and the known ones taken out.
    Probed,
    /// Piece by piece, with COPY into a temporary table and INSERT without the duplicates where an id is known.
    Staged,
}

impl WritePath {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            WritePath::Direct => "direct",
            WritePath::Probed => "probed",
            WritePath::Staged => "staged",
        }
    }
}

/// What a committed batch did.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Its number.
    pub batch_id: i64,
    /// How each record ended.
    pub counts: Counts,
    /// How the rows got in.
    pub path: WritePath,
}

/// Why a batch transaction did not come to its COMMIT.
#[derive(Debug)]
pub enum Failure {
    /// An error of Postgres; its class decides.
    Postgres(PgError),
    /// The partition of a date is gone.
    NoPartition,
    /// Somebody else has claimed a partition of the batch.
    Fenced,
    /// Nobody has, but Postgres does not know any more what it had committed.
    WentBack(String),
    /// So many rows were neither written nor refused.
    TakenAway(u64),
    /// There is a suppression list, and not its key.
    NoKey,
}

impl From<PgError> for Failure {
    fn from(e: PgError) -> Self {
        Failure::Postgres(e)
    }
}

/// What stays the same for all batches of a sink.
#[derive(Debug)]
pub struct Context<'a> {
    /// The connection.
    pub client: &'a Client,
    /// `loader.pipelines.pipeline_id`.
    pub pipeline_id: i32,
    /// Who we are.
    pub owner: &'a str,
    /// Where the rows go.
    pub target: &'a Target,
    /// The dead letters that are tried again; `None` for records that move a position.
    pub letters: Option<&'a Letters>,
}

/// Does everything of the transaction but its COMMIT. Rows that Postgres refuses become dead letters in `batch`.
/// With `give_up_partition`, a row without a partition is such a row; else it is [`Failure::NoPartition`].
pub async fn run(
    cx: &Context<'_>,
    batch: &mut Batch,
    batch_id: i64,
    prefer: WritePath,
    give_up_partition: bool,
) -> Result<Written, Failure> {
    cx.client
        .batch_execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED;
             SET LOCAL statement_timeout = '60s';
             SET LOCAL lock_timeout = '10s';
             SET LOCAL idle_in_transaction_session_timeout = '30s';
             SET LOCAL jit = off",
        )
        .await?;
    // What is locked from here on must outlast a COPY that fails.
    leave_out_erased(cx, batch).await?;
    if let Some(letters) = cx.letters
        && !letters.lock(cx.client).await?
    {
        return Err(Failure::Fenced);
    }
    cx.client.batch_execute("SAVEPOINT rows").await?;
    let mut noted = None;
    if cx.target.dedupe == Dedupe::IdWindow && !(batch.rows.is_empty() && batch.late.is_empty()) {
        noted = Some(ledger::take_seen_out(cx.client, cx.target, batch).await?);
        // What the ledger noted must outlast a COPY that fails.
        cx.client.batch_execute("SAVEPOINT rows").await?;
    }
    let (path, mut retries) = write_rows(cx, batch, batch_id, prefer, give_up_partition).await?;
    for _ in 0..MAX_HEIRS {
        if !batch.has_heirs() {
            break;
        }
        cx.client.batch_execute("SAVEPOINT rows").await?;
        let written = batch.only_heirs();
        let result = write_rows(cx, batch, batch_id, WritePath::Probed, give_up_partition).await;
        batch.reunite(written);
        retries += result?.1;
    }
    batch.disown_heirs();

    if let Some(noted) = &noted {
        ledger::forget_refused(cx.client, cx.target, batch, noted).await?;
    }

    let counts = batch.counts();
    insert_dead_letters(cx, batch, batch_id).await?;
    mark_loaded(cx, batch).await?;
    insert_batch(cx, batch, batch_id, counts, path, retries).await?;
    if let Some(letters) = cx.letters {
        letters.resolve(cx.client, batch).await?;
        return Ok(Written { batch_id, counts, path });
    }
    position::insert_ranges(cx.client, cx.pipeline_id, batch_id, batch.slots()).await.map_err(|e| {
        // The range is there already: another owner has loaded it since we read it.
        if classify(&e) == Class::Duplicate { Failure::Fenced } else { e.into() }
    })?;
    if !position::advance(cx.client, cx.pipeline_id, cx.owner, batch_id, batch).await? {
        let held: Vec<Holding> = batch.slots().iter().map(Holding::from).collect();
        let (_, lost) = position::compare(cx.client, cx.pipeline_id, cx.owner, &held).await?;
        return Err(lost.map_or(Failure::Fenced, Failure::WentBack));
    }
    Ok(Written { batch_id, counts, path })
}

/// Takes out who is on the suppression list. Whoever puts somebody on it, and erases what is there, holds the table of
/// keys alone until that is committed: so nobody comes in beside it.
async fn leave_out_erased(cx: &Context<'_>, batch: &mut Batch) -> Result<(), Failure> {
    let used = cx.client.query("SELECT k.key_hash FROM loader.suppression_keys AS k", &[]).await?;
    if used.is_empty() {
        return Ok(());
    }
    let ours = batch.keys();
    if used.iter().any(|row| !ours.contains(&row.get(0))) {
        return Err(Failure::NoKey);
    }
    let people: Vec<Uuid> = batch.people().into_iter().collect();
    let sql = "SELECT s.id_hash FROM loader.suppressed AS s WHERE s.id_hash = ANY ($1)";
    let listed = cx.client.query(sql, &[&people]).await?;
    if !listed.is_empty() {
        batch.suppress(&listed.iter().map(|row| row.get(0)).collect());
    }
    Ok(())
}

/// Writes the rows and the late rows of the batch, where the transaction stands at `SAVEPOINT rows`. Returns the path
/// of the former, and how many COPYs failed on a row.
async fn write_rows(
    cx: &Context<'_>,
    batch: &mut Batch,
    batch_id: i64,
    prefer: WritePath,
    give_up_partition: bool,
) -> Result<(WritePath, u32), Failure> {
    let events = Place::events(cx.target.table());
    let mut writer = RowWriter { cx, batch, place: &events, batch_id, give_up_partition, retries: 0 };
    let path = writer.write(prefer).await?;
    let mut retries = writer.retries;
    if !batch.late.is_empty() {
        cx.client.batch_execute("SAVEPOINT late").await?;
        batch.swap_late();
        let late = Place::late();
        let mut writer = RowWriter { cx, batch, place: &late, batch_id, give_up_partition, retries: 0 };
        let result = writer.write(WritePath::Probed).await;
        retries += writer.retries;
        batch.swap_late();
        result?;
    }
    Ok((path, retries))
}

/// Says which dates got how many rows, and how late they were.
async fn mark_loaded(cx: &Context<'_>, batch: &Batch) -> Result<(), PgError> {
    if batch.rows.is_empty() {
        return Ok(());
    }
    let s = Statistics::of(&batch.rows, batch.allowed_lateness);
    let days: Vec<PgDay> = s.days.into_iter().map(PgDay).collect();
    let times = |times: Vec<Micros>| times.into_iter().map(PgTime).collect::<Vec<_>>();
    let sql = "SELECT tidemark.mark_loaded($7::text::regclass, $1, $2, $3, $4, $5, $6)";
    cx.client
        .execute(
            sql,
            &[
                &days,
                &s.rows,
                &s.late,
                &times(s.min_times),
                &times(s.max_times),
                &s.lateness,
                &cx.target.table(),
            ],
        )
        .await?;
    Ok(())
}

async fn insert_batch(
    cx: &Context<'_>,
    batch: &Batch,
    batch_id: i64,
    n: Counts,
    path: WritePath,
    retries: u32,
) -> Result<(), PgError> {
    // A batch is far smaller than i32::MAX records.
    let int = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    let min = batch.rows.iter().map(|r| r.time).min().map(PgTime);
    let max = batch.rows.iter().map(|r| r.time).max().map(PgTime);
    let mapping = batch.mapping();
    // A mapping is noted by the first batch that was read by it.
    let sql = "WITH known AS (SELECT mapping_id FROM loader.mappings WHERE name = $18 AND version = $19),
                    noted AS (INSERT INTO loader.mappings (name, version, description)
                              SELECT $18::text, $19::text, $20::text WHERE $18 IS NOT NULL AND NOT EXISTS (SELECT FROM known)
                              ON CONFLICT (name, version) DO UPDATE SET name = excluded.name RETURNING mapping_id)
               INSERT INTO loader.batches
                   (batch_id, pipeline_id, owner, write_path, row_retries, n_records, n_read, n_loaded, n_duplicate, n_late,
                    n_dead, n_filtered, n_tombstone, bytes, min_event_time, max_event_time, target, mapping_id)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                       coalesce((SELECT mapping_id FROM known), (SELECT mapping_id FROM noted)))";
    cx.client
        .execute(
            sql,
            &[
                &batch_id,
                &cx.letters.map_or(cx.pipeline_id, |letters| letters.audit_pipeline),
                &cx.owner,
                &path.as_str(),
                &int(u64::from(retries)),
                &int(batch.records()),
                &int(n.read),
                &int(n.loaded),
                &int(n.duplicate),
                &int(n.late),
                &int(n.dead),
                &int(n.filtered),
                &int(n.tombstone),
                &(batch.bytes() as i64),
                &min,
                &max,
                &cx.target.table(),
                &mapping.map(|m| &m.name),
                &mapping.map(|m| &m.version),
                &mapping.map(|m| &m.description),
            ],
        )
        .await?;
    Ok(())
}

/// Bytes that came from outside go into bytea only, so that no content makes this fail.
async fn insert_dead_letters(cx: &Context<'_>, batch: &Batch, batch_id: i64) -> Result<(), PgError> {
    if batch.dead.is_empty() {
        return Ok(());
    }
    let letters: Vec<_> = batch.dead_letters().collect();
    macro_rules! column {
        ($f:expr) => {
            letters.iter().map($f).collect::<Vec<_>>()
        };
    }
    let sql = "INSERT INTO loader.dead_letters AS d
                   (batch_id, pipeline_id, topic, partition, \"offset\", received_at, key, headers, payload,
                    payload_truncated, payload_sha256, stage, reason, detail, sqlstate, event_id, event_time,
                    event_type, source_index)
               SELECT $1, $2, v.*
                 FROM unnest($3::text[], $4::int[], $5::bigint[], $6::timestamptz[], $7::bytea[], $8::bytea[],
                             $9::bytea[], $10::boolean[], $11::bytea[], $12::text[], $13::text[], $14::text[],
                             $15::text[], $16::uuid[], $17::timestamptz[], $18::text[], $19::int[]) AS v
               ON CONFLICT (pipeline_id, topic, partition, \"offset\", source_index, payload_sha256) DO UPDATE
                  SET batch_id = excluded.batch_id, reason = excluded.reason, stage = excluded.stage,
                      detail = excluded.detail, sqlstate = excluded.sqlstate, attempts = d.attempts + 1";
    cx.client
        .execute(
            sql,
            &[
                &batch_id,
                &cx.pipeline_id,
                &column!(|l| l.slot.topic.as_ref()),
                &column!(|l| l.slot.partition),
                &column!(|l| l.offset),
                &column!(|l| l.received_at.map(PgTime)),
                &column!(|l| l.key.as_deref()),
                &column!(|l| l.headers.as_deref()),
                &column!(|l| l.payload.as_ref()),
                &column!(|l| l.truncated),
                &column!(|l| l.sha256.to_vec()),
                &column!(|l| l.dead.rejection.reason.stage().as_str()),
                &column!(|l| l.dead.rejection.reason.as_str()),
                &column!(|l| l.dead.rejection.detail.replace('\0', "")),
                &column!(|l| l.dead.rejection.sqlstate.as_deref()),
                &column!(|l| l.dead.event_id),
                &column!(|l| l.dead.event_time.map(PgTime)),
                &column!(|l| l.dead.event_type.as_deref()),
                &column!(|l| l.index),
            ],
        )
        .await?;
    Ok(())
}
