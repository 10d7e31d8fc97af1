//! Patterns against a brute-force reading of the module documentation, and the documented cases one by one.

use std::cell::Cell;

use super::*;
use crate::Global;
use crate::event::EventLog;
use proptest::prelude::*;

mod reference;
use reference::{pattern, render};

const SECOND: i64 = 1_000_000;

/// One row per character: `1`..`9` sets that condition, `-` none; rows are one second apart.
fn rows(text: &str) -> Vec<Event> {
    let row = |(i, c): (usize, char)| Event {
        time: i as i64 * SECOND,
        conditions: c.to_digit(10).map_or(0, |d| 1 << (d - 1)),
    };
    text.chars().enumerate().map(row).collect()
}

/// Rows as (seconds, condition number).
fn at(rows: &[(i64, u32)]) -> Vec<Event> {
    rows.iter().map(|&(s, c)| Event { time: s * SECOND, conditions: 1 << (c - 1) }).collect()
}

fn matches(text: &str, events: &[Event]) -> bool {
    Pattern::parse(text, 9).unwrap().matches(events, Global, ())
}

fn count(text: &str, events: &[Event]) -> u64 {
    Pattern::parse(text, 9).unwrap().count(events, Global, ())
}

#[track_caller]
fn refused(text: &str, position: usize, message: &str) {
    let error = Pattern::parse(text, 3).unwrap_err();
    assert_eq!((error.position, error.problem.to_string().as_str()), (position, message), "{text}");
}

#[test]
fn a_refused_pattern_names_position_and_expectation() {
    refused("x", 1, "expected (?, ., .* or $");
    refused("(?1) (?2)", 5, "expected (?, ., .* or $");
    refused("(?", 3, "expected a condition number, ! or t");
    refused("(?1", 4, "expected a closing parenthesis or | and another condition");
    refused("(?1|)", 5, "expected a condition number");
    refused("(?0)", 3, "condition 0 does not exist, expected a number from 1 to 3");
    refused("(?1)(?4)", 7, "condition 4 does not exist, expected a number from 1 to 3");
    refused(
        "(?99999999999999999999999)",
        3,
        &format!("condition {} does not exist, expected a number from 1 to 3", u64::MAX),
    );
    refused("(?1)(?t=5)", 8, "expected <=, <, >=, > or ==");
    refused("(?1)(?t!=5)", 8, "expected <=, <, >=, > or ==");
    refused("(?1)(?t<=)", 10, "expected a duration such as 30, 1.5, 500ms or 30m");
    refused("(?1)(?t<=-5)", 10, "expected a duration such as 30, 1.5, 500ms or 30m");
    refused("(?1)(?t<=5.)", 12, "expected digits after the decimal point");
    refused(
        "(?1)(?t<=5y)",
        11,
        "expected a closing parenthesis, or a duration such as 30, 1.5, 500ms or 30m",
    );
    refused("(?1)(?t<=0.0000001)", 10, "expected a duration of whole microseconds");
    refused("(?1)(?t<=99999999999999999999)", 10, "expected a shorter duration");
    refused("(?1)(?t<=18446744073709551615.0000000000001w)", 10, "expected a shorter duration");
    refused("(?1)(?t<=5)(?t>=1)(?2)", 12, "expected an event condition between two time gates");
    refused("(?1)(?t<=5)(?!2)(?t>=1)(?2)", 17, "expected an event condition between two time gates");
    refused("(?1)^", 5, "expected (?, ., .* or $");
    refused("(?1)$(?2)", 6, "expected the end of the pattern after $");
    refused("(?1)(?t<=5)$", 5, "expected a row item or .* between a time gate and $");
    refused("é", 1, "expected (?, ., .* or $");
    refused(".é", 2, "expected (?, ., .* or $");
    let gate = "expected no gate but one (?t<=n) or (?t<n) beside a negation that ends the pattern";
    refused("(?1)(?!2)(?t>5)", 5, gate);
    refused("(?!2)(?t<5)", 1, gate);
    assert_eq!(Pattern::parse("(?4)", 3).unwrap_err().to_string().split(" at ").last(), Some("character 3"));
    assert!(Pattern::parse("(?32)", 40).is_ok() && Pattern::parse("(?33)", 40).is_err());
}

#[test]
fn too_many_optional_items_are_refused_instead_of_run() {
    assert!(Pattern::parse(&"(?1)?".repeat(60), 1).is_ok());
    assert!(Pattern::parse(&"(?1)?".repeat(2000), 1).is_err());
    assert!(Pattern::parse(&"(?1)".repeat(100_000), 1).is_err());
}

