//! Reading stored sketches in place: header, validation, estimate. Building them lives in `sketch`.

use super::HllError;
use super::config::Config;
use super::estimate::Histogram;
use super::registers::{visit_full, visit_sparse};
use crate::interrupt::Interrupt;

/// The four encodings of the storage spec that hold a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No value.
    Empty,
    /// Sorted hashes; the count is exact.
    Explicit,
    /// Non-zero registers only.
    Sparse,
    /// All registers.
    Full,
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "EMPTY",
            Self::Explicit => "EXPLICIT",
            Self::Sparse => "SPARSE",
            Self::Full => "FULL",
        })
    }
}

/// A stored sketch, borrowed: its header is checked, its contents are checked by whoever reads them.
#[derive(Debug, Clone, Copy)]
pub struct EncodedRef<'a> {
    encoding: Encoding,
    config: Config,
    body: &'a [u8],
}

impl<'a> EncodedRef<'a> {
    /// Checks header and length. [`EncodedRef::validate`] checks the rest.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HllError> {
        // The version is named first: bytes of another version may have another header.
        if let Some(&first) = bytes.first()
            && first >> 4 != 1
        {
            return Err(HllError::Version(first >> 4));
        }
        let Some((&[kind, parameters, cutoff], body)) = bytes.split_first_chunk() else {
            return Err(HllError::Header(bytes.len()));
        };
        let encoding = match kind & 0x0f {
            0 => return Err(HllError::Undefined),
            1 => Encoding::Empty,
            2 => Encoding::Explicit,
            3 => Encoding::Sparse,
            4 => Encoding::Full,
            other => return Err(HllError::Type(other)),
        };
        let config = Config::from_header(parameters, cutoff)?;
        let fits = match encoding {
            Encoding::Empty => body.is_empty(),
            Encoding::Explicit => !body.is_empty() && body.len().is_multiple_of(8),
            Encoding::Sparse => body.len() <= config.sparse_len(config.registers()),
            Encoding::Full => body.len() == config.full_len(),
        };
        if !fits {
            return Err(HllError::Length { encoding, found: bytes.len() });
        }
        if encoding == Encoding::Explicit && body.len() / 8 > config.explicit_limit() {
            return Err(HllError::OverCutoff { found: body.len() / 8, limit: config.explicit_limit() });
        }
        Ok(Self { encoding, config, body })
    }

    /// The encoding named in the header.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The parameters named in the header.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Checks everything: order, padding and values.
    pub fn validate(&self, interrupt: impl Interrupt) -> Result<(), HllError> {
        match self.encoding {
            Encoding::Empty => Ok(()),
            Encoding::Explicit => self.visit_hashes(|_| interrupt.check()),
            Encoding::Sparse => visit_sparse(self.body, self.config, |_, _| ()),
            Encoding::Full => visit_full(self.body, self.config, |_, _| ()),
        }
    }

    /// The estimated number of distinct values: 0 when empty, exact when EXPLICIT. Validates what it reads.
    pub fn estimate(&self, interrupt: impl Interrupt) -> Result<f64, HllError> {
        let mut histogram = Histogram::new();
        match self.encoding {
            Encoding::Empty => return Ok(0.0),
            Encoding::Explicit => {
                self.visit_hashes(|_| interrupt.check())?;
                return Ok((self.body.len() / 8) as f64);
            }
            Encoding::Sparse => visit_sparse(self.body, self.config, |_, value| histogram.add(value))?,
            Encoding::Full => visit_full(self.body, self.config, |_, block| histogram.add_all(block))?,
        }
        Ok(histogram.estimate(self.config))
    }

    /// Everything behind the header.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Visits the hashes of an EXPLICIT sketch, checking that they ascend.
    pub(super) fn visit_hashes(&self, mut f: impl FnMut(u64)) -> Result<(), HllError> {
        let mut previous = None;
        for (entry, bytes) in self.body.as_chunks::<8>().0.iter().enumerate() {
            let hash = i64::from_be_bytes(*bytes);
            if previous.is_some_and(|p| hash <= p) {
                return Err(HllError::Order { encoding: Encoding::Explicit, entry });
            }
            f(hash.cast_unsigned());
            previous = Some(hash);
        }
        Ok(())
    }
}

/// The estimated number of distinct values of a stored sketch, without building it: 0 for EMPTY, exact for
/// EXPLICIT. Bytes that are not a valid sketch are an error that says where.
pub fn estimate_encoded(bytes: &[u8], interrupt: impl Interrupt) -> Result<f64, HllError> {
    EncodedRef::parse(bytes)?.estimate(interrupt)
}
