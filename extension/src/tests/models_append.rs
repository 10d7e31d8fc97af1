//! Which models add the rows that their source gained instead of computing a date anew. That they do, and when, takes
//! several transactions: tests/tests/append/.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::run;
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    /// What `copied_columns` says, with "-" for a column that is computed and "none" for a query that is not suitable.
    fn copied(query: &str) -> String {
        text(&format!(
            "SELECT coalesce(array_to_string(d.copied, ' ', '-'), 'none') FROM tidemark_internal.describe_query(10, $query${query}$query$) AS d"
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
            ("SELECT id, now() FROM public.t", "none"),
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

    #[pg_test]
    fn which_models_append() {
        run("CREATE SCHEMA w; CREATE TABLE w.events (id int, event_date date NOT NULL, name text)");
        let appends = |query: &str, key: &str, table: &str| {
            run(&format!(
                "DROP TABLE IF EXISTS w.m CASCADE; DELETE FROM tidemark_internal.models WHERE name = 'w.m'; {table};
                 SELECT tidemark.create_model('w.m', '{{w.events}}', $q${query}$q$, '{key}')"
            ));
            text("SELECT 'append' = ANY (ways) FROM tidemark.model_status WHERE model = 'w.m'")
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
