//! Upgrades: a database that came from an older version is the same as a new one, what is stored in it survives, what
//! was released never changes, and what was promised stays.
//!
//! Upgrades run in a Postgres installation with an extension directory of its own (`tidemark_tests::installation`), so
//! that they can also be tried with versions that do not exist: as long as there is one version only, these are what
//! shows that a wrong script is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod next;
mod stable;
mod versions;

use std::sync::OnceLock;

use next::{MISTAKES, NEXT};
use tidemark_tests::catalog::{self, Catalog};
use tidemark_tests::cluster::{Cluster, Database, explain};
use tidemark_tests::installation::{Installation, install_script, sql_files};
use tidemark_tests::root;

/// The version in Cargo.toml.
fn current() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The installation and its server, shared by the tests of this program.
fn shared() -> &'static (Installation, Cluster) {
    static SHARED: OnceLock<(Installation, Cluster)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let installation = Installation::new("upgrade-installation");
        let from = current();
        installation.put(&format!("tidemark--{NEXT}.sql"), &next::fresh(&install_script()));
        installation.put(&format!("tidemark--{from}--{NEXT}.sql"), &next::upgrade());
        let cluster = Cluster::start_of("upgrade", &[], Some(&installation));
        (installation, cluster)
    })
}

fn run(database: &Database<'_>, sql: &str) {
    database.connect().batch_execute(sql).unwrap_or_else(|e| panic!("{}\nin {sql}", explain(&e)));
}

/// A database with this version of the extension.
fn installed(version: &str) -> Database<'static> {
    let database = shared().1.empty_database();
    run(&database, &format!("CREATE EXTENSION tidemark VERSION '{version}'"));
    database
}

fn update(database: &Database<'_>, version: &str) {
    run(database, &format!("ALTER EXTENSION tidemark UPDATE TO '{version}'"));
    assert_eq!(database.value("SELECT extversion FROM pg_extension WHERE extname = 'tidemark'"), version);
}

fn fresh(version: &str) -> Catalog {
    catalog::describe(&mut installed(version).connect())
}

/// Every pair of versions that Postgres finds a way between, the made-up ones left out: (from, to, path).
fn paths() -> Vec<(String, String, String)> {
    let sql = "SELECT source, target, path FROM pg_extension_update_paths('tidemark')
                WHERE path IS NOT NULL AND source !~ '^0\\.0\\.0-' AND target !~ '^0\\.0\\.0-' ORDER BY 1, 2";
    let rows = shared().1.empty_database().rows(sql);
    rows.into_iter().map(|row| <[String; 3]>::try_from(row).unwrap().into()).collect()
}

/// The released versions, and this one: those that can be installed, oldest first.
fn installable() -> Vec<String> {
    let mut versions: Vec<String> = sql_files(&root().join("extension/install"))
        .into_iter()
        .map(|(name, _)| name.trim_start_matches("tidemark--").trim_end_matches(".sql").to_owned())
        .chain([current()])
        .collect();
    versions.sort_by_key(|version| numbers(version));
    versions.dedup();
    versions
}

/// 0.10.2 as [0, 10, 2].
fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|n| n.parse().unwrap_or_else(|_| panic!("{version} is no version number")))
        .collect()
}

#[test]
fn two_fresh_installs_are_described_alike_and_completely() {
    let (one, other) = (fresh(&current()), fresh(&current()));
    assert_eq!(catalog::differences(&one, &other), Vec::<String>::new());
    let count = |property: &str| one.keys().filter(|(_, p)| p == property).count();
    for (property, least) in [
        ("definition", 150),
        ("aggtransfn", 40),
        ("comment", 400),
        ("rights", 400),
        ("initial rights (e)", 15),
        ("column", 150),
        ("default", 10),
        ("constraint", 20),
        ("index", 10),
        ("sequence", 3),
        ("view", 6),
        ("cast", 6),
        ("operator", 2),
        ("typinput", 40),
    ] {
        assert!(count(property) >= least, "only {} times {property}", count(property));
    }
    let dumped = one.keys().filter(|(_, p)| p.starts_with("dumped: ")).count();
    assert!(dumped >= 15, "pg_dump takes only {dumped} along");
    println!("{} properties of {} kinds", one.len(), {
        let mut kinds: Vec<_> = one.keys().map(|(_, property)| property).collect();
        kinds.sort();
        kinds.dedup();
        kinds.len()
    });
}

