//! Configuration, `tidemark check`, and what `tidemark run` refuses or uses to reach its servers: poolers. TLS and SASL are in `tls`.

use std::path::PathBuf;

use tidemark_tests::broker;
use tidemark_tests::cluster;
use tidemark_tests::events::{self, Generated, assert_exact, line_received};
use tidemark_tests::pooler::Pooler;
use tidemark_tests::process::{Finished, Invocation, shop, tidemark};
use tidemark_tests::run::until_caught_up;

pub fn topic_of(file: &Generated, brokers: &str) -> String {
    let topic = broker::shared().topic();
    broker::produce_file(&file.path, brokers, &topic, "2");
    topic
}

pub fn some_events(seed: &str) -> Generated {
    Generated::new(&format!("--events 3000 --days 2 --users 50 --malformed 0.01 --seed {seed}"))
}

pub fn check(url: &str, brokers: &str, topic: &str, more: &[&str]) -> Finished {
    let mut arguments = vec!["check", "--brokers", brokers, "--topic", topic];
    arguments.extend(more);
    tidemark(&arguments).database(url).run()
}

/// The line of a check, which must be a problem; the process must say so.
fn problem<'a>(finished: &'a Finished, check: &str) -> &'a str {
    assert_eq!(finished.code, Some(3), "{}{}", finished.stdout, finished.stderr);
    let mut lines = finished.stdout.lines();
    let line = lines.find(|line| line.split_whitespace().take(2).eq(["problem", check]));
    line.unwrap_or_else(|| panic!("no problem of {check}: {}", finished.stdout))
}

#[test]
fn check_finds_nothing_where_everything_is_in_place() {
    let database = cluster::shared().database();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    let broker = broker::shared();
    let topic = topic_of(&some_events("301"), &broker.address);
    let finished = check(&database.loader_url(), &broker.address, &topic, &[]).ok();
    for name in [
        "configuration",
        "postgres",
        "pooler",
        "primary",
        "schema",
        "extension",
        "grants",
        "partitions",
        "pipeline",
        "kafka",
        "topic",
    ] {
        let found = finished.stdout.lines().any(|line| line.split_whitespace().take(2).eq(["ok", name]));
        assert!(found, "no ok {name}: {}", finished.stdout);
    }
    // The configuration in force, without the password of the login.
    assert!(!finished.stdout.contains("loading@"), "{}", finished.stdout);

    let finished = check(&database.loader_url(), &broker.address, &topic, &["--output", "json"]).ok();
    let found: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(found["ok"], true);
    assert!(found["checks"].as_array().unwrap().iter().all(|c| c["ok"] == true), "{found}");
    assert!(!finished.stdout.contains("loading@"));
    // It changed nothing.
    assert_eq!(database.number("SELECT count(*) FROM loader.pipelines"), 0);
}

