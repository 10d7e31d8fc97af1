-- What changes a timeline that is there: more properties, other slices, values that are forgotten. A change is one
-- transaction, in which a refresh passes the timeline over: until it commits, reports see what was there before, and
-- compute what waits, as ever. What is stored is put together again where that is enough: rows may have been retired.

CREATE FUNCTION tidemark_internal.timeline_to_change(caller oid, timeline text) RETURNS tidemark_internal.timelines
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t tidemark_internal.timelines;
    m tidemark_internal.models;
BEGIN
    SELECT * INTO t FROM tidemark_internal.timelines x WHERE x.name = timeline;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'timeline % does not exist', timeline
            USING ERRCODE = '42704', HINT = 'SELECT timeline FROM tidemark.timeline_status lists them.';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An older snapshot would miss what the refresh wrote that was waited for.
        RAISE EXCEPTION 'timelines are changed at the isolation level READ COMMITTED only' USING ERRCODE = '25001';
    END IF;
    SELECT * INTO m FROM tidemark_internal.models x WHERE x.name = timeline;
    PERFORM tidemark_internal.check_may_act_as(caller, m.target);
    -- Waits for whoever refreshes it.
    PERFORM FROM tidemark_internal.models x WHERE x.name = timeline FOR UPDATE;
    SELECT * INTO STRICT t FROM tidemark_internal.timelines x WHERE x.name = timeline;
    RETURN t;
END
$$;
COMMENT ON FUNCTION tidemark_internal.timeline_to_change(oid, text) IS
'A timeline, locked against refreshes and other changes. 42704: there is
none; 42501: the role has not the rights of its owner; 25001: the
transaction may see an older state.';

CREATE FUNCTION tidemark_internal.remake_timeline(timeline tidemark_internal.timelines, properties text[], bits integer)
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $$
#variable_conflict use_variable
DECLARE
    more CONSTANT integer := cardinality(properties) - cardinality(timeline.properties);
    parts CONSTANT text[] := parse_ident(timeline.name);
    beside CONSTANT text := format('%I.%I', parts[1], parts[2] || '_new_rows');
    m tidemark_internal.models;
    new tidemark_internal.timelines := timeline;
    day date;
    stored boolean;
    change record;
BEGIN
    SELECT * INTO STRICT m FROM tidemark_internal.models x WHERE x.name = timeline.name;
    new.properties := properties;
    new.bits := bits;
    IF more > 0 THEN
        -- Nobody waits for this one. The others are replaced at the end.
        PERFORM tidemark_internal.execute_as_owner(m.target, format('CREATE VIEW %s AS %s', beside,
                    tidemark_internal.timeline_rows(new, new.source, true)));
    END IF;
    FOREACH day IN ARRAY coalesce(tidemark_internal.read_as_owner(m.target, format(
        'SELECT array_agg(DISTINCT s.event_date ORDER BY s.event_date) FROM %s AS s WHERE s.property = 0',
        m.target))::date[], '{}')
    LOOP
        stored := more = 0 OR tidemark_internal.is_frozen(m.name, day);
        m.query := CASE WHEN stored THEN format(
            'SELECT e.event_date, e.property, e.slice, e.part, e.events, e.persons, e.data
               FROM tidemark_internal.timeline_merged(%L::pg_catalog.regclass, %s, %s, $1, 0, %s) AS e',
            m.target, cardinality(timeline.properties), bits, more)
            ELSE tidemark_internal.timeline_query(beside, new.codes::text, cardinality(properties), bits) END;
        change := tidemark_internal.refresh_date(m, day, NULL, NULL, NULL, NULL, NULL, false);
        UPDATE tidemark_internal.model_dates d
           SET rows = change.rows, seen = CASE WHEN stored THEN d.seen ELSE change.seen END
         WHERE d.model = m.name AND d.event_date = day;
    END LOOP;
    IF more > 0 THEN
        PERFORM tidemark_internal.execute_as_owner(m.target, format('DROP VIEW %s', beside)),
                tidemark_internal.execute_as_owner(m.target, format('CREATE OR REPLACE VIEW %s AS %s', new.row_view,
                    tidemark_internal.timeline_rows(new, new.source, true)));
        PERFORM tidemark_internal.execute_as_owner(m.target, format('CREATE OR REPLACE VIEW %s AS %s', new.live_rows,
                    tidemark_internal.timeline_rows(new, b.live_view, false)))
           FROM tidemark_internal.models b WHERE b.target = new.source AND new.live_rows <> new.row_view;
    END IF;
    UPDATE tidemark_internal.timelines t SET properties = new.properties, bits = new.bits WHERE t.name = new.name;
    UPDATE tidemark_internal.models x
       SET query = tidemark_internal.timeline_query(new.row_view::text, new.codes::text, cardinality(properties), bits)
     WHERE x.name = new.name;
