//! Who an event is known to be of: the same as `rules` says, in whatever order events and links arrive, and again when
//! something is taken back.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_tests::cluster::{self, Database, connect, rows, sqlstate};
use tidemark_tests::events;
use tidemark_tests::identity::{Event, Said, event, expected};
use tidemark_tests::process::tidemark;
use tidemark_tests::random::Random;

use super::warehouse::{load, maintain};

pub(super) mod truth;

const KNOWN: &str =
    "SELECT person_as_sent || ' ' || coalesce(person, '-') FROM silver.events_known ORDER BY event_id";

/// Models of one's own by the person known now: of sessions by person, and of persons by date.
fn own_models(database: &Database<'_>) {
    let sql = "
        CREATE SCHEMA own AUTHORIZATION tidemark_admin;
        SET ROLE tidemark_admin;
        CREATE TABLE own.days (event_date date, person text, events bigint, PRIMARY KEY (event_date, person));
        CREATE TABLE own.totals (event_date date PRIMARY KEY, persons bigint);
        CREATE TABLE own.events (event_date date PRIMARY KEY, events bigint);
        SELECT tidemark.create_model('own.days', '{silver.events}',
            'SELECT event_date, known_person AS person, count(*) AS events FROM silver.events
              WHERE event_date >= $1 AND event_date < $2 AND known_person IS NOT NULL GROUP BY 1, 2',
            '{event_date, person}', scope => 'person', scope_source => 'known_person', live => true);
        SELECT tidemark.create_model('own.totals', '{silver.events}',
            'SELECT event_date, count(DISTINCT known_person) AS persons FROM silver.events
              WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}', live => true);
        SELECT tidemark.create_model('own.events', '{silver.events}',
            'SELECT event_date, count(*) AS events FROM silver.events
              WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}');
        SELECT tidemark.create_timeline('own.timeline', 'silver.events', person => 'known_person');
        RESET ROLE";
    database.connect().batch_execute(sql).unwrap();
}

/// Compares every event, and the models with a recompute.
fn assert_known(database: &Database<'_>, all: &[Event], said: &Said, what: &str) {
    let found: BTreeMap<String, String> = database
        .rows("SELECT event_id, coalesce(person, '-') FROM silver.events_known")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert_eq!(found.len(), all.len(), "{what}");
    let by_number: BTreeMap<u64, &Event> = all.iter().map(|event| (event.number, event)).collect();
    for (number, person) in expected(all, said) {
        let person = person.unwrap_or_else(|| "-".to_owned());
        assert_eq!(found[&events::id(number)], person, "{what}: {:?}\n{said:?}", by_number[&number]);
    }
    // Models of one's own are right before their refresh, and after it.
    let own = database.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'own'") > 0;
    if own {
        let days = "SELECT event_date::text, known_person, count(*) FROM silver.events
                     WHERE known_person IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2";
        let persons =
            "SELECT event_date::text, count(DISTINCT known_person) FROM silver.events GROUP BY 1 ORDER BY 1";
        let report = "SELECT period::date::text, value FROM tidemark.trend('silver.events', '2026-09-01', '2026-09-06', 'persons')
                       WHERE value > 0 ORDER BY 1";
        let told = |sql: &str| database.rows(sql);
        assert_eq!(
            told("SELECT event_date::text, person, events FROM own.days_live ORDER BY 1, 2"),
            told(days),
            "{what}"
        );
        assert_eq!(
            told("SELECT event_date::text, persons FROM own.totals_live ORDER BY 1"),
            told(persons),
            "{what}"
        );
        let persons = persons.replace("GROUP BY 1", "WHERE known_person IS NOT NULL GROUP BY 1");
        assert_eq!(told(report), told(&persons), "{what}");
        let waiting =
            "SELECT count(*) FROM tidemark.model_status WHERE model = 'own.events' AND dirty_dates > 0";
        assert_eq!(told(waiting), [["0"]], "{what}: who does not read it has nothing to do");
    }
    database.connect().batch_execute("CALL tidemark.refresh()").unwrap();
    for model in database.column("SELECT model FROM tidemark.model_status") {
        let sql = format!(
            "SELECT event_date, status, detail FROM tidemark.verify_model('{model}', '2026-08-01', '2026-11-01')
              WHERE status <> 'ok'"
        );
        assert_eq!(database.rows(&sql), [[""; 3]; 0], "{what}: {model}");
    }
}

