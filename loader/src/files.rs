//! Files of events: their bytes, plain, gzip or zstd, told apart by their first bytes and not by a name, from disk or from
//! standard input; and NDJSON as lines of these bytes: bounded memory for a line of any length, CRLF tolerated, no
//! assumption about encoding.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::batch::Oversize;
use crate::event::envelope::sha256;

const BUFFER: usize = 1 << 18;

/// Bytes ready to be read as lines.
pub type Input = Box<dyn BufRead + Send>;

/// How many bytes were taken from the source so far, before decompression.
pub type Progress = Arc<AtomicU64>;

struct Counted<R> {
    inner: R,
    read: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Opens a file, decompressed if need be.
pub fn open(path: &Path, progress: Progress) -> io::Result<Input> {
    decompressed(File::open(path)?, progress)
}

/// Standard input, decompressed if need be. Waits for its first bytes.
pub fn standard_input(progress: Progress) -> io::Result<Input> {
    decompressed(io::stdin(), progress)
}

/// The content of a source: that of all members of a gzip file or all frames of a zstd file, one after the other.
pub fn decompressed(source: impl Read + Send + 'static, progress: Progress) -> io::Result<Input> {
    let mut source = Counted { inner: source, read: progress };
    let mut head = Vec::with_capacity(4);
    (&mut source).take(4).read_to_end(&mut head)?;
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    // The second form is a skippable frame, with which some tools begin.
    let zstd = matches!(head[..], [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
    Ok(if gzip {
        Box::new(BufReader::with_capacity(BUFFER, Named("gzip", flate2::bufread::MultiGzDecoder::new(whole))))
    } else if zstd {
        decompressed_by_zstd(whole)?
    } else {
        Box::new(whole)
    })
}

#[cfg(feature = "zstd")]
fn decompressed_by_zstd(whole: impl BufRead + Send + 'static) -> io::Result<Input> {
    let decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, Named("zstd", decoder))))
}

#[cfg(not(feature = "zstd"))]
fn decompressed_by_zstd(_: impl BufRead) -> io::Result<Input> {
    let why = "it is compressed by zstd, which this tidemark was built without; decompress it, or build one with all \
               features (cargo build --release -p tidemark-cli)";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// A decoder whose errors say what was decoded: what libraries say about a file that was cut short puzzles people.
struct Named<R>(&'static str, R);

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            io::ErrorKind::UnexpectedEof => io::Error::new(
                e.kind(),
                format!("its {} data ends in the middle: the file was cut short", self.0),
            ),
            kind => io::Error::new(kind, format!("its {} data is damaged: {e}", self.0)),
        })
    }
}

/// Reads lines, keeping at most `keep` bytes of each.
pub struct Lines<R> {
    reader: R,
    keep: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `reader`, cut after `keep` bytes.
    pub fn new(reader: R, keep: usize) -> Self {
        Lines { reader, keep, line: Vec::new() }
    }

    /// The next line without its end, and its true size if it was cut; `None` at the end of the input. A last line
    /// without a newline counts.
    pub fn next_line(&mut self) -> io::Result<Option<(&[u8], Option<Oversize>)>> {
        self.line.clear();
        // Room for the CR of a line that just fits.
        let limit = self.keep + 1;
        let mut total = 0u64;
        let mut hasher: Option<Sha256> = None;
        let mut ended = false;
        while !ended {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                if total == 0 {
                    return Ok(None);
                }
                break;
            }
            let (piece, used) = match memchr::memchr(b'\n', available) {
                Some(at) => {
                    ended = true;
                    (&available[..at], at + 1)
                }
                None => (available, available.len()),
            };
            total += piece.len() as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(piece);
            } else if total <= limit as u64 {
                self.line.extend_from_slice(piece);
            } else {
                let mut new = Sha256::new();
                new.update(&self.line);
                new.update(piece);
                hasher = Some(new);
                self.line.extend_from_slice(&piece[..limit - self.line.len()]);
            }
            self.reader.consume(used);
        }
        let mut oversize = hasher.map(|h| Oversize { bytes: total, sha256: h.finalize().into() });
        if oversize.is_none() {
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            if self.line.len() > self.keep {
                oversize = Some(Oversize { bytes: self.line.len() as u64, sha256: sha256(&self.line) });
            }
        }
        self.line.truncate(self.keep);
        Ok(Some((&self.line, oversize)))
    }
}

/// The first line of a file (number 0) without the byte order mark that some editors put there; any other line as it is.
pub fn without_bom(number: i64, line: &[u8]) -> &[u8] {
    if number == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
}

