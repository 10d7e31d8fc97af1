//! Hostile input, everywhere: what is in the catalog is walked, so that a new function is in these tests by itself.
//!
//! Whatever is asked ends in the same answer under any plan, or in an ERROR with the same SQLSTATE, of a class that is
//! about the input; no server crashes and no session holds out against a timeout or a cancel. What an answer should be
//! is tested elsewhere.
//!
//! `arguments` makes calls from the types and names of arguments, `inputs` the rows they meet; `ways`, `memory` and
//! `time` ask the aggregates, `timelines` the reports, `functions` the rest, `bytes` the types; `report` judges what comes of a statement, and
//! counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod arguments;
mod bytes;
mod functions;
mod inputs;
mod memory;
mod report;
mod time;
mod timelines;
mod ways;

use std::sync::{Mutex, PoisonError};

use arguments::Aggregate;
use report::Report;
use tidemark_tests::cluster::{Cluster, Database};

/// Held by each test: both are busy, and both measure time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn an_aggregate_survives_hostile_rows_in_every_way() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start_with("walk", &["max_worker_processes=16", "max_parallel_workers=16"]);
    let database = database(&cluster);
    let aggregates = Aggregate::all(&mut database.connect());
    assert!(aggregates.len() > 30, "only {} aggregates", aggregates.len());
    let report = Report::default();
    ways::walk(&database, &aggregates, &report);
    time::walk(&database, &aggregates, &report);
    report.look_into_log(&database);
    memory::walk(&aggregates, &report);
    report.fail_without_answers(&["timeout 1 s", "cancelled", "altered result"]);
    report.print();
}

#[test]
fn a_function_survives_hostile_arguments() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start("walk-functions");
    let database = database(&cluster);
    let report = Report::default();
    functions::walk(&database, &report);
    bytes::walk(&database, &report);
    report.look_into_log(&database);
    report.print();
}

#[test]
fn a_timeline_survives_large_dates() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let report = Report::default();
    timelines::with_little_memory(&report);
    let cluster = Cluster::start("walk-timelines-in-a-hurry");
    let database = database(&cluster);
    timelines::in_a_hurry(&database, &report);
    report.look_into_log(&database);
    report.print();
}

/// A database with the extension.
fn database(cluster: &Cluster) -> Database<'_> {
    let database = cluster.empty_database();
    database.connect().batch_execute("CREATE EXTENSION tidemark").unwrap();
    database
}

/// Has a few threads take the items; a panic of any of them is one of the test.
fn share_out<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let item = items.lock().unwrap().next();
                    let Some(item) = item else { return };
                    work(item);
                }
            });
        }
    });
}
