//! Judges: what they say is right comes from the sources alone.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postgres::Client;

use super::actors::DEFINITIONS;
use super::world::{DAYS, FIRST_DAY, MODELS, Model};
use super::{Race, Sabotage, writer};
use crate::cluster::{explain, rows};

/// Compares live views with a recompute under the same snapshot, at random moments until the race ends.
pub(super) fn watch(race: &Race<'_>, number: u64) {
    let mut random = race.random(500 + number);
    race.repeat("race-judge", |client| {
        race.sleep(Duration::from_millis(random.below(400)));
        if race.stopped() {
            return Ok(());
        }
        let zone = random.pick(&["UTC", "Pacific/Apia", "Europe/Dublin"]);
        let style = random.pick(&["ISO, MDY", "SQL, DMY", "German"]);
        let planner = random.pick(&[
            "",
            "SET enable_hashjoin = off;",
            "SET enable_partition_pruning = off;",
            "SET work_mem = '64kB';",
        ]);
        client.batch_execute(&format!(
            "RESET ALL; SET timezone = '{zone}'; SET datestyle = '{style}'; {planner}"
        ))?;
        let filter = match random.below(3) {
            0 => format!("event_date = date '{FIRST_DAY}' + {}", random.below(DAYS)),
            1 => format!(
                "event_date >= date '{FIRST_DAY}' + {0} AND event_date < date '{FIRST_DAY}' + {0} + 5",
                random.below(DAYS)
            ),
            _ => "true".to_owned(),
        };
        if random.percent(30) {
            // One statement is one snapshot, and needs no help against a change of definition.
            return compare(race, client, random.pick(&MODELS), &filter);
        }
        client.execute("SELECT pg_advisory_lock_shared($1)", &[&DEFINITIONS])?;
        let result = (|| {
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            for model in MODELS {
                compare(race, client, model, &filter)?;
                if random.percent(10) {
                    as_reader(race, client, model)?;
                }
                if random.percent(20) {
                    // The world goes on, the snapshot stays.
                    race.sleep(Duration::from_millis(random.below(500)));
                }
            }
            client.batch_execute("COMMIT")
        })();
        client.batch_execute("ROLLBACK")?;
        client.execute("SELECT pg_advisory_unlock_shared($1)", &[&DEFINITIONS])?;
        result
    });
}

fn compare(race: &Race<'_>, client: &mut Client, model: Model, filter: &str) -> Result<(), postgres::Error> {
    let view = format!("race.{}_live", model.name);
    let found = client.simple_query(&model.differences(&view, filter))?;
    let dirty = client.query_one(
        "SELECT dirty_dates > 0 FROM tidemark.model_status WHERE model = 'race.' || $1",
        &[&model.name],
    )?;
    race.note(|r| {
        r.compared += 1;
        r.compared_dirty += u64::from(dirty.get::<_, bool>(0));
    });
    for message in found {
        if let postgres::SimpleQueryMessage::Row(row) = message {
            let what = format!("{view} where {filter}: {}", shown(&row));
            race.tell(&what);
            race.note(|r| r.live_differences.push(what));
        }
    }
    Ok(())
}

