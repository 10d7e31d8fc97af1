//! Every kernel gives what the aggregate over rows gives, however rows are split into slices, dates and parts.

use super::*;
use crate::AVec;
use crate::funnel::{Funnel, Mode, WindowMode, window_funnel};
use crate::retention::cohort::{CohortLog, Spec};
use crate::retention::matrix::Matrix;
use crate::sequence::Pattern;
use crate::session::{Session, Sessions};
use std::collections::BTreeSet;

const MODES: [&str; 12] = [
    "",
    "strict_order",
    "strict_order,allow_reentry",
    "strict_deduplication",
    "strict_increase",
    "strict_once",
    "first_entry",
    "step_window=2s",
    "any_order",
    "optional=2",
    "exclude=3",
    "strict_order,strict_increase,step_window=5ms,exclude=2",
];

const WINDOWS: [i64; 6] = [0, 5, 3_000, 4_000_000, DAY, 30 * DAY];

fn window() -> impl Strategy<Value = i64> {
    prop::sample::select(WINDOWS.to_vec())
}

type Chains = BTreeMap<u64, (usize, Vec<i64>, Option<u32>)>;

fn steps_of<const K: usize, const T: usize, const V: usize>(
    stored: &Stored,
    level: Level,
    question: &Question,
    window: i64,
    value_of: usize,
) -> Option<Chains> {
    let mut found = BTreeMap::new();
    let kernel = Steps::<K, T, V, _>::new(question.clone(), window, value_of, |r: Reached<'_>| {
        assert!(found.insert(r.hash, (r.level, r.times.to_vec(), r.value)).is_none());
    })?;
    stored.scan(kernel, level);
    Some(found)
}

/// `$of` with as many steps as the question has conditions, and a value if it asks for one.
macro_rules! by_steps {
    ($question:expr, $of:ident, $($argument:expr),*) => {
        match ($question.conditions.len(), $question.value.is_some()) {
            (1, false) => $of!(1, 0, $($argument),*),
            (2, false) => $of!(2, 0, $($argument),*),
            (3, false) => $of!(3, 0, $($argument),*),
            (4, false) => $of!(4, 0, $($argument),*),
            (_, false) => $of!(8, 0, $($argument),*),
            (1, true) => $of!(1, 1, $($argument),*),
            (2, true) => $of!(2, 1, $($argument),*),
            (3, true) => $of!(3, 1, $($argument),*),
            (4, true) => $of!(4, 1, $($argument),*),
            (_, true) => $of!(8, 1, $($argument),*),
        }
    };
}

macro_rules! levels {
    ($k:literal, $v:literal, $($argument:expr),*) => { steps_of::<$k, 1, $v>($($argument),*) };
}

