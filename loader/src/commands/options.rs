//! The options that `run` and `check` share, laid over the configuration file and the environment, and what follows
//! from all of them: for those two and for every other command that loads events.

use std::time::Duration;

use super::Database;
use super::events::{Events, word};
use crate::batch::Encoder;
use crate::breaker;
use crate::config::{Config, Source};
use crate::envelope::Limits;
use crate::envelope::preset::{Format, parse_part};
use crate::error::{Error, Kind, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::kafka::plan::{BatchLimits, OutOfRange};
use crate::kafka::{Kafka, parse_setting};
use crate::pg;
use crate::target::{BRONZE, Target};
use crate::time::Micros;

/// Options that override the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    brokers: Brokers,
    /// Topic to read; can be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Name of the position in Postgres; another name reads everything once more [default: web]
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Kafka consumer group; loaders that share one share the partitions [default: tidemark-<PIPELINE>]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How often to refresh models and make partitions ahead, such as 30s or 5m, or off [default: 10s]
    #[arg(long, value_name = "TIME|off")]
    maintain_every: Option<String>,
    /// What to do when Kafka no longer has the records at our position: fail, earliest or latest [default: fail]
    #[arg(long, value_enum)]
    on_offset_out_of_range: Option<OutOfRange>,
    /// Connections that write at the same time, each the batches of partitions of its own [default: 1]
    #[arg(long, value_name = "N")]
    lanes: Option<u32>,
    /// Longest time that a record waits for others before it is committed, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS")]
    batch_delay_ms: Option<u64>,
    #[command(flatten)]
    events: Events,
    /// Address for /metrics, /healthz, /readyz and /status, such as 127.0.0.1:9187 [default: none]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Form of the log on standard error: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Options {
    /// The configuration in force.
    pub fn load(&self) -> Result<Config> {
        let mut config = self.database.load()?;
        self.brokers.over(&mut config)?;
        self.events.over(&mut config)?;
        let mut set = |key: &str, value: Option<String>| value.map_or(Ok(()), |value| config.set(key, value));
        set("kafka.topics", (!self.topics.is_empty()).then(|| self.topics.join(",")))?;
        set("pipeline.name", self.pipeline.clone())?;
        set("kafka.group_id", self.group.clone())?;
        set("maintenance.every", self.maintain_every.clone())?;
        set("kafka.on_offset_out_of_range", self.on_offset_out_of_range.and_then(word))?;
        set("postgres.lanes", self.lanes.map(|n| n.to_string()))?;
        set("batch.max_delay", self.batch_delay_ms.map(|n| format!("{n}ms")))?;
        set("http.listen", self.listen.clone())?;
        set("log.format", self.log_format.clone())?;
        Ok(config)
    }
}

/// Where Kafka is.
#[derive(Clone, Debug, clap::Args)]
pub struct Brokers {
    /// Kafka brokers to start from, as host:port, separated by commas
    #[arg(long, env = "TIDEMARK_BROKERS", value_name = "LIST")]
    brokers: Option<String>,
    /// Setting of librdkafka, such as socket.timeout.ms=30000; can be repeated
    #[arg(long = "kafka-config", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
}

impl Brokers {
    /// Lays them over a configuration.
    pub fn over(&self, config: &mut Config) -> Result<()> {
        if let Some(brokers) = &self.brokers {
            config.set_option("kafka.brokers", brokers, "TIDEMARK_BROKERS")?;
        }
        for (key, value) in &self.settings {
            config.set(&format!("kafka.librdkafka.{key}"), value.as_str())?;
        }
        Ok(())
    }
}

/// The value of a key that must be one of the words of an option.
fn choice<T: clap::ValueEnum>(config: &Config, key: &str) -> Result<T> {
    let text = config.get(key).unwrap_or_default();
    T::from_str(text, false).map_err(|e| Error::bug("cannot use the configuration", format!("{key}: {e}")))
}

/// Where Postgres is.
pub fn postgres(config: &Config) -> Result<pg::Config> {
    let mut postgres =
        pg::parse_url(config.required("postgres.dsn", "--database-url or TIDEMARK_DATABASE_URL")?)?;
    // The server's own default is left to the server.
    if let Some(commit) = config.get("postgres.synchronous_commit").filter(|c| *c != "on") {
        postgres.setting("synchronous_commit", commit);
    }
    Ok(postgres)
}

