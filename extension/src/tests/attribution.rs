//! Tests of attribution inside Postgres.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, same_under_any_plan, text};
    use pgrx::prelude::*;

    /// First and last of rows (value, day of January), the values being of a type.
    fn touches(kind: &str, rows: &str) -> String {
        text(&format!(
            "SELECT concat(pg_typeof(tidemark.first(v::{kind}, t)), ' ', tidemark.first(v::{kind}, t), ' ',
                           tidemark.last(v::{kind}, t))
               FROM (SELECT v, timestamptz '2026-01-01Z' + d * interval '1 day' AS t
                       FROM (VALUES {rows}) AS x(v, d)) AS y"
        ))
    }

    #[pg_test]
    fn first_and_last_work_for_every_kind_of_type() {
        assert_eq!(touches("text", "('b', 2), ('a', 3), ('c', 1)"), "text c a");
        assert_eq!(touches("integer", "(20, 2), (30, 3), (10, 1)"), "integer 10 30");
        assert_eq!(touches("boolean", "(true, 2), (false, 1)"), "boolean f t");
        assert_eq!(touches("numeric", "(2.50, 2), (1.0, 1)"), "numeric 1.0 2.50");
        assert_eq!(touches("date", "('2026-01-02', 2), ('2026-01-03', 1)"), "date 2026-01-03 2026-01-02");
        assert_eq!(touches("text[]", "('{b,c}', 2), ('{NULL}', 1)"), "text[] {NULL} {b,c}");
        assert_eq!(touches("jsonb", "('{\"a\": 1}', 2), ('[1]', 1)"), "jsonb [1] {\"a\": 1}");
        assert_eq!(
            touches(
                "uuid",
                "('00000000-0000-0000-0000-000000000001', 2), ('ffffffff-0000-0000-0000-000000000001', 1)"
            ),
            "uuid ffffffff-0000-0000-0000-000000000001 00000000-0000-0000-0000-000000000001"
        );
        assert_eq!(touches("point", "('(1,2)', 2), ('(3,4)', 1)"), "point (3,4) (1,2)");
        assert_eq!(touches("name", "('n', 2), ('m', 1)"), "name m n");
        assert_eq!(
            touches("tidemark.session", "('(2026-01-01 00:00+00,2026-01-01 00:00+00,1)', 1)")
                .split(' ')
                .next(),
            Some("tidemark.session")
        );
        assert_eq!(
            text(
                "SELECT tidemark.last(ROW(d, 'x'), now() + d * interval '1 s') FROM generate_series(1, 3) AS d"
            ),
            "(3,x)"
        );
        Spi::run(
            "CREATE TYPE mood AS ENUM ('good', 'bad');
             CREATE DOMAIN word AS text COLLATE \"C\" CHECK (value <> '')",
        )
        .unwrap();
        assert_eq!(
            touches("mood", "('bad', 1), ('good', 1)"),
            "mood good bad",
            "ties in the order of the enum"
        );
        assert_eq!(
            touches("word", "('b', 1), ('B', 1)"),
            "word B b",
            "ties in the order of the domain's collation"
        );
    }

    #[pg_test]
    fn first_and_last_ignore_what_is_not_known() {
        assert_eq!(touches("text", "(NULL, 0), ('a', 1), ('b', 2), (NULL, 3), ('x', NULL)"), "text a b");
        assert_eq!(text("SELECT tidemark.first(x, now()) FROM (VALUES (NULL::text)) AS v(x)"), "NULL");
        assert_eq!(text("SELECT tidemark.last(1, now()) WHERE false"), "NULL");
        assert_eq!(error_of("SELECT tidemark.last(1, 'infinity')"), "22008 event_time must be finite");
    }

    #[pg_test]
    fn ties_are_broken_by_the_order_of_the_type_then_by_text() {
        assert_eq!(touches("integer", "(9, 1), (10, 1), (-1, 1)"), "integer -1 10");
        assert_eq!(touches("numeric", "(1.00, 1), (1.0, 1), (1, 1)"), "numeric 1 1.00");
        assert_eq!(touches("json", "('[2]', 1), ('[10]', 1)"), "json [10] [2]", "a type without an order");
        assert_eq!(touches("json[]", "('{1}', 1), ('{2}', 1)"), "json[] {1} {2}");
        assert_eq!(
            text("SELECT tidemark.first(ROW(v::json), now()) FROM (VALUES ('[2]'), ('[1]')) AS x(v)"),
            "([1])"
        );
    }

    #[pg_test]
    fn a_running_last_carries_values_forward() {
        assert_eq!(
            text(
                "SELECT string_agg(coalesce(l, '-'), '' ORDER BY n) FROM (
                     SELECT n, tidemark.last(v, now() + n * interval '1 s') OVER (ORDER BY n) AS l
                       FROM (VALUES (1, NULL), (2, 'a'), (3, NULL), (4, 'b'), (5, NULL)) AS x(n, v)) AS y"
            ),
            "-aabb"
        );
    }

    #[pg_test]
    fn replaced_values_do_not_pile_up() {
        // 200 MB of values pass by; the aggregate's contexts must not keep them.
        Spi::run(
            "CREATE TABLE memory AS SELECT tidemark.last(repeat(n::text, 2000), now() + n * interval '1 s') AS v,
                (SELECT sum(total_bytes) FROM pg_backend_memory_contexts) AS bytes FROM generate_series(1, 20000) AS n",
        )
        .unwrap();
        let bytes: i64 = text("SELECT bytes FROM memory").parse().unwrap();
        assert_eq!(text("SELECT left(v, 5) FROM memory"), "20000");
        assert!(bytes < 100_000_000, "{bytes}");
    }

    const ROWS: &str = "SELECT n % 97 AS person, timestamptz '2026-01-01Z' + (n * 7919 % 100) * interval '1 hour' AS t,
        CASE WHEN n % 5 > 0 THEN repeat('x', n % 3) || (n % 13) END AS v, n FROM generate_series(1, 20000) AS n";

    #[pg_test]
    fn first_and_last_text_are_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, tidemark.first(v, t) || ' ' || tidemark.last(v, t) AS answer FROM {t}
              GROUP BY person",
        );
    }

    #[pg_test]
    fn first_and_last_of_other_types_are_the_same_under_any_plan() {
        same_under_any_plan(
            ROWS,
            "SELECT person AS key, concat(tidemark.first(n, t), tidemark.last(ARRAY[v, 'y'], t),
                tidemark.first(to_jsonb(v), t), tidemark.last(ROW(v, n), t), tidemark.first(n::numeric / 4, t),
                tidemark.last(to_json(v), t)) AS answer
               FROM {t} GROUP BY person",
        );
    }

    #[pg_test]
    fn first_and_last_of_types_without_a_binary_form_are_the_same_under_any_plan() {
        // aclitem can be neither sent nor received, nor can what is made of it; not every value passes a domain again.
        Spi::run("CREATE TYPE holder AS (acl aclitem[], word text); CREATE DOMAIN even AS integer").unwrap();
        let acl = "makeaclitem(10, 10, CASE WHEN n % 2 = 0 THEN 'SELECT' ELSE 'INSERT' END, n % 3 = 0)";
        same_under_any_plan(
            &format!(
                "SELECT n % 97 AS person, timestamptz '2026-01-01Z' + (n * 7919 % 100) * interval '1 hour' AS t,
                    {acl} AS a, ARRAY[{acl}] AS b, ROW(ARRAY[{acl}], n)::holder AS c, n::even AS e,
                    repeat(md5(n::text), 200) AS long,
                    int4range(n, n + 5) AS r, n::text::name AS m, ('(' || n || ',2)')::point AS p
               FROM generate_series(1, 4000) AS n"
            ),
            "SELECT person AS key, concat(tidemark.first(a, t), tidemark.last(b, t), tidemark.first(c, t),
                tidemark.last(e, t), md5(tidemark.last(long, t)), tidemark.last(r, t), tidemark.first(m, t),
                tidemark.last(p, t), tidemark.first(ROW(b, m), t), tidemark.last(ARRAY[c], t)) AS answer
               FROM {t} GROUP BY person",
        );
    }

    #[pg_test]
    fn channel_group_knows_the_usual_channels() {
        for (arguments, expected) in [
            ("NULL, NULL, NULL, NULL, NULL", "Direct"),
            ("'', '', '', '', ''", "Direct"),
            ("'google', 'cpc', NULL, NULL, NULL", "Paid Search"),
            ("NULL, NULL, NULL, 'www.google.co.uk', NULL", "Organic Search"),
            ("'Newsletter', 'E-Mail', NULL, NULL, NULL", "Email"),
            ("NULL, NULL, NULL, 'blog.example.org', NULL", "Referral"),
            ("NULL, NULL, NULL, 'l.facebook.com', 'fbclid=x'", "Organic Social"),
            ("NULL, NULL, NULL, NULL, 'gclid=abc'", "Paid Other"),
        ] {
            assert_eq!(text(&format!("SELECT tidemark.channel_group({arguments})")), expected, "{arguments}");
        }
        Spi::run(
            "CREATE TABLE visit (source text, channel text
                 GENERATED ALWAYS AS (tidemark.channel_group(source, NULL, NULL, NULL, NULL)) STORED)",
        )
        .expect("immutable enough for a generated column");
    }

    /// Journeys of 60 persons: touches on five channels and purchases, at times that may be the same.
    const JOURNEYS: &str = "SELECT setseed(0.3);
        CREATE TEMP TABLE journeys AS
        SELECT (random() * 59)::integer AS person, n % 3 AS team,
               timestamptz '2026-01-01Z' + (random() * 960)::integer * interval '1 hour' AS event_time,
               CASE WHEN random() < 0.8 THEN ('{Direct,Direct,Email,Paid Search,Referral}'::text[])[1 + n % 5] END AS channel,
               CASE WHEN random() < 0.25 THEN round((random() * 300 - 20)::numeric, 1 + n % 3) END AS amount
          FROM generate_series(1, 900) AS n;
        ANALYZE journeys";

    /// The rules in plain SQL: every conversion joined with its touches.
    fn by_hand(model: &str, direct: bool) -> String {
        let weight = match model {
            "first" => "(n = 1)::integer",
            "last" => "(n = among)::integer",
            "linear" => "1",
            "position" => {
                "CASE WHEN among <= 2 THEN 1 WHEN n IN (1, among) THEN 0.4 ELSE 0.2 / (among - 2) END"
            }
            _ => "coalesce(power(0.5::numeric, extract(epoch FROM at - event_time)::numeric / 86400 / 7), 1)",
        };
        format!(
            "WITH conversions AS (
                 SELECT person, event_time AS at, amount, greatest(scale(amount), 2) AS decimals,
                        row_number() OVER () AS id FROM journeys WHERE amount IS NOT NULL
             ), pairs AS (
                 SELECT c.*, t.event_time, t.channel,
                        bool_or(t.channel <> 'Direct') OVER (PARTITION BY c.id) AS others
                   FROM conversions AS c
                   LEFT JOIN journeys AS t ON t.person = c.person AND t.channel IS NOT NULL
                                          AND t.event_time BETWEEN c.at - interval '9 days' AND c.at
             ), ranked AS (
                 SELECT *, row_number() OVER (PARTITION BY id ORDER BY event_time, channel COLLATE \"C\") AS n,
                        count(*) OVER (PARTITION BY id) AS among
                   FROM pairs WHERE {direct} OR others IS NOT TRUE OR channel <> 'Direct'
             ), weighed AS (SELECT *, ({weight})::numeric AS weight FROM ranked
             ), shares AS (
                 SELECT *, round(amount * sum(weight) OVER (PARTITION BY id ORDER BY n)
                                        / sum(weight) OVER (PARTITION BY id), decimals::integer) AS until
                   FROM weighed)
             SELECT person, at, event_time, coalesce(channel, 'Unattributed') AS channel,
                    until - coalesce(lag(until) OVER (PARTITION BY id ORDER BY n), 0) AS amount, weight
               FROM shares"
        )
    }

    #[pg_test]
    fn amounts_are_those_of_plain_sql_to_the_cent() {
        Spi::run(JOURNEYS).unwrap();
        for (model, direct) in [
            ("first", false),
            ("last", false),
            ("last", true),
            ("linear", false),
            ("position", false),
            ("position", true),
            ("time_decay", false),
            ("time_decay", true),
        ] {
            let words = if direct { format!("{model},direct") } else { model.to_owned() };
            let found = format!(
                "SELECT p.person, c.conversion_time, c.touch_time, c.channel, c.amount
                   FROM (SELECT person, tidemark.attribution('{words}', '9 days', event_time, channel, amount) AS credits
                           FROM journeys GROUP BY person) AS p, unnest(p.credits) AS c"
            );
            // Who gets nothing of a conversion has no credit.
            let expected = format!(
                "SELECT person, at, event_time, channel, amount FROM ({}) AS x WHERE weight > 0",
                by_hand(model, direct)
            );
            let differing = text(&format!(
                "WITH found AS MATERIALIZED ({found}), expected AS MATERIALIZED ({expected})
                 SELECT concat((SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE expected) AS x), ' ',
                               (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE found) AS x), ' ',
                               (SELECT count(*) > 150 FROM found), ' ',
                               (SELECT sum(amount) FROM found) = (SELECT sum(amount) FROM journeys))"
            ));
            assert_eq!(differing, "0 0 t t", "{words}");
        }
    }

    #[pg_test]
    fn attribution_is_the_same_under_any_plan() {
        Spi::run(JOURNEYS).unwrap();
        let credits = "tidemark.attribution('time_decay', '9 days', event_time, channel, amount)";
        let answers = same_under_any_plan(
            "SELECT * FROM journeys",
            &format!("SELECT team AS key, {credits} AS answer FROM {{t}} GROUP BY team"),
        );
        assert!(answers.contains("Paid Search"), "{answers}");
    }

    #[pg_test]
    fn attribution_refuses_what_it_cannot_do() {
        let error = |arguments: &str| {
            error_of(&format!("SELECT tidemark.attribution({arguments}) FROM generate_series(1, 2) AS n"))
        };
        let rest = "now(), 'Email', 1";
        assert!(error(&format!("'best', '1 day', {rest}")).contains("unknown model \"best\""));
        assert!(error(&format!("'first,last', '1 day', {rest}")).contains("repeats or contradicts"));
        assert!(error(&format!("NULL, '1 day', {rest}")).contains("model"));
        assert!(error(&format!("'last', '1 month', {rest}")).contains("look_back"));
        assert!(error(&format!("'last', n * interval '1 day', {rest}")).contains("model and look_back"));
        assert!(error("'last', '1 day', now(), 'Email', 'NaN'").contains("amount must be finite"));
        assert_eq!(text("SELECT tidemark.attribution('last', '1 day', now(), 'Email', NULL)::text"), "{}");
        assert_eq!(text("SELECT tidemark.attribution('last', '1 day', NULL, 'Email', 5)::text"), "{}");
    }
}
