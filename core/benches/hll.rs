//! HyperLogLog beside the crate hyperloglogplus: values inserted and sketches merged, with the same hash in both.
//! `cargo bench -p tidemark-core --bench hll`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark, not a program")]

use std::hash::{BuildHasher, Hasher};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use tidemark_core::Global;
use tidemark_core::hll::{Config, Sketch, hash};

/// Our hash in the form that the crate wants, so that both do the same work there.
#[derive(Clone, Default)]
struct SameHash(u64);

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::hash_bytes(bytes);
    }
}

impl BuildHasher for SameHash {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

type Peer = HyperLogLogPlus<i64, SameHash>;

fn peer(values: std::ops::Range<i64>) -> Peer {
    let mut sketch = Peer::new(14, SameHash::default()).unwrap();
    values.for_each(|value| sketch.insert(&value));
    sketch
}

fn ours(values: std::ops::Range<i64>) -> Sketch<Global> {
    let mut sketch = Sketch::new_in(Config::default(), Global);
    values.for_each(|value| sketch.insert_hash(hash::hash_i64(value)));
    sketch
}

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert");
    for n in [100, 10_000, 1_000_000] {
        group.throughput(Throughput::Elements(n as u64)).sample_size(10);
        group.bench_function(BenchmarkId::new("tidemark", n), |b| b.iter(|| ours(0..n)));
        group.bench_function(BenchmarkId::new("hyperloglogplus", n), |b| b.iter(|| peer(0..n)));
    }
    group.finish();
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    for n in [100, 100_000] {
        let (a, b_ours) = (ours(0..n), ours(n / 2..n + n / 2));
        let (p, b_peer) = (peer(0..n), peer(n / 2..n + n / 2));
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.bench_function(BenchmarkId::new("tidemark", n), |b| {
            b.iter_batched_ref(
                || Sketch::decode_in(&encoded(&a), Global, ()).unwrap(),
                |into| into.merge(&b_ours, ()),
                criterion::BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("hyperloglogplus", n), |b| {
            b.iter_batched_ref(
                || p.clone(),
                |into| into.merge(&b_peer).unwrap(),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encoded(sketch: &Sketch<Global>) -> Vec<u8> {
    let mut bytes = tidemark_core::AVec::new_in(Global);
    sketch.encode(&mut bytes, ());
    bytes.to_vec()
}

criterion_group!(benches, insert, merge);
criterion_main!(benches);
