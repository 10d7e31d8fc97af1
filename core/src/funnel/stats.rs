//! Funnel figures over many persons: how many entered each step and how long the step took.
//!
//! Takes the chains that [`super`] finds, one per person, and forgets them. Names of steps do not live here.
//!
//! # Figures
//!
//! A chain counts as entered for every step it has a time for: steps 1 to L, less optional ones it left out, so a
//! step can have more persons than an optional one before it. The duration of a step is its time less that of the
//! step reached before it, over steps left out; step 1 has none. Durations are kept exactly up to [`EXACT_LIMIT`] per
//! step and as a [`ddsketch`] of 1 % beyond; their sum is always exact. Whether durations are exact depends on how
//! many there are only, so the state and its bytes are the same for any order of chains and any grouping into partial
//! states.
//!
//! # Stored form
//!
//! Version byte 1, number of steps (1 byte), then per step: entered as a varint; for step 2 and later, unless
//! entered is 0, either the durations, ascending (the first zigzag, the others as distance from the one before), or,
//! beyond the limit, their sum (16 bytes, little-endian) and the sketch. Varints are minimal LEB128.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ddsketch::{self, Accuracy, read_zigzag, write_zigzag};
use crate::{AVec, Allocator};

/// The most steps a funnel can have.
pub const MAX_STEPS: usize = 32;

/// Up to how many durations (inclusive) a step's median is exact.
pub const EXACT_LIMIT: usize = 1000;

const VERSION: u8 = 1;
const MICROS: f64 = 1e6;

/// Why a chain cannot be counted or two states cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// A number of steps outside 1..=32.
    #[error("a funnel has between 1 and 32 steps, not {0}")]
    Steps(i64),
    /// A chain longer than the funnel.
    #[error("a chain has {found} times, the funnel has {steps} steps")]
    Chain {
        /// Length of the chain.
        found: usize,
        /// Steps of the funnel.
        steps: usize,
    },
    /// A chain without a time for the first step.
    #[error("a chain must have a time for its first step")]
    NoFirst,
    /// States of funnels with different numbers of steps.
    #[error("funnels of {ours} and {theirs} steps cannot be merged")]
    Mismatch {
        /// Steps of the state merged into.
        ours: usize,
        /// Steps of the state to merge.
        theirs: usize,
    },
}

/// The figures of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRow {
    /// The step, counted from 1.
    pub step: usize,
    /// How many persons reached it.
    pub entered: u64,
    /// That as a percentage (0 to 100) of the persons who reached step 1; `None` when nobody did.
    pub pct_of_first: Option<f64>,
    /// That as a percentage of the persons who reached the step before; `None` for step 1 and when nobody did. Above
    /// 100 when the step before is optional and many left it out.
    pub pct_of_previous: Option<f64>,
    /// The median of the seconds since the step reached before, the mean of the middle two for an even number; exact up to
    /// [`EXACT_LIMIT`] durations, within 1 % of each middle value beyond. `None` for step 1 and when nobody reached
    /// the step.
    pub median_seconds: Option<f64>,
    /// The average of the seconds since the step reached before; `None` as for the median.
    pub avg_seconds: Option<f64>,
}

enum Durations<A: Allocator> {
    /// Microseconds, at most [`EXACT_LIMIT`] of them, in no order.
    Exact(AVec<i64, A>),
    /// The sum in microseconds, and the distribution in seconds.
    Sketch(Sum, ddsketch::Sketch<A>),
}

/// A sum as low and high half: an `i128` itself asks for an alignment of 16, which allocators that know the
/// fundamental types of C only, as Postgres' do, need not give.
#[derive(Clone, Copy)]
struct Sum([u64; 2]);

impl Sum {
    fn new(value: i128) -> Self {
        Self([value as u64, (value >> 64) as u64])
    }

    fn get(self) -> i128 {
        i128::from(self.0[0]) | i128::from(self.0[1].cast_signed()) << 64
    }
}

impl<A: Allocator + Clone> Durations<A> {
    fn add(&mut self, micros: i64) {
        match self {
            Self::Exact(values) if values.len() < EXACT_LIMIT => values.push(micros),
            Self::Exact(values) => {
                let mut sum = 0;
                let mut sketch = ddsketch::Sketch::new_in(Accuracy::default(), values.allocator().clone());
                for &value in values.iter().chain([&micros]) {
                    insert(&mut sum, &mut sketch, value);
                }
                *self = Self::Sketch(Sum::new(sum), sketch);
            }
            Self::Sketch(sum, sketch) => {
                let mut total = sum.get();
                insert(&mut total, sketch, micros);
                *sum = Sum::new(total);
            }
        }
    }

