//! A loader that runs: what it says about itself over HTTP, to systemd and in its log, and when it pauses.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Cluster, Database};
use tidemark_tests::events::{self, Generated, assert_books, assert_exact, line};
use tidemark_tests::http::{get, metric, request};
use tidemark_tests::process::{Process, tidemark};
use tidemark_tests::{free_port, wait_until};

use crate::kafka::{append, topic_of};

const PATIENCE: Duration = Duration::from_secs(120);

/// A loader and the address of its pages.
struct Running {
    process: Process,
    address: String,
}

impl Running {
    fn start(url: &str, topic: &str, more: &[&str], environment: &[(&str, &str)]) -> Running {
        let address = format!("127.0.0.1:{}", free_port());
        let brokers = &broker::shared().address;
        let mut arguments = vec!["run", "--brokers", brokers, "--topic", topic];
        arguments.extend(["--listen", &address, "--batch-delay-ms", "50"]);
        arguments.extend(more);
        if !more.contains(&"--maintain-every") {
            arguments.extend(["--maintain-every", "off"]);
        }
        let invocation = environment.iter().fold(tidemark(&arguments), |i, (name, value)| i.env(name, value));
        let process = invocation.database(url).start();
        let running = Running { process, address };
        wait_until("the pages to answer", PATIENCE, || {
            request("GET", &running.address, "/healthz").is_some()
        });
        running
    }

    fn wait_ready(&self) {
        wait_until("/readyz to say ok", PATIENCE, || get(&self.address, "/readyz").status == 200);
    }

    /// Waits until it is not ready for this reason.
    fn wait_unready(&self, reason: &str) {
        wait_until(&format!("/readyz to say {reason}"), PATIENCE, || {
            let answer = get(&self.address, "/readyz");
            answer.status == 503 && answer.body.contains(reason)
        });
        assert_eq!(get(&self.address, "/healthz").status, 200, "not ready, but alive");
    }

    fn stop(self) -> tidemark_tests::process::Finished {
        self.process.signal("TERM");
        self.process.wait().ok()
    }
}

fn position(database: &Database<'_>) -> i64 {
    database.number("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets")
}

#[test]
fn models_are_refreshed_as_soon_as_a_batch_is_committed() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 2000 --days 1 --users 50 --seed 411");
    let topic = topic_of(&file.path, "1");
    // The next round is an hour away.
    let running = Running::start(&database.admin_url(), &topic, &["--maintain-every", "1h"], &[]);
    wait_until("the models to be refreshed", PATIENCE, || {
        database.number("SELECT coalesce(sum(events), 0)::bigint FROM gold.daily_actives") == 2000
            && database.number("SELECT coalesce(sum(dirty_dates), 0)::bigint FROM tidemark.model_status") == 0
    });
    let refreshed = "SELECT count(*) FROM tidemark.refresh_log";
    let before = database.number(refreshed);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(database.number(refreshed), before, "nothing came, and something was refreshed");
    append(&Generated::new("--events 10 --days 1 --users 5 --seed 412").path, &topic, "1");
    wait_until("the next events to be refreshed", PATIENCE, || {
        database.number("SELECT count(*) FROM silver.events") == 2010
    });
    // Across all dates, so with the round.
    assert_eq!(
        database.number("SELECT coalesce(sum(refresh_count), 0)::bigint FROM tidemark.materialized_views"),
        0
    );
    running.stop();
}

