//! Several topics of one pipeline: patterns, topics that are made later, topics that are missing, and bad ones, which
//! must not stop the others.

use std::time::{Duration, Instant};

use tidemark_tests::broker::{self, Broker, Record};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{id, line};
use tidemark_tests::http::{get, metric, request};
use tidemark_tests::oracle::assert_invariants;
use tidemark_tests::process::{Process, tidemark};
use tidemark_tests::run::{PATIENCE, Run};
use tidemark_tests::{free_port, wait_until};

/// A loader that looks for topics every second, and the address of its pages.
struct Loader {
    process: Process,
    address: String,
}

impl Loader {
    fn start(run: &Run) -> Loader {
        let address = format!("127.0.0.1:{}", free_port());
        let soon = ["--kafka-config", "topic.metadata.refresh.interval.ms=1000", "--batch-delay-ms", "50"];
        let process = run.clone().with(&soon).with(&["--listen", &address]).start();
        wait_until("the pages to answer", PATIENCE, || {
            assert!(process.errors().len() < 100_000, "{}", process.errors());
            request("GET", &address, "/healthz").is_some()
        });
        Loader { process, address }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&get(&self.address, "/status").body).unwrap()
    }

    fn wait_ready(&self) {
        wait_until("the loader to be ready", PATIENCE, || get(&self.address, "/readyz").status == 200);
    }

    /// Whether a topic is not read for this cause.
    fn not_read(&self, topic: &str, cause: &str) -> bool {
        let name = format!("tidemark_loader_topic_not_read{{topic=\"{topic}\",cause=\"{cause}\"}}");
        metric(&self.address, &name) == Some(1.0)
    }

    fn end(self) {
        self.process.signal("TERM");
        self.process.wait().ok();
    }
}

fn append(broker: &Broker, topic: &str, numbers: std::ops::Range<u64>) {
    let lines: Vec<String> = numbers.map(|n| line(n, "u", "2026-09-05T10:00:00Z")).collect();
    let records = lines.iter().map(|l| Record { value: Some(l.as_bytes()), ..Record::default() });
    broker.append_all(topic, &records.collect::<Vec<_>>());
}

fn topic_with(name: &str, numbers: std::ops::Range<u64>) {
    broker::shared().create_topic(name, 1, &[]);
    append(broker::shared(), name, numbers);
}

fn wait_for_rows(database: &Database<'_>, loader: &Loader, n: i64) {
    wait_until(&format!("{n} events"), PATIENCE, || {
        let there = database.number("SELECT count(*) FROM bronze.events");
        assert!(there <= n, "{there} of {n}: {}", loader.process.errors());
        there == n
    });
}

/// The exact set of events, each of them once.
fn assert_loaded(database: &Database<'_>, numbers: impl Iterator<Item = u64>) {
    let mut expected: Vec<String> = numbers.map(id).collect();
    expected.sort();
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), expected);
    assert_invariants(database);
}

fn check(run: &Run) -> String {
    let arguments = ["check", "--brokers", &run.brokers, "--topic", &run.topic];
    let mut arguments = arguments.to_vec();
    arguments.extend(run.more.iter().map(String::as_str));
    tidemark(&arguments).database(&run.url).run().stdout
}

/// State and reason of a topic, as `tidemark status` has it.
fn said(database: &Database<'_>, topic: &str) -> Vec<String> {
    let status = tidemark(&["status", "--output", "json"]).database(&database.loader_url()).run().ok().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let rows = status["topics_not_read"].as_array().unwrap();
    let row = rows.iter().find(|row| row["topic"] == topic);
    row.map_or(Vec::new(), |row| {
        ["state", "reason"].map(|name| row[name].as_str().unwrap().to_owned()).to_vec()
    })
}

fn resume(database: &Database<'_>, more: &[&str]) -> String {
    let mut arguments = vec!["resume", "web"];
    arguments.extend(more);
    tidemark(&arguments).database(&database.loader_url()).run().ok().stdout
}

#[test]
fn topics_that_match_a_pattern_are_read_though_they_are_made_later() {
    for protocol in [&["--lanes", "2"][..], &["--kafka-config", "group.protocol=consumer"][..]] {
        let database = cluster::shared().database();
        let name = broker::shared().topic();
        let [first, second, other] = ["a", "b", "x1"].map(|end| format!("{name}.{end}"));
        topic_with(&first, 1..11);
        topic_with(&other, 101..111);
        let run = Run::new(&database, &format!("^{name}[.][a-z]$")).with(protocol);
        let loader = Loader::start(&run);
        wait_for_rows(&database, &loader, 10);
        let made = Instant::now();
        topic_with(&second, 11..31);
        wait_for_rows(&database, &loader, 30);
        println!("{protocol:?}: a new topic was read {:?} after it was to be made", made.elapsed());
        append(broker::shared(), &first, 31..41);
        wait_for_rows(&database, &loader, 40);
        for topic in [&first, &second] {
            let loaded = format!("tidemark_loader_records_loaded_total{{topic=\"{topic}\"}}");
            wait_until("the counts by topic", PATIENCE, || metric(&loader.address, &loaded) == Some(20.0));
        }
        loader.end();
        assert_loaded(&database, 1..41);
        let checked = check(&Run::new(&database, &run.topic));
        assert!(checked.contains("position") && !checked.contains("problem"), "{checked}");
        for topic in [&first, &second] {
            assert!(checked.contains(&format!("topic          {topic}: 1 partitions")), "{checked}");
        }
        // A run with an end reads what there is at its start.
        append(broker::shared(), &second, 41..51);
        assert_eq!(run.group("again").catch_up().read, 10);
        assert_loaded(&database, 1..51);
    }
}