/// Where Kafka is, and how to talk to it.
pub fn kafka(config: &Config) -> Result<Kafka> {
    let brokers = config.required("kafka.brokers", "--brokers or TIDEMARK_BROKERS")?.to_owned();
    let mut settings = Vec::new();
    let protocol = config.get("kafka.security_protocol").unwrap_or("plaintext");
    let mut pass = |setting: &str, key: &str| {
        if let Some(value) = config.get(key) {
            settings.push((setting.to_owned(), value.to_owned()));
        }
    };
    pass("security.protocol", "kafka.security_protocol");
    pass("ssl.ca.location", "kafka.ssl_ca_file");
    pass("ssl.certificate.location", "kafka.ssl_certificate_file");
    pass("ssl.key.location", "kafka.ssl_key_file");
    pass("ssl.key.password", "kafka.ssl_key_password");
    if protocol.starts_with("sasl") {
        pass("sasl.mechanisms", "kafka.sasl_mechanism");
        pass("sasl.username", "kafka.sasl_username");
        pass("sasl.password", "kafka.sasl_password");
    }
    let (fetched, _) = shares(config)?;
    settings.extend(fetching(fetched));
    settings.extend(config.librdkafka().map(|(k, v)| (k.to_owned(), v.to_owned())));
    Ok(Kafka { brokers, settings })
}

/// What librdkafka needs for a message in its queue beside the message, in bytes (2.12: 340 for the operation, and what
/// the allocator adds). It does not count this itself.
const MESSAGE: usize = 400;

/// How librdkafka keeps to its share: most of it for the messages in its queue, a quarter for what a message needs beside
/// its bytes, and the rest for an answer that was asked for while the queue was nearly full. An answer is small, since
/// what is compressed in it takes many times its size once it is there, and all of it is unpacked at once.
fn fetching(share: usize) -> [(String, String); 4] {
    [
        ("queued.max.messages.kbytes", (share * 5 / 8) >> 10),
        ("queued.min.messages", (share / 4 / MESSAGE).min(100_000)),
        // It takes no answer smaller than the largest message that it might produce (message.max.bytes).
        ("fetch.max.bytes", (share / 32).max(1 << 20)),
        // Of one partition. A batch that is larger comes whole.
        ("fetch.message.max.bytes", (share / 128).clamp(64 << 10, 4 << 20)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_string()))
}

/// Below that a batch is not worth its transaction.
const LEAST_BATCH: usize = 128 << 10;

/// How `memory.max_buffer_bytes` is divided: bytes for what librdkafka has fetched, and for one batch, counted as it came.
/// A lane has at most six at once: one is filled, one waits to be handed over, one waits to be encoded, three are being
/// encoded, wait for the connection and are being written. The rest is for the encoded columns of these three, and for the
/// driver's buffers.
fn shares(config: &Config) -> Result<(usize, usize)> {
    let all = config.size("memory.max_buffer_bytes")?;
    Ok((all / 4, (all - all / 4) / 10))
}

/// How many connections write at the same time for `run`; other commands have one.
pub fn lanes(config: &Config) -> Result<usize> {
    Ok(config.count("postgres.lanes")? as usize)
}

/// How large batches may become, in this many lanes.
pub fn batch_limits(config: &Config, lanes: usize) -> Result<BatchLimits> {
    let (_, share) = shares(config)?;
    let share = share / lanes;
    if share < LEAST_BATCH {
        let all = config.get("memory.max_buffer_bytes").unwrap_or_default();
        let needed = (LEAST_BATCH * lanes * 40).div_ceil(3 << 20);
        let why =
            format!("memory.max_buffer_bytes = {all} leaves {share} bytes for each batch of {lanes} lanes");
        let next = format!("take fewer lanes, or set memory.max_buffer_bytes to {needed}MiB or more");
        return Err(wrong(config, "postgres.lanes", why, &next));
    }
    Ok(BatchLimits {
        rows: config.count("batch.max_rows")? as usize,
        bytes: config.size("batch.max_bytes")?.min(share),
        delay: config.time("batch.max_delay")?.unwrap_or(Duration::from_secs(1)),
        keep: config.size("record.max_bytes")?,
    })
}

/// What is accepted as an event.
pub fn limits(config: &Config) -> Result<Limits> {
    let skew = config.time("future.max_skew")?.unwrap_or_default();
    let allowed = config.time("late.allowed")?.unwrap_or_default();
    Ok(Limits {
        max_bytes: config.size("record.max_bytes")?,
        floor: config.date("record.event_time_floor")?,
        max_skew: i64::try_from(skew.as_micros()).unwrap_or(i64::MAX),
        late_policy: choice(config, "late.policy")?,
        allowed_lateness: i64::try_from(allowed.as_micros()).unwrap_or(i64::MAX),
    })
}

