//! `tidemark maintain`: partitions ahead of now, models refreshed for their dirty dates, the materialized views below
//! which a model changed, what is past its retention, and the loader's own books. What is done to partitions is in
//! `postgres/partitions` of the loader, what to the books in `migrations/V7__books_retention.sql`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::Database;
use tidemark_loader::error::{Error, Result};
use tidemark_loader::operations::state::Shared;
use tidemark_loader::postgres::connection::{self, Config, Kept};
use tidemark_loader::postgres::ledger;
use tidemark_loader::postgres::partitions::{self, Work};

/// How often a running loader looks whether something was committed.
const LOOK: Duration = Duration::from_millis(100);
/// The least time between two refreshes.
const SOONEST: Duration = Duration::from_secs(1);

/// Arguments of `tidemark maintain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    database: Database,
    /// Print what would be done to partitions, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Does one round and prints what it did to standard output; what failed is said at its end.
pub async fn run(args: Args) -> Result<()> {
    let config = args.database.config()?;
    let mut client = connection::connect_once(&config).await?;
    if args.dry_run {
        let plan = partitions::plan(&client).await;
        for line in plan.map_err(|e| connection::explain("cannot plan maintenance", &config, &e))? {
            say!("{line}");
        }
        return Ok(());
    }
    // Without the extension everything would fail, one by one, for the same reason.
    let there = client.batch_execute("SELECT FROM tidemark.model_status LIMIT 0").await;
    there.map_err(|e| connection::explain("cannot maintain", &config, &e))?;
    let done = round(&mut client, &config).await;
    say!("partitions created: {}", done.created);
    say!("partitions retired: {}", done.retired);
    say!("dates that a model still needs: {}", done.refused);
    say!("dates of models recomputed: {}", done.dates);
    say!("materialized views refreshed: {}", done.views);
    say!("batches of past hours counted: {}", done.counted);
    say!("batches and dead letters removed: {}", done.removed);
    if done.forgotten > 0 {
        say!("dates of seen ids dropped: {}", done.forgotten);
    }
    let mut failures = done.failures.into_iter();
    let first = failures.next();
    for failure in failures {
        tracing::warn!("{failure}");
    }
    first.map_or(Ok(()), Err)
}

/// Does a round every now and then until told to stop, and between them refreshes models as soon as a batch was
/// committed. What fails is logged and tried again with the next round: loading goes on without it.
pub async fn every(config: Config, period: Duration, state: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut client: Option<Kept> = None;
    // Nothing is loaded yet.
    let mut round_at = Instant::now() + period;
    let mut refresh_at = Instant::now();
    let mut seen = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(round_at.min(refresh_at)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let began = Instant::now();
        let batches = state.with(|s| s.tally.batches.values().sum::<u64>());
        let whole = began >= round_at;
        if !whole && batches == seen {
            refresh_at = began + LOOK;
            continue;
        }
        seen = batches;
        if whole {
            round_at = began + period;
        }
        let open = match client.take().and_then(Kept::usable) {
            Some(open) => Ok(open),
            None => connection::connect(&config).await.map(Kept::new),
        };
        let mut failures = Vec::new();
        match open {
            Ok(mut open) => {
                let done = if whole {
                    round(&mut open, &config).await
                } else {
                    let mut done = Done::default();
                    refresh(&mut open, &config, &mut done).await;
                    done
                };
                tracing::debug!(
                    created = done.created,
                    retired = done.retired,
                    refused = done.refused,
                    dates = done.dates,
                    views = done.views,
                    counted = done.counted,
                    removed = done.removed,
                    forgotten = done.forgotten,
                    "maintained"
                );
                failures.extend(done.failures.iter().map(ToString::to_string));
                // A connection on which something failed is not used again.
                client = done.failures.is_empty().then_some(open);
            }
            Err(e) => failures.push(format!("maintenance failed: {}", connection::full_message(&e))),
        }
        // At most one a second, and not for more than half of the time: loading needs the machine as well.
        refresh_at = Instant::now() + began.elapsed().max(SOONEST);
        if !failures.is_empty() {
            round_at = round_at.max(Instant::now() + period);
            refresh_at = round_at;
        }
        for failure in failures {
            tracing::warn!("{failure}; next try in {} s", period.as_secs());
        }
    }
}

#[derive(Default)]
struct Done {
    created: i64,
    retired: i64,
    refused: i64,
    dates: i64,
    views: i64,
    counted: i64,
    removed: i64,
    forgotten: i32,
    failures: Vec<Error>,
}

