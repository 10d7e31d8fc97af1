//! The race of identity, in the warehouse as `tidemark migrate` makes it: events come, late and in any order, and go;
//! people link accounts, block ids, give devices away and take it back, and are erased; several sessions refresh and resolve at once
//! and are ended or killed. A dimension follows what events say of persons, and a model reads it. Who every event is of, the rules say that share no code (`crate::identity`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::Duration;

use postgres::Client;

use super::{Options, Race, Report, actors, judge, start};
use crate::cluster::{Cluster, explain, rows};
use crate::identity::{Event, Said, expected};
use crate::random::Random;

const MINUTES: u64 = 6 * 1440;
const FIRST: &str = "timestamptz '2026-09-01 00:00:00Z'";

/// What live views of gold must be, from the events known to be whose; the key first.
const LIVE: [(&str, &str, &str); 6] = [
    (
        "sessions",
        "SELECT person, started_at, ended_at, events FROM gold.sessions_live",
        "SELECT person, min(event_time), max(event_time), count(*)
           FROM (SELECT *, count(*) FILTER (WHERE cut) OVER (PARTITION BY person ORDER BY event_time, event_id) AS n
                   FROM (SELECT known_person AS person, event_time, event_id,
                                (event_time - lag(event_time) OVER (PARTITION BY known_person ORDER BY event_time, event_id)
                                 > interval '30 minutes') IS NOT FALSE AS cut
                           FROM silver.events_live WHERE known_person IS NOT NULL) AS a) AS b
          GROUP BY person, n",
    ),
    (
        "actives",
        "SELECT event_date, events, active_persons FROM gold.daily_actives_live",
        "SELECT event_date, count(*), count(DISTINCT known_person) FROM silver.events_live GROUP BY event_date",
    ),
    (
        "person_days",
        "SELECT event_date, person, sum(events)::bigint FROM gold_storage.person_activity_live GROUP BY 1, 2",
        "SELECT event_date, known_person, count(*) FROM silver.events_live WHERE known_person IS NOT NULL GROUP BY 1, 2",
    ),
    (
        "timeline",
        "SELECT period::date, value::bigint FROM tidemark.trend('race.timeline', '2026-09-01', '2026-09-08', 'persons')
          WHERE value > 0",
        "SELECT event_date, count(DISTINCT known_person) FROM silver.events_live WHERE known_person IS NOT NULL GROUP BY 1",
    ),
    (
        "persons",
        "SELECT person, valid_from, valid_to, plan FROM gold.persons",
        "SELECT person, at, coalesce(lead(at) OVER (PARTITION BY person ORDER BY at), 'infinity'), plan
           FROM (SELECT p.*, row_number() OVER s = 1 OR plan IS DISTINCT FROM lag(plan) OVER s AS new
                   FROM (SELECT DISTINCT ON (known_person, event_time) known_person AS person, event_time AS at, plan
                           FROM silver.trait_changes WHERE known_person IS NOT NULL AND (plan IS NOT NULL OR unset = 'plan')
                          ORDER BY known_person, event_time, event_id DESC) AS p
                 WINDOW s AS (PARTITION BY person ORDER BY at)) AS p
          WHERE new",
    ),
    (
        "plans",
        "SELECT event_date, plan, count(*) FROM race.plans_live GROUP BY 1, 2",
        "SELECT e.event_date, p.plan, count(*) FROM silver.events_live AS e JOIN gold.persons AS p
             ON p.person = e.known_person AND p.valid_from <= e.event_time AND e.event_time < p.valid_to GROUP BY 1, 2",
    ),
];

