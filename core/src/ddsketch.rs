//! DDSketch: quantiles with a relative error bound, exactly mergeable.
//!
//! Values fall into buckets whose bounds grow by a constant factor, and a sketch is the count of each bucket: merging
//! adds counts, so any order of values and any grouping into partial sketches gives the same sketch and the same
//! bytes. Sums are not kept, because a sum of floats depends on their order. SQL types do not live here.
//!
//! # Memory bound
//!
//! When more than [`MAX_BINS`] buckets are in use, all pairs of adjacent buckets are joined and the relative error
//! roughly doubles (UDDSketch: Epicoco et al., 2020, arXiv 2004.08604), as often as needed. The number of times is
//! the least at which the buckets of *all* values fit: joining happens only when the values seen so far do not fit,
//! and then all values do not fit either. So it, too, is a function of the values and not of their order. At 1 % the
//! limit is enough for positive values that span a factor of 10^17 without any joining.
//!
//! # Stored form
//!
//! Version byte 1, accuracy in per mille (1 byte), joins (1 byte), count of zeros, then the buckets of negative and
//! those of positive values: their number, and per bucket, ascending, the index (the first zigzag, the others as
//! distance from the one before) and the count; last the least and the greatest value as little-endian floats, unless
//! there is no value. Counts, numbers and distances are minimal LEB128 varints.
//!
//! Source of the algorithm: Masson, Rim, Lee, "DDSketch", VLDB 2019, arXiv 1908.10693.

mod bins;
mod mapping;
mod sketch;

pub use sketch::Sketch;

use crate::Allocator;
use crate::codec::{DecodeError, Reader, Writer};

/// How many buckets a sketch uses at most, positive and negative ones together.
pub const MAX_BINS: usize = 2048;

/// The greatest relative error of a quantile, in per mille.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accuracy(u8);

impl Default for Accuracy {
    /// 1 %.
    fn default() -> Self {
        Self(10)
    }
}

impl Accuracy {
    /// An accuracy of 1 to 100 per mille, both inclusive (0.1 % to 10 %); anything else is an error.
    pub fn per_mille(value: i64) -> Result<Self, DdsketchError> {
        match u8::try_from(value) {
            Ok(code @ 1..=100) => Ok(Self(code)),
            _ => Err(DdsketchError::Accuracy(value as f64 / 1000.0)),
        }
    }

    /// An accuracy as a fraction, which must be a whole number of per mille from 0.001 to 0.1.
    pub fn from_fraction(value: f64) -> Result<Self, DdsketchError> {
        let code = (value * 1000.0).round();
        if (1.0..=100.0).contains(&code) && (value * 1000.0 - code).abs() < 1e-9 {
            Ok(Self(code as u8))
        } else {
            Err(DdsketchError::Accuracy(value))
        }
    }

    /// The accuracy as a fraction.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    fn code(self) -> u8 {
        self.0
    }
}

/// Why a sketch cannot take a value, be read or be merged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DdsketchError {
    /// NaN or an infinity.
    #[error("a quantile sketch takes finite values only, not {0}")]
    NotFinite(f64),
    /// An accuracy the format cannot express.
    #[error("accuracy must be a whole number of per mille between 0.001 and 0.1, not {0}")]
    Accuracy(f64),
    /// A quantile outside 0..=1.
    #[error("quantile must be between 0 and 1, not {0}")]
    Quantile(f64),
    /// Buckets of different accuracies do not add up.
    #[error("sketches of accuracy {} and {} cannot be merged", ours.fraction(), theirs.fraction())]
    Mismatch {
        /// The accuracy of the sketch merged into.
        ours: Accuracy,
        /// The accuracy of the sketch to merge.
        theirs: Accuracy,
    },
    /// The bytes are not a sketch.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Writes a signed number as a varint: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn write_zigzag<A: Allocator>(w: &mut Writer<'_, A>, value: i64) {
    w.varint((value << 1 ^ value >> 63).cast_unsigned());
}

/// Reads what [`write_zigzag`] wrote.
pub(crate) fn read_zigzag(r: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let value = r.varint()?;
    Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}
