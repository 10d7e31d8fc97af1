//! Files of events, whatever wraps them: `content` takes archives and compressed files apart, `Shape` says from the first
//! bytes of each what is in it, and `readers` make records of that. What is none of these is refused before its first
//! record.

mod content;
mod readers;

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::content::{Content, Progress};
use self::readers::{Lines, Log, Table, Values};
use crate::batch::Oversize;
use crate::event::envelope::sha256;

/// As many bytes are looked at to say what a file is.
const HEAD: usize = 64 << 10;

/// Opens a file, an archive of files, or either of them compressed.
pub fn open(path: &Path, progress: Progress) -> io::Result<Content> {
    content::open(path, progress)
}

/// The same for what can be read only once, such as standard input.
pub fn stream(source: impl Read + Send + 'static, progress: Progress) -> io::Result<Content> {
    content::stream(source, progress)
}

/// One record: a line, an element of an array, a row of a table as a JSON object. Used again for the next one.
#[derive(Debug, Default)]
pub struct Record {
    /// Its bytes, at most so many as are kept of a record.
    pub bytes: Vec<u8>,
    /// Its true size if it was cut.
    pub oversize: Option<Oversize>,
    keep: usize,
    total: u64,
    hasher: Option<Sha256>,
}

impl Record {
    /// For records of which at most so many bytes are kept.
    pub fn new(keep: usize) -> Self {
        Record { keep, ..Record::default() }
    }

    /// Whether nothing of it is kept: what would have to be made of a row need not be made then.
    fn is_only_counted(&self) -> bool {
        self.keep == 0
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.oversize, self.total, self.hasher) = (None, 0, None);
    }

    fn push(&mut self, piece: &[u8]) {
        // Room for the CR of a line that just fits.
        let limit = self.keep + 1;
        self.total += piece.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        } else if self.total <= limit as u64 {
            self.bytes.extend_from_slice(piece);
        } else {
            let mut hasher = Sha256::new();
            hasher.update(&self.bytes);
            hasher.update(piece);
            self.hasher = Some(hasher);
            let room = limit - self.bytes.len();
            self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        }
    }

    fn end(&mut self) {
        self.oversize =
            self.hasher.take().map(|h| Oversize { bytes: self.total, sha256: h.finalize().into() });
        if self.oversize.is_none() && self.bytes.len() > self.keep {
            self.oversize = Some(Oversize { bytes: self.bytes.len() as u64, sha256: sha256(&self.bytes) });
        }
        self.bytes.truncate(self.keep);
    }

    /// Whether it holds nothing: it is skipped and counted as filtered.
    pub fn is_blank(&self) -> bool {
        self.oversize.is_none() && self.bytes.iter().all(u8::is_ascii_whitespace)
    }
}

/// How records stand in a file, by its first bytes: not by its name, which is often wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One JSON value a line.
    Lines,
    /// JSON values over several lines, or in an array.
    Values,
    /// Lines of a web server.
    Log,
    /// A table with a header.
    Table {
        /// What stands between columns.
        delimiter: u8,
    },
}

impl Shape {
    /// Of a text with this beginning, which is all of it if `whole`. The error continues a sentence that begins with the
    /// name of the file, and says the command that helps.
    fn of(head: &[u8], whole: bool) -> Result<Shape, String> {
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") || looks_like_utf16(head) {
            return Err(" is UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE > NEW".to_owned());
        }
        let text = head.trim_ascii_start();
        let mut lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        match first.first() {
            None => Ok(Shape::Lines),
            // An array among lines is a line.
            Some(b'[') if depth(first) == 0 && lines.next().is_some_and(|next| next.starts_with(b"{")) => {
                Ok(Shape::Lines)
            }
            Some(b'[') => Ok(Shape::Values),
            Some(b'{') => {
                // An object that goes on: the next line is no object of its own, as it is behind a broken line.
                let goes_on = lines.next().is_some_and(|next| !next.starts_with(b"{"));
                let open = depth(first) > 0;
                Ok(if open && goes_on { Shape::Values } else { Shape::Lines })
            }
            // A broken line among others.
            Some(_) if lines.take(20).any(|line| line.starts_with(b"{")) => Ok(Shape::Lines),
            Some(_) if readers::is_log_line(first) => Ok(Shape::Log),
            Some(_) if is_enriched(head) => Ok(Shape::Lines),
            Some(_) => match delimiter(first) {
                Some(delimiter) if first.len() < text.len() || whole => Ok(Shape::Table { delimiter }),
                _ => Err(" holds no events: it is neither JSON (a value a line, or an array) \
                          nor a table with a header (CSV or TSV) nor a web server's log"
                    .to_owned()),
            },
        }
    }
}

