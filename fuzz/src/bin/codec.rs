//! The reader of partial states, asked for anything in any order.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidemark_core::AVec;
use tidemark_core::codec::{Reader, Writer};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Ask {
    U8,
    U32,
    I64,
    F64,
    Varint,
    Bytes,
}

fuzz_target!(|input: (Vec<Ask>, &[u8])| {
    let (asks, bytes) = input;
    let Ok(mut r) = Reader::new(bytes, 1) else { return };
    let mut written = AVec::new();
    let mut w = Writer::new(&mut written, 1);
    for ask in asks {
        let left = r.remaining();
        let answered = match ask {
            Ask::U8 => r.u8().map(|v| w.u8(v)),
            Ask::U32 => r.u32().map(|v| w.u32(v)),
            Ask::I64 => r.i64().map(|v| w.i64(v)),
            Ask::F64 => r.f64().map(|v| w.f64(v)),
            Ask::Varint => r.varint().map(|v| w.varint(v)),
            Ask::Bytes => r.bytes().map(|v| w.bytes(v)),
        };
        assert!(r.remaining() <= left);
        if answered.is_err() {
            return;
        }
    }
    let left = r.remaining();
    assert_eq!(r.finish().is_ok(), left == 0);
    assert_eq!(written, bytes[..bytes.len() - left]);
});
