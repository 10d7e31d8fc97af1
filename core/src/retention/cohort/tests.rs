//! Cohorts of one person: the rules case by case, a direct reading of the rules, and the merge laws.

use super::*;
use crate::Global;
use crate::codec::{read_whole, written};
use proptest::prelude::*;

const HOUR: i64 = DAY / 24;
/// Monday 2024-01-01 00:00 UTC.
const MONDAY: i64 = 8766 * DAY;

fn log(spec: Spec, events: &[(i64, bool, bool)]) -> CohortLog<Global> {
    let mut log = CohortLog::new_in(spec, Global);
    for &(time, is_start, is_return) in events {
        log.push(time, is_start, is_return);
    }
    log
}

fn members_of(log: &mut CohortLog<Global>) -> Vec<(i64, Vec<Option<bool>>)> {
    log.members(()).map(|member| (member.cohort, member.retained().collect())).collect()
}

/// Cohort as days since that Monday, periods as `1`, `0` and `?`.
fn members(
    period: &str,
    mode: &str,
    periods: i64,
    as_of: i64,
    events: &[(i64, bool, bool)],
) -> Vec<(i64, String)> {
    let spec = Spec::parse(period, mode, periods, as_of).unwrap();
    let text = |k: Option<bool>| k.map_or('?', |r| if r { '1' } else { '0' });
    let members = members_of(&mut log(spec, events));
    members.into_iter().map(|m| ((m.0 - MONDAY) / DAY, m.1.into_iter().map(text).collect())).collect()
}

fn start(time: i64) -> (i64, bool, bool) {
    (MONDAY + time, true, false)
}

fn back(time: i64) -> (i64, bool, bool) {
    (MONDAY + time, false, true)
}

#[test]
fn calendar_weeks_start_on_monday_and_incomplete_ones_are_unknown() {
    let events = [start(6 * DAY), back(7 * DAY - 1), back(7 * DAY), back(27 * DAY), back(29 * DAY)];
    assert_eq!(members("week", "", 6, MONDAY + 30 * DAY, &events), [(0, "1101??".into())]);
    assert_eq!(members("week", "", 6, MONDAY + 35 * DAY, &events), [(0, "11011?".into())]);
    assert_eq!(members("week", "", 6, MONDAY + 35 * DAY - 1, &events), [(0, "1101??".into())]);
    assert_eq!(members("week", "on_or_after", 6, MONDAY + 35 * DAY, &events), [(0, "11111?".into())]);
}

#[test]
fn a_week_from_sunday_begins_a_day_earlier() {
    let events = [start(5 * DAY), back(6 * DAY), back(13 * DAY)];
    assert_eq!(members("week", "", 3, MONDAY + 30 * DAY, &events), [(0, "110".into())]);
    assert_eq!(members("week from sunday", "", 3, MONDAY + 30 * DAY, &events), [(-1, "111".into())]);
    assert_eq!(members("week from saturday", "rolling", 3, MONDAY + 30 * DAY, &events), [(5, "110".into())]);
}

#[test]
fn times_of_two_clocks_are_two_questions() {
    let of = |zone: &str| Spec::parse("day", &format!("on, time_zone={zone}"), 3, 0).unwrap();
    assert!(!of("Asia/Kathmandu").is_utc() && Spec::parse("day", "on", 3, 0).unwrap().is_utc());
    assert_eq!(time_zone("on, time_zone=Asia/Kathmandu"), Some("Asia/Kathmandu"));
    assert_eq!(time_zone("on"), None);
    assert!(CohortLog::new_in(of("UTC"), Global).append(&CohortLog::new_in(of("GMT"), Global), ()).is_err());
    let twice = Spec::parse("day", "time_zone=UTC,time_zone=GMT", 3, 0);
    assert_eq!(twice, Err(SpecError::Conflict("time_zone=GMT".into())));
}

#[test]
fn months_and_quarters_have_their_own_lengths() {
    let leap_day = start(59 * DAY);
    assert_eq!(
        members("month", "", 3, MONDAY + 200 * DAY, &[leap_day, back(60 * DAY)]),
        [(31, "110".into())]
    );
    assert_eq!(
        members("quarter", "", 2, MONDAY + 200 * DAY, &[leap_day, back(91 * DAY)]),
        [(0, "11".into())]
    );
}

