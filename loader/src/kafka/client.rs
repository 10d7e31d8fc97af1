//! What every client of librdkafka needs beside its settings: tokens, ears for what it says, and a way to say that in few
//! words. What a client reads is in `session`, and the client of a member in `membership`.

use std::error::Error;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, ClientContext};

/// A client that is no member of a group.
pub(super) fn connect(config: &ClientConfig) -> KafkaResult<BaseConsumer<Listener>> {
    let client: BaseConsumer<Listener> = config.create_with_context(Listener::default())?;
    // A token is asked for when somebody polls, and those who only ask questions do not.
    if config.get("sasl.mechanisms") == Some("OAUTHBEARER") {
        let _ = client.poll(Duration::from_millis(100));
    }
    Ok(client)
}

/// Keeps the first reason that librdkafka gives for a failure, such as a login that was refused.
#[derive(Default)]
pub(super) struct Listener {
    pub(super) said: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        read_token(file)
    }

    fn log(&self, level: RDKafkaLogLevel, _: &str, message: &str) {
        if level as i32 <= RDKafkaLogLevel::Error as i32 {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.get_or_insert_with(|| message.to_owned());
        }
    }

    fn error(&self, _: KafkaError, reason: &str) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }
}

impl ConsumerContext for Listener {}

/// The token of SASL OAUTHBEARER, read whenever librdkafka wants one, which is well before the last one expires. Whoever
/// puts its file there, such as an orchestrator, replaces it in time; who gave the token and what it allows is the broker's
/// business.
///
/// This is the token in this file, which librdkafka knows as `sasl.oauthbearer.config`, with the moment until which it says that
/// it is good. Never shows any of it.
pub(super) fn read_token(file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    let file = file.ok_or("kafka.sasl_token_file is not set")?;
    let token = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?.trim().to_owned();
    let claims = claims(&token).ok_or_else(|| format!("{file} holds no JSON Web Token"))?;
    let expires = claims["exp"].as_f64().ok_or_else(|| format!("the token in {file} has no expiry (exp)"))?;
    let principal_name = claims["sub"].as_str().unwrap_or_default().to_owned();
    Ok(OAuthToken { token, principal_name, lifetime_ms: (expires * 1000.0) as i64 })
}

/// The second part of a JSON Web Token (RFC 7519), decoded.
fn claims(token: &str) -> Option<serde_json::Value> {
    let (_, rest) = token.split_once('.')?;
    let (claims, _) = rest.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// How often it is said that there is still trouble.
const REMIND: Duration = Duration::from_secs(60);

/// How long nothing must have failed. Longer than librdkafka waits between two tries to connect
/// (`reconnect.backoff.max.ms`, 10 s), so that one broker of several that stays away is one trouble.
const QUIET: Duration = Duration::from_secs(15);

/// What is known about the connections to the brokers: librdkafka tells of each one that fails, which is twenty a second
/// when they are away. Said is when that begins, once a minute while it lasts, and when it is over.
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

    #[test]
    fn only_a_token_with_an_expiry_will_do() {
        let file = std::env::temp_dir().join(format!("tidemark-token-{}", std::process::id()));
        let read = |content: &str| {
            fs::write(&file, content).unwrap();
            read_token(file.to_str())
        };
        // {"alg":"none"}.{"sub":"alice","exp":1900000000}.
        let good = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6MTkwMDAwMDAwMH0.";
        let token = read(&format!("{good}\n")).unwrap();
        assert_eq!((token.token.as_str(), token.principal_name.as_str()), (good, "alice"));
        assert_eq!(token.lifetime_ms, 1_900_000_000_000);
        for bad in ["", "secret", "secret.secret.secret", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."] {
            let error = read(bad).err().unwrap().to_string();
            assert!(error.contains("tidemark-token") && !error.contains("secret"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        assert!(read_token(file.to_str()).is_err() && read_token(None).is_err());
    }
}
