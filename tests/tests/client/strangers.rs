//! What others do to a database must not hold up whose models these are: a role without any right, a role with models
//! of its own, sessions that register models and stay in their transaction, servers that apply what others publish.

use std::time::Duration;

use postgres::Client;
use tidemark_tests::cluster::{self, Cluster, Database, connect, rows, sqlstate};
use tidemark_tests::wait_until;

/// A source, a model with a live view, a materialized view over it, and a table with partitions past their retention.
const WAREHOUSE: &str = "
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
fn login(database: &Database<'_>, name: &str) -> (String, Client) {
    let role = format!("{name}_{}", database.name);
    let address = &database.cluster.address;
    database.connect().batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).unwrap();
    let client = connect(&format!("postgresql://{role}:x@{address}/{}", database.name));
    (role, client)
}

/// What must go on whatever a stranger does: marks, refreshes, registrations, views, partitions.
fn work_goes_on(database: &Database<'_>, when: &str) {
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

/// A role with a schema of its own that may read s.src, as which the client works from now on.
fn neighbour(database: &Database<'_>, name: &str) -> (String, Client) {
    let (role, client) = login(database, name);
    let sql = format!(
        "GRANT USAGE ON SCHEMA s TO {role}; GRANT SELECT ON s.src TO {role}; CREATE SCHEMA own AUTHORIZATION {role}"
    );
    database.connect().batch_execute(&sql).unwrap();
    (role, client)
}

fn forget(database: &Database<'_>, role: &str) {
    let sql = format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}");
    database.connect().batch_execute(&sql).unwrap();
}

