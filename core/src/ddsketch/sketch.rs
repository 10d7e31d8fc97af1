//! The sketch itself: inserting, merging, quantiles, stored form.

use super::bins::Bins;
use super::mapping::{Mapping, join};
use super::{Accuracy, DdsketchError, MAX_BINS, read_zigzag, write_zigzag};
use crate::codec::{DecodeError, Reader, Writer};
use crate::{AVec, Allocator};

/// The first byte of the stored form.
const VERSION: u8 = 1;

/// More joins than the whole range of floats needs at the finest accuracy, 0.1 %.
const MAX_JOINS: u8 = 12;

/// A quantile sketch.
///
/// Memory beside the struct itself (about 100 bytes): nothing while empty, 128 bytes up to 6 buckets, doubling with
/// their number to 64 KB at the limit of 2048.
pub struct Sketch<A: Allocator> {
    accuracy: Accuracy,
    mapping: Mapping,
    joins: u8,
    zeros: u64,
    /// All values, zeros included; stays at the greatest number when that is exceeded.
    count: u64,
    min: f64,
    max: f64,
    /// Buckets of positive values under `index * 2`, of negative ones under `index(-value) * 2 + 1`.
    bins: Bins<A>,
}

fn is_negative(key: i32) -> bool {
    key & 1 != 0
}

fn join_key(key: i32, joins: u8) -> i32 {
    join(key >> 1, joins) << 1 | (key & 1)
}

/// Sorts keys by the values they stand for.
fn value_order(key: i32) -> i32 {
    // Beyond the reach of any index, so that all negative keys come before all positive ones.
    const FAR: i32 = 1 << 24;
    if is_negative(key) { -FAR - (key >> 1) } else { FAR + (key >> 1) }
}

fn encode_bins<'a, B: Allocator>(w: &mut Writer<'_, B>, bins: impl ExactSizeIterator<Item = &'a (i32, u64)>) {
    w.varint(bins.len() as u64);
    let mut previous = None;
    for &(key, count) in bins {
        let index = key >> 1;
        match previous {
            None => write_zigzag(w, index.into()),
            Some(previous) => w.varint(u64::from(index.abs_diff(previous))),
        }
        w.varint(count);
        previous = Some(index);
    }
}

