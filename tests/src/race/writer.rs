//! Writers: transactions that change the sources in every way there is, with the marks that belong to them.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::Client;

use super::world::{DAYS, FIRST_DAY, PEOPLE};
use super::{Race, Sabotage};
use crate::random::Random;

/// A person and the second since the first day at which something happened.
type Event = (u64, u64);

/// Writes until the race ends.
pub(super) fn run(race: &Race<'_>, number: u64) {
    let mut writer = Writer { race, random: race.random(100 + number), number, prepared: 0, unsettled: None };
    race.repeat("race-writer", |client| {
        let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
        if race.stopped() {
            return Ok(());
        }
        writer.finish_prepared(client)?;
        writer.transaction(client)
    });
}

/// What a transaction has done so far.
#[derive(Default)]
struct Done {
    /// Days of `race.events` and of `race.refunds` to mark at its end.
    unmarked: [BTreeSet<i32>; 2],
    /// The day of each row that was added to `race.events`, to mark at its end as such or as changed.
    added: Vec<i32>,
    /// Rows inserted less rows deleted, and rows touched.
    rows: i64,
    events: u64,
}

struct Writer<'a> {
    race: &'a Race<'a>,
    random: Random,
    number: u64,
    prepared: u64,
    /// A prepared transaction of which we do not know that it has ended.
    unsettled: Option<String>,
}

