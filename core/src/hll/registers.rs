//! Register rules: which register a hash raises, folding to fewer registers, and the packed forms of the spec.

use super::config::Config;
use super::{Encoding, HllError};
use crate::{AVec, Allocator};

/// Where and how high a hash raises a register: index below 2^log2m, value of at most `cap` (0 = not at all).
#[inline]
pub(super) fn rule(hash: u64, log2m: u8, cap: u8) -> (usize, u8) {
    let index = hash as usize & ((1 << log2m) - 1);
    let rest = hash >> log2m;
    let value = if rest == 0 { 0 } else { (rest.trailing_zeros() as u8 + 1).min(cap) };
    (index, value)
}

/// What a register of a sketch with `from` index bits means to one with `to` of them (`to <= from`).
///
/// The dropped index bits become the low bits of the rest of the hash, so they decide the value unless all of them
/// are zero. A register of zero stays zero.
#[inline]
pub(super) fn fold(index: usize, value: u8, from: u8, to: u8, cap: u8) -> (usize, u8) {
    let dropped = index >> to;
    let value = match (value, dropped) {
        (0, _) => 0,
        (_, 0) => value + (from - to),
        _ => dropped.trailing_zeros() as u8 + 1,
    };
    (index & ((1 << to) - 1), value.min(cap))
}

/// Raises one register.
#[inline]
pub(super) fn raise(registers: &mut [u8], index: usize, value: u8) {
    if let Some(register) = registers.get_mut(index)
        && *register < value
    {
        *register = value;
    }
}

/// The maximum of two sketches of equal configuration, register by register.
pub(super) fn raise_all(registers: &mut [u8], other: &[u8]) {
    for (register, &value) in registers.iter_mut().zip(other) {
        *register = (*register).max(value);
    }
}

/// Masks of the low four, two and one of each eight, four and two fields of `w` bits, in lanes of 64, 32 and 16.
const fn masks(w: usize) -> (u64, u64, u64) {
    ((1 << (4 * w)) - 1, ((1 << (2 * w)) - 1) * 0x1_0000_0001, ((1 << w) - 1) * 0x1_0001_0001_0001)
}

/// Moves eight adjacent fields of `W` bits to one byte each, by halving three times.
#[inline]
fn spread<const W: usize>(word: u64) -> u64 {
    let (four, two, one) = const { masks(W) };
    let word = word & four | word >> (4 * W) << 32;
    let word = word & two | (word >> (2 * W) & two) << 16;
    word & one | (word >> W & one) << 8
}

/// The inverse of [`spread`].
#[inline]
fn squeeze<const W: usize>(word: u64) -> u64 {
    let (four, two, one) = const { masks(W) };
    let word = word & one | (word >> 8 & one) << W;
    let word = word & two | (word >> 16 & two) << (2 * W);
    word & four | word >> 32 << (4 * W)
}

/// Registers unpacked at a time: enough that taking their maximum runs in vector registers.
const BLOCK: usize = 128;

/// Unpacks the registers of FULL bytes; returns how many.
///
/// Eight registers of `W` bits are exactly `W` bytes, most significant bit first. They are read as a whole word
/// where there is one, the extra bytes shifted out: copying exactly `W` bytes first costs twice the time.
fn unpack_width<const W: usize>(bytes: &[u8], from: usize, block: &mut [u8; BLOCK]) -> usize {
    let mut rest = bytes.get(from / 8 * W..).unwrap_or_default();
    let mut count = 0;
    for eight in block.as_chunks_mut::<8>().0 {
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word) >> (64 - 8 * W),
            None if rest.len() >= W => rest.iter().take(W).fold(0, |w, &byte| w << 8 | u64::from(byte)),
            None => break,
        };
        *eight = spread::<W>(word).to_be_bytes();
        rest = rest.get(W..).unwrap_or_default();
        count += 8;
    }
    count
}

/// The inverse of [`unpack_width`], writing whole words likewise: the next one overwrites the extra bytes.
fn pack_width<const W: usize>(registers: &[u8], out: &mut [u8]) {
    for (at, eight) in registers.as_chunks::<8>().0.iter().enumerate() {
        let word = squeeze::<W>(u64::from_be_bytes(*eight)) << (64 - 8 * W);
        let Some(rest) = out.get_mut(at * W..) else { break };
        match rest.first_chunk_mut::<8>() {
            Some(chunk) => *chunk = word.to_be_bytes(),
            None => rest.iter_mut().zip(word.to_be_bytes()).for_each(|(out, byte)| *out = byte),
        }
    }
}

