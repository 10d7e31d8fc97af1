-- Materialized views across dates that follow models: refreshed, without blocking readers, when a model below changed.

CREATE TABLE tidemark_internal.materialized_views (
    view regclass PRIMARY KEY,
    models text[] NOT NULL,
    seen_count bigint NOT NULL DEFAULT -1,
    refresh_count bigint NOT NULL DEFAULT 0,
    refreshed_at timestamptz
);
SELECT pg_catalog.pg_extension_config_dump('tidemark_internal.materialized_views', '');
COMMENT ON TABLE tidemark_internal.materialized_views IS
'Materialized views that follow models. Written by tidemark.manage_materialized_view and '
'tidemark.refresh_materialized_views.';
COMMENT ON COLUMN tidemark_internal.materialized_views.view IS 'The materialized view; it has a unique index.';
COMMENT ON COLUMN tidemark_internal.materialized_views.models IS 'Models it reads.';
COMMENT ON COLUMN tidemark_internal.materialized_views.seen_count IS
'Sum of the models'' change_count before the last refresh of the view; -1 before the first.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refresh_count IS 'How often it has been refreshed.';
COMMENT ON COLUMN tidemark_internal.materialized_views.refreshed_at IS
'When the view was last refreshed; NULL if never.';

CREATE VIEW tidemark.materialized_views AS
SELECT v.view,
       v.models,
       v.seen_count <> (SELECT COALESCE(pg_catalog.sum(m.change_count), 0)
                          FROM tidemark_internal.models m WHERE m.name = ANY (v.models)) AS stale,
       v.refresh_count,
       v.refreshed_at
  FROM tidemark_internal.materialized_views v
 WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = v.view);
GRANT SELECT ON tidemark.materialized_views TO PUBLIC;
COMMENT ON VIEW tidemark.materialized_views IS
'One row per materialized view that follows models (tidemark.manage_materialized_view).';
COMMENT ON COLUMN tidemark.materialized_views.view IS 'The materialized view.';
COMMENT ON COLUMN tidemark.materialized_views.models IS 'Models it reads (schema.table).';
COMMENT ON COLUMN tidemark.materialized_views.stale IS
'Whether a model below changed since it was last refreshed; true before the first refresh.';
COMMENT ON COLUMN tidemark.materialized_views.refresh_count IS 'How often it has been refreshed.';
COMMENT ON COLUMN tidemark.materialized_views.refreshed_at IS 'When it was last refreshed; NULL if never.';