#[test]
fn check_says_what_is_wrong_and_what_to_do() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    let topic = topic_of(&some_events("302"), &broker.address);
    let of = |url: &str| check(url, &broker.address, &topic, &[]);

    let finished = of(&database.reader_url());
    let line = problem(&finished, "grants");
    assert!(
        line.contains("INSERT on bronze.events") && line.contains("GRANT tidemark_loader TO e2e_reader"),
        "{line}"
    );
    assert!(finished.refused(3).contains("not ready to run"));

    let empty = cluster::shared().empty_database();
    let finished = of(&empty.superuser_url());
    assert!(problem(&finished, "schema").ends_with("run tidemark migrate"));
    assert!(problem(&finished, "extension").ends_with("run tidemark migrate"));

    let nobody = format!("127.0.0.1:{}", tidemark_tests::free_port());
    let finished = of(&format!("postgresql://u:hush@{nobody}/d"));
    assert!(problem(&finished, "postgres").contains(&nobody));
    assert!(!finished.stdout.contains("hush") && !finished.stderr.contains("hush"));

    let url = database.loader_url();
    assert!(problem(&check(&url, &broker.address, "no-such-topic", &[]), "topic").contains("no-such-topic"));
    assert!(problem(&check(&url, &nobody, &topic, &[]), "kafka").contains(&nobody));

    let mut client = database.connect();
    client
        .batch_execute(
            "DO $$ DECLARE p text; BEGIN FOR p IN SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent = 'bronze.events'::regclass LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$",
        )
        .unwrap();
    assert!(problem(&of(&url), "partitions").contains("tidemark maintain"));

    tidemark(&[
        "run",
        "--brokers",
        &broker.address,
        "--topic",
        &topic,
        "--until-caught-up",
        "--maintain-every",
        "off",
    ])
    .database(&url)
    .run()
    .ok();
    tidemark(&["pause", "web", "--reason", "a broken sign-up form"]).database(&url).run().ok();
    let finished = of(&url);
    let line = problem(&finished, "pipeline");
    assert!(line.contains("a broken sign-up form (") || line.contains("a broken sign-up form;"), "{line}");
    assert!(line.ends_with("tidemark resume web"), "{line}");
    client.batch_execute("UPDATE loader.offsets SET next_offset = next_offset + 100000").unwrap();
    assert!(problem(&of(&url), "position").contains("before our position"));
    client.batch_execute("UPDATE loader.pipelines SET cluster_id = 'another'").unwrap();
    assert!(problem(&of(&url), "position").contains("cluster another"));
    client
        .batch_execute(
            "INSERT INTO loader.schema_history SELECT version + 1000, name, applied_on, checksum, version + 1000
               FROM loader.schema_history ORDER BY version DESC LIMIT 1",
        )
        .unwrap();
    assert!(problem(&of(&url), "schema").ends_with("use the newer tidemark"));
    let run = tidemark(&["run", "--brokers", &broker.address, "--topic", &topic, "--until-caught-up"])
        .database(&url)
        .run();
    assert!(run.refused(78).contains("use the newer tidemark"));
}

