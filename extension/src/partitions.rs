//! Maintenance of partitions: the procedure `tidemark.run_maintenance` takes the steps of `sql/maintenance.sql`, one after
//! the other. What they do and when is decided there; here, how often one is tried and what is said of it. And sizes of
//! tables, asked without waiting.

use std::ffi::c_int;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{IntoDatum, PgSqlErrorCode};

use crate::steps::{Argument, Steps, warn};
use crate::support::args;
use crate::support::error::raise_hint;
use crate::support::pg_function;

/// How often a step is tried whose lock is not to be had.
const TRIES: u32 = 3;

impl Steps {
    /// Does what is due for a table; what failed, if anything did.
    unsafe fn maintain(self, table: Oid) -> Option<String> {
        let argument = || -> Argument { (pg_sys::OIDOID, table.into_datum()) };
        let mut failed: Vec<String> = vec![];
        for work in ["create", "retire", "drop"] {
            let mut tries = 0;
            loop {
                // SAFETY: within `run`.
                let step = unsafe {
                    Self::next_transaction();
                    let statement =
                        c"SELECT * FROM tidemark_internal.try_step($1, $2::pg_catalog.regclass, $3)";
                    self.take::<3>(statement, || {
                        vec![self.caller(), argument(), (pg_sys::TEXTOID, work.into_datum())]
                    })
                };
                let [action, detail, code] = step.into_iter().next().unwrap_or_default();
                let detail = detail.unwrap_or_default();
                match (code.as_deref(), action.as_deref()) {
                    // Somebody uses the table for longer than others should wait behind us: they go first.
                    (Some("55P03" | "40P01"), _) if tries + 1 < TRIES => {
                        tries += 1;
                        // SAFETY: within `run`; no lock is held meanwhile.
                        unsafe {
                            Self::next_transaction();
                            let seconds = f64::from(tries) / 2.0;
                            self.take::<1>(c"SELECT pg_catalog.pg_sleep($1)", || {
                                vec![(pg_sys::FLOAT8OID, seconds.into_datum())]
                            });
                        }
                    }
                    (Some(code), _) => {
                        failed.push(format!("{code} {work}: {detail}"));
                        break;
                    }
                    (None, None) => break,
                    // Another session is at it: its business.
                    (None, Some("skip")) if failed.is_empty() => return None,
                    (None, Some("skip")) => break,
                    (None, Some(action)) => {
                        tries = 0;
                        if action == "failed" {
                            failed.push(detail);
                        }
                    }
                }
            }
        }
        let failed = (!failed.is_empty()).then(|| failed.join("; "));
        // SAFETY: within `run`.
        unsafe {
            Self::next_transaction();
            let statement = c"SELECT tidemark_internal.note_maintenance($1::pg_catalog.regclass, $2)";
            self.take::<1>(statement, || vec![argument(), (pg_sys::TEXTOID, failed.clone().into_datum())]);
        }
        failed
    }
}

pg_function! {
    /// `CALL tidemark.run_maintenance(parent regclass)`.
    fn tidemark_run_maintenance(fcinfo) {
        let parent = args::datum(fcinfo, 0);
        let mut failures = 0;
        Steps::run(fcinfo, "run_maintenance", |steps| {
            let statement = c"SELECT t::pg_catalog.oid FROM tidemark_internal.start_maintenance($1, $2) AS t";
            let tables = steps.take::<1>(statement, || vec![steps.caller(), (pg_sys::REGCLASSOID, parent)]);
            for [table] in tables {
                let Some(table) = table.and_then(|oid| oid.parse().ok()).map(Oid::from_u32) else { continue };
                let Some(failed) = steps.maintain(table) else { continue };
                failures += 1;
                let statement = c"SELECT $1::pg_catalog.regclass";
                let name = steps.take::<1>(statement, || vec![(pg_sys::OIDOID, table.into_datum())]);
                let name = name.into_iter().find_map(|[name]| name).unwrap_or_default();
                warn(format!("maintenance of {name}: {failed}"), None);
            }
        });
        if failures > 0 {
            raise_hint(
                PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION,
                format!("{failures} tables could not be maintained"),
                "The warnings above and tidemark.partition_health say why; the next call goes on.",
            );
        }
        Datum::from(0)
    }
}

pg_function! {
    /// `bytes_of_one(relation oid) -> bigint`.
    fn tidemark_bytes_of_one(fcinfo) {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = Oid::from(args::datum(fcinfo, 0)?.value() as u32);
        if !pg_sys::ConditionalLockRelationOid(relation, lock) {
            return None;
        }
        // Whoever had it locked may have dropped it.
        let there = pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::RELOID as c_int,
            Datum::from(relation),
            Datum::from(0),
            Datum::from(0),
            Datum::from(0),
        );
        let bytes = there.then(|| {
            let open = pg_sys::relation_open(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            let stored = b"rtmiS".contains(&((*(*open).rd_rel).relkind as u8));
            let main = pg_sys::ForkNumber::MAIN_FORKNUM;
            let blocks = if stored { pg_sys::RelationGetNumberOfBlocksInFork(open, main) } else { 0 };
            pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
            i64::from(blocks) * i64::from(pg_sys::BLCKSZ)
        });
        pg_sys::UnlockRelationOid(relation, lock);
        bytes?.into_datum()
    }
}
