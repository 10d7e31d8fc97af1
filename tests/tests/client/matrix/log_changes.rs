//! Row 14: the log is not the one our position was in. A topic made anew, a log cut and filled again, a position that
//! the log does not reach: with a loader that is down meanwhile and with one that runs, under each policy.

use std::time::Duration;

use tidemark_tests::broker::{self, Broker, Record};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{id, line};
use tidemark_tests::oracle::assert_invariants;
use tidemark_tests::process::{Process, tidemark};
use tidemark_tests::run::{PATIENCE, Run, position, wait_for};
use tidemark_tests::wait_until;

const POLICIES: [&str; 3] = ["fail", "earliest", "latest"];

const GAPS: &str = "SELECT expected, resumed_at, cause FROM loader.offset_gaps ORDER BY gap_id";

fn append(broker: &Broker, topic: &str, numbers: std::ops::Range<u64>) {
    let lines: Vec<String> = numbers.map(|n| line(n, "u", "2026-09-05T10:00:00Z")).collect();
    let records = lines.iter().map(|l| Record { value: Some(l.as_bytes()), ..Record::default() });
    broker.append_all(topic, &records.collect::<Vec<_>>());
}

/// The exact set of events, each of them once.
fn assert_loaded(database: &Database<'_>, numbers: impl Iterator<Item = u64>, what: &str) {
    let expected: Vec<String> = numbers.map(id).collect();
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), expected, "{what}");
    assert_invariants(database);
}

/// A loader that goes on as the policy says, in a group of its own so that it need not wait for anybody.
fn told(run: &Run, policy: &str) -> Run {
    run.clone().group(policy).with(&["--on-data-loss", policy])
}

/// The default is to stop: with the cause, in time, and without having moved or loaded anything.
fn assert_stops(database: &Database<'_>, run: &Run, why: &str) {
    let before = (position(database), database.number("SELECT count(*) FROM bronze.events"));
    let refused = run.clone().group("fail").with(&["--until-caught-up"]).start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(why), "{last}");
    assert_eq!((position(database), database.number("SELECT count(*) FROM bronze.events")), before);
    assert!(database.rows(GAPS).is_empty());
    assert_check_says(run, why);
}

/// The same of a loader that runs: it pauses the topic, and goes on being there for others.
fn assert_pauses(database: &Database<'_>, mut process: Process, why: &str) {
    let paused = || database.column("SELECT reason FROM loader.topic_states WHERE state = 'paused'");
    wait_until("the topic to be paused", PATIENCE, || {
        assert!(process.is_running(), "{}", process.errors());
        !paused().is_empty()
    });
    assert!(paused()[0].contains(why), "{:?}", paused());
    end(process);
}

fn assert_check_says(run: &Run, why: &str) {
    let checked =
        tidemark(&["check", "--brokers", &run.brokers, "--topic", &run.topic]).database(&run.url).run();
    assert_eq!(checked.code, Some(3), "{}", checked.stdout);
    let problem = checked.stdout.lines().find(|l| l.starts_with("problem  position"));
    assert!(problem.is_some_and(|l| l.contains(why)), "{}", checked.stdout);
}

fn end(process: Process) {
    process.signal("TERM");
    process.wait().ok();
}

/// Replaces a topic of one partition by another one of that name.
fn make_anew(broker: &Broker, topic: &str) {
    broker.delete_topic(topic);
    broker.create_topic(topic, 1, &[]);
}

/// Takes the unique indexes away that `--dedupe offsets` has no use for: now nothing but positions keeps records from
/// being loaded twice.
fn without_unique_index(database: &Database<'_>) {
    database
        .connect()
        .batch_execute(
            "SELECT tidemark.manage_partitions('bronze.events', partition_schema => 'bronze_partitions',
                 partition_unique => '{}');
             DO $$ DECLARE i regclass; BEGIN
                 FOR i IN SELECT indexrelid FROM pg_index
                           WHERE indisunique AND indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'bronze.events'::regclass)
                 LOOP EXECUTE format('DROP INDEX %s', i); END LOOP; END $$",
        )
        .unwrap();
}