#[test]
fn every_version_leads_to_this_one_and_ends_as_a_fresh_install() {
    let (to, paths) = (current(), paths());
    for from in installable().iter().filter(|version| **version != to) {
        assert!(
            paths.iter().any(|(source, target, _)| source == from && *target == to),
            "no upgrade script leads from {from} to {to}: write extension/sql/tidemark--{from}--....sql"
        );
    }
    for (source, target, path) in &paths {
        let steps: Vec<_> = path.split("--").map(numbers).collect();
        assert!(steps.is_sorted(), "from {source} to {target} Postgres would go {path}, which leads back");
        // What an upgrade leads to is compared where there is an install script to compare with.
        if !installable().contains(source) || !installable().contains(target) {
            continue;
        }
        let database = installed(source);
        fill(&database);
        let before = stored(&database);
        update(&database, target);
        let differences = catalog::differences(&catalog::describe(&mut database.connect()), &fresh(target));
        assert!(differences.is_empty(), "{path} is not as a fresh {target}:\n{}", differences.join("\n"));
        assert_eq!(stored(&database), before, "{path} changed what was stored");
        println!("{path}: as a fresh install");
    }
    println!("{} versions, {} ways between them", installable().len(), paths.len());
}

#[test]
fn a_right_upgrade_ends_as_a_fresh_install() {
    let database = installed(&current());
    let before = catalog::describe(&mut database.connect());
    update(&database, NEXT);
    let upgraded = catalog::describe(&mut database.connect());
    let differences = catalog::differences(&upgraded, &fresh(NEXT));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let changes = catalog::differences(&before, &upgraded);
    assert!(changes.len() > 100, "the next version is hardly another: {changes:?}");
}

#[test]
fn every_mistake_in_an_upgrade_is_found() {
    let (from, right, fresh) = (current(), next::upgrade(), fresh(NEXT));
    let database = installed(&from);
    let mut client = database.connect();
    let mut found = 0;
    let mut try_script = |version: &str, script: &str, object: &str| {
        shared().0.put(&format!("tidemark--{from}--{version}.sql"), script);
        // Rolled back each time, which is quicker than a database for each.
        client.batch_execute("BEGIN").unwrap();
        let update = client.batch_execute(&format!("ALTER EXTENSION tidemark UPDATE TO '{version}'"));
        update.unwrap_or_else(|e| panic!("{version}: {}", explain(&e)));
        let differences = catalog::differences(&catalog::describe(&mut client), &fresh);
        client.batch_execute("ROLLBACK").unwrap();
        let named = differences.iter().any(|line| line.contains(object));
        assert!(named, "{version}: of {object} is said nothing: {differences:?}\nscript: {script}");
        found += 1;
    };
    for (n, (text, instead, object)) in MISTAKES.iter().enumerate() {
        assert!(right.contains(text), "the upgrade script does not have: {text}");
        try_script(&format!("0.0.0-mistake{n}"), &right.replacen(text, instead, 1), object);
    }
    // What the upgrade forgot to take away, or to change at all.
    let with = |more: &str| format!("{right}{more}");
    try_script(
        "0.0.0-more",
        &with("CREATE FUNCTION tidemark.left_over() RETURNS integer LANGUAGE sql RETURN 1;"),
        "tidemark.left_over(",
    );
    try_script(
        "0.0.0-less",
        &with("DROP FUNCTION tidemark.session_id(text, timestamptz);"),
        "tidemark.session_id(",
    );
    try_script(
        "0.0.0-left",
        &with("ALTER EXTENSION tidemark DROP FUNCTION tidemark.session_id(text, timestamptz);"),
        "tidemark.session_id(",
    );
    try_script("0.0.0-none", "SELECT 1;", "tidemark.bar(");
    println!("{found} mistakes found");
}