/// Runs it on a server of its own.
pub fn run(options: &Options, name: &str) -> Report {
    let cluster = Cluster::start_with(name, &["deadlock_timeout=100ms"]);
    let database = cluster.database();
    database
        .connect()
        .batch_execute(
            "CREATE SCHEMA race AUTHORIZATION tidemark_admin;
             CREATE SEQUENCE race.numbers;
             SELECT identity.set_policy(max_accounts_per_person => 4);
             SELECT tidemark.ensure_partitions(p.parent, ARRAY(SELECT date '2026-08-31' + n FROM generate_series(0, 8) AS n))
               FROM (VALUES ('bronze.events'::regclass), ('silver.events')) AS p(parent);
             SET ROLE tidemark_admin;
             SELECT tidemark.create_timeline('race.timeline', 'silver.events', 'known_person', slices => 4);
             SELECT tidemark.create_model('race.plans', '{silver.events}', $$
                 SELECT e.event_date, e.event_id, e.known_person, p.plan FROM silver.events AS e JOIN gold.persons AS p
                     ON p.person = e.known_person AND p.valid_from <= e.event_time AND e.event_time < p.valid_to
                  WHERE e.event_date >= $1 AND e.event_date < $2$$,
                 '{event_date, event_id, known_person}', scope => 'known_person', live => true)",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    start(options, database.superuser_url(), everybody, at_rest)
}

fn everybody<'scope>(race: &'scope Race<'_>, scope: &'scope Scope<'scope, '_>) {
    let options = race.options;
    for n in 0..options.writers {
        scope.spawn(move || write(race, n));
    }
    scope.spawn(move || say(race));
    for n in 0..options.refreshers {
        scope.spawn(move || refresh(race, n));
    }
    for n in 0..options.judges {
        scope.spawn(move || watch(race, n));
    }
    if options.disturb {
        scope.spawn(move || actors::disturb(race));
    }
}

/// Calls `act` with the transaction that it ends, until the race does.
fn repeat(race: &Race<'_>, name: &str, pause: u64, random: &mut Random, act: impl Fn(&mut Random) -> String) {
    race.repeat(name, |client| {
        race.sleep(Duration::from_millis(random.below(pause)));
        let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
        if race.stopped() {
            return Ok(());
        }
        client.batch_execute(&act(random))
    });
}

fn write(race: &Race<'_>, number: u64) {
    let mut random = race.random(100 + number);
    repeat(race, "race-writer", 60, &mut random, |random| {
        let mut mark = "SELECT tidemark.mark_dirty('bronze.events', ARRAY(SELECT DISTINCT (event_time AT TIME ZONE 'UTC')::date FROM t))";
        let mut sql = String::from("BEGIN; CREATE TEMP TABLE t (event_time timestamptz) ON COMMIT DROP;");
        let mut statement = |sql_of_it: String| {
            sql += &format!(
                "WITH d AS ({sql_of_it} RETURNING event_time) INSERT INTO t SELECT event_time FROM d;"
            );
        };
        if race.rows.load(Ordering::Relaxed) > race.options.rows || random.percent(15) {
            let n = 1 + random.below(20);
            statement(format!(
                "DELETE FROM bronze.events WHERE (event_id, event_time) IN (
                     SELECT event_id, event_time FROM bronze.events ORDER BY random() LIMIT {n})"
            ));
            race.rows.fetch_sub(n as i64, Ordering::Relaxed);
        } else {
            let mut values = vec![];
            for _ in 0..1 + random.below(20) {
                // Device 0 sees everybody, the others one to four accounts; most of what happens is of the last day.
                let device = random.below(10);
                let account =
                    if device == 0 { random.below(12) } else { (device + random.below(1 + device % 4)) % 12 };
                let known = random.percent(45);
                let minute =
                    if random.percent(70) { MINUTES - 1 - random.below(1440) } else { random.below(MINUTES) };
                values.push(format!(
                    "({}, {}, {}, {})",
                    minute / 7 * 7,
                    if known { format!("'a{account:02}'") } else { "NULL".to_owned() },
                    if !known || random.percent(80) { format!("'d{device:02}'") } else { "NULL".to_owned() },
                    match random.below(12) {
                        0 => "'Logged Out', '{}'",
                        1 => r#"'identify', '{"traits": {"plan": null}}'"#,
                        2 => r#"'identify', '{"traits": {"plan": "free"}}'"#,
                        3 => r#"'identify', '{"traits": {"plan": "plus"}}'"#,
                        _ => "'page_viewed', '{}'",
                    }
                ));
            }
            // As the loader does: rows that were only added.
            mark = "SELECT tidemark.mark_loaded('bronze.events', array_agg(d), array_agg(n), array_agg(0::bigint), array_agg(a), array_agg(b))
                      FROM (SELECT (event_time AT TIME ZONE 'UTC')::date AS d, count(*) AS n, min(event_time) AS a, max(event_time) AS b
                              FROM t GROUP BY 1) AS t";
            race.rows.fetch_add(values.len() as i64, Ordering::Relaxed);
            statement(format!(
                "INSERT INTO bronze.events (event_id, event_time, event_type, user_id, anonymous_id, received_at, payload)
                 SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(nextval('race.numbers')), 12, '0'))::uuid,
                        {FIRST} + v.minute * interval '1 minute', v.event_type, v.account, v.device, now(), v.payload::jsonb
                   FROM (VALUES {}) AS v(minute, account, device, event_type, payload)",
                values.join(", ")
            ));
        }
        sql + mark + "; COMMIT"
    });
}

