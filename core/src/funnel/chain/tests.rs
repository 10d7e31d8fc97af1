//! The specification of `funnel`, tried over all chains, and examples a person can check.

use super::*;
use crate::Global;
use crate::event::EventLog;
use proptest::prelude::*;
use std::cmp::Reverse;

type Times = Vec<Option<i64>>;

fn run(events: &[Event], conditions: usize, window: i64, mode: &str) -> Times {
    let funnel = Funnel::new(Mode::parse(mode).unwrap(), conditions, window).unwrap();
    let mut out = AVec::new();
    funnel.run(events, &mut out, ());
    out.to_vec()
}

/// Deepest, then earliest end, latest start, earliest times in between.
type Rank = (Reverse<usize>, i64, Reverse<i64>, Vec<(bool, i64)>);

/// Every chain, by trying each row (or none, where allowed) for each step in turn.
struct AllChains<'a> {
    events: &'a [Event],
    mode: Mode,
    window: i64,
    /// Conditions that are steps, as bits, in order.
    steps: Vec<u32>,
    best: Option<Rank>,
}

impl AllChains<'_> {
    fn times(events: &[Event], conditions: usize, window: i64, mode: Mode) -> Times {
        let steps = (0..conditions).map(|k| 1 << k).filter(|bit| mode.exclude & bit == 0).collect();
        let mut all = AllChains { events, mode, window, steps, best: None };
        all.extend(&mut vec![]);
        let times = all.best.map(|best| best.3).unwrap_or_default();
        times.into_iter().map(|(none, time)| (!none).then_some(time)).collect()
    }

    fn optional(&self, step: usize) -> bool {
        self.mode.any_order || self.mode.optional & self.steps[step] != 0
    }

    /// `rows[k]` is the row of step k, if it has one.
    fn extend(&mut self, rows: &mut Vec<Option<usize>>) {
        self.offer(rows);
        let step = rows.len();
        if step == self.steps.len() {
            return;
        }
        for row in 0..self.events.len() {
            if self.events[row].conditions & self.steps[step] != 0 && !rows.contains(&Some(row)) {
                rows.push(Some(row));
                self.extend(rows);
                rows.pop();
            }
        }
        if self.optional(step) {
            rows.push(None);
            self.extend(rows);
            rows.pop();
        }
    }

    fn offer(&mut self, rows: &[Option<usize>]) {
        let mut times: Vec<(bool, i64)> =
            rows.iter().map(|r| r.map_or((true, 0), |r| (false, self.events[r].time))).collect();
        if self.mode.any_order {
            times.retain(|t| !t.0);
            times.sort();
        }
        if times.last().is_none_or(|t| t.0) {
            return;
        }
        if self.is_chain(rows, &times) {
            let ends = (times[0].1, times[times.len() - 1].1);
            let found = (Reverse(times.len()), ends.1, Reverse(ends.0), times);
            if self.best.as_ref().is_none_or(|best| found < *best) {
                self.best = Some(found);
            }
        }
    }

    fn is_chain(&self, rows: &[Option<usize>], times: &[(bool, i64)]) -> bool {
        let Self { events, mode, window, steps, .. } = self;
        let given: Vec<i64> = times.iter().filter(|t| !t.0).map(|t| t.1).collect();
        let (first, last) = (given[0], given[given.len() - 1]);
        let pairs_fit = given.windows(2).all(|pair| {
            let gap = pair[1] - pair[0];
            gap >= i64::from(mode.strict.strict_increase) && gap <= mode.step_window_us.unwrap_or(i64::MAX)
        });
        let satisfies = |row: &Event, step: usize| row.conditions & steps[step] != 0;
        let first_entry = events.iter().filter(|e| satisfies(e, 0)).map(|e| e.time).min();
        let mut inside = events.iter().enumerate().filter(|(_, e)| first < e.time && e.time < last);
        let fits_inside = |(i, row): (usize, &Event)| {
            let reached = || {
                let by_then = |k: &usize| rows[*k].is_some_and(|r| events[r].time <= row.time);
                (0..rows.len()).rev().find(by_then).unwrap()
            };
            if row.conditions & mode.exclude != 0 {
                return false;
            }
            if mode.strict.strict_order {
                let limit =
                    (reached() + 1..steps.len()).find(|k| !self.optional(*k)).unwrap_or(steps.len() - 1);
                let limit = if mode.strict.allow_reentry { steps.len() - 1 } else { limit };
                if !(0..=limit).any(|k| satisfies(row, k)) {
                    return false;
                }
            }
            let unused = !rows.contains(&Some(i));
            !(mode.strict.strict_deduplication && unused && (1..=reached() + 1).any(|k| satisfies(row, k)))
        };
        pairs_fit
            && last - first <= *window
            && (!mode.first_entry || first_entry == Some(first))
            && inside.all(fits_inside)
    }
}

