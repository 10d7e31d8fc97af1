//! Whose rights models run with: users' queries as the owner of the table, bookkeeping for members of that role only.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{run, step, step_of};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    /// What Postgres says to somebody who would make himself a superuser.
    const NO_SUPERUSER: &str = if cfg!(feature = "pg15") {
        "must be superuser to alter superuser roles or change superuser attribute"
    } else {
        "permission denied to alter role"
    };

    /// A model of role mallory whose query calls a function of his, which does what `body` says.
    fn trap(body: &str) {
        run(&format!(
            "CREATE ROLE mallory; CREATE ROLE stranger; CREATE SCHEMA w AUTHORIZATION mallory; GRANT USAGE ON SCHEMA w TO PUBLIC;
             CREATE TABLE public.witness (who text, what text); GRANT INSERT, SELECT ON public.witness TO PUBLIC;
             SET LOCAL ROLE mallory;
             CREATE TABLE w.events (event_date date, person text);
             INSERT INTO w.events VALUES ('2026-01-01', 'a');
             CREATE FUNCTION w.trap() RETURNS integer LANGUAGE plpgsql VOLATILE SET timezone = 'UTC' AS $f$ BEGIN {body}; RETURN 1; END $f$;
             SELECT tidemark.create_model('w.m', '{{w.events}}', 'SELECT event_date, w.trap() AS x FROM w.events WHERE event_date = $1', '{{event_date}}', live => true);
             RESET ROLE"
        ));
    }

    #[pg_test]
    fn a_superuser_runs_nobodys_query_with_his_own_rights() {
        trap("INSERT INTO public.witness VALUES (current_user, session_user)");
        assert_eq!(step("NULL", ""), "w.m 2026-01-01");
        assert_eq!(text("SELECT string_agg(DISTINCT who, ' ') FROM public.witness"), "mallory");
        assert_eq!(text("SELECT current_user = session_user"), "true", "the switch is undone");
        assert_eq!(
            text(
                "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE oid IN ('w.m'::regclass, 'w.m_live'::regclass)"
            ),
            "mallory"
        );
        run("TRUNCATE public.witness");
        text("SELECT count(*) FROM tidemark.verify_model('w.m', '2026-01-01', '2026-01-01')");
        assert_eq!(
            text("SELECT string_agg(DISTINCT who, ' ') FROM public.witness"),
            "mallory",
            "verification"
        );
        // Creating the model again, as a superuser, reads the table as its owner, too.
        run(
            "SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT event_date, w.trap() AS x FROM w.events WHERE event_date >= $1 AND event_date < $2', '{event_date}')",
        );
        assert_eq!(text("SELECT string_agg(DISTINCT who, ' ') FROM public.witness"), "mallory");
    }

    #[pg_test]
    fn a_query_cannot_become_the_superuser_who_refreshes() {
        trap("EXECUTE 'RESET ROLE'");
        assert_eq!(
            step("NULL", ""),
            "w.m 2026-01-01 cannot set parameter \"role\" within security-restricted operation"
        );
        for (body, error) in [
            (
                "SET SESSION AUTHORIZATION DEFAULT",
                "cannot set parameter \"session_authorization\" within security-restricted operation",
            ),
            ("CREATE TABLE public.mine ()", "permission denied for schema public"),
            ("ALTER ROLE mallory SUPERUSER", NO_SUPERUSER),
            ("CREATE TEMP TABLE t ()", "cannot create temporary table within security-restricted operation"),
        ] {
            run(&format!(
                "CREATE OR REPLACE FUNCTION w.trap() RETURNS integer LANGUAGE plpgsql VOLATILE AS $f$ BEGIN {body}; RETURN 1; END $f$"
            ));
            assert_eq!(step("NULL", ""), format!("w.m 2026-01-01 {error}"));
            assert_eq!(text("SELECT current_user = session_user"), "true");
        }
        // A setting that would send the superuser's next statements to mallory's schema.
        run("CREATE OR REPLACE FUNCTION w.trap() RETURNS integer LANGUAGE plpgsql VOLATILE AS $f$
             BEGIN PERFORM pg_catalog.set_config('search_path', 'w', false), pg_catalog.set_config('work_mem', '77MB', false); RETURN 1; END $f$");
        let before = text("SELECT current_setting('search_path') || current_setting('work_mem')");
        assert_eq!(step("NULL", ""), "w.m 2026-01-01");
        assert_eq!(text("SELECT current_setting('search_path') || current_setting('work_mem')"), before);
    }

    #[pg_test]
    fn only_who_has_the_rights_of_the_owner_touches_a_model() {
        trap("NULL");
        assert_eq!(step_of("stranger", "NULL", ""), "", "passed over");
        let start = |model: &str| {
            error_of(&format!("SELECT tidemark_internal.start_refresh('stranger'::regrole, {model})"))
        };
        assert_eq!(start("'w.m'"), "42501 permission denied to refresh model w.m");
        assert_eq!(start("NULL"), "42501 permission denied to refresh any model");
        run("SET LOCAL ROLE stranger");
        for (statement, error) in [
            ("SELECT tidemark.drop_model('w.m')", "42501 must be owner of table w.m"),
            ("SELECT tidemark.mark_all_dates('w.m')", "42501 must be owner of table w.m"),
            (
                "SELECT tidemark.verify_model('w.m', '2026-01-02', '2026-01-02')",
                "42501 must be owner of table w.m",
            ),
            (
                "SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT 1', '{x}')",
                "42501 must be owner of table w.m",
            ),
            (
                "SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
                "42501 permission denied to mark dates of table w.events",
            ),
            (
                "SELECT tidemark_internal.execute_as_owner('w.m', 'SELECT 1')",
                "42501 permission denied for function execute_as_owner",
            ),
            (
                "SELECT tidemark_internal.execute_as(10, 'SELECT 1')",
                "42501 permission denied for function execute_as",
            ),
            (
                "SELECT tidemark_internal.create_model(10, 'w.m', '{w.events}', 'SELECT 1', '{x}', 0, 0, false, NULL, NULL, NULL)",
                "42501 permission denied for function create_model",
            ),
        ] {
            assert_eq!(error_of(statement), error);
        }
        assert_eq!(
            text("SELECT tidemark.stale_dates('w.m')"),
            "{2026-01-01}",
            "bookkeeping shows to everybody"
        );
        run(
            "RESET ROLE; GRANT INSERT ON w.events TO stranger; SET LOCAL ROLE stranger; SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
        );
        run("RESET ROLE; CREATE ROLE member IN ROLE mallory");
        assert_eq!(step_of("member", "NULL", ""), "w.m 2026-01-01");
        run("SET LOCAL ROLE member; SELECT tidemark.drop_model('w.m', true)");
        assert_eq!(text("SELECT current_user"), "member");
        assert_eq!(text("SELECT to_regclass('w.m')"), "NULL");
    }

    #[pg_test]
    fn what_may_quote_rows_is_shown_to_who_may_see_them() {
        trap("RAISE EXCEPTION 'alice@example.com' USING ERRCODE = '22000'");
        step("NULL", "");
        let status = "SELECT concat_ws(', ', last_error, query) FROM tidemark.model_status";
        assert_eq!(
            text(status),
            "2026-01-01: alice@example.com, SELECT event_date, w.trap() AS x FROM w.events WHERE event_date = $1"
        );
        run("SET LOCAL ROLE stranger");
        assert_eq!(text(status), "2026-01-01: 22000");
        for (table, readable) in [("models", "name"), ("dirty_log", "id"), ("refresh_log", "id")] {
            let select = format!("SELECT {readable} FROM tidemark_internal.{table}");
            assert_eq!(error_of(&select), format!("42501 permission denied for table {table}"));
        }
    }

    #[pg_test]
    fn catalogs_of_models_are_granted_to_nobody() {
        let open = text(
            "SELECT string_agg(c.relname, ', ') FROM pg_class c
              WHERE c.relnamespace = 'tidemark_internal'::regnamespace AND c.relkind IN ('r', 'S', 'v')
                AND c.relname ~ '^(models|model_|dirty_log|refresh_log|materialized_views|watermark|lateness)'
                AND (c.relrowsecurity OR EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner)
                     OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL))",
        );
        assert_eq!(open, "NULL");
        let count = "SELECT count(*) FROM pg_class WHERE relnamespace = 'tidemark_internal'::regnamespace AND relkind = 'r'
             AND relname ~ '^(models|model_|dirty_log|refresh_log|materialized_views|watermark|lateness)'";
        assert_eq!(text(count), "10");
    }

    #[pg_test]
    fn a_model_needs_the_right_to_read_its_sources() {
        run("CREATE ROLE keeper; CREATE SCHEMA w; CREATE SCHEMA k AUTHORIZATION keeper; GRANT USAGE ON SCHEMA w TO keeper;
             CREATE TABLE w.events (event_date date); SET LOCAL ROLE keeper");
        let create = "SELECT tidemark.create_model('k.m', '{w.events}', 'SELECT event_date FROM w.events WHERE event_date = $1', '{event_date}')";
        assert_eq!(error_of(create), "42501 permission denied for source w.events");
        run("RESET ROLE; GRANT SELECT ON w.events TO keeper; SET LOCAL ROLE keeper");
        assert_eq!(error_of(create), "no error");
    }

    #[pg_test]
    fn the_name_of_a_model_whose_table_was_renamed_stays_with_its_owner() {
        run("CREATE ROLE keeper; CREATE ROLE taker; CREATE SCHEMA w; GRANT CREATE, USAGE ON SCHEMA w TO keeper, taker;
             CREATE TABLE w.events (event_date date); GRANT SELECT ON w.events TO keeper, taker");
        let create = "SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT DISTINCT event_date FROM w.events WHERE event_date = $1', '{event_date}')";
        run(&format!(
            "SET LOCAL ROLE keeper; {create}; ALTER TABLE w.m RENAME TO kept; SET LOCAL ROLE taker"
        ));
        assert_eq!(error_of(create), "42501 must be owner of table w.kept");
        run("SET LOCAL ROLE keeper");
        assert_eq!(error_of(create), "no error");
    }
}