#[test]
fn the_pages_say_how_it_is() {
    let database = cluster::shared().database();
    let file =
        Generated::new("--events 5000 --days 2 --users 50 --seed 401 --malformed 0.02 --duplicates 0.02");
    let topic = topic_of(&file.path, "2");
    let running = Running::start(&database.loader_url(), &topic, &[], &[("TIDEMARK_LOG", "debug")]);
    running.wait_ready();
    let lines = file.number("lines") as i64;
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines);

    let at = &running.address;
    let value = |name: &str| metric(at, &format!("tidemark_loader_{name}")).unwrap_or(f64::NAN);
    let of_topic = |name: &str| value(&format!("{name}{{topic=\"{topic}\"}}"));
    wait_until("the last batch to be counted", PATIENCE, || {
        of_topic("records_loaded_total") == file.number("events") as f64
    });
    assert_eq!(of_topic("records_duplicate_total"), file.number("duplicates") as f64);
    let page = get(at, "/metrics");
    assert!(page.headers.contains("text/plain; version=0.0.4"), "{}", page.headers);
    let sum = |prefix: &str| -> f64 {
        let values =
            page.body.lines().filter(|l| l.starts_with(prefix)).map(|l| l.rsplit(' ').next().unwrap());
        values.map(|v| v.parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("tidemark_loader_records_consumed_total{"), lines as f64);
    assert_eq!(sum("tidemark_loader_records_dead_total{"), file.number("malformed") as f64);
    for name in ["read", "committed"] {
        assert_eq!(sum(&format!("tidemark_loader_{name}_offset{{")), lines as f64, "{name}");
    }
    assert_eq!(sum("tidemark_loader_batch_rows_sum"), lines as f64);
    let batches = database.number("SELECT count(*) FROM loader.batches") as f64;
    assert_eq!(sum("tidemark_loader_batches_total{"), batches);
    for phase in ["encode", "write", "commit"] {
        let name = format!("tidemark_loader_batch_duration_seconds_count{{phase=\"{phase}\"}}");
        assert!(sum(&name) >= batches, "{phase}: {}", sum(&name));
    }
    assert_eq!((value("ready"), value("paused"), value("buffer_bytes")), (1.0, 0.0, 0.0));
    for name in ["lag_records", "lag_seconds"] {
        assert_eq!(sum(&format!("tidemark_loader_{name}{{")), 0.0, "{name}");
    }
    // What Postgres holds is looked at by itself, and so is the end.
    for name in ["next_offset", "end_offset"] {
        wait_until(name, PATIENCE, || {
            let page = get(at, "/metrics").body;
            let prefix = format!("tidemark_loader_{name}{{");
            let values = page.lines().filter(|l| l.starts_with(&prefix));
            values.map(|l| l.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum::<i64>() == lines
        });
    }
    // Each name is described, once.
    for name in page.body.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()) {
        let family = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        for word in ["HELP", "TYPE"] {
            let n = page.body.lines().filter(|l| l.starts_with(&format!("# {word} {family} "))).count();
            assert!(n == 1 || family.is_empty(), "# {word} {family}: {n}\n{}", page.body);
        }
    }

    let status: serde_json::Value = serde_json::from_str(&get(at, "/status").body).expect("JSON");
    assert_eq!(status["pipeline"], "web");
    assert_eq!(status["ready"], true);
    assert_eq!(status["records"]["read"], lines);
    assert_eq!(status["topics"][&topic]["read"], lines);
    assert_eq!(status["partitions"].as_array().unwrap().len(), 2);
    let last = database.number("SELECT max(batch_id) FROM loader.batches");
    assert_eq!(status["last_batch_id"], last);
    assert_eq!(get(at, "/nothing").status, 404);
    assert_eq!(request("POST", at, "/metrics").unwrap().status, 405);

    // At level debug a line for each batch, with its number; the summary at the end.
    let finished = running.stop();
    let logged = finished.stderr.lines().filter(|l| l.contains("batch committed")).count();
    assert_eq!(logged as f64, batches, "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("batch_id={last}")), "{}", finished.stderr);
    assert_eq!(finished.counts().read as i64, lines);
    assert_exact(&database, &file.path);
}

#[test]
fn a_paused_pipeline_waits_at_its_position() {
    let database = cluster::shared().database();
    let url = database.loader_url();
    let first = Generated::new("--events 1000 --days 1 --users 20 --seed 402");
    let topic = topic_of(&first.path, "2");
    let running = Running::start(&url, &topic, &[], &[]);
    let lines = first.number("lines") as i64;
    wait_until("everything to be loaded", PATIENCE, || position(&database) == lines);
    let said = tidemark(&["pause", "web", "--reason", "moving house"]).database(&url).run().ok();
    assert!(said.stdout.contains("pipeline web is paused"), "{}", said.stdout);
    running.wait_unready("the pipeline is paused: moving house (by e2e_loader)");
    assert_eq!(metric(&running.address, "tidemark_loader_paused"), Some(1.0));
    let second = Generated::new("--events 1000 --days 1 --users 20 --seed 403");
    append(&second.path, &topic, "2");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(position(&database), lines, "it does not move");
    let said = tidemark(&["pause", "web"]).database(&url).run().ok();
    assert!(said.stdout.contains("paused already"), "{}", said.stdout);
    // The database says it to whoever has no page to ask.
    let said = tidemark(&["status", "--output", "json"]).database(&url).run().ok().stdout;
    let status: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let pipeline = &status["pipelines"][0];
    assert_eq!((&pipeline["pipeline"], pipeline["read"].as_i64()), (&"web".into(), Some(lines)), "{said}");
    assert_eq!(pipeline["paused"], "moving house (by e2e_loader)");
    let partitions = status["partitions"].as_array().unwrap();
    assert_eq!(partitions.iter().map(|p| p["next_offset"].as_i64().unwrap()).sum::<i64>(), lines, "{said}");
    assert!(["dead_letters", "gaps", "models"].iter().all(|name| status[name].is_array()), "{said}");
    assert!(tidemark(&["status"]).database(&url).run().ok().stdout.contains("moving house"));
    // Who is to come to an end does not wait for somebody.
    let brokers = &broker::shared().address;
    let bounded =
        ["run", "--brokers", brokers, "--topic", &topic, "--until-caught-up", "--maintain-every", "off"];
    let refused = tidemark(&bounded).database(&url).run();
    assert_eq!(refused.code, Some(75), "{}", refused.stderr);
    assert!(refused.stderr.contains("moving house"), "{}", refused.stderr);

    tidemark(&["resume", "web"]).database(&url).run().ok();
    let all = lines + second.number("lines") as i64;
    wait_until("the rest to be loaded", PATIENCE, || position(&database) == all);
    running.wait_ready();
    assert_eq!(running.stop().counts().read as i64, all);
    assert_books(&database);
    assert!(tidemark(&["resume", "web"]).database(&url).run().ok().stdout.contains("was not paused"));
    assert!(tidemark(&["pause", "wep"]).database(&url).run().refused(64).contains("there are: web"));
    tidemark(&["pause", "web"]).database(&database.reader_url()).run().refused(77);
}

/// So many good lines, then so many that are no events.
fn good_then_bad(from: u64, good: u64, bad: u64) -> std::path::PathBuf {
    let mut content = String::new();
    for n in from..from + good {
        content.push_str(&line(n, "u", "2026-05-01T10:00:00Z"));
        content.push('\n');
    }
    for n in 0..bad {
        content.push_str(&format!(
            "{{\"type\":\"track\",\"batch\":{from},\"n\":{n},\"timestamp\":\"yesterday\"}}\n"
        ));
    }
    events::file(content.as_bytes())
}

#[test]
fn row_18_a_bad_deploy_pauses_the_topic_instead_of_filling_the_dead_letters() {
    let database = cluster::shared().database();
    let url = database.loader_url();
    let topic = topic_of(&good_then_bad(0, 3000, 5000), "1");
    let running = Running::start(&url, &topic, &["--batch-rows", "500"], &[]);
    running.wait_unready("more than dead_letters.max_ratio = 0.5 allows");
    let dead = || database.number("SELECT count(*) FROM loader.dead_letters");
    let settled = position(&database);
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 3000);
    // No more than the sample in which they became the majority.
    assert!(dead() <= 1000 && settled == 3000 + dead(), "{} dead letters, position {settled}", dead());
    assert_eq!(metric(&running.address, "tidemark_loader_circuit_opened_total"), Some(1.0));
    let state = || database.column("SELECT state FROM loader.topic_states").join(" ");
    wait_until("Postgres to know", PATIENCE, || state() == "paused");
    let reason = database.value("SELECT reason FROM loader.topic_states");
    assert!(reason.contains("invalid_event_time, such as ") && reason.contains(&topic), "{reason}");
    let log = running.process.errors();
    assert!(log.contains(&format!("tidemark resume web --topic {topic} --accept-dead-letters")), "{log}");

    // Resumed as it is, it meets the same records. Nothing was lost, nothing is new.
    let before = dead();
    tidemark(&["resume", "web"]).database(&url).run().ok();
    wait_until("it to pause again", PATIENCE, || {
        metric(&running.address, "tidemark_loader_circuit_opened_total") == Some(2.0)
    });
    running.wait_unready("max_ratio");
    assert!(dead() - before <= 1000, "{} after {before}", dead());
    assert_books(&database);

    // A restart does not forget; another loader of the pipeline waits as well.
    wait_until("Postgres to know", PATIENCE, || state() == "paused");
    running.stop();
    let running = Running::start(&url, &topic, &["--batch-rows", "500"], &[]);
    running.wait_unready("max_ratio");

    // Accepted, they become dead letters, until what comes is good again.
    tidemark(&["resume", "web", "--accept-dead-letters"]).database(&url).run().ok();
    wait_until("all to be dead letters", PATIENCE, || dead() == 5000);
    assert_eq!(state(), "accepting");
    append(&good_then_bad(10_000, 3000, 0), &topic, "1");
    wait_until("the good ones to be loaded", PATIENCE, || {
        database.number("SELECT count(*) FROM bronze.events") == 6000
    });
    wait_until("the permission to end", PATIENCE, || state().is_empty());
    append(&good_then_bad(20_000, 0, 3000), &topic, "1");
    running.wait_unready("max_ratio");
    assert!(dead() <= 6000, "{}", dead());
    running.stop();
    assert_books(&database);
}

