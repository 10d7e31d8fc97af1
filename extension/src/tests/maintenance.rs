//! Tests of partitions inside Postgres. What needs many sessions or COMMIT is tested from outside.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A partitioned table of a plain role, and a role that may only insert.
    fn warehouse() {
        run("CREATE ROLE keeper; CREATE ROLE writer; CREATE ROLE stranger;
             CREATE SCHEMA warehouse AUTHORIZATION keeper;
             GRANT USAGE ON SCHEMA warehouse TO PUBLIC;
             SET LOCAL ROLE keeper;
             CREATE TABLE warehouse.events (
                 event_id bigint, event_time timestamptz NOT NULL,
                 event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED
             ) PARTITION BY RANGE (event_time);
             GRANT INSERT ON warehouse.events TO writer;
             RESET ROLE");
    }

    const TODAY: &str = "(now() AT TIME ZONE 'UTC')::date";

    fn partitions() -> String {
        text(
            "SELECT string_agg(concat(partition, ' ', from_date, ' ', to_date, ' ', state), ', ' ORDER BY from_date) FROM tidemark.partitions('warehouse.events')",
        )
    }

    /// The partitions that a call makes.
    fn made(dates: &str) -> String {
        text(&format!(
            "SELECT string_agg(p::text, ' ') FROM tidemark.ensure_partitions('warehouse.events', {dates}) AS p"
        ))
    }

    fn refusal(dates: &str) -> String {
        error_of(&format!("SELECT tidemark.ensure_partitions('warehouse.events', {dates})"))
    }

    #[pg_test]
    fn partitions_are_made_once_with_utc_days() {
        warehouse();
        assert_eq!(partitions(), "NULL");
        run("SET LOCAL timezone = 'Pacific/Auckland'");
        assert_eq!(
            made("'{2026-01-02,2026-01-01,2026-01-02}'"),
            "warehouse.events_p20260101 warehouse.events_p20260102"
        );
        assert_eq!(made("'{2026-01-01,2026-01-02}'"), "NULL");
        assert_eq!(made("'{}'"), "NULL");
        assert_eq!(
            partitions(),
            "warehouse.events_p20260101 2026-01-01 2026-01-02 attached, warehouse.events_p20260102 2026-01-02 2026-01-03 attached"
        );
        run(
            "INSERT INTO warehouse.events VALUES (1, '2026-01-01 23:59:59.999999Z'), (2, '2026-01-02 00:00Z')",
        );
        assert_eq!(
            text(
                "SELECT string_agg(tableoid::regclass || ' ' || event_id, ', ' ORDER BY event_id) FROM warehouse.events"
            ),
            "warehouse.events_p20260101 1, warehouse.events_p20260102 2"
        );
    }

    #[pg_test]
    fn who_may_insert_may_make_partitions_for_the_owner() {
        warehouse();
        run("SET LOCAL ROLE writer");
        assert_eq!(made("ARRAY['2026-01-01', '2026-01-03']::date[]").split(' ').count(), 2);
        assert_eq!(text("SELECT current_user"), "writer", "the switch is undone");
        assert_eq!(
            text("SELECT relowner::regrole FROM pg_class WHERE oid = 'warehouse.events_p20260101'::regclass"),
            "keeper"
        );
        assert!(error_of("CREATE TABLE warehouse.mine ()").starts_with("42501"));
        run("SET LOCAL ROLE stranger");
        assert_eq!(
            refusal("'{2026-01-02}'"),
            "42501 permission denied to make partitions of table warehouse.events"
        );
        assert_eq!(text("SELECT current_user"), "stranger");
        assert_eq!(
            error_of("SELECT tidemark.manage_partitions('warehouse.events')"),
            "42501 must be owner of table warehouse.events"
        );
    }

    #[pg_test]
    fn who_may_only_insert_gets_dates_around_now() {
        warehouse();
        let day = |shift: i32| text(&format!("SELECT {TODAY} + {shift}"));
        let one = |shift: i32| format!("ARRAY[{TODAY} + {shift}]");
        let refused =
            |shift: i32| format!("22023 no partition of warehouse.events is made for {}", day(shift));
        for (settings, first, last) in [
            ("", -731, 7),
            ("premake_days => 2, retention_days => 30", -30, 7),
            ("premake_days => 20, retention_days => 3000", -3000, 20),
            ("premake_days => 0, retention_days => 0", -731, 7),
        ] {
            if !settings.is_empty() {
                run(&format!("SELECT tidemark.manage_partitions('warehouse.events', {settings})"));
            }
            run("SET LOCAL ROLE writer");
            assert_eq!(refusal(&one(first - 1)), refused(first - 1), "{settings}");
            assert_eq!(refusal(&one(last + 1)), refused(last + 1), "{settings}");
            // One that is out of bounds keeps the others, too; and none stays.
            let both = format!("ARRAY[{TODAY} + {last}, {TODAY} + {last} + 1]");
            assert_eq!(refusal(&both), refused(last + 1), "{settings}");
            assert_ne!(made(&format!("ARRAY[{TODAY} + {first}, {TODAY} + {last}]")), "NULL", "{settings}");
            run("RESET ROLE;
                 DO $$ DECLARE p regclass; BEGIN
                     FOR p IN SELECT partition FROM tidemark.partitions('warehouse.events')
                          LOOP EXECUTE 'DROP TABLE ' || p; END LOOP;
                 END $$");
        }
        // What is there counts for everybody; and the owner goes farther.
        run("SET LOCAL ROLE keeper");
        assert_eq!(made("'{1900-01-01}'"), "warehouse.events_p19000101");
        run("SET LOCAL ROLE writer");
        assert_eq!(made("'{1900-01-01}'"), "NULL");
    }

    #[pg_test]
    fn partition_errors_name_the_argument() {
        warehouse();
        run("CREATE TABLE plain (event_time timestamptz)");
        for (call, expected) in [
            (
                "ensure_partitions('plain', '{2026-01-01}')",
                "42809 parent public.plain is not partitioned by range of one timestamptz column",
            ),
            ("ensure_partitions(NULL, '{2026-01-01}')", "22004 parent must not be NULL"),
            (
                "ensure_partitions('warehouse.events', '{2026-01-02,infinity}')",
                "22023 dates must lie in the years 1 to 9999",
            ),
            (
                "ensure_partitions('warehouse.events', '{5874897-12-31}')",
                "22023 dates must lie in the years 1 to 9999",
            ),
            ("ensure_partitions('warehouse.events', NULL)", "22004 dates must not be NULL or contain NULL"),
            (
                "ensure_partitions('warehouse.events', '{2026-01-01,NULL}')",
                "22004 dates must not be NULL or contain NULL",
            ),
            (
                "ensure_partitions('warehouse.events', ARRAY(SELECT date '2026-01-01' - n
                   FROM generate_series(0, 500) AS n))",
                "22023 dates has 501 dates, at most 500 are allowed",
            ),
            ("manage_partitions('warehouse.events', -1)", "22023 premake_days must be between 0 and 366"),
            (
                "manage_partitions('warehouse.events', 1, 'nowhere')",
                "3F000 partition_schema nowhere does not exist",
            ),
            (
                "manage_partitions('warehouse.events', partition_unique => '{id}')",
                "42703 partition_unique names column id, which warehouse.events does not have",
            ),
            (
                "manage_partitions('warehouse.events', partition_unique => '{NULL}')",
                "42703 partition_unique names column NULL, which warehouse.events does not have",
            ),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.{call}")), expected, "{call}");
        }
    }

    #[pg_test]
    fn managed_tables_get_partitions_ahead_with_their_unique_index() {
        warehouse();
        run("SELECT tidemark.manage_partitions('warehouse.events', 2, partition_unique => '{event_id}')");
        assert_eq!(
            text(&format!(
                "SELECT count(*) || ' ' || min(from_date) - {TODAY} FROM tidemark.partitions('warehouse.events')"
            )),
            "3 0"
        );
        run("INSERT INTO warehouse.events VALUES (1, now())");
        assert!(error_of("INSERT INTO warehouse.events VALUES (1, now())").starts_with("23505"));
    }

    #[pg_test]
    fn a_setting_that_is_not_given_stays_as_it_is() {
        warehouse();
        run("CREATE SCHEMA parts AUTHORIZATION keeper");
        let settings = |given: &str| {
            run(&format!("SELECT tidemark.manage_partitions('warehouse.events'{given})"));
            text(
                "SELECT concat_ws(' ', premake_days, partition_schema, unique_columns, retention_days, retention_action)
                   FROM tidemark.partition_health",
            )
        };
        assert_eq!(settings(""), "4 warehouse drop");
        assert_eq!(
            settings(
                ", 1, partition_schema => 'parts', partition_unique => '{event_id}', retention_days => 9"
            ),
            "1 parts {event_id} 9 drop"
        );
        assert_eq!(settings(", retention_action => 'keep'"), "1 parts {event_id} 9 keep");
        assert_eq!(settings(", premake_days => 0"), "0 parts {event_id} 9 keep");
        assert_eq!(settings(", partition_unique => '{}', retention_days => 0"), "0 parts keep");
    }

    /// How often the bounds of partitions are read while partitions of so many dates are made.
    fn reads(first: &str, dates: i32) -> i64 {
        let calls = || {
            text(
                "SELECT coalesce(pg_stat_get_xact_function_calls('tidemark_internal.partition_bounds(regclass)'::regprocedure), 0)",
            )
            .parse::<i64>()
            .unwrap()
        };
        let before = calls();
        assert_eq!(
            made(&format!("ARRAY(SELECT date '{first}' + n FROM generate_series(0, {dates} - 1) AS n)"))
                .split(' ')
                .count(),
            dates as usize
        );
        calls() - before
    }

    #[pg_test]
    fn the_bounds_are_read_as_often_for_many_dates_as_for_one() {
        warehouse();
        run("SET LOCAL track_functions = 'all'; SELECT tidemark.manage_partitions('warehouse.events', 0)");
        let one = reads("2020-01-01", 1);
        assert!((1..5).contains(&one), "{one}");
        assert_eq!(reads("2021-01-01", 200), one);
        run("SELECT tidemark.manage_partitions('warehouse.events', 100)");
        let calls = text(
            "SELECT pg_stat_get_xact_function_calls('tidemark_internal.partition_bounds(regclass)'::regprocedure)",
        );
        run("SELECT count(*) FROM tidemark.plan_maintenance('warehouse.events')");
        let planned = text(
            "SELECT pg_stat_get_xact_function_calls('tidemark_internal.partition_bounds(regclass)'::regprocedure)",
        );
        let planned = planned.parse::<i64>().unwrap() - calls.parse::<i64>().unwrap();
        assert!(planned < 10, "{planned}");
    }

    #[pg_test]
    fn partitions_with_other_bounds_are_named_with_what_to_do() {
        warehouse();
        // Days of another time zone, hours, a week, everything before, and the rest.
        run("CREATE TABLE warehouse.zone PARTITION OF warehouse.events
               FOR VALUES FROM ('2026-01-10 05:00Z') TO ('2026-01-11 05:00Z');
             CREATE TABLE warehouse.hour1 PARTITION OF warehouse.events
                  FOR VALUES FROM ('2026-01-20 00:00Z') TO ('2026-01-20 01:00Z');
             CREATE TABLE warehouse.hour2 PARTITION OF warehouse.events
                  FOR VALUES FROM ('2026-01-20 01:00Z') TO ('2026-01-20 02:00Z');
             CREATE TABLE warehouse.week PARTITION OF warehouse.events
                  FOR VALUES FROM ('2026-02-02 00:00Z') TO ('2026-02-09 00:00Z');
             CREATE TABLE warehouse.past PARTITION OF warehouse.events
                  FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00Z');
             CREATE TABLE warehouse.rest PARTITION OF warehouse.events DEFAULT;
             SELECT tidemark.manage_partitions('warehouse.events', 0, retention_days => 10)");
        let look = || {
            text(
                "SELECT string_agg(reason, E'\\n' ORDER BY step)
                   FROM tidemark.plan_maintenance('warehouse.events') WHERE action = 'look'",
            )
        };
        let advice = "no date that it shares is made, and it is never retired: put its rows into partitions of UTC days, or detach it by hand";
        let bounds = format!(
            "warehouse.zone (2026-01-10 05:00:00+00 to 2026-01-11 05:00:00+00) and 2 more, a partition of other bounds: {advice}
warehouse.week (2026-02-02 00:00:00+00 to 2026-02-09 00:00:00+00), a partition of several days: retired as a whole once its last date is due
warehouse.past (-infinity to 2020-01-01 00:00:00+00), a partition without an end: no date within is made or retired: put its rows into partitions of UTC days"
        );
        assert_eq!(look(), bounds);
        assert_eq!(text("SELECT other_bounds FROM tidemark.partition_health"), "5");
        for date in ["2026-01-10", "2026-01-11", "2026-01-20"] {
            assert_eq!(
                refusal(&format!("'{{{date}}}'")),
                format!("55000 partitions of warehouse.events hold a part of date {date} only")
            );
        }
        // A date that they hold as a whole needs none, and beside them others are made.
        assert_eq!(made("'{2026-02-02,2026-02-08}'"), "NULL");
        assert_eq!(made("'{2026-01-12}'"), "warehouse.events_p20260112");
        // None of the odd ones is retired, nor stands in the way of those that are.
        let mut retired = Vec::new();
        while let Some(partition) = Spi::get_one::<String>(
            "SELECT partition FROM tidemark_internal.maintenance_step('warehouse.events', 'retire')",
        )
        .unwrap()
        {
            retired.push(partition);
        }
        assert_eq!(retired, ["warehouse.events_p20260112", "warehouse.week"]);
        assert_eq!(
            text(
                "SELECT string_agg(reason, E'\\n' ORDER BY reason) FROM tidemark.plan_maintenance('warehouse.events')
                  WHERE action = 'refused' AND reason ~ 'hour1|past'"
            ),
            "warehouse.hour1: its bounds are no UTC dates (2026-01-20 00:00:00+00 to 2026-01-20 01:00:00+00): detach it by hand
warehouse.past: its bounds are open"
        );

        run("INSERT INTO warehouse.events VALUES (7, '2026-03-03 03:00Z')");
        assert!(look().starts_with(
            "warehouse.rest (DEFAULT), a partition for the rest: no date of which it has rows is made: put these into partitions of UTC days"
        ));
        // Where the owner of the table may not read, Postgres itself looks.
        assert!(refusal("'{2026-03-02,2026-03-03}'").starts_with("23514 updated partition constraint"));
        run("ALTER TABLE warehouse.rest OWNER TO keeper");
        assert_eq!(
            refusal("'{2026-03-02,2026-03-03}'"),
            "55000 rows of date 2026-03-03 lie in the DEFAULT partition warehouse.rest of warehouse.events"
        );
        assert_eq!(made("'{2026-03-02}'"), "warehouse.events_p20260302");
    }

    #[pg_test]
    fn code_of_a_table_runs_with_the_rights_of_its_owner_only() {
        warehouse();
        // Whoever looks for rows in the DEFAULT partition runs the owner's policy.
        run(&format!(
            "SET LOCAL ROLE keeper;
             CREATE TABLE warehouse.seen (who name, said text);
             CREATE FUNCTION warehouse.spy(n bigint) RETURNS boolean LANGUAGE plpgsql AS $$
             DECLARE said text := 'free';
             BEGIN
                 BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN said := SQLSTATE; END;
                 INSERT INTO warehouse.seen VALUES (current_user, said);
                 RETURN true;
             END $$;
             CREATE TABLE warehouse.rest PARTITION OF warehouse.events DEFAULT;
             INSERT INTO warehouse.events VALUES (1, ({TODAY} + 2)::timestamp AT TIME ZONE 'UTC');
             ALTER TABLE warehouse.rest ENABLE ROW LEVEL SECURITY; ALTER TABLE warehouse.rest FORCE ROW LEVEL SECURITY;
             CREATE POLICY spying ON warehouse.rest USING (warehouse.spy(event_id));
             RESET ROLE;
             SELECT tidemark.manage_partitions('warehouse.events', 0)"
        ));
        assert!(refusal(&format!("ARRAY[{TODAY} + 2]")).starts_with("55000 rows of date"));
        run("SET LOCAL ROLE writer");
        assert!(refusal(&format!("ARRAY[{TODAY} + 3]")).starts_with("42501"), "which would lock others out");
        run("RESET ROLE");
        assert_ne!(made(&format!("ARRAY[{TODAY} + 3]")), "NULL");
        run("SELECT tidemark_internal.maintenance_step('warehouse.events', 'create')");
        assert_eq!(
            text("SELECT string_agg(DISTINCT who || ' ' || said, ', ') FROM warehouse.seen"),
            "keeper 42501"
        );
        assert_eq!(text("SELECT current_user = session_user"), "true");
    }

    #[pg_test]
    fn partitions_at_the_ends_of_time_are_shown_and_left_alone() {
        warehouse();
        run("SET LOCAL ROLE keeper;
             CREATE TABLE warehouse.oldest PARTITION OF warehouse.events
                 FOR VALUES FROM (MINVALUE) TO ('4714-11-24 00:00:00+00 BC');
             CREATE TABLE warehouse.caesar PARTITION OF warehouse.events
                 FOR VALUES FROM ('0044-03-15 00:00:00+00 BC') TO ('0044-03-16 00:00:00+00 BC');
             SELECT tidemark.manage_partitions('warehouse.events', 0, retention_days => 1)");
        let health = "SELECT concat_ws(' ', partitions, other_bounds, gaps, last_error) FROM tidemark.partition_health";
        assert_eq!(text(health), "3 2 0");
        let plan =
            "SELECT count(*) FROM tidemark.plan_maintenance('warehouse.events') WHERE action = 'refused'";
        assert_eq!(text(plan), "2");
        let step = "SELECT s.action IS NULL FROM tidemark_internal.maintenance_step('warehouse.events', 'retire') AS s";
        assert_eq!(text(step), "true");
    }

    #[pg_test]
    fn one_date_that_cannot_be_made_does_not_keep_the_others() {
        warehouse();
        run(&format!(
            "SET LOCAL ROLE keeper; SELECT tidemark.manage_partitions('warehouse.events', 0);
             CREATE TABLE warehouse.rest PARTITION OF warehouse.events DEFAULT;
             INSERT INTO warehouse.events VALUES (1, ({TODAY} + 2)::timestamp AT TIME ZONE 'UTC'); RESET ROLE;
             UPDATE tidemark_internal.partition_config SET premake_days = 3"
        ));
        let step = || {
            error_of(
                "DO $$ BEGIN RAISE EXCEPTION '%', (SELECT concat_ws(' ', s.action, s.detail)
                   FROM tidemark_internal.maintenance_step('warehouse.events', 'create') AS s)
                        USING ERRCODE = '22000'; END $$",
            )
        };
        assert_eq!(step(), "22000 create 2");
        run("SELECT FROM tidemark_internal.maintenance_step('warehouse.events', 'create')");
        let lies = text(&format!("SELECT concat('55000 rows of date ', {TODAY} + 2)"));
        assert!(step().starts_with(&lies), "{}", step());
        assert_eq!(text("SELECT gaps FROM tidemark.partition_health"), "1");
    }

    #[pg_test]
    fn names_of_any_kind_and_length_make_distinct_partitions() {
        let long = "é".repeat(31);
        for name in ["Mixed Case", "quo\"te", "select", &long, &"x".repeat(63), &"x".repeat(54)] {
            let quoted = text(&format!("SELECT quote_ident($name${name}$name$)"));
            run(&format!(
                "CREATE TABLE public.{quoted} (\"Event Time\" timestamptz, event_date date)
                   PARTITION BY RANGE (\"Event Time\")"
            ));
            let made = text(&format!(
                "SELECT string_agg(p::text, ' | ')
                   FROM tidemark.ensure_partitions($$public.{quoted}$$::regclass, '{{2026-01-01,2026-01-02,2026-01-03}}') AS p"
            ));
            assert_eq!(made.split(" | ").count(), 3, "{made}");
            for (day, partition) in (1..).zip(made.split(" | ")) {
                assert!(partition.trim_end_matches('"').ends_with(&format!("_p2026010{day}")), "{partition}");
            }
            run(&format!("INSERT INTO public.{quoted} VALUES ('2026-01-02 10:00Z', '2026-01-02')"));
            assert!(
                error_of(&format!("INSERT INTO public.{quoted} VALUES ('2026-01-02 10:00Z', '2026-01-03')"))
                    .starts_with("23514"),
                "the CHECK on event_date"
            );
        }
        assert_eq!(
            text("SELECT tidemark_internal.partition_name('events', '2026-01-02')"),
            "events_p20260102"
        );
        assert_eq!(
            text(
                "SELECT octet_length(tidemark_internal.partition_name(repeat('é', 31)::name, '2026-01-02')::text)"
            ),
            "63"
        );
    }

    #[pg_test]
    fn a_new_partition_is_like_the_table_and_its_newest_neighbour() {
        run("CREATE ROLE grantee;
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO grantee;
             CREATE TABLE public.full_t (n bigint GENERATED ALWAYS AS IDENTITY, t timestamptz NOT NULL DEFAULT now(), c text CHECK (c <> ''), payload text COMPRESSION pglz)
                 PARTITION BY RANGE (t);
             CREATE INDEX ON public.full_t (c); ALTER TABLE public.full_t REPLICA IDENTITY FULL;
             COMMENT ON COLUMN public.full_t.c IS 'a comment';
             SELECT tidemark.ensure_partitions('public.full_t', '{2026-01-01}');
             ALTER TABLE public.full_t_p20260101
                  SET (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
             SELECT tidemark.ensure_partitions('public.full_t', '{2026-01-02}')");
        assert_eq!(
            text(
                "SELECT concat_ws(' ', c.reloptions, t.reloptions, c.relreplident, c.relacl) FROM pg_class c
                   JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.relname = 'full_t_p20260102'"
            ),
            text(
                "SELECT concat_ws(' ', '{fillfactor=70,autovacuum_enabled=false}', '{autovacuum_enabled=false}', 'f',
                        pg_catalog.acldefault('r', (SELECT r.oid FROM pg_catalog.pg_roles r
                             WHERE r.rolname = current_user)))"
            )
        );
        assert_eq!(text("SELECT col_description('public.full_t_p20260102'::regclass, 3)"), "a comment");
        run("INSERT INTO public.full_t (t, c) VALUES ('2026-01-02', 'x')");
        assert_eq!(
            text("SELECT concat_ws(' ', n, tableoid::regclass) FROM public.full_t"),
            "1 full_t_p20260102"
        );
        assert!(error_of("INSERT INTO public.full_t (t, c) VALUES ('2026-01-02', '')").starts_with("23514"));

        run(
            "CREATE TABLE public.by_index (n bigint NOT NULL, t timestamptz NOT NULL) PARTITION BY RANGE (t);
             CREATE UNIQUE INDEX by_index_key ON public.by_index (n, t);
             ALTER TABLE public.by_index REPLICA IDENTITY USING INDEX by_index_key;
             SELECT tidemark.ensure_partitions('public.by_index', '{2026-01-01}')",
        );
        assert_eq!(
            text(
                "SELECT relreplident::text || (SELECT count(*) FROM pg_index
                   WHERE indrelid = c.oid AND indisreplident) FROM pg_class c WHERE relname = 'by_index_p20260101'"
            ),
            "i1"
        );
    }
}
