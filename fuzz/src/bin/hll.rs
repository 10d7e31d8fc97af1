//! Stored HyperLogLog sketches: read, estimated, united, written again.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidemark_core::hll::{Config, EncodedRef, Sketch, estimate_encoded};
use tidemark_core::{AVec, Global};
use tidemark_fuzz::bounded;

#[derive(Arbitrary, Debug)]
struct Stored<'a> {
    encoding: u8,
    parameters: u8,
    cutoff: u8,
    body: Body<'a>,
}

#[derive(Arbitrary, Debug)]
enum Body<'a> {
    Bytes(&'a [u8]),
    /// These bytes over and over, as many as a FULL sketch has.
    Full(&'a [u8]),
    /// Hashes that a producer chose: `start`, `start + step`, ..
    Hashes {
        start: i64,
        step: Step,
        log2_count: u8,
    },
    /// What our own sketch writes.
    Ours {
        log2m: u8,
        seed: u64,
        log2_count: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Step {
    Any(u64),
    PowerOfTwo(u8),
}

impl Stored<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0x10 | self.encoding % 6, self.parameters, self.cutoff];
        match self.body {
            Body::Bytes(bytes) => out.extend_from_slice(bytes),
            Body::Full(bytes) => {
                out[0] = 0x14;
                let len =
                    (1usize << (self.parameters & 31).min(17)) / 8 * usize::from((self.parameters >> 5) + 1);
                out.extend(bytes.iter().cycle().take(len));
            }
            Body::Hashes { start, ref step, log2_count } => {
                let step = match step {
                    Step::Any(step) => *step,
                    Step::PowerOfTwo(log2) => 1 << (log2 % 64),
                };
                out[0] = 0x12;
                let mut hash = Some(start);
                for _ in 0..1 << (log2_count % 19) {
                    let Some(this) = hash else { break };
                    out.extend_from_slice(&this.to_be_bytes());
                    hash = this.checked_add_unsigned(step);
                }
            }
            Body::Ours { log2m, seed, log2_count } => {
                let mut sketch =
                    Sketch::new_in(Config::with_log2m((log2m % 14 + 4).into()).expect("4 to 17"), Global);
                // Any sequence that does not repeat will do.
                (0..1u64 << (log2_count % 17))
                    .for_each(|n| sketch.insert_hash((n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                return written(&sketch);
            }
        }
        out
    }
}

fn written(sketch: &Sketch<Global>) -> Vec<u8> {
    let mut out = AVec::new();
    sketch.encode(&mut out, ());
    assert_eq!(out.len(), sketch.encoding().1);
    out.to_vec()
}

/// The sketch, if the bytes hold one.
fn read(bytes: &[u8]) -> Option<Sketch<Global>> {
    let sketch = bounded(bytes.len(), 8, || Sketch::decode_in(bytes, Global, ()));
    let estimate = bounded(0, 0, || estimate_encoded(bytes, ()));
    let valid = EncodedRef::parse(bytes).and_then(|encoded| encoded.validate(()));
    assert_eq!(valid.as_ref().err(), sketch.as_ref().err());
    assert_eq!(estimate.as_ref().err(), sketch.as_ref().err());
    let (sketch, estimate) = (sketch.ok()?, estimate.ok()?);
    assert!(estimate >= 0.0, "{estimate}");
    assert_eq!(estimate, sketch.estimate());
    Some(sketch)
}

fuzz_target!(|input: (Stored<'_>, Stored<'_>)| {
    let (a, b) = (input.0.bytes(), input.1.bytes());
    for bytes in [&a, &b] {
        if let Some(sketch) = read(bytes) {
            let canonical = written(&sketch);
            let again = read(&canonical).expect("what was written is read");
            assert_eq!(written(&again), canonical);
            assert_eq!(again.estimate(), sketch.estimate());
            let mut twice = again;
            twice.merge(&sketch, ());
            assert_eq!(written(&twice), canonical, "a union with itself");
        }
    }
    let (Some(mut left), Some(mut right)) = (read(&a), read(&b)) else { return };
    left.merge(&right, ());
    right.merge_encoded(&EncodedRef::parse(&a).expect("read before"), ()).expect("read before");
    let union = written(&left);
    assert_eq!(union, written(&right));
    assert!(read(&union).is_some());
    left.merge(&read(&b).expect("read before"), ());
    assert_eq!(written(&left), union, "a union with a part of it");
});
