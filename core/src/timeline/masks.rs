//! Where code is written for a processor: chosen at run time, each with a twin for any processor.
//!
//! Most of what is asked of a slice is arithmetic on words of 64 rows, which needs no instruction by name; it is
//! compiled twice, once with what the processor has ([`Level::run`]). What the compiler does not find by itself is a
//! method of [`Cpu`]. The only `unsafe` of this crate is here.
#![allow(unsafe_code, reason = "instructions that not every processor has")]

/// What a processor can do, as far as anybody here wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Level(Inner);

#[derive(Debug, Clone, Copy)]
enum Inner {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
}

impl Level {
    /// The best this processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = x86::Avx2::detect() {
            return Self(Inner::Avx2(avx2));
        }
        Self::plain()
    }

    /// What every processor has. Answers are the same.
    pub fn plain() -> Self {
        Self(Inner::Plain)
    }

    /// Does a job with what this level has; all that the job calls should be inlined into it.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            Inner::Plain => job.run(Plain),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(avx2) => avx2.run(job),
        }
    }
}

/// Something to do that is compiled for each level.
pub(super) trait Job {
    type Output;

    /// Must be `#[inline(always)]`, or it is compiled for the plain level alone.
    fn run<C: Cpu>(self, cpu: C) -> Self::Output;
}

/// A level as a type.
pub trait Cpu: Copy {
    /// Sets bit `i` of `out` where time `i` is more than `gap` after the one before it. What it says of one that is
    /// earlier is without meaning; bit 0 stays as it is.
    fn pauses(self, times: &[[u8; 4]], gap: u32, out: &mut [u64]);
}

/// Any processor.
#[derive(Clone, Copy)]
struct Plain;

impl Cpu for Plain {
    #[inline(always)]
    fn pauses(self, times: &[[u8; 4]], gap: u32, out: &mut [u64]) {
        pauses_from(1, times, gap, out);
    }
}

/// Asks for bytes that will be read soon, so that they are on their way.
#[inline]
pub fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: a hint, which every such processor has and which reads nothing; the address is one of the slice.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast())
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The twin, for rows from `from` on.
#[inline(always)]
fn pauses_from(from: usize, times: &[[u8; 4]], gap: u32, out: &mut [u64]) {
    let pairs = times.get(from.saturating_sub(1)..).unwrap_or(&[]).windows(2);
    for (i, pair) in pairs.enumerate().map(|(i, pair)| (from + i, pair)) {
        let pause = u32::from_le_bytes(pair[1]).wrapping_sub(u32::from_le_bytes(pair[0]));
        if let Some(word) = out.get_mut(i / 64) {
            *word |= u64::from(pause > gap) << (i % 64);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Cpu, Job, pauses_from};
    use std::arch::x86_64::{
        __m256i, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_loadu_si256, _mm256_max_epu32,
        _mm256_movemask_ps, _mm256_set1_epi32, _mm256_sub_epi32,
    };

    /// A processor with AVX2, BMI and popcnt; there is no other way to get one than to ask the processor.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Avx2(());

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            let all = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            all.then_some(Self(()))
        }

        #[inline]
        pub(super) fn run<J: Job>(self, job: J) -> J::Output {
            #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
            fn with<J: Job>(job: J, cpu: Avx2) -> J::Output {
                job.run(cpu)
            }
            // SAFETY: `self` exists only where the processor has all of these features.
            unsafe { with(job, self) }
        }
    }

    impl Cpu for Avx2 {
        #[inline(always)]
        fn pauses(self, times: &[[u8; 4]], gap: u32, out: &mut [u64]) {
            // SAFETY: `self` exists only where the processor has AVX2.
            unsafe { pauses(times, gap, out) }
        }
    }

    #[target_feature(enable = "avx2")]
    fn pauses(times: &[[u8; 4]], gap: u32, out: &mut [u64]) {
        let Some(least) = gap.checked_add(1) else { return };
        let least = _mm256_set1_epi32(least.cast_signed());
        // Rows 8 to 15, 16 to 23 and so on; those before and behind them one by one.
        pauses_from(1, times.get(..8).unwrap_or(times), gap, out);
        let blocks = times.len() / 8;
        for block in 1..blocks {
            let at = 8 * block;
            let (Some(these), Some(before)) = (times.get(at..at + 8), times.get(at - 1..at + 7)) else {
                return;
            };
            // SAFETY: both slices have eight times of four bytes, and these loads want no alignment.
            let (these, before) = unsafe {
                (
                    _mm256_loadu_si256(these.as_ptr().cast::<__m256i>()),
                    _mm256_loadu_si256(before.as_ptr().cast::<__m256i>()),
                )
            };
            let pauses = _mm256_sub_epi32(these, before);
            let long = _mm256_cmpeq_epi32(_mm256_max_epu32(pauses, least), pauses);
            let bits = _mm256_movemask_ps(_mm256_castsi256_ps(long)).cast_unsigned();
            if let Some(word) = out.get_mut(at / 64) {
                *word |= u64::from(bits) << (at % 64);
            }
        }
        if blocks > 0 {
            pauses_from(8 * blocks, times, gap, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Pauses<'a>(&'a [[u8; 4]], u32);

    impl Job for Pauses<'_> {
        type Output = Vec<u64>;

        #[inline(always)]
        fn run<C: Cpu>(self, cpu: C) -> Vec<u64> {
            let mut out = vec![0; self.0.len().div_ceil(64)];
            cpu.pauses(self.0, self.1, &mut out);
            out
        }
    }

    proptest! {
        #[test]
        fn every_level_finds_the_same_pauses(
            times in prop::collection::vec(prop_oneof![0u32..9, any::<u32>()], 0..200),
            gap in prop_oneof![0u32..5, any::<u32>(), Just(u32::MAX)]
        ) {
            let mut expected = vec![0u64; times.len().div_ceil(64)];
            for i in 1..times.len() {
                expected[i / 64] |= u64::from(times[i].wrapping_sub(times[i - 1]) > gap) << (i % 64);
            }
            let bytes: Vec<_> = times.iter().map(|time| time.to_le_bytes()).collect();
            prop_assert_eq!(&Level::plain().run(Pauses(&bytes, gap)), &expected);
            prop_assert_eq!(&Level::best().run(Pauses(&bytes, gap)), &expected);
        }
    }
}
