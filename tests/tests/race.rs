//! Models under writers, refreshers and `kill -9`: a short race, proof that the race notices broken promises, and a
//! refresher killed in the middle. `make race MINUTES=10` is the long form. Servers of their own, because `kill -9` of
//! a backend makes Postgres restart under everybody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::time::Duration;

use postgres::{Client, NoTls};
use tidemark_tests::cluster::{Cluster, rows};
use tidemark_tests::race::{self, Options, Sabotage, kill_9, run};
use tidemark_tests::wait_until;

#[test]
fn models_and_live_views_are_right_in_a_race() {
    let mut options = Options::new(1, Duration::from_secs(20));
    options.round = Duration::from_secs(10);
    options.crash_every = 5;
    let report = run(&options, "race-short");
    println!("{report}; errors {:?}", report.errors);
    assert!(report.wrong() == 0, "{:#?}\n{:#?}", report.differences, report.live_differences);
    // Or it proves nothing.
    assert!(
        report.rounds >= 2
            && report.commits > 20
            && report.refreshed > 50
            && report.appended > 0
            && report.parts > 0
            && report.merged > 0
            && report.scoped > 0,
        "{report}"
    );
    assert!(report.compared > 20 && report.compared_dirty > 0, "{report}");
    assert!(report.disturbed.iter().sum::<u64>() > 0, "{report}");
}

#[test]
fn everybody_is_who_the_rules_say_in_a_race() {
    let mut options = Options::new(1, Duration::from_secs(30));
    (options.round, options.rows, options.writers) = (Duration::from_secs(15), 1000, 4);
    options.crash_every = 5;
    let report = race::run_identity(&options, "race-identity");
    println!("{report}; errors {:?}", report.errors);
    assert!(report.wrong() == 0, "{:#?}\n{:#?}", report.differences, report.live_differences);
    // Or it proves nothing.
    assert!(
        report.rounds >= 2 && report.events > 300 && report.scoped > 0 && report.compared_dirty > 0,
        "{report}"
    );
    assert!(report.known > 100 && report.disturbed.iter().sum::<u64>() > 0, "{report}");
}

/// A race in which writers break the promise, from the model `first` up to `last`, without any disturbance that could be to blame
/// instead.
fn sabotaged(sabotage: Sabotage, first: &str, last: &str, name: &str) {
    let mut options = Options::new(2, Duration::from_secs(6));
    options.disturb = false;
    options.redefine = false;
    options.sabotage = Some(sabotage);
    let report = run(&options, name);
    println!("{sabotage:?}: {report}, {} of them live", report.live_differences.len());
    let found = |what: &str| report.differences.iter().any(|d| d.contains(what));
    assert!(found(&format!("race.{first}:")), "the table was not found wrong: {:#?}", report.differences);
    assert!(
        found(&format!("race.{first}_live:")),
        "the live view was not found wrong: {:#?}",
        report.differences
    );
    assert!(found(last), "the end of the chain was not found wrong: {:#?}", report.differences);
    assert!(
        found(&format!("verify_model on race.{first}:")),
        "verify_model found nothing: {:#?}",
        report.differences
    );
}

#[test]
fn the_race_notices_marks_that_are_forgotten() {
    sabotaged(Sabotage::Forgets, "clean", "race.summary:", "race-forgets");
}

#[test]
fn the_race_notices_marks_that_commit_before_their_rows() {
    sabotaged(Sabotage::MarksApart, "clean", "race.summary:", "race-apart");
}

#[test]
fn the_race_notices_persons_who_are_not_named() {
    sabotaged(Sabotage::NamesTooFew, "visits", "race.visits:", "race-persons");
}

const PATIENCE: Duration = Duration::from_secs(60);

fn dirty(client: &mut Client) -> i64 {
    rows(client, "SELECT sum(dirty_dates) FROM tidemark.model_status")[0][0].parse().unwrap()
}

#[test]
fn the_next_refresh_finishes_what_kill_9_left_and_another_does_nothing() {
    killed("rolling");
}

#[test]
fn the_next_refresh_finishes_a_timeline_that_kill_9_left() {
    killed("timeline");
}

/// A refresh that is killed while it is about to write a date of this model.
fn killed(model: &str) {
    let cluster = Cluster::start(&format!("race-kill-{model}"));
    let database = cluster.empty_database();
    let mut client = database.connect();
    race::create(&mut client);
    race::fill(&mut client);
    // Sources come before their readers: now some dates of the first models are there.
    client.batch_execute("CALL tidemark.refresh(NULL, 40)").unwrap();
    let done = "SELECT sum(refresh_count) FROM tidemark_internal.models";
    assert_eq!(rows(&mut client, done), [["40"]]);
    let before = dirty(&mut client);
    let written = format!("SELECT count(*) FROM race.{model}");
    let written_before = rows(&mut client, &written);

    // Hold the refresher up in the middle of a date, then kill its backend.
    client.batch_execute(&format!("BEGIN; LOCK TABLE race.{model} IN SHARE MODE")).unwrap();
    let mut refresher = database.connect();
    let pid: i32 = refresher.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let thread = std::thread::spawn(move || refresher.batch_execute("CALL tidemark.refresh(NULL, NULL)"));
    let waiting = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
    wait_until("the refresh to come to the locked table", PATIENCE, || database.number(&waiting) > 0);
    assert!(kill_9(pid), "the refresher was gone already");
    assert!(thread.join().unwrap().is_err(), "the refresh went on without its backend");
    // Postgres restarts everything; the lock went with our session.
    wait_until("Postgres to recover", PATIENCE, || {
        client.simple_query("SELECT 1").is_err() && Client::connect(&database.superuser_url(), NoTls).is_ok()
    });

    let mut client = database.connect();
    let left = dirty(&mut client);
    assert!(0 < left && left <= before, "{left} of {before} dates are dirty");
    assert_eq!(rows(&mut client, &written), written_before, "the date in work was rolled back");
    // Half done, the live views are right all the same.
    let wrong: Vec<String> =
        race::wrong(&mut client, "true").into_iter().filter(|w| w.contains("_live:")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
    assert_eq!(dirty(&mut client), 0);
    assert_eq!(race::wrong(&mut client, "true"), Vec::<String>::new());
    let state = race::state(&mut client);
    assert!(state.iter().all(|row| row[1] != "0"), "an empty model proves nothing: {state:?}");
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").unwrap();
    assert_eq!(race::state(&mut client), state, "a second refresh wrote something");
}
