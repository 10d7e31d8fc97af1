//! Position in Postgres: pipelines, topics, claims with an epoch, the advance that fences stale owners off, and the
//! jump that notes a gap; and what was ordered about a pipeline and about each of its topics. The rest of the batch
//! transaction is in `transaction`; whether a position still means what it meant is for `kafka::claim` to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::{Client, Error as PgError};

use crate::batch::{Batch, Counts, Slot};
use crate::postgres::connection::PgTime;

/// A place in a log, and what tells that log from another one of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// First offset not yet loaded.
    pub next_offset: i64,
    /// Leader epoch of the record before that; `None` when unknown.
    pub leader_epoch: Option<i32>,
    /// Kafka's id of the topic; `None` for files and for brokers that have none.
    pub topic_id: Option<String>,
}

/// What a claim of one partition gave.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Ours; anybody with a smaller one can commit nothing.
    pub epoch: i64,
    /// First offset not yet loaded.
    pub next_offset: i64,
    /// Number of the current run of contiguous ranges.
    pub run: i32,
}

/// Gives out a number that everything written later refers to: no crash may take it back, though it may take back what
/// was written, with `synchronous_commit = off`. Other settings wait at least for this server's own disk.
async fn give_number(client: &Client, sql: &str, name: &str) -> Result<(), PgError> {
    client
        .batch_execute(
            "BEGIN; SELECT pg_catalog.set_config('synchronous_commit', 'local', true)
              WHERE pg_catalog.current_setting('synchronous_commit') = 'off'",
        )
        .await?;
    client.execute(sql, &[&name]).await?;
    client.batch_execute("COMMIT").await
}

