-- Which dates of a model are stale, frozen or needed, from the marks that the calling query sees; and the view that
-- says how each model stands. They run as the extension's owner and read catalogs; only stale_dates, and so live views,
-- read users' tables for marks that name no date, as the owner of the model, and hence by the leader of a parallel plan
-- only. Live views ask once, before a plan's workers begin, so that the rest of the plan may be parallel. For the same
-- reason none of them may catch an error, which is not possible before PostgreSQL 17 while a parallel plan runs.

CREATE FUNCTION tidemark_internal.is_frozen(model text, event_date date) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 50
SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.model_sources s ON s.model = m.name
                 JOIN tidemark_internal.retired_dates r ON r.parent = s.source
                WHERE m.name = is_frozen.model
                  AND r.event_date BETWEEN is_frozen.event_date - m.lookback_days
                                       AND is_frozen.event_date + m.lookahead_days)
    OR EXISTS (SELECT FROM tidemark_internal.models m
                 JOIN tidemark_internal.retired_dates r ON r.parent = m.target
                WHERE m.name = is_frozen.model AND r.event_date = is_frozen.event_date);
COMMENT ON FUNCTION tidemark_internal.is_frozen(text, date) IS
'Whether a date of a model is frozen: one of the source dates that it reads
was retired, or the date of the model''s own table was. A frozen date is
never recomputed: its rows stay as they are. false for an unknown model.';

