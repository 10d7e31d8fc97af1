//! Every kernel gives what the aggregate over rows gives, however rows are split into slices, dates and parts: all of them
//! asked of one random history after the other. `make histories` asks a million.

use super::*;
use crate::AVec;
use crate::funnel::{Funnel, Mode, WindowMode, window_funnel};
use crate::retention::cohort::{CohortLog, Spec};
use crate::retention::matrix::Matrix;
use crate::sequence::Pattern;
use crate::session::{Session, Sessions};
use std::collections::BTreeSet;

/// Modes by themselves; what of several of them means nothing together is refused, and asked without.
const MODES: [&str; 10] = [
    "strict_order",
    "allow_reentry",
    "strict_deduplication",
    "strict_increase",
    "strict_once",
    "first_entry",
    "any_order",
    "optional=2",
    "exclude=3",
    "step_window=2s",
];

const WINDOWS: [i64; 6] = [0, 5, 3_000, 4_000_000, DAY, 30 * DAY];

/// How far the clocks of Kathmandu and St. John's are ahead of UTC.
const ZONES: [i64; 2] = [20_700_000_000, -12_600_000_000];

/// What is asked of a history.
#[derive(Debug, Clone)]
struct Asked {
    question: Question,
    /// No row is two of these.
    steps: Question,
    value_of: usize,
    window: i64,
    mode: Mode,
    pattern: &'static str,
    /// Whether sessions are of all rows.
    all: bool,
    cohorts: Spec,
    rolling: Spec,
    slot: i64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let one_of = |words: &'static [&'static str]| prop::sample::select(words);
    let spec = move |periods: &'static [&'static str], modes: &'static [&'static str]| {
        (one_of(periods), one_of(modes), prop::sample::select(vec![20 * DAY, 3 * DAY, 2 * DAY + 3_000_000]))
            .prop_map(|(period, mode, as_of)| Spec::parse(period, mode, 4, as_of).unwrap())
    };
    let mode = prop::sample::subsequence(MODES.to_vec(), 0..4)
        .prop_map(|tokens| Mode::parse(&tokens.join(",")).unwrap_or_default());
    let funnel = (questions(), steps(), 0usize..5, prop::sample::select(WINDOWS.to_vec()), mode);
    let pattern = one_of(&["(?1)(?1)", "(?1)(?t<=3s)(?1)", "(?1).*(?1)", "(?!1)(?t>2ms)(?1)"]);
    let cohorts = spec(
        &["day", "week", "week from sunday", "month"],
        &["", "on_or_after", "recurring", "recurring,on_or_after"],
    );
    let rolling = spec(&["day", "week"], &["rolling", "rolling=2,recurring", "rolling,on_or_after"]);
    let slot = prop::sample::select(vec![DAY, SLOT, 1000]);
    (funnel, pattern, any::<bool>(), cohorts, rolling, slot).prop_map(
        |((question, steps, value_of, window, mode), pattern, all, cohorts, rolling, slot)| {
            let value_of = value_of % steps.conditions.len();
            Asked { question, steps, value_of, window, mode, pattern, all, cohorts, rolling, slot }
        },
    )
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
    fn every_kernel_gives_what_the_rows_give(rows in histories(), asked in asked()) {
        let history = History::new(rows);
        persons(&history, &asked);
        levels(&history, &asked);
        chains(&history, &asked);
        sessions(&history, &asked);
        cohorts(&history, &asked);
        counts(&history, &asked);
        zones(&history, &asked);
    }
}

/// The rows of each person, and what the aggregates make of them that have no kernel of their own.
fn persons(history: &History, asked: &Asked) {
    let funnel = Funnel::new(asked.mode, asked.question.conditions.len(), asked.window);
    let unmatched = funnel.as_ref().map_or(asked.question.unmatched, |funnel| funnel.needs_unmatched_rows());
    let question = Question { unmatched, ..asked.question.clone() };
    let pattern = Pattern::parse(asked.pattern, 1).unwrap();
    let answers = |rows: &[Row], events: &[Event]| {
        let mut chain = AVec::new();
        if let Ok(funnel) = &funnel {
            funnel.run(events, &mut chain, ());
        }
        let matrix = of_log(asked.rolling, std::iter::once(rows));
        (rows.to_vec(), chain.to_vec(), pattern.count(events, Global, ()), bytes(&matrix))
    };
    let expected: BTreeMap<_, _> = expected(&question, &history.rows)
        .into_iter()
        .map(|(hash, rows)| (hash, answers(&rows, &events(&rows))))
        .collect();
    history.ways(|stored, level| {
        let (mut found, mut memory) = (BTreeMap::new(), vec![]);
        let each = EachPerson::new(question.clone(), |hash, rows: &[Row]| {
            let answers = answers(rows, as_events(rows, &mut memory));
            assert!(found.insert(hash, answers).is_none());
        });
        stored.scan(each, level);
        assert_eq!(found, expected);
    });
}

