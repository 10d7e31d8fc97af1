//! Timelines: events kept by person and time, small enough to answer a product question by reading all of them.
//!
//! A *slice* holds the events of some persons on one date: those whose 64-bit hash begins with the same bits. Its value
//! is made by [`Builder`], read by [`View`] (persons, times, event names) and [`Codes`] (one property each), and asked
//! by a [`Kernel`] that a [`Scan`] leads through slices, dates and *parts* (values of one date that are not merged yet).
//! What does not live here: names and values of properties, of which only codes appear, and where slices are stored.
//!
//! # Order
//!
//! Rows are in order of (hash, time, event code, property codes). With the same codes equal rows give equal bytes,
//! however they arrived: a value that is computed again is compared with the stored one byte by byte.
//!
//! # Layout, version 1
//!
//! Integers are little-endian; arrays follow each other without gaps. One *word* is a `u64` of bits for 64 rows; `W` is
//! the number of words for all rows, and bits behind the last row are 0.
//!
//! | core: bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | kind, `t` |
//! | 2 | unit of times in bits 0 and 1 (0 us, 1 ms, 2 s: the longest that fits all); bit 2 wide times, bit 3 ties |
//! | 3 | bits of an event code |
//! | 4 to 11 | rows `n`, persons `p`, `u32` each |
//! | 12 to 15 | checksum of everything else |
//! | 16 to 23 | base: the earliest time in units, `i64` |
//! | `u64[p]` | hashes of the persons, ascending |
//! | `u64[W]` | firsts: rows with which a person begins |
//! | `u64[W]` | ties: rows at the time of the row before, of the same person; absent without any |
//! | `u32[n]` | times less the base, their low half |
//! | `u8[n]` | the byte above it, only with wide times |
//! | `u64[bits][W]` | event codes as bit planes: word `j * W + i` holds bit `j` of the codes of the 64 rows of block `i` |
//!
//! Counts are in `slots`.
//!
//! | codes: bytes | what |
//! |---|---|
//! | 0, 1 | version 1, kind `p` |
//! | 2, 3 | bits of a code; 0 |
//! | 4 to 7 | rows |
//! | 8 to 11 | checksum of the core this belongs to |
//! | 12 to 15 | checksum of everything else |
//! | `u64[bits][W]` | bit planes as above; code 0 is NULL |
//!
//! # What is checked
//!
//! [`View::read`] and [`Codes::read`] check what keeps reading in bounds: version, kind, exact length, number of
//! persons, and that codes belong to their core. `check` is for values that come from outside: checksum, order, and
//! whatever else [`Builder`] would have written in another way.

mod by_code;
mod encode;
mod filter;
mod kernels;
mod masks;
mod merge;
mod people;
mod scan;
mod slots;
mod tile;
mod view;

pub use by_code::ByCode;
pub use encode::{BuildError, Builder, Encoded};
pub use filter::{CodeSet, Filter, Question};
pub use kernels::*;
pub use masks::{Cpu, Level, fetch};
pub use people::People;
pub use scan::{Kernel, Row, Scan, ScanError};
pub use slots::{Cell, SLOT, check_counts, each_cell};
pub use tile::Tile;
pub use view::{Codes, Corrupt, Source, View};

pub use crate::hll::hash::hash_bytes as person_hash;

/// The slice of a person when slices are told apart by the first `bits` bits of the hash.
pub fn slice_of(hash: u64, bits: u32) -> u32 {
    // A slice is a u32, so there are at most 32 bits; without any there is one slice.
    hash.checked_shr(64 - bits.min(32)).unwrap_or(0) as u32
}

/// Puts the right checksum into bytes that were altered: for tests that look at what other checks find.
#[doc(hidden)]
pub fn seal(bytes: &mut [u8]) {
    let sum = view::checksum(bytes).to_le_bytes();
    if let Some(place) = bytes.get_mut(12..16) {
        place.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests;
