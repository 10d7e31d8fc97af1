//! What is tried again, for how long, and what is said meanwhile: passwords that change, locks that others hold, brokers
//! that are away, migrations under way. And what is never said: the value of a setting.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidemark_tests::broker::{Broker, Secure, produce_file, topic_of};
use tidemark_tests::cluster::{self, Cluster, Database, rows};
use tidemark_tests::events::{self, assert_exact, line};
use tidemark_tests::process::{Process, tidemark};
use tidemark_tests::run::{PATIENCE, Run, position, wait_for};
use tidemark_tests::{broker, wait_until};

/// Events from this number on.
fn some(from: u64, count: u64) -> PathBuf {
    let lines: Vec<String> = (from..from + count).map(|n| line(n, "u", "2026-09-06T10:00:00Z")).collect();
    events::file((lines.join("\n") + "\n").as_bytes())
}

/// All that these files hold.
fn together(files: &[&PathBuf]) -> PathBuf {
    let content: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    events::file(&content)
}

fn wait_for_word(process: &mut Process, word: &str) {
    let started = Instant::now();
    while !process.errors().contains(word) {
        let waited = started.elapsed() < PATIENCE;
        assert!(waited && process.is_running(), "it never said {word}, but: {}", process.errors());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn end(process: Process) {
    process.signal("TERM");
    process.wait().ok();
}

/// Ends all connections of loaders.
fn cut(database: &Database<'_>) {
    database.number(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'tidemark'",
    );
}

#[test]
fn a_database_password_that_changes_is_read_anew_and_ends_no_loader() {
    let cluster = Cluster::start("rotation");
    let database = cluster.database();
    let (first, second) = (some(1, 500), some(1_001, 500));
    let topic = topic_of(&first, "2");
    let dsn = events::file(format!("{}\n", database.loader_url()).as_bytes());
    let mut run = Run::new(&database, &topic).setting("postgres.dsn_file", dsn.to_str().unwrap());
    run.url.clear();
    let mut process = run.start();
    wait_for(&database, &mut process, 500);

    database.connect().batch_execute("ALTER ROLE e2e_loader PASSWORD 'changed'").unwrap();
    cut(&database);
    produce_file(&second, &broker::shared().address, &topic, "2");
    wait_for_word(&mut process, "read credentials anew");
    std::thread::sleep(Duration::from_secs(3));
    assert!(process.is_running(), "{}", process.errors());
    assert_eq!(position(&database), 500);
    // A server that restarts meanwhile ends it as little.
    cluster.stop();
    cluster.start_again();
    std::thread::sleep(Duration::from_secs(1));
    assert!(process.is_running(), "{}", process.errors());

    // A file that leads to another database is not followed: the position is in this one.
    let elsewhere = database.loader_url().replace(":loading@", ":changed@") + "_elsewhere";
    std::fs::write(&dsn, elsewhere).unwrap();
    wait_for_word(&mut process, "that takes a restart");
    std::fs::write(&dsn, database.loader_url().replace(":loading@", ":changed@")).unwrap();
    wait_for(&database, &mut process, 1_000);
    assert!(!process.errors().contains("changed") && !process.errors().contains("loading@"));
    end(process);
    assert_exact(&database, &together(&[&first, &second]));

    // Whoever starts with a wrong one is told at once.
    std::fs::write(&dsn, database.loader_url()).unwrap();
    assert_eq!(run.start().wait().code, Some(77));
}

#[test]
fn a_kafka_password_that_changes_is_read_anew() {
    let secure = Secure::start();
    let database = cluster::shared().database();
    let (first, second) = (some(1, 300), some(1_001, 300));
    produce_file(&first, &secure.open.address, "t", "1");
    let password = events::file(b"alice-secret\n");
    let mut run = Run::new(&database, "t")
        .with(&["--kafka-config", "reconnect.backoff.max.ms=1000"])
        .setting("kafka.security_protocol", "sasl_ssl")
        .setting("kafka.ssl_ca_file", secure.certificate.to_str().unwrap())
        .setting("kafka.sasl_mechanism", "PLAIN")
        .setting("kafka.sasl_username", "alice")
        .setting("kafka.sasl_password_file", password.to_str().unwrap());
    run.brokers = secure.address.clone();
    let mut process = run.start();
    wait_for(&database, &mut process, 300);
    secure.change_password("alice-changed");
    produce_file(&second, &secure.open.address, "t", "1");
    wait_for_word(&mut process, "uthentication");
    std::fs::write(&password, "alice-changed\n").unwrap();
    wait_for(&database, &mut process, 600);
    assert!(!process.errors().contains("alice-"), "{}", process.errors());
    end(process);
    assert_exact(&database, &together(&[&first, &second]));
}

#[test]
fn a_claim_that_waits_for_a_lock_names_the_blocker_and_hears_sigterm() {
    let database = cluster::shared().database();
    let file = some(1, 200);
    let topic = topic_of(&file, "1");
    // Once, so that there is a row to lock.
    Run::new(&database, &topic).group("first").catch_up();
    for (n, lock) in
        ["LOCK TABLE loader.offsets IN ACCESS EXCLUSIVE MODE", "SELECT FROM loader.offsets FOR UPDATE"]
            .into_iter()
            .enumerate()
    {
        let mut holder = database.connect();
        let pid = rows(&mut holder, "SELECT pg_backend_pid()")[0][0].clone();
        holder.batch_execute(&format!("BEGIN; {lock}")).unwrap();
        let mut process = Run::new(&database, &topic).group(&n.to_string()).start();
        wait_for_word(&mut process, &format!("it waits for a lock of pid {pid} (postgres"));
        wait_for_word(&mut process, "canceling statement due to lock timeout");
        let asked = Instant::now();
        process.signal("TERM");
        process.wait().ok();
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(8), "SIGTERM took {took:?}");
        // And one that is not stopped goes on when the lock is free.
        let mut process = Run::new(&database, &topic).group(&format!("{n} on")).start();
        wait_for_word(&mut process, "waits for a lock");
        holder.batch_execute("ROLLBACK").unwrap();
        wait_for_word(&mut process, "partition claimed");
        end(process);
    }
    assert_exact(&database, &file);
}

#[test]
fn kafka_away_is_a_line_when_it_begins_and_one_when_it_ends() {
    let broker = Broker::start("quiet-kafka");
    let database = cluster::shared().database();
    let (first, second) = (some(1, 300), some(1_001, 300));
    produce_file(&first, &broker.address, "t", "2");
    let patient = ["reconnect.backoff.max.ms=1000", "session.timeout.ms=45000"];
    let patient = patient.map(|setting| ["--kafka-config", setting]).concat();
    let mut run = Run::new(&database, "t").with(&patient);
    run.brokers = broker.address.clone();
    let mut process = run.start();
    wait_for(&database, &mut process, 300);
    let before = process.errors().lines().count();
    broker.kill();
    std::thread::sleep(Duration::from_secs(20));
    assert!(process.is_running(), "{}", process.errors());
    let said: Vec<String> = process.errors().lines().skip(before).map(str::to_owned).collect();
    assert!(said.len() <= 2, "{}", said.join("\n"));
    assert_eq!(said.iter().filter(|line| line.contains("said once a minute")).count(), 1, "{said:?}");
    broker.start_again();
    produce_file(&second, &broker.address, "t", "2");
    wait_for(&database, &mut process, 600);
    wait_for_word(&mut process, "Kafka is there again");
    end(process);
    assert_exact(&database, &together(&[&first, &second]));
}

#[test]
fn sigterm_is_heard_while_kafka_is_away() {
    let broker = Broker::start("gone-kafka");
    let database = cluster::shared().database();
    let file = some(1, 3_000);
    produce_file(&file, &broker.address, "t", "2");
    // At once, with what is said to Kafka still unanswered, and once everybody knows.
    for (group, wait) in [("at once", 0), ("later", 8)] {
        let mut run = Run::new(&database, "t").group(group);
        run.brokers = broker.address.clone();
        let mut process = run.start();
        wait_for_word(&mut process, "partition claimed");
        wait_for(&database, &mut process, 3_000);
        broker.kill();
        std::thread::sleep(Duration::from_secs(wait));
        let asked = Instant::now();
        process.signal("TERM");
        process.wait().ok();
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(20), "SIGTERM took {took:?} {group}");
        broker.start_again();
    }
    assert_exact(&database, &file);
}