/// All valid modes over four conditions.
fn any_mode() -> impl Strategy<Value = Mode> {
    let flags = prop::collection::vec(any::<bool>(), 8);
    let masks = (prop_oneof![2 => Just(0u32), 1 => 0u32..16], prop_oneof![1 => Just(0u32), 1 => 0u32..16]);
    (flags, masks, prop_oneof![Just(None), (0i64..4).prop_map(Some)]).prop_map(
        |(flags, (exclude, optional), step_window_us)| {
            let strict = crate::funnel::WindowMode {
                strict_deduplication: flags[0] && flags[1],
                strict_order: flags[2],
                strict_increase: flags[3],
                strict_once: flags[4],
                allow_reentry: flags[2] && flags[5],
            };
            let any_order = flags[6] && flags[1] && !flags[2];
            let ordered = !any_order;
            Mode {
                strict: crate::funnel::WindowMode {
                    strict_deduplication: strict.strict_deduplication && ordered,
                    ..strict
                },
                any_order,
                first_entry: flags[7] && ordered,
                exclude,
                // Never the first step.
                optional: if ordered && !strict.strict_deduplication {
                    optional & !exclude & (!exclude - 1)
                } else {
                    0
                },
                step_window_us: step_window_us.filter(|_| ordered),
            }
        },
    )
}