impl Writer<'_> {
    fn transaction(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let isolation = match self.random.below(20) {
            0 => "SERIALIZABLE",
            1..6 => "REPEATABLE READ",
            _ => "READ COMMITTED",
        };
        let zone = self.random.pick(&["UTC", "Pacific/Kiritimati", "America/Los_Angeles"]);
        client.batch_execute(&format!("SET timezone = '{zone}'; BEGIN ISOLATION LEVEL {isolation}"))?;
        if self.race.options.sabotage == Some(Sabotage::MarksApart) && self.random.percent(50) {
            return self.with_marks_apart(client);
        }
        let mut done = Done::default();
        for n in 0..1 + self.random.below(3) {
            if self.random.percent(20) {
                client.batch_execute(&format!("SAVEPOINT s{n}"))?;
                let mut inner = Done::default();
                self.change(client, &mut inner)?;
                if self.random.percent(50) {
                    self.mark(client, &mut inner)?;
                }
                self.hold(false);
                if self.random.percent(60) {
                    client.batch_execute(&format!("ROLLBACK TO s{n}"))?;
                } else {
                    client.batch_execute(&format!("RELEASE s{n}"))?;
                    for (all, more) in done.unmarked.iter_mut().zip(inner.unmarked) {
                        all.extend(more);
                    }
                    done.added.extend(inner.added);
                    done.rows += inner.rows;
                    done.events += inner.events;
                }
            } else {
                self.change(client, &mut done)?;
            }
            // Early or late, as long as it is in the transaction.
            if self.random.percent(40) {
                self.mark(client, &mut done)?;
            }
            self.hold(false);
        }
        let forgets = self.race.options.sabotage == Some(Sabotage::Forgets) && self.random.percent(30);
        if !forgets {
            self.mark(client, &mut done)?;
        }
        self.hold(true);
        self.end(client, &done)
    }

    fn end(&mut self, client: &mut Client, done: &Done) -> Result<(), postgres::Error> {
        match self.random.below(20) {
            0..3 => return client.batch_execute("ROLLBACK"),
            3..5 => {
                self.prepared += 1;
                let name = format!("writer-{}-{}", self.number, self.prepared);
                self.unsettled = Some(name.clone());
                client.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))?;
                self.hold(true);
                client.batch_execute(&format!("COMMIT PREPARED '{name}'"))?;
                self.unsettled = None;
            }
            _ => client.batch_execute("COMMIT")?,
        }
        self.race.rows.fetch_add(done.rows, Ordering::Relaxed);
        self.race.note(|r| {
            r.commits += 1;
            r.events += done.events;
        });
        Ok(())
    }

    /// A connection that broke may have left a transaction of ours prepared, which holds up others until it ends.
    fn finish_prepared(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let Some(name) = self.unsettled.clone() else { return Ok(()) };
        if !client.query("SELECT FROM pg_prepared_xacts WHERE gid = $1", &[&name])?.is_empty() {
            let what = self.random.pick(&["COMMIT", "ROLLBACK"]);
            client.batch_execute(&format!("{what} PREPARED '{name}'"))?;
        }
        self.unsettled = None;
        Ok(())
    }

    /// Keeps the transaction open, now and then for longer than several refreshes take.
    fn hold(&mut self, at_end: bool) {
        let milliseconds = match self.random.below(if at_end { 10 } else { 40 }) {
            0 => 500 + self.random.below(2000),
            1..4 => 50 + self.random.below(300),
            _ => self.random.below(20),
        };
        self.race.sleep(Duration::from_millis(milliseconds));
    }

    fn mark(&mut self, client: &mut Client, done: &mut Done) -> Result<(), postgres::Error> {
        self.mark_added(client, std::mem::take(&mut done.added))?;
        for (source, days) in ["race.events", "race.refunds"].iter().zip(&mut done.unmarked) {
            if !days.is_empty() {
                mark(client, source, &std::mem::take(days).into_iter().collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }

    /// Marks the days of rows that were added: mostly as a loader does.
    fn mark_added(&mut self, client: &mut Client, days: Vec<i32>) -> Result<(), postgres::Error> {
        match (days.is_empty(), self.random.percent(75)) {
            (true, _) => Ok(()),
            (_, true) => mark_loaded(client, &days),
            (_, false) => mark(client, "race.events", &days),
        }
    }

    /// One change of one kind.
    fn change(&mut self, client: &mut Client, done: &mut Done) -> Result<(), postgres::Error> {
        let full = self.race.rows.load(Ordering::Relaxed) > self.race.options.rows;
        match self.random.below(if full { 13 } else { 10 }) {
            0..5 => {
                let events = self.events();
                if self.random.percent(20) {
                    // Marked before it is written.
                    self.mark_added(client, days_of(&events))?;
                } else {
                    done.added.extend(days_of(&events));
                }
                self.insert(client, &events, done)
            }
            5 | 6 => self.update(client, done),
            7 => self.refund(client, done),
            _ => self.delete(client, done),
        }
    }

    /// A day that people are active on: today, or late by days.
    fn day(&mut self) -> u64 {
        let today = self.race.today.load(Ordering::Relaxed);
        match self.random.below(10) {
            0..4 => today,
            4..7 => today - self.random.below(4),
            _ => self.random.below(today.min(DAYS - 1) + 1),
        }
    }

    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let day = self.day();
            for _ in 0..1 + self.random.below(8) {
                // Active on three days of five.
                let person = loop {
                    let person = self.random.below(PEOPLE);
                    if (day + person) % 5 < 3 {
                        break person;
                    }
                };
                let second = match self.random.below(10) {
                    0 => 0,
                    1 => 86_399,
                    _ => self.random.below(86_400),
                };
                events.push((person, day * 86_400 + second));
            }
        }
        events
    }

    fn insert(
        &mut self,
        client: &mut Client,
        events: &[Event],
        done: &mut Done,
    ) -> Result<(), postgres::Error> {
        done.rows += events.len() as i64;
        done.events += events.len() as u64;
        match self.random.below(10) {
            0..3 => {
                let sql = "COPY race.events (event_time, person, kind, amount) FROM STDIN";
                let mut copy = client.copy_in(sql)?;
                let mut text = String::new();
                for (person, at) in events {
                    let (day, second) = (at / 86_400, at % 86_400);
                    let amount = self.amount().map_or_else(|| "\\N".to_owned(), |a| a.to_string());
                    text += &format!(
                        "2026-03-{:02} {:02}:{:02}:{:02}+00\tperson {person}\t{}\t{amount}\n",
                        day + 1,
                        second / 3600,
                        second / 60 % 60,
                        second % 60,
                        self.kind()
                    );
                }
                // What goes wrong here is told by `finish`.
                let _ = copy.write_all(text.as_bytes());
                copy.finish()?;
            }
            kind => {
                // Now and then straight into a partition.
                let table = if kind == 9 && one_day(events) {
                    format!("race_partitions.events_p202603{:02}", events[0].1 / 86_400 + 1)
                } else {
                    "race.events".to_owned()
                };
                let rows: Vec<String> = events
                    .iter()
                    .map(|(person, at)| {
                        let amount = self.amount().map_or_else(|| "NULL".to_owned(), |a| a.to_string());
                        format!(
                            "(timestamptz '{FIRST_DAY} 00:00:00+00' + interval '{at} seconds', 'person {person}', '{}',
                              {amount}::bigint)",
                            self.kind()
                        )
                    })
                    .collect();
                let values = rows.join(", ");
                client.batch_execute(&format!(
                    "INSERT INTO {table} (event_time, person, kind, amount) VALUES {values}"
                ))?;
            }
        }
        Ok(())
    }

    fn kind(&mut self) -> &'static str {
        self.random.pick(&["view", "view", "view", "buy", "junk"])
    }

    fn amount(&mut self) -> Option<u64> {
        (!self.random.percent(20)).then(|| self.random.below(1000))
    }

    /// Some neighbouring rows, locked, so that nobody moves them before we do: ids and days.
    fn some_rows(
        &mut self,
        client: &mut Client,
        limit: u64,
    ) -> Result<(Vec<i64>, Vec<i32>), postgres::Error> {
        let sql = format!(
            "SELECT event_id, event_date - date '{FIRST_DAY}' FROM race.events
              WHERE event_id >= (SELECT min(event_id) + ({} * (max(event_id) - min(event_id))) / 1000 FROM race.events)
              ORDER BY event_id LIMIT {limit} FOR UPDATE",
            self.random.below(1000)
        );
        let rows = client.query(&sql, &[])?;
        Ok((rows.iter().map(|r| r.get(0)).collect(), rows.iter().map(|r| r.get(1)).collect()))
    }

    fn update(&mut self, client: &mut Client, done: &mut Done) -> Result<(), postgres::Error> {
        let limit = 1 + self.random.below(6);
        let (ids, old) = self.some_rows(client, limit)?;
        let change = match self.random.below(5) {
            // To somebody who is active on the same days.
            4 => return self.hand_over(client, &ids, done),
            // By five days: people stay active on the days that are theirs.
            0 => {
                let last = DAYS - 1;
                format!(
                    "event_time = CASE WHEN event_date - date '{FIRST_DAY}' + 5 <= {last}
                                       THEN event_time + interval '120 hours' ELSE event_time END"
                )
            }
            1 => format!(
                "event_time = CASE WHEN event_date - date '{FIRST_DAY}' >= 5
                                   THEN event_time - interval '120 hours' ELSE event_time END"
            ),
            2 => "kind = CASE kind WHEN 'junk' THEN 'buy' ELSE 'junk' END".to_owned(),
            _ => format!("amount = {}", self.random.below(1000)),
        };
        let sql = format!(
            "UPDATE race.events SET {change} WHERE event_id = ANY ($1) RETURNING event_date - date '{FIRST_DAY}'"
        );
        let new = client.query(&sql, &[&ids])?;
        done.events += new.len() as u64;
        done.unmarked[0].extend(old);
        done.unmarked[0].extend(new.iter().map(|r| r.get::<_, i32>(0)));
        Ok(())
    }

    /// Gives events to other persons, on whichever dates, and marks both or the dates.
    fn hand_over(
        &mut self,
        client: &mut Client,
        ids: &[i64],
        done: &mut Done,
    ) -> Result<(), postgres::Error> {
        let by_date = self.random.percent(40);
        let before = persons(client, ids)?;
        let sql = format!(
            "UPDATE race.events SET person = 'person ' || (substr(person, 8)::int + 5) % {PEOPLE}
              WHERE event_id = ANY ($1) RETURNING event_date - date '{FIRST_DAY}'"
        );
        let days = client.query(&sql, &[&ids])?;
        done.events += days.len() as u64;
        if by_date {
            done.unmarked[0].extend(days.iter().map(|r| r.get::<_, i32>(0)));
            return Ok(());
        }
        let mut both = before;
        if self.race.options.sabotage != Some(Sabotage::NamesTooFew) {
            both.extend(persons(client, ids)?);
        }
        mark_persons(client, &both)
    }

    fn delete(&mut self, client: &mut Client, done: &mut Done) -> Result<(), postgres::Error> {
        let deleted = if self.random.percent(10) {
            // A whole day.
            let day = self.day() as i32;
            let sql = format!("DELETE FROM race.events WHERE event_date = date '{FIRST_DAY}' + $1::int");
            let deleted = client.execute(&sql, &[&day])?;
            done.unmarked[0].insert(day);
            deleted
        } else {
            let limit = 5 + self.random.below(40);
            let (ids, old) = self.some_rows(client, limit)?;
            done.unmarked[0].extend(old);
            client.execute("DELETE FROM race.events WHERE event_id = ANY ($1)", &[&ids])?
        };
        done.rows -= deleted as i64;
        done.events += deleted;
        Ok(())
    }

    fn refund(&mut self, client: &mut Client, done: &mut Done) -> Result<(), postgres::Error> {
        let day = self.day() as i32;
        done.unmarked[1].insert(day);
        let sql = if self.random.percent(60) {
            format!("INSERT INTO race.refunds (event_date, cents) VALUES (date '{FIRST_DAY}' + $1::int, 100)")
        } else {
            format!("DELETE FROM race.refunds WHERE event_date = date '{FIRST_DAY}' + $1::int")
        };
        done.events += client.execute(&sql, &[&day])?;
        Ok(())
    }

    /// Marks in a transaction of their own before the rows are there.
    fn with_marks_apart(&mut self, client: &mut Client) -> Result<(), postgres::Error> {
        let events = self.events();
        if let Some(mut other) = self.race.connect("race-writer") {
            mark(&mut other, "race.events", &days_of(&events))?;
        }
        let mut done = Done::default();
        self.insert(client, &events, &mut done)?;
        self.race.sleep(Duration::from_millis(300 + self.random.below(700)));
        self.end(client, &done)
    }
}