#[test]
fn the_value_of_a_setting_is_never_printed() {
    let database = cluster::shared().database();
    let url = database.loader_url();
    let broker = &broker::shared().address;
    let topic = topic_of(&some(1, 1), "1");
    let usual = ["--brokers", broker, "--topic", &topic];
    let setting = |text| [&["run"], &usual[..], &["--until-caught-up", "--kafka-config", text]].concat();
    let check = [&["check"], &usual[..]].concat();
    let show = [&["config", "show"], &usual[..]].concat();
    let run = [&["run", "--until-caught-up"], &usual[..]].concat();
    let on = |arguments: Vec<&str>, variables: &[(&str, &str)]| {
        let invocation = tidemark(&arguments).database(&url);
        let finished = variables.iter().fold(invocation, |i, (name, value)| i.env(name, value)).run();
        let said = finished.stdout.clone() + &finished.stderr;
        assert!(!said.contains("hunter2"), "{arguments:?} {variables:?}: {said}");
        (finished.code, said)
    };
    for (text, said) in [
        ("sasl.pasword=hunter2", "sasl.pasword: librdkafka knows no such setting"),
        ("security.protocol=hunter2", "security.protocol: librdkafka does not take"),
        ("socket.timeout.ms=hunter2", "socket.timeout.ms: librdkafka does not take"),
        ("enable.auto.commit=hunter2", "enable.auto.commit"),
        ("hunter2", "not of the form key=value"),
    ] {
        let (code, found) = on(setting(text), &[]);
        assert_eq!(code, Some(64), "{text}: {found}");
        assert!(found.contains(said), "{text}: {found}");
    }
    for (name, said) in [
        ("TIDEMARK__KAFKA__LIBRDKAFKA__SASL_PASWORD", "\"sasl.pasword\" = \"***\""),
        ("TIDEMARK__KAFKA__LIBRDKAFKA__SASL_PASSWORD", "\"sasl.password\" = \"***\""),
        ("TIDEMARK__KAFKA__SASL_PASWORD", "did you mean sasl_password?"),
        ("TIDEMARK__KAFKA__SASL_MECHANISM", "TIDEMARK__KAFKA__SASL_MECHANISM: not one of"),
        ("TIDEMARK__KAFKA__SASL_PASSWORD_FILE", "TIDEMARK__KAFKA__SASL_PASSWORD_FILE: No such file"),
        ("TIDEMARK__BATCH__MAX_DELAY", "TIDEMARK__BATCH__MAX_DELAY: not a time"),
    ] {
        on(check.clone(), &[(name, "hunter2")]);
        let (_, found) = on(show.clone(), &[(name, "hunter2")]);
        assert!(found.contains(said), "{name}: {found}");
        on(run.clone(), &[(name, "hunter2")]);
    }
    for wrong in [
        "postgresql://u:hunter2@127.0.0.1:port/d",
        "postgresql://u:hunter2%zz@127.0.0.1/d",
        "postgresql://127.0.0.1/d?password=hunter2%",
        "postgresql://u@127.0.0.1/d?sslmode=hunter2",
        "postgresql://u@127.0.0.1/d?connect_timeout=hunter2",
        "host=127.0.0.1 password=a hunter2",
        "host=127.0.0.1 password=a hunter2=b",
    ] {
        let (code, found) = on(vec!["status"], &[("TIDEMARK_DATABASE_URL", wrong)]);
        assert!([Some(64), Some(69)].contains(&code), "{wrong}: {found}");
        on(vec!["status", wrong], &[]);
    }
    on(vec!["status", "--databse-url=postgresql://u:hunter2@h/d"], &[]);
    on(vec!["status", "--databse-url", "postgresql://u:hunter2@h/d"], &[]);
}

