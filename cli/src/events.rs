//! Options about events, the same for every command that loads them: where they go, how they are written, which times
//! are accepted, what is a duplicate. Each one overrides a key of the configuration, so none has a default of its own.

use tidemark_loader::config::Config;
use tidemark_loader::error::Result;
use tidemark_loader::event::dedupe::Dedupe;
use tidemark_loader::event::envelope::mapping::{Description, parse_part};
use tidemark_loader::event::time::LatePolicy;
use tidemark_loader::event::time::{self, Micros};

/// What overrides the configuration about events.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Events {
    /// Most records in one transaction [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: Option<u32>,
    /// Earliest date that an event may have; earlier ones become dead letters. Without it 1970-01-01, and for run 400 days
    /// ago [default: none]
    #[arg(long, value_name = "DATE", value_parser = parse_floor)]
    event_time_floor: Option<Micros>,
    /// How far an event's time may lie after its receipt, such as 5m; later ones become dead letters [default: 5m]
    #[arg(long, value_name = "TIME")]
    max_skew: Option<String>,
    /// What to do with an event that was received later than --allowed-lateness after it happened [default: recompute]
    #[arg(long, value_enum, value_name = "POLICY")]
    late_policy: Option<LatePolicy>,
    /// From which lateness on an event is late: receipt minus event time, such as 36h or 7d [default: 7d]
    #[arg(long, value_name = "TIME")]
    allowed_lateness: Option<String>,
    /// Table to load into; it must have the columns of bronze.events [default: bronze.events]
    #[arg(long, value_name = "TABLE")]
    into: Option<String>,
    /// How an event that comes twice is noticed [default: id_date]
    #[arg(long, value_enum, value_name = "MODE")]
    dedupe: Option<Dedupe>,
    /// With --dedupe id_window: how many days of receipt an id is remembered, its own included [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=366))]
    dedupe_window_days: Option<u32>,
    /// Member of an event that does not count when two events with one id are compared, such as /etl_tstamp; can be
    /// repeated
    ///
    /// /sentAt and /receivedAt never count. Always give the same ones: events that were loaded before are known by
    /// what counted then.
    #[arg(long, value_name = "POINTER", value_parser = parse_member)]
    fingerprint_exclude: Vec<String>,
    /// How the events are written: the name of a mapping, or the path of a file with one [default: segment]
    ///
    /// `tidemark inspect FILE` says which one fits. There are segment, rudderstack, segment-warehouse, cloudevents,
    /// snowplow, posthog, mixpanel, amplitude, ga4, matomo, umami and access-log.
    #[arg(long, value_name = "NAME|FILE", value_parser = parse_mapping)]
    mapping: Option<String>,
    /// Where a field of the event is found, such as user_id=/user/id; can be repeated, also for one field
    ///
    /// Fields: event_id, event_time, event_type, user_id, anonymous_id, received_at. What is given here replaces what
    /// the mapping says about the field; of several pointers for one field the first one with a value counts. Behind the
    /// pointer of a time may stand what its numbers count (:s, :ms, :us), or the zone of times without an offset (:UTC,
    /// :+02:00, :Europe/Berlin). =TEXT is that text for each event: event_type==page_viewed. event_id=* is an id made of
    /// all that the event says.
    #[arg(long = "envelope", value_name = "FIELD=POINTER", value_parser = parse_field)]
    envelope: Vec<String>,
}

impl Events {
    /// Lays them over a configuration.
    pub fn over(&self, config: &mut Config) -> Result<()> {
        let mut set = |key: &str, value: Option<String>| value.map_or(Ok(()), |value| config.set(key, value));
        let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
        set("batch.max_rows", self.batch_rows.map(|n| n.to_string()))?;
        set("record.event_time_floor", self.event_time_floor.map(|t| time::format_day(time::day_of(t))))?;
        set("future.max_skew", self.max_skew.clone())?;
        set("late.policy", self.late_policy.and_then(word))?;
        set("late.allowed", self.allowed_lateness.clone())?;
        set("target.table", self.into.clone())?;
        set("dedupe.mode", self.dedupe.and_then(word))?;
        set("dedupe.window_days", self.dedupe_window_days.map(|n| n.to_string()))?;
        set("dedupe.fingerprint_exclude", list(&self.fingerprint_exclude))?;
        set("envelope.mapping", self.mapping.clone())?;
        set("envelope.fields", list(&self.envelope))
    }
}

/// How a value of an option is written.
pub fn word<T: clap::ValueEnum>(value: T) -> Option<String> {
    value.to_possible_value().map(|v| v.get_name().to_owned())
}

/// Reads a date as the first moment of it.
fn parse_floor(text: &str) -> Result<Micros, String> {
    let day = time::parse_day(text).ok_or("not a date of the form YYYY-MM-DD")?;
    Ok(i64::from(day) * time::DAY_US)
}

fn parse_field(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err("a pointer with a comma cannot be given".to_owned());
    }
    parse_part(text).map(|_| text.to_owned())
}

fn parse_mapping(text: &str) -> Result<String, String> {
    Description::of(text).map(|_| text.to_owned())
}

fn parse_member(text: &str) -> Result<String, String> {
    tidemark_loader::event::fingerprint::member(text).map(|_| text.to_owned())
}
