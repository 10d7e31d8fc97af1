//! Whether Kafka is there, in few words: librdkafka tells of each connection that fails, which is twenty a second when the
//! brokers are away. Said is when that begins, once a minute while it lasts, and when it is over.

use std::time::{Duration, Instant};

/// How often it is said that there is still trouble.
const REMIND: Duration = Duration::from_secs(60);

/// How long nothing must have failed. Longer than librdkafka waits between two tries to connect
/// (`reconnect.backoff.max.ms`, 10 s), so that one broker of several that stays away is one trouble.
const QUIET: Duration = Duration::from_secs(15);

/// What is known about the connections to the brokers.
#[derive(Debug, Default)]
pub struct Link {
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    said: Instant,
    last: Instant,
    /// Failures since something was said.
    more: u64,
    /// It was said that a broker does not let us in.
    refused: bool,
}

impl Link {
    /// Something failed, or a broker is there and refuses us. Returns what to say about it, if anything.
    pub fn failed(&mut self, now: Instant, refused: bool, why: &str) -> Option<String> {
        let trouble = match &mut self.trouble {
            // Also what comes of it: a refused connection is a failed one, and then all brokers are down.
            Some(trouble) if trouble.refused || !refused => trouble,
            other => {
                let since = other.as_ref().map_or(now, |trouble| trouble.since);
                *other = Some(Trouble { since, said: now, last: now, more: 0, refused });
                return Some(format!("Kafka: {why}; it is tried again, and said once a minute"));
            }
        };
        trouble.last = now;
        trouble.more += 1;
        if now.duration_since(trouble.said) < REMIND {
            return None;
        }
        let (for_seconds, more) = (now.duration_since(trouble.since).as_secs(), trouble.more);
        (trouble.said, trouble.more) = (now, 0);
        Some(format!("Kafka, for {for_seconds} s now: {why} ({more} failures since this was said last)"))
    }

    /// Whether a broker does not let us in.
    pub fn refused(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.refused)
    }

    /// A broker answers. Returns what to say, if that is news.
    pub fn works(&mut self, now: Instant) -> Option<String> {
        let trouble = self.trouble.take_if(|trouble| now.duration_since(trouble.last) >= QUIET)?;
        let seconds = trouble.last.duration_since(trouble.since).as_secs();
        Some(format!("Kafka is there again; connections failed for {seconds} s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_a_line_when_it_begins_one_a_minute_and_one_when_it_ends() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut link = Link::default();
        assert_eq!(link.works(at(0)), None);
        // Twenty failures a second for five minutes; in between the statistics say that a broker is up.
        let mut said = Vec::new();
        for n in 0..6_000u64 {
            let now = at(1) + Duration::from_millis(n * 50);
            said.extend(link.failed(now, false, "all brokers are down"));
            said.extend(link.works(now));
        }
        assert_eq!(said.len(), 5, "{said:?}");
        assert!(said[0].starts_with("Kafka: all brokers are down"), "{said:?}");
        assert!(
            said[1].starts_with("Kafka, for 60 s now: ") && said[1].contains("1200 failures"),
            "{said:?}"
        );
        assert_eq!(link.works(at(310)), None);
        assert_eq!(link.works(at(317)).unwrap(), "Kafka is there again; connections failed for 299 s");
        assert_eq!(link.works(at(320)), None);
        assert!(link.failed(at(400), false, "x").unwrap().starts_with("Kafka: x"));
        // It is there, and does not let us in: that is news, once.
        assert!(link.failed(at(401), true, "wrong password").unwrap().starts_with("Kafka: wrong password"));
        assert_eq!(link.failed(at(402), false, "x"), None);
        assert_eq!(link.failed(at(403), true, "wrong password"), None);
        assert_eq!(link.works(at(420)).unwrap(), "Kafka is there again; connections failed for 3 s");
    }
}
