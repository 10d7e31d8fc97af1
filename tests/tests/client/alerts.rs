//! What is delivered for Prometheus and Grafana: each alert fires when it should and at no other time, as a real
//! Prometheus sees it that scrapes a real loader, and no panel is empty.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidemark_tests::broker::{self, Broker, Record};
use tidemark_tests::cluster::{self, Cluster, Database};
use tidemark_tests::events::line;
use tidemark_tests::http::{get, metric};
use tidemark_tests::process::{Process, tidemark};
use tidemark_tests::prometheus::{Prometheus, promtool, rules};
use tidemark_tests::run::{Barrier, PATIENCE, Run};
use tidemark_tests::{free_port, root, wait_until};

use crate::matrix::{lines_of, mixed_file, topic_of};

/// A loader and whoever watches it.
struct Watched {
    process: Process,
    address: String,
    prometheus: Prometheus,
}

/// What has to fire in a row of the page's table.
fn expected(row: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/loader.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let line = line.unwrap_or_else(|| panic!("docs/loader.md has no row {row}"));
    line.split('`').filter(|word| word.starts_with("Tidemark")).map(str::to_owned).collect()
}

impl Watched {
    fn start(run: Run) -> Watched {
        let address = format!("127.0.0.1:{}", free_port());
        let process = run.with(&["--listen", &address, "--batch-delay-ms", "50"]).start();
        wait_until("the loader to be ready", PATIENCE, || {
            assert!(process.errors().len() < 100_000, "{}", process.errors());
            std::net::TcpStream::connect(&address).is_ok() && get(&address, "/readyz").status == 200
        });
        let prometheus = Prometheus::start(&address);
        Watched { process, address, prometheus }
    }

