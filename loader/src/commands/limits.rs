//! Arguments about the time of events, the same for every command that loads.

use crate::envelope::Limits;
use crate::late::LatePolicy;
use crate::time::{self, Micros};

/// Which event times are accepted, and what becomes of late events.
#[derive(Clone, Debug, clap::Args)]
pub struct Times {
    /// Earliest date that an event may have; earlier ones become dead letters
    #[arg(long, default_value = "1970-01-01", value_name = "DATE", value_parser = parse_floor)]
    event_time_floor: Micros,
    /// How far an event's time may lie after its receipt, such as 5m; later ones become dead letters
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = time::parse_span)]
    max_skew: Micros,
    /// What to do with an event that was received later than --allowed-lateness after it happened
    #[arg(long, default_value = "recompute", value_enum)]
    late_policy: LatePolicy,
    /// From which lateness on an event is late: receipt minus event time, such as 36h or 7d
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = time::parse_span)]
    allowed_lateness: Micros,
}

impl Times {
    /// The limits that they amount to.
    pub fn limits(&self) -> Limits {
        Limits {
            floor: self.event_time_floor,
            max_skew: self.max_skew,
            late_policy: self.late_policy,
            allowed_lateness: self.allowed_lateness,
            ..Limits::default()
        }
    }
}

/// Reads a date as the first moment of it.
pub fn parse_floor(text: &str) -> Result<Micros, String> {
    let day = time::parse_day(text).ok_or("not a date of the form YYYY-MM-DD")?;
    Ok(i64::from(day) * time::DAY_US)
}
