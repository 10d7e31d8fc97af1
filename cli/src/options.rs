//! What follows from the configuration, for every command that loads events. What only Kafka needs is in
//! `kafka_options`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemark_loader::batch::{BatchLimits, Encoder};
use tidemark_loader::config::{Config, Source};
use tidemark_loader::enrich::{Enrichment, Files};
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::Limits;
use tidemark_loader::event::envelope::mapping::{
    Description, Format, Noted, Part, Source as Place, parse_part,
};
use tidemark_loader::event::fingerprint;
use tidemark_loader::event::suppression::Keys;
use tidemark_loader::event::time;
use tidemark_loader::operations::breaker;
use tidemark_loader::postgres::connection;
use tidemark_loader::postgres::dimensions;
use tidemark_loader::postgres::target::{BRONZE, Target};
use tokio_postgres::Client;

/// The value of a key that must be one of the words of an option.
pub(super) fn choice<T: clap::ValueEnum>(config: &Config, key: &str) -> Result<T> {
    let text = config.get(key).unwrap_or_default();
    T::from_str(text, false).map_err(|e| Error::bug("cannot use the configuration", format!("{key}: {e}")))
}

/// Where Postgres is.
pub fn postgres(config: &Config) -> Result<connection::Config> {
    let url = config.required("postgres.dsn", "--database-url or TIDEMARK_DATABASE_URL")?;
    let mut postgres = connection::parse_url(url)?.from_file(config.file("postgres.dsn"));
    // The server's own default is left to the server.
    if let Some(commit) = config.get("postgres.synchronous_commit").filter(|c| *c != "on") {
        postgres.setting("synchronous_commit", commit);
    }
    Ok(postgres)
}

/// Below that a batch is not worth its transaction.
const LEAST_BATCH: usize = 128 << 10;

/// How `memory.max_buffer_bytes` is divided: bytes for what librdkafka has fetched, and for one batch, counted as it came.
/// A lane has at most six at once: one is filled, one waits to be handed over, one waits to be encoded, three are being
/// encoded, wait for the connection and are being written. The rest is for the encoded columns of these three, and for the
/// driver's buffers.
pub(super) fn shares(config: &Config) -> Result<(usize, usize)> {
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
        delay: config.time("batch.max_delay")?.unwrap_or(Duration::from_millis(500)),
        keep: config.size("record.max_bytes")?,
    })
}

