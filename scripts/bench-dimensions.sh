#!/usr/bin/env bash
# As-of joins with a slowly changing dimension: `make bench-dimensions`. Facts of one row, a date and a month with what was
# valid of their person then, by the versions that gold.create_dimension keeps, beside LATERAL and beside a view that
# computes where each version ends; and what keeping the versions costs. Settings, all optional, from the environment:
#
#   PERSONS=100000 VERSIONS=5                      who has how many versions each
#   FACTS=5000000 DAYS=30                          purchases, spread over persons and time
#   ROUNDS=5                                       how often each query runs; medians are printed
#
# Fails unless all ways give the same answers.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
use_postgres

PERSONS=${PERSONS:-100000} VERSIONS=${VERSIONS:-5} FACTS=${FACTS:-5000000} DAYS=${DAYS:-30} ROUNDS=${ROUNDS:-5}
PG=$RUN/bench-dimensions
TIDEMARK=${TIDEMARK_BIN:-$(target_dir)/release/tidemark}
if [ -z "${TIDEMARK_BIN:-}" ]; then
    "$ROOT/scripts/deps.sh"
    "$ROOT/scripts/build.sh"
    "$ROOT/scripts/install.sh" --no-build
fi
trap '"$ROOT/scripts/pg.sh" destroy "$PG" >/dev/null' EXIT
"$ROOT/scripts/pg.sh" start "$PG" 0 fsync=off max_wal_size=8GB checkpoint_timeout=1h work_mem=64MB >/dev/null
psql() { "$PGBIN/psql" -Xq -v ON_ERROR_STOP=1 -P pager=off "$("$ROOT/scripts/pg.sh" url "$PG" "$@")"; }
psql postgres <<<'CREATE DATABASE tidemark' && TIDEMARK_DATABASE_URL=$("$ROOT/scripts/pg.sh" url "$PG" tidemark) \
    "$TIDEMARK" migrate >/dev/null

psql tidemark <<SQL
SET client_min_messages = warning;
\set first '''2026-09-01Z''::timestamptz'
\timing on
\echo '== versions kept while $((PERSONS * VERSIONS)) changes are written'
INSERT INTO silver.trait_changes (event_id, event_time, event_date, event_type, person, known_person, plan)
SELECT md5(p || '/' || v)::uuid, t.at, t.at::date, 'identify', 'u' || p, 'u' || p, 'plan ' || v
  FROM generate_series(1, $PERSONS) AS p, generate_series(1, $VERSIONS) AS v,
       LATERAL (SELECT :first + (v - random()) * $DAYS / $VERSIONS * interval '1 day' AS at) AS t;
\timing off
INSERT INTO silver.purchases (event_id, event_time, event_date, event_type, person, known_person, revenue, currency)
SELECT md5('f' || n)::uuid, t.at, t.at::date, 'purchase', t.who, t.who, n % 100, 'EUR'
  FROM (SELECT n, :first + $DAYS * n::float8 / ($FACTS + 1) * interval '1 day' AS at,
               'u' || (1 + n * 7919::bigint % $PERSONS) AS who
          FROM generate_series(1, $FACTS) AS n) AS t;
CREATE VIEW public.lead AS
SELECT known_person AS person, event_time AS valid_from, plan,
       lead(event_time, 1, 'infinity') OVER (PARTITION BY known_person ORDER BY event_time) AS valid_to
  FROM silver.trait_changes;
CREATE FUNCTION public.measured(spans jsonb) RETURNS TABLE (span text, way text, median_ms numeric, answer text)
LANGUAGE plpgsql AS \$\$
DECLARE
    began timestamptz;
    taken numeric[];
    ways CONSTANT jsonb := jsonb_build_object(
        'gold.purchases_star', 'SELECT b.plan, b.revenue FROM gold.purchases_star AS b',
        'LATERAL', 'SELECT p.plan, b.revenue FROM silver.purchases AS b LEFT JOIN LATERAL (
            SELECT d.plan FROM gold.persons AS d WHERE d.person = b.known_person AND d.valid_from <= b.event_time
             ORDER BY d.valid_from DESC LIMIT 1) AS p ON true',
        'view with lead()', 'SELECT p.plan, b.revenue FROM silver.purchases AS b LEFT JOIN public.lead AS p
            ON p.person = b.known_person AND p.valid_from <= b.event_time AND b.event_time < p.valid_to');
    span_of record;
    way_of record;
BEGIN
    FOR span_of IN SELECT * FROM jsonb_each_text(spans) LOOP
        FOR way_of IN SELECT * FROM jsonb_each_text(ways) LOOP
            taken := '{}';
            FOR n IN 1 .. $ROUNDS LOOP
                began := clock_timestamp();
                EXECUTE format('SELECT count(*) || '' '' || COALESCE(sum(revenue * length(plan)), 0) || '' '' || count(plan)
                                  FROM (%s WHERE %s) AS x', way_of.value, span_of.value) INTO answer;
                taken := taken || extract(epoch FROM clock_timestamp() - began) * 1000;
            END LOOP;
            span := span_of.key;
            way := way_of.key;
            median_ms := round((SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(taken) AS t)::numeric, 2);
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
\$\$;
VACUUM ANALYZE;
\echo
\echo '== as-of joins, $FACTS facts in $DAYS dates, $PERSONS persons with $VERSIONS versions each; medians of $ROUNDS'
CREATE TABLE public.results AS
SELECT * FROM public.measured(jsonb_build_object(
    '1 one row', (SELECT format('b.event_date = %L AND b.event_id = %L', event_date, event_id)
                    FROM silver.purchases LIMIT 1),
    '2 a date', 'b.event_date = ''2026-09-15''', '3 all dates', 'b.event_date >= ''2026-09-01'''));
SELECT span, way, median_ms FROM public.results ORDER BY span, median_ms;
DO \$\$ BEGIN
    IF EXISTS (SELECT FROM public.results GROUP BY span HAVING count(DISTINCT answer) > 1) THEN
        RAISE EXCEPTION 'the ways give different answers: %', (SELECT jsonb_agg(r) FROM public.results AS r);
    END IF;
END \$\$;
\timing on
\echo
\echo '== one late change, and 10000 of as many persons, with the versions that follow'
INSERT INTO silver.trait_changes (event_id, event_time, event_date, event_type, person, known_person, plan)
VALUES (md5('late')::uuid, :first + interval '10 days', '2026-09-11', 'identify', 'u7', 'u7', 'late');
INSERT INTO silver.trait_changes (event_id, event_time, event_date, event_type, person, known_person, plan)
SELECT md5('many' || n)::uuid, :first + interval '12 days', '2026-09-13', 'identify', 'u' || n, 'u' || n, 'late'
  FROM generate_series(1, LEAST(10000, $PERSONS)) AS n;
SQL
