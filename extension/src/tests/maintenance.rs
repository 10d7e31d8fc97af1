//! Tests of partitions inside Postgres. What needs many sessions or COMMIT is tested from outside.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    fn run(sql: &str) {
        Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// A partitioned table of a plain role, and a role that may only insert.
    fn warehouse() {
        run("CREATE ROLE keeper; CREATE ROLE writer; CREATE ROLE stranger;
             CREATE SCHEMA warehouse AUTHORIZATION keeper;
             GRANT USAGE ON SCHEMA warehouse TO PUBLIC;
             GRANT SELECT ON tidemark_internal.partition_config TO keeper;
             SET LOCAL ROLE keeper;
             CREATE TABLE warehouse.events (
                 event_id bigint, event_time timestamptz NOT NULL,
                 event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED
             ) PARTITION BY RANGE (event_time);
             GRANT INSERT ON warehouse.events TO writer;
             RESET ROLE");
    }

    fn partitions() -> String {
        text(
            "SELECT string_agg(concat(partition, ' ', from_date, ' ', to_date, ' ', state), ', ' ORDER BY from_date) FROM tidemark.partitions('warehouse.events')",
        )
    }

    #[pg_test]
    fn partitions_are_made_once_with_utc_days() {
        warehouse();
        assert_eq!(partitions(), "NULL");
        run("SET LOCAL timezone = 'Pacific/Auckland'");
        assert_eq!(
            text(
                "SELECT string_agg(p::text, ' ') FROM tidemark.ensure_partitions('warehouse.events', '2026-01-01', '2026-01-02') AS p"
            ),
            "warehouse.events_p20260101 warehouse.events_p20260102"
        );
        assert_eq!(
            text(
                "SELECT count(*) FROM tidemark.ensure_partitions('warehouse.events', '2026-01-01', '2026-01-02') AS p"
            ),
            "0"
        );
        assert_eq!(
            partitions(),
            "warehouse.events_p20260101 2026-01-01 2026-01-02 attached, warehouse.events_p20260102 2026-01-02 2026-01-03 attached"
        );
        run(
            "INSERT INTO warehouse.events VALUES (1, '2026-01-01 23:59:59.999999Z'), (2, '2026-01-02 00:00Z')",
        );
        assert_eq!(
            text(
                "SELECT string_agg(tableoid::regclass || ' ' || event_id, ', ' ORDER BY event_id) FROM warehouse.events"
            ),
            "warehouse.events_p20260101 1, warehouse.events_p20260102 2"
        );
    }

    #[pg_test]
    fn who_may_insert_may_make_partitions_for_the_owner() {
        warehouse();
        run("SET LOCAL ROLE writer");
        assert_eq!(
            text(
                "SELECT count(*) FROM tidemark.ensure_partitions('warehouse.events', '2026-01-01', '2026-01-01') AS p"
            ),
            "1"
        );
        assert_eq!(text("SELECT current_user"), "writer", "the switch is undone");
        assert_eq!(
            text("SELECT relowner::regrole FROM pg_class WHERE oid = 'warehouse.events_p20260101'::regclass"),
            "keeper"
        );
        assert!(error_of("CREATE TABLE warehouse.mine ()").starts_with("42501"));
        run("SET LOCAL ROLE stranger");
        assert_eq!(
            error_of("SELECT tidemark.ensure_partitions('warehouse.events', '2026-01-02', '2026-01-02')"),
            "42501 permission denied to create partitions of table events"
        );
        assert_eq!(text("SELECT current_user"), "stranger");
        assert_eq!(
            error_of("SELECT tidemark.manage_partitions('warehouse.events')"),
            "42501 must be owner of table warehouse.events"
        );
    }

    #[pg_test]
    fn partition_errors_name_the_argument() {
        warehouse();
        run("CREATE TABLE plain (event_time timestamptz)");
        for (call, expected) in [
            (
                "ensure_partitions('plain', '2026-01-01', '2026-01-01')",
                "42809 parent public.plain is not partitioned by range of one timestamptz column",
            ),
            (
                "ensure_partitions('warehouse.events', '2026-01-02', '2026-01-01')",
                "22023 to_date must not be before from_date",
            ),
            (
                "ensure_partitions('warehouse.events', '2026-01-02', 'infinity')",
                "22023 from_date and to_date must be finite dates",
            ),
            (
                "ensure_partitions('warehouse.events', NULL, '2026-01-01')",
                "22004 parent, from_date and to_date must not be NULL",
            ),
            (
                "ensure_partitions('warehouse.events', '2026-01-01', '2029-01-01')",
                "22023 from_date to to_date spans 1097 days, at most 1000 are allowed",
            ),
            ("manage_partitions('warehouse.events', -1)", "22023 premake_days must be between 0 and 366"),
            (
                "manage_partitions('warehouse.events', 1, 'nowhere')",
                "3F000 partition_schema nowhere does not exist",
            ),
            (
                "manage_partitions('warehouse.events', partition_unique => '{id}')",
                "42703 partition_unique names column id, which warehouse.events does not have",
            ),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.{call}")), expected);
        }
    }

    #[pg_test]
    fn managed_tables_get_partitions_ahead_with_their_unique_index() {
        warehouse();
        run("SELECT tidemark.manage_partitions('warehouse.events', 2, partition_unique => '{event_id}')");
        assert_eq!(
            text(
                "SELECT count(*) || ' ' || min(from_date) - (now() AT TIME ZONE 'UTC')::date FROM tidemark.partitions('warehouse.events')"
            ),
            "3 0"
        );
        run("INSERT INTO warehouse.events VALUES (1, now())");
        assert!(error_of("INSERT INTO warehouse.events VALUES (1, now())").starts_with("23505"));
    }
}
