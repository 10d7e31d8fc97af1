//! Dead letters that are tried once more: read from their table, taken through the same pipeline as records from
//! Kafka, and marked as replayed in the transaction that loads them. `commands::dead_letters` chooses which.

use std::sync::Arc;

use tokio_postgres::{Client, Error as PgError};

use crate::batch::{Batch, RawBatch, RecordKind, Slot};
use crate::event::envelope::Limits;
use crate::event::envelope::mapping::Format;
use crate::postgres::connection::{PgMoment, PgTime};
use crate::postgres::position;

/// Name of the pipeline under which replays of dead letters are booked, so that the sums of the pipelines that read
/// them first stay what they were.
pub const PIPELINE: &str = "dead-letters";

/// Most letters in one transaction.
pub const CHUNK: usize = 100;

/// What names a dead letter within its pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Topic or file.
    pub topic: String,
    /// Kafka partition.
    pub partition: i32,
    /// Offset or line number.
    pub offset: i64,
    /// Which event of its record it is, counted from 1; 0 for the record itself.
    pub index: i32,
    /// SHA-256 of the whole event.
    pub sha256: Vec<u8>,
}

type Columns = (Vec<String>, Vec<i32>, Vec<i64>, Vec<i32>, Vec<Vec<u8>>);

/// Dead letters of one pipeline that a transaction is to resolve.
#[derive(Clone, Debug)]
pub struct Letters {
    /// Pipeline of the letters.
    pub pipeline_id: i32,
    /// Pipeline that the audit row belongs to.
    pub audit_pipeline: i32,
    /// Who replays them.
    pub by: String,
    /// In the order of the records of the batch.
    pub keys: Vec<Key>,
}

impl Letters {
    fn columns(&self, keys: &[&Key]) -> Columns {
        (
            keys.iter().map(|k| k.topic.clone()).collect(),
            keys.iter().map(|k| k.partition).collect(),
            keys.iter().map(|k| k.offset).collect(),
            keys.iter().map(|k| k.index).collect(),
            keys.iter().map(|k| k.sha256.clone()).collect(),
        )
    }

    /// Locks the letters; false when one of them is no longer open.
    pub async fn lock(&self, client: &Client) -> Result<bool, PgError> {
        let (topics, partitions, offsets, indexes, hashes) =
            self.columns(&self.keys.iter().collect::<Vec<_>>());
        let sql = "SELECT 1 FROM loader.dead_letters AS d
                    WHERE d.pipeline_id = $1 AND d.status = 'open'
                      AND (d.topic, d.partition, d.\"offset\", d.source_index, d.payload_sha256)
                          IN (SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::int[], $6::bytea[]))
                    ORDER BY d.topic, d.partition, d.\"offset\", d.source_index, d.payload_sha256
                      FOR UPDATE";
        let locked = client
            .query(sql, &[&self.pipeline_id, &topics, &partitions, &offsets, &indexes, &hashes])
            .await?;
        Ok(locked.len() == self.keys.len())
    }

