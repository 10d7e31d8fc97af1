//! Partial states of funnels and sequences: the log of a group's events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::event::{Event, EventLog};
use tidemark_fuzz::{State, check_state, joined, read_whole, seeds, written};

struct Log(EventLog<Global>);

impl State for Log {
    type Answer = Vec<Event>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| EventLog::decode_in(r, Global, ())).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w, ()))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.append(&other.0, ());
        true
    }

    fn answer(&mut self) -> Vec<Event> {
        let events = self.0.sorted(()).to_vec();
        assert!(events.is_sorted());
        events
    }
}

fn of(rows: &[(i64, u32)]) -> Vec<u8> {
    let mut log = EventLog::new_in(Global);
    rows.iter().for_each(|&(time, conditions)| log.push(time, conditions));
    Log(log).encode()
}

fn examples() -> Vec<Vec<u8>> {
    vec![
        joined(&[&of(&[]), &of(&[(5, 1), (3, 2), (5, 0)])]),
        joined(&[&of(&[(1, 1), (2, 3)]), &of(&[(2, 4), (i64::MIN, u32::MAX), (i64::MAX, 0)])]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| check_state::<Log>(data));