    fn merge<B: Allocator + Clone>(&mut self, other: &Durations<B>) {
        match other {
            Durations::Exact(values) => values.iter().for_each(|&value| self.add(value)),
            Durations::Sketch(their_sum, theirs) => {
                if let Self::Exact(values) = self {
                    let mut sum = 0;
                    let mut sketch =
                        ddsketch::Sketch::new_in(Accuracy::default(), values.allocator().clone());
                    values.iter().for_each(|&value| insert(&mut sum, &mut sketch, value));
                    *self = Self::Sketch(Sum::new(sum), sketch);
                }
                if let Self::Sketch(sum, sketch) = self {
                    *sum = Sum::new(sum.get().saturating_add(their_sum.get()));
                    // Both have the default accuracy, which is the only reason for an error.
                    let merged = sketch.merge(theirs);
                    debug_assert!(merged.is_ok());
                }
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Exact(values) => values.len() as u64,
            Self::Sketch(_, sketch) => sketch.count(),
        }
    }

    fn avg_seconds(&self) -> Option<f64> {
        let sum = match self {
            Self::Exact(values) => values.iter().map(|&value| i128::from(value)).sum(),
            Self::Sketch(sum, _) => sum.get(),
        };
        (self.len() > 0).then(|| sum as f64 / self.len() as f64 / MICROS)
    }

    /// What lies at a share, 0 to 1, of the way from the least to the greatest, between two values in proportion.
    fn quantile_seconds(&self, share: f64) -> Option<f64> {
        let last = self.len().checked_sub(1)?;
        let place = share.clamp(0.0, 1.0) * last as f64;
        let (low, high) = (place.floor() as u64, place.ceil() as u64);
        let between = |low: f64, high: f64| low * (1.0 - place.fract()) + high * place.fract();
        match self {
            Self::Exact(values) => {
                let mut values = copied(values);
                let (_, at, above) = values.select_nth_unstable(low as usize);
                let next = above.iter().min().filter(|_| high > low).unwrap_or(at);
                // Divided at the end, as a mean of whole microseconds is: nothing is rounded twice.
                Some(between(*at as f64, *next as f64) / MICROS)
            }
            Self::Sketch(_, sketch) => Some(between(sketch.value_at_rank(low)?, sketch.value_at_rank(high)?)),
        }
    }

    fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>) {
        match self {
            Self::Exact(values) => {
                let mut previous = None;
                let mut sorted = copied(values);
                sorted.sort_unstable();
                for &value in &sorted {
                    match previous {
                        None => write_zigzag(w, value),
                        Some(previous) => w.varint(value.abs_diff(previous)),
                    }
                    previous = Some(value);
                }
            }
            Self::Sketch(sum, sketch) => {
                sum.0.iter().for_each(|half| w.i64(half.cast_signed()));
                sketch.encode_body(w);
            }
        }
    }

    fn decode_in(r: &mut Reader<'_>, entered: u64, alloc: A) -> Result<Self, DecodeError> {
        if entered > EXACT_LIMIT as u64 {
            let low = i128::from(r.i64()?.cast_unsigned());
            let sum = i128::from(r.i64()?) << 64 | low;
            let sketch = ddsketch::Sketch::decode_body(r, alloc)?;
            if sketch.accuracy() != Accuracy::default() || sketch.count() != entered {
                return Err(DecodeError::Malformed("durations of a funnel step"));
            }
            if sum.unsigned_abs() > u128::from(entered) << 63 {
                return Err(DecodeError::Malformed("sum of the durations of a funnel step"));
            }
            return Ok(Self::Sketch(Sum::new(sum), sketch));
        }
        // At least a byte each, so a hostile number cannot ask for more memory than it sent bytes for.
        let mut values = AVec::with_capacity_in((entered as usize).min(r.remaining()), alloc);
        let mut previous: Option<i64> = None;
        for _ in 0..entered {
            let value = match previous {
                None => read_zigzag(r)?,
                Some(previous) => previous
                    .checked_add_unsigned(r.varint()?)
                    .ok_or(DecodeError::Malformed("duration of a funnel step"))?,
            };
            values.push(value);
            previous = Some(value);
        }
        Ok(Self::Exact(values))
    }
}

/// Adds one duration to a sum and a sketch of seconds.
fn insert<A: Allocator + Clone>(sum: &mut i128, sketch: &mut ddsketch::Sketch<A>, micros: i64) {
    *sum = sum.saturating_add(micros.into());
    // Never an error: an integer is a finite float.
    let inserted = sketch.insert(micros as f64 / MICROS);
    debug_assert!(inserted.is_ok());
}

fn copied<A: Allocator + Clone>(values: &AVec<i64, A>) -> AVec<i64, A> {
    let mut copied = AVec::with_capacity_in(values.len(), values.allocator().clone());
    copied.extend_from_slice(values);
    copied
}

struct Step<A: Allocator> {
    entered: u64,
    /// Empty for step 1, otherwise `entered` of them.
    durations: Durations<A>,
}

/// Funnel figures under construction.
///
/// Memory: about 150 bytes a step, and 8 bytes a duration up to [`EXACT_LIMIT`]; then the sketch, some KB.
pub struct FunnelStats<A: Allocator> {
    steps: AVec<Step<A>, A>,
}