/// Calls `f(first_index, registers)` for consecutive blocks of the registers of FULL bytes.
fn unpack(bytes: &[u8], regwidth: u8, mut f: impl FnMut(usize, &[u8])) {
    let unpack = match regwidth {
        1 => unpack_width::<1>,
        2 => unpack_width::<2>,
        3 => unpack_width::<3>,
        4 => unpack_width::<4>,
        5 => unpack_width::<5>,
        6 => unpack_width::<6>,
        7 => unpack_width::<7>,
        _ => unpack_width::<8>,
    };
    let mut block = [0u8; BLOCK];
    let mut from = 0;
    loop {
        let count = unpack(bytes, from, &mut block);
        if count == 0 {
            return;
        }
        f(from, block.get(..count).unwrap_or_default());
        from += count;
    }
}

/// Visits all registers of FULL bytes in blocks and refuses values that no hash can produce.
///
/// The check comes after the visit, so the visitor sees impossible values before the error.
pub(super) fn visit_full(
    bytes: &[u8],
    config: Config,
    mut f: impl FnMut(usize, &[u8]),
) -> Result<(), HllError> {
    let max = config.max_register();
    let mut highest = [0u8; BLOCK];
    unpack(bytes, config.regwidth(), |from, block| {
        raise_all(&mut highest, block);
        f(from, block);
    });
    if highest.iter().all(|&value| value <= max) {
        return Ok(());
    }
    let mut bad = None;
    unpack(bytes, config.regwidth(), |from, block| {
        for (i, &value) in block.iter().enumerate().filter(|&(_, &value)| value > max) {
            bad.get_or_insert(HllError::Register { register: from + i, value });
        }
    });
    bad.map_or(Ok(()), Err)
}

/// Appends FULL bytes.
pub(super) fn pack_full<B: Allocator>(registers: &[u8], config: Config, out: &mut AVec<u8, B>) {
    let start = out.len();
    out.resize(start + config.full_len(), 0);
    let Some(body) = out.get_mut(start..) else { return };
    match config.regwidth() {
        1 => pack_width::<1>(registers, body),
        2 => pack_width::<2>(registers, body),
        3 => pack_width::<3>(registers, body),
        4 => pack_width::<4>(registers, body),
        5 => pack_width::<5>(registers, body),
        6 => pack_width::<6>(registers, body),
        7 => pack_width::<7>(registers, body),
        _ => pack_width::<8>(registers, body),
    }
}

/// Visits all (index, value) entries of SPARSE bytes, checking order, values and padding as it goes.
pub(super) fn visit_sparse(
    bytes: &[u8],
    config: Config,
    mut f: impl FnMut(usize, u8),
) -> Result<(), HllError> {
    let bits = config.sparse_bits();
    let width = config.regwidth();
    let max = config.max_register();
    let entries = bytes.len() * 8 / bits;
    if config.sparse_len(entries) != bytes.len() {
        return Err(HllError::Length { encoding: Encoding::Sparse, found: bytes.len() + 3 });
    }
    let mut buffer = 0u64;
    let mut have = 0usize;
    let mut rest = bytes.iter();
    let mut previous = None;
    for entry in 0..entries {
        while have < bits {
            let Some(&byte) = rest.next() else { break };
            buffer = buffer << 8 | u64::from(byte);
            have += 8;
        }
        have -= bits;
        let word = (buffer >> have) as usize & ((1 << bits) - 1);
        if word == 0 && entry + 1 == entries && config.sparse_len(entry) == bytes.len() {
            // Entries shorter than a byte: what looks like one more entry is the padding of the last one.
            break;
        }
        let index = word >> width;
        let value = (word & ((1 << width) - 1)) as u8;
        if previous.is_some_and(|p| index <= p) {
            return Err(HllError::Order { encoding: Encoding::Sparse, entry });
        }
        if value == 0 || value > max {
            return Err(HllError::Register { register: index, value });
        }
        f(index, value);
        previous = Some(index);
    }
    if buffer & ((1 << have) - 1) != 0 {
        return Err(HllError::Padding);
    }
    Ok(())
}

/// Appends SPARSE bytes.
pub(super) fn pack_sparse<B: Allocator>(registers: &[u8], config: Config, out: &mut AVec<u8, B>) {
    let bits = config.sparse_bits();
    let mut buffer = 0u64;
    let mut have = 0usize;
    for (index, &value) in registers.iter().enumerate().filter(|&(_, &value)| value != 0) {
        buffer = buffer << bits | (index as u64) << config.regwidth() | u64::from(value);
        have += bits;
        while have >= 8 {
            have -= 8;
            out.push((buffer >> have) as u8);
        }
    }
    if have > 0 {
        out.push((buffer << (8 - have)) as u8);
    }
}