/// The day of each event.
fn days_of(events: &[Event]) -> Vec<i32> {
    events.iter().map(|(_, at)| (at / 86_400) as i32).collect()
}

fn one_day(events: &[Event]) -> bool {
    days_of(events).windows(2).all(|pair| pair[0] == pair[1])
}

/// Marks rows of these days, a day for each row, as added.
pub(super) fn mark_loaded(client: &mut Client, days: &[i32]) -> Result<(), postgres::Error> {
    let sql = format!(
        "SELECT tidemark.mark_loaded('race.events', array_agg(date '{FIRST_DAY}' + d), array_agg(n),
                                     array_agg(0::bigint), array_agg(now()), array_agg(now()))
           FROM (SELECT d, count(*) FROM unnest($1::int[]) AS u(d) GROUP BY d) AS x(d, n)"
    );
    client.execute(&sql, &[&days]).map(|_| ())
}

/// Who has these events.
fn persons(client: &mut Client, ids: &[i64]) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query("SELECT DISTINCT person FROM race.events WHERE event_id = ANY ($1)", &[&ids])?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Marks these persons of the events.
pub(super) fn mark_persons(client: &mut Client, persons: &[String]) -> Result<(), postgres::Error> {
    client.execute("SELECT tidemark.mark_persons('race.events', $1)", &[&persons]).map(|_| ())
}

/// Marks these days of a source.
pub(super) fn mark(client: &mut Client, source: &str, days: &[i32]) -> Result<(), postgres::Error> {
    let sql = format!(
        "SELECT tidemark.mark_dirty('{source}'::regclass,
                                    ARRAY(SELECT date '{FIRST_DAY}' + d FROM unnest($1::int[]) AS d), 'race')"
    );
    client.execute(&sql, &[&days]).map(|_| ())
}
