//! Stored figures of funnels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::funnel::stats::FunnelStats;
use tidemark_core::{AVec, Global};
use tidemark_fuzz::{State, check_state, joined, seeds};

struct Figures(FunnelStats<Global>);

impl State for Figures {
    type Answer = Vec<u8>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        FunnelStats::decode_in(bytes, Global).ok().map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        let mut out = AVec::new();
        self.0.encode(&mut out);
        out.to_vec()
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.merge(&other.0).is_ok()
    }

    fn answer(&mut self) -> Vec<u8> {
        let rows: Vec<_> = self.0.rows().collect();
        assert_eq!(rows.len(), self.0.steps());
        for row in rows {
            let figures = [row.pct_of_first, row.pct_of_previous, row.median_seconds, row.avg_seconds];
            assert!(figures.iter().all(|figure| figure.is_none_or(f64::is_finite)), "{row:?}");
            assert_eq!(row.median_seconds.is_some(), row.step > 1 && row.entered > 0);
        }
        self.encode()
    }
}

fn of(steps: i64, chains: impl Iterator<Item = Vec<Option<i64>>>) -> Vec<u8> {
    let mut stats = FunnelStats::new_in(steps, Global).expect("1 to 32");
    chains.for_each(|chain| stats.push(&chain).expect("fits"));
    Figures(stats).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let few = [vec![Some(0), Some(1_000_000), None, Some(5_000_000)], vec![Some(7)], vec![]];
    let many = |n: i64| (0..n).map(|i| vec![Some(i), Some(i + i * i), Some(i)]);
    vec![
        joined(&[&of(4, few.clone().into_iter()), &of(4, few.into_iter())]),
        joined(&[&of(3, many(3)), &of(3, many(20))]),
        joined(&[&of(3, many(1001)), &of(3, many(5))]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| check_state::<Figures>(data));
