-- Where everything goes: `tidemark` holds what users call, `tidemark_internal` what these call in turn: catalogs,
-- support functions of aggregates and types, the steps of refreshes and maintenance.

-- Both schemas are made here, so they are the extension's own: whoever had one before could have left functions in it
-- that internal calls would then find.
DO $$
DECLARE
    taken name := (SELECT n.nspname FROM pg_catalog.pg_namespace n
                    WHERE n.nspname IN ('tidemark', 'tidemark_internal') ORDER BY 1 LIMIT 1);
BEGIN
    IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'database "%" is encoded in %, tidemark needs UTF8', pg_catalog.current_database(),
            pg_catalog.getdatabaseencoding()
            USING ERRCODE = '0A000',
                  HINT = 'Texts are hashed and compared as UTF-8. CREATE DATABASE ... ENCODING ''UTF8''.';
    ELSIF taken IS NOT NULL THEN
        RAISE EXCEPTION 'schema % exists already', taken
            USING ERRCODE = '42P06',
                  HINT = 'tidemark makes this schema itself. Look at what is in it, then rename or drop it.';
    END IF;
END
$$;

CREATE SCHEMA tidemark;
COMMENT ON SCHEMA tidemark IS
'Functions, types and aggregates of the tidemark extension: sessions, funnels, distinct counts, partitions, models.';
CREATE SCHEMA tidemark_internal;
COMMENT ON SCHEMA tidemark_internal IS
'Catalogs and support functions of the tidemark extension; what to call stands in schema tidemark.';

-- USAGE without CREATE: everybody may call the functions, nobody may squat names beside them.
GRANT USAGE ON SCHEMA tidemark, tidemark_internal TO PUBLIC;

CREATE FUNCTION tidemark.date_start(day date, time_zone text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT CASE WHEN t.first AT TIME ZONE time_zone = day::timestamp THEN least(t.first, t.last)
                    ELSE t.last END
          -- Of a midnight that comes twice AT TIME ZONE takes the second; the first is by the offset of the day before.
          FROM (SELECT l.last, (day::timestamp - ((l.last - interval '1 day') AT TIME ZONE time_zone
                                                  - (l.last - interval '1 day') AT TIME ZONE 'UTC'))
                               AT TIME ZONE 'UTC' AS first
                  FROM (SELECT day::timestamp AT TIME ZONE time_zone AS last) AS l) AS t);
COMMENT ON FUNCTION tidemark.date_start(date, text) IS
'When a date begins in a time zone: at its midnight, the first of them where
clocks are put back over it, the moment after where it is skipped. A date
ends when the next one begins, after 23 or 25 hours, say. Immutable as
AT TIME ZONE is: by the time zones that the server knows. NULL for NULL;
22023 for an unknown time zone, 22008 for an infinite date.';
