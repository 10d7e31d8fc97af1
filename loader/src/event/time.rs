//! Times as Postgres counts them: microseconds and days since 2000-01-01 UTC. Reads what is certain: formats that leave
//! something to be guessed are dead letters.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Datelike, NaiveDate};

use super::zone::Zone;

/// Microseconds in a day.
pub const DAY_US: i64 = 86_400_000_000;
/// 1970-01-01 in microseconds since 2000-01-01.
pub const UNIX_EPOCH_US: i64 = -946_684_800_000_000;

/// Where the times of Postgres end (END_TIMESTAMP).
const END_US: i64 = 9_223_371_331_200_000_000;

/// Microseconds since 2000-01-01 UTC.
pub type Micros = i64;

/// The day number of 2000-01-01 where that of 0001-01-01 is 1, as `chrono` counts.
const DAYS_BEFORE_2000: i32 = 730_120;

/// The UTC date of a time, in days since 2000-01-01.
pub fn day_of(time: Micros) -> i32 {
    time.div_euclid(DAY_US) as i32
}

/// A date as `YYYY-MM-DD`, which Postgres reads under every DateStyle.
pub fn format_day(day: i32) -> String {
    let date = day.checked_add(DAYS_BEFORE_2000).and_then(NaiveDate::from_num_days_from_ce_opt);
    // No clock of an event reaches the bounds of the calendar.
    date.unwrap_or(NaiveDate::MAX).to_string()
}

/// Parses `YYYY-MM-DD` to days since 2000-01-01; `None` for anything else.
pub fn parse_day(text: &str) -> Option<i32> {
    let b = text.as_bytes();
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    civil(b)
}

/// Now, by this machine's clock.
pub fn now() -> Micros {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => UNIX_EPOCH_US + d.as_micros() as i64,
        Err(e) => UNIX_EPOCH_US - e.duration().as_micros() as i64,
    }
}

/// Converts Unix milliseconds, as Kafka has them; `None` outside of what a timestamptz holds (4714 BC to 294276 AD,
/// PostgreSQL documentation, "Date/Time Types"). A producer can set any record time, and Postgres would refuse such
/// a one in the dead letter too.
pub fn from_unix_millis(ms: i64) -> Option<Micros> {
    // MIN_TIMESTAMP and END_TIMESTAMP of Postgres; chrono's years end before the latter.
    let first = -211_813_488_000_000_000;
    ms.checked_mul(1000)?.checked_add(UNIX_EPOCH_US).filter(|time| (first..END_US).contains(time))
}

/// Converts to Unix milliseconds, rounded down.
pub fn to_unix_millis(time: Micros) -> i64 {
    (time - UNIX_EPOCH_US).div_euclid(1000)
}

/// Reads a length of time: a whole number with s, m, h or d, at most about 270 years. In microseconds.
pub fn parse_span(text: &str) -> Result<Micros, String> {
    let bad = || "write a whole number with s, m, h or d, such as 5m or 7d".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit = match unit {
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => DAY_US,
        _ => return Err(bad()),
    };
    // Digits only: parse would take a sign.
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: i64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|span| *span <= 100_000 * DAY_US).ok_or_else(bad)
}

fn number(b: &[u8]) -> Option<u32> {
    b.iter().try_fold(0u32, |n, c| c.is_ascii_digit().then(|| n * 10 + u32::from(c - b'0')))
}

/// Days since 2000-01-01 of the date that a text of at least ten bytes begins with.
fn civil(b: &[u8]) -> Option<i32> {
    let (year, month, day) = (number(&b[0..4])?, number(&b[5..7])?, number(&b[8..10])?);
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some(date.num_days_from_ce() - DAYS_BEFORE_2000)
}

/// Reads a date and a time with an offset, where its meaning is certain: RFC 3339, and what else ISO 8601, Postgres and
/// BigQuery write: `+0000`, `+00`, ` UTC`, no seconds. Fractions beyond microseconds are cut off, so that a time never
/// moves into the next day. Second 60 is accepted and means second 0 of the next minute, as in Postgres. `None` for
/// anything else, a time without an offset included.
pub fn parse_time(text: &str) -> Option<Micros> {
    parse(text, |_| None)
}