#[test]
fn the_breaker_can_be_switched_off() {
    let database = cluster::shared().database();
    let topic = topic_of(&good_then_bad(0, 10, 4000), "1");
    let off = [("TIDEMARK__DEAD_LETTERS__MAX_RATIO", "1"), ("TIDEMARK__DEAD_LETTERS__MAX_CONSECUTIVE", "0")];
    let running = Running::start(&database.loader_url(), &topic, &[], &off);
    wait_until("all to be loaded", PATIENCE, || position(&database) == 4010);
    running.wait_ready();
    assert_eq!(running.stop().counts().dead, 4000);
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS is there");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn row_04_without_postgres_it_waits_within_its_memory_and_then_catches_up() {
    waits_within_its_memory("postgres-away", "1");
}

#[test]
fn several_lanes_have_one_budget_together() {
    waits_within_its_memory("postgres-away-from-lanes", "3");
}

fn waits_within_its_memory(cluster: &str, lanes: &str) {
    let cluster = Cluster::start(cluster);
    let database = cluster.database();
    let url = database.loader_url();
    let first = Generated::new("--events 500 --days 2 --users 20 --seed 404");
    let topic = topic_of(&first.path, "4");
    let small = [("TIDEMARK__MEMORY__MAX_BUFFER_BYTES", "16MiB")];
    let running = Running::start(&url, &topic, &["--lanes", lanes], &small);
    running.wait_ready();
    wait_until("the first to be loaded", PATIENCE, || position(&database) == first.number("lines") as i64);
    let before = resident(running.process.pid());
    cluster.stop();
    running.wait_unready("Postgres does not answer");
    // About 100 MB, many times the budget.
    let file = crate::big_file();
    append(&file.path, &topic, "4");
    wait_until("reading to pause", PATIENCE, || {
        metric(&running.address, "tidemark_loader_reading_paused") == Some(1.0)
    });
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(get(&running.address, "/healthz").status, 200);
    let (after, held) =
        (resident(running.process.pid()), metric(&running.address, "tidemark_loader_buffer_bytes"));
    println!("resident before {} KiB, with Postgres away {} KiB, held {held:?}", before >> 10, after >> 10);
    assert!(held.is_some_and(|n| n > 0.0 && n < f64::from(16 << 20)), "{held:?}");
    assert!(
        after < before + (40 << 20),
        "{before} then {after}: more than its budget of 16 MiB and some for the heap"
    );
    cluster.start_again();
    let all = (first.number("lines") + file.number("lines")) as i64;
    wait_until("it to catch up", PATIENCE * 2, || {
        cluster::rows(&mut database.connect(), "SELECT sum(next_offset) FROM loader.offsets")[0][0]
            == all.to_string()
    });
    running.wait_ready();
    running.stop();
    assert_books(&database);
    let dead = database.number("SELECT count(*) FROM loader.dead_letters") as u64;
    assert_eq!(dead, first.number("malformed") + file.number("malformed"));
}

