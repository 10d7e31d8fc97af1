//! A table without dates that a model reads: what may happen while it is changed, and that `change_dimension` prevents it.

use std::thread;
use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{self, Database, rows, run, told};
use tidemark_tests::wait_until;

/// Sales by category of the product; two dates, refreshed.
fn world(database: &Database<'_>) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.sales (event_date date NOT NULL, product int, cents int);
         CREATE TABLE w.products (product int PRIMARY KEY, category text);
         SELECT tidemark.track_changes('w.sales');
         INSERT INTO w.products VALUES (1, 'tea'), (2, 'cups');
         INSERT INTO w.sales VALUES ('2026-01-01', 1, 100), ('2026-01-02', 2, 100);
         SELECT tidemark.create_model('w.revenue', '{w.sales}', 'SELECT s.event_date, p.category, sum(s.cents) AS cents
             FROM w.sales s JOIN w.products p USING (product) WHERE s.event_date >= $1 AND s.event_date < $2 GROUP BY 1, 2',
             '{event_date, category}');
         SELECT tidemark.create_model('w.days', '{w.sales}', 'SELECT event_date, sum(cents) AS cents FROM w.sales
             WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}');
         CALL tidemark.refresh()",
    );
    client
}

/// A product changes its category, and a date with it is loaded and refreshed before that is committed.
fn changed(database: &Database<'_>, beginning: &str, marking: &str) -> String {
    let c = &mut world(database);
    let (changer, loader) = (&mut database.connect(), &mut database.connect());
    run(changer, &format!("BEGIN; {beginning}; UPDATE w.products SET category = 'drinks' WHERE product = 1"));
    run(changer, marking);
    run(loader, "INSERT INTO w.sales VALUES ('2026-01-03', 1, 100); CALL tidemark.refresh()");
    assert_eq!(told(c, "SELECT count(*) FROM w.days"), "3", "other models are refreshed meanwhile");
    run(changer, "COMMIT");
    run(c, "CALL tidemark.refresh()");
    told(c, "SELECT status FROM tidemark.verify_model('w.revenue', '2026-01-01', '2026-01-03')")
}

#[test]
fn no_date_keeps_what_a_dimension_said_before() {
    let cluster = cluster::shared();
    let change = "SELECT tidemark.change_dimension('w.products')";
    let dates = "SELECT tidemark.mark_dirty('w.sales', ARRAY(SELECT DISTINCT event_date FROM w.sales WHERE product = 1))";
    assert_eq!(
        changed(&cluster.empty_database(), "SELECT", dates),
        "ok, ok, different",
        "without the function"
    );
    for mark in [dates, "SELECT tidemark.mark_readers('w.products')"] {
        assert_eq!(changed(&cluster.empty_database(), change, mark), "ok, ok, ok");
    }
}

