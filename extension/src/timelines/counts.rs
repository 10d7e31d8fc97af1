//! `session_report`, `retention_report` and `trend`.

use std::collections::{BTreeMap, HashMap, HashSet};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};
use tidemark_core::interrupt::Interrupt;
use tidemark_core::retention::calendar::{DAY, Unit};
use tidemark_core::retention::cohort::{CohortLog, Spec};
use tidemark_core::retention::matrix::Matrix;
use tidemark_core::timeline::{Cohorts, Persons, Question, SLOT, SessionRuns};
use tidemark_core::{AVec, Global};

use super::filter::{Parser, breakdown, json, top};
use super::read::{Open, Timeline, text};
use crate::funnel_stats::rounded;
use crate::support::error::{OrRaise, invalid_argument, not_null};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;
use crate::support::interval::fixed_microseconds;
use crate::support::set::give_rows;
use crate::support::{args, pg_function};

/// A number of rows or persons.
pub fn count(n: u64) -> Option<Datum> {
    Some(Datum::from(i64::try_from(n).unwrap_or(i64::MAX)))
}

pg_function! {
    /// `session_report(source regclass, from_date date, to_date date, gap interval, filters jsonb)`.
    fn tidemark_session_report(fcinfo) {
        let mut timeline = Timeline::of_call(fcinfo);
        let gap = fixed_microseconds(not_null(args::interval(fcinfo, 3), "gap"), "gap");
        let only = json(fcinfo, 4, "filters").map(|filters| Parser::new(&mut timeline).filter(&filters));
        let open = timeline.open();
        let question = Question { only: only.map(|only| only.of_codes(&open)), ..Question::all() };
        let (mut durations, mut events) = (vec![], 0u64);
        let kernel = SessionRuns::new(question, gap, |_, session| {
            durations.push(session.ended_at - session.started_at);
            events += session.events as u64;
        });
        let persons = open.ask(kernel).persons();
        let sum: i128 = durations.iter().map(|us| i128::from(*us)).sum();
        let seconds = |us: f64| rounded(us / 1e6, 3);
        let any = !durations.is_empty();
        let mut at = |share: f64| any.then(|| percentile(&mut durations, share)).and_then(seconds);
        let (median, p95) = (at(0.5), at(0.95));
        let average = any.then(|| sum as f64 / durations.len() as f64).and_then(seconds);
        let row = [count(durations.len() as u64), count(persons), count(events), average, median, p95];
        give_rows(fcinfo, std::iter::once(row))
    }
}

