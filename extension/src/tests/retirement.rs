//! Tests of retention and of what a new partition looks like. What needs several sessions or COMMIT is tested from
//! outside (`tests/tests/partitions.rs`).

#[pgrx::pg_schema]
pub(super) mod tests {
    use crate::tests::models_support::run;
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    const TODAY: &str = "(now() AT TIME ZONE 'UTC')::date";

    /// A table of a plain role with the days 9 to 13 ago, of which those beyond 10 are due, and a guard that plays
    /// that of the models.
    pub(crate) fn depot(action: &str) {
        run(&format!(
            "CREATE ROLE depot_owner; CREATE ROLE depot_other;
             CREATE TABLE public.needed (d date); GRANT SELECT ON public.needed TO PUBLIC;
             CREATE OR REPLACE FUNCTION tidemark_internal.date_blockers(source regclass, event_date date)
             RETURNS TABLE (model text, model_date date, reason text) LANGUAGE sql STABLE
             AS $$ SELECT 'w.model', n.d, 'dirty' FROM public.needed AS n WHERE n.d = $2 $$;
             CREATE SCHEMA depot AUTHORIZATION depot_owner; GRANT USAGE ON SCHEMA depot TO PUBLIC;
             SET LOCAL ROLE depot_owner;
             CREATE TABLE depot.events (event_time timestamptz NOT NULL) PARTITION BY RANGE (event_time);
             SELECT tidemark.manage_partitions('depot.events', 1, retention_days => 10, retention_action => '{action}');
             SELECT tidemark.ensure_partitions('depot.events', ARRAY(SELECT {TODAY} - n
                  FROM generate_series(9, 13) AS n));
             RESET ROLE"
        ));
    }

    /// The next step: its action and how many days ago its date is.
    pub(crate) fn step(work: &str) -> String {
        text(&format!(
            "SELECT concat_ws(' ', s.action, {TODAY} - s.event_date)
               FROM tidemark_internal.maintenance_step('depot.events', '{work}') AS s"
        ))
    }

    fn states() -> String {
        text(&format!(
            "SELECT string_agg(concat({TODAY} - event_date, ' ', state), ', ' ORDER BY event_date)
               FROM tidemark.retired_dates"
        ))
    }

    #[pg_test]
    fn partitions_are_retired_oldest_first_and_refused_dates_stay() {
        depot("drop");
        run(&format!("INSERT INTO public.needed SELECT {TODAY} - 12"));
        assert_eq!([step("retire"), step("retire"), step("retire")], ["detached 13", "detached 11", ""]);
        assert_eq!(states(), "13 detached, 11 detached");
        assert_eq!(
            text(
                "SELECT string_agg(concat_ws(' ', step, action), ', ' ORDER BY step)
                   FROM tidemark.plan_maintenance('depot.events')"
            ),
            "1 refused, 2 drop, 3 drop"
        );
        assert_eq!(
            text(
                "SELECT concat_ws(' ', refused_dates, detached_partitions, gaps) FROM tidemark.partition_health"
            ),
            "1 2 0",
            "neither retired dates are a gap nor old ones without rows"
        );
        let mut dropped = vec![step("drop"), step("drop"), step("drop")];
        dropped.sort();
        assert_eq!(dropped, ["", "drop 11", "drop 13"]);
        assert_eq!(states(), "13 dropped, 11 dropped");
        let refused = error_of(&format!(
            "SELECT tidemark.ensure_partitions('depot.events', ARRAY[{TODAY} - 14, {TODAY} - 13, {TODAY} - 11])"
        ));
        assert_eq!(
            refused,
            text(&format!("SELECT concat('55000 date ', {TODAY} - 13, ' of depot.events is retired')"))
        );
        assert_eq!(
            error_of(&format!("SELECT tidemark.restore_partition('depot.events', {TODAY} - 13)")),
            text(&format!(
                "SELECT concat('55000 the partition of date ', {TODAY} - 13, ' of depot.events is gone')"
            ))
        );
        assert!(
            error_of(&format!("SELECT tidemark.restore_partition('depot.events', {TODAY} - 12)"))
                .starts_with("42704")
        );
        run(&format!("SELECT tidemark.reopen_date('depot.events', {TODAY} - 13)"));
        assert_eq!(states(), "11 dropped");
        let again = format!(
            "SELECT count(*) FROM tidemark.ensure_partitions('depot.events', ARRAY[{TODAY} - 13, {TODAY} - 12])"
        );
        assert_eq!(text(&again), "1", "begun anew");
    }

