//! Where the bytes of a file come from: plain, gzip or zstd, told apart by their first bytes and not by a name, from
//! disk or from standard input. Lines are made of them in `lines`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
}