#[test]
fn no_log_ever_holds_a_payload() {
    let database = cluster::shared().database();
    // The marker in every place that a producer controls, in events that fail in every stage.
    let good = line(1, "SESAME", "2026-05-01T10:00:00Z").replace("page_viewed", "SESAME");
    let mut lines = vec![
        good.clone(),
        good.replace("2026-05-01T10:00:00Z", "SESAME"),
        good.replace("\"/\"", "\"SESAME \\u0000\""),
        good.replace("\"type\"", "\"SESAME\" \"type\""),
        format!("{good} SESAME"),
        "SESAME".to_owned(),
        good.replace("\"SESAME\",\"timestamp", "{\"SESAME\":1},\"timestamp"),
        good.replace("\"n\":1", "\"SESAME\":1e131071"),
        good.replace("00000000-0000-4000-8000-000000000001", "SESAME"),
    ];
    lines.push("[".repeat(300) + "SESAME");
    let content = lines.join("\n") + "\n";
    let topic = topic_of(&events::file(content.as_bytes()), "1");
    broker::shared().append(&topic, Some(b"SESAME"), Some(b"SESAME"), 1_714_557_600_000);
    let sesame = events::file(good.as_bytes());
    for format in ["text", "json"] {
        let pipeline = format!("log-{format}");
        let more = ["--pipeline", &pipeline, "--log-format", format];
        let running = Running::start(&database.loader_url(), &topic, &more, &[("TIDEMARK_LOG", "trace")]);
        let read = format!(
            "SELECT coalesce(sum(n_read), 0) FROM loader.batches JOIN loader.pipelines USING (pipeline_id)
              WHERE name = '{pipeline}'"
        );
        wait_until("all to be loaded", PATIENCE, || database.number(&read) == 11);
        let finished = running.stop();
        assert!(finished.stderr.len() > 1000, "that is no trace: {}", finished.stderr);
        let leak = finished.stderr.lines().find(|l| l.contains("SESAME"));
        assert!(leak.is_none(), "{leak:?}");
        if format == "json" {
            let mut batches = 0;
            for line in finished.stderr.lines() {
                let entry: serde_json::Value =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
                batches += usize::from(entry["message"] == "batch committed" && entry["batch_id"].is_i64());
            }
            assert!(batches > 0, "no batch in the log");
        }
    }
    assert!(database.number("SELECT count(*) FROM loader.dead_letters") > 10);
    let finished = tidemark(&["load", sesame.to_str().unwrap()])
        .env("TIDEMARK_LOG", "trace")
        .database(&database.loader_url())
        .run()
        .ok();
    assert!(!finished.stderr.contains("SESAME"), "{}", finished.stderr);
}

