//! The options that `run` and `check` share, laid over the configuration file and the environment, and what Kafka needs
//! of the configuration. What loading needs is in `options`.

use super::Database;
use super::events::{Events, word};
use super::options::{choice, shares};
use tidemark_loader::config::Config;
use tidemark_loader::error::Result;
use tidemark_loader::kafka::OnDataLoss;
use tidemark_loader::kafka::topics::Topics;
use tidemark_loader::kafka::{Kafka, Setting};

/// Options that override the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    brokers: Brokers,
    /// Topic to read, or a pattern of names that begins with ^, such as ^shop[.]; can be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Name of the position in Postgres; another name reads everything once more [default: web]
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Kafka consumer group; loaders that share one share the partitions [default: tidemark-<PIPELINE>]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How often to do what `tidemark maintain` does, such as 30s or 5m, or off; models are refreshed with each commit
    /// as well, unless off [default: 10s]
    #[arg(long, value_name = "TIME|off")]
    maintain_every: Option<String>,
    /// What to do when Kafka no longer has the log that our position is in: fail, earliest or latest [default: fail]
    #[arg(long, value_enum)]
    on_data_loss: Option<OnDataLoss>,
    /// Connections that write at the same time, each the batches of partitions of its own [default: 1]
    #[arg(long, value_name = "N")]
    lanes: Option<u32>,
    /// Longest time that a record waits for others before it is committed, in milliseconds [default: 500]
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
        set("kafka.on_data_loss", self.on_data_loss.and_then(word))?;
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
    #[arg(long = "kafka-config", value_name = "KEY=VALUE", value_parser = Setting)]
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

/// Where Kafka is, and how to talk to it.
pub fn kafka(config: &Config) -> Result<Kafka> {
    let brokers = config.required("kafka.brokers", "--brokers or TIDEMARK_BROKERS")?.to_owned();
    let (mut settings, mut files) = (Vec::new(), Vec::new());
    let protocol = config.get("kafka.security_protocol").unwrap_or("plaintext");
    let mut pass = |setting: &str, key: &str| {
        if let Some(value) = config.get(key) {
            settings.push((setting.to_owned(), value.to_owned()));
            files.extend(config.file(key).map(|path| (setting.to_owned(), path.to_owned())));
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
        pass("sasl.oauthbearer.config", "kafka.sasl_token_file");
    }
    let (fetched, _) = shares(config)?;
    settings.extend(fetching(fetched));
    settings.extend(config.librdkafka().map(|(k, v)| (k.to_owned(), v.to_owned())));
    Ok(Kafka::at(brokers, settings, files))
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

/// What to do when Kafka no longer has the log that our position is in.
pub fn on_data_loss(config: &Config) -> Result<OnDataLoss> {
    choice(config, "kafka.on_data_loss")
}

/// Topics to read.
pub fn topics(config: &Config) -> Result<Topics> {
    config.required("kafka.topics", "--topic")?;
    Topics::parse(&config.list("kafka.topics"))
}

/// The consumer group.
pub fn group(config: &Config) -> String {
    let pipeline = config.get("pipeline.name").unwrap_or("web");
    config.get("kafka.group_id").map_or_else(|| format!("tidemark-{pipeline}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &[(&str, &str)]) -> Config {
        let mut config = Config::load(None, std::iter::empty()).unwrap();
        text.iter().for_each(|(k, v)| config.set(k, *v).unwrap());
        config
    }

    #[test]
    fn defaults_are_those_of_the_modules() {
        let config = config(&[]);
        assert_eq!(group(&config), "tidemark-web");
        assert!(matches!(on_data_loss(&config), Ok(OnDataLoss::Fail)));
    }

    #[test]
    fn a_small_budget_makes_a_short_queue() {
        let config = config(&[("memory.max_buffer_bytes", "32MiB"), ("kafka.brokers", "h:1")]);
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
