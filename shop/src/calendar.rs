//! Dates and instants as the generator needs them: parse `YYYY-MM-DD`, write RFC 3339. Proleptic Gregorian, UTC only.

/// Milliseconds in a UTC day.
pub(super) const DAY_MS: u64 = 86_400_000;

/// A UTC date as days since 1970-01-01; never before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u32);

impl Date {
    /// 2026-09-01.
    pub(super) const DEFAULT: Date = Date(20_697);
    /// Days from 1970-01-01 to 2099-01-01.
    pub(super) const YEAR_2099: u64 = 47_117;

    /// Days since 1970-01-01.
    pub const fn days(self) -> u64 {
        self.0 as u64
    }

    /// 0 for Monday to 6 for Sunday.
    pub(super) const fn weekday(days: u64) -> usize {
        ((days + 3) % 7) as usize
    }

    /// Years 1970 to 9999.
    pub(super) fn new(year: u64, month: u64, day: u64) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Counts years from March, so that the leap day is the last day of its year.
        let year_from_march = if month <= 2 { year - 1 } else { year };
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = year_from_march * 365 + year_from_march / 4 - year_from_march / 100
            + year_from_march / 400
            + day_of_year;
        let date = days - 719_468;
        (civil(date) == (year, month, day)).then_some(Date(u32::try_from(date).ok()?))
    }
}

impl std::str::FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a date of the form YYYY-MM-DD from 1970 on");
        let mut parts = text.split('-');
        let mut part = |width: usize| {
            let part = parts.next().filter(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_digit()))?;
            part.parse::<u64>().ok()
        };
        let date = match (part(4), part(2), part(2)) {
            (Some(year), Some(month), Some(day)) => Date::new(year, month, day),
            _ => None,
        };
        date.filter(|_| parts.next().is_none()).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil(self.days());
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// (year, month, day) of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let end = out.len() + width;
    out.resize(end, b'0');
    for place in out[end - width..].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Appends `2026-09-01T08:15:22.123Z` for milliseconds since 1970-01-01T00:00Z (years up to 9999).
pub(super) fn write_instant(out: &mut Vec<u8>, ms: u64) {
    let (year, month, day) = civil(ms / DAY_MS);
    let in_day = ms % DAY_MS;
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (in_day / 3_600_000, 2, b':'),
        (in_day / 60_000 % 60, 2, b':'),
        (in_day / 1_000 % 60, 2, b'.'),
        (in_day % 1_000, 3, b'Z'),
    ] {
        digits(out, value, width);
        out.push(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(ms: u64) -> String {
        let mut out = Vec::new();
        write_instant(&mut out, ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn instants_are_written_in_rfc_3339() {
        assert_eq!(instant(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(instant(951_782_400_001), "2000-02-29T00:00:00.001Z");
        assert_eq!(instant(1_788_250_522_123), "2026-09-01T08:15:22.123Z");
        assert_eq!(instant(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_date_of_130_years_survives_a_round_trip() {
        for days in 0..47_500 {
            let text = Date(days).to_string();
            assert_eq!(text.parse::<Date>(), Ok(Date(days)), "{text}");
        }
    }

    #[test]
    fn wrong_dates_are_refused() {
        for text in
            ["2026-02-29", "2026-13-01", "2026-00-10", "1969-12-31", "2026-9-1", "2026-09-01-", "today", ""]
        {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_of_september_2026_is_a_tuesday() {
        let date: Date = "2026-09-01".parse().unwrap();
        assert_eq!(date, Date::DEFAULT);
        assert_eq!("2099-01-01".parse::<Date>().map(Date::days), Ok(Date::YEAR_2099));
        assert_eq!(Date::weekday(date.days()), 1);
    }
}
