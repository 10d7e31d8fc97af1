//! Kafka: settings, and what has to be known about topics before reading them. Reading is in `session`, the books
//! that it keeps in `books`, rebalances in `membership`, whether a log is the one it was in `claim`, what clients say on
//! the side in `client`.

pub mod books;
pub mod bounded;
mod claim;
pub mod client;
pub mod membership;
pub mod record;
pub mod session;
pub mod topics;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use self::client::{Link, connect};
use self::topics::{Found, Topics};
use crate::batch::BatchLimits;
use crate::config::keys::{FIXED, reserved};
use crate::error::{Error, Kind, Result};
use crate::operations::state::Shared;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Settings that may be overridden.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidemark"),
    // How long the group waits for a member that does not come back, after a restart of the coordinator for instance.
    ("max.poll.interval.ms", "90000"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.min.bytes", "65536"),
    ("fetch.message.max.bytes", "4194304"),
    ("queued.max.messages.kbytes", "65536"),
    ("queued.min.messages", "100000"),
    // The default of one second stalls reading each time the queue has been full.
    ("fetch.queue.backoff.ms", "50"),
    ("socket.keepalive.enable", "true"),
    // Where partitions end, for the lag.
    ("statistics.interval.ms", "5000"),
    // How soon a topic that was made later is noticed.
    (topics::REFRESH, "30000"),
];

/// The same for groups in which the members share the partitions out. With `group.protocol=consumer` (KIP-848) the
/// brokers do, and librdkafka refuses these.
const CLASSIC: &[(&str, &str)] = &[
    ("session.timeout.ms", "45000"),
    // The strategies of librdkafka's default are eager: on each change everybody gives everything up.
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// Where Kafka is, and how librdkafka is to talk to it.
#[derive(Clone, Debug, clap::Args)]
pub struct Kafka {
    /// Kafka brokers to start from, as host:port, separated by commas
    #[arg(long, env = "TIDEMARK_BROKERS", value_name = "LIST")]
    pub brokers: String,
    /// Setting of librdkafka, such as socket.timeout.ms=30000; can be repeated
    #[arg(long = "kafka-config", value_name = "KEY=VALUE", value_parser = Setting)]
    pub settings: Vec<(String, String)>,
    /// Settings that are read anew from these files for each client: passwords
    #[arg(skip)]
    pub files: Vec<(String, String)>,
}

/// Reads KEY=VALUE of the command line. Its errors do not show the value, as those of clap's own parsers do.
#[derive(Clone, Copy, Debug)]
pub struct Setting;

impl clap::builder::TypedValueParser for Setting {
    type Value = (String, String);

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let parsed = value.to_str().ok_or_else(|| "not UTF-8".to_owned()).and_then(parse_setting);
        let refuse = |why| {
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("--kafka-config: {why}\n"))
        };
        parsed.map_err(|why| refuse(why).with_cmd(command))
    }
}

/// Reads KEY=VALUE; refuses what tidemark relies on.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not of the form key=value")?;
    if let Some(why) = reserved(key) {
        return Err(format!("{key} {why}"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Kafka {
    /// These brokers, with these settings of librdkafka.
    pub fn at(brokers: String, settings: Vec<(String, String)>, files: Vec<(String, String)>) -> Self {
        Kafka { brokers, settings, files }
    }

    /// What is in the files of passwords and certificates now.
    pub fn credentials(&self) -> Vec<Option<Vec<u8>>> {
        let locations = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"];
        let certificates = self.settings.iter().filter(|(key, _)| locations.contains(&key.as_str()));
        self.files.iter().chain(certificates).map(|(_, path)| std::fs::read(path).ok()).collect()
    }

    fn set_all(&self, config: &mut ClientConfig) {
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        for (key, path) in &self.files {
            // It could be read when we started: what it was then is among the settings.
            match std::fs::read_to_string(path) {
                Ok(value) => _ = config.set(key, value.trim_end_matches(['\r', '\n'])),
                Err(e) => {
                    tracing::warn!("cannot read {key} anew from {path}, using the one from before: {e}")
                }
            }
        }
    }

    /// The settings of a plain client.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        self.set_all(&mut config);
        config
    }

    /// The settings of the consumer of a group. It does not report the ends of partitions: the event does not name its
    /// topic, and whoever reads two topics cannot tell which one has ended.
    pub fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let classic =
            !self.settings.iter().any(|(key, value)| key == "group.protocol" && value == "consumer");
        for (key, value) in DEFAULTS.iter().chain(CLASSIC.iter().filter(|_| classic)) {
            config.set(*key, *value);
        }
        self.set_all(&mut config);
        for (key, value) in FIXED {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("group.id", group);
        config.set("enable.partition.eof", "false");
        config
    }

    /// An error for people about something that these brokers did not do.
    pub fn explain(&self, what: &str, error: &KafkaError) -> Error {
        let next = format!("check that Kafka runs at {}, or set --brokers", self.brokers);
        match error {
            // What it says about a value that it does not take shows it.
            KafkaError::ClientConfig(code, _, key, _) => {
                let why = match code {
                    RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "librdkafka knows no such setting",
                    _ => "librdkafka does not take its value, or not together with the others",
                };
                Error::new(Kind::Usage, what, format!("{key}: {why}"), "correct the setting")
            }
            _ => Error::new(Kind::Unavailable, what, error, next),
        }
    }

    /// Asks the brokers about the topics, with their offsets if `with_offsets`. Blocks.
    pub fn survey(&self, topics: &Topics, with_offsets: bool) -> Result<Survey> {
        let mut config = self.client_config();
        // No group: this client only asks questions.
        config.set("log_level", "3");
        let client = connect(&config).map_err(|e| self.explain("cannot reach Kafka", &e))?;
        let explain = |what: &str, error: KafkaError| {
            // Its reasons wait in a queue until somebody polls.
            for _ in 0..10 {
                let _ = client.poll(Duration::from_millis(10));
            }
            let said = client.context().said.lock().unwrap_or_else(PoisonError::into_inner).take();
            let next = format!("check that Kafka runs at {}, or set --brokers", self.brokers);
            match said {
                Some(why) => Error::new(Kind::Unavailable, what, format!("{error}: {why}"), next),
                None => self.explain(what, &error),
            }
        };
        let found = topics.find(&client, TIMEOUT).map_err(|e| explain("cannot reach Kafka", e))?;
        let mut ends = Vec::new();
        for topic in found.topics.iter().filter(|_| with_offsets) {
            let what = "cannot read the end of a partition";
            let metadata = client.fetch_metadata(Some(topic), TIMEOUT).map_err(|e| explain(what, e))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                let (_, high) =
                    client.fetch_watermarks(topic, partition.id(), TIMEOUT).map_err(|e| explain(what, e))?;
                ends.push(End { topic: topic.clone(), partition: partition.id(), high });
            }
        }
        let cluster_id = client.client().fetch_cluster_id(TIMEOUT);
        Ok(Survey { cluster_id, found, ends })
    }

    /// The same about one topic, which must be there.
    pub fn survey_one(&self, topic: &str, with_offsets: bool) -> Result<Survey> {
        let survey = self.survey(&Topics::only([topic.to_owned()]), with_offsets)?;
        survey.all_there()?;
        Ok(survey)
    }
}

/// The end of a partition. An empty one has an end too: our position may lie before or behind it.
#[derive(Clone, Debug)]
pub struct End {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Offset of the next record to be produced.
    pub high: i64,
}

/// What the brokers said about some topics.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Identity of the cluster.
    pub cluster_id: Option<String>,
    /// Which of them there are.
    pub found: Found,
    /// Ends of the partitions, if asked for.
    pub ends: Vec<End>,
}

