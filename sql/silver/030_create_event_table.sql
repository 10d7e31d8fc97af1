-- A typed table for an event type in one statement: silver.create_event_table. The shop's own purchases and sign-ups
-- (040, 050) are made with it.
SET LOCAL ROLE tidemark_admin;

-- SET role: whoever may act for tidemark_admin creates tables that belong to it; nobody else gets in.
CREATE OR REPLACE FUNCTION silver.create_event_table(
    name text, event_types text[], columns json, partitioned boolean DEFAULT false
) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target_table text := format('silver.%I', name);
    spelled text[] := ARRAY(SELECT DISTINCT silver.event_name(t) FROM unnest(event_types) AS t
                             WHERE t <> '' ORDER BY 1);
    types constant jsonb := '{"text": "text", "integer": "integer", "bigint": "bigint", "numeric": "numeric",
                              "double": "double precision", "boolean": "boolean", "date": "date",
                              "timestamptz": "timestamptz", "items": "bigint", "unset": "text"}';
    taken constant text[] := ARRAY['event_id', 'event_time', 'event_date', 'event_type', 'person', 'known_person',
                                   'user_id', 'anonymous_id', 'platform', 'country', 'excluded_as'];
    is_new boolean;
    entry record;
    kind text;
    paths text[];
    path text;
    values_of text;
    stored text;
    selected text := '';
    unset_names text[] := '{}';
    unset_values text := '';
    described text[] := '{}';
    meanings text[] := '{}';
