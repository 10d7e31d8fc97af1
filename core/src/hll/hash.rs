//! MurmurHash3 x64 128 (Austin Appleby, public domain), of which only the low word is kept, with seed 0.
//!
//! The input is the value's own bytes: text and bytea payload, integers little-endian at their width. So the same
//! number as `integer` and as `bigint` has different hashes, as in other implementations of the HLL spec.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

#[inline]
fn mix1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

#[inline]
fn mix2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

#[inline]
fn finish(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[inline]
fn low_word(h1: u64, h2: u64, len: u64) -> u64 {
    let h1 = h1 ^ len;
    let h2 = h2 ^ len;
    let h1 = h1.wrapping_add(h2);
    let h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

#[inline]
fn round(h1: u64, h2: u64, k1: u64, k2: u64) -> (u64, u64) {
    let h1 = (h1 ^ mix1(k1)).rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
    let h2 = (h2 ^ mix2(k2)).rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    (h1, h2)
}

/// At most 8 bytes, little-endian, the missing ones zero.
#[inline]
fn partial(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    bytes.iter().rev().fold(0, |k, &b| (k << 8) | u64::from(b))
}

/// The hash of a byte string of any length, the empty one included (whose hash is 0).
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let (blocks, tail) = bytes.as_chunks::<16>();
    let (mut h1, mut h2) = (0, 0);
    for block in blocks {
        let (low, high) = block.split_at(8);
        (h1, h2) = round(h1, h2, partial(low), partial(high));
    }
    // A word of zeros mixes to zero, so an absent word needs no branch.
    let (low, high) = tail.split_at(tail.len().min(8));
    h1 ^= mix1(partial(low));
    h2 ^= mix2(partial(high));
    low_word(h1, h2, bytes.len() as u64)
}

/// The hash of a 16-bit integer: of its 2 bytes, little-endian.
#[inline]
pub fn hash_i16(value: i16) -> u64 {
    low_word(mix1(u64::from(value.cast_unsigned())), 0, 2)
}

/// The hash of a 32-bit integer: of its 4 bytes, little-endian.
#[inline]
pub fn hash_i32(value: i32) -> u64 {
    low_word(mix1(u64::from(value.cast_unsigned())), 0, 4)
}

/// The hash of a 64-bit integer: of its 8 bytes, little-endian.
#[inline]
pub fn hash_i64(value: i64) -> u64 {
    low_word(mix1(value.cast_unsigned()), 0, 8)
}

/// The hash of 16 bytes, such as a uuid's.
#[inline]
pub fn hash_16(bytes: &[u8; 16]) -> u64 {
    let (low, high) = bytes.split_at(8);
    let (h1, h2) = round(0, 0, partial(low), partial(high));
    low_word(h1, h2, 16)
}
