-- Erasure of a person: everything that carries one of some ids. Rows that say who somebody is go at once, in one
-- transaction; what is computed from them follows with the next refresh, which is told of these persons only.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION identity.mentions(content bytea, ids text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
SET search_path = pg_catalog, pg_temp
-- Whole texts only, between quotation marks, commas and the like: de is not in de-AT. As written, and as JSON is.
RETURN EXISTS (
    SELECT FROM unnest(ids) AS i(id)
     CROSS JOIN LATERAL (SELECT substr(to_json(i.id)::text, 2, length(to_json(i.id)::text) - 2)) AS j(word)
     CROSS JOIN LATERAL (
         SELECT string_agg(COALESCE(e.escaped, c.c), '' ORDER BY c.n),
                string_agg(COALESCE(replace(upper(e.escaped), '\U', '\u'), c.c), '' ORDER BY c.n)
           FROM regexp_split_to_table(j.word, '') WITH ORDINALITY AS c(c, n)
          CROSS JOIN LATERAL (
              SELECT CASE WHEN ascii(c.c) > 65535
                          THEN '\u' || to_hex(55296 + ((ascii(c.c) - 65536) >> 10))
                               || '\u' || to_hex(56320 + (ascii(c.c) - 65536) % 1024)
                          WHEN ascii(c.c) > 127 THEN '\u' || lpad(to_hex(ascii(c.c)), 4, '0') END) AS e(escaped)
         ) AS a(lower, upper)
     CROSS JOIN LATERAL (VALUES (i.id), (j.word), (a.lower), (a.upper)) AS w(word)
     WHERE position(convert_to(w.word, 'UTF8') IN content) > 0
       AND encode(content, 'escape') ~ (E'(^|[",;{}\\[\\]\\x01-\\x1f]) *'
               || regexp_replace(encode(convert_to(w.word, 'UTF8'), 'escape'), '([^[:alnum:]])', '\\\1', 'g')
               || E' *($|[",;{}\\[\\]\\x01-\\x1f\\\\])'));
COMMENT ON FUNCTION identity.mentions(bytea, text[]) IS
    'Whether bytes that nobody could read contain one of these ids as a whole text: all of them, or between quotation '
    'marks, commas, semicolons, brackets or control characters. NULL contains none.';
REVOKE EXECUTE ON FUNCTION identity.mentions(bytea, text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.events_of(ids text[])
RETURNS TABLE (event_date date, events uuid[], persons text[])
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    -- Events on their devices are also those of others who were logged in there.
    near CONSTANT text[] := ids || ARRAY(SELECT DISTINCT d.account FROM identity.device_days AS d
                                          WHERE d.anonymous_id = ANY (ids) AND d.account <> '');
    -- Dates of which it is not known who was there, or which are not in silver, not yet or not any more: all of their
    -- rows are looked at.
    unread CONSTANT date[] := COALESCE(tidemark.stale_dates('silver.events'), '{}')
        || COALESCE(tidemark.stale_dates('identity.device_days'), '{}')
        || ARRAY(SELECT r.event_date FROM tidemark.retired_dates AS r WHERE r.parent = 'silver.events'::regclass);
    day date;
BEGIN
    FOR day IN SELECT e.event_date FROM silver.events AS e WHERE e.person = ANY (near)
               UNION SELECT unnest(unread) ORDER BY 1 LOOP
        SELECT day, array_agg(DISTINCT e.event_id), array_agg(DISTINCT p) FILTER (WHERE p IS NOT NULL)
          INTO event_date, events, persons
          FROM silver.events AS e CROSS JOIN unnest(ARRAY[e.person, e.known_person]) AS p
         WHERE e.event_time >= day::timestamptz AND e.event_time < (day + 1)::timestamptz
           AND (e.person = ANY (near) OR day = ANY (unread))
           AND (silver.person_key(e.user_id, NULL) = ANY (ids) OR silver.person_key(NULL, e.anonymous_id) = ANY (ids));
        IF day = ANY (unread) THEN
            events := COALESCE(events, '{}') || ARRAY(
                SELECT b.event_id FROM bronze.events AS b
                 WHERE b.event_time >= day::timestamptz AND b.event_time < (day + 1)::timestamptz
                   AND (silver.person_key(b.user_id, NULL) = ANY (ids)
                        OR silver.person_key(NULL, b.anonymous_id) = ANY (ids)));
        END IF;
        IF events <> '{}' THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION identity.events_of(text[]) IS
    'Which events carry one of these ids, by date, and which persons they are of. Found by the index on persons, and '
    'on dates that wait for a refresh by looking at all of their rows.';
REVOKE EXECUTE ON FUNCTION identity.events_of(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.export_person(ids text[]) RETURNS SETOF jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 1000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    given CONSTANT text[] := ARRAY(SELECT DISTINCT identity.checked_id('ids', x) FROM unnest(ids) AS x);
    found record;
BEGIN
    FOR found IN SELECT * FROM identity.events_of(given) LOOP
        RETURN QUERY
        SELECT b.payload FROM bronze.events AS b
         WHERE b.event_time >= found.event_date::timestamptz AND b.event_time < (found.event_date + 1)::timestamptz
           AND b.event_id = ANY (found.events)
         ORDER BY b.event_time, b.event_id;
    END LOOP;
    RETURN QUERY
    SELECT l.payload FROM bronze.late_events AS l
     WHERE silver.person_key(l.user_id, NULL) = ANY (given) OR silver.person_key(NULL, l.anonymous_id) = ANY (given)
     ORDER BY l.event_time, l.event_id;
END
$$;
COMMENT ON FUNCTION identity.export_person(text[]) IS
    'Every event that carries one of these ids, as it was sent, in the order of event time; behind them those that '
    'were diverted as late. What identity.erase_person would erase of events. NULL and {}: none. 22004 and 22023 for '
    'what is no id. For members of tidemark_admin.';
REVOKE EXECUTE ON FUNCTION identity.export_person(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.erase_events(ids text[], OUT rows jsonb, OUT dates date[], OUT persons text[])
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    places CONSTANT regclass[] := 'bronze.events'::regclass || ARRAY(SELECT identity.places());
    found record;
    place regclass;
    gone bigint;
    before bigint;
BEGIN
    persons := ids;
    dates := '{}';
    rows := '{}';
    FOR found IN SELECT * FROM identity.events_of(ids) LOOP
        dates := dates || found.event_date;
        persons := ARRAY(SELECT unnest(persons) UNION SELECT unnest(found.persons));
        FOREACH place IN ARRAY places LOOP
            EXECUTE format('DELETE FROM %s AS e WHERE e.event_time >= $1 AND e.event_time < $2
                               AND e.event_date = $4 AND e.event_id = ANY ($3)', place)
              USING found.event_date::timestamptz, (found.event_date + 1)::timestamptz, found.events, found.event_date;
            GET DIAGNOSTICS gone = ROW_COUNT;
            before := COALESCE((rows ->> place::text)::bigint, 0);
            rows := rows || jsonb_build_object(place::text, before + gone);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION identity.erase_events(text[]) IS
    'Part of identity.erase_person: deletes the events that carry one of these ids, and says how many of which table, '
    'of which dates, and which persons they were of.';
REVOKE EXECUTE ON FUNCTION identity.erase_events(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.erase_person(ids text[], dry_run boolean DEFAULT true,
    suppressed uuid[] DEFAULT NULL, suppression_key uuid DEFAULT NULL)
RETURNS TABLE (relation text, rows bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 20
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    given text[] := ARRAY(SELECT DISTINCT identity.checked_id('ids', x) FROM unnest(ids) AS x);
    events record;
    frozen date[];
    model record;
    place regclass;
    statement text;
    n jsonb;
    gone bigint;
    days date[];
BEGIN
    IF ids IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION 'ids and dry_run must not be NULL' USING ERRCODE = '22004';
    ELSIF (suppressed IS NULL) <> (suppression_key IS NULL) THEN
        RAISE EXCEPTION 'suppressed needs suppression_key, and the other way round' USING ERRCODE = '22023';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'persons are erased at the isolation level READ COMMITTED only' USING ERRCODE = '25001';
    END IF;
    IF given = '{}' THEN
        RETURN;
    END IF;
    -- Late events that are on their way into bronze are there when this is granted.
    LOCK TABLE bronze.late_events IN SHARE ROW EXCLUSIVE MODE;
    PERFORM identity.hold_sayings();
    PERFORM tidemark.change_dimension(VARIADIC ARRAY(SELECT identity.places()));
    IF suppressed IS NOT NULL AND NOT dry_run THEN
        -- Loaders read it in the transaction of each batch: what they are loading is there when this is granted, and
        -- what comes later finds the list.
        LOCK TABLE loader.suppression_keys IN ACCESS EXCLUSIVE MODE;
        INSERT INTO loader.suppression_keys VALUES (suppression_key) ON CONFLICT DO NOTHING;
        INSERT INTO loader.suppressed SELECT x, suppression_key FROM unnest(suppressed) AS x ON CONFLICT DO NOTHING;
    END IF;
    BEGIN
        SELECT * INTO events FROM identity.erase_events(given);
        n := events.rows;
        -- What is left of devices and persons is looked at again.
        INSERT INTO identity.waiting
        SELECT 'device', d.anonymous_id FROM identity.device_days AS d
         WHERE d.account = ANY (given) AND d.anonymous_id <> ALL (given)
        UNION
        SELECT 'account', m.account FROM identity.members AS m
         WHERE m.account <> ALL (given)
           AND m.component IN (SELECT x.component FROM identity.members AS x WHERE x.account = ANY (given));
        FOREACH statement IN ARRAY ARRAY[
            'bronze.late_events AS e WHERE silver.person_key(e.user_id, NULL) = ANY ($1)
                                        OR silver.person_key(NULL, e.anonymous_id) = ANY ($1)',
            'loader.dead_letters AS l WHERE identity.mentions(l.payload, $2) OR identity.mentions(l.key, $2)
                                         OR identity.mentions(l.headers, $2)
                                         OR EXISTS (SELECT FROM unnest($2) AS i(id)
                                                     WHERE length(i.id) >= 8
                                                       AND position(convert_to(i.id, ''UTF8'') IN l.headers) > 0)
                                         OR identity.mentions(convert_to(l.detail, ''UTF8''), $2)',
            'identity.device_days AS d WHERE d.anonymous_id = ANY ($1) OR d.account = ANY ($1)',
            'identity.refused_links AS r USING identity.links AS l
              WHERE l.link_id = r.link_id AND (l.account_a = ANY ($1) OR l.account_b = ANY ($1))',
            'identity.links AS l WHERE l.account_a = ANY ($1) OR l.account_b = ANY ($1)',
            'identity.members AS m WHERE m.account = ANY ($1)',
            'identity.owners AS o WHERE o.anonymous_id = ANY ($1)',
            'identity.said_owners AS s WHERE s.anonymous_id = ANY ($1) OR s.account = ANY ($1)',
            'identity.blocked AS b WHERE b.id = ANY ($1)',
            'identity.waiting AS w WHERE w.id = ANY ($1)',
            'identity.changes AS c WHERE c.id = ANY ($1) OR c.was = ANY ($1) OR c.is_now = ANY ($1)']
        LOOP
            IF statement LIKE 'identity.changes %' THEN
                -- Whoever was theirs is known anew, which says whose they were.
                PERFORM identity.resolve_now();
            END IF;
            EXECUTE 'DELETE FROM ' || statement USING given, ids;
            GET DIAGNOSTICS gone = ROW_COUNT;
            n := n || jsonb_build_object(split_part(statement, ' ', 1), gone);
        END LOOP;
        -- Dates without rows are never computed again: what is kept there of a person goes, totals stay.
        frozen := ARRAY(SELECT DISTINCT r.event_date FROM tidemark.retired_dates AS r);
        FOR model IN SELECT m.target, format('t.%I::text = ANY ($2)', m.scope) AS theirs
                       FROM tidemark.model_status AS m JOIN pg_class AS c ON c.oid = m.target
                      WHERE m.scope IS NOT NULL AND frozen <> '{}' AND pg_has_role(c.relowner, 'USAGE')
                     UNION ALL
                     SELECT p, 'silver.person_key(t.user_id, NULL) = ANY ($2)'
                               ' OR silver.person_key(NULL, t.anonymous_id) = ANY ($2)'
                       FROM identity.places() AS p WHERE frozen <> '{}' LOOP
            EXECUTE format('WITH gone AS (DELETE FROM %s AS t WHERE t.event_date = ANY ($1) AND (%s)
                                          RETURNING t.event_date)
                            SELECT count(*), array_agg(DISTINCT event_date) FROM gone', model.target, model.theirs)
               INTO gone, days USING frozen, given;
            n := n || jsonb_build_object(model.target::text || ', retired dates', gone);
            PERFORM tidemark.mark_dirty(model.target, days, 'erasure') WHERE gone > 0;
        END LOOP;
        -- Dimensions by person follow what they are kept from; those that are not kept any more are looked at.
        FOR place IN
            SELECT c.oid FROM pg_class AS c
             WHERE c.relnamespace = 'gold'::regnamespace AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')
               AND ARRAY(SELECT a.attname FROM pg_attribute AS a
                          WHERE a.attrelid = c.oid AND a.attnum BETWEEN 1 AND 4 ORDER BY a.attnum)
                   = '{person,valid_from,valid_to,is_current}'
               AND NOT EXISTS (SELECT FROM pg_trigger AS t
                                WHERE t.tgfoid = 'gold_storage.keep_dimension()'::regprocedure
                                  AND t.tgname = 'dimension_' || c.relname || '_insert')
        LOOP
            EXECUTE format('DELETE FROM %s AS d WHERE d.person = ANY ($1)', place) USING given;
            GET DIAGNOSTICS gone = ROW_COUNT;
            n := n || jsonb_build_object(place::text, gone);
        END LOOP;
        -- Of other tables over bronze it is not known what they hold of whom.
        PERFORM tidemark.mark_dirty('bronze.events', events.dates, 'erasure')
          WHERE EXISTS (SELECT FROM tidemark.model_status AS m
                         WHERE 'bronze.events' = ANY (m.sources) AND m.model <> 'silver.events'
                           AND (m.query LIKE '%/* silver.create_event_table */%') IS NOT TRUE);
        PERFORM tidemark.mark_persons(p, events.persons, 'erasure', events.dates) FROM identity.places() AS p;
        IF dry_run THEN
            RAISE EXCEPTION 'nothing is erased' USING ERRCODE = 'TM003';
        END IF;
        INSERT INTO identity.erasures (ids, rows)
        SELECT cardinality(given), jsonb_object_agg(x.key, x.value) FROM jsonb_each(n) AS x WHERE x.value <> '0';
    EXCEPTION WHEN SQLSTATE 'TM003' THEN
        -- Undone: so what it says is what it would do.
    END;
    RETURN QUERY
    SELECT x.key, x.value::bigint FROM jsonb_each_text(n) AS x WHERE x.value <> '0' ORDER BY 2 DESC, 1;
END
$$;
COMMENT ON FUNCTION identity.erase_person(text[], boolean, uuid[], uuid) IS
    'Erases every event that carries one of these ids, as user_id or anonymous_id, and all that identity and the '
    'dead letters hold of them: a row for each table, with how many rows went. identity.ids(person) lists the '
    'accounts and devices of a person; what is not named stays. dry_run (default): says what would go, and nothing '
    'does. Models follow with the next refresh and identity.resolve, statistics with identity.forget_statistics; '
    'tidemark person erase does all of it. suppressed: what loaders shall know these ids by, under the key of which '
    'suppression_key is the hash; only who has the key can make them, as tidemark person erase does. A receipt '
    'without ids is in identity.erasures. Holds off refreshes of silver.events. 22004 and 22023 for what is no id, '
    '25001 at another isolation level than READ COMMITTED. For members of tidemark_admin.';
REVOKE EXECUTE ON FUNCTION identity.erase_person(text[], boolean, uuid[], uuid) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.forget_statistics(ids text[]) RETURNS SETOF regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 10
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place regclass;
BEGIN
    FOR place IN
        SELECT c.oid
          FROM pg_class AS c
          JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE pg_has_role(c.relowner, 'USAGE')
           AND EXISTS (
               SELECT FROM pg_stats AS s
                CROSS JOIN LATERAL (VALUES (s.most_common_vals::text), (s.histogram_bounds::text)) AS v(known)
                WHERE s.schemaname = n.nspname AND s.tablename = c.relname
                  -- Also within a text or a document.
                  AND (v.known::text[] && forget_statistics.ids
                       OR identity.mentions(convert_to(v.known, 'UTF8'), forget_statistics.ids)))
    LOOP
        -- Of a table that has become empty, ANALYZE would keep what it knew.
        PERFORM tidemark.forget_statistics(place);
        EXECUTE format('ANALYZE %s', place);
        RETURN NEXT place;
    END LOOP;
END
$$;
COMMENT ON FUNCTION identity.forget_statistics(text[]) IS
    'Has Postgres gather statistics anew of tables of tidemark_admin whose statistics hold one of these ids; call it '
    'after an erasure, once models are refreshed. Returns these tables.';
REVOKE EXECUTE ON FUNCTION identity.forget_statistics(text[]) FROM PUBLIC;
