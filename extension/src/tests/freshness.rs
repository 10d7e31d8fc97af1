//! Watermarks, lateness and change tracking, as far as one session shows them.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support::{error_of, text};
    use pgrx::prelude::*;

    const TABLE: &str = "CREATE TABLE public.source (k int, event_time timestamptz, event_date date)";
    const STATUS: &str = "SELECT concat_ws(' ', watermark, max_event_time, events_loaded, late_events)
                            FROM tidemark.source_status WHERE source = 'public.source'::regclass";

    fn run(sql: &str) {
        Spi::run("SET LOCAL timezone = 'UTC'").unwrap();
        Spi::run(sql).unwrap();
    }

    fn one(sql: &str) -> String {
        text(sql).unwrap_or_else(|| "NULL".to_owned())
    }

    /// One date: `rows` rows up to this time, the buckets 1, 9 and 10 filled with 1, 2 and the rest.
    fn load(date: &str, rows: u32, max: &str) {
        run(&format!(
            "SELECT tidemark.mark_loaded('public.source', ARRAY['{date}'::date], ARRAY[{rows}], ARRAY[1], ARRAY['{date}'::timestamptz],
                    ARRAY['{max}'::timestamptz], ARRAY[1,0,0,0,0,0,0,0,2,{},0,0])",
            rows - 3
        ));
    }

    fn absorb() {
        run(
            "SELECT tidemark_internal.absorb_marks(ARRAY(SELECT id FROM tidemark_internal.dirty_log)); DELETE FROM tidemark_internal.dirty_log",
        );
    }

    #[pg_test]
    fn statistics_say_the_same_before_and_after_their_marks_are_consumed() {
        run(TABLE);
        load("2026-03-01", 10, "2026-03-01 12:00");
        load("2026-03-02", 5, "2026-03-02 13:00");
        load("2026-03-01", 4, "2026-03-01 23:00");
        let lateness = "SELECT string_agg(concat_ws(' ', event_date, bucket, from_lateness, to_lateness, events, share, cumulative_share), ', ' ORDER BY event_date, bucket)
                          FROM tidemark.lateness WHERE source = 'public.source'::regclass";
        let quantiles =
            "SELECT concat_ws(' ', events, p50_below, p95_below, p99_below) FROM tidemark.lateness_quantiles";
        let (status, spread, quantile) = (one(STATUS), one(lateness), one(quantiles));
        assert_eq!(status, "2026-02-23 13:00:00+00 2026-03-02 13:00:00+00 19 3");
        assert_eq!(
            spread,
            "2026-03-01 1 00:00:01 2 0.142857 0.142857, 2026-03-01 9 3 days 7 days 4 0.285714 0.428571, \
             2026-03-01 10 7 days 30 days 8 0.571429 1.000000, 2026-03-02 1 00:00:01 1 0.200000 0.200000, \
             2026-03-02 9 3 days 7 days 2 0.400000 0.600000, 2026-03-02 10 7 days 30 days 2 0.400000 1.000000"
        );
        assert_eq!(quantile, "19 30 days 30 days 30 days");
        absorb();
        assert_eq!((one(STATUS), one(lateness), one(quantiles)), (status, spread, quantile));
        // Half consumed, half not.
        load("2026-03-01", 4, "2026-03-01 23:00");
        assert_eq!(one(STATUS), "2026-02-23 13:00:00+00 2026-03-02 13:00:00+00 23 4");
        absorb();
        assert_eq!(one(STATUS), "2026-02-23 13:00:00+00 2026-03-02 13:00:00+00 23 4");
        assert_eq!(one("SELECT sum(rows) FROM tidemark_internal.lateness_counts"), "23");
        // Marks without statistics add nothing.
        run("SELECT tidemark.mark_dirty('public.source', ARRAY['2027-01-01'::date])");
        absorb();
        assert_eq!(one(STATUS), "2026-02-23 13:00:00+00 2026-03-02 13:00:00+00 23 4");
    }

    #[pg_test]
    fn a_watermark_never_moves_back() {
        run(TABLE);
        assert_eq!(one("SELECT tidemark.watermark('public.source')"), "NULL");
        assert_eq!(one("SELECT tidemark.watermark(NULL)"), "NULL");
        load("2026-03-10", 10, "2026-03-10 12:00");
        let watermark = "SELECT tidemark.watermark('public.source')";
        assert_eq!(one(watermark), "2026-03-03 12:00:00+00");
        // Older rows, smaller and larger lateness, before and after the marks are consumed.
        load("2026-03-01", 10, "2026-03-01 12:00");
        assert_eq!(one(watermark), "2026-03-03 12:00:00+00");
        assert_eq!(
            one("SELECT tidemark.set_watermark_policy('public.source', '1 day')"),
            "2026-03-09 12:00:00+00"
        );
        assert_eq!(
            one("SELECT tidemark.set_watermark_policy('public.source', '30 days')"),
            "2026-03-09 12:00:00+00"
        );
        absorb();
        assert_eq!(one(watermark), "2026-03-09 12:00:00+00");
        load("2026-03-20", 10, "2026-03-20 12:00");
        assert_eq!(one(watermark), "2026-03-09 12:00:00+00", "30 days behind lies before what was reached");
        assert_eq!(
            one("SELECT tidemark.set_watermark_policy('public.source', '2 days')"),
            "2026-03-18 12:00:00+00"
        );
        assert_eq!(one("SELECT tidemark.set_watermark_policy('public.source')"), "2026-03-18 12:00:00+00");
    }

    #[pg_test]
    fn an_event_from_the_future_cannot_drag_the_watermark_along() {
        run(TABLE);
        load("2099-01-01", 10, "2099-01-01 12:00");
        let clamped = "SELECT max_event_time = now() + interval '5 minutes' AND watermark = now() + interval '5 minutes' - interval '168 hours'
                         FROM tidemark.source_status";
        assert_eq!(one(clamped), "true");
        load("2099-01-02", 10, "9999-12-31 23:59:59");
        absorb();
        assert_eq!(one(clamped), "true");
        assert_eq!(one("SELECT seconds_behind FROM tidemark.source_status"), "-300.000");
    }

    #[pg_test]
    fn a_day_of_lateness_has_24_hours_in_every_time_zone() {
        run(TABLE);
        load("2026-03-30", 10, "2026-03-30 12:00");
        run("SET LOCAL timezone = 'Europe/Berlin'");
        let watermark =
            Spi::get_one::<String>("SELECT (tidemark.watermark('public.source') AT TIME ZONE 'UTC')::text");
        assert_eq!(watermark.unwrap().as_deref(), Some("2026-03-23 12:00:00"));
        Spi::run("SELECT tidemark_internal.absorb_marks(ARRAY(SELECT id FROM tidemark_internal.dirty_log))")
            .unwrap();
        assert_eq!(one("SELECT watermark FROM tidemark.source_status"), "2026-03-23 12:00:00+00");
    }

    #[pg_test]
    fn arrays_of_a_load_are_checked() {
        run(TABLE);
        let call = |arguments: &str| error_of(&format!("SELECT tidemark.mark_loaded({arguments})"));
        assert_eq!(call("'public.source', NULL, NULL, NULL, NULL, NULL"), "no error");
        assert_eq!(call("'public.source', '{}', '{}', '{}', '{}', '{}'"), "no error");
        assert!(call("NULL, '{2026-01-01}', '{1}', '{0}', '{now}', '{now}'").starts_with("22004 source"));
        assert!(
            call("'public.source', '{2026-01-01}', '{1,2}', '{0}', '{now}', '{now}'")
                .starts_with("2202E rows")
        );
        assert!(
            call("'public.source', '{2026-01-01}', '{1}', '{0}', '{now}', NULL").starts_with("2202E rows")
        );
        assert!(
            call("'public.source', '{2026-01-01}', '{1}', '{0}', '{now}', '{now}', '{1,2}'")
                .starts_with("2202E lateness")
        );
        assert!(
            call("'public.source', '{2026-01-01}', '{-1}', '{0}', '{now}', '{now}'")
                .starts_with("22023 rows")
        );
        assert_eq!(one("SELECT count(*) FROM tidemark_internal.dirty_log"), "0");
        assert_eq!(
            call("'public.source', '{NULL,2026-01-01}', '{1,NULL}', '{0,NULL}', '{now,NULL}', '{now,NULL}'"),
            "no error"
        );
        assert_eq!(
            one("SELECT string_agg(concat_ws(' ', event_date, rows), ', ') FROM tidemark_internal.dirty_log"),
            "2026-01-01 0"
        );
        assert_eq!(one(STATUS), "0 0", "a load of nothing has neither watermark nor latest event");
        let policy =
            |arguments: &str| error_of(&format!("SELECT tidemark.set_watermark_policy({arguments})"));
        assert!(policy("'public.source', NULL").starts_with("22023 allowed_lateness"));
        assert!(policy("'public.source', '-1 s'").starts_with("22023 allowed_lateness"));
        assert!(policy("'public.source', '1 day', '-1 s'").starts_with("22023 max_skew"));
        assert!(policy("'public.source', '1 month'").starts_with("22023 allowed_lateness must not"));
        assert!(policy("'public.source', '36501 days'").starts_with("22023 allowed_lateness"));
        assert!(policy("NULL").starts_with("42P01 source"));
    }

    #[pg_test]
    fn buckets_cover_everything_once() {
        assert_eq!(
            one(
                "SELECT count(*) || ' ' || min(bucket) || ' ' || max(bucket) FROM tidemark.lateness_buckets()"
            ),
            "12 1 12"
        );
        let holes = "SELECT count(*) FROM (SELECT to_lateness, lead(from_lateness) OVER (ORDER BY bucket) AS next, bucket FROM tidemark.lateness_buckets()) b
                      WHERE to_lateness IS DISTINCT FROM next";
        assert_eq!(one(holes), "0");
    }

    #[pg_test]
    fn only_the_owner_of_a_source_sets_its_policy_and_tracks_it() {
        run(TABLE);
        run("CREATE ROLE freshness_owner; CREATE ROLE freshness_other;
             GRANT USAGE ON SCHEMA tidemark, tidemark_internal TO freshness_owner, freshness_other;
             ALTER TABLE public.source OWNER TO freshness_owner");
        let error_as = |role: &str, sql: &str| {
            error_of(&format!("DO $do$ BEGIN SET LOCAL ROLE {role}; {sql}; RESET ROLE; END $do$"))
        };
        for sql in [
            "SELECT tidemark.set_watermark_policy('public.source', '1 day')",
            "SELECT tidemark.track_changes('public.source')",
            "INSERT INTO tidemark_internal.watermark_policies VALUES ('public.source', '1 day', '1 day')",
            "UPDATE tidemark_internal.watermarks SET events_loaded = 0",
            "DELETE FROM tidemark_internal.watermarks",
            "INSERT INTO tidemark_internal.lateness_counts VALUES ('public.source', '2026-01-01', 1, 1)",
            "SELECT tidemark_internal.absorb_marks('{}')",
        ] {
            let error = error_as("freshness_other", &sql.replacen("SELECT", "PERFORM", 1));
            assert!(error.starts_with("42501"), "{sql}: {error}");
        }
        assert_eq!(
            error_as("freshness_owner", "PERFORM tidemark.set_watermark_policy('public.source', '1 day')"),
            "no error"
        );
        assert_eq!(
            error_as("freshness_owner", "PERFORM tidemark.set_watermark_policy('public.source', '2 days')"),
            "no error"
        );
        assert_eq!(
            error_as("freshness_owner", "PERFORM tidemark.track_changes('public.source')"),
            "no error"
        );
        assert_eq!(one("SELECT allowed_lateness FROM tidemark.source_status"), "2 days");
    }

    /// The marks since the last call, in order.
    fn marks() -> String {
        let marks = one(
            "SELECT string_agg(concat_ws(' ', reason, event_date, rows, source), ', ' ORDER BY reason, event_date) FROM tidemark_internal.dirty_log",
        );
        run("DELETE FROM tidemark_internal.dirty_log");
        marks
    }

    #[pg_test]
    fn every_way_to_change_rows_marks_old_and_new_dates() {
        run("CREATE TABLE public.source (k int, event_time timestamptz) PARTITION BY RANGE (event_time);
             CREATE TABLE public.source_a PARTITION OF public.source FOR VALUES FROM ('2026-01-01') TO ('2026-01-05');
             CREATE TABLE public.source_b PARTITION OF public.source FOR VALUES FROM ('2026-01-05') TO ('2026-02-01');
             CREATE ROLE freshness_writer; GRANT ALL ON public.source, public.source_a TO freshness_writer");
        run("SELECT tidemark.track_changes('public.source')");
        // A writer without any right on tidemark, in another time zone.
        run("SET LOCAL ROLE freshness_writer");
        let write = |sql: &str| Spi::run(&format!("SET LOCAL timezone = 'Asia/Tokyo'; {sql}")).unwrap();
        write(
            "INSERT INTO public.source VALUES (1, '2026-01-01 23:59:59Z'), (1, '2026-01-02 00:00:00Z'), (2, '2026-01-07 12:00Z'), (2, '2026-01-02 12:00Z')",
        );
        run("RESET ROLE");
        assert_eq!(
            marks(),
            "insert 2026-01-01 1 source, insert 2026-01-02 2 source, insert 2026-01-07 1 source"
        );
        run("SET LOCAL ROLE freshness_writer");
        write(
            "UPDATE public.source SET event_time = '2026-01-03 00:00Z' WHERE event_time = '2026-01-07 12:00Z'",
        );
        write("DELETE FROM public.source WHERE event_time = '2026-01-03 00:00Z'");
        write(
            "MERGE INTO public.source s USING (VALUES (1)) v(k) ON s.k = v.k AND s.event_time >= '2026-01-02Z' WHEN MATCHED THEN DELETE",
        );
        write("DELETE FROM public.source WHERE k = 99");
        run("RESET ROLE");
        assert_eq!(
            marks(),
            "delete 2026-01-02 source, delete 2026-01-03 source, update 2026-01-03 source, update 2026-01-07 source"
        );
        run("TRUNCATE public.source");
        assert_eq!(marks(), "truncate 2026-01-01 source, truncate 2026-01-02 source");
        // The documented hole, and how to close it.
        run("INSERT INTO public.source_a VALUES (1, '2026-01-01 12:00Z')");
        assert_eq!(marks(), "NULL");
        run("SELECT tidemark.track_changes('public.source_a')");
        run("INSERT INTO public.source_a VALUES (1, '2026-01-01 12:00Z')");
        assert_eq!(marks(), "insert 2026-01-01 1 source");
        run(
            "SELECT tidemark.untrack_changes('public.source'); SELECT tidemark.untrack_changes('public.source')",
        );
        run("INSERT INTO public.source VALUES (1, '2026-01-01 12:00Z')");
        assert_eq!(marks(), "NULL");
    }

    #[pg_test]
    fn the_column_that_says_the_date_is_found_or_named() {
        run("CREATE TABLE public.dated (event_date date, at timestamp, note text)");
        run("SELECT tidemark.track_changes('public.dated')");
        run("INSERT INTO public.dated VALUES ('2026-01-01', NULL), (NULL, '2026-01-05'), ('infinity', NULL)");
        assert_eq!(marks(), "insert 2026-01-01 dated");
        run("SELECT tidemark.track_changes('public.dated', 'at')");
        assert_eq!(one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.dated'::regclass"), "5");
        run("INSERT INTO public.dated VALUES ('2026-01-01', '2026-01-05 23:59:59'), ('2026-01-01', NULL)");
        assert_eq!(marks(), "insert 2026-01-05 dated");
        let track = |arguments: &str| error_of(&format!("SELECT tidemark.track_changes({arguments})"));
        assert!(track("'public.dated', 'note'").starts_with("42703"));
        assert!(track("'public.dated', 'nothing'").starts_with("42703"));
        run("CREATE TABLE public.undated (a int); CREATE VIEW public.seen AS SELECT * FROM public.dated");
        assert!(track("'public.undated'").starts_with("42703"));
        assert!(track("'public.seen'").starts_with("42809"));
        assert!(track("NULL").starts_with("22004"));
    }

    #[pg_test]
    fn a_trigger_made_by_hand_gets_no_rights_from_ours() {
        // The function runs as a superuser: a table of the user's in place of the transition table, or a type of his
        // with a cast of his, would run his code.
        run(TABLE);
        run("CREATE TEMPORARY TABLE tidemark_new AS SELECT timestamptz '2026-01-01' AS event_time;
             CREATE TRIGGER own AFTER INSERT ON public.source FOR EACH STATEMENT EXECUTE FUNCTION tidemark_internal.mark_changes('event_time')");
        assert!(error_of("INSERT INTO public.source VALUES (1, now())").starts_with("55000 trigger own"));
        run("DROP TRIGGER own ON public.source;
             CREATE TRIGGER own AFTER INSERT ON public.source REFERENCING NEW TABLE AS tidemark_new FOR EACH ROW EXECUTE FUNCTION tidemark_internal.mark_changes('event_time')");
        assert!(error_of("INSERT INTO public.source VALUES (1, now())").starts_with("55000 trigger own"));
        run(
            "DROP TRIGGER own ON public.source; SELECT tidemark.track_changes('public.source', 'event_time')",
        );
        run("ALTER TABLE public.source ALTER event_time TYPE text");
        assert!(error_of("INSERT INTO public.source VALUES (1, 'x')").starts_with("55000 column event_time"));
        assert_eq!(marks(), "NULL");
    }
}
