//! How far estimates are off: bias, root mean square error, and agreement with another implementation.
#![allow(clippy::unwrap_used, clippy::panic)]

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use tidemark_core::Global;
use tidemark_core::hll::{Config, Cutoff, Sketch, hash};

/// Bias and root mean square error, relative, over `runs` sketches of `n` distinct values each.
fn errors(config: Config, n: u64, runs: u64) -> (f64, f64) {
    let (mut sum, mut squares) = (0.0, 0.0);
    for run in 0..runs {
        let mut sketch = Sketch::new_in(config, Global);
        for i in 0..n {
            sketch.insert_hash(hash::hash_i64((run << 32 | i).cast_signed()));
        }
        let error = sketch.estimate() / n as f64 - 1.0;
        sum += error;
        squares += error * error;
    }
    (sum / runs as f64, (squares / runs as f64).sqrt())
}

#[test]
fn counts_are_exact_up_to_the_cutoff() {
    for n in [1, 10, 127, 128] {
        assert_eq!(errors(Config::default(), n, 3), (0.0, 0.0));
    }
}

#[test]
fn bias_and_error_stay_within_theory() {
    // (log2m, n, runs): below, around and far beyond the number of registers. The mean of r runs scatters by
    // 1.04 / sqrt(m r); the runs are as many as it takes for three times that to stay below 0.3 %.
    let cases = [
        (14, 200, 100),
        (14, 1_000, 100),
        (14, 10_000, 100),
        (14, 40_000, 80),
        (14, 100_000, 70),
        (17, 1_000_000, 8),
        (12, 10, 300),
        (12, 500, 300),
        (12, 4_096, 300),
        (12, 10_240, 300),
    ];
    for (log2m, n, runs) in cases {
        let config = Config::new(log2m, 5, Cutoff::Never, true).unwrap();
        let (bias, rmse) = errors(config, n, runs);
        assert!(bias.abs() < 0.003, "log2m {log2m}, n {n}: bias {bias}");
        // With r runs the measured error itself scatters by 1 / sqrt(2 r).
        let allowed = config.standard_error() * (1.1 + 3.0 / (2.0 * runs as f64).sqrt());
        assert!(rmse < allowed, "log2m {log2m}, n {n}: error {rmse}, allowed {allowed}");
    }
}

#[test]
fn registers_that_reach_their_width_do_not_bend_the_estimate() {
    // Registers of 3 bits stop at 7, which one value in 2^6 reaches: as rare among 2^10 registers and 2^15 values as 31
    // is among billions. An estimator that took 7 for exact would answer far too little.
    let config = Config::new(10, 3, Cutoff::Never, true).unwrap();
    let (bias, rmse) = errors(config, 1 << 15, 200);
    assert!(bias.abs() < 0.02, "bias {bias}");
    assert!(rmse < 2.0 * config.standard_error(), "error {rmse}");
}

#[test]
fn saturated_registers_give_a_large_number_not_nonsense() {
    let config = Config::new(4, 1, Cutoff::Never, true).unwrap();
    let mut sketch = Sketch::new_in(config, Global);
    (0..1000).for_each(|i| sketch.insert_hash(hash::hash_i64(i)));
    assert!(sketch.estimate() > 16.0);
}

/// Hands the 64-bit hash through, so that both implementations see the same bits.
#[derive(Default)]
struct Through(u64);

impl std::hash::Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash::hash_bytes(bytes);
    }
}

type Build = std::hash::BuildHasherDefault<Through>;

#[test]
fn estimates_agree_with_hyperloglogplus() {
    for n in [200, 1_000, 5_000, 20_000, 60_000, 200_000] {
        let mut oracle: HyperLogLogPlus<[u8; 8], _> = HyperLogLogPlus::new(14, Build::default()).unwrap();
        let mut sketch = Sketch::new_in(Config::default(), Global);
        for i in 0..n {
            oracle.insert(&i64::to_le_bytes(i));
            sketch.insert_hash(hash::hash_i64(i));
        }
        let (theirs, ours) = (oracle.count(), sketch.estimate());
        // Other bits of the hash make other registers: two independent errors of one standard error each.
        let allowed = 4.0 * 2.0_f64.sqrt() * Config::default().standard_error();
        assert!((ours / theirs - 1.0).abs() < allowed, "n {n}: {ours} against {theirs}");
    }
}
