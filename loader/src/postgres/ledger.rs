//! The ledger of ids behind `--dedupe id_window`: an id that was loaded within the last days is not loaded again, whatever
//! date its event has. Written in the transaction that loads the events. What is old goes by dropping partitions, which
//! is maintenance.

use std::collections::HashSet;

use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use crate::batch::{Batch, Known};
use crate::postgres::connection::PgDay;
use crate::postgres::target::Target;

/// What a transaction has noted.
#[derive(Debug)]
pub struct Noted {
    ids: HashSet<Uuid>,
    date: PgDay,
}

/// Begins the date of the server, if it is a new one. Outside of the transaction that notes ids.
pub async fn begin(client: &Client, target: &Target) -> Result<(), PgError> {
    client.execute("SELECT loader.begin_seen_date($1)", &[&target.window_days]).await.map(|_| ())
}

/// Notes the ids of the batch, late events included, and takes the rows out whose id was noted before, within the window.
/// Waits for another transaction that is just noting one of them.
pub async fn take_seen_out(client: &Client, target: &Target, batch: &mut Batch) -> Result<Noted, PgError> {
    // From here on nobody begins another date, so all that are at it now note on the same one.
    client.batch_execute("LOCK TABLE ONLY loader.seen_ids IN ROW EXCLUSIVE MODE").await?;
    let sql = "SELECT max(received_date) - date '2000-01-01' FROM loader.seen_dates";
    let date = PgDay(client.query_one(sql, &[]).await?.get(0));
    let ids: Vec<Uuid> = batch.rows.iter().chain(&batch.late).map(|row| row.id).collect();
    // In the order of the ids: two loaders with the same ids then wait for each other and do not deadlock. OFFSET 0 has
    // each id looked up in the index of each date; there are no statistics to tell that from reading all of them.
    let sql = "INSERT INTO loader.seen_ids (target, event_id, received_date)
               SELECT $1, v.event_id, $3 FROM unnest($2::uuid[]) AS v (event_id)
                WHERE NOT EXISTS (SELECT FROM loader.seen_ids AS s
                                   WHERE s.target = $1 AND s.event_id = v.event_id
                                     AND s.received_date > $3::date - $4::int AND s.received_date < $3::date OFFSET 0)
                ORDER BY v.event_id
               ON CONFLICT DO NOTHING
               RETURNING event_id";
    client.batch_execute("SET LOCAL enable_seqscan = off").await?;
    let rows = client.query(sql, &[&target.name(), &ids, &date, &target.window_days]).await?;
    client.batch_execute("SET LOCAL enable_seqscan = on").await?;
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
    Ok(Noted { ids: new, date })
}

/// Takes those of the new ids back of which no row got in: their dead letters may be replayed.
pub async fn forget_refused(
    client: &Client,
    target: &Target,
    batch: &Batch,
    noted: &Noted,
) -> Result<(), PgError> {
    let mut refused: HashSet<Uuid> =
        batch.dead.iter().filter_map(|dead| dead.event_id).filter(|id| noted.ids.contains(id)).collect();
    if !refused.is_empty() {
        // Another event with the id of a refused one is there.
        for row in batch.rows.iter().chain(&batch.late) {
            refused.remove(&row.id);
        }
    }
    let refused: Vec<Uuid> = refused.into_iter().collect();
    if !refused.is_empty() {
        let sql =
            "DELETE FROM loader.seen_ids WHERE target = $1 AND event_id = ANY ($2) AND received_date = $3";
        client.execute(sql, &[&target.name(), &refused, &noted.date]).await?;
    }
    Ok(())
}

/// Drops the dates that no window reaches any more, where there is a ledger and this role may; returns how many.
pub async fn drop_old(client: &Client) -> Result<i32, PgError> {
    let sql =
        "SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
                WHERE p.proname = 'drop_seen_dates' AND s.nspname = 'loader'
                  AND pg_catalog.has_schema_privilege(s.oid, 'USAGE')
                  AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')";
    if client.query_opt(sql, &[]).await?.is_none() {
        return Ok(0);
    }
    Ok(client.query_one("SELECT loader.drop_seen_dates()", &[]).await?.get(0))
}
