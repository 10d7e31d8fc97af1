//! From a positive value to its bucket and back.
//!
//! Bucket `i` holds the values in (gamma^(i-1), gamma^i] with gamma = (1 + a) / (1 - a), and is read as
//! 2 gamma^i / (gamma + 1), which is within a factor of 1 +- a of all of them.

/// The coefficients of atanh(s) / s in powers of s^2, enough for |s| <= 0.172.
const ATANH: [f64; 12] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
    1.0 / 23.0,
];

/// The natural logarithm of a positive finite number, to about 2^-51 of relative error.
///
/// The standard library's depends on the C library and the processor in its last bit, which would put a value near
/// a bucket's bound into different buckets on different machines. This one uses additions, multiplications and one
/// division only, whose results are the same everywhere.
#[inline]
pub(super) fn ln(x: f64) -> f64 {
    // Subnormal numbers have no exponent of their own.
    let (x, scale) = if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, -54) } else { (x, 0) };
    let bits = x.to_bits();
    // Mantissas from sqrt(1/2) to sqrt(2): what lies above sqrt(2) belongs to the next exponent.
    let offset = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = (offset.cast_signed() >> 52) as i32 + scale;
    let mantissa = f64::from_bits((offset & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let z2 = z * z;
    let z4 = z2 * z2;
    let pair = |i: usize| ATANH[i] + ATANH[i + 1] * z;
    let low = pair(0) + pair(2) * z2;
    let middle = pair(4) + pair(6) * z2;
    let high = pair(8) + pair(10) * z2;
    let atanh = s * (low + z4 * (middle + z4 * high));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * atanh
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
        // The bucket without joins always comes first, so that inserting late and joining late agree in every bit.
        join((ln(value) * self.per_ln_gamma).ceil() as i32, joins)
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

    proptest! {
        #[test]
        fn ln_is_the_logarithm(bits in 1u64..0x7ff0_0000_0000_0000) {
            let x = f64::from_bits(bits);
            let error = (ln(x) - x.ln()).abs();
            prop_assert!(error <= 4e-16 * x.ln().abs().max(1e-3), "{x}: {error}");
        }

        #[test]
        fn joining_twice_is_joining_by_two(index in -1_000_000..1_000_000i32, a in 0u8..8, b in 0u8..8) {
            prop_assert_eq!(join(join(index, a), b), join(index, a + b));
        }
    }

    #[test]
    fn ln_is_exact_at_one_and_holds_at_the_ends() {
        assert_eq!(ln(1.0), 0.0);
        for x in [f64::from_bits(1), f64::MIN_POSITIVE, f64::MAX, 0.5, 2.0, 0.999_999, 1.000_001] {
            assert!((ln(x) / x.ln() - 1.0).abs() < 1e-15, "{x}");
        }
    }
}
