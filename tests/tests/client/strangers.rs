//! A role that has no right but to connect and to make temporary tables disturbs nobody, whatever it does. And the
//! warehouse that it does not disturb; what a role with models of its own does to it is in `neighbours`.

use postgres::Client;
use tidemark_tests::cluster::{self, Database, connect, sqlstate};

/// A source, a model with a live view, a materialized view over it, and a table with partitions past their retention.
pub(crate) const WAREHOUSE: &str = "
    CREATE EXTENSION tidemark;
    CREATE SCHEMA s;
    CREATE TABLE s.src (event_date date NOT NULL, v integer NOT NULL);
    INSERT INTO s.src SELECT date '2026-01-01' + i % 3, i FROM generate_series(1, 30) AS i;
    SELECT tidemark.create_model('s.m', '{s.src}',
        'SELECT event_date, sum(v) AS v FROM s.src WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
        '{event_date}', live => true);
    CREATE MATERIALIZED VIEW s.total AS SELECT 1 AS one, sum(v) AS v FROM s.m;
    CREATE UNIQUE INDEX ON s.total (one);
    SELECT tidemark.manage_materialized_view('s.total', '{s.m}');
    CREATE TABLE s.ev (event_time timestamptz NOT NULL, v integer) PARTITION BY RANGE (event_time);
    SELECT tidemark.manage_partitions('s.ev', 0);
    SELECT tidemark.set_watermark_policy('s.src', '1 day')";

/// Everything in the catalogs, as text.
fn catalogs(database: &Database<'_>) -> Vec<String> {
    let tables = database.column(
        "SELECT oid::regclass::text FROM pg_class
          WHERE relnamespace = 'tidemark_internal'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    assert!(tables.len() > 8, "{tables:?}");
    tables
        .iter()
        .flat_map(|table| {
            database.column(&format!("SELECT '{table} ' || t::text FROM {table} AS t ORDER BY 1"))
        })
        .collect()
}

/// A role that may log in, and a connection as this role.
pub(crate) fn login(database: &Database<'_>, name: &str) -> (String, Client) {
    let role = format!("{name}_{}", database.name);
    let address = &database.cluster.address;
    database.connect().batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).unwrap();
    let client = connect(&format!("postgresql://{role}:x@{address}/{}", database.name));
    (role, client)
}

/// What must go on whatever a stranger does: marks, refreshes, registrations, views, partitions.
pub(crate) fn work_goes_on(database: &Database<'_>, when: &str) {
    let mut client = database.connect();
    client.batch_execute("SET lock_timeout = '2s'; SET statement_timeout = '20s'").unwrap();
    for sql in [
        "INSERT INTO s.src VALUES ('2026-01-02', 5)",
        "SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')",
        "SELECT tidemark.mark_loaded('s.src', '{2026-01-03}', '{1}', '{0}', '{2026-01-03 12:00Z}',
                                     '{2026-01-03 12:00Z}')",
        "SELECT count(*) FROM s.m_live",
        "SELECT tidemark.create_model('s.n', '{s.m}',
             'SELECT event_date, v * 2 AS v FROM s.m WHERE event_date >= $1 AND event_date < $2', '{event_date}')",
        "CALL tidemark.refresh()",
        "SELECT tidemark.drop_model('s.n', true)",
        "CALL tidemark.refresh_materialized_views()",
        "SELECT tidemark.set_watermark_policy('s.src', '2 days')",
        "SELECT tidemark.plan_maintenance('s.ev')",
        "CALL tidemark.run_maintenance('s.ev')",
    ] {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{when}: {sql}: {}", cluster::explain(&e)));
    }
    let differ = "SELECT count(*) FROM (SELECT * FROM s.m EXCEPT SELECT event_date, sum(v) FROM s.src GROUP BY 1) AS x";
    assert_eq!(database.number(differ), 0, "{when}");
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0, "{when}");
}