fn load_events(database: &Database<'_>, all: &[Event]) {
    load(database, &all.iter().map(Event::line).collect::<Vec<_>>().join("\n"));
}

fn random_events(random: &mut Random, n: u64) -> Vec<Event> {
    let accounts: Vec<String> = (0..12).map(|n| format!("a{n:02}")).collect();
    let devices: Vec<String> = (0..10).map(|n| format!("d{n:02}")).collect();
    (1..=n)
        .map(|number| {
            // Device 0 sees everybody, the others one to four accounts.
            let device = random.below(10);
            let near =
                if device == 0 { random.below(12) } else { (device + random.below(1 + device % 4)) % 12 };
            let account = random.percent(45).then(|| accounts[near as usize].clone());
            let device = (account.is_none() || random.percent(80)).then(|| devices[device as usize].clone());
            let logout = device.is_some() && random.percent(8);
            Event { number, minute: random.below(5 * 1440) / 7 * 7, account, device, logout }
        })
        .collect()
}

#[test]
fn a_kiosk_belongs_to_whoever_was_there_last_and_a_late_login_changes_that() {
    let database = cluster::shared().database();
    let mut all = vec![
        event(1, 0, "", "kiosk"),
        event(2, 10, "jane", "kiosk"),
        event(3, 20, "", "kiosk"),
        Event { logout: true, ..event(4, 30, "jane", "kiosk") },
        event(5, 40, "", "kiosk"),
        event(6, 1500, "mary", "kiosk"),
        event(7, 1510, "", "kiosk"),
        event(8, 3000, "", "kiosk"),
    ];
    load_events(&database, &all);
    maintain(&database);
    let before = [
        "kiosk jane",
        "jane jane",
        "kiosk jane",
        "jane jane",
        "kiosk kiosk",
        "mary mary",
        "kiosk mary",
        "kiosk mary",
    ];
    assert_eq!(database.column(KNOWN), before);
    // Zoe was there before Mary came, and says so a day later.
    all.push(event(9, 35, "zoe", "kiosk"));
    load_events(&database, &all[8..]);
    maintain(&database);
    let mut after = before.map(str::to_owned).to_vec();
    after[4] = "kiosk zoe".to_owned();
    after.push("zoe zoe".to_owned());
    assert_eq!(database.column(KNOWN), after);
    assert_known(&database, &all, &Said::default(), "with zoe");
    let changes = "SELECT id, was, is_now, from_time = '2026-09-01 00:35+00' FROM identity.changes ORDER BY change_id DESC LIMIT 1";
    assert_eq!(database.rows(changes), [["kiosk", "NULL", "zoe", "t"]]);
    // A login that says nothing new changes nothing.
    let n = database.number("SELECT count(*) FROM identity.changes");
    all.push(event(10, 1505, "mary", "kiosk"));
    load_events(&database, &all[9..]);
    maintain(&database);
    assert_eq!(database.number("SELECT count(*) FROM identity.changes"), n);
    assert_known(&database, &all, &Said::default(), "with mary again");
    let why = database.column("SELECT because FROM identity.explain('kiosk')");
    assert_eq!(why.len(), 4, "{why:?}");
    assert!(why[0].starts_with("login at 2026-09-01 00:10:00"), "{why:?}");
    // Somebody of the shop was at it for an hour.
    let mut client = database.connect();
    client
        .batch_execute(
            "SELECT identity.own_device('kiosk', '2026-09-02 01:05+00', '2026-09-02 02:00+00', NULL, 'repair');
             CALL identity.resolve()",
        )
        .unwrap();
    let said = Said { owners: vec![("kiosk".to_owned(), 1505, 1560, None)], ..Said::default() };
    assert_known(&database, &all, &said, "repaired");
    client
        .batch_execute(
            "SELECT identity.forget_owner('kiosk', '2026-09-02 01:05+00'); CALL identity.resolve()",
        )
        .unwrap();
    assert_known(&database, &all, &Said::default(), "not repaired");
}

