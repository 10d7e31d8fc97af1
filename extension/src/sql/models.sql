-- Models: derived tables whose rows for one event_date are a function of their sources' rows around that date. Here:
-- what is known of them, and the views that show it. Marks are in marks.sql, what they make stale in stale_dates.sql.
--
-- Whose rights: the tables belong to the extension's owner, and nobody else reads or writes them: what may be known is
-- in views of the schema tidemark, what may be done in functions that ask who calls them (act.sql). Users' queries run
-- as the owner of the model's table, never as the caller or as the extension's owner (models/owner.rs).

CREATE TABLE tidemark_internal.models (
    name text PRIMARY KEY,
    target regclass NOT NULL UNIQUE,
    query text NOT NULL,
    key name[] NOT NULL,
    lookback_days integer NOT NULL CHECK (lookback_days BETWEEN 0 AND 1000),
    lookahead_days integer NOT NULL CHECK (lookahead_days BETWEEN 0 AND 1000),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    defined_by xid8 NOT NULL,
    live_view regclass,
    scope name,
    scope_source name,
    scope_since name,
    ways text[] NOT NULL DEFAULT '{}',
    other_ways text,
    refresh_count bigint NOT NULL DEFAULT 0,
    change_count bigint NOT NULL DEFAULT 0,
    last_refreshed_at timestamptz,
    attempted_at timestamptz,
    failed_date date,
    failed_code text,
    failed_message text,
    failed_at timestamptz
);
COMMENT ON TABLE tidemark_internal.models IS
'Registered models. Written by tidemark.create_model, tidemark.drop_model and tidemark.refresh.';
COMMENT ON COLUMN tidemark_internal.models.name IS 'Name of the model: its target table as schema.table.';
COMMENT ON COLUMN tidemark_internal.models.target IS 'Table that holds the rows; has a column event_date.';
COMMENT ON COLUMN tidemark_internal.models.query IS
'SELECT with $1 (first date) and $2 (end date, exclusive) that computes the rows of those dates.';
COMMENT ON COLUMN tidemark_internal.models.key IS 'Columns that identify a row of the target.';
COMMENT ON COLUMN tidemark_internal.models.lookback_days IS 'How many days before a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.lookahead_days IS 'How many days after a date the query reads.';
COMMENT ON COLUMN tidemark_internal.models.created_at IS 'When the model was first registered.';
COMMENT ON COLUMN tidemark_internal.models.defined_by IS
'Transaction that gave it its definition or its sources: marks that were passed on before it was seen concern it.';
COMMENT ON COLUMN tidemark_internal.models.live_view IS 'View that is exact at any moment; NULL without one.';
COMMENT ON COLUMN tidemark_internal.models.scope IS
'Column of the target by which it may be recomputed in part; NULL: not.';
COMMENT ON COLUMN tidemark_internal.models.scope_source IS 'The column of its source that scope is; NULL without one.';
COMMENT ON COLUMN tidemark_internal.models.scope_since IS
'Column of the target: the rows of a person from one of its values on come of source rows from then on; NULL: none.';
COMMENT ON COLUMN tidemark_internal.models.ways IS
'Ways in which a date may be refreshed, as its query allowed when it was registered.';
COMMENT ON COLUMN tidemark_internal.models.other_ways IS 'Why not in the other ways; NULL if in all.';
COMMENT ON COLUMN tidemark_internal.models.refresh_count IS 'How many dates have been recomputed in all.';
COMMENT ON COLUMN tidemark_internal.models.change_count IS
'How many of these recomputes changed rows; materialized views follow it.';
COMMENT ON COLUMN tidemark_internal.models.last_refreshed_at IS 'When a date of the model was last recomputed.';
COMMENT ON COLUMN tidemark_internal.models.attempted_at IS
'When a refresh took it up; NULL once that came to an end, whichever. Others come first meanwhile.';
COMMENT ON COLUMN tidemark_internal.models.failed_date IS
'Date of the last failed recompute; NULL once it succeeded, or if a source could not be taken over.';
COMMENT ON COLUMN tidemark_internal.models.failed_code IS 'SQLSTATE of what failed last; NULL once it succeeded.';
COMMENT ON COLUMN tidemark_internal.models.failed_message IS
'Message of what failed last, which may quote rows; NULL once it succeeded.';
COMMENT ON COLUMN tidemark_internal.models.failed_at IS 'When it failed; NULL once it succeeded.';