#[test]
fn a_model_that_is_being_registered_holds_up_no_mark_and_loses_none() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "owner");
    let mut client = database.connect();
    client.batch_execute("SET lock_timeout = '2s'").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let register = "BEGIN; SELECT tidemark.create_model('own.m', '{s.src}',
         'SELECT event_date, count(*) AS n FROM s.src WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
         '{event_date}', live => true)";
    let write = |client: &mut Client, date: &str| {
        let sql = format!(
            "BEGIN; INSERT INTO s.src VALUES ('{date}', 1); SELECT tidemark.mark_dirty('s.src', '{{{date}}}'); COMMIT;
             CALL tidemark.refresh()"
        );
        for statement in sql.split(';') {
            client
                .batch_execute(statement)
                .unwrap_or_else(|e| panic!("{statement}: {}", cluster::explain(&e)));
        }
    };
    let log = "SELECT count(*) FROM tidemark_internal.dirty_log";
    let waiting = "SELECT sum(dirty_dates) FROM tidemark.model_status WHERE model = 's.m'";

    // Given up in the end: the marks that were kept for it go.
    owner.batch_execute(register).unwrap();
    write(&mut client, "2026-02-01");
    assert_eq!(
        database.number("SELECT v FROM s.m WHERE event_date = '2026-02-01'"),
        1,
        "refreshed meanwhile"
    );
    assert_eq!((database.number(log), database.number(waiting)), (1, 0), "kept for who is not there yet");
    write(&mut client, "2026-02-02");
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(database.number(log), 0);

    // Committed in the end: its live view is right at once, its table after a refresh.
    owner.batch_execute(register).unwrap();
    write(&mut client, "2026-02-03");
    write(&mut client, "2026-02-04");
    let others = "SELECT refresh_count FROM tidemark.model_status WHERE model = 's.m'";
    let refreshed = database.number(others);
    owner.batch_execute("COMMIT").unwrap();
    let wrong = |relation: &str| {
        let truth = "SELECT event_date, count(*) FROM s.src GROUP BY 1";
        database.rows(&format!(
            "(SELECT * FROM {relation} EXCEPT {truth}) UNION ALL ({truth} EXCEPT SELECT * FROM {relation})"
        ))
    };
    assert_eq!(wrong("own.m_live"), Vec::<Vec<String>>::new());
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(wrong("own.m"), Vec::<Vec<String>>::new());
    assert_eq!(database.number(log), 0);
    assert_eq!(database.number(others), refreshed, "others had them already");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_slow_model_that_fails_and_takes_locks_leaves_the_others_their_turn() {
    let database = cluster::shared().empty_database();
    database.connect().batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "a_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date, n FROM generate_series(0, 9) AS n;
             CREATE FUNCTION own.slow(n integer) RETURNS integer LANGUAGE plpgsql AS $f$ BEGIN
                 PERFORM pg_sleep(0.3), pg_advisory_lock('tidemark_internal.models'::regclass::oid::bigint),
                        pg_advisory_lock('tidemark_internal.watermarks'::regclass::oid::bigint);
                 LOCK TABLE own.src IN ACCESS EXCLUSIVE MODE;
                 RETURN n / (n - 9); END $f$;
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, own.slow(n) AS n FROM own.src WHERE event_date >= $1 AND event_date < $2',
                 '{event_date}')",
        )
        .unwrap();
    let mut client = database.connect();
    assert_eq!(
        sqlstate(client.batch_execute("CALL tidemark.refresh(NULL, 5)")),
        "P0001",
        "the newest date fails"
    );
    let times =
        "SELECT model || ' ' || refresh_count || ' ' || dirty_dates FROM tidemark.model_status ORDER BY 1";
    let done = database.column(times);
    assert!(done[0].starts_with("own.a ") && done[1] == "s.m 3 0", "{done:?}");
    // In another session its query hangs, since the first one has the locks that it took. That call is lost; the next
    // one leaves it to the end.
    let mut other = database.connect();
    other.batch_execute("SET statement_timeout = '3s'").unwrap();
    assert_eq!(sqlstate(other.batch_execute("CALL tidemark.refresh()")), "57014");
    client.batch_execute("INSERT INTO s.src VALUES ('2026-01-02', 5)").unwrap();
    client.batch_execute("SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')").unwrap();
    assert_eq!(sqlstate(other.batch_execute("CALL tidemark.refresh()")), "57014");
    assert_eq!(database.column(times)[1], "s.m 4 0");
    drop((client, other));
    // Nor are these locks in anybody's way.
    owner.batch_execute("SELECT own.slow(1); SELECT tidemark.drop_model('own.a')").unwrap();
    work_goes_on(&database, "beside locks that a query takes");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn an_owner_who_keeps_his_tables_locked_holds_up_the_others_for_seconds() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let (role, mut owner) = neighbour(&database, "locking_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date, n FROM generate_series(0, 9) AS n;
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{event_date}');
             CREATE MATERIALIZED VIEW own.total AS SELECT count(*) AS n FROM own.src;
             CREATE UNIQUE INDEX ON own.total (n);
             SELECT tidemark.manage_materialized_view('own.total', '{own.a}')",
        )
        .unwrap();
    let lock = "BEGIN; LOCK TABLE own.a IN ACCESS EXCLUSIVE MODE; REFRESH MATERIALIZED VIEW own.total";
    owner.batch_execute(lock).unwrap();
    client
        .batch_execute(
            "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}');
             SET statement_timeout = '60s'",
        )
        .unwrap();
    // Ten dates wait behind the lock; it is tried once. Nor does it hide the others' health.
    let health =
        "SELECT parent::text FROM tidemark.partition_health; SELECT FROM tidemark.plan_maintenance()";
    owner
        .batch_execute(
            "COMMIT; CREATE TABLE own.ev (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('own.ev', 1)",
        )
        .unwrap();
    owner.batch_execute("CALL tidemark.run_maintenance()").unwrap();
    owner.batch_execute(&format!("{lock}; LOCK TABLE own.ev IN ACCESS EXCLUSIVE MODE")).unwrap();
    client.batch_execute(&format!("SET lock_timeout = '2s'; {health}; RESET lock_timeout")).unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh()")), "P0001");
    let status =
        "SELECT concat_ws(' ', model, dirty_dates, last_error) FROM tidemark.model_status ORDER BY 1";
    assert_eq!(
        database.column(status),
        ["own.a 10 2026-01-10: canceling statement due to lock timeout", "s.m 0"]
    );
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "P0001");
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    assert_eq!(database.column(status), ["own.a 0", "s.m 0"]);
    client.batch_execute("CALL tidemark.refresh_materialized_views()").unwrap();
    drop(owner);
    forget(&database, &role);
}

