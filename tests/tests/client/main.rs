//! Tests of tidemark from outside: the real binary, a real Postgres, a real Kafka. One program, so that the servers
//! are started once. Each module covers one promise; what several need is in the library of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod alerts;
mod bad_lines;
mod bi;
mod books;
mod configured;
mod create_extension;
mod dashboards;
mod dates;
mod dead_letters;
mod dedupe;
mod dimensions;
mod dump_restore;
mod enrichment;
mod erasure;
mod exports;
mod files;
mod identity;
mod kafka;
mod lanes;
mod late;
mod load;
mod mappings;
mod matrix;
mod migrate;
mod model_schedules;
mod models;
mod neighbours;
mod offsets;
mod onlookers;
mod operations;
mod plans;
mod refusals;
mod replay;
mod replication;
mod reporting;
mod retries;
mod roles;
mod running;
mod scripts;
mod silver;
mod slowly_changing;
mod splitting;
mod stage;
mod standby;
mod strangers;
mod tls;
mod topics;
mod warehouse;

use std::sync::OnceLock;

use tidemark_tests::cluster::Database;
use tidemark_tests::events::Generated;
use tidemark_tests::process::Process;

/// 200,000 events with duplicates and malformed lines, to interrupt things in the middle of.
fn big_file() -> &'static Generated {
    static FILE: OnceLock<Generated> = OnceLock::new();
    FILE.get_or_init(|| Generated::new("--events 200000 --days 6 --users 4000 --seed 7 --malformed 0.003"))
}

/// Ends all of a process's connections to a database, `times` times while it gets on; returns how often it could.
fn cut_connections(database: &Database<'_>, process: &mut Process, times: u32) -> u32 {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'tidemark'";
    let position = || database.number("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets");
    let (mut before, mut done) = (0, 0);
    while done < times && process.is_running() {
        // Only after it got on, so that it can come to its end.
        if position() > before && database.number(cut) > 0 {
            before = position();
            done += 1;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    done
}
