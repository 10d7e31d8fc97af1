//! The `tidemark` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemark_loader::generate;

#[derive(Parser)]
#[command(name = "tidemark", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the events of a made-up shop as NDJSON
    Generate(generate::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Generate(args) => match generate::run(&args) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tidemark: {error}");
                ExitCode::from(error.exit_code())
            }
        },
    }
}
