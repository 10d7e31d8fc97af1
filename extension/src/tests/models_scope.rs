//! Which queries may be computed by person, and what marks of persons make stale. What a refresh makes of them takes
//! several transactions: tests/tests/scope/.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{run, step};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    /// Why a query is not scoped by its column `person`; "NULL" if it is.
    fn problem(query: &str) -> String {
        text(&format!(
            "SELECT tidemark_internal.scope_problem(10, $query${query}$query$, 'public.t', 'person', 'person')"
        ))
    }

    #[pg_test]
    fn queries_that_keep_persons_apart_are_known() {
        run("CREATE TABLE public.t (person text NOT NULL, at timestamptz, n int, tags text[]);
             CREATE TABLE public.other (person text);
             CREATE VIEW public.v AS SELECT * FROM public.t;
             CREATE FUNCTION public.stable(text) RETURNS text LANGUAGE sql STABLE RETURN (SELECT max(person) FROM public.t)");
        for query in [
            "SELECT person, at FROM public.t WHERE at >= $1",
            "SELECT person, count(*), max(n) FROM public.t GROUP BY person",
            "SELECT DISTINCT person FROM public.t",
            "SELECT DISTINCT ON (person) person, n FROM public.t ORDER BY person, at",
            "SELECT x.person, x.first FROM (SELECT person, min(at) OVER (PARTITION BY person) AS first FROM public.t) AS x",
            "WITH a AS (SELECT * FROM public.t), b AS (SELECT person, sum(n) FROM a GROUP BY person) SELECT * FROM b",
            // A LATERAL that reads nothing is like a function; days that are the same for everybody.
            "SELECT t.person, tag FROM public.t CROSS JOIN LATERAL (SELECT unnest(t.tags) AS tag) AS x",
            "SELECT d, person, count(*) FROM generate_series(1, 3) AS d JOIN public.t ON n = d GROUP BY d, person",
            "SELECT person FROM public.t LEFT JOIN (VALUES (1)) AS x(i) ON n = i",
            "SELECT a.person FROM public.t a, public.t b WHERE a.person = b.person AND a.at < b.at",
            "SELECT person FROM public.t a JOIN public.t b USING (person)",
            "SELECT a.person, b.n FROM public.t a LEFT JOIN public.t b ON b.person = a.person AND b.at < a.at",
            "SELECT person FROM public.t WHERE n > 3 OR person IN (SELECT o.person FROM public.t o WHERE o.n = 0)",
            "SELECT person, (SELECT string_agg(x, ',') FROM unnest(tags) AS x) FROM public.t",
            "SELECT person, count(*) FROM public.t GROUP BY person HAVING count(*) > 2 ORDER BY 2 OFFSET 0",
            "SELECT person, n FROM public.t UNION SELECT person, 1 FROM public.t EXCEPT SELECT person, 2 FROM public.t",
            // What is the same for everybody, such as a table without dates.
            "SELECT t.person, o.person AS other FROM public.t JOIN public.other o ON o.person = t.person",
            "SELECT t.person, o.person AS other FROM public.t LEFT JOIN public.other o ON o.person = t.person",
            "SELECT t.person FROM public.other o, public.t",
            "SELECT person, count(*) FROM public.t JOIN (SELECT person AS o FROM public.other) x ON o = person GROUP BY 1",
            "WITH a AS (SELECT * FROM public.t)
             SELECT u.person, count(*) FROM (SELECT person FROM a UNION ALL
                 SELECT b.person FROM (SELECT DISTINCT person FROM a) AS b JOIN public.t USING (person)) AS u GROUP BY 1",
        ] {
            assert_eq!(problem(query), "NULL", "{query}");
        }
    }

    #[pg_test]
    fn a_varchar_is_compared_like_a_text() {
        run("CREATE TABLE public.t (person varchar(20) NOT NULL, event_date date, n int)");
        for query in [
            "SELECT a.person, b.n FROM public.t a LEFT JOIN public.t b ON a.person = b.person",
            "SELECT person, a.n FROM public.t a JOIN public.t b USING (person)",
            "SELECT person FROM public.t WHERE n > 3 OR person IN (SELECT o.person FROM public.t o WHERE o.n = 0)",
        ] {
            assert_eq!(problem(query), "NULL", "{query}");
        }
    }

    #[pg_test]
    fn where_a_result_needs_a_row_of_its_date_is_known() {
        run("CREATE TABLE public.t (person text NOT NULL, event_date date, at timestamptz, n int);
             CREATE AGGREGATE public.min(date) (SFUNC = date_larger, STYPE = date)");
        let needs = |query: &str| {
            text(&format!(
                "SELECT tidemark_internal.scope_needs_rows(10, $query${query}$query$, 'public.t', 'person', 'person')"
            ))
        };
        for query in [
            "SELECT event_date, person FROM public.t",
            "SELECT min(event_date) AS event_date, person FROM public.t GROUP BY person, n",
            "WITH a AS (SELECT event_date AS d, person FROM public.t) SELECT max(d) AS event_date, person FROM a GROUP BY person",
            "SELECT b.event_date, person FROM public.t a JOIN public.t b USING (person)",
            "SELECT event_date, person FROM public.t UNION SELECT max(event_date), person FROM public.t GROUP BY 2",
        ] {
            assert_eq!(needs(query), "true", "{query}");
        }
        for query in [
            "SELECT event_date + 1 AS event_date, person FROM public.t",
            "SELECT (at AT TIME ZONE 'UTC')::date AS event_date, person FROM public.t",
            "SELECT d AS event_date, person FROM (VALUES (date '2026-01-01')) AS x(d) JOIN public.t ON event_date < d",
            "SELECT public.min(event_date) AS event_date, person FROM public.t GROUP BY person",
            "SELECT min(event_date + n) AS event_date, person FROM public.t GROUP BY person",
            "SELECT max(d) AS event_date, person FROM public.t CROSS JOIN (VALUES (date '2026-01-01')) AS x(d) GROUP BY person",
            "SELECT event_date, person FROM public.t UNION SELECT event_date + 1, person FROM public.t",
            "SELECT event_date AS day, person FROM public.t",
            "SELECT min(event_date) AS event_date, max(person) AS person FROM public.t",
        ] {
            assert_eq!(needs(query), "false", "{query}");
        }
    }

    #[pg_test]
    fn queries_that_may_mix_persons_are_refused() {
        run("CREATE TABLE public.t (person text NOT NULL, at timestamptz, n int, tags text[]);
             CREATE TABLE public.other (person text);
             CREATE TABLE public.child () INHERITS (public.t);
             CREATE VIEW public.v AS SELECT * FROM public.t;
             CREATE FUNCTION public.stable(text) RETURNS text LANGUAGE sql STABLE RETURN (SELECT max(person) FROM public.t)");
        for (query, reason) in [
            ("SELECT max(person) AS person FROM public.t", "GROUP BY"),
            ("SELECT max(person) AS person FROM public.t GROUP BY n", "GROUP BY"),
            ("SELECT person, count(*) FROM public.t GROUP BY ROLLUP (person)", "GROUPING SETS"),
            (
                "SELECT person, count(*) FROM (SELECT person, rank() OVER (ORDER BY at) AS r FROM public.t) x GROUP BY person",
                "PARTITION BY",
            ),
            ("SELECT person, rank() OVER (PARTITION BY n) FROM public.t", "PARTITION BY"),
            ("SELECT DISTINCT ON (n) person FROM public.t", "DISTINCT"),
            ("SELECT person FROM public.t LIMIT 3", "LIMIT"),
            ("SELECT person FROM (SELECT person FROM public.t OFFSET 1) AS x", "LIMIT"),
            ("SELECT person FROM public.t UNION ALL SELECT 'somebody'", "UNION"),
            ("SELECT person, n FROM public.t UNION SELECT upper(person), n FROM public.t", "UNION"),
            ("SELECT person, '' AS x FROM public.t UNION ALL SELECT '', person FROM public.t", "UNION"),
            ("SELECT person FROM (SELECT person FROM public.t INTERSECT VALUES ('a')) AS x", "UNION"),
            ("SELECT a.person FROM public.t a, public.t b WHERE a.n = b.n", "not compared"),
            (
                "SELECT a.person FROM public.t a, public.t b WHERE a.person = b.person OR a.n = 1",
                "not compared",
            ),
            ("SELECT a.person FROM public.t a LEFT JOIN public.t b ON a.n = b.n", "LEFT JOIN"),
            // Whoever has no match on the left is NULL on the right.
            ("SELECT b.person FROM public.t a LEFT JOIN public.t b ON a.person = b.person", "not the column"),
            (
                "SELECT b.person FROM public.t a LEFT JOIN public.t b ON a.person = b.person JOIN public.t c ON c.person = b.person",
                "not compared",
            ),
            ("SELECT person FROM (VALUES (1)) x(i) LEFT JOIN public.t ON n = i", "outer join"),
            ("SELECT a.person FROM public.t a RIGHT JOIN public.t b ON a.person = b.person", "outer join"),
            ("SELECT a.person FROM public.t a FULL JOIN public.t b ON a.person = b.person", "outer join"),
            ("SELECT person FROM public.t WHERE person NOT IN (SELECT o.person FROM public.t o)", "subquery"),
            (
                "SELECT person FROM public.t WHERE (person IN (SELECT o.person FROM public.t o)) IS NULL",
                "subquery",
            ),
            ("SELECT person FROM public.t WHERE n IN (SELECT o.n FROM public.t o)", "subquery"),
            (
                "SELECT person FROM public.t WHERE person IN (SELECT max(o.person) FROM public.t o)",
                "GROUP BY",
            ),
            ("SELECT person FROM public.t WHERE EXISTS (SELECT FROM public.t o WHERE o.n > t.n)", "subquery"),
            ("SELECT person, (SELECT count(*) FROM public.t) FROM public.t", "subquery"),
            (
                "SELECT t.person FROM public.t, LATERAL (SELECT o.person FROM public.t o WHERE o.n > t.n) x WHERE x.person = t.person",
                "refers to the query around",
            ),
            ("SELECT upper(person) AS person FROM public.t", "unchanged"),
            ("SELECT n AS person, person AS other FROM public.t", "unchanged"),
            ("SELECT n FROM public.t", "unchanged"),
            ("SELECT o.person FROM public.t JOIN public.other o ON o.person = t.person", "unchanged"),
            ("SELECT person FROM public.other", "it does not read its source"),
            ("SELECT person FROM public.v", "it reads a view, or a parent"),
            ("SELECT t.person FROM public.t JOIN public.v USING (person)", "it reads a view, or a parent"),
            (
                "SELECT t.person FROM public.t JOIN public.child USING (person)",
                "it reads a view, or a parent",
            ),
            ("SELECT t.person FROM public.other o LEFT JOIN public.t USING (person)", "outer join"),
            ("SELECT person FROM public.t UNION SELECT person FROM public.other", "a branch"),
            (
                "SELECT person FROM public.t WHERE EXISTS (SELECT FROM public.other o WHERE o.person = t.person)",
                "subquery",
            ),
            ("SELECT person FROM ONLY public.t", "part of the source"),
            ("SELECT person FROM public.t TABLESAMPLE SYSTEM (50)", "sample"),
            ("SELECT person, public.stable(person) FROM public.t", "function"),
            ("SELECT person, now() FROM public.t", "time"),
            ("SELECT person FROM public.t FOR UPDATE", "more than a SELECT"),
            (
                "WITH RECURSIVE r AS (SELECT person FROM public.t UNION SELECT r.person FROM r) SELECT person FROM r",
                "recursive",
            ),
            (
                "SELECT x.person FROM (SELECT n FROM public.t) a JOIN public.t x ON x.n = a.n",
                "does not return the column",
            ),
        ] {
            let problem = problem(query);
            assert!(problem.contains(reason), "{query}: {problem}");
        }
    }

    #[pg_test]
    fn whether_a_dimension_is_read_by_person_only_is_known() {
        run("CREATE TABLE public.t (person text NOT NULL, event_date date, at timestamptz, other text);
             CREATE TABLE public.d (id text, since timestamptz, plan text, now boolean)");
        let problem = |query: &str| {
            text(&format!(
                "SELECT tidemark_internal.scope_problem(10, $query${query}$query$, 'public.t', 'person', 'person', 'public.d', 'id')"
            ))
        };
        for query in [
            "SELECT t.person, d.plan FROM public.t JOIN public.d ON d.id = t.person AND d.since <= t.at",
            "SELECT t.person, d.plan FROM public.t LEFT JOIN public.d ON d.id = t.person AND d.now",
            "SELECT t.person, p.n FROM public.t LEFT JOIN (SELECT id, count(*) AS n FROM public.d GROUP BY id) AS p ON p.id = t.person",
            "SELECT t.person, b.plan FROM public.t JOIN public.d AS a ON a.id = person JOIN public.d AS b ON b.id = person",
        ] {
            assert_eq!(problem(query), "NULL", "{query}");
        }
        for query in [
            "SELECT t.person, d.plan FROM public.t JOIN public.d ON d.id = t.other",
            "SELECT t.person, d.plan FROM public.t LEFT JOIN public.d ON d.id = t.other",
            "SELECT t.person, d.plan FROM public.t LEFT JOIN public.d ON d.id = t.person OR d.id = t.other",
            "SELECT t.person, b.plan FROM public.t JOIN public.d AS a ON a.id = person JOIN public.d AS b ON b.plan = a.plan",
            "SELECT t.person, p.n FROM public.t JOIN public.d ON d.id = t.person
               JOIN (SELECT plan, count(*) AS n FROM public.d GROUP BY plan) AS p ON p.plan = d.plan",
            "SELECT t.person FROM public.t, public.d",
        ] {
            assert_ne!(problem(query), "NULL", "{query}");
        }
    }

    fn world() {
        run("CREATE SCHEMA w; CREATE TABLE w.events (event_date date NOT NULL, person text, n int);
             INSERT INTO w.events VALUES ('2026-01-01', 'a', 1), ('2026-01-01', 'b', 1), ('2026-01-03', 'a', 1)");
    }

    /// Registers a model of days by person, with these arguments at the end.
    fn create(arguments: &str) -> String {
        format!(
            "SELECT tidemark.create_model('w.days', '{{w.events}}',
                 'SELECT event_date, person, count(*) AS n FROM w.events WHERE event_date >= $1 AND event_date < $2 AND person IS NOT NULL GROUP BY 1, 2',
                 '{{event_date, person}}', live => true{arguments})"
        )
    }

    #[pg_test]
    fn a_scope_that_is_none_is_refused() {
        world();
        for (arguments, error) in [
            (
                ", scope => 'persn'",
                "42P17 model w.days cannot be scoped by persn: the table has no column persn",
            ),
            (
                ", scope => 'person', scope_source => 'who'",
                "42P17 model w.days cannot be scoped by person: the source has no column who",
            ),
            (
                ", scope => 'n'",
                "42P17 model w.days cannot be scoped by n: column n of the table is not declared NOT NULL",
            ),
            (", scope_source => 'person'", "22023 scope_source needs a scope"),
            (", scope_since => 'at'", "22023 scope_since needs a scope"),
            (
                ", scope => 'person', scope_since => 'event_date'",
                "42P17 model w.days cannot be scoped by person: the table has no column event_date of type timestamptz that is declared NOT NULL",
            ),
        ] {
            assert_eq!(error_of(&create(arguments)), error);
        }
        run(&create(", scope => 'person'"));
        assert_eq!(
            text(
                "SELECT scope || ' ' || ways::text || ' ' || split_part(other_ways, ':', 1) FROM tidemark.model_status"
            ),
            "person {merge,scope,recompute} append"
        );
        // Calling it again does nothing; without the scope it is another definition.
        run("DELETE FROM tidemark_internal.model_dirty");
        run(&create(", scope => 'person', scope_source => 'person'"));
        assert_eq!(text("SELECT dirty_dates FROM tidemark.model_status"), "0");
        run(&create(""));
        assert_eq!(
            text("SELECT dirty_dates::text || ways::text FROM tidemark.model_status"),
            "2{merge,recompute}"
        );
    }

    #[pg_test]
    fn a_mark_of_persons_makes_their_dates_stale_and_those_of_all_for_who_asks_by_date() {
        world();
        run(&create(", scope => 'person'"));
        run("SELECT tidemark.create_model('w.total', '{w.events}',
                 'SELECT event_date, count(*) AS n FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}');
             SELECT tidemark.create_model('w.above', '{w.days}',
                 'SELECT event_date, count(*) AS n FROM w.days WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}')");
        while !step("NULL", "").is_empty() {}
        let stale =
            |model: &str| text(&format!("SELECT array_to_string(tidemark.stale_dates('{model}'), ' ')"));
        assert_eq!(stale("w.days") + &stale("w.total") + &stale("w.above"), "");
        run(
            "UPDATE w.events SET n = 2 WHERE person = 'b'; SELECT tidemark.mark_persons('w.events', '{b,nobody,NULL}')",
        );
        let all = || [stale("w.days"), stale("w.total"), stale("w.above")].join(", ");
        let expected = "2026-01-01, 2026-01-01 2026-01-03, 2026-01-01";
        assert_eq!(all(), expected);
        // The same when it was passed on.
        run("SELECT tidemark_internal.distribute_dirty()");
        assert_eq!(all(), expected);
        // Whose rows wait is nobody's business.
        run(
            "CREATE ROLE reader; GRANT USAGE ON SCHEMA w TO reader; GRANT SELECT ON w.days_live TO reader; SET LOCAL ROLE reader",
        );
        assert_eq!(text("SELECT sum(n) FROM w.days_live"), "3");
        let view = "(SELECT oid::regclass FROM pg_class WHERE relname = 'persons_' || md5('w.days'))";
        assert_eq!(text(&format!("SELECT has_table_privilege({view}, 'SELECT')")), "false");
        run("RESET ROLE");
        assert_eq!(
            text(&format!(
                "SELECT ids::text FROM tidemark_internal.persons_{}",
                text("SELECT md5('w.days')")
            )),
            "{b,nobody}"
        );
    }

    #[pg_test]
    fn marks_of_persons_are_checked() {
        world();
        run("ALTER TABLE w.events ADD COLUMN device uuid;
             SELECT tidemark.create_model('w.devices', '{w.events}',
                 'SELECT event_date, device, count(*) AS n FROM w.events WHERE event_date >= $1 AND event_date < $2 AND device IS NOT NULL GROUP BY 1, 2',
                 '{event_date, device}', scope => 'device')");
        for (call, error) in [
            ("'w.events', '{x}'", "22P02 ids must be values of type uuid"),
            ("'w.events', array_fill('00000000-0000-0000-0000-000000000000'::text, ARRAY[10])", "no error"),
            (
                "'w.events', ARRAY(SELECT gen_random_uuid()::text FROM generate_series(1, 100001))",
                "54000 ids must have at most 100000 elements",
            ),
            ("'w.events', ARRAY[repeat('x', 1001)]", "54000 ids must have at most 1000 bytes each"),
            ("'w.events', '{}', repeat('x', 1001)", "22023 reason must have at most 1000 characters"),
            ("NULL, '{}'", "22004 source must not be NULL"),
            ("'w.events', NULL", "22004 ids and dates must not both be NULL"),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.mark_persons({call})")), error);
        }
        run("CREATE ROLE stranger; GRANT USAGE ON SCHEMA w TO stranger; SET LOCAL ROLE stranger");
        assert_eq!(
            error_of("SELECT tidemark.mark_persons('w.events', '{x}')"),
            "42501 permission denied to mark dates of table w.events"
        );
    }

    #[pg_test]
    fn a_column_that_changed_concerns_who_reads_it() {
        world();
        for (name, select) in [
            ("total", "count(*) AS n FROM w.events"),
            ("sums", "person, sum(n)::bigint AS n FROM w.events"),
            ("nested", "(SELECT max(x.n) FROM w.events x) AS n FROM w.events"),
            ("whole", "count(events) AS n FROM w.events"),
            ("seen", "count(*) AS n FROM w.as_seen"),
            ("filtered", "count(*) FILTER (WHERE n = 1) AS n FROM w.events"),
            ("apart", "count(*) AS n FROM w.other"),
        ] {
            run("CREATE OR REPLACE VIEW w.as_seen AS SELECT * FROM w.events;
                 CREATE TABLE IF NOT EXISTS w.other (event_date date)");
            let by = if name == "sums" { "1, 2" } else { "1" };
            let scope = if name == "sums" { ", person}', scope => 'person'" } else { "}'" };
            run(&format!(
                "SELECT tidemark.create_model('w.{name}', '{{w.events}}', 'SELECT event_date, {select}
                  WHERE event_date >= $1 AND event_date < $2 {} GROUP BY {by}', '{{event_date{scope})",
                if name == "sums" { "AND person IS NOT NULL" } else { "" }
            ));
        }
        while !step("NULL", "").is_empty() {}
        let stale = || {
            text(
                "SELECT string_agg(m.model || coalesce(' ' || array_to_string(tidemark.stale_dates(m.model), ' '), ''), ', '
                                   ORDER BY m.model)
                   FROM tidemark.model_status m WHERE tidemark.stale_dates(m.model) <> '{}'",
            )
        };
        let date = "2026-01-03";
        run(&format!(
            "SELECT tidemark.mark_persons('w.events', '{{b}}', NULL, '{{{date},{date},NULL}}', 'n')"
        ));
        // What is not read here may be read by a function or behind a view.
        let expected = ["apart", "filtered", "nested", "seen", "sums", "whole"];
        let expected = expected.map(|name| format!("w.{name} {date}")).join(", ");
        assert_eq!(stale(), expected);
        run("SELECT tidemark_internal.distribute_dirty()");
        assert_eq!(stale(), expected);
        // Persons by the column that changed are nobody's whom a model knows by another one.
        assert_eq!(
            text(
                "SELECT count(*) FROM tidemark_internal.model_dirty WHERE model = 'w.sums' AND persons IS NULL"
            ),
            "1"
        );
        while !step("NULL", "").is_empty() {}
        // Unless it is said whose values they are.
        run(&format!(
            "SELECT tidemark.mark_persons('w.events', '{{b}}', NULL, '{{{date}}}', 'n', id_column => 'person')"
        ));
        assert_eq!(stale(), expected);
        run("SELECT tidemark_internal.distribute_dirty()");
        let of_sums = "SELECT persons::text FROM tidemark_internal.model_dirty WHERE model = 'w.sums'";
        assert_eq!(text(of_sums), "{b}");
        while !step("NULL", "").is_empty() {}
        run("SELECT tidemark.mark_persons('w.events', '{b}', NULL, NULL, 'person')");
        assert!(stale().contains("w.sums 2026-01-01") && !stale().contains("w.total"), "{}", stale());
        run("SELECT tidemark_internal.distribute_dirty()");
        assert_eq!(
            text("SELECT persons::text FROM tidemark_internal.model_dirty WHERE model = 'w.sums'"),
            "{b}"
        );
        for more in ["'nothing'", "'n', 'nothing'"] {
            assert_eq!(
                error_of(&format!("SELECT tidemark.mark_persons('w.events', '{{b}}', NULL, NULL, {more})")),
                "42703 table w.events has no column nothing"
            );
        }
        while !step("NULL", "").is_empty() {}
        // Anybody's rows; and who follows the table by the log, if it is a model, finds the dates there.
        run("SELECT tidemark.mark_persons('w.sums', NULL, NULL, '{2026-01-02}', 'n'),
                    tidemark.mark_persons('w.events', NULL, NULL, '{2026-01-02}', 'person')");
        assert_eq!(
            stale(),
            expected.replace(date, "2026-01-02").replace("w.filtered 2026-01-02, w.nested 2026-01-02, ", "")
        );
        assert_eq!(
            text(
                "SELECT string_agg(concat_ws(' ', model, event_date, persons), ', ')
                   FROM tidemark.refresh_log WHERE way = 'changed'"
            ),
            "w.sums 2026-01-02"
        );
    }

    #[pg_test]
    fn no_mark_runs_what_belongs_to_a_type_of_the_models_owner() {
        world();
        run("SELECT tidemark.create_model('w.days', '{w.events}',
                 'SELECT event_date, person, count(*) AS n FROM w.events WHERE event_date >= $1 AND event_date < $2 AND person IS NOT NULL GROUP BY 1, 2',
                 '{event_date, person}', scope => 'person');
             CREATE ROLE builder; GRANT CREATE, USAGE ON SCHEMA w TO builder;
             CREATE TABLE w.ran (who name); GRANT INSERT ON w.ran TO PUBLIC;
             CREATE FUNCTION w.check_it(text) RETURNS boolean LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO w.ran VALUES (current_user); RETURN true; END';
             CREATE DOMAIN w.checked AS text CHECK (w.check_it(VALUE));
             ALTER TABLE w.days OWNER TO builder; ALTER TABLE w.days ALTER COLUMN person TYPE w.checked;
             DELETE FROM w.ran;
             SELECT tidemark.mark_persons('w.events', '{a}')");
        assert_eq!(text("SELECT count(*) FROM w.ran"), "0");
    }
}
