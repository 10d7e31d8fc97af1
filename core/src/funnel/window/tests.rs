//! Measured facts about ClickHouse 26.9, and agreement with a literal reading of its rules.

use super::*;
use crate::Global;
use crate::event::EventLog;
use proptest::prelude::*;

fn window_funnel(events: &[Event], steps: usize, window_us: i64, mode: WindowMode) -> u32 {
    super::window_funnel(events, steps, window_us, mode, ())
}

fn mode(text: &str) -> WindowMode {
    WindowMode::parse(text).unwrap()
}

/// One event per time unit; the letters of `steps` are conditions, any other letter is a row without one.
fn letters(text: &str, steps: &str) -> Vec<Event> {
    let times = text.chars().filter(|c| *c != ' ').enumerate();
    times.map(|(i, c)| at(i as i64, c, steps)).collect()
}

fn at(time: i64, letter: char, steps: &str) -> Event {
    let hit = steps.chars().enumerate().filter(|(_, s)| *s == letter);
    Event { time, conditions: hit.fold(0, |mask, (k, _)| mask | 1 << k) }
}

fn timed(events: &[(char, i64)], steps: &str) -> Vec<Event> {
    let mut events: Vec<Event> = events.iter().map(|&(c, t)| at(t, c, steps)).collect();
    events.sort();
    events
}

#[test]
fn measured_cells_of_clickhouse_hold_for_strings() {
    const MODES: [&str; 5] = ["", "strict_order", "strict_deduplication", "strict_increase", "strict_once"];
    // 9 marks a cell that was not measured.
    let table: [(&str, &str, [u32; 5]); 13] = [
        ("ABC", "ABC", [3, 3, 3, 3, 3]),
        ("ADBC", "ABC", [3, 1, 3, 3, 3]),
        ("AABBCC", "ABC", [3, 3, 2, 3, 3]),
        ("AAAABBCC", "ABC", [3, 3, 2, 3, 3]),
        ("AABBDCC", "ABC", [3, 2, 2, 3, 3]),
        ("BBCCAA", "ABC", [1, 1, 1, 1, 1]),
        ("AxABC", "ABC", [9, 1, 9, 9, 9]),
        ("ABAC", "ABC", [9, 3, 3, 9, 9]),
        ("ABABC", "ABC", [9, 3, 2, 9, 9]),
        ("ACB", "ABC", [9, 1, 2, 9, 9]),
        ("ABCBD", "ABCD", [9, 4, 3, 9, 9]),
        ("SAPSAF", "SAF", [3, 2, 2, 9, 9]),
        ("AAA", "AAA", [3, 3, 3, 1, 3]),
    ];
    for (text, steps, expected) in table {
        let events = letters(text, steps);
        for (name, level) in MODES.iter().zip(expected).filter(|(_, level)| *level != 9) {
            assert_eq!(window_funnel(&events, steps.len(), 100, mode(name)), level, "{text} {name}");
        }
    }
    for text in ["AABBCC", "AAAABBCC"] {
        assert_eq!(
            window_funnel(&letters(text, "ABC"), 3, 100, mode("strict_order,strict_deduplication")),
            2
        );
    }
    assert_eq!(window_funnel(&letters("ACB", "ABC"), 3, 100, mode("strict_order,allow_reentry")), 2);
    let aaa = letters("AAA", "AAA");
    assert_eq!(window_funnel(&aaa, 3, 10, mode("strict_once,strict_increase")), 3);
    assert_eq!(window_funnel(&aaa, 3, 10, mode("strict_order,strict_once")), 1);
}

#[test]
fn measured_cells_of_clickhouse_hold_for_times() {
    let level = |events: &[(char, i64)], steps: &str, window, text| {
        window_funnel(&timed(events, steps), steps.len(), window, mode(text))
    };
    for text in ["", "strict_order", "strict_deduplication"] {
        let events = [('A', 0), ('B', 600), ('D', 1800), ('B', 2400)];
        assert_eq!(level(&events, "ABCD", 1800, text), 2, "{text}");
    }
    let shop =
        [('i', 0), ('s', 5), ('l', 10), ('i', 15), ('s', 20), ('i', 25), ('s', 30), ('l', 35), ('e', 40)];
    assert_eq!(level(&shop, "isle", 60, "strict_deduplication"), 3);
    let tie = [('A', 0), ('B', 1), ('B', 2), ('C', 2)];
    assert_eq!(level(&tie, "ABC", 10, ""), 3);
    assert_eq!(level(&tie, "ABC", 10, "strict_increase"), 2);
    assert_eq!(level(&tie, "ABC", 10, "strict_once,strict_increase"), 3);
    let restart = [('A', 0), ('A', 50), ('B', 50), ('C', 60)];
    assert_eq!(level(&restart, "ABC", 100, "strict_increase"), 1);
    let one_row = [Event { time: 0, conditions: 0b111 }];
    for (text, expected) in [("", 3), ("strict_increase", 1), ("strict_once", 1)] {
        assert_eq!(window_funnel(&one_row, 3, 100, mode(text)), expected, "{text}");
    }
    assert_eq!(level(&[('a', 0), ('b', 10)], "ab", 10, ""), 2);
    assert_eq!(level(&[('a', 0), ('b', 10)], "ab", 9, ""), 1);
    assert_eq!(level(&[('A', 5), ('B', 5)], "BA", 9, ""), 2, "lower steps come first inside a tie");
}

