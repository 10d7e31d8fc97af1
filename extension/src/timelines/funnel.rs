//! `funnel_report` and `funnel_persons`: the chains of all persons, and the figures of their steps, whole or by a property.

use std::collections::HashMap;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::funnel::stats::{FunnelStats, StepRow};
use tidemark_core::funnel::{Funnel, Mode};
use tidemark_core::timeline::{ByCode, Question, Row, Steps, as_events};
use tidemark_core::{AVec, Global};

use super::filter::{Parser, breakdown, json, top};
use super::read::{Open, Timeline, text};
use crate::funnel_stats::rounded;
use crate::support::array::{self, Element};
use crate::support::error::{OrRaise, invalid_argument, not_null};
use crate::support::heap::contained;
use crate::support::interrupts::Interrupts;
use crate::support::interval::fixed_microseconds;
use crate::support::set::{Rows, give_rows};
use crate::support::{args, pg_function};

/// Figures of times since the step before, and since the first, which differ from the third step on.
struct Stats {
    steps: FunnelStats<Global>,
    total: FunnelStats<Global>,
}

impl Stats {
    fn new(steps: usize) -> Self {
        let new = || {
            FunnelStats::new_in(steps as i64, Global)
                .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count a funnel")
        };
        Self { steps: new(), total: new() }
    }

    fn push(&mut self, chain: &[Option<i64>]) {
        let total = |()| if chain.len() > 2 { self.total.push_since_first(chain) } else { Ok(()) };
        self.steps
            .push(chain)
            .and_then(total)
            .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count a chain");
    }

    fn total_seconds(&self, step: usize, share: f64) -> Option<f64> {
        if step > 1 { &self.total } else { &self.steps }.quantile_seconds(step, share)
    }

    fn merge(&mut self, other: &Self) {
        contained(|| self.steps.merge(&other.steps).and_then(|()| self.total.merge(&other.total)))
            .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot add funnels");
    }
}

/// Whose value says to which series a person belongs, of the events that served the steps.
#[derive(Clone, Copy, PartialEq)]
enum Attribution {
    /// That of the step, counted from 0.
    Step(usize),
    /// The first, or the last, that has a value.
    First,
    Last,
}

/// Takes the hash of a person, the code of a series and a chain.
type Add<'a> = &'a mut dyn FnMut(u64, u32, &[Option<i64>]);

/// What a funnel asks.
struct Report {
    funnel: Funnel,
    window: i64,
    attribution: Attribution,
    /// The conditions of the steps, without excluded ones.
    conditions: Vec<u32>,
    names: Vec<String>,
    /// Whether nothing but order and window is asked for.
    plain: bool,
    question: Question,
}

pg_function! {
    /// `funnel_report(source regclass, from_date date, to_date date, steps jsonb, win interval, mode text,
    /// breakdown text, attribution text, filters jsonb, top integer, quantile double precision)`.
    fn tidemark_funnel_report(fcinfo) {
        let mut timeline = Timeline::of_call(fcinfo);
        let top = top(fcinfo, 9, 10);
        let by = breakdown(fcinfo, 6, &mut timeline);
        let quantile = match args::float(fcinfo, 10).unwrap_or(0.9) {
            share if (0.0..=1.0).contains(&share) => share,
            share => invalid_argument(
                format!("quantile must be 0 to 1, got {share}"),
                "0.9: the time within which nine of ten made the step.",
            ),
        };
        let complete = timeline.complete();
        let (report, open) = Report::of_call(fcinfo, timeline, 8, by);
        let report = Report { attribution: attribution(fcinfo, report.funnel.steps()), ..report };
        let rows = ranked(report.figures(&open), top, report.funnel.steps()).into_iter().flat_map(|(code, stats)| {
            let series = by.and_then(|column| match code {
                Some(0) => text("(none)"),
                Some(code) => open.dictionary(column).text(code).and_then(text),
                None => text("(other)"),
            });
            let count = |row: &StepRow| Some(Datum::from(i64::try_from(row.entered).unwrap_or(i64::MAX)));
            let seconds = |value: Option<f64>| value.and_then(|value| rounded(value, 3));
            let rows: Vec<StepRow> = stats.steps.rows().collect();
            let next = rows.iter().skip(1).map(Some).chain([None]);
            rows.iter().zip(next).zip(&report.names).enumerate().map(|(step, ((row, next), name))| [
                series,
                Some(Datum::from(row.step as i32)),
                text(name),
                count(row),
                next.and_then(count),
                row.pct_of_first.and_then(|value| rounded(value, 2)),
                row.pct_of_previous.and_then(|value| rounded(value, 2)),
                seconds(row.median_seconds),
                seconds(row.avg_seconds),
                seconds(stats.steps.quantile_seconds(step, quantile)),
                seconds(stats.total_seconds(step, 0.5)),
                seconds(stats.total_seconds(step, quantile)),
                complete,
            ]).collect::<Vec<_>>()
        });
        give_rows(fcinfo, rows)
    }
}

