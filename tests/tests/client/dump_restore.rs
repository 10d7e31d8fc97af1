//! `pg_dump` and `pg_restore` into another database and another cluster: nothing is missing, and everything goes on.

use std::process::Command;

use tidemark_tests::cluster::{self, Cluster, Database, connect, program, sqlstate};
use tidemark_tests::events::{Generated, assert_books};
use tidemark_tests::process::tidemark;
use tidemark_tests::race;

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let program = command.get_program().to_string_lossy().into_owned();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// All that people put in or read, as text.
fn content(database: &Database<'_>) -> Vec<Vec<String>> {
    [
        "SELECT * FROM bronze.events ORDER BY event_id, event_time",
        "SELECT * FROM gold.sessions ORDER BY session_id",
        "SELECT * FROM silver.events ORDER BY event_id, event_time",
        "SELECT * FROM silver.purchases ORDER BY event_id, event_time",
        "SELECT * FROM gold_storage.daily_activity ORDER BY 1, 2, 3, 4",
        "SELECT * FROM gold.funnel_daily ORDER BY 1, 2",
        "SELECT * FROM gold.retention_weekly ORDER BY 1, 2",
        "SELECT * FROM gold.sessions_live ORDER BY session_id",
        "SELECT * FROM gold.weekly_actives ORDER BY 1",
        "SELECT * FROM loader.offsets ORDER BY 1, 2, 3",
        "SELECT * FROM loader.batches ORDER BY 1",
        "SELECT * FROM loader.batch_ranges ORDER BY 1, 2, 3",
        "SELECT * FROM loader.dead_letters ORDER BY 1, 2, 3, 4",
        "SELECT name, target, query, key, lookback_days, lookahead_days, refresh_count FROM tidemark_internal.models ORDER BY 1",
        "SELECT model, source::text FROM tidemark_internal.model_sources ORDER BY 1, 2",
        "SELECT source, event_date, reason FROM tidemark_internal.dirty_log ORDER BY id",
        "SELECT model, event_date FROM tidemark_internal.model_dirty ORDER BY id",
        "SELECT parent, premake_days, partition_schema, unique_columns FROM tidemark_internal.partition_config ORDER BY parent::text",
        "SELECT view, models, seen_count FROM tidemark_internal.materialized_views ORDER BY view::text",
        "SELECT partition, from_date, to_date, state FROM tidemark.partitions('bronze.events')",
        "SELECT partition, from_date, to_date, state FROM tidemark.partitions('silver.events')",
        "SELECT c.oid::regclass::text, c.relkind, c.relowner::regrole, c.relacl FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname IN ('bronze', 'bronze_partitions', 'silver', 'silver_partitions', 'gold', 'gold_storage', 'loader') ORDER BY 1",
    ]
    .iter()
    .flat_map(|sql| database.rows(sql))
    .chain(kept_by_extension(database))
    .collect()
}

/// Every row of every table of the extension, as text. None may be left out of a dump, nor a sequence: after a restore
/// it would begin anew, below the rows that are there.
fn kept_by_extension(database: &Database<'_>) -> Vec<Vec<String>> {
    let left_out = "SELECT c.oid::regclass FROM pg_class AS c
          JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
          JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'tidemark'
         WHERE c.relkind IN ('r', 'S') AND NOT c.oid = ANY (e.extconfig)";
    assert_eq!(database.column(left_out), Vec::<String>::new(), "no dump has these");
    let tables = "SELECT c.oid::regclass::text FROM pg_extension AS e, pg_class AS c
                   WHERE e.extname = 'tidemark' AND c.oid = ANY (e.extconfig) AND c.relkind = 'r' ORDER BY 1";
    let tables = database.column(tables);
    assert!(tables.len() >= 5, "only {tables:?}");
    let rows = |table| format!("SELECT '{table}', t::text FROM {table} AS t ORDER BY 2");
    tables.iter().flat_map(|table| database.rows(&rows(table))).collect()
}

/// A database with events, models, one refreshed part and one dirty date; and the file for later.
fn filled() -> (Database<'static>, Generated) {
    let database = cluster::shared().database();
    let [first, second] = [81, 82].map(|seed| {
        Generated::new(&format!("--events 4000 --days 5 --users 100 --malformed 0.01 --seed {seed}"))
    });
    database.load_and_maintain(&first.path);
    let mark = "SELECT tidemark.mark_dirty('bronze.events'::regclass, ARRAY['2026-09-03']::date[], 'before the dump')";
    database.rows(mark);
    (database, second)
}