#[test]
fn row_14_a_topic_made_anew_and_longer_than_the_position_is_noticed_by_the_next_run() {
    let (broker, topic) = (broker::shared(), broker::shared().topic());
    broker.create_topic(&topic, 1, &[]);
    append(broker, &topic, 1..101);
    let databases = POLICIES.map(|_| cluster::shared().database());
    for database in &databases {
        assert_eq!(Run::new(database, &topic).catch_up().loaded, 100);
        assert_ne!(database.value("SELECT kafka_topic_id FROM loader.offsets"), "");
    }
    make_anew(broker, &topic);
    append(broker, &topic, 1001..1401);
    for (policy, database) in POLICIES.iter().zip(&databases) {
        let run = Run::new(database, &topic);
        if *policy == "fail" {
            assert_stops(database, &run, "made anew");
            continue;
        }
        let (resumed_at, loaded) = if *policy == "earliest" { ("0", 400) } else { ("400", 0) };
        assert_eq!(told(&run, policy).catch_up().loaded, loaded, "{policy}");
        assert_eq!(database.rows(GAPS), [["100", resumed_at, "topic_recreated"]]);
        let first = 1401 - loaded;
        assert_loaded(database, (1..101).chain(first..1401), policy);
        let checked =
            tidemark(&["check", "--brokers", &run.brokers, "--topic", &topic]).database(&run.url).run().ok();
        assert!(checked.stdout.contains("topic_recreated"), "{}", checked.stdout);
    }
    // Nobody is surprised a second time.
    append(broker, &topic, 1401..1411);
    for (first, database) in [1001, 1401].into_iter().zip(&databases[1..]) {
        assert_eq!(Run::new(database, &topic).group("on").catch_up().loaded, 10);
        assert_loaded(database, (1..101).chain(first..1411), "and further");
    }
}

#[test]
fn row_14_a_topic_made_anew_under_a_running_loader_is_never_read_from_its_middle() {
    let broker = broker::shared();
    for (policy, dedupe) in
        [("fail", "id_date"), ("earliest", "id_date"), ("earliest", "offsets"), ("latest", "offsets")]
    {
        let what = format!("{policy}, {dedupe}");
        let (database, topic) = (cluster::shared().database(), broker.topic());
        if dedupe == "offsets" {
            without_unique_index(&database);
        }
        broker.create_topic(&topic, 1, &[]);
        append(broker, &topic, 1..101);
        // Short batches: the window in which a record of the new topic could slip through is looked into often.
        let run =
            told(&Run::new(&database, &topic), policy).with(&["--dedupe", dedupe, "--batch-delay-ms", "50"]);
        let mut process = run.start();
        wait_for(&database, &mut process, 100);
        make_anew(broker, &topic);
        append(broker, &topic, 1001..1401);
        if policy == "fail" {
            assert_pauses(&database, process, "made anew");
            assert_eq!(position(&database), 100);
            assert_loaded(&database, 1..101, &what);
            continue;
        }
        wait_until("the loader to notice", PATIENCE, || {
            assert!(process.is_running(), "{}", process.errors());
            database.rows(GAPS).iter().any(|gap| gap[2] == "topic_recreated")
        });
        let gaps = database.rows(GAPS);
        assert_eq!((gaps.len(), gaps[0][0].as_str()), (1, "100"), "{what}: {gaps:?}");
        let resumed_at: u64 = gaps[0][1].parse().unwrap();
        append(broker, &topic, 1401..1411);
        wait_for(&database, &mut process, 410);
        end(process);
        assert!(policy == "latest" || resumed_at == 0, "{what}: {gaps:?}");
        assert_loaded(&database, (1..101).chain(1001 + resumed_at..1411), &what);
    }
}

#[test]
fn row_14_a_replay_does_not_go_on_in_the_middle_of_another_topic() {
    let (broker, topic) = (broker::shared(), broker::shared().topic());
    let database = cluster::shared().database();
    broker.create_topic(&topic, 1, &[]);
    append(broker, &topic, 1..101);
    let replay = || {
        let arguments = ["replay", "--brokers", &broker.address, "--topic", &topic];
        tidemark(&arguments).database(&database.loader_url()).run().ok().counts()
    };
    assert_eq!(replay().loaded, 100);
    make_anew(broker, &topic);
    append(broker, &topic, 1001..1401);
    assert_eq!(replay().loaded, 400);
    assert_eq!(database.rows(GAPS), [["100", "0", "topic_recreated"]]);
    assert_loaded(&database, (1..101).chain(1001..1401), "replay");
}

