-- The days of the reports: in which time zone a day begins and ends, on which weekday a week begins, in which month a
-- fiscal year. Models and views of gold are written with {{...}} where that matters and kept as such here, so that
-- gold.set_reporting can make them anew; what is read from bronze and silver stays by UTC date.
SET LOCAL ROLE tidemark_admin;

CREATE TABLE IF NOT EXISTS gold_storage.zoned_statements (
    name text PRIMARY KEY,
    number integer NOT NULL GENERATED ALWAYS AS IDENTITY,
    statements text NOT NULL,
    ran text
);
COMMENT ON TABLE gold_storage.zoned_statements IS
    'Statements that make what depends on the time zone of reports, run again by gold.set_reporting.';
COMMENT ON COLUMN gold_storage.zoned_statements.name IS 'Name, for a later version of the same.';
COMMENT ON COLUMN gold_storage.zoned_statements.number IS 'Their order.';
COMMENT ON COLUMN gold_storage.zoned_statements.statements IS 'What gold_storage.in_zone explains.';
COMMENT ON COLUMN gold_storage.zoned_statements.ran IS 'As they were run the last time.';

CREATE OR REPLACE FUNCTION gold_storage.zone_offsets(time_zone text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT jsonb_object_agg(c.day, c.seconds)
      FROM (SELECT d.day, d.seconds, lag(d.seconds) OVER (ORDER BY d.day) AS before
              FROM (SELECT (g.midnight AT TIME ZONE 'UTC')::date AS day,
                           extract(epoch FROM (g.midnight AT TIME ZONE $1) - (g.midnight AT TIME ZONE 'UTC'))::integer
                               AS seconds
                      FROM generate_series(timestamptz '1970-01-01', '2100-01-01', '1 day') AS g(midnight)) AS d) AS c
     WHERE c.before IS DISTINCT FROM c.seconds
$$;
COMMENT ON FUNCTION gold_storage.zone_offsets(text) IS
    'What a time zone means on this server: by each UTC date from 1970 to 2099 at whose beginning it is something new, '
    'how many seconds are to be added to UTC. Postgres does not say which tzdata it has.';

CREATE OR REPLACE FUNCTION gold_storage.offset_on(offsets jsonb, day date) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.seconds::integer FROM jsonb_each_text($1) AS o(day, seconds)
     WHERE o.day::date <= $2 ORDER BY o.day::date DESC LIMIT 1
$$;
COMMENT ON FUNCTION gold_storage.offset_on(jsonb, date) IS
    'What offsets, as gold_storage.zone_offsets has them, say of the beginning of a UTC date; NULL before the first.';

CREATE OR REPLACE FUNCTION gold_storage.zoned(statements text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT regexp_replace(regexp_replace(
               replace(replace(replace(replace(replace(regexp_replace($1,
                   '\{\{start of ([^{}]+)\}\}',
                   CASE WHEN r.time_zone = 'UTC' THEN '(\1)::timestamp AT TIME ZONE ''UTC'''
                       ELSE 'tidemark.date_start(\1, ' || quote_literal(r.time_zone) || ')' END, 'g'),
                   '{{zone}}', quote_literal(r.time_zone)),
                   '{{before}}', (max(o.seconds::integer) > 0)::integer::text),
                   '{{after}}', (min(o.seconds::integer) < 0)::integer::text),
                   '{{week_shift}}', ((8 - r.week_start) % 7)::text),
                   '{{fiscal_shift}}', (r.fiscal_month - 1)::text),
               '\{\{date of (\w+)\}\}',
               CASE WHEN r.time_zone = 'UTC' THEN '\1.event_date'
                    ELSE '(\1.event_time AT TIME ZONE ' || quote_literal(r.time_zone) || ')::date' END, 'g'),
               '\{\{([^{}|]*)\|([^{}|]*)\}\}', CASE WHEN r.time_zone = 'UTC' THEN '\1' ELSE '\2' END, 'g')
      FROM gold_storage.reporting AS r CROSS JOIN jsonb_each_text(r.offsets) AS o(day, seconds)
     GROUP BY r.time_zone, r.week_start, r.fiscal_month
$$;
COMMENT ON FUNCTION gold_storage.zoned(text) IS
    'The text with {{zone}} replaced by the time zone of reports as a literal, {{start of $1}} by when a date begins '
    'there, {{before}} and {{after}} by how many UTC dates before and after a date its local day may reach into, 0 or '
    '1, {{date of e}} by the date of event e, '
    '{{week_shift}} by how many days weeks begin before Monday, {{fiscal_shift}} by how many months fiscal years begin '
    'after January, and {{this|that}} by this if the time zone is UTC, else by that.';

CREATE OR REPLACE FUNCTION gold_storage.run_zoned() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
-- Shorter than it takes to look for a deadlock: whoever reads the views meanwhile is not the one who is cancelled.
SET lock_timeout = '500ms'
AS $$
DECLARE
    part record;
BEGIN
    FOR attempt IN 1..40 LOOP
        BEGIN
            FOR part IN
                SELECT s.name, gold_storage.zoned(s.statements) AS statements FROM gold_storage.zoned_statements AS s
                 WHERE s.ran IS DISTINCT FROM gold_storage.zoned(s.statements) ORDER BY s.number
            LOOP
                EXECUTE part.statements;
                UPDATE gold_storage.zoned_statements AS s SET ran = part.statements WHERE s.name = part.name;
            END LOOP;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            -- Undone, and with it all locks: others get on.
            PERFORM pg_sleep(0.25);
        END;
    END LOOP;
    RAISE EXCEPTION 'views of gold are in use' USING ERRCODE = '55P03', HINT = 'They are made anew in a moment in '
        'which nobody has a transaction that read them: try again when long queries and refreshes are over.';
END
$$;
COMMENT ON FUNCTION gold_storage.run_zoned() IS
    'Runs the statements of gold_storage.zoned_statements that would be others than those that were run, all or none. '
    '55P03 if somebody is in the way for a while.';

CREATE OR REPLACE FUNCTION gold_storage.in_zone(name text, statements text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO gold_storage.zoned_statements (name, statements) VALUES (in_zone.name, in_zone.statements)
    ON CONFLICT ON CONSTRAINT zoned_statements_pkey DO UPDATE SET statements = excluded.statements;
    EXECUTE gold_storage.zoned(in_zone.statements);
    UPDATE gold_storage.zoned_statements AS s SET ran = gold_storage.zoned(in_zone.statements)
     WHERE s.name = in_zone.name;
END
$$;
COMMENT ON FUNCTION gold_storage.in_zone(text, text) IS
    'Runs statements in which gold_storage.zoned replaces what depends on the time zone of reports, and keeps them, so '
    'that gold.set_reporting can run them again.';

CREATE OR REPLACE VIEW gold.reporting AS
SELECT r.time_zone, (ARRAY['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'])[r.week_start]
           AS week_start, r.fiscal_month::integer AS fiscal_month, array_to_string(r.session_cut, ',') AS session_cut,
       r.heartbeat_seconds, r.currency
  FROM gold_storage.reporting AS r;
COMMENT ON VIEW gold.reporting IS
    'How the reports of gold count days, weeks, fiscal years and sessions; one row. gold.set_reporting and '
    'gold.set_sessions change it.';
COMMENT ON COLUMN gold.reporting.time_zone IS 'Time zone in which the days of gold begin and end.';
COMMENT ON COLUMN gold.reporting.week_start IS 'Weekday on which a week begins, such as monday.';
COMMENT ON COLUMN gold.reporting.fiscal_month IS 'Month in which a fiscal year begins, 1 to 12.';
COMMENT ON COLUMN gold.reporting.session_cut IS
    'What ends a session besides a pause of 30 minutes: campaign, midnight, both with a comma, or nothing.';
COMMENT ON COLUMN gold.reporting.heartbeat_seconds IS
    'How many seconds apart pages send heartbeats, for engaged_seconds of gold.sessions; NULL: not set.';
COMMENT ON COLUMN gold.reporting.currency IS
    'Currency into which gold converts amounts, by gold.currency_rates; NULL: none.';

-- Literals in the bodies, so that the planner inlines them. STABLE: no index may be made of what a setting changes.
SELECT gold_storage.in_zone('dates', $zoned$
CREATE OR REPLACE FUNCTION gold.report_date(moment timestamptz) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (moment AT TIME ZONE {{zone}})::date;

CREATE OR REPLACE FUNCTION gold.date_start(day date) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN {{start of day}};

CREATE OR REPLACE FUNCTION gold.period_start(unit text, day date) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE unit
    WHEN 'day' THEN day
    WHEN 'week' THEN day - ((day - date '0001-01-01' + {{week_shift}}) % 7 + 7) % 7
    WHEN 'month' THEN date_trunc('month', day::timestamp)::date
    WHEN 'quarter' THEN date_trunc('quarter', day::timestamp)::date
    WHEN 'year' THEN date_trunc('year', day::timestamp)::date
    WHEN 'fiscal_quarter' THEN (date_trunc('quarter', day::timestamp - interval '{{fiscal_shift}} months')
                                + interval '{{fiscal_shift}} months')::date
    WHEN 'fiscal_year' THEN (date_trunc('year', day::timestamp - interval '{{fiscal_shift}} months')
                             + interval '{{fiscal_shift}} months')::date
    -- Not NULL, which would put everything into one group: an error that says what was given (22023).
    ELSE date_trunc('no unit of gold.period_start: ' || unit, day::timestamp)::date END;

CREATE OR REPLACE FUNCTION gold.report_time(moment timestamptz) RETURNS timestamp
LANGUAGE sql STABLE PARALLEL SAFE
RETURN moment AT TIME ZONE {{zone}};

CREATE OR REPLACE FUNCTION gold_storage.week_shift() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN {{week_shift}};
$zoned$);
COMMENT ON FUNCTION gold.report_date(timestamptz) IS
    'The date on which something happened, in the time zone of reports (gold.reporting), as event_date of gold has it. '
    'NULL for NULL.';
COMMENT ON FUNCTION gold.date_start(date) IS
    'When a date begins in the time zone of reports; where its midnight is skipped, the first moment after, where it '
    'comes twice, the first. '
    'To read silver by such dates: event_time >= gold.date_start(first) AND event_time < gold.date_start(last + 1).';
COMMENT ON FUNCTION gold.period_start(text, date) IS
    'The first date of the period with a date: day, week, month, quarter, year, fiscal_quarter or fiscal_year, of '
    'which gold.reporting says where weeks and fiscal years begin. NULL for NULL; 22023 for another unit.';
COMMENT ON FUNCTION gold.report_time(timestamptz) IS
    'What clocks show at a moment in the time zone of reports: for hours of the day. NULL for NULL.';
COMMENT ON FUNCTION gold_storage.week_shift() IS 'How many days weeks begin before Monday, 0 to 6.';

CREATE OR REPLACE FUNCTION gold_storage.waiting() RETURNS TABLE (model text, dates bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.model, m.dirty_dates FROM tidemark.model_status AS m
     WHERE m.dirty_dates > 0 AND m.model LIKE 'gold_storage.%' ORDER BY 1
$$;
COMMENT ON FUNCTION gold_storage.waiting() IS 'The models of gold that wait for a refresh, and how many dates of each.';

CREATE OR REPLACE FUNCTION gold.set_reporting(
    time_zone text DEFAULT NULL, week_start text DEFAULT NULL, fiscal_month integer DEFAULT NULL,
    currency text DEFAULT NULL
) RETURNS TABLE (model text, dates bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 10
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_variable
DECLARE
    zone CONSTANT text := CASE WHEN time_zone = 'UTC' THEN 'UTC'
                               ELSE (SELECT z.name FROM pg_timezone_names AS z
                                      WHERE lower(z.name) = lower(time_zone)
                                        AND z.name <> ALL ('{localtime,posixrules,Factory}')
                                      ORDER BY z.name <> time_zone LIMIT 1) END;
    first_day CONSTANT integer := array_position(
        ARRAY['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'], lower(week_start));
    before gold_storage.reporting;
BEGIN
    IF time_zone IS NOT NULL AND zone IS NULL THEN
        RAISE EXCEPTION 'time_zone % does not exist', quote_literal(time_zone)
            USING ERRCODE = '22023', HINT = 'Name a place, which knows its changes of clocks, not an abbreviation or '
                'an offset: SELECT name FROM pg_timezone_names WHERE name ILIKE ''%vienna%'' finds one.';
    ELSIF week_start IS NOT NULL AND first_day IS NULL THEN
        RAISE EXCEPTION 'week_start must be the name of a weekday, got %', quote_literal(week_start)
            USING ERRCODE = '22023', HINT = 'monday, sunday or saturday, say.';
    ELSIF fiscal_month NOT BETWEEN 1 AND 12 THEN
        RAISE EXCEPTION 'fiscal_month must be 1 to 12, got %', fiscal_month
            USING ERRCODE = '22023', HINT = '1 is January.';
    ELSIF currency !~ '^([A-Z]{3})?$' THEN
        RAISE EXCEPTION 'currency must be an ISO 4217 code, got %', quote_literal(currency)
            USING ERRCODE = '22023', HINT = 'EUR, say; an empty text for none.';
    END IF;
    SELECT r.* INTO STRICT before FROM gold_storage.reporting AS r FOR UPDATE;
    UPDATE gold_storage.reporting AS r
       SET time_zone = COALESCE(zone, r.time_zone), week_start = COALESCE(first_day, r.week_start),
           fiscal_month = COALESCE(set_reporting.fiscal_month, r.fiscal_month),
           currency = nullif(COALESCE(set_reporting.currency, r.currency), '');
    IF zone <> before.time_zone THEN
        UPDATE gold_storage.reporting AS r
           SET offsets = gold_storage.zone_offsets(zone), offsets_checked_at = now();
    END IF;
    PERFORM gold_storage.run_zoned();
    IF first_day <> before.week_start THEN
        REFRESH MATERIALIZED VIEW CONCURRENTLY gold_storage.retention_stored;
        REFRESH MATERIALIZED VIEW CONCURRENTLY gold_storage.lifecycle_stored;
    END IF;
    RETURN QUERY
    SELECT * FROM gold_storage.waiting();
END
$$;
COMMENT ON FUNCTION gold.set_reporting(text, text, integer, text) IS
    'Says in which time zone the days of gold begin and end (a name of pg_timezone_names), on which weekday weeks '
    'begin (monday), in which month fiscal years (1 to 12) and into which currency amounts are converted (an ISO 4217 '
    'code; an empty text for none); NULL leaves it as it is. For members of tidemark_admin. '
    'Another time zone makes all dates of the models dirty that have days: returns which wait, and how many dates of '
    'each. The next refresh computes them; until then tables and views of gold have old days beside new ones, and '
    'live views new ones only. 22023 for what is no time zone, weekday, month or currency.';
REVOKE EXECUTE ON FUNCTION gold.set_reporting(text, text, integer, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION gold.check_reporting() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known gold_storage.reporting;
    now_known jsonb;
    changed date[];
BEGIN
    SELECT r.* INTO STRICT known FROM gold_storage.reporting AS r;
    IF known.time_zone = 'UTC' OR known.offsets_checked_at > now() - interval '1 hour' THEN
        RETURN 0;
    END IF;
    now_known := gold_storage.zone_offsets(known.time_zone);
    IF now_known <> known.offsets THEN
        -- A change of offset shows at the beginning of the next UTC date.
        SELECT array_agg(d.day) INTO changed
          FROM (SELECT DISTINCT a.event_date + n AS day
                  FROM gold_storage.daily_activity AS a CROSS JOIN generate_series(-1, 1) AS n
                 WHERE a.grain = 'total') AS d
         WHERE EXISTS (SELECT FROM generate_series(0, 1) AS n
                        WHERE gold_storage.offset_on(known.offsets, d.day + n)
                              IS DISTINCT FROM gold_storage.offset_on(now_known, d.day + n))
           AND EXISTS (SELECT FROM silver.events AS e
                        WHERE e.event_time >= d.day::timestamp AT TIME ZONE 'UTC'
                          AND e.event_time < (d.day + 1)::timestamp AT TIME ZONE 'UTC');
        PERFORM tidemark.mark_dirty('silver.events', changed, 'another offset of ' || known.time_zone);
    END IF;
    UPDATE gold_storage.reporting AS r SET offsets = now_known, offsets_checked_at = now();
    -- An offset of the other sign reaches into other UTC dates.
    PERFORM gold_storage.run_zoned();
    RETURN COALESCE(cardinality(changed), 0);
END
$$;
COMMENT ON FUNCTION gold.check_reporting() IS
    'Marks the dates on which the time zone of reports means something else than when it was last looked up, as it '
    'may after an update of the operating system. Looks once an hour at most; called by tidemark maintain. Returns how '
    'many dates that are.';
REVOKE EXECUTE ON FUNCTION gold.check_reporting() FROM PUBLIC;
GRANT SELECT ON gold.reporting TO tidemark_reader;
