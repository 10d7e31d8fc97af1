//! The laws of unions, on bytes: any order and any grouping of inputs gives the same stored sketch.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use tidemark_core::hll::{Config, Cutoff, EncodedRef, Encoding, Sketch, hash};
use tidemark_core::{AVec, Global};

type Hll = Sketch<Global>;

fn bytes(sketch: &Hll) -> Vec<u8> {
    let mut out = AVec::new();
    sketch.encode(&mut out, ());
    out.to_vec()
}

fn of(config: Config, hashes: &[u64]) -> Hll {
    let mut sketch = Sketch::new_in(config, Global);
    hashes.iter().for_each(|&hash| sketch.insert_hash(hash));
    sketch
}

fn copy(sketch: &Hll) -> Hll {
    Sketch::decode_in(&bytes(sketch), Global, ()).unwrap()
}

/// The union of two sketches, made in memory and from bytes, which must agree.
fn union(a: &Hll, b: &Hll) -> Hll {
    let mut merged = copy(a);
    merged.merge(b, ());
    let mut from_bytes = copy(a);
    from_bytes.merge_encoded(&EncodedRef::parse(&bytes(b)).unwrap(), ()).unwrap();
    assert_eq!(bytes(&merged), bytes(&from_bytes));
    merged
}

/// Hashes whose bits above any `log2m` are not all zero, so that registers forget none of them.
fn hashes(max: usize) -> impl Strategy<Value = Vec<u64>> {
    // Half of them with many trailing zeros above a few index bits, to reach register caps.
    let deep = (0u64..64, 4u32..50).prop_map(|(index, shift)| index | 1 << (shift + 13));
    prop::collection::vec(prop_oneof![any::<u64>().prop_map(|h| h | 1 << 63), deep], 0..max)
}

fn cutoff() -> impl Strategy<Value = Cutoff> {
    prop_oneof![Just(Cutoff::Never), Just(Cutoff::Auto), (0u32..8).prop_map(|log| Cutoff::UpTo(1 << log)),]
}

fn config() -> impl Strategy<Value = Config> {
    (4..=11i32, 1..=8i32, cutoff(), any::<bool>())
        .prop_map(|(log2m, regwidth, cutoff, sparse)| Config::new(log2m, regwidth, cutoff, sparse).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_order_and_any_split_gives_equal_bytes(
        config in config(), hashes in hashes(300), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)
    ) {
        let serial = bytes(&of(config, &hashes));
        let reversed: Vec<u64> = hashes.iter().rev().copied().collect();
        prop_assert_eq!(&bytes(&of(config, &reversed)), &serial);
        let twice: Vec<u64> = hashes.iter().flat_map(|&h| [h, h]).collect();
        prop_assert_eq!(&bytes(&of(config, &twice)), &serial);

        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(hashes.len() + 1)).collect();
        at.extend([0, hashes.len()]);
        at.sort_unstable();
        let parts: Vec<Hll> = at.windows(2).map(|w| of(config, &hashes[w[0]..w[1]])).collect();
        let empty = of(config, &[]);
        let left = parts.iter().fold(copy(&empty), |sum, part| union(&sum, part));
        let right = parts.iter().rev().fold(copy(&empty), |sum, part| union(part, &sum));
        prop_assert_eq!(&bytes(&left), &serial);
        prop_assert_eq!(&bytes(&right), &serial);
    }

    #[test]
    fn unions_of_mixed_configurations_obey_the_laws(
        // Two configurations for three sketches, so that some are equal and some are not.
        configs in prop::array::uniform2(config()),
        inputs in prop::collection::vec((0..2usize, prop_oneof![hashes(150), hashes(20)]), 3)
    ) {
        let parts: Vec<Hll> = inputs.iter().map(|(which, hashes)| of(configs[*which], hashes)).collect();
        let [a, b, c] = &parts[..] else { unreachable!() };
        prop_assert_eq!(bytes(&union(a, b)), bytes(&union(b, a)));
        prop_assert_eq!(bytes(&union(&union(a, b), c)), bytes(&union(a, &union(b, c))));
        prop_assert_eq!(bytes(&union(&union(a, c), b)), bytes(&union(a, &union(b, c))));
        prop_assert_eq!(bytes(&union(a, a)), bytes(a));
        let ab = union(a, b);
        prop_assert_eq!(bytes(&union(&ab, b)), bytes(&ab));
    }

    #[test]
    fn an_empty_sketch_of_any_configuration_is_an_identity(
        a in config(), b in config(), hashes in hashes(150)
    ) {
        prop_assume!(!hashes.is_empty());
        let (sketch, empty) = (of(a, &hashes), of(b, &[]));
        prop_assert_eq!(bytes(&union(&sketch, &empty)), bytes(&sketch));
        prop_assert_eq!(bytes(&union(&empty, &sketch)), bytes(&sketch));
    }

    #[test]
    fn folding_equals_building_at_the_smaller_log2m(
        from in 4..=17i32, to in 4..=17i32, regwidth in 1..=8i32, hashes in hashes(300)
    ) {
        let (from, to) = (from.max(to), from.min(to));
        let at = |log2m| Config::new(log2m, regwidth, Cutoff::Never, true).unwrap();
        prop_assume!(!hashes.is_empty());
        let small = of(at(to), &hashes);
        let mut folded = of(at(from), &hashes);
        folded.merge(&of(at(to), &hashes[..1]), ());
        prop_assert_eq!(bytes(&folded), bytes(&small));
    }
}

