//! Whether a log is still the one that a position was in: the same topic, not cut, and reaching the position.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::bounded::Range;
use super::{Kafka, identity};
use crate::error::{Error, Kind, Result};
use crate::postgres::position::Position;

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
                identity::set_leader_epoch(&mut to, topic, partition, Some(epoch));
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
