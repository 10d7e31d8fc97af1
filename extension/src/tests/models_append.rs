//! Which models add the rows that their source gained, or merge them, instead of computing a date anew. That they do, and when, takes
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
    fn columns_that_are_merged_are_known() {
        run("CREATE TABLE public.t (id int, at timestamptz, name text, day date, x float8, n numeric, big bigint);
             CREATE FUNCTION public.sum2(int, int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 + $2;
             CREATE AGGREGATE public.sum(int) (SFUNC = public.sum2, STYPE = int);
             CREATE COLLATION public.nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false)");
        for (query, expected) in [
            ("SELECT day, count(*), count(name) FROM public.t GROUP BY day", "key sum sum"),
            ("SELECT lower(name), sum(id), sum(big), sum(n) FROM public.t GROUP BY 1", "key sum sum sum"),
            ("SELECT day, sum(big)::bigint FROM public.t GROUP BY day", "key sum"),
            (
                "SELECT day, min(at), max(id) FILTER (WHERE x > 0) FROM public.t GROUP BY day",
                "key least greatest",
            ),
            (
                "SELECT day, tidemark.hll_agg(name, 12), tidemark.ddsketch_agg(x) FROM public.t GROUP BY day",
                "key hll ddsketch",
            ),
            (
                "SELECT d, count(*) FROM (SELECT day AS d FROM public.t WHERE id > 1) AS s GROUP BY d",
                "key sum",
            ),
            ("SELECT day AS event_date, count(*) FROM public.t GROUP BY day", "none"),
            ("SELECT name COLLATE public.nd AS name, count(*) FROM public.t GROUP BY 1", "none"),
            ("SELECT day, tidemark.hll_agg(name, id) FROM public.t GROUP BY day", "none"),
            ("SELECT count(*) FROM public.t", "none"),
            ("SELECT day FROM public.t", "none"),
            // Whose bytes depend on the order of rows.
            ("SELECT day, sum(x) FROM public.t GROUP BY day", "none"),
            ("SELECT day, avg(id) FROM public.t GROUP BY day", "none"),
            ("SELECT day, max(n) FROM public.t GROUP BY day", "none"),
            ("SELECT day, max(name) FROM public.t GROUP BY day", "none"),
            ("SELECT day, array_agg(id) FROM public.t GROUP BY day", "none"),
            ("SELECT day, count(DISTINCT id) FROM public.t GROUP BY day", "none"),
            ("SELECT day, sum(n)::bigint FROM public.t GROUP BY day", "none"),
            ("SELECT day, sum(id) + 1 FROM public.t GROUP BY day", "none"),
            ("SELECT day, public.sum(id) FROM public.t GROUP BY day", "none"),
            ("SELECT day, count(*) FROM public.t GROUP BY day, name", "none"),
            ("SELECT day, count(*) FROM public.t GROUP BY day HAVING count(*) > 1", "none"),
            ("SELECT day, count(*) FROM public.t GROUP BY GROUPING SETS ((day), ())", "none"),
            ("SELECT day, count(*) FROM public.t GROUP BY day LIMIT 1", "none"),
            ("SELECT DISTINCT day, count(*) FROM public.t GROUP BY day", "none"),
            ("SELECT day, count(*), rank() OVER (ORDER BY count(*)) FROM public.t GROUP BY day", "none"),
            ("SELECT day, count(*) FROM public.t WHERE at < now() GROUP BY day", "none"),
            ("SELECT a.day, count(*) FROM public.t AS a, public.t AS b GROUP BY a.day", "none"),
            ("SELECT a.day, count(*) FROM public.t AS a, generate_series(1, 2) GROUP BY a.day", "none"),
            ("SELECT d, count(*) FROM (SELECT DISTINCT day AS d FROM public.t) AS s GROUP BY d", "none"),
            ("SELECT day, count(*) FROM public.t WHERE id IN (SELECT 1) GROUP BY day", "none"),
        ] {
            let merges = format!(
                "SELECT coalesce(array_to_string(d.merges, ' '), 'none')
                   FROM tidemark_internal.describe_query(10, $query${query}$query$) AS d"
            );
            assert_eq!(text(&merges), expected, "{query}");
        }
    }

    #[pg_test]
    fn which_models_merge() {
        run(
            "CREATE SCHEMA w; CREATE TABLE w.events (id int, event_date date NOT NULL, name text, x numeric)",
        );
        let ways = |query: &str, key: &str, lookback: u32, table: &str| {
            run(&format!(
                "DROP TABLE IF EXISTS w.m CASCADE; DELETE FROM tidemark_internal.models WHERE name = 'w.m'; {table};
                 SELECT tidemark.create_model('w.m', '{{w.events}}', $q${query}$q$, '{key}', lookback_days => {lookback})"
            ));
            text(
                "SELECT concat_ws(' ', ways::text, other_ways) FROM tidemark.model_status WHERE model = 'w.m'",
            )
        };
        let of = |columns: &str| {
            format!(
                "SELECT event_date, {columns} FROM w.events WHERE event_date >= $1 AND event_date < $2
                  GROUP BY event_date, name"
            )
        };
        let (merged, one) = ("{merge,recompute}", "{event_date, name}");
        assert!(ways(&of("name, count(*) AS n"), one, 0, "").starts_with(merged));
        assert!(!ways(&of("name, count(*) AS n"), one, 1, "").contains(merged), "reads neighbouring dates");
        assert!(!ways(&of("name, count(*) AS n"), "{event_date, name, n}", 0, "").contains(merged));
        let table =
            |columns: &str| format!("CREATE TABLE w.m (event_date date NOT NULL, name text, {columns})");
        assert!(ways(&of("name, sum(x) AS n"), one, 0, &table("n numeric")).starts_with(merged));
        // Rounded when it is stored: what was lost does not come back.
        assert!(!ways(&of("name, sum(x) AS n"), one, 0, &table("n numeric(9, 1)")).contains(merged));
        // Two keys of the query may be one when they are stored.
        let short = "CREATE TABLE w.m (event_date date NOT NULL, x timestamp(0), n bigint)";
        let times = "SELECT event_date, now AS x, count(*) AS n FROM (
                         SELECT event_date, timestamp '2026-01-01' + x * interval '1 second' AS now FROM w.events
                          WHERE event_date >= $1 AND event_date < $2) AS t GROUP BY event_date, now";
        assert!(!ways(times, "{event_date, x}", 0, short).contains(merged));
        assert!(ways(times, "{event_date, x}", 0, &short.replace("(0)", "")).starts_with(merged));
        let insensitive = "CREATE COLLATION IF NOT EXISTS w.ci
                               (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                           CREATE TABLE w.m (event_date date NOT NULL, name text COLLATE w.ci, n bigint)";
        assert!(!ways(&of("name, count(*) AS n"), one, 0, insensitive).contains(merged));
        assert!(ways(&of("name, avg(x) AS n"), one, 0, "").contains("; merge: they"), "and why not is said");
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