/// Stored states, settings, a model and its books: what people have in a database.
fn fill(database: &Database<'_>) {
    run(
        database,
        "CREATE SCHEMA shop;
         CREATE TABLE shop.events (event_time timestamptz NOT NULL, person text, kind text, event_date date
             GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED) PARTITION BY RANGE (event_time);
         SELECT tidemark.manage_partitions('shop.events', 3, partition_schema => 'shop');
         SELECT tidemark.ensure_partitions('shop.events', '{2026-09-01,2026-09-02,2026-09-03,2026-09-04,2026-09-05}');
         INSERT INTO shop.events SELECT '2026-09-01'::timestamptz + n * interval '1 minute', 'p' || n % 97,
                (ARRAY['view', 'cart', 'buy'])[n % 3 + 1] FROM generate_series(0, 7000) AS n;
         CREATE TABLE shop.rollup AS
             SELECT event_date, tidemark.hll_agg(person) AS persons,
                    tidemark.ddsketch_agg(extract(epoch FROM event_time)::float8) AS times
               FROM shop.events GROUP BY event_date;
         CREATE TABLE shop.funnel AS
             SELECT tidemark.funnel_stats(chain, 3) AS stats
               FROM (SELECT tidemark.funnel('1 day', event_time, kind = 'view', kind = 'cart', kind = 'buy') AS chain
                       FROM shop.events GROUP BY person) AS p;
         SELECT tidemark.create_model('shop.daily', ARRAY['shop.events']::regclass[],
                'SELECT event_date, count(*) AS events FROM shop.events
                  WHERE event_date >= $1 AND event_date < $2 GROUP BY event_date',
                ARRAY['event_date']::name[], live => true);
         SELECT tidemark.mark_dirty('shop.events', ARRAY['2026-09-05']::date[], 'once more')",
    );
    // By itself: it commits.
    run(database, "CALL tidemark.refresh(NULL, 2)");
}

/// The same as text, and every row that the extension keeps, without columns that came later.
fn stored(database: &Database<'_>) -> Vec<Vec<String>> {
    let columns = "SELECT format('SELECT %L, %s FROM %s AS t ORDER BY t::text', c.oid::regclass,
                          string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum)
                              FILTER (WHERE a.attname <> 'note'), c.oid::regclass)
                     FROM pg_extension AS e, pg_class AS c
                     JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    WHERE e.extname = 'tidemark' AND c.oid = ANY (e.extconfig) AND c.relkind = 'r'
                      AND c.relname <> 'notes'
                    GROUP BY c.oid ORDER BY c.oid::regclass::text";
    let own = [
        "SELECT event_date, persons, persons::bytea, tidemark.hll_cardinality(persons), times, times::bytea,
                tidemark.ddsketch_quantile(times, 0.5) FROM shop.rollup ORDER BY 1",
        "SELECT stats, stats::bytea FROM shop.funnel",
        "SELECT t.* FROM shop.funnel, tidemark.funnel_table(stats) AS t",
        "SELECT tidemark.hll_union_agg(persons), tidemark.ddsketch_union_agg(times) FROM shop.rollup",
        "SELECT * FROM shop.daily ORDER BY 1",
        "SELECT * FROM shop.daily_live ORDER BY 1",
    ];
    let mut queries: Vec<String> = own.map(str::to_owned).to_vec();
    queries.extend(database.column(columns));
    assert!(queries.len() > own.len() + 8, "{queries:?}");
    queries.iter().flat_map(|sql| database.rows(sql)).collect()
}

#[test]
fn what_is_stored_survives_an_upgrade_and_goes_on() {
    let database = installed(&current());
    fill(&database);
    // Rights changed by hand, on a function that the next version replaces and on a table that it alters.
    run(
        &database,
        "REVOKE EXECUTE ON FUNCTION tidemark.bar(numeric, numeric, integer) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION tidemark.bar(numeric, numeric, integer) TO pg_monitor;
         GRANT TRUNCATE ON tidemark_internal.partition_config TO pg_monitor",
    );
    let rights = "SELECT p.proacl::text || c.relacl::text FROM pg_proc AS p, pg_class AS c
                   WHERE p.oid = 'tidemark.bar(numeric, numeric, integer)'::regprocedure
                     AND c.oid = 'tidemark_internal.partition_config'::regclass";
    let rights_before = database.value(rights);
    assert_eq!(rights_before.matches("pg_monitor").count(), 2, "{rights_before}");
    let before = stored(&database);
    assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 3);
    update(&database, NEXT);
    assert_eq!(stored(&database), before);
    assert_eq!(database.value(rights), rights_before);
    assert_eq!(database.column("SELECT note FROM tidemark_internal.partition_config"), ["none"]);
    run(&database, "CALL tidemark.run_maintenance(NULL)");
    run(&database, "CALL tidemark.refresh(NULL, NULL)");
    assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
    assert_eq!(
        database.rows("SELECT * FROM shop.daily ORDER BY 1"),
        database.rows("SELECT event_date, count(*) FROM shop.events GROUP BY 1 ORDER BY 1")
    );
    let sql = "SELECT count(*) FROM tidemark.verify_model('shop.daily', '2026-09-01', '2026-09-05')
                WHERE status <> 'ok'";
    assert_eq!(database.number(sql), 0);
}