#[test]
fn a_pattern_that_no_topic_matches_yet_is_waited_for_and_an_invalid_one_refused() {
    let database = cluster::shared().database();
    let topic = broker::shared().topic();
    let pattern = format!("^{topic}$");
    let run = Run::new(&database, &pattern);
    let refused = run.clone().with(&["--until-caught-up"]).start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("{pattern}: no topic matches it yet")), "{}", refused.stderr);

    let loader = Loader::start(&run);
    // There is nothing to read, and nothing is wrong.
    loader.wait_ready();
    wait_until("it to say so", PATIENCE, || loader.not_read(&pattern, "missing"));
    assert_eq!(loader.status()["missing_topics"][&pattern], "no topic matches it yet");
    let log = loader.process.errors();
    assert_eq!(log.matches(&format!("topic {pattern} is waited for: ")).count(), 1, "{log}");
    assert!(check(&run).contains("no topic matches it yet"));
    topic_with(&topic, 1..21);
    wait_for_rows(&database, &loader, 20);
    wait_until("it to be all right", PATIENCE, || loader.status()["missing_topics"] == serde_json::json!({}));
    loader.end();
    assert_loaded(&database, 1..21);

    let refused = Run::new(&database, "^a(").start().wait();
    assert_eq!(refused.code, Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("^a(: unclosed group"), "{}", refused.stderr);
}

#[test]
fn a_missing_topic_does_not_stop_the_others_and_is_read_once_it_is_there() {
    let database = cluster::shared().database();
    let [there, missing] = [(); 2].map(|()| broker::shared().topic());
    topic_with(&there, 1..11);
    let run = Run::new(&database, &there).with(&["--topic", &missing]);
    // Where it would end nobody knows.
    let refused = run.clone().group("bounded").with(&["--until-caught-up"]).start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(
        refused.stderr.contains(&format!("cannot read topic {missing}: no such topic")),
        "{}",
        refused.stderr
    );
    // And if there is none at all there is nothing to do.
    let refused = Run::new(&database, &missing).start().wait();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);

    let loader = Loader::start(&run);
    wait_for_rows(&database, &loader, 10);
    loader.wait_ready();
    wait_until("it to say so", PATIENCE, || loader.not_read(&missing, "missing"));
    assert_eq!(loader.status()["missing_topics"][&missing], "no such topic");
    wait_until("Postgres to know", PATIENCE, || said(&database, &missing) == ["missing", "no such topic"]);
    let checked = check(&run);
    assert!(checked.contains(&format!("cannot read topic {missing}: no such topic")), "{checked}");
    std::thread::sleep(Duration::from_secs(3));
    let log = loader.process.errors();
    assert_eq!(log.matches(&format!("topic {missing} is waited for: no such topic")).count(), 1, "{log}");
    topic_with(&missing, 11..31);
    append(broker::shared(), &there, 31..41);
    wait_for_rows(&database, &loader, 40);
    wait_until("it to be all right", PATIENCE, || !loader.not_read(&missing, "missing"));
    wait_until("Postgres to know", PATIENCE, || said(&database, &missing).is_empty());
    // One that is deleted goes on being waited for, and nothing else is.
    broker::shared().delete_topic(&missing);
    wait_until("it to be missed", PATIENCE, || loader.not_read(&missing, "missing"));
    append(broker::shared(), &there, 41..51);
    wait_for_rows(&database, &loader, 50);
    loader.wait_ready();
    loader.end();
    assert_loaded(&database, 1..51);
}

/// Two topics with ten events each, and a loader of both.
fn two(database: &Database<'_>, more: &[&str]) -> (String, String, Run, Loader) {
    let [good, bad] = [(); 2].map(|()| broker::shared().topic());
    topic_with(&good, 1..11);
    topic_with(&bad, 1001..1011);
    let run = Run::new(database, &good).with(&["--topic", &bad]).with(more);
    let loader = Loader::start(&run);
    wait_for_rows(database, &loader, 20);
    (good, bad, run, loader)
}

