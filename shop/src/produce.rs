//! `tidemark-shop produce`: lines of a file into a Kafka topic as they are, malformed ones included, with the times of the
//! events as record times, so that a run over Kafka classifies them as a load of the file does.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::mapping::FormatArgs;
use tidemark_loader::event::envelope::{self, Limits};
use tidemark_loader::event::time;
use tidemark_loader::files::{self, Content, Record, Records};
use tidemark_loader::kafka::Kafka;

/// Longest line that is sent.
const MAX_LINE: usize = 16 << 20;

/// Arguments of `tidemark-shop produce`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File with one event a line, plain or compressed by gzip or zstd, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    kafka: Kafka,
    /// Topic to write to; created if it does not exist, without a limit on the age of its records
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Number of partitions of a topic that is created; an existing one is left as it is
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    #[command(flatten)]
    format: FormatArgs,
}

/// A broker that has just started needs a moment before it numbers producers. librdkafka asks again and says so in a
/// warning, which is nobody's business.
fn passes_by_itself(facility: &str, message: &str) -> bool {
    facility == "GETPID" && message.ends_with("retrying")
}

#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if passes_by_itself(facility, message) {
            tracing::debug!(target: "librdkafka", "librdkafka: {facility} {message}");
        } else {
            DefaultClientContext.log(level, facility, message);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| e.to_string());
        }
    }
}

/// Sends every line and waits until the brokers have them all; prints a summary to standard output.
pub fn run(args: Args) -> Result<()> {
    let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(io::stderr);
    lines.with_target(false).with_ansi(io::stderr().is_terminal()).init();
    let progress = files::Progress::default();
    let input = if args.file.as_os_str() == "-" {
        files::stream(io::stdin(), progress)
    } else {
        files::open(&args.file, progress)
    }
    .map_err(|e| unreadable(&args.file, &e))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Temporary, "cannot start", e, "free some resources and try again"))?
        .block_on(create_topic(&args))?;
    send(&args, input)
}

async fn create_topic(args: &Args) -> Result<()> {
    let what = format!("cannot create topic {}", args.topic);
    let explain = |e: &KafkaError| args.kafka.explain(&what, e);
    let admin: AdminClient<DefaultClientContext> =
        args.kafka.client_config().create().map_err(|e| explain(&e))?;
    let timeout = Some(Duration::from_secs(20));
    let options = AdminOptions::new().operation_timeout(timeout).request_timeout(timeout);
    // Record times are those of the events: with any retention by time the broker would delete old events at once.
    let plain =
        NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
    // Kafka 4 refuses records from more than an hour ahead unless told, brokers before 3.6 do not know the setting.
    let topic = NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(-1))
        .set("retention.ms", "-1")
        .set("message.timestamp.after.max.ms", "9223372036854775807");
    for (topic, last) in [(topic, false), (plain, true)] {
        let results = admin.create_topics([&topic], &options).await.map_err(|e| explain(&e))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::InvalidConfig))) if !last => continue,
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
            Some(Ok(_)) => {
                tracing::info!("created topic {} with {} partitions", args.topic, args.partitions);
            }
            Some(Err((_, code))) => {
                return Err(Error::new(Kind::Config, what.as_str(), code, "correct --topic or --partitions"));
            }
        }
        break;
    }
    Ok(())
}

fn send(args: &Args, input: Content) -> Result<()> {
    let mut config = args.kafka.client_config();
    config.set("enable.idempotence", "true");
    config.set("linger.ms", "20");
    config.set("batch.num.messages", "10000");
    config.set("queue.buffering.max.kbytes", "65536");
    config.set("message.max.bytes", "20000000");
    // The partitioner of the Java clients, so that other producers put a person in the same partition.
    config.set("partitioner", "murmur2_random");
    let explain = |e: &KafkaError| args.kafka.explain("cannot produce", e);
    let producer: ThreadedProducer<Deliveries> =
        config.create_with_context(Deliveries::default()).map_err(|e| explain(&e))?;

    let started = Instant::now();
    let (mut lines, mut line) = (Records::new(input), Record::new(MAX_LINE));
    let limits = Limits { max_bytes: MAX_LINE, ..Limits::default() };
    let format = args.format.format();
    let (mut sent, mut bytes, mut at) = (0u64, 0u64, None);
    while lines.read(&mut line).map_err(|e| unreadable(&args.file, &e))? {
        if line.is_blank() {
            continue;
        }
        if let Some(oversize) = &line.oversize {
            let what = format!("cannot produce line {}", sent + 1);
            let why = format!("it has {} bytes, more than {MAX_LINE}", oversize.bytes);
            return Err(Error::new(Kind::Config, what, why, "split the file"));
        }
        let line = line.bytes.as_slice();
        let envelope = format.parse(line, &limits).ok();
        let now = time::now();
        // Where nobody knows the receipt, the time of the event, so that it is no later than a load of the file finds it;
        // what has no time at all comes with the record before, as it lies in a topic that grows.
        let known =
            envelope.as_ref().and_then(|e| e.received_at().or(e.happened_at().map(|time| time.min(now))));
        at = known.or(at);
        let at = at.unwrap_or(now);
        let mut record =
            BaseRecord::<[u8], [u8]>::to(&args.topic).payload(line).timestamp(time::to_unix_millis(at));
        if let Some(key) = envelope.as_ref().and_then(envelope::Envelope::key) {
            record = record.key(key.as_bytes());
        }
        // The queue is full while the brokers are slower than we are.
        while let Err((e, back)) = producer.send(record) {
            if e.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(explain(&e));
            }
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        sent += 1;
        bytes += line.len() as u64;
    }
    producer.flush(Duration::from_secs(120)).map_err(|e| explain(&e))?;
    if let Some(why) = producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let next = "check the brokers' limits; the records before it may have been written";
        return Err(Error::new(Kind::Temporary, "a record was not accepted", why, next));
    }
    let seconds = started.elapsed().as_secs_f64();
    let _ = writeln!(
        io::stdout(),
        "produced {sent} records, {bytes} bytes, to {} in {seconds:.1} seconds, {:.0} records/s",
        args.topic,
        sent as f64 / seconds.max(0.001)
    );
    Ok(())
}

fn unreadable(file: &Path, e: &io::Error) -> Error {
    Error::new(
        Kind::Input,
        format!("cannot read {}", file.display()),
        e,
        "check the path and its permissions",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_broker_needs_a_moment_for_is_no_warning() {
        // As librdkafka 2.12 words it.
        let said = "[thrd:main]: Failed to acquire idempotence PID from broker h:1/1: Broker: Coordinator load in progress: ";
        assert!(passes_by_itself("GETPID", &format!("{said}retrying")));
        assert!(!passes_by_itself("GETPID", &format!("{said}giving up")));
        assert!(!passes_by_itself("FAIL", "[thrd:h:1]: Connect to h:1 failed, retrying"));
    }
}
