//! Rows 8 to 12: loaders that are frozen, come back late, come and go, or lose a partition in the middle of a batch.

use std::time::{Duration, Instant};

use tidemark_tests::cluster;
use tidemark_tests::events::Generated;
use tidemark_tests::process::Process;
use tidemark_tests::run::{Barrier, PATIENCE, Run, Trap, position, remove_traps, set_trap, wait_for};
use tidemark_tests::wait_until;

use super::{assert_all, lines_of, medium_file, mixed_file, slow_down, topic_of};

fn end(process: Process) {
    process.signal("TERM");
    process.wait().ok();
}

#[test]
fn row_08_an_heir_waits_for_a_zombie_that_has_advanced_and_goes_on_behind_it() {
    let database = cluster::shared().database();
    let file = mixed_file(4_000);
    let topic = topic_of(&file, "1");
    set_trap(&database, Trap::AfterAdvance);
    let mut barrier = Barrier::hold_trap(&database);
    let mut zombie = Run::new(&database, &topic).start();
    barrier.wait_for_loader(&mut zombie);
    // The zombie's transaction is open and has the row of the position. It is frozen as late as can be: Postgres ends a
    // transaction in which nothing happens for 30 seconds.
    let mut heir = Run::new(&database, &topic).group("heir").start();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                     AND wait_event_type = 'Lock' AND query LIKE '%loader.offsets%' AND pid <> pg_backend_pid()";
    wait_until("the heir to claim", PATIENCE, || database.number(waiting) == 2);
    zombie.signal("STOP");
    barrier.release();
    wait_until("the zombie to have advanced", PATIENCE, || database.number(waiting) == 1);
    assert_eq!(position(&database), 0);
    zombie.signal("CONT");
    wait_for(&database, &mut heir, lines_of(&file));
    let owners = "SELECT count(DISTINCT owner) FROM loader.batches";
    assert_eq!(database.number(owners), 2, "the batch of the zombie came before the claim and counts");
    assert!(heir.errors().contains("partition claimed"), "{}", heir.errors());
    assert!(!heir.errors().contains("offset=0 "), "the heir read it once more: {}", heir.errors());
    end(heir);
    end(zombie);
    remove_traps(&database);
    assert_all(&database, &file);
}

#[test]
fn row_09_a_zombie_that_holds_unique_keys_delays_its_heir_until_its_transaction_times_out() {
    let database = cluster::shared().database();
    let file = mixed_file(3_000);
    let topic = topic_of(&file, "1");
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.batches IN SHARE MODE");
    let mut zombie = Run::new(&database, &topic).start();
    barrier.wait_for_loader(&mut zombie);
    zombie.signal("STOP");
    barrier.release();
    let frozen = Instant::now();
    let mut heir = Run::new(&database, &topic).group("heir").start();
    wait_for(&database, &mut heir, lines_of(&file));
    let waited = frozen.elapsed();
    assert!(waited < Duration::from_secs(60), "the heir waited {waited:?}");
    let heard = heir.errors();
    assert!(heard.contains("55P03"), "the heir never waited for the keys: {heard}");
    // All this time the zombie has not moved; now it finds its connection closed and its partition taken.
    zombie.signal("CONT");
    wait_until("the zombie to notice", PATIENCE, || {
        zombie.errors().contains("claimed our") || zombie.errors().contains("claimed one of our")
    });
    assert_eq!(database.number("SELECT count(DISTINCT owner) FROM loader.batches"), 1);
    end(heir);
    end(zombie);
    assert_all(&database, &file);
}

