//! Rows 13 to 15: Kafka goes away, moves, is slow, forgets records, or holds records that were taken back.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, Producer};
use tidemark_tests::broker::{self, Broker, Record};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_exact, id, line};
use tidemark_tests::oracle::{assert_first_pass, assert_invariants};
use tidemark_tests::process::Process;
use tidemark_tests::run::{PATIENCE, Run, position, wait_for};
use tidemark_tests::wait_until;

use super::{assert_all, produce};

fn end(process: Process) {
    process.signal("TERM");
    process.wait().ok();
}

/// A line for each number.
fn lines(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|n| line(n, "u", "2026-09-05T10:00:00Z")).collect()
}

fn records(lines: &[String], partition: i32) -> Vec<Record<'_>> {
    lines.iter().map(|l| Record { partition, value: Some(l.as_bytes()), ..Record::default() }).collect()
}

fn ids(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(id).collect()
}

/// A database, and a topic of one partition to load into it.
fn one_partition() -> (Database<'static>, &'static Broker, String) {
    let (broker, topic) = (broker::shared(), broker::shared().topic());
    broker.create_topic(&topic, 1, &[]);
    (cluster::shared().database(), broker, topic)
}

/// A run whose records are not there any more is refused and moves nothing; told to, it goes on with the oldest ones.
/// Returns what the refusal said and what was loaded then.
fn refused_until_told_otherwise(database: &Database<'_>, run: &Run) -> (String, u64) {
    let before = position(database);
    let refused = run.clone().group("fail").with(&["--until-caught-up"]).start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert_eq!(position(database), before);
    let counts = run.clone().group("go").with(&["--on-data-loss", "earliest"]).catch_up();
    (refused.stderr, counts.loaded)
}

const LOADED: &str = "SELECT event_id FROM bronze.events ORDER BY 1";

#[test]
fn row_13_a_broker_that_is_killed_twice_is_waited_for() {
    let broker = Broker::start("broken-kafka");
    let database = cluster::shared().database();
    let file = super::medium_file();
    super::slow_down(&database, 20);
    produce(&file.path, &broker.address, "t", "3");
    // Or librdkafka would look for the broker every ten seconds only.
    let mut run =
        Run::new(&database, "t").batch_rows(500).with(&["--kafka-config", "reconnect.backoff.max.ms=1000"]);
    run.brokers = broker.address.clone();
    let mut process = run.start();
    let lines = file.number("lines") as i64;
    for part in 1..=2 {
        wait_for(&database, &mut process, part * 10_000);
        broker.kill();
        std::thread::sleep(Duration::from_secs(2));
        assert!(process.is_running(), "{}", process.errors());
        broker.start_again();
    }
    wait_for(&database, &mut process, lines);
    end(process);
    assert_all(&database, &file.path);
}

#[test]
fn row_13_leaders_that_move_brokers_that_vanish_and_slow_answers() {
    let mock = MockCluster::new(3).unwrap();
    mock.create_topic("t", 3, 3).unwrap();
    let database = cluster::shared().database();
    let all: Vec<Vec<String>> = (0..3u64).map(|p| lines((0..6_000).map(|n| p * 100_000 + n + 1))).collect();
    let brokers = mock.bootstrap_servers();
    for (partition, lines) in (0..).zip(&all) {
        broker::produce(&brokers, "t", &records(&lines[..3_000], partition));
    }
    // A broker that goes down may owe an answer for ever: librdkafka asks again after a minute, and more than once.
    let mut run =
        Run::new(&database, "t").batch_rows(300).with(&["--kafka-config", "socket.timeout.ms=5000"]);
    run.brokers = brokers.clone();
    let mut process = run.start();
    wait_for(&database, &mut process, 1_000);
    (1..=3).for_each(|b| mock.broker_round_trip_time(b, Duration::from_millis(300)).unwrap());
    for (round, leader) in [2, 3, 1].into_iter().enumerate() {
        (0..3).for_each(|p| mock.partition_leader("t", p, Some(leader)).unwrap());
        std::thread::sleep(Duration::from_millis(700));
        mock.broker_down(leader).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        mock.broker_up(leader).unwrap();
        assert!(process.is_running(), "round {round}: {}", process.errors());
    }
    (1..=3).for_each(|b| mock.broker_round_trip_time(b, Duration::ZERO).unwrap());
    for (partition, lines) in (0..).zip(&all) {
        broker::produce(&brokers, "t", &records(&lines[3_000..], partition));
    }
    wait_for(&database, &mut process, 18_000);
    end(process);
    assert_exact(&database, &events::file(all.concat().join("\n").as_bytes()));
    assert_first_pass(&database);
}