/// The same; `naive` says of a time that says no offset, in seconds since 2000-01-01, by how many seconds it is ahead.
fn parse(text: &str, naive: impl Fn(i64) -> Option<i64>) -> Option<Micros> {
    let b = text.as_bytes();
    if b.len() < 16 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || !matches!(b[10], b'T' | b't' | b' ') {
        return None;
    }
    let days = civil(b)?;
    let (hour, minute) = (number(&b[11..13])?, number(&b[14..16])?);
    let (second, mut rest) = match &b[16..] {
        [b':', tens, ones, rest @ ..] => (number(&[*tens, *ones])?, rest),
        rest => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut fraction = 0i64;
    if b.get(16) == Some(&b':') && rest.first() == Some(&b'.') {
        let digits = rest[1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for i in 0..6 {
            fraction = fraction * 10 + if i < digits { i64::from(rest[1 + i] - b'0') } else { 0 };
        }
        rest = &rest[1 + digits..];
    }
    let local = i64::from(days) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    let ahead = match rest.strip_prefix(b" ").unwrap_or(rest) {
        [] if rest.is_empty() => naive(local)?,
        [b'Z' | b'z'] | b"UTC" => 0,
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let minutes = match minutes {
                [] => 0,
                [b':', m1, m2] | [m1, m2] => number(&[*m1, *m2])?,
                _ => return None,
            };
            let hours = number(&[*h1, *h2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 60 + minutes) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some((local - ahead) * 1_000_000 + fraction)
}

/// What the times of a source are, where they do not say it themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Times with an offset only.
    #[default]
    Certain,
    /// Those without an offset are so many minutes ahead of UTC.
    Ahead(i64),
    /// Those without an offset are local times there.
    In(Zone),
    /// Numbers are so many microseconds each, since 1970.
    Epoch(i64),
}

impl Unit {
    /// Reads `s`, `ms`, `us`, `UTC`, an offset such as `+02:00` or the name of a zone.
    pub fn parse(word: &str) -> Option<Unit> {
        Some(match word {
            "s" => Unit::Epoch(1_000_000),
            "ms" => Unit::Epoch(1_000),
            "us" => Unit::Epoch(1),
            "UTC" => Unit::Ahead(0),
            _ => {
                let minutes = match word.as_bytes() {
                    [b'+' | b'-', h1, h2, b':', m1, m2] => {
                        let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
                        (hours < 24 && minutes < 60).then_some(i64::from(hours * 60 + minutes))?
                    }
                    _ => return Zone::parse(word).map(Unit::In),
                };
                Unit::Ahead(if word.starts_with('-') { -minutes } else { minutes })
            }
        })
    }

    /// Reads a time of this unit. One that says its offset is what it says, whatever the unit.
    pub fn read(self, text: &str) -> Option<Micros> {
        match self {
            Unit::Certain => parse_time(text),
            Unit::Ahead(minutes) => parse(text, |_| Some(minutes * 60)),
            Unit::In(zone) => parse(text, |local| zone.ahead(local)),
            Unit::Epoch(each) => epoch(text, each).or_else(|| parse_time(text)),
        }
    }

    /// The same of a number with a fraction, which has microseconds exactly until the year 2255.
    pub fn read_number(self, number: f64) -> Option<Micros> {
        let Unit::Epoch(each) = self else { return None };
        let micros = (number * each as f64).round();
        // As far as a float counts in whole numbers.
        (micros.abs() < 9e15).then(|| UNIX_EPOCH_US + micros as i64)
    }
}

/// Digits with or without a fraction; what is below a microsecond is cut off.
fn epoch(text: &str, each: i64) -> Option<Micros> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().chain(whole.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (mut part, mut left) = (0, each);
    for digit in fraction.bytes() {
        left /= 10;
        part += i64::from(digit - b'0') * left;
    }
    let micros = whole.parse::<i64>().ok()?.checked_mul(each)?.checked_add(part)?;
    micros.checked_add(UNIX_EPOCH_US).filter(|time| *time < END_US)
}

/// What is wrong with a text that [`parse_time`] does not read; continues a sentence.
pub fn why_no_time(text: &str) -> &'static str {
    let b = text.as_bytes();
    if !b.is_empty() && b.iter().all(u8::is_ascii_digit) {
        return "is a number, and does not say of what: as in --envelope event_time=/timestamp:s, write :s, :ms or \
                :us behind its pointer";
    }
    if b.len() >= 10 && b[4] == b'-' && b[7] == b'-' && number(&b[..4]).is_some() {
        if civil(b).is_none() {
            return "is on a date that does not exist";
        }
        let zone = |offset: &str| parse_time(&format!("{text}{offset}")).is_some();
        if zone("Z") || zone("T00:00Z") {
            return "has no offset from UTC, such as Z or +02:00: as in --envelope event_time=/timestamp:UTC, write \
                    :UTC, :+02:00 or :Europe/Berlin behind its pointer";
        }
    }
    "is no time such as 2026-09-01T08:15:22Z"
}

/// What becomes of an event that was received later than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LatePolicy {
    /// Loaded like any other: its date is recomputed
    Recompute,
    /// Kept in bronze.late_events until loader.merge_late_events takes it over
    Divert,
    /// A dead letter with reason too_late
    Refuse,
}

/// How late an event was received, in microseconds; below zero when its producer's clock is ahead.
pub fn lateness(event_time: Micros, received_at: Micros) -> Micros {
    received_at.saturating_sub(event_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_whole_numbers_with_a_unit() {
        assert_eq!(parse_span("0s"), Ok(0));
        assert_eq!(parse_span("5m"), Ok(300_000_000));
        assert_eq!(parse_span("36h"), Ok(36 * 3_600_000_000));
        assert_eq!(parse_span("7d"), Ok(7 * DAY_US));
        for bad in
            ["", "s", "7", "-1d", "+1d", "1.5h", "1 d", "1w", "30é", "100001d", "99999999999999999999s"]
        {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_what_is_certain() {
        let day = |text| i64::from(parse_day(text).unwrap()) * DAY_US;
        let base = day("2026-09-01") + 29_722_000_000;
        for (text, expected) in [
            ("2000-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00Z", UNIX_EPOCH_US),
            ("2026-09-01T08:15:22Z", base),
            ("2026-09-01T08:15:22.123Z", base + 123_000),
            ("2026-09-01T08:15:22.1234567Z", base + 123_456),
            ("2026-09-01t10:15:22+02:00", base),
            ("2026-09-01 02:45:22-05:30", base),
            ("2026-09-01T10:15:22+0200", base),
            ("2026-09-01 10:15:22.5+02", base + 500_000),
            ("2026-09-01 08:15:22.123 UTC", base + 123_000),
            ("2026-09-01 08:15:22 +00:00", base),
            ("2026-09-01T08:15Z", base - 22_000_000),
            ("2024-02-29T23:59:60Z", day("2024-03-01")),
            ("9999-12-31T23:59:59.999999Z", day("9999-12-31") + DAY_US - 1),
            ("0000-01-01T00:00:00Z", day("0000-01-01")),
        ] {
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn record_times_that_postgres_cannot_hold_are_unknown() {
        assert_eq!(from_unix_millis(0), Some(UNIX_EPOCH_US));
        // Postgres' own bounds, MIN_TIMESTAMP inclusive and END_TIMESTAMP exclusive.
        let (first, end) = (-211_813_488_000_000_000, 9_223_371_331_200_000_000);
        assert_eq!(from_unix_millis(to_unix_millis(first)), Some(first));
        assert_eq!(from_unix_millis(to_unix_millis(first) - 1), None);
        let end_ms = end / 1000 - UNIX_EPOCH_US / 1000;
        // Their microseconds since 1970 need more than 64 bits, so the last years are unknown too.
        assert_eq!(from_unix_millis(end_ms), None);
        assert_eq!(from_unix_millis(i64::MAX), None);
        assert_eq!(from_unix_millis(i64::MIN), None);
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "2026-09-01",
            "2026-09-01T08:15:22",
            "2026-9-1T08:15:22Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-09-01T24:00:00Z",
            "2026-09-01T08:60:22Z",
            "2026-09-01T08:15:22.Z",
            "2026-09-01T08:15:22+24:00",
            "2026-09-01T08:15:22+2",
            "2026-09-01T08:15:22+020",
            "2026-09-01T08:15:22  UTC",
            "2026-09-01T08:15:22 CET",
            "2026-09-01T08:15.5Z",
            "2026-09-01T08:15:2Z",
            "2026-09-01T08:15:22Zjunk",
            "1756714522",
            "yesterday at noon, roughly",
            "２０２６-09-01T08:15:22Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn units_say_what_times_do_not() {
        let base = parse_time("2026-10-02T08:15:22Z").unwrap();
        for (unit, text, expected) in [
            ("s", "1790928922", Some(base)),
            ("s", "1790928922.5", Some(base + 500_000)),
            ("s", "1790928922.1234567", Some(base + 123_456)),
            ("ms", "1790928922123", Some(base + 123_000)),
            ("ms", "1790928922123.25", Some(base + 123_250)),
            ("us", "1790928922123456", Some(base + 123_456)),
            ("us", "1790928922123456.9", Some(base + 123_456)),
            ("s", "2026-10-02T10:15:22+02:00", Some(base)),
            ("s", "2026-10-02 10:15:22", None),
            ("s", "", None),
            ("s", ".5", None),
            ("s", "5.", None),
            ("s", "-1", None),
            ("s", "9223372036854775807", None),
            ("UTC", "2026-10-02 08:15:22", Some(base)),
            ("UTC", "2026-10-02 08:15:22.000001", Some(base + 1)),
            ("UTC", "2026-10-02T08:15", Some(base - 22_000_000)),
            ("UTC", "2026-10-02T10:15:22+02", Some(base)),
            ("UTC", "2026-10-02 ", None),
            ("UTC", "2026-10-02 08:15:22 ", None),
            ("UTC", "1790928922", None),
            ("+02:00", "2026-10-02 10:15:22", Some(base)),
            ("-05:30", "2026-10-02 02:45:22", Some(base)),
        ] {
            assert_eq!(Unit::parse(unit).unwrap().read(text), expected, "{unit} {text}");
        }
        for (unit, number, expected) in [
            ("s", 1_790_928_922.613, Some(base + 613_000)),
            ("s", 1_790_928_922.123_456, Some(base + 123_456)),
            ("ms", 1_790_928_922_000.5, Some(base + 500)),
            ("s", f64::NAN, None),
            ("s", 1e300, None),
            ("UTC", 1.5, None),
        ] {
            assert_eq!(Unit::parse(unit).unwrap().read_number(number), expected, "{unit} {number}");
        }
        for bad in ["", "m", "Z", "utc", "+2", "+24:00", "+02:60", "Europa/Berlin"] {
            assert_eq!(Unit::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("1790928922", "is a number"),
            ("2026-02-30T08:15:22Z", "does not exist"),
            ("2026-10-02 08:15:22.123000", "has no offset"),
            ("2026-10-02", "has no offset"),
            ("Fri, 02 Oct 2026 08:15:22 GMT", "is no time such as"),
            ("", "is no time such as"),
            ("2026-10-02T25:15:22Z", "is no time such as"),
        ] {
            assert!(why_no_time(text).contains(why), "{text}: {}", why_no_time(text));
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip(day in -730_485i32..=2_921_939) {
            prop_assert_eq!(parse_day(&format_day(day)), Some(day));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = (parse_time(&text), why_no_time(&text), Unit::Epoch(1).read(&text), Unit::Ahead(1).read(&text));
            let _ = parse_day(&text);
        }
    }
}
