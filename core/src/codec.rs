//! Reading and writing the bytes of partial states.
//!
//! Partial states travel between parallel workers and, for some types, into tables. Every format opens with one
//! version byte, so that bytes of another version are refused instead of misread. Integers are little-endian or
//! LEB128 varints. Sketch formats fixed by an outside specification do not use this module.

use crate::{AVec, Allocator};

/// Why a serialized partial state could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the state does.
    #[error("state is truncated")]
    Truncated,
    /// Bytes are left over after the state.
    #[error("state has {0} trailing bytes")]
    Trailing(usize),
    /// The version byte is not one this build writes or reads.
    #[error("state has format version {found}, this build reads {expected}")]
    Version {
        /// The version found in the first byte.
        found: u8,
        /// The version this build reads.
        expected: u8,
    },
    /// A value is outside what the format allows.
    #[error("state is malformed: {0}")]
    Malformed(&'static str),
}

/// Appends little-endian and varint values to a byte vector.
pub struct Writer<'a, A: Allocator> {
    out: &'a mut AVec<u8, A>,
}

impl<'a, A: Allocator> Writer<'a, A> {
    /// Starts a state with its version byte.
    pub fn new(out: &'a mut AVec<u8, A>, version: u8) -> Self {
        out.push(version);
        Self { out }
    }

    /// What is written to, for a state inside this one that has a format of its own.
    pub fn out(&mut self) -> &mut AVec<u8, A> {
        self.out
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Appends a 32-bit integer, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a signed 64-bit integer, little-endian.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a float as its bits, little-endian.
    pub fn f64(&mut self, value: f64) {
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// Appends an unsigned LEB128 varint.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// Appends a length-prefixed byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }
}

/// Reads what [`Writer`] wrote; never panics on hostile bytes.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the version byte and positions the reader behind it.
    pub fn new(bytes: &'a [u8], version: u8) -> Result<Self, DecodeError> {
        let (&found, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        if found != version {
            return Err(DecodeError::Version { found, expected: version });
        }
        Ok(Self { rest })
    }

    /// Reads bytes that are part of a state whose version is known.
    pub(crate) fn behind(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|b| b[0])
    }

    /// Reads a 32-bit integer, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a signed 64-bit integer, little-endian.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Reads a float from its bits.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(|b| f64::from_bits(u64::from_le_bytes(b)))
    }

    /// Reads an unsigned LEB128 varint of at most 64 bits. One that is longer than its value needs is refused, so that
    /// equal states have equal bytes.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed("varint is longer than 64 bits"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                let minimal = byte != 0 || shift == 0;
                return if minimal {
                    Ok(value)
                } else {
                    Err(DecodeError::Malformed("varint is not minimal"))
                };
            }
        }
        Err(DecodeError::Malformed("varint is longer than 64 bits"))
    }

    /// Reads a length-prefixed byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
        self.take(len)
    }

    /// Reads all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left, to bound allocations before trusting a count.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends reading; leftover bytes are an error.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

/// The bytes of a state by itself.
#[cfg(test)]
pub(crate) fn written(write: impl FnOnce(&mut Writer<'_, crate::Global>)) -> AVec<u8> {
    let mut bytes = AVec::new();
    write(&mut Writer::new(&mut bytes, 1));
    bytes
}

/// A state from bytes that hold nothing else.
#[cfg(test)]
pub(crate) fn read_whole<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut r = Reader::new(bytes, 1)?;
    let state = read(&mut r)?;
    r.finish()?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_varint_longer_than_its_value_needs_is_refused() {
        let read = |bytes: &[u8]| Reader::new(bytes, 1).unwrap().varint();
        assert_eq!(read(&[1, 0]), Ok(0));
        assert_eq!(read(&[1, 0x80, 1]), Ok(128));
        for longer in [&[1, 0x80, 0][..], &[1, 0x81, 0], &[1, 0xff, 0x80, 0]] {
            assert_eq!(read(longer), Err(DecodeError::Malformed("varint is not minimal")));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(a: u8, b: u32, c: i64, d: u64, e: Vec<u8>) {
            let mut out = AVec::new();
            let mut w = Writer::new(&mut out, 7);
            w.u8(a); w.u32(b); w.i64(c); w.varint(d); w.bytes(&e);
            let mut r = Reader::new(&out, 7).unwrap();
            prop_assert_eq!(r.u8().unwrap(), a);
            prop_assert_eq!(r.u32().unwrap(), b);
            prop_assert_eq!(r.i64().unwrap(), c);
            prop_assert_eq!(r.varint().unwrap(), d);
            prop_assert_eq!(r.bytes().unwrap(), &e[..]);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(mut r) = Reader::new(&bytes, 1) {
                while r.remaining() > 0 {
                    if r.varint().is_err() || r.bytes().is_err() { break; }
                }
            }
        }
    }
}