/// librdkafka has deadlocks of its own: brokers that are taken out of a cluster while a partition is validated.
#[test]
fn row_13_a_reading_thread_that_hangs_is_given_up() {
    let (database, broker, topic) = one_partition();
    broker.append_all(&topic, &records(&lines(1..101), 0));
    let run = Run::new(&database, &topic);
    let mut process = run.start();
    wait_for(&database, &mut process, 100);
    let hung = process.hold_threads(&["kafka", "rdk:main"]);
    broker.append_all(&topic, &records(&lines(101..201), 0));
    wait_for(&database, &mut process, 200);
    assert!(process.errors().contains("is given up"), "{}", process.errors());
    // It comes back all the same, and what it says is not listened to.
    drop(hung);
    let finished = process.wait();
    assert_eq!(finished.code, Some(75), "{}", finished.stderr);
    assert!(finished.stderr.contains("came back"), "{}", finished.stderr);
    broker.append_all(&topic, &records(&lines(201..301), 0));
    run.catch_up();
    assert_eq!(database.column(LOADED), ids(1..301));
    assert_invariants(&database);
}

#[test]
fn row_14_records_that_retention_took_are_a_clear_failure_or_a_noted_gap() {
    let (database, broker, topic) = one_partition();
    broker.append_all(&topic, &records(&lines(1..101), 0));
    let run = Run::new(&database, &topic);
    run.catch_up();
    broker.append_all(&topic, &records(&lines(101..201), 0));
    broker.delete_before(&topic, 150);
    assert_eq!(position(&database), 100);
    let (said, loaded) = refused_until_told_otherwise(&database, &run);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("50 records before offset 150"), "{last}");
    assert_eq!(loaded, 50);
    let gap = "SELECT expected, resumed_at, cause FROM loader.offset_gaps";
    assert_eq!(database.rows(gap), [["100", "150", "retention"]]);
    assert_eq!(database.column(LOADED), ids((1..101).chain(151..201)));
    assert_invariants(&database);
}

#[test]
fn row_14_a_recreated_topic_and_another_cluster_are_noticed() {
    let (database, broker, topic) = one_partition();
    broker.append_all(&topic, &records(&lines(1..101), 0));
    let run = Run::new(&database, &topic);
    run.catch_up();

    // The same name at another cluster.
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(&topic, 1, 1).unwrap();
    let mut elsewhere = run.clone().group("elsewhere").with(&["--until-caught-up"]);
    elsewhere.brokers = mock.bootstrap_servers();
    let refused = elsewhere.start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("cluster"), "{}", refused.stderr);

    broker.delete_topic(&topic);
    broker.create_topic(&topic, 1, &[]);
    broker.append_all(&topic, &records(&lines(201..231), 0));
    assert_eq!(position(&database), 100);
    assert_eq!(refused_until_told_otherwise(&database, &run).1, 30);
    let gap = "SELECT expected, resumed_at, cause FROM loader.offset_gaps";
    assert_eq!(database.rows(gap), [["100", "0", "topic_recreated"]]);
    assert_eq!(database.column(LOADED), ids((1..101).chain(201..231)));
    assert_invariants(&database);
}

#[test]
fn row_15_aborted_transactions_are_never_loaded_and_open_ones_are_waited_for() {
    let (database, broker, topic) = one_partition();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("transactional.id", &topic);
    // Kafka must not end the open one, however slow this machine is.
    config.set("transaction.timeout.ms", "600000");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let send = |numbers: std::ops::Range<u64>| {
        for record in records(&lines(numbers), 0) {
            assert!(broker::send(&producer, &topic, &record));
        }
        producer.flush(PATIENCE).unwrap();
    };
    producer.begin_transaction().unwrap();
    send(1..101);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(101..201);
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(201..301);
    // Behind the open transaction, so nobody sees these yet.
    broker.append_all(&topic, &records(&lines(301..401), 0));

    let mut process = Run::new(&database, &topic).start();
    // The marker of the commit has an offset too, and what comes next is not to be seen yet.
    wait_for(&database, &mut process, 100);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(database.column(LOADED), ids(1..101), "records of an open or aborted transaction");
    producer.commit_transaction(PATIENCE).unwrap();
    let count = "SELECT count(*) FROM bronze.events";
    wait_until("the rest", PATIENCE, || database.number(count) == 300);
    producer.begin_transaction().unwrap();
    send(401..501);
    producer.abort_transaction(PATIENCE).unwrap();
    // To the very end, which is a marker: nothing is left to load, so there is no lag.
    wait_for(&database, &mut process, 504);
    end(process);
    let counts = Run::new(&database, &topic).group("end").catch_up();
    assert_eq!((counts.read, counts.loaded), (0, 0));
    assert_eq!(database.column(LOADED), ids((1..101).chain(201..401)));
    assert_eq!(position(&database), broker.records(&topic));
    assert_first_pass(&database);
}

