//! Several lanes in one loader: each has transactions of its own, none holds the others up for long, and whatever
//! happens to one of them or to all, every record ends exactly once in Postgres.

use std::time::Duration;

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database, rows};
use tidemark_tests::events::{self, Generated};
use tidemark_tests::http::{get, metric};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::process::Process;
use tidemark_tests::run::{Barrier, PATIENCE, Run, position, wait_for};
use tidemark_tests::{free_port, wait_until};

use crate::matrix::{assert_all, lines_of, medium_file, mixed_file, produce, slow_down, topic_of};

const BOOKS: &str = "LOCK TABLE loader.batches IN SHARE MODE";

fn end(process: Process) {
    process.signal("TERM");
    process.wait().ok();
}

/// Backends of loaders that wait for a lock.
fn waiting(database: &Database<'_>) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'tidemark' AND wait_event_type = 'Lock'";
    database.column(sql).iter().map(|pid| pid.parse().unwrap()).collect()
}

fn wait_for_waiting(database: &Database<'_>, process: &mut Process, n: usize) -> Vec<i32> {
    let mut found = Vec::new();
    wait_until(&format!("{n} lanes to come to the barrier"), PATIENCE, || {
        assert!(process.is_running(), "the loader ended: {}", process.errors());
        found = waiting(database);
        found.len() == n
    });
    found
}

fn terminate(database: &Database<'_>, pid: i32) {
    assert_eq!(database.value(&format!("SELECT pg_terminate_backend({pid})")), "t");
}

/// Position of each partition.
fn positions(database: &Database<'_>) -> Vec<i64> {
    let sql = "SELECT next_offset FROM loader.offsets ORDER BY partition";
    database.column(sql).iter().map(|n| n.parse().unwrap()).collect()
}

#[test]
fn each_lane_has_a_transaction_and_retries_of_its_own() {
    let database = cluster::shared().database();
    let file = mixed_file(8_000);
    let topic = topic_of(&file, "4");
    let address = format!("127.0.0.1:{}", free_port());
    let barrier = Barrier::hold(&database, BOOKS);
    let run = Run::new(&database, &topic).batch_rows(400).with(&["--lanes", "3", "--listen", &address]);
    let mut process = run.start();
    let backends = wait_for_waiting(&database, &mut process, 3);

    let status: serde_json::Value = serde_json::from_str(&get(&address, "/status").body).expect("JSON");
    let of = |what: &str| -> Vec<u64> {
        status["lanes"].as_array().unwrap().iter().map(|lane| lane[what].as_u64().unwrap()).collect()
    };
    assert_eq!(of("partitions"), [2, 1, 1], "{status:#}");
    assert!(of("batches_in_flight").iter().all(|n| *n >= 1), "{status:#}");
    assert!(of("buffer_bytes").iter().all(|n| *n > 0), "{status:#}");

    // One loses its connection: it begins its batch anew, the other two stay where they are.
    terminate(&database, backends[0]);
    wait_until("the lane to come back", PATIENCE, || {
        let now = waiting(&database);
        now.len() == 3 && !now.contains(&backends[0])
    });
    let now = waiting(&database);
    assert!(backends[1..].iter().all(|pid| now.contains(pid)), "{backends:?} became {now:?}");
    assert_eq!(process.errors().matches("cannot write a batch").count(), 1, "{}", process.errors());
    assert_eq!(position(&database), 0);
    barrier.release();
    wait_for(&database, &mut process, lines_of(&file));
    for lane in 0..3 {
        let name = format!("tidemark_loader_lane_last_commit_timestamp_seconds{{lane=\"{lane}\"}}");
        wait_until("each lane to have committed", PATIENCE, || {
            metric(&address, &name).is_some_and(|t| t > 0.0)
        });
    }
    wait_until("nothing to be in memory", PATIENCE, || {
        metric(&address, "tidemark_loader_buffer_bytes") == Some(0.0)
    });
    assert_eq!(database.number("SELECT max(epoch) FROM loader.offsets"), 1, "nothing was claimed anew");
    end(process);
    assert_all(&database, &file);
}

#[test]
fn a_lane_that_is_stuck_holds_the_others_up_for_seconds_only() {
    let database = cluster::shared().database();
    let file = mixed_file(12_000);
    let topic = topic_of(&file, "4");
    let address = format!("127.0.0.1:{}", free_port());
    let run = Run::new(&database, &topic).batch_rows(100).with(&["--lanes", "4", "--listen", &address]);
    // Claims the partitions and loads nothing of them.
    let barrier = Barrier::hold(&database, BOOKS);
    let mut process = run.start();
    wait_for_waiting(&database, &mut process, 4);
    let stuck = Barrier::hold(&database, "SELECT FROM loader.offsets WHERE partition = 2 FOR UPDATE");
    barrier.release();
    let ends: Vec<i64> = broker::shared().ends(&topic).into_iter().map(|(_, end)| end).collect();
    assert!(ends.iter().all(|end| *end > 1_000), "{ends:?}: one that is stuck would not fill its lane");
    wait_until("the others to come to their ends", PATIENCE, || {
        assert!(process.is_running(), "the loader ended: {}", process.errors());
        let now = positions(&database);
        (0..4).all(|p| p == 2 || now[p] == ends[p])
    });
    assert_eq!(positions(&database)[2], 0);
    let paused =
        |lane: usize| metric(&address, &format!("tidemark_loader_lane_reading_paused{{lane=\"{lane}\"}}"));
    wait_until("its partition to be paused", PATIENCE, || {
        (0..4).filter(|l| paused(*l) == Some(1.0)).count() == 1
    });
    assert_eq!((0..4).filter(|lane| paused(*lane) == Some(0.0)).count(), 3);
    assert_eq!(get(&address, "/healthz").status, 200);
    stuck.release();
    wait_for(&database, &mut process, lines_of(&file));
    wait_until("reading to go on", PATIENCE, || {
        metric(&address, "tidemark_loader_reading_paused") == Some(0.0)
    });
    assert!(process.errors().contains("reading resumed"), "{}", process.errors());
    end(process);
    assert_all(&database, &file);
}