#[test]
fn only_what_reads_a_dimension_is_marked() {
    let database = cluster::shared().empty_database();
    let c = &mut world(&database);
    let stale = "SELECT m, d FROM unnest('{w.revenue,w.days}'::text[]) AS m,
                   LATERAL unnest(tidemark.stale_dates(m)) AS d ORDER BY 1, 2";
    run(c, "SELECT tidemark.mark_readers('w.products')");
    assert_eq!(rows(c, stale), [["w.revenue", "2026-01-01"], ["w.revenue", "2026-01-02"]]);
    run(c, "CALL tidemark.refresh()");
    run(c, "SELECT tidemark.mark_readers('w.products', '{1}', 'product')");
    assert_eq!(
        rows(c, stale),
        [["w.revenue", "2026-01-01"], ["w.revenue", "2026-01-02"]],
        "it is not scoped"
    );
    run(c, "CALL tidemark.refresh()");
    for nothing in ["'w.sales', ids => '{}', id => 'product'", "'w.revenue'"] {
        run(c, &format!("SELECT tidemark.mark_readers({nothing})"));
        assert_eq!(rows(c, stale), [[""; 2]; 0], "{nothing}");
    }
    for (wrong, code) in [
        ("NULL", "22004"),
        ("0", "42P01"),
        ("'w.products', ids => '{1}'", "22004"),
        ("'w.products', id => 'product'", "22004"),
        ("'w.products', ids => '{1}', id => 'colour'", "42703"),
        (
            "'w.products', ids => ARRAY(SELECT n::text FROM generate_series(0, 100000) AS n), id => 'product'",
            "54000",
        ),
    ] {
        let call = format!("SELECT tidemark.mark_readers({wrong})");
        assert_eq!(cluster::sqlstate(c.batch_execute(&call)), code, "{wrong}");
    }
    // A query that nobody can run any more is nobody's reader, whatever is wrong with it.
    run(
        c,
        "CREATE TABLE w.two (n int);
         SELECT tidemark.create_model('w.ambiguous', '{w.sales}', 'SELECT event_date, product, cents
             FROM w.sales CROSS JOIN w.two WHERE event_date >= $1 AND event_date < $2', '{event_date, product}');
         ALTER TABLE w.two ADD product int",
    );
    assert_eq!(told(c, "SELECT tidemark.change_dimension('w.products', 'w.two')::text"), "{w.revenue}");
    run(
        c,
        "CREATE ROLE marks_no_readers; GRANT ALL ON w.sales TO marks_no_readers; SET ROLE marks_no_readers",
    );
    let refused = c.batch_execute("SELECT tidemark.mark_readers('w.products')");
    assert_eq!(cluster::sqlstate(refused), "42501");
    run(c, "RESET ROLE; DROP OWNED BY marks_no_readers; DROP ROLE marks_no_readers");
}

/// A refresh that is under way has read the old row: its dates must be there to be marked.
#[test]
fn a_change_waits_for_the_refresh_that_reads_what_was_before() {
    let database = cluster::shared().empty_database();
    let c = &mut world(&database);
    let blocker = &mut database.connect();
    run(c, "INSERT INTO w.sales VALUES ('2026-01-03', 1, 100)");
    run(blocker, "BEGIN; LOCK TABLE w.revenue IN SHARE MODE");
    thread::scope(|scope| {
        scope.spawn(|| run(&mut database.connect(), "CALL tidemark.refresh()"));
        let waiting = |what: &str| {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{what}%'
                    AND datname = current_database()"
            );
            wait_until("somebody waits", Duration::from_secs(20), || database.number(&sql) > 0);
        };
        waiting("refresh()");
        scope.spawn(|| {
            run(
                &mut database.connect(),
                "BEGIN; SELECT tidemark.change_dimension('w.products');
                 UPDATE w.products SET category = 'drinks' WHERE product = 1;
                 SELECT tidemark.mark_dirty('w.sales', ARRAY(SELECT DISTINCT event_date FROM w.sales
                                                               JOIN w.revenue USING (event_date) WHERE product = 1));
                 COMMIT",
            );
        });
        waiting("change_dimension");
        run(blocker, "COMMIT");
    });
    run(c, "CALL tidemark.refresh()");
    let status = "SELECT status FROM tidemark.verify_model('w.revenue', '2026-01-01', '2026-01-03')";
    assert_eq!(told(c, status), "ok, ok, ok");
}

#[test]
fn who_may_change_a_dimension() {
    let database = cluster::shared().empty_database();
    let c = &mut world(&database);
    let begin = "SELECT tidemark.change_dimension('w.products')::text";
    assert_eq!(told(c, begin), "{w.revenue}");
    assert_eq!(told(c, "SELECT tidemark.change_dimension('w.revenue')::text"), "{w.revenue}");
    assert_eq!(told(c, "SELECT tidemark.change_dimension('pg_catalog.pg_class')::text"), "{}");
    let refused = |c: &mut Client, sql: &str| cluster::sqlstate(c.batch_execute(sql));
    assert_eq!(
        refused(c, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT tidemark.change_dimension('w.products')"),
        "25001"
    );
    run(c, "ROLLBACK");
    assert_eq!(refused(c, "SELECT tidemark.change_dimension(NULL)"), "22004");
    assert_eq!(refused(c, "SELECT tidemark.change_dimension(0)"), "42P01");
    run(c, "CREATE ROLE changes_no_dimension; SET ROLE changes_no_dimension");
    assert_eq!(refused(c, "SELECT tidemark.change_dimension('pg_catalog.pg_class')"), "42501");
    run(c, "RESET ROLE; DROP ROLE changes_no_dimension");
}
