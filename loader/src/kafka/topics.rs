//! Which topics are to be read, by names and by patterns, and which of them there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use regex::Regex;

use crate::error::{Error, Kind, Result};

/// Setting of librdkafka that says how often to look for partitions, and here for topics.
pub(super) const REFRESH: &str = "topic.metadata.refresh.interval.ms";

/// Topics to read.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    names: BTreeSet<String>,
    patterns: Vec<Regex>,
}

/// What there is of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Topics that can be read.
    pub topics: BTreeSet<String>,
    /// Names of which there is no topic, and patterns that none matches, each with why.
    pub missing: BTreeMap<String, String>,
}

impl Topics {
    /// As they are configured: what begins with `^` is a pattern.
    pub fn parse(list: &[String]) -> Result<Self> {
        let mut topics = Topics::default();
        for word in list {
            if !word.starts_with('^') {
                topics.names.insert(word.clone());
                continue;
            }
            let pattern = Regex::new(word).map_err(|e| {
                // Its last line says what; those before show where, below the pattern.
                let why = e.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let next = "correct it; a pattern has no commas, and a name does not begin with ^";
                Error::new(Kind::Usage, format!("cannot read topics that match {word}"), why, next)
            })?;
            topics.patterns.push(pattern);
        }
        Ok(topics)
    }

    /// These names.
    pub fn only(names: impl IntoIterator<Item = String>) -> Self {
        Topics { names: names.into_iter().collect(), patterns: Vec::new() }
    }

    /// Whether topics that are made later may belong to them.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a topic belongs to them. Kafka's own topics have to be named.
    pub fn want(&self, topic: &str) -> bool {
        self.names.contains(topic)
            || !topic.starts_with("__") && self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }

    /// Asks for those that there are. Blocks.
    pub(super) fn find<C: ConsumerContext>(
        &self,
        client: &BaseConsumer<C>,
        timeout: Duration,
    ) -> KafkaResult<Found> {
        let mut found = Found::default();
        for name in &self.names {
            let metadata = client.fetch_metadata(Some(name), timeout)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let error = topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
            let empty = topic.is_none_or(|topic| topic.partitions().is_empty());
            match why_not(error, empty) {
                Some(why) => _ = found.missing.insert(name.clone(), why),
                None => _ = found.topics.insert(name.clone()),
            }
        }
        if self.has_patterns() {
            let metadata = client.fetch_metadata(None, timeout)?;
            let there = metadata.topics().iter().filter(|topic| {
                let error = topic.error().map(RDKafkaErrorCode::from);
                why_not(error, topic.partitions().is_empty()).is_none()
            });
            let there: BTreeSet<&str> = there.map(|topic| topic.name()).collect();
            found.topics.extend(there.iter().filter(|name| self.want(name)).map(|name| (*name).to_owned()));
            for pattern in &self.patterns {
                if !found.topics.iter().any(|topic| pattern.is_match(topic)) {
                    found.missing.insert(pattern.as_str().to_owned(), "no topic matches it yet".to_owned());
                }
            }
        }
        Ok(found)
    }
}

/// Why there is no such topic for us. Other errors pass: they are those of a topic that is there.
fn why_not(error: Option<RDKafkaErrorCode>, empty: bool) -> Option<String> {
    use RDKafkaErrorCode::{InvalidTopic, TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition};
    match error {
        Some(UnknownTopicOrPartition | UnknownTopic) => Some("no such topic".to_owned()),
        Some(code @ (TopicAuthorizationFailed | InvalidTopic)) => Some(code.to_string()),
        None if empty => Some("no such topic".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(list: &[&str]) -> Topics {
        Topics::parse(&list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_begins_with_a_caret_is_a_pattern_and_kafkas_own_topics_have_to_be_named() {
        let all = topics(&["^", "__consumer_offsets"]);
        assert!(all.want("a") && all.want("__consumer_offsets") && !all.want("__transaction_state"));
        let some = topics(&["orders", "^shop\\.\\d+$"]);
        assert!(some.has_patterns() && some.want("orders") && some.want("shop.12"));
        assert!(!some.want("orders-eu") && !some.want("shop.12b") && !some.want("a shop.12"));
        assert!(!topics(&["orders"]).has_patterns());
    }

    #[test]
    fn an_invalid_pattern_is_named() {
        let error = Topics::parse(&["^a(".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("^a(") && error.contains("unclosed group"), "{error}");
    }
}
