//! A private Apache Kafka, one for the whole test process, and what only an administrator or a producer of odd records
//! needs of it. Ordinary events are produced with `tidemark-shop produce`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::process::shop;
use crate::server;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A private broker.
pub struct Broker {
    /// Address for `--brokers`.
    pub address: String,
    directory: PathBuf,
}

/// Writes a file into a topic line by line, which makes the topic if it is not there.
pub fn produce_file(path: &Path, brokers: &str, topic: &str, partitions: &str) {
    let path = path.to_str().expect("the path is UTF-8");
    shop(&["produce", path, "--brokers", brokers, "--topic", topic, "--partitions", partitions]).run().ok();
}

/// Writes a file into a new topic of the shared broker.
pub fn topic_of(path: &Path, partitions: &str) -> String {
    let topic = shared().topic();
    produce_file(path, &shared().address, &topic, partitions);
    topic
}

/// A record to produce. Its default is an empty value for partition 0, at the beginning of 2026-09-06.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Partition.
    pub partition: i32,
    /// Time, in milliseconds since 1970.
    pub unix_millis: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Name and value of a header.
    pub header: Option<(&'a str, &'a [u8])>,
    /// Value; without one it is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Record { partition: 0, unix_millis: 1_788_652_800_000, key: None, header: None, value: Some(b"") }
    }
}

/// The broker that the tests share; started by whoever asks first.
pub fn shared() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start("kafka"))
}

/// A broker that asks for TLS and a login: address, certificate, and an open address of the same broker.
pub struct Secure {
    /// Address of the listener with TLS and SASL; user alice, password alice-secret.
    pub address: String,
    /// The broker's self-signed certificate.
    pub certificate: PathBuf,
    /// The same broker without either, to fill topics.
    pub open: Broker,
}

impl Secure {
    /// Starts one.
    pub fn start() -> Secure {
        let (directory, address) =
            server::start_with("kafka.sh", "kafka-secure", &[], &[("KAFKA_SECURE", "alice-secret")]);
        let port = std::fs::read_to_string(directory.join("secure_port")).expect("kafka.sh leaves the port");
        Secure {
            address: format!("localhost:{}", port.trim()),
            certificate: directory.join("cert.pem"),
            open: Broker { address, directory },
        }
    }
}

impl Secure {
    /// Restarts it with another password for PLAIN.
    pub fn change_password(&self, to: &str) {
        self.open.stop();
        self.open.start_in(&[("KAFKA_SECURE", to)]);
    }
}

impl Broker {
    /// Starts a broker of its own under this name.
    pub fn start(name: &str) -> Broker {
        let (directory, address) = server::start("kafka.sh", name, &[]);
        Broker { address, directory }
    }

    /// Kills it at once. What it had acknowledged is on its disk.
    pub fn kill(&self) {
        server::script("kafka.sh", "kill", &self.directory);
    }

    /// Stops it in order.
    pub fn stop(&self) {
        server::script("kafka.sh", "stop", &self.directory);
    }

    /// Keeps a copy of partition 0 of a topic as it is on the disk. The broker must have been stopped.
    pub fn save(&self, topic: &str) {
        copy(&self.partition(topic), &self.saved(topic));
    }

    /// Puts that copy back.
    pub fn restore(&self, topic: &str) {
        std::fs::remove_dir_all(self.partition(topic)).expect("a partition can be deleted");
        copy(&self.saved(topic), &self.partition(topic));
    }

    fn partition(&self, topic: &str) -> PathBuf {
        self.directory.join("data").join(format!("{topic}-0"))
    }

    fn saved(&self, topic: &str) -> PathBuf {
        self.directory.join(format!("{topic}-0.saved"))
    }

    /// Starts it again where it was.
    pub fn start_again(&self) {
        self.start_in(&[]);
    }

    fn start_in(&self, environment: &[(&str, &str)]) {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let arguments = ["start".as_ref(), self.directory.as_os_str(), port.as_ref()];
        server::script_in(environment, "kafka.sh", &arguments);
    }