#[test]
fn whatever_the_order_of_arrival_everybody_is_who_the_rules_say() {
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        let all = random_events(&mut random, 400);
        let mut said = Said::default();
        for _ in 0..6 {
            let id = |random: &mut Random| format!("a{:02}", random.below(12));
            let (a, b) = (id(&mut random), id(&mut random));
            if a != b {
                said.links.push((a, b));
            }
        }
        said.blocked.insert(("account", format!("a{:02}", random.below(12))));
        said.blocked.insert(("device", format!("d{:02}", 1 + random.below(9))));
        said.owners.push(("d03".to_owned(), 1000, 3000, Some("a11".to_owned())));
        let mut answers = vec![];
        for order in 0..3 {
            let database = cluster::shared().database();
            let mut client = database.connect();
            client.batch_execute("SELECT identity.set_policy(max_accounts_per_person => 4)").unwrap();
            let mut shuffled = all.clone();
            for i in (1..shuffled.len()).rev() {
                shuffled.swap(i, random.below(i as u64 + 1) as usize);
            }
            let mut sayings: Vec<String> = vec![];
            // When a link counts is part of it, and not when it was said.
            for (n, (a, b)) in said.links.iter().enumerate() {
                sayings.push(format!("SELECT identity.link('{a}', '{b}', '2026-09-01 00:00+00'::timestamptz + {n} * interval '1 minute')"));
            }
            for (kind, id) in &said.blocked {
                sayings.push(format!("SELECT identity.block('{kind}', '{id}')"));
            }
            sayings.push(
                "SELECT identity.own_device('d03', '2026-09-01 16:40+00', '2026-09-03 02:00+00', 'a11')"
                    .to_owned(),
            );
            for i in (1..sayings.len()).rev() {
                sayings.swap(i, random.below(i as u64 + 1) as usize);
            }
            let (parts, per) = (1 + order as usize * 2, 400 / (1 + order as usize * 2) + 1);
            for (part, events) in shuffled.chunks(per).enumerate() {
                load_events(&database, events);
                for saying in sayings.iter().skip(part).step_by(parts) {
                    client.batch_execute(saying).unwrap();
                }
                maintain(&database);
            }
            maintain(&database);
            assert_known(&database, &all, &said, &format!("seed {seed}, order {order}"));
            answers.push(database.column(KNOWN));
            let waits = "SELECT waiting_ids, waiting_dates FROM identity.status";
            assert_eq!(database.rows(waits), [["0", "0"]]);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn what_is_taken_back_was_never_there() {
    let database = cluster::shared().database();
    let all = random_events(&mut Random::new(9), 300);
    own_models(&database);
    load_events(&database, &all);
    maintain(&database);
    let before = database.column(KNOWN);
    assert_known(&database, &all, &Said::default(), "nothing said");
    maintain(&database);
    let gold = truth::gold(&database);
    let mut client = database.connect();
    let say = |client: &mut postgres::Client, sql: &str| {
        client
            .batch_execute(&format!("{sql}; CALL identity.resolve()"))
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    };
    say(
        &mut client,
        "SELECT identity.link('a01', 'a02', note => 'one and the same'), identity.link('a02', 'a03')",
    );
    assert_ne!(database.column(KNOWN), before);
    assert_eq!(database.column("SELECT DISTINCT person FROM identity.members").len(), 1);
    let linked = database.value("SELECT identity.person('a03')");
    assert_eq!(
        database.column("SELECT id FROM identity.ids(identity.person('a01')) WHERE kind = 'account'"),
        ["a01", "a02", "a03"]
    );
    assert_eq!(database.value("SELECT account FROM identity.preview_link('a03', 'a04') LIMIT 1"), linked);
    maintain(&database);
    assert_ne!(truth::gold(&database), gold);
    say(&mut client, "SELECT identity.unlink(link_id) FROM identity.links");
    assert_eq!(database.column(KNOWN), before);
    maintain(&database);
    assert_eq!(truth::gold(&database), gold, "byte for byte");
    for (kind, id) in [("account", "a04"), ("device", "d05"), ("account", "a05")] {
        say(&mut client, &format!("SELECT identity.block('{kind}', '{id}')"));
        assert_ne!(database.column(KNOWN), before, "{kind} {id}");
        let said = Said { blocked: BTreeSet::from([(kind, id.to_owned())]), ..Said::default() };
        assert_known(&database, &all, &said, id);
        say(&mut client, &format!("SELECT identity.unblock('{kind}', '{id}')"));
        assert_eq!(database.column(KNOWN), before, "{kind} {id}");
    }
    say(&mut client, "SELECT identity.set_policy(max_accounts_per_device => 1)");
    assert_ne!(database.column(KNOWN), before);
    say(&mut client, "SELECT identity.set_policy()");
    assert_eq!(database.column(KNOWN), before);
    // Events that go, and come again.
    client
        .batch_execute(
            "CREATE TABLE kept AS SELECT * FROM bronze.events WHERE user_id IN ('a01', 'a02', 'a03')",
        )
        .unwrap();
    client
        .batch_execute(
            "DELETE FROM bronze.events WHERE user_id IN ('a01', 'a02', 'a03');
             SELECT tidemark.mark_dirty('bronze.events', ARRAY(SELECT DISTINCT event_date FROM kept))",
        )
        .unwrap();
    maintain(&database);
    let gone = |event: &Event| event.account.as_deref().is_some_and(|id| ["a01", "a02", "a03"].contains(&id));
    let rest: Vec<Event> = all.iter().filter(|event| !gone(event)).cloned().collect();
    assert_known(&database, &rest, &Said::default(), "some gone");
    client
        .batch_execute(
            "DO $$ BEGIN EXECUTE (
                SELECT format('INSERT INTO bronze.events (%1$s) SELECT %1$s FROM kept', string_agg(attname, ', '))
                  FROM pg_attribute
                 WHERE attrelid = 'bronze.events'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped);
             END $$;
             SELECT tidemark.mark_dirty('bronze.events', ARRAY(SELECT DISTINCT event_date FROM kept))",
        )
        .unwrap();
    maintain(&database);
    assert_eq!(database.column(KNOWN), before);
}

#[test]
fn only_the_past_within_the_window_is_the_first_accounts() {
    let database = cluster::shared().database();
    load_events(&database, &[event(1, 0, "", "d"), event(2, 2000, "", "d"), event(3, 3000, "jane", "d")]);
    let mut client = database.connect();
    client.batch_execute("SELECT identity.set_policy(retroactive_window => '1 day')").unwrap();
    maintain(&database);
    assert_eq!(database.column(KNOWN), ["d d", "d jane", "jane jane"]);
    // An earlier login of the same account says something new now.
    load_events(&database, &[event(4, 1000, "jane", "d")]);
    maintain(&database);
    assert_eq!(database.column(KNOWN), ["d jane", "d jane", "jane jane", "jane jane"]);
}

/// A login that is resolved and not committed, and an event of the device on another date that is refreshed meanwhile.
/// Returns who the events are known to be of afterwards, and what `verify_model` finds.
fn refreshed_while_resolved(database: &Database<'_>) -> [Vec<String>; 2] {
    load_events(database, &[event(1, 0, "", "d"), event(2, 10, "jane", "d")]);
    tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
    load_events(database, &[event(3, 20, "mary", "d")]);
    let mut client = database.connect();
    for model in ["silver.events", "identity.device_days"] {
        client.batch_execute(&format!("CALL tidemark.refresh('{model}')")).unwrap();
    }
    let mut open = client.transaction().unwrap();
    open.batch_execute("CALL identity.resolve()").unwrap();
    load_events(database, &[event(4, 1500, "", "d")]);
    // Who refreshes passes over what is locked.
    database.connect().batch_execute("CALL tidemark.refresh()").unwrap();
    open.commit().unwrap();
    maintain(database);
    let differs =
        "SELECT event_date::text FROM tidemark.verify_model('silver.events', '2026-09-01', '2026-09-03')
                    WHERE status <> 'ok'";
    [database.column(KNOWN), database.column(differs)]
}

#[test]
fn what_is_refreshed_while_identity_is_resolved_is_not_missed() {
    let database = cluster::shared().database();
    let known = ["d jane", "jane jane", "mary mary", "d mary"].map(str::to_owned).to_vec();
    assert_eq!(refreshed_while_resolved(&database), [known.clone(), vec![]]);
    // Nor would it be right by chance: without the lock it is not, and nobody would ever notice.
    let database = cluster::shared().database();
    let unlock = r"DO $$ BEGIN EXECUTE replace(pg_get_functiondef('identity.resolve_now'::regproc),
                       'PERFORM tidemark.change_dimension(VARIADIC ARRAY(SELECT identity.places()));', ''); END $$";
    database.connect().batch_execute(unlock).unwrap();
    let wrong = [&known[..3], &["d jane".to_owned()]].concat();
    assert_eq!(refreshed_while_resolved(&database), [wrong, vec!["2026-09-02".to_owned()]]);
}

