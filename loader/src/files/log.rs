//! Lines of web servers in the common or combined format, each as an object of what it names. A line that is none stays
//! as it was written, and will be a dead letter.

use std::io::{self, BufRead};

use serde_json::{Map, Value};

use super::Record;
use super::lines::Lines;

/// Servers take requests of 8 KiB or so; what is longer is no line of theirs.
const LONGEST: usize = 16 << 20;

/// Reads the lines of a log.
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
        match object(&self.line.bytes) {
            Some(object) => record.push(Value::Object(object).to_string().as_bytes()),
            None => record.push(&self.line.bytes),
        }
        Ok(true)
    }
}

/// Whether it is a line of such a log.
pub fn is_line(line: &[u8]) -> bool {
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
