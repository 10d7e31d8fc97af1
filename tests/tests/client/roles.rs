//! Who may do what, and that every object says what it is.

use tidemark_tests::cluster::{self, connect, rows, sqlstate};
use tidemark_tests::events::{self, Generated};
use tidemark_tests::process::tidemark;

/// Storage behind views that readers use instead.
const STORAGE: [&str; 20] = [
    "gold_storage.daily_activity",
    "gold_storage.daily_activity_live",
    "gold_storage.excluded_days",
    "gold_storage.excluded_days_live",
    "gold_storage.funnel_chains",
    "gold_storage.funnel_chains_live",
    "gold_storage.funnel_facts",
    "gold_storage.funnel_facts_live",
    "gold_storage.lifecycle_stored",
    "gold_storage.load_times",
    "gold_storage.load_times_live",
    "gold_storage.person_activity",
    "gold_storage.person_activity_live",
    "gold_storage.reporting",
    "gold_storage.retention_stored",
    "gold_storage.rolling_actives_stored",
    "gold_storage.session_facts",
    "gold_storage.session_facts_live",
    "gold_storage.silver_settings",
    "gold_storage.zoned_statements",
];

/// What readers are there for.
const READABLE: &[&str] = &[
    "gold.calendar",
    "gold.currency_rates",
    "gold.daily_actives",
    "gold.daily_actives_by_platform_country",
    "gold.daily_actives_by_platform_country_live",
    "gold.daily_actives_live",
    "gold.dead_letters_by_reason",
    "gold.dead_letters_daily",
    "gold.excluded_daily",
    "gold.excluded_daily_live",
    "gold.freshness",
    "gold.funnel_daily",
    "gold.funnel_daily_live",
    "gold.funnel_total",
    "gold.latency_daily",
    "gold.latency_daily_by_platform",
    "gold.latency_daily_by_platform_live",
    "gold.latency_daily_live",
    "gold.lateness",
    "gold.lifecycle_daily",
    "gold.lifecycle_weekly",
    "gold.monthly_actives",
    "gold.person_days",
    "gold.person_days_live",
    "gold.persons",
    "gold.purchases_star",
    "gold.reporting",
    "gold.retention_weekly",
    "gold.revenue_daily",
    "gold.revenue_daily_live",
    "gold.sessions",
    "gold.sessions_live",
    "gold.sessions_star",
    "gold.source_freshness",
    "gold.stickiness",
    "gold.weekly_actives",
    "silver.events",
    "silver.events_known",
    "silver.events_live",
    "silver.networks",
    "silver.page_views",
    "silver.page_views_live",
    "silver.purchases",
    "silver.purchases_live",
    "silver.sign_ups",
    "silver.sign_ups_live",
    "silver.trait_changes",
    "silver.trait_changes_live",
    "silver.user_agents",
];

/// Tables and views, partitions left out.
const RELATIONS: &str =
    "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition";