/// What is accepted as an event.
pub fn limits(config: &Config) -> Result<Limits> {
    let skew = config.time("future.max_skew")?.unwrap_or_default();
    let allowed = config.time("late.allowed")?.unwrap_or_default();
    Ok(Limits {
        max_bytes: config.size("record.max_bytes")?,
        floor: config.date("record.event_time_floor")?.unwrap_or(time::UNIX_EPOCH_US),
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
    Ok(Format::new(&mapping(config)?, &parts(config)?))
}

/// What is said about parts of the mapping besides.
fn parts(config: &Config) -> Result<Vec<(Part, Place)>> {
    let parts = config.list("envelope.fields");
    let parts: Result<Vec<_>, String> = parts.iter().map(|part| parse_part(part)).collect();
    parts.map_err(|why| wrong(config, "envelope.fields", why, "write field=/pointer"))
}

/// The mapping of the source.
pub fn mapping(config: &Config) -> Result<Description> {
    let mapping = Description::of(config.get("envelope.mapping").unwrap_or_default());
    mapping.map_err(|why| wrong(config, "envelope.mapping", why, "name a shipped one, or a file with one"))
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

/// The keys of the suppression list.
pub fn suppression(config: &Config) -> Result<Option<Keys>> {
    let keys = Keys::parse(config.get("erasure.key").unwrap_or_default());
    keys.map_err(|why| wrong(config, "erasure.key", why, "make one: openssl rand -hex 32"))
}

/// What becomes of addresses, and the files that say what user agents and networks are.
pub fn enrichment(config: &Config) -> Result<Enrichment> {
    let keep = config.get("enrich.addresses") == Some("keep");
    let path = |key| config.get(key).filter(|path| !path.is_empty()).map(PathBuf::from);
    let files = Files {
        user_agents: path("enrich.user_agent_file"),
        bots: path("enrich.bot_file"),
        places: config.list("enrich.place_files").iter().map(PathBuf::from).collect(),
    };
    #[cfg(not(feature = "enrich"))]
    if files != Files::default() {
        let why = "this build reads no files about user agents, bots and places";
        return Err(wrong(
            config,
            "enrich",
            why,
            "build with the feature enrich, which is among the defaults",
        ));
    }
    Ok(Enrichment::new(keep, &files))
}

/// What has to be known before the first event is read, and said about the files.
pub async fn prepare(encoder: &Encoder, client: &Client, postgres: &connection::Config) -> Result<()> {
    let Some(enrichment) = encoder.enrichment() else { return Ok(()) };
    for problem in enrichment.take_problems() {
        match problem.usable {
            true => tracing::warn!("{problem}"),
            false => tracing::warn!("goes on without {problem}"),
        }
    }
    let own = dimensions::own_networks(client).await;
    let own = own.map_err(|e| connection::explain("cannot read the own networks", postgres, &e))?;
    enrichment.own_networks_are(own);
    Ok(())
}

/// What reads events.
pub fn encoder(config: &Config) -> Result<Encoder> {
    let members = config.list("dedupe.fingerprint_exclude");
    let members: Result<Vec<_>, String> = members.iter().map(|text| fingerprint::member(text)).collect();
    let members = members.map_err(|why| {
        wrong(config, "dedupe.fingerprint_exclude", why, "write /name of a member of the event")
    })?;
    Ok(Encoder::new(limits(config)?)
        .with_format(format(config)?)
        .with_mapping(Noted::of(&mapping(config)?, &parts(config)?))
        .with_dedupe(choice(config, "dedupe.mode")?)
        .with_suppression(suppression(config)?)
        .with_enrichment(Arc::new(enrichment(config)?))
        .with_fingerprint(mapping(config)?.fingerprint(members)))
}

/// When too many dead letters pause the pipeline.
pub fn breaker(config: &Config) -> Result<breaker::Limits> {
    Ok(breaker::Limits {
        max_ratio: config.share("dead_letters.max_ratio")?,
        min_sample: config.count("dead_letters.min_sample")?,
        max_consecutive: config.count("dead_letters.max_consecutive")?,
    })
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
    use tidemark_loader::event::dedupe::Dedupe;
    use tidemark_loader::event::time::LatePolicy;

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
        assert_eq!((batch.rows, batch.bytes, batch.delay), (20_000, 16 << 20, Duration::from_millis(500)));
    }

    #[test]
    fn envelope_and_target_come_from_their_keys() {
        let ours = config(&[
            ("envelope.mapping", "cloudevents"),
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
        assert!(encoder(&excluded).is_ok());
        let nested = config(&[("dedupe.fingerprint_exclude", "/a/b")]);
        assert!(encoder(&nested).unwrap_err().to_string().contains("/a/b is no member"));
        for bad in [
            [("envelope.fields", "who=/id"), ("late.policy", "refuse")],
            [("envelope.mapping", "snowplough"), ("late.policy", "refuse")],
            [("target.table", "events"), ("late.policy", "refuse")],
            [("target.table", "bronze.other"), ("late.policy", "divert")],
            [("dedupe.mode", "offsets"), ("late.policy", "divert")],
        ] {
            let bad = config(&bad);
            assert!(format(&bad).is_err() || target(&bad).is_err());
        }
    }

    #[test]
    fn a_small_budget_makes_small_batches() {
        let config = config(&[("memory.max_buffer_bytes", "32MiB")]);
        assert_eq!(batch_limits(&config, 1).unwrap().bytes, 24 * (1 << 20) / 10);
        let three = self::config(&[("memory.max_buffer_bytes", "32MiB"), ("postgres.lanes", "3")]);
        assert_eq!(batch_limits(&three, 3).unwrap().bytes, 24 * (1 << 20) / 30);
        let many = self::config(&[("memory.max_buffer_bytes", "32MiB"), ("postgres.lanes", "32")]);
        let why = batch_limits(&many, 32).unwrap_err().to_string();
        assert!(why.contains("postgres.lanes") && why.contains("to 54MiB or more"), "{why}");
        let enough = self::config(&[("memory.max_buffer_bytes", "54MiB"), ("postgres.lanes", "32")]);
        assert!(batch_limits(&enough, 32).is_ok());
    }
}