#[test]
fn the_rest_of_a_model_is_for_who_may_create_its_table_again() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "a_forgetful_owner");
    let (stranger, mut other) = login(&database, "a_stranger_to_both");
    owner
        .batch_execute(
            "SELECT tidemark.create_model('own.a', '{s.src}',
                 'SELECT event_date, v FROM s.src WHERE event_date >= $1 AND event_date < $2', '{event_date,v}');
             DROP TABLE own.a",
        )
        .unwrap();
    client.batch_execute("DROP TABLE s.m CASCADE").unwrap();
    for gone in ["own.a", "s.m"] {
        let drop = format!("SELECT tidemark.drop_model('{gone}')");
        assert_eq!(sqlstate(other.batch_execute(&drop)), "42501", "{gone}");
    }
    assert_eq!(sqlstate(owner.batch_execute("SELECT tidemark.drop_model('s.m')")), "42501");
    owner.batch_execute("SELECT tidemark.drop_model('own.a')").unwrap();
    client.batch_execute("SELECT tidemark.drop_model('s.m')").unwrap();
    assert_eq!(database.number("SELECT count(*) FROM tidemark_internal.models"), 0);
    drop((owner, other));
    forget(&database, &role);
    forget(&database, &stranger);
}

#[test]
fn who_locks_a_source_that_was_made_anew_holds_up_the_others_for_seconds() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "an_owner_of_a_source");
    let source = "CREATE TABLE own.src AS SELECT date '2026-01-01' AS event_date, 1 AS n";
    owner
        .batch_execute(&format!(
            "{source}; SELECT tidemark.create_model('own.a', '{{own.src}}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{{event_date}}')"
        ))
        .unwrap();
    owner.batch_execute(&format!("DROP TABLE own.src; {source}")).unwrap();
    owner.batch_execute("BEGIN; LOCK TABLE own.src IN ACCESS EXCLUSIVE MODE").unwrap();
    client.batch_execute("SET statement_timeout = '60s'").unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh('s.m')")), "no error");
    owner.batch_execute("ROLLBACK").unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let status =
        "SELECT concat_ws(' ', model, dirty_dates, last_error) FROM tidemark.model_status ORDER BY 1";
    assert_eq!(database.column(status), ["own.a 0", "s.m 0"]);
    drop(owner);
    forget(&database, &role);
}

