//! Partial states of `sequence_next_node`, and the words of its two arguments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::sequence::next_node::{NodeLog, Search};
use tidemark_fuzz::{State, check_state, joined, parts, read_whole, seeds, written};

const DIRECTIONS: [&str; 2] = ["forward", "backward"];
const BASES: [&str; 4] = ["head", "tail", "first_match", "last_match"];

struct Nodes(NodeLog<Global>);

impl State for Nodes {
    type Answer = Vec<Option<Vec<u8>>>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| NodeLog::decode_in(r, Global, ())).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w, ()))
    }

    fn merge(&mut self, other: &Self) -> bool {
        let len = self.0.len() + other.0.len();
        self.0.append(&other.0, ());
        assert_eq!(self.0.len(), len);
        true
    }

    fn answer(&mut self) -> Self::Answer {
        let searches = DIRECTIONS
            .iter()
            .flat_map(|d| BASES.map(|b| (d, b)))
            .flat_map(|(d, b)| (0..4).filter_map(move |conditions| Search::parse(d, b, conditions).ok()));
        searches.map(|search| self.0.next_node(search, ()).map(<[u8]>::to_vec)).collect()
    }
}

fn of(rows: &[(i64, &str, bool, u32)]) -> Vec<u8> {
    let mut log = NodeLog::new_in(Global);
    rows.iter()
        .for_each(|&(time, value, base, conditions)| log.push(time, value.as_bytes(), base, conditions));
    Nodes(log).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let visit = of(&[(1, "home", true, 1), (2, "basket", true, 3), (2, "", false, 7), (1, "pay", true, 0)]);
    vec![
        joined(&[b"forward\nhead", &visit, &of(&[(0, "landing", true, 1)])]),
        joined(&[b"backward\nlast_match", &of(&[]), &visit]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [words, rest] = parts(data);
    let words = String::from_utf8_lossy(&words);
    if let Some((direction, base)) = words.split_once('\n') {
        let known = DIRECTIONS.contains(&direction) && BASES.contains(&base);
        assert!(known || Search::parse(direction, base, 1).is_err());
    }
    check_state::<Nodes>(&rest);
});