/// What Postgres calls `percentile_cont`; of at least one value.
pub fn percentile(values: &mut [i64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (low, rest) = (place.floor() as usize, place.fract());
    let (_, at, above) = values.select_nth_unstable(low);
    let at = *at as f64;
    match above.iter().min() {
        Some(next) if rest > 0.0 => at + rest * (*next as f64 - at),
        _ => at,
    }
}

pg_function! {
    /// `retention_report(source regclass, from_date date, to_date date, start jsonb, returned jsonb, period text,
    /// mode text, periods integer, as_of timestamptz, filters jsonb)`.
    fn tidemark_retention_report(fcinfo) {
        let mut timeline = Timeline::of_call(fcinfo);
        let (start, returned) =
            (not_null(json(fcinfo, 3, "start"), "start"), not_null(json(fcinfo, 4, "returned"), "returned"));
        let word = |index, name: &str, otherwise| args::bytes(fcinfo, index).map_or(otherwise, |b| args::word(b, name));
        let (period, mode) = (word(5, "period", "week"), word(6, "mode", ""));
        let periods = args::int32(fcinfo, 7).unwrap_or(8);
        let filters = json(fcinfo, 9, "filters");
        let (from, to) = timeline.dates;
        let as_of = args::timestamp(fcinfo, 8).unwrap_or(i64::from(to).saturating_mul(DAY));
        let spec = Spec::parse(period, mode, periods.into(), as_of).unwrap_or_else(|error| {
            invalid_argument(error.to_string(), "For example period => 'week', mode => 'on', periods => 9.")
        });
        if !spec.is_utc() {
            invalid_argument("mode of a report has no time_zone", "Reports of retention are by UTC date.");
        }
        let mut parser = Parser::new(&mut timeline);
        let conditions = [parser.step(&start).0, parser.step(&returned).0];
        let only = filters.map(|filters| parser.filter(&filters));
        let open = timeline.open();
        let question = Question {
            conditions: conditions.iter().map(|asked| asked.of_codes(&open)).collect(),
            only: only.map(|only| only.of_codes(&open)),
            ..Question::default()
        };
        let matrix = match Cohorts::new(question.clone(), spec, from, to) {
            Ok(kernel) => open.ask(kernel).matrix(Interrupts),
            Err(_) => Ok(by_person(&open, question, spec)),
        }
        .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count cohorts");
        let rows: Vec<_> = matrix.rows().flat_map(|row| {
            let cohort = row.cohort.div_euclid(DAY) as i32;
            let retained: Vec<Option<u64>> = row.retained().collect();
            let whole = retained.first().copied().flatten().unwrap_or(0);
            (0i32..).zip(retained).map(move |(period, persons)| [
                Some(Datum::from(cohort)),
                Some(Datum::from(period)),
                persons.and_then(count),
                persons.filter(|_| whole > 0).and_then(|n| rounded(100.0 * n as f64 / whole as f64, 2)),
            ])
        }).collect();
        give_rows(fcinfo, rows.into_iter())
    }
}

/// The aggregate over the rows of each person: rolling periods, and more of them than a kernel keeps.
fn by_person(open: &Open, question: Question, spec: Spec) -> Matrix<Global> {
    let (mut matrix, mut retained) = (Matrix::new_in(Global), AVec::new_in(Global));
    let mut log = CohortLog::new_in(spec, Global);
    open.each_person(question, &mut |_, rows| {
        log = CohortLog::new_in(spec, Global);
        rows.iter().for_each(|row| log.push(row.time, row.conditions & 1 == 1, row.conditions & 2 == 2));
        for member in log.members(Interrupts) {
            retained.clear();
            retained.extend(member.retained());
            matrix
                .push(member.cohort, &retained)
                .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count cohorts");
        }
    });
    matrix
}

/// The code that stands for all series but the first ones; more than a dictionary has.
const OTHER: u32 = u32::MAX;

/// What a period is.
#[derive(Clone, Copy)]
enum Period {
    Hour,
    Of(Unit),
}

impl Period {
    const HOUR: i64 = 3_600_000_000;

    fn start(self, time: i64) -> i64 {
        match self {
            Self::Hour => time - time.rem_euclid(Self::HOUR),
            Self::Of(unit) => unit.start(unit.index(time)),
        }
    }
}

/// Where the period of a time begins in a zone.
struct Calendar {
    period: Period,
    /// NULL for UTC.
    zone: Option<Datum>,
    /// The first time that counts, and the first behind.
    from: i64,
    to: i64,
    /// By slot.
    starts: HashMap<i64, i64>,
}

impl Calendar {
    /// Dates are those of the zone.
    fn new(period: Period, zone: Option<Datum>, (from, to): (i32, i32)) -> Self {
        let mut calendar = Self { period, zone, from: i64::MIN, to: i64::MAX, starts: HashMap::new() };
        if calendar.zone.is_some() {
            (calendar.from, calendar.to) =
                (calendar.utc(i64::from(from) * DAY), calendar.utc(i64::from(to) * DAY));
        }
        calendar
    }

    /// Where the period begins; `None` if the time does not count.
    fn start(&mut self, time: i64) -> Option<i64> {
        if time < self.from || time >= self.to {
            return None;
        }
        let Some(zone) = self.zone else { return Some(self.period.start(time)) };
        let slot = time.div_euclid(SLOT);
        if let Some(start) = self.starts.get(&slot) {
            return Some(*start);
        }
        let at = slot * SLOT;
        // SAFETY: (text, timestamptz) -> timestamp.
        let local = unsafe {
            pgrx::direct_function_call_as_datum(
                pg_sys::timestamptz_zone,
                &[Some(zone), Some(Datum::from(at))],
            )
        };
        let local = local.map_or(at, |local| local.value() as i64);
        if (local - at).rem_euclid(SLOT) != 0 {
            invalid_argument(
                "time_zone is not ahead of UTC, or behind it, by quarters of an hour",
                "For example time_zone => 'Asia/Kolkata'.",
            );
        }
        // An hour that comes twice a year is two.
        let start = match self.period {
            Period::Hour => at - (local - self.period.start(local)),
            Period::Of(_) => self.utc(self.period.start(local)),
        };
        self.starts.insert(slot, start);
        Some(start)
    }

    /// A local time as one of UTC.
    fn utc(&self, local: i64) -> i64 {
        // SAFETY: (text, timestamp) -> timestamptz.
        let at = unsafe {
            pgrx::direct_function_call_as_datum(
                pg_sys::timestamp_zone,
                &[self.zone, Some(Datum::from(local))],
            )
        };
        at.map_or(local, |at| at.value() as i64)
    }
}

/// Numbers by period and series.
type Values = HashMap<(i64, u32), u64>;

pg_function! {
    /// `trend(source regclass, from_date date, to_date date, math text, events jsonb, unit text, breakdown text,
    /// filters jsonb, top integer, time_zone text)`.
    fn tidemark_trend(fcinfo) {
        let zone = args::text(fcinfo, 9, "time_zone").filter(|zone| *zone != "UTC").and_then(|_| args::datum(fcinfo, 9));
        let mut timeline = Timeline::of_call_beside(fcinfo, i32::from(zone.is_some()));
        let (from, to) = timeline.dates;
        let word = |index, name: &str, otherwise| args::bytes(fcinfo, index).map_or(otherwise, |b| args::word(b, name));
        let persons = match word(3, "math", "total") {
            "total" => false,
            "persons" => true,
            math => invalid_argument(format!("unknown math {math:?}"), "math is total or persons."),
        };
        let period = match word(5, "unit", "day") {
            "hour" => Period::Hour,
            unit => Period::Of(unit.parse().unwrap_or_else(|_| {
                let known = "unit is hour, day, week, week from sunday (or another day), month or quarter.";
                invalid_argument(format!("unknown unit {unit:?}"), known)
            })),
        };
        let (events, filters) = (json(fcinfo, 4, "events"), json(fcinfo, 7, "filters"));
        let top = top(fcinfo, 8, 10);
        let by = breakdown(fcinfo, 6, &mut timeline);
        let mut parser = Parser::new(&mut timeline);
        let events = events.map(|step| parser.step(&step).0);
        let only = filters.map(|filters| parser.filter(&filters));
        let beside = i32::from(zone.is_some());
        let calendar = &mut Calendar::new(period, zone, (from + beside, to - beside));
        let open = timeline.open();
        let question = Question {
            unmatched: events.is_none(),
            conditions: events.iter().map(|asked| asked.of_codes(&open)).collect(),
            only: only.map(|only| only.of_codes(&open)),
            value: by,
        };
        let mut values = if persons { people(&open, &question, calendar, &|code| code) } else {
            totals(&open, &question, calendar)
        };
        let order = contained(|| ranked(&values));
        let kept: HashMap<u32, usize> = order.iter().take(top).copied().zip(0..).collect();
        if order.len() > top {
            let joined = |code: u32| if kept.contains_key(&code) { code } else { OTHER };
            values = if persons {
                // Who is in several of the others counts once among them.
                people(&open, &question, calendar, &joined)
            } else {
                let mut sums = Values::new();
                contained(|| values.iter().for_each(|((at, code), n)| {
                    *sums.entry((*at, joined(*code))).or_default() += n;
                }));
                sums
            };
        }
        let mut rows: Vec<_> = vec![];
        contained(|| rows.extend(values.drain()));
        rows.sort_unstable_by_key(|((at, code), _)| (*at, kept.get(code).copied().unwrap_or(usize::MAX)));
        give_rows(fcinfo, rows.into_iter().map(|((at, code), n)| {
            let series = by.map(|column| match code {
                0 => "(none)",
                OTHER => "(other)",
                code => open.dictionary(column).text(code).unwrap_or_default(),
            });
            [Some(Datum::from(at)), series.and_then(text), count(n)]
        }))
    }
}

/// Rows.
fn totals(open: &Open, question: &Question, calendar: &mut Calendar) -> Values {
    let by_slot = calendar.zone.is_some() || matches!(calendar.period, Period::Hour);
    let (mut values, mut last, mut sum) = (Values::new(), (0, 0), 0);
    open.counts(question, by_slot, |at, code, n| {
        let Some(start) = calendar.start(at) else { return };
        // Those of a period mostly follow each other.
        if last != (start, code) {
            *values.entry(last).or_default() += std::mem::take(&mut sum);
            last = (start, code);
        }
        sum += n;
    });
    *values.entry(last).or_default() += sum;
    values.retain(|_, n| *n > 0);
    values
}

/// Distinct persons.
fn people(open: &Open, question: &Question, calendar: &mut Calendar, series: &dyn Fn(u32) -> u32) -> Values {
    if let (Period::Of(Unit::Day), None, None) = (calendar.period, question.value, calendar.zone) {
        let all = *question == Question::all();
        let by_date = |dates: &BTreeMap<i32, u64>| -> Values {
            dates.iter().map(|(date, n)| ((i64::from(*date) * DAY, 0), *n)).collect()
        };
        return if all {
            by_date(&open.persons_by_date())
        } else {
            by_date(open.ask(Persons::new(question.clone(), false)).dates())
        };
    }
    let (mut values, mut seen) = (Values::new(), HashSet::new());
    open.each_person(question.clone(), &mut |_, rows| {
        seen.clear();
        for row in rows {
            Interrupts.check();
            let Some(start) = calendar.start(row.time) else { continue };
            let key = (start, series(row.value));
            if seen.insert(key) {
                *values.entry(key).or_default() += 1;
            }
        }
    });
    values
}

/// The series, largest first.
fn ranked(values: &Values) -> Vec<u32> {
    let mut sums: HashMap<u32, u64> = HashMap::new();
    values.iter().for_each(|((_, code), n)| *sums.entry(*code).or_default() += n);
    let mut order: Vec<(u32, u64)> = sums.into_iter().collect();
    order.sort_by_key(|(code, n)| (std::cmp::Reverse(*n), *code));
    order.into_iter().map(|(code, _)| code).collect()
}