#[test]
fn row_15_holes_of_compaction_leave_no_gap_in_the_ranges() {
    let database = cluster::shared().database();
    let (broker, topic) = (broker::shared(), broker::shared().topic());
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "100"),
    ];
    broker.create_topic(&topic, 1, &settings);
    // Sixty records for each of ten keys; of these only the last ones stay.
    let all = lines(1..601);
    let keys: Vec<String> = (0..600).map(|n| format!("key-{}", n % 10)).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let keyed: Vec<Record<'_>> = all
        .iter()
        .zip(&keys)
        .map(|(line, key)| Record {
            key: Some(key.as_bytes()),
            value: Some(line.as_bytes()),
            unix_millis: now,
            ..Record::default()
        })
        .collect();
    broker.append_all(&topic, &keyed);
    // The segment that is being written is never compacted.
    std::thread::sleep(Duration::from_millis(500));
    let last = lines(9_001..9_002);
    broker.append_all(
        &topic,
        &[Record { key: Some(b"last"), unix_millis: now + 1_000, ..records(&last, 0)[0] }],
    );
    wait_until("Kafka to compact the topic", PATIENCE, || broker.readable(&topic) < 500);
    let left = broker.readable(&topic) as u64;

    let counts = Run::new(&database, &topic).catch_up();
    assert!(counts.loaded <= left && counts.loaded >= 11, "{} of {left}", counts.loaded);
    assert_eq!(position(&database), 601);
    let newest = ids((591..601).chain(9_001..9_002));
    let found = database.column(LOADED);
    assert!(newest.iter().all(|id| found.contains(id)), "{found:?}");
    assert_first_pass(&database);
}

#[test]
fn row_15_a_partition_that_ends_with_nothing_for_us_has_no_lag() {
    let (database, broker, topic) = one_partition();
    let gone = lines(901..903);
    let values: Vec<&[u8]> = gone.iter().map(|line| line.as_bytes()).collect();
    let received = Record::default().unix_millis;
    // Each transaction ends with a marker, which has an offset too. Nothing but what was taken back, before anything
    // else was ever read.
    broker.transaction(&topic, &values, received, false);
    let run = Run::new(&database, &topic);
    let mut process = run.start();
    wait_for(&database, &mut process, 3);
    broker.transaction(&topic, &[lines(1..2)[0].as_bytes()], received, true);
    broker.transaction(&topic, &values, received, false);
    wait_for(&database, &mut process, 8);
    end(process);
    // And after a restart, from a position behind which there is nothing else.
    broker.transaction(&topic, &values, received, false);
    let mut process = run.group("again").start();
    wait_for(&database, &mut process, 11);
    end(process);
    assert_eq!(database.column(LOADED), ids(1..2));
    let read = "SELECT sum(n_read), sum(n_loaded) FROM loader.batches";
    assert_eq!(database.rows(read), [["1", "1"]]);
    assert_first_pass(&database);
}

#[test]
fn row_15_records_are_loaded_whatever_they_are_compressed_with() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    // The broker compresses what comes, so the producer need not know how.
    for (number, codec) in ["gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let topic = broker.topic();
        broker.create_topic(&topic, 1, &[("compression.type", codec)]);
        let from = number as u64 * 1_000 + 1;
        broker.append_all(&topic, &records(&lines(from..from + 500), 0));
        let mut run = Run::new(&database, &topic).with(&["--until-caught-up"]).start();
        let started = std::time::Instant::now();
        while run.is_running() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!run.is_running(), "{codec}: {}", run.errors());
        let counts = run.wait().ok().counts();
        assert_eq!(counts.loaded, 500, "{codec}");
    }
    assert_first_pass(&database);
}