impl Survey {
    /// An error about a topic that is missing, if one is.
    pub fn all_there(&self) -> Result<()> {
        let Some((topic, why)) = self.found.missing.first_key_value() else { return Ok(()) };
        let next = "create it or correct --topic";
        Err(Error::new(Kind::Config, format!("cannot read topic {topic}"), why, next))
    }
}

/// What to do when Kafka no longer has the log that our position is in: see `claim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDataLoss {
    /// Stop with an error
    Fail,
    /// Go on at the oldest record that was not loaded and note the gap in loader.offset_gaps
    Earliest,
    /// Go on behind the newest record and note the gap in loader.offset_gaps
    Latest,
}

/// What a session needs to know.
pub struct Settings {
    /// Where Kafka is.
    pub kafka: Kafka,
    /// Consumer group.
    pub group: String,
    /// Topics to read.
    pub topics: Topics,
    /// Where Postgres is.
    pub postgres: crate::postgres::connection::Config,
    /// `loader.pipelines.pipeline_id`.
    pub pipeline_id: i32,
    /// Who we are.
    pub owner: String,
    /// How many lanes the partitions are spread over.
    pub lanes: usize,
    /// Batch sizes.
    pub limits: BatchLimits,
    /// Where to tell how things go; also says whether the pipeline is paused.
    pub state: Arc<Shared>,
    /// Whether connections of the owner before are ended that are stuck in a transaction.
    pub end_stuck_writers: bool,
    /// What to do when records at our position are gone.
    pub on_data_loss: OnDataLoss,
    /// What was said about Kafka being away, whichever session it was.
    pub link: Mutex<Link>,
    /// Stop once these ends are reached; `None` runs for ever.
    pub until: Option<Vec<End>>,
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// We were told to stop.
    Stopped,
    /// Everything up to the wanted ends is committed.
    CaughtUp,
    /// Something that joining the group anew cures.
    Restart(String),
    /// The pipeline is paused.
    Paused,
    /// A lane ended; it knows why.
    LaneEnded,
    /// Something that needs a person.
    Failed(Error),
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    #[test]
    fn settings_that_exactly_once_relies_on_cannot_be_overridden() {
        for setting in
            ["enable.auto.commit=true", "isolation.level=read_uncommitted", "auto.offset.reset=latest"]
        {
            assert!(parse_setting(setting).is_err(), "{setting}");
        }
        assert!(parse_setting("no value").is_err());
        assert_eq!(parse_setting("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
    }

    #[test]
    fn the_default_settings_are_known_to_librdkafka() {
        let kafka = Kafka::at("127.0.0.1:1".into(), Vec::new(), Vec::new());
        let config = kafka.consumer_config("g");
        // With this on, the end of one topic was taken for the end of another and unread records were skipped.
        assert_eq!(config.get("enable.partition.eof"), Some("false"));
        let consumer: Result<BaseConsumer, _> = config.create();
        assert!(consumer.is_ok());
    }

    #[test]
    fn the_way_to_share_partitions_can_be_chosen() {
        for (key, value) in
            [("group.protocol", "consumer"), ("partition.assignment.strategy", "range,roundrobin")]
        {
            let kafka = Kafka::at("127.0.0.1:1".into(), vec![(key.into(), value.into())], Vec::new());
            let config = kafka.consumer_config("g");
            assert_eq!(config.get(key), Some(value));
            let consumer: Result<BaseConsumer, _> = config.create();
            assert!(consumer.is_ok(), "{key}: {:?}", consumer.err());
        }
    }
}
