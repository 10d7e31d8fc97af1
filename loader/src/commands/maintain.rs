//! `tidemark maintain`: partitions ahead of now, models refreshed for their dirty dates, then the materialized views
//! below which a model changed.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;

use super::Database;
use crate::error::Result;
use crate::pg::{self, Config};

/// Arguments of `tidemark maintain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
}

/// Does one round and prints what it did to standard output.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let mut client = pg::connect_once(&config).await?;
    let done = round(&mut client).await.map_err(|e| pg::explain("maintenance failed", &config, &e))?;
    say!("partitions created: {}", done.partitions);
    say!("dates of models recomputed: {}", done.dates);
    say!("materialized views refreshed: {}", done.views);
    Ok(())
}

/// Does a round every now and then until told to stop. What fails is logged and tried again the next time: loading
/// goes on without it.
pub async fn every(config: Config, period: Duration, mut stop: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut client: Option<Client> = None;
    // The first tick comes at once; nothing is loaded yet then.
    timer.tick().await;
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let result = async {
            let mut open = match client.take().filter(|c| !c.is_closed()) {
                Some(open) => open,
                None => pg::connect(&config).await?,
            };
            let done = round(&mut open).await;
            client = Some(open);
            done
        };
        match result.await {
            Ok(done) => tracing::debug!(
                partitions = done.partitions,
                dates = done.dates,
                views = done.views,
                "maintained"
            ),
            Err(e) => {
                tracing::warn!(
                    "maintenance failed, next try in {} s: {}",
                    period.as_secs(),
                    pg::full_message(&e)
                );
                client = None;
            }
        }
    }
}

struct Done {
    partitions: usize,
    dates: i64,
    views: i64,
}

/// Everything that is due, through the extension. The procedures commit within, so none of this stands in a
/// transaction; what an interrupted round leaves undone, the next one finds.
async fn round(client: &mut Client) -> Result<Done, tokio_postgres::Error> {
    let premake = "SELECT p::text FROM tidemark.partition_config c, tidemark.premake_partitions(c.parent) p";
    let partitions = client.query(premake, &[]).await?.len();
    let (dates, views) = counters(client).await?;
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").await?;
    client.batch_execute("CALL tidemark.refresh_materialized_views()").await?;
    let (dates_after, views_after) = counters(client).await?;
    Ok(Done { partitions, dates: dates_after - dates, views: views_after - views })
}

/// How many dates of models and how many materialized views have been refreshed in all.
async fn counters(client: &Client) -> Result<(i64, i64), tokio_postgres::Error> {
    let sql = "SELECT (SELECT coalesce(sum(refresh_count), 0)::bigint FROM tidemark.models), \
               (SELECT coalesce(sum(refresh_count), 0)::bigint FROM tidemark.materialized_views)";
    let row = client.query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1)))
}