    /// Creates a topic with settings; its records stay whatever their times are.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("retention.ms", "-1")
            .set("message.timestamp.after.max.ms", "9223372036854775807");
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let results =
            block_on(self.admin().create_topics([&new], &options())).expect("no answer about a topic");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("cannot create topic {topic}: {code}"));
        }
        // The answer comes before the leaders are elected.
        crate::wait_until("a topic to have leaders", TIMEOUT, || {
            let consumer: BaseConsumer = self.client_config().create().expect("cannot make a consumer");
            (0..partitions).all(|p| consumer.fetch_watermarks(topic, p, Duration::from_secs(5)).is_ok())
        });
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, topic: &str) {
        let results =
            block_on(self.admin().delete_topics(&[topic], &options())).expect("no answer about a topic");
        for result in results {
            result.unwrap_or_else(|(topic, code)| panic!("cannot delete topic {topic}: {code}"));
        }
        crate::wait_until("a topic to be gone", TIMEOUT, || {
            let consumer: BaseConsumer = self.client_config().create().expect("cannot make a consumer");
            consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)).is_err()
        });
    }

    /// Deletes the records of partition 0 before this offset, as retention does.
    pub fn delete_before(&self, topic: &str, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("a valid offset");
        block_on(self.admin().delete_records(&offsets, &options())).expect("cannot delete records");
        let consumer: BaseConsumer = self.client_config().create().expect("cannot make a consumer");
        let low = consumer.fetch_watermarks(topic, 0, TIMEOUT).expect("no watermarks").0;
        assert_eq!(low, offset, "the records before {offset} are still there");
    }

    /// Appends records and waits for the broker to have them.
    pub fn append_all(&self, topic: &str, records: &[Record<'_>]) {
        produce(&self.address, topic, records);
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client_config().create().expect("cannot make an admin client")
    }

    /// A name for a topic that nobody else uses.
    pub fn topic(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        format!("topic-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Appends a record to partition 0 of a topic; without a value it is a tombstone.
    pub fn append(&self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, unix_millis: i64) {
        let producer: BaseProducer = self.client_config().create().expect("cannot make a producer");
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(unix_millis);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(e, _)| e).expect("cannot produce");
        producer.flush(TIMEOUT).expect("the broker did not take a record");
    }

    /// Appends a record with headers to partition 0 of a topic.
    pub fn append_with_headers(
        &self,
        topic: &str,
        headers: &[(&str, &[u8])],
        value: &[u8],
        unix_millis: i64,
    ) {
        let producer: BaseProducer = self.client_config().create().expect("cannot make a producer");
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(0)
            .timestamp(unix_millis)
            .payload(value)
            .headers(headers);
        producer.send(record).map_err(|(e, _)| e).expect("cannot produce");
        producer.flush(TIMEOUT).expect("the broker did not take a record");
    }

    /// Appends records to partition 0 of a topic in one transaction, which is committed or aborted.
    pub fn transaction(&self, topic: &str, values: &[&[u8]], unix_millis: i64, commit: bool) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let id = format!("transaction-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut config = self.client_config();
        let producer: BaseProducer =
            config.set("transactional.id", id).create().expect("cannot make a producer");
        producer.init_transactions(TIMEOUT).expect("the broker has no transactions");
        producer.begin_transaction().expect("a transaction begins");
        for value in values {
            let record =
                BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(unix_millis).payload(*value);
            producer.send(record).map_err(|(e, _)| e).expect("cannot produce");
        }
        producer.flush(TIMEOUT).expect("the broker did not take a record");
        let end =
            if commit { producer.commit_transaction(TIMEOUT) } else { producer.abort_transaction(TIMEOUT) };
        end.expect("a transaction ends");
    }

    /// Creates a topic of one partition that is compacted as soon as the broker gets to it.
    pub fn compacted_topic(&self) -> String {
        let admin: AdminClient<DefaultClientContext> =
            self.client_config().create().expect("cannot make an admin client");
        let name = self.topic();
        let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1))
            .set("cleanup.policy", "compact")
            .set("min.cleanable.dirty.ratio", "0.0")
            .set("segment.ms", "100")
            .set("delete.retention.ms", "0")
            .set("max.compaction.lag.ms", "100");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("cannot make a runtime");
        let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()));
        created.expect("no answer about a topic")[0].as_ref().expect("cannot create a topic");
        name
    }

    /// Number of records in all partitions of a topic.
    pub fn records(&self, topic: &str) -> i64 {
        self.ends(topic).iter().map(|(_, end)| end).sum()
    }

    /// Number of records that can still be read from partition 0: fewer than offsets once it was compacted.
    pub fn readable(&self, topic: &str) -> usize {
        let mut config = self.client_config();
        config
            .set("group.id", "counter")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("cannot make a consumer");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
        consumer.assign(&from).expect("cannot read a topic");
        let mut n = 0;
        loop {
            match consumer.poll(TIMEOUT) {
                Some(Ok(_)) => n += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => return n,
                Some(Err(e)) => panic!("cannot read {topic}: {e}"),
                None => panic!("the end of {topic} does not come"),
            }
        }
    }

    /// The end of each partition of a topic.
    pub fn ends(&self, topic: &str) -> Vec<(i32, i64)> {
        let consumer: BaseConsumer = self.client_config().create().expect("cannot make a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("no answer about a topic");
        let partitions = metadata.topics()[0].partitions().iter().map(|p| p.id());
        partitions
            .map(|p| (p, consumer.fetch_watermarks(topic, p, TIMEOUT).expect("no watermarks").1))
            .collect()
    }

    /// Deletes the offsets that a group has committed to Kafka. Nobody may be in the group.
    pub fn forget_group(&self, group: &str) {
        let results =
            block_on(self.admin().delete_groups(&[group], &options())).expect("no answer about a group");
        for result in results {
            result.unwrap_or_else(|(group, code)| panic!("cannot delete group {group}: {code}"));
        }
    }

    /// Commits the ends of all partitions for a group, as if everything had been read. Nobody may be in the group.
    pub fn commit_to_the_end(&self, group: &str, topic: &str) {
        let mut config = self.client_config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("cannot make a consumer");
        let mut offsets = TopicPartitionList::new();
        for (partition, end) in self.ends(topic) {
            offsets.add_partition_offset(topic, partition, Offset::Offset(end)).expect("a valid offset");
        }
        consumer.commit(&offsets, CommitMode::Sync).expect("cannot commit offsets");
    }

    /// The offsets that a group has committed to Kafka, all partitions added up; 0 for a group without any.
    pub fn committed(&self, group: &str, topic: &str) -> i64 {
        let mut config = self.client_config();
        config.set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("cannot make a consumer");
        let mut partitions = TopicPartitionList::new();
        for (partition, _) in self.ends(topic) {
            partitions.add_partition(topic, partition);
        }
        let committed = consumer.committed_offsets(partitions, TIMEOUT).expect("no answer about offsets");
        let offsets = committed.elements();
        offsets.iter().map(|o| if let Offset::Offset(n) = o.offset() { n } else { 0 }).sum()
    }
}

