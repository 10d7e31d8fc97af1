//! Files: decompressed, split into lines, known again by their content.
#![no_main]

use std::io::{BufReader, Cursor, Read, Write};

use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{bounded, joined, parts, seeds};
use tidemark_loader::event::envelope::sha256;
use tidemark_loader::files::{Progress, decompressed};
use tidemark_loader::files::{Lines, identify, is_blank, without_bom};

/// A file may hold any number of bytes in few; what is read of it is held in buffers of a fixed size.
const READ: u64 = 4 << 20;

fn check(content: &[u8], keep: usize, buffer: usize) {
    let identity = identify(content).expect("memory is readable");
    assert_eq!(identity.bytes, content.len() as u64);
    let mut expected: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
    // What ends with a newline has nothing behind it.
    expected.pop_if(|last| last.is_empty());
    assert_eq!(identity.lines, expected.len() as u64);
    let mut lines = Lines::new(BufReader::with_capacity(buffer, content), keep);
    for (number, expected) in expected.into_iter().enumerate() {
        let (line, oversize) = lines.next_line().expect("memory is readable").expect("as many lines");
        let whole = if expected.len() <= keep + 1 {
            expected.strip_suffix(b"\r").unwrap_or(expected)
        } else {
            expected
        };
        assert_eq!(line, &whole[..whole.len().min(keep)]);
        let known = oversize.map(|oversize| (oversize.bytes, oversize.sha256));
        assert_eq!(known, (whole.len() > keep).then(|| (whole.len() as u64, sha256(whole))));
        assert!(without_bom(number as i64, line).len() + 3 >= line.len());
        assert!(!is_blank(line) || line.iter().all(|byte| *byte <= b' '));
    }
    assert!(lines.next_line().expect("memory is readable").is_none());
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
        [skippable, &zstd(b"a\n"), &zstd(&[b'x'; 100_000])].concat(),
    ]
    .iter()
    .map(|content| joined(&[&[8, 3], content]))
    .collect()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [numbers, content] = parts(data);
    let [keep, buffer] = [0, 1].map(|i| usize::from(numbers.get(i).copied().unwrap_or(7)));
    // The identity of a file is read with a buffer of 1 MiB.
    bounded((1 << 20) + 64 * content.len(), 1, || check(&content, keep, buffer + 1));
    // Four buffers of 256 KiB, and the state of a decoder.
    let plain = bounded(content.len() + READ as usize, 4, || {
        let mut out = Vec::new();
        let source = decompressed(Cursor::new(content.to_vec()), Progress::default());
        source.and_then(|source| source.take(READ).read_to_end(&mut out)).ok().map(|_| out)
    });
    if let Some(plain) = plain {
        let compressed = plain[..] != content[..plain.len().min(content.len())];
        let zstd = matches!(content.get(1..4), Some([0xb5, 0x2f, 0xfd] | [0x2a, 0x4d, 0x18]));
        assert!(!compressed || zstd || content.starts_with(b"\x1f\x8b"));
    }
});
