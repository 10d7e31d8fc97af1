//! `tidemark pause` and `tidemark resume`: stops all loaders of a pipeline at their position without stopping their
//! processes, and lets them go on; also with topics that loaders have paused.

use tokio_postgres::Client;

use super::Database;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::position;

/// Arguments of `tidemark pause`.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    database: Database,
}

/// Arguments of `tidemark resume`.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    /// Only this topic of it; without this the pipeline and all topics of it that are paused
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Let what cannot be loaded of these topics become dead letters, however many, until what comes is good again
    #[arg(long)]
    accept_dead_letters: bool,
    #[command(flatten)]
    database: Database,
}

async fn find(client: &Client, name: &str) -> Result<Result<i32>, tokio_postgres::Error> {
    let sql = "SELECT pipeline_id FROM loader.pipelines WHERE name = $1";
    if let Some(row) = client.query_opt(sql, &[&name]).await? {
        return Ok(Ok(row.get(0)));
    }
    let known = client.query("SELECT name FROM loader.pipelines ORDER BY name", &[]).await?;
    let known: Vec<&str> = known.iter().map(|row| row.get(0)).collect();
    let next = if known.is_empty() {
        "there is none yet".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Ok(Err(Error::new(Kind::Usage, format!("cannot find pipeline {name}"), "no such pipeline", next)))
}

/// Pauses; prints what changed to standard output.
pub async fn pause(args: PauseArgs) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot pause the pipeline", &config, &e);
    let id = find(&client, &args.pipeline).await.map_err(explain)??;
    let user: String = client.query_one("SELECT current_user::text", &[]).await.map_err(explain)?.get(0);
    let reason = args.reason.as_deref().unwrap_or("no reason was given");
    if position::pause(&client, id, &user, reason).await.map_err(explain)? {
        say!("pipeline {} is paused; its loaders stop within seconds and wait", args.pipeline);
    } else {
        say!("pipeline {} was paused already, nothing to do", args.pipeline);
    }
    Ok(())
}

/// Resumes; prints what changed to standard output.
pub async fn resume(args: ResumeArgs) -> Result<()> {
    let config = args.database.config()?;
    let client = connection::connect_once(&config).await?;
    let explain = |e: tokio_postgres::Error| connection::explain("cannot resume the pipeline", &config, &e);
    let id = find(&client, &args.pipeline).await.map_err(explain)??;
    let user: String = client.query_one("SELECT current_user::text", &[]).await.map_err(explain)?.get(0);
    let (topic, accept) = (args.topic.as_deref(), args.accept_dead_letters);
    let topics = position::resume_topics(&client, id, topic, accept, &user).await.map_err(explain)?;
    let how = if accept { ", dead letters accepted until what comes is good again" } else { "" };
    topics.iter().for_each(|topic| say!("topic {topic} is resumed{how}"));
    if topic.is_none() && position::resume(&client, id).await.map_err(explain)? {
        say!("pipeline {} is resumed", args.pipeline);
    } else if topics.is_empty() {
        let what =
            topic.map_or_else(|| format!("pipeline {}", args.pipeline), |topic| format!("topic {topic}"));
        say!("{what} was not paused, nothing to do");
    }
    Ok(())
}