CREATE TABLE tidemark_internal.model_sources (
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    source regclass NOT NULL,
    source_name text NOT NULL,
    columns name[],
    PRIMARY KEY (model, source)
);
COMMENT ON TABLE tidemark_internal.model_sources IS 'Which tables a model reads.';
COMMENT ON COLUMN tidemark_internal.model_sources.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_sources.source IS
'Table that the model reads; may be the target of another model. Shown as a number when it was dropped.';
COMMENT ON COLUMN tidemark_internal.model_sources.source_name IS
'Its name when tidemark.create_model was called, as schema.table. When the table is dropped, one that is created under '
'this name takes its place (tidemark_internal.adopt_sources).';
COMMENT ON COLUMN tidemark_internal.model_sources.columns IS
'Columns of it that the query reads: a change of others does not concern the model. NULL: any may.';

-- Of a table that was never analyzed the planner expects a thousand rows, and a recursion over these two, which each
-- step of a refresh does, would clear a hash table of megabytes every time.
ANALYZE tidemark_internal.models, tidemark_internal.model_sources;

CREATE TABLE tidemark_internal.refresh_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run timestamptz NOT NULL,
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    refreshed_at timestamptz NOT NULL,
    rows_inserted bigint NOT NULL,
    rows_updated bigint NOT NULL,
    rows_deleted bigint NOT NULL,
    seconds numeric(12, 3) NOT NULL,
    way text NOT NULL DEFAULT 'recompute',
    persons bigint
);
CREATE INDEX ON tidemark_internal.refresh_log (model, event_date);
COMMENT ON TABLE tidemark_internal.refresh_log IS
'What tidemark.refresh_log shows: one row per recompute, kept for 30 days and for the last 100,000.';
COMMENT ON COLUMN tidemark_internal.refresh_log.id IS 'Identity of the recompute; later ones are greater.';
COMMENT ON COLUMN tidemark_internal.refresh_log.run IS 'When the refresh began that did it.';
COMMENT ON COLUMN tidemark_internal.refresh_log.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.refresh_log.event_date IS 'Date that was recomputed.';
COMMENT ON COLUMN tidemark_internal.refresh_log.refreshed_at IS 'When it was done.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_inserted IS 'Rows that were not there before.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_updated IS 'Rows with the key of an older one but other values.';
COMMENT ON COLUMN tidemark_internal.refresh_log.rows_deleted IS 'Rows whose key the query no longer returned.';
COMMENT ON COLUMN tidemark_internal.refresh_log.seconds IS 'How long the recompute of the date took.';
COMMENT ON COLUMN tidemark_internal.refresh_log.way IS 'append, merge, scope, recompute or changed: how it was done.';
COMMENT ON COLUMN tidemark_internal.refresh_log.persons IS 'How many persons it was for; NULL for all.';

CREATE TABLE tidemark_internal.model_dates (
    model text NOT NULL REFERENCES tidemark_internal.models ON DELETE CASCADE,
    event_date date NOT NULL,
    rows bigint NOT NULL,
    horizon xid8 NOT NULL,
    cluster bigint NOT NULL,
    last_row tid,
    counted_at timestamptz,
    count_seconds double precision,
    seen bytea,
    source_rows bigint,
    PRIMARY KEY (model, event_date)
);
COMMENT ON TABLE tidemark_internal.model_dates IS
'What the last refresh of each date of a model left: by it the next one knows whether less than a recompute will do.';
COMMENT ON COLUMN tidemark_internal.model_dates.model IS 'Name of the model.';
COMMENT ON COLUMN tidemark_internal.model_dates.event_date IS 'Date that was refreshed.';
COMMENT ON COLUMN tidemark_internal.model_dates.rows IS 'How many rows of the date were stored afterwards.';
COMMENT ON COLUMN tidemark_internal.model_dates.horizon IS
'All transactions before this one had ended when it began: rows of these were seen.';
COMMENT ON COLUMN tidemark_internal.model_dates.cluster IS
'System identifier of the cluster whose transactions these are: a dump may be restored into another one.';
COMMENT ON COLUMN tidemark_internal.model_dates.last_row IS
'Where the last row of the source is that was added by then: those that come next are looked for from there on first.';
COMMENT ON COLUMN tidemark_internal.model_dates.counted_at IS
'When the rows of the date were last counted, in the source and in the table; NULL: never.';
COMMENT ON COLUMN tidemark_internal.model_dates.count_seconds IS
'How long that took, by which the next refresh knows how soon to do it again; of an append all that it did.';
COMMENT ON COLUMN tidemark_internal.model_dates.seen IS
'Which transactions the last recompute saw, and what was appended to a timeline since '
'(tidemark_internal.unseen); of a model that appends perhaps some more. NULL where that is not known, or of no use.';
COMMENT ON COLUMN tidemark_internal.model_dates.source_rows IS
'How many rows of the only source a model that merges was computed from; NULL for others, or if not known.';

SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.models', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_sources', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.model_dates', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.refresh_log_id_seq', '');

CREATE FUNCTION tidemark_internal.may_see(relation regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
RETURN tidemark_internal.may_act_as((SELECT r.oid FROM pg_roles r WHERE r.rolname = CURRENT_USER),
                                    (SELECT c.relowner FROM pg_class c WHERE c.oid = relation));
COMMENT ON FUNCTION tidemark_internal.may_see(regclass) IS
'Whether the current user has the rights of the owner of a relation, and so
may see in views what is said about its rows. false when the relation is
NULL or does not exist.';

CREATE FUNCTION tidemark_internal.may_read(role oid, relation regclass) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 20
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT has_schema_privilege(role, c.relnamespace, 'USAGE')
                    AND (has_table_privilege(role, c.oid, 'SELECT') OR has_any_column_privilege(role, c.oid, 'SELECT'))
                   FROM pg_class c WHERE c.oid = relation), false);
COMMENT ON FUNCTION tidemark_internal.may_read(oid, regclass) IS
'Whether a role may read a relation, or at least some of its columns. false
when the relation is NULL or does not exist.';

CREATE FUNCTION tidemark_internal.models_in_order() RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1000 ROWS 20
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE depth(name, target, level) AS (
        SELECT m.name, m.target, 1 FROM tidemark_internal.models m
        UNION
        SELECT d.name, d.target, b.level + 1
          FROM depth b
          JOIN tidemark_internal.model_sources s ON s.source = b.target
          JOIN tidemark_internal.models d ON d.name = s.model
         WHERE b.level < 32)  -- as deep as tidemark_internal.check_sources allows
    SELECT x.name FROM depth x GROUP BY x.name ORDER BY max(x.level), x.name;
END
$$;
COMMENT ON FUNCTION tidemark_internal.models_in_order() IS
'The names of all models, each after those that it reads: the order in which
tidemark.refresh works.';
REVOKE EXECUTE ON FUNCTION tidemark_internal.models_in_order() FROM PUBLIC;

CREATE VIEW tidemark.refresh_log AS
SELECT l.id, l.run, l.model, l.event_date, l.refreshed_at, l.rows_inserted, l.rows_updated, l.rows_deleted, l.seconds,
       l.way, l.persons
  FROM tidemark_internal.refresh_log l;
GRANT SELECT ON tidemark.refresh_log TO PUBLIC;
COMMENT ON VIEW tidemark.refresh_log IS
'Which dates were recomputed and what that changed: one row per recompute, kept for 30 days and for the last 100,000. '
'run = (SELECT max(run) ...) gives the last refresh.';
COMMENT ON COLUMN tidemark.refresh_log.id IS
'Identity of the recompute; of one model, later ones are greater, in the order of commits.';
COMMENT ON COLUMN tidemark.refresh_log.run IS 'When the refresh began that did it.';
COMMENT ON COLUMN tidemark.refresh_log.model IS 'Name of the model (schema.table).';
COMMENT ON COLUMN tidemark.refresh_log.event_date IS 'Date that was recomputed.';
COMMENT ON COLUMN tidemark.refresh_log.refreshed_at IS 'When it was done.';
COMMENT ON COLUMN tidemark.refresh_log.rows_inserted IS 'Rows that were not there before.';
COMMENT ON COLUMN tidemark.refresh_log.rows_updated IS 'Rows with the key of an older one but other values.';
COMMENT ON COLUMN tidemark.refresh_log.rows_deleted IS 'Rows whose key the query no longer returned.';
COMMENT ON COLUMN tidemark.refresh_log.seconds IS 'How long the recompute of the date took.';
COMMENT ON COLUMN tidemark.refresh_log.way IS
'How it was done: append (only the rows that its source had gained were computed), merge (they were put together with '
'what was stored), scope (only the rows of the persons whose events had changed) or recompute (all rows of the date). '
'changed: not by a refresh but in place, as tidemark.mark_persons was told, and how many rows is not known.';
COMMENT ON COLUMN tidemark.refresh_log.persons IS 'Of how many persons rows were computed; NULL for all.';
