//! NDJSON as lines of bytes: bounded memory for a line of any length, CRLF tolerated, no assumption about encoding.

use std::io::{self, BufRead};

use super::Record;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads lines. A last one without a newline counts.
pub struct Lines<R> {
    reader: R,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Self {
        Lines { reader }
    }

    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The next line without its end, and without the byte order mark that it begins with where files were put together.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                if record.total == 0 {
                    return Ok(false);
                }
                break;
            }
            let end = memchr::memchr(b'\n', available);
            record.push(&available[..end.unwrap_or(available.len())]);
            let used = end.map_or(available.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if record.hasher.is_none() && record.bytes.last() == Some(&b'\r') {
            record.bytes.pop();
        }
        if record.bytes.starts_with(BOM) {
            record.bytes.drain(..BOM.len());
        }
        Ok(true)
    }
}