#[test]
fn marks_that_concern_many_dates_hold_up_nobody_for_long() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    let (role, mut owner) = neighbour(&database, "an_owner_of_many_dates");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' AS event_date, 1 AS n;
             SELECT tidemark.create_model('own.wide', '{own.src}',
                 'SELECT event_date, n FROM own.src WHERE event_date >= $1 AND event_date < $2', '{event_date}',
                 1000, 1000);
             SELECT tidemark.mark_dirty('own.src', ARRAY(SELECT date '1000-01-01' + i * 7
                                                           FROM generate_series(1, 20000) AS i))",
        )
        .unwrap();
    client.batch_execute("SET statement_timeout = '60s'; SET temp_file_limit = '200MB'").unwrap();
    client.batch_execute("CALL tidemark.refresh('s.m')").unwrap();
    // 40 million times a mark reaches a date; each one waits once, or twice where one transaction took over from another.
    let waiting = "FROM tidemark_internal.model_dirty WHERE model = 'own.wide' AND event_date < '1900-01-01'";
    let dates = database.number(&format!("SELECT count(DISTINCT event_date) {waiting}"));
    assert_eq!(dates, 19_999 * 7 + 1 + 2000);
    let rows = database.number(&format!("SELECT count(*) {waiting}"));
    assert!(rows < 2 * dates, "{rows}");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn whatever_the_code_of_an_owner_raises_ends_only_his_own_work() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let (role, mut owner) = neighbour(&database, "a_raising_owner");
    owner
        .batch_execute(
            "CREATE TABLE own.src AS SELECT date '2026-01-01' + n AS event_date FROM generate_series(0, 1) AS n;
             CREATE TABLE own.code AS SELECT text '' AS code;
             CREATE FUNCTION own.boom() RETURNS integer LANGUAGE plpgsql AS $f$
             DECLARE
                 raised text := (SELECT c.code FROM own.code AS c);
             BEGIN
                 ASSERT raised <> 'P0004', 'boom';
                 IF raised <> '' THEN
                     RAISE 'boom' USING ERRCODE = raised;
                 END IF;
                 RETURN 1;
             END $f$;
             CREATE MATERIALIZED VIEW own.a_view AS SELECT own.boom() AS n;
             CREATE UNIQUE INDEX ON own.a_view (n);
             SELECT tidemark.create_model('own.a', '{own.src}',
                 'SELECT event_date, own.boom() AS n FROM own.src WHERE event_date >= $1 AND event_date < $2',
                 '{event_date}');
             SELECT tidemark.manage_materialized_view('own.a_view', '{own.a,s.m}')",
        )
        .unwrap();
    for code in ["57014", "P0004", "57P01", "40001", "XX000", "TM001"] {
        owner.batch_execute(&format!("UPDATE own.code SET code = '{code}'")).unwrap();
        let write =
            "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')";
        client.batch_execute(write).unwrap();
        assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh()")), "P0001", "{code}");
        assert_eq!(
            sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")),
            "P0001",
            "{code}"
        );
        let others = "SELECT dirty_dates FROM tidemark.model_status WHERE model = 's.m'";
        assert_eq!(database.number(others), 0, "{code}");
        assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0, "{code}");
    }
    // A view that takes long leaves others theirs; and a cancel is one all the same.
    owner
        .batch_execute(
            "CREATE OR REPLACE FUNCTION own.boom() RETURNS integer LANGUAGE sql
                          AS 'SELECT 1 FROM pg_sleep(60)'",
        )
        .unwrap();
    let mut slow = database.connect();
    let pid = slow.query_one("SELECT pg_backend_pid()", &[]).unwrap().get::<_, i32>(0);
    let thread = std::thread::spawn(move || {
        sqlstate(slow.batch_execute("CALL tidemark.refresh_materialized_views()"))
    });
    wait_until("the slow view to be at work", Duration::from_secs(60), || {
        database.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        )) > 0
    });
    let write =
        "INSERT INTO s.src VALUES ('2026-01-02', 5); SELECT tidemark.mark_dirty('s.src', '{2026-01-02}')";
    client.batch_execute(write).unwrap();
    client.batch_execute("CALL tidemark.refresh('s.m')").unwrap();
    client.batch_execute("CALL tidemark.refresh_materialized_views()").unwrap();
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    database.value(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(thread.join().unwrap(), "57014");
    client.batch_execute("SET statement_timeout = '500ms'").unwrap();
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh('own.a')")), "57014");
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "57014");
    drop(owner);
    forget(&database, &role);
}

