//! JSON that is not one value a line: an array, or objects over several lines. The elements of an array at the top are
//! the records. Finds where values end, in bounded memory; whether they are right is for whoever parses them.

use std::io::{self, BufRead};

use super::Record;

/// Reads the values of a text.
pub struct Values<R> {
    reader: R,
    /// In an array at the top.
    inside: bool,
    /// Behind a value there: a comma must follow, or the end.
    after: bool,
    read: u64,
}

#[derive(Default)]
struct Place {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// What a byte is for the value that it may belong to.
enum Byte {
    Within,
    Last,
    Behind,
}

impl Place {
    fn next(&mut self, byte: u8) -> Byte {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return if self.depth == 0 { Byte::Last } else { Byte::Within };
                }
                _ => {}
            }
            return Byte::Within;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Byte::Last;
                }
            }
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => return Byte::Behind,
            _ => {}
        }
        Byte::Within
    }
}

impl<R: BufRead> Values<R> {
    pub fn new(reader: R) -> Self {
        Values { reader, inside: false, after: false, read: 0 }
    }

    pub fn into_inner(self) -> R {
        self.reader
    }

    fn wrong(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        io::Error::new(kind, format!("its JSON {what} record {}", self.read + 1))
    }

    /// The next value.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            let Some(byte) = self.reader.fill_buf()?.first().copied() else {
                let open = self.inside.then(|| self.wrong(io::ErrorKind::UnexpectedEof, "ends before"));
                return open.map_or(Ok(false), Err);
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'[' if !self.inside => (self.inside, self.after) = (true, false),
                b']' if self.inside => self.inside = false,
                b',' if self.inside && self.after => self.after = false,
                _ if self.inside && self.after => {
                    return Err(self.wrong(io::ErrorKind::InvalidData, "has neither a comma nor ] before"));
                }
                b']' | b'}' | b',' => {
                    let what = format!("has a {} without a beginning before", char::from(byte));
                    return Err(self.wrong(io::ErrorKind::InvalidData, &what));
                }
                _ => break,
            }
            self.reader.consume(1);
        }
        let mut place = Place::default();
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                if place.depth > 0 || place.in_string {
                    return Err(self.wrong(io::ErrorKind::UnexpectedEof, "ends in the middle of"));
                }
                break;
            }
            let mut end = None;
            for (at, byte) in available.iter().enumerate() {
                match place.next(*byte) {
                    Byte::Within => {}
                    Byte::Last => end = Some(at + 1),
                    Byte::Behind => end = Some(at),
                }
                if end.is_some() {
                    break;
                }
            }
            let used = end.unwrap_or(available.len());
            record.push(&available[..used]);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        self.after = true;
        self.read += 1;
        Ok(true)
    }
}
