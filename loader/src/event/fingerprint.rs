//! What tells two events with the same id apart: a hash of the event's members that does not change when a producer
//! sends the event once more. It is stored (`bronze.events.payload_hash`), so it must never be computed differently.
//!
//! XXH3 of each top-level member, keyed by its name, added up: the order of the members does not matter, whitespace
//! between them neither. Inside a value every byte counts, the order of nested members and the spelling of numbers
//! included: producers send the same bytes again, and nothing has to be parsed a second time.

use std::sync::Arc;

use memchr::memchr2;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::event::envelope::pointer::Pointer;

/// Members that differ from one sending of an event to the next.
const PER_SENDING: [&[u8]; 2] = [b"sentAt", b"receivedAt"];

/// Which members count.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    /// Names of further members that do not.
    without: Arc<[Vec<u8>]>,
}

impl Fingerprint {
    /// One for which these members do not count either.
    pub fn without(members: Vec<Vec<u8>>) -> Self {
        Fingerprint { without: members.into() }
    }

    /// The fingerprint of an event, which must be the text of a JSON object.
    pub fn of(&self, object: &[u8]) -> i64 {
        let mut sum = self.sum();
        for_each_member(object, |key, value| sum.add(key, value));
        sum.finish()
    }

    /// The fingerprint of an event whose members somebody else finds.
    pub fn sum(&self) -> Sum<'_> {
        Sum { fingerprint: self, sum: 0, timestamp: 0, original: false }
    }
}

/// The fingerprint of the members so far.
#[derive(Debug)]
pub struct Sum<'a> {
    fingerprint: &'a Fingerprint,
    sum: u64,
    timestamp: u64,
    original: bool,
}

impl Sum<'_> {
    /// Adds a member: its name as it is written, and the text of its value without space around it.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        if PER_SENDING.contains(&key) || self.fingerprint.without.iter().any(|name| name == key) {
            return;
        }
        let hash = xxh3_64_with_seed(value, xxh3_64_with_seed(key, 0));
        if key == b"timestamp" {
            self.timestamp = hash;
        } else {
            self.original |= key == b"originalTimestamp" && value != b"null";
            self.sum = self.sum.wrapping_add(hash);
        }
    }

    /// `timestamp` counts only where there is no `originalTimestamp`: Segment computes it from `sentAt` and the receipt,
    /// anew for each sending.
    pub fn finish(&self) -> i64 {
        let timestamp = if self.original { 0 } else { self.timestamp };
        self.sum.wrapping_add(timestamp).cast_signed()
    }
}

/// The name of a member of the event, from a JSON pointer to it.
pub fn member(text: &str) -> Result<Vec<u8>, String> {
    let pointer = Pointer::new(text)?;
    let Some(name) = pointer.member().filter(|name| !name.is_empty()) else {
        return Err(format!("{text} is no member of the event itself, such as /etl_tstamp"));
    };
    // Names are compared as they are written.
    if name.contains(['"', '\\']) || name.contains(char::is_control) {
        return Err(format!("{text} has characters that JSON escapes"));
    }
    Ok(name.as_bytes().to_vec())
}

/// The fingerprint of an event by its members, but those of one sending.
pub fn fingerprint(object: &[u8]) -> i64 {
    Fingerprint::default().of(object)
}

fn for_each_member<'a>(object: &'a [u8], mut found: impl FnMut(&'a [u8], &'a [u8])) {
    let mut at = skip_space(object, 0) + 1;
    loop {
        at = skip_space(object, at);
        if object.get(at) != Some(&b'"') {
            return;
        }
        let key_end = string_end(object, at);
        let key = object.get(at + 1..key_end - 1).unwrap_or_default();
        let from = skip_space(object, skip_space(object, key_end) + 1);
        let to = value_end(object, from);
        found(key, object.get(from..to).unwrap_or_default());
        at = skip_space(object, to) + 1;
    }
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            Some(n) if text[at + n] == b'"' => return at + n + 1,
            Some(n) => at += n + 2,
            None => return text.len(),
        }
    }
}

/// Behind the value that begins at `at`.
fn value_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0u32;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return at + 1,
            b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_pointers_of_one_step() {
        assert_eq!(member("/etl_tstamp"), Ok(b"etl_tstamp".to_vec()));
        assert_eq!(member("/a~1b~0"), Ok(b"a/b~".to_vec()));
        for bad in ["", "/", "a", "/a/b", "/a~", "/a~2", "/a\"", "/a\\", "/a\n"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }
}
