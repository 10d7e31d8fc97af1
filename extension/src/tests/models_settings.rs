//! What makes a query mean something else in another session: live views of such queries are refused, and refreshes run
//! under settings of their own.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{refresh, run};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    fn source() {
        run("CREATE SCHEMA w;
             CREATE TYPE w.mood AS ENUM ('good', 'bad');
             CREATE TABLE w.src (event_time timestamptz, event_date date, at timestamp, span interval, n numeric, f float8,
                 b bytea, m w.mood, t text, j jsonb, a date[]);
             CREATE VIEW w.by_hour AS SELECT event_date, date_trunc('hour', event_time) AS hour FROM w.src;
             CREATE FUNCTION w.fixed(timestamptz) RETURNS date LANGUAGE sql STABLE SET timezone = 'UTC' RETURN $1::date;
             CREATE FUNCTION w.pure(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1);
             CREATE FUNCTION w.loose(timestamptz) RETURNS date LANGUAGE sql STABLE RETURN $1::date");
    }

    /// What in this expression over `w.src` depends on the session; "NULL" if nothing does.
    fn unstable(expression: &str) -> String {
        text(&format!(
            "SELECT regexp_replace(d.unstable, ' near .*', '')
               FROM tidemark_internal.describe_query(10, $query$SELECT {expression} FROM w.src$query$) AS d"
        ))
    }

    #[pg_test]
    fn what_depends_on_the_session_is_found() {
        source();
        for (expression, found) in [
            ("event_time::date", "date(timestamp with time zone)"),
            ("event_time >= $1", "operator >=(timestamp with time zone,date)"),
            ("date_trunc('hour', event_time)", "date_trunc(text,timestamp with time zone)"),
            ("extract(hour FROM event_time)", "\"extract\"(text,timestamp with time zone)"),
            ("to_char(event_time, 'Dy')", "to_char(timestamp with time zone,text)"),
            ("event_time + interval '1 day'", "operator +(timestamp with time zone,interval)"),
            ("event_time + span", "operator +(timestamp with time zone,interval)"),
            ("event_date::timestamptz", "timestamptz(date)"),
            ("event_time = ANY (ARRAY[$1, $2])", "operator =(timestamp with time zone,date)"),
            ("event_time::text", "the cast from timestamp with time zone to text"),
            ("event_date::text", "the cast from date to text"),
            ("f::text", "the cast from double precision to text"),
            ("b::text", "the cast from bytea to text"),
            ("span::text", "the cast from interval to text"),
            ("a::text", "the cast from date[] to text"),
            ("t::timestamptz", "the cast from text to timestamp with time zone"),
            ("t || event_time", "operator ||(text,anynonarray)"),
            ("concat('x', event_date)", "concat(\"any\")"),
            ("to_jsonb(event_time)", "to_jsonb(anyelement)"),
            ("jsonb_agg(span)", "jsonb_agg(anyelement)"),
            ("current_date", "CURRENT_DATE"),
            ("localtimestamp", "the local time"),
            ("current_user", "the current user, schema or database"),
            ("current_setting('x.y', true)", "current_setting(text,boolean)"),
            ("to_tsvector(t)", "to_tsvector(text)"),
            ("w.loose(event_time)", "w.loose(timestamp with time zone)"),
            ("(SELECT count(*) FROM w.by_hour)", "date_trunc(text,timestamp with time zone)"),
            (
                "(SELECT max(r.x) FROM jsonb_to_record(j) AS r(x timestamptz))",
                "a column of type timestamp with time zone that is read from JSON",
            ),
        ] {
            assert_eq!(unstable(expression), found, "{expression}");
        }
    }

    #[pg_test]
    fn what_is_the_same_in_every_session_may_stay() {
        source();
        for expression in [
            "(event_time AT TIME ZONE 'UTC')::date",
            "event_time >= $1::timestamp AT TIME ZONE 'UTC'",
            "event_date >= $1 AND event_date < $2 + 1",
            "date_trunc('hour', event_time, 'UTC')",
            "date_trunc('hour', event_time AT TIME ZONE 'UTC')",
            "extract(hour FROM event_time AT TIME ZONE 'UTC')",
            "extract(epoch FROM event_time - '2026-01-01 00:00Z')",
            "to_char(event_time AT TIME ZONE 'UTC', 'Dy')",
            "event_time + interval '30 minutes'",
            "at + interval '1 month'",
            "date_bin('1 hour', event_time, '2026-01-01 00:00Z')",
            "now()",
            "n::text || t",
            "concat(t, n, m)",
            "m::text",
            "to_jsonb(event_date)",
            "jsonb_build_object('t', t, 'n', n)",
            "t::integer + t::bigint",
            "to_date(t, 'YYYY-MM-DD')",
            "to_tsvector('english', t)",
            "w.fixed(event_time)",
            "w.pure(t)",
            "tidemark.hll_agg(t)",
            "max(event_time)",
            "(SELECT max(r.x) FROM jsonb_to_record(j) AS r(x integer))",
        ] {
            assert_eq!(unstable(expression), "NULL", "{expression}");
        }
    }

    #[pg_test]
    fn a_live_view_must_not_depend_on_its_reader() {
        source();
        let create = |live: bool| {
            error_of(&format!(
                "SELECT tidemark.create_model('w.hours', '{{w.src}}', $q$SELECT event_date, date_trunc('hour', event_time)::timestamp AS hour,
                     count(*) AS n FROM w.src WHERE event_date >= $1 AND event_date < $2 GROUP BY 1, 2$q$, '{{event_date,hour}}', live => {live})"
            ))
        };
        assert_eq!(
            create(true),
            "42P17 live view of model w.hours would depend on the session that reads it: \
             \"timestamp\"(timestamp with time zone) near \"date_trunc('hour', event_time)::timestam\""
        );
        // Stored rows are the refresh's business, which says what it means by an hour.
        assert_eq!(create(false), "no error");
        run("INSERT INTO w.src (event_time, event_date) VALUES ('2026-01-01 12:30Z', '2026-01-01');
             SELECT tidemark.mark_dirty('w.src', '{2026-01-01}'); SET LOCAL timezone = 'Asia/Kolkata'; SET LOCAL datestyle = 'German'");
        assert_eq!(refresh(), "w.hours 2026-01-01");
        assert_eq!(text("SELECT to_char(hour, 'HH24:MI') FROM w.hours"), "12:00");
        assert_eq!(
            text(
                "SELECT status FROM tidemark.verify_model('w.hours', '2026-01-01'::date, '2026-01-01'::date)"
            ),
            "ok"
        );
        assert_eq!(text("SELECT current_setting('timezone')"), "Asia/Kolkata");
    }
}