/// Every other byte is zero, as in Latin text.
fn looks_like_utf16(head: &[u8]) -> bool {
    let pairs = head.get(..8).unwrap_or_default();
    let zeros = |at: usize| pairs.iter().skip(at).step_by(2).filter(|b| **b == 0).count();
    !pairs.is_empty() && (zeros(0) == 4 || zeros(1) == 4)
}

/// How many objects and arrays are open at the end of a line.
fn depth(line: &[u8]) -> i64 {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    depth
}

/// Begins with a line of Snowplow's enriched events: 131 columns, of which the seventh is the event's id. The first and the
/// last ones may be empty.
fn is_enriched(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let id = line.split(|b| *b == b'\t').nth(6).and_then(|id| std::str::from_utf8(id).ok());
    line.iter().filter(|b| **b == b'\t').count() == 130 && id.is_some_and(|id| Uuid::try_parse(id).is_ok())
}

/// What separates the columns of a header: names, each of its own.
fn delimiter(header: &[u8]) -> Option<u8> {
    let header = std::str::from_utf8(header).ok()?;
    let of = |delimiter: &u8| header.matches(char::from(*delimiter)).count();
    let delimiter = b",\t;|".iter().copied().filter(|d| of(d) > 0).max_by_key(of)?;
    let names = header.split(char::from(delimiter)).map(|name| name.trim().trim_matches('"'));
    let mut seen = HashSet::new();
    let fine = |name: &str| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$')
            && !name.chars().any(char::is_control)
    };
    let mut names = names.filter(|name| !(fine(name) && seen.insert(name.to_lowercase())));
    names.next().is_none().then_some(delimiter)
}

enum Reader {
    Lines(Lines<Content>),
    Values(Values<Content>),
    Table(Box<Table<Content>>),
    Log(Box<Log<Content>>),
}

/// The records of all that a file holds, one after the other.
pub struct Records {
    content: Option<Content>,
    reader: Option<Reader>,
}

impl Records {
    /// From the beginning.
    pub fn new(content: Content) -> Self {
        Records { content: Some(content), reader: None }
    }

    /// Reads the next record; false behind the last one. An error ends it all.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            record.clear();
            let read = match &mut self.reader {
                None => false,
                Some(Reader::Lines(lines)) => lines.read(record)?,
                Some(Reader::Values(values)) => values.read(record)?,
                Some(Reader::Table(table)) => table.read(record)?,
                Some(Reader::Log(log)) => log.read(record)?,
            };
            if read {
                record.end();
                return Ok(true);
            }
            if !self.open_next()? {
                return Ok(false);
            }
        }
    }

    fn open_next(&mut self) -> io::Result<bool> {
        self.content = self.content.take().or_else(|| Some(self.reader.take()?.into_content()));
        let Some(mut content) = self.content.take() else { return Ok(false) };
        let Some(name) = content.next_member()? else {
            self.content = Some(content);
            return Ok(false);
        };
        if content.head(3)?.starts_with(b"\xef\xbb\xbf") {
            content.consume(3);
        }
        let head = content.head(HEAD)?;
        let whole = head.len() < HEAD;
        let refused = |why| io::Error::new(io::ErrorKind::InvalidData, format!("{name}{why}"));
        self.reader = Some(match Shape::of(head, whole).map_err(refused)? {
            Shape::Lines => Reader::Lines(Lines::new(content)),
            Shape::Values => Reader::Values(Values::new(content)),
            Shape::Log => Reader::Log(Box::new(Log::new(content))),
            Shape::Table { delimiter } => Reader::Table(Box::new(Table::new(content, delimiter)?)),
        });
        Ok(true)
    }

    /// What the whole was, once the last record was read.
    fn identity(self, records: u64) -> Identity {
        let content = self.content.or_else(|| Some(self.reader?.into_content()));
        let (bytes, hash) = content.map(Content::sum).unwrap_or_default();
        let sha256 = hash.iter().map(|b| format!("{b:02x}")).collect();
        Identity { sha256, records, bytes }
    }
}

impl Reader {
    fn into_content(self) -> Content {
        match self {
            Reader::Lines(lines) => lines.into_inner(),
            Reader::Values(values) => values.into_inner(),
            Reader::Table(table) => table.into_inner(),
            Reader::Log(log) => log.into_inner(),
        }
    }
}

/// What makes a file the same file: its content, without what wraps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Number of records.
    pub records: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Reads everything once to learn its identity.
pub fn identify(content: Content) -> io::Result<Identity> {
    let mut records = Records::new(content.summed());
    // Nothing is kept: only ends matter.
    let (mut record, mut count) = (Record::new(0), 0);
    while records.read(&mut record)? {
        count += 1;
    }
    Ok(records.identity(count))
}

#[cfg(test)]
mod tests;