#[test]
fn a_role_with_connect_and_temp_disturbs_nobody() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    work_goes_on(&database, "before");
    let (role, mut stranger) = login(&database, "stranger");
    stranger.batch_execute("CREATE TEMPORARY TABLE mine (event_time timestamptz, event_date date)").unwrap();
    stranger.batch_execute("CREATE TEMPORARY VIEW seen AS SELECT * FROM mine").unwrap();
    let before = catalogs(&database);

    // Tables: he may not read, write or lock a single one.
    let tables = database.column(
        "SELECT oid::regclass::text FROM pg_class
          WHERE relnamespace = 'tidemark_internal'::regnamespace AND relkind = 'r'",
    );
    let ours = [
        "models",
        "model_sources",
        "dirty_log",
        "model_dirty",
        "refresh_log",
        "materialized_views",
        "watermarks",
        "watermark_policies",
        "lateness_counts",
    ];
    for table in &tables {
        let name = table.rsplit('.').next().unwrap();
        for sql in [
            format!("DELETE FROM {table}"),
            format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
            format!("TRUNCATE {table}"),
        ] {
            let state = sqlstate(stranger.batch_execute(&sql));
            stranger.batch_execute("ROLLBACK").unwrap();
            assert!(!ours.contains(&name) || state == "42501", "{sql}: {state}");
        }
        if ours.contains(&name) {
            assert_eq!(sqlstate(stranger.batch_execute(&format!("SELECT FROM {table}"))), "42501", "{table}");
        }
    }
    // Functions: all that there are, with nothing, with what is his, with what is not.
    let functions = "SELECT p.oid::regproc::text, p.oid::regprocedure::text,
                            array_to_string(ARRAY(SELECT format_type(t, NULL)
                                                    FROM unnest(p.proargtypes) WITH ORDINALITY AS x(t, n)
                                                   ORDER BY n), ';')
                       FROM pg_proc AS p
                      WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace)
                        AND p.prokind = 'f' AND p.provariadic = 0
                        AND p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype)
                        AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[]";
    let mut refused = 0;
    for function in database.rows(functions) {
        let types: Vec<&str> = function[2].split(';').filter(|t| !t.is_empty()).collect();
        for table in ["NULL", "'mine'", "'seen'", "$$s.src$$", "$$s.m$$", "$$s.total$$"] {
            // He has no right on the schema, so he says it by number.
            let table = table.replace(
                "$$s.",
                "(SELECT c.oid FROM pg_class c
                    JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $$s$$ AND c.relname = $$",
            );
            let table = if table.starts_with('(') { format!("{table})") } else { table };
            let arguments: Vec<String> = types
                .iter()
                .map(|of| match *of {
                    "regclass" => format!("{table}::regclass"),
                    "oid" => "10::oid".to_owned(),
                    "date" => "date '2026-01-02'".to_owned(),
                    "date[]" => "ARRAY[date '2026-01-02']".to_owned(),
                    "bigint[]" => "ARRAY[1]::bigint[]".to_owned(),
                    "timestamp with time zone[]" => "ARRAY[now()]".to_owned(),
                    "text" => "'s.m'::text".to_owned(),
                    "interval" => "interval '1 day'".to_owned(),
                    of => format!("NULL::{of}"),
                })
                .collect();
            let sql = format!("SELECT {}({})", function[0], arguments.join(", "));
            refused += usize::from(sqlstate(stranger.batch_execute(&sql)) == "42501");
        }
    }
    assert!(refused > 100, "only {refused} calls were refused");
    for sql in [
        "CALL tidemark.refresh()",
        "CALL tidemark.refresh('s.m')",
        "CALL tidemark.refresh_materialized_views()",
        "SELECT tidemark.mark_loaded('mine', ARRAY['2026-01-01']::date[], ARRAY[9223372036854775807], ARRAY[0],
                                     ARRAY[now()], ARRAY[now()])",
        "SELECT tidemark.create_model('pg_temp.mine', ARRAY['mine'::regclass], 'SELECT event_date FROM mine',
                                      '{event_date}')",
        "SELECT tidemark.create_model('public.mine', ARRAY['mine'::regclass], 'SELECT event_date FROM mine',
                                      '{event_date}')",
        "SELECT tidemark.track_changes('mine')",
        "CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS tidemark_new FOR EACH STATEMENT
             EXECUTE FUNCTION tidemark_internal.mark_changes('event_time');
         INSERT INTO mine VALUES (now())",
        "CREATE TRIGGER r AFTER INSERT ON mine FOR EACH ROW
             EXECUTE FUNCTION tidemark_internal.mark_replicated('event_time');
         SET session_replication_role = replica",
        "CREATE FUNCTION tidemark.mine() RETURNS integer LANGUAGE sql RETURN 1",
        "CREATE FUNCTION tidemark_internal.mine() RETURNS integer LANGUAGE sql RETURN 1",
        "DROP EXTENSION tidemark",
        "ALTER EXTENSION tidemark UPDATE",
    ] {
        assert_ne!(sqlstate(stranger.batch_execute(sql)), "no error", "{sql}");
    }
    let after = catalogs(&database);
    assert_eq!(before, after, "a stranger wrote something");

    // Things of his named like ours, in the place that is looked at first.
    for sql in [
        "CREATE TEMPORARY TABLE models (name text); CREATE TEMPORARY TABLE dirty_log (id bigint)",
        "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
        "CREATE TYPE pg_temp.date AS ENUM ('x')",
        "SET search_path = pg_temp, pg_catalog",
        "SELECT tidemark.stale_dates('s.m'), * FROM tidemark.model_status",
    ] {
        stranger.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {}", cluster::explain(&e)));
    }
    work_goes_on(&database, "beside things named like ours");

    // And all locks that he can get, for as long as he likes.
    stranger.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    for view in database.column(
        "SELECT oid::regclass::text FROM pg_class
          WHERE relnamespace = 'tidemark'::regnamespace AND relkind = 'v'",
    ) {
        stranger.batch_execute(&format!("SAVEPOINT x; SELECT count(*) FROM {view}")).unwrap();
        for mode in ["ACCESS SHARE", "ROW EXCLUSIVE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"] {
            stranger.batch_execute("SAVEPOINT y").unwrap();
            if stranger.batch_execute(&format!("LOCK TABLE {view} IN {mode} MODE")).is_err() {
                stranger.batch_execute("ROLLBACK TO y").unwrap();
            }
        }
    }
    stranger
        .batch_execute(
            "SELECT pg_advisory_lock(c.oid::bigint) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname LIKE 'tidemark%' OR n.nspname = 's';
             SELECT pg_advisory_xact_lock(c.oid::integer, c.oid::integer) FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname LIKE 'tidemark%' OR n.nspname = 's'",
        )
        .unwrap();
    work_goes_on(&database, "beside an open transaction with locks");
    stranger.batch_execute("ROLLBACK").unwrap();
    drop(stranger);
    database.connect().batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
}