fn levels(history: &History, asked: &Asked) {
    let question = Question { unmatched: false, ..asked.question.clone() };
    let (steps, value) = (question.conditions.len(), question.value);
    let level = |(hash, rows): (u64, Vec<Row>)| {
        let level = window_funnel(&events(&rows), steps, asked.window, WindowMode::default(), ());
        let first = rows.iter().find(|row| row.conditions & 1 == 1).map(|row| row.value);
        (level > 0).then_some((hash, (level as usize, vec![], first.filter(|_| value.is_some()))))
    };
    let expected: Chains = expected(&question, &history.rows).into_iter().filter_map(level).collect();
    history.ways(|stored, level| {
        let mut found = by_steps!(question, levels, stored, level, &question, asked.window, 0);
        // Of one step its time is known.
        found.iter_mut().flat_map(|found| found.values_mut()).for_each(|(_, times, _)| times.clear());
        assert_eq!(found.as_ref(), Some(&expected));
    });
}

fn chains(history: &History, asked: &Asked) {
    let Asked { steps: question, value_of, window, .. } = asked;
    let funnel = Funnel::new(Mode::default(), question.conditions.len(), *window).unwrap();
    let chain = |(hash, rows): (u64, Vec<Row>)| {
        let mut chain = AVec::new();
        funnel.run(&events(&rows), &mut chain, ());
        let times: Vec<i64> = chain.iter().map(|time| time.unwrap()).collect();
        let value = times.get(*value_of).and_then(|time| {
            rows.iter().find(|row| row.time == *time && row.conditions >> value_of & 1 == 1)
        });
        let value = value.map(|row| row.value).filter(|_| question.value.is_some());
        (!times.is_empty()).then_some((hash, (times.len(), times, value)))
    };
    let expected: Chains = expected(question, &history.rows).into_iter().filter_map(chain).collect();
    history.ways(|stored, level| {
        let found = by_steps!(question, chains, stored, level, question, *window, *value_of);
        assert_eq!(found.as_ref(), Some(&expected));
    });
}

fn sessions(history: &History, asked: &Asked) {
    let question = if asked.all { Question::all() } else { asked.question.clone() };
    let mut expected: Vec<(u64, Session)> = vec![];
    for (hash, rows) in self::expected(&question, &history.rows) {
        let mut sessions = Sessions::new_in(asked.window, Global);
        rows.iter().rev().for_each(|row| sessions.push(row.time, ()));
        expected.extend(sessions.finish(()).map(|session| (hash, session)));
    }
    history.ways(|stored, level| {
        let mut found = vec![];
        let runs = SessionRuns::new(question.clone(), asked.window, |hash, s| found.push((hash, s)));
        stored.scan(runs, level);
        // Persons come in any order, the sessions of one in theirs.
        found.sort_by_key(|(hash, _)| *hash);
        assert_eq!(found, expected);
    });
}

/// What the log of each person adds up to.
fn of_log<'a>(spec: Spec, persons: impl Iterator<Item = &'a [Row]>) -> Matrix<Global> {
    let mut matrix = Matrix::new_in(Global);
    for rows in persons {
        let mut log = CohortLog::new_in(spec, Global);
        let each = rows.iter().rev();
        each.for_each(|row| log.push(row.time, row.conditions & 1 != 0, row.conditions & 2 != 0));
        for member in log.members(()) {
            matrix.push(member.cohort, &member.retained().collect::<Vec<_>>()).unwrap();
        }
    }
    matrix
}

