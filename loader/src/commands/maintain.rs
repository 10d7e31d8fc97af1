//! `tidemark maintain`: partitions ahead of now, models refreshed for their dirty dates, then the materialized views
//! of schema gold that are out of date.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::{Client, Config};

use super::Database;
use crate::error::Result;
use crate::pg::{self, PgDay};
use crate::time;

/// Days ahead of today for which bronze gets partitions.
const DAYS_AHEAD: i32 = 4;

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
    println!("partitions created: {}", done.partitions);
    println!("models refreshed");
    match done.views.as_slice() {
        [] => println!("materialized views refreshed: none was out of date"),
        views => println!("materialized views refreshed: {}", views.join(", ")),
    }
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
            Ok(done) => tracing::debug!(partitions = done.partitions, views = done.views.len(), "maintained"),
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
    views: Vec<String>,
}

async fn round(client: &mut Client) -> Result<Done, tokio_postgres::Error> {
    let today = time::day_of(time::now());
    let sql = "SELECT tidemark.ensure_partitions('bronze.events'::regclass, $1, $2)::text";
    let partitions = client.query(sql, &[&PgDay(today), &PgDay(today + DAYS_AHEAD)]).await?.len();
    // Commits within, so it must not stand in a transaction.
    client.batch_execute("CALL tidemark.refresh(NULL, NULL)").await?;
    let known = "SELECT to_regclass('gold.stale_materialized_views') IS NOT NULL";
    let mut views = Vec::new();
    if client.query_one(known, &[]).await?.get(0) {
        let stale = "SELECT materialized_view::text FROM gold.stale_materialized_views ORDER BY 1";
        for row in client.query(stale, &[]).await? {
            let view: String = row.get(0);
            refresh(client, &view).await?;
            views.push(view);
        }
    }
    Ok(Done { partitions, views })
}

/// Refreshes a view and notes what it shows now. Both under one snapshot: a change that commits meanwhile is in
/// neither, so the view stays marked as out of date.
async fn refresh(client: &mut Client, view: &str) -> Result<(), tokio_postgres::Error> {
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await?;
    // The catalog spells the name with all the quotes that it needs.
    let quoted: String = transaction.query_one("SELECT $1::text::regclass::text", &[&view]).await?.get(0);
    transaction.batch_execute(&format!("REFRESH MATERIALIZED VIEW CONCURRENTLY {quoted}")).await?;
    transaction.execute("SELECT gold.mark_materialized($1)", &[&view]).await?;
    transaction.commit().await
}