/// The id of the pipeline of this name, created if need be, and the Kafka cluster it was first used with.
pub async fn pipeline(client: &Client, name: &str) -> Result<(i32, Option<String>), PgError> {
    let sql = "INSERT INTO loader.pipelines (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
    give_number(client, sql, name).await?;
    let row = client
        .query_one("SELECT pipeline_id, cluster_id FROM loader.pipelines WHERE name = $1", &[&name])
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// Remembers the cluster of a pipeline unless it has one already.
pub async fn set_cluster(client: &Client, pipeline_id: i32, cluster_id: &str) -> Result<(), PgError> {
    let sql = "UPDATE loader.pipelines SET cluster_id = $2 WHERE pipeline_id = $1 AND cluster_id IS NULL";
    client.execute(sql, &[&pipeline_id, &cluster_id]).await?;
    Ok(())
}

/// The short number of a topic, given out if need be.
pub async fn topic_id(client: &Client, name: &str) -> Result<i32, PgError> {
    let find = "SELECT topic_id FROM loader.topics WHERE name = $1";
    if let Some(row) = client.query_opt(find, &[&name]).await? {
        return Ok(row.get(0));
    }
    give_number(client, "INSERT INTO loader.topics (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", name)
        .await?;
    Ok(client.query_one(find, &[&name]).await?.get(0))
}

/// Where a partition stands; `None` when it was never claimed.
pub async fn find(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    partition: i32,
) -> Result<Option<Position>, PgError> {
    let sql = "SELECT next_offset, leader_epoch, kafka_topic_id FROM loader.offsets
                WHERE pipeline_id = $1 AND topic = $2 AND partition = $3";
    let row = client.query_opt(sql, &[&pipeline_id, &topic, &partition]).await?;
    Ok(row.map(|row| Position { next_offset: row.get(0), leader_epoch: row.get(1), topic_id: row.get(2) }))
}

/// Takes a partition over from whoever holds it. Waits for an owner that is just committing, and then gives the
/// position after that commit. `first` is where a partition starts that nobody claimed before.
pub async fn claim(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    partition: i32,
    first: &Position,
    owner: &str,
) -> Result<(Claim, Position), PgError> {
    let sql = "INSERT INTO loader.offsets AS o
                   (pipeline_id, topic, partition, next_offset, leader_epoch, kafka_topic_id, epoch, owner, owner_pid)
               VALUES ($1, $2, $3, $4, $5, $6, 1, $7, pg_backend_pid())
               ON CONFLICT (pipeline_id, topic, partition) DO UPDATE
                  SET epoch = o.epoch + 1, owner = excluded.owner, owner_pid = excluded.owner_pid,
                      claimed_at = now(), updated_at = now(),
                      kafka_topic_id = coalesce(o.kafka_topic_id, excluded.kafka_topic_id)
               RETURNING epoch, next_offset, run, leader_epoch, kafka_topic_id";
    let Position { next_offset, leader_epoch, topic_id } = first;
    let row = client
        .query_one(sql, &[&pipeline_id, &topic, &partition, next_offset, leader_epoch, topic_id, &owner])
        .await?;
    let claim = Claim { epoch: row.get(0), next_offset: row.get(1), run: row.get(2) };
    Ok((claim, Position { next_offset: claim.next_offset, leader_epoch: row.get(3), topic_id: row.get(4) }))
}

/// Moves a claimed position elsewhere than to where its records have led, and notes the gap: the one way in which that
/// happens, whoever wants it. Returns the claim at the new position, or `None` when somebody else has claimed the
/// partition since.
pub async fn jump(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    partition: i32,
    claim: Claim,
    to: &Position,
    cause: &str,
) -> Result<Option<Claim>, PgError> {
    let sql = "WITH moved AS (
                   UPDATE loader.offsets
                      SET next_offset = $6, leader_epoch = $7, kafka_topic_id = $8, run = run + 1, updated_at = now()
                    WHERE pipeline_id = $1 AND topic = $2 AND partition = $3 AND epoch = $4 AND next_offset = $5
                   RETURNING run),
               gap AS (
                   INSERT INTO loader.offset_gaps
                          (pipeline_id, topic, partition, expected, resumed_at, cause, acknowledged_by)
                   SELECT $1, $2, $3, $5, $6, $9, CASE WHEN $9 = 'manual' THEN session_user END FROM moved)
               SELECT run FROM moved";
    let Claim { epoch, next_offset, .. } = claim;
    let Position { next_offset: offset, leader_epoch, topic_id } = to;
    let row = client
        .query_opt(
            sql,
            &[&pipeline_id, &topic, &partition, &epoch, &next_offset, offset, leader_epoch, topic_id, &cause],
        )
        .await?;
    Ok(row.map(|row| Claim { epoch, next_offset: *offset, run: row.get(0) }))
}

/// What people have ordered about a pipeline.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Nobody may load.
    pub paused: bool,
    /// Why.
    pub reason: Option<String>,
    /// Who said so.
    pub by: Option<String>,
}

/// Whether a pipeline is paused.
pub async fn pause_of(client: &Client, pipeline_id: i32) -> Result<Pause, PgError> {
    let sql = "SELECT paused, pause_reason, paused_by FROM loader.pipelines WHERE pipeline_id = $1";
    let row = client.query_one(sql, &[&pipeline_id]).await?;
    Ok(Pause { paused: row.get(0), reason: row.get(1), by: row.get(2) })
}

/// The oldest binary that may go on, by the last migration that it knows, if one that knows them up to `ours` may not.
pub async fn outgrown(client: &Client, ours: i32) -> Result<Option<i32>, PgError> {
    let sql = "SELECT max(oldest_binary) FROM loader.schema_history HAVING max(oldest_binary) > $1";
    Ok(client.query_opt(sql, &[&ours]).await?.map(|row| row.get(0)))
}

/// Pauses a pipeline unless it is paused already. Returns whether it was not.
pub async fn pause(client: &Client, pipeline_id: i32, by: &str, reason: &str) -> Result<bool, PgError> {
    let sql = "UPDATE loader.pipelines
                  SET paused = true, paused_at = now(), paused_by = $2, pause_reason = $3
                WHERE pipeline_id = $1 AND NOT paused";
    Ok(client.execute(sql, &[&pipeline_id, &by, &reason]).await? > 0)
}