/// Rows that are known to be another one's before their readers have read them as additions.
#[test]
fn nothing_that_was_added_is_lost_when_it_is_resolved_before_it_is_read() {
    let database = cluster::shared().database();
    own_models(&database);
    let mut all = vec![event(1, 0, "mary", "m"), event(2, 60, "bob", "b"), event(3, 70, "", "d")];
    load_events(&database, &all);
    maintain(&database);
    all.extend([event(4, 120, "jane", "d"), event(5, 130, "", "m")]);
    load_events(&database, &all[3..]);
    database.connect().batch_execute("SELECT identity.link('jane', 'mary', '2026-09-01Z')").unwrap();
    for sql in
        ["CALL tidemark.refresh('silver.events')", "CALL identity.resolve()", "CALL tidemark.refresh()"]
    {
        database.connect().batch_execute(sql).unwrap();
    }
    maintain(&database);
    let said = Said { links: vec![("jane".to_owned(), "mary".to_owned())], ..Said::default() };
    assert_known(&database, &all, &said, "resolved in between");
    let persons = "SELECT active_persons, events FROM gold.daily_actives";
    assert_eq!(database.rows(persons), [["2", "5"]]);
}

#[test]
fn what_is_shared_or_has_no_rows_is_looked_at_again() {
    let database = cluster::shared().database();
    let mut all: Vec<Event> = (1..=6).map(|n| event(n, n + 1440 * (n / 6), &format!("u{n}"), "sh")).collect();
    all.push(event(7, 2880, "", "sh"));
    all.push(event(8, 0, "", "gone"));
    all.push(event(9, 4320, "goneu", "gone"));
    load_events(&database, &all);
    maintain(&database);
    assert_known(&database, &all, &Said::default(), "shared");
    let mut client = database.connect();
    client
        .batch_execute(
            "DELETE FROM bronze.events WHERE user_id IN ('u6', 'goneu');
             SELECT tidemark.mark_dirty('bronze.events', '{2026-09-02,2026-09-04}')",
        )
        .unwrap();
    for sql in ["CALL tidemark.refresh()", "UPDATE identity.resolved SET log_id = -1"] {
        client.batch_execute(sql).unwrap();
    }
    maintain(&database);
    all.retain(|event| ![6, 9].contains(&event.number));
    assert_known(&database, &all, &Said::default(), "no longer");
}

