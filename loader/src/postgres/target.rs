//! Where events go: the table, and whether it fits the mode of deduplication. Checked once at the start of a command, so
//! that a wrong table is one clear line and not the first batch's failure.

use tokio_postgres::{Client, Config};

use crate::error::{Error, Kind, Result};
use crate::event::dedupe::Dedupe;
use crate::event::time::LatePolicy;
use crate::postgres::connection;

/// The table that events go to unless told otherwise.
pub const BRONZE: &str = "bronze.events";

/// A table for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    name: String,
    quoted: String,
    /// How duplicates are found.
    pub dedupe: Dedupe,
    /// Days that the ledger of ids reaches back.
    pub window_days: i32,
}

impl Default for Target {
    fn default() -> Self {
        Target {
            name: BRONZE.to_owned(),
            quoted: BRONZE.to_owned(),
            dedupe: Dedupe::default(),
            window_days: 1,
        }
    }
}

impl Target {
    /// The table `schema.name`, as a person writes it.
    pub fn new(name: &str, dedupe: Dedupe, window_days: i32) -> Result<Self, String> {
        let Some((schema, table)) = name.split_once('.') else {
            return Err("write it with its schema, such as bronze.events".to_owned());
        };
        if schema.is_empty() || table.is_empty() || table.contains('.') || name.contains(['"', '\0']) {
            return Err("not of the form schema.table".to_owned());
        }
        let quoted = format!("\"{schema}\".\"{table}\"");
        Ok(Target { name: name.to_owned(), quoted, dedupe, window_days })
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name for SQL.
    pub fn table(&self) -> &str {
        &self.quoted
    }

    /// Whether it is the bronze table of the migrations.
    pub fn is_bronze(&self) -> bool {
        self.name == BRONZE
    }

    /// Refuses to divert late events where that is impossible: the table for them takes those of bronze, by id.
    pub fn takes(&self, policy: LatePolicy) -> Result<()> {
        let fail = |why: &str, next: &str| {
            Err(Error::new(Kind::Usage, format!("cannot load into {}", self.name), why, next))
        };
        match policy {
            LatePolicy::Divert if !self.is_bronze() => fail(
                "late events can be diverted from bronze.events only",
                "choose another --late-policy, or leave out --into",
            ),
            LatePolicy::Divert if !self.dedupe.by_id() => fail(
                "bronze.late_events keeps one event an id and date, which --dedupe offsets does not promise",
                "choose another --late-policy, or another --dedupe",
            ),
            _ => Ok(()),
        }
    }

    /// What became of rows that Postgres neither wrote nor refused.
    pub fn taken_away(&self, rows: u64) -> Error {
        let why = format!("a trigger took {rows} rows of a batch away, so nothing of it is written");
        let next =
            "drop the BEFORE INSERT triggers of the table and its partitions; tidemark check names them";
        Error::new(Kind::Config, format!("cannot load into {}", self.name), why, next)
    }

    /// Why nothing is loaded without the key of the suppression list.
    pub fn no_key(&self) -> Error {
        let why = "persons were erased, and the key by which they would be known again is not given here";
        let next = "give the loader the key that tidemark person erase had: erasure.key_file, or TIDEMARK__ERASURE__KEY_FILE";
        Error::new(Kind::Config, format!("cannot load into {}", self.name), why, next)
    }

    /// Refuses a table that is missing, has other columns than bronze, or whose unique indexes do not fit the mode.
    pub async fn check(&self, client: &Client, config: &Config) -> Result<()> {
        let what = format!("cannot load into {}", self.name);
        let fail = |why: String, next: String| Err(Error::new(Kind::Config, &what, why, next));
        let explain = |e: tokio_postgres::Error| connection::explain(&what, config, &e);
        // First of all, whether the migrations were applied: everything below would only puzzle.
        let sql = "SELECT pg_catalog.to_regclass('loader.dead_letters') IS NOT NULL,
                          pg_catalog.to_regclass($1) IS NOT NULL,
                          (SELECT c.relkind = 'p' FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass($1)),
                          pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";
        let row = client.query_one(sql, &[&self.quoted]).await.map_err(explain)?;
        let (migrated, exists, partitioned): (bool, bool, Option<bool>) =
            (row.get(0), row.get(1), row.get(2));
        // It would be missed first by a batch with duplicates, in the middle of a night.
        if !row.get::<_, bool>(3) {
            let why = "permission denied to create temporary tables, through which duplicates are sorted out";
            return Err(Error::new(Kind::Permission, what, why, connection::grant_temporary(config)));
        }
        if !migrated {
            let at = connection::describe(config);
            return fail(
                "the loader's tables are missing".into(),
                format!("run `tidemark migrate` against {at} first"),
            );
        }
        if !exists {
            return fail(
                "there is no such table".into(),
                "create it like bronze.events first (`tidemark replay --create` does), or correct --into"
                    .into(),
            );
        }
        let sql = "SELECT pg_catalog.string_agg(b.attname::text, ', ' ORDER BY b.attnum)
                     FROM pg_catalog.pg_attribute AS b
                     LEFT JOIN pg_catalog.pg_attribute AS t
                       ON t.attrelid = pg_catalog.to_regclass($1) AND t.attname = b.attname AND t.atttypid = b.atttypid
                          AND NOT t.attisdropped
                    WHERE b.attrelid = 'bronze.events'::regclass AND b.attnum > 0 AND NOT b.attisdropped
                      AND t.attname IS NULL";
        let missing: Option<String> = client.query_one(sql, &[&self.quoted]).await.map_err(explain)?.get(0);
        if let Some(missing) = missing {
            return fail(
                format!("it lacks columns of bronze.events, or has them with another type: {missing}"),
                "create it with LIKE bronze.events INCLUDING ALL".into(),
            );
        }
        // Whatever such a trigger does: it may do away with rows without a word, and it makes COPY slow.
        let sql =
            "SELECT pg_catalog.string_agg(pg_catalog.format('%I on %s', t.tgname, t.tgrelid::regclass), ', ')
                     FROM (SELECT t.tgname, t.tgrelid FROM pg_catalog.pg_trigger AS t
                            WHERE t.tgrelid IN (SELECT pg_catalog.to_regclass($1) UNION ALL
                                                SELECT relid FROM pg_catalog.pg_partition_tree(
                                                    pg_catalog.to_regclass($1)))
                              AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')
                              -- FOR EACH ROW, BEFORE, INSERT
                              AND t.tgtype & 7 = 7
                            ORDER BY t.tgrelid, t.tgname LIMIT 10) AS t";
        let triggers: Option<String> = client.query_one(sql, &[&self.quoted]).await.map_err(explain)?.get(0);
        if let Some(triggers) = triggers {
            return fail(
                format!("a trigger could take rows away before they are written: {triggers}"),
                "drop it; what it does belongs into a model or into silver".into(),
            );
        }
        let managed = "SELECT unique_columns::text[] FROM tidemark_internal.partition_config
                        WHERE parent = pg_catalog.to_regclass($1)";
        let config_row = client.query_opt(managed, &[&self.quoted]).await.map_err(explain)?;
        if partitioned != Some(true) || config_row.is_none() {
            return fail(
                "tidemark does not make its partitions".into(),
                format!("SELECT tidemark.manage_partitions('{}') first", self.name),
            );
        }
        let unique: Option<Vec<String>> = config_row.and_then(|row| row.get(0));
        let by_id = unique.is_some_and(|columns| columns == ["event_id"]);
        match (self.dedupe, by_id) {
            (Dedupe::Offsets, true) => fail(
                "--dedupe offsets is for a table without a unique index, and its partitions get one on event_id".into(),
                format!(
                    "drop these indexes and call tidemark.manage_partitions('{}', partition_unique => '{{}}'), or use --dedupe id_date",
                    self.name
                ),
            ),
            (Dedupe::IdDate | Dedupe::IdUuidv7 | Dedupe::IdWindow, false) => fail(
                "its partitions get no unique index on event_id, by which duplicates are found".into(),
                format!(
                    "call tidemark.manage_partitions('{}', partition_unique => '{{event_id}}'), or use --dedupe offsets",
                    self.name
                ),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_quoted_and_odd_ones_refused() {
        assert_eq!(
            Target::new("bronze.Events 2", Dedupe::IdDate, 3).unwrap().table(),
            "\"bronze\".\"Events 2\""
        );
        for bad in ["events", ".events", "bronze.", "a.b.c", "a.\"b"] {
            assert!(Target::new(bad, Dedupe::IdDate, 3).is_err(), "{bad}");
        }
    }
}
