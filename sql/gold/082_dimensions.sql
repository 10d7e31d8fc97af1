-- Slowly changing dimensions (type 2): what is valid from when to when, of persons or of anything else that has an id,
-- kept from the events that say it. gold.create_dimension makes one; from then on each statement that writes the table
-- of events keeps it, in the same transaction.
SET LOCAL ROLE tidemark_admin;

DO $$
BEGIN
    IF to_regprocedure('gold_storage.said_so_far(jsonb)') IS NULL THEN
        CREATE AGGREGATE gold_storage.said_so_far(jsonb) (
            SFUNC = pg_catalog.jsonb_concat, STYPE = jsonb, INITCOND = '{}');
    END IF;
END
$$;
COMMENT ON AGGREGATE gold_storage.said_so_far(jsonb) IS
    'Objects laid over each other in the order given: of each member the last one. NULL changes nothing.';
REVOKE EXECUTE ON FUNCTION gold_storage.said_so_far(jsonb) FROM PUBLIC;

CREATE OR REPLACE FUNCTION gold_storage.make_versions(
    dimension regclass, source regclass, id name, columns name[], ids text[],
    OUT changed_ids text[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET extra_float_digits = 1
AS $$
DECLARE
    dimension_id CONSTANT name := (SELECT a.attname FROM pg_attribute AS a
                                    WHERE a.attrelid = dimension AND a.attnum = 1);
    id_type CONSTANT text := (SELECT format_type(a.atttypid, NULL) FROM pg_attribute AS a
                               WHERE a.attrelid = source AND a.attname = id);
    takes_away CONSTANT boolean := EXISTS (SELECT FROM pg_attribute AS a
                                            WHERE a.attrelid = source AND a.attname = 'unset' AND NOT a.attisdropped
                                              AND a.atttypid = 'text'::regtype);
    names CONSTANT text := (SELECT string_agg(format('%I', c), ', ') FROM unnest(columns) AS c);
BEGIN
    EXECUTE format($sql$
        WITH said AS (
            SELECT s.%2$I AS id, s.event_time AS at, s.event_id, x.said
              FROM %1$s AS s
             CROSS JOIN LATERAL (SELECT jsonb_strip_nulls(jsonb_build_object(%3$s)) || %4$s) AS x(said)
             WHERE length(s.%2$I::text) <= 256 AND ($1 IS NULL OR s.%2$I = ANY ($1::%5$s[])) AND x.said <> '{}'
               AND isfinite(s.event_time)
        ), states AS (
            -- Of one instant the last event by its id: whatever the order of arrival.
            SELECT DISTINCT ON (s.id, s.at) s.id, s.at, s.state
              FROM (SELECT s.id, s.at, s.event_id,
                           gold_storage.said_so_far(s.said) OVER (PARTITION BY s.id ORDER BY s.at, s.event_id) AS state
                      FROM said AS s) AS s
             ORDER BY s.id, s.at, s.event_id DESC
        ), changes AS (
            SELECT s.id, s.at, s.state
              FROM (SELECT s.*, lag(s.state) OVER (PARTITION BY s.id ORDER BY s.at) AS before FROM states AS s) AS s
             WHERE jsonb_strip_nulls(s.state) IS DISTINCT FROM jsonb_strip_nulls(s.before)
        ), versions AS MATERIALIZED (
            SELECT r.*
              FROM (SELECT c.*, COALESCE(lead(c.at) OVER (PARTITION BY c.id ORDER BY c.at), 'infinity') AS valid_to
                      FROM changes AS c) AS c
             CROSS JOIN LATERAL jsonb_populate_record(NULL::%6$s, c.state || jsonb_build_object(
                 %7$L, c.id, 'valid_from', c.at, 'valid_to', c.valid_to)) AS r
        ), gone AS (
            DELETE FROM %6$s AS d
             WHERE ($1 IS NULL OR d.%8$I = ANY ($1::%5$s[]))
               AND NOT EXISTS (SELECT FROM versions AS v WHERE v.%8$I = d.%8$I AND v.valid_from = d.valid_from)
            RETURNING d.%8$I AS id
        ), written AS (
            INSERT INTO %6$s AS d (%8$I, valid_from, valid_to, %9$s)
            SELECT v.%8$I, v.valid_from, v.valid_to, %10$s FROM versions AS v
            ON CONFLICT (%8$I, valid_from) DO UPDATE SET (valid_to, %9$s) = (excluded.valid_to, %11$s)
             WHERE (d.valid_to, %12$s) IS DISTINCT FROM (excluded.valid_to, %11$s)
            RETURNING d.%8$I AS id
        )
        SELECT array_agg(DISTINCT c.id::text)
          FROM (SELECT * FROM gone UNION ALL SELECT * FROM written) AS c
        $sql$, source, id, (SELECT string_agg(format('%L, s.%I', c, c), ', ') FROM unnest(columns) AS c),
        CASE WHEN takes_away
             THEN format('COALESCE((SELECT jsonb_object_agg(u, NULL) FROM unnest(string_to_array(s.unset, %L)) AS u '
                         'WHERE u = ANY (%L::text[])), %L)', ',', columns, '{}')
             ELSE '''{}''' END,
        id_type, dimension, dimension_id, dimension_id, names,
        (SELECT string_agg(format('v.%I', c), ', ') FROM unnest(columns) AS c),
        (SELECT string_agg(format('excluded.%I', c), ', ') FROM unnest(columns) AS c),
        (SELECT string_agg(format('d.%I', c), ', ') FROM unnest(columns) AS c))
       INTO changed_ids USING ids;
END
$$;
COMMENT ON FUNCTION gold_storage.make_versions(regclass, regclass, name, name[], text[]) IS
    'Part of gold.create_dimension: computes the versions of these ids (NULL: of all) from the events of source and '
    'writes those that differ. Returns which ids have other versions than before; NULL: none.';
REVOKE EXECUTE ON FUNCTION gold_storage.make_versions(regclass, regclass, name, name[], text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION gold_storage.keep_dimension() RETURNS trigger
-- Whoever may write the source writes the dimension with it.
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    dimension CONSTANT regclass := to_regclass(TG_ARGV[0]);
    id CONSTANT name := TG_ARGV[1];
    ids text[];
    changed_ids text[];
BEGIN
    IF dimension IS NULL THEN
        -- Dropped by now.
        RETURN NULL;
    ELSIF TG_OP <> 'TRUNCATE' THEN
        EXECUTE format('SELECT array_agg(DISTINCT x.id::text) FROM (%s) AS x(id) WHERE length(x.id::text) <= 256',
            concat_ws(' UNION ALL ', CASE WHEN TG_OP <> 'INSERT' THEN format('SELECT %I FROM old_rows', id) END,
                                     CASE WHEN TG_OP <> 'DELETE' THEN format('SELECT %I FROM new_rows', id) END))
           INTO ids;
        IF ids IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'table % is written at the isolation level READ COMMITTED only', TG_RELID::regclass
            USING ERRCODE = '25001', HINT = format('Dimension %s is kept from it.', dimension);
    END IF;
    -- One after the other: what another transaction wrote of the same ids is there when this is granted.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', dimension);
    changed_ids := gold_storage.make_versions(dimension, TG_RELID, id, TG_ARGV[2]::name[], ids);
    PERFORM gold_storage.mark_readers(dimension, changed_ids) WHERE changed_ids IS NOT NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION gold_storage.keep_dimension() IS
    'Part of gold.create_dimension: brings the versions of the ids that a statement touched up to date.';
REVOKE EXECUTE ON FUNCTION gold_storage.keep_dimension() FROM PUBLIC;

CREATE OR REPLACE FUNCTION gold_storage.mark_readers(dimension regclass, ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Of more of them models are quicker computed whole.
    few CONSTANT boolean := cardinality(ids) <= 10000 AND (SELECT max(octet_length(i)) <= 1000 FROM unnest(ids) AS i);
BEGIN
    -- What models computed before this is granted is marked; what they compute after the commit reads the new versions.
    PERFORM tidemark.change_dimension(dimension);
    PERFORM tidemark.mark_readers(dimension, CASE WHEN few THEN ids END,
                CASE WHEN few THEN (SELECT a.attname FROM pg_attribute AS a
                                     WHERE a.attrelid = dimension AND a.attnum = 1) END);
END
$$;
COMMENT ON FUNCTION gold_storage.mark_readers(regclass, text[]) IS
    'Part of gold.create_dimension: marks what models that read the dimension have to compute anew after versions of '
    'these ids changed.';
REVOKE EXECUTE ON FUNCTION gold_storage.mark_readers(regclass, text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION gold.create_dimension(
    name text, source regclass, columns name[], id name DEFAULT 'known_person'
) RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target_table text := format('gold.%I', name);
    dimension regclass := to_regclass(target_table);
    target_id CONSTANT name := CASE id WHEN 'known_person' THEN 'person' ELSE id END;
    own CONSTANT name[] := ARRAY[target_id, 'valid_from', 'valid_to', 'is_current'];
    events CONSTANT jsonb := '{"insert": "REFERENCING NEW TABLE AS new_rows",
                               "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
                               "delete": "REFERENCING OLD TABLE AS old_rows", "truncate": ""}';
    event record;
    wrong record;
    missing text;
    wanted record;
    changed_ids text[];
    nobody boolean;
BEGIN
    IF name IS NULL OR name !~ '^[a-z][a-z0-9_]{0,39}$' THEN
        RAISE EXCEPTION 'name must be lower case letters, digits and underscores, at most 40, got %',
            quote_nullable(name) USING ERRCODE = '22023';
    ELSIF source IS NULL OR columns IS NULL OR id IS NULL OR array_position(columns, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'source, columns and id must not be NULL' USING ERRCODE = '22004';
    ELSIF cardinality(columns) NOT BETWEEN 1 AND 50 OR columns && (own || 'unset'::name)
          OR (SELECT count(DISTINCT c) <> count(*) FROM unnest(columns || own) AS c) THEN
        RAISE EXCEPTION 'columns must name 1 to 50 columns, each once, and none of %, valid_from, valid_to, '
                        'is_current, unset', target_id USING ERRCODE = '22023';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'create_dimension needs the isolation level READ COMMITTED' USING ERRCODE = '25001';
    ELSIF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = source AND c.relkind = 'r' AND c.relpersistence = 'p'
                         AND NOT EXISTS (SELECT FROM pg_inherits AS i WHERE source IN (i.inhrelid, i.inhparent))) THEN
        RAISE EXCEPTION 'source % must be a table without partitions and children', source USING ERRCODE = '42809',
            HINT = CASE WHEN EXISTS (SELECT FROM pg_class AS c WHERE c.oid = source AND c.relkind IN ('v', 'm'))
                        THEN 'Take the table that the view reads.'
                        ELSE 'Versions of what is in partitions would go when these are retired.' END;
    ELSIF (SELECT c.relowner FROM pg_class AS c WHERE c.oid = source) <> 'tidemark_admin'::regrole THEN
        RAISE EXCEPTION 'source % must belong to tidemark_admin', source USING ERRCODE = '42501';
    END IF;
    SELECT w.*, format_type(a.atttypid, NULL) AS found INTO wrong
      FROM (SELECT 'event_id'::name AS column_name, '{uuid}'::text[] AS types
            UNION ALL SELECT 'event_time', '{timestamp with time zone}'
            UNION ALL SELECT id, '{text,character varying,uuid,integer,bigint}'
            UNION ALL SELECT c, '{text,character varying,uuid,smallint,integer,bigint,numeric,real,double precision,
                                  boolean,date,timestamp with time zone,timestamp without time zone}'
                        FROM unnest(columns) AS c) AS w
      LEFT JOIN pg_attribute AS a
        ON a.attrelid = source AND a.attname = w.column_name AND a.attnum > 0 AND NOT a.attisdropped
     WHERE (format_type(a.atttypid, NULL) = ANY (w.types)) IS NOT TRUE LIMIT 1;
    IF wrong.column_name IS NOT NULL AND wrong.found IS NULL THEN
        RAISE EXCEPTION 'source % has no column %', source, quote_ident(wrong.column_name) USING ERRCODE = '42703',
            HINT = 'A table of silver.create_event_table has those it was given, and event_id and event_time.';
    ELSIF wrong.column_name IS NOT NULL THEN
        RAISE EXCEPTION 'column % of % is %, which it cannot be', quote_ident(wrong.column_name), source, wrong.found
            USING ERRCODE = '42804', HINT = format('It may be %s.', array_to_string(wrong.types, ', '));
    ELSIF dimension IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_trigger AS t JOIN pg_attribute AS a ON a.attrelid = dimension AND a.attnum = 1
         WHERE t.tgrelid = source AND t.tgname = 'dimension_' || name || '_insert' AND a.attname = target_id) THEN
        RAISE EXCEPTION 'name % is taken by a relation that is no dimension of % by %', name, source, id
            USING ERRCODE = '42P07',
            HINT = CASE WHEN EXISTS (SELECT FROM pg_attribute AS a
                                      WHERE a.attrelid = dimension AND a.attname = 'is_current')
                         AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgname = 'dimension_' || name || '_insert')
                        THEN format('Its source is gone: DROP TABLE %s; first, or choose another name.', target_table)
                        ELSE 'Choose another name.' END;
    END IF;
    IF dimension IS NULL THEN
        EXECUTE format('CREATE TABLE %s (%I %s, valid_from timestamptz, valid_to timestamptz NOT NULL,
                            is_current boolean NOT NULL GENERATED ALWAYS AS (valid_to = ''infinity'') STORED,
                            PRIMARY KEY (%2$I, valid_from), CHECK (valid_from < valid_to))', target_table, target_id,
            (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a
              WHERE a.attrelid = source AND a.attname = id));
        dimension := target_table::regclass;
        EXECUTE format('COMMENT ON TABLE %s IS %L', dimension,
            format('What is valid from when to when by %s, from %s; made by gold.create_dimension.', target_id,
                   source));
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', dimension, target_id, format('Whose: %s of %s.', id, source));
        EXECUTE format('COMMENT ON COLUMN %s.valid_from IS %L', dimension,
            'From when on this is valid, inclusive: the time of the event that said so.');
        EXECUTE format('COMMENT ON COLUMN %s.valid_to IS %L', dimension,
            'Until when, exclusive; infinity for what is valid now.');
        EXECUTE format('COMMENT ON COLUMN %s.is_current IS %L', dimension, 'Whether it is valid now.');
        EXECUTE format('GRANT SELECT ON %s TO tidemark_reader', dimension);
    END IF;
    FOR wanted IN
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type,
               (SELECT format_type(d.atttypid, d.atttypmod) FROM pg_attribute AS d
                 WHERE d.attrelid = dimension AND d.attname = a.attname AND NOT d.attisdropped) AS stored
          FROM pg_attribute AS a WHERE a.attrelid = source AND a.attname = ANY (columns)
         ORDER BY array_position(columns, a.attname)
    LOOP
        IF wanted.stored <> wanted.type THEN
            RAISE EXCEPTION 'column % of % is % and cannot become %', wanted.attname, dimension, wanted.stored,
                wanted.type USING ERRCODE = '42804', HINT = format('Drop it first: DROP TABLE %s;', dimension);
        ELSIF wanted.stored IS NULL THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', dimension, wanted.attname, wanted.type);
        END IF;
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', dimension, wanted.attname,
            'What was last said of it until then; NULL where nothing was, or it was taken away.');
    END LOOP;
    SELECT string_agg(format('%I', a.attname), ', ') INTO missing
      FROM pg_attribute AS a
     WHERE a.attrelid = dimension AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (columns || own);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'columns lacks %, which % has', missing, dimension USING ERRCODE = '22023',
            HINT = 'Name them too; columns can be added, not taken away.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = source AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = source AND a.attname = id AND i.indisvalid AND i.indpred IS NULL) THEN
        EXECUTE format('CREATE INDEX ON %s (%I, event_time)', source, id);
    END IF;
    -- This keeps writers away until it is filled.
    FOR event IN SELECT * FROM jsonb_each_text(events) LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT
                            EXECUTE FUNCTION gold_storage.keep_dimension(%L, %L, %L)',
            format('dimension_%s_%s', name, event.key), event.key, source, event.value, dimension, id, columns);
    END LOOP;
    changed_ids := gold_storage.make_versions(dimension, source, id, columns, NULL);
    PERFORM gold_storage.mark_readers(dimension, changed_ids) WHERE changed_ids IS NOT NULL;
    EXECUTE format('SELECT count(*) > 0 AND count(%I) = 0 FROM %s', id, source) INTO nobody;
    IF nobody THEN
        RAISE NOTICE 'no row of % has a value of %, so there are no versions', source, quote_ident(id);
    END IF;
    RETURN dimension;
END
$$;
COMMENT ON FUNCTION gold.create_dimension(text, regclass, name[], name) IS
    'Creates gold.<name>, a slowly changing dimension of type 2: for each id the values of these columns of source, a '
    'table of events, with valid_from (inclusive) and valid_to (exclusive, infinity for now). An event says the '
    'columns that are not NULL, and takes away those that its column unset names, if it has one; of two events at one '
    'time the one with the larger event_id is the later. Before the first event there is no version. Whatever writes '
    'source keeps it, in the same transaction; models that read it are marked. id: the column of source that says '
    'whose it is; known_person becomes person. Readers may SELECT it. Called again it adds columns and computes all '
    'versions. For members of tidemark_admin, to whom source has to belong. Returns the table. 22004, 22023, 42703, '
    '42804, 42809, 42501: arguments that do not fit; 42P07: another relation has the name; 25001: another isolation '
    'level than READ COMMITTED.';
REVOKE EXECUTE ON FUNCTION gold.create_dimension(text, regclass, name[], name) FROM PUBLIC;
