//! Dimensions of a table that no refresh writes: several writers at once, and models that read one in many ways.

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, run, sqlstate};
use tidemark_tests::wait_until;

use super::nobody_older;

/// A table of events that no refresh writes, of tidemark_admin, with a dimension and models that read it in many ways.
fn plain(database: &Database<'_>) -> Client {
    let mut admin = connect(&database.admin_url());
    run(
        &mut admin,
        "SET ROLE tidemark_admin;
         CREATE TABLE gold.said (event_id uuid DEFAULT gen_random_uuid(), event_time timestamptz, known_person text,
                                 plan text, unset text);
         CREATE TABLE gold.happened (event_date date NOT NULL, event_id uuid, event_time timestamptz, known_person text,
                                     inviter text);
         INSERT INTO gold.happened SELECT (t AT TIME ZONE 'UTC')::date, gen_random_uuid(), t, who, inviter
           FROM generate_series(timestamptz '2026-09-01 12:00Z', '2026-09-03 12:00Z', '1 day') AS t,
                (VALUES ('ada', NULL), ('bob', 'ada')) AS w(who, inviter);
         SELECT gold.create_dimension('plans', 'gold.said', '{plan}')",
    );
    let as_of = "p.valid_from <= e.event_time AND e.event_time < p.valid_to";
    for (name, joined, scope) in [
        ("by_scope", format!("LEFT JOIN gold.plans AS p ON p.person = e.known_person AND {as_of}"), true),
        ("by_inviter", format!("LEFT JOIN gold.plans AS p ON p.person = e.inviter AND {as_of}"), true),
        ("by_now", "LEFT JOIN gold.plans AS p ON p.person = e.known_person AND p.is_current".to_owned(), false),
        (
            "by_sum",
            "LEFT JOIN gold.plans AS q ON q.person = e.known_person AND q.is_current
             LEFT JOIN (SELECT plan AS of, count(*)::text AS plan FROM gold.plans WHERE is_current GROUP BY 1) AS p
                ON p.of = q.plan"
                .to_owned(),
            true,
        ),
    ] {
        let scope = if scope { ", scope => 'known_person'" } else { "" };
        run(
            &mut admin,
            &format!(
                "SELECT tidemark.create_model('gold.{name}', '{{gold.happened}}', $$
                     SELECT e.event_date, e.event_id, e.known_person, p.plan FROM gold.happened AS e {joined}
                      WHERE e.event_date >= $1 AND e.event_date < $2$$, '{{event_date, event_id, known_person}}'{scope})"
            ),
        );
    }
    nobody_older(database);
    run(&mut admin, "CALL tidemark.refresh()");
    admin
}

fn wrong_models(database: &Database<'_>) -> Vec<Vec<String>> {
    database.rows(
        "SELECT m, v.event_date, v.status FROM unnest('{gold.by_scope,gold.by_inviter,gold.by_now,gold.by_sum}'::text[]) AS m
          CROSS JOIN LATERAL tidemark.verify_model(m, '2026-09-01', '2026-09-03') AS v WHERE v.status <> 'ok'",
    )
}

#[test]
fn however_a_model_reads_a_dimension_it_follows() {
    let database = cluster::shared().database();
    let mut admin = plain(&database);
    let say =
        |values: &str| format!("INSERT INTO gold.said (event_time, known_person, plan) VALUES {values}");
    for (statement, versions) in [
        (say("('2026-09-01Z', 'ada', 'free')"), 1),
        (say("('2026-09-02Z', 'bob', 'free'), ('2026-09-03Z', 'ada', 'plus')"), 3),
        (say("('2026-08-01Z', 'ada', 'pro')"), 4),
        ("UPDATE gold.said SET known_person = 'bob' WHERE plan = 'pro'".to_owned(), 4),
        (
            say(
                "('infinity', 'ada', 'x'), ('-infinity', 'ada', 'x'), (NULL, 'ada', 'x'), ('2026-09-01Z', NULL, 'x')",
            ),
            4,
        ),
        ("DELETE FROM gold.said WHERE plan = 'plus'".to_owned(), 3),
        ("TRUNCATE gold.said".to_owned(), 0),
    ] {
        run(&mut admin, &statement);
        assert_eq!(database.number("SELECT count(*) FROM gold.plans"), versions, "{statement}");
        run(&mut admin, "CALL tidemark.refresh()");
        assert_eq!(wrong_models(&database), [[""; 3]; 0], "{statement}");
    }
    // Only who is scoped by the id that it compares is computed by person.
    run(&mut admin, &say("('2026-09-02Z', 'ada', 'free')"));
    let last = database.number("SELECT max(id) FROM tidemark.refresh_log");
    run(&mut admin, "CALL tidemark.refresh()");
    let ways = format!("SELECT DISTINCT model, way FROM tidemark.refresh_log WHERE id > {last} ORDER BY 1");
    assert_eq!(
        database.rows(&ways),
        [
            ["gold.by_inviter", "recompute"],
            ["gold.by_now", "recompute"],
            ["gold.by_scope", "scope"],
            ["gold.by_sum", "recompute"]
        ]
    );
    // What no trigger saw is put right by making it again, and read again by who reads it.
    run(
        &mut admin,
        "ALTER TABLE gold.said DISABLE TRIGGER USER; DELETE FROM gold.said; ALTER TABLE gold.said ENABLE TRIGGER USER;
         SELECT gold.create_dimension('plans', 'gold.said', '{plan}')",
    );
    run(&mut admin, "CALL tidemark.refresh()");
    assert_eq!(database.number("SELECT count(*) FROM gold.plans"), 0);
    assert_eq!(wrong_models(&database), [[""; 3]; 0]);
    let another = "SELECT gold.create_dimension('others', 'gold.said', '{plan}')".to_owned();
    for isolated in [another, say("('2026-09-01Z', 'ada', 'free')")] {
        run(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(sqlstate(admin.batch_execute(&isolated)), "25001");
        run(&mut admin, "ROLLBACK");
    }
}

/// Each would find what the other wrote only later: the second one waits.
#[test]
fn two_who_write_of_one_person_at_once_leave_one_history() {
    let database = cluster::shared().database();
    let mut admin = plain(&database);
    let say = |day: u64, plan: &str| {
        format!(
            "INSERT INTO gold.said (event_time, known_person, plan) VALUES ('2026-09-0{day}Z', 'ada', '{plan}')"
        )
    };
    run(&mut admin, &say(1, "A"));
    run(&mut admin, &format!("BEGIN; {}", say(3, "C")));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| run(&mut database.connect(), &say(2, "B")));
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO gold.said%'";
        wait_until("the second one waits", std::time::Duration::from_secs(20), || {
            database.number(waiting) > 0
        });
        run(&mut admin, "COMMIT");
        second.join().unwrap();
    });
    assert_eq!(
        database.rows("SELECT plan, valid_from::date, valid_to::date FROM gold.plans ORDER BY valid_from"),
        [
            ["A", "2026-09-01", "2026-09-02"],
            ["B", "2026-09-02", "2026-09-03"],
            ["C", "2026-09-03", "infinity"]
        ]
    );
    run(&mut admin, "CALL tidemark.refresh()");
    assert_eq!(wrong_models(&database), [[""; 3]; 0]);
}