fn bytes(matrix: &Matrix<Global>) -> AVec<u8> {
    crate::codec::written(|w| matrix.encode(w))
}

fn cohorts(history: &History, asked: &Asked) {
    let conditions = asked.question.conditions.iter().cycle().take(2).cloned().collect();
    let question = Question { conditions, unmatched: false, ..asked.question.clone() };
    let expected = of_log(asked.cohorts, expected(&question, &history.rows).values().map(Vec::as_slice));
    history.ways(|stored, level| {
        let kernel = Cohorts::new(question.clone(), asked.cohorts, -1, 10).unwrap();
        let mut empty = Cohorts::new(question.clone(), asked.cohorts, -1, 10).unwrap();
        empty.merge(&stored.scan(kernel, level));
        assert_eq!(bytes(&empty.matrix(()).unwrap()), bytes(&expected));
    });
}

fn counts(history: &History, asked: &Asked) {
    let Asked { question, slot, .. } = asked;
    let selected = expected(question, &history.rows);
    let (mut counts, mut dates) = (BTreeMap::new(), BTreeMap::new());
    for (hash, row) in selected.iter().flat_map(|(hash, rows)| rows.iter().map(move |row| (hash, row))) {
        *counts.entry((row.time.div_euclid(*slot) * slot, row.value)).or_insert(0u64) += 1;
        dates.entry(row.time.div_euclid(DAY) as i32).or_insert_with(BTreeSet::new).insert(*hash);
    }
    let dates: BTreeMap<i32, u64> =
        dates.into_iter().map(|(date, persons)| (date, persons.len() as u64)).collect();
    let ends: BTreeMap<u64, (Row, Row)> =
        selected.iter().map(|(hash, rows)| (*hash, (rows[0], rows[rows.len() - 1]))).collect();
    history.ways(|stored, level| {
        let mut trend = Trend::new(question.clone(), *slot);
        trend.merge(&stored.scan(Trend::new(question.clone(), *slot), level));
        assert_eq!(trend.counts().collect::<BTreeMap<_, _>>(), counts);
        let persons = stored.scan(Persons::new(question.clone(), true), level);
        assert_eq!((persons.total(), persons.dates()), (Some(selected.len() as u64), &dates));
        assert_eq!(stored.scan(Persons::new(question.clone(), false), level).dates(), &dates);
        let mut found = BTreeMap::new();
        let ends_of = FirstLast::new(question.clone(), |hash, first, last| {
            assert!(found.insert(hash, (first, last)).is_none());
        });
        stored.scan(ends_of, level);
        assert_eq!(found, ends);
    });
}

/// Days of any clock are sums of quarters of an hour, from slices and from the counts beside them.
fn zones(history: &History, asked: &Asked) {
    let question = Question { value: Some(1), ..asked.question.clone() };
    let by_day = |ahead: i64, quarters: &mut dyn Iterator<Item = (i64, u32, u64)>| {
        let mut days = BTreeMap::new();
        quarters.for_each(|(start, value, n)| {
            *days.entry(((start + ahead).div_euclid(DAY), value)).or_insert(0u64) += n;
        });
        days
    };
    let selected = expected(&question, &history.rows);
    let all = expected(&Question { value: Some(1), ..Question::all() }, &history.rows);
    for ahead in ZONES {
        let of_rows = |persons: &BTreeMap<u64, Vec<Row>>| {
            by_day(ahead, &mut persons.values().flatten().map(|row| (row.time, row.value, 1)))
        };
        let expected = of_rows(&selected);
        history.ways(|stored, level| {
            let trend = stored.scan(Trend::new(question.clone(), SLOT), level);
            let quarters = &mut trend.counts().map(|((start, value), n)| (start, value, n));
            assert_eq!(by_day(ahead, quarters), expected);
        });
        let mut cells = vec![];
        for (date, builder) in builders(&history.rows) {
            let start = |cell: &Cell| i64::from(date) * DAY + i64::from(cell.slot) * SLOT;
            let each = |cell: Cell| cells.push((start(&cell), cell.code, cell.rows));
            assert_eq!(each_cell(&builder.counts(())[1][1], each), Ok(true));
        }
        assert_eq!(by_day(ahead, &mut cells.into_iter()), of_rows(&all));
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
