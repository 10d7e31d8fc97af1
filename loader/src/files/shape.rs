//! What a file is, by its first bytes: not by its name, which is often wrong. And for what it cannot be read as, the
//! command that helps.

use std::collections::HashSet;

use uuid::Uuid;

use super::log;

/// How records stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
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
    /// name of the file.
    pub fn of(head: &[u8], whole: bool) -> Result<Shape, String> {
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
            Some(_) if log::is_line(first) => Ok(Shape::Log),
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