BEGIN
    IF name IS NULL OR name !~ '^[a-z][a-z0-9_]{0,39}$' THEN
        RAISE EXCEPTION 'name must be lower case letters, digits and underscores, at most 40, got %',
            quote_nullable(name) USING ERRCODE = '22023';
    ELSIF cardinality(spelled) = 0 THEN
        RAISE EXCEPTION 'event_types must name at least one event' USING ERRCODE = '22023',
            HINT = 'SELECT DISTINCT event_type FROM silver.events lists those that came.';
    ELSIF json_typeof(columns) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'columns must be a JSON object of column names and types' USING ERRCODE = '22023',
            HINT = 'For example {"query": "text", "results": "integer search.results"}.';
    END IF;
    is_new := to_regclass(target_table) IS NULL;
    IF NOT is_new AND NOT EXISTS (SELECT FROM tidemark.model_status m WHERE m.target = to_regclass(target_table)
                                     AND m.query LIKE '%/* silver.create_event_table */%') THEN
        RAISE EXCEPTION 'name % is taken by a table that silver.create_event_table did not make', name
            USING ERRCODE = '42P07';
    END IF;
    IF is_new THEN
        EXECUTE format('CREATE TABLE %s (event_id uuid NOT NULL, event_time timestamptz NOT NULL,
                            event_date date NOT NULL, event_type text NOT NULL,
                            person text, known_person text, user_id text, anonymous_id text,
                            platform text, country text, excluded_as text)%s',
            target_table, CASE WHEN partitioned THEN ' PARTITION BY RANGE (event_time)' ELSE '' END);
        EXECUTE format('CREATE INDEX ON %s (person, event_time)', target_table);
        EXECUTE format('CREATE INDEX ON %s (known_person, event_time)', target_table);
        IF partitioned THEN
            PERFORM tidemark.manage_partitions(parent => target_table::regclass, premake_days => 4,
                partition_schema => 'silver_partitions', partition_unique => ARRAY['event_id']::name[]);
        ELSE
            EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY (event_date, event_id)', target_table);
        END IF;
        EXECUTE format('GRANT SELECT ON %s TO tidemark_reader', target_table);
    END IF;

    FOR entry IN SELECT c.key AS column_name, c.value AS wanted FROM json_each_text(columns) AS c LOOP
        IF entry.column_name !~ '^[a-z][a-z0-9_]{0,62}$' OR entry.column_name = ANY (taken) THEN
            RAISE EXCEPTION 'column % must be another name of lower case letters, digits and underscores',
                quote_ident(entry.column_name) USING ERRCODE = '22023';
        END IF;
        kind := split_part(btrim(entry.wanted), ' ', 1);
        IF NOT types ? coalesce(kind, '') THEN
            RAISE EXCEPTION 'column % has the unknown type %', entry.column_name, quote_nullable(kind)
                USING ERRCODE = '22023',
                HINT = 'One of text, integer, bigint, numeric, double, boolean, date, timestamptz, items, unset; '
                       'behind a blank the path in properties, as in "integer search.results".';
        END IF;
        path := btrim(substr(btrim(entry.wanted), length(kind) + 1));
        paths := CASE WHEN path = '' THEN ARRAY[entry.column_name] ELSE string_to_array(path, '|') END;
        IF EXISTS (SELECT FROM unnest(paths) AS p
                    WHERE p !~ '^[^., /][^,. /]*([.][^,. /]+)*$' AND p !~ '^(/[^, /]+)+$') THEN
            RAISE EXCEPTION 'column % has the path %, which is neither names with dots between them nor from the '
                            'beginning of the event, as in /data/order_id', entry.column_name, quote_literal(path)
                USING ERRCODE = '22023';
        END IF;
        IF kind = 'unset' THEN
            unset_names := unset_names || entry.column_name;
        ELSE
            SELECT string_agg(format('silver.%I(%s)', 'json_' || kind, f.found), ', ' ORDER BY x.n),
                   string_agg(concat_ws(' OR ', f.found || ' = ''null''', f.unset), ' OR ' ORDER BY x.n)
              INTO values_of, path
              FROM unnest(paths) WITH ORDINALITY AS x(p, n)
             CROSS JOIN LATERAL (
                 SELECT x.p LIKE '/%', string_to_array(ltrim(x.p, '/'), CASE WHEN x.p LIKE '/%' THEN '/' ELSE '.' END)
                 ) AS s(absolute, names)
             CROSS JOIN LATERAL (
                 SELECT cardinality(s.names), CASE WHEN s.absolute THEN 'e.payload' ELSE 'e.properties' END
                 ) AS p(n, root)
             CROSS JOIN LATERAL (
                 -- What is set in $set is taken away in the $unset beside it.
                 SELECT format('%s #> %L', p.root, s.names),
                        CASE WHEN s.names[p.n - 1] = '$set'
                             THEN format('%s #> %L ? %L', p.root, s.names[:p.n - 2] || '$unset'::text, s.names[p.n]) END
                 ) AS f(found, unset);
            selected := selected || format(', COALESCE(%s)::%s AS %I', values_of, types ->> kind, entry.column_name);
            unset_values := unset_values || format(' || CASE WHEN COALESCE(%s) IS NULL AND (%s) THEN %L ELSE %L END',
                                                   values_of, path, ',' || entry.column_name, '');
        END IF;
        stored := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
                    WHERE a.attrelid = target_table::regclass AND a.attname = entry.column_name AND NOT a.attisdropped);
        IF stored <> types ->> kind THEN
            RAISE EXCEPTION 'column % of silver.% is % and cannot become %', entry.column_name, name, stored,
                types ->> kind USING ERRCODE = '42804',
                HINT = format('Give the new column another name, or make the table anew: '
                              'SELECT tidemark.drop_model(%L, drop_table => true);', target_table);
        ELSIF stored IS NULL THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', target_table, entry.column_name, types ->> kind);
        END IF;
        described := described || entry.column_name;
        meanings := meanings || CASE WHEN kind = 'unset'
            THEN 'Names of the columns whose properties the event takes away, with commas between them: '
                 'that are null, or among its $unset where the path is within $set. NULL for none.'
            ELSE format('Property %s as %s; NULL where it is missing or is no such value.',
                        array_to_string(paths, ' or '), types ->> kind) END;
    END LOOP;
    FOREACH path IN ARRAY unset_names LOOP
        selected := selected || format(', NULLIF(ltrim(''''%s, '',''), '''') AS %I', unset_values, path);
    END LOOP;
    IF EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = target_table::regclass AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.attname <> ALL (taken) AND NOT (columns::jsonb ? a.attname::text)) THEN
        RAISE EXCEPTION 'columns lacks %, which silver.% has',
            (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
              WHERE a.attrelid = target_table::regclass AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attname <> ALL (taken) AND NOT (columns::jsonb ? a.attname::text)), name
            USING ERRCODE = '22023', HINT = 'Name them too; columns can be added, not taken away.';
    END IF;

    EXECUTE format('COMMENT ON TABLE %s IS %L', target_table,
        format('Events %s with their properties typed; made by silver.create_event_table.',
               array_to_string(spelled, ', ')));
    described := described || taken;
    meanings := meanings || ARRAY[
        'Identity of the event; unique within its event_date.',
        'When it happened.',
        'UTC date of event_time.',
        'Name of the event in one spelling, as in silver.events.',
        'Who did it as it was sent, as in silver.events.',
        'Who it is known to be now, as in silver.events: kept up to date by identity.resolve.',
        'Known user; NULL before login.',
        'Device or browser identity; NULL when the event has none.',
        'Where it ran, for example web, ios or android; NULL when the event does not say.',
        'Country as the event says, in general an ISO 3166 code; NULL when it does not.',
        'Why gold does not count it, as in silver.events; NULL for what gold counts.'];
    FOR entry IN SELECT d.column_name, d.meaning FROM unnest(described, meanings) AS d(column_name, meaning) LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target_table, entry.column_name, entry.meaning);
    END LOOP;
    RETURN tidemark.create_model(target_table, ARRAY['bronze.events']::regclass[], format($query$
    SELECT /* silver.create_event_table */
           e.event_id, e.event_time, (e.event_time AT TIME ZONE 'UTC')::date AS event_date,
           silver.event_name(e.event_type) AS event_type, e.person,
           silver.known_person(e.person, e.user_id, e.anonymous_id, e.event_time) AS known_person,
           e.user_id, e.anonymous_id,
           silver.json_text(e.context, 'platform') AS platform,
           COALESCE(silver.json_text(e.context, 'country'),
                    silver.json_text(e.context #> '{location,country}')) AS country,
           -- As silver.events has it.
           COALESCE(silver.own_traffic(silver.ip_of(e.payload, e.context),
                                       COALESCE(silver.json_text(e.context -> 'page', 'url'),
                                                CASE WHEN silver.is_page_view(silver.event_name(e.event_type))
                                                     THEN silver.json_text(e.payload -> 'properties', 'url') END)),
                    CASE WHEN silver.is_bot(silver.user_agent_id(silver.user_agent_of(e.context))) THEN 'bot' END
           ) AS excluded_as%s
      FROM (SELECT b.event_id, b.event_time, b.event_type, b.user_id, b.anonymous_id, b.payload,
                   silver.person_key(b.user_id, b.anonymous_id) AS person,
                   COALESCE(b.payload -> 'context', silver.context_of(b.payload)) AS context,
                   -- The attributes of a CloudEvent are properties, too.
                   CASE WHEN b.payload ? 'specversion' THEN b.payload || silver.properties_of(b.payload)
                        ELSE silver.properties_of(b.payload) END AS properties
              FROM bronze.events AS b
             WHERE b.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND b.event_time < $2::timestamp AT TIME ZONE 'UTC'
               AND silver.event_name(b.event_type) = ANY (%L::text[])
            OFFSET 0) AS e$query$, selected, spelled),
        key => ARRAY['event_date', 'event_id']::name[], live => true);
END
$$;
COMMENT ON FUNCTION silver.create_event_table(text, text[], json, boolean) IS
    'Creates silver.<name>, a live model with one row per event of these types: '
    'who, when and where as in silver.events, and one column per entry of columns. columns: '
    'a JSON object of column names and types (text, integer, bigint, numeric, double, boolean, date, timestamptz, '
    'items: the sum of quantity over an array, or unset: which of the others the event takes away), behind the type '
    'and a blank the path in properties where it is not the name of the column, or from the beginning of the event as '
    'in /data/id, and alternatives behind |: {"query": "text search.query|query"}. A property that is '
    'missing or cannot be read as its type gives NULL. event_types are compared in one spelling (silver.event_name). '
    'partitioned: one partition per UTC date, for large tables; only heeded when the table is new. '
    'Calling it again changes event_types and paths and adds columns. Readers may SELECT it. For members '
    'of tidemark_admin. Returns the table; all dates that bronze holds become dirty, CALL tidemark.refresh fills it.';
REVOKE EXECUTE ON FUNCTION silver.create_event_table(text, text[], json, boolean) FROM PUBLIC;
