//! Quantile sketches: the error bound, canonical bytes under any merge tree, refusal of malformed bytes.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidemark_core::ddsketch::{Accuracy, DdsketchError, MAX_BINS, Sketch};
use tidemark_core::{AVec, Global};

type Dds = Sketch<Global>;

fn with(accuracy: Accuracy, values: &[f64]) -> Dds {
    let mut sketch = Sketch::new_in(accuracy, Global);
    values.iter().for_each(|&value| sketch.insert(value).unwrap());
    sketch
}

fn of(values: &[f64]) -> Dds {
    with(Accuracy::default(), values)
}

fn bytes(sketch: &Dds) -> Vec<u8> {
    let mut out = AVec::new();
    sketch.encode(&mut out);
    out.to_vec()
}

fn decode(bytes: &[u8]) -> Result<Dds, DdsketchError> {
    Sketch::decode_in(bytes, Global)
}

fn merged(parts: &[Dds]) -> Dds {
    let mut sum = of(&[]);
    parts.iter().for_each(|part| sum.merge(part).unwrap());
    sum
}

/// Any finite float, and floats that meet in the same few buckets.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => prop::num::f64::NORMAL,
        1 => prop::num::f64::SUBNORMAL,
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::MAX), Just(f64::MIN), Just(f64::from_bits(1))],
        4 => (-5i32..5).prop_map(|i| f64::from(i) / 4.0),
        4 => 0.9..1.1f64,
    ]
}

/// Compares every quantile of the sketch with the sorted values.
fn check_quantiles(values: &[f64], sketch: &Dds) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    for step in 0..=100 {
        let q = f64::from(step) / 100.0;
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let read = sketch.quantile(q).unwrap().unwrap();
        // Subnormal floats are spaced wider than any relative error.
        let allowed = sketch.relative_error() * (1.0 + 1e-9) * exact.abs() + f64::from_bits(1);
        assert!((read - exact).abs() <= allowed, "q {q}: {read} for {exact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn quantiles_are_within_the_relative_error(
        values in prop::collection::vec(value(), 1..200), per_mille in 1..=100i64
    ) {
        let sketch = with(Accuracy::per_mille(per_mille).unwrap(), &values);
        prop_assert!(sketch.relative_error() <= per_mille as f64 / 1000.0);
        check_quantiles(&values, &sketch);
    }

    #[test]
    fn any_order_and_any_merge_tree_gives_equal_bytes(
        values in prop::collection::vec(value(), 0..200), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)
    ) {
        let serial = bytes(&of(&values));
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        prop_assert_eq!(&bytes(&of(&reversed)), &serial);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len() + 1)).collect();
        at.extend([0, values.len()]);
        at.sort_unstable();
        let mut parts: Vec<Dds> = at.windows(2).map(|w| of(&values[w[0]..w[1]])).collect();
        prop_assert_eq!(&bytes(&merged(&parts)), &serial);
        parts.reverse();
        prop_assert_eq!(&bytes(&merged(&parts)), &serial);
        // A tree instead of a chain.
        while parts.len() > 1 {
            let last = parts.pop().unwrap();
            let middle = parts.len() / 2;
            parts[middle].merge(&last).unwrap();
        }
        prop_assert_eq!(&bytes(&parts[0]), &serial);
    }

    #[test]
    fn a_sketch_survives_its_bytes(values in prop::collection::vec(value(), 0..100), per_mille in 1..=100i64) {
        let sketch = with(Accuracy::per_mille(per_mille).unwrap(), &values);
        let again = decode(&bytes(&sketch)).unwrap();
        prop_assert_eq!(bytes(&again), bytes(&sketch));
        prop_assert_eq!(again.count(), values.len() as u64);
        prop_assert_eq!(again.quantile(0.3).unwrap(), sketch.quantile(0.3).unwrap());
    }

    #[test]
    fn an_empty_sketch_is_an_identity(values in prop::collection::vec(value(), 0..50)) {
        let sketch = of(&values);
        prop_assert_eq!(bytes(&merged(&[of(&[]), of(&values)])), bytes(&sketch));
        prop_assert_eq!(bytes(&merged(&[of(&values), of(&[])])), bytes(&sketch));
    }
}