#[test]
fn a_topic_whose_log_is_another_one_is_paused_alone_until_somebody_decides() {
    for (anew, lanes) in [(true, "1"), (false, "2")] {
        let database = cluster::shared().database();
        let (good, bad, run, mut loader) = two(&database, &["--lanes", lanes]);
        if anew {
            broker::shared().delete_topic(&bad);
            topic_with(&bad, 2001..2021);
        } else {
            // While nobody reads, retention is faster.
            loader.end();
            append(broker::shared(), &bad, 2001..2021);
            broker::shared().delete_before(&bad, 20);
            loader = Loader::start(&run.clone().group("2"));
        }
        append(broker::shared(), &good, 11..21);
        wait_until("the topic to be paused", PATIENCE, || loader.not_read(&bad, "paused"));
        wait_for_rows(&database, &loader, 30);
        loader.wait_ready();
        let why = if anew { "made anew" } else { "were deleted before they were loaded" };
        wait_until("Postgres to know", PATIENCE, || {
            said(&database, &bad).first().is_some_and(|s| s == "paused")
        });
        assert!(said(&database, &bad)[1].contains(why), "{:?}", said(&database, &bad));
        assert!(loader.status()["paused_topics"][&bad].as_str().unwrap().contains(why));
        let log = loader.process.errors();
        assert_eq!(
            log.matches(&format!("topic {bad} is paused: [0] cannot be continued")).count(),
            1,
            "{log}"
        );
        let lag = format!("tidemark_loader_lag_records{{topic=\"{bad}\",partition=\"0\"}}");
        let lag_is = |loader: &Loader, n: f64| {
            wait_until("its lag", PATIENCE, || metric(&loader.address, &lag) == Some(n));
        };
        lag_is(&loader, if anew { 10.0 } else { 20.0 });
        // A restart forgets nothing, and a run with an end could not come to it.
        loader.end();
        let refused = run.clone().group("bounded").with(&["--until-caught-up"]).start().wait();
        assert_eq!(refused.code, Some(75), "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("topic {bad} is paused")), "{}", refused.stderr);
        assert!(check(&run).contains(&format!("topic          {bad} is paused: ")), "{}", check(&run));
        let loader = Loader::start(&run.clone().group("3"));
        loader.wait_ready();
        lag_is(&loader, if anew { 10.0 } else { 20.0 });
        append(broker::shared(), &good, 21..31);
        wait_for_rows(&database, &loader, 40);
        // Resumed without a decision it is paused again.
        let paused = || loader.process.errors().matches("cannot be continued at offset 10").count();
        let before = paused();
        assert_eq!(resume(&database, &["--topic", &bad]), format!("topic {bad} is resumed\n"));
        wait_until("it to be paused again", PATIENCE, || {
            paused() > before && loader.not_read(&bad, "paused")
        });
        wait_until("Postgres to know", PATIENCE, || !said(&database, &bad).is_empty());
        // The position can be moved while the loader loads the other topic.
        let set = ["offsets", "set", "--brokers", &run.brokers, "--topic", &bad, "--earliest", "--yes"];
        tidemark(&set).database(&database.loader_url()).run().ok();
        resume(&database, &[]);
        let left = if anew { 2001..2021 } else { 2011..2021 };
        wait_for_rows(&database, &loader, 40 + left.clone().count() as i64);
        wait_until("it to be read", PATIENCE, || !loader.not_read(&bad, "paused"));
        append(broker::shared(), &good, 31..41);
        append(broker::shared(), &bad, 2021..2031);
        wait_for_rows(&database, &loader, 60 + left.clone().count() as i64);
        loader.end();
        assert_loaded(&database, (1..41).chain(1001..1011).chain(left).chain(2021..2031));
        assert_eq!(database.column("SELECT cause FROM loader.offset_gaps"), ["manual"]);
    }
}

#[test]
fn a_topic_with_too_many_dead_letters_is_paused_alone_by_all_loaders() {
    let database = cluster::shared().database();
    let (good, bad, run, loader) = two(&database, &["--lanes", "2"]);
    let second = Loader::start(&run);
    second.wait_ready();
    let value = vec![Record { value: Some(b"nothing"), ..Record::default() }; 3000];
    broker::shared().append_all(&bad, &value);
    append(broker::shared(), &good, 11..1001);
    let loaders = [&loader, &second];
    for loader in loaders {
        wait_until("the topic to be paused", PATIENCE, || loader.not_read(&bad, "paused"));
    }
    wait_for_rows(&database, &loader, 1010);
    wait_until("a loader to be ready", PATIENCE, || {
        loaders.iter().any(|loader| get(&loader.address, "/readyz").status == 200)
    });
    let dead = || database.number("SELECT count(*) FROM loader.dead_letters");
    assert!(dead() < 3000, "{}", dead());
    wait_until("Postgres to know", PATIENCE, || !said(&database, &bad).is_empty());
    assert!(said(&database, &bad)[1].contains("max_ratio"), "{:?}", said(&database, &bad));
    let lag = format!("tidemark_loader_lag_records{{topic=\"{bad}\",partition=\"0\"}}");
    wait_until("its lag", PATIENCE, || metric(&loader.address, &lag) == Some((3000 - dead()) as f64));
    append(broker::shared(), &bad, 1011..1021);
    resume(&database, &["--topic", &bad, "--accept-dead-letters"]);
    wait_until("all to be dead letters", PATIENCE, || dead() == 3000);
    wait_for_rows(&database, &loader, 1020);
    loader.end();
    second.end();
    assert_loaded(&database, 1..1021);
}