#[test]
fn a_materialized_view_that_fails_holds_up_no_other() {
    let database = cluster::shared().empty_database();
    let mut client = database.connect();
    client.batch_execute(WAREHOUSE).unwrap();
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    let sql = "CREATE MATERIALIZED VIEW s.broken AS SELECT 1 AS one, 1 / (SELECT count(*) FROM s.src) AS x WITH NO DATA;
               CREATE UNIQUE INDEX ON s.broken (one);
               SELECT tidemark.manage_materialized_view('s.broken', '{s.m,s.m}')";
    client.batch_execute(sql).unwrap();
    // Not populated, so it cannot be refreshed concurrently.
    assert_eq!(sqlstate(client.batch_execute("CALL tidemark.refresh_materialized_views()")), "P0001");
    assert_eq!(database.number("SELECT v - (SELECT sum(v) FROM s.src) FROM s.total"), 0);
    let status = "SELECT view || ' ' || models::text || ' ' || stale || ' ' || refresh_count
                    FROM tidemark.materialized_views ORDER BY 1";
    assert_eq!(database.column(status), ["s.broken {s.m} true 0", "s.total {s.m} false 1"]);
}

#[test]
fn rows_that_a_subscription_applies_are_marked() {
    let cluster = Cluster::start_with("postgres-logical", &["wal_level=logical"]);
    let (publisher, subscriber) = (cluster.empty_database(), cluster.empty_database());
    let table = "CREATE TABLE public.ev (event_time timestamptz, v integer)";
    publisher
        .connect()
        .batch_execute(&format!(
            "{table}; INSERT INTO ev VALUES ('2026-01-01 12:00Z', 0);
             ALTER TABLE ev REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE ev"
        ))
        .unwrap();
    let slot = "SELECT pg_create_logical_replication_slot('slot_s', 'pgoutput')";
    publisher.connect().batch_execute(slot).unwrap();
    let mut client = subscriber.connect();
    client
        .batch_execute(&format!(
            "CREATE EXTENSION tidemark; {table}; SELECT tidemark.track_changes('public.ev')"
        ))
        .unwrap();
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p WITH (create_slot = false, slot_name = 'slot_s')",
        publisher.superuser_url()
    );
    client.batch_execute(&subscribe).unwrap();
    let marks = "SELECT concat_ws(' ', event_date, only_added, count(*)) FROM tidemark_internal.dirty_log
                  GROUP BY event_date, only_added ORDER BY 1";
    wait_until("the first copy", Duration::from_secs(60), || {
        subscriber.number("SELECT count(*) FROM ev") == 1
    });
    assert_eq!(subscriber.column(marks), ["2026-01-01 t 1"]);

    let mut writer = publisher.connect();
    writer
        .batch_execute("INSERT INTO ev SELECT '2026-01-02 12:00Z', i FROM generate_series(1, 20) AS i")
        .unwrap();
    writer.batch_execute("UPDATE ev SET event_time = '2026-01-03 12:00Z' WHERE v = 1").unwrap();
    writer.batch_execute("DELETE FROM ev WHERE v = 0").unwrap();
    let last = "SELECT count(*) FROM ev WHERE v = 0";
    wait_until("the last change", Duration::from_secs(60), || subscriber.number(last) == 0);
    // One mark for each date of a transaction: of twenty rows added, of one changed, where it was and where it is.
    assert_eq!(
        subscriber.column(marks),
        ["2026-01-01 f 1", "2026-01-01 t 1", "2026-01-02 f 1", "2026-01-02 t 1", "2026-01-03 f 1"]
    );
    writer.batch_execute("TRUNCATE ev").unwrap();
    wait_until("the end", Duration::from_secs(60), || subscriber.number("SELECT count(*) FROM ev") == 0);
    assert_eq!(
        rows(&mut client, "SELECT count(*) FROM tidemark_internal.dirty_log WHERE reason = 'truncate'"),
        [["2"]]
    );
    client
        .batch_execute("ALTER SUBSCRIPTION s DISABLE")
        .and_then(|()| client.batch_execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)"))
        .and_then(|()| client.batch_execute("DROP SUBSCRIPTION s"))
        .unwrap();
    wait_until("the slot to be free", Duration::from_secs(60), || {
        publisher.connect().batch_execute("SELECT pg_drop_replication_slot('slot_s')").is_ok()
    });
}
