//! What events are and where they go can be said in the configuration: once, for every command that loads them.

use std::path::{Path, PathBuf};

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, id, line_received};
use tidemark_tests::process::{Counts, Invocation, tidemark};

const RECEIVED: &str = "2026-09-30T12:00:00Z";

fn file(lines: &[String]) -> PathBuf {
    events::file((lines.join("\n") + "\n").as_bytes())
}

/// A configuration for this database, with more sections.
fn config(database: &Database<'_>, url: &str, sections: &str) -> PathBuf {
    let secret = events::file(url.as_bytes());
    let topic = format!("topic-of-{}", database.name);
    events::file(
        format!(
            "[postgres]\ndsn_file = '{}'\n[kafka]\nbrokers = '{}'\ntopics = ['{topic}']\n\
             [maintenance]\nevery = 'off'\n{sections}",
            secret.display(),
            broker::shared().address
        )
        .as_bytes(),
    )
}

fn with(path: &Path, arguments: &[&str]) -> Invocation {
    tidemark(&[arguments, &["--config", path.to_str().unwrap()]].concat())
}

fn counts(counts: &Counts) -> (u64, u64, u64, u64) {
    (counts.loaded, counts.duplicate, counts.late_diverted, counts.dead)
}

#[test]
fn options_go_before_the_environment_before_the_file_before_the_default() {
    let database = cluster::shared().database();
    let path = config(&database, &database.loader_url(), "[late]\npolicy = 'refuse'\nallowed = '1d'\n");
    // On time, two days late, eight days late.
    let lines = |first: u64| {
        let times = ["2026-09-30T11:00:00Z", "2026-09-28T11:00:00Z", "2026-09-22T11:00:00Z"];
        let lines: Vec<String> =
            (first..).zip(times).map(|(n, time)| line_received(n, "u", time, RECEIVED)).collect();
        file(&lines).to_str().unwrap().to_owned()
    };
    let default = tidemark(&["load", &lines(1)]).database(&database.loader_url()).run().ok();
    assert_eq!(counts(&default.counts()), (3, 0, 0, 0));
    assert_eq!(counts(&with(&path, &["load", &lines(11)]).run().ok().counts()), (1, 0, 0, 2));
    let load = |lines: &str, more: &[&str]| {
        let arguments = [&["load", lines], more].concat();
        let load = with(&path, &arguments).env("TIDEMARK__LATE__POLICY", "divert");
        load.env("TIDEMARK__LATE__ALLOWED", "7d").run().ok().counts()
    };
    assert_eq!(counts(&load(&lines(21), &[])), (2, 0, 1, 0));
    assert_eq!(counts(&load(&lines(31), &["--late-policy", "recompute"])), (3, 0, 0, 0));
    // The environment alone, without any file.
    let load = tidemark(&["load", &lines(41)]).env("TIDEMARK__LATE__POLICY", "refuse");
    let load = load.env("TIDEMARK__POSTGRES__DSN", &database.loader_url());
    assert_eq!(counts(&load.run().ok().counts()), (2, 0, 0, 1));
    // What was refused is tried again with what the same file says, or with what counts more.
    let again = |more: &[&str]| {
        let arguments = [&["dead-letters", "replay", "--reason", "too_late"], more].concat();
        with(&admin(&database), &arguments).run().ok().stdout
    };
    assert!(again(&[]).contains("  3 cannot be loaded"));
    assert!(again(&["--late-policy", "recompute"]).contains("  3 loaded"));
    assert_books(&database);
}

fn admin(database: &Database<'_>) -> PathBuf {
    config(database, &database.admin_url(), "[late]\npolicy = 'refuse'\nallowed = '1d'\n")
}

