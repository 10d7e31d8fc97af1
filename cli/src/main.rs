//! The `tidemark` command: reads the command line, runs the command, turns an error into one line and an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tidemark_cli::Cli;
use tidemark_loader::error::{Error, Kind};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Also librdkafka's: what it unpacks leaves holes in glibc's heaps, of which each thread may have one.
#[cfg(feature = "kafka")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let e = without_values(e);
            let _ = e.print();
            // Help and version are no errors.
            return if e.use_stderr() { ExitCode::from(Kind::Usage.exit_code()) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(e) = cli.log().and_then(|(level, json)| start_log(&level, json)) {
        return failed(&e);
    }
    match tidemark_cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

/// What is quoted of a command line that is not understood ends where a value may begin: `--databse-url=...`, a database URL
/// where none belongs.
fn without_values(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind)
            && let Some(end) = text.find("://").or_else(|| text.find('='))
        {
            let shown = format!("{}...", &text[..end]);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("tidemark: {error}");
    ExitCode::from(error.kind.exit_code())
}

fn start_log(level: &str, json: bool) -> Result<(), Error> {
    let filter: Targets = level.parse().map_err(|e| {
        let next = "correct level in [log] of the configuration, or TIDEMARK_LOG; info is one";
        Error::new(Kind::Config, format!("cannot use the log level {level}"), e, next)
    })?;
    let log = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    if json {
        log.with(lines.json().flatten_event(true)).init();
    } else {
        log.with(lines.with_ansi(std::io::stderr().is_terminal())).init();
    }
    Ok(())
}
