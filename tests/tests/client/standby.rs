//! A hot standby: everything that reads works there as on the primary, everything that writes says that it cannot.

use std::time::Duration;

use tidemark_tests::cluster::{Cluster, connect, rows, sqlstate};
use tidemark_tests::wait_until;

#[test]
fn a_standby_answers_what_reads_and_refuses_what_writes() {
    let primary = Cluster::start("primary");
    let database = primary.empty_database();
    let run = |sql: &str| database.connect().batch_execute(sql).unwrap();
    run("CREATE EXTENSION tidemark;
             CREATE SCHEMA s;
             CREATE TABLE s.src (event_time timestamptz NOT NULL, event_date date NOT NULL, person text);
             INSERT INTO s.src SELECT t, (t AT TIME ZONE 'UTC')::date, 'p' || i % 7
               FROM generate_series(1, 300) AS i, LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + i * interval '10 min') AS x(t);
             SELECT tidemark.create_model('s.daily', '{s.src}',
                 'SELECT event_date, count(*) AS events FROM s.src WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
                 '{event_date}', live => true)");
    run("CALL tidemark.refresh()");
    run("SELECT tidemark.track_changes('s.src');
             SELECT tidemark.set_watermark_policy('s.src');
             CREATE TABLE s.ev (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('s.ev', retention_days => 30)");
    run("CALL tidemark.run_maintenance()");
    // What the model does not know yet.
    run("INSERT INTO s.src VALUES ('2026-01-02 12:00Z', '2026-01-02', 'late')");
    let standby = primary.standby("standby");
    let mut reader = connect(&standby.url(&database.name));
    assert_eq!(rows(&mut reader, "SELECT pg_is_in_recovery()"), [["t"]]);

    for sql in [
        "SELECT * FROM s.daily ORDER BY 1",
        "SELECT * FROM s.daily_live ORDER BY 1",
        "SELECT tidemark.stale_dates('s.daily')",
        "SELECT model, dirty_dates FROM tidemark.model_status",
        "SELECT source, watermark, marks_set_aside FROM tidemark.source_status",
        "SELECT count(*) FROM tidemark.lateness",
        "SELECT count(*) FROM tidemark.refresh_log",
        "SELECT * FROM tidemark.partition_health",
        "SELECT * FROM tidemark.plan_maintenance()",
        "SELECT * FROM tidemark.partitions('s.ev')",
        "SELECT * FROM tidemark.verify_model('s.daily', '2026-01-01', '2026-01-04')",
        "SELECT tidemark.watermark('s.src')",
        "SELECT tidemark.approx_count_distinct(person), tidemark.session_count(event_time) FROM s.src",
    ] {
        let (here, there) = (rows(&mut reader, sql), database.rows(sql));
        assert!(!there.is_empty() || sql.contains("plan_maintenance"), "{sql}");
        assert_eq!(here, there, "{sql}");
    }
    for sql in [
        "CALL tidemark.refresh()",
        "CALL tidemark.run_maintenance()",
        "CALL tidemark.refresh_materialized_views()",
        "SELECT tidemark.mark_dirty('s.src', '{2026-01-01}')",
        "SELECT tidemark.set_watermark_policy('s.src')",
        "SELECT tidemark.drop_model('s.daily')",
    ] {
        assert_eq!(sqlstate(reader.batch_execute(sql)), "25006", "{sql}");
    }

    // What is marked and refreshed on the primary arrives, and after a promotion the standby does it itself.
    run("CALL tidemark.refresh()");
    let stored = "SELECT events FROM s.daily WHERE event_date = '2026-01-02'";
    let fresh = rows(&mut database.connect(), stored);
    wait_until("the refresh to arrive", Duration::from_secs(30), || rows(&mut reader, stored) == fresh);
    primary.crash();
    rows(&mut reader, "SELECT pg_promote()");
    reader.batch_execute("INSERT INTO s.src VALUES ('2026-01-02 13:00Z', '2026-01-02', 'later')").unwrap();
    reader.batch_execute("CALL tidemark.refresh()").unwrap();
    let more: i64 = fresh[0][0].parse::<i64>().unwrap() + 1;
    assert_eq!(rows(&mut reader, stored), [[more.to_string()]]);
}