#[test]
fn durations_are_exact_microseconds() {
    let two = |micros: i64| vec![Event { time: 0, conditions: 1 }, Event { time: micros, conditions: 2 }];
    for (text, micros) in [
        ("1us", 1),
        ("0.000001", 1),
        ("500ms", 500_000),
        ("1.5", 1_500_000),
        ("2s", 2_000_000),
        ("030", 30_000_000),
        ("30m", 1_800_000_000),
        ("1.5h", 5_400_000_000),
        ("1d", 86_400_000_000),
        ("2w", 1_209_600_000_000),
        ("0", 0),
    ] {
        let equal = format!("(?1)(?t=={text})(?2)");
        assert!(matches(&equal, &two(micros)), "{text}");
        assert!(!matches(&equal, &two(micros + 1)), "{text}");
    }
    let ends = [Event { time: i64::MIN, conditions: 1 }, Event { time: i64::MAX, conditions: 2 }];
    assert!(matches("(?1)(?t>=30500568w)(?2)", &ends) && !matches("(?1)(?t<=30500568w)(?2)", &ends));
}

#[test]
fn neighbours_wildcards_and_rows_without_a_condition() {
    assert!(matches("(?1)(?2)", &rows("312")));
    assert!(matches("(?1)(?2)", &rows("1--2")), "a row without a condition is invisible");
    assert!(!matches("(?1)(?2)", &rows("132")));
    assert!(matches("(?1).(?2)", &rows("132")) && !matches("(?1).(?2)", &rows("12")));
    assert!(matches("(?1).*(?2)", &rows("13332")) && !matches("(?1).*(?2)", &rows("21")));
    assert!(matches("(?1)(?2|3)(?4)", &rows("134")) && !matches("(?1)(?2|3)(?4)", &rows("154")));
    for text in ["", ".*", "(?1)", "(?!2)", "^", "$"] {
        assert!(!matches(text, &[]) && !matches(text, &rows("--")), "no visible row never matches {text}");
    }
}

#[test]
fn gates_measure_from_the_row_before_and_skip_rows() {
    let events = at(&[(0, 1), (5, 2), (100, 1), (101, 3)]);
    assert!(matches("(?1)(?t<=10)(?2)", &events) && matches("(?1)(?t<=5)(?2)", &events));
    assert!(!matches("(?1)(?t<5)(?2)", &events));
    assert!(matches("(?1)(?t==101)(?3)", &events) && !matches("(?1)(?t>101)(?3)", &events));
    assert!(!matches("(?1)(?t<=10)(?2)(?t<=10)(?3)", &events));
    assert!(matches("(?1)(?t<=10)(?2)(?t<=96)(?3)", &events), "from the second row, not from the first");
    assert!(matches("^(?t<=5)(?2)", &events) && !matches("^(?t<5)(?2)", &events));
    // A repeated first row restarts an upper limit and does not shorten a lower one.
    assert!(matches("(?1)(?t<=1)(?3)", &events) && matches("(?1)(?t>=101)(?3)", &events));
}

#[test]
fn a_negation_covers_the_gap_between_two_rows() {
    assert!(matches("(?1)(?!3)(?2)", &rows("1442")) && !matches("(?1)(?!3)(?2)", &rows("1432")));
    assert!(!matches("(?1)(?!3)(?2)", &rows("13132")) && matches("(?1)(?!3)(?2)", &rows("1312")));
    assert!(matches("(?1)(?!3|4)(?2)", &rows("152")) && !matches("(?1)(?!3|4)(?2)", &rows("142")));
    assert!(matches("(?1).*(?!3)(?2)", &rows("142")) && !matches("(?1)(?!3).*(?2)", &rows("132")));
    let both = [Event { time: 0, conditions: 0b101 }, Event { time: 1, conditions: 0b110 }];
    assert!(matches("(?1)(?!3)(?2)", &both), "the two rows themselves are not in between");
    assert!(matches("(?1)(?!3)(?t<=2)(?2)", &rows("142")) && !matches("(?1)(?!3)(?t<=2)(?2)", &rows("1442")));
    assert!(
        !matches("(?1)(?!3)(?t>=2)(?2)", &rows("132")) && matches("(?1)(?!3)(?t>=2)(?2)", &rows("13142"))
    );
    assert!(matches("(?!3)(?1)", &rows("21")) && !matches("(?!3)(?1)", &rows("2311")));
    assert_eq!(count("(?!3)(?1)", &rows("1131")), 2, "counted from behind the previous match");
    assert!(matches("(?1)(?!3)", &rows("3122")) && !matches("(?1)(?!3)", &rows("3123")));
    assert!(matches("(?1)(?!2)(?t<=3)", &rows("13332")) && !matches("(?1)(?!2)(?t<=4)", &rows("13332")));
    assert!(matches("(?1)(?!2)(?t<4)", &rows("13332")));
    assert_eq!(count("(?1)(?!2)(?t<=1)", &rows("11213")), 2, "looks ahead, consumes nothing");
    assert_eq!(count("(?1)(?!3)", &rows("131121")), 3);
    assert!(
        matches("(?!3)", &rows("121"))
            && count("(?!3)", &rows("121")) == 3
            && !matches("(?!3)", &rows("123"))
    );
}

