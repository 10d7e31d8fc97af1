//! `loader.topic_states`: topics of a pipeline that are not read while the others are, and those of which dead letters
//! are accepted. What a whole pipeline is ordered is in `position`.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error as PgError};

/// A row.
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
pub async fn all(client: &Client, pipeline_id: i32) -> Result<Vec<TopicState>, PgError> {
    let sql = "SELECT topic, state, reason || ' (by ' || changed_by || ')'
                 FROM loader.topic_states WHERE pipeline_id = $1 ORDER BY topic";
    let rows = client.query(sql, &[&pipeline_id]).await?;
    Ok(rows.iter().map(|row| TopicState { topic: row.get(0), state: row.get(1), why: row.get(2) }).collect())
}

/// Where the partitions of those that are paused stand: topic, partition, next offset.
pub async fn positions(client: &Client, pipeline_id: i32) -> Result<Vec<(String, i32, i64)>, PgError> {
    let sql = "SELECT topic, o.partition, o.next_offset
                 FROM loader.offsets AS o JOIN loader.topic_states AS s USING (pipeline_id, topic)
                WHERE pipeline_id = $1 AND s.state = 'paused'";
    let rows = client.query(sql, &[&pipeline_id]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// Pauses a topic; the first reason counts.
pub async fn pause(
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
pub async fn resume(
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
