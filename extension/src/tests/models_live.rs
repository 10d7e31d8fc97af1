//! Live views, frozen dates, dates that must not be retired yet, and the rewriting of queries behind them.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{late, models, refresh, rows, run, verified};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    fn retire(parent: &str, date: &str) {
        run(&format!(
            "INSERT INTO tidemark_internal.retired_dates (parent, event_date, partition, state, from_time, to_time, retention_action)
             VALUES ('{parent}', '{date}', 'x', 'dropped', '{date} 00:00Z', '{date} 24:00Z', 'drop')"
        ));
    }

    #[pg_test]
    fn a_live_view_is_exact_before_and_after_a_refresh() {
        models(true);
        // A third model looks back and ahead over the second.
        run("SELECT tidemark.create_model('w.around', '{w.doubled}',
                 'SELECT d::date AS event_date, sum(x.events) AS events FROM generate_series($1::timestamp, $2::timestamp - interval ''1 day'', interval ''1 day'') AS d
                    JOIN w.doubled x ON x.event_date BETWEEN d::date - 1 AND d::date + 1 GROUP BY 1', '{event_date}', 1, 1, true)");
        let exact = "2025-12-31=4 2026-01-01=6 2026-01-02=6 2026-01-03=2";
        assert_eq!(rows("w.around"), "NULL", "nothing is stored yet");
        assert_eq!(rows("w.around_live"), exact);
        refresh();
        assert_eq!((rows("w.around").as_str(), rows("w.around_live").as_str()), (exact, exact));
        late("2026-01-02", "late");
        assert_eq!(rows("w.around"), exact, "the stored rows are behind");
        let later = "2025-12-31=4 2026-01-01=8 2026-01-02=8 2026-01-03=4";
        assert_eq!(rows("w.around_live"), later, "the mark is three levels below");
        assert_eq!(rows("w.doubled_live"), "2026-01-01=4 2026-01-02=4");
        assert_eq!(
            text("SELECT tidemark.stale_dates('w.around')"),
            "{2026-01-01,2026-01-02,2026-01-03}",
            "only these are computed"
        );
        // At every step of the refresh.
        let mut steps = 0;
        while !crate::tests::models_support::step("NULL", "").is_empty() {
            assert_eq!(rows("w.around_live"), later);
            steps += 1;
        }
        assert_eq!((steps, rows("w.around").as_str()), (5, later));
        // A date whose rows all go.
        run(
            "DELETE FROM w.events WHERE event_date = '2026-01-01'; SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
        );
        assert_eq!(rows("w.doubled_live"), "2026-01-02=4");
        refresh();
        assert_eq!(rows("w.doubled"), "2026-01-02=4");
    }

    #[pg_test]
    fn a_live_view_computes_only_what_is_asked_for() {
        models(true);
        let plan = Spi::connect(|client| {
            let sql = "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT * FROM w.daily_live WHERE event_date = '2026-01-02'";
            let plan = client.select(sql, None, &[]).expect("it plans");
            plan.filter_map(|row| row.get::<String>(1).expect("text")).collect::<Vec<_>>().join("\n")
        });
        let stale = plan.split("tidemark_stale").nth(1).expect("the dates are in the plan");
        assert!(stale.contains("Rows Removed by Filter: 1"), "both dates are computed:\n{plan}");
        // From 17 on they are also named where they are used.
        let plans = plan.lines().filter(|line| line.trim_start().starts_with("InitPlan")).count();
        assert_eq!(plans, 2, "{plan}");
    }

    #[pg_test]
    fn a_live_view_is_readable_and_described_like_the_table() {
        run("CREATE ROLE reader; CREATE ROLE other; CREATE SCHEMA w;
             CREATE TABLE w.events (event_date date, person text);
             CREATE TABLE w.m (event_date date, person text);
             COMMENT ON TABLE w.m IS 'Persons.'; COMMENT ON COLUMN w.m.person IS 'Who.';
             GRANT SELECT ON w.m TO reader; GRANT SELECT (event_date) ON w.m TO other; GRANT INSERT ON w.m TO PUBLIC;
             SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT * FROM w.events WHERE event_date = $1', '{event_date,person}', live => true)");
        assert_eq!(
            text(
                "SELECT string_agg(concat_ws(' ', r, has_table_privilege(r, 'w.m_live', 'SELECT'), has_column_privilege(r, 'w.m_live', 'event_date', 'SELECT'),
                        has_table_privilege(r, 'w.m_live', 'INSERT')), ', ') FROM unnest('{reader,other}'::text[]) AS r"
            ),
            "reader t t f, other f t f"
        );
        assert!(
            text("SELECT obj_description('w.m_live'::regclass, 'pg_class')")
                .starts_with("Persons. Live view of")
        );
        assert_eq!(text("SELECT col_description('w.m_live'::regclass, 2)"), "Who.");
        run(
            "SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT * FROM w.events WHERE event_date = $1', '{event_date,person}')",
        );
        assert_eq!(text("SELECT to_regclass('w.m_live')"), "NULL", "no longer wanted");
    }

    #[pg_test]
    fn a_live_view_that_could_not_be_exact_is_refused() {
        models(false);
        let doubled = "SELECT event_date, events FROM w.daily WHERE event_date >= $1 AND event_date < $2";
        let create = |query: &str| {
            error_of(&format!(
                "SELECT tidemark.create_model('w.x', '{{w.daily}}', '{query}', '{{event_date}}', live => true)"
            ))
        };
        assert_eq!(create(doubled), "55000 model w.x reads model w.daily, which has no live view");
        run("CREATE TABLE w.daily_live ()");
        let daily = "SELECT tidemark.create_model('w.daily', '{w.events}',
             'SELECT event_date, count(*) AS events FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY event_date', '{event_date}', live => true)";
        assert_eq!(
            error_of(daily),
            "42P07 relation w.daily_live exists and is not the live view of model w.daily"
        );
        run("DROP TABLE w.daily_live; CREATE VIEW w.between AS SELECT * FROM w.daily");
        run(daily);
        assert_eq!(
            create(&doubled.replace("w.daily", "w.between")),
            "0A000 model w.x reads model w.daily through a view"
        );
        assert_eq!(create(doubled), "no error");
        assert!(error_of("SELECT tidemark.drop_model('w.daily')").starts_with("2BP01"));
    }

    #[pg_test]
    fn frozen_dates_stay_as_they_are() {
        models(true);
        refresh();
        late("2026-01-01", "late");
        late("2026-01-02", "late");
        run("DELETE FROM w.events WHERE event_date = '2026-01-01'");
        retire("w.events", "2026-01-01");
        assert_eq!(
            text(
                "SELECT string_agg(concat_ws(' ', dirty_dates, frozen_dirty_dates), ', ') FROM tidemark.model_status"
            ),
            "1 1, 1 0",
            "what is frozen below makes nothing stale above"
        );
        assert_eq!(verified("w.daily"), "01 frozen, 02 stale, 03 ok");
        assert_eq!(rows("w.daily_live"), "2026-01-01=2 2026-01-02=2");
        assert_eq!(refresh(), "w.daily 2026-01-02, w.doubled 2026-01-02");
        assert_eq!(rows("w.daily"), "2026-01-01=2 2026-01-02=2");
        assert_eq!(text("SELECT frozen_dirty_dates FROM tidemark.model_status WHERE model = 'w.daily'"), "1");
        // Its marks are still there for the day the partition comes back.
        run("DELETE FROM tidemark_internal.retired_dates");
        assert_eq!(refresh(), "w.daily 2026-01-01, w.doubled 2026-01-01");
        assert_eq!(rows("w.doubled_live"), "2026-01-02=4");
        // A date reaches as far as the model looks, and a model's own table may be retired as well.
        run(
            "UPDATE tidemark_internal.models SET lookback_days = 2, lookahead_days = 1 WHERE name = 'w.daily'",
        );
        retire("w.events", "2026-01-10");
        retire("w.daily", "2026-01-20");
        assert_eq!(
            text(
                "SELECT string_agg(to_char(d, 'DD'), ' ') FROM generate_series('2026-01-01'::date, '2026-01-31', '1 day') AS d WHERE tidemark_internal.is_frozen('w.daily', d::date)"
            ),
            "09 10 11 12 20"
        );
    }

    #[pg_test]
    fn a_date_that_is_needed_blocks_its_retirement() {
        models(false);
        let blockers = |date: &str| {
            text(&format!(
                "SELECT string_agg(concat_ws(' ', model, model_date - {date}, reason), ', ') FROM tidemark_internal.date_blockers('w.events', {date})"
            ))
        };
        let old = "'2026-01-01'::date";
        assert_eq!(blockers(old), "w.daily 0 the model was never refreshed, w.daily 0 waits for a recompute");
        refresh();
        assert_eq!(blockers(old), "NULL");
        run("UPDATE tidemark_internal.models SET lookback_days = 2, lookahead_days = 1 WHERE name = 'w.daily';
             SELECT tidemark.mark_dirty('w.events', '{2026-01-02}')");
        assert_eq!(
            blockers(old),
            "w.daily 0 waits for a recompute, w.daily 1 waits for a recompute, w.daily 2 waits for a recompute"
        );
        retire("w.events", "2026-01-04");
        assert_eq!(
            blockers(old),
            "w.daily 0 waits for a recompute, w.daily 1 waits for a recompute",
            "2026-01-03 is frozen"
        );
        let today = "(now() AT TIME ZONE 'UTC')::date";
        assert_eq!(blockers(&format!("({today} - 2)")), "w.daily 2 the date is not over yet");
        assert_eq!(blockers(&format!("({today} - 3)")), "NULL");
        assert_eq!(
            text("SELECT count(*) FROM tidemark_internal.date_blockers('w.doubled', '2026-01-01')"),
            "0",
            "nobody reads it"
        );
    }

    #[pg_test]
    fn queries_are_rewritten_where_the_parser_says() {
        let rewritten = |query: &str| {
            Spi::get_one_with_args::<String>(
                "SELECT tidemark_internal.rewrite_query($1, 'A', 'B', '{s,S x}', ARRAY['t', 't\"u'], '{s.t_live,z.z}')",
                &[query.into()],
            )
            .unwrap()
            .unwrap()
        };
        for (query, expected) in [
            ("SELECT $1, $2 + 1", "SELECT A, B + 1"),
            (
                "SELECT '$1', $q$ $2 s.t $q$, \"$1\", $2 -- $1 s.t",
                "SELECT '$1', $q$ $2 s.t $q$, \"$1\", B -- $1 s.t",
            ),
            (
                "SELECT é.x /* $1 /* s.t */ */ FROM s.t AS é;",
                "SELECT é.x /* $1 /* s.t */ */ FROM s.t_live AS é",
            ),
            ("SELECT s.t.a FROM s.t *, s.tt", "SELECT \"t\".a FROM s.t_live AS \"t\", s.tt"),
            ("SELECT 1 FROM S . /* s.t */ T x", "SELECT 1 FROM s.t_live x"),
            (
                "SELECT 1 FROM \"s\"\n.\"t\" JOIN \"S x\".\"t\"\"u\" ON true",
                "SELECT 1 FROM s.t_live AS \"t\" JOIN z.z AS \"t\"\"u\" ON true",
            ),
            (
                "WITH t AS (SELECT 1 FROM s.t a WHERE EXISTS (SELECT FROM s.t b WHERE b.d = $1)) SELECT * FROM t",
                "WITH t AS (SELECT 1 FROM s.t_live a WHERE EXISTS (SELECT FROM s.t_live b WHERE b.d = A)) SELECT * FROM t",
            ),
            (
                "SELECT x, count(*) FILTER (WHERE y < $2) OVER (ORDER BY $1) FROM a.s, LATERAL (SELECT 1 FROM ONLY s.t) q LIMIT 1",
                "SELECT x, count(*) FILTER (WHERE y < B) OVER (ORDER BY A) FROM a.s, LATERAL (SELECT 1 FROM ONLY s.t_live AS \"t\") q LIMIT 1",
            ),
            ("SELECT $1 UNION ALL SELECT $2 FROM s.t", "SELECT A UNION ALL SELECT B FROM s.t_live AS \"t\""),
            ("VALUES ($1, $2)", "VALUES (A, B)"),
        ] {
            assert_eq!(rewritten(query), expected);
        }
        assert_eq!(
            error_of(
                "SELECT tidemark_internal.rewrite_query('SELECT 1 FROM U&\"s\".t', 'A', 'B', '{s}', '{t}', '{x.y}')"
            ),
            "0A000 query names a table in a way that cannot be rewritten: U&\"s\".t"
        );
        assert_eq!(
            error_of("SELECT tidemark_internal.rewrite_query('SELECT FROM WHERE', 'A', 'B')"),
            "42601 syntax error at or near \"WHERE\""
        );
        assert_eq!(text("SELECT tidemark_internal.rewrite_query('SELECT $1 ;', NULL, NULL)"), "SELECT $1 ");
        assert_eq!(
            text(
                "SELECT concat_ws(' ', d.columns, d.types::regtype[]) FROM tidemark_internal.describe_query(10, 'SELECT 1 AS a, $1 AS \"B b\"') AS d"
            ),
            "{a,\"B b\"} {integer,date}"
        );
        assert_eq!(
            text(
                "SELECT 'pg_class'::regclass = ANY (d.relations) FROM tidemark_internal.describe_query(10, 'SELECT FROM pg_catalog.pg_tables') AS d"
            ),
            "true"
        );
    }

    #[pg_test]
    fn a_source_that_is_created_anew_is_taken_over_with_its_live_views() {
        models(true);
        let missing = || {
            text(
                "SELECT string_agg(model || ' ' || missing_sources::text, ', ' ORDER BY model) FROM tidemark.model_status",
            )
        };
        let adopted = || text("SELECT tidemark_internal.adopt_sources(10)");
        let freshness = || {
            text(
                "SELECT string_agg(coalesce(freshness_seconds::text, 'unknown'), ' ' ORDER BY model) FROM tidemark.model_status",
            )
        };
        assert_eq!(freshness(), "0.000 0.000", "marked in this transaction");
        refresh();
        assert_eq!(missing(), "w.daily {}, w.doubled {}");
        run("DROP TABLE w.events CASCADE");
        assert_eq!(missing(), "w.daily {w.events}, w.doubled {}");
        assert_eq!(adopted(), "0", "there is nothing to follow");

        // What cannot be read is said, and holds nobody up.
        run("CREATE TABLE w.events (person text)");
        assert_eq!(adopted(), "0");
        assert_eq!(
            text("SELECT last_error FROM tidemark.model_status WHERE model = 'w.daily'"),
            "source w.events was created anew and cannot be read: source w.events has no column event_date of type date"
        );
        assert_eq!(missing(), "w.daily {w.events}, w.doubled {}");
        run("DROP TABLE w.events;
             CREATE TABLE w.events (event_date date, person text);
             INSERT INTO w.events VALUES ('2026-01-02', 'x'), ('2026-01-02', 'y'), ('2026-01-03', 'z')");
        assert_eq!(adopted(), "1");
        assert_eq!(adopted(), "0");
        assert_eq!(missing(), "w.daily {}, w.doubled {}");
        assert_eq!(text("SELECT count(last_error) FROM tidemark.model_status"), "0");
        assert_eq!(rows("w.doubled_live"), "2026-01-02=4 2026-01-03=2");
        refresh();
        assert_eq!(rows("w.daily"), "2026-01-02=2 2026-01-03=1", "the old dates are gone");
        late("2026-01-04", "b");
        assert_eq!(refresh(), "w.daily 2026-01-04, w.doubled 2026-01-04");

        run("CREATE TABLE w.empty (event_date date);
             SELECT tidemark.create_model('w.idle', '{w.empty}', 'SELECT event_date FROM w.empty WHERE event_date >= $1 AND event_date < $2', '{event_date}')");
        assert_eq!(freshness(), "0.000 0.000 unknown", "never refreshed, and nothing waits");
    }
}