/// Values spread over so many buckets that they have to be joined.
fn wide(seed: u64, n: usize) -> Vec<f64> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..n)
        .map(|_| {
            let magnitude = random.random_range(-700.0..700.0_f64).exp();
            if random.random() { magnitude } else { -magnitude }
        })
        .collect()
}

#[test]
fn joined_buckets_do_not_depend_on_when_they_were_joined() {
    for (seed, n) in [(1, 2_500), (2, 6_000), (3, 20_000), (4, 60_000)] {
        let values = wide(seed, n);
        let serial = of(&values);
        assert!(serial.relative_error() > 0.015, "{}", serial.relative_error());
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        assert_eq!(bytes(&of(&reversed)), bytes(&serial));
        for size in [1_000, 2_048, 7_777] {
            // Small parts are not joined at all, large ones are, the last one often less than the others.
            let mut parts: Vec<Dds> = values.chunks(size).map(of).collect();
            assert_eq!(bytes(&merged(&parts)), bytes(&serial));
            parts.reverse();
            assert_eq!(bytes(&merged(&parts)), bytes(&serial));
        }
        assert_eq!(bytes(&decode(&bytes(&serial)).unwrap()), bytes(&serial));
        check_quantiles(&values, &serial);
        assert!(serial.heap_bytes() <= 64 * 1024);
    }
}

#[test]
fn the_bucket_limit_is_inclusive_and_enough_for_seventeen_decades() {
    let gamma = 1.01_f64 / 0.99;
    let values: Vec<f64> = (0..=MAX_BINS as i32).map(|i| gamma.powf(f64::from(i) - 1000.5)).collect();
    assert_eq!(of(&values[..MAX_BINS]).relative_error(), 0.01);
    assert!(of(&values).relative_error() > 0.019);
    assert!(values[MAX_BINS - 1] / values[0] > 1e17);
}

#[test]
fn extremes_are_exact_and_empty_is_none() {
    assert_eq!(of(&[]).quantile(0.5), Ok(None));
    assert_eq!(of(&[]).min(), None);
    let sketch = of(&[3.0, -7.25, 1234.5]);
    assert_eq!(sketch.quantile(0.0), Ok(Some(-7.25)));
    assert_eq!(sketch.quantile(1.0), Ok(Some(1234.5)));
    assert_eq!((sketch.min(), sketch.max()), (Some(-7.25), Some(1234.5)));
    assert_eq!(of(&[0.0, 0.0, 0.0]).quantile(0.5), Ok(Some(0.0)));
}

#[test]
fn the_greatest_value_is_exact_whatever_the_count() {
    // Some of them lie above what their bucket reads as.
    for greatest in (30..60).map(f64::from) {
        let mut many = of(&[1.0, 2.0, greatest]);
        for _ in 0..60 {
            let same = decode(&bytes(&many)).unwrap();
            many.merge(&same).unwrap();
        }
        // Now the greatest rank is no float: the nearest one lies below it.
        many.merge(&of(&[1.0; 100])).unwrap();
        assert_eq!(many.quantile(1.0), Ok(Some(greatest)));
        assert_eq!(many.quantile(0.0), Ok(Some(1.0)));
    }
}

#[test]
fn what_is_not_a_number_is_refused_and_changes_nothing() {
    let mut sketch = of(&[1.0]);
    let before = bytes(&sketch);
    assert!(matches!(sketch.insert(f64::NAN), Err(DdsketchError::NotFinite(_))));
    assert_eq!(sketch.insert(f64::INFINITY), Err(DdsketchError::NotFinite(f64::INFINITY)));
    assert_eq!(sketch.insert(f64::NEG_INFINITY), Err(DdsketchError::NotFinite(f64::NEG_INFINITY)));
    assert_eq!(bytes(&sketch), before);
    assert_eq!(sketch.quantile(1.5), Err(DdsketchError::Quantile(1.5)));
    assert!(sketch.quantile(f64::NAN).is_err());
}