/// A row of `loader.topic_states`: a topic of a pipeline that is not read while the others are, or one of which dead
/// letters are accepted.
#[derive(Clone, Debug)]
pub struct TopicState {
    /// Topic.
    pub topic: String,
    /// paused, missing or accepting.
    pub state: String,
    /// Why, and who says so.
    pub why: String,
}

/// All of a pipeline.
pub async fn topic_states(client: &Client, pipeline_id: i32) -> Result<Vec<TopicState>, PgError> {
    let sql = "SELECT topic, state, reason || ' (by ' || changed_by || ')'
                 FROM loader.topic_states WHERE pipeline_id = $1 ORDER BY topic";
    let rows = client.query(sql, &[&pipeline_id]).await?;
    Ok(rows.iter().map(|row| TopicState { topic: row.get(0), state: row.get(1), why: row.get(2) }).collect())
}

/// Where the partitions of those that are paused stand: topic, partition, next offset.
pub async fn positions_of_paused(
    client: &Client,
    pipeline_id: i32,
) -> Result<Vec<(String, i32, i64)>, PgError> {
    let sql = "SELECT topic, o.partition, o.next_offset
                 FROM loader.offsets AS o JOIN loader.topic_states AS s USING (pipeline_id, topic)
                WHERE pipeline_id = $1 AND s.state = 'paused'";
    let rows = client.query(sql, &[&pipeline_id]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Pauses a topic; the first reason counts.
pub async fn pause_topic(
    client: &Client,
    pipeline_id: i32,
    topic: &str,
    by: &str,
    reason: &str,
) -> Result<(), PgError> {
    let sql = "INSERT INTO loader.topic_states AS s (pipeline_id, topic, state, reason, changed_by)
               VALUES ($1, $2, 'paused', $4, $3)
               ON CONFLICT (pipeline_id, topic) DO UPDATE
                  SET state = 'paused', reason = excluded.reason, changed_by = excluded.changed_by, changed_at = now()
                WHERE s.state <> 'paused'";
    client.execute(sql, &[&pipeline_id, &topic, &by, &reason]).await?;
    Ok(())
}

/// Lets topics go on: this one, or all that are paused. Returns which.
pub async fn resume_topics(
    client: &Client,
    pipeline_id: i32,
    topic: Option<&str>,
    accept_dead_letters: bool,
    by: &str,
) -> Result<Vec<String>, PgError> {
    let rows = if accept_dead_letters {
        let sql = "UPDATE loader.topic_states SET state = 'accepting', changed_by = $3, changed_at = now()
                    WHERE pipeline_id = $1 AND state = 'paused' AND ($2::text IS NULL OR topic = $2) RETURNING topic";
        client.query(sql, &[&pipeline_id, &topic, &by]).await?
    } else {
        let sql = "DELETE FROM loader.topic_states
                    WHERE pipeline_id = $1 AND state = 'paused' AND ($2::text IS NULL OR topic = $2) RETURNING topic";
        client.query(sql, &[&pipeline_id, &topic]).await?
    };
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Ends the permission for any number of dead letters.
pub async fn expect_good(client: &Client, pipeline_id: i32, topic: &str) -> Result<(), PgError> {
    let sql = "DELETE FROM loader.topic_states WHERE pipeline_id = $1 AND topic = $2 AND state = 'accepting'";
    client.execute(sql, &[&pipeline_id, &topic]).await?;
    Ok(())
}

/// Says which topics are missing: these, with why, and no others.
pub async fn set_missing(
    client: &Client,
    pipeline_id: i32,
    by: &str,
    missing: &BTreeMap<String, String>,
) -> Result<(), PgError> {
    let topics: Vec<&str> = missing.keys().map(String::as_str).collect();
    let reasons: Vec<&str> = missing.values().map(String::as_str).collect();
    let sql = "WITH found AS (
                   DELETE FROM loader.topic_states
                    WHERE pipeline_id = $1 AND state = 'missing' AND topic <> ALL ($3::text[]))
               INSERT INTO loader.topic_states (pipeline_id, topic, state, reason, changed_by)
               SELECT $1, m.topic, 'missing', m.reason, $2 FROM unnest($3::text[], $4::text[]) AS m (topic, reason)
               ON CONFLICT (pipeline_id, topic) DO NOTHING";
    client.execute(sql, &[&pipeline_id, &by, &topics, &reasons]).await?;
    Ok(())
}

/// Lets a pipeline go on. Returns whether it was paused.
pub async fn resume(client: &Client, pipeline_id: i32) -> Result<bool, PgError> {
    let sql = "UPDATE loader.pipelines
                  SET paused = false, paused_at = NULL, paused_by = NULL, pause_reason = NULL
                WHERE pipeline_id = $1 AND paused";
    Ok(client.execute(sql, &[&pipeline_id]).await? > 0)
}

struct SlotColumns<'a> {
    topics: Vec<&'a str>,
    partitions: Vec<i32>,
    epochs: Vec<i64>,
    runs: Vec<i32>,
    from: Vec<i64>,
    to: Vec<i64>,
    leader_epochs: Vec<Option<i32>>,
}

fn columns(slots: &[Slot]) -> SlotColumns<'_> {
    SlotColumns {
        topics: slots.iter().map(|s| s.topic.as_ref()).collect(),
        partitions: slots.iter().map(|s| s.partition).collect(),
        epochs: slots.iter().map(|s| s.epoch).collect(),
        runs: slots.iter().map(|s| s.run).collect(),
        from: slots.iter().map(|s| s.from).collect(),
        to: slots.iter().map(|s| s.to).collect(),
        leader_epochs: slots.iter().map(|s| s.leader_epoch).collect(),
    }
}

