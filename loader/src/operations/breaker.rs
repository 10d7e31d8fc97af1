//! The circuit breaker: whether a batch has so many dead letters that a topic should pause before it is committed.
//! A bad deploy of a producer must not turn a topic into dead letters while nobody looks. No I/O here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::Slot;

/// When it opens.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest accepted share of dead letters; 1 switches this off.
    pub max_ratio: f64,
    /// About how many records the share is measured over.
    pub min_sample: u64,
    /// Most dead letters in a row of one partition; 0 switches this off.
    pub max_consecutive: u64,
}

/// Dead letters in a row, by topic and partition.
type Runs = HashMap<(Arc<str>, i32), u64>;

/// What the committed batches were like. Shared by all that load one topic in this process.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    /// Off after a person said so, until what comes is good again.
    armed: bool,
    /// Records and dead letters among about the last `min_sample`.
    read: f64,
    dead: f64,
    runs: Runs,
}

/// What a batch would make of a breaker.
#[derive(Debug)]
pub struct Verdict {
    read: f64,
    dead: f64,
    runs: Runs,
    /// Why the batch should not be committed.
    pub open: Option<String>,
}

impl Breaker {
    /// One that has seen nothing yet.
    pub fn new(limits: Limits) -> Self {
        Breaker { limits, armed: true, read: 0.0, dead: 0.0, runs: Runs::new() }
    }

    /// Forgets what it has seen. Without `armed` it lets everything pass until a sample is good again.
    pub fn reset(&mut self, armed: bool) {
        *self = Breaker { armed, ..Breaker::new(self.limits) };
    }

    /// Whether it would open at all.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Judges a batch: for each record the index of its slot and whether it is a dead letter.
    pub fn judge(&self, slots: &[Slot], records: impl Iterator<Item = (usize, bool)>) -> Verdict {
        let mut runs: Vec<u64> = slots
            .iter()
            .map(|s| self.runs.get(&(s.topic.clone(), s.partition)).copied().unwrap_or(0))
            .collect();
        let mut longest = vec![0; slots.len()];
        let (mut read, mut dead) = (0_u64, 0_u64);
        for (slot, is_dead) in records {
            read += 1;
            dead += u64::from(is_dead);
            runs[slot] = if is_dead { runs[slot] + 1 } else { 0 };
            longest[slot] = longest[slot].max(runs[slot]);
        }
        let sample = self.limits.min_sample as f64;
        let (mut all, mut bad) = (self.read + read as f64, self.dead + dead as f64);
        let mut open = None;
        if all >= sample && bad > self.limits.max_ratio * all {
            open = Some(format!(
                "{bad:.0} of the last {all:.0} records are dead letters, more than dead_letters.max_ratio = {} allows",
                self.limits.max_ratio
            ));
        }
        for (slot, run) in slots.iter().zip(&longest) {
            if self.limits.max_consecutive > 0 && *run > self.limits.max_consecutive && open.is_none() {
                open = Some(format!(
                    "{run} records in a row of {} [{}] are dead letters, more than dead_letters.max_consecutive = {} allows",
                    slot.topic, slot.partition, self.limits.max_consecutive
                ));
            }
        }
        if all > sample {
            // Remember the share as if it were that of the last sample.
            (all, bad) = (sample, bad / all * sample);
        }
        let runs = slots.iter().map(|s| (s.topic.clone(), s.partition)).zip(runs).collect();
        Verdict { read: all, dead: bad, runs, open: open.filter(|_| self.armed) }
    }

    /// The batch was committed.
    pub fn accept(&mut self, verdict: Verdict) {
        (self.read, self.dead) = (verdict.read, verdict.dead);
        self.runs.extend(verdict.runs);
        let good = self.dead <= self.limits.max_ratio * self.read;
        if !self.armed
            && self.read >= self.limits.min_sample as f64
            && good
            && self.runs.values().all(|run| *run == 0)
        {
            self.armed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_ratio: 0.5, min_sample: 1000, max_consecutive: 5000 };

    fn slots() -> Vec<Slot> {
        [0, 1]
            .map(|partition| Slot {
                topic: Arc::from("t"),
                topic_id: 1,
                partition,
                epoch: 1,
                run: 1,
                from: 0,
                to: 1,
                leader_epoch: None,
            })
            .to_vec()
    }

    /// Feeds batches of (slot, records, dead ones at their end) until one is refused.
    fn feed(breaker: &mut Breaker, batches: &[(usize, u64, u64)]) -> Option<(usize, String)> {
        for (i, (slot, n, dead)) in batches.iter().enumerate() {
            let verdict = breaker.judge(&slots(), (0..*n).map(|k| (*slot, k >= n - dead)));
            if let Some(why) = verdict.open {
                return Some((i, why));
            }
            breaker.accept(verdict);
        }
        None
    }

    #[test]
    fn a_few_bad_records_pass_and_many_do_not() {
        let mut breaker = Breaker::new(LIMITS);
        assert_eq!(feed(&mut breaker, &[(0, 20_000, 200), (1, 10, 10), (0, 999, 400)]), None);
        // A whole batch of bad ones is refused at once, be it as large as it may.
        let (at, why) = feed(&mut breaker, &[(0, 20_000, 20_000)]).unwrap();
        assert!(at == 0 && why.contains("max_ratio = 0.5"), "{why}");
    }

    #[test]
    fn small_batches_add_up() {
        let mut breaker = Breaker::new(LIMITS);
        let (at, _) = feed(&mut breaker, &[(0, 10, 10); 200]).unwrap();
        assert_eq!(at, 99, "not before the sample is complete");
        let mut breaker = Breaker::new(LIMITS);
        assert_eq!(feed(&mut breaker, &[(0, 50_000, 0)]), None);
        let (at, _) = feed(&mut breaker, &[(0, 100, 100); 200]).unwrap();
        assert!((5..=9).contains(&at), "the many good ones of long ago do not count: {at}");
    }

    #[test]
    fn a_partition_of_its_own_is_noticed_by_its_row_of_bad_records() {
        let mut breaker = Breaker::new(LIMITS);
        let batches: Vec<_> = (0..100).flat_map(|_| [(0, 900, 0), (1, 100, 100)]).collect();
        let (at, why) = feed(&mut breaker, &batches).unwrap();
        assert!(at == 101 && why.contains("t [1]") && why.contains("max_consecutive"), "{at} {why}");
    }

    #[test]
    fn it_can_be_switched_off() {
        let off = Limits { max_ratio: 1.0, min_sample: 1, max_consecutive: 0 };
        assert_eq!(feed(&mut Breaker::new(off), &[(0, 50_000, 50_000); 3]), None);
    }

    #[test]
    fn disarmed_it_lets_bad_records_pass_until_a_sample_is_good() {
        let mut breaker = Breaker::new(LIMITS);
        breaker.reset(false);
        assert_eq!(feed(&mut breaker, &[(0, 20_000, 20_000), (0, 100, 0)]), None);
        assert!(!breaker.is_armed());
        assert_eq!(feed(&mut breaker, &[(0, 20_000, 0)]), None);
        assert!(breaker.is_armed());
        assert!(feed(&mut breaker, &[(0, 20_000, 20_000)]).is_some());
    }
}