#[test]
fn the_cutoff_counts_distinct_values_inclusively() {
    let hashes: Vec<u64> = (0..129).map(hash::hash_i64).collect();
    let at = |range: std::ops::Range<usize>| of(Config::default(), &hashes[range]);
    assert_eq!(union(&at(0..100), &at(28..128)).encoding().0, Encoding::Explicit);
    assert_eq!(union(&at(0..100), &at(28..128)).estimate(), 128.0);
    assert_eq!(union(&at(0..100), &at(28..129)).encoding().0, Encoding::Sparse);
}

#[test]
fn registers_stay_registers_even_with_few_values() {
    let never = Config::new(14, 6, Cutoff::Never, true).unwrap();
    let mut stored = bytes(&of(never, &[hash::hash_i64(1)]));
    stored[2] = 0x48; // the default cutoff: 128
    let sketch = Sketch::decode_in(&stored, Global, ()).unwrap();
    let with_explicit = union(&sketch, &of(Config::default(), &[hash::hash_i64(2)]));
    assert_eq!(with_explicit.encoding().0, Encoding::Sparse);
    assert_eq!(with_explicit.estimate().round(), 2.0);
}

#[test]
fn unions_take_the_coarser_configuration() {
    let theirs = Config::new(11, 5, Cutoff::Auto, true).unwrap();
    let mixed = union(&of(Config::default(), &[1 << 40]), &of(theirs, &[1 << 41]));
    assert_eq!(mixed.config(), Config::new(11, 5, Cutoff::UpTo(128), true).unwrap());
    let same = union(&of(theirs, &[1 << 40]), &of(theirs, &[1 << 41]));
    assert_eq!(same.config(), theirs);
}

#[test]
fn an_automatic_cutoff_that_meets_another_never_rises() {
    // 256 registers of 6 bits are 192 bytes: auto means 24 hashes, and the power of two below that is 16.
    let auto = Config::new(8, 6, Cutoff::Auto, true).unwrap();
    let fixed = Config::new(8, 6, Cutoff::UpTo(128), true).unwrap();
    let hashes: Vec<u64> = (0..40).map(hash::hash_i64).collect();
    for n in [8, 10, 12, 15] {
        let (a, b, c) = (of(auto, &hashes[..n]), of(auto, &hashes[n..2 * n]), of(fixed, &hashes[39..]));
        let left = union(&union(&a, &b), &c);
        assert_eq!(bytes(&left), bytes(&union(&a, &union(&b, &c))));
        assert_eq!(left.config(), Config::new(8, 6, Cutoff::UpTo(16), true).unwrap());
        assert_eq!(left.encoding().0, Encoding::Sparse);
    }
}

#[test]
fn small_groups_are_small() {
    let mut sketch = Sketch::new_in(Config::default(), Global);
    assert_eq!(sketch.heap_bytes(), 0);
    for n in 1..=6 {
        sketch.insert_hash(hash::hash_i64(n));
        assert_eq!(sketch.heap_bytes(), 64);
    }
    assert!(size_of::<Hll>() <= 80);
    for n in 7..=128 {
        sketch.insert_hash(hash::hash_i64(n));
    }
    assert_eq!(sketch.heap_bytes(), 2048);
    sketch.insert_hash(hash::hash_i64(129));
    assert_eq!(sketch.heap_bytes(), 16 * 1024);
}

#[test]
fn no_hashes_are_slow_to_read_or_to_unite() {
    // Multiples of the inverse of a usual multiplier of hash tables, and others that agree in many bits. The cutoff,
    // which only bytes can bring, keeps them all.
    let families: [fn(u64) -> u64; 4] =
        [|x| x.wrapping_mul(0xf1de_83e1_9937_733d), |x| x, |x| x << 45, |x| x.reverse_bits()];
    let config = Config::new(14, 6, Cutoff::UpTo(1 << 30), true).unwrap();
    let header = &bytes(&of(config, &[1]))[..3];
    let started = std::time::Instant::now();
    for family in families {
        let stored = |from: u64| {
            let mut hashes: Vec<i64> = (from..from + 200_000).map(|x| family(x).cast_signed()).collect();
            hashes.sort_unstable();
            [header, &hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect::<Vec<_>>()].concat()
        };
        let (one, other) = (stored(1), stored(100_001));
        let mut sketch = Sketch::decode_in(&one, Global, ()).unwrap();
        assert_eq!(bytes(&sketch), one);
        sketch.merge_encoded(&EncodedRef::parse(&other).unwrap(), ()).unwrap();
        assert_eq!(sketch.estimate(), 300_000.0);
    }
    // Some tens of milliseconds each; quadratic time would be minutes.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
