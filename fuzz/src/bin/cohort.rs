//! Partial states of cohort retention of a person, and the text of what is asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::retention::cohort::{CohortLog, Spec};
use tidemark_fuzz::{State, bounded, check_state, joined, parts, read_whole, seeds, written};

struct Log(CohortLog<Global>);

impl State for Log {
    /// Cohorts, and what is known of each period.
    type Answer = Vec<(i64, Vec<Option<bool>>)>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| CohortLog::decode_in(r, Global, ())).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w, ()))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.append(&other.0, ()).is_ok()
    }

    fn answer(&mut self) -> Self::Answer {
        let members: Vec<_> =
            self.0.members(()).map(|member| (member.cohort, member.retained().collect::<Vec<_>>())).collect();
        assert!(members.is_sorted_by(|(before, _), (after, _)| before < after));
        assert!(members.iter().all(|(_, retained)| retained[0] == Some(true)));
        members
    }
}

const DAY: i64 = 86_400_000_000;

fn of(period: &str, mode: &str, periods: i64, events: &[(i64, bool, bool)]) -> Vec<u8> {
    let mut log = CohortLog::new_in(Spec::parse(period, mode, periods, 400 * DAY).expect("valid"), Global);
    events.iter().for_each(|&(time, start, back)| log.push(time, start, back));
    Log(log).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let events = [(3 * DAY, true, true), (DAY, true, false), (90 * DAY, false, true), (40 * DAY, true, true)];
    let pair = |period, mode, periods| {
        let question = format!("{period}\n{mode}\n{periods}");
        joined(&[
            question.as_bytes(),
            &of(period, mode, periods, &events),
            &of(period, mode, periods, &events[1..2]),
        ])
    };
    vec![
        pair("day", "", 30),
        pair("week", "recurring, on_or_after", 5),
        pair("month", "rolling,first_time,on", 12),
        pair("quarter", "rolling=7,recurring", 3),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [question, rest] = parts(data);
    let question = String::from_utf8_lossy(&question);
    let mut words = question.splitn(3, '\n').chain(std::iter::repeat(""));
    let mut next = || words.next().unwrap_or_default();
    let (period, mode, periods) = (next(), next(), next().parse().unwrap_or(7));
    let spec = bounded(question.len(), 4, || Spec::parse(period, mode, periods, 400 * DAY));
    if let Ok(spec) = spec {
        let mut log = CohortLog::new_in(spec, Global);
        log.push(DAY, true, true);
        assert_eq!(log.members(()).next().map(|member| member.retained().len() as i64), Some(periods));
    }
    check_state::<Log>(&rest);
});