#[test]
fn rolling_periods_run_from_the_own_start() {
    let events = [start(10 * HOUR), back(33 * HOUR), back(82 * HOUR)];
    assert_eq!(members("day", "rolling", 5, MONDAY + 30 * DAY, &events), [(0, "10010".into())]);
    assert_eq!(members("day", "calendar", 5, MONDAY + 30 * DAY, &events), [(0, "11010".into())]);
    let exact = [start(10 * HOUR), back(34 * HOUR)];
    assert_eq!(members("day", "rolling", 3, MONDAY + 30 * DAY, &exact), [(0, "110".into())]);
    assert_eq!(members("week", "rolling=1", 3, MONDAY + 30 * DAY, &exact), [(0, "110".into())]);
    assert_eq!(members("week", "rolling", 3, MONDAY + 21 * DAY, &exact), [(0, "10?".into())]);
}

#[test]
fn a_rolling_period_is_unknown_while_its_cohort_can_still_grow() {
    let events = [start(0), back(30 * HOUR)];
    assert_eq!(members("week", "rolling=1", 3, MONDAY + 6 * DAY, &events), [(0, "1??".into())]);
    assert_eq!(members("week", "rolling=1", 3, MONDAY + 7 * DAY, &events), [(0, "110".into())]);
}

#[test]
fn first_time_has_one_cohort_and_recurring_one_per_period_with_a_start() {
    let events = [start(15 * DAY), start(0), start(HOUR), back(8 * DAY), (MONDAY + 16 * DAY, true, true)];
    assert_eq!(members("week", "first_time", 3, MONDAY + 70 * DAY, &events), [(0, "111".into())]);
    assert_eq!(
        members("week", "recurring", 3, MONDAY + 70 * DAY, &events),
        [(0, "111".into()), (14, "100".into())]
    );
    assert!(members("week", "", 3, MONDAY + 70 * DAY, &[back(0)]).is_empty());
    assert!(members("week", "", 3, MONDAY, &[start(0)]).is_empty(), "events at as_of are not known yet");
    assert_eq!(members("week", "", 3, MONDAY + 1, &[start(0)]), [(0, "1??".into())]);
}

#[test]
fn returns_before_the_start_do_not_count() {
    assert_eq!(
        members("day", "", 2, MONDAY + 9 * DAY, &[start(0), back(-DAY), back(-8 * DAY)]),
        [(0, "10".into())]
    );
    assert_eq!(
        members("day", "on_or_after", 2, MONDAY + 9 * DAY, &[start(0), back(-DAY)]),
        [(0, "10".into())]
    );
}

#[test]
fn a_refused_specification_names_the_word() {
    let refused = |period, mode, periods| Spec::parse(period, mode, periods, 0).unwrap_err();
    assert_eq!(refused("year", "", 1), SpecError::Unit(UnknownUnit("year".into())));
    assert_eq!(refused("day", "on,after", 1), SpecError::UnknownMode("after".into()));
    assert_eq!(refused("day", "on,", 1), SpecError::UnknownMode(String::new()));
    assert_eq!(refused("day", "on, on_or_after", 1), SpecError::Conflict("on_or_after".into()));
    assert_eq!(refused("day", "rolling=3,rolling", 1), SpecError::Conflict("rolling".into()));
    assert_eq!(refused("day", "rolling=0", 1), SpecError::RollingDays("0".into()));
    let endless = ",".repeat(1001);
    assert_eq!(Spec::parse("day", &endless, 1, 0), Err(SpecError::TooLong(1001)));
    assert_eq!(Spec::parse(&endless, "", 1, 0), Err(SpecError::TooLong(1001)));
    assert_eq!(refused("day", "", 0), SpecError::Periods(0));
    assert_eq!(refused("day", "", 1001), SpecError::Periods(1001));
}

#[test]
fn extreme_times_do_not_overflow() {
    for mode in ["", "rolling=36525", "recurring,on_or_after", "recurring,rolling"] {
        for unit in ["day", "week", "month", "quarter"] {
            let spec = Spec::parse(unit, mode, 1000, i64::MAX).unwrap();
            let all = [(i64::MIN, true, true), (i64::MAX - 1, true, true), (0, true, true)];
            let members = members_of(&mut log(spec, &all));
            assert_eq!(members.len(), if mode.starts_with("rec") { 3 } else { 1 });
        }
    }
}