/// Whether a line holds nothing: it is skipped and counted as filtered.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// What makes a file the same file: its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Number of lines, a last one without a newline included.
    pub lines: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Reads everything once to learn its identity.
pub fn identify(mut reader: impl Read) -> io::Result<Identity> {
    let mut buffer = vec![0u8; 1 << 20];
    let mut hasher = Sha256::new();
    let (mut lines, mut bytes, mut last) = (0u64, 0u64, b'\n');
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..n]);
        lines += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
        bytes += n as u64;
        last = buffer[n - 1];
    }
    lines += u64::from(last != b'\n');
    let sha256 = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Identity { sha256, lines, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Write};

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(content, 1).unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        /// Gives one byte at a time, as a slow pipe does.
        struct Slow(Cursor<Vec<u8>>);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = buffer.len().min(1);
                self.0.read(&mut buffer[..n])
            }
        }
        let progress = Progress::default();
        let mut out = Vec::new();
        decompressed(Slow(Cursor::new(bytes.to_vec())), progress.clone())?.read_to_end(&mut out)?;
        assert_eq!(progress.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(out)
    }

    #[test]
    fn plain_and_compressed_bytes_give_the_same_content() {
        for content in [b"".as_slice(), b"a", b"ab\n", b"line\nline\n"] {
            assert_eq!(read(content).unwrap(), content);
            assert_eq!(read(&gzip(content)).unwrap(), content);
            assert_eq!(read(&zstd(content)).unwrap(), content);
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        assert_eq!(read(&[gzip(b"a\nb"), gzip(b""), gzip(b"c\n")].concat()).unwrap(), b"a\nbc\n");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frames = [skippable.as_slice(), &zstd(b"a\n"), &skippable, &zstd(b"b\n")].concat();
        assert_eq!(read(&frames).unwrap(), b"a\nb\n");
    }

    #[test]
    fn what_was_cut_short_or_damaged_is_an_error() {
        for (whole, name) in [(gzip(b"some content\n"), "gzip"), (zstd(b"some content\n"), "zstd")] {
            for len in [5, whole.len() / 2, whole.len() - 1] {
                let error = read(&whole[..len]).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("cut short"), "{len}: {error}");
            }
            let mut damaged = whole.clone();
            damaged[whole.len() - 6] ^= 0xff;
            let error = read(&damaged).err().map(|e| e.to_string());
            assert!(name == "zstd" || error.is_some_and(|e| e.contains("damaged")), "{name}");
        }
    }

    fn all(input: &[u8], keep: usize, buffer: usize) -> Vec<(Vec<u8>, Option<u64>)> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, input), keep);
        let mut out = Vec::new();
        while let Some((line, oversize)) = lines.next_line().unwrap() {
            if let Some(o) = &oversize {
                let whole = input
                    .split(|b| *b == b'\n')
                    .find(|l| l.starts_with(line) && l.len() as u64 >= o.bytes)
                    .unwrap();
                assert_eq!(o.sha256, sha256(&whole[..o.bytes as usize]));
            }
            out.push((line.to_vec(), oversize.map(|o| o.bytes)));
        }
        out
    }

    #[test]
    fn every_line_end_is_understood_whatever_the_buffer() {
        for buffer in [1, 2, 3, 7, 100] {
            let lines = all(b"ab\r\n\ncd\xff\n\r\nlast", 10, buffer);
            let texts: Vec<&[u8]> = lines.iter().map(|l| l.0.as_slice()).collect();
            assert_eq!(texts, [b"ab".as_slice(), b"", b"cd\xff", b"", b"last"]);
        }
    }

    #[test]
    fn long_lines_are_cut_and_measured() {
        for buffer in [1, 2, 3, 7, 100] {
            let lines = all(b"12345\n123456\n12345\r\n1234567890123\nx", 5, buffer);
            assert_eq!(
                lines,
                [
                    (b"12345".to_vec(), None),
                    (b"12345".to_vec(), Some(6)),
                    (b"12345".to_vec(), None),
                    (b"12345".to_vec(), Some(13)),
                    (b"x".to_vec(), None),
                ],
                "buffer {buffer}"
            );
        }
    }

    #[test]
    fn identity_counts_the_lines_that_reading_gives() {
        for input in [b"".as_slice(), b"\n", b"a", b"a\n", b"a\nb", b"a\n\nb\n"] {
            let identity = identify(input).unwrap();
            assert_eq!(identity.lines, all(input, 10, 3).len() as u64, "{input:?}");
            assert_eq!(identity.bytes, input.len() as u64);
        }
        assert_ne!(identify(b"a\n".as_slice()).unwrap().sha256, identify(b"a".as_slice()).unwrap().sha256);
    }
}
