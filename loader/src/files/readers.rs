//! Makes records of a text, of which it is known how they stand in it: NDJSON as lines, JSON that is not one value a line,
//! tables, and the lines of web servers. Whether a record is right is for whoever parses it.

use std::io::{self, BufRead};

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::Record;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// NDJSON as lines of bytes: bounded memory for a line of any length, CRLF tolerated, no assumption about encoding. A last
/// line without a newline counts.
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

/// JSON that is not one value a line: an array, or objects over several lines. The elements of an array at the top are the
/// records. Finds where values end, in bounded memory.
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

/// CSV and TSV with a header: each row is an object of its columns, all of them texts, but for those that hold a JSON object
/// or array, which are that; a column without a value is absent. A row that has other columns than the header, or is no
/// UTF-8, stays as it was written, and will be a dead letter.
pub struct Table<R> {
    reader: csv::Reader<R>,
    names: Vec<String>,
    row: ByteRecord,
    delimiter: u8,
}

impl<R: BufRead> Table<R> {
    pub fn new(reader: R, delimiter: u8) -> io::Result<Self> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            // Tabs cannot be part of a value, so quotes are part of it.
            .quoting(delimiter != b'\t')
            .flexible(true)
            .from_reader(reader);
        let names = reader.byte_headers()?.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned());
        let names = names.collect();
        Ok(Table { reader, names, row: ByteRecord::new(), delimiter })
    }

    pub fn into_inner(self) -> R {
        self.reader.into_inner()
    }

    /// The next row.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        if !self.reader.read_byte_record(&mut self.row)? {
            return Ok(false);
        }
        if record.is_only_counted() {
            return Ok(true);
        }
        match self.object() {
            Some(object) => record.push(Value::Object(object).to_string().as_bytes()),
            None => {
                for (at, field) in self.row.iter().enumerate() {
                    if at > 0 {
                        record.push(&[self.delimiter]);
                    }
                    record.push(field);
                }
            }
        }
        Ok(true)
    }

    fn object(&self) -> Option<Map<String, Value>> {
        if self.row.len() != self.names.len() {
            return None;
        }
        let mut object = Map::new();
        for (name, field) in self.names.iter().zip(&self.row) {
            let field = std::str::from_utf8(field).ok()?;
            if !field.is_empty() {
                let json = field.starts_with(['{', '[']).then(|| serde_json::from_str(field).ok()).flatten();
                object.insert(name.clone(), json.unwrap_or_else(|| Value::String(field.to_owned())));
            }
        }
        Some(object)
    }
}

/// Servers take requests of 8 KiB or so; what is longer is no line of theirs.
const LONGEST: usize = 16 << 20;

/// Lines of web servers in the common or combined format, each as an object of what it names. A line that is none stays as it
/// was written, and will be a dead letter.
pub struct Log<R> {
    lines: Lines<R>,
    line: Record,
}

impl<R: BufRead> Log<R> {
    pub fn new(reader: R) -> Self {
        Log { lines: Lines::new(reader), line: Record::new(LONGEST) }
    }

    pub fn into_inner(self) -> R {
        self.lines.into_inner()
    }

    /// The next line.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        self.line.clear();
        if !self.lines.read(&mut self.line)? {
            return Ok(false);
        }
        if self.line.hasher.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line of its log is longer than 16 MiB",
            ));
        }
        if record.is_only_counted() {
            return Ok(true);
        }
        match object(&self.line.bytes) {
            Some(object) => record.push(Value::Object(object).to_string().as_bytes()),
            None => record.push(&self.line.bytes),
        }
        Ok(true)
    }
}

/// Whether it is a line of such a log.
pub fn is_log_line(line: &[u8]) -> bool {
    object(line).is_some()
}