pg_function! {
    /// `funnel_persons(source regclass, from_date date, to_date date, steps jsonb, win interval, mode text,
    /// step integer, dropped boolean, filters jsonb)`.
    fn tidemark_funnel_persons(fcinfo) {
        let timeline = Timeline::of_call(fcinfo);
        let (report, open) = Report::of_call(fcinfo, timeline, 8, None);
        let (steps, dropped) = (report.funnel.steps(), args::is_true(fcinfo, 7));
        let step = match args::int32(fcinfo, 6).unwrap_or(1) {
            step if (1..=steps as i64).contains(&step.into()) => step as usize,
            step => invalid_argument(
                format!("step must be 1 to {steps}, got {step}"),
                "It names the step that the persons came to.",
            ),
        };
        let mut chains: HashMap<u64, Vec<Option<i64>>> = HashMap::new();
        report.chains(&open, &mut |hash, _, chain| {
            let entered = chain.get(step - 1).is_some_and(Option::is_some);
            if entered && !(dropped && chain.len() > step) {
                chains.insert(hash, chain.to_vec());
            }
        });
        let rows = Rows::of_call(fcinfo);
        open.persons(|person, hash| if let Some(chain) = chains.remove(&hash) {
            let times = chain.into_iter().map(|time| time.map(Datum::from));
            rows.put([text(person), Some(array::make(times, Element::TIMESTAMPTZ))]);
        });
        None
    }
}

/// What `attribution` names.
///
/// # Safety
/// Argument 7 must be a text.
unsafe fn attribution(fcinfo: FunctionCallInfo, steps: usize) -> Attribution {
    // SAFETY: see above.
    let attribution =
        unsafe { args::bytes(fcinfo, 7) }.map_or("step=1", |text| args::word(text, "attribution"));
    match (attribution, attribution.strip_prefix("step=").and_then(|step| step.parse::<usize>().ok())) {
        ("first", _) => Attribution::First,
        ("last", _) => Attribution::Last,
        (_, Some(step)) if (1..=steps).contains(&step) => Attribution::Step(step - 1),
        _ => invalid_argument(
            format!("attribution must be step=1 to step={steps}, first or last, got {attribution:?}"),
            "It names the step whose event says to which series a person belongs; first and last are those that have \
             a value.",
        ),
    }
}

impl Report {
    /// Reads steps, window, mode and, at a place of their own, filters; chains belong to the series of step 1.
    ///
    /// # Safety
    /// Arguments 3 to 5 must be (jsonb, interval, text), the one of the filters a jsonb.
    unsafe fn of_call(
        fcinfo: FunctionCallInfo,
        mut timeline: Timeline,
        filters: usize,
        by: Option<usize>,
    ) -> (Self, Open) {
        const MODES: &str = "The modes are those of tidemark.funnel.";
        // SAFETY: see above.
        let (steps, window, mode, filters) = unsafe {
            (
                not_null(json(fcinfo, 3, "steps"), "steps"),
                fixed_microseconds(not_null(args::interval(fcinfo, 4), "win"), "win"),
                args::bytes(fcinfo, 5).map_or("", |mode| args::word(mode, "mode")),
                json(fcinfo, filters, "filters"),
            )
        };
        let mut parser = Parser::new(&mut timeline);
        let steps = parser.steps(&steps);
        let only = filters.map(|filters| parser.filter(&filters));
        let mode = Mode::parse(mode).unwrap_or_else(|error| invalid_argument(error.to_string(), MODES));
        let funnel = Funnel::new(mode, steps.len(), window)
            .unwrap_or_else(|error| invalid_argument(error.to_string(), MODES));
        let open = timeline.open();
        let conditions: Vec<u32> = (0..steps.len() as u32).filter(|i| mode.exclude >> i & 1 == 0).collect();
        let report = Self {
            names: conditions.iter().map(|i| steps[*i as usize].1.clone()).collect(),
            conditions,
            plain: mode == Mode::default(),
            question: Question {
                conditions: steps.iter().map(|(asked, _)| asked.of_codes(&open)).collect(),
                unmatched: funnel.needs_unmatched_rows(),
                only: only.map(|only| only.of_codes(&open)),
                value: by,
            },
            funnel,
            window,
            attribution: Attribution::Step(0),
        };
        (report, open)
    }

