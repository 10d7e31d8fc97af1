//! The parameters of a sketch, their two header bytes, and which parameters a union gets.

use super::HllError;

/// The cutoff code that stands for `auto`.
const AUTO: u8 = 63;

/// Up to how many distinct values a sketch keeps their hashes, and so counts exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cutoff {
    /// Never: registers from the first value on.
    Never,
    /// As long as the hashes need no more bytes than FULL registers would.
    Auto,
    /// Up to and including this many; a power of two of at most 2^30.
    UpTo(u32),
}

/// Parameters of a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    log2m: u8,
    regwidth: u8,
    /// As in the header: 0 never, 63 auto, otherwise the cutoff is 2^(code - 1).
    cutoff: u8,
    sparse: bool,
}

impl Default for Config {
    /// log2m 14 (standard error 0.81 %), register width 5, exact up to 128 values, sparse encoding on.
    ///
    /// Width 5 as everywhere else: postgresql-hll has no estimate for many sketches of width 6. A register stops at 31,
    /// which one value in 2^30 reaches: the estimator knows, and with 16 registers or more it takes billions of values.
    fn default() -> Self {
        Self { log2m: 14, regwidth: 5, cutoff: 8, sparse: true }
    }
}

impl Config {
    /// The least `log2m`.
    pub const MIN_LOG2M: u8 = 4;
    /// The greatest `log2m`; others read at most this many registers in practice.
    pub const MAX_LOG2M: u8 = 17;

    /// The default configuration with another `log2m`, 4 to 17 inclusive; anything else is an error.
    pub fn with_log2m(log2m: i32) -> Result<Self, HllError> {
        Self::new(log2m, Self::default().regwidth.into(), Cutoff::UpTo(128), true)
    }

    /// Checks and builds a configuration: `log2m` 4..=17, `regwidth` 1..=8 bits, both inclusive.
    pub fn new(log2m: i32, regwidth: i32, cutoff: Cutoff, sparse: bool) -> Result<Self, HllError> {
        let log2m = match u8::try_from(log2m) {
            Ok(p @ Self::MIN_LOG2M..=Self::MAX_LOG2M) => p,
            _ => return Err(HllError::Log2m(log2m.into())),
        };
        let regwidth = match u8::try_from(regwidth) {
            Ok(w @ 1..=8) => w,
            _ => return Err(HllError::Regwidth(regwidth.into())),
        };
        let cutoff = match cutoff {
            Cutoff::Never => 0,
            Cutoff::Auto => AUTO,
            Cutoff::UpTo(n) if n.is_power_of_two() && n <= 1 << 30 => n.trailing_zeros() as u8 + 1,
            Cutoff::UpTo(n) => return Err(HllError::Cutoff(n.into())),
        };
        Ok(Self { log2m, regwidth, cutoff, sparse })
    }

    /// Reads the second and third byte of the header.
    pub(super) fn from_header(parameters: u8, cutoff: u8) -> Result<Self, HllError> {
        let (log2m, regwidth) = (parameters & 0x1f, (parameters >> 5) + 1);
        if !(Self::MIN_LOG2M..=Self::MAX_LOG2M).contains(&log2m) {
            return Err(HllError::Log2m(log2m.into()));
        }
        let code = cutoff & 0x3f;
        if cutoff & 0x80 != 0 || (code > 31 && code != AUTO) {
            return Err(HllError::CutoffByte(cutoff));
        }
        Ok(Self { log2m, regwidth, cutoff: code, sparse: cutoff & 0x40 != 0 })
    }

    /// The second and third byte of the header.
    pub(super) fn header(self) -> [u8; 2] {
        [(self.regwidth - 1) << 5 | self.log2m, u8::from(self.sparse) << 6 | self.cutoff]
    }

    /// Base-2 logarithm of the number of registers.
    pub fn log2m(self) -> u8 {
        self.log2m
    }

    /// Width of a register in the stored bytes, in bits.
    pub fn regwidth(self) -> u8 {
        self.regwidth
    }

    /// Whether registers may be written as SPARSE.
    pub fn sparse(self) -> bool {
        self.sparse
    }

    /// The explicit cutoff as it stands in the header.
    pub fn cutoff(self) -> Cutoff {
        match self.cutoff {
            0 => Cutoff::Never,
            AUTO => Cutoff::Auto,
            code => Cutoff::UpTo(1 << (code - 1)),
        }
    }

    /// Up to how many distinct values (inclusive) the sketch is exact.
    pub fn explicit_limit(self) -> usize {
        match self.cutoff() {
            Cutoff::Never => 0,
            Cutoff::Auto => self.full_len() / 8,
            Cutoff::UpTo(n) => n as usize,
        }
    }

    /// The standard error of the estimate beyond the explicit limit, as a fraction: 1.04 / sqrt(2^log2m).
    pub fn standard_error(self) -> f64 {
        1.04 / (self.registers() as f64).sqrt()
    }

    /// How many registers there are.
    pub(super) fn registers(self) -> usize {
        1 << self.log2m
    }

    /// The greatest value a register can have: capped by its width and by the bits left in the hash.
    pub(super) fn max_register(self) -> u8 {
        let by_width = ((1u16 << self.regwidth) - 1) as u8;
        by_width.min(64 - self.log2m)
    }

    /// Bytes of FULL registers, header not included.
    pub(super) fn full_len(self) -> usize {
        // At least 16 registers, so always whole bytes.
        (self.registers() / 8) * usize::from(self.regwidth)
    }

    /// Bits of one SPARSE entry.
    pub(super) fn sparse_bits(self) -> usize {
        usize::from(self.log2m + self.regwidth)
    }

    /// Bytes of `entries` SPARSE entries, header not included.
    pub(super) fn sparse_len(self, entries: usize) -> usize {
        (entries * self.sparse_bits()).div_ceil(8)
    }

    /// The cutoff code without `auto`: the power of two at or below the limit.
    fn fixed_cutoff(self) -> u8 {
        match self.cutoff {
            AUTO => self.explicit_limit().checked_ilog2().map_or(0, |log| log as u8 + 1),
            code => code,
        }
    }

    /// The configuration of a union of two non-empty sketches: commutative, associative, idempotent.
    pub(super) fn meet(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        Self {
            log2m: self.log2m.min(other.log2m),
            regwidth: self.regwidth.min(other.regwidth),
            cutoff: self.fixed_cutoff().min(other.fixed_cutoff()),
            sparse: self.sparse && other.sparse,
        }
    }
}
