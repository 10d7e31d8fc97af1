//! What must not grow while a loader runs for an hour: its memory, its tables, the age of the oldest transaction id.

use postgres::Client;

use crate::cluster::Database;
use crate::process::tidemark;

/// Minutes between two times that `tidemark maintain` runs and everything is frozen.
const UPKEEP: u64 = 5;

/// One line. Postgres may go away meanwhile; then that is the line.
pub(super) fn look(client: &mut Client, database: &Database<'_>, minute: u64, memory: &str) -> String {
    let mut upkeep = String::new();
    if minute.is_multiple_of(UPKEEP) {
        let maintained = tidemark(&["maintain"]).database(&database.admin_url()).run();
        let frozen = client.batch_execute("VACUUM (FREEZE)");
        upkeep = format!(" (maintain {:?}, freeze {})", maintained.code, frozen.is_ok());
    }
    let sql = "SELECT format('age(datfrozenxid) %s of %s transactions; loader.* %s kB:',
                             age(datfrozenxid), txid_current(), (SELECT sum(pg_total_relation_size(oid))::bigint / 1024
                                                                   FROM pg_class
                                                                  WHERE relnamespace = 'loader'::regnamespace
                                                                    AND relkind IN ('r', 'm')))
               || (SELECT coalesce(string_agg(format(' %s %s', relname, n_live_tup), ',' ORDER BY relname), '')
                     FROM pg_stat_user_tables WHERE schemaname = 'loader' AND n_live_tup > 0)
                 FROM pg_database WHERE datname = current_database()";
    let found = client.query_one(sql, &[]).map(|row| row.get::<_, String>(0));
    format!("minute {minute}: {memory}; {}{upkeep}", found.unwrap_or_else(|e| e.to_string()))
}