impl<A: Allocator + Clone> Sketch<A> {
    /// An empty sketch whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(accuracy: Accuracy, alloc: A) -> Self {
        Self {
            accuracy,
            mapping: Mapping::new(accuracy.fraction()),
            joins: 0,
            zeros: 0,
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            bins: Bins::new_in(alloc),
        }
    }

    /// The accuracy asked for; see [`Sketch::relative_error`] for the one reached.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// The bound of the relative error of quantiles now, as a fraction: the accuracy asked for, unless the values
    /// needed more than [`MAX_BINS`] buckets.
    pub fn relative_error(&self) -> f64 {
        if self.joins == 0 { self.accuracy.fraction() } else { self.mapping.relative_error(self.joins) }
    }

    /// How many values were inserted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least value, exactly; `None` when empty.
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    /// The greatest value, exactly; `None` when empty.
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// Bytes of memory held beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        self.bins.heap_bytes()
    }

    /// The key of a finite value; `None` for zero.
    #[inline]
    fn key(&self, value: f64) -> Option<i32> {
        (value != 0.0).then(|| self.mapping.index(value.abs(), self.joins) << 1 | i32::from(value < 0.0))
    }

    /// Adds a value; NaN and infinities are an error and leave the sketch as it was.
    #[inline]
    pub fn insert(&mut self, value: f64) -> Result<(), DdsketchError> {
        if !value.is_finite() {
            return Err(DdsketchError::NotFinite(value));
        }
        // Makes -0.0 a plain zero: which of both is the least must not depend on their order.
        let value = value + 0.0;
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        self.count = self.count.saturating_add(1);
        match self.key(value) {
            None => self.zeros = self.zeros.saturating_add(1),
            Some(key) => {
                self.bins.add(key, 1);
                self.fit();
            }
        }
        Ok(())
    }

    /// Joins buckets until their number is within the limit.
    #[inline]
    fn fit(&mut self) {
        while self.bins.len() > MAX_BINS {
            self.join_to(self.joins + 1);
        }
    }

    fn join_to(&mut self, joins: u8) {
        let more = joins - self.joins;
        self.bins.rekey(|key| join_key(key, more));
        self.joins = joins;
    }

    /// Adds all values of another sketch; a different accuracy is an error and leaves this sketch as it was.
    pub fn merge<B: Allocator + Clone>(&mut self, other: &Sketch<B>) -> Result<(), DdsketchError> {
        if self.accuracy != other.accuracy {
            return Err(DdsketchError::Mismatch { ours: self.accuracy, theirs: other.accuracy });
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.zeros = self.zeros.saturating_add(other.zeros);
        if self.joins < other.joins {
            self.join_to(other.joins);
        }
        for (key, count) in other.bins.iter() {
            self.bins.add(join_key(key, self.joins - other.joins), count);
            self.fit();
        }
        Ok(())
    }

    /// The `q`-quantile: the value of rank floor(q (n - 1)), counted from 0 in ascending order, within
    /// [`Sketch::relative_error`]; exact for the least and the greatest. `None` when empty; an error when `q` is not
    /// within 0..=1.
    pub fn quantile(&self, q: f64) -> Result<Option<f64>, DdsketchError> {
        if !(0.0..=1.0).contains(&q) {
            return Err(DdsketchError::Quantile(q));
        }
        let last = self.count.saturating_sub(1);
        // A float has no room for a large rank, and the greatest value must come out exactly.
        let rank = if q < 1.0 { (q * last as f64) as u64 } else { last };
        Ok(self.value_at_rank(rank.min(last)))
    }

    /// The value of a rank, counted from 0 in ascending order, as [`Sketch::quantile`] gives it; `None` when there
    /// are not that many values.
    pub fn value_at_rank(&self, rank: u64) -> Option<f64> {
        if rank >= self.count {
            return None;
        }
        if rank == 0 {
            return Some(self.min);
        }
        if rank == self.count - 1 {
            return Some(self.max);
        }
        let sorted = self.bins.sorted_by_key(value_order);
        let negative = sorted.partition_point(|&(key, _)| is_negative(key));
        let (below, above) = sorted.split_at(negative);
        let zeros = (self.zeros > 0).then_some((None, self.zeros));
        let mut left = rank;
        let all = below.iter().map(|&(key, count)| (Some(key), count));
        let all = all.chain(zeros).chain(above.iter().map(|&(key, count)| (Some(key), count)));
        for (key, count) in all {
            if left < count {
                let value = key.map_or(0.0, |key| self.read(key));
                return Some(value.clamp(self.min, self.max));
            }
            left -= count;
        }
        Some(self.max)
    }

    /// What a key reads as.
    fn read(&self, key: i32) -> f64 {
        let value = self.mapping.value(key >> 1, self.joins);
        if is_negative(key) { -value } else { value }
    }

    /// Appends the stored form; canonical: equal multisets of values have equal bytes.
    pub fn encode<B: Allocator>(&self, out: &mut AVec<u8, B>) {
        self.encode_body(&mut Writer::new(out, VERSION));
    }

    /// Appends everything but the version byte, as a part of another state.
    pub(crate) fn encode_body<B: Allocator>(&self, w: &mut Writer<'_, B>) {
        w.u8(self.accuracy.code());
        w.u8(self.joins);
        w.varint(self.zeros);
        let sorted = self.bins.sorted_by_key(value_order);
        let (below, above) = sorted.split_at(sorted.partition_point(|&(key, _)| is_negative(key)));
        // The buckets of negative values ascend by their magnitude here, not by value.
        encode_bins(w, below.iter().rev());
        encode_bins(w, above.iter());
        if self.count > 0 {
            w.f64(self.min);
            w.f64(self.max);
        }
    }

    /// Reads the stored form; anything [`Sketch::encode`] would not have written is an error.
    pub fn decode_in(bytes: &[u8], alloc: A) -> Result<Self, DdsketchError> {
        let mut r = Reader::new(bytes, VERSION)?;
        let sketch = Self::decode_body(&mut r, alloc)?;
        r.finish()?;
        Ok(sketch)
    }

    /// Reads what [`Sketch::encode_body`] wrote.
    pub(crate) fn decode_body(r: &mut Reader<'_>, alloc: A) -> Result<Self, DecodeError> {
        use DecodeError::Malformed;
        let accuracy = Accuracy::per_mille(r.u8()?.into()).map_err(|_| Malformed("sketch accuracy"))?;
        let mut sketch = Self::new_in(accuracy, alloc);
        sketch.joins = r.u8()?;
        if sketch.joins > MAX_JOINS {
            return Err(Malformed("sketch has too many joins"));
        }
        let least = sketch.mapping.index(f64::from_bits(1), sketch.joins);
        let greatest = sketch.mapping.index(f64::MAX, sketch.joins);
        sketch.zeros = r.varint()?;
        sketch.count = sketch.zeros;
        for sign in [1, 0] {
            let number = r.varint()?;
            if number > (MAX_BINS - sketch.bins.len()) as u64 {
                return Err(Malformed("sketch has too many buckets"));
            }
            let mut previous: Option<i64> = None;
            for _ in 0..number {
                let index = match previous {
                    None => read_zigzag(r)?,
                    Some(previous) => match r.varint()? {
                        0 => return Err(Malformed("sketch buckets do not ascend")),
                        distance => previous.saturating_add_unsigned(distance),
                    },
                };
                if !(i64::from(least)..=i64::from(greatest)).contains(&index) {
                    return Err(Malformed("sketch bucket lies beyond all floats"));
                }
                let count = r.varint()?;
                if count == 0 {
                    return Err(Malformed("sketch bucket is empty"));
                }
                sketch.bins.add((index as i32) << 1 | sign, count);
                sketch.count = sketch.count.saturating_add(count);
                previous = Some(index);
            }
        }
        if sketch.joins > 0 && sketch.bins.len() <= MAX_BINS / 2 {
            return Err(Malformed("sketch has more joins than its buckets need"));
        }
        if sketch.count > 0 {
            sketch.min = r.f64()?;
            sketch.max = r.f64()?;
            sketch.check_ends()?;
        }
        Ok(sketch)
    }

    /// Whether the least and the greatest value are what the buckets say.
    fn check_ends(&self) -> Result<(), DecodeError> {
        let plain = |value: f64| value.is_finite() && (value != 0.0 || value.is_sign_positive());
        if !plain(self.min) || !plain(self.max) || self.min > self.max {
            return Err(DecodeError::Malformed("least or greatest value of a sketch"));
        }
        let orders = || {
            let zero = (self.zeros > 0).then_some(0);
            self.bins.iter().map(|(key, _)| value_order(key)).chain(zero)
        };
        // Two floats whose logarithms agree in all but the last bit may be in neighbouring buckets the wrong way
        // round, hence not exactly equal.
        let near = |value: f64, end: Option<i32>| {
            let own = self.key(value).map_or(0, value_order);
            end.is_some_and(|end| end.abs_diff(own) <= 1)
        };
        if !near(self.min, orders().min()) || !near(self.max, orders().max()) {
            return Err(DecodeError::Malformed("least or greatest value of a sketch"));
        }
        Ok(())
    }
}