#[test]
fn a_reader_reads_silver_and_gold_and_nothing_else() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 3000 --days 3 --users 50 --seed 71");
    database.rows("INSERT INTO silver.user_agents (user_agent_id, user_agent, bot) VALUES (md5('robot/1')::uuid, 'robot/1', 'robot')");
    let robot = r#"{"messageId":"robot","event":"page_viewed","timestamp":"2026-09-01T10:00:00Z",
        "context":{"ip":"203.0.113.7","userAgent":"robot/1"}}"#;
    database.load_and_maintain(&events::file(robot.replace('\n', "").as_bytes()));
    database.load_and_maintain(&file.path);
    database.rows("INSERT INTO gold.currency_rates VALUES ('USD', '2026-09-01', 0.9)");
    let mut reader = connect(&database.reader_url());

    let (mut hidden, mut readable) = (Vec::new(), Vec::new());
    for relation in database
        .column(&format!("{RELATIONS} AND n.nspname IN ('silver', 'gold', 'gold_storage') ORDER BY 1"))
    {
        match reader.simple_query(&format!("SELECT * FROM {relation} LIMIT 10")) {
            Ok(_) => readable.push(relation),
            Err(e) if e.code().is_some_and(|code| code.code() == "42501") => hidden.push(relation),
            Err(e) => panic!("{relation}: {e:?}"),
        }
    }
    assert_eq!(hidden, STORAGE, "what a reader may not see");
    assert_eq!(readable, READABLE, "what a reader may see");
    for view in READABLE {
        let sql = format!("SELECT count(*) FROM {view}");
        assert!(
            view.starts_with("gold.dead_letters") || rows(&mut reader, &sql)[0][0] != "0",
            "{view} is empty"
        );
    }
    // Whoever asks the catalog as BI tools do sees the same and no partition.
    let listed = format!(
        "{RELATIONS} AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tidemark', 'tidemark_internal')
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1"
    );
    let listed = listed.replace(" AND NOT c.relispartition", "");
    let listed: Vec<String> = rows(&mut reader, &listed).into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(listed, READABLE, "what a BI tool would list");

    // Nothing of bronze, of the loader's books, of any partition.
    let forbidden = "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm') AND (n.nspname IN ('bronze', 'bronze_partitions', 'silver_partitions', 'loader') OR c.relispartition)";
    let forbidden = database.column(forbidden);
    for schema in ["bronze_partitions.", "silver_partitions."] {
        assert!(forbidden.iter().any(|r| r.starts_with(schema)), "no partition of {schema} to try");
    }
    for relation in forbidden {
        let result = reader.simple_query(&format!("SELECT 1 FROM {relation}"));
        assert_eq!(sqlstate(result), "42501", "{relation}");
    }
    assert_eq!(sqlstate(reader.simple_query("SELECT payload FROM bronze.events")), "42501");
    let payload = "SELECT count(*) FROM information_schema.columns
         WHERE table_schema IN ('silver', 'gold', 'gold_storage') AND (column_name = 'payload' OR data_type = 'jsonb')
           AND (table_schema || '.' || table_name, column_name)
               NOT IN (('silver.events', 'properties'), ('silver.events_live', 'properties'),
                       ('silver.events_known', 'properties'), ('gold_storage.reporting', 'offsets'))";
    assert_eq!(database.number(payload), 0, "the raw payload is visible to readers");
    for relation in ["silver.events", "silver.events_live", "silver.events_known"] {
        let shown = reader.query_one(&format!("SELECT count(properties) FROM {relation}"), &[]).unwrap();
        assert_eq!(shown.get::<_, i64>(0), 0, "properties that nobody chose to show in {relation}");
    }
}

#[test]
fn a_reader_writes_nothing() {
    let database = cluster::shared().database();
    let writable = database.rows(
        "SELECT c.oid::regclass, p.privilege FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p(privilege)
          -- In those with row level security everybody writes the rows of their own tables; a reader has none.
          WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relrowsecurity AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
            AND has_table_privilege('e2e_reader', c.oid, p.privilege)",
    );
    assert!(writable.is_empty(), "{writable:?}");
    let sequences = database.rows(
        "SELECT c.oid::regclass FROM pg_class AS c WHERE c.relkind = 'S'
            AND (has_sequence_privilege('e2e_reader', c.oid, 'USAGE') OR has_sequence_privilege('e2e_reader', c.oid, 'UPDATE'))",
    );
    assert!(sequences.is_empty(), "{sequences:?}");
    let schemas = database.rows(
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND has_schema_privilege('e2e_reader', oid, 'CREATE')",
    );
    assert!(schemas.is_empty(), "{schemas:?}");
    let mut reader = connect(&database.reader_url());
    // Row level security instead of a missing privilege: then there is nothing that a reader could change.
    for table in database.column("SELECT oid::regclass::text FROM pg_class WHERE relrowsecurity ORDER BY 1") {
        match reader.execute(&format!("DELETE FROM {table}"), &[]) {
            Ok(rows) => assert_eq!(rows, 0, "a reader deleted from {table}"),
            Err(e) => assert_eq!(e.code().map(|code| code.code()), Some("42501"), "{table}: {e:?}"),
        }
    }
    for relation in database.column(&format!(
        "{RELATIONS} AND n.nspname IN ('bronze', 'silver', 'gold', 'gold_storage', 'loader') ORDER BY 1"
    )) {
        let column = database.value(&format!(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = '{relation}'::regclass AND attnum = 1"
        ));
        for sql in [
            format!("INSERT INTO {relation} ({column}) VALUES (NULL)"),
            format!("UPDATE {relation} SET {column} = NULL"),
            format!("DELETE FROM {relation}"),
            format!("TRUNCATE {relation}"),
            format!("CREATE VIEW {}.made AS SELECT 1", relation.split('.').next().unwrap()),
        ] {
            // Not allowed, or nothing that can be written to: a view that aggregates, a materialized view.
            let state = sqlstate(reader.simple_query(&sql));
            assert!(["42501", "55000", "42809"].contains(&state.as_str()), "{sql}: {state}");
        }
    }
    for sql in [
        "SELECT tidemark.mark_dirty('silver.events'::regclass, ARRAY[current_date], 'x')",
        "SELECT tidemark.ensure_partitions('bronze.events'::regclass, '{2030-01-01}')",
        "SELECT tidemark.create_model('gold_storage.session_facts', ARRAY['bronze.events']::regclass[], 'SELECT 1', ARRAY['x']::name[])",
        "SELECT tidemark.manage_partitions('bronze.events'::regclass, 1)",
        "SELECT silver.create_event_table('x', ARRAY['x'], '{}')",
        "SET ROLE tidemark_admin",
    ] {
        assert_eq!(sqlstate(reader.simple_query(sql)), "42501", "{sql}");
    }
    assert!(reader.simple_query("CALL tidemark.refresh(NULL, NULL)").is_err(), "a reader can refresh");
    assert!(
        reader.simple_query("CALL tidemark.refresh_materialized_views()").is_err(),
        "a reader can refresh"
    );
}

