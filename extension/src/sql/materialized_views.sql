-- Materialized views across dates that follow models: refreshed, without blocking readers, when a model below changed.

CREATE TABLE tidemark_internal.materialized_views (
    view regclass PRIMARY KEY,
    models text[] NOT NULL,
    seen_count bigint NOT NULL DEFAULT -1,
    refresh_count bigint NOT NULL DEFAULT 0,
    refreshed_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.materialized_views', '');
COMMENT ON TABLE tidemark_internal.materialized_views IS 'Materialized views that follow models. Written by tidemark.manage_materialized_view and tidemark.refresh_materialized_views.';
COMMENT ON COLUMN tidemark_internal.materialized_views.view IS 'The materialized view; it has a unique index.';
COMMENT ON COLUMN tidemark_internal.materialized_views.models IS 'Models it reads.';
COMMENT ON COLUMN tidemark_internal.materialized_views.seen_count IS 'Sum of the models'' change_count before the last refresh of the view; -1 before the first.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refresh_count IS 'How often it has been refreshed.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refreshed_at IS 'When the view was last refreshed; NULL if never.';

ALTER TABLE tidemark_internal.materialized_views ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark_internal.materialized_views FOR SELECT USING (true);
CREATE POLICY owners_write ON tidemark_internal.materialized_views USING (tidemark_internal.is_member_of_owner(view));
GRANT SELECT, INSERT, UPDATE, DELETE ON tidemark_internal.materialized_views TO PUBLIC;

CREATE FUNCTION tidemark.manage_materialized_view(view regclass, models text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = view AND relkind = 'm') THEN
        RAISE EXCEPTION 'view % is not a materialized view', view USING ERRCODE = '42809';
    ELSIF NOT tidemark_internal.is_member_of_owner(view) THEN
        RAISE EXCEPTION 'must be owner of materialized view %', view USING ERRCODE = '42501', HINT = 'The caller must be a member of the role that owns it.';
    ELSIF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = view AND indisunique AND indpred IS NULL AND NOT 0 = ANY (indkey::smallint[])) THEN
        RAISE EXCEPTION 'view % has no unique index on plain columns', view
            USING ERRCODE = '55000', HINT = 'Create one: a refresh that does not block readers needs it.';
    END IF;
    SELECT n INTO unknown FROM unnest(models) AS n WHERE NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = n);
    IF FOUND THEN
        RAISE EXCEPTION 'model % does not exist', unknown USING ERRCODE = '42704';
    END IF;
    INSERT INTO tidemark_internal.materialized_views AS v (view, models) VALUES (view, models)
    ON CONFLICT ON CONSTRAINT materialized_views_pkey DO UPDATE SET models = excluded.models, seen_count = -1;
END
$$;
COMMENT ON FUNCTION tidemark.manage_materialized_view(regclass, text[]) IS
'Registers a materialized view that reads models (schema.table), so that
tidemark.refresh_materialized_views refreshes it when one of them changed.
The view needs a unique index; the caller must be a member of the role that
owns it.';

CREATE FUNCTION tidemark_internal.refresh_materialized_view_step() RETURNS regclass
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v tidemark_internal.materialized_views;
    now_count bigint;
BEGIN
    -- Only those that the caller may refresh; Postgres itself runs their queries as their owners.
    FOR v IN SELECT * FROM tidemark_internal.materialized_views x WHERE tidemark_internal.is_member_of_owner(x.view) ORDER BY x.view::text FOR UPDATE SKIP LOCKED LOOP
        -- Counted before the refresh takes its snapshot: whatever is counted is in the view afterwards.
        SELECT coalesce(sum(m.change_count), 0) INTO now_count FROM tidemark_internal.models m WHERE m.name = ANY (v.models);
        CONTINUE WHEN now_count = v.seen_count;
        EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY %s', v.view);
        UPDATE tidemark_internal.materialized_views x SET seen_count = now_count, refresh_count = x.refresh_count + 1, refreshed_at = clock_timestamp() WHERE x.view = v.view;
        RETURN v.view;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_materialized_view_step() IS
'Part of tidemark.refresh_materialized_views: refreshes one materialized view
below which a model changed and returns it; NULL when none is left.';

CREATE PROCEDURE tidemark.refresh_materialized_views()
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit.
DECLARE
    refreshed pg_catalog.regclass;
BEGIN
    IF EXISTS (SELECT FROM tidemark_internal.materialized_views)
       AND NOT EXISTS (SELECT FROM tidemark_internal.materialized_views v WHERE tidemark_internal.is_member_of_owner(v.view)) THEN
        RAISE EXCEPTION 'permission denied to refresh any materialized view'
            USING ERRCODE = '42501', HINT = 'The caller must be a member of a role that owns a registered one.';
    END IF;
    LOOP
        refreshed := tidemark_internal.refresh_materialized_view_step();
        COMMIT;
        EXIT WHEN refreshed IS NULL;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh_materialized_views() IS
'Refreshes, CONCURRENTLY and each in a transaction of its own, the registered
materialized views below which a model changed since. Does nothing when
nothing changed. CALL it outside a transaction block, as a member of the
role that owns the views; those of others are passed over.';
