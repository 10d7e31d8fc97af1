//! Every configuration key: its kind, its default, what it does. The table in docs/loader.md is made from this one.

use std::time::Duration;

use crate::event::time;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown; `<key>_file` names a file that holds it.
    Secret,
    /// One or more names; an array in the file, separated by commas elsewhere.
    List,
    /// Bytes, such as 16MiB.
    Size {
        /// Smallest, inclusive.
        min: u64,
        /// Largest, inclusive.
        max: u64,
    },
    /// A length of time, such as 500ms, 30s or 7d.
    Time {
        /// Shortest, inclusive.
        min: Duration,
        /// Longest, inclusive.
        max: Duration,
        /// Whether `off` is allowed.
        off: bool,
    },
    /// A whole number.
    Count {
        /// Smallest, inclusive.
        min: u64,
        /// Largest, inclusive.
        max: u64,
    },
    /// A number from 0 to 1.
    Share,
    /// A date, such as 1970-01-01.
    Date,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section and name.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Default; empty for none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn time(min: Duration, max: Duration) -> Kind {
    Kind::Time { min, max, off: false }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

const MIB: u64 = 1 << 20;

/// All of them, in the order in which they are shown. Beside them, `kafka.librdkafka.*` takes whatever librdkafka knows.
pub const KEYS: &[Key] = &[
    key(
        "pipeline.name",
        Kind::Text,
        "web",
        "Name of the position in Postgres; another name reads everything once more",
    ),
    key("kafka.brokers", Kind::Text, "", "Brokers to start from, as host:port, separated by commas"),
    key(
        "kafka.topics",
        Kind::List,
        "",
        "Topics to read; what begins with ^ is a regular expression for their names, without commas",
    ),
    key(
        "kafka.group_id",
        Kind::Text,
        "",
        "Consumer group; loaders that share one share the partitions. Without it, tidemark- and the name of \
         the pipeline",
    ),
    key(
        "kafka.on_data_loss",
        Kind::Choice(&["fail", "earliest", "latest"]),
        "fail",
        "What to do when Kafka no longer has the log that our position is in, because records were deleted, \
         the topic was made anew or its log was cut: stop, or go on at the oldest record that was not loaded \
         or behind the newest, and note the gap in loader.offset_gaps",
    ),
    key(
        "kafka.security_protocol",
        Kind::Choice(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
        "plaintext",
        "How to talk to the brokers; ssl is TLS",
    ),
    key(
        "kafka.ssl_ca_file",
        Kind::Text,
        "",
        "Certificates (PEM) that the brokers' certificates are checked against; without it those of the system",
    ),
    key("kafka.ssl_certificate_file", Kind::Text, "", "Our certificate (PEM), where the brokers ask for one"),
    key("kafka.ssl_key_file", Kind::Text, "", "Its private key (PEM)"),
    key("kafka.ssl_key_password", Kind::Secret, "", "Password of that key"),
    key(
        "kafka.sasl_mechanism",
        Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        "SCRAM-SHA-512",
        "How to log in where security_protocol begins with sasl",
    ),
    key("kafka.sasl_username", Kind::Text, "", "User to log in as"),
    key("kafka.sasl_password", Kind::Secret, "", "Password of that user"),
    key(
        "kafka.sasl_token_file",
        Kind::Text,
        "",
        "With OAUTHBEARER: file that holds the token, a JSON Web Token with an expiry (exp); read anew \
         before that",
    ),
    key(
        "postgres.dsn",
        Kind::Secret,
        "",
        "Postgres to load into, as postgresql://user:password@host:port/database?sslmode=verify-full or \
         key=value pairs",
    ),
    key(
        "postgres.lanes",
        Kind::Count { min: 1, max: 64 },
        "1",
        "Connections that write at the same time, each the batches of partitions of its own; more than there \
         are partitions idle",
    ),
    key(
        "postgres.synchronous_commit",
        Kind::Choice(&["on", "off", "local", "remote_write", "remote_apply"]),
        "on",
        "As the setting of Postgres. off is faster and safe: after a crash of the server rows and position \
         are older together, and are read again, by the next start if the loader had ended",
    ),
    key("batch.max_rows", Kind::Count { min: 1, max: 1_000_000 }, "20000", "Most records in one transaction"),
    key(
        "batch.max_bytes",
        Kind::Size { min: 64 << 10, max: 512 * MIB },
        "16MiB",
        "Most bytes in one transaction",
    ),
    key(
        "batch.max_delay",
        time(Duration::from_millis(1), seconds(60)),
        "500ms",
        "Longest time that a record waits for others before it is committed",
    ),
    key(
        "memory.max_buffer_bytes",
        Kind::Size { min: 16 * MIB, max: 64 << 30 },
        "256MiB",
        "Most memory for records on their way, of all lanes together. A quarter is for what librdkafka has \
         fetched; batch.max_bytes is lowered until the batches of all lanes fit into the rest",
    ),
    key(
        "record.max_bytes",
        Kind::Size { min: 1 << 10, max: 64 * MIB },
        "1MiB",
        "Longest record; a longer one becomes a dead letter of which only the beginning is kept",
    ),
    key(
        "record.event_time_floor",
        Kind::Date,
        "",
        "Earliest date that an event may have; earlier ones become dead letters. Without it 1970-01-01, and \
         for tidemark run 400 days ago",
    ),
    key(
        "future.max_skew",
        time(Duration::ZERO, seconds(100_000 * 86_400)),
        "5m",
        "How far the event time may lie after the receipt; events further ahead become dead letters",
    ),
    key(
        "late.policy",
        Kind::Choice(&["recompute", "divert", "refuse"]),
        "recompute",
        "What to do with an event that was received later than allowed: load it, keep it in \
         bronze.late_events, or make it a dead letter",
    ),
    key(
        "late.allowed",
        time(Duration::ZERO, seconds(100_000 * 86_400)),
        "7d",
        "From which lateness on an event is late: receipt minus event time",
    ),
    key(
        "target.table",
        Kind::Text,
        "bronze.events",
        "Table to load into, with its schema; it must have the columns of bronze.events. Choose another \
         pipeline.name for another table",
    ),
    key(
        "dedupe.mode",
        Kind::Choice(&["offsets", "id_date", "id_uuidv7", "id_window"]),
        "id_date",
        "How an event that comes twice is noticed",
    ),
    key(
        "dedupe.window_days",
        Kind::Count { min: 1, max: 366 },
        "3",
        "With id_window: how many days of receipt an id is remembered, its own included",
    ),
    key(
        "dedupe.fingerprint_exclude",
        Kind::List,
        "",
        "Members of an event that do not count when two events with one id are compared, such as \
         [\"/etl_tstamp\"], beside /sentAt and /receivedAt. Choose them before the first load: events that \
         are there are known by what counted then",
    ),
    key(
        "envelope.mapping",
        Kind::Text,
        "segment",
        "How the events are written: the name of a mapping (docs/loading.md lists them), or the path of a file \
         with one",
    ),
    key(
        "envelope.fields",
        Kind::List,
        "",
        "Where fields of an event are found, such as user_id=/user/id (JSON pointers without commas); \
         replaces what the mapping says about these fields",
    ),
    key(
        "enrich.addresses",
        Kind::Choice(&["cut", "keep"]),
        "cut",
        "Whether addresses are cut to 24 bits of IPv4 and 48 of IPv6, but those of own networks (docs/enrichment.md)",
    ),
    key(
        "enrich.user_agent_file",
        Kind::Text,
        "",
        "File that says what user agents are: regexes.yaml of uap-core",
    ),
    key(
        "enrich.bot_file",
        Kind::Text,
        "",
        "File that says which user agents are bots, which gold does not count: crawler-user-agents.json",
    ),
    key(
        "enrich.place_files",
        Kind::List,
        "",
        "Files that say where networks are, in MaxMind's format (.mmdb); the first that knows a thing says it",
    ),
    key(
        "erasure.key",
        Kind::Secret,
        "",
        "Key of the suppression list, of 16 bytes or more: who was erased (`tidemark person erase`) is not loaded again. \
         Several, one a line, while it changes; the first one is for new entries",
    ),
    key(
        "fencing.terminate_previous_backend",
        Kind::Choice(&["true", "false"]),
        "false",
        "Whether the connections of a partition's owner before are ended when they are stuck in a \
         transaction (Postgres has waited for them for 5 seconds), so that a frozen process holds nobody up. \
         Both must log in as the same role",
    ),
    key(
        "dead_letters.max_ratio",
        Kind::Share,
        "0.5",
        "A topic is paused when more than this share of about its last min_sample records are dead \
         letters; 1 switches this off",
    ),
    key(
        "dead_letters.min_sample",
        Kind::Count { min: 1, max: 10_000_000 },
        "1000",
        "Records that the share is measured over",
    ),
    key(
        "dead_letters.max_consecutive",
        Kind::Count { min: 0, max: 1_000_000_000 },
        "5000",
        "A topic is paused when more than this many records in a row of one partition are dead letters; 0 \
         switches this off",
    ),
    key(
        "maintenance.every",
        Kind::Time { min: seconds(1), max: seconds(86_400), off: true },
        "10s",
        "How often to do what `tidemark maintain` does, or off; models are refreshed with each commit as well, \
         unless off",
    ),
    key(
        "http.listen",
        Kind::Text,
        "",
        "Address for /metrics, /healthz, /readyz and /status, such as 127.0.0.1:9187; nothing listens without it",
    ),
    key("log.format", Kind::Choice(&["text", "json"]), "text", "Form of the log on standard error"),
    key(
        "log.level",
        Kind::Text,
        "info",
        "error, warn, info, debug or trace, also by module, such as info,librdkafka=debug",
    ),
    key(
        "shutdown.timeout",
        time(seconds(1), seconds(3600)),
        "25s",
        "How long batches in flight may take after SIGTERM before the process ends anyway",
    ),
];

/// Settings of librdkafka that exactly-once depends on; nobody may override them.
pub const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
];

/// Why a setting of librdkafka may not be chosen freely; `None` if it may.
pub fn reserved(key: &str) -> Option<&'static str> {
    let ours = ["bootstrap.servers", "group.id", "enable.partition.eof"];
    // Older names of the same settings, which librdkafka takes too.
    let aliases = ["metadata.broker.list", "auto.commit.enable"];
    let fixed = ours.contains(&key) || aliases.contains(&key) || FIXED.iter().any(|(fixed, _)| *fixed == key);
    fixed.then_some("is set by tidemark, which relies on it")
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Kind {
    /// Whether a value will do; if not, what would.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Kind::Text | Kind::Secret => Ok(()),
            Kind::List if text.split(',').any(|name| name.trim().is_empty()) => {
                Err("one of the names is empty".to_owned())
            }
            Kind::List => Ok(()),
            Kind::Size { min, max } => {
                let n = size(text).ok_or("not a size such as 16MiB")?;
                within(n, min, max, show_size)
            }
            Kind::Time { off: true, .. } if text == "off" => Ok(()),
            Kind::Time { min, max, off } => {
                let what = if off {
                    "not a time such as 30s or 5m, nor off"
                } else {
                    "not a time such as 500ms, 30s or 7d"
                };
                within(duration(text).ok_or(what)?, min, max, show_duration)
            }
            Kind::Count { min, max } => {
                let n = text.replace('_', "").parse().map_err(|_| "not a whole number".to_owned())?;
                within(n, min, max, |n| n.to_string())
            }
            Kind::Share => match text.parse::<f64>() {
                Ok(n) if (0.0..=1.0).contains(&n) => Ok(()),
                _ => Err("not a number from 0 to 1".to_owned()),
            },
            Kind::Date => time::parse_day(text)
                .map(|_| ())
                .ok_or_else(|| "not a date of the form YYYY-MM-DD".to_owned()),
            Kind::Choice(words) if words.contains(&text) => Ok(()),
            Kind::Choice(words) => Err(format!("not one of {}", words.join(", "))),
        }
    }
}