CREATE FUNCTION tidemark_internal.known_ids(ids text[], ids_type text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT numeric := CASE ids_type WHEN 'integer[]' THEN 2147483647 ELSE 9223372036854775807 END;
BEGIN
    -- Not by trying a cast: before PostgreSQL 17 an error cannot be caught while a parallel plan runs.
    RETURN CASE WHEN ids_type IN ('text[]', 'character varying[]') OR NOT EXISTS (
        SELECT FROM unnest(ids) AS x
         WHERE NOT CASE WHEN ids_type = 'uuid[]' THEN x ~ '^([0-9A-Fa-f]{4}-?){7}[0-9A-Fa-f]{4}$'
                        WHEN x ~ '^-?[0-9]{1,19}$' THEN x::numeric BETWEEN -most - 1 AND most
                        ELSE false END) THEN ids END;
END
$$;
COMMENT ON FUNCTION tidemark_internal.known_ids(text[], text) IS
'These ids, if all are values of a type of tidemark_internal.ids_type in the
way that it is usually written; NULL, so anybody, otherwise and for NULL. A
mark may be older than the model or the type of its column.';

CREATE FUNCTION tidemark_internal.dates_with_rows(model text, persons text[]) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m tidemark_internal.models;
    source regclass;
    ids_type text;
    ids text[];
    there date[];
    dates date[] := '{}';
BEGIN
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = dates_with_rows.model;
    ids_type := tidemark_internal.ids_type(m);
    ids := tidemark_internal.known_ids(persons, ids_type);
    FOR source IN
        SELECT s.source FROM tidemark_internal.model_sources s JOIN pg_class c ON c.oid = s.source
         WHERE s.model = m.name
    LOOP
        -- By itself: below unnest, the planner would call it, too.
        there := tidemark_internal.source_dates(m.target, source, ids, m.scope_source, ids_type);
        dates := dates || ARRAY(SELECT d + shift FROM unnest(there) AS d,
                                       generate_series(-m.lookahead_days, m.lookback_days) AS shift);
    END LOOP;
    dates := dates || tidemark_internal.source_dates(m.target, m.target, ids, m.scope, ids_type);
    RETURN ARRAY(SELECT DISTINCT d FROM unnest(dates) AS d);
END
$$;
COMMENT ON FUNCTION tidemark_internal.dates_with_rows(text, text[]) IS
'The dates of a model that its sources and its table hold rows for, as seen
by the calling query: of anybody, or of these persons. Read as the owner of
its table.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.dates_with_rows(text, text[]) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.undated(m tidemark_internal.models, persons text[], how text)
RETURNS datemultirange
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE how
        WHEN 'any' THEN '{(,)}'
        WHEN 'refreshed' THEN (SELECT range_agg(daterange(d.event_date, d.event_date, '[]'))
                                 FROM tidemark_internal.model_dates d WHERE d.model = m.name)
        ELSE (SELECT range_agg(daterange(d, d, '[]'))
                FROM unnest(tidemark_internal.dates_with_rows(m.name, persons)) AS d) END;
END
$$;
COMMENT ON FUNCTION tidemark_internal.undated(tidemark_internal.models, text[], text) IS
'Part of tidemark_internal.waiting: the dates that a mark without one is
about, for a model. how: rows looks where these persons, NULL for all, have
rows; refreshed takes all dates that were ever refreshed, and any no bounds
at all: both read catalogs only. NULL where there are none.';

CREATE FUNCTION tidemark_internal.waiting(model text, how text, OUT whole datemultirange, OUT partly datemultirange,
    OUT frozen datemultirange, OUT oldest timestamptz)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp
SET jit = off  -- the estimates of a recursive query are so high that compiling it would take a second
AS $$
#variable_conflict use_column
DECLARE
    m tidemark_internal.models;
    cold datemultirange;
    every datemultirange := '{}';
    -- Of the models before: their names, their stale dates, and since when.
    names text[] := '{}';
    stale datemultirange[] := '{}';
    since timestamptz[] := '{}';
BEGIN
    whole := '{}';
    cold := '{}';
    -- The model, and before it those that it reads, directly or through others: each is looked at once, however many
    -- ways lead to it. Ranges, not dates: a mark may be widened by years. plpgsql keeps the plans, which take longer to
    -- make than to run: live views ask several times per query.
    FOR m IN
        WITH RECURSIVE below(name) AS (
            SELECT x.name FROM tidemark_internal.models x WHERE x.name = waiting.model
            UNION
            SELECT a.name
              FROM below b
              JOIN tidemark_internal.model_sources s ON s.model = b.name
              JOIN tidemark_internal.models a ON a.target = s.source)
        SELECT x.*
          FROM tidemark_internal.models_in_order() WITH ORDINALITY AS o(name, n)
          JOIN tidemark_internal.models x ON x.name = o.name
         WHERE o.name IN (SELECT b.name FROM below b)
         ORDER BY o.n
    LOOP
        -- See tidemark_internal.is_frozen.
        SELECT coalesce(range_agg(x.dates), '{}') INTO cold
          FROM (SELECT daterange(r.event_date - m.lookahead_days, r.event_date + m.lookback_days, '[]')
                  FROM tidemark_internal.model_sources s
                  JOIN tidemark_internal.retired_dates r ON r.parent = s.source
                 WHERE s.model = m.name
                UNION ALL
                SELECT daterange(r.event_date, r.event_date, '[]')
                  FROM tidemark_internal.retired_dates r WHERE r.parent = m.target) AS x(dates);
        SELECT coalesce(range_agg(x.dates) FILTER (WHERE NOT x.partly), '{}'), coalesce(range_agg(x.dates), '{}'),
               min(x.marked_at) FILTER (WHERE NOT x.dates <@ cold)
          INTO whole, every, oldest
          FROM (SELECT CASE WHEN d.event_date IS NULL THEN tidemark_internal.undated(m, k.ids, how)
                            ELSE datemultirange(daterange(d.event_date, d.event_date, '[]')) END, d.marked_at,
                       k.ids IS NOT NULL
                  FROM tidemark_internal.model_dirty d
                 CROSS JOIN LATERAL (SELECT CASE WHEN how = 'rows' AND d.persons IS NOT NULL THEN
                       tidemark_internal.known_ids(d.persons, tidemark_internal.ids_type(m)) END OFFSET 0) AS k(ids)
                 WHERE d.model = m.name
                UNION ALL
                SELECT CASE WHEN l.event_date IS NULL THEN tidemark_internal.undated(m, k.ids, how)
                            ELSE datemultirange(daterange(l.event_date - m.lookahead_days,
                                                          l.event_date + m.lookback_days, '[]')) END, l.marked_at,
                       k.ids IS NOT NULL
                  FROM tidemark_internal.model_sources s
                  JOIN tidemark_internal.dirty_log l ON l.source = s.source
                                                    AND (l.changed = ANY (s.columns)) IS NOT FALSE
                 CROSS JOIN LATERAL (SELECT CASE WHEN how = 'rows' AND l.persons IS NOT NULL AND l.passed IS NULL
                                                  AND coalesce(l.person_column, m.scope_source) = m.scope_source THEN
                       tidemark_internal.known_ids(l.persons, tidemark_internal.ids_type(m)) END OFFSET 0) AS k(ids)
                 -- A mark that could not be passed on, or would not be, must not make views fail.
                 WHERE s.model = m.name AND l.set_aside IS NULL
                   AND (l.event_date IS NULL OR l.event_date BETWEEN '0001-01-01' AND '9999-12-31')
                   AND (l.passed IS NULL OR NOT pg_visible_in_snapshot(m.defined_by, l.passed))
                UNION ALL
                -- What is stale below is stale here. Without bounds it remains so.
                SELECT datemultirange(daterange(lower(r) - m.lookahead_days, upper(r) - 1 + m.lookback_days, '[]')),
                       u.since, false
                  FROM unnest(names, stale, since) AS u(name, dates, since)
                  JOIN tidemark_internal.models a ON a.name = u.name
                  JOIN tidemark_internal.model_sources s ON s.source = a.target
                 CROSS JOIN LATERAL unnest(u.dates) AS r
                 WHERE s.model = m.name) AS x(dates, marked_at, partly);
        names := array_append(names, m.name);
        -- Except where it will stay as it is.
        stale := array_append(stale, every - cold);
        since := array_append(since, oldest);
    END LOOP;
    partly := every - whole - cold;
    frozen := every * cold;
    whole := whole - cold;
END
$$;
COMMENT ON FUNCTION tidemark_internal.waiting(text, text) IS
'The dates of a model that the marks visible to the calling query make stale,
marks on the models below it included. whole: for all of their rows; partly:
for rows of some persons only; frozen: those that stay as they are; no date
is in two of these. oldest: the oldest mark on a date that is not frozen.
how says what a mark without a date is about, see
tidemark_internal.undated; with any, ranges may be without bounds. Empty for
an unknown model.';

CREATE FUNCTION tidemark_internal.each_date(dates datemultirange) RETURNS date[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT lower(r) + n FROM unnest(dates) AS r, generate_series(0, upper(r) - lower(r) - 1) AS n ORDER BY 1);
COMMENT ON FUNCTION tidemark_internal.each_date(datemultirange) IS
'The dates in these ranges, ascending; empty for none and for NULL. Ranges
without bounds hold none.';

CREATE FUNCTION tidemark.stale_dates(model text) RETURNS date[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = stale_dates.model) THEN
        RAISE EXCEPTION 'model % does not exist', model
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    END IF;
    RETURN (SELECT tidemark_internal.each_date(w.whole + w.partly) FROM tidemark_internal.waiting(model, 'rows') w);
END
$$;
COMMENT ON FUNCTION tidemark.stale_dates(text) IS
'The dates on which the stored rows of a model may differ from what its query
would return, as seen by the calling query: those with marks, those that
read a stale date of another model; frozen dates are not among them.
Ascending; empty when the model is clean. Live views compute exactly these
dates. 42704 for an unknown model.';

CREATE FUNCTION tidemark_internal.stale_dates(model text, partly boolean) RETURNS date[]
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp
RETURN (SELECT tidemark_internal.each_date(CASE WHEN stale_dates.partly THEN w.partly ELSE w.whole END)
          FROM tidemark_internal.waiting(model, 'rows') w);
COMMENT ON FUNCTION tidemark_internal.stale_dates(text, boolean) IS
'Part of live views: those of tidemark.stale_dates on which only rows of some
persons are stale, or the others.';

CREATE FUNCTION tidemark_internal.date_blockers(source regclass, event_date date)
RETURNS TABLE (model text, model_date date, reason text)
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH readers AS (
        SELECT m.name, m.lookback_days, m.lookahead_days, m.last_refreshed_at
          FROM tidemark_internal.model_sources s
          JOIN tidemark_internal.models m ON m.name = s.model
          JOIN pg_class c ON c.oid = m.target  -- a model whose table is gone needs nothing
         WHERE s.source = date_blockers.source
           -- Nor does one whose owner may not read the source: it cannot be computed, and must not hold up others.
           AND tidemark_internal.may_read(c.relowner, s.source))
    SELECT r.name, d, 'waits for a recompute'
      FROM readers r
     CROSS JOIN LATERAL tidemark_internal.waiting(r.name, 'any') w
     CROSS JOIN LATERAL unnest(tidemark_internal.each_date((w.whole + w.partly) * datemultirange(daterange(
           date_blockers.event_date - r.lookahead_days, date_blockers.event_date + r.lookback_days, '[]')))) AS d
    UNION ALL
    SELECT r.name, date_blockers.event_date, 'the model was never refreshed'
      FROM readers r WHERE r.last_refreshed_at IS NULL
    UNION ALL
    SELECT r.name, date_blockers.event_date + r.lookback_days, 'the date is not over yet'
      FROM readers r
     WHERE date_blockers.event_date + r.lookback_days >= (now() AT TIME ZONE 'UTC')::date
    ORDER BY 1, 2, 3;
END;
COMMENT ON FUNCTION tidemark_internal.date_blockers(regclass, date) IS
'Why a date of a table must not be retired yet, one row per reason; no rows:
nothing stands in the way. A reason is a model that reads the table and has
a date that needs this one: that date waits for a recompute, or the model
was never refreshed, or the last date that reads this one is not over yet
(UTC). A mark without a date blocks all of them. Frozen dates block nothing,
and neither does a model whose owner may not read the table.';

CREATE VIEW tidemark.model_status AS
SELECT m.name AS model,
       m.target,
       m.live_view,
       w.dirty_dates,
       w.oldest_dirty_date,
       w.newest_dirty_date,
       w.frozen_dirty_dates,
       m.refresh_count,
       m.change_count,
       m.scope,
       m.ways,
       m.other_ways,
       m.last_refreshed_at,
       COALESCE(EXTRACT(epoch FROM pg_catalog.now() - w.dirty_since),
                CASE WHEN m.last_refreshed_at IS NOT NULL THEN 0 END)::numeric(20, 3) AS freshness_seconds,
       CASE WHEN m.failed_at IS NOT NULL
            THEN pg_catalog.concat(pg_catalog.to_char(m.failed_date::timestamp, 'YYYY-MM-DD: '),
                                   CASE WHEN tidemark_internal.may_see(m.target)
                                        THEN m.failed_message ELSE m.failed_code END) END AS last_error,
       m.failed_at AS last_error_at,
       ARRAY(SELECT s.source_name FROM tidemark_internal.model_sources s
              WHERE s.model = m.name AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.source)
              ORDER BY 1) AS missing_sources,
       ARRAY(SELECT s.source_name FROM tidemark_internal.model_sources s
              WHERE s.model = m.name ORDER BY 1) AS sources,
       CASE WHEN tidemark_internal.may_see(m.target) THEN m.query END AS query
  FROM tidemark_internal.models m
  -- LEFT: who does not ask for dates does not pay for them. Of whatever a mark without a date is about, all that was
  -- ever refreshed counts: nobody's tables are read, so nobody's policies, functions and locks are met.
  LEFT JOIN LATERAL (
       SELECT s.dirty_dates, s.oldest_dirty_date, s.newest_dirty_date, f.frozen_dirty_dates, d.oldest AS dirty_since
         FROM tidemark_internal.waiting(m.name, 'refreshed') d
        CROSS JOIN LATERAL (
              SELECT COALESCE(pg_catalog.sum(pg_catalog.upper(r) - pg_catalog.lower(r)), 0) AS dirty_dates,
                     pg_catalog.min(pg_catalog.lower(r)) AS oldest_dirty_date,
                     pg_catalog.max(pg_catalog.upper(r)) - 1 AS newest_dirty_date
                FROM pg_catalog.unnest(d.whole + d.partly) AS r) AS s
        CROSS JOIN LATERAL (
              SELECT COALESCE(pg_catalog.sum(pg_catalog.upper(r) - pg_catalog.lower(r)), 0) AS frozen_dirty_dates
                FROM pg_catalog.unnest(d.frozen) AS r) AS f) AS w ON true;
