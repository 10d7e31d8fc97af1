//! Patterns of sequences: their text, and how often they match a few rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::event::Event;
use tidemark_core::sequence::Pattern;
use tidemark_fuzz::{bounded, joined, parts, rows, seeds};

fn examples() -> Vec<Vec<u8>> {
    let rows = [0, 1, 0x10, 1, 0x20, 2, 0, 4, 0x10, 3, 0, 7, 0x30, 2, 0x10, 0, 0x10, 8];
    [
        "(?1).*(?2)",
        "^(?1)(?t<=10)(?2|3)?.?$",
        "(?1)(?!2|3)(?t<1.5h)(?4)(?!1)",
        "(?t>=0.000002s)(?1)(?t==3us)(?2)(?t>1ms).*",
        ".(?1)?(?2)?(?3)?(?t<2)",
        "",
    ]
    .map(|pattern| joined(&[pattern.as_bytes(), &rows]))
    .to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [text, bytes] = parts(data);
    let text = String::from_utf8_lossy(&text);
    let pattern = match bounded(text.len(), 128, || Pattern::parse(&text, 9)) {
        Ok(pattern) => pattern,
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.position), "{error}");
            return;
        }
    };
    let events: Vec<Event> = rows(&bytes);
    let count = pattern.count(&events, Global, ());
    assert!(count <= events.len() as u64);
    assert_eq!(pattern.matches(&events, Global, ()), count > 0);
    let seen: Vec<Event> = events.iter().filter(|event| event.conditions != 0).copied().collect();
    assert_eq!(pattern.count(&seen, Global, ()), count, "rows without a condition are invisible");
});
