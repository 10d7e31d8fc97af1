//! Slowly changing dimensions: what is valid of whom and when follows from the events alone, whatever order they come
//! in, and what reads a dimension follows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, rows, run, sqlstate};
use tidemark_tests::events::id;
use tidemark_tests::random::Random;
use tidemark_tests::wait_until;

mod plain;

use super::warehouse::{load, maintain};

/// What an event says of a trait: nothing, that there is none, or a value.
type Said = Option<Option<&'static str>>;

/// An event that says something of an account.
#[derive(Clone)]
struct Change {
    number: u64,
    minute: u64,
    account: &'static str,
    plan: Said,
    company: Said,
}

impl Change {
    fn time(&self) -> String {
        let (day, hour, minute) = (1 + self.minute / 1440, self.minute / 60 % 24, self.minute % 60);
        format!("2026-09-{day:02} {hour:02}:{minute:02}:00+00")
    }

    /// As one of the systems that send such events does it.
    fn line(&self) -> String {
        let traits = [("plan", self.plan), ("company", self.company)];
        let object = |with_null: bool| {
            let mut members = String::new();
            for (name, said) in traits {
                match said {
                    Some(Some(value)) => write!(members, r#","{name}":"{value}""#).unwrap(),
                    Some(None) if with_null => write!(members, r#","{name}":null"#).unwrap(),
                    _ => {}
                }
            }
            format!("{{{}}}", members.trim_start_matches(','))
        };
        let gone =
            traits.iter().filter(|(_, said)| *said == Some(None)).map(|(name, _)| format!(r#""{name}""#));
        let gone: Vec<String> = gone.collect();
        let gone = gone.join(",");
        // A name is no company.name.
        let comma = if gone.is_empty() { "" } else { "," };
        let what = match self.number % 4 {
            0 => format!(r#""type":"identify","properties":{{}},"traits":{}"#, object(true)),
            1 => format!(
                r#""type":"track","event":"Logged In","properties":{{}},"context":{{"traits":{}}}"#,
                object(true)
            ),
            2 => format!(
                r#""type":"track","event":"$set","properties":{{"$set":{},"$unset":["name"{comma}{gone}]}}"#,
                object(false)
            ),
            _ => {
                let gone = gone.replace(',', r#":"-","#);
                let gone = if gone.is_empty() { gone } else { gone + r#":"-""# };
                format!(
                    r#""type":"track","event":"$identify","event_properties":{{}},"user_properties":{{"$set":{},"$unset":{{{gone}}}}}"#,
                    object(false)
                )
            }
        };
        let time = self.time().replace(' ', "T").replace("+00", "Z");
        format!(
            r#"{{"messageId":"{}","userId":"{}","timestamp":"{time}",{what}}}"#,
            id(self.number),
            self.account
        )
    }
}

/// The versions of each person, one event after the other: person, from, to, plan, company.
fn expected(all: &[Change], person: &dyn Fn(&'static str) -> &'static str) -> Vec<[String; 5]> {
    let mut of: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    all.iter().for_each(|change| of.entry(person(change.account)).or_default().push(change));
    let text = |value: Option<&str>| value.unwrap_or("NULL").to_owned();
    let mut versions: Vec<[String; 5]> = vec![];
    for (who, mut changes) in of {
        changes.sort_by_key(|change| (change.minute, change.number));
        let (mut state, mut last): ((Option<&str>, Option<&str>), Option<usize>) = ((None, None), None);
        for (n, change) in changes.iter().enumerate() {
            state = (change.plan.unwrap_or(state.0), change.company.unwrap_or(state.1));
            let same_instant = changes.get(n + 1).is_some_and(|next| next.minute == change.minute);
            let said = changes[..=n].iter().any(|c| c.plan.is_some() || c.company.is_some());
            if same_instant || !said {
                continue;
            }
            let new = [text(state.0), text(state.1)];
            if last.is_some_and(|last| versions[last][3..] == new) {
                continue;
            }
            if let Some(last) = last {
                versions[last][2] = change.time();
            }
            let [plan, company] = new;
            versions.push([who.to_owned(), change.time(), "infinity".to_owned(), plan, company]);
            last = Some(versions.len() - 1);
        }
    }
    versions
}

fn found(database: &Database<'_>) -> Vec<Vec<String>> {
    database.rows(
        "SELECT person, valid_from, valid_to, plan, company FROM gold.persons ORDER BY person COLLATE \"C\", valid_from",
    )
}

fn some(random: &mut Random, number: u64) -> Change {
    const PLANS: [Said; 6] =
        [None, None, Some(None), Some(Some("free")), Some(Some("plus")), Some(Some("pro"))];
    const COMPANIES: [Said; 4] =
        [None, Some(None), Some(Some("Quay Kitchens")), Some(Some("Pell & Daughters"))];
    Change {
        number,
        // Few of them, so that some are at one time.
        minute: 60 * random.below(48),
        account: random.pick(&["ada", "bob", "cy", "dee"]),
        plan: random.pick(&PLANS),
        company: random.pick(&COMPANIES),
    }
}

#[test]
fn versions_do_not_depend_on_the_order_of_arrival() {
    for seed in 0..3 {
        let random = &mut Random::new(seed);
        let mut all: Vec<Change> = (0..60).map(|n| some(random, n)).collect();
        let expected = expected(&all, &|account| account);
        assert!(expected.len() > 25, "{}", expected.len());
        for parts in [1, 3] {
            let database = cluster::shared().database();
            for part in all.chunks(all.len() / parts) {
                load(&database, &part.iter().map(|c| c.line() + "\n").collect::<String>());
                maintain(&database);
            }
            assert_eq!(found(&database), expected, "seed {seed}, {parts} parts");
            all.sort_by_cached_key(|_| random.bits());
        }
    }
}

#[test]
fn versions_are_those_of_the_person_known_now() {
    let database = cluster::shared().database();
    let random = &mut Random::new(4);
    let all: Vec<Change> = (0..60).map(|n| some(random, n)).collect();
    load(&database, &all.iter().map(|c| c.line() + "\n").collect::<String>());
    maintain(&database);
    let before = found(&database);
    assert_eq!(before, expected(&all, &|account| account));
    let first = |account| all.iter().filter(|c| c.account == account).map(|c| c.minute).min();
    let (kept, gone) = if first("ada") <= first("bob") { ("ada", "bob") } else { ("bob", "ada") };
    let link = database.value("SELECT identity.link('ada', 'bob')");
    maintain(&database);
    assert_eq!(found(&database), expected(&all, &|account| if account == gone { kept } else { account }));
    database.rows(&format!("SELECT identity.unlink({link})"));
    maintain(&database);
    assert_eq!(found(&database), before, "as if nobody had said it");
    // Typed tables follow, too.
    let differ =
        "SELECT count(*) FROM silver.trait_changes AS t JOIN silver.events AS e USING (event_date, event_id)
                   WHERE t.known_person IS DISTINCT FROM e.known_person";
    assert_eq!(database.number(differ), 0);
}

/// Waits until no transaction of the cluster is older than what is there now: until then a table that was just made may have been
/// changed since it was computed, and is computed whole.
fn nobody_older(database: &Database<'_>) {
    let now = database.value("SELECT pg_current_xact_id()");
    let past = format!("SELECT (pg_snapshot_xmin(pg_current_snapshot()) > '{now}'::xid8)::integer");
    wait_until("older transactions to end", std::time::Duration::from_secs(120), || {
        database.number(&past) == 1
    });
}

/// Views of two companies' people, of whom one changes company on the second day.
fn company_events(database: &Database<'_>) -> Client {
    let mut lines = String::new();
    for (number, account, time, company) in [
        (1, "ada", "2026-09-01T08:00:00Z", "Halden Roasters"),
        (2, "bob", "2026-09-01T08:00:00Z", "Ostrea Hotels"),
        (3, "ada", "2026-09-02T08:00:00Z", "Ostrea Hotels"),
    ] {
        writeln!(
            lines,
            r#"{{"messageId":"{}","type":"identify","userId":"{account}","timestamp":"{time}","traits":{{"company":"{company}"}}}}"#,
            id(number)
        )
        .unwrap();
    }
    for (number, account, time, name) in [
        (11, "ada", "2026-09-01T09:00:00Z", "page_viewed"),
        (12, "ada", "2026-09-02T09:00:00Z", "page_viewed"),
        (13, "bob", "2026-09-02T09:30:00Z", "purchase_completed"),
        (14, "bob", "2026-09-03T09:00:00Z", "page_viewed"),
        (15, "ada", "2026-09-03T09:30:00Z", "purchase_completed"),
    ] {
        lines += &super::warehouse::event(number, account, time, name, "{}", "{}");
        lines += "\n";
    }
    load(database, &lines);
    maintain(database);
    let mut admin = connect(&database.admin_url());
    let query = "SELECT e.event_date, e.event_id, e.event_time, e.event_type, e.known_person, p.company
                   FROM silver.events AS e
                   JOIN gold.persons AS p
                     ON p.person = e.known_person AND p.valid_from <= e.event_time AND e.event_time < p.valid_to
                  WHERE e.event_time >= $1::timestamp AT TIME ZONE ''UTC''
                    AND e.event_time < $2::timestamp AT TIME ZONE ''UTC'' AND p.company IS NOT NULL";
    let key = "'{event_date, event_id, known_person}'";
    run(
        &mut admin,
        &format!(
            "SET ROLE tidemark_admin;
             SELECT tidemark.create_model('gold.company_events', '{{silver.events}}', '{query}', {key},
                                          scope => 'known_person', live => true);
             SELECT tidemark.create_model('gold.unscoped', '{{silver.events}}', '{query}', {key});
             SELECT tidemark.create_timeline('gold.companies', 'gold.company_events', person => 'company')"
        ),
    );
    nobody_older(database);
    maintain(database);
    admin
}

const WHOSE: &str = "SELECT company, event_type, count(*) FROM gold.company_events
                      WHERE event_type <> 'identify' GROUP BY 1, 2 ORDER BY 1, 2";

fn verified(database: &Database<'_>) -> Vec<String> {
    database.column(
        "SELECT DISTINCT v.status FROM unnest('{gold.company_events,gold.unscoped,gold.companies}'::text[]) AS m
          CROSS JOIN LATERAL tidemark.verify_model(m, '2026-09-01', '2026-09-03') AS v",
    )
}

#[test]
fn what_reads_a_dimension_follows_it() {
    let database = cluster::shared().database();
    let mut admin = company_events(&database);
    assert_eq!(
        rows(&mut admin, WHOSE),
        [
            ["Halden Roasters", "page_viewed", "1"],
            ["Ostrea Hotels", "page_viewed", "2"],
            ["Ostrea Hotels", "purchase_completed", "2"]
        ]
    );
    // A company goes through a funnel as a person does: whichever of its people does what.
    let funnel =
        "SELECT step, entered FROM tidemark.funnel_report('gold.companies', '2026-09-01', '2026-09-03',
                      '[\"page_viewed\", \"purchase_completed\"]', '2 days') ORDER BY 1";
    let by_rows = "SELECT s.step, count(*) FROM (
                       SELECT cardinality(tidemark.funnel('2 days', event_time, event_type,
                                                          '{page_viewed,purchase_completed}')) AS level
                         FROM gold.company_events GROUP BY company) AS c
                     JOIN generate_series(1, 2) AS s(step) ON s.step <= c.level GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&mut admin, funnel), [["1", "2"], ["2", "1"]]);
    assert_eq!(rows(&mut admin, funnel), rows(&mut admin, by_rows));

    // That she had left already comes late. Only what reads the dimension is computed anew, and as little as can be.
    let last = database.number("SELECT max(id) FROM tidemark.refresh_log");
    let identify = r#"{"messageId":"ID","type":"identify","userId":"ada","timestamp":"2026-09-01T08:30:00Z","traits":{"company":"Wick Bakery"}}"#;
    load(&database, &identify.replace("ID", &id(21)));
    let mut runner = connect(&database.admin_url());
    run(&mut runner, "CALL tidemark.refresh('silver.trait_changes')");
    assert_eq!(
        database.rows(
            "SELECT model FROM tidemark.model_status WHERE dirty_dates > 1 AND model LIKE 'gold.%' ORDER BY 1"
        ),
        [["gold.companies"], ["gold.company_events"], ["gold.unscoped"]]
    );
    assert_eq!(rows(&mut admin, &WHOSE.replace("_events", "_events_live"))[2][0], "Wick Bakery");
    maintain(&database);
    assert_eq!(rows(&mut admin, WHOSE)[0], ["Ostrea Hotels", "page_viewed", "2"]);
    assert_eq!(rows(&mut admin, WHOSE)[2], ["Wick Bakery", "page_viewed", "1"]);
    assert_eq!(
        database.rows(&format!(
            "SELECT DISTINCT way FROM tidemark.refresh_log WHERE id > {last} AND model = 'gold.company_events'"
        )),
        [["scope"]]
    );
    assert_eq!(verified(&database), ["ok"]);

    // Without the event that said it, it was never so.
    run(
        &mut admin,
        &format!(
            "DELETE FROM bronze.events WHERE event_id = '{}';
             SELECT tidemark.mark_dirty('bronze.events', '{{2026-09-01}}')",
            id(21)
        ),
    );
    maintain(&database);
    assert_eq!(rows(&mut admin, WHOSE)[0], ["Halden Roasters", "page_viewed", "1"]);
    assert_eq!(verified(&database), ["ok"]);
}

#[test]
fn a_dimension_of_anything_with_an_id() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    rows(
        &mut admin,
        r#"SELECT silver.create_event_table('group_changes', '{group}',
            '{"company": "text /groupId", "seats": "integer", "rate": "numeric", "since": "date", "unset": "unset"}')"#,
    );
    let create =
        "SELECT gold.create_dimension('companies', 'silver.group_changes', '{seats,rate}', id => 'company')";
    assert_eq!(rows(&mut admin, create), [["gold.companies"]]);
    let group = |number: u64, day: u64, traits: &str| {
        format!(
            r#"{{"messageId":"{}","type":"group","userId":"ada","groupId":"acme","timestamp":"2026-09-{day:02}T08:00:00Z","traits":{traits}}}"#,
            id(number)
        )
    };
    load(
        &database,
        &(group(1, 1, r#"{"seats":3,"rate":1.50}"#) + "\n" + &group(2, 4, r#"{"seats":"many"}"#)),
    );
    load(&database, &(group(3, 3, r#"{"seats":null,"since":"2026-01-31"}"#) + "\n"));
    maintain(&database);
    let versions =
        "SELECT company, valid_from::date, valid_to::date, is_current, seats, rate FROM gold.companies
                     ORDER BY valid_from";
    assert_eq!(
        database.rows(versions),
        [
            ["acme", "2026-09-01", "2026-09-03", "f", "3", "1.50"],
            ["acme", "2026-09-03", "infinity", "t", "NULL", "1.50"]
        ]
    );
    // One column more, for what is there as well; and nothing else can be changed.
    rows(&mut admin, &create.replace("seats,rate", "seats,rate,since"));
    assert_eq!(database.column("SELECT since FROM gold.companies WHERE is_current"), ["2026-01-31"]);
    load(&database, &group(4, 5, r#"{"since":"2026-02-01","seats":9}"#));
    maintain(&database);
    assert_eq!(
        database.rows("SELECT since, seats FROM gold.companies WHERE is_current"),
        [["2026-02-01", "9"]]
    );
    run(
        &mut database.connect(),
        "CREATE SCHEMA w; CREATE TABLE w.theirs (event_id uuid, event_time timestamptz, known_person text, plan text);
         GRANT ALL ON SCHEMA w TO tidemark_admin; GRANT ALL ON w.theirs TO tidemark_admin",
    );
    for (wrong, code) in [
        ("'companies', 'silver.group_changes', '{seats}', 'company'", "22023"),
        ("'companies', 'silver.group_changes', '{seats,rate,since}', 'person'", "42P07"),
        ("'Companies', 'silver.group_changes', '{seats}', 'company'", "22023"),
        ("'others', 'silver.group_changes', '{}', 'company'", "22023"),
        ("'others', 'silver.group_changes', '{seats,seats}', 'company'", "22023"),
        ("'others', 'silver.group_changes', '{unset}', 'company'", "22023"),
        ("'others', 'silver.group_changes', '{company}', 'company'", "22023"),
        ("'others', 'silver.group_changes', '{colour}', 'company'", "42703"),
        ("'others', 'silver.group_changes', '{seats}', 'colour'", "42703"),
        ("'others', 'silver.group_changes', '{seats,NULL}', 'company'", "22004"),
        ("'others', NULL, '{seats}', 'company'", "22004"),
        ("'others', 'silver.group_changes_live', '{seats}', 'company'", "42809"),
        ("'others', 'silver.events', '{country}'", "42809"),
        ("'others', 'w.theirs', '{plan}'", "42501"),
        ("'others', 'silver.group_changes', '{seats}', 'valid_to'", "22023"),
        ("'others', 'silver.group_changes', '{seats}', 'rate'", "42804"),
        ("'sessions', 'silver.group_changes', '{seats}', 'company'", "42P07"),
    ] {
        assert_eq!(
            sqlstate(admin.simple_query(&format!("SELECT gold.create_dimension({wrong})"))),
            code,
            "{wrong}"
        );
    }
    assert_eq!(sqlstate(connect(&database.reader_url()).simple_query(create)), "42501");
    assert_eq!(database.number("SELECT count(*) FROM pg_tables WHERE tablename = 'others'"), 0);
    // A group with a name that nobody can mean says nothing, and stops nobody.
    let long = group(5, 6, r#"{"seats":1}"#).replace("acme", &"g".repeat(3000));
    load(&database, &(long + "\n" + &group(6, 6, r#"{"seats":11}"#)));
    maintain(&database);
    assert_eq!(database.column("SELECT seats FROM gold.companies WHERE is_current"), ["11"]);
    // Without the table there is nothing to keep.
    run(&mut admin, "DROP TABLE gold.companies");
    load(&database, &group(7, 7, r#"{"seats":12}"#));
    maintain(&database);
    rows(&mut admin, create);
    assert_eq!(database.number("SELECT max(seats) FROM gold.companies"), 12);
}

#[test]
fn a_dimension_whose_source_is_gone_keeps_nobody_who_is_erased() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    rows(&mut admin, r#"SELECT silver.create_event_table('said', '{identify}', '{"industry": "text"}')"#);
    let create = "SELECT gold.create_dimension('industries', 'silver.said', '{industry}')";
    rows(&mut admin, create);
    for (number, who) in [(1, "ada"), (2, "bob")] {
        load(
            &database,
            &format!(
                r#"{{"messageId":"{}","type":"identify","userId":"{who}","timestamp":"2026-09-01T08:00:00Z","traits":{{"industry":"food"}}}}"#,
                id(number)
            ),
        );
    }
    maintain(&database);
    let persons = "SELECT person FROM gold.industries ORDER BY 1";
    assert_eq!(database.column(persons), ["ada", "bob"]);
    let taken = |admin: &mut Client, call: &str| {
        let error = admin.batch_execute(call).unwrap_err();
        error.as_db_error().unwrap().hint().unwrap().to_owned()
    };
    let other = "SELECT gold.create_dimension('industries', 'silver.trait_changes', '{plan}')";
    assert_eq!(taken(&mut admin, other), "Choose another name.");
    rows(&mut admin, "SELECT tidemark.drop_model('silver.said', drop_table => true)");
    assert!(taken(&mut admin, other).contains("DROP TABLE gold.industries"));
    rows(&mut admin, "SELECT identity.erase_person('{ada}', false)");
    assert_eq!(database.column(persons), ["bob"]);
}
