//! Rows 1 to 3: the loader is killed, terminated, or loses its connection at a known point of a batch.

use std::time::{Duration, Instant};

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::proxy::Proxy;
use tidemark_tests::run::{Barrier, PATIENCE, Run, Trap, position, remove_traps, set_trap};
use tidemark_tests::wait_until;

use super::{assert_all, lines_of, mixed_file, topic_of};

/// The partition of the second of the two days, which a COPY comes to when the rows of the first are written.
fn second_partition(database: &Database<'_>) -> String {
    database.rows("SELECT tidemark.ensure_partitions('bronze.events', '{2026-09-01,2026-09-02}')");
    database
        .value("SELECT partition FROM tidemark.partitions('bronze.events') WHERE from_date = '2026-09-02'")
}

fn terminate(database: &Database<'_>, pid: i32) {
    assert_eq!(database.value(&format!("SELECT pg_terminate_backend({pid})")), "t");
}

#[test]
fn row_01_killed_at_each_point_of_a_batch() {
    let database = cluster::shared().database();
    let file = mixed_file(12_000);
    let lines = lines_of(&file);
    let topic = topic_of(&file, "1");
    let second = second_partition(&database);
    let mid_copy = format!("LOCK TABLE {second} IN SHARE MODE");
    // (point, what to hold, whether the batch must be committed in the end)
    let points = [
        ("before BEGIN", "ALTER SEQUENCE loader.batch_ids CACHE 1", false),
        ("in the middle of COPY", mid_copy.as_str(), false),
        ("after COPY", "LOCK TABLE loader.dead_letters IN SHARE MODE", false),
        ("before the audit row", "LOCK TABLE loader.batches IN SHARE MODE", false),
        ("after the advance", "trap", false),
        ("during COMMIT, which fails", "trap", false),
        ("during COMMIT, which goes through", "trap", true),
        ("after COMMIT, before Kafka hears of it", "trap", true),
    ];
    for (number, (point, sql, committed)) in points.into_iter().enumerate() {
        let run = Run::new(&database, &topic).group(&number.to_string());
        let mut barrier = if sql == "trap" {
            let after_advance = point == "after the advance";
            set_trap(&database, if after_advance { Trap::AfterAdvance } else { Trap::DuringCommit });
            Barrier::hold_trap(&database)
        } else {
            Barrier::hold(&database, sql)
        };
        let before = position(&database);
        let mut process = run.start();
        let backend = barrier.wait_for_loader(&mut process);
        if point.starts_with("after COMMIT") {
            // Frozen before the answer comes, so it can tell nobody.
            process.signal("STOP");
            barrier.release();
            wait_until("the commit", PATIENCE, || position(&database) > before);
            process.kill_9();
            assert_eq!(broker::shared().committed(&run.group, &topic), 0, "Kafka has heard of it");
        } else {
            process.kill_9();
            // While the statement waits for a lock, Postgres does not notice that the other end is gone.
            if !committed {
                terminate(&database, backend);
            }
            barrier.release();
        }
        database.settle();
        remove_traps(&database);
        let now = position(&database);
        if committed {
            assert!(now > before && now < lines, "{point}: the batch is not committed, position {now}");
        } else {
            assert_eq!(now, before, "{point}: a batch without COMMIT has moved the position");
        }
        assert_first_pass(&database);
    }
    let done = position(&database);
    let counts = Run::new(&database, &topic).group("last").catch_up();
    assert_eq!(counts.read as i64, lines - done, "what was committed is not read again");
    assert_all(&database, &file);
}

#[test]
fn row_02_a_second_sigterm_ends_it_at_once() {
    let database = cluster::shared().database();
    let file = mixed_file(3_000);
    let topic = topic_of(&file, "1");
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.batches IN SHARE MODE");
    let mut process = Run::new(&database, &topic).start();
    barrier.wait_for_loader(&mut process);
    process.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert!(process.is_running(), "it did not wait for its batch: {}", process.errors());
    let asked = Instant::now();
    process.signal("TERM");
    let finished = process.wait();
    assert_eq!(finished.code, Some(75), "{}", finished.stderr);
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    barrier.release();
    database.settle();
    assert_first_pass(&database);
    Run::new(&database, &topic).group("next").catch_up();
    assert_all(&database, &file);
}

