//! HyperLogLog: distinct counts in the HLL storage spec v1.0.0.
//!
//! The bytes are those of the spec, canonical, and readable by every implementation of it; the estimator is Ertl's
//! improved raw estimator; the hash is MurmurHash3 x64 128, low word, seed 0. SQL types, their text form and
//! memory contexts do not live here.
//!
//! # Why any plan gives equal bytes
//!
//! A sketch is either a set of hashes (EMPTY, EXPLICIT) or registers (SPARSE, FULL); the two register forms are one
//! value, and which one is written follows from the number of non-zero registers alone. A union is
//! * a set of hashes, when every input is one and the union holds at most `cutoff` distinct hashes;
//! * otherwise registers: the maximum, per register, over all inputs and all hashes.
//!
//! Both the cutoff test and the maximum look at the union only: a union that was too large once stays too large
//! whatever is added, so no order of inputs and no grouping into partial unions can change the outcome. Registers
//! that hold few values (read from bytes) stay registers: they no longer know their hashes.
//!
//! # Unions of different configurations
//!
//! An input without any value is an identity, whatever its configuration (only when all inputs are empty do their
//! configurations meet). Otherwise the result has the smaller `log2m`, the smaller `regwidth` and the smaller
//! cutoff, and is sparse only when all inputs are. It has to be the *smaller* register width: a value capped at
//! 2^w - 1 in one input cannot be widened again, so widening would make the answer depend on whether a hash met
//! its neighbours before or after it met the narrow input. A cutoff `auto` that meets another configuration
//! becomes the power of two at or below its own limit, because its meaning depends on `log2m` and `regwidth`.
//!
//! One exception, of probability 2^-(64 - log2m) per value: a hash whose bits above `log2m` are all zero leaves no
//! trace in registers (that is the spec's rule), so after folding to a smaller `log2m` its register may differ from
//! that of a sketch built there.

mod config;
mod encoded;
mod estimate;
mod explicit;
pub mod hash;
mod registers;
mod sketch;

pub use config::{Config, Cutoff};
pub use encoded::{EncodedRef, Encoding, estimate_encoded};
pub use sketch::Sketch;

/// Why a configuration or a byte string is not a usable HLL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HllError {
    /// `log2m` outside 4..=17.
    #[error("log2m must be between 4 and 17, not {0}")]
    Log2m(i64),
    /// `regwidth` outside 1..=8.
    #[error("regwidth must be between 1 and 8, not {0}")]
    Regwidth(i64),
    /// An explicit cutoff that the format cannot express.
    #[error("explicit cutoff must be a power of two of at most 2^30, not {0}")]
    Cutoff(i64),
    /// Fewer bytes than the header has.
    #[error("hll has {0} bytes, its header alone has 3")]
    Header(usize),
    /// A format version this build does not read.
    #[error("hll has storage version {0}, this build reads version 1")]
    Version(u8),
    /// The UNDEFINED type of the spec, which no aggregate here produces.
    #[error("hll is of type UNDEFINED, which holds no sketch")]
    Undefined,
    /// A type nibble the spec does not define.
    #[error("hll has unknown type {0}")]
    Type(u8),
    /// A bit of the third byte that must be zero, or a cutoff code without a meaning.
    #[error("hll has an invalid cutoff byte 0x{0:02x}")]
    CutoffByte(u8),
    /// The number of bytes does not fit the type and configuration.
    #[error("{encoding} hll cannot have {found} bytes")]
    Length {
        /// The encoding named in the header.
        encoding: Encoding,
        /// How many bytes there are, header included.
        found: usize,
    },
    /// More values than the cutoff in the header allows.
    #[error("EXPLICIT hll holds {found} values, its cutoff is {limit}")]
    OverCutoff {
        /// How many hashes there are.
        found: usize,
        /// How many the header allows.
        limit: usize,
    },
    /// Hashes or register indexes that do not strictly ascend.
    #[error("{encoding} hll is out of order at entry {entry}")]
    Order {
        /// The encoding named in the header.
        encoding: Encoding,
        /// The first entry that does not ascend, counted from 0.
        entry: usize,
    },
    /// A register value that no hash can produce (or a zero in a SPARSE hll).
    #[error("hll register {register} has impossible value {value}")]
    Register {
        /// The register's index.
        register: usize,
        /// The value found there.
        value: u8,
    },
    /// Bits behind the last entry that are not zero.
    #[error("SPARSE hll has non-zero padding")]
    Padding,
}