impl<A: Allocator + Clone> FunnelStats<A> {
    /// A state without persons, for a funnel of 1 to 32 steps (inclusive); another number is an error.
    pub fn new_in(steps: i64, alloc: A) -> Result<Self, StatsError> {
        let number = match usize::try_from(steps) {
            Ok(number @ 1..=MAX_STEPS) => number,
            _ => return Err(StatsError::Steps(steps)),
        };
        let mut steps = AVec::with_capacity_in(number, alloc.clone());
        steps.extend(
            (0..number)
                .map(|_| Step { entered: 0, durations: Durations::Exact(AVec::new_in(alloc.clone())) }),
        );
        Ok(Self { steps })
    }

    /// How many steps the funnel has.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Counts one person's chain: one time in microseconds per step reached, none when step 1 was not reached.
    ///
    /// `None` is a step left out, as [`super::Funnel::run`] gives it for optional ones: the person did not enter it,
    /// and the next step's duration counts from the last step reached. A chain that begins with `None` is an error.
    /// Times usually ascend; where they do not (a funnel in any order), the duration is negative and counts as such.
    /// Durations beyond an `i64` (between infinite timestamps) count as the greatest or least one. A chain longer
    /// than the funnel is an error. An error leaves the state as it was.
    pub fn push(&mut self, chain: &[Option<i64>]) -> Result<(), StatsError> {
        self.count(chain, false)
    }

    /// The same, but durations are those since the first step.
    pub fn push_since_first(&mut self, chain: &[Option<i64>]) -> Result<(), StatsError> {
        self.count(chain, true)
    }

    fn count(&mut self, chain: &[Option<i64>], since_first: bool) -> Result<(), StatsError> {
        if chain.len() > self.steps.len() {
            return Err(StatsError::Chain { found: chain.len(), steps: self.steps.len() });
        }
        if let Some(None) = chain.first() {
            return Err(StatsError::NoFirst);
        }
        let mut previous = None;
        for (step, time) in self.steps.iter_mut().zip(chain) {
            let &Some(time) = time else { continue };
            step.entered = step.entered.saturating_add(1);
            if let Some(previous) = previous {
                step.durations.add(time.saturating_sub(previous));
            }
            previous = previous.filter(|_| since_first).or(Some(time));
        }
        Ok(())
    }

    /// The seconds below which a share, 0 to 1, of the durations of a step lie, counted from 0; exact and `None` as for
    /// the median.
    pub fn quantile_seconds(&self, step: usize, share: f64) -> Option<f64> {
        self.steps.get(step)?.durations.quantile_seconds(share)
    }

    /// Adds all persons of another state; one of a funnel with another number of steps is an error.
    pub fn merge<B: Allocator + Clone>(&mut self, other: &FunnelStats<B>) -> Result<(), StatsError> {
        if self.steps.len() != other.steps.len() {
            return Err(StatsError::Mismatch { ours: self.steps.len(), theirs: other.steps.len() });
        }
        for (ours, theirs) in self.steps.iter_mut().zip(&other.steps) {
            ours.entered = ours.entered.saturating_add(theirs.entered);
            ours.durations.merge(&theirs.durations);
        }
        Ok(())
    }

    /// The figures, one row a step, all steps, in order.
    pub fn rows(&self) -> impl Iterator<Item = StepRow> {
        let first = self.steps.first().map(|step| step.entered);
        let before = std::iter::once(None).chain(self.steps.iter().map(|step| Some(step.entered)));
        self.steps.iter().zip(before).enumerate().map(move |(at, (step, before))| {
            let pct_of = |whole: Option<u64>| {
                whole.filter(|&whole| whole > 0).map(|whole| 100.0 * step.entered as f64 / whole as f64)
            };
            StepRow {
                step: at + 1,
                entered: step.entered,
                pct_of_first: pct_of(first),
                pct_of_previous: pct_of(before),
                median_seconds: step.durations.quantile_seconds(0.5),
                avg_seconds: step.durations.avg_seconds(),
            }
        })
    }

    /// Appends the stored form; canonical: equal multisets of chains have equal bytes.
    pub fn encode<B: Allocator>(&self, out: &mut AVec<u8, B>) {
        let mut w = Writer::new(out, VERSION);
        w.u8(self.steps.len() as u8);
        for step in &self.steps {
            w.varint(step.entered);
            if step.durations.len() > 0 {
                step.durations.encode(&mut w);
            }
        }
    }

    /// Reads the stored form; anything [`FunnelStats::encode`] would not have written is an error.
    pub fn decode_in(bytes: &[u8], alloc: A) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let mut stats = Self::new_in(r.u8()?.into(), alloc.clone())
            .map_err(|_| DecodeError::Malformed("number of funnel steps"))?;
        let mut first = None;
        for step in &mut stats.steps {
            step.entered = r.varint()?;
            match first {
                None => first = Some(step.entered),
                // Only the first step is sure to come before every other: those between may have been left out.
                Some(first) if step.entered > first => {
                    return Err(DecodeError::Malformed("more persons in a funnel step than in the first"));
                }
                Some(_) => step.durations = Durations::decode_in(&mut r, step.entered, alloc.clone())?,
            }
        }
        r.finish()?;
        Ok(stats)
    }
}
