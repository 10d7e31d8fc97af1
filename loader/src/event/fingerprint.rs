//! What tells two events with the same id apart: a hash of what the event says that does not change when a producer
//! sends it once more, or when another program writes it down: a browser, a Python script, Postgres out of a jsonb. It
//! is stored (`bronze.events.payload_hash`), so it must never be computed differently.
//!
//! XXH3 of each member, keyed by its name, added up, at each level: neither the order of members matters nor space,
//! escapes in texts or the spelling of numbers (18.5 and 18.50 and 185e-1). The order of elements of an array does.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::{memchr, memchr2};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::event::envelope::pointer::Pointer;

/// Members that differ from one sending of an event to the next.
const PER_SENDING: [&[u8]; 2] = [b"sentAt", b"receivedAt"];

/// Values this deep are compared as they are written.
const DEPTH: u32 = 64;

/// Integers of so many characters are written in one way only.
const PLAIN: usize = 32;

/// Which members count.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    /// Names of further members that do not.
    without: Arc<[Vec<u8>]>,
    /// Members of members that do not: the name of the one, and of the other in it.
    below: Arc<[(Vec<u8>, Vec<u8>)]>,
}

impl Fingerprint {
    /// One for which these members do not count either.
    pub fn without(members: Vec<Vec<u8>>) -> Self {
        Fingerprint { without: members.into(), below: Arc::default() }
    }

    /// The same, and neither do these members of members: the name of the one, and of the other in it.
    pub fn and_below(self, members: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        Fingerprint { below: members.into(), ..self }
    }

    /// Whether it looks at the members of the event only.
    pub(super) fn is_flat(&self) -> bool {
        self.below.is_empty()
    }

    /// The fingerprint of an event, which must be the text of a JSON object.
    pub fn of(&self, object: &[u8]) -> i64 {
        let mut sum = self.sum();
        for_each_member(object, |key, value| {
            let key = unescaped(key);
            let seed = member_seed(&key, 0);
            let hash = match self.below.iter().any(|(member, _)| *member == *key) && value.starts_with(b"{") {
                true => self.hash_of_rest(&key, value, seed),
                false => hash(value, seed, DEPTH),
            };
            sum.add(&key, hash, value == b"null");
        });
        sum.finish()
    }

    /// The hash of an object that is the member `key`, but for what does not count of it.
    fn hash_of_rest(&self, key: &[u8], object: &[u8], seed: u64) -> u64 {
        let mut sum = 0u64;
        for_each_member(object, |name, value| {
            let name = unescaped(name);
            if !self.below.iter().any(|(member, below)| *member == *key && *below == *name) {
                sum = sum.wrapping_add(hash(value, member_seed(&name, seed), DEPTH - 1));
            }
        });
        object_hash(sum, seed)
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
    /// Adds a member: its name without quotes and escapes, the hash of its value, and whether that is null.
    #[inline]
    pub fn add(&mut self, key: &[u8], hash: u64, is_null: bool) {
        if PER_SENDING.contains(&key) || self.fingerprint.without.iter().any(|name| name == key) {
            return;
        }
        if key == b"timestamp" {
            self.timestamp = hash;
        } else {
            self.original |= key == b"originalTimestamp" && !is_null;
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
    match pointer.member().filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.as_bytes().to_vec()),
        None => Err(format!("{text} is no member of the event itself, such as /etl_tstamp")),
    }
}

/// The fingerprint of an event by its members, but those of one sending.
pub fn fingerprint(object: &[u8]) -> i64 {
    Fingerprint::default().of(object)
}

/// The seed of the hash of a member's value, from its name and the seed of the object.
#[inline]
pub(super) fn member_seed(key: &[u8], object: u64) -> u64 {
    xxh3_64_with_seed(key, object)
}

/// The hash of an object, from the sum of those of its members.
#[inline]
pub(super) fn object_hash(sum: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(&sum.to_le_bytes(), seed)
}

/// Begins an array, whose elements have the hash before them as their seed, or ends it.
#[inline]
pub(super) fn bracket_hash(bracket: &[u8; 1], seed: u64) -> u64 {
    xxh3_64_with_seed(bracket, seed)
}

/// The hash of a text without escapes, in its quotes, of an integer of less than 20 digits, or of a word.
#[inline]
pub(super) fn plain_hash(value: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(value, seed)
}

/// The hash of a value nested at most `depth` deep: the same for each way to write it.
pub(super) fn hash(value: &[u8], seed: u64, depth: u32) -> u64 {
    match value.first() {
        Some(b'"') => plain_hash(&unescaped(value), seed),
        Some(b'{') if depth > 0 => {
            let mut sum = 0u64;
            for_each_member(value, |key, value| {
                sum = sum.wrapping_add(hash(value, member_seed(&unescaped(key), seed), depth - 1));
            });
            object_hash(sum, seed)
        }
        Some(b'[') if depth > 0 => {
            let mut all = bracket_hash(b"[", seed);
            for_each_element(value, |value| all = hash(value, all, depth - 1));
            bracket_hash(b"]", all)
        }
        Some(b'-' | b'0'..=b'9') => plain_hash(&number(value), seed),
        _ => plain_hash(value, seed),
    }
}

/// A text or a name, with or without its quotes, as it is without escapes.
pub(super) fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    match memchr(b'\\', text) {
        None => Cow::Borrowed(text),
        Some(_) => resolved(text),
    }
}

