//! Whatever takes long asks at every row whether it may go on, and stops when it may not.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemark_core::attribution::{self, Journey};
use tidemark_core::codec::{Reader, Writer};
use tidemark_core::event::{Event, EventLog};
use tidemark_core::funnel::{Funnel, Mode, WindowMode, window_funnel};
use tidemark_core::hll::{Config, Cutoff, EncodedRef, Sketch, estimate_encoded};
use tidemark_core::interrupt::Interrupt;
use tidemark_core::retention::cohort::{CohortLog, Spec};
use tidemark_core::sequence::Pattern;
use tidemark_core::sequence::next_node::{NodeLog, Search};
use tidemark_core::session::Sessions;
use tidemark_core::{AVec, Global};

const ROWS: usize = 100_000;
/// Copies are made in parts: far fewer questions than elements, but for each part one.
const PARTS: usize = ROWS / 65_536;

/// Says no after so many questions.
#[derive(Clone, Copy)]
struct Patience<'a>(&'a Cell<usize>);

impl Interrupt for Patience<'_> {
    fn check(self) {
        match self.0.get().checked_sub(1) {
            Some(left) => self.0.set(left),
            None => std::panic::resume_unwind(Box::new("stopped")),
        }
    }
}

/// Checks that work asks at least so often, and that a no anywhere in between stops it.
fn asks(name: &str, times: usize, work: impl Fn(Patience<'_>)) {
    let patience = Cell::new(usize::MAX);
    work(Patience(&patience));
    let asked = usize::MAX - patience.get();
    assert!(asked >= times, "{name} asked {asked} times");
    for patience in [0, asked / 2, asked - 1] {
        let left = Cell::new(patience);
        assert!(
            catch_unwind(AssertUnwindSafe(|| work(Patience(&left)))).is_err(),
            "{name} went on after {patience}"
        );
    }
}

/// In no order, no two alike, with ties of three.
fn scattered() -> impl Iterator<Item = (i64, u32)> {
    (0..ROWS).map(|i| ((i * 7_919 % ROWS) as i64 / 3 * 1_000_000, (i * 31 % 128) as u32))
}

fn log() -> EventLog<Global> {
    let mut log = EventLog::new_in(Global);
    scattered().for_each(|(time, conditions)| log.push(time, conditions));
    log
}

fn sorted() -> Vec<Event> {
    log().sorted(()).to_vec()
}

#[test]
fn logs_of_events() {
    let mut bytes = AVec::new();
    log().encode(&mut Writer::new(&mut bytes, 1), ());
    asks("sort", ROWS, |i| {
        log().sorted(i);
    });
    asks("encode", ROWS, |i| log().encode(&mut Writer::new(&mut AVec::new(), 1), i));
    asks("decode", ROWS, |i| {
        EventLog::decode_in(&mut Reader::new(&bytes, 1).unwrap(), Global, i).unwrap();
    });
    asks("append", PARTS, |i| log().append(&log(), i));
}

#[test]
fn funnels() {
    let events = sorted();
    // The seventh step never comes, so all rows are looked at.
    for mode in [
        "",
        "strict_increase",
        "strict_order",
        "strict_deduplication",
        "step_window=1h",
        "optional=2",
        "any_order",
        "exclude=3",
        "first_entry",
    ] {
        let funnel = Funnel::new(Mode::parse(mode).unwrap(), 8, i64::MAX).unwrap();
        asks(&format!("funnel {mode}"), ROWS / 4, |i| funnel.run(&events, &mut AVec::new(), i));
    }
    for mode in ["", "strict_increase", "strict_once", "strict_once,strict_increase"] {
        let parsed = WindowMode::parse(mode).unwrap();
        asks(&format!("window_funnel {mode}"), ROWS / 4, |i| {
            window_funnel(&events, 8, i64::MAX, parsed, i);
        });
    }
}

#[test]
fn one_instant_of_many_rows() {
    let tie: Vec<_> = (0..ROWS).map(|i| Event { time: 0, conditions: 1 << (i * 6 / ROWS) | 64 }).collect();
    for mode in ["step_window=1h", "strict_order", "strict_deduplication", "any_order", "exclude=8"] {
        let funnel = Funnel::new(Mode::parse(mode).unwrap(), 8, 1).unwrap();
        asks(&format!("funnel {mode}"), ROWS, |i| funnel.run(&tie, &mut AVec::new(), i));
    }
    for mode in ["", "strict_once", "strict_once,strict_deduplication"] {
        let parsed = WindowMode::parse(mode).unwrap();
        asks(&format!("window_funnel {mode}"), ROWS - 1, |i| {
            window_funnel(&tie, 8, 1, parsed, i);
        });
    }
}

#[test]
fn sequences() {
    let events = sorted();
    for pattern in ["(?1)(?t==5)(?8)", "(?1)(?!8)", "^(?1).*(?8)$"] {
        let parsed = Pattern::parse(pattern, 8).unwrap();
        asks(pattern, ROWS * 3 / 4, |i| {
            parsed.count(&events, Global, i);
        });
    }
    let nodes = || {
        let mut log = NodeLog::new_in(Global);
        scattered()
            .for_each(|(time, conditions)| log.push(time, &conditions.to_le_bytes(), true, conditions & !1));
        log
    };
    let mut bytes = AVec::new();
    nodes().encode(&mut Writer::new(&mut bytes, 1), ());
    let search = Search::parse("forward", "first_match", 1).unwrap();
    asks("next node", 2 * ROWS, |i| {
        nodes().next_node(search, i);
    });
    asks("encode nodes", ROWS, |i| nodes().encode(&mut Writer::new(&mut AVec::new(), 1), i));
    asks("decode nodes", ROWS, |i| {
        NodeLog::decode_in(&mut Reader::new(&bytes, 1).unwrap(), Global, i).unwrap();
    });
    asks("append nodes", ROWS, |i| nodes().append(&nodes(), i));
}

#[test]
fn sessions() {
    let state = || {
        let mut sessions = Sessions::new_in(1, Global);
        scattered().for_each(|(time, _)| sessions.push(time, ()));
        sessions
    };
    let mut bytes = AVec::new();
    state().encode(&mut Writer::new(&mut bytes, 1), ());
    asks("push", ROWS / 2, |i| {
        let mut sessions = Sessions::new_in(1, Global);
        scattered().for_each(|(time, _)| sessions.push(time, i));
    });
    asks("count", ROWS / 3, |i| {
        state().count(i);
    });
    asks("encode", ROWS / 3, |i| state().encode(&mut Writer::new(&mut AVec::new(), 1), i));
    asks("decode", ROWS / 3, |i| {
        Sessions::decode_in(&mut Reader::new(&bytes, 1).unwrap(), Global, i).unwrap();
    });
    asks("merge", PARTS, |i| state().merge(&state(), i).unwrap());
}

#[test]
fn attributions() {
    let spec = attribution::Spec::parse("linear", i64::MAX).unwrap();
    let state = || {
        let mut journey = Journey::new_in(spec, Global);
        scattered().for_each(|(time, _)| journey.touch(time, b"Email", ()));
        journey.convert(i64::MAX, b"1", ());
        journey
    };
    let mut bytes = AVec::new();
    state().encode(&mut Writer::new(&mut bytes, 1), ());
    asks("credits", 2 * ROWS, |i| state().credits(i, |_, _, credits| assert!(credits.len() > ROWS / 2)));
    asks("encode", ROWS, |i| state().encode(&mut Writer::new(&mut AVec::new(), 1), i));
    asks("decode", ROWS, |i| {
        Journey::decode_in(&mut Reader::new(&bytes, 1).unwrap(), Global, i).unwrap();
    });
    asks("append", ROWS, |i| state().append(&state(), i).unwrap());
}

#[test]
fn cohorts() {
    let spec = Spec::parse("day", "recurring,rolling", 3, i64::MAX).unwrap();
    let state = || {
        let mut log = CohortLog::new_in(spec, Global);
        scattered().for_each(|(time, _)| log.push(time, true, true));
        log
    };
    let mut bytes = AVec::new();
    state().encode(&mut Writer::new(&mut bytes, 1), ());
    asks("members", 2 * ROWS, |i| {
        state().members(i).count();
    });
    asks("encode", ROWS, |i| state().encode(&mut Writer::new(&mut AVec::new(), 1), i));
    asks("decode", ROWS, |i| {
        CohortLog::decode_in(&mut Reader::new(&bytes, 1).unwrap(), Global, i).unwrap();
    });
    asks("append", ROWS, |i| state().append(&state(), i).unwrap());
}

#[test]
fn large_explicit_sketches() {
    let config = Config::new(14, 6, Cutoff::UpTo(1 << 30), true).unwrap();
    let mut sketch = Sketch::new_in(config, Global);
    (1..=ROWS as u64).for_each(|hash| sketch.insert_hash(hash));
    let mut bytes = AVec::new();
    sketch.encode(&mut bytes, ());
    let decoded = |bytes: &[u8]| Sketch::decode_in(bytes, Global, ()).unwrap();
    asks("decode", ROWS, |i| {
        Sketch::decode_in(&bytes, Global, i).unwrap();
    });
    asks("encode", ROWS, |i| sketch.encode(&mut AVec::new(), i));
    asks("merge", ROWS, |i| decoded(&bytes[..11]).merge(&sketch, i));
    asks("merge_encoded", ROWS, |i| {
        decoded(&bytes[..11]).merge_encoded(&EncodedRef::parse(&bytes).unwrap(), i).unwrap();
    });
    asks("to registers", ROWS, |i| decoded(&bytes).merge(&of_default(), i));
    asks("estimate", ROWS, |i| {
        estimate_encoded(&bytes, i).unwrap();
    });
}

fn of_default() -> Sketch<Global> {
    let mut sketch = Sketch::new_in(Config::default(), Global);
    sketch.insert_hash(1);
    sketch
}