#[test]
fn killed_cut_off_and_joined_by_another_loader_with_lanes() {
    let database = cluster::shared().database();
    let file = medium_file();
    let lines = file.number("lines") as i64;
    // The second half comes when there are two loaders.
    let content = std::fs::read(&file.path).unwrap();
    let half = content.len() / 2;
    let half = half + content[half..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let topic = topic_of(&events::file(&content[..half]), "4");
    slow_down(&database, 100);
    let run = Run::new(&database, &topic).batch_rows(250).with(&["--lanes", "3"]);
    let mut first = run.start();
    wait_for(&database, &mut first, 4_000);
    first.kill_9();
    database.settle();
    assert_first_pass(&database);

    let run = run.group("next");
    let mut second = run.start();
    let busy = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'tidemark' AND backend_xid IS NOT NULL";
    let mut client = database.connect();
    for part in 2..=4 {
        wait_for(&database, &mut second, part * 3_000);
        let mut cut = false;
        wait_until("a lane with a transaction to be cut off", PATIENCE, || {
            if let Some(pid) = rows(&mut client, busy).first().map(|row| row[0].clone()) {
                cut = database.value(&format!("SELECT pg_terminate_backend({pid})")) == "t";
            }
            cut
        });
    }
    // Two processes, six lanes, four partitions.
    let mut third = run.start();
    wait_until("both to have partitions", PATIENCE, || {
        assert!(second.is_running() && third.is_running(), "{}{}", second.errors(), third.errors());
        database.number("SELECT count(DISTINCT owner) FROM loader.offsets") == 2
    });
    produce(&events::file(&content[half..]), &broker::shared().address, &topic, "4");
    wait_until("both to have loaded something", PATIENCE, || {
        database.number("SELECT count(DISTINCT owner) FROM loader.batches") == 3
    });
    // The one leaves in the middle of it, the other takes its partitions into its lanes.
    end(second);
    wait_for(&database, &mut third, lines);
    end(third);
    assert!(database.number("SELECT max(epoch) FROM loader.offsets") >= 3);
    assert_all(&database, &file.path);
}

#[test]
fn members_with_different_numbers_of_lanes_come_and_go() {
    let database = cluster::shared().database();
    let file =
        Generated::new("--events 30000 --days 3 --users 900 --seed 77 --malformed 0.003 --duplicates 0.02");
    let topic = topic_of(&file.path, "6");
    let lines = file.number("lines") as i64;
    slow_down(&database, 300);
    let run = Run::new(&database, &topic).batch_rows(150).with(&["--batch-delay-ms", "50"]);
    let mut members = Vec::new();
    let mut changes = 0;
    while position(&database) < lines && changes < 6 {
        let lanes = ["1", "4", "2"][changes % 3];
        let member = run.clone().with(&["--lanes", lanes]).start();
        wait_until("it to get partitions", PATIENCE, || member.errors().contains("partition claimed"));
        members.push(member);
        if members.len() > 2 {
            end(members.remove(0));
        }
        changes += 1;
    }
    assert!(changes >= 2, "all was loaded before anybody else came");
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines);
    members.into_iter().for_each(end);
    assert_all(&database, &file.path);
}

#[test]
fn sigterm_waits_for_the_batches_of_all_lanes() {
    let database = cluster::shared().database();
    let file = mixed_file(6_000);
    let topic = topic_of(&file, "3");
    let barrier = Barrier::hold(&database, BOOKS);
    let mut process = Run::new(&database, &topic).batch_rows(200).with(&["--lanes", "3"]).start();
    wait_for_waiting(&database, &mut process, 3);
    process.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert!(process.is_running(), "it did not wait: {}", process.errors());
    barrier.release();
    let finished = process.wait().ok();
    let now = positions(&database);
    assert!(now.len() == 3 && now.iter().all(|n| *n >= 200), "a lane did not finish: {now:?}");
    assert_eq!(finished.counts().read as i64, position(&database));
    assert_first_pass(&database);
    let counts = Run::new(&database, &topic).group("next").with(&["--lanes", "2"]).catch_up();
    assert_eq!(counts.read as i64, lines_of(&file) - now.iter().sum::<i64>(), "read once more");
    assert_all(&database, &file);
}

#[test]
fn an_owner_that_comes_back_late_commits_nothing_in_any_lane() {
    let database = cluster::shared().database();
    let file = mixed_file(9_000);
    let topic = topic_of(&file, "3");
    let barrier = Barrier::hold(&database, BOOKS);
    let run = Run::new(&database, &topic).batch_rows(300).with(&["--lanes", "3"]);
    let mut zombie = run.start();
    let backends = wait_for_waiting(&database, &mut zombie, 3);
    zombie.signal("STOP");
    // Its transactions must be gone, or its heir waits for their keys.
    backends.iter().for_each(|pid| terminate(&database, *pid));
    barrier.release();
    let mut heir = run.clone().group("heir").start();
    wait_for(&database, &mut heir, 3_000);
    zombie.signal("CONT");
    wait_until("the zombie to notice", PATIENCE, || zombie.errors().contains("claimed one of our"));
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines_of(&file));
    end(zombie);
    end(heir);
    assert_all(&database, &file);
}
