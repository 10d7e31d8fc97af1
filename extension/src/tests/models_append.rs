//! Models that add the rows which their source gained instead of computing a date anew.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{run, step};
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    /// What `copied_columns` says, with "-" for a column that is computed and "none" for a query that is not suitable.
    fn copied(query: &str) -> String {
        text(&format!(
            "SELECT coalesce(array_to_string(tidemark.copied_columns($query${query}$query$), ' ', '-'), 'none')"
        ))
    }

    #[pg_test]
    fn columns_that_are_passed_on_are_known() {
        run("CREATE TABLE public.t (id int, at timestamptz, name text, more jsonb);
             CREATE VIEW public.v AS SELECT * FROM public.t;
             CREATE FUNCTION public.immutable(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || 'x';
             CREATE FUNCTION public.stable(text) RETURNS text LANGUAGE sql STABLE RETURN (SELECT max(name) FROM public.t);
             CREATE FUNCTION public.volatile(text) RETURNS text LANGUAGE sql VOLATILE RETURN $1");
        for (query, expected) in [
            ("SELECT id, at, name FROM public.t", "id at name"),
            (
                "SELECT id AS name, name AS id, at::date AS event_date FROM public.t WHERE at >= $1",
                "id name -",
            ),
            (
                "SELECT * FROM (SELECT x.*, lower(x.name) FROM public.t AS x OFFSET 0) AS y",
                "id at name more -",
            ),
            ("SELECT y.b, y.a FROM (SELECT id AS a, name || '' AS b FROM public.t) AS y ORDER BY 1", "- id"),
            ("SELECT id, public.immutable(name) FROM public.t", "id -"),
            // A subquery that reads no table is like a function.
            (
                "SELECT id, (SELECT string_agg(k, ',') FROM jsonb_object_keys(more) AS k LIMIT 1) FROM public.t",
                "id -",
            ),
            ("SELECT id FROM public.t WHERE at < CURRENT_DATE + 1", "none"),
            ("SELECT id, public.stable(name) FROM public.t", "none"),
            ("SELECT id, public.volatile(name) FROM public.t", "none"),
            ("SELECT id FROM public.t WHERE random() < 0.5", "none"),
            ("SELECT count(*) FROM public.t", "none"),
            ("SELECT id FROM public.t GROUP BY id", "none"),
            ("SELECT DISTINCT id FROM public.t", "none"),
            ("SELECT DISTINCT ON (name) id FROM public.t", "none"),
            ("SELECT id, row_number() OVER () FROM public.t", "none"),
            ("SELECT id FROM public.t LIMIT 10", "none"),
            ("SELECT id FROM public.t OFFSET 1", "none"),
            ("SELECT id FROM (SELECT id FROM public.t ORDER BY at FETCH FIRST ROW WITH TIES) AS x", "none"),
            ("SELECT id FROM public.t UNION ALL SELECT id FROM public.t", "none"),
            ("SELECT a.id FROM public.t AS a, public.t AS b", "none"),
            (
                "SELECT id FROM public.t WHERE NOT EXISTS (SELECT FROM public.t AS o WHERE o.id > t.id)",
                "none",
            ),
            ("SELECT id, (SELECT max(o.id) FROM public.t AS o) FROM public.t", "none"),
            ("WITH x AS (SELECT * FROM public.t) SELECT id FROM x", "none"),
            ("SELECT id FROM public.t TABLESAMPLE SYSTEM (50)", "none"),
            ("SELECT id FROM ONLY public.t", "none"),
            ("SELECT id FROM public.v", "none"),
            ("SELECT id, ctid FROM public.t", "none"),
            ("SELECT id, t FROM public.t", "none"),
            ("SELECT id, generate_series(1, 2) FROM public.t", "none"),
            ("SELECT id FROM public.t, generate_series(1, 2)", "none"),
            ("SELECT id FROM public.t FOR UPDATE", "none"),
            ("VALUES (1)", "none"),
            ("SELECT 1", "none"),
        ] {
            assert_eq!(copied(query), expected, "{query}");
        }
    }

    /// A source with its marks by trigger, and a model of its rows whose key is the id; refreshed.
    fn source_and_model() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (id int, event_date date NOT NULL, name text);
             SELECT tidemark.track_changes('w.events');
             INSERT INTO w.events VALUES (1, '2026-01-01', 'a'), (2, '2026-01-01', 'junk'), (3, '2026-01-02', 'b');
             SELECT tidemark.create_model('w.clean', '{w.events}',
                 'SELECT id, event_date, upper(name) AS name FROM w.events WHERE event_date >= $1 AND event_date < $2 AND name <> ''junk''',
                 '{event_date, id}', live => true)");
        refreshed();
    }

    /// Refreshes all there is; per date, newest last: how, rows inserted, updated, deleted.
    fn refreshed() -> String {
        let before = text("SELECT coalesce(max(id), 0) FROM tidemark.refresh_log");
        let steps = (0..20).map(|_| step("NULL", "")).take_while(|done| !done.is_empty()).collect::<Vec<_>>();
        assert!(steps.len() < 20, "{steps:?}");
        text(&format!(
            "SELECT string_agg(format('%s %s %s %s %s', to_char(event_date, 'DD'), CASE WHEN appended THEN 'appended' ELSE 'computed' END,
                    rows_inserted, rows_updated, rows_deleted), ', ' ORDER BY id) FROM tidemark.refresh_log WHERE id > {before}"
        ))
    }

    fn clean() -> String {
        text(
            "SELECT string_agg(concat_ws(' ', to_char(event_date, 'DD'), id, name), ', ' ORDER BY event_date, id, name) FROM w.clean",
        )
    }

    fn verified() -> String {
        text(
            "SELECT string_agg(DISTINCT status, ' ') FROM tidemark.verify_model('w.clean', '2026-01-01', '2026-01-05')",
        )
    }

    #[pg_test]
    fn rows_that_were_only_added_are_only_added() {
        source_and_model();
        assert_eq!(clean(), "01 1 A, 02 3 B");
        run(
            "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'), (5, '2026-01-01', 'junk'), (6, '2026-01-03', 'd')",
        );
        // The third date had no rows: there is nothing that could be left as it is.
        assert_eq!(refreshed(), "03 computed 1 0 0, 01 appended 1 0 0");
        assert_eq!(clean(), "01 1 A, 01 4 C, 02 3 B, 03 6 D");
        run("INSERT INTO w.events VALUES (7, '2026-01-01', 'junk')");
        assert_eq!(refreshed(), "01 appended 0 0 0");
        assert_eq!(verified(), "ok");
    }

    #[pg_test]
    fn a_change_or_a_deletion_among_the_marks_means_a_recompute() {
        source_and_model();
        run(
            "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'); UPDATE w.events SET name = 'z' WHERE id = 1",
        );
        assert_eq!(refreshed(), "01 computed 1 1 0");
        run("INSERT INTO w.events VALUES (5, '2026-01-01', 'e'); DELETE FROM w.events WHERE id = 4");
        assert_eq!(refreshed(), "01 computed 1 0 1");
        run(
            "INSERT INTO w.events VALUES (6, '2026-01-01', 'f'); SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
        );
        assert_eq!(refreshed(), "01 computed 1 0 0");
        // An UPDATE that moves a row to another date concerns both.
        run(
            "INSERT INTO w.events VALUES (8, '2026-01-02', 'g'); UPDATE w.events SET event_date = '2026-01-01' WHERE id = 3",
        );
        assert_eq!(refreshed(), "02 computed 1 0 1, 01 computed 1 0 0");
        assert_eq!(clean(), "01 1 Z, 01 3 B, 01 5 E, 01 6 F, 02 8 G");
        assert_eq!(verified(), "ok");
    }

    #[pg_test]
    fn what_went_without_a_mark_is_found_by_counting() {
        source_and_model();
        run(
            "SET LOCAL session_replication_role = replica; DELETE FROM w.events WHERE id = 1; SET LOCAL session_replication_role = origin",
        );
        assert_eq!(refreshed(), "NULL");
        run("INSERT INTO w.events VALUES (4, '2026-01-01', 'c'), (9, '2026-01-01', 'd')");
        assert_eq!(refreshed(), "01 computed 2 0 1");
        assert_eq!(verified(), "ok");
    }

    #[pg_test]
    fn without_a_log_or_with_one_of_another_cluster_nothing_is_missed() {
        source_and_model();
        for (log, how) in [
            ("DELETE FROM tidemark.refresh_log", "appended"),
            ("UPDATE tidemark.refresh_log SET horizon = NULL", "appended"),
            // All rows look old: found by counting.
            ("UPDATE tidemark.refresh_log SET horizon = '1000000000'", "computed"),
            // All rows look new.
            ("UPDATE tidemark.refresh_log SET horizon = '3'", "appended"),
        ] {
            run(&format!(
                "{log}; INSERT INTO w.events SELECT max(id) + 1, '2026-01-01', 'more' FROM w.events"
            ));
            assert_eq!(refreshed(), format!("01 {how} 1 0 0"), "{log}");
            assert_eq!(verified(), "ok", "{log}");
        }
    }

    #[pg_test]
    fn a_key_that_comes_twice_is_an_error_as_in_a_recompute() {
        source_and_model();
        for twice in [
            "(1, '2026-01-01', 'again')",
            "(10, '2026-01-01', 'x'), (10, '2026-01-01', 'y')",
            "(NULL, '2026-01-01', 'n')",
        ] {
            run(&format!("INSERT INTO w.events VALUES {twice}"));
            run("SELECT tidemark.distribute_dirty()");
            let error = text("SELECT error FROM tidemark.refresh_step('w.clean', '{}')");
            assert!(
                error.contains("key that is NULL or not unique")
                    || error.contains("null value in column")
                    || error.contains("duplicate key value"),
                "{twice}: {error}"
            );
            assert_eq!(clean(), "01 1 A, 02 3 B", "{twice}");
            run("DELETE FROM w.events WHERE name IN ('again', 'x', 'y', 'n')");
            assert_eq!(refreshed(), "01 computed 0 0 0", "the date stayed dirty");
        }
    }

    #[pg_test]
    fn models_that_read_an_appended_one_append_too() {
        source_and_model();
        run("SELECT tidemark.create_model('w.above', '{w.clean}',
                 'SELECT event_date, id FROM w.clean WHERE event_date >= $1 AND event_date < $2', '{id}');
             SELECT tidemark.create_model('w.counts', '{w.clean}',
                 'SELECT event_date, count(*) AS n FROM w.clean WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}')");
        refreshed();
        run("INSERT INTO w.events VALUES (4, '2026-01-01', 'c')");
        assert_eq!(refreshed(), "01 appended 1 0 0, 01 appended 1 0 0, 01 computed 0 1 0");
        run("UPDATE w.events SET name = 'y' WHERE id = 4");
        assert_eq!(refreshed(), "01 computed 0 1 0, 01 computed 0 0 0, 01 computed 0 0 0");
    }

    #[pg_test]
    fn a_new_definition_is_computed_whole() {
        source_and_model();
        run("INSERT INTO w.events VALUES (4, '2026-01-01', 'c');
             SELECT tidemark.create_model('w.clean', '{w.events}',
                 'SELECT id, event_date, lower(name) AS name FROM w.events WHERE event_date >= $1 AND event_date < $2', '{event_date, id}', live => true)");
        assert_eq!(refreshed(), "02 computed 0 1 0, 01 computed 2 1 0");
        assert_eq!(clean(), "01 1 a, 01 2 junk, 01 4 c, 02 3 b");
    }

    #[pg_test]
    fn which_models_append() {
        source_and_model();
        run("CREATE TABLE w.other (id bigint, event_date date NOT NULL)");
        let appends = |query: &str, key: &str, table: &str| {
            run(&format!(
                "DROP TABLE IF EXISTS w.m CASCADE; DELETE FROM tidemark.models WHERE name = 'w.m'; {table};
                 SELECT tidemark.create_model('w.m', '{{w.events}}', $q${query}$q$, '{key}')"
            ));
            text(
                "SELECT tidemark.model_statement(m, 'append') IS NOT NULL FROM tidemark.models m WHERE name = 'w.m'",
            )
        };
        let plain = "SELECT id, event_date FROM w.events WHERE event_date >= $1 AND event_date < $2";
        assert_eq!(appends(plain, "{id}", ""), "true");
        assert_eq!(appends(plain, "{event_date,id}", ""), "true");
        // The date alone says nothing about which rows are there.
        assert_eq!(appends(plain, "{event_date}", ""), "false", "only the date");
        let computed =
            "SELECT id + 0 AS id, event_date FROM w.events WHERE event_date >= $1 AND event_date < $2";
        assert_eq!(appends(computed, "{id}", ""), "false", "computed");
        let renamed = "SELECT e.id AS number, e.event_date FROM w.events AS e WHERE e.event_date >= $1 AND e.event_date < $2";
        assert_eq!(appends(renamed, "{number}", ""), "true");
        // Of another type than in the source: what is equal there need not be equal here.
        assert_eq!(
            appends(plain, "{id}", "CREATE TABLE w.m (id bigint PRIMARY KEY, event_date date NOT NULL)"),
            "false"
        );
        run("CREATE VIEW w.seen AS SELECT * FROM w.events");
        assert_eq!(
            appends(
                "SELECT id, event_date FROM w.seen WHERE event_date >= $1 AND event_date < $2",
                "{id}",
                ""
            ),
            "false"
        );
    }
}
