//! Topics that are not read while others are: paused ones and missing ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use crate::postgres::position::Claim;

/// A topic of which nothing is read until somebody resumes it.
#[derive(Clone, Debug)]
pub struct PausedTopic {
    /// Why.
    pub why: String,
    /// Postgres knows.
    told: bool,
}

impl State {
    /// Somebody has looked which topics there are. Returns what to say, where it is news.
    pub fn look_missing(&mut self, missing: &BTreeMap<String, String>) -> Vec<String> {
        let gone = missing.iter().filter(|(topic, _)| !self.missing.contains_key(*topic));
        let mut news: Vec<String> =
            gone.map(|(topic, why)| format!("topic {topic} is waited for: {why}")).collect();
        let back = self.missing.keys().filter(|topic| !missing.contains_key(*topic));
        news.extend(back.map(|topic| format!("topic {topic} is there now")));
        self.missing.clone_from(missing);
        news
    }

    /// We cannot go on with a topic. Returns whether that is news.
    pub fn pause_topic(&mut self, topic: &str, why: &str) -> bool {
        let news = !self.paused_topics.contains_key(topic);
        let paused = || PausedTopic { why: why.to_owned(), told: false };
        self.paused_topics.entry(topic.into()).or_insert_with(paused);
        news
    }

    /// Topics that we have paused and Postgres does not know of, each with why.
    pub fn untold(&self) -> Vec<(Arc<str>, String)> {
        let untold = self.paused_topics.iter().filter(|(_, paused)| !paused.told);
        untold.map(|(topic, paused)| (topic.clone(), paused.why.clone())).collect()
    }

    /// Now it does.
    pub fn told(&mut self, topic: &str) {
        self.paused_topics.get_mut(topic).into_iter().for_each(|paused| paused.told = true);
    }

    /// Postgres says which topics are paused. Returns those that were not, and those that are no longer.
    pub fn order(&mut self, ordered: &BTreeMap<Arc<str>, String>) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let known = &mut self.paused_topics;
        let gone = known.iter().filter(|(topic, paused)| paused.told && !ordered.contains_key(*topic));
        let resumed: Vec<Arc<str>> = gone.map(|(topic, _)| topic.clone()).collect();
        resumed.iter().for_each(|topic| _ = known.remove(topic));
        let mut news = Vec::new();
        for (topic, why) in ordered {
            let paused = PausedTopic { why: why.clone(), told: true };
            if known.insert(topic.clone(), paused).is_none() {
                news.push(topic.clone());
            }
        }
        (news, resumed)
    }

    /// Where a partition of a paused topic stands, so that how far it falls behind is seen.
    pub fn stands(&mut self, topic: &str, partition: i32, next: i64) {
        let key = (Arc::from(topic), partition);
        if self.partitions.get(&key).is_none_or(|known| !known.held && known.committed != next) {
            let claim = Claim { epoch: 0, next_offset: next, run: 0 };
            self.hold(topic, partition, claim, next);
            self.partitions.get_mut(&key).into_iter().for_each(|known| known.held = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::health::{LIMITS, line, ready};
    use crate::operations::state::Now;

    fn running() -> State {
        let mut state = State::new("web", "me");
        state.begin(1);
        for topic in ["good", "bad"] {
            state.hold(topic, 0, Claim { epoch: 1, next_offset: 10, run: 1 }, 15);
        }
        state.joined();
        state
    }

    #[test]
    fn a_paused_topic_stays_in_sight_and_the_loader_ready_as_long_as_it_has_another() {
        let mut state = running();
        assert!(state.pause_topic("bad", "made anew") && !state.pause_topic("bad", "another reason"));
        state.left();
        assert!(ready(&state, Now::get(), &LIMITS).is_err());
        state.hold("good", 0, Claim { epoch: 2, next_offset: 10, run: 1 }, 15);
        state.joined();
        assert_eq!(ready(&state, Now::get(), &LIMITS), Ok(()));
        assert!(line(&state, Now::get(), &LIMITS).ends_with("; topic bad is paused: made anew"));
        assert_eq!(state.lag(), 10);
        // With nothing else to read it is not.
        state.release("good", 0);
        let reasons = ready(&state, Now::get(), &LIMITS).unwrap_err();
        assert_eq!(reasons[0].to_string(), "topic bad is paused, and nothing else is read: made anew");
    }

    #[test]
    fn what_postgres_was_not_told_of_is_not_taken_for_resumed() {
        let mut state = running();
        state.pause_topic("bad", "made anew");
        assert_eq!(state.order(&BTreeMap::new()), (Vec::new(), Vec::new()));
        assert_eq!(state.untold(), [("bad".into(), "made anew".to_owned())]);
        state.told("bad");
        let ordered = [("bad", "made anew (by me)"), ("other", "by hand")];
        let ordered = ordered.map(|(topic, why)| (Arc::from(topic), why.to_owned())).into_iter().collect();
        assert_eq!(state.order(&ordered).0, [Arc::from("other")]);
        assert_eq!(state.order(&BTreeMap::new()).1, [Arc::from("bad"), Arc::from("other")]);
        assert!(state.paused_topics.is_empty());
    }
}
