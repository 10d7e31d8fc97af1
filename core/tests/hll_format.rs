//! The stored bytes of an HLL: golden vectors worked out by hand from the storage spec, and refusal of anything else.
#![allow(clippy::unwrap_used, clippy::panic)]

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tidemark_core::hll::{Config, Cutoff, EncodedRef, Encoding, HllError, Sketch, estimate_encoded, hash};
use tidemark_core::{AVec, Global};

fn bytes(sketch: &Sketch<Global>) -> Vec<u8> {
    let mut out = AVec::new();
    sketch.encode(&mut out, ());
    out.to_vec()
}

fn of(config: Config, hashes: &[u64]) -> Sketch<Global> {
    let mut sketch = Sketch::new_in(config, Global);
    hashes.iter().for_each(|&hash| sketch.insert_hash(hash));
    sketch
}

fn decode(bytes: &[u8]) -> Result<Sketch<Global>, HllError> {
    Sketch::decode_in(bytes, Global, ())
}

fn mix(i: u64) -> u64 {
    hash::hash_i64(i.cast_signed())
}

#[test]
fn murmur3_agrees_with_published_vectors() {
    // From the reference implementation: low words of x64 128 with seed 0.
    assert_eq!(hash::hash_bytes(b""), 0);
    assert_eq!(hash::hash_bytes(b"hello"), 0xcbd8_a7b3_41bd_9b02);
    assert_eq!(hash::hash_bytes(b"hello, world"), 0x342f_ac62_3a5e_bc8e);
    assert_eq!(hash::hash_bytes(b"19 Jan 2038 at 3:14:07 AM"), 0xb89e_5988_b737_affc);
    assert_eq!(hash::hash_bytes(b"The quick brown fox jumps over the lazy dog."), 0xcd99_481f_9ee9_02c9);
}

#[test]
fn fast_paths_hash_as_the_same_bytes_do() {
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..1000 {
        let block: [u8; 16] = random.random();
        let n: i64 = random.random();
        assert_eq!(hash::hash_16(&block), hash::hash_bytes(&block));
        assert_eq!(hash::hash_i64(n), hash::hash_bytes(&n.to_le_bytes()));
        assert_eq!(hash::hash_i32(n as i32), hash::hash_bytes(&(n as i32).to_le_bytes()));
        assert_eq!(hash::hash_i16(n as i16), hash::hash_bytes(&(n as i16).to_le_bytes()));
    }
    assert_ne!(hash::hash_i32(5), hash::hash_i64(5));
}

#[test]
fn empty_is_a_header() {
    assert_eq!(bytes(&of(Config::default(), &[])), [0x11, 0x8e, 0x48]);
    assert_eq!(bytes(&of(Config::with_log2m(12).unwrap(), &[])), [0x11, 0x8c, 0x48]);
    let theirs = Config::new(11, 5, Cutoff::Auto, true).unwrap();
    assert_eq!(bytes(&of(theirs, &[])), [0x11, 0x8b, 0x7f]);
}

#[test]
fn explicit_hashes_ascend_as_signed_numbers() {
    let expected = [
        0x12, 0x8e, 0x48, //
        0x80, 0, 0, 0, 0, 0, 0, 1, // -2^63 + 1
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // -1
        0, 0, 0, 0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 2,
    ];
    assert_eq!(bytes(&of(Config::default(), &[2, u64::MAX, 0, (1 << 63) | 1, 2, 0])), expected);
    assert_eq!(estimate_encoded(&expected, ()), Ok(4.0));
    assert_eq!(bytes(&decode(&expected).unwrap()), expected);
}

#[test]
fn sparse_words_hold_index_then_value() {
    // log2m 11, 5-bit registers, no explicit form. Hash 0x801: index 1, rest 1 -> value 1. Hash 0x1002: index 2,
    // rest 0b10 -> value 2. Words of 16 bits: 1 << 5 | 1 = 0x0021 and 2 << 5 | 2 = 0x0042.
    let config = Config::new(11, 5, Cutoff::Never, true).unwrap();
    assert_eq!(bytes(&of(config, &[0x801, 0x1002])), [0x13, 0x8b, 0x40, 0x00, 0x21, 0x00, 0x42]);
    // log2m 4, 6-bit: words of 10 bits. Hash 0x1f: index 15, rest 1 -> 0b1111_000001, padded to 2 bytes.
    let config = Config::new(4, 6, Cutoff::Never, true).unwrap();
    assert_eq!(bytes(&of(config, &[0x1f])), [0x13, 0xa4, 0x40, 0b1111_0000, 0b0100_0000]);
}

#[test]
fn full_registers_are_packed_from_the_high_bit() {
    // log2m 4, 5-bit: register 0 has value 1 (hash 0x10), register 1 value 31 (capped), register 15 value 2.
    let config = Config::new(4, 5, Cutoff::Never, false).unwrap();
    let sketch = of(config, &[0x10, (1 << 50) | 1, 0x2f]);
    assert_eq!(
        bytes(&sketch),
        [0x14, 0x84, 0x00, 0b0000_1111, 0b1100_0000, 0, 0, 0, 0, 0, 0, 0, 0b0000_0010]
    );
}