#[test]
fn a_loader_appends_and_can_do_nothing_else() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 500 --days 2 --users 50 --seed 72");
    tidemark(&["load", file.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    let mut loader = connect(&database.loader_url());
    for sql in [
        "UPDATE bronze.events SET user_id = 'x'",
        "DELETE FROM bronze.events",
        "TRUNCATE bronze.events",
        "DROP TABLE bronze.events",
        "ALTER TABLE bronze.events ADD COLUMN x int",
        "DELETE FROM loader.dead_letters",
        "DELETE FROM loader.batches",
        "SELECT * FROM gold.sessions",
        "SELECT * FROM silver.events",
        "SELECT * FROM silver.events_live",
        "SELECT * FROM silver_partitions.events_p20260901",
        "SELECT silver.create_event_table('x', ARRAY['x'], '{}')",
        "CREATE TABLE bronze.x (i int)",
        "CREATE TABLE public.x (i int)",
        "SELECT tidemark.manage_partitions('bronze.events'::regclass, 1)",
    ] {
        assert_eq!(sqlstate(loader.simple_query(sql)), "42501", "{sql}");
    }
    // What the partitions that a loader causes belong to is not the loader.
    let owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class
         WHERE relispartition AND relnamespace = 'bronze_partitions'::regnamespace";
    assert_eq!(database.column(owners), ["tidemark_admin"]);
    tidemark(&["status"]).database(&database.loader_url()).run().ok();
}

#[test]
fn everything_has_a_comment() {
    let database = cluster::shared().database();
    let missing = database.column(
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
            AND n.nspname IN ('bronze', 'silver', 'gold', 'gold_storage', 'identity', 'loader', 'tidemark', 'tidemark_internal') AND obj_description(c.oid, 'pg_class') IS NULL
          UNION ALL
         SELECT c.oid::regclass || '.' || a.attname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
           JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
            AND n.nspname IN ('bronze', 'silver', 'gold', 'gold_storage', 'identity', 'loader', 'tidemark', 'tidemark_internal') AND col_description(c.oid, a.attnum) IS NULL
          UNION ALL
         SELECT 'schema ' || nspname FROM pg_namespace AS n
          WHERE nspname IN ('bronze', 'bronze_partitions', 'silver', 'silver_partitions', 'gold', 'gold_storage', 'identity', 'loader', 'tidemark', 'tidemark_internal')
            AND obj_description(oid, 'pg_namespace') IS NULL
          UNION ALL
         SELECT p.oid::regprocedure::text FROM pg_proc AS p
          WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace, 'silver'::regnamespace, 'identity'::regnamespace) AND obj_description(p.oid, 'pg_proc') IS NULL
          UNION ALL
         SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'tidemark\\_%' AND shobj_description(oid, 'pg_authid') IS NULL
          ORDER BY 1",
    );
    assert!(missing.is_empty(), "without a comment: {missing:?}");
}

#[test]
fn the_group_roles_cannot_log_in_and_own_what_they_should() {
    let database = cluster::shared().database();
    let roles =
        "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles
         WHERE rolname LIKE 'tidemark\\_%' ORDER BY 1";
    let no = || ["f"; 5].map(str::to_owned).to_vec();
    let expected: Vec<Vec<String>> = ["tidemark_admin", "tidemark_loader", "tidemark_reader"]
        .map(|role| [vec![role.to_owned()], no()].concat())
        .to_vec();
    assert_eq!(database.rows(roles), expected);
    let strangers = "SELECT c.oid::regclass, c.relowner::regrole FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('bronze', 'bronze_partitions', 'silver', 'silver_partitions', 'gold', 'gold_storage', 'identity', 'loader') AND c.relowner <> 'tidemark_admin'::regrole
           AND c.relname NOT LIKE 'schema\\_history%'";
    let strangers = database.rows(strangers);
    assert!(strangers.is_empty(), "not owned by tidemark_admin: {strangers:?}");
}
