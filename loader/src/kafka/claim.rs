//! One claim: the check of the broker's offsets, and what is done in Postgres over the connection for claims, patiently.
//! Which partitions are claimed, and when, is in `membership`.

use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use tokio_postgres::{Client, Error as PgError};

use super::bounded::Range;
use super::membership::{Context, DRAIN, locked};
use super::plan::{Ended, OnDataLoss};
use crate::error::{Error, Kind};
use crate::postgres::connection::{self, Kept};
use crate::postgres::fencing;
use crate::postgres::locks;
use crate::postgres::position::{self, Claim, Position};
use crate::postgres::retry::{self, Situation, Verdict};

impl Context {
    /// Claims a partition, once its log was found to be the one that the position is in, or the policy says how to go
    /// on in another one. Returns the number of the topic, the leader epoch of the position, and the end of the log.
    pub(super) fn claim(
        &self,
        consumer: &BaseConsumer<Self>,
        topic: &str,
        partition: i32,
        id: Option<String>,
    ) -> Result<(i32, Claim, Option<i32>, i64), Ended> {
        let settings = &self.settings;
        let ask = |id| {
            Range::ask(consumer, topic, partition, id)
                .map_err(|e| Ended::Restart(format!("cannot read the offsets of {topic} [{partition}]: {e}")))
        };
        let mut log = ask(id)?;
        let topic_id = log.topic_id.clone();
        let place = |next_offset| Position { next_offset, leader_epoch: None, topic_id: topic_id.clone() };
        let what = format!("cannot claim {topic} [{partition}]");
        let first = place(log.low);
        let (number, claim, at) =
            self.in_postgres(&what, async |client| self.claim_once(client, topic, partition, &first).await)?;
        if at.next_offset > log.high {
            // The owner before has committed what came since we asked. Now nobody can.
            log = ask(topic_id.clone())?;
        }
        let change =
            settings.kafka.change(topic, &at, &log).map_err(|e| Ended::Restart(format!("{what}: {e}")))?;
        let Some(change) = change else { return Ok((number, claim, at.leader_epoch, log.high)) };
        let to = match settings.on_data_loss {
            OnDataLoss::Earliest => place(change.earliest),
            OnDataLoss::Latest => place(log.high),
            // The other topics go on. A run with an end has none without this one.
            OnDataLoss::Fail if settings.until.is_none() => {
                let at = claim.next_offset;
                let why = format!("[{partition}] cannot be continued at offset {at}: {}", change.why);
                settings.state.with(|state| state.pause_topic(topic, &why));
                tracing::error!(
                    "topic {topic} is paused: {why}; move it with `tidemark offsets set`, or choose --on-data-loss \
                     earliest or latest to go on and note the gap, then `tidemark resume`"
                );
                return Err(Ended::Restart(format!("topic {topic} is paused")));
            }
            OnDataLoss::Fail => {
                return Err(Ended::Failed(Error::new(
                    Kind::Config,
                    format!("cannot continue {topic} [{partition}] at offset {}", claim.next_offset),
                    change.why,
                    "choose --on-data-loss earliest or latest to go on and note the gap, or another --pipeline",
                )));
            }
        };
        let (from, goes_on, why) = (claim.next_offset, to.next_offset, change.why);
        tracing::warn!("{topic} [{partition}] goes on at offset {goes_on} instead of {from}: {why}");
        let id = settings.pipeline_id;
        let moved = self.in_postgres(&what, async |client| {
            position::jump(client, id, topic, partition, claim, &to, change.cause).await
        })?;
        let by_another = || Ended::Restart(format!("{topic} [{partition}] was claimed by another loader"));
        Ok((number, moved.ok_or_else(by_another)?, None, log.high))
    }

    /// Lends the connection for claims out.
    pub(super) async fn claims(&self) -> Result<Kept, PgError> {
        if let Some(lent) = locked(&self.claims).take().and_then(Kept::usable) {
            return Ok(lent);
        }
        let client = connection::connect(&self.settings.postgres).await?;
        locks::be_patient(&client).await?;
        Ok(Kept::new(client))
    }

    /// Does something over the connection for claims, and tries again for a while. It waits for no lock longer than
    /// [`locks::PATIENCE`], and says who holds it; and it hears that we are to stop.
    fn in_postgres<T>(
        &self,
        what: &str,
        work: impl AsyncFn(&Client) -> Result<T, PgError>,
    ) -> Result<T, Ended> {
        let postgres = &self.settings.postgres;
        let started = Instant::now();
        let mut failures = 0;
        let mut stop = self.stop.clone();
        loop {
            self.settings.state.with(|state| state.polled());
            let once = async {
                let client = self.claims().await?;
                let done = locks::watched(postgres, &client, what, work(&client)).await?;
                *locked(&self.claims) = Some(client);
                Ok::<_, PgError>(done)
            };
            let error = self.handle.block_on(async {
                tokio::select! {
                    biased;
                    once = once => once.map_err(Some),
                    _ = stop.wait_for(|stop| *stop) => Err(None),
                }
            });
            let error = match error {
                Ok(done) => return Ok(done),
                Err(None) => return Err(Ended::Restart(format!("{what}: we are to stop"))),
                Err(Some(error)) => error,
            };
            let verdict = retry::verdict(&error, Situation::Running);
            if matches!(verdict, Verdict::Final(_)) {
                return Err(Ended::Failed(connection::explain(what, postgres, &error)));
            }
            let why = connection::full_message(&error);
            if started.elapsed() > DRAIN {
                return Err(Ended::Restart(format!("{what}: {why}")));
            }
            failures += 1;
            let pause = retry::pause(verdict, failures).min(DRAIN);
            tracing::warn!("{what} ({verdict} in {} ms): {why}", pause.as_millis());
            self.handle.block_on(async {
                let _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
            });
        }
    }

    async fn claim_once(
        &self,
        client: &Client,
        topic: &str,
        partition: i32,
        first: &Position,
    ) -> Result<(i32, Claim, Position), PgError> {
        let settings = &self.settings;
        let known = locked(&self.topic_ids).get(topic).copied();
        let topic_id = match known {
            Some(id) => id,
            None => {
                let id = position::topic_id(client, topic).await?;
                locked(&self.topic_ids).insert(topic.to_owned(), id);
                id
            }
        };
        let (pipeline_id, owner) = (settings.pipeline_id, &settings.owner);
        if settings.end_stuck_writers {
            let ended = fencing::end_stuck_writers(client, pipeline_id, topic, partition, owner).await?;
            if ended > 0 {
                tracing::warn!(topic, partition, "ended {ended} stuck connections of the owner before");
            }
        }
        let (claim, at) = position::claim(client, pipeline_id, topic, partition, first, owner).await?;
        Ok((topic_id, claim, at))
    }
}
