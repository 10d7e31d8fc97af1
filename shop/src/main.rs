//! The `tidemark-shop` command: makes the events of a made-up shop, and writes files of events into Kafka.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The events of a made-up shop, for trying tidemark and for its tests and benchmarks.
#[derive(Debug, Parser)]
#[command(name = "tidemark-shop", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the events of a made-up shop, one JSON object a line; the same arguments give the same bytes
    Generate(tidemark_shop::Args),
    /// Write a file of events into a Kafka topic, line by line
    #[cfg(feature = "kafka")]
    Produce(tidemark_shop::produce::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Generate(args) => match tidemark_shop::run(&args) {
            Ok(_) => ExitCode::SUCCESS,
            Err(e) => failed(
                &format!("cannot generate events: {e}; see tidemark-shop generate --help"),
                e.exit_code(),
            ),
        },
        #[cfg(feature = "kafka")]
        Command::Produce(args) => match tidemark_shop::produce::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&e.to_string(), e.kind.exit_code()),
        },
    }
}

fn failed(why: &str, code: u8) -> ExitCode {
    eprintln!("tidemark-shop: {why}");
    ExitCode::from(code)
}
