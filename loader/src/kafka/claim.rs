//! One claim: whether the log is still the one that the position was in (the same topic, not cut, and reaching the
//! position), and what is done in Postgres over the connection for claims, patiently. Which partitions are claimed, and
//! when, is in `membership`.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio_postgres::{Client, Error as PgError};

use super::bounded::Range;
use super::membership::{Context, DRAIN, locked};
use super::{Ended, Kafka, OnDataLoss, record};
use crate::error::{Error, Kind, Result};
use crate::postgres::backends;
use crate::postgres::connection::{self, Kept};
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
            settings.state.with(|state| state.polled());
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
        backends::be_patient(&client).await?;
        Ok(Kept::new(client))
    }

    /// Does something over the connection for claims, and tries again for a while. It waits for no lock longer than
    /// [`backends::PATIENCE`], and says who holds it; and it hears that we are to stop.
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
            let once = async {
                let client = self.claims().await?;
                let done = backends::watched(postgres, &client, what, work(&client)).await?;
                *locked(&self.claims) = Some(client);
                Ok::<_, PgError>(done)
            };
            let error = self.handle.block_on(async {
                let mut once = std::pin::pin!(once);
                // A Postgres that hangs is no thread that does.
                let mut alive = tokio::time::interval(Duration::from_secs(5));
                loop {
                    tokio::select! {
                        biased;
                        once = &mut once => break once.map_err(Some),
                        _ = stop.wait_for(|stop| *stop) => break Err(None),
                        _ = alive.tick() => self.settings.state.with(|state| state.polled()),
                    }
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
            let ended = backends::end_stuck_writers(client, pipeline_id, topic, partition, owner).await?;
            if ended > 0 {
                tracing::warn!(topic, partition, "ended {ended} stuck connections of the owner before");
            }
        }
        let (claim, at) = position::claim(client, pipeline_id, topic, partition, first, owner).await?;
        Ok((topic_id, claim, at))
    }
}

const TIMEOUT: Duration = Duration::from_secs(15);

/// Why loading cannot go on at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `loader.offset_gaps.cause`.
    pub cause: &'static str,
    /// The same for a person.
    pub why: String,
    /// Offset of the oldest record that was not loaded.
    pub earliest: i64,
}

impl Kafka {
    /// What has happened to the log of a partition since it was read up to a position. Blocks.
    pub fn change(&self, topic: &str, at: &Position, log: &Range) -> Result<Option<Change>> {
        let next = at.next_offset;
        if let (Some(was), Some(is)) = (&at.topic_id, &log.topic_id)
            && was != is
        {
            let why = format!("the topic was made anew: its id was {was} and is {is} now");
            return Ok(Some(Change { cause: "topic_recreated", why, earliest: log.low }));
        }
        if next < log.low {
            let (lost, low) = (log.low - next, log.low);
            let why = format!("its {lost} records before offset {low} were deleted before they were loaded");
            return Ok(Some(Change { cause: "retention", why, earliest: low }));
        }
        let beyond = next > log.high;
        let cut = match at.leader_epoch {
            // With the same leader all the time nothing can have been cut.
            Some(epoch) if beyond || log.leader_epoch.is_some_and(|now| now > epoch) => {
                self.cut(topic, log.partition, next, epoch)?
            }
            _ => None,
        };
        let why = match cut {
            Some(cut) => format!("its log was cut at offset {cut} or before, and others follow there now"),
            None if beyond => format!("it ends at offset {}, before our position", log.high),
            None => return Ok(None),
        };
        // Where the epoch is known, all before the cut is what was loaded.
        let whole = if at.leader_epoch.is_some() { log.high } else { log.low };
        Ok(Some(Change { cause: "log_truncated", why, earliest: cut.unwrap_or(whole) }))
    }

    /// The first record before an offset that was written after the log had been cut below it; `None` if there is none.
    /// The brokers know where the epoch of the record before that offset ended. librdkafka asks them when it is to
    /// seek, and goes to where it ended if that is before.
    fn cut(&self, topic: &str, partition: i32, next: i64, epoch: i32) -> Result<Option<i64>> {
        let explain = |e: KafkaError| self.explain("cannot compare the log with the position", &e);
        let consumer = self.reader(topic, &[(partition, next)], &[("auto.offset.reset", "earliest")])?;
        let started = Instant::now();
        let mut sought = false;
        while started.elapsed() < TIMEOUT {
            if !sought {
                let mut to = TopicPartitionList::new();
                to.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(explain)?;
                record::set_leader_epoch(&mut to, topic, partition, Some(epoch));
                // Refused until the assignment has come into force.
                let answer = consumer.seek_partitions(to, TIMEOUT).map_err(explain)?;
                sought = answer.elements().iter().all(|e| e.error().is_ok());
                if !sought {
                    std::thread::sleep(Duration::from_millis(10));
                }
                continue;
            }
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => return Ok(Some(record.offset()).filter(|offset| *offset < next)),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(e)) => tracing::debug!("Kafka: {e}"),
                None => {}
            }
        }
        Err(Error::new(
            Kind::Temporary,
            format!("cannot compare the log of {topic} [{partition}] with our position"),
            "the broker does not answer in time",
            "try again",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What needs no question to a broker.
    fn change(at: &Position, log: &Range) -> Option<(&'static str, i64)> {
        let kafka = Kafka::at("127.0.0.1:1".into(), Vec::new(), Vec::new());
        kafka.change("t", at, log).unwrap().map(|change| (change.cause, change.earliest))
    }

    #[test]
    fn another_topic_a_missing_beginning_and_a_missing_end_are_told_apart() {
        let log = Range { partition: 0, low: 5, high: 20, topic_id: Some("b".into()), leader_epoch: Some(3) };
        let at = |next_offset, topic_id: Option<&str>| Position {
            next_offset,
            leader_epoch: None,
            topic_id: topic_id.map(str::to_owned),
        };
        for next in [0, 5, 12, 20, 30] {
            assert_eq!(change(&at(next, Some("a")), &log), Some(("topic_recreated", 5)));
        }
        for id in [None, Some("b")] {
            assert_eq!(change(&at(4, id), &log), Some(("retention", 5)));
            assert_eq!(change(&at(5, id), &log), None);
            assert_eq!(change(&at(20, id), &log), None);
            assert_eq!(change(&at(21, id), &log), Some(("log_truncated", 5)));
        }
        // A leader that is the same all the time has cut nothing, so nobody is asked.
        let same = Position { leader_epoch: Some(3), ..at(20, Some("b")) };
        assert_eq!(change(&same, &log), None);
        // Brokers that have no ids are not suspected.
        assert_eq!(change(&at(12, Some("a")), &Range { topic_id: None, ..log }), None);
    }
}
