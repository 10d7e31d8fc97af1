//! The `tidemark` Postgres extension: thin glue from SQL to `tidemark-core`.
//!
//! One module per SQL family holds the functions that Postgres calls; the SQL that declares them, with its comments,
//! stands in `src/sql/<family>.sql`. `support` holds what the families share: memory, arguments, errors.
//! Algorithms do not live here (see `core/`), and neither do tables with users' data (see `migrations/`).

pub(crate) mod support;

pub mod act;
pub mod attribution;
pub mod ddsketch;
pub mod funnel;
pub mod funnel_stats;
pub mod hll;
pub mod json;
pub mod models;
pub mod partitions;
pub mod retention;
pub mod sequences;
pub mod sessions;
pub mod steps;
pub mod timelines;
pub mod window_funnel;

#[cfg(any(test, feature = "pg_test"))]
mod tests;

::pgrx::pg_module_magic!(name, version);

// The order of the install script: scripts/install-sql.sh reads it from these lines. For the tests inside Postgres, pgrx
// puts the script together, and in any order, were it not that each file names the one before it.
::pgrx::extension_sql_file!("./sql/general.sql", name = "general");
::pgrx::extension_sql_file!("./sql/act.sql", name = "act", requires = ["general"]);
::pgrx::extension_sql_file!("./sql/json.sql", name = "json", requires = ["act"]);
::pgrx::extension_sql_file!("./sql/bar.sql", name = "bar", requires = ["json"]);
::pgrx::extension_sql_file!("./sql/stored.sql", name = "stored", requires = ["bar"]);
::pgrx::extension_sql_file!("./sql/aggregates.sql", name = "aggregates", requires = ["stored"]);
::pgrx::extension_sql_file!("./sql/sessions.sql", name = "sessions", requires = ["aggregates"]);
::pgrx::extension_sql_file!("./sql/funnel.sql", name = "funnel", requires = ["sessions"]);
::pgrx::extension_sql_file!("./sql/window_funnel.sql", name = "window_funnel", requires = ["funnel"]);
::pgrx::extension_sql_file!("./sql/funnel_stats.sql", name = "funnel_stats", requires = ["window_funnel"]);
::pgrx::extension_sql_file!("./sql/sequences.sql", name = "sequences", requires = ["funnel_stats"]);
::pgrx::extension_sql_file!("./sql/retention.sql", name = "retention", requires = ["sequences"]);
::pgrx::extension_sql_file!("./sql/attribution.sql", name = "attribution", requires = ["retention"]);
::pgrx::extension_sql_file!("./sql/hll.sql", name = "hll", requires = ["attribution"]);
::pgrx::extension_sql_file!("./sql/ddsketch.sql", name = "ddsketch", requires = ["hll"]);
::pgrx::extension_sql_file!(
    "./sql/support_functions.sql",
    name = "support_functions",
    requires = ["ddsketch"]
);
::pgrx::extension_sql_file!("./sql/partitions.sql", name = "partitions", requires = ["support_functions"]);
::pgrx::extension_sql_file!(
    "./sql/manage_partitions.sql",
    name = "manage_partitions",
    requires = ["partitions"]
);
::pgrx::extension_sql_file!("./sql/retirement.sql", name = "retirement", requires = ["manage_partitions"]);
::pgrx::extension_sql_file!(
    "./sql/retirement_steps.sql",
    name = "retirement_steps",
    requires = ["retirement"]
);
::pgrx::extension_sql_file!("./sql/maintenance.sql", name = "maintenance", requires = ["retirement_steps"]);
::pgrx::extension_sql_file!(
    "./sql/partition_health.sql",
    name = "partition_health",
    requires = ["maintenance"]
);
::pgrx::extension_sql_file!("./sql/models.sql", name = "models", requires = ["partition_health"]);
::pgrx::extension_sql_file!("./sql/marks.sql", name = "marks", requires = ["models"]);
::pgrx::extension_sql_file!("./sql/freshness.sql", name = "freshness", requires = ["marks"]);
::pgrx::extension_sql_file!("./sql/stale_dates.sql", name = "stale_dates", requires = ["freshness"]);
::pgrx::extension_sql_file!("./sql/additions.sql", name = "additions", requires = ["stale_dates"]);
::pgrx::extension_sql_file!("./sql/scope.sql", name = "scope", requires = ["additions"]);
::pgrx::extension_sql_file!("./sql/refresh.sql", name = "refresh", requires = ["scope"]);
::pgrx::extension_sql_file!("./sql/refresh_step.sql", name = "refresh_step", requires = ["refresh"]);
::pgrx::extension_sql_file!("./sql/check_model.sql", name = "check_model", requires = ["refresh_step"]);
::pgrx::extension_sql_file!("./sql/create_model.sql", name = "create_model", requires = ["check_model"]);
::pgrx::extension_sql_file!(
    "./sql/materialized_views.sql",
    name = "materialized_views",
    requires = ["create_model"]
);
::pgrx::extension_sql_file!("./sql/live.sql", name = "live", requires = ["materialized_views"]);
::pgrx::extension_sql_file!("./sql/change_tracking.sql", name = "change_tracking", requires = ["live"]);
::pgrx::extension_sql_file!("./sql/timelines.sql", name = "timelines", requires = ["change_tracking"]);
::pgrx::extension_sql_file!("./sql/parts.sql", name = "parts", requires = ["timelines"]);
::pgrx::extension_sql_file!("./sql/timeline_changes.sql", name = "timeline_changes", requires = ["parts"]);
::pgrx::extension_sql_file!("./sql/reports.sql", name = "reports", requires = ["timeline_changes"]);
::pgrx::extension_sql_file!("./sql/rights.sql", name = "rights", requires = ["reports"]);

/// What `cargo pgrx test` calls before and while it starts its server.
#[cfg(test)]
pub mod pg_test {
    /// Runs once before the tests; nothing to prepare.
    pub fn setup(_options: Vec<&str>) {}

    /// Server settings that the tests need.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