/// Writes the audit rows of the ranges.
pub async fn insert_ranges(
    client: &Client,
    pipeline_id: i32,
    batch_id: i64,
    slots: &[Slot],
) -> Result<(), PgError> {
    let c = columns(slots);
    let sql = "INSERT INTO loader.batch_ranges
                   (batch_id, pipeline_id, topic, partition, run, from_offset, to_offset)
               SELECT $1, $2, v.* FROM unnest($3::text[], $4::int[], $5::int[], $6::bigint[], $7::bigint[]) AS v";
    let statement = client.prepare(sql).await?;
    client
        .execute(&statement, &[&batch_id, &pipeline_id, &c.topics, &c.partitions, &c.runs, &c.from, &c.to])
        .await?;
    Ok(())
}

/// Moves the position of every slot from `from` to `to`, as the last statement before COMMIT: a stuck stale owner
/// then holds no lock that its successor needs. Returns whether all of them moved; if not, the transaction must be
/// rolled back, because somebody else has claimed a partition.
pub async fn advance(
    client: &Client,
    pipeline_id: i32,
    owner: &str,
    batch_id: i64,
    batch: &Batch,
) -> Result<bool, PgError> {
    let slots = batch.slots();
    let c = columns(slots);
    let received: Vec<Option<PgTime>> =
        (0..slots.len()).map(|i| batch.last_received(i).map(PgTime)).collect();
    let sql = "UPDATE loader.offsets AS o
                  SET next_offset = v.to_offset, leader_epoch = v.leader_epoch, last_batch_id = $2,
                      updated_at = clock_timestamp(),
                      last_received_at = coalesce(v.received_at, o.last_received_at)
                 FROM unnest($3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[],
                             $10::int[])
                      AS v (topic, partition, epoch, from_offset, to_offset, received_at, leader_epoch)
                WHERE o.pipeline_id = $1 AND o.topic = v.topic AND o.partition = v.partition
                  AND o.epoch = v.epoch AND o.next_offset = v.from_offset
                  -- Two owners have the same epoch where a crash took the claim of the first back.
                  AND o.owner = $9";
    let moved = client
        .execute(
            sql,
            &[
                &pipeline_id,
                &batch_id,
                &c.topics,
                &c.partitions,
                &c.epochs,
                &c.from,
                &c.to,
                &received,
                &owner,
                &c.leader_epochs,
            ],
        )
        .await?;
    Ok(moved == slots.len() as u64)
}

