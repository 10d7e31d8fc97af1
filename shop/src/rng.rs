//! The random numbers of the generator: a fixed algorithm and integer-only distributions.
//!
//! Nothing here touches a float: `exp` and `ln` differ in the last bit between C libraries, and one bit moves a
//! timestamp. The generator is written out (SplitMix64, Steele, Lea, Flood 2014) instead of taken from a library,
//! because "same seed, same bytes" must survive upgrades of libraries. Not for cryptography.

/// Scrambles 64 bits; a bijection, so distinct inputs give distinct outputs.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// 2^(k/16) in 16.16 fixed point, for k = 0..=16.
const EXP2: [u64; 17] = [
    65_536, 68_438, 71_468, 74_632, 77_936, 81_386, 84_990, 88_752, 92_682, 96_785, 101_070, 105_545,
    110_218, 115_098, 120_194, 125_515, 131_072,
];

/// A stream of random numbers; cheap to create, so every user and every event has its own.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// The stream for (seed, purpose, number): independent streams for different triples.
    pub(super) const fn new(seed: u64, purpose: u64, number: u64) -> Self {
        let a = mix(seed.wrapping_add(GOLDEN));
        let b = mix(a ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03).wrapping_add(GOLDEN));
        Rng(mix(b ^ number.wrapping_mul(0xaef1_7502_108e_f2d9).wrapping_add(GOLDEN)))
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in `0..n`; 0 for `n = 0`. The bias is below n / 2^64.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True with a probability of `per_mille` / 1000.
    pub(super) const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An index into `weights`, each as likely as its weight; 0 when all weights are 0.
    pub(super) fn weighted(&mut self, weights: impl IntoIterator<Item = u32, IntoIter: Clone>) -> usize {
        let weights = weights.into_iter();
        let total: u64 = weights.clone().map(u64::from).sum();
        let mut left = self.below(total);
        for (index, weight) in weights.enumerate() {
            if left < u64::from(weight) {
                return index;
            }
            left -= u64::from(weight);
        }
        0
    }

    /// Standard normal in 16.16 fixed point: the sum of twelve uniforms minus six (variance 1, tails end at 6).
    fn normal(&mut self) -> i64 {
        let mut sum = 0i64;
        for _ in 0..3 {
            let bits = self.next();
            for shift in [0, 16, 32, 48] {
                sum += ((bits >> shift) & 0xffff) as i64;
            }
        }
        sum - 6 * 65_536
    }

    /// Log-normal with the given median (below 2^24) and sigma in hundredths.
    pub(super) fn log_normal(&mut self, median: u64, sigma_percent: i64) -> u64 {
        // exp(sigma z) = 2^(sigma z / ln 2); 94_548 = 65_536 / ln 2
        let power = self.normal() * sigma_percent * 94_548 / (100 * 65_536);
        let (whole, part) = (power >> 16, (power & 0xffff) as u64);
        let (slot, rest) = ((part >> 12) as usize, part & 0xfff);
        let fraction = EXP2[slot] + (((EXP2[slot + 1] - EXP2[slot]) * rest) >> 12);
        let scaled = median * fraction;
        if whole >= 0 { (scaled << whole.min(20)) >> 16 } else { (scaled >> 16) >> (-whole).min(63) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_is_splitmix64() {
        // First outputs for state 0, as published with the algorithm.
        let mut rng = Rng(0);
        assert_eq!(rng.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn log_normal_has_the_stated_median_and_spread() {
        let mut rng = Rng::new(1, 2, 3);
        let mut draws: Vec<u64> = (0..100_000).map(|_| rng.log_normal(10_000, 100)).collect();
        draws.sort_unstable();
        let (p16, p50, p84) = (draws[15_866], draws[50_000], draws[84_134]);
        assert!((9_800..10_200).contains(&p50), "median {p50}");
        assert!((3_550..3_800).contains(&p16), "minus one sigma {p16}");
        assert!((26_500..28_000).contains(&p84), "plus one sigma {p84}");
    }

    #[test]
    fn weighted_draws_follow_the_weights() {
        let mut rng = Rng::new(4, 5, 6);
        let mut seen = [0u32; 3];
        for _ in 0..10_000 {
            seen[rng.weighted([1, 0, 3])] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!((2_300..2_700).contains(&seen[0]), "{seen:?}");
    }
}