fn say(race: &Race<'_>) {
    let mut random = race.random(150);
    repeat(race, "race-sayer", 400, &mut random, |random| {
        let account = format!("'a{:02}'", random.below(12));
        let device = format!("'d{:02}'", random.below(10));
        match random.below(19) {
            0 => format!(
                "SELECT identity.erase_person(ARRAY[{}], false)",
                if random.percent(50) { &account } else { &device }
            ),
            1..5 => format!(
                "SELECT identity.link({account}, 'b' || a.id, {FIRST} + a.id * interval '1 minute')
                   FROM (SELECT {} AS id) AS a",
                random.below(12)
            ),
            5 | 6 => format!(
                "SELECT identity.link({account}, a.id, now()) FROM (SELECT 'a{:02}' AS id) AS a WHERE a.id <> {account}",
                random.below(12)
            ),
            7..11 => "SELECT identity.unlink(l.link_id) FROM identity.links AS l WHERE l.revoked_at IS NULL
                       ORDER BY l.link_id LIMIT 1"
                .to_owned(),
            11 | 12 => format!("SELECT identity.block('account', {account})"),
            13 | 14 => format!("SELECT identity.block('device', {device})"),
            15 | 16 => "SELECT identity.unblock(b.kind, b.id) FROM identity.blocked AS b".to_owned(),
            _ => format!(
                "SELECT identity.forget_owner(s.anonymous_id, s.from_time) FROM identity.said_owners AS s
                  WHERE s.anonymous_id = {device};
                 SELECT identity.own_device({device}, {FIRST} + {0} * interval '1 minute',
                            {FIRST} + ({0} + 1440) * interval '1 minute', {account})",
                random.below(MINUTES)
            ),
        }
    });
}

fn refresh(race: &Race<'_>, number: u64) {
    let mut random = race.random(200 + number);
    race.repeat("race-refresher", |client| {
        race.sleep(Duration::from_millis(random.below(150)));
        let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
        if race.stopped() {
            return Ok(());
        }
        if random.percent(40) {
            client.batch_execute("CALL identity.resolve()")?;
        } else {
            let dates =
                if random.percent(30) { format!("{}", 1 + random.below(5)) } else { "NULL".to_owned() };
            client.batch_execute(&format!("CALL tidemark.refresh(NULL, {dates})"))?;
        }
        race.note(|r| r.refreshes += 1);
        Ok(())
    });
}

/// Compares live views with what the events say under the same snapshot.
fn watch(race: &Race<'_>, number: u64) {
    let mut random = race.random(500 + number);
    race.repeat("race-judge", |client| {
        race.sleep(Duration::from_millis(random.below(400)));
        if race.stopped() {
            return Ok(());
        }
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL timezone = 'UTC'")?;
        let waits = client.query_one("SELECT sum(dirty_dates) > 0 FROM tidemark.model_status", &[])?;
        for (what, found, truth) in LIVE {
            for row in differences(client, found, truth)? {
                let what = format!("{what}, live: {row}");
                race.tell(&what);
                race.note(|r| r.live_differences.push(what));
            }
            race.note(|r| {
                r.compared += 1;
                r.compared_dirty += u64::from(waits.get::<_, bool>(0));
            });
        }
        client.batch_execute("COMMIT")
    });
}

fn differences(client: &mut Client, found: &str, truth: &str) -> Result<Vec<String>, postgres::Error> {
    let sql = format!(
        "WITH found AS MATERIALIZED ({found}), truth AS MATERIALIZED ({truth})
         SELECT 'too much ' || count(*) || ' ' || min(d::text) FROM (TABLE found EXCEPT ALL TABLE truth) AS d HAVING count(*) > 0
         UNION ALL
         SELECT 'missing ' || count(*) || ' ' || min(d::text) FROM (TABLE truth EXCEPT ALL TABLE found) AS d HAVING count(*) > 0"
    );
    Ok(client.query(&sql, &[])?.iter().map(|row| row.get(0)).collect())
}