#[test]
fn an_optional_row_takes_its_gate_and_negation_along() {
    for text in ["12", "132"] {
        assert!(matches("^(?1)(?3)?(?2)$", &rows(text)));
    }
    assert!(!matches("(?1)(?3)?(?2)", &rows("1332")) && !matches("(?1).?(?2)", &rows("1332")));
    let gated = "(?1)(?t<=1)(?2)?(?t<=1)(?3)";
    assert!(matches(gated, &at(&[(0, 1), (1, 2), (2, 3)])) && matches(gated, &at(&[(0, 1), (1, 3)])));
    assert!(!matches(gated, &at(&[(0, 1), (2, 3)])));
    assert!(matches("(?1)(?!4)(?2)?(?3)", &rows("13")) && !matches("(?1)(?!4)(?2)?(?3)", &rows("143")));
    assert!(matches("(?1).*(?2)?(?3)", &rows("1443")), "a .* in front stays");
}

#[test]
fn anchors_tie_a_match_to_the_first_and_last_row() {
    assert!(matches("^(?1)(?2)", &rows("-123")) && !matches("^(?1)(?2)", &rows("312")));
    assert!(matches("(?1)(?2)$", &rows("312-")) && !matches("(?1)(?2)$", &rows("123")));
    assert!(matches("^(?1).*(?2)$", &rows("1332")) && !matches("^.$", &rows("12")));
    assert_eq!(count("^(?1)", &rows("111")), 1);
    assert_eq!(count("(?1).*$", &rows("111")), 1);
    assert_eq!(count("(?1)$", &rows("111")), 1);
}

#[test]
fn counting_restarts_behind_the_last_row_taken() {
    assert_eq!(count("(?1)(?2)", &rows("1212312")), 3);
    assert_eq!(count("(?1).*(?2)", &rows("1122123")), 2);
    assert_eq!(count("(?1)(?1)", &rows("11111")), 2);
    assert_eq!(count("(?1)(?t<=1)(?2)", &rows("132121")), 1);
    assert_eq!(count("", &rows("1-23")), 3);
    assert_eq!(count("(?9)?", &rows("123")), 3, "an empty match advances one row");
    assert_eq!(count("..*", &rows("123")), 3, "a final .* matches nothing");
    assert_eq!(
        count("(?1)(?t<=1)", &at(&[(0, 1), (5, 2), (6, 1)])),
        1,
        "a next row has to come in time, the end not"
    );
    assert_eq!(count("(?1)(?t>=1)", &rows("11")), 1);
}

#[test]
fn a_million_rows_and_thirty_gates_finish() {
    // Backtracking would try every combination: every row fits every item, and the last one never occurs.
    let events: Vec<_> = (0..1_000_000).map(|i| Event { time: i * 1000, conditions: 1 }).collect();
    let asked = Cell::new(0);
    for gate in ["(?t<=1h)", "(?t==5)", ".*(?!3)(?t>=1ms)"] {
        let text = format!("{}(?2)", format!("(?1){gate}").repeat(30));
        let pattern = Pattern::parse(&text, 3).unwrap();
        let started = std::time::Instant::now();
        assert!(!pattern.matches(&events, Global, &asked));
        assert!(started.elapsed().as_secs() < 60);
    }
    assert!(asked.get() >= 3_000_000, "{}", asked.get());
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0i64..3, 0u32..8), 0..8).prop_map(|steps| {
        let mut time = 0;
        let mut events: Vec<_> = steps
            .into_iter()
            .map(|(step, conditions)| {
                time += step * SECOND;
                Event { time, conditions }
            })
            .collect();
        events.sort_unstable();
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_engine_agrees_with_brute_force(syntax in pattern(), events in events()) {
        let text = render(&syntax);
        if let Ok(parsed) = Pattern::parse(&text, 3) {
            let expected = reference::count(&syntax, &events);
            prop_assert_eq!(parsed.count(&events, Global, ()), expected, "{}", text);
            prop_assert_eq!(parsed.matches(&events, Global, ()), expected > 0, "{}", text);
        }
    }

    #[test]
    fn any_row_order_and_split_gives_the_same_answer(syntax in pattern(), events in events(), cut in 0usize..8) {
        if let Ok(pattern) = Pattern::parse(&render(&syntax), 3) {
            let cut = cut.min(events.len());
            let log = |events: &[Event]| {
                let mut log = EventLog::new_in(Global);
                events.iter().rev().for_each(|e| log.push(e.time, e.conditions));
                log
            };
            let mut merged = log(&events[cut..]);
            merged.append(&log(&events[..cut]), ());
            prop_assert_eq!(pattern.count(merged.sorted(()), Global, ()), pattern.count(&events, Global, ()));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[(?t<=>0-9!|.*$^)smh]{0,20}|\\PC{0,8}", n in 0usize..40) {
        if let Err(error) = Pattern::parse(&text, n) {
            prop_assert!(error.position >= 1 && error.position <= text.chars().count() + 1);
        }
    }
}