GRANT SELECT ON tidemark.model_status TO PUBLIC;
COMMENT ON VIEW tidemark.model_status IS
'One row per model: what it is, what waits for a recompute and how it last went.';
COMMENT ON COLUMN tidemark.model_status.model IS 'Name of the model (schema.table).';
COMMENT ON COLUMN tidemark.model_status.target IS 'Table that holds its rows.';
COMMENT ON COLUMN tidemark.model_status.live_view IS 'View that is exact at any moment; NULL without one.';
COMMENT ON COLUMN tidemark.model_status.dirty_dates IS
'How many dates are stale and wait for a recompute: those of tidemark.stale_dates, where for a mark without a date all '
'that were ever refreshed count.';
COMMENT ON COLUMN tidemark.model_status.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.newest_dirty_date IS 'The latest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.model_status.frozen_dirty_dates IS
'How many dates have marks but stay as they are, because source dates that they read were retired.';
COMMENT ON COLUMN tidemark.model_status.refresh_count IS 'How many dates have been recomputed in all.';
COMMENT ON COLUMN tidemark.model_status.change_count IS 'How many of these recomputes changed rows.';
COMMENT ON COLUMN tidemark.model_status.scope IS
'Column by which persons may be computed without the others; NULL if none was given.';
COMMENT ON COLUMN tidemark.model_status.ways IS
'Ways in which a date may be refreshed: append, merge, scope, recompute. Which one was taken is in '
'tidemark.refresh_log.';
COMMENT ON COLUMN tidemark.model_status.other_ways IS 'Why not in the other ways; NULL if in all.';
COMMENT ON COLUMN tidemark.model_status.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN tidemark.model_status.freshness_seconds IS
'For how long the stored rows have been behind the sources: age of the oldest mark that waits, in seconds; 0 when '
'nothing waits, NULL when nothing waits and the model was never refreshed. Frozen dates do not count. The live view is '
'never behind.';
COMMENT ON COLUMN tidemark.model_status.last_error IS
'Date and message of the last failed recompute; NULL once that date succeeded. Whoever lacks the rights of the owner '
'of the table sees the SQLSTATE in place of the message, which may quote rows.';
COMMENT ON COLUMN tidemark.model_status.last_error_at IS 'When it failed; NULL while last_error is.';
COMMENT ON COLUMN tidemark.model_status.missing_sources IS
'Tables that the model reads and that were dropped, as schema.table: nothing that happens there is noticed. Empty when '
'all are there. A table created under the same name is taken over by the next refresh.';
COMMENT ON COLUMN tidemark.model_status.sources IS 'Tables that it reads, as schema.table.';
COMMENT ON COLUMN tidemark.model_status.query IS
'Its query; NULL for whoever lacks the rights of the owner of the table.';