#[test]
fn a_hash_without_bits_above_the_index_raises_nothing_but_is_not_forgotten() {
    let config = Config::new(11, 5, Cutoff::Never, true).unwrap();
    let sketch = of(config, &[7]);
    assert_eq!(bytes(&sketch), [0x13, 0x8b, 0x40]);
    assert!(!sketch.is_empty());
    assert_eq!(sketch.estimate(), 0.0);
    assert_eq!(bytes(&decode(&[0x13, 0x8b, 0x40]).unwrap()), [0x13, 0x8b, 0x40]);
}

#[test]
fn each_encoding_begins_where_the_cutoffs_say() {
    let mut sketch = of(Config::default(), &[]);
    assert_eq!(sketch.encoding(), (Encoding::Empty, 3));
    for n in 0..8_000u64 {
        sketch.insert_hash(mix(n));
        let (encoding, len) = sketch.encoding();
        match n + 1 {
            1..=128 => assert_eq!((encoding, len), (Encoding::Explicit, 3 + 8 * (n as usize + 1))),
            129..=4700 => assert_eq!(encoding, Encoding::Sparse),
            6000.. => assert_eq!((encoding, len), (Encoding::Full, 3 + 10 * 1024)),
            _ => assert!(len <= 3 + 10 * 1024),
        }
    }
}

#[test]
fn every_configuration_survives_its_bytes() {
    for log2m in [4, 5, 6, 7, 8, 9, 10, 11, 14, 17] {
        for regwidth in 1..=8 {
            for cutoff in [Cutoff::Never, Cutoff::Auto, Cutoff::UpTo(1), Cutoff::UpTo(128)] {
                for sparse in [false, true] {
                    let config = Config::new(log2m, regwidth, cutoff, sparse).unwrap();
                    // Large sketches differ from small ones in nothing but time.
                    let sizes: &[u64] = if log2m > 10 { &[2, 1000] } else { &[0, 1, 2, 3, 100, 129, 1000] };
                    for &n in sizes {
                        let hashes: Vec<u64> = (0..n).map(mix).collect();
                        let sketch = of(config, &hashes);
                        let stored = bytes(&sketch);
                        assert_eq!(stored.len(), sketch.encoding().1);
                        let again = decode(&stored).unwrap();
                        assert_eq!(again.config(), config);
                        assert_eq!(bytes(&again), stored, "{config:?} {n}");
                        assert_eq!(again.estimate(), sketch.estimate());
                        assert_eq!(estimate_encoded(&stored, ()), Ok(sketch.estimate()));
                    }
                }
            }
        }
    }
}

#[test]
fn sparse_and_full_forms_of_the_same_registers_read_the_same() {
    let config = Config::new(6, 5, Cutoff::Never, true).unwrap();
    let no_sparse = Config::new(6, 5, Cutoff::Never, false).unwrap();
    let mut full = bytes(&of(no_sparse, &[mix(1), mix(2)]));
    full[2] = 0x40;
    assert_eq!(EncodedRef::parse(&full).unwrap().encoding(), Encoding::Full);
    assert_eq!(bytes(&decode(&full).unwrap()), bytes(&of(config, &[mix(1), mix(2)])));
}