CREATE FUNCTION tidemark.manage_materialized_view(view regclass, models text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark.manage_materialized_view(regclass, text[]) IS
'Registers a materialized view that reads models (schema.table), so that
tidemark.refresh_materialized_views refreshes it when one of them changed.
The view needs a unique index; the caller must have the rights of the role
that owns it. 42809: no materialized view; 42704: no such model.';

CREATE FUNCTION tidemark_internal.manage_materialized_view(caller oid, view regclass, models text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names CONSTANT text[] := ARRAY(SELECT DISTINCT unnest(models) ORDER BY 1);
    unknown text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = view AND c.relkind = 'm') THEN
        RAISE EXCEPTION 'view % is not a materialized view', view USING ERRCODE = '42809';
    END IF;
    PERFORM tidemark_internal.check_may_act_as(caller, view);
    IF NOT EXISTS (SELECT FROM pg_index i
                    WHERE i.indrelid = view AND i.indisunique AND i.indpred IS NULL
                      AND NOT 0 = ANY (i.indkey::smallint[])) THEN
        RAISE EXCEPTION 'view % has no unique index on plain columns', view
            USING ERRCODE = '55000', HINT = 'Create one: a refresh that does not block readers needs it.';
    END IF;
    SELECT n INTO unknown FROM unnest(names) AS n
     WHERE NOT EXISTS (SELECT FROM tidemark_internal.models m WHERE m.name = n);
    IF FOUND THEN
        RAISE EXCEPTION 'model % does not exist', unknown
            USING ERRCODE = '42704', HINT = 'SELECT model FROM tidemark.model_status lists them.';
    END IF;
    INSERT INTO tidemark_internal.materialized_views AS v (view, models) VALUES (view, names)
    ON CONFLICT ON CONSTRAINT materialized_views_pkey DO UPDATE SET models = excluded.models, seen_count = -1;
END
$$;
COMMENT ON FUNCTION tidemark_internal.manage_materialized_view(oid, regclass, text[]) IS
'The work behind tidemark.manage_materialized_view.';

CREATE FUNCTION tidemark_internal.refresh_materialized_view_step(skip regclass[],
    OUT refreshed regclass, OUT error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE COST 1000000 AS 'MODULE_PATHNAME', 'tidemark_act';
COMMENT ON FUNCTION tidemark_internal.refresh_materialized_view_step(regclass[]) IS
'Part of tidemark.refresh_materialized_views: refreshes one materialized view
below which a model changed, none of skip, and says which, with the error if
it failed; all NULL when none is left. 42501 for who may refresh none.';

CREATE FUNCTION tidemark_internal.refresh_materialized_view_step(caller oid, skip regclass[],
    OUT refreshed regclass, OUT error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 1000000
SET search_path = pg_catalog, pg_temp
-- Whoever locks a view holds up that view, and hardly the others.
SET lock_timeout = '10s'
AS $$
DECLARE
    v tidemark_internal.materialized_views;
    now_count bigint;
BEGIN
    IF EXISTS (SELECT FROM tidemark_internal.materialized_views)
       AND NOT EXISTS (SELECT FROM tidemark_internal.materialized_views x JOIN pg_class c ON c.oid = x.view
                        WHERE tidemark_internal.may_act_as(caller, c.relowner)) THEN
        RAISE EXCEPTION 'permission denied to refresh any materialized view'
            USING ERRCODE = '42501', HINT = 'The caller must have the rights of a role that owns a registered one.';
    ELSIF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'cannot refresh materialized views during recovery' USING ERRCODE = '25006';
    END IF;
    -- Only those that the caller may refresh; Postgres itself runs their queries as their owners.
    FOR v IN
        SELECT x.* FROM tidemark_internal.materialized_views x JOIN pg_class c ON c.oid = x.view
         WHERE tidemark_internal.may_act_as(caller, c.relowner) AND x.view <> ALL (skip)
         ORDER BY x.view::text
    LOOP
        -- Counted before the refresh takes its snapshot: whatever is counted is in the view afterwards.
        SELECT coalesce(sum(m.change_count), 0) INTO now_count
          FROM tidemark_internal.models m WHERE m.name = ANY (v.models);
        CONTINUE WHEN now_count = v.seen_count;
        -- This row alone: a slow view must not keep others from refreshing theirs.
        PERFORM FROM tidemark_internal.materialized_views x
          WHERE x.view = v.view AND x.seen_count = v.seen_count FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        refreshed := v.view;
        BEGIN
            PERFORM tidemark_internal.execute_contained(
                format('REFRESH MATERIALIZED VIEW CONCURRENTLY %s', v.view));
            UPDATE tidemark_internal.materialized_views x
               SET seen_count = now_count, refresh_count = x.refresh_count + 1, refreshed_at = clock_timestamp()
             WHERE x.view = v.view;
        EXCEPTION WHEN OTHERS THEN
            error := left(SQLERRM, 1000);
        END;
        RETURN;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tidemark_internal.refresh_materialized_view_step(oid, regclass[]) IS
'The work behind tidemark_internal.refresh_materialized_view_step.';

CREATE PROCEDURE tidemark.refresh_materialized_views()
LANGUAGE plpgsql
AS $$
-- No SET search_path here: a procedure with one may not commit. Hence every name is qualified, operators too.
DECLARE
    step pg_catalog.record;
    done pg_catalog.regclass[] := '{}';
    failed pg_catalog.int4 := 0;
BEGIN
    LOOP
        SELECT * INTO step FROM tidemark_internal.refresh_materialized_view_step(done);
        COMMIT;
        EXIT WHEN step.refreshed IS NULL;
        done := pg_catalog.array_append(done, step.refreshed);
        IF step.error IS NOT NULL THEN
            failed := failed OPERATOR(pg_catalog.+) 1;
            RAISE WARNING 'materialized view %: %', step.refreshed, step.error;
        END IF;
    END LOOP;
    IF failed OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION 'materialized views that could not be refreshed: %', failed
            USING HINT = 'The warnings above say why; the views stay as they are.';
    END IF;
END
$$;
COMMENT ON PROCEDURE tidemark.refresh_materialized_views() IS
'Refreshes, CONCURRENTLY and each in a transaction of its own, the registered
materialized views below which a model changed since; each at most once.
Does nothing when nothing changed. CALL it outside a transaction block, with
the rights of the role that owns the views; those of others are passed over.
One that fails, or that somebody keeps locked for 10 s, is reported as a
warning, holds up no other, and makes the call fail at its end.';