/// The rules read literally, period by period and event by event.
fn expected(spec: &Spec, events: &[(i64, bool, bool)]) -> Vec<(i64, Vec<Option<bool>>)> {
    let seen: Vec<_> = events.iter().filter(|e| e.0 < spec.as_of).collect();
    let mut starts: Vec<_> = seen.iter().filter(|e| e.1).map(|e| e.0).collect();
    starts.sort_unstable();
    let index = |time| spec.unit.index(time);
    starts.dedup_by_key(|time| index(*time));
    starts.truncate(if spec.recurring { usize::MAX } else { 1 });
    let rolling = i64::from(spec.rolling_days) * DAY;
    let period = |start, time: i64| {
        if rolling == 0 { index(time) - index(start) } else { (time - start).div_euclid(rolling) }
    };
    let member = |&start: &i64| {
        let one = |k: i64| {
            let last_open = if rolling == 0 { spec.as_of } else { spec.as_of.min(start + (k + 1) * rolling) };
            let complete = if rolling == 0 {
                index(spec.as_of) - index(start) > k
            } else {
                last_open == start + (k + 1) * rolling && index(spec.as_of) > index(start)
            };
            let hit = |time: i64| period(start, time) == k || (spec.on_or_after && period(start, time) > k);
            match (k, complete) {
                (0, _) => Some(true),
                (_, false) => None,
                (_, true) => Some(seen.iter().any(|e| e.2 && hit(e.0))),
            }
        };
        let cohort = spec.unit.start(index(start));
        (cohort, (0..i64::from(spec.periods)).map(one).collect())
    };
    starts.iter().map(member).collect()
}

fn spec() -> impl Strategy<Value = Spec> {
    let unit = prop::sample::select(vec!["day", "week", "week from sunday", "month", "quarter"]);
    let flavour = prop::sample::select(vec!["on", "on_or_after"]);
    let kind = prop::sample::select(vec!["first_time", "recurring"]);
    let columns = prop::sample::select(vec![
        "calendar",
        "rolling",
        "rolling=1",
        "rolling=3",
        "time_zone=Asia/Kathmandu",
    ]);
    (unit, flavour, kind, columns, 1i64..8, 0i64..240).prop_map(|(unit, flavour, kind, columns, n, as_of)| {
        Spec::parse(unit, &format!("{flavour},{kind}, {columns}"), n, MONDAY + as_of * 12 * HOUR).unwrap()
    })
}

fn events() -> impl Strategy<Value = Vec<(i64, bool, bool)>> {
    let time = (-20i64..260).prop_map(|half_days| MONDAY + half_days * 12 * HOUR);
    prop::collection::vec((time, any::<bool>(), any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn members_follow_the_rules(spec in spec(), events in events()) {
        prop_assert_eq!(members_of(&mut log(spec, &events)), expected(&spec, &events));
    }

    #[test]
    fn any_split_merge_order_and_encoding_gives_the_same_members(
        spec in spec(), events in events(), cut in 0usize..12
    ) {
        let cut = cut.min(events.len());
        let bytes = written(|w| log(spec, &events[..cut]).encode(w, ()));
        let mut merged = log(spec, &events[cut..]);
        prop_assert!(merged.append(&read_whole(&bytes, |r| CohortLog::decode_in(r, Global, ())).unwrap(), ()).is_ok());
        prop_assert_eq!(members_of(&mut merged), members_of(&mut log(spec, &events)));
    }

    #[test]
    fn a_known_value_never_becomes_unknown_as_time_goes_on(spec in spec(), events in events(), later in 0i64..100) {
        let (early, late) = (spec, Spec { as_of: spec.as_of + later * DAY, ..spec });
        let late = members_of(&mut log(late, &events));
        for (cohort, retained) in members_of(&mut log(early, &events)) {
            let then = late.iter().find(|m| m.0 == cohort).unwrap();
            for (k, (a, b)) in retained.iter().zip(&then.1).enumerate() {
                prop_assert!(a.is_none() || b.is_some());
                prop_assert!(spec.on_or_after || a.is_none() || a == b, "period {}", k);
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read(spec in spec(), events in events(), at in 0usize..300, byte: u8) {
        let mut bytes = written(|w| log(spec, &events).encode(w, ()));
        let read = |bytes: &[u8]| read_whole(bytes, |r| CohortLog::decode_in(r, Global, ()));
        prop_assert!(read(&bytes[..at % bytes.len()]).is_err());
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(mut log) = read(&bytes) {
            prop_assert_eq!(&written(|w| log.encode(w, ())), &bytes);
            prop_assert!(log.members(()).all(|m| m.retained().len() <= MAX_PERIODS as usize));
        }
    }
}

#[test]
fn logs_for_different_questions_do_not_merge() {
    let spec = Spec::parse("day", "", 3, 0).unwrap();
    let other = Spec::parse("day", "on_or_after", 3, 0).unwrap();
    assert_eq!(log(spec, &[]).append(&log(other, &[]), ()), Err(SpecMismatch));
}
