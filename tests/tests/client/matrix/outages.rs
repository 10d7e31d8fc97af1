//! Rows 3 to 7: Postgres goes away, crashes, is full or refuses. The server of the first tests is one of their own,
//! which they kill one after the other.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidemark_tests::cluster::{self, Cluster, Database};
use tidemark_tests::oracle::{assert_first_pass, assert_invariants};
use tidemark_tests::process::Process;
use tidemark_tests::run::{PATIENCE, Run, position, wait_for};
use tidemark_tests::wait_until;

use super::{assert_all, lines_of, medium_file, mixed_file, produce, slow_down, topic_of};

/// A server that may be killed, one test at a time.
fn victim() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (CLUSTER.get_or_init(|| Cluster::start("victim")), turn)
}

#[test]
fn row_03_postgres_crashes_under_load() {
    let (cluster, _turn) = victim();
    let database = cluster.database();
    let file = medium_file();
    let topic = topic_of(&file.path, "2");
    slow_down(&database, 40);
    let mut process = Run::new(&database, &topic).batch_rows(500).with(&["--until-caught-up"]).start();
    for part in 1..=3 {
        wait_for(&database, &mut process, part * 6_000);
        cluster.crash();
        cluster.start_again();
    }
    let counts = process.wait().ok().counts();
    assert_eq!(counts.read, file.number("lines"));
    assert_all(&database, &file.path);
}

#[test]
fn row_04_postgres_away_for_longer_than_patience_pauses_and_keeps_the_assignment() {
    let (cluster, _turn) = victim();
    let database = cluster.database();
    let file = medium_file();
    let topic = topic_of(&file.path, "2");
    slow_down(&database, 40);
    // A poll interval shorter than the outage: whoever stopped polling would be thrown out of the group.
    let poll = ["--kafka-config", "max.poll.interval.ms=8000", "--until-caught-up"];
    let mut process = Run::new(&database, &topic).batch_rows(500).with(&poll).start();
    wait_for(&database, &mut process, 5_000);
    cluster.stop();
    std::thread::sleep(Duration::from_secs(11));
    assert!(process.is_running(), "{}", process.errors());
    assert!(process.errors().contains("paused"), "{}", process.errors());
    let peak = process.peak_memory();
    // Two batches waiting, one being filled, one being encoded, and librdkafka's queue of 64 MiB.
    assert!(peak < 300, "{peak} MiB while Postgres was away");
    cluster.start_again();
    let finished = process.wait().ok();
    assert_eq!(finished.counts().read, file.number("lines"));
    assert_eq!(database.number("SELECT max(epoch) FROM loader.offsets"), 1, "{}", finished.stderr);
    assert_all(&database, &file.path);
}

#[test]
fn row_05_commits_that_a_crash_takes_back_are_loaded_again() {
    let (cluster, _turn) = victim();
    let database = cluster.database();
    let file = medium_file();
    let topic = topic_of(&file.path, "2");
    slow_down(&database, 80);
    let mut run = Run::new(&database, &topic).batch_rows(300).with(&["--until-caught-up"]);
    run.url = format!("{}?options=-c%20synchronous_commit%3Doff", run.url);
    let mut process = run.start();
    for part in 1..=4 {
        // On a slow machine the loader may have ended before anybody looks.
        wait_until("the loader to get on", PATIENCE, || {
            position(&database) >= part * 6_000 || !process.is_running()
        });
        if !process.is_running() {
            break;
        }
        cluster.crash();
        cluster.start_again();
        // Rows and positions went together.
        assert_invariants(&database);
    }
    let finished = process.wait().ok();
    let told = finished.stderr.matches("lost what it had committed").count();
    println!("{told} of 4 crashes took commits back");
    assert!(told > 0, "no crash took anything back: {}", finished.stderr);
    assert!(!finished.stderr.contains("another loader has claimed"), "{}", finished.stderr);
    // The last crash may have come when the loader had ended, and taken its last commits back, positions and all. So
    // whoever starts it again, as a supervisor would, finds everything.
    run.start().wait().ok();
    assert_all(&database, &file.path);
}

/// Breaks something under a running loader, which must go on waiting, and mends it.
fn outage(database: &Database<'_>, process: &mut Process, sqlstate: &str, broken: &str, mended: &str) {
    let before = position(database);
    let mut client = database.cluster.connect("postgres");
    let run = |client: &mut postgres::Client, sql: &str| {
        for statement in sql.split(';') {
            client.batch_execute(statement).unwrap_or_else(|e| panic!("{e:?}: {statement}"));
        }
    };
    let told = process.errors().matches(sqlstate).count();
    run(&mut client, &broken.replace("DB", &database.name));
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'tidemark'",
        database.name
    );
    client.batch_execute(&cut).unwrap();
    wait_until("two attempts in vain", PATIENCE, || {
        assert!(process.is_running(), "{sqlstate}: {}", process.errors());
        process.errors().matches(sqlstate).count() >= told + 2
    });
    let during = position(database);
    run(&mut client, &mended.replace("DB", &database.name));
    // Read-only is a default of new sessions.
    client.batch_execute(&cut).unwrap();
    wait_until("the loader to get on", PATIENCE, || position(database) > during.max(before));
}

