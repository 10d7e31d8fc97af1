//! Our distinct-count sketch beside the crate hyperloglogplus: time per value and per merge, and whether equal sets have
//! equal states. The figures of docs/decisions.md come from here: `cargo run --release -p tidemark-core --example hll_compare`.
#![allow(clippy::unwrap_used, reason = "a measurement, not a program")]

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::time::Instant;

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use tidemark_core::hll::{Config, Sketch, hash};
use tidemark_core::{AVec, Global};

const RUNS: usize = 11;
const MERGES: usize = 200;

/// Hashes with our function, so that both do the same work there.
struct Ours64(u64);

impl Hasher for Ours64 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::hash_bytes(bytes);
    }
}

#[derive(Clone, Debug)]
struct Build;

impl BuildHasher for Build {
    type Hasher = Ours64;

    fn build_hasher(&self) -> Ours64 {
        Ours64(0)
    }
}

type Theirs = HyperLogLogPlus<i64, Build>;

fn theirs(values: impl Iterator<Item = i64>) -> Theirs {
    let mut sketch = Theirs::new(14, Build).unwrap();
    values.for_each(|value| sketch.insert(&value));
    sketch
}

fn ours(values: impl Iterator<Item = i64>) -> Sketch<Global> {
    let mut sketch = Sketch::new_in(Config::default(), Global);
    values.for_each(|value| sketch.insert_hash(hash::hash_i64(value)));
    sketch
}

fn stored(sketch: &Sketch<Global>) -> Vec<u8> {
    let mut bytes = AVec::new_in(Global);
    sketch.encode(&mut bytes, ());
    bytes.to_vec()
}

/// The median over all runs of the nanoseconds that each of the two takes; they alternate.
fn paired(mut first: impl FnMut() -> f64, mut second: impl FnMut() -> f64) -> [f64; 2] {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..RUNS {
        times[0].push(first());
        times[1].push(second());
    }
    times.map(|mut runs: Vec<f64>| {
        runs.sort_by(f64::total_cmp);
        runs[RUNS / 2]
    })
}

fn insert<S>(n: i64, build: impl Fn() -> S) -> f64 {
    let repeats = (2_000_000 / n).max(1);
    let start = Instant::now();
    (0..repeats).for_each(|_| drop(black_box(build())));
    start.elapsed().as_nanos() as f64 / (repeats * n) as f64
}

fn merge<S>(build: impl Fn() -> S, merge: impl Fn(&mut S)) -> f64 {
    let mut sketches: Vec<S> = (0..MERGES).map(|_| build()).collect();
    let start = Instant::now();
    sketches.iter_mut().for_each(merge);
    start.elapsed().as_nanos() as f64 / MERGES as f64
}

fn main() {
    for n in [100, 1_000, 10_000, 100_000, 1_000_000] {
        let [a, b] = paired(|| insert(n, || theirs(0..n)), || insert(n, || ours(0..n)));
        println!("insert, {n} values: hyperloglogplus {a:.1} ns, tidemark {b:.1} ns a value");
    }
    for n in [100, 1_000, 10_000, 100_000] {
        let (their_other, our_other) = (theirs(n / 2..n + n / 2), ours(n / 2..n + n / 2));
        let [a, b] = paired(
            || merge(|| theirs(0..n), |sketch| sketch.merge(&their_other).unwrap()),
            || merge(|| ours(0..n), |sketch| sketch.merge(&our_other, ())),
        );
        println!("merge, {n} values: hyperloglogplus {:.1} us, tidemark {:.1} us", a / 1000.0, b / 1000.0);
    }
    for n in [100, 1_000, 10_000, 100_000] {
        let state = |sketch: &Theirs| format!("{sketch:?}");
        let their_runs = (0..20).filter(|_| state(&theirs(0..n)) == state(&theirs(0..n))).count();
        let our_runs = (0..20).filter(|_| stored(&ours(0..n)) == stored(&ours((0..n).rev()))).count();
        let mut split = ours(0..n / 2);
        split.merge(&ours(n / 2..n), ());
        println!(
            "equal states, {n} values: hyperloglogplus {their_runs} of 20, tidemark {our_runs} of 20 in reverse order, \
             merged halves {}; {} bytes; counts {:.1} and {:.1}",
            stored(&split) == stored(&ours(0..n)),
            stored(&ours(0..n)).len(),
            theirs(0..n).count(),
            ours(0..n).estimate(),
        );
    }
    let mut narrow = Theirs::new(12, Build).unwrap();
    println!("merge of different precision: {:?}", narrow.merge(&theirs(0..10)));
}