#[test]
fn migrate_gives_way_to_whoever_holds_a_lock_and_holds_up_nobody_for_long() {
    let database = cluster::shared().database();
    database.connect().batch_execute("UPDATE loader.repeatable_scripts SET sha256 = ''").unwrap();
    let views = database.column(
        "SELECT c.oid::regclass FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname = 'gold' AND c.relkind = 'v' ORDER BY 1",
    );
    let read: String = views.iter().map(|view| format!("SELECT FROM {view} LIMIT 0;")).collect();
    let mut analyst = database.connect();
    let pid = rows(&mut analyst, "SELECT pg_backend_pid()")[0][0].clone();
    analyst.batch_execute(&format!("BEGIN; {read}")).unwrap();
    let mut process = tidemark(&["migrate"]).database(&database.superuser_url()).start();
    wait_for_word(&mut process, &format!("it waits for a lock of pid {pid} (postgres"));
    // Others queue behind it, and are through when it gives way.
    let asked = Instant::now();
    database.connect().batch_execute(&read).unwrap();
    assert!(asked.elapsed() < Duration::from_secs(6), "a reader waited {:?}", asked.elapsed());
    wait_for_word(&mut process, "lock timeout");
    assert!(process.is_running(), "{}", process.errors());
    analyst.batch_execute("COMMIT").unwrap();
    let finished = process.wait().ok();
    assert!(finished.stdout.contains("applied sql/gold/"), "{}", finished.stdout);
    assert!(database.migrate().stdout.contains("nothing to do"));
}

