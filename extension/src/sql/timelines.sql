-- Timelines: models whose rows are slices, the events of some persons on one date, from which reports are answered
-- (reports.sql). Here: making and dropping them, and what is known of them; what changes one that is there is in
-- timeline_changes.sql. Implemented in timelines.rs.
--
-- What belongs to gold.timeline, all of it owned by whoever created it: the table of slices, gold.timeline_codes, the
-- texts of events and properties with their numbers, and gold.timeline_rows, the view of the source from which slices
-- are made. Whoever may read these three may ask for reports. Where the source is a model with a live view, they need
-- gold.timeline_live_rows, too, the same from there. How a date gains rows without being made anew is in parts.sql.

COMMENT ON TYPE tidemark.timeline IS
'The events of some persons on one date by person and time, or their codes of
one property; equal events give equal bytes. Text form: bytea hex. Not for
direct use: reports read it.';

CREATE TABLE tidemark_internal.timelines (
    name text PRIMARY KEY REFERENCES tidemark_internal.models ON DELETE CASCADE,
    source regclass NOT NULL,
    row_view regclass NOT NULL,
    live_rows regclass NOT NULL,
    codes regclass NOT NULL,
    person name NOT NULL,
    event_type name NOT NULL,
    event_time name NOT NULL,
    properties text[] NOT NULL,
    bits integer NOT NULL CHECK (bits BETWEEN 0 AND 16)
);
COMMENT ON TABLE tidemark_internal.timelines IS
'Registered timelines. Written by tidemark.create_timeline and tidemark.drop_timeline.';
COMMENT ON COLUMN tidemark_internal.timelines.name IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.timelines.source IS 'Table whose rows are its events.';
COMMENT ON COLUMN tidemark_internal.timelines.row_view IS
'View of the source: a row of text for each event, with the transaction that added it and where it is.';
COMMENT ON COLUMN tidemark_internal.timelines.live_rows IS
'The same view, or if the source is a model with a live view, one of that.';
COMMENT ON COLUMN tidemark_internal.timelines.codes IS 'Table of the texts of events and properties.';
COMMENT ON COLUMN tidemark_internal.timelines.person IS 'Column of the source that says whose event it is.';
COMMENT ON COLUMN tidemark_internal.timelines.event_type IS 'Column of the source with the name of the event.';
COMMENT ON COLUMN tidemark_internal.timelines.event_time IS 'Column of the source with its time.';
COMMENT ON COLUMN tidemark_internal.timelines.properties IS
'What else is kept of an event: a column, or a path into a jsonb column, column.field.';
COMMENT ON COLUMN tidemark_internal.timelines.bits IS 'So many first bits of a person''s hash tell slices apart.';
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.timelines', '');

CREATE FUNCTION tidemark_internal.timeline_encode(row_view regclass, codes regclass, properties integer, bits integer,
    from_date date, to_date date, part integer DEFAULT 0, added_by xid[] DEFAULT NULL, places tid[] DEFAULT NULL)
RETURNS TABLE (event_date date, property smallint, slice integer, part integer, events integer, persons integer,
               data tidemark.timeline)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 2000 AS 'MODULE_PATHNAME', 'tidemark_timeline_encode';
COMMENT ON FUNCTION tidemark_internal.timeline_encode(regclass, regclass, integer, integer, date, date, integer,
    xid[], tid[]) IS
'Part of a timeline''s query: the slices of the dates from from_date to
before to_date, made of the rows of its view, or of those that some
transactions added and that are at these places. Property 0 holds persons,
times and events; -1 and below are counts, by date and by slot for each of
these. part is what the rows say of themselves. Texts that have no code yet
get one, which is stored unless the model is only verified. Runs with the
rights of the caller.';

