//! Partial states of sessions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::session::{Session, Sessions};
use tidemark_fuzz::{State, check_state, joined, read_whole, seeds, written};

struct Visits(Sessions<Global>);

impl State for Visits {
    type Answer = Vec<Session>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| Sessions::decode_in(r, Global, ())).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w, ()))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.merge(&other.0, ()).is_ok()
    }

    fn answer(&mut self) -> Vec<Session> {
        let gap = self.0.gap().unsigned_abs();
        let sessions = self.0.finish(()).collect::<Vec<_>>();
        assert!(sessions.iter().all(|s| s.started_at <= s.ended_at && s.events > 0));
        for pair in sessions.windows(2) {
            assert!(pair[0].ended_at < pair[1].started_at);
            assert!(pair[1].started_at.abs_diff(pair[0].ended_at) > gap);
        }
        sessions
    }
}

fn of(gap: i64, times: &[i64]) -> Vec<u8> {
    let mut sessions = Sessions::new_in(gap, Global);
    times.iter().for_each(|&time| sessions.push(time, ()));
    Visits(sessions).encode()
}

fn examples() -> Vec<Vec<u8>> {
    vec![
        joined(&[&of(30, &[]), &of(30, &[1, 2, 100, 120, 7])]),
        joined(&[&of(30, &[0, 30, 61]), &of(30, &[45, 200])]),
        joined(&[&of(5, &[i64::MIN, i64::MAX, 0]), &of(5, &[i64::MIN + 3, 5, 5])]),
        joined(&[&of(i64::MAX, &[i64::MIN, i64::MAX]), &of(i64::MAX, &[0])]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| check_state::<Visits>(data));
