//! Who may say how long rows are kept, who writes the books of partitions, and who is told what went wrong.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::run;
    use crate::tests::retirement::tests::{depot, step};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn settings_belong_to_the_owner_of_the_table() {
        depot("drop");
        run("CREATE SCHEMA other AUTHORIZATION depot_other; SET LOCAL ROLE depot_other;
             CREATE TABLE other.events (t timestamptz) PARTITION BY RANGE (t);
             SELECT tidemark.manage_partitions('other.events', 0)");
        assert_eq!(text("SELECT count(*) FROM tidemark.partition_health"), "2", "everybody reads");
        for (sql, expected) in [
            (
                "SELECT tidemark.manage_partitions('depot.events', retention_days => 1)",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark.unmanage_partitions('depot.events')",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark.restore_partition('depot.events', '2026-01-01')",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark.reopen_date('depot.events', '2026-01-01')",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark_internal.maintenance_step('depot.events', 'drop')",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark_internal.maintenance_step('depot.events', 'retire concurrently')",
                "42501 must be owner of table depot.events",
            ),
            (
                "SELECT tidemark_internal.record_maintenance('depot.events', '22000 x')",
                "42501 must be owner of table depot.events",
            ),
        ] {
            assert_eq!(error_of(sql), expected);
        }
        run("RESET ROLE; GRANT INSERT ON depot.events TO depot_other; SET LOCAL ROLE depot_other");
        for call in [
            "maintenance_step('depot.events', 'retire concurrently')",
            "maintenance_step('depot.events', 'create')",
            "maintenance_step('depot.events', 'retire')",
            "maintenance_step('depot.events', 'drop')",
            "record_maintenance('depot.events', '22000 x')",
        ] {
            assert_eq!(
                error_of(&format!("SELECT tidemark_internal.{call}")),
                "42501 must be owner of table depot.events",
                "who may only insert holds no lock in a transaction that he may leave open, and notes nothing"
            );
        }
        run("RESET ROLE; SET LOCAL ROLE depot_owner");
        assert_eq!(step("retire"), "detached 13");
        assert_eq!(text("SELECT tidemark.unmanage_partitions('depot.events')"), "true");
        assert_eq!(text("SELECT tidemark.unmanage_partitions('depot.events')"), "false");
        assert_eq!(
            text("SELECT count(*) FROM tidemark.partitions('depot.events')"),
            "6",
            "no table is touched"
        );
        assert_eq!([step("create"), step("retire"), step("drop")], ["", "", ""]);
        run("RESET ROLE; DROP TABLE other.events; CREATE ROLE anybody; SET LOCAL ROLE anybody");
        assert_eq!(
            text("SELECT tidemark_internal.forget_missing_tables()"),
            "1",
            "anybody may, for it is nobody's now"
        );
    }

    #[pg_test]
    fn nobody_writes_the_books_of_partitions_but_by_functions() {
        depot("drop");
        assert_eq!(step("retire"), "detached 13");
        // The owner of the table may no more than anybody else: not even lock a row or a table.
        for role in ["depot_owner", "depot_other"] {
            run(&format!("SET LOCAL ROLE {role}"));
            for table in ["partition_config", "retired_dates", "retention_holds"] {
                let table = format!("tidemark_internal.{table}");
                for statement in [
                    format!("INSERT INTO {table} SELECT FROM {table}"),
                    format!("UPDATE {table} SET parent = parent"),
                    format!("DELETE FROM {table}"),
                    format!("TRUNCATE {table}"),
                    format!("SELECT parent FROM {table} FOR KEY SHARE"),
                    format!("LOCK TABLE {table} IN ROW SHARE MODE"),
                    format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
                    format!(
                        "CREATE TRIGGER t AFTER UPDATE ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                    ),
                    format!("COMMENT ON TABLE {table} IS ''"),
                ] {
                    assert!(error_of(&statement).starts_with("42501"), "{role}: {statement}");
                }
            }
            for work in [
                "set_retired('depot.events', 'depot.events', now(), now(), 'dropped', 'drop')",
                "detach_refused('depot.events', now(), now(), '22000 x')",
                "lock_settings('depot.events')",
                "retire_step('depot.events', true)",
                "drop_step('depot.events')",
                "maintenance_step(10, 'depot.events', 'retire')",
                "take_step('depot.events', 'retire')",
                "try_step(10, 'depot.events', 'retire')",
                "start_maintenance(10, 'depot.events')",
                "note_maintenance('depot.events', NULL)",
                "record_maintenance(10, 'depot.events', NULL)",
                "ensure_partitions(10, 'depot.events', '{2026-01-01}')",
                "manage_partitions(10, 'depot.events', 1, NULL, NULL, 1, NULL)",
                "unmanage_partitions(10, 'depot.events')",
                "restore_partition(10, 'depot.events', '2026-01-01', '1 day')",
                "reopen_date(10, 'depot.events', '2026-01-01')",
                "forget_missing_tables(10)",
            ] {
                let refused = error_of(&format!("SELECT tidemark_internal.{work}"));
                assert!(refused.starts_with("42501 permission denied for "), "{role}: {work}: {refused}");
            }
        }
    }

    #[pg_test]
    fn what_went_wrong_is_told_to_who_may_act_for_the_table() {
        depot("drop");
        run("GRANT INSERT ON depot.events TO depot_other;
             SELECT tidemark_internal.record_maintenance('depot.events',
                  '23505 Key (mail)=(ada@example.com) is there')");
        let told = |role: &str| {
            run(&format!("SET LOCAL ROLE {role}"));
            text(
                "SELECT concat_ws(' | ', last_error, last_error_at IS NOT NULL) FROM tidemark.partition_health",
            )
        };
        assert_eq!(told("depot_owner"), "23505 Key (mail)=(ada@example.com) is there | t");
        assert_eq!(told("depot_other"), "23505 | t");
        for column in ["partition_config.last_error", "retention_holds.error"] {
            let (table, column) = column.split_once('.').unwrap();
            let sql = format!("SELECT {column} FROM tidemark_internal.{table}");
            assert!(error_of(&sql).starts_with("42501"), "{sql}");
        }
        run("RESET ROLE");
        for error in ["no SQLSTATE", "2350", "23505x"] {
            assert_eq!(
                error_of(&format!("SELECT tidemark_internal.record_maintenance('depot.events', '{error}')")),
                "22023 error must begin with an SQLSTATE"
            );
        }
        run("SELECT tidemark_internal.record_maintenance('depot.events', '22000 ' || repeat('x', 100000))");
        assert_eq!(text("SELECT length(last_error) FROM tidemark_internal.partition_config"), "2000");
    }
}
