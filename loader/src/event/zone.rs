//! Time zones of the tz database by name, such as Europe/Berlin: how far their clocks are ahead of UTC. How a text leads to
//! a local time is in `time`.

use chrono::{DateTime, MappedLocalTime, Offset, TimeDelta, TimeZone};

use super::time::UNIX_EPOCH_US;
use crate::error::nearest;

#[cfg(feature = "zones")]
type Tz = chrono_tz::Tz;
/// Stands for none: without the feature no name is read.
#[cfg(not(feature = "zones"))]
type Tz = chrono::FixedOffset;

/// What the names of zones begin with that are places.
const AREAS: [&str; 11] = [
    "africa",
    "america",
    "antarctica",
    "arctic",
    "asia",
    "atlantic",
    "australia",
    "etc",
    "europe",
    "indian",
    "pacific",
];

/// A zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Tz);

impl Zone {
    /// The one of this name, as the tz database spells it. Those without a slash, such as PRC and CET, are none: they are
    /// old names of others, and could as well be the end of a member's name.
    #[cfg(feature = "zones")]
    pub fn parse(name: &str) -> Option<Zone> {
        name.contains('/').then(|| name.parse().ok().map(Zone))?
    }

    /// None: this build has no names.
    #[cfg(not(feature = "zones"))]
    pub fn parse(_: &str) -> Option<Zone> {
        None
    }

    /// By how many seconds its clocks are ahead of UTC when they show this time, in seconds since 2000-01-01. As in RFC 5545
    /// (3.3.5): a time that they show twice is the first of the two, and one that they leave out is counted with the
    /// offset from before, so it is as much later as they are put forward.
    pub fn ahead(self, local: i64) -> Option<i64> {
        let local = DateTime::from_timestamp(local - UNIX_EPOCH_US / 1_000_000, 0)?.naive_utc();
        let offset = match self.0.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => offset.fix(),
            // No offset is a day, so that a day before, wherever it is, is before the change.
            MappedLocalTime::None => {
                self.0.offset_from_utc_datetime(&local.checked_sub_signed(TimeDelta::days(1))?).fix()
            }
        };
        Some(offset.local_minus_utc().into())
    }
}

#[cfg(feature = "zones")]
fn names() -> impl Iterator<Item = &'static str> {
    chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())
}

#[cfg(not(feature = "zones"))]
fn names() -> impl Iterator<Item = &'static str> {
    std::iter::empty()
}

/// What is wrong with a word that was meant to be the name of a zone and is none; `None` for other words.
pub fn mistaken(word: &str) -> Option<String> {
    let lower = word.to_ascii_lowercase();
    let place = lower.split_once('/').is_some_and(|(area, _)| AREAS.contains(&area));
    if names().next().is_none() {
        let why = "this tidemark was built without the names of time zones; write an offset such as +02:00, or build one \
                   with all features (cargo build --release -p tidemark-cli)";
        return place.then(|| format!("{word}: {why}"));
    }
    // Any other word is rather the end of a member's name. The longest name has 32 letters.
    let known = || names().filter(|name| name.contains('/') || *name == "UTC");
    let near = || {
        let (area, _) = lower.split_once('/').filter(|_| lower.len() <= 64)?;
        let (name, distance) = nearest(word, known());
        let of = name.split_once('/')?.0.to_ascii_lowercase();
        (distance <= 3 && nearest(area, [of.as_str()].into_iter()).1 <= 1).then_some(name)
    };
    let near = known()
        .find(|name| name.eq_ignore_ascii_case(word) || name.rsplit('/').next() == Some(word))
        .or_else(near);
    match near {
        Some(name) => Some(format!("{word} is no time zone; did you mean {name}?")),
        None => place.then(|| format!("{word} is no time zone of the tz database, such as Europe/Berlin")),
    }
}

#[cfg(all(test, feature = "zones"))]
mod tests {
    use super::*;
    use crate::event::time::{Unit, parse_time};

