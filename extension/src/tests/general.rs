//! What holds for every object of the extension: comments, stated parallel safety, pinned search paths.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::text;
    use pgrx::prelude::*;

    /// Functions that make tables or write rows; everything else must be safe in parallel workers.
    const PARALLEL_UNSAFE: &str = "
        absorb_marks, add_property, adopt_sources, attach_again, change_dimension, check_model, create_live_view, create_model,
        create_partitions, create_persons_view, create_step, create_timeline,
        current_xid, date_marks, declare_personal, detach_refused, distribute_dirty, drop_live_view, drop_model,
        drop_step, drop_timeline, ensure_partitions, execute_as, execute_as_owner, execute_for_persons,
        execute_contained, find_added,
        forget_missing_tables, forget_statistics, forget_values, keep_places, lock_registrations, lock_retired, lock_settings,
        maintenance_step, manage_materialized_view, manage_partitions, mark_all_dates, mark_changes, mark_dirty,
        mark_loaded, mark_persons, mark_readers, mark_replicated, mark_truncate, note_attempt, note_columns, note_maintenance, note_ways,
        pass_on, readers_of, rebuild_timeline, record_maintenance, refresh_date, refresh_materialized_view_step, refresh_step,
        remake_timeline, reopen_date, restore_partition, retire_step, rows_added, set_retired, set_watermark_policy,
        source_state, start_maintenance, start_refresh, take_step, timeline_append, timeline_encode, timeline_scoped,
        timeline_to_change, track_changes,
        try_step,
        unmanage_partitions, untrack_changes";

    /// Functions that may run users' queries, which may not be parallel safe, under the snapshot of their caller.
    const PARALLEL_RESTRICTED: &str =
        "added_query, bounds, columns_read, counted_query, current_seen, date_blockers, dates_with_rows, describe_query, drop_refusal, due_partitions, funnel_persons,
         funnel_report, model_statement, not_scoped, partition_figures, paths, places, plan_maintenance, present_statement, read_as_owner,
         retention_report, retirement_blocker, scope_needs_rows, scope_problem, scope_query, session_report, source_dates, stale_dates, timeline_definition, trend, undated, verify_model, waiting";

    /// Functions that may run with the rights of their owner: they only move or read marks. What they must
    /// read of users' tables, they read as the owner of the model.
    const SECURITY_DEFINER: &str = "date_blockers, is_frozen, mark_changes, mark_replicated, pending, seen, stale_dates, timeline_definition, waiting, waiting_additions";

    /// Members of the extension, columns included; the objects of these tests stand in a schema of their own.
    const OBJECTS: &str = "
        WITH member AS (
            SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'tidemark'
        ), relation AS (
            SELECT c.oid, c.relkind FROM pg_class c WHERE c.relnamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
        ), object AS (
            SELECT m.classid, m.objid, 0 AS objsubid FROM member m
             WHERE coalesce((pg_identify_object(m.classid, m.objid, 0)).schema, '') <> 'tests'
               AND (m.classid, m.objid) <> ('pg_namespace'::regclass, coalesce(to_regnamespace('tests'), 0))
               -- Made by an identity column, described there.
               AND NOT EXISTS (SELECT FROM pg_class c WHERE m.classid = 'pg_class'::regclass AND c.oid = m.objid AND c.relkind = 'S')
               -- A row type is its table's, an array type its element's.
               AND NOT EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
                                WHERE m.classid = 'pg_type'::regclass AND t.oid = m.objid AND (c.relkind <> 'c' OR t.typcategory = 'A'))
            UNION ALL
            SELECT 'pg_class'::regclass, a.attrelid, a.attnum FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid
             WHERE a.attnum > 0 AND NOT a.attisdropped
        )";

    #[pg_test]
    fn every_object_has_a_comment() {
        let uncommented = text(&format!(
            "{OBJECTS} SELECT string_agg(pg_describe_object(o.classid, o.objid, o.objsubid), E'\\n' ORDER BY 1) FROM object o
              WHERE NOT EXISTS (SELECT FROM pg_description d WHERE (d.classoid, d.objoid, d.objsubid) = (o.classid, o.objid, o.objsubid)
                                   AND length(d.description) > 10)"
        ));
        assert_eq!(uncommented, "NULL", "without a comment:\n{uncommented}");
    }

    #[pg_test]
    fn comments_of_functions_read_like_a_manual() {
        // At 100 columns, expanded (\\x), \\df+ leaves 76 for the text; and the first sentence says what one gets.
        let stray = text(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n')
               FROM pg_proc p CROSS JOIN LATERAL (SELECT obj_description(p.oid, 'pg_proc') AS said) AS c
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace)
                AND (said !~ '[.]$' OR length(said) > 1000 OR length(split_part(translate(said, E'\\n', ' '), '. ', 1)) > 230
                     OR EXISTS (SELECT FROM regexp_split_to_table(said, E'\\n') AS line WHERE length(line) > 76 OR line ~ '(^ | $)'))",
        );
        assert_eq!(stray, "NULL", "too long, too wide or without an end:\n{stray}");
    }

    #[pg_test]
    fn the_count_of_objects_sees_every_kind() {
        let kinds = text(&format!(
            "{OBJECTS} SELECT string_agg(DISTINCT (pg_identify_object(classid, objid, objsubid)).type, ', ') FROM object"
        ));
        for kind in [
            "aggregate",
            "cast",
            "composite type column",
            "function",
            "operator",
            "procedure",
            "schema",
            "table",
            "table column",
            "type",
            "view",
            "view column",
        ] {
            assert!(kinds.split(", ").any(|k| k == kind), "no {kind} among {kinds}");
        }
        let count: i64 = text(&format!("{OBJECTS} SELECT count(*) FROM object")).parse().unwrap();
        assert!(count > 150, "only {count} objects");
    }

    #[pg_test]
    fn only_functions_that_write_are_parallel_unsafe() {
        let list: Vec<&str> = PARALLEL_UNSAFE.split(',').map(str::trim).collect();
        let stray = text(&format!(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prokind <> 'p'
                AND (p.proparallel <> 's') <> (p.proname = ANY ('{{{},{PARALLEL_RESTRICTED}}}'))",
            list.join(",")
        ));
        assert_eq!(stray, "NULL", "parallel safety is not as listed:\n{stray}");
        let stray = text(&format!(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prokind <> 'p' AND p.proparallel <> 's' AND p.provolatile <> 'v'
                AND NOT (p.proparallel = 'r' AND p.proname = ANY ('{{{PARALLEL_RESTRICTED}}}'))"
        ));
        assert_eq!(stray, "NULL", "unsafe in parallel but not volatile:\n{stray}");
        let stray = text(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prokind <> 'p' AND p.proparallel = 's' AND p.provolatile = 'v'",
        );
        assert_eq!(stray, "NULL", "volatile, which is what one gets without saying so:\n{stray}");
    }

    #[pg_test]
    fn no_function_is_said_to_be_safer_than_what_it_does() {
        let stray = text(
            "WITH own AS (SELECT p.oid, p.proname, n.nspname,
                                 regexp_replace(concat(p.prosrc, pg_get_function_sqlbody(p.oid)), $$--[^\\n]*|'[^']*'$$, '', 'g') AS body,
                                 position(p.proparallel::text IN 'urs') AS safety
                            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                           WHERE nspname IN ('tidemark', 'tidemark_internal') AND p.prokind = 'f')
             SELECT string_agg(DISTINCT f.oid::regprocedure || ' calls ' || g.proname, E'\\n')
               FROM own f JOIN own g ON g.safety < f.safety AND f.body ~ format('%s[.]%s\\(', g.nspname, g.proname)",
        );
        assert_eq!(stray, "NULL", "less safe in parallel plans than they say:\n{stray}");
        let stray = text(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prokind <> 'p'
                AND p.proparallel <> 'u' AND p.prosrc ~ '\\mEXCEPTION\\s+WHEN\\M'",
        );
        assert_eq!(stray, "NULL", "errors cannot be caught while a parallel plan runs:\n{stray}");
    }

    #[pg_test]
    fn aggregates_can_run_in_parallel() {
        let stray = text(
            "SELECT string_agg(a.aggfnoid::regprocedure::text, E'\\n') FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace)
                AND (p.proparallel <> 's' OR a.aggcombinefn = 0 OR (a.aggtranstype = 'internal'::regtype AND (a.aggserialfn = 0 OR a.aggdeserialfn = 0 OR a.aggtransspace = 0)))",
        );
        assert_eq!(stray, "NULL", "no partial states, or no estimate of their size:\n{stray}");
    }

    #[pg_test]
    fn functions_with_a_text_body_pin_their_search_path() {
        let stray = text(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prokind <> 'p' AND l.lanname NOT IN ('c', 'internal')
                AND p.prosqlbody IS NULL
                AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c WHERE c ~ '^search_path=pg_catalog, pg_temp$')",
        );
        assert_eq!(stray, "NULL", "search_path is the caller's:\n{stray}");
    }

    #[pg_test]
    fn only_bookkeeping_runs_with_the_rights_of_its_owner() {
        let stray = text(&format!(
            "SELECT string_agg(p.oid::regprocedure::text, E'\\n') FROM pg_proc p
              WHERE p.pronamespace IN ('tidemark'::regnamespace, 'tidemark_internal'::regnamespace) AND p.prosecdef <> (p.proname = ANY ('{{{SECURITY_DEFINER}}}'))"
        ));
        assert_eq!(stray, "NULL", "SECURITY DEFINER is not as listed:\n{stray}");
    }
}
