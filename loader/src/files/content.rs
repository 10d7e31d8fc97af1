//! What a file holds once everything around it is taken off: compression, told by first bytes, and archives, of which each
//! member may be compressed or an archive again. A thread takes it apart, so that it is read by one while the other parses.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest, Sha256};

/// Small enough to come from the heap and not from the kernel each time.
const PIECE: usize = 128 << 10;
/// How many pieces are read ahead.
const AHEAD: usize = 4;
/// Layers around the events: a tar in a gzip in a zip.
const DEEPEST: u8 = 5;

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

impl<R: io::Seek> io::Seek for Counted<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

enum Piece {
    /// Another text begins; what to call it.
    Member(String),
    Bytes(Vec<u8>),
}

/// The texts in a file, one after the other; [`BufRead`] ends at the end of each.
#[derive(Debug)]
pub struct Content {
    pieces: Receiver<io::Result<Piece>>,
    piece: Vec<u8>,
    at: usize,
    next: Option<String>,
    sum: Option<Sha256>,
    bytes: u64,
}

impl Content {
    fn of(walk: impl FnOnce(&Out) -> io::Result<()> + Send + 'static) -> Content {
        let (out, pieces) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            let out = Out(out);
            if let Err(error) = walk(&out) {
                // Nobody may be listening any more.
                let _ = out.0.send(Err(error));
            }
        });
        Content { pieces, piece: Vec::new(), at: 0, next: None, sum: None, bytes: 0 }
    }

    /// Computes the SHA-256 of everything on the way.
    pub(super) fn summed(mut self) -> Content {
        self.sum = Some(Sha256::new());
        self
    }

    pub(super) fn sum(self) -> (u64, Vec<u8>) {
        (self.bytes, self.sum.map(|sum| sum.finalize().to_vec()).unwrap_or_default())
    }

    /// Passes over what is left of this text; the name of the next one.
    pub(super) fn next_member(&mut self) -> io::Result<Option<String>> {
        while self.more()?.is_some() {}
        self.piece.clear();
        self.at = 0;
        Ok(self.next.take())
    }

    /// The first bytes of what is left of this text: so many, unless it is shorter.
    pub(super) fn head(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.piece.len() - self.at < wanted {
            let Some(more) = self.more()? else { break };
            self.piece.extend_from_slice(&more);
        }
        let rest = &self.piece[self.at..];
        Ok(rest.get(..wanted).unwrap_or(rest))
    }

    fn more(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.next.is_some() {
            return Ok(None);
        }
        match self.pieces.recv() {
            Ok(Ok(Piece::Bytes(bytes))) => {
                self.bytes += bytes.len() as u64;
                if let Some(sum) = &mut self.sum {
                    sum.update(&bytes);
                }
                Ok(Some(bytes))
            }
            Ok(Ok(Piece::Member(name))) => {
                self.next = Some(name);
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Content {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            (self.piece, self.at) = (self.more()?.unwrap_or_default(), 0);
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

/// Opens a file, or an archive of files.
pub(super) fn open(path: &Path, progress: Progress) -> io::Result<Content> {
    let file = File::open(path)?;
    let name = path.display().to_string();
    Ok(Content::of(move |out| {
        let mut source = Counted { inner: file, read: progress };
        let head = read_head(&mut source)?;
        if head.starts_with(b"PK\x03\x04") {
            return unzip(source, &name, out);
        }
        walk(&mut Cursor::new(head).chain(source), &name, out, 0)
    }))
}

/// What cannot be read twice, nor from its end.
pub(super) fn stream(source: impl Read + Send + 'static, progress: Progress) -> io::Result<Content> {
    Ok(Content::of(move |out| walk(&mut Counted { inner: source, read: progress }, "it", out, 0)))
}

struct Out(SyncSender<io::Result<Piece>>);

impl Out {
    fn send(&self, piece: Piece) -> io::Result<()> {
        self.0.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// As many bytes as it takes to tell what a file is wrapped in: a tar names itself at 257.
fn read_head(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    source.take(512).read_to_end(&mut head)?;
    Ok(head)
}

fn refused(name: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{name} {why}"))
}

fn walk(mut source: &mut dyn Read, name: &str, out: &Out, depth: u8) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(refused(name, "is wrapped too often"));
    }
    let head = read_head(&mut source)?;
    let whole = Cursor::new(&head).chain(source);
    let unwrapped: Option<(&'static str, Box<dyn Read + '_>)> = match &head[..] {
        [0x1f, 0x8b, ..] => {
            let whole = BufReader::with_capacity(PIECE, whole);
            Some(("gzip", Box::new(flate2::bufread::MultiGzDecoder::new(whole))))
        }
        // The second form is a skippable frame, with which some tools begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Some(("zstd", archives::zstd(Box::new(whole))?))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(("xz", archives::xz(Box::new(whole))?)),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(("bzip2", archives::bzip2(Box::new(whole))?)),
        [b'P', b'K', 3, 4, ..] => {
            return Err(refused(name, "is a zip archive that can only be read from a file: unpack it"));
        }
        _ if head.get(257..262) == Some(b"ustar") => {
            return archives::untar(Box::new(whole), name, out, depth);
        }
        _ => {
            let mut whole = whole;
            return text(&mut whole, name, out);
        }
    };
    match unwrapped {
        Some((by, inner)) => walk(&mut Named(by, inner), name, out, depth + 1),
        None => Ok(()),
    }
}

fn text(source: &mut dyn Read, name: &str, out: &Out) -> io::Result<()> {
    out.send(Piece::Member(name.to_owned()))?;
    let mut buffer = vec![0; PIECE];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => out.send(Piece::Bytes(buffer[..n].to_vec()))?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(feature = "archives")]
mod archives {
    use super::*;

    /// What tools put beside files: `__MACOSX/`, `.DS_Store`, and directories.
    fn is_beside(name: &str) -> bool {
        name.ends_with('/') || name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
    }

    pub fn zstd<'a>(source: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        let source = BufReader::with_capacity(PIECE, source);
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
    }

    pub fn xz<'a>(source: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(lzma_rust2::XzReader::new(BufReader::with_capacity(PIECE, source), true)))
    }

    pub fn bzip2<'a>(source: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(bzip2::read::MultiBzDecoder::new(source)))
    }

    pub fn untar(source: Box<dyn Read + '_>, archive: &str, out: &Out, depth: u8) -> io::Result<()> {
        let mut tar = tar::Archive::new(source);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.header().entry_type().is_file() && !is_beside(name.trim_start_matches("./")) {
                walk(&mut entry, &format!("{archive}: {name}"), out, depth + 1)?;
            }
        }
        Ok(())
    }

    pub fn unzip(source: Counted<File>, archive: &str, out: &Out) -> io::Result<()> {
        let mut zip =
            zip::ZipArchive::new(source).map_err(|e| refused(archive, &format!("is no zip: {e}")))?;
        for index in 0..zip.len() {
            let failed = |e| refused(archive, &format!("cannot be unpacked: {e}"));
            let mut entry = zip.by_index(index).map_err(failed)?;
            let name = entry.name().map_err(failed)?.into_owned();
            if !entry.is_dir() && !is_beside(&name) {
                walk(&mut Named("zip", &mut entry), &format!("{archive}: {name}"), out, 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(not(feature = "archives"))]
mod archives {
    use super::*;

    fn without<T>(by: &str) -> io::Result<T> {
        let why = format!(
            "is wrapped by {by}, which this tidemark was built without; unwrap it, or build one with all features \
             (cargo build --release -p tidemark-cli)"
        );
        Err(refused("it", &why))
    }

    pub fn zstd<'a>(_: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        without("zstd")
    }

    pub fn xz<'a>(_: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        without("xz")
    }

    pub fn bzip2<'a>(_: Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>> {
        without("bzip2")
    }

    pub fn untar(_: Box<dyn Read + '_>, _: &str, _: &Out, _: u8) -> io::Result<()> {
        without("tar")
    }

    pub fn unzip(_: Counted<File>, _: &str, _: &Out) -> io::Result<()> {
        without("zip")
    }
}

use archives::unzip;

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