#[test]
fn what_check_wants_granted_is_all_that_loading_needs() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    database
        .connect()
        .batch_execute(
            "CREATE ROLE bare LOGIN PASSWORD 'bare';
             REVOKE TEMPORARY ON DATABASE current_db FROM PUBLIC;
             REVOKE EXECUTE ON FUNCTION tidemark.mark_loaded FROM PUBLIC"
                .replace("current_db", &database.name)
                .as_str(),
        )
        .unwrap();
    let url = database.loader_url();
    let (_, rest) = url.split_once('@').unwrap();
    let url = format!("postgresql://bare:bare@{rest}");
    let odd = [
        line_received(1, "ada", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z"),
        line_received(2, "bob", "2026-09-01T10:00:00Z", "2026-09-20T10:00:01Z"),
        line_received(2, "bob", "2026-09-01T10:00:00Z", "2026-09-20T10:00:01Z"),
        line_received(1, "eve", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z"),
        "no event".to_owned(),
    ];
    let file = events::file(odd.join("\n").as_bytes());
    let topic = broker.topic();
    let arguments = [
        "produce",
        file.to_str().unwrap(),
        "--brokers",
        &broker.address,
        "--topic",
        &topic,
        "--partitions",
        "1",
    ];
    shop(&arguments).run().ok();
    let finished = check(&url, &broker.address, &topic, &[]);
    let line = problem(&finished, "grants");
    let (_, list) = line.split_once("bare lacks ").unwrap();
    let (list, _) = list.split_once("; GRANT").unwrap();
    // Column lists have commas, too.
    let mut client = database.connect();
    let mut granted = 0;
    let words = ["USAGE", "SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "TEMPORARY"];
    let mut rest = list;
    while !rest.is_empty() {
        let ends = rest.match_indices(", ").map(|(at, _)| at);
        let ends = ends.filter(|at| words.iter().any(|word| rest[at + 2..].starts_with(word)));
        let end = ends.min().unwrap_or(rest.len());
        let privilege = rest[..end].replace("on loader.batch_ids", "on SEQUENCE loader.batch_ids");
        client
            .batch_execute(&format!("GRANT {privilege} TO bare"))
            .unwrap_or_else(|e| panic!("{e}: {privilege}"));
        granted += 1;
        rest = rest[end..].trim_start_matches(", ");
    }
    assert!(granted > 20, "{list}");
    check(&url, &broker.address, &topic, &[]).ok();

    // Everything that a loader does: new rows, duplicates, conflicts, dead letters, late rows, the ledger, a gap, a
    // pause.
    let run = |group: &str, more: &[&str]| {
        let mut arguments = vec!["run", "--brokers", &broker.address, "--topic", &topic, "--group", group];
        arguments.extend(["--until-caught-up", "--maintain-every", "off", "--batch-rows", "2"]);
        arguments.extend(more);
        tidemark(&arguments).database(&url).run()
    };
    let group = |n: u32| format!("{topic}-{n}");
    run(&group(1), &["--late-policy", "divert"]).ok();
    let rewind = "UPDATE loader.offsets SET next_offset = 0, run = run + 1";
    client.batch_execute(rewind).unwrap();
    run(&group(2), &["--late-policy", "divert", "--dedupe", "id_window"]).ok();
    client
        .batch_execute(&format!("{rewind}; DELETE FROM bronze.events; DELETE FROM bronze.late_events"))
        .unwrap();
    run(&group(3), &["--dedupe", "id_window", "--dedupe-window-days", "1"]).ok();
    client.batch_execute("UPDATE loader.offsets SET next_offset = 1000").unwrap();
    run(&group(4), &["--on-data-loss", "earliest"]).ok();
    tidemark(&["pause", "web"]).database(&url).run().ok();
    tidemark(&["resume", "web", "--accept-dead-letters"]).database(&url).run().ok();
    run(&group(5), &[]).ok();
    let load = tidemark(&["load", file.to_str().unwrap()]).database(&url).run().ok().counts();
    assert_eq!(load.read, 5);
    assert_eq!(database.number("SELECT count(*) FROM loader.offset_gaps"), 1);
}

#[test]
fn a_loader_without_the_right_to_temporary_tables_is_told_which_right() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    let topic = broker.topic();
    broker.create_topic(&topic, 1, &[]);
    let role = format!("Temporary-{}", database.name);
    let rights = format!(
        "CREATE ROLE \"{role}\" LOGIN PASSWORD 'x' IN ROLE tidemark_loader;
         REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC",
        database.name
    );
    database.connect().batch_execute(&rights).unwrap();
    let url = format!("postgresql://{role}:x@{}/{}", database.cluster.address, database.name);
    let wanted = format!("GRANT TEMPORARY ON DATABASE {} TO \"{role}\"", database.name);

    let file =
        events::file(line_received(1, "ada", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z").as_bytes());
    let load = || tidemark(&["load", file.to_str().unwrap()]).database(&url).run();
    let said = load().refused(77).to_owned();
    assert!(
        said.contains("permission denied to create temporary tables") && said.contains(&wanted),
        "{said}"
    );
    assert!(!said.contains("GRANT tidemark_loader"), "{said}");
    let finished = check(&url, &broker.address, &topic, &[]);
    let line = problem(&finished, "grants");
    assert!(line.ends_with(&wanted), "{line}");
    assert!(!line.contains("GRANT tidemark_loader"), "{line}");

    database.connect().batch_execute(&wanted).unwrap();
    assert_eq!(load().ok().counts().loaded, 1);
    database.connect().batch_execute(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).unwrap();
}

/// Writes a configuration; returns its path.
pub fn config(content: &str) -> PathBuf {
    events::file(content.as_bytes())
}

pub fn with_config(command: &[&str], path: &std::path::Path) -> Invocation {
    let mut arguments = command.to_vec();
    arguments.extend(["--config", path.to_str().unwrap()]);
    tidemark(&arguments)
}

#[test]
fn a_configuration_file_is_enough_and_the_rest_overrides_it() {
    let database = cluster::shared().database();
    let broker = &broker::shared().address;
    let file = some_events("303");
    let topic = topic_of(&file, broker);
    let secret = events::file(format!("{}\n", database.loader_url()).as_bytes());
    let path = config(&format!(
        "[pipeline]\nname = 'orders'\n[kafka]\nbrokers = '{broker}'\ntopics = ['{topic}']\n\
         [postgres]\ndsn_file = '{}'\nsynchronous_commit = 'off'\n\
         [batch]\nmax_rows = 1000\nmax_delay = '20s'\n[maintenance]\nevery = 'off'\n",
        secret.display()
    ));
    let run = with_config(&["run", "--until-caught-up", "--batch-rows", "700"], &path);
    let counts = run.env("TIDEMARK__BATCH__MAX_ROWS", "500").run().ok().counts();
    assert_eq!(counts.read, file.number("lines"));
    assert_exact(&database, &file.path);
    assert_eq!(database.value("SELECT name FROM loader.pipelines"), "orders");
    assert_eq!(database.number("SELECT max(n_read) FROM loader.batches"), 700, "the command line counts");

    let shown = with_config(&["config", "show"], &path).env("TIDEMARK__BATCH__MAX_ROWS", "500").run();
    let source = "max_rows = 500 # environment, TIDEMARK__BATCH__MAX_ROWS";
    assert!(shown.stdout.contains(source), "{}", shown.stdout);
    assert!(
        shown.stdout.contains(&format!("dsn = \"***\" # file, read from {}", secret.display())),
        "{}",
        shown.stdout
    );
}

#[test]
fn a_wrong_configuration_is_refused_by_run_and_reported_by_check() {
    let path = config("[batch]\nmax_row = 5\n");
    let expected = "batch.max_row: unknown key max_row in section [batch]; did you mean max_rows?";
    assert!(with_config(&["run"], &path).run().refused(78).contains(expected));
    let finished = with_config(&["check"], &path).run();
    assert!(problem(&finished, "configuration").contains(expected));
    let finished = with_config(&["run"], &config("")).run();
    assert!(finished.refused(64).contains("TIDEMARK_DATABASE_URL"));
    assert!(
        with_config(&["run"], &config("[log]\nlevel = 'a=b=c'\n")).run().refused(78).contains("log level")
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = cluster::shared().database();
    let broker = &broker::shared().address;
    let topic = topic_of(&some_events("304"), broker);
    let run = tidemark(&["run", "--brokers", broker, "--topic", &topic, "--listen", &address]);
    assert!(
        run.database(&database.loader_url()).run().stderr.contains(&format!("cannot listen on {address}"))
    );
}

#[test]
fn row_28_a_pooler_that_changes_backends_is_refused_and_one_that_keeps_them_is_not() {
    let database = cluster::shared().database();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    let broker = &broker::shared().address;
    let file = some_events("305");
    let topic = topic_of(&file, broker);
    let run = |url: &str| until_caught_up(broker, &topic).database(url).run();
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database, mode);
        let url = pooler.url(&database);
        assert!(run(&url).refused(78).contains("pool_mode = session"), "{mode}");
        let finished = check(&url, broker, &topic, &[]);
        assert!(problem(&finished, "pooler").contains("pool_mode = session"), "{mode}");
    }
    assert_eq!(database.number("SELECT count(*) FROM loader.pipelines"), 0);
    let pooler = Pooler::start(&database, "session");
    check(&pooler.url(&database), broker, &topic, &[]).ok();
    run(&pooler.url(&database)).ok();
    assert_exact(&database, &file.path);
}