fn any_events(len: usize) -> impl Strategy<Value = Vec<Event>> {
    let conditions = prop_oneof![1 => Just(0u32), 4 => 0u32..16, 5 => (0u32..4).prop_map(|k| 1 << k)];
    let span = prop_oneof![Just(3i64), Just(6), Just(10)];
    span.prop_flat_map(move |span| prop::collection::vec((0..span, conditions.clone()), 0..=len)).prop_map(
        |rows| {
            let mut events: Vec<_> =
                rows.into_iter().map(|(time, conditions)| Event { time, conditions }).collect();
            events.sort();
            events
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    #[test]
    fn the_chain_is_the_best_of_all_chains(
        events in any_events(8), mode in any_mode(), conditions in 1usize..=4, window in 0i64..12
    ) {
        let all = (1u32 << conditions) - 1;
        let mode = Mode { exclude: mode.exclude & all, optional: mode.optional & all, ..mode };
        let Ok(funnel) = Funnel::new(mode, conditions, window) else { return Ok(()) };
        let events: Vec<_> = events.iter().map(|e| Event { conditions: e.conditions & all, ..*e }).collect();
        let mut events = events;
        events.sort();
        let mut out = AVec::new();
        funnel.run(&events, &mut out, ());
        prop_assert_eq!(out.to_vec(), AllChains::times(&events, conditions, window, mode));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_default_chain_is_the_best_of_all_chains(
        events in any_events(9), increase: bool, window in 0i64..12
    ) {
        let mut mode = Mode::default();
        mode.strict.strict_increase = increase;
        let mut out = AVec::new();
        Funnel::new(mode, 4, window).unwrap().run(&events, &mut out, ());
        prop_assert_eq!(out.to_vec(), AllChains::times(&events, 4, window, mode));
    }

    #[test]
    fn neither_row_order_nor_split_nor_bytes_change_the_chain(
        events in any_events(12), mode in any_mode(), order in prop::collection::vec(any::<u64>(), 12), cut in 0usize..12
    ) {
        let Ok(funnel) = Funnel::new(mode, 4, 7) else { return Ok(()) };
        let mut shuffled: Vec<_> = events.iter().zip(order).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let mut parts = [EventLog::new_in(Global), EventLog::new_in(Global)];
        for (i, (event, _)) in shuffled.iter().enumerate() {
            // Rows without a condition are stored only when they matter.
            if event.conditions != 0 || funnel.needs_unmatched_rows() {
                parts[usize::from(i >= cut)].push(event.time, event.conditions);
            }
        }
        let [a, mut b] = parts;
        b.append(&a, ());
        let (mut expected, mut found) = (AVec::new(), AVec::new());
        funnel.run(&events, &mut expected, ());
        funnel.run(b.sorted(()), &mut found, ());
        prop_assert_eq!(expected, found);
    }
}

fn letters(text: &str, steps: &str) -> Vec<Event> {
    let rows = text.chars().enumerate();
    rows.map(|(i, c)| {
        let hit = steps.chars().enumerate().filter(|(_, s)| *s == c);
        Event { time: i as i64, conditions: hit.fold(0, |mask, (k, _)| mask | 1 << k) }
    })
    .collect()
}

fn some(times: &[i64]) -> Times {
    times.iter().copied().map(Some).collect()
}

#[test]
fn the_chain_ends_first_then_starts_last_then_takes_first_occurrences() {
    assert_eq!(run(&letters("AABBCC", "ABC"), 3, 100, ""), some(&[1, 2, 4]));
    assert_eq!(run(&letters("ABABC", "ABC"), 3, 100, ""), some(&[2, 3, 4]));
    assert_eq!(run(&letters("ABAC", "ABC"), 3, 100, ""), some(&[0, 1, 3]));
    assert_eq!(run(&letters("AxB", "ABC"), 3, 100, ""), some(&[0, 2]));
    assert_eq!(run(&letters("BxC", "ABC"), 3, 100, ""), some(&[]));
    assert_eq!(run(&[], 3, 100, ""), some(&[]));
}

#[test]
fn one_row_is_one_step_and_ties_have_no_order() {
    let row = |time, conditions| Event { time, conditions };
    assert_eq!(run(&[row(5, 0b111)], 3, 10, ""), some(&[5]));
    assert_eq!(run(&[row(5, 0b111); 3], 3, 10, ""), some(&[5, 5, 5]));
    assert_eq!(run(&[row(5, 0b111); 3], 3, 10, "strict_increase"), some(&[5]));
    assert_eq!(run(&[row(5, 0b001), row(5, 0b110), row(5, 0b110)], 3, 10, ""), some(&[5, 5, 5]));
    assert_eq!(run(&[row(5, 0b001), row(5, 0b011), row(5, 0b100)], 3, 10, ""), some(&[5, 5, 5]));
}

#[test]
fn the_optimum_is_found_where_clickhouse_misses_it() {
    let tie = [(0, 1), (1, 2), (2, 2), (2, 4)].map(|(time, conditions)| Event { time, conditions });
    assert_eq!(run(&tie, 3, 10, "strict_increase"), some(&[0, 1, 2]));
    assert_eq!(run(&letters("AxABC", "ABC"), 3, 10, "strict_order"), some(&[2, 3, 4]));
    assert_eq!(run(&letters("ABBABC", "ABC"), 3, 10, "strict_deduplication"), some(&[3, 4, 5]));
}

#[test]
fn each_mode_does_what_it_says() {
    assert_eq!(run(&letters("AxBC", "ABC"), 3, 100, "strict_order"), some(&[0]));
    assert_eq!(run(&letters("ACBC", "ABC"), 3, 100, "strict_order"), some(&[0]));
    assert_eq!(run(&letters("ACBC", "ABC"), 3, 100, "strict_order,allow_reentry"), some(&[0, 2, 3]));
    assert_eq!(run(&letters("ABBC", "ABC"), 3, 100, "strict_deduplication"), some(&[0, 1]));
    assert_eq!(run(&letters("AABBC", "ABC"), 3, 100, "strict_deduplication"), some(&[1, 2]));
    assert_eq!(run(&letters("ABxxC", "ABC"), 3, 100, "step_window=2us"), some(&[0, 1]));
    assert_eq!(run(&letters("ABxBC", "ABC"), 3, 100, "step_window=3us"), some(&[0, 1, 4]));
    assert_eq!(run(&letters("ABxBC", "ABC"), 3, 100, "step_window=1us"), some(&[0, 1]));
    assert_eq!(run(&letters("ABxBC", "ABC"), 3, 100, "step_window=2us"), some(&[0, 1]));
    assert_eq!(run(&letters("AxBxBC", "ABC"), 3, 100, "step_window=2us"), some(&[0, 2]));
    assert_eq!(run(&letters("ABxAB", "AB"), 2, 100, "first_entry"), some(&[0, 1]));
    assert_eq!(run(&letters("AxxAB", "AB"), 2, 3, "first_entry"), some(&[0]));
    assert_eq!(run(&letters("AXBC", "ABCX"), 4, 100, "exclude=4"), some(&[0]));
    assert_eq!(run(&letters("AXABC", "AXBC"), 4, 100, "exclude=2"), some(&[2, 3, 4]));
    assert_eq!(run(&letters("AC", "ABC"), 3, 100, "optional=2"), vec![Some(0), None, Some(1)]);
    assert_eq!(run(&letters("ABC", "ABC"), 3, 100, "optional=2"), some(&[0, 1, 2]));
    assert_eq!(run(&letters("A", "ABC"), 3, 100, "optional=2"), some(&[0]));
    assert_eq!(run(&letters("CxBxA", "ABC"), 3, 100, "any_order"), some(&[0, 2, 4]));
    assert_eq!(run(&letters("CxBxA", "ABC"), 3, 3, "any_order"), some(&[0, 2]));
    assert_eq!(run(&letters("CXBA", "ABCX"), 4, 100, "any_order,exclude=4"), some(&[2, 3]));
}

#[test]
fn thirty_two_steps_and_extreme_times_work() {
    let all: Vec<_> = (0..32).map(|k| Event { time: k, conditions: 1 << k }).collect();
    let expected: Vec<i64> = (0..32).collect();
    let modes =
        ["", "strict_order,strict_deduplication,step_window=1us", "any_order", "optional=32,strict_order"];
    for mode in modes {
        assert_eq!(run(&all, 32, 31, mode), some(&expected), "{mode}");
        let short = run(&all, 32, 30, mode);
        assert_eq!(short.len(), 31, "{mode}");
    }
    let extremes = [Event { time: i64::MIN, conditions: 1 }, Event { time: i64::MAX, conditions: 2 }];
    for mode in ["", "any_order", "strict_order"] {
        assert_eq!(run(&extremes, 2, i64::MAX, mode).len(), 1, "{mode}");
    }
}

#[test]
fn an_optional_last_step_of_many_judges_foreign_rows() {
    // With 32 steps a row without any step must still break a strict_order chain.
    let mut rows: Vec<_> = (0..31).map(|k| Event { time: k, conditions: 1 << k }).collect();
    rows.push(Event { time: 31, conditions: 0 });
    rows.push(Event { time: 32, conditions: 1 << 31 });
    assert_eq!(run(&rows, 32, 100, "strict_order,optional=32").len(), 31);
}
