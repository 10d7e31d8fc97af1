//! Stored quantile sketches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::ddsketch::{Accuracy, Sketch};
use tidemark_core::{AVec, Global};
use tidemark_fuzz::{State, check_state, joined, seeds};

struct Quantiles(Sketch<Global>);

impl State for Quantiles {
    type Answer = Vec<u8>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        Sketch::decode_in(bytes, Global).ok().map(Self)
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
        let quantiles =
            [0.0, 0.001, 0.25, 0.5, 0.75, 0.999, 1.0].map(|q| self.0.quantile(q).expect("0 to 1"));
        assert!(quantiles.iter().all(|q| q.is_none_or(f64::is_finite)), "{quantiles:?}");
        assert!(quantiles.is_sorted(), "{quantiles:?}");
        assert_eq!((quantiles[0], quantiles[6]), (self.0.min(), self.0.max()));
        self.encode()
    }
}

fn of(per_mille: i64, values: impl Iterator<Item = f64>) -> Vec<u8> {
    let mut sketch = Sketch::new_in(Accuracy::per_mille(per_mille).expect("1 to 100"), Global);
    values.for_each(|value| sketch.insert(value).expect("finite"));
    Quantiles(sketch).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let few = of(10, [3.0, -2.5, 0.0, 3.0, 1e300, -1e-300].into_iter());
    let joined_buckets = of(1, (0..3000).map(|n| 1.01f64.powi(n)));
    vec![
        joined(&[&of(10, std::iter::empty()), &few]),
        joined(&[&few, &of(10, (1..40).map(f64::from))]),
        joined(&[&joined_buckets, &joined_buckets]),
        joined(&[&of(1, [f64::MAX, f64::MIN, f64::from_bits(1)].into_iter()), &joined_buckets]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| check_state::<Quantiles>(data));