macro_rules! chains {
    ($k:literal, $v:literal, $($argument:expr),*) => { steps_of::<$k, $k, $v>($($argument),*) };
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn each_person_has_its_rows_in_order(rows in histories(), question in questions()) {
        let expected = expected(&question, &rows);
        ways(&rows, |stored, level| {
            let mut found = BTreeMap::new();
            stored.scan(EachPerson::new(question.clone(), |hash, rows: &[Row]| {
                assert!(found.insert(hash, rows.to_vec()).is_none());
            }), level);
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn levels_are_those_of_window_funnel(rows in histories(), question in questions(), window in window()) {
        let question = Question { unmatched: false, ..question };
        let by_person = expected(&question, &rows);
        let expected: Chains = by_person.iter().filter_map(|(hash, rows)| {
            let level = window_funnel(&events(rows), question.conditions.len(), window, WindowMode::default(), ());
            let first = rows.iter().find(|row| row.conditions & 1 == 1).map(|row| row.value);
            (level > 0).then_some((*hash, (level as usize, vec![], first.filter(|_| question.value.is_some()))))
        }).collect();
        ways(&rows, |stored, level| {
            let found = by_steps!(question, levels, stored, level, &question, window, 0);
            let found: Option<Chains> = found.map(|found| {
                found.into_iter().map(|(hash, (level, _, value))| (hash, (level, vec![], value))).collect()
            });
            assert_eq!(found.as_ref(), Some(&expected));
        });
    }

    #[test]
    fn chains_are_those_of_funnel(rows in histories(), question in steps(), window in window(), value_of in 0usize..5) {
        let value_of = value_of % question.conditions.len();
        let funnel = Funnel::new(Mode::default(), question.conditions.len(), window).unwrap();
        let by_person = expected(&question, &rows);
        let expected: Chains = by_person.iter().filter_map(|(hash, rows)| {
            let mut chain = AVec::new();
            funnel.run(&events(rows), &mut chain, ());
            let times: Vec<i64> = chain.iter().map(|time| time.unwrap()).collect();
            let value = times.get(value_of).and_then(|time| {
                rows.iter().find(|row| row.time == *time && row.conditions >> value_of & 1 == 1)
            });
            let value = value.map(|row| row.value).filter(|_| question.value.is_some());
            (!times.is_empty()).then_some((*hash, (times.len(), times, value)))
        }).collect();
        ways(&rows, |stored, level| {
            let found = by_steps!(question, chains, stored, level, &question, window, value_of);
            assert_eq!(found.as_ref(), Some(&expected));
        });
    }

    #[test]
    fn funnels_of_every_mode_are_those_of_their_rows(
        rows in histories(), question in questions(), window in window(), mode in prop::sample::select(&MODES[..])
    ) {
        let mode = Mode::parse(mode).unwrap();
        let Ok(funnel) = Funnel::new(mode, question.conditions.len(), window) else { return Ok(()) };
        let question = Question { unmatched: funnel.needs_unmatched_rows(), ..question };
        let run = |events: &[Event]| {
            let mut chain = AVec::new();
            funnel.run(events, &mut chain, ());
            chain.to_vec()
        };
        let expected: BTreeMap<_, _> =
            expected(&question, &rows).into_iter().map(|(hash, rows)| (hash, run(&events(&rows)))).collect();
        ways(&rows, |stored, level| {
            let (mut found, mut memory) = (BTreeMap::new(), vec![]);
            stored.scan(EachPerson::new(question.clone(), |hash, rows: &[Row]| {
                found.insert(hash, run(as_events(rows, &mut memory)));
            }), level);
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn sequences_count_as_often_as_in_their_rows(
        rows in histories(), question in questions(),
        pattern in prop::sample::select(&["(?1)(?1)", "(?1)(?t<=3s)(?1)", "(?1).*(?1)", "(?!1)(?t>2ms)(?1)"][..])
    ) {
        let pattern = Pattern::parse(pattern, 1).unwrap();
        let expected: BTreeMap<_, _> = expected(&question, &rows).into_iter()
            .map(|(hash, rows)| (hash, pattern.count(&events(&rows), Global, ()))).collect();
        ways(&rows, |stored, level| {
            let (mut found, mut memory) = (BTreeMap::new(), vec![]);
            stored.scan(EachPerson::new(question.clone(), |hash, rows: &[Row]| {
                found.insert(hash, pattern.count(as_events(rows, &mut memory), Global, ()));
            }), level);
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn sessions_are_those_of_each_person(rows in histories(), question in questions(), all: bool, gap in window()) {
        let question = if all { Question::all() } else { question };
        let mut expected: Vec<(u64, Session)> = vec![];
        for (hash, rows) in self::expected(&question, &rows) {
            let mut sessions = Sessions::new_in(gap, Global);
            rows.iter().rev().for_each(|row| sessions.push(row.time, ()));
            expected.extend(sessions.finish(()).map(|session| (hash, session)));
        }
        ways(&rows, |stored, level| {
            let mut found = vec![];
            stored.scan(SessionRuns::new(question.clone(), gap, |hash, s| found.push((hash, s))), level);
            // Persons come in any order, the sessions of one in theirs.
            found.sort_by_key(|(hash, _)| *hash);
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn cohorts_are_those_of_each_persons_log(
        rows in histories(), question in questions(), period in prop::sample::select(&["day", "week", "month"][..]),
        mode in prop::sample::select(&["", "on_or_after", "recurring", "recurring,on_or_after"][..]),
        as_of in prop::sample::select(&[20 * DAY, 3 * DAY, 2 * DAY + 3_000_000][..])
    ) {
        let conditions = question.conditions.iter().cycle().take(2).cloned().collect();
        let question = Question { conditions, unmatched: false, ..question };
        let spec = Spec::parse(period, mode, 4, as_of).unwrap();
        let mut expected = Matrix::new_in(Global);
        for rows in self::expected(&question, &rows).values() {
            let mut log = CohortLog::new_in(spec, Global);
            rows.iter().for_each(|row| log.push(row.time, row.conditions & 1 != 0, row.conditions & 2 != 0));
            for member in log.members(()) {
                expected.push(member.cohort, &member.retained().collect::<Vec<_>>()).unwrap();
            }
        }
        let bytes = |matrix: &Matrix<Global>| crate::codec::written(|w| matrix.encode(w));
        ways(&rows, |stored, level| {
            let kernel = Cohorts::new(question.clone(), spec, -1, 10).unwrap();
            let mut empty = Cohorts::new(question.clone(), spec, -1, 10).unwrap();
            empty.merge(&stored.scan(kernel, level));
            assert_eq!(bytes(&empty.matrix(()).unwrap()), bytes(&expected));
        });
    }

    #[test]
    fn rows_and_persons_are_counted(
        rows in histories(), question in questions(), slot in prop::sample::select(&[DAY, 900_000_000, 1000][..])
    ) {
        let selected = expected(&question, &rows);
        let (mut counts, mut dates) = (BTreeMap::new(), BTreeMap::new());
        for (hash, row) in selected.iter().flat_map(|(hash, rows)| rows.iter().map(move |row| (hash, row))) {
            *counts.entry((row.time.div_euclid(slot) * slot, row.value)).or_insert(0u64) += 1;
            dates.entry(row.time.div_euclid(DAY) as i32).or_insert_with(BTreeSet::new).insert(*hash);
        }
        let dates: BTreeMap<i32, u64> = dates.into_iter().map(|(date, persons)| (date, persons.len() as u64)).collect();
        let ends: BTreeMap<u64, (Row, Row)> =
            selected.iter().map(|(hash, rows)| (*hash, (rows[0], rows[rows.len() - 1]))).collect();
        ways(&rows, |stored, level| {
            let mut trend = Trend::new(question.clone(), slot);
            trend.merge(&stored.scan(Trend::new(question.clone(), slot), level));
            assert_eq!(trend.counts().collect::<BTreeMap<_, _>>(), counts);
            let persons = stored.scan(Persons::new(question.clone(), true), level);
            assert_eq!((persons.total(), persons.dates()), (Some(selected.len() as u64), &dates));
            assert_eq!(stored.scan(Persons::new(question.clone(), false), level).dates(), &dates);
            let mut found = BTreeMap::new();
            stored.scan(FirstLast::new(question.clone(), |hash, first, last| {
                assert!(found.insert(hash, (first, last)).is_none());
            }), level);
            assert_eq!(found, ends);
        });
    }
}

#[test]
fn kernels_refuse_what_they_cannot_answer() {
    let two = Question::of(vec![Filter::event(1), Filter::event(2)]);
    let same = Question::of(vec![Filter::event(1), Filter::event(1)]);
    let of = |question: &Question| {
        (
            Steps::<2, 1, 0, _>::new(question.clone(), 1, 0, |_: Reached<'_>| ()).is_some(),
            Steps::<2, 2, 0, _>::new(question.clone(), 1, 0, |_: Reached<'_>| ()).is_some(),
            Steps::<2, 2, 1, _>::new(question.clone(), 1, 0, |_: Reached<'_>| ()).is_some(),
        )
    };
    assert_eq!(of(&two), (true, true, false));
    assert_eq!(of(&same), (true, false, false), "a row may satisfy both");
    assert_eq!(of(&Question { value: Some(1), ..two.clone() }), (false, false, true));
    assert_eq!(of(&Question { unmatched: true, ..two.clone() }), (false, false, false));
    assert_eq!(of(&Question::of(vec![Filter::event(1); 3])), (false, false, false));
    assert_eq!(of(&Question::default()), (false, false, false));
    assert!(
        Steps::<1, 1, 0, _>::new(Question::of(vec![Filter::event(1)]), 1, 0, |_: Reached<'_>| ()).is_some()
    );
    let rolling = Spec::parse("week", "rolling", 4, DAY).unwrap();
    assert!(Cohorts::new(two.clone(), rolling, 0, 7).is_err());
    let day = Spec::parse("day", "", 4, DAY).unwrap();
    assert!(Cohorts::new(two.clone(), day, i32::MIN, i32::MAX).is_err());
    assert!(Cohorts::new(two.clone(), day, i32::MAX - 1, i32::MAX).is_ok());
    assert!(Cohorts::new(two.clone(), day, 0, 63).is_ok() && Cohorts::new(two, day, 0, 64).is_err());
}