/// What we believe to hold of a partition.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Epoch of our claim.
    pub epoch: i64,
    /// First offset not committed.
    pub from: i64,
}

impl From<&Slot> for Holding {
    fn from(slot: &Slot) -> Self {
        Holding { topic: slot.topic.clone(), partition: slot.partition, epoch: slot.epoch, from: slot.from }
    }
}

/// Compares what we believe to hold with what Postgres holds: the positions there, and why they are behind although
/// nobody else has claimed any of the partitions. Then what Postgres had committed is gone, as after a crash with
/// `synchronous_commit = off`, or a failover to a standby that was behind. (A standby that is none yet may be behind
/// without having lost anything.)
pub async fn compare(
    client: &Client,
    pipeline_id: i32,
    owner: &str,
    held: &[Holding],
) -> Result<(Vec<Option<i64>>, Option<String>), PgError> {
    let topics: Vec<&str> = held.iter().map(|h| h.topic.as_ref()).collect();
    let partitions: Vec<i32> = held.iter().map(|h| h.partition).collect();
    let epochs: Vec<i64> = held.iter().map(|h| h.epoch).collect();
    let from: Vec<i64> = held.iter().map(|h| h.from).collect();
    let sql = "SELECT o.next_offset,
                      coalesce(o.epoch < v.epoch
                               OR o.epoch = v.epoch AND o.owner = $2 AND o.next_offset < v.from_offset, true)
                          AND NOT pg_catalog.pg_is_in_recovery()
                 FROM unnest($3::text[], $4::int[], $5::bigint[], $6::bigint[]) WITH ORDINALITY
                      AS v (topic, partition, epoch, from_offset, n)
                 LEFT JOIN loader.offsets AS o
                   ON o.pipeline_id = $1 AND o.topic = v.topic AND o.partition = v.partition
                ORDER BY v.n";
    let rows = client.query(sql, &[&pipeline_id, &owner, &topics, &partitions, &epochs, &from]).await?;
    let found: Vec<Option<i64>> = rows.iter().map(|row| row.get(0)).collect();
    let lost = rows.iter().position(|row| row.get(1)).map(|at| {
        let Holding { topic, partition, from, .. } = &held[at];
        let now = found[at].map_or("the beginning".to_owned(), |at| at.to_string());
        format!(
            "Postgres has lost what it had committed, as after a failover to a standby that was behind, or a crash \
             with synchronous_commit = off: the position of {topic} [{partition}] went back from {from} to {now}, with \
             the rows"
        )
    });
    Ok((found, lost))
}

/// How a batch whose COMMIT got no answer ended: its counts if it was committed, else `None`. The row locks wait for a
/// commit that is still running. A crash may take our number back together with our batch, and another owner get it.
pub async fn outcome(
    client: &Client,
    pipeline_id: i32,
    owner: &str,
    batch_id: i64,
    slots: &[Slot],
) -> Result<Option<Counts>, PgError> {
    let c = columns(slots);
    // Two statements: the second takes its snapshot after the locks are held.
    let lock = "SELECT 1 FROM loader.offsets AS o
                 WHERE o.pipeline_id = $1
                   AND (o.topic, o.partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
                   FOR UPDATE";
    client.query(lock, &[&pipeline_id, &c.topics, &c.partitions]).await?;
    let counts = "SELECT n_read, n_loaded, n_duplicate, n_late, n_dead, n_filtered, n_tombstone
                    FROM loader.batches WHERE batch_id = $1 AND owner = $2";
    let row = client.query_opt(counts, &[&batch_id, &owner]).await?;
    Ok(row.map(|row| {
        let n = |i: usize| u64::try_from(row.get::<_, i32>(i)).unwrap_or(0);
        Counts {
            read: n(0),
            loaded: n(1),
            duplicate: n(2),
            late: n(3),
            dead: n(4),
            filtered: n(5),
            tombstone: n(6),
        }
    }))
}