#[test]
fn an_older_loader_goes_on_where_the_migration_says_that_it_may() {
    let database = cluster::shared().database();
    let (first, second) = (some(1, 100), some(1_001, 100));
    let topic = topic_of(&first, "1");
    let mut process = Run::new(&database, &topic).start();
    wait_for(&database, &mut process, 100);
    // A migration that this binary does not know and may live with: it goes on, and another one begins.
    let newer = "INSERT INTO loader.schema_history SELECT 9999, 'newer', applied_on, checksum, 1
                   FROM loader.schema_history WHERE version = 1";
    database.connect().batch_execute(newer).unwrap();
    let third = some(5_001, 10);
    let load = tidemark(&["load", third.to_str().unwrap()]).database(&database.loader_url()).run();
    assert_eq!(load.ok().counts().loaded, 10);
    let refused = tidemark(&["migrate"]).database(&database.superuser_url()).run();
    assert!(refused.refused(78).contains("use the newer tidemark"), "{}", refused.stderr);

    // And one that it may not live with: it waits for its successor, at its position.
    database
        .connect()
        .batch_execute("UPDATE loader.schema_history SET oldest_binary = 9999 WHERE version = 9999")
        .unwrap();
    wait_for_word(&mut process, "only those go on that know migration 9999");
    std::thread::sleep(Duration::from_secs(1));
    produce_file(&second, &broker::shared().address, &topic, "1");
    std::thread::sleep(Duration::from_secs(3));
    let held = "SELECT next_offset FROM loader.offsets WHERE topic NOT LIKE 'file:%'";
    assert_eq!(database.number(held), 100);
    assert!(process.is_running(), "{}", process.errors());
    let refused = Run::new(&database, &topic).group("late").start().wait();
    assert!(refused.refused(78).contains("use the newer tidemark"), "{}", refused.stderr);
    // Its successor, here itself, takes over.
    database.connect().batch_execute("DELETE FROM loader.schema_history WHERE version = 9999").unwrap();
    wait_until("the loader to go on", PATIENCE, || database.number(held) == 200);
    end(process);
    assert_exact(&database, &together(&[&first, &second, &third]));
}