#[test]
fn row_02_a_postgres_that_hangs_cannot_hold_a_sigterm_up() {
    let database = cluster::shared().database();
    let file = mixed_file(3_000);
    let topic = topic_of(&file, "1");
    let proxy = Proxy::to(&database.cluster.address);
    let mut run = Run::new(&database, &topic);
    run.url = run.url.replace(&database.cluster.address, &proxy.address);
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.batches IN SHARE MODE");
    let mut process = run.start();
    barrier.wait_for_loader(&mut process);
    // From here on no answer ever comes.
    proxy.silence(true);
    let asked = Instant::now();
    process.signal("TERM");
    let finished = process.wait();
    assert_eq!(finished.code, Some(75), "{}", finished.stderr);
    assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?}", asked.elapsed());
    assert!(finished.stderr.contains("rolled back"), "{}", finished.stderr);
    barrier.release();
    proxy.silence(false);
    proxy.cut();
    database.settle();
    assert_first_pass(&database);
    Run::new(&database, &topic).group("next").catch_up();
    assert_all(&database, &file);
}

#[test]
fn row_03_connections_cut_at_each_point_of_a_batch() {
    let database = cluster::shared().database();
    let file = mixed_file(8_000);
    let topic = topic_of(&file, "1");
    let second = second_partition(&database);
    let mid_copy = format!("LOCK TABLE {second} IN SHARE MODE");
    let run = Run::new(&database, &topic).with(&["--until-caught-up"]);
    let mut barrier = Barrier::hold(&database, &mid_copy);
    let mut process = run.start();
    let backend = barrier.wait_for_loader(&mut process);
    let next = Barrier::hold(&database, "LOCK TABLE loader.dead_letters IN SHARE MODE");
    terminate(&database, backend);
    barrier.release();
    barrier = next;
    let backend = barrier.wait_for_loader(&mut process);
    set_trap(&database, Trap::DuringCommit);
    let next = Barrier::hold_trap(&database);
    terminate(&database, backend);
    barrier.release();
    barrier = next;
    // In the middle of COMMIT: rolled back, and the loader asks.
    let backend = barrier.wait_for_loader(&mut process);
    terminate(&database, backend);
    barrier.release();
    wait_until("the loader to ask", PATIENCE, || process.errors().contains("COMMIT got no answer"));
    let finished = process.wait().ok();
    assert!(!finished.stderr.contains("had gone through"), "{}", finished.stderr);
    assert_eq!(finished.counts().read as i64, lines_of(&file), "what it reports is what it did");
    remove_traps(&database);
    assert_all(&database, &file);
}

#[test]
fn row_03_a_commit_whose_answer_is_lost_counts_once() {
    let database = cluster::shared().database();
    let file = mixed_file(4_000);
    let topic = topic_of(&file, "1");
    let proxy = Proxy::to(&database.cluster.address);
    set_trap(&database, Trap::DuringCommit);
    let mut barrier = Barrier::hold_trap(&database);
    let mut run = Run::new(&database, &topic).with(&["--until-caught-up"]);
    run.url = run.url.replace(&database.cluster.address, &proxy.address);
    let mut process = run.start();
    barrier.wait_for_loader(&mut process);
    proxy.cut();
    wait_until("the loader to ask", PATIENCE, || process.errors().contains("COMMIT got no answer"));
    // It waits for the locks of the commit that still runs.
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(position(&database), 0);
    barrier.release();
    let finished = process.wait().ok();
    assert!(finished.stderr.contains("had gone through"), "{}", finished.stderr);
    assert_eq!(finished.counts().read as i64, lines_of(&file), "a batch was counted twice or not at all");
    remove_traps(&database);
    assert_all(&database, &file);
}
