//! `paths`: what follows what in sessions.

use std::collections::HashMap;

use pgrx::pg_sys::Datum;
use tidemark_core::timeline::{PathRules, Question, paths};

use super::counts::{count, percentile};
use super::filter::{Parser, json, top};
use super::read::{EVENT, Timeline, text};
use crate::funnel_stats::rounded;
use crate::support::error::{invalid_argument, not_null};
use crate::support::heap::contained;
use crate::support::interval::fixed_microseconds;
use crate::support::set::give_rows;
use crate::support::{args, pg_function};

/// Those who took a step from one item to another.
#[derive(Default)]
struct Travellers {
    persons: u64,
    last: Option<u64>,
    durations: Vec<i64>,
}

/// No item has this code.
const NOTHING: u32 = u32::MAX;

pg_function! {
    /// `paths(source regclass, from_date date, to_date date, item text, start_item text, end_item text, items integer,
    /// gap interval, filters jsonb, top integer)`.
    fn tidemark_paths(fcinfo) {
        let mut timeline = Timeline::of_call(fcinfo);
        let item = timeline.column(args::text(fcinfo, 3, "item").unwrap_or(EVENT));
        let (start, end) = (args::text(fcinfo, 4, "start_item"), args::text(fcinfo, 5, "end_item"));
        let items = match args::int32(fcinfo, 6).unwrap_or(5) {
            items @ 2..=100 => items as usize,
            items => invalid_argument(
                format!("items must be 2 to 100, got {items}"),
                "So many items of a session, counted from its start, are a path.",
            ),
        };
        let gap_us = fixed_microseconds(not_null(args::interval(fcinfo, 7), "gap"), "gap");
        let only = json(fcinfo, 8, "filters").map(|filters| Parser::new(&mut timeline).filter(&filters));
        let top = top(fcinfo, 9, 50);
        let open = timeline.open();
        let code = |text: &str| open.dictionary(item).find(text).unwrap_or(NOTHING);
        let rules = PathRules { gap_us, start: start.map(code), end: end.map(code), items };
        let question =
            Question { only: only.map(|only| only.of_codes(&open)), value: Some(item), ..Question::all() };
        let mut steps: HashMap<(u32, u32, u32), Travellers> = HashMap::new();
        open.each_person(question, &mut |hash, rows| {
            paths(rows, rules, |edge| {
                let step = steps.entry((edge.step, edge.source, edge.target)).or_default();
                step.persons += u64::from(step.last.replace(hash) != Some(hash));
                step.durations.push(edge.duration_us);
            });
        });
        let mut rows: Vec<_> = vec![];
        contained(|| rows.extend(steps.drain()));
        rows.sort_unstable_by_key(|(step, travellers)| (std::cmp::Reverse(travellers.durations.len()), *step));
        rows.truncate(top);
        rows.sort_unstable_by_key(|(step, travellers)| (step.0, std::cmp::Reverse(travellers.durations.len()), *step));
        give_rows(fcinfo, rows.into_iter().map(|((step, source, target), mut travellers)| {
            let name = |code| text(open.dictionary(item).text(code).unwrap_or("(none)"));
            [
                Some(Datum::from(step as i32)),
                name(source),
                name(target),
                count(travellers.persons),
                count(travellers.durations.len() as u64),
                rounded(percentile(&mut travellers.durations, 0.5) / 1e6, 3),
            ]
        }))
    }
}