fn dump(database: &Database<'_>) -> std::path::PathBuf {
    let path = tidemark_tests::events::file(b"");
    run(Command::new(program("pg_dump")).args(["-Fc", "-f"]).arg(&path).arg(database.superuser_url()));
    path
}

fn restore(dump: &std::path::Path, into: &Database<'_>) {
    let mut command = Command::new(program("pg_restore"));
    run(command.args(["--exit-on-error", "-d"]).arg(into.superuser_url()).arg(dump));
}

/// Loads and refreshes, and compares with the same done where the dump was made.
fn assert_goes_on(copy: &Database<'_>, original: &Database<'_>, more: &Generated) {
    assert!(
        tidemark(&["migrate"]).database(&copy.superuser_url()).run().ok().stdout.contains("nothing to do")
    );
    for database in [copy, original] {
        tidemark(&["load", more.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
        connect(&database.admin_url())
            .batch_execute(
                "SELECT tidemark.ensure_partitions('bronze.events', ARRAY[current_date + 101, current_date + 102])",
            )
            .unwrap();
        tidemark(&["maintain"]).database(&database.admin_url()).run().ok();
        assert_books(database);
        assert_eq!(database.number("SELECT sum(dirty_dates) FROM tidemark.model_status"), 0);
    }
    for sql in [
        "SELECT event_id, event_time, event_type, user_id, payload FROM bronze.events ORDER BY 1, 2",
        "SELECT * FROM gold.sessions ORDER BY session_id",
        "SELECT event_date, events, active_persons, active_persons_estimate, received_after_day FROM gold.daily_actives ORDER BY 1",
        "SELECT * FROM gold.weekly_actives ORDER BY 1",
        "SELECT partition, from_date, to_date FROM tidemark.partitions('bronze.events')",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname IN ('bronze_partitions', 'silver_partitions') ORDER BY 1, 2",
    ] {
        assert!(copy.rows(sql) == original.rows(sql), "differs: {sql}");
    }
}

#[test]
fn a_dump_restored_into_another_database_is_complete_and_goes_on() {
    let (original, more) = filled();
    let copy = cluster::shared().empty_database();
    restore(&dump(&original), &copy);
    for (found, expected) in content(&copy).iter().zip(content(&original).iter()) {
        assert_eq!(found, expected);
    }
    assert_eq!(content(&copy).len(), content(&original).len());
    assert_goes_on(&copy, &original, &more);
}

#[test]
fn a_dump_restored_into_another_cluster_is_complete_and_goes_on() {
    let (original, more) = filled();
    let cluster = Cluster::start("postgres-2");
    // The roles first, as pg_dumpall gives them: they belong to the cluster and not to the database.
    let mut dump_roles = Command::new(program("pg_dumpall"));
    let roles = run(dump_roles.args(["--roles-only", "-d"]).arg(original.superuser_url()));
    let roles = String::from_utf8(roles).unwrap();
    let ours = |line: &&str| !line.contains(" ROLE postgres") && !line.starts_with('\\');
    let roles: Vec<&str> = roles.lines().filter(ours).collect();
    cluster.connect("postgres").batch_execute(&roles.join("\n")).unwrap();
    let copy = cluster.empty_database();
    restore(&dump(&original), &copy);
    assert!(content(&copy) == content(&original), "something is missing or differs");
    assert_goes_on(&copy, &original, &more);
}

#[test]
fn a_role_that_may_read_everything_can_dump_it() {
    let (original, _) = filled();
    let role = format!("backup_{}", original.name);
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'x' IN ROLE pg_read_all_data");
    original.connect().batch_execute(&create).unwrap();
    let url = format!("postgresql://{role}:x@{}/{}", original.cluster.address, original.name);
    let path = tidemark_tests::events::file(b"");
    run(Command::new(program("pg_dump")).args(["-Fc", "-f"]).arg(&path).arg(&url));
    let copy = cluster::shared().empty_database();
    restore(&path, &copy);
    let kept = kept_by_extension(&copy);
    assert!(kept == kept_by_extension(&original), "settings, marks or models are missing");
    for table in ["dirty_log", "models", "partition_config"] {
        assert!(kept.iter().any(|row| row[0] == format!("tidemark_internal.{table}")), "{table} is empty");
    }
    original.connect().batch_execute(&format!("DROP ROLE {role}")).unwrap();
}

/// A chain of models with everything that may be pending: marks that nobody has read, marks that wait at their models,
/// some on dates whose source rows are gone.
fn models_under_way() -> (Database<'static>, String) {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    race::create(&mut client);
    race::fill(&mut client);
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
    assert_eq!(race::wrong(&mut client, "true"), Vec::<String>::new());
    // The first dates go; the models keep what they have.
    let retire = "SELECT tidemark.manage_partitions('race.events', 0, 'race_partitions',
                         retention_days => current_date - date '2026-03-04', retention_action => 'drop')";
    client.batch_execute(retire).unwrap();
    client.batch_execute("CALL tidemark.run_maintenance('race.events')").unwrap();
    let retired = database.column("SELECT event_date FROM tidemark.retired_dates ORDER BY 1 DESC");
    assert!((1..=5).contains(&retired.len()), "{retired:?}");
    let kept = format!("event_date >= date '{}' + 4", retired[0]);
    assert_eq!(race::wrong(&mut client, &kept), Vec::<String>::new());
    // Three dates, of which one refreshed date and many waiting ones of models come; one date that is frozen; one more
    // date that no refresher has looked at.
    for (date, refresh) in
        [("2026-03-12', '2026-03-20', '2026-03-25", true), (retired[0].as_str(), true), ("2026-03-15", false)]
    {
        late(&mut client, date);
        if refresh {
            client.batch_execute("CALL tidemark.refresh(NULL, 1)").unwrap();
        }
    }
    for table in ["tidemark_internal.dirty_log", "tidemark_internal.model_dirty"] {
        assert!(database.number(&format!("SELECT count(*) FROM {table}")) > 0, "{table} is empty");
    }
    (database, kept)
}

/// Late events of these dates, with their marks; just the marks where a date has no partition any more.
fn late(client: &mut postgres::Client, dates: &str) {
    let sql = format!(
        "BEGIN;
         INSERT INTO race.events (event_time, person, kind, amount)
         SELECT d::timestamp AT TIME ZONE 'UTC' + interval '1 hour', 'late', 'buy', 1
           FROM unnest(ARRAY['{dates}']::date[]) AS d
          WHERE EXISTS (SELECT FROM tidemark.partitions('race.events') AS p WHERE p.from_date = d);
         SELECT tidemark.mark_dirty('race.events', ARRAY['{dates}']::date[], 'late');
         COMMIT"
    );
    client.batch_execute(&sql).unwrap();
}

#[test]
fn models_under_way_go_on_in_another_cluster() {
    let (original, kept) = models_under_way();
    let cluster = Cluster::start("postgres-3");
    let copy = cluster.empty_database();
    restore(&dump(&original), &copy);
    let status = "SELECT to_jsonb(s) - 'freshness_seconds' FROM tidemark.model_status AS s ORDER BY 1";
    let frozen = "SELECT count(*) FROM race.clean WHERE event_date <= (SELECT max(event_date) FROM tidemark.retired_dates)";
    assert!(copy.number(frozen) > 0, "nothing is kept of retired dates");

    // At once: the same rows wait, and live views are right already.
    assert!(kept_by_extension(&copy) == kept_by_extension(&original), "the books differ");
    assert_eq!(copy.rows(status), original.rows(status));
    let live: Vec<String> =
        race::wrong(&mut copy.connect(), &kept).into_iter().filter(|w| w.contains("_live:")).collect();
    assert_eq!(live, Vec::<String>::new());

    // And everything goes on, with the same result as where it comes from.
    for database in [&original, &copy] {
        let mut client = database.connect();
        late(&mut client, "2026-03-22");
        client.batch_execute("CALL tidemark.run_maintenance(NULL)").unwrap();
        client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
        assert_eq!(race::wrong(&mut client, &kept), Vec::<String>::new());
        let again =
            "SELECT tidemark.ensure_partitions('race.events', ARRAY[event_date]) FROM tidemark.retired_dates";
        assert_eq!(sqlstate(client.batch_execute(again)), "55000", "a retired date came back");
        for model in race::MODELS {
            let verify = format!(
                "SELECT event_date, status, detail FROM tidemark.verify_model('race.{}', '2026-03-10', '2026-03-30') WHERE status <> 'ok'",
                model.name
            );
            assert_eq!(database.rows(&verify), Vec::<Vec<String>>::new(), "{}", model.name);
        }
        let state = race::state(&mut client);
        client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
        assert_eq!(race::state(&mut client), state, "a second refresh wrote something");
    }
    assert_eq!(copy.rows(status).len(), race::MODELS.len());
    for model in race::MODELS {
        let sql = format!("SELECT t::text FROM race.{} AS t ORDER BY 1", model.name);
        assert!(copy.rows(&sql) == original.rows(&sql), "race.{} differs", model.name);
    }
}