/// Everybody waits: refresh and resolve until nothing waits, and nothing may differ.
fn at_rest(race: &Race<'_>) {
    let mut client = judge::settled(race);
    for n in 0.. {
        for call in ["CALL tidemark.refresh()", "CALL identity.resolve()"] {
            if let Err(e) = client.batch_execute(call) {
                race.wrong(format!("at rest, {call}: {}", explain(&e)));
            }
        }
        let waits =
            "SELECT (SELECT sum(dirty_dates) FROM tidemark.model_status) + waiting_ids + waiting_dates
                       FROM identity.status";
        if rows(&mut client, waits)[0][0] == "0" {
            break;
        }
        if n == 20 {
            return race.wrong("at rest, something waits after 20 rounds".to_owned());
        }
    }
    let all: Vec<Event> = client
        .query(
            &format!(
                "SELECT ('x' || right(event_id::text, 12))::bit(48)::bigint, user_id, anonymous_id,
                        (extract(epoch FROM event_time - {FIRST}) / 60)::bigint, event_type = 'Logged Out'
                   FROM bronze.events"
            ),
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| Event {
            number: row.get::<_, i64>(0) as u64,
            account: row.get(1),
            device: row.get(2),
            minute: row.get::<_, i64>(3) as u64,
            logout: row.get(4),
        })
        .collect();
    let said = said(&mut client);
    let known: BTreeMap<u64, Option<String>> = client
        .query(
            "SELECT ('x' || right(event_id::text, 12))::bit(48)::bigint, known_person FROM silver.events",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get::<_, i64>(0) as u64, row.get(1)))
        .collect();
    let expected = expected(&all, &said);
    let wrong: Vec<_> = expected.iter().filter(|(n, person)| known.get(n) != Some(person)).collect();
    if known.len() != all.len() || !wrong.is_empty() {
        race.wrong(format!(
            "at rest, {} events are known of {}, {} are somebody else's, such as {:?}, known as {:?}",
            known.len(),
            all.len(),
            wrong.len(),
            wrong.first(),
            wrong.first().map(|(n, _)| known.get(n))
        ));
    }
    for row in rows(
        &mut client,
        "SELECT m.model, v.event_date, v.status, v.detail
           FROM tidemark.model_status AS m, tidemark.verify_model(m.model, '2026-08-31', '2026-09-10') AS v
          WHERE v.status <> 'ok'",
    ) {
        race.wrong(format!("at rest, verify_model: {}", row.join(" ")));
    }
    for (what, found, truth) in LIVE {
        for found in [found.to_owned(), found.replace("_live", "")] {
            for row in differences(&mut client, &found, truth).unwrap() {
                race.wrong(format!("at rest, {what}: {row}"));
            }
        }
    }
    race.rows.store(all.len() as i64, Ordering::Relaxed);
    let ways = client
        .query_one(
            "SELECT count(*) FILTER (WHERE way = 'scope'), count(*) FILTER (WHERE way = 'append'),
                    count(*) FILTER (WHERE way = 'merge'), count(*),
                    (SELECT count(*) FROM identity.changes),
                    count(*) FILTER (WHERE model = 'race.timeline' AND way = 'scope')
               FROM tidemark.refresh_log",
            &[],
        )
        .unwrap();
    race.note(|r| {
        r.rounds += 1;
        r.scoped = ways.get(0);
        r.appended = ways.get(1);
        r.merged = ways.get(2);
        r.refreshed = ways.get(3);
        r.parts = ways.get(5);
        r.known = ways.get::<_, i64>(4) as u64;
        r.events = all.len() as u64;
    });
}

fn said(client: &mut Client) -> Said {
    let pairs = "SELECT account_a, account_b FROM identity.links WHERE revoked_at IS NULL
                  ORDER BY event_time, account_a COLLATE \"C\", account_b COLLATE \"C\", link_id";
    let blocked = rows(client, "SELECT kind, id FROM identity.blocked");
    let kind = |kind: &str| if kind == "account" { "account" } else { "device" };
    Said {
        links: rows(client, pairs).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect(),
        blocked: blocked.into_iter().map(|row| (kind(&row[0]), row[1].clone())).collect::<BTreeSet<_>>(),
        owners: client
            .query(
                &format!(
                    "SELECT anonymous_id, (extract(epoch FROM from_time - {FIRST}) / 60)::bigint,
                            (extract(epoch FROM to_time - {FIRST}) / 60)::bigint, account FROM identity.said_owners"
                ),
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1) as u64, row.get::<_, i64>(2) as u64, row.get(3)))
            .collect(),
    }
}