#[test]
fn systemd_hears_that_it_is_ready_alive_and_stopping() {
    let database = cluster::shared().database();
    let topic = topic_of(&good_then_bad(0, 10, 0), "1");
    let path = events::file(b"").with_extension("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000")];
    let running = Running::start(&database.loader_url(), &topic, &[], &environment);
    let mut heard = Vec::new();
    let mut hear = |wanted: &str| {
        let mut room = [0; 1000];
        loop {
            if heard.iter().any(|m: &String| m.contains(wanted)) {
                return;
            }
            let n = socket.recv(&mut room).unwrap_or_else(|e| panic!("no {wanted}: {e}; heard {heard:?}"));
            heard.push(String::from_utf8_lossy(&room[..n]).into_owned());
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("STATUS=loading");
    running.stop();
    hear("STOPPING=1");
}

#[test]
fn what_librdkafka_says_is_passed_on() {
    let database = cluster::shared().database();
    let brokers = format!("127.0.0.1:{}", free_port());
    let finished =
        tidemark(&["run", "--brokers", &brokers, "--topic", "t"]).database(&database.loader_url()).run();
    assert_eq!(finished.code, Some(69));
    assert!(finished.refused(69).contains("Connect to ipv4#"), "{}", finished.stderr);

    // While it runs, in its own words and at the level asked for.
    let topic = topic_of(&good_then_bad(0, 10, 0), "1");
    let brokers = &broker::shared().address;
    let more =
        ["run", "--brokers", brokers, "--topic", &topic, "--until-caught-up", "--maintain-every", "off"];
    let more = [&more[..], &["--kafka-config", "debug=cgrp"]].concat();
    let finished =
        tidemark(&more).env("TIDEMARK_LOG", "info,librdkafka=debug").database(&database.loader_url()).run();
    assert!(finished.ok().stderr.contains(" DEBUG librdkafka: "));
}