    #[pg_test]
    fn a_partition_of_several_days_is_retired_as_a_whole() {
        depot("keep");
        run(&format!(
            "DO $$ BEGIN EXECUTE format('CREATE TABLE depot.old PARTITION OF depot.events FOR VALUES FROM (%L) TO (%L)',
                 ({TODAY} - 20)::timestamp AT TIME ZONE 'UTC', ({TODAY} - 17)::timestamp AT TIME ZONE 'UTC'); END $$;
             ALTER TABLE depot.old OWNER TO depot_owner; INSERT INTO depot.events SELECT now() - interval '19 days';
             INSERT INTO public.needed SELECT {TODAY} - 18"
        ));
        assert_eq!(step("retire"), "detached 13", "one needed day holds all three");
        run("TRUNCATE public.needed");
        assert_eq!(step("retire"), "detached 20");
        assert_eq!(states(), "20 detached, 19 detached, 18 detached, 13 detached");
        assert_eq!(step("drop"), "", "it is to be kept");
        assert_eq!(
            text(&format!("SELECT tidemark.restore_partition('depot.events', {TODAY} - 19, interval '0')")),
            "depot.old"
        );
        assert_eq!(states(), "13 detached");
        assert_eq!(text("SELECT count(*) FROM depot.events"), "1");
        assert_eq!(
            text(
                "SELECT count(*) FROM pg_constraint WHERE conrelid = 'depot.old'::regclass AND contype = 'c'"
            ),
            "0"
        );
    }

    #[pg_test]
    fn a_view_on_one_partition_keeps_that_one_only() {
        depot("drop");
        run(&format!(
            "DO $$ BEGIN EXECUTE 'CREATE VIEW depot.peek AS SELECT * FROM depot.'
               || tidemark_internal.partition_name('events', {TODAY} - 12); END $$"
        ));
        while !step("retire").is_empty() {}
        let mut done = vec![step("drop"), step("drop")];
        done.sort();
        assert_eq!(done, ["drop 11", "drop 13"]);
        assert!(
            error_of("SELECT tidemark_internal.maintenance_step('depot.events', 'drop')")
                .starts_with("2BP01")
        );
        assert_eq!(states(), "13 dropped, 12 detached, 11 dropped");
    }

    #[pg_test]
    fn open_bounds_and_default_partitions_are_no_obstacle() {
        depot("drop");
        run(&format!(
            "CREATE TABLE depot.rest PARTITION OF depot.events DEFAULT;
             DO $$ BEGIN EXECUTE format('CREATE TABLE depot.ancient PARTITION OF depot.events
                  FOR VALUES FROM (MINVALUE) TO (%L)',
                 ({TODAY} - 100)::timestamp AT TIME ZONE 'UTC'); END $$"
        ));
        assert_eq!(step("retire concurrently"), "detached 13", "not concurrently beside a DEFAULT partition");
        assert_eq!(
            text(
                "SELECT string_agg(reason, ', ') FROM tidemark.plan_maintenance('depot.events')
                   WHERE action = 'refused'"
            ),
            "depot.ancient: its bounds are open"
        );
        assert_eq!(
            text("SELECT concat(oldest_date, ' ', refused_dates) FROM tidemark.partition_health"),
            "-infinity 0"
        );
        run("DROP TABLE depot.rest");
        assert_eq!(step("retire concurrently"), "detach 12");
        assert_eq!(step("retire concurrently"), "detach 12", "asked again, it is noted anew");
        run("SELECT tidemark.manage_partitions('depot.events', retention_days => 30)");
        assert_eq!(step("retire concurrently"), "", "nothing has happened yet, and it is not due any more");
        assert_eq!(states(), "13 detached");
    }

    #[pg_test]
    fn holes_are_filled_since_the_last_success_and_never_by_data() {
        depot("keep");
        let wanted = || {
            text(&format!(
                "SELECT string_agg(({TODAY} - d)::text, ' ' ORDER BY d)
                   FROM tidemark_internal.wanted_dates('depot.events') AS d"
            ))
        };
        assert_eq!(wanted(), "NULL");
        run("UPDATE tidemark_internal.partition_config SET last_success = now() - interval '3 days'");
        assert_eq!(wanted(), "3 2 1");
        run(&format!("SELECT tidemark.ensure_partitions('depot.events', ARRAY[{TODAY} + 3])"));
        assert_eq!(wanted(), "3 2 1 -2", "up to the newest partition");
        run(
            "CREATE TABLE depot.far PARTITION OF depot.events FOR VALUES FROM ('2100-01-01') TO ('2100-01-02')",
        );
        assert_eq!(
            text(&format!(
                "SELECT max(d) - {TODAY} FROM tidemark_internal.wanted_dates('depot.events') AS d"
            )),
            "366",
            "but not for ever"
        );
        run("DROP TABLE depot.far");
        assert_eq!(
            text("SELECT concat_ws(' ', premade_partitions, gaps) FROM tidemark.partition_health"),
            "1 4",
            "what maintenance is to make, and no other date"
        );
        assert_eq!(step("create"), "create");
        assert_eq!(step("create"), "");
        assert_eq!(
            text(
                "SELECT concat_ws(' ', premade_partitions, gaps, overlapping) FROM tidemark.partition_health"
            ),
            "3 0 0"
        );
        assert_eq!(text("SELECT premade_hours BETWEEN 72 AND 96 FROM tidemark.partition_health"), "true");
    }

    #[pg_test]
    fn a_detach_that_postgres_refuses_leaves_its_date_as_it_was() {
        depot("drop");
        run(&format!(
            "SET LOCAL ROLE depot_owner;
             ALTER TABLE depot.events ADD UNIQUE (event_time);
             INSERT INTO depot.events SELECT ({TODAY} - n)::timestamp AT TIME ZONE 'UTC'
                  FROM generate_series(11, 13) AS n;
             CREATE TABLE depot.notes (event_time timestamptz REFERENCES depot.events (event_time));
             INSERT INTO depot.notes SELECT ({TODAY} - 13)::timestamp AT TIME ZONE 'UTC'; RESET ROLE"
        ));
        assert_eq!(
            [step("retire"), step("retire"), step("retire"), step("retire")],
            ["failed 13", "detached 12", "detached 11", ""]
        );
        assert_eq!(states(), "12 detached, 11 detached");
        let same_day =
            format!("SELECT count(*) FROM tidemark.ensure_partitions('depot.events', ARRAY[{TODAY} - 13])");
        assert_eq!(text(&same_day), "0");
        assert_eq!(text("SELECT count(*) FROM depot.events"), "1");
        let plan = "SELECT string_agg(reason, ', ') FROM tidemark.plan_maintenance('depot.events')
             WHERE action = 'refused'";
        let plan = text(plan);
        assert!(
            plan.contains(
                ": Postgres refused its DETACH (SQLSTATE 23503, see tidemark.partition_health), next"
            ),
            "{plan}"
        );
        let health = "SELECT concat(refused_dates, ' ', last_error) FROM tidemark.partition_health";
        assert!(
            text(health).starts_with("1 23503 removing partition \"events_p"),
            "said although nobody recorded it: {}",
            text(health)
        );
        // Tried again an hour later: in vain, and then not.
        let later = "UPDATE tidemark_internal.retention_holds SET held_until = clock_timestamp()";
        run(later);
        assert_eq!([step("retire"), step("retire")], ["failed 13", ""]);
        run(&format!("TRUNCATE depot.notes; {later}"));
        assert_eq!([step("retire"), step("retire")], ["detached 13", ""]);
        assert_eq!(text(health), "0 ");
    }

    #[pg_test]
    fn a_client_that_is_refused_says_so_and_the_date_is_free_again() {
        depot("drop");
        for (error, held) in [("55P03", false), ("23503 removing partition violates", true)] {
            assert_eq!(step("retire concurrently"), "detach 13");
            assert_eq!(states(), "13 detaching");
            run(&format!("SELECT tidemark_internal.record_maintenance('depot.events', '{error}')"));
            assert_eq!(states(), "NULL", "{error}");
            assert_eq!(text("SELECT count(*) > 0 FROM tidemark_internal.retention_holds"), held.to_string());
        }
        assert_eq!(step("retire concurrently"), "detach 12", "the next one goes on");
        assert_eq!(
            text("SELECT concat_ws(' ', lock_timeouts, last_error) FROM tidemark.partition_health"),
            "1 23503 removing partition violates"
        );
    }

    #[pg_test]
    fn a_retired_date_whose_rows_are_gone_is_begun_anew() {
        depot("keep");
        assert_eq!(step("retire"), "detached 13");
        let reopen = format!("SELECT tidemark.reopen_date('depot.events', {TODAY} - 13)");
        assert_eq!(
            error_of(&reopen),
            text(&format!(
                "SELECT concat('55000 the rows of date ', {TODAY} - 13, ' of depot.events are in ', partition) FROM tidemark.retired_dates"
            ))
        );
        run("DO $$ BEGIN EXECUTE 'DROP TABLE ' || (SELECT partition FROM tidemark.retired_dates); END $$");
        run(&reopen);
        assert_eq!(states(), "NULL");
        let made =
            format!("SELECT count(*) FROM tidemark.ensure_partitions('depot.events', ARRAY[{TODAY} - 13])");
        assert_eq!(text(&made), "1");
        assert!(error_of(&reopen).starts_with("42704 date "), "{}", error_of(&reopen));
    }

    #[pg_test]
    fn errors_of_retention_name_the_argument() {
        depot("drop");
        for (call, expected) in [
            (
                "tidemark.manage_partitions('depot.events', retention_days => -1)",
                "22023 retention_days must be between 0 and 36500",
            ),
            (
                "tidemark.manage_partitions('depot.events', retention_days => 36501)",
                "22023 retention_days must be between 0 and 36500",
            ),
            (
                "tidemark.manage_partitions('depot.events', retention_action => 'move')",
                "22023 retention_action must be drop or keep",
            ),
            ("tidemark.unmanage_partitions(NULL)", "22004 parent must not be NULL"),
            ("tidemark_internal.maintenance_step(NULL, 'create')", "22004 parent must not be NULL"),
            (
                "tidemark_internal.maintenance_step('depot.events', 'destroy')",
                "22023 work must be create, retire, retire concurrently or drop",
            ),
            (
                "tidemark_internal.maintenance_step('depot.events', NULL)",
                "22023 work must be create, retire, retire concurrently or drop",
            ),
            (
                "tidemark.restore_partition('depot.events', NULL)",
                "22004 parent and event_date must not be NULL",
            ),
            ("tidemark.reopen_date(NULL, '2026-01-01')", "22004 parent and event_date must not be NULL"),
            (
                "tidemark.reopen_date('depot.events', '2026-01-01')",
                "42704 date 2026-01-01 of depot.events is not retired",
            ),
            (
                "tidemark.reopen_date('depot.events', 'infinity')",
                "42704 date infinity of depot.events is not retired",
            ),
            (
                "tidemark.ensure_partitions('depot.events', '{1899-12-31,1900-01-01}')",
                "22023 no partition of depot.events is made for 1899-12-31",
            ),
            (
                "tidemark.ensure_partitions('depot.events', '{2100-01-01}')",
                "22023 no partition of depot.events is made for 2100-01-01",
            ),
        ] {
            assert_eq!(error_of(&format!("SELECT {call}")), expected, "{call}");
        }
        assert_eq!(step("retire"), "detached 13");
        for hold in ["NULL", "'-1 second'", "'36501 days'", "'178000000 years'"] {
            assert_eq!(
                error_of(&format!("SELECT tidemark.restore_partition('depot.events', {TODAY} - 13, {hold})")),
                "22023 hold must be between 0 and 36500 days",
                "{hold}"
            );
        }
        assert_eq!(
            error_of("SELECT tidemark_internal.start_maintenance(10, 'public.needed')"),
            "42704 table public.needed is not managed"
        );
    }
}