#[test]
fn readers_see_who_is_known_and_who_may_ask_is_told() {
    let database = cluster::shared().database();
    load_events(&database, &[event(1, 0, "jane", "d")]);
    maintain(&database);
    load_events(&database, &[event(2, 10, "", "d")]);
    let mut reader = connect(&database.reader_url());
    let live = "SELECT known_person FROM silver.events_live ORDER BY event_time";
    assert_eq!(rows(&mut reader, live), [["jane"], ["jane"]]);
    database
        .connect()
        .batch_execute(
            "GRANT USAGE ON SCHEMA identity TO e2e_reader;
             GRANT EXECUTE ON FUNCTION identity.person(text, timestamptz), identity.ids(text) TO e2e_reader",
        )
        .unwrap();
    assert_eq!(rows(&mut reader, "SELECT identity.person('d')"), [["jane"]]);
    assert_eq!(rows(&mut reader, "SELECT count(*) FROM identity.ids('jane')"), [["2"]]);
    for sql in [
        "SELECT identity.block('account', 'jane')",
        "SELECT identity.set_policy()",
        "SELECT identity.link('a', 'b')",
    ] {
        assert_eq!(sqlstate(reader.batch_execute(sql)), "42501", "{sql}");
    }
}

#[test]
fn what_is_no_id_is_refused_and_who_may_not_may_not() {
    let database = cluster::shared().database();
    let mut client = database.connect();
    for (sql, state) in [
        ("SELECT identity.link('a', 'a')", "22023"),
        ("SELECT identity.link('a', NULL)", "22004"),
        ("SELECT identity.link('a', 'undefined')", "22023"),
        ("SELECT identity.unlink(7)", "42704"),
        ("SELECT identity.block('person', 'a')", "22023"),
        ("SELECT identity.block(NULL, 'a')", "22023"),
        ("SELECT identity.unblock('account', 'a')", "42704"),
        ("SELECT identity.own_device('d', now(), now())", "22023"),
        ("SELECT identity.own_device('d', NULL, now())", "22004"),
        ("SELECT identity.set_policy(retroactive_window => '3000000 days')", "22023"),
        (
            "SELECT identity.own_device('e', '-infinity', 'infinity'), identity.own_device('e', now(), 'infinity')",
            "23P01",
        ),
        ("SELECT identity.forget_owner('d', now())", "42704"),
        ("SELECT identity.set_policy(0)", "22023"),
        ("SELECT identity.set_policy(5, 1001)", "22023"),
        ("SELECT identity.set_policy(5, 5, '1 month')", "22023"),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT identity.block('account', 'a'); CALL identity.resolve()",
            "25001",
        ),
    ] {
        assert_eq!(sqlstate(client.batch_execute(sql)), state, "{sql}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    // A link of accounts that nobody has, twice, in a circle.
    client
        .batch_execute(
            "SELECT identity.link('x', 'y'), identity.link('y', 'x'), identity.link('y', 'z'), identity.link('z', 'x');
             CALL identity.resolve(); CALL identity.resolve()",
        )
        .unwrap();
    assert_eq!(rows(&mut client, "SELECT DISTINCT person FROM identity.members"), [["x"]]);
    let mut reader = connect(&database.reader_url());
    for sql in [
        "SELECT * FROM identity.owners",
        "SELECT * FROM identity.status",
        "SELECT identity.person('a')",
        "SELECT identity.link('a', 'b')",
        "CALL identity.resolve()",
    ] {
        assert_eq!(sqlstate(reader.batch_execute(sql)), "42501", "{sql}");
    }
    reader.batch_execute("SELECT person, person_as_sent FROM silver.events_known").unwrap();
    let mut loader = connect(&database.loader_url());
    assert_eq!(sqlstate(loader.batch_execute("CALL identity.resolve()")), "42501");
    connect(&database.admin_url())
        .batch_execute("CALL identity.resolve(); SELECT * FROM identity.suspects")
        .unwrap();
}