#[test]
fn edges_are_defined() {
    assert_eq!(window_funnel(&[], 3, 100, mode("")), 0);
    let extremes = [Event { time: i64::MIN, conditions: 1 }, Event { time: i64::MAX, conditions: 2 }];
    assert_eq!(window_funnel(&extremes, 2, i64::MAX, mode("")), 1);
    assert_eq!(window_funnel(&extremes, 1, 0, mode("")), 1);
    assert_eq!(window_funnel(&extremes[..1], 1, -1, mode("")), 1);
    let all: Vec<_> = (0..32).map(|k| Event { time: k, conditions: 1 << k }).collect();
    for text in ["", "strict_once", "strict_order,strict_once,strict_deduplication,strict_increase"] {
        assert_eq!(window_funnel(&all, 32, 31, mode(text)), 32, "{text}");
        assert_eq!(window_funnel(&all, 32, 30, mode(text)), 31, "{text}");
    }
}

#[test]
fn strict_once_with_many_candidates_stays_fast() {
    // Every row satisfies every step: the list of all chains would have more than 10^20 entries.
    let rows: Vec<_> = (0..2_000).map(|i| Event { time: i / 40, conditions: (1 << 20) - 1 }).collect();
    assert_eq!(window_funnel(&rows, 21, 100, mode("strict_once")), 20);
    assert_eq!(window_funnel(&rows, 21, 0, mode("strict_once")), 20);
    assert_eq!(window_funnel(&rows, 21, 100, mode("strict_once,strict_increase")), 20);
    assert_eq!(window_funnel(&rows, 21, 18, mode("strict_once,strict_increase")), 19);
}

/// The rules read literally: all entries, all chains, no shortcut.
fn literal(events: &[Event], steps: usize, window: i64, mode: WindowMode) -> usize {
    #[derive(Clone)]
    struct Chain {
        first: i64,
        last: i64,
        rows: Vec<usize>,
    }
    let mut entries = vec![];
    for (row, event) in events.iter().enumerate() {
        entries.extend(
            (0..steps).filter(|k| event.conditions & (1 << k) != 0).map(|k| (event.time, k + 1, row)),
        );
        if mode.strict_order && event.conditions & low_bits(steps) == 0 {
            entries.push((event.time, 0, row));
        }
    }
    entries.sort();
    let mut chains: Vec<Vec<Chain>> = vec![vec![]; steps + 1];
    let mut seen_first = false;
    let level = |chains: &[Vec<Chain>]| (1..=steps).rev().find(|&k| !chains[k].is_empty()).unwrap_or(0);
    for (time, k, row) in entries {
        let start = Chain { first: time, last: time, rows: vec![row] };
        if k == 0 {
            if seen_first {
                break;
            }
        } else if k == 1 {
            if !mode.strict_once {
                chains[1].clear();
            }
            chains[1].push(start);
            seen_first = true;
        } else if mode.strict_deduplication && !chains[k].is_empty() {
            return level(&chains);
        } else if mode.strict_order && seen_first && chains[k - 1].is_empty() {
            if !mode.allow_reentry {
                return level(&chains);
            }
        } else {
            for chain in chains[k - 1].clone() {
                let in_window = time - chain.first <= window;
                let later = !mode.strict_increase || chain.last < time;
                if in_window && later && !(mode.strict_once && chain.rows.contains(&row)) {
                    if !mode.strict_once {
                        chains[k].clear();
                    }
                    let rows = chain.rows.iter().copied().chain([row]).collect();
                    chains[k].push(Chain { first: chain.first, last: time, rows });
                }
            }
            if k == steps && !chains[k].is_empty() {
                return steps;
            }
        }
    }
    level(&chains)
}

fn every_mode() -> impl Iterator<Item = WindowMode> {
    (0u32..32).filter(|bits| bits & 0b10010 != 0b10000).map(|bits| WindowMode {
        strict_deduplication: bits & 1 != 0,
        strict_order: bits & 2 != 0,
        strict_increase: bits & 4 != 0,
        strict_once: bits & 8 != 0,
        allow_reentry: bits & 16 != 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn every_mode_equals_the_literal_rules(
        steps in 1usize..5,
        window in 0i64..8,
        rows in prop::collection::vec((0i64..6, prop_oneof![Just(0u32), 0u32..16, (0u32..4).prop_map(|k| 1 << k)]), 0..9)
    ) {
        let mut events: Vec<_> = rows.iter().map(|&(time, conditions)| Event { time, conditions }).collect();
        events.sort();
        for mode in every_mode() {
            let expected = literal(&events, steps, window, mode) as u32;
            prop_assert_eq!(window_funnel(&events, steps, window, mode), expected, "{:?}", mode);
        }
    }

    #[test]
    fn neither_row_order_nor_split_changes_the_level(
        rows in prop::collection::vec((0i64..6, 0u32..8), 0..12).prop_shuffle(), cut in 0usize..12, window in 0i64..8
    ) {
        let mut sorted: Vec<_> = rows.iter().map(|&(time, conditions)| Event { time, conditions }).collect();
        sorted.sort();
        let cut = cut.min(rows.len());
        let mut parts = [EventLog::new_in(Global), EventLog::new_in(Global)];
        for (i, &(time, conditions)) in rows.iter().enumerate() {
            parts[usize::from(i >= cut)].push(time, conditions);
        }
        let [mut a, mut b] = parts;
        b.append(&a, ());
        a = b;
        for mode in every_mode() {
            let expected = window_funnel(&sorted, 3, window, mode);
            prop_assert_eq!(window_funnel(a.sorted(()), 3, window, mode), expected);
        }
    }
}
