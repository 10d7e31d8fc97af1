//! Times, dates, spans and sizes, as events, options and the configuration write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_cli::output::parse_moment;
use tidemark_fuzz::{bounded, seeds};
use tidemark_loader::config::keys::{KEYS, duration, show_duration, size};
use tidemark_loader::event::time::{
    DAY_US, day_of, format_day, from_unix_millis, parse_day, parse_span, parse_time, to_unix_millis,
};
use tidemark_shop::Date;

const EXAMPLES: [&str; 14] = [
    "2026-09-01T08:15:22.1234567Z",
    "2024-02-29 23:59:60-05:30",
    "0000-01-01T00:00:00+23:59",
    "9999-12-31t23:59:59.999999z",
    "2026-02-28",
    "7d",
    "36h",
    "100000d",
    "500ms",
    "16MiB",
    "65536",
    "off",
    "0.5",
    "1_000",
];

fuzz_target!(init: seeds(EXAMPLES), |text: &str| {
    bounded(text.len(), 8, || check(text));
});

fn check(text: &str) {
    if let Some(time) = parse_time(text) {
        let date = parse_day(&text[..10]).expect("it begins with a date");
        // An offset is less than a day, and second 60 may be the next day.
        assert!((day_of(time) - date).abs() <= 1);
        assert_eq!(parse_moment(text), Ok(time));
        assert_eq!(from_unix_millis(to_unix_millis(time)), Some(time.div_euclid(1000) * 1000));
    }
    if let Some(day) = parse_day(text) {
        assert_eq!(format_day(day), text);
        assert_eq!(parse_moment(text), Ok(i64::from(day) * DAY_US));
        let ours = text.parse::<Date>();
        assert_eq!(ours.is_ok(), &text[..4] >= "1970", "{ours:?}");
    }
    if let Ok(date) = text.parse::<Date>() {
        assert_eq!(date.to_string(), text);
    }
    if let Ok(span) = parse_span(text) {
        assert!((0..=100_000 * DAY_US).contains(&span));
    }
    let _ = (parse_moment(text), size(text));
    if let Some(time) = duration(text) {
        assert_eq!(duration(&show_duration(time)), Some(time));
    }
    for key in KEYS {
        if let Err(why) = key.kind.check(text) {
            assert!(!why.is_empty());
        }
    }
}
