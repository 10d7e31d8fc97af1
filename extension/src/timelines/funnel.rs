//! `funnel_report`: the chains of all persons, and the figures of their steps, whole or by a property.

use std::collections::HashMap;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::funnel::stats::FunnelStats;
use tidemark_core::funnel::{Funnel, Mode};
use tidemark_core::timeline::{EachPerson, Question, Row, Steps, as_events};
use tidemark_core::{AVec, Global};

use super::filter::{Parser, breakdown, json, top};
use super::read::{Open, Timeline, text};
use crate::funnel_stats::rounded;
use crate::support::error::{OrRaise, invalid_argument, not_null};
use crate::support::interrupts::Interrupts;
use crate::support::interval::fixed_microseconds;
use crate::support::set::give_rows;
use crate::support::{args, pg_function};

type Stats = FunnelStats<Global>;

/// What a funnel asks.
struct Report {
    funnel: Funnel,
    window: i64,
    /// The step, from 0, whose row says to which series a person belongs.
    value_of: usize,
    /// The conditions of the steps, without excluded ones.
    conditions: Vec<u32>,
    /// Whether nothing but order and window is asked for.
    plain: bool,
    question: Question,
}

pg_function! {
    /// `funnel_report(source regclass, from_date date, to_date date, steps jsonb, win interval, mode text,
    /// breakdown text, attribution text, filters jsonb, top integer)`.
    fn tidemark_funnel_report(fcinfo) {
        let mut timeline = Timeline::of_call(fcinfo);
        let steps = not_null(json(fcinfo, 3, "steps"), "steps");
        let window = fixed_microseconds(not_null(args::interval(fcinfo, 4), "win"), "win");
        let mode = args::bytes(fcinfo, 5).map_or("", |mode| args::word(mode, "mode"));
        let filters = json(fcinfo, 8, "filters");
        let top = top(fcinfo, 9);
        let by = breakdown(fcinfo, 6, &mut timeline);
        let mut parser = Parser::new(&mut timeline);
        let steps = parser.steps(&steps);
        let only = filters.map(|filters| parser.filter(&filters));
        const MODES: &str = "The modes are those of tidemark.funnel.";
        let mode = Mode::parse(mode).unwrap_or_else(|error| invalid_argument(error.to_string(), MODES));
        let funnel = Funnel::new(mode, steps.len(), window)
            .unwrap_or_else(|error| invalid_argument(error.to_string(), MODES));
        let value_of = attribution(fcinfo, funnel.steps());
        let open = timeline.open();
        let report = Report {
            conditions: (0..steps.len() as u32).filter(|i| mode.exclude >> i & 1 == 0).collect(),
            plain: mode == Mode::default(),
            question: Question {
                conditions: steps.iter().map(|(asked, _)| asked.of_codes(&open)).collect(),
                unmatched: funnel.needs_unmatched_rows(),
                only: only.map(|only| only.of_codes(&open)),
                value: by,
            },
            funnel,
            window,
            value_of,
        };
        let series = by.map(|column| {
            move |code: u32, open: &Open| open.dictionary(column).text(code).map(str::to_owned)
        });
        let names: Vec<&str> = report.conditions.iter().map(|i| steps[*i as usize].1.as_str()).collect();
        let stats = report.figures(&open);
        let rows = ranked(stats, top, report.funnel.steps()).into_iter().flat_map(|(code, stats)| {
            let name = series.as_ref().map(|series| match code {
                Some(0) => "(none)".to_owned(),
                Some(code) => series(code, &open).unwrap_or_default(),
                None => "(other)".to_owned(),
            });
            let rows: Vec<_> = stats.rows().collect();
            let entered = |i: usize| rows.get(i).map(|row: &tidemark_core::funnel::stats::StepRow| row.entered);
            (0..rows.len()).filter_map(|i| {
                let row = rows.get(i)?;
                let count = |n: u64| Some(Datum::from(i64::try_from(n).unwrap_or(i64::MAX)));
                Some([
                    name.as_deref().and_then(text),
                    Some(Datum::from(row.step as i32)),
                    names.get(i).and_then(|name| text(name)),
                    count(row.entered),
                    entered(i + 1).and_then(count),
                    row.pct_of_first.and_then(|value| rounded(value, 2)),
                    row.pct_of_previous.and_then(|value| rounded(value, 2)),
                    row.median_seconds.and_then(|value| rounded(value, 3)),
                    row.avg_seconds.and_then(|value| rounded(value, 3)),
                ])
            }).collect::<Vec<_>>()
        });
        give_rows(fcinfo, rows)
    }
}