/// Appends records at these brokers, in order, and waits until they have them.
pub fn produce(brokers: &str, topic: &str, records: &[Record<'_>]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("message.max.bytes", "100000000").set("linger.ms", "20");
    let producer: BaseProducer = config.create().expect("cannot make a producer");
    for record in records {
        while !send(&producer, topic, record) {
            producer.poll(Duration::from_millis(50));
        }
    }
    producer.flush(TIMEOUT).expect("the broker did not take a record");
}

/// Hands one record to a producer; false while its queue is full.
pub fn send(producer: &BaseProducer, topic: &str, record: &Record<'_>) -> bool {
    let mut to =
        BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(record.unix_millis);
    if let Some(key) = record.key {
        to = to.key(key);
    }
    if let Some((name, value)) = record.header {
        to = to.headers(OwnedHeaders::new().insert(Header { key: name, value: Some(value) }));
    }
    if let Some(value) = record.value {
        to = to.payload(value);
    }
    match producer.send(to) {
        Ok(()) => true,
        Err((e, _)) if e.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull) => false,
        Err((e, _)) => panic!("cannot produce: {e}"),
    }
}

/// Copies a directory of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for file in std::fs::read_dir(from).expect("a directory can be read") {
        let file = file.expect("a directory can be read");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a file can be copied");
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("cannot make a runtime").block_on(future)
}
