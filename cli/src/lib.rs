//! What the `tidemark` binary offers, one module a command: arguments and dispatch. The work itself is in the modules
//! beside this one.

/// Prints a line to standard output. Whoever reads it may have gone (`| head`): that is no reason to fail.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

pub mod dead_letters;
pub mod enrich;
pub mod events;
pub mod inspect;
mod letter_filter;
mod letter_text;
pub mod load;
pub mod maintain;
pub mod migrate;
pub mod options;
pub mod output;
pub mod pause;
pub mod person;
pub mod status;

// What talks to Kafka, or stands in for it.
#[cfg(feature = "kafka")]
pub mod check;
#[cfg(feature = "kafka")]
pub mod config;
#[cfg(feature = "kafka")]
pub mod kafka_options;
#[cfg(feature = "kafka")]
pub mod offsets;
#[cfg(feature = "kafka")]
pub mod replay;
#[cfg(feature = "kafka")]
pub mod run;
#[cfg(any(test, not(feature = "kafka")))]
mod without_kafka;
#[cfg(not(feature = "kafka"))]
use {
    without_kafka as check, without_kafka as config, without_kafka as offsets, without_kafka as replay,
    without_kafka as run,
};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tidemark_loader::config::Config;
use tidemark_loader::error::{Error, Kind, Result};

/// What the process ends with; the table in docs/loader.md says more.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   3  check found problems
  64  the command line asks for something impossible
  66  an input file is missing, unreadable, or without events
  69  Postgres or Kafka cannot be reached
  70  a bug in tidemark
  75  something that a later try may not meet again
  77  the database refuses this role
  78  configuration, server, schema or topic are not as they must be";

/// Loads product events into Postgres, exactly once, and keeps what is derived from them up to date.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or update schemas, tables, roles and the warehouse scripts
    Migrate(migrate::Args),
    /// Load files of events into bronze.events
    Load(load::Args),
    /// Show what the first records of a file would become, column by column; loads nothing and needs no database
    Inspect(inspect::Args),
    /// Load topics of Kafka into bronze.events until stopped
    #[command(after_help = EXIT_CODES)]
    Run(run::Args),
    /// Look whether everything is in place for `run`, and say what to do about what is not
    #[command(after_help = EXIT_CODES)]
    Check(check::Args),
    /// Show the configuration in force for `run`
    Config(config::Args),
    /// Stop the loaders of a pipeline at their position; their processes wait
    Pause(pause::PauseArgs),
    /// Let a paused pipeline, or topics of it, go on
    Resume(pause::ResumeArgs),
    /// Make partitions ahead, refresh models and materialized views, retire old partitions, once
    Maintain(maintain::Args),
    /// Look at events that could not be loaded, try them again, export or discard them
    DeadLetters(dead_letters::Args),
    /// Show what is known of user agents and networks, or look it up in new files
    Enrich(enrich::Args),
    /// Hand out or erase everything that is known of a person
    Person(person::Args),
    /// Show the positions of pipelines, or move them
    Offsets(offsets::Args),
    /// Load a stretch of a topic once more, into bronze.events or another table
    Replay(replay::Args),
    /// Show positions, batches, dead letters and models
    Status(status::Args),
}

/// The configuration, and where the database is.
#[derive(Clone, Debug, Args)]
pub struct Database {
    /// Configuration file (TOML); docs/loader.md lists the keys
    ///
    /// Options override variables of the environment (TIDEMARK__SECTION__KEY), which override the file.
    #[arg(long, env = "TIDEMARK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Postgres to use, as postgresql://user@host:port/database or as key=value pairs
    #[arg(long, env = "TIDEMARK_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl Database {
    /// The configuration in force as far as file, environment and these options make it.
    pub fn load(&self) -> Result<Config> {
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut config = Config::load(self.config.as_deref(), environment)?;
        if let Some(url) = self.database_url.as_deref().filter(|url| !url.is_empty()) {
            config.set_option("postgres.dsn", url, "TIDEMARK_DATABASE_URL")?;
        }
        Ok(config)
    }

    /// The connection settings, or an error that says how to give them.
    pub fn config(&self) -> Result<tidemark_loader::postgres::connection::Config> {
        options::postgres(&self.load()?)
    }
}

impl Cli {
    /// Level and form of the log.
    pub fn log(&self) -> Result<(String, bool)> {
        let config = match &self.command {
            Command::Run(args) => args.config()?,
            Command::Load(args) => args.config()?,
            Command::Replay(args) => args.config()?,
            // What is wrong with the configuration is for `check` to say.
            _ => Config::default(),
        };
        Ok(options::log(&config))
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Temporary, "cannot start", e, "free some resources and try again"))?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Migrate(args) => migrate::run(args).await,
            Command::Load(args) => load::run(args).await,
            Command::Inspect(args) => inspect::run(&args),
            Command::Run(args) => run::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Config(args) => config::run(args).await,
            Command::Pause(args) => pause::pause(args).await,
            Command::Resume(args) => pause::resume(args).await,
            Command::Maintain(args) => maintain::run(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            Command::Enrich(args) => enrich::run(args).await,
            Command::Person(args) => person::run(args).await,
            Command::Offsets(args) => offsets::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Status(args) => status::run(args).await,
        }
    });
    // Dropping it would wait for a thread that reads from a terminal or a pipe.
    runtime.shutdown_background();
    result
}

/// The id of the pipeline of this name, created if need be.
async fn position_pipeline(
    client: &tokio_postgres::Client,
    name: &str,
) -> Result<i32, tokio_postgres::Error> {
    Ok(tidemark_loader::postgres::position::pipeline(client, name).await?.0)
}

/// Names this process in `loader.offsets.owner`.
pub fn owner() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "localhost" } else { host };
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}:{}:{}", std::process::id(), &random[..8])
}