#[cold]
fn resolved(text: &[u8]) -> Cow<'_, [u8]> {
    let is_quoted = text.first() == Some(&b'"');
    let quote: &[u8] = if is_quoted { b"" } else { b"\"" };
    match serde_json::from_slice::<String>(&[quote, text, quote].concat()) {
        Ok(plain) if is_quoted => Cow::Owned([b"\"", plain.as_bytes(), b"\""].concat()),
        Ok(plain) => Cow::Owned(plain.into_bytes()),
        // Half a pair of surrogates: nobody can write it otherwise.
        Err(_) => Cow::Borrowed(text),
    }
}

/// A number as an integer if it is a short one, else as digits and a power of ten.
fn number(text: &[u8]) -> Cow<'_, [u8]> {
    let (sign, digits) = text.strip_prefix(b"-").map_or((&b""[..], text), |digits| (b"-", digits));
    if digits.len() <= PLAIN && digits.iter().all(u8::is_ascii_digit) && text != b"-0" {
        return Cow::Borrowed(text);
    }
    let exponent = digits.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = digits.split_at(exponent.unwrap_or(digits.len()));
    let exponent = match exponent.get(1..).map(std::str::from_utf8) {
        None => Some(0i64),
        Some(exponent) => exponent.ok().and_then(|exponent| exponent.parse().ok()),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let (whole, fraction) = mantissa.split_at(point);
    let mut digits = [whole, fraction.get(1..).unwrap_or_default()].concat();
    let fraction = digits.len() - whole.len();
    let Some(mut exponent) = exponent.and_then(|exponent| exponent.checked_sub(fraction as i64)) else {
        return Cow::Borrowed(text);
    };
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    while digits.pop_if(|digit| *digit == b'0').is_some() {
        exponent = exponent.saturating_add(1);
    }
    if digits.is_empty() {
        return Cow::Borrowed(b"0");
    }
    match usize::try_from(exponent) {
        Ok(zeros) if zeros <= PLAIN && digits.len() + zeros <= PLAIN => {
            digits.resize(digits.len() + zeros, b'0');
        }
        _ => digits.extend(format!("e{exponent}").bytes()),
    }
    Cow::Owned([sign, &digits].concat())
}

pub(super) fn for_each_element<'a>(array: &'a [u8], mut found: impl FnMut(&'a [u8])) {
    let mut at = skip_space(array, 1);
    while !matches!(array.get(at), None | Some(b']')) {
        let to = value_end(array, at);
        found(array.get(at..to).unwrap_or_default());
        // Behind the comma; something that is no JSON must not hold anybody up.
        at = skip_space(array, skip_space(array, to) + 1).max(at + 1);
    }
}

pub(super) fn for_each_member<'a>(object: &'a [u8], mut found: impl FnMut(&'a [u8], &'a [u8])) {
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
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
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
        for bad in ["", "/", "a", "/a/b", "/a~", "/a~2"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_count_of_a_member_changes_nothing() {
        let below = |names: &[(&str, &str)]| {
            let names =
                names.iter().map(|(member, below)| (member.as_bytes().to_vec(), below.as_bytes().to_vec()));
            Fingerprint::default().and_below(names.collect())
        };
        let some = below(&[("p", "t"), ("p", "u"), ("q", "a")]);
        let bare = fingerprint(br#"{"p":{"a":1,"b":{"t":2}},"n":3}"#);
        for same in [
            r#"{"p":{"a":1,"b":{"t":2}},"n":3}"#,
            r#"{"n":3,"p":{"t":5,"a":1,"b":{"t":2}}}"#,
            r#"{"n":3,"p":{"\u0074":[5],"a":1.0,"u":null,"b":{"t":2}}}"#,
        ] {
            assert_eq!(some.of(same.as_bytes()), bare, "{same}");
        }
        for other in [r#"{"p":{"a":1,"b":{"t":3}},"n":3}"#, r#"{"p":{"a":2},"n":3}"#, r#"{"p":[{"t":1}]}"#] {
            assert_ne!(some.of(other.as_bytes()), bare, "{other}");
            assert_eq!(some.of(other.as_bytes()), fingerprint(other.as_bytes()), "{other}");
        }
        assert!(!some.is_flat() && Fingerprint::default().is_flat());
    }

    #[test]
    fn numbers_have_one_spelling() {
        let long = "1".repeat(40);
        for (written, plain) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("18.5", "185e-1"),
            ("18.50", "185e-1"),
            ("0.185E+2", "185e-1"),
            ("-1e2", "-100"),
            ("100.000", "100"),
            ("1e31", "10000000000000000000000000000000"),
            ("1e32", "1e32"),
            ("0.00120", "12e-4"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            ("1e9223372036854775807", "1e9223372036854775807"),
            (&long, &format!("{long}e0")),
            (&format!("{long}.0"), &format!("{long}e0")),
        ] {
            assert_eq!(String::from_utf8_lossy(&number(written.as_bytes())), plain, "{written}");
        }
    }
}
