//! Modes of funnels: their text, and what they say about a few rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::AVec;
use tidemark_core::event::Event;
use tidemark_core::funnel::mode::{Mode, WindowMode, duration_us};
use tidemark_core::funnel::{Funnel, window_funnel};
use tidemark_fuzz::{bounded, joined, parts, rows, seeds};

/// More rows than that at one instant show no new behaviour, and are slow to match.
const ROWS: usize = 300;

fn run_window_funnel(mode: WindowMode, conditions: usize, window: i64, events: &[Event]) {
    let level = window_funnel(events, conditions, window, mode, ());
    assert!(level as usize <= conditions);
    let plain = window_funnel(events, conditions, window, WindowMode::default(), ());
    assert!(level <= plain, "a stricter mode went deeper");
}

fn run_funnel(mode: Mode, conditions: usize, window: i64, events: &[Event]) {
    let Ok(funnel) = Funnel::new(mode, conditions, window) else { return };
    let mut chain = AVec::new();
    funnel.run(events, &mut chain, ());
    assert!(chain.len() <= funnel.steps());
    let times: Vec<i64> = chain.iter().flatten().copied().collect();
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        assert!(times.is_sorted());
        assert!(last.abs_diff(*first) <= window.max(0).unsigned_abs());
        assert!(chain.first() != Some(&None) && chain.last() != Some(&None));
        assert!(times.iter().all(|time| events.iter().any(|event| event.time == *time)));
    }
    if mode == Mode::default() {
        // In ClickHouse's rules a row may be several steps, so they are never less.
        assert!(chain.len() <= window_funnel(events, conditions, window, WindowMode::default(), ()) as usize);
    }
}

fn examples() -> Vec<Vec<u8>> {
    let rows = [0, 1, 0x10, 1, 0x20, 2, 0, 4, 0x10, 3, 0, 7, 0x30, 2, 0x10, 0, 0x10, 8];
    [
        "strict_order,allow_reentry, strict_once,strict_increase,strict_deduplication",
        "default,exclude=4,optional=2,step_window=1h 30m,first_entry",
        "any_order, strict_increase,exclude = 3",
        "step_window=90 seconds,step_window=500ms,step_window=2weeks",
        "strict_deduplication,strict",
    ]
    .map(|mode| joined(&[mode.as_bytes(), &[5, 4], &rows]))
    .to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [text, numbers, bytes] = parts(data);
    let text = String::from_utf8_lossy(&text);
    let (mode, plain) = bounded(text.len(), 8, || (Mode::parse(&text), WindowMode::parse(&text)));
    let _ = bounded(0, 0, || duration_us(&text));
    if let (Ok(mode), Ok(plain)) = (&mode, &plain) {
        assert_eq!(mode.strict, *plain);
    }
    let conditions = usize::from(numbers.first().copied().unwrap_or(3) % 34);
    let window = numbers.get(1).map_or(10, |n| i64::from(n.cast_signed()));
    let events = rows(&bytes[..bytes.len().min(2 * ROWS)]);
    if let Ok(mode) = plain {
        run_window_funnel(mode, conditions, window, &events);
    }
    if let Ok(mode) = mode {
        run_funnel(mode, conditions, window, &events);
    }
});
