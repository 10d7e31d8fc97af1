//! What stands in for the commands that talk to Kafka in a binary that was built without the feature `kafka`. They are
//! listed as ever, take any arguments, and say what is missing.

use std::ffi::OsString;

#[cfg(not(feature = "kafka"))]
use tidemark_loader::config::Config;
use tidemark_loader::error::{Error, Kind, Result};

/// Arguments of each of them; `--help` is one.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    any: Vec<OsString>,
}

impl Args {
    /// That of the log is all that is asked for.
    #[cfg(not(feature = "kafka"))]
    pub fn config(&self) -> Result<Config> {
        Ok(Config::default())
    }
}

/// Says what to do.
pub async fn run(_: Args) -> Result<()> {
    let next = "build one that has it: cargo build --release -p tidemark-cli";
    Err(Error::new(Kind::Usage, "cannot talk to Kafka", "this tidemark was built without it", next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn any_arguments_lead_to_the_way_out() {
        for arguments in ["run --topic events --until-caught-up", "run --help", "run", "run set web -- x"] {
            let cli = <Cli as clap::Parser>::try_parse_from(arguments.split(' ')).unwrap();
            let error = run(cli.args).await.unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.to_string().contains("without it; build one"), "{error}");
        }
    }
}
