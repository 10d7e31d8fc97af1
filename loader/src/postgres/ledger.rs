//! The ledger of ids behind `--dedupe id_window`: an id that was received within the last days is not loaded again,
//! whatever date its event has. Written in the transaction that loads the events.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use crate::batch::copy;
use crate::batch::{Batch, Known, Row};
use crate::event::time;
use crate::event::time::Micros;
use crate::postgres::connection::PgDay;
use crate::postgres::target::Target;

/// Notes the ids of the batch, late events included, and takes the rows out whose id was noted before, within the window. Returns the ids that
/// are new. Waits for another transaction that is just noting one of them.
pub async fn take_seen_out(
    client: &Client,
    target: &Target,
    batch: &mut Batch,
) -> Result<HashSet<Uuid>, PgError> {
    let mut days: HashMap<Uuid, i32> = HashMap::with_capacity(batch.rows.len());
    for row in batch.rows.iter().chain(&batch.late) {
        days.insert(row.id, time::day_of(noted_at(batch, row)));
    }
    let (ids, dates): (Vec<Uuid>, Vec<PgDay>) = days.iter().map(|(id, day)| (*id, PgDay(*day))).unzip();
    // In the order of the ids: two loaders with the same ids then wait for each other and do not deadlock.
    let sql = "INSERT INTO loader.seen_ids AS s (target, event_id, received_date)
               SELECT $1, v.* FROM unnest($2::uuid[], $3::date[]) AS v (event_id, received_date) ORDER BY v.event_id
               ON CONFLICT (target, event_id) DO UPDATE SET received_date = excluded.received_date
                WHERE s.received_date <= excluded.received_date - $4::int
               RETURNING event_id";
    let rows = client.query(sql, &[&target.name(), &ids, &dates, &target.window_days]).await?;
    let new: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    // Without a hash: an id noted before is a duplicate, whatever the event says.
    let seen: Known = (batch.rows.iter().chain(&batch.late))
        .filter(|row| !new.contains(&row.id))
        .map(|row| ((row.id, row.day), None))
        .collect();
    batch.drop_known(&seen);
    batch.swap_late();
    batch.drop_known(&seen);
    batch.swap_late();
    Ok(new)
}

/// The time from which an id counts: its receipt, or now where nobody knows that. The row then has its event time there,
/// by which an old file would be forgotten as soon as it is loaded.
pub fn noted_at(batch: &Batch, row: &Row) -> Micros {
    if row.lateness.is_some() { copy::received_at(batch.encoded(row).0) } else { time::now() }
}

/// Forgets those of the new ids of which no row got in: their dead letters may be replayed.
pub async fn forget_refused(
    client: &Client,
    target: &Target,
    batch: &Batch,
    new: &HashSet<Uuid>,
) -> Result<(), PgError> {
    let mut refused: HashSet<Uuid> =
        batch.dead.iter().filter_map(|dead| dead.event_id).filter(|id| new.contains(id)).collect();
    if !refused.is_empty() {
        // Another event with the id of a refused one is there.
        for row in batch.rows.iter().chain(&batch.late) {
            refused.remove(&row.id);
        }
    }
    let refused: Vec<Uuid> = refused.into_iter().collect();
    if !refused.is_empty() {
        let sql = "DELETE FROM loader.seen_ids WHERE target = $1 AND event_id = ANY ($2)";
        client.execute(sql, &[&target.name(), &refused]).await?;
    }
    Ok(())
}

/// Removes what is older than the window ending on this date.
pub async fn prune(client: &Client, target: &Target, today: i32) -> Result<u64, PgError> {
    let sql = "DELETE FROM loader.seen_ids WHERE target = $1 AND received_date <= $2::date - $3::int";
    client.execute(sql, &[&target.name(), &PgDay(today), &target.window_days]).await
}