#[test]
fn row_10_a_claim_that_comes_late_fences_the_right_owner_once_and_both_converge() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 20000 --days 2 --users 300 --seed 51 --malformed 0.003");
    let topic = topic_of(&file.path, "1");
    // Between assignment and claim: the number of the topic is looked up.
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.topics IN ACCESS EXCLUSIVE MODE");
    let run = Run::new(&database, &topic).batch_rows(200);
    let mut late = run.start();
    barrier.wait_for_loader(&mut late);
    late.signal("STOP");
    barrier.release();
    let mut owner = run.start();
    wait_for(&database, &mut owner, 1_000);
    assert_eq!(
        database.number("SELECT max(epoch) FROM loader.offsets"),
        1,
        "the late one has claimed already"
    );
    late.signal("CONT");
    let lines = file.number("lines") as i64;
    wait_until("everything to be loaded", PATIENCE, || {
        assert!(late.is_running() && owner.is_running(), "{}{}", late.errors(), owner.errors());
        position(&database) == lines
    });
    let fenced = |p: &Process| p.errors().matches("another loader has claimed").count();
    let (one, other) = (fenced(&late), fenced(&owner));
    assert!(one + other <= 2, "fenced {one} and {other} times: {}{}", late.errors(), owner.errors());
    assert!(database.number("SELECT max(epoch) FROM loader.offsets") >= 2, "the late claim never came");
    end(late);
    end(owner);
    assert_all(&database, &file.path);
}

#[test]
fn row_11_members_come_and_go_all_the_time() {
    members_come_and_go(&[]);
}

#[test]
fn row_11_members_come_and_go_with_an_eager_strategy() {
    let members = members_come_and_go(&["--kafka-config", "partition.assignment.strategy=range"]);
    // Whoever comes takes everything from everybody: much more is claimed than with the others.
    assert!(members.iter().any(|log| log.matches("partition given up").count() >= 6), "{members:?}");
}

#[test]
fn row_11_members_come_and_go_with_the_brokers_protocol() {
    let members = members_come_and_go(&["--kafka-config", "group.protocol=consumer"]);
    assert!(members.iter().filter(|log| log.contains("partition claimed")).count() >= 3, "{members:?}");
}

/// Has loaders join and leave while a topic is read, and returns what each of them logged.
fn members_come_and_go(more: &[&str]) -> Vec<String> {
    let database = cluster::shared().database();
    let file = medium_file();
    let topic = topic_of(&file.path, "6");
    slow_down(&database, 100);
    let run = Run::new(&database, &topic).batch_rows(150).with(&["--batch-delay-ms", "50"]).with(more);
    let mut logs = Vec::new();
    let mut end = |mut process: Process| {
        process.wait_until_it_listens();
        process.signal("TERM");
        logs.push(process.wait().ok().stderr);
    };
    let mut members = vec![run.start()];
    wait_for(&database, &mut members[0], 1);
    let lines = file.number("lines") as i64;
    let mut changes = 0;
    while position(&database) < lines && changes < 6 {
        members.push(run.start());
        std::thread::sleep(Duration::from_millis(1_500));
        if members.len() > 2 {
            end(members.remove(0));
        }
        changes += 1;
    }
    assert!(changes >= 3, "all was loaded after {changes} changes");
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines);
    members.into_iter().for_each(&mut end);
    assert_all(&database, &file.path);
    logs
}

#[test]
fn row_12_a_partition_that_is_revoked_while_a_copy_runs_is_drained_first() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 30000 --days 2 --users 2000 --seed 52 --malformed 0.003");
    let topic = topic_of(&file.path, "2");
    let lines = file.number("lines") as i64;
    let mut barrier = Barrier::hold(&database, "LOCK TABLE loader.dead_letters IN SHARE MODE");
    let run = Run::new(&database, &topic).batch_rows(2_000);
    let mut first = run.start();
    barrier.wait_for_loader(&mut first);
    let second = run.start();
    // The first one is asked for a partition while its batch waits here.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(database.number("SELECT max(epoch) FROM loader.offsets"), 1, "a partition went undrained");
    let retries = first.errors().matches("not available").count();
    barrier.release();
    wait_until("both to have a partition", PATIENCE, || {
        database.number("SELECT count(DISTINCT owner) FROM loader.offsets") == 2
    });
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines);
    assert_eq!(first.errors().matches("not available").count(), retries, "{}", first.errors());
    assert!(!first.errors().contains("another loader has claimed"), "{}", first.errors());
    end(first);
    end(second);
    assert_all(&database, &file.path);
}