#[test]
fn run_load_and_replay_read_the_same_sections() {
    let event = |n: u64, at: &str, tag: u64| {
        format!(
            r#"{{"meta":{{"id":"{}","at":"{at}"}},"kind":"sale","who":{{"no":"u{n}"}},"tag":{tag}}}"#,
            id(n)
        )
    };
    let lines = [
        event(1, "2026-09-30T11:00:00Z", 1),
        // The same but for the tag, then one that is another event with the same id.
        event(1, "2026-09-30T11:00:00Z", 2),
        event(1, "2026-09-30T11:00:00Z", 3).replace("sale", "gift"),
        event(2, "1999-12-31T11:00:00Z", 1),
        // Seen by the ledger of ids on whatever date.
        event(3, "2026-09-29T11:00:00Z", 1),
        event(3, "2026-09-30T11:00:00Z", 1),
    ];
    let sections = "[envelope]\n\
                    fields = ['event_id=/meta/id', 'event_time=/meta/at', 'event_type=/kind', 'user_id=/who/no']\n\
                    [dedupe]\nfingerprint_exclude = ['/tag']\n[record]\nevent_time_floor = '2000-01-01'\n\
                    [target]\ntable = 'bronze.orders'\n[batch]\nmax_rows = 4\n";
    // Events 1 and 3 and the second date of 3; one duplicate; the other content and the one before the floor are dead.
    let expected = (3, 1, 0, 2);
    let path = file(&lines);
    let path = path.to_str().unwrap();

    let new = || {
        let database = cluster::shared().database();
        let create =
            "CREATE TABLE bronze.orders (LIKE bronze.events INCLUDING ALL) PARTITION BY RANGE (event_time);
             GRANT INSERT, SELECT (event_id, event_time, payload_hash) ON bronze.orders TO tidemark_loader;
             ALTER TABLE bronze.orders OWNER TO tidemark_admin;
             SELECT tidemark.manage_partitions('bronze.orders', premake_days => 0,
                 partition_schema => 'bronze_partitions', partition_unique => ARRAY['event_id']::name[])";
        database.connect().batch_execute(create).unwrap();
        database
    };
    let rows = |database: &Database<'_>| {
        database.rows("SELECT event_id, event_date, event_type, user_id FROM bronze.orders ORDER BY 1, 2")
    };
    let by_file = new();
    let settings = config(&by_file, &by_file.loader_url(), sections);
    assert_eq!(counts(&with(&settings, &["load", path]).run().ok().counts()), expected);
    assert_eq!(by_file.number("SELECT max(n_read) FROM loader.batches"), 4);
    assert_eq!(rows(&by_file).len(), 3);
    assert_eq!(rows(&by_file)[0], [id(1), "2026-09-30".into(), "sale".into(), "u1".into()]);

    let by_run = new();
    let settings = config(&by_run, &by_run.loader_url(), sections);
    let topic = format!("topic-of-{}", by_run.name);
    // The records' times are near enough to the events', by the clock of whoever reads this later.
    let broker = broker::shared();
    broker.create_topic(&topic, 1, &[]);
    let received = 1_790_769_600_000;
    lines.iter().for_each(|line| broker.append(&topic, None, Some(line.as_bytes()), received));
    let run = with(&settings, &["run", "--until-caught-up"]).run().ok();
    assert_eq!(counts(&run.counts()), expected, "{}", run.stderr);
    assert_eq!(rows(&by_run), rows(&by_file));
    assert_eq!(by_run.number("SELECT max(n_read) FROM loader.batches"), 4);

    let replay = with(&settings, &["replay", "--topic", &topic]).run().ok();
    assert_eq!(counts(&replay.counts()), (0, 4, 0, 2), "all of it is there");
    let elsewhere = with(&settings, &["replay", "--topic", &topic, "--into", "bronze.events"]).run().ok();
    assert_eq!(counts(&elsewhere.counts()), expected);
    // Over dates, by the ledger.
    let window = with(&settings, &["replay", "--topic", &topic, "--into", "bronze.orders", "--restart"]);
    let window = window.env("TIDEMARK__DEDUPE__MODE", "id_window").run().ok();
    assert_eq!(window.counts().loaded, 0);

    // Without the exclusion, the tag makes a conflict of it.
    let strict = new();
    let settings = config(&strict, &strict.loader_url(), &sections.replace("'/tag'", "'/other'"));
    assert_eq!(counts(&with(&settings, &["load", path]).run().ok().counts()), (3, 0, 0, 3));
    let conflicts = "SELECT count(*) FROM loader.dead_letters WHERE reason = 'duplicate_id_conflict'";
    assert_eq!(strict.number(conflicts), 2);
}