    /// The figures by the code of the breakdown, 0 without one.
    fn figures(&self, open: &Open) -> ByCode<u32, Stats> {
        let mut stats = ByCode::<u32, Stats>::default();
        self.chains(open, &mut |_, code, chain| {
            stats.entry(code).or_insert_with(|| Stats::new(self.funnel.steps())).push(chain);
        });
        stats
    }

    /// Hands out the hash of each person who came to the first step, the code of the series, and the chain.
    fn chains(&self, open: &Open, add: Add<'_>) {
        if !(self.plain && self.streamed(open, add)) {
            self.by_person(open, add);
        }
    }

    /// Lets the kernel for this number of steps answer, if it can.
    fn streamed(&self, open: &Open, add: Add<'_>) -> bool {
        match (self.question.conditions.len(), self.question.value.is_some()) {
            (2, false) => self.steps::<2, 0>(open, add),
            (2, true) => self.steps::<2, 1>(open, add),
            (3, false) => self.steps::<3, 0>(open, add),
            (3, true) => self.steps::<3, 1>(open, add),
            (1..=8, false) => self.steps::<8, 0>(open, add),
            (1..=8, true) => self.steps::<8, 1>(open, add),
            _ => false,
        }
    }

    fn steps<const K: usize, const V: usize>(&self, open: &Open, add: Add<'_>) -> bool {
        let Attribution::Step(value_of) = self.attribution else { return false };
        let mut chain = [None; K];
        let kernel = Steps::<K, K, V, _>::new(self.question.clone(), self.window, value_of, |reached| {
            chain.iter_mut().zip(reached.times).for_each(|(place, time)| *place = Some(*time));
            add(reached.hash, reached.value.unwrap_or(0), chain.get(..reached.times.len()).unwrap_or(&[]));
        });
        kernel.map(|kernel| open.ask(kernel)).is_some()
    }

    /// Runs the funnel of the aggregate over the rows of each person: any mode.
    fn by_person(&self, open: &Open, add: Add<'_>) {
        let (mut events, mut chain) = (vec![], AVec::new_in(Global));
        open.each_person(self.question.clone(), &mut |hash, rows| {
            self.funnel.run(as_events(rows, &mut events), &mut chain, Interrupts);
            if chain.is_empty() {
                return;
            }
            add(hash, self.value(rows, &chain), &chain);
        });
    }

    /// The code of the series of a person.
    fn value(&self, rows: &[Row], chain: &[Option<i64>]) -> u32 {
        let served = |(condition, time): (&u32, &Option<i64>)| {
            rows.iter().find(|row| Some(row.time) == *time && row.conditions >> condition & 1 == 1)
        };
        let mut steps = self.conditions.iter().zip(chain);
        let row = match self.attribution {
            Attribution::Step(step) => steps.nth(step).and_then(served),
            Attribution::First => {
                steps.filter_map(served).filter(|row| row.value > 0).min_by_key(|row| row.time)
            }
            Attribution::Last => {
                steps.filter_map(served).filter(|row| row.value > 0).max_by_key(|row| row.time)
            }
        };
        row.map_or(0, |row| row.value)
    }
}

/// The series with most persons at the first step, and the sum of the others as `None`; one of nobody if there is none.
fn ranked(mut stats: ByCode<u32, Stats>, top: usize, steps: usize) -> Vec<(Option<u32>, Stats)> {
    let entered = |stats: &Stats| stats.steps.rows().next().map_or(0, |row| row.entered);
    let mut series: Vec<(Option<u32>, Stats)> = vec![];
    contained(|| series.extend(stats.drain().map(|(code, stats)| (Some(code), stats))));
    series.sort_unstable_by_key(|(code, stats)| (std::cmp::Reverse(entered(stats)), *code));
    if series.is_empty() {
        series.push((Some(0), Stats::new(steps)));
    }
    if series.len() > top {
        let mut other = Stats::new(steps);
        series.drain(top..).for_each(|(_, stats)| other.merge(&stats));
        series.push((None, other));
    }
    series
}
