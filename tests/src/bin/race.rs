//! The race test for as long as wanted: `race MINUTES SEED`. A line every ten seconds; the last one sums up. Ends with
//! 1 when anything differed. `make race` builds and calls it.

use std::process::ExitCode;
use std::time::Duration;

use tidemark_tests::race::{Options, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: f64| match arguments.next() {
        None => Some(otherwise),
        Some(text) => text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0),
    };
    let (Some(minutes), Some(seed)) = (number(10.0), number(1.0)) else {
        eprintln!("race: usage: race [MINUTES] [SEED]");
        return ExitCode::from(64);
    };
    let mut options = Options::new(seed as u64, Duration::from_secs_f64(minutes * 60.0));
    options.progress = true;
    let report = run(&options, "race");
    println!("errors that belong to it, by SQLSTATE: {:?}", report.errors);
    for what in report.differences.iter().chain(&report.live_differences).take(50) {
        println!("difference: {what}");
    }
    println!("race: seed={seed} minutes={minutes} {report}");
    if report.wrong() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
