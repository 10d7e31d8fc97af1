//! `tidemark config show`: what is in force, and where each value came from. Asks no server.

use super::kafka_options::Options;
use tidemark_loader::error::Result;

/// Arguments of `tidemark config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print each value with the place it came from, as the file that would give it; secrets as ***
    Show {
        #[command(flatten)]
        options: Box<Options>,
        /// How to print it
        #[arg(long, default_value = "toml", value_enum)]
        output: Output,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// TOML, with the places as comments
    Toml,
    /// One JSON object
    Json,
}

/// Prints it to standard output.
pub async fn run(args: Args) -> Result<()> {
    let Command::Show { options, output } = args.command;
    let config = options.load()?;
    match output {
        Output::Toml => say!("{}", config.effective().trim_end()),
        Output::Json => say!("{:#}", config.effective_json()),
    }
    Ok(())
}