/// The step, from 0, that `attribution` names.
///
/// # Safety
/// Argument 7 must be a text.
unsafe fn attribution(fcinfo: FunctionCallInfo, steps: usize) -> usize {
    // SAFETY: see above.
    let attribution =
        unsafe { args::bytes(fcinfo, 7) }.map_or("step=1", |text| args::word(text, "attribution"));
    let step = attribution.strip_prefix("step=").and_then(|step| step.parse::<usize>().ok());
    match step {
        Some(step) if (1..=steps).contains(&step) => step - 1,
        _ => invalid_argument(
            format!("attribution must be step=1 to step={steps}, got {attribution:?}"),
            "It names the step whose event says to which series a person belongs.",
        ),
    }
}

impl Report {
    /// The figures by the code of the breakdown, 0 without one.
    fn figures(&self, open: &Open) -> HashMap<u32, Stats> {
        let mut stats: HashMap<u32, Stats> = HashMap::new();
        let mut add = |code: u32, chain: &[Option<i64>]| {
            let stats = stats.entry(code).or_insert_with(|| new(self.funnel.steps()));
            stats.push(chain).or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count a chain");
        };
        if !(self.plain && self.streamed(open, &mut add)) {
            self.by_person(open, &mut add);
        }
        stats
    }

    /// Lets the kernel for this number of steps answer, if it can.
    fn streamed(&self, open: &Open, add: &mut impl FnMut(u32, &[Option<i64>])) -> bool {
        macro_rules! steps {
            ($($k:literal)*) => {
                match (self.question.conditions.len(), self.question.value.is_some()) {
                    $(($k, false) => self.steps::<$k, 0>(open, add), ($k, true) => self.steps::<$k, 1>(open, add),)*
                    _ => false,
                }
            };
        }
        steps!(1 2 3 4 5 6 7 8)
    }

    fn steps<const K: usize, const V: usize>(
        &self,
        open: &Open,
        add: &mut impl FnMut(u32, &[Option<i64>]),
    ) -> bool {
        let mut chain = [None; K];
        let kernel = Steps::<K, K, V, _>::new(self.question.clone(), self.window, self.value_of, |reached| {
            chain.iter_mut().zip(reached.times).for_each(|(place, time)| *place = Some(*time));
            add(reached.value.unwrap_or(0), chain.get(..reached.times.len()).unwrap_or(&[]));
        });
        kernel.map(|kernel| open.ask(kernel)).is_some()
    }

    /// Runs the funnel of the aggregate over the rows of each person: any mode.
    fn by_person(&self, open: &Open, add: &mut impl FnMut(u32, &[Option<i64>])) {
        let (mut events, mut chain) = (vec![], AVec::new_in(Global));
        let condition = self.conditions.get(self.value_of).copied().unwrap_or(0);
        open.ask(EachPerson::new(self.question.clone(), |_, rows: &[Row]| {
            self.funnel.run(as_events(rows, &mut events), &mut chain, Interrupts);
            if chain.is_empty() {
                return;
            }
            let served = chain.get(self.value_of).copied().flatten();
            let is = |row: &&Row| Some(row.time) == served && row.conditions >> condition & 1 == 1;
            add(rows.iter().find(is).map_or(0, |row| row.value), &chain);
        }));
    }
}

fn new(steps: usize) -> Stats {
    Stats::new_in(steps as i64, Global)
        .or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot count a funnel")
}

/// The series with most persons at the first step, and the sum of the others as `None`; one of nobody if there is none.
fn ranked(stats: HashMap<u32, Stats>, top: usize, steps: usize) -> Vec<(Option<u32>, Stats)> {
    let entered = |stats: &Stats| stats.rows().next().map_or(0, |row| row.entered);
    let mut series: Vec<(Option<u32>, Stats)> =
        stats.into_iter().map(|(code, stats)| (Some(code), stats)).collect();
    series.sort_by_key(|(code, stats)| (std::cmp::Reverse(entered(stats)), *code));
    if series.is_empty() {
        series.push((Some(0), new(steps)));
    }
    if series.len() > top {
        let mut other = new(steps);
        for (_, stats) in series.drain(top..) {
            other.merge(&stats).or_raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot add funnels");
        }
        series.push((None, other));
    }
    series
}