/// Everything that is due, through the extension; what fails stops nothing else. Retention comes last, when the models
/// have read what they were waiting for. The procedures commit within, so none of this stands in a transaction; what an
/// interrupted round leaves undone, the next one finds.
async fn round(client: &mut Client, config: &Config) -> Done {
    let mut done = Done::default();
    partitions::maintain(client, config, &[Work::Create], &mut done.created, &mut done.failures).await;

    // Before the refresh, which computes what it marks.
    match check_reporting(client).await {
        Ok(0) => {}
        Ok(dates) => tracing::warn!(
            "the time zone of gold.reporting has other offsets than before on {dates} dates: they are computed again"
        ),
        Err(error) => {
            done.failures.push(connection::explain("checking the time zone failed", config, &error))
        }
    }
    let before = counters(client).await.ok();
    refresh(client, config, &mut done).await;
    if let Err(error) = client.batch_execute("CALL tidemark.refresh_materialized_views()").await {
        done.failures.push(connection::explain("refreshing materialized views failed", config, &error));
    }
    match (before, counters(client).await) {
        (Some((dates, views)), Ok((dates_after, views_after))) => {
            done.dates = dates_after - dates;
            done.views = views_after - views;
        }
        (_, Err(error)) => done.failures.push(connection::explain("counting failed", config, &error)),
        (None, Ok(_)) => {}
    }

    let retention = [Work::Retire, Work::Drop];
    partitions::maintain(client, config, &retention, &mut done.retired, &mut done.failures).await;
    match partitions::refused(client).await {
        Ok(refused) => done.refused = refused,
        Err(error) => done.failures.push(connection::explain("looking at retention failed", config, &error)),
    }
    match ledger::drop_old(client).await {
        Ok(dropped) => done.forgotten = dropped,
        Err(error) => done.failures.push(connection::explain("dropping seen ids failed", config, &error)),
    }
    if let Err(error) = keep_books(client, &mut done).await {
        done.failures.push(connection::explain("keeping the books failed", config, &error));
    }
    done
}

/// Brings the models up to date. Materialized views, which are across all dates, have time until the next round.
async fn refresh(client: &mut Client, config: &Config, done: &mut Done) {
    const REFRESH: &str = "CALL tidemark.refresh(NULL, NULL)";
    /// What gold is made of once it is known who everybody is, and not for a second time when it is.
    const FIRST: [&str; 3] = [
        "CALL tidemark.refresh('silver.events')",
        "CALL tidemark.refresh('identity.device_days')",
        "CALL identity.resolve()",
    ];
    if first_time(client).await {
        // What fails here fails again below, where it is said.
        for call in FIRST {
            let _ = client.batch_execute(call).await;
        }
    }
    let refreshed = client.batch_execute(REFRESH).await;
    if client.is_closed() {
        done.failures
            .extend(refreshed.err().map(|e| connection::explain("refreshing models failed", config, &e)));
        return;
    }
    // Last: what has been read by then need not be read as a whole when it changes.
    let resolved = match may_execute(client, "identity", "resolve").await {
        Ok(true) => client.batch_execute("CALL identity.resolve()").await,
        may => may.map(|_| ()),
    };
    let refreshed = match refreshed {
        Ok(()) => client.batch_execute(REFRESH).await,
        failed => failed,
    };
    for (what, result) in [("refreshing models failed", refreshed), ("resolving identity failed", resolved)] {
        done.failures.extend(result.err().map(|e| connection::explain(what, config, &e)));
    }
}

/// Marks the dates on which the time zone of reports came to mean something else; how many these are.
async fn check_reporting(client: &Client) -> Result<i64, tokio_postgres::Error> {
    if !may_execute(client, "gold", "check_reporting").await? {
        return Ok(0);
    }
    Ok(client.query_one("SELECT gold.check_reporting()", &[]).await?.get(0))
}

/// Whether identity was never resolved.
async fn first_time(client: &Client) -> bool {
    let sql = "SELECT resolved_at IS NULL FROM identity.status";
    client.query_one(sql, &[]).await.is_ok_and(|row| row.get(0))
}

/// Whether a function of the warehouse is there and for us: a loader's own role may do without.
async fn may_execute(client: &Client, schema: &str, name: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = "SELECT EXISTS (
                      SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
                       WHERE n.nspname = $1 AND p.proname = $2
                         AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                         AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))";
    Ok(client.query_one(sql, &[&schema, &name]).await?.get(0))
}

/// Sums up and clears away what the books no longer need; nothing for who may not, as a loader's own role.
async fn keep_books(client: &Client, done: &mut Done) -> Result<(), tokio_postgres::Error> {
    let mut more = may_execute(client, "loader", "keep_books").await?;
    while more {
        let row = client.query_one("SELECT * FROM loader.keep_books()", &[]).await?;
        done.counted += row.get::<_, i64>("counted");
        done.removed += row.get::<_, i64>("removed_batches") + row.get::<_, i64>("removed_letters");
        more = row.get("more");
        let missing: i64 = row.get("missing");
        if missing > 0 {
            tracing::warn!(
                "{missing} rows that were loaded an hour or two ago are no longer in their tables; \
                 n_missing in loader.batch_totals says on which dates"
            );
        }
    }
    Ok(())
}

/// How many dates of models and how many materialized views have been refreshed in all.
async fn counters(client: &Client) -> Result<(i64, i64), tokio_postgres::Error> {
    let sql = "SELECT (SELECT coalesce(sum(refresh_count), 0)::bigint FROM tidemark.model_status), \
               (SELECT coalesce(sum(refresh_count), 0)::bigint FROM tidemark.materialized_views)";
    let row = client.query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1)))
}
