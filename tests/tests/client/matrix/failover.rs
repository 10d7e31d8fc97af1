//! Row 5 once more, by a failover: an asynchronous standby is promoted that had not received all that the old primary
//! had committed. The loader, which has both in its URL, must find that out by itself and read again what is missing,
//! on a partition to which nothing more comes as well.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidemark_tests::broker::{self, Record};
use tidemark_tests::cluster::{Cluster, Database, connect};
use tidemark_tests::events::{self, line};
use tidemark_tests::http::metric;
use tidemark_tests::random::Random;
use tidemark_tests::run::{PATIENCE, Run};
use tidemark_tests::{free_port, wait_until};

use super::assert_all;

/// How soon after the promotion everything must be there again that the old primary had.
const SOON: Duration = Duration::from_secs(10);

/// Every line that was produced to one of the topics.
type Lines = Arc<Mutex<Vec<String>>>;

/// Appends events to the partitions of a topic in turn.
fn produce(topic: &str, partitions: i32, n: usize, lines: &Lines) {
    let mut lines = lines.lock().unwrap();
    let from = lines.len();
    lines.extend(
        (from..from + n).map(|n| line(n as u64 + 1, &format!("u{}", n % 97), "2026-09-01T10:00:00Z")),
    );
    let records = lines[from..].iter().enumerate().map(|(i, line)| Record {
        partition: i as i32 % partitions,
        value: Some(line.as_bytes()),
        ..Record::default()
    });
    broker::shared().append_all(topic, &records.collect::<Vec<_>>());
}

/// Produces while it is not told to be quiet, until told to end.
struct Producer {
    quiet: Arc<Mutex<bool>>,
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Producer {
    fn start(topic: &str, lines: &Lines) -> Producer {
        let (quiet, end) = (Arc::new(Mutex::new(false)), Arc::new(AtomicBool::new(false)));
        let (topic, lines, hush, told) = (topic.to_owned(), lines.clone(), quiet.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let quiet = hush.lock().unwrap();
                if !*quiet {
                    produce(&topic, 1, 40, &lines);
                }
                drop(quiet);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Producer { quiet, end, thread }
    }

    /// Returns when it has become quiet, or goes on.
    fn be_quiet(&self, quiet: bool) {
        *self.quiet.lock().unwrap() = quiet;
    }

    fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The sum of the positions in a topic.
fn position(database: &Database<'_>, topic: &str) -> i64 {
    database
        .number(&format!("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets WHERE topic = '{topic}'"))
}

#[test]
fn row_05_what_a_promoted_standby_lacks_is_read_again_soon_on_busy_and_quiet_partitions() {
    let promotions: u64 =
        std::env::var("PROMOTIONS").map_or(2, |n| n.parse().expect("a number of promotions"));
    let broker = broker::shared();
    let (busy, quiet) = (broker.topic(), broker.topic());
    broker.create_topic(&busy, 1, &[]);
    broker.create_topic(&quiet, 2, &[]);
    let lines = Lines::default();
    let mut primary = Cluster::start("promoted-0");
    let name = {
        let database = ManuallyDrop::new(primary.database());
        database.name.clone()
    };
    let producer = Producer::start(&busy, &lines);
    let mut lost_at_all = 0;
    for number in 1..=promotions {
        let mut random = Random::new(number);
        let standby = primary.standby(&format!("promoted-{number}"));
        // Dropping one would drop the database.
        let [old, new] =
            [&primary, &standby].map(|cluster| ManuallyDrop::new(Database { cluster, name: name.clone() }));
        let mut run = Run::new(&old, &busy).group(&number.to_string()).batch_rows(500);
        let both = format!("{},{}", primary.address, standby.address);
        run.url = run.url.replace(&primary.address, &both) + "?target_session_attrs=read-write";
        let lanes = (1 + random.below(3)).to_string();
        let address = format!("127.0.0.1:{}", free_port());
        let mut process = run.with(&["--topic", &quiet, "--lanes", &lanes, "--listen", &address]).start();
        let loaded = |database: &Database<'_>, topic: &str, end: i64| {
            wait_until(&format!("the position {end} in {topic}"), PATIENCE, || {
                position(database, topic) >= end
            });
        };
        let before = position(&old, &busy);
        produce(&quiet, 2, 10, &lines);
        loaded(&old, &quiet, broker.records(&quiet));
        loaded(&old, &busy, before + 500);
        // Sometimes the standby is as close behind as it can be.
        let cut_off = number % 5 != 0;
        if cut_off {
            let mut standby = connect(&standby.url("postgres"));
            standby.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
            standby.batch_execute("SELECT pg_reload_conf()").unwrap();
            wait_until("the standby to be cut off", PATIENCE, || {
                old.number("SELECT count(*) FROM pg_stat_replication") == 0
            });
        }
        produce(&quiet, 2, 1 + random.below(9) as usize, &lines);
        let quiet_end = broker.records(&quiet);
        loaded(&old, &quiet, quiet_end);
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        // Every second time nothing comes any more: nobody finds out by writing.
        if number % 2 == 0 {
            producer.be_quiet(true);
            loaded(&old, &busy, broker.records(&busy));
        }
        let busy_end = position(&old, &busy);
        primary.crash();
        let lost = [(&busy, busy_end), (&quiet, quiet_end)].map(|(topic, end)| end - position(&new, topic));
        new.connect().batch_execute("SELECT pg_promote()").unwrap();
        let promoted = Instant::now();
        let back = |topic: &str, end: i64| {
            wait_until(&format!("{topic} to be read again"), PATIENCE, || position(&new, topic) >= end);
            promoted.elapsed()
        };
        let took = [back(&quiet, quiet_end), back(&busy, busy_end)];
        producer.be_quiet(false);
        println!("promotion {number}: lost {lost:?} of busy and quiet, {took:?} until they were there again");
        assert!(took.iter().all(|took| *took < SOON), "{took:?}: {}", process.errors());
        assert!(!cut_off || lost[1] > 0, "the standby had everything");
        assert!(
            lost[1] <= 0 || process.errors().contains("lost what it had committed"),
            "{}",
            process.errors()
        );
        assert!(process.is_running());
        let counted = metric(&address, "tidemark_loader_commits_lost_total").unwrap();
        assert!(counted > 0.0 || lost.iter().all(|n| *n <= 0), "{lost:?} lost, and nobody noticed");
        lost_at_all += lost.iter().sum::<i64>().max(0);
        process.signal("TERM");
        process.wait().ok();
        primary = standby;
    }
    producer.end();
    println!("{promotions} promotions lost {lost_at_all} positions");
    let database = Database { cluster: &primary, name };
    Run::new(&database, &busy).group("last").with(&["--topic", &quiet]).catch_up();
    let content = lines.lock().unwrap().join("\n") + "\n";
    assert_all(&database, &events::file(content.as_bytes()));
}