    #[test]
    fn local_times_are_those_of_the_zone_on_their_date() {
        for (zone, local, utc) in [
            ("Europe/Berlin", "2026-01-15 09:00:00", "2026-01-15T08:00:00Z"),
            ("Europe/Berlin", "2026-07-15 09:00:00.25", "2026-07-15T07:00:00.25Z"),
            ("Europe/Berlin", "2026-07-15T09:00", "2026-07-15T07:00:00Z"),
            ("Europe/Berlin", "2090-07-15 09:00:00", "2090-07-15T07:00:00Z"),
            ("America/Argentina/Buenos_Aires", "2026-07-15 09:00:00", "2026-07-15T12:00:00Z"),
            ("Asia/Kathmandu", "2026-07-15 09:00:00", "2026-07-15T03:15:00Z"),
            ("Etc/GMT+5", "2026-07-15 09:00:00", "2026-07-15T14:00:00Z"),
            // Says its own.
            ("Europe/Berlin", "2026-07-15T09:00:00+09:00", "2026-07-15T00:00:00Z"),
            // Left out when clocks are put forward, from its first moment to its last; and what stands around it.
            ("Europe/Berlin", "2026-03-29 01:59:59.999999", "2026-03-29T00:59:59.999999Z"),
            ("Europe/Berlin", "2026-03-29 02:00:00", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29T01:30:00Z"),
            ("Europe/Berlin", "2026-03-29 02:59:59.999999", "2026-03-29T01:59:59.999999Z"),
            ("Europe/Berlin", "2026-03-29 03:00:00", "2026-03-29T01:00:00Z"),
            // Twice when they are put back: the first.
            ("Europe/Berlin", "2026-10-25 01:59:59", "2026-10-24T23:59:59Z"),
            ("Europe/Berlin", "2026-10-25 02:00:00", "2026-10-25T00:00:00Z"),
            ("Europe/Berlin", "2026-10-25 02:59:59", "2026-10-25T00:59:59Z"),
            ("Europe/Berlin", "2026-10-25 03:00:00", "2026-10-25T02:00:00Z"),
            ("America/New_York", "2026-03-08 02:30:00", "2026-03-08T07:30:00Z"),
            ("America/New_York", "2026-11-01 01:30:00", "2026-11-01T05:30:00Z"),
            // By half an hour, and by a whole day.
            ("Australia/Lord_Howe", "2026-10-04 02:15:00", "2026-10-03T15:45:00Z"),
            ("Australia/Lord_Howe", "2026-04-05 01:45:00", "2026-04-04T14:45:00Z"),
            ("Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z"),
        ] {
            let read = Unit::parse(zone).unwrap().read(local);
            assert_eq!(read, parse_time(utc), "{zone} {local}");
        }
        assert_eq!(Unit::parse("Europe/Berlin").unwrap().read("1790928922"), None);
        for year in ["0000", "9999"] {
            assert!(Unit::parse("Europe/Berlin").unwrap().read(&format!("{year}-01-01 00:00:00")).is_some());
        }
    }

    #[test]
    fn what_was_meant_to_be_a_zone_is_named() {
        for (word, name) in [
            ("Europa/Berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("utc", "UTC"),
            ("America/New York", "America/New_York"),
            ("Amerika/Sao_Paulo", "America/Sao_Paulo"),
        ] {
            assert_eq!(Zone::parse(word), None);
            assert_eq!(mistaken(word).unwrap(), format!("{word} is no time zone; did you mean {name}?"));
        }
        assert!(mistaken("Europe/Königswusterhausen").unwrap().contains("no time zone of the tz database"));
        for other in [
            "",
            "b",
            "time",
            "Time/value",
            "02:00",
            "t/0",
            "b/at",
            "Env/t",
            "ts/0",
            "general",
            "PRC",
            "CET",
            "iran",
            &"/".repeat(1000),
        ] {
            assert_eq!(mistaken(other), None, "{other}");
            assert_eq!(Unit::parse(other), None, "{other}");
        }
    }
}