END
$$;
COMMENT ON FUNCTION tidemark_internal.remake_timeline(tidemark_internal.timelines, text[], integer) IS
'The work behind tidemark.add_property and tidemark.rebuild_timeline: writes
what differs of all dates of a timeline, which has these properties, the old
ones first, and so many bits from now on. From rows if it has more
properties, which are NULL on frozen dates; otherwise from what is stored.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.remake_timeline(tidemark_internal.timelines, text[], integer) FROM PUBLIC;

CREATE FUNCTION tidemark.add_property(timeline text, property text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.add_property(text, text) IS
'Makes a timeline keep one more property of its events: a column, or a path
into a jsonb column, as in tidemark.create_timeline. Reads all events of its
dates once and writes their codes, in one transaction: reports answer as
before meanwhile, and tidemark.refresh passes the timeline over. Of dates
whose rows were retired the property is NULL. A property that it has already
is nothing to do. 42704: no such timeline; 42703: no such column; 42501: the
caller has not the rights of its owner, or the property is personal; 54000:
it would have more than 100.';

CREATE FUNCTION tidemark_internal.add_property(caller oid, timeline text, property text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t CONSTANT tidemark_internal.timelines := tidemark_internal.timeline_to_change(caller, timeline);
BEGIN
    IF NOT coalesce(property = ANY (t.properties), false) THEN
        PERFORM tidemark_internal.check_properties(t.source, t.event_type, t.properties || property),
                tidemark_internal.remake_timeline(t, t.properties || property, t.bits);
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.add_property(oid, text, text) IS
'The work behind tidemark.add_property.';

CREATE FUNCTION tidemark.rebuild_timeline(timeline text, slices integer) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.rebuild_timeline(text, integer) IS
'Divides the persons of a timeline into another number of slices, a power of
two up to 65536: more of them when dates have grown. Puts together what is
stored and reads no row of the source, so that dates whose rows were retired
take part; parts become slices. One transaction: reports answer as before
meanwhile, and tidemark.refresh passes the timeline over. 42704: no such
timeline; 42501: the caller has not the rights of its owner; 22023: not a
power of two.';

CREATE FUNCTION tidemark_internal.rebuild_timeline(caller oid, timeline text, slices integer) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bits CONSTANT integer := tidemark_internal.timeline_bits(slices);
    t CONSTANT tidemark_internal.timelines := tidemark_internal.timeline_to_change(caller, timeline);
BEGIN
    PERFORM tidemark_internal.remake_timeline(t, t.properties, bits);
END
$$;
COMMENT ON FUNCTION tidemark_internal.rebuild_timeline(oid, text, integer) IS
'The work behind tidemark.rebuild_timeline.';

CREATE FUNCTION tidemark_internal.timeline_used(target regclass, properties integer)
RETURNS TABLE (property smallint, code integer)
LANGUAGE c STABLE PARALLEL SAFE COST 1000000 ROWS 1000 AS 'MODULE_PATHNAME', 'tidemark_timeline_used';
COMMENT ON FUNCTION tidemark_internal.timeline_used(regclass, integer) IS
'The codes that stored events of a timeline have, of events (property 0) and
so many properties.';

CREATE FUNCTION tidemark.forget_values(timeline text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.forget_values(text) IS
'Blanks the texts in the dictionary of a timeline that no stored event has
any more, and says how many. That is the last step of erasing somebody,
after the deletion of rows, tidemark.mark_dirty and tidemark.refresh. What
dates that wait for a refresh still hold stays. VACUUM <name>_codes removes
the old rows from disk. Reads all slices once. 42704: no such timeline;
42501: the caller has not the rights of its owner.';

CREATE FUNCTION tidemark_internal.forget_values(caller oid, timeline text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t CONSTANT tidemark_internal.timelines := tidemark_internal.timeline_to_change(caller, timeline);
    target CONSTANT regclass := (SELECT m.target FROM tidemark_internal.models m WHERE m.name = t.name);
BEGIN
    RETURN tidemark_internal.execute_as_owner(target, format(
        'UPDATE %s AS c SET value = NULL
          WHERE c.value IS NOT NULL
            AND (c.property, c.code) NOT IN (SELECT u.property, u.code
                                               FROM tidemark_internal.timeline_used(%L, %s) AS u)',
        t.codes, target, cardinality(t.properties)))::bigint;
END
$$;
COMMENT ON FUNCTION tidemark_internal.forget_values(oid, text) IS
'The work behind tidemark.forget_values.';

CREATE FUNCTION tidemark.forget_statistics(relation regclass) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.forget_statistics(regclass) IS
'Deletes what Postgres has gathered of the values of a table: ANALYZE keeps
them where a table has become empty. For erasing somebody; ANALYZE the table
afterwards. 42501: the caller has not the rights of its owner; 42P01: there
is no such table.';

CREATE FUNCTION tidemark_internal.forget_statistics(caller oid, relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tidemark_internal.check_may_act_as(caller, relation);
    DELETE FROM pg_statistic s WHERE s.starelid = forget_statistics.relation;
    DELETE FROM pg_statistic_ext_data d USING pg_statistic_ext e
     WHERE e.oid = d.stxoid AND e.stxrelid = forget_statistics.relation;
END
$$;
COMMENT ON FUNCTION tidemark_internal.forget_statistics(oid, regclass) IS
'The work behind tidemark.forget_statistics.';

CREATE FUNCTION tidemark.declare_personal(source regclass, properties text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.declare_personal(regclass, text[]) IS
'Says which columns of source, or paths into its jsonb columns, are personal:
no timeline may keep these, what stands below them, or what contains them.
The list takes the place of the one before; an empty one allows all again.
42703: no such column; 55000: a timeline keeps one already; 42501: the
caller has not the rights of the owner of source.';

CREATE FUNCTION tidemark_internal.declare_personal(caller oid, source regclass, properties text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept record;
BEGIN
    PERFORM tidemark_internal.check_may_act_as(caller, source);
    IF properties IS NULL THEN
        RAISE EXCEPTION 'properties must not be NULL' USING ERRCODE = '22004', HINT = 'An empty list allows all again.';
    END IF;
    PERFORM tidemark_internal.timeline_expression(source, p) FROM unnest(properties) AS p;
    SELECT * INTO kept
      FROM (SELECT t.name, tidemark_internal.personal_among(t.properties || t.event_type::text,
                                                            declare_personal.properties) AS property
              FROM tidemark_internal.timelines t WHERE t.source = declare_personal.source) AS t
     WHERE t.property IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'timeline % keeps property %', kept.name, kept.property
            USING ERRCODE = '55000', HINT = format('SELECT tidemark.drop_timeline(%L) first, and create it again '
                'without.', kept.name);
    END IF;
    INSERT INTO tidemark_internal.personal AS p VALUES (source, properties)
    ON CONFLICT ON CONSTRAINT personal_pkey DO UPDATE SET properties = excluded.properties;
END
$$;
COMMENT ON FUNCTION tidemark_internal.declare_personal(oid, regclass, text[]) IS
'The work behind tidemark.declare_personal.';