#[test]
fn malformed_bytes_are_refused_with_the_place() {
    use HllError as E;
    let cases: &[(&[u8], E)] = &[
        (&[], E::Header(0)),
        (&[0x11, 0xae], E::Header(2)),
        (&[0x21, 0xae, 0x48], E::Version(2)),
        (&[0xf1], E::Version(15)),
        (&[0x10, 0xae, 0x48], E::Undefined),
        (&[0x15, 0xae, 0x48], E::Type(5)),
        (&[0x11, 0xa3, 0x48], E::Log2m(3)),
        (&[0x11, 0xb2, 0x48], E::Log2m(18)),
        (&[0x11, 0xae, 0xc8], E::CutoffByte(0xc8)),
        (&[0x11, 0xae, 0x60], E::CutoffByte(0x60)),
        (&[0x11, 0xae, 0x48, 0], E::Length { encoding: Encoding::Empty, found: 4 }),
        (&[0x12, 0xae, 0x48], E::Length { encoding: Encoding::Explicit, found: 3 }),
        (&[0x12, 0xae, 0x48, 1], E::Length { encoding: Encoding::Explicit, found: 4 }),
        (&[0x12, 0xae, 0x40, 0, 0, 0, 0, 0, 0, 0, 0], E::OverCutoff { found: 1, limit: 0 }),
        (
            &[0x12, 0xae, 0x48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            E::Order { encoding: Encoding::Explicit, entry: 1 },
        ),
        (&[0x13, 0x8b, 0x40, 0x00, 0x42, 0x00, 0x21], E::Order { encoding: Encoding::Sparse, entry: 1 }),
        (&[0x13, 0x8b, 0x40, 0x00, 0x20], E::Register { register: 1, value: 0 }),
        (&[0x13, 0x8b, 0x40, 0x00], E::Length { encoding: Encoding::Sparse, found: 4 }),
        (&[0x13, 0xa4, 0x40, 0b1111_0000, 0b0100_0001], E::Padding),
        // log2m 4, 6-bit: a value above 60 needs more bits than the hash has left.
        (&[0x13, 0xa4, 0x40, 0b1111_1111, 0b0100_0000], E::Register { register: 15, value: 61 }),
        (&[0x14, 0xa4, 0x40, 0, 0], E::Length { encoding: Encoding::Full, found: 5 }),
        (&[0x14, 0xa4, 0x40, 0, 0, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0], E::Register { register: 3, value: 63 }),
    ];
    for (stored, error) in cases {
        assert_eq!(decode(stored).err().as_ref(), Some(error), "{stored:02x?}");
        assert_eq!(estimate_encoded(stored, ()).as_ref(), Err(error), "{stored:02x?}");
        let validated = EncodedRef::parse(stored).and_then(|encoded| encoded.validate(()));
        assert_eq!(validated.as_ref(), Err(error), "{stored:02x?}");
    }
}

/// As postgresql-hll: SPARSE as long as it has fewer bits, also where both have as many bytes.
#[test]
fn sparse_as_long_as_it_has_fewer_bits() {
    for (log2m, registers, encoding) in [
        (11, 639, Encoding::Sparse),
        (11, 640, Encoding::Full),
        (10, 341, Encoding::Sparse),
        (10, 342, Encoding::Full),
        (15, 8191, Encoding::Sparse),
        (15, 8192, Encoding::Full),
    ] {
        // The low bits choose the register, the next one says that its value is 1.
        let hashes: Vec<u64> = (0..registers).map(|register| 1 << log2m | register).collect();
        let sketch = of(Config::with_log2m(log2m).unwrap(), &hashes);
        assert_eq!(sketch.encoding().0, encoding, "log2m {log2m}, {registers} registers");
    }
}

#[test]
fn configurations_out_of_range_are_refused() {
    assert_eq!(Config::with_log2m(3), Err(HllError::Log2m(3)));
    assert_eq!(Config::with_log2m(18), Err(HllError::Log2m(18)));
    assert_eq!(Config::with_log2m(-1), Err(HllError::Log2m(-1)));
    assert_eq!(Config::new(14, 0, Cutoff::Auto, true), Err(HllError::Regwidth(0)));
    assert_eq!(Config::new(14, 9, Cutoff::Auto, true), Err(HllError::Regwidth(9)));
    assert_eq!(Config::new(14, 6, Cutoff::UpTo(100), true), Err(HllError::Cutoff(100)));
    assert_eq!(Config::with_log2m(14), Ok(Config::default()));
}

/// Whatever the bytes, all readers agree on whether they are a sketch, and writing a sketch back is stable.
fn check(stored: &[u8]) -> bool {
    let decoded = decode(stored);
    let estimated = estimate_encoded(stored, ());
    let merged = EncodedRef::parse(stored).and_then(|encoded| {
        let mut sketch = of(Config::default(), &[mix(1)]);
        sketch.merge_encoded(&encoded, ())
    });
    assert_eq!(decoded.as_ref().err(), estimated.as_ref().err());
    assert_eq!(decoded.as_ref().err(), merged.as_ref().err());
    let Ok(sketch) = decoded else { return false };
    assert_eq!(estimated, Ok(sketch.estimate()));
    let again = bytes(&sketch);
    assert_eq!(bytes(&decode(&again).unwrap()), again);
    true
}

#[test]
fn random_and_mutated_bytes_are_read_or_refused() {
    let mut random = SmallRng::seed_from_u64(7);
    let mut valid = 0;
    for round in 0..60_000u64 {
        // Small registers keep sketches small, so that mutations hit structure and not only contents.
        let config =
            Config::new(4 + (round % 5) as i32, 1 + (round % 8) as i32, Cutoff::UpTo(8), round % 3 != 0);
        let hashes: Vec<u64> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
        let mut stored = bytes(&of(config.unwrap(), &hashes));
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..stored.len());
            match random.random_range(0..4) {
                0 => stored[at] ^= 1 << random.random_range(0..8),
                1 => stored[at] = random.random(),
                2 => stored.insert(at, random.random()),
                _ => stored.truncate(at.max(1)),
            }
        }
        valid += usize::from(check(&stored));
    }
    for _ in 0..40_000 {
        let mut stored: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random()).collect();
        if let Some(first) = stored.first_mut() {
            *first = *first & 7 | 0x10;
        }
        valid += usize::from(check(&stored));
    }
    assert!(valid > 1000, "mutations were hardly ever valid: {valid}");
}
