//! What cannot work is refused with one clear line and the documented exit code, and leaves nothing behind.

use tidemark_tests::broker;
use tidemark_tests::cluster;
use tidemark_tests::events::{self, line};
use tidemark_tests::process::{Finished, shop, tidemark};

fn load(url: &str) -> Finished {
    let path = events::file(line(1, "u", "2026-09-01T10:00:00Z").as_bytes());
    tidemark(&["load", path.to_str().unwrap()]).database(url).run()
}

#[test]
fn a_missing_file_is_named() {
    let database = cluster::shared().database();
    let load = tidemark(&["load", "/nowhere/events.ndjson"]).database(&database.loader_url());
    let produce = shop(&["produce", "/nowhere/events.ndjson", "--brokers", "127.0.0.1:1", "--topic", "t"]);
    for command in [load, produce] {
        let finished = command.run();
        assert!(finished.refused(66).contains("/nowhere/events.ndjson"), "{}", finished.stderr);
    }
    // One of its own: others may have left events in the folder around it.
    let directory = events::file(b"").with_extension("files");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("note.txt"), "remember the milk").unwrap();
    let finished = tidemark(&["load", directory.to_str().unwrap()]).database(&database.loader_url()).run();
    assert!(finished.refused(66).contains(directory.to_str().unwrap()), "{}", finished.stderr);
}

#[test]
fn a_wrong_database_url_is_refused() {
    let path = events::file(b"");
    let load = || tidemark(&["load", path.to_str().unwrap()]);
    assert!(load().run().refused(64).contains("TIDEMARK_DATABASE_URL"));
    load().database("postgresql://127.0.0.1:notaport/x").run().refused(64);
    tidemark(&["load"]).run_usage();
    tidemark(&["lode", "x"]).run_usage();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let port = tidemark_tests::free_port();
    for command in [&["migrate"][..], &["maintain"], &["status"]] {
        let url = format!("postgresql://app@127.0.0.1:{port}/app");
        let finished = tidemark(command).database(&url).run();
        assert!(finished.refused(69).contains(&format!("127.0.0.1:{port}")), "{}", finished.stderr);
    }
    let finished = load(&format!("postgresql://app@127.0.0.1:{port}/app"));
    assert!(finished.refused(69).contains(&format!("127.0.0.1:{port}")), "{}", finished.stderr);
}

#[test]
fn a_wrong_database_password_or_role_is_refused() {
    let database = cluster::shared().database();
    let right = database.loader_url();
    assert!(
        load(&right.replace(&database.name, "no_such_database")).refused(78).contains("no_such_database")
    );
    load(&right.replace(":loading@", ":wrong@")).refused(77);
    load(&right.replace("e2e_loader", "nobody_known")).refused(77);
    // A password must not be shown.
    let finished = load(&right.replace("e2e_loader", "nobody_known"));
    assert!(!finished.stderr.contains("loading"), "{}", finished.stderr);
    // A role that may read but not load.
    assert!(load(&database.reader_url()).refused(77).contains("tidemark_loader"));
    assert_eq!(database.number("SELECT count(*) FROM bronze.events"), 0);
}

#[test]
fn a_password_comes_from_where_libpq_takes_it() {
    let database = cluster::shared().database();
    let right = database.loader_url();
    let without = right.replace(":loading@", "@");
    assert_ne!(without, right);
    let directory = events::file(b"").with_extension("home");
    std::fs::create_dir(&directory).unwrap();
    let home = directory.to_str().unwrap().to_owned();
    let status = |url: &str| {
        let command = tidemark(&["check"]).database(url).env("PGPASSWORD", "").env("PGPASSFILE", "");
        command.env("HOME", &home)
    };
    let refused = status(&without).run();
    let text = &refused.stdout;
    assert!(
        text.contains("asks for the password of e2e_loader, and there is none; give it in PGPASSWORD"),
        "{text}"
    );
    let of = |finished: &Finished, says: &str| {
        let found =
            finished.stdout.lines().any(|line| line.starts_with("ok       postgres") && line.ends_with(says));
        assert!(found, "{says}: {}", finished.stdout);
    };
    of(&status(&right).run(), "without TLS");
    of(&status(&without).env("PGPASSWORD", "loading").run(), "password from PGPASSWORD");
    // What the URL says goes first.
    of(&status(&right).env("PGPASSWORD", "wrong").run(), "without TLS");
    let file = directory.join(".pgpass");
    std::fs::write(&file, "other:1:x:y:z\n*:*:*:e2e_loader:loading\n").unwrap();
    let readable = |mode| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    readable(0o640);
    let said = status(&without).run();
    assert!(said.stderr.contains("chmod 600"), "{}", said.stderr);
    readable(0o600);
    of(&status(&without).run(), ".pgpass");
    let elsewhere = directory.join("passwords");
    std::fs::rename(&file, &elsewhere).unwrap();
    of(&status(&without).env("PGPASSFILE", elsewhere.to_str().unwrap()).run(), "passwords");
    // A password that is wrong.
    let wrong = status(&without).env("PGPASSWORD", "wrong").run();
    assert!(wrong.stdout.contains("PGPASSWORD or ~/.pgpass"), "{}", wrong.stdout);
    let nowhere = tidemark(&["status"]).database("postgresql:///shop").run();
    let said = nowhere.refused(64);
    assert!(said.contains("names no server") && said.contains("?host=/"), "{said}");
}

#[test]
fn a_database_without_migrations_says_what_to_run() {
    let database = cluster::shared().empty_database();
    assert!(load(&database.superuser_url()).refused(78).contains("tidemark migrate"));
    for command in ["maintain", "status"] {
        let finished = tidemark(&[command]).database(&database.superuser_url()).run();
        assert!(finished.refused(78).contains("tidemark migrate"), "{}", finished.stderr);
    }
}

#[test]
fn migrating_needs_the_rights_for_it() {
    let cluster = cluster::shared();
    // Some database must be migrated for the login roles to exist.
    cluster.database();
    let database = cluster.empty_database();
    tidemark(&["migrate"]).database(&database.loader_url()).run().refused(77);
    assert_eq!(database.number("SELECT count(*) FROM pg_namespace WHERE nspname IN ('bronze', 'loader')"), 0);
}

#[test]
fn a_broker_or_a_topic_that_is_not_there_is_named() {
    let database = cluster::shared().database();
    let run = |brokers: &str, topic: &str| {
        let arguments =
            ["run", "--brokers", brokers, "--topic", topic, "--until-caught-up", "--maintain-every", "off"];
        tidemark(&arguments).database(&database.loader_url()).run()
    };
    let nobody = format!("127.0.0.1:{}", tidemark_tests::free_port());
    assert!(run(&nobody, "t").refused(69).contains(&nobody));
    assert!(run(&broker::shared().address, "no-such-topic").refused(78).contains("no-such-topic"));
}
