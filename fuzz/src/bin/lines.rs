//! Files: unwrapped, told what they are, taken apart into records, known again by their content.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{bounded, joined, parts, seeds};
use tidemark_loader::files::{Progress, Record, Records, identify, stream};

/// A file may hold any number of bytes in few; what is read of it is held in buffers of a fixed size.
const MOST: u64 = 4 << 20;

/// Whatever it is, it gives the same records twice, none of them longer than wanted, and as many as its identity says.
fn check(content: &[u8], keep: usize) {
    let open = || stream(Cursor::new(content.to_vec()), Progress::default()).expect("nothing was read yet");
    let (mut records, mut record) = (Records::new(open()), Record::new(keep));
    let (mut count, mut bytes) = (0u64, 0u64);
    let ended = loop {
        match records.read(&mut record) {
            Ok(true) => {}
            Ok(false) => break true,
            Err(_) => break false,
        }
        assert!(record.bytes.len() <= keep);
        assert!(record.oversize.as_ref().is_none_or(|o| o.bytes > keep as u64));
        count += 1;
        bytes += record.bytes.len() as u64;
        if bytes + count > MOST {
            return;
        }
    };
    let identity = identify(open());
    assert_eq!(identity.is_ok(), ended);
    assert!(identity.is_err() || identity.is_ok_and(|identity| identity.records == count));
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).expect("memory is writable");
    encoder.finish().expect("memory is writable")
}

fn examples() -> Vec<Vec<u8>> {
    let text = b"\xef\xbb\xbf{\"a\":1}\r\n\n \n{\"long\":\"0123456789\"}\nlast".as_slice();
    let zstd = |content: &[u8]| zstd::encode_all(content, 1).expect("memory is writable");
    let skippable = b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx".as_slice();
    [
        text.to_vec(),
        gzip(text),
        [gzip(b"a\nb"), gzip(b""), gzip(b"c\n")].concat(),
        gzip(&[b'\n'; 100_000]),
        zstd(text),
        b"[{\"a\": \"]\"}, 2,\n{\"b\": [1]}]".to_vec(),
        b"{\n \"a\": 1\n}\n{}".to_vec(),
        b"id,\"name\"\n1,\"a\"\"b\"\n2,\n".to_vec(),
        b"id\tname\n1\t\"\n".to_vec(),
        [skippable, &zstd(b"a\n"), &zstd(&[b'x'; 100_000])].concat(),
    ]
    .iter()
    .map(|content| joined(&[&[8, 3], content]))
    .collect()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [numbers, content] = parts(data);
    let keep = usize::from(numbers.first().copied().unwrap_or(7));
    // Pieces on their way, buffers of decoders in layers, and what xz and zstd hold of what was before.
    bounded((256 << 20) + 64 * content.len(), 4, || check(&content, keep));
});
