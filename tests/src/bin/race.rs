//! The race test for as long as wanted: `race MINUTES SEED`, or that of identity: `race MINUTES SEED identity`. A line every ten seconds; the last one sums up. Ends with
//! 1 when anything differed. `make race` builds and calls it.

use std::process::ExitCode;
use std::time::Duration;

use tidemark_tests::race::{Options, run, run_identity};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let number = |arguments: &mut dyn Iterator<Item = String>, otherwise: f64| match arguments.next() {
        None => Some(otherwise),
        Some(text) => text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0),
    };
    let (Some(minutes), Some(seed)) = (number(&mut arguments, 10.0), number(&mut arguments, 1.0)) else {
        eprintln!("race: usage: race [MINUTES] [SEED] [identity]");
        return ExitCode::from(64);
    };
    let mut options = Options::new(seed as u64, Duration::from_secs_f64(minutes * 60.0));
    options.progress = true;
    let report = match arguments.next() {
        None => run(&options, "race"),
        Some(_) => {
            (options.rows, options.writers) = (1500, 4);
            run_identity(&options, "race-identity")
        }
    };
    println!("errors that belong to it, by SQLSTATE: {:?}", report.errors);
    for what in report.differences.iter().chain(&report.live_differences).take(50) {
        println!("difference: {what}");
    }
    println!("race: seed={seed} minutes={minutes} {report}");
    if report.wrong() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
