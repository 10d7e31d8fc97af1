//! What must not grow while a loader runs for an hour: its memory, its tables, the age of the oldest transaction id.

use std::thread::JoinHandle;
use std::time::Instant;

use postgres::{Client, NoTls};

use crate::cluster::Database;
use crate::process::{Process, tidemark};

/// Minutes between two times that `tidemark maintain` runs and everything is frozen.
const UPKEEP: u64 = 5;

/// Looks every minute, and keeps things up beside the storm, as a schedule would.
#[derive(Default)]
pub(super) struct Hour {
    minute: u64,
    maintaining: Option<(Process, Instant)>,
    freezing: Option<JoinHandle<bool>>,
}

impl Hour {
    /// One line a minute, and one whenever upkeep has ended. Postgres may go away meanwhile; then that is the line.
    pub(super) fn look(&mut self, database: &Database<'_>, minute: u64, memory: &str) -> Option<String> {
        if self.freezing.as_ref().is_some_and(JoinHandle::is_finished) {
            let frozen = self.freezing.take().and_then(|freezing| freezing.join().ok());
            return Some(format!("VACUUM (FREEZE) ended, well: {}", frozen == Some(true)));
        }
        if let Some((mut process, began)) = self.maintaining.take() {
            if process.is_running() {
                self.maintaining = Some((process, began));
            } else {
                let ended = process.wait();
                let url = database.superuser_url();
                self.freezing = Some(std::thread::spawn(move || {
                    Client::connect(&url, NoTls).is_ok_and(|mut c| c.batch_execute("VACUUM (FREEZE)").is_ok())
                }));
                let seconds = began.elapsed().as_secs();
                let said = ended.stdout.replace('\n', "; ");
                let wrong = ended.stderr.lines().last().unwrap_or_default();
                return Some(format!(
                    "maintain ended after {seconds} s with {:?}: {said}{wrong}",
                    ended.code
                ));
            }
        }
        if minute == self.minute {
            return None;
        }
        self.minute = minute;
        if minute.is_multiple_of(UPKEEP) && self.maintaining.is_none() {
            let process = tidemark(&["maintain"]).database(&database.admin_url()).start();
            self.maintaining = Some((process, Instant::now()));
        }
        Some(format!("minute {minute}: {memory}; {}", numbers(database).unwrap_or_else(|e| e.to_string())))
    }
}

fn numbers(database: &Database<'_>) -> Result<String, postgres::Error> {
    let sql = "SELECT format('age(datfrozenxid) %s of %s transactions; loader.* %s kB:',
                             age(datfrozenxid), txid_current(), (SELECT sum(pg_total_relation_size(oid))::bigint / 1024
                                                                   FROM pg_class
                                                                  WHERE relnamespace = 'loader'::regnamespace
                                                                    AND relkind IN ('r', 'm')))
               || (SELECT coalesce(string_agg(format(' %s %s', relname, n_live_tup), ',' ORDER BY relname), '')
                     FROM pg_stat_user_tables WHERE schemaname = 'loader' AND n_live_tup > 0)
                 FROM pg_database WHERE datname = current_database()";
    Ok(Client::connect(&database.superuser_url(), NoTls)?.query_one(sql, &[])?.get(0))
}