fn within<T: PartialOrd>(n: T, min: T, max: T, show: impl Fn(T) -> String) -> Result<(), String> {
    if n < min || n > max { Err(format!("not between {} and {}", show(min), show(max))) } else { Ok(()) }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// Bytes of a size such as 16MiB, 1MB or 65536.
pub fn size(text: &str) -> Option<u64> {
    let (n, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    n.checked_mul(factor)
}

/// A length of time such as 500ms, 30s, 5m, 2h or 7d.
pub fn duration(text: &str) -> Option<Duration> {
    let (n, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(n.checked_mul(millis)?))
}

fn show_size(n: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if n >= factor && n.is_multiple_of(factor) {
            return format!("{}{unit}", n / factor);
        }
    }
    n.to_string()
}

/// The shortest way to write it that loses nothing.
pub fn show_duration(time: Duration) -> String {
    let millis = time.as_millis();
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_every_name_unique() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(key.default.is_empty() || key.kind.check(key.default).is_ok(), "{}", key.name);
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{}", key.name);
            assert_eq!(key.name.split('.').count(), 2, "{}", key.name);
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("5"), Some(5));
        assert_eq!(duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        for bad in
            ["", "MiB", "1.5MiB", "-1", "5 parsecs", "99999999999999999999", "18446744073709551615GiB", "5é"]
        {
            assert_eq!(size(bad), None, "{bad}");
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::from_secs(120)), "2m");
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_bounds() {
        let check = |name: &str, value: &str| find(name).unwrap().kind.check(value);
        assert_eq!(check("batch.max_rows", "0"), Err("not between 1 and 1000000".to_owned()));
        assert_eq!(check("memory.max_buffer_bytes", "1MiB"), Err("not between 16MiB and 64GiB".to_owned()));
        assert_eq!(check("batch.max_delay", "2m"), Err("not between 1ms and 1m".to_owned()));
        assert!(check("maintenance.every", "off").is_ok());
        for bad in ["", "s", "0s", "30", "-1s", "1.5h", "30é"] {
            assert!(check("maintenance.every", bad).is_err(), "{bad}");
        }
        assert!(check("batch.max_delay", "off").is_err());
        assert!(check("dead_letters.max_ratio", "1.5").is_err());
        assert!(check("kafka.topics", "a,,b").is_err());
        assert!(check("log.format", "xml").is_err());
        assert!(check("record.event_time_floor", "2024-02-30").is_err());
    }
}