/// A value that looks right and is not: the mistake of whoever typed the option, or of whoever wrote the file.
fn wrong(config: &Config, key: &str, why: impl std::fmt::Display, next: &str) -> Error {
    let (kind, what) = match config.source(key) {
        Some(Source::CommandLine) => (Kind::Usage, "cannot use the command line"),
        _ => (Kind::Config, "cannot use the configuration"),
    };
    Error::new(kind, what, format!("{key}: {why}"), next)
}

/// How the events are written.
pub fn format(config: &Config) -> Result<Format> {
    let parts = config.list("envelope.fields");
    let parts: Result<Vec<_>, String> = parts.iter().map(|part| parse_part(part)).collect();
    let parts = parts.map_err(|why| wrong(config, "envelope.fields", why, "write field=/pointer"))?;
    Ok(Format::new(choice(config, "envelope.preset")?, &parts))
}

/// Where the events go and how duplicates among them are found.
pub fn target(config: &Config) -> Result<Target> {
    let days = i32::try_from(config.count("dedupe.window_days")?).unwrap_or(i32::MAX);
    let table = config.get("target.table").unwrap_or(BRONZE);
    let target = Target::new(table, choice(config, "dedupe.mode")?, days).map_err(|why| {
        wrong(config, "target.table", why, "write it with its schema, such as bronze.events")
    })?;
    target.takes(choice(config, "late.policy")?)?;
    Ok(target)
}

/// What reads events; `last_received` is as for [`Encoder::new`].
pub fn encoder(config: &Config, last_received: Option<Micros>) -> Result<Encoder> {
    let members = config.list("dedupe.fingerprint_exclude");
    let members: Result<Vec<_>, String> = members.iter().map(|text| fingerprint::member(text)).collect();
    let members = members.map_err(|why| {
        wrong(config, "dedupe.fingerprint_exclude", why, "write /name of a member of the event")
    })?;
    Ok(Encoder::new(limits(config)?, last_received)
        .with_format(format(config)?)
        .with_dedupe(choice(config, "dedupe.mode")?)
        .with_fingerprint(Fingerprint::without(members)))
}

/// When too many dead letters pause the pipeline.
pub fn breaker(config: &Config) -> Result<breaker::Limits> {
    Ok(breaker::Limits {
        max_ratio: config.share("dead_letters.max_ratio")?,
        min_sample: config.count("dead_letters.min_sample")?,
        max_consecutive: config.count("dead_letters.max_consecutive")?,
    })
}

/// What to do when Kafka no longer has the records at our position.
pub fn out_of_range(config: &Config) -> Result<OutOfRange> {
    choice(config, "kafka.on_offset_out_of_range")
}

/// Topics to read.
pub fn topics(config: &Config) -> Result<Vec<String>> {
    config.required("kafka.topics", "--topic")?;
    Ok(config.list("kafka.topics"))
}

/// The consumer group.
pub fn group(config: &Config) -> String {
    let pipeline = config.get("pipeline.name").unwrap_or("web");
    config.get("kafka.group_id").map_or_else(|| format!("tidemark-{pipeline}"), str::to_owned)
}

