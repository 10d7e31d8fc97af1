//! Members of JSON objects as text.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    /// The same said with operators of Postgres.
    const TRUTH: &str = "CASE WHEN jsonb_typeof(v.object -> v.name) IN ('string', 'number', 'boolean')
                              THEN NULLIF(v.object -> v.name #>> '{}', '') END";

    #[pg_test]
    fn a_member_is_what_the_operators_say() {
        // Short and long names and values, some stored with a short header, compressed, or out of line.
        let differ = text(&format!(
            "WITH members AS (
                 SELECT n, jsonb_build_object('', n, 'text', repeat('ü', n), 'empty', '', 'null', NULL, 'yes', true, 'no', false,
                            'whole', n, 'exact', 1.50 * n, 'large', 1e40, 'small', -1e-20, 'list', '[1]'::jsonb, 'object', '{{\"a\": 1}}'::jsonb,
                            repeat('k', n % 3000), 'long name', 'Größe', 'x', 'a\"b', 'y') AS object
                   FROM unnest(ARRAY[0, 1, 3, 40, 130, 3000, 300000]) AS n
             ), stored AS MATERIALIZED (
                 SELECT object FROM members
                 UNION ALL SELECT jsonb_build_array(object) FROM members WHERE n < 50
                 UNION ALL SELECT x::jsonb FROM unnest(ARRAY['{{}}', '[]', '1', '\"text\"', 'null', 'true', '[\"text\"]', NULL]) AS x
             ), v AS (
                 SELECT s.object, k.name FROM stored s,
                        (SELECT DISTINCT jsonb_object_keys(object) FROM members UNION SELECT unnest(ARRAY['tex', 'texts', 'a', NULL])) AS k(name))
             SELECT count(*) FILTER (WHERE tidemark_internal.member_text(v.object, v.name) IS DISTINCT FROM {TRUTH})
                    || ' of ' || (count(*) > 300) || ' ' || count(tidemark_internal.member_text(v.object, v.name)) FROM v"
        ));
        assert_eq!(differ, "0 of true 73");
    }

    #[pg_test]
    fn a_member_of_a_stored_object_is_the_same() {
        Spi::run(
            "CREATE TABLE public.objects (flag bool, object jsonb);
             INSERT INTO public.objects SELECT true, jsonb_build_object('a', 'x', 'b', repeat('y', n), 'c', n)
               FROM unnest(ARRAY[0, 1, 50, 100, 5000, 500000]) AS n",
        )
        .unwrap();
        let differ = text(&format!(
            "SELECT count(*) FILTER (WHERE tidemark_internal.member_text(v.object, v.name) IS DISTINCT FROM {TRUTH}) || ' of ' || count(*)
               FROM (SELECT o.object, k.name FROM public.objects o, unnest('{{a,b,c,d}}'::text[]) AS k(name)) AS v"
        ));
        assert_eq!(differ, "0 of 24");
    }

    #[pg_test]
    fn an_address_is_read_as_postgres_reads_it() {
        let read = text(
            "SELECT string_agg(coalesce(host(tidemark_internal.ip_address(v.t)), 'none'), ' ' ORDER BY v.n)
               FROM unnest(ARRAY['203.0.113.7', '203.0.113.7:80, 10.0.0.1', '[2001:DB8::1]:443', '::ffff:10.1.2.3', 'fe80::1%eth0', '2001:db8:0:0:1::',
                                 '300.1.1.1', '', 'localhost', NULL, '10.0.0.0/8'])
                    WITH ORDINALITY AS v(t, n)",
        );
        assert_eq!(
            read,
            "203.0.113.7 203.0.113.7 2001:db8::1 10.1.2.3 fe80::1 2001:db8:0:0:1:: none none none none none"
        );
        let differ = text(
            "SELECT count(*) FILTER (WHERE tidemark_internal.ip_address(host(a)) IS DISTINCT FROM a) || ' of ' || count(*)
               FROM (SELECT inet '0.0.0.0' + n * 4294967 FROM generate_series(0::bigint, 999) AS n
                     UNION ALL SELECT inet '2001:db8::' + n * n * 99991 FROM generate_series(0::bigint, 999) AS n) AS v(a)",
        );
        assert_eq!(differ, "0 of 2000");
    }
}
