//! From a positive value to its bucket and back.
//!
//! Bucket `i` holds the values in (gamma^(i-1), gamma^i] with gamma = (1 + a) / (1 - a), and is read as
//! 2 gamma^i / (gamma + 1), which is within a factor of 1 +- a of all of them.

/// For c = 1 + k / 64: 1 / c and ln c.
const TABLE: [(f64, f64); 65] = {
    let mut table = [(0.0, 0.0); 65];
    let mut k = 0;
    while k <= 64 {
        let c = 1.0 + k as f64 / 64.0;
        // ln c = 2 atanh((c - 1) / (c + 1)), from the smallest term up.
        let s = (c - 1.0) / (c + 1.0);
        let mut sum = 0.0;
        let mut i = 25;
        while i > 0 {
            i -= 1;
            sum = sum * (s * s) + 1.0 / (2 * i + 1) as f64;
        }
        table[k] = (1.0 / c, 2.0 * s * sum);
        k += 1;
    }
    // Must cancel exactly against the exponent of numbers just below 1.
    table[64].1 = std::f64::consts::LN_2;
    table
};

/// The natural logarithm of a positive finite number, to about 2^-51 of its size.
///
/// The standard library's depends on the C library and the processor in its last bit, which would put a value near
/// a bucket's bound into different buckets on different machines. This one uses additions and multiplications only,
/// whose results are the same everywhere.
#[inline]
pub(super) fn ln(x: f64) -> f64 {
    // Subnormal numbers have no exponent of their own.
    let (x, scale) = if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, -54) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023 + scale;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    let nearest = ((bits >> 45 & 127) + 1) >> 1;
    let (per_c, ln_c) = TABLE[nearest as usize];
    // |r| <= 1/128, so the series may end at the seventh power.
    let r = (mantissa - (1.0 + nearest as f64 / 64.0)) * per_c;
    let r2 = r * r;
    let tail = (r * (1.0 / 3.0) - 0.5) + r2 * ((r * 0.2 - 0.25) + r2 * (r * (1.0 / 7.0) - 1.0 / 6.0));
    (f64::from(exponent) * std::f64::consts::LN_2 + ln_c) + (r + r2 * tail)
}

/// The bucket bounds of one accuracy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapping {
    ln_gamma: f64,
    per_ln_gamma: f64,
}

impl Mapping {
    pub(super) fn new(accuracy: f64) -> Self {
        let ln_gamma = ln((1.0 + accuracy) / (1.0 - accuracy));
        Self { ln_gamma, per_ln_gamma: 1.0 / ln_gamma }
    }

    /// The bucket of a positive finite value after `joins` joins.
    #[inline]
    pub(super) fn index(self, value: f64, joins: u8) -> i32 {
        let exact = ln(value) * self.per_ln_gamma;
        // Rounds up without a call into the C library: adding 1.5 * 2^52 leaves the nearest integer in the low bits.
        const SHIFT: f64 = 6_755_399_441_055_744.0;
        let shifted = exact + SHIFT;
        let index = shifted.to_bits() as i32 + i32::from(exact > shifted - SHIFT);
        // The bucket without joins always comes first, so that inserting late and joining late agree in every bit.
        join(index, joins)
    }

    /// What bucket `index` reads as; infinite when it lies at the end of the floats.
    pub(super) fn value(self, index: i32, joins: u8) -> f64 {
        let ln_gamma = self.ln_gamma * f64::from(1u32 << joins);
        let half = (ln_gamma.exp() + 1.0) / 2.0;
        // Divided inside the exponent: the bucket of the greatest floats has an infinite upper bound.
        (ln_gamma * f64::from(index) - half.ln()).exp()
    }

    /// The greatest relative error after `joins` joins.
    pub(super) fn relative_error(self, joins: u8) -> f64 {
        // (gamma - 1) / (gamma + 1)
        (self.ln_gamma * f64::from(1u32 << joins) / 2.0).tanh()
    }
}

/// The bucket that bucket `index` becomes part of when all pairs (2 j - 1, 2 j) are joined to j, `joins` times.
#[inline]
pub(super) fn join(index: i32, joins: u8) -> i32 {
    (index + ((1 << joins) - 1)) >> joins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two units in the last place, which are 4.44e-16 of the smallest numbers that have such units. From 0.5 to 1 those of
    /// the logarithm of 2, of which another one is taken away there.
    fn is_near(x: f64) -> bool {
        let size = if (0.5..1.0).contains(&x) { std::f64::consts::LN_2 } else { x.ln().abs().max(1e-3) };
        (ln(x) - x.ln()).abs() <= 4.5e-16 * size
    }

    proptest! {
        #[test]
        fn ln_is_the_logarithm(bits in 1u64..0x7ff0_0000_0000_0000) {
            prop_assert!(is_near(f64::from_bits(bits)), "{}", f64::from_bits(bits));
        }

        #[test]
        fn ln_below_one_is_the_logarithm(x in 0.5f64..1.0) {
            prop_assert!(is_near(x), "{x}");
        }

        #[test]
        fn joining_twice_is_joining_by_two(index in -1_000_000..1_000_000i32, a in 0u8..8, b in 0u8..8) {
            prop_assert_eq!(join(join(index, a), b), join(index, a + b));
        }
    }

    #[test]
    fn ln_is_exact_at_one_and_holds_at_the_ends() {
        assert_eq!(ln(1.0), 0.0);
        assert!(is_near(0.847_656_25));
        for x in [f64::from_bits(1), f64::MIN_POSITIVE, f64::MAX, 0.5, 2.0, 0.999_999, 1.000_001] {
            assert!((ln(x) / x.ln() - 1.0).abs() < 1e-15, "{x}");
        }
    }
}