/// A broker whose disk goes back to what it was, under another leader epoch, as after an unclean election: of the
/// records up to 100 it has those up to 60 only, and others follow.
struct Cut {
    broker: Broker,
}

impl Cut {
    /// A topic that had 60 records when its disk was copied, and has 100 now, the last 40 of another leader epoch.
    fn prepare(name: &str) -> Cut {
        let broker = Broker::start(name);
        broker.create_topic("t", 1, &[]);
        append(&broker, "t", 1..61);
        broker.stop();
        broker.save("t");
        broker.start_again();
        append(&broker, "t", 61..101);
        Cut { broker }
    }

    fn run(&self, database: &Database<'_>) -> Run {
        let mut run = Run::new(database, "t").with(&["--kafka-config", "reconnect.backoff.max.ms=500"]);
        run.brokers = self.broker.address.clone();
        run
    }

    fn cut(&self) {
        self.broker.stop();
        self.broker.restore("t");
        self.broker.start_again();
    }
}

#[test]
fn row_14_a_log_that_was_cut_and_filled_again_is_noticed_by_the_next_run() {
    let cut = Cut::prepare("cut-kafka");
    let databases = POLICIES.map(|_| cluster::shared().database());
    for database in &databases {
        assert_eq!(cut.run(database).catch_up().loaded, 100);
    }
    cut.cut();
    // Shorter than the position, and of the same topic.
    let [stopped, ..] = &databases;
    assert_stops(stopped, &cut.run(stopped), "ends at offset 60");
    let emptied = cluster::shared().copy_of(stopped);
    assert_eq!(told(&cut.run(&emptied), "earliest").catch_up().read, 0);
    assert_eq!(emptied.rows(GAPS), [["100", "60", "log_truncated"]]);
    append(&cut.broker, "t", 1001..1101);
    assert_eq!(cut.run(&emptied).catch_up().loaded, 100);
    assert_loaded(&emptied, (1..101).chain(1001..1101), "cut and not filled again yet");

    for (policy, database) in POLICIES.iter().zip(&databases) {
        let run = cut.run(database);
        if *policy == "fail" {
            assert_stops(database, &run, "cut at offset 60");
            continue;
        }
        let (resumed_at, loaded) = if *policy == "earliest" { ("60", 100) } else { ("160", 0) };
        assert_eq!(told(&run, policy).catch_up().loaded, loaded, "{policy}");
        assert_eq!(database.rows(GAPS), [["100", resumed_at, "log_truncated"]]);
        assert_loaded(database, (1..101).chain(1101 - loaded..1101), policy);
    }
}

#[test]
fn row_14_a_log_that_is_cut_under_a_running_loader_is_read_again_from_there() {
    let cut = Cut::prepare("cut-kafka-running");
    let databases = POLICIES.map(|_| cluster::shared().database());
    let mut processes: Vec<Process> = Vec::new();
    for (policy, database) in POLICIES.iter().zip(&databases) {
        let mut process = told(&cut.run(database), policy).start();
        wait_for(database, &mut process, 100);
        processes.push(process);
    }
    cut.cut();
    append(&cut.broker, "t", 1001..1101);
    for ((policy, database), mut process) in POLICIES.iter().zip(&databases).zip(processes) {
        if *policy == "fail" {
            assert_pauses(database, process, "cut at offset 60");
            assert_loaded(database, 1..101, policy);
            continue;
        }
        wait_until("the loader to notice", PATIENCE, || {
            assert!(process.is_running(), "{}", process.errors());
            !database.rows(GAPS).is_empty()
        });
        let gaps = database.rows(GAPS);
        assert_eq!(
            (gaps.len(), gaps[0][0].as_str(), gaps[0][2].as_str()),
            (1, "100", "log_truncated"),
            "{gaps:?}"
        );
        let resumed_at: u64 = gaps[0][1].parse().unwrap();
        assert!(*policy == "latest" || resumed_at == 60, "{gaps:?}");
        wait_for(database, &mut process, 160);
        std::thread::sleep(Duration::from_millis(200));
        end(process);
        assert_loaded(database, (1..101).chain(1001 + resumed_at - 60..1101), policy);
    }
}