#[test]
fn row_06_infrastructure_errors_are_waited_out_and_nothing_becomes_a_dead_letter() {
    let database = cluster::shared().database();
    let file = medium_file();
    let topic = topic_of(&file.path, "2");
    slow_down(&database, 40);
    let mut process = Run::new(&database, &topic).batch_rows(200).with(&["--until-caught-up"]).start();
    wait_for(&database, &mut process, 500);
    let full = "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END$$";
    database.connect().batch_execute(full).unwrap();
    let mut client = database.connect();
    // Too many connections, and a server that lets nobody write, for real.
    let none = "ALTER DATABASE DB CONNECTION LIMIT 0";
    outage(&database, &mut process, "53300", none, "ALTER DATABASE DB CONNECTION LIMIT -1");
    let read_only = "ALTER DATABASE DB SET default_transaction_read_only = on";
    outage(
        &database,
        &mut process,
        "25006",
        read_only,
        "ALTER DATABASE DB RESET default_transaction_read_only",
    );
    // A full disk, as the loader sees it: at the rows, and at the position.
    for table in ["bronze.events", "loader.batches"] {
        let before = position(&database);
        let told = process.errors().matches("53100").count();
        let create =
            format!("CREATE TRIGGER full_disk AFTER INSERT ON {table} EXECUTE FUNCTION public.full_disk()");
        client.batch_execute(&create).unwrap();
        wait_until("two attempts in vain", PATIENCE, || {
            assert!(process.is_running(), "{}", process.errors());
            process.errors().matches("53100").count() >= told + 2
        });
        client.batch_execute(&format!("DROP TRIGGER full_disk ON {table}")).unwrap();
        wait_until("the loader to get on", PATIENCE, || position(&database) > before);
    }
    let finished = process.wait().ok();
    assert_eq!(finished.counts().read, file.number("lines"));
    assert_eq!(finished.counts().dead, file.number("malformed"));
    assert_all(&database, &file.path);
}

#[test]
fn row_07_what_waiting_would_not_cure_stops_the_loader_and_moves_nothing() {
    let database = cluster::shared().database();
    let first = mixed_file(1_000);
    let topic = topic_of(&first, "1");
    let faults = [
        (
            77,
            "REVOKE INSERT ON bronze.events FROM tidemark_loader",
            "GRANT INSERT ON bronze.events TO tidemark_loader",
        ),
        (
            78,
            "ALTER TABLE loader.dead_letters RENAME COLUMN reason TO cause",
            "ALTER TABLE loader.dead_letters RENAME COLUMN cause TO reason",
        ),
        (
            78,
            "ALTER TABLE loader.batch_ranges RENAME TO ranges",
            "ALTER TABLE loader.ranges RENAME TO batch_ranges",
        ),
        (
            78,
            "ALTER TABLE bronze.events RENAME COLUMN user_id TO who",
            "ALTER TABLE bronze.events RENAME COLUMN who TO user_id",
        ),
    ];
    let mut wanted = lines_of(&first);
    let mut content = std::fs::read(&first).unwrap();
    for (number, (code, broken, mended)) in faults.into_iter().enumerate() {
        let mut process = Run::new(&database, &topic).group(&number.to_string()).start();
        wait_for(&database, &mut process, wanted);
        database.connect().batch_execute(broken).unwrap();
        let text = String::from_utf8(std::fs::read(mixed_file(300)).unwrap()).unwrap();
        let text = text.replace("00000000-0000-4000-8000", &format!("00000000-0000-4000-800{}", number + 1));
        let more = tidemark_tests::events::file(text.as_bytes());
        produce(&more, &tidemark_tests::broker::shared().address, &topic, "1");
        let finished = process.wait();
        assert_eq!(finished.code, Some(code), "{broken}: {}", finished.stderr);
        assert_eq!(position(&database), wanted, "{broken}: the position moved");
        database.connect().batch_execute(mended).unwrap();
        assert_first_pass(&database);
        wanted += 300;
        content.extend(text.into_bytes());
    }
    Run::new(&database, &topic).group("last").catch_up();
    assert_eq!(position(&database), wanted);
    assert_all(&database, &tidemark_tests::events::file(&content));
}