/// Level and form of the log: TIDEMARK_LOG goes before the file.
pub fn log(config: &Config) -> (String, bool) {
    let level = std::env::var("TIDEMARK_LOG").ok().filter(|l| !l.is_empty());
    let level = level.unwrap_or_else(|| config.get("log.level").unwrap_or("info").to_owned());
    (level, config.get("log.format") == Some("json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::late::LatePolicy;
    use crate::target::Dedupe;

    fn config(text: &[(&str, &str)]) -> Config {
        let mut config = Config::load(None, std::iter::empty()).unwrap();
        text.iter().for_each(|(k, v)| config.set(k, *v).unwrap());
        config
    }

    #[test]
    fn defaults_are_those_of_the_modules() {
        let config = config(&[]);
        let (ours, theirs) = (limits(&config).unwrap(), Limits::default());
        assert_eq!(
            (ours.max_bytes, ours.floor, ours.max_skew),
            (theirs.max_bytes, theirs.floor, theirs.max_skew)
        );
        assert_eq!((ours.late_policy, ours.allowed_lateness), (theirs.late_policy, theirs.allowed_lateness));
        let to = target(&config).unwrap();
        assert_eq!((to.name(), to.dedupe, to.window_days), (BRONZE, Dedupe::IdDate, 3));
        assert!(matches!(format(&config), Ok(Format::Segment)));
        let batch = batch_limits(&config, 1).unwrap();
        assert_eq!((batch.rows, batch.bytes, batch.delay), (20_000, 16 << 20, Duration::from_secs(1)));
        assert_eq!(group(&config), "tidemark-web");
        assert!(matches!(out_of_range(&config), Ok(OutOfRange::Fail)));
    }

    #[test]
    fn envelope_and_target_come_from_their_keys() {
        let ours = config(&[
            ("envelope.preset", "cloudevents"),
            ("envelope.fields", "user_id=/who/id,user_id=/who"),
            ("target.table", "bronze.other"),
            ("dedupe.mode", "id_window"),
            ("dedupe.window_days", "7"),
            ("late.policy", "refuse"),
            ("late.allowed", "36h"),
        ]);
        assert!(matches!(format(&ours), Ok(Format::Mapped(_))));
        let to = target(&ours).unwrap();
        assert_eq!((to.name(), to.dedupe, to.window_days), ("bronze.other", Dedupe::IdWindow, 7));
        let judged = limits(&ours).unwrap();
        assert_eq!((judged.late_policy, judged.allowed_lateness), (LatePolicy::Refuse, 36 * 3_600_000_000));
        let excluded = config(&[("dedupe.fingerprint_exclude", "/a,/b"), ("dedupe.mode", "offsets")]);
        assert!(encoder(&excluded, None).is_ok());
        let nested = config(&[("dedupe.fingerprint_exclude", "/a/b")]);
        assert!(encoder(&nested, None).unwrap_err().to_string().contains("/a/b is no member"));
        for bad in [
            [("envelope.fields", "who=/id"), ("late.policy", "refuse")],
            [("target.table", "events"), ("late.policy", "refuse")],
            [("target.table", "bronze.other"), ("late.policy", "divert")],
            [("dedupe.mode", "offsets"), ("late.policy", "divert")],
        ] {
            let bad = config(&bad);
            assert!(format(&bad).is_err() || target(&bad).is_err());
        }
    }

    #[test]
    fn a_small_budget_makes_small_batches_and_a_short_queue() {
        let config = config(&[("memory.max_buffer_bytes", "32MiB"), ("kafka.brokers", "h:1")]);
        assert_eq!(batch_limits(&config, 1).unwrap().bytes, 24 * (1 << 20) / 10);
        let three = self::config(&[("memory.max_buffer_bytes", "32MiB"), ("postgres.lanes", "3")]);
        assert_eq!(batch_limits(&three, 3).unwrap().bytes, 24 * (1 << 20) / 30);
        let many = self::config(&[("memory.max_buffer_bytes", "32MiB"), ("postgres.lanes", "32")]);
        let why = batch_limits(&many, 32).unwrap_err().to_string();
        assert!(why.contains("postgres.lanes") && why.contains("to 54MiB or more"), "{why}");
        let enough = self::config(&[("memory.max_buffer_bytes", "54MiB"), ("postgres.lanes", "32")]);
        assert!(batch_limits(&enough, 32).is_ok());
        let settings = kafka(&config).unwrap().settings;
        for (key, value) in [
            ("queued.max.messages.kbytes", "5120"),
            ("queued.min.messages", "5242"),
            ("fetch.max.bytes", "1048576"),
            ("fetch.message.max.bytes", "65536"),
        ] {
            assert!(settings.contains(&(key.to_owned(), value.to_owned())), "{settings:?}");
        }
    }

    #[test]
    fn secrets_go_to_librdkafka_only_where_they_are_needed() {
        let plain = config(&[("kafka.brokers", "h:1"), ("kafka.sasl_password", "x")]);
        assert!(!kafka(&plain).unwrap().settings.iter().any(|(k, _)| k.starts_with("sasl")));
        let sasl = config(&[
            ("kafka.brokers", "h:1"),
            ("kafka.security_protocol", "sasl_ssl"),
            ("kafka.sasl_username", "u"),
            ("kafka.sasl_password", "x"),
        ]);
        let settings = kafka(&sasl).unwrap().settings;
        assert!(settings.contains(&("sasl.mechanisms".to_owned(), "SCRAM-SHA-512".to_owned())));
        assert!(settings.contains(&("sasl.password".to_owned(), "x".to_owned())));
    }
}