    /// Waits until exactly those alerts fire that the page promises for this row; says when each began.
    fn fires(&self, row: &str) {
        let (wanted, started) = (expected(row), Instant::now());
        let mut seen: Vec<(String, u64)> = Vec::new();
        let mut now = BTreeSet::new();
        while now != wanted {
            now = self.prometheus.alerts();
            for alert in &now {
                assert!(wanted.contains(alert), "{row}: {alert}\n{}", get(&self.address, "/readyz").body);
                if !seen.iter().any(|(name, _)| name == alert) {
                    seen.push((alert.clone(), started.elapsed().as_secs()));
                }
            }
            let missing: Vec<_> = wanted.difference(&now).collect();
            assert!(
                started.elapsed() < PATIENCE,
                "{row}: {missing:?}\n{}",
                get(&self.address, "/status").body
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{row}: {seen:?}");
        // And no other one a while later.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(self.prometheus.alerts(), wanted, "{row}, later");
    }

    /// Waits until at least those alerts fire, with something going on meanwhile.
    fn comes_to(&self, row: &str, mut meanwhile: impl FnMut()) {
        let (wanted, started) = (expected(row), Instant::now());
        wait_until(row, PATIENCE, || {
            meanwhile();
            self.prometheus.alerts().is_superset(&wanted)
        });
        println!("{row}: {:?}", started.elapsed());
    }

    /// Waits until none fires.
    fn is_quiet(&self) {
        wait_until("no alert to fire", PATIENCE, || self.prometheus.alerts().is_empty());
    }

    fn end(self) {
        self.process.signal("TERM");
        self.process.wait().ok();
        wait_until("somebody to notice", PATIENCE, || {
            self.prometheus.alerts().contains("TidemarkLoaderDown")
        });
    }
}

/// A loader of a topic with a few events, all of which are loaded.
fn healthy(database: &Database<'_>) -> (String, Watched) {
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 2, &[]);
    more(broker::shared(), &topic, 0, 20);
    let watched = Watched::start(Run::new(database, &topic).with(&["--lanes", "1"]));
    wait_until("the events to be loaded", PATIENCE, || rows(database) == 20);
    watched.is_quiet();
    (topic, watched)
}

fn more(broker: &Broker, topic: &str, from: u64, n: u64) {
    let lines: Vec<String> = (from..from + n).map(|n| line(n + 1, "u", "2026-09-01T10:00:00Z")).collect();
    let now = i64::try_from(now().as_millis()).unwrap();
    let records = lines.iter().zip([0, 1].into_iter().cycle()).map(|(line, partition)| Record {
        partition,
        unix_millis: now,
        value: Some(line.as_bytes()),
        ..Record::default()
    });
    broker.append_all(topic, &records.collect::<Vec<_>>());
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

fn rows(database: &Database<'_>) -> i64 {
    database.number("SELECT count(*) FROM bronze.events")
}

#[test]
fn alerts_while_the_disk_is_full() {
    let database = cluster::shared().database();
    let (topic, watched) = healthy(&database);
    let full = "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS
                    $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END$$;
                CREATE TRIGGER full_disk AFTER INSERT ON loader.batches EXECUTE FUNCTION public.full_disk()";
    database.connect().batch_execute(full).unwrap();
    more(broker::shared(), &topic, 20, 20);
    watched.fires("disk full");
    let why = get(&watched.address, "/readyz").body;
    assert!(
        why.starts_with("lane 0 has worked on one batch for ") && why.contains("could not extend file"),
        "{why}"
    );
    database.connect().batch_execute("DROP TRIGGER full_disk ON loader.batches").unwrap();
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 40);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_while_somebody_holds_a_lock() {
    let database = cluster::shared().database();
    let (topic, watched) = healthy(&database);
    let barrier = Barrier::hold(&database, "LOCK TABLE bronze.events IN ACCESS EXCLUSIVE MODE");
    more(broker::shared(), &topic, 20, 20);
    watched.fires("stuck lock");
    barrier.release();
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 40);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_while_postgres_is_down() {
    let cluster = Cluster::start("alerts");
    let database = cluster.database();
    let (topic, watched) = healthy(&database);
    cluster.crash();
    more(broker::shared(), &topic, 20, 20);
    watched.fires("Postgres down");
    cluster.start_again();
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 40);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_while_kafka_is_down() {
    let database = cluster::shared().database();
    let broker = Broker::start("alerts-kafka");
    let topic = broker.topic();
    broker.create_topic(&topic, 2, &[]);
    more(&broker, &topic, 0, 20);
    let mut run = Run::new(&database, &topic);
    run.brokers = broker.address.clone();
    let watched = Watched::start(run);
    wait_until("the events to be loaded", PATIENCE, || rows(&database) == 20);
    watched.is_quiet();
    broker.kill();
    watched.fires("Kafka down");
    broker.start_again();
    more(&broker, &topic, 20, 20);
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 40);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_after_a_deploy_that_poisons_a_topic() {
    let database = cluster::shared().database();
    let (topic, watched) = healthy(&database);
    let unix_millis = i64::try_from(now().as_millis()).unwrap();
    let bad = vec![Record { unix_millis, value: Some(b"nothing"), ..Record::default() }; 3000];
    broker::shared().append_all(&topic, &bad[..500]);
    watched.fires("some records are bad");
    broker::shared().append_all(&topic, &bad);
    watched.fires("most records are bad");
    watched.end();
}

#[test]
fn alerts_while_a_topic_is_missing() {
    let database = cluster::shared().database();
    let [there, missing] = [(); 2].map(|()| broker::shared().topic());
    broker::shared().create_topic(&there, 2, &[]);
    more(broker::shared(), &there, 0, 20);
    let soon = "topic.metadata.refresh.interval.ms=1000";
    let run = Run::new(&database, &there).with(&["--topic", &missing, "--kafka-config", soon]);
    let watched = Watched::start(run);
    watched.fires("a topic is missing");
    broker::shared().create_topic(&missing, 2, &[]);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_while_a_pipeline_is_paused() {
    let database = cluster::shared().database();
    let (topic, watched) = healthy(&database);
    tidemark(&["pause", "web", "--reason", "moving house"]).database(&database.loader_url()).run().ok();
    wait_until("the pause", PATIENCE, || get(&watched.address, "/readyz").status == 503);
    let lag = || {
        let status: serde_json::Value = serde_json::from_str(&get(&watched.address, "/status").body).unwrap();
        (status["lag_records"].as_i64().unwrap(), status["lag_seconds"].as_f64().unwrap())
    };
    assert_eq!(lag(), (0, 0.0));
    // Of six minutes ago, and nobody reads it.
    let value = line(21, "u", "2026-09-01T10:00:00Z");
    let unix_millis = i64::try_from(now().as_millis()).unwrap() - 360_000;
    broker::shared()
        .append_all(&topic, &[Record { unix_millis, value: Some(value.as_bytes()), ..Record::default() }]);
    wait_until("the lag to be known", PATIENCE, || lag().0 == 1);
    assert!((360.0..420.0).contains(&lag().1), "{:?}", lag());
    watched.fires("paused");
    tidemark(&["resume", "web"]).database(&database.loader_url()).run().ok();
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 21);
    watched.is_quiet();
    assert_eq!(lag(), (0, 0.0));
    watched.end();
}

#[test]
fn alerts_while_two_loaders_of_other_groups_fight_for_a_topic() {
    let database = cluster::shared().database();
    let (topic, watched) = healthy(&database);
    let second = Run::new(&database, &topic).group("other").with(&["--batch-delay-ms", "50"]).start();
    let mut sent = 20;
    watched.comes_to("two loaders fight", || {
        more(broker::shared(), &topic, sent, 20);
        sent += 20;
    });
    second.signal("TERM");
    second.wait().ok();
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == i64::try_from(sent).unwrap());
    watched.end();
}

#[test]
fn alerts_while_postgres_hangs_and_a_partition_is_claimed() {
    let cluster = Cluster::start("alerts-hangs");
    let (database, broker) = (cluster.database(), broker::shared());
    let topics = [(); 2].map(|()| broker.topic());
    broker.create_topic(&topics[0], 2, &[]);
    let soon = "topic.metadata.refresh.interval.ms=1000";
    let run = Run::new(&database, &topics[0]).with(&["--topic", &topics[1], "--kafka-config", soon]);
    let watched = Watched::start(run);
    more(broker, &topics[0], 0, 20);
    wait_until("the events to be loaded", PATIENCE, || rows(&database) == 20);
    let frozen = cluster.freeze();
    broker.create_topic(&topics[1], 2, &[]);
    more(broker, &topics[1], 20, 20);
    watched.comes_to("Postgres hangs, also while a partition is to be claimed", || {});
    // Nobody should restart the loader for it.
    assert!(
        metric(&watched.address, "tidemark_loader_last_poll_seconds").is_some_and(|silent| silent < 10.0)
    );
    drop(frozen);
    wait_until("the rest to be loaded", PATIENCE, || rows(&database) == 40);
    watched.is_quiet();
    watched.end();
}

#[test]
fn alerts_after_postgres_has_lost_commits() {
    let cluster = Cluster::start("alerts-lost");
    // So that only what somebody waits for is on the disk.
    let mut client = cluster.connect("postgres");
    for sql in ["SET wal_writer_delay = '10s'", "SET autovacuum = off"] {
        client.batch_execute(&format!("ALTER SYSTEM {sql}")).unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let (database, topic) = (cluster.database(), broker::shared().topic());
    broker::shared().create_topic(&topic, 2, &[]);
    let run = Run::new(&database, &topic).setting("postgres.synchronous_commit", "off");
    let watched = Watched::start(run.with(&["--lanes", "1"]));
    // Whatever else is committed meanwhile brings these commits to the disk; then they are there after the crash.
    let mut events = 0;
    let mut lost = false;
    while !lost && events < 400 {
        more(broker::shared(), &topic, events, 20);
        events += 20;
        wait_until("the events to be loaded", PATIENCE, || rows(&database) == events as i64);
        cluster.crash();
        cluster.start_again();
        lost = rows(&database) < events as i64;
    }
    watched.comes_to("Postgres lost commits", || {});
    wait_until("the events to be loaded again", PATIENCE, || rows(&database) == events as i64);
    watched.end();
}

#[test]
fn promtool_likes_the_rules_and_the_metrics_and_no_panel_is_empty() {
    let checked = promtool(&["check", "rules", "--lint-fatal", rules().to_str().unwrap()], "");
    assert!(checked.is_ok(), "{checked:?}");
    let database = cluster::shared().database();
    let file = mixed_file(2_000);
    let topic = topic_of(&file, "2");
    let watched = Watched::start(Run::new(&database, &topic).batch_rows(200));
    wait_until("everything to be loaded", PATIENCE, || {
        database.number("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets") == lines_of(&file)
    });
    let page = get(&watched.address, "/metrics").body;
    assert_eq!(promtool(&["check", "metrics"], &page), Ok(String::new()));
    let dashboard = std::fs::read_to_string(root().join("packaging/grafana/tidemark.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let mut expressions = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let filled = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!filled.contains('$'), "{expression}");
            wait_until(&format!("{}: {expression}", panel["title"]), PATIENCE, || {
                !watched.prometheus.query(&filled).unwrap_or_else(|e| panic!("{expression}: {e}")).is_empty()
            });
            expressions += 1;
        }
    }
    assert!(expressions > 20, "{expressions}");
    // Each name in either file is one that the loader has.
    let described: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let text = std::fs::read_to_string(rules()).unwrap() + &dashboard.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("tidemark_loader_")) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(described.contains(family.unwrap_or(name)), "{name}");
    }
    watched.end();
}