    /// Marks those as replayed that did not end as dead letters once more. Of a record that was split each event that did
    /// has a letter of its own.
    pub async fn resolve(&self, client: &Client, batch: &Batch) -> Result<(), PgError> {
        let done = batch.firsts().filter_map(|(record, index, dead)| {
            self.keys.get(record).filter(|key| !dead || key.index != index)
        });
        let (topics, partitions, offsets, indexes, hashes) = self.columns(&done.collect::<Vec<_>>());
        let sql = "UPDATE loader.dead_letters AS d
                      SET status = 'replayed', attempts = d.attempts + 1, resolved_at = now(), resolved_by = $7
                     FROM unnest($2::text[], $3::int[], $4::bigint[], $5::int[], $6::bytea[])
                          AS v (topic, partition, \"offset\", source_index, payload_sha256)
                    WHERE d.pipeline_id = $1 AND d.topic = v.topic AND d.partition = v.partition
                      AND d.\"offset\" = v.\"offset\" AND d.source_index = v.source_index
                      AND d.payload_sha256 = v.payload_sha256 AND d.status = 'open'";
        client
            .execute(sql, &[&self.pipeline_id, &topics, &partitions, &offsets, &indexes, &hashes, &self.by])
            .await?;
        Ok(())
    }
}

/// Letters of one pipeline, read for another try.
pub struct Chunk {
    /// Their records.
    pub raw: RawBatch,
    /// Their keys, in the order of the records.
    pub letters: Letters,
    /// Letters of which only the beginning was kept: they cannot be tried again.
    pub cut: u64,
    /// Where the next chunk begins; `None` after the last one.
    pub next: Option<(i32, Key)>,
}

/// The position before the first letter.
pub fn first() -> (i32, Key) {
    let key =
        Key { topic: String::new(), partition: i32::MIN, offset: i64::MIN, index: 0, sha256: Vec::new() };
    (i32::MIN, key)
}

/// Reads the open letters behind `after` that `condition` selects (a boolean expression over `d` and `p`, with its
/// parameters from $9 on), at most
/// `limit` of one pipeline.
#[expect(clippy::too_many_arguments, reason = "what to read, and what the letters are to be marked with")]
pub async fn read(
    client: &Client,
    after: &(i32, Key),
    begun: &PgTime,
    condition: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    format: &Format,
    by: &str,
    audit_pipeline: i32,
    limit: i64,
) -> Result<Chunk, PgError> {
    let sql = format!(
        "SELECT d.pipeline_id, d.topic, d.partition, d.\"offset\", d.payload_sha256, d.received_at, d.quarantined_at,
                d.key, d.headers, d.payload, d.payload_truncated, d.source_index
           FROM loader.dead_letters AS d JOIN loader.pipelines AS p USING (pipeline_id)
          WHERE d.status = 'open'
            AND (d.pipeline_id, d.topic, d.partition, d.\"offset\", d.source_index, d.payload_sha256)
                > ($1, $2, $3, $4, $5, $6)
            AND d.quarantined_at <= $8 AND ({condition})
          ORDER BY d.pipeline_id, d.topic, d.partition, d.\"offset\", d.source_index, d.payload_sha256
          LIMIT $7"
    );
    let (pipeline, key) = after;
    let mut all: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        vec![pipeline, &key.topic, &key.partition, &key.offset, &key.index, &key.sha256, &limit, begun];
    all.extend(parameters);
    let rows = client.query(&sql, &all).await?;
    let mut chunk = Chunk {
        raw: RawBatch::default(),
        letters: Letters { pipeline_id: 0, audit_pipeline, by: by.to_owned(), keys: Vec::new() },
        cut: 0,
        next: None,
    };
    let limits = Limits { max_bytes: usize::MAX, ..Limits::default() };
    for row in rows {
        let pipeline_id: i32 = row.get(0);
        if chunk.next.as_ref().is_some_and(|(pipeline, _)| *pipeline != pipeline_id) {
            break;
        }
        chunk.letters.pipeline_id = pipeline_id;
        let key = Key {
            topic: row.get(1),
            partition: row.get(2),
            offset: row.get(3),
            index: row.get(11),
            sha256: row.get(4),
        };
        chunk.next = Some((pipeline_id, key.clone()));
        if row.get(10) {
            chunk.cut += 1;
            continue;
        }
        let value: Option<&[u8]> = row.get(9);
        let (value, headers) = (value.unwrap_or_default(), row.get::<_, Option<&[u8]>>(8));
        // Where neither broker nor event tell the time of receipt, the event's clock is judged by about the same time
        // as in the first try: when it was recorded. Never the clock of this moment, so that every try classifies alike.
        let received: Option<PgMoment> = row.get(5);
        let received = received.map(|time| time.0).or_else(|| format.received_at(headers, value, &limits));
        let recorded: PgMoment = row.get(6);
        let slot = slot(client, &mut chunk.raw, &key).await?;
        chunk.raw.push(
            slot,
            key.offset,
            Some(received.unwrap_or(recorded.0)),
            RecordKind::Value,
            row.get(7),
            headers,
            value,
            usize::MAX,
        );
        chunk.raw.event_of_several(key.index);
        if received.is_none() {
            chunk.raw.receipt_is_guessed();
        }
        chunk.letters.keys.push(key);
    }
    Ok(chunk)
}

/// The slot of a letter's topic and partition. It only names where records come from; no position moves.
async fn slot(client: &Client, raw: &mut RawBatch, key: &Key) -> Result<usize, PgError> {
    let same = |s: &Slot| s.partition == key.partition && s.topic.as_ref() == key.topic;
    if let Some(index) = raw.slots.iter().position(same) {
        return Ok(index);
    }
    let topic_id = position::topic_id(client, &key.topic).await?;
    let topic: Arc<str> = key.topic.as_str().into();
    raw.slots.push(Slot {
        topic,
        topic_id,
        partition: key.partition,
        epoch: 0,
        run: 0,
        from: 0,
        to: 0,
        leader_epoch: None,
    });
    Ok(raw.slots.len() - 1)
}
