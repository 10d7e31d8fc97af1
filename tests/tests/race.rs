//! Models under writers, refreshers and `kill -9`: a short race, proof that the race notices broken promises, and a
//! refresher killed in the middle. `make race MINUTES=10` is the long form. Servers of their own, because `kill -9` of a
//! backend makes Postgres restart under everybody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::time::Duration;

use tidemark_tests::race::{Options, Sabotage, run};

#[test]
fn models_and_live_views_are_right_in_a_race() {
    let mut options = Options::new(1, Duration::from_secs(20));
    options.round = Duration::from_secs(10);
    options.crash_every = 5;
    let report = run(&options, "race-short");
    println!("{report}; errors {:?}", report.errors);
    assert!(report.wrong() == 0, "{:#?}\n{:#?}", report.differences, report.live_differences);
    // Or it proves nothing.
    assert!(report.rounds >= 2 && report.commits > 20 && report.refreshed > 50, "{report}");
    assert!(report.compared > 20 && report.compared_dirty > 0, "{report}");
    assert!(report.disturbed.iter().sum::<u64>() > 0, "{report}");
}

/// A race in which writers break the promise, without any disturbance that could be to blame instead.
fn sabotaged(sabotage: Sabotage, name: &str) {
    let mut options = Options::new(2, Duration::from_secs(6));
    options.disturb = false;
    options.redefine = false;
    options.sabotage = Some(sabotage);
    let report = run(&options, name);
    println!("{sabotage:?}: {report}, {} of them live", report.live_differences.len());
    let found = |what: &str| report.differences.iter().any(|d| d.contains(what));
    assert!(found("race.clean:"), "the table was not found wrong: {:#?}", report.differences);
    assert!(found("race.clean_live:"), "the live view was not found wrong: {:#?}", report.differences);
    assert!(found("race.summary:"), "the end of the chain was not found wrong: {:#?}", report.differences);
    assert!(found("verify_model on race.clean:"), "verify_model found nothing: {:#?}", report.differences);
}

#[test]
fn the_race_notices_marks_that_are_forgotten() {
    sabotaged(Sabotage::Forgets, "race-forgets");
}

#[test]
fn the_race_notices_marks_that_commit_before_their_rows() {
    sabotaged(Sabotage::MarksApart, "race-apart");
}