#[test]
fn a_mistake_in_the_file_is_refused_by_every_command() {
    let database = cluster::shared().database();
    let event = file(&[line_received(1, "u", "2026-09-30T11:00:00Z", RECEIVED)]);
    let commands: [&[&str]; 5] = [
        &["run"],
        &["load", event.to_str().unwrap()],
        &["replay", "--topic", "t"],
        &["dead-letters", "replay"],
        &["status"],
    ];
    for (sections, expected) in [
        ("[dedup]\nmode = 'offsets'\n", "unknown section [dedup]; did you mean [dedupe]?"),
        ("[dedupe]\nmod = 'offsets'\n", "unknown key mod in section [dedupe]; did you mean mode?"),
        (
            "[late]\nallowed_lateness = '1d'\n",
            "unknown key allowed_lateness in section [late]; did you mean allowed?",
        ),
        ("[dedupe]\nmode = 'ids'\n", "dedupe.mode: not one of offsets, id_date, id_uuidv7, id_window"),
    ] {
        let path = config(&database, &database.loader_url(), sections);
        for command in commands {
            let refused = with(&path, command).run();
            assert!(refused.refused(78).contains(expected), "{command:?}: {}", refused.stderr);
        }
    }
    for (sections, expected) in [
        ("[target]\ntable = 'orders'\n", "target.table: write it with its schema"),
        ("[envelope]\nfields = ['user=/x']\n", "envelope.fields: user is no field"),
        ("[dedupe]\nfingerprint_exclude = ['/a/b']\n", "dedupe.fingerprint_exclude: /a/b is no member"),
    ] {
        let path = config(&database, &database.loader_url(), sections);
        for command in &commands[..4] {
            let refused = with(&path, command).run();
            assert!(refused.refused(78).contains(expected), "{command:?}: {}", refused.stderr);
        }
    }
    assert_eq!(database.number("SELECT count(*) FROM loader.pipelines"), 0);
    let path = config(&database, &database.loader_url(), "[memory]\nmax_buffer_bytes = '16MiB'\n");
    let refused = with(&path, &["run", "--lanes", "20"]).run();
    assert!(refused.refused(64).contains("take fewer lanes"), "{}", refused.stderr);
    with(&path, &["status"]).run().ok();
}

#[test]
fn check_accepts_the_example_and_config_show_says_what_is_in_force() {
    let database = cluster::shared().database();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 2, &[]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/tidemark.toml");
    let ask = |arguments: &[&str]| {
        with(&example, arguments)
            .env("TIDEMARK__POSTGRES__DSN", &database.loader_url())
            .env("TIDEMARK__KAFKA__BROKERS", &broker::shared().address)
            .env("TIDEMARK__KAFKA__TOPICS", &topic)
            .env("TIDEMARK__POSTGRES__LANES", "2")
            .run()
            .ok()
            .stdout
    };
    let shown = ask(&["config", "show"]);
    for line in [
        "dsn = \"***\" # environment, TIDEMARK__POSTGRES__DSN",
        "lanes = 2 # environment, TIDEMARK__POSTGRES__LANES",
        "listen = \"127.0.0.1:9187\" # file",
        "mode = \"id_date\" # default",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&ask(&["config", "show", "--output", "json"])).unwrap();
    assert_eq!(json["postgres.dsn"]["value"], "***");
    assert_eq!(json["postgres.lanes"]["source"], "environment, TIDEMARK__POSTGRES__LANES");
    let check = ask(&["check"]);
    assert!(check.contains("2 lanes, batches of up to 20000 records and 9830 KiB"), "{check}");
}