#[test]
fn different_accuracies_do_not_merge() {
    let finer = Accuracy::from_fraction(0.005).unwrap();
    let mut sketch = of(&[1.0]);
    let error = sketch.merge(&with(finer, &[2.0])).unwrap_err();
    assert_eq!(error.to_string(), "sketches of accuracy 0.01 and 0.005 cannot be merged");
    assert_eq!(sketch.count(), 1);
    assert!(Accuracy::from_fraction(0.0123).is_err());
    assert!(Accuracy::from_fraction(0.0).is_err());
    assert!(Accuracy::from_fraction(f64::NAN).is_err());
    assert!(Accuracy::per_mille(101).is_err());
    assert_eq!(Accuracy::from_fraction(0.1), Accuracy::per_mille(100));
}

#[test]
fn the_stored_form_is_as_documented() {
    assert_eq!(bytes(&of(&[])), [1, 10, 0, 0, 0, 0]);
    // ln 2 / ln(1.01 / 0.99) = 34.66: bucket 35 (zigzag 70). 1.0 is bucket 0, the distance 35.
    let expected =
        [&[1, 10, 0, 2, 1, 70, 1, 2, 0, 1, 35, 3][..], &(-2.0_f64).to_le_bytes(), &2.0_f64.to_le_bytes()];
    assert_eq!(bytes(&of(&[2.0, 0.0, 2.0, 1.0, -2.0, 2.0, -0.0])), expected.concat());
}

#[test]
fn malformed_bytes_are_refused() {
    let good = bytes(&of(&[1.0, 2.0]));
    assert!(decode(&good).is_ok());
    let edit = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        decode(&bad).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(good[..9], [1, 10, 0, 0, 0, 2, 0, 1, 35]);
    assert_eq!(edit(0, 2), "state has format version 2, this build reads 1");
    assert_eq!(edit(1, 0), "state is malformed: sketch accuracy");
    assert_eq!(edit(2, 1), "state is malformed: sketch has more joins than its buckets need");
    assert_eq!(edit(2, 200), "state is malformed: sketch has too many joins");
    assert_eq!(edit(7, 0), "state is malformed: sketch bucket is empty");
    assert_eq!(edit(8, 0), "state is malformed: sketch buckets do not ascend");
    assert_eq!(edit(8, 37), "state is malformed: least or greatest value of a sketch");
    assert!(decode(&good[..good.len() - 1]).is_err());
    assert!(decode(&[&good[..], &[0]].concat()).is_err());
    assert!(decode(&[1, 10, 0, 0x80, 0, 0, 0]).is_err(), "a varint with a needless byte");
    let nan = [&good[..good.len() - 8], &f64::NAN.to_le_bytes()].concat();
    assert!(decode(&nan).is_err());
}

#[test]
fn random_and_mutated_bytes_are_read_or_refused() {
    let mut random = SmallRng::seed_from_u64(3);
    let mut valid = 0;
    for _ in 0..100_000 {
        let values: Vec<f64> =
            (0..random.random_range(0..6)).map(|_| random.random_range(-3.0..9.0)).collect();
        let mut stored = bytes(&of(&values));
        for _ in 0..random.random_range(1..3) {
            let at = random.random_range(0..stored.len());
            match random.random_range(0..4) {
                0 => stored[at] ^= 1 << random.random_range(0..8),
                1 => stored[at] = random.random(),
                2 => stored.insert(at, random.random()),
                _ => stored.truncate(at.max(1)),
            }
        }
        let Ok(sketch) = decode(&stored) else { continue };
        valid += 1;
        assert_eq!(bytes(&sketch), stored, "only canonical bytes are accepted");
        assert!(sketch.quantile(0.5).is_ok());
        let mut twice = decode(&stored).unwrap();
        twice.merge(&sketch).unwrap();
    }
    assert!(valid > 1000, "mutations were hardly ever valid: {valid}");
}