/// Who may only read the view sees the same in it.
fn as_reader(race: &Race<'_>, client: &mut Client, model: Model) -> Result<(), postgres::Error> {
    let sql = format!(
        "SELECT count(*), sum(hashtextextended(x::text, 0)::numeric)::text FROM race.{}_live AS x",
        model.name
    );
    let mut look = |role| -> Result<(i64, Option<String>), postgres::Error> {
        client.batch_execute(&format!("SET LOCAL ROLE {role}"))?;
        let row = client.query_one(&sql, &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let (owner, reader) = (look("none")?, look("race_reader")?);
    look("none")?;
    if owner != reader {
        race.wrong(format!(
            "race.{}_live has {} rows for its owner and {} for a reader, or others",
            model.name, owner.0, reader.0
        ));
    }
    Ok(())
}

fn shown(row: &postgres::SimpleQueryRow) -> String {
    let value = |i| row.get(i).unwrap_or("NULL").to_owned();
    format!("{} {} rows, such as {}", value(0), value(1), value(2))
}

/// Everybody waits: refresh until nothing is dirty, and nothing may differ.
pub(super) fn at_rest(race: &Race<'_>) {
    let mut client = settled(race);
    if let Some(sabotage) = race.options.sabotage {
        sabotaged(&mut client, sabotage);
    }
    let before = refreshed(&mut client);
    refresh_all(race, &mut client);
    for what in wrong(&mut client, "true") {
        race.wrong(format!("at rest, {what}"));
    }
    for model in MODELS {
        verify(race, &mut client, model);
    }
    for row in
        rows(&mut client, "SELECT model, last_error FROM tidemark.model_status WHERE last_error IS NOT NULL")
    {
        race.wrong(format!("at rest, model {} still has the error {}", row[0], row[1]));
    }
    for table in ["dirty_log", "model_dirty"] {
        let left = rows(&mut client, &format!("SELECT count(*) FROM tidemark_internal.{table}"));
        if left[0][0] != "0" {
            race.wrong(format!("at rest, tidemark_internal.{table} still has {} rows", left[0][0]));
        }
    }
    nothing_twice(race, &mut client);
    let events: i64 = client.query_one("SELECT count(*) FROM race.events", &[]).unwrap().get(0);
    race.rows.store(events, Ordering::Relaxed);
    let after = refreshed(&mut client);
    let ways = "SELECT count(*) FILTER (WHERE way = 'append'), count(*) FILTER (WHERE way = 'scope'),
                       count(*) FILTER (WHERE way = 'append' AND model = 'race.timeline'),
                       count(*) FILTER (WHERE way = 'merge')
                  FROM tidemark_internal.refresh_log";
    let ways = client.query_one(ways, &[]).unwrap();
    race.note(|r| {
        r.rounds += 1;
        r.refreshed = after;
        r.appended = ways.get(0);
        r.scoped = ways.get(1);
        r.parts = ways.get(2);
        r.merged = ways.get(3);
    });
    assert!(after >= before, "the counters of the models went back from {before} to {after}");
}

/// A connection, once the server is up and nobody has a transaction any more.
pub(super) fn settled(race: &Race<'_>) -> Client {
    let started = Instant::now();
    loop {
        let mut client = race.connect("race-lead").expect("the race still runs");
        let result = (|| {
            for row in client.query("SELECT gid FROM pg_prepared_xacts", &[])? {
                client.batch_execute(&format!("COMMIT PREPARED '{}'", row.get::<_, String>(0)))?;
            }
            let busy = "SELECT count(*) FROM pg_stat_activity
                         WHERE application_name IN ('race-writer', 'race-refresher')
                         AND datname = current_database() AND state <> 'idle'";
            client.query_one(busy, &[]).map(|row| row.get::<_, i64>(0))
        })();
        if matches!(result, Ok(0)) {
            return client;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no rest: {result:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One more broken promise that nothing later repairs by chance.
fn sabotaged(client: &mut Client, sabotage: Sabotage) {
    if sabotage == Sabotage::MarksApart {
        writer::mark(client, "race.events", &[3]).unwrap();
    }
    if sabotage == Sabotage::NamesTooFew {
        let row = format!(
            "INSERT INTO race.events (event_time, person, kind, amount)
             VALUES (timestamptz '{FIRST_DAY} 12:00:00+00' + interval '3 days', 'person 3', 'buy', 1)"
        );
        client.batch_execute(&row).unwrap();
        writer::mark(client, "race.events", &[3]).unwrap();
    }
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
    if sabotage == Sabotage::NamesTooFew {
        let change = format!(
            "UPDATE race.events SET person = 'person 99' WHERE event_id = (
                 SELECT max(event_id) FROM race.events WHERE event_date = date '{FIRST_DAY}' + 3 AND person = 'person 3')"
        );
        client.batch_execute(&change).unwrap();
        writer::mark_persons(client, &["person 3".to_owned()]).unwrap();
        return;
    }
    // Person 0 is active on days 0 to 2 of five, person 2 on days 3, 4 and 0.
    let row = format!(
        "INSERT INTO race.events (event_time, person, kind, amount)
         VALUES (timestamptz '{FIRST_DAY} 12:00:00+00' + interval '3 days', 'person 2', 'buy', 1)"
    );
    client.batch_execute(&row).unwrap();
}

/// Dates of models recomputed so far.
fn refreshed(client: &mut Client) -> i64 {
    client.query_one("SELECT sum(refresh_count)::bigint FROM tidemark_internal.models", &[]).unwrap().get(0)
}

fn refresh_all(race: &Race<'_>, client: &mut Client) {
    for _ in 0..20 {
        if let Err(e) = client.batch_execute("CALL tidemark.refresh(NULL, NULL)") {
            race.wrong(format!("at rest, refresh: {}", explain(&e)));
        }
        let dirty = rows(client, "SELECT sum(dirty_dates) FROM tidemark.model_status");
        if dirty[0][0] == "0" {
            return;
        }
    }
    let dirty = rows(client, "SELECT model, dirty_dates FROM tidemark.model_status WHERE dirty_dates > 0");
    race.wrong(format!("at rest, still dirty after 20 refreshes: {dirty:?}"));
}

/// `verify_model` must agree with us.
fn verify(race: &Race<'_>, client: &mut Client, model: Model) {
    let sql = format!(
        "SELECT event_date, status, detail
           FROM tidemark.verify_model('race.{}', date '{FIRST_DAY}' - 3, date '{FIRST_DAY}' + {})",
        model.name,
        DAYS + 2
    );
    for row in rows(client, &sql) {
        if row[1] != "ok" {
            race.wrong(format!(
                "at rest, verify_model on race.{}: {} {} {}",
                model.name, row[0], row[1], row[2]
            ));
        }
    }
}

/// Another refresh changes nothing at all.
fn nothing_twice(race: &Race<'_>, client: &mut Client) {
    let before = state(client);
    if let Err(e) = client.batch_execute("CALL tidemark.refresh(NULL, NULL)") {
        race.wrong(format!("at rest, a second refresh: {}", explain(&e)));
    }
    for (before, after) in before.iter().zip(state(client)) {
        if *before != after {
            race.wrong(format!("at rest, a second refresh changed {before:?} to {after:?}"));
        }
    }
}

/// What differs from a recompute, in the tables of the models and in their live views. `filter` is a condition on
/// `event_date`, or `true`.
pub fn wrong(client: &mut Client, filter: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for model in MODELS {
        for table in model.relations() {
            for row in rows(client, &model.differences(&table, filter)) {
                wrong.push(format!("{table}: {} {} rows, such as {}", row[0], row[1], row[2]));
            }
        }
    }
    wrong
}

/// Everything that a refresh may write: counters of the models, where each row is and which transaction put it there.
pub fn state(client: &mut Client) -> Vec<Vec<String>> {
    let mut state = rows(
        client,
        "SELECT name, refresh_count, last_refreshed_at FROM tidemark_internal.models ORDER BY name",
    );
    for model in MODELS {
        let sql = format!(
            "SELECT '{0}', count(*),
                    md5(string_agg(tableoid || ' ' || ctid || ' ' || xmin, ',' ORDER BY tableoid, ctid)) FROM race.{0}",
            model.name
        );
        state.extend(rows(client, &sql));
    }
    state
}