fn object(line: &[u8]) -> Option<Map<String, Value>> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let mut object = Map::new();
    let mut set = |name: &str, text: &str| {
        if text != "-" && !text.is_empty() {
            object.insert(name.to_owned(), text.into());
        }
    };
    let (address, rest) = line.split_once(' ')?;
    let (_, rest) = rest.split_once(' ')?;
    // A user's name may have spaces in it.
    let (user, rest) = rest.split_once(" [")?;
    let (written, rest) = rest.split_once("] \"")?;
    set("remote_addr", address);
    set("remote_user", user);
    set("time", &time(written)?);
    let (request, rest) = quoted(rest)?;
    let mut words = request.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(path), Some(protocol), None) => {
            set("method", method);
            set("path", path);
            set("protocol", protocol);
        }
        // What machines send that speak no HTTP.
        _ => set("request", &request),
    }
    let mut rest = rest.strip_prefix(' ')?.splitn(3, ' ');
    let (status, bytes) = (rest.next()?, rest.next()?);
    let quoted_next =
        |rest: &str| quoted(rest.trim_start().strip_prefix('"')?).map(|(t, r)| (t, r.to_owned()));
    if let Some((referrer, rest)) = rest.next().and_then(quoted_next) {
        set("referrer", &referrer);
        if let Some((agent, _)) = quoted_next(&rest) {
            set("user_agent", &agent);
        }
    }
    object.insert("status".to_owned(), status.parse::<u16>().ok()?.into());
    match bytes {
        "-" => None,
        bytes => object.insert("bytes".to_owned(), bytes.parse::<u64>().ok()?.into()),
    };
    Some(object)
}

/// A text from behind its quote, without what a backslash says, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                c @ ('"' | '\\') => out.push(c),
                // Both servers write other bytes as \xHH, which need not be letters together: they stay as written.
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    None
}

/// `10/Oct/2026:13:55:36 -0700` as everybody else writes it.
fn time(text: &str) -> Option<String> {
    let (date, clock) = text.split_once(':')?;
    let mut date = date.split('/');
    let (day, month, year) = (date.next()?, date.next()?, date.next()?);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let (clock, offset) = clock.split_once(' ')?;
    let (hours, minutes) = offset.split_at_checked(3)?;
    let time = format!("{year}-{month:02}-{day}T{clock}{hours}:{minutes}");
    crate::event::time::parse_time(&time).map(|_| time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<String> {
        object(line.as_bytes()).map(|object| Value::Object(object).to_string())
    }

    #[test]
    fn lines_of_both_formats_are_objects() {
        for (line, expected) in [
            (
                r#"203.0.113.9 - - [02/Oct/2026:08:15:22 +0000] "GET /p?a=1 HTTP/1.1" 200 2326"#,
                concat!(
                    r#"{"bytes":2326,"method":"GET","path":"/p?a=1","protocol":"HTTP/1.1""#,
                    r#","remote_addr":"203.0.113.9","status":200,"time":"2026-10-02T08:15:22+00:00"}"#,
                ),
            ),
            (
                r#"::1 - ada b [02/Oct/2026:10:15:22 -0230] "POST /cart HTTP/2.0" 302 - "https://a.example/" "Mozilla \"5\" \x22""#,
                concat!(
                    r#"{"method":"POST","path":"/cart","protocol":"HTTP/2.0","referrer":"https://a.example/","remote_addr":"::1""#,
                    r#","remote_user":"ada b","status":302,"time":"2026-10-02T10:15:22-02:30","user_agent":"Mozilla \"5\" \\x22"}"#,
                ),
            ),
            (
                r#"h - - [02/Oct/2026:08:15:22 +0000] "\x16\x03" 400 150 "-" "-""#,
                r#"{"bytes":150,"remote_addr":"h","request":"\\x16\\x03","status":400,"time":"2026-10-02T08:15:22+00:00"}"#,
            ),
        ] {
            assert_eq!(read(line).as_deref(), Some(expected), "{line}");
        }
        for bad in [
            "",
            "a b c",
            r#"h - - [2/Foo/2026:08:15:22 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"h - - [31/Feb/2026:08:15:22 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"h - - [02/Oct/2026:08:15:22 +0000] "GET / HTTP/1.1 200 1"#,
            r#"h - - [02/Oct/2026:08:15:22 +0000] "GET / HTTP/1.1" ok 1"#,
            r#"h - - [02/Oct/2026:08:15:22 é0] "GET / HTTP/1.1" 200 1"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