CREATE FUNCTION tidemark_internal.timeline_expression(source regclass, path text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns name[] := ARRAY(SELECT a.attname FROM pg_attribute a
                             WHERE a.attrelid = source AND a.attnum > 0 AND NOT a.attisdropped);
    head text := split_part(path, '.', 1);
BEGIN
    IF path IS NULL OR path = '' OR octet_length(path) > 63 THEN
        RAISE EXCEPTION 'a property must have a name of 1 to 63 bytes, got %', coalesce(quote_literal(path), 'NULL')
            USING ERRCODE = '22023';
    ELSIF path = ANY (columns) THEN
        RETURN format('CAST(s.%I AS text)', path);
    ELSIF head <> path AND EXISTS (SELECT FROM pg_attribute a
                                    WHERE a.attrelid = source AND a.attname = head
                                      AND a.atttypid = 'jsonb'::regtype) THEN
        RETURN format('(s.%I #>> %L)', head, string_to_array(substr(path, length(head) + 2), '.'));
    END IF;
    RAISE EXCEPTION '% has no column % and no jsonb column % for a path', source, quote_ident(path), quote_ident(head)
        USING ERRCODE = '42703', HINT = 'A property is a column, or a path into a jsonb column: properties.plan.';
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_expression(regclass, text) IS
'Part of tidemark.create_timeline: SQL that makes a text of a column, or of
what stands at a path of a jsonb column. 42703: there is neither.';

CREATE FUNCTION tidemark_internal.timeline_rows(timeline tidemark_internal.timelines, relation regclass,
    stored boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
-- Properties come last, so that the view can be replaced by one with more of them.
RETURN format('SELECT s.event_date, %s AS person, s.%I AS event_time, %s AS event_type, %s%s FROM %s AS s',
    tidemark_internal.timeline_expression(timeline.source, timeline.person), timeline.event_time,
    tidemark_internal.timeline_expression(timeline.source, timeline.event_type),
    CASE WHEN stored THEN 's.xmin AS added_by, s.ctid AS added_at'
                     ELSE 'NULL::pg_catalog.xid AS added_by, NULL::pg_catalog.tid AS added_at' END,
    (SELECT string_agg(format(', %s AS %I', tidemark_internal.timeline_expression(timeline.source, p), p), ''
                       ORDER BY n)
       FROM unnest(timeline.properties) WITH ORDINALITY AS x(p, n)), relation);
COMMENT ON FUNCTION tidemark_internal.timeline_rows(tidemark_internal.timelines, regclass, boolean) IS
'Part of tidemark.create_timeline: the query of a view of rows, from the
source of a timeline (stored: it is known which transaction added a row, and
where it is) or its live view.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.timeline_rows(tidemark_internal.timelines, regclass, boolean) FROM PUBLIC;

CREATE FUNCTION tidemark_internal.timeline_query(row_view text, codes text, properties integer, bits integer)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
RETURN tidemark_internal.rewrite_query(format(
    'SELECT e.event_date, e.property, e.slice, e.part, e.events, e.persons, e.data
       FROM tidemark_internal.timeline_encode(%L::pg_catalog.regclass, %L::pg_catalog.regclass, %s, %s, $1, $2) AS e',
    row_view, codes, properties, bits), NULL, NULL);
COMMENT ON FUNCTION tidemark_internal.timeline_query(text, text, integer, integer) IS
'Part of tidemark.create_timeline: the query of the model.';

CREATE FUNCTION tidemark_internal.timeline_bits(slices integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bits CONSTANT integer := CASE WHEN slices BETWEEN 1 AND 65536 THEN round(log(2, slices)) END;
BEGIN
    IF slices IS NULL OR slices IS DISTINCT FROM (1 << bits) THEN
        RAISE EXCEPTION 'slices must be a power of two, 1 to 65536, got %', coalesce(slices::text, 'NULL')
            USING ERRCODE = '22023';
    END IF;
    RETURN bits;
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_bits(integer) IS
'How many bits tell so many slices apart. 22023: not a power of two.';

CREATE TABLE tidemark_internal.personal (
    source regclass PRIMARY KEY,
    properties text[] NOT NULL
);
COMMENT ON TABLE tidemark_internal.personal IS 'What no timeline may keep. Written by tidemark.declare_personal.';
COMMENT ON COLUMN tidemark_internal.personal.source IS 'Table of events.';
COMMENT ON COLUMN tidemark_internal.personal.properties IS 'Columns, and paths into jsonb columns, that are personal.';
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.personal', '');

CREATE FUNCTION tidemark_internal.personal_among(properties text[], personal text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
RETURN (SELECT min(p) FROM unnest(properties) AS p, unnest(personal) AS x
         WHERE p = x OR starts_with(p, x || '.') OR starts_with(x, p || '.'));
COMMENT ON FUNCTION tidemark_internal.personal_among(text[], text[]) IS
'A property that is one of those that are personal, is part of one, or
contains one. NULL: none is.';

CREATE FUNCTION tidemark_internal.check_properties(source regclass, event_type name, properties text[]) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused text;
BEGIN
    IF cardinality(properties) > 100 THEN
        RAISE EXCEPTION 'a timeline has at most 100 properties, got %', cardinality(properties)
            USING ERRCODE = '54000';
    END IF;
    SELECT p INTO refused FROM unnest(properties || '{event_date,person,event_time,event_type,added_by,added_at}') AS p
     GROUP BY p HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'property % is named twice, or is a column that every timeline has', refused
            USING ERRCODE = '42701', HINT = 'These are event_date, person, event_time, event_type, added_by and '
                'added_at.';
    END IF;
    refused := tidemark_internal.personal_among(properties || event_type::text, (
        SELECT p.properties FROM tidemark_internal.personal p WHERE p.source = check_properties.source));
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'property % of % is personal', refused, source
            USING ERRCODE = '42501', HINT = 'Its values would stay in a dictionary. Give the source a column of fewer '
                'values made of it, or see tidemark.declare_personal.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_properties(regclass, name, text[]) IS
'Part of tidemark.create_timeline: raises an error for properties that a
timeline of source cannot have together (54000, 42701), or may not have
(42501).';

CREATE FUNCTION tidemark.create_timeline(name text, source regclass, person name DEFAULT 'person',
    properties text[] DEFAULT '{}', event_type name DEFAULT 'event_type', event_time name DEFAULT 'event_time',
    slices integer DEFAULT 512) RETURNS regclass
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.create_timeline(text, regclass, name, text[], name, name, integer) IS
'Makes a timeline: a model, kept up to date by tidemark.refresh, that holds
the events of source by person and time, 6 to 10 bytes each, and answers
funnel_report, session_report, retention_report and trend from them. name:
schema.table of its table; <name>_codes and <name>_rows are created beside
it, and whoever may read these three may ask. source needs a column
event_date, the UTC date of event_time. properties: columns, or paths into a
jsonb column (properties.plan), that filters and breakdowns may use; at most
100, of at most 1048576 values each. Events without a person are left out.
slices: a power of two up to 65536, so that a slice of a date has about
1000 events. Calling it again does nothing; another definition is an
error (55000): drop it first.';

CREATE FUNCTION tidemark_internal.create_timeline(caller oid, name text, source regclass, person name,
    properties text[], event_type name, event_time name, slices integer) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $$
#variable_conflict use_variable
DECLARE
    parts text[];
    old tidemark_internal.timelines;
    new tidemark_internal.timelines;
    bits integer;
    step text;
    code_table text;
    row_view text;
    live_view regclass := (SELECT m.live_view FROM tidemark_internal.models m WHERE m.target = source);
    live_rows text;
BEGIN
    IF name IS NULL OR source IS NULL OR person IS NULL OR properties IS NULL OR event_type IS NULL
       OR event_time IS NULL THEN
        RAISE EXCEPTION 'arguments of create_timeline must not be NULL' USING ERRCODE = '22004';
    END IF;
    bits := tidemark_internal.timeline_bits(slices);
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = source AND c.relkind NOT IN ('r', 'p', 'f')) THEN
        RAISE EXCEPTION 'source % is not a table', source USING ERRCODE = '42809';
    END IF;
    PERFORM tidemark_internal.check_properties(source, event_type, properties);
    parts := parse_ident(name);
    IF cardinality(parts) <> 2 THEN
        RAISE EXCEPTION 'name must be schema.table, got %', name USING ERRCODE = '22023';
    ELSIF octet_length(parts[2]) > 53 THEN
        RAISE EXCEPTION 'name % is too long for a timeline', name
            USING ERRCODE = '42622', HINT = 'With _live_rows behind it, the name must not exceed 63 bytes.';
    END IF;
    name := format('%I.%I', parts[1], parts[2]);
    SELECT * INTO old FROM tidemark_internal.timelines t WHERE t.name = create_timeline.name;
    IF FOUND THEN
        IF (old.source, old.person, old.properties, old.event_type, old.event_time, old.bits)
           IS DISTINCT FROM (source, person, properties, event_type, event_time, bits) THEN
            RAISE EXCEPTION 'timeline % exists with another definition', name
                USING ERRCODE = '55000', HINT = format('SELECT tidemark.drop_timeline(%L) first.', name);
        END IF;
        PERFORM tidemark_internal.check_may_act_as(caller, name::regclass);
        RETURN name::regclass;
    END IF;
    code_table := format('%I.%I', parts[1], parts[2] || '_codes');
    row_view := format('%I.%I', parts[1], parts[2] || '_rows');
    live_rows := CASE WHEN live_view IS NULL THEN row_view ELSE format('%I.%I', parts[1], parts[2] || '_live_rows') END;
    SELECT name, source, 0, 0, 0, person, event_type, event_time, properties, bits INTO new;
    FOREACH step IN ARRAY ARRAY[
        format('CREATE TABLE %s (event_date date NOT NULL, property smallint NOT NULL, slice integer NOT NULL,
                                 part integer NOT NULL, events integer NOT NULL, persons integer NOT NULL,
                                 data tidemark.timeline NOT NULL,
                                 PRIMARY KEY (slice, event_date, property, part))
                            WITH (toast_tuple_target = 8160)', name),
        -- Codes and hashes hardly shrink, and compressed they could not be read where they lie.
        format('ALTER TABLE %s ALTER COLUMN data SET STORAGE EXTERNAL', name),
        -- For a refresh.
        format('CREATE INDEX ON %s (event_date, property) INCLUDE (part, events)', name),
        -- NULL is a value that was forgotten. Of none must statistics tell.
        format('CREATE TABLE %s (property smallint NOT NULL, code integer NOT NULL, value text,
                                 PRIMARY KEY (property, code))', code_table),
        format('ALTER TABLE %s ALTER COLUMN value SET STATISTICS 0', code_table),
        format('CREATE VIEW %s AS %s', row_view, tidemark_internal.timeline_rows(new, source, true)),
        format('COMMENT ON TABLE %s IS %L', name, format('Timeline of %s: slices of events, read by '
               'tidemark.funnel_report and the other reports.', source)),
        format('COMMENT ON TABLE %s IS %L', code_table, format('Texts of events (property 0) and properties of '
               'timeline %s, with their codes.', name)),
        format('COMMENT ON VIEW %s IS %L', row_view, format('Rows of %s as timeline %s keeps them.', source, name))]
    LOOP
        PERFORM tidemark_internal.execute_as(caller, step);
    END LOOP;
    IF live_view IS NOT NULL THEN
        PERFORM tidemark_internal.execute_as(caller, format('CREATE VIEW %s AS %s', live_rows,
                    tidemark_internal.timeline_rows(new, live_view, false))),
                tidemark_internal.execute_as(caller, format('COMMENT ON VIEW %s IS %L', live_rows, format(
                    'Rows of %s as timeline %s keeps them.', live_view, name)));
    END IF;
    PERFORM tidemark_internal.create_model(caller, name, ARRAY[source],
        tidemark_internal.timeline_query(row_view, code_table, cardinality(properties), bits),
        '{slice,event_date,property,part}', 0, 0, false, NULL, NULL, NULL);
    INSERT INTO tidemark_internal.timelines
    VALUES (name, source, row_view::regclass, live_rows::regclass, code_table::regclass, person, event_type, event_time,
            properties, bits);
    -- Marks of persons are by this column; the table itself has none of persons.
    UPDATE tidemark_internal.models m SET scope_source = person WHERE m.name = create_timeline.name;
    PERFORM tidemark_internal.note_ways(name);
    RETURN name::regclass;
END
$$;
COMMENT ON FUNCTION tidemark_internal.create_timeline(oid, text, regclass, name, text[], name, name, integer) IS
'The work behind tidemark.create_timeline.';

CREATE FUNCTION tidemark.drop_timeline(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 10000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.drop_timeline(text) IS
'Drops a timeline with its table, its codes and its view. 42704: no such
timeline; 42501: the caller has not the rights of the role that owns it.';

CREATE FUNCTION tidemark_internal.drop_timeline(caller oid, name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old tidemark_internal.timelines;
BEGIN
    SELECT * INTO old FROM tidemark_internal.timelines t WHERE t.name = drop_timeline.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'timeline % does not exist', name
            USING ERRCODE = '42704', HINT = 'SELECT timeline FROM tidemark.timeline_status lists them.';
    END IF;
    PERFORM tidemark_internal.drop_model(caller, name, true);
    PERFORM tidemark_internal.execute_as(caller, format('DROP VIEW IF EXISTS %s', c.oid::regclass))
       FROM pg_class c WHERE c.oid IN (old.row_view, old.live_rows);
    PERFORM tidemark_internal.execute_as(caller, format('DROP TABLE IF EXISTS %s', c.oid::regclass))
       FROM pg_class c WHERE c.oid = old.codes;
END
$$;
COMMENT ON FUNCTION tidemark_internal.drop_timeline(oid, text) IS
'The work behind tidemark.drop_timeline.';

CREATE FUNCTION tidemark_internal.timeline_definition(source oid, from_date date, to_date date)
RETURNS TABLE (name text, target regclass, row_view regclass, live_rows regclass, codes regclass, bits integer,
               properties text[], stale integer[], gained text[], events regclass)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER COST 1000 ROWS 1
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan  -- also of what is called here: to plan it five times is longer than all else
AS $$
#variable_conflict use_column
DECLARE
    found text[] := ARRAY(SELECT t.name FROM tidemark_internal.timelines t
                            JOIN tidemark_internal.models m ON m.name = t.name
                           WHERE t.source = timeline_definition.source OR m.target = timeline_definition.source
                           ORDER BY 1);
    waiting datemultirange;
    dates date[] := '{}';
    below date[];
    gained text[] := '{}';
BEGIN
    IF cardinality(found) > 1 THEN
        RAISE EXCEPTION '% has more than one timeline', timeline_definition.source::regclass
            USING ERRCODE = '42725', HINT = format('Name the one that is meant: %s.', array_to_string(found, ', '));
    ELSIF found = '{}' THEN
        RETURN;
    END IF;
    -- Nothing that would be planned each time, as the body of an SQL function is, where nothing waits.
    waiting := (SELECT (w.whole + w.partly) * datemultirange(daterange(from_date, to_date))
                  FROM tidemark_internal.waiting(found[1], 'rows') w);
    IF NOT isempty(waiting) THEN
        dates := tidemark_internal.each_date(waiting);
        below := (SELECT tidemark.stale_dates(m.name) FROM tidemark_internal.timelines t
                    JOIN tidemark_internal.models m ON m.target = t.source WHERE t.name = found[1]);
        -- Where the table below is as it will be, and all marks say that it only gained rows.
        gained := ARRAY(
            SELECT CASE WHEN 'append' = ANY (m.ways) AND NOT d = ANY (coalesce(below, '{}'))
                         AND NOT EXISTS (SELECT FROM tidemark_internal.model_dirty x
                                          WHERE x.model = t.name AND x.added_by IS NULL
                                            AND coalesce(x.event_date, d) = d)
                         AND NOT EXISTS (SELECT FROM tidemark_internal.dirty_log l
                                          WHERE l.source = t.source AND coalesce(l.event_date, d) = d
                                            AND (l.added_by IS NULL OR l.passed IS NOT NULL))
                        THEN tidemark_internal.not_seen(tidemark_internal.waiting_additions(t.name, d),
                                                        tidemark_internal.seen(t.name, d))::text END
              FROM tidemark_internal.timelines t JOIN tidemark_internal.models m ON m.name = t.name
             CROSS JOIN unnest(dates) WITH ORDINALITY AS w(d, n) WHERE t.name = found[1] ORDER BY n);
    END IF;
    RETURN QUERY
    SELECT t.name, m.target, t.row_view, t.live_rows, t.codes, t.bits, t.properties,
           ARRAY(SELECT d - '2000-01-01'::date FROM unnest(dates) AS d), gained, t.source
      FROM tidemark_internal.timelines t JOIN tidemark_internal.models m ON m.name = t.name
     WHERE t.name = found[1];
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_definition(oid, date, date) IS
'Part of the reports: what a table''s timeline is, or the timeline that is
this table, and which of the dates from from_date to before to_date wait for
a refresh (days since 2000-01-01). gained: of those that only gained rows,
the transactions that added what is not stored; NULL for the others. No rows
without a timeline; 42725: there are several.';

CREATE VIEW tidemark.timeline_status AS
SELECT t.name AS timeline, t.source, t.properties, 1 << t.bits AS slices, s.dirty_dates, s.oldest_dirty_date,
       s.last_refreshed_at, s.last_error,
       tidemark_internal.bytes(s.target) AS bytes
  FROM tidemark_internal.timelines t JOIN tidemark.model_status s ON s.model = t.name;
GRANT SELECT ON tidemark.timeline_status TO PUBLIC;
COMMENT ON VIEW tidemark.timeline_status IS
'One row per timeline: what it is made of, how large it is and what waits for a refresh.';
COMMENT ON COLUMN tidemark.timeline_status.timeline IS 'Name of the timeline (schema.table), and of the model it is.';
COMMENT ON COLUMN tidemark.timeline_status.source IS 'Table whose rows are its events.';
COMMENT ON COLUMN tidemark.timeline_status.properties IS 'What filters and breakdowns may name beside event_type.';
COMMENT ON COLUMN tidemark.timeline_status.slices IS 'Into how many slices the persons of a date are divided.';
COMMENT ON COLUMN tidemark.timeline_status.dirty_dates IS
'How many dates wait for a refresh: a report makes these from rows, which takes longer and is as exact.';
COMMENT ON COLUMN tidemark.timeline_status.oldest_dirty_date IS 'The earliest of them; NULL when none waits.';
COMMENT ON COLUMN tidemark.timeline_status.last_refreshed_at IS 'When a date was last recomputed; NULL if never.';
COMMENT ON COLUMN tidemark.timeline_status.last_error IS
'Date and message of the last failed recompute; NULL once that date succeeded. Whoever lacks the rights of the owner '
'of the table sees the SQLSTATE in place of the message.';
COMMENT ON COLUMN tidemark.timeline_status.bytes IS
'Its size on disk with indexes, in bytes, without its codes; NULL while somebody holds it locked.';
