//! UTC calendar periods of event times: which day, ISO week, month or quarter, and when it starts.
//!
//! Times are microseconds since 2000-01-01 00:00 UTC, as Postgres stores them, in the proleptic Gregorian calendar
//! without leap seconds. The conversion between days and dates counts years from March, so that the leap day is the
//! last day of its year; the technique is well known (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").

use std::str::FromStr;

/// Microseconds of 24 hours.
pub const DAY: i64 = 86_400_000_000;

/// 0000-03-01 lies this many days before 2000-01-01.
const DAYS_FROM_MARCH_0: i64 = 730_425;
/// Days in 400 years.
const ERA: i64 = 146_097;

/// The days on which a week may begin, in the order of [`Unit::Week`].
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// A calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A UTC day.
    Day,
    /// Seven days from this many days after a Monday, 0 to 6: 0 is as in ISO 8601, 6 from Sunday.
    Week(u8),
    /// A calendar month.
    Month,
    /// January to March, and so on.
    Quarter,
}

/// The text is not a calendar period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown period \"{0}\", expected day, week, month, quarter, or week from a day, such as sunday")]
pub struct UnknownUnit(pub String);

impl FromStr for Unit {
    type Err = UnknownUnit;

    fn from_str(text: &str) -> Result<Self, UnknownUnit> {
        match text {
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week(0)),
            "month" => Ok(Self::Month),
            "quarter" => Ok(Self::Quarter),
            _ => {
                let first = text.strip_prefix("week from ");
                let first = first.and_then(|day| WEEKDAYS.iter().position(|known| *known == day));
                first.map(|first| Self::Week(first as u8)).ok_or_else(|| UnknownUnit(text.to_owned()))
            }
        }
    }
}

impl Unit {
    /// The number of the period that holds `time`; consecutive periods have consecutive numbers.
    pub fn index(self, time: i64) -> i64 {
        let day = time.div_euclid(DAY);
        match self {
            Self::Day => day,
            // 2000-01-03 was a Monday.
            Self::Week(first) => (day - 2 - i64::from(first)).div_euclid(7),
            Self::Month => months(day),
            Self::Quarter => months(day).div_euclid(3),
        }
    }

    /// When the period with this number starts (inclusive). Saturates at the ends of the time range, so the start of
    /// the very first period is the first time there is.
    pub fn start(self, index: i64) -> i64 {
        let day = match self {
            Self::Day => index,
            Self::Week(first) => index.saturating_mul(7).saturating_add(2 + i64::from(first)),
            Self::Month => first_day(index),
            Self::Quarter => first_day(index.saturating_mul(3)),
        };
        day.saturating_mul(DAY)
    }

    /// How many days a rolling period of this name has by convention: 1, 7, 30, 90.
    pub fn rolling_days(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Week(_) => 7,
            Self::Month => 30,
            Self::Quarter => 90,
        }
    }
}

/// Months since January 2000 of a day since 2000-01-01.
fn months(day: i64) -> i64 {
    let day = day + DAYS_FROM_MARCH_0;
    let era = day.div_euclid(ERA);
    let in_era = day.rem_euclid(ERA);
    // Take out one day per leap year passed, then years have 365 days.
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    // Five months from March have 153 days.
    let month_from_march = (5 * in_year + 2) / 153;
    (era * 400 + year - 2000) * 12 + month_from_march + 2
}

/// The day since 2000-01-01 on which a month since January 2000 starts.
fn first_day(month: i64) -> i64 {
    // Far beyond what microseconds reach; keeps the sums below inside 64 bits.
    let month = month.clamp(-1 << 48, 1 << 48);
    let from_march = month - 2 + 2000 * 12;
    let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 - DAYS_FROM_MARCH_0
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Weekday};
    use proptest::prelude::*;

    const UNITS: [Unit; 6] =
        [Unit::Day, Unit::Week(0), Unit::Week(3), Unit::Week(6), Unit::Month, Unit::Quarter];

    fn epoch() -> NaiveDate {
        NaiveDate::from_ymd_opt(2000, 1, 1).unwrap()
    }

    fn period_start_by_chrono(unit: Unit, date: NaiveDate) -> NaiveDate {
        let first = |month| NaiveDate::from_ymd_opt(date.year(), month, 1).unwrap();
        match unit {
            Unit::Day => date,
            Unit::Week(first) => date.week(Weekday::try_from(first).unwrap()).first_day(),
            Unit::Month => first(date.month()),
            Unit::Quarter => first((date.month() - 1) / 3 * 3 + 1),
        }
    }

    #[test]
    fn every_day_of_eight_centuries_agrees_with_chrono() {
        let mut date = NaiveDate::from_ymd_opt(1600, 1, 1).unwrap();
        while date.year() < 2401 {
            let time = (date - epoch()).num_days() * DAY;
            for unit in UNITS {
                let start = (period_start_by_chrono(unit, date) - epoch()).num_days() * DAY;
                assert_eq!(unit.start(unit.index(time)), start, "{unit:?} of {date}");
                assert_eq!(unit.start(unit.index(time + DAY - 1)), start, "{unit:?} at the end of {date}");
            }
            date = date.checked_add_days(Days::new(1)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_time_chrono_can_express_agrees_with_it(time in -8_000_000_000_000_000_000i64..8_000_000_000_000_000_000) {
            let date = (DateTime::from_timestamp(946_684_800, 0).unwrap() + TimeDelta::microseconds(time)).date_naive();
            for unit in UNITS {
                let start = (period_start_by_chrono(unit, date) - epoch()).num_days() * DAY;
                prop_assert_eq!(unit.start(unit.index(time)), start);
            }
        }

        #[test]
        fn a_time_lies_in_its_period_over_the_whole_range(time: i64) {
            for unit in UNITS {
                let index = unit.index(time);
                prop_assert!(unit.start(index) <= time);
                prop_assert!(unit.start(index + 1) > time || unit.start(index + 1) == i64::MAX);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_and_of_the_numbers_saturate() {
        for unit in UNITS {
            assert_eq!(unit.start(i64::MIN), i64::MIN);
            assert_eq!(unit.start(i64::MAX), i64::MAX);
            assert!(unit.start(unit.index(i64::MIN)) == i64::MIN);
        }
    }

    #[test]
    fn unit_names_are_lower_case_words() {
        assert_eq!("week".parse(), Ok(Unit::Week(0)));
        assert_eq!("week from monday".parse(), Ok(Unit::Week(0)));
        assert_eq!("week from sunday".parse(), Ok(Unit::Week(6)));
        assert!("week from ".parse::<Unit>().is_err() && "month from sunday".parse::<Unit>().is_err());
        assert!("Week".parse::<Unit>().is_err() && "year".parse::<Unit>().is_err());
    }
}
