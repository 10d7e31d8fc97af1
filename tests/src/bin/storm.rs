//! `make storm`: loads a topic while everything around it is killed, then compares with what was produced. The work is
//! in the module `storm` of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::process::ExitCode;

use tidemark_tests::storm::{Plan, run};

fn main() -> ExitCode {
    let number = |name: &str, default: u64| -> u64 {
        match std::env::var(name) {
            Ok(text) if !text.is_empty() => {
                text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number"))
            }
            _ => default,
        }
    };
    let plan = Plan {
        seed: number("SEED", 1),
        kills: number("KILLS", 200),
        events: number("EVENTS", 2_000_000),
        minutes: number("MINUTES", 0),
    };
    let verdict = run(&plan);
    for complaint in &verdict.complaints {
        println!("{complaint}");
    }
    println!("{verdict}");
    if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
