//! The short way through an event: one pass over its text that checks the grammar, looks for what is poison to jsonb,
//! finds the fields of the envelope and computes the fingerprint. It takes plain events only and gives up on whatever is
//! wrong or merely rare; the long way (`parse` and [`Fingerprint::of`]) then decides, and says what is wrong. So all that
//! has to hold here is that an event which is taken gets the same answers there.

use std::borrow::Cow;

use super::{Envelope, Field, Fields};
use crate::event::fingerprint::{
    Fingerprint, bracket_hash, hash, member_seed, object_hash, plain_hash, unescaped,
};

/// Deeper nesting is for the long way, which has its own limit.
const DEPTH: u32 = 60;
/// Longest run of digits that is surely no number too large for anybody, and surely an i64.
const DIGITS: usize = 18;

/// The envelope and the fingerprint of an event; `None` if the long way is to decide.
pub fn scan<'a>(bytes: &'a [u8], fingerprint: &Fingerprint) -> Option<(Envelope<'a>, i64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut scan = Scan { text: bytes, at: 0 };
    let mut fields = Fields::default();
    let mut sum = fingerprint.sum();
    scan.space();
    scan.take(b'{')?;
    scan.space();
    if scan.take(b'}').is_none() {
        loop {
            let key_at = scan.at + 1;
            if scan.string()? {
                return None;
            }
            let key = &bytes[key_at..scan.at - 1];
            scan.colon()?;
            let from = scan.at;
            let (kind, hash) = scan.value(1, member_seed(key, 0))?;
            sum.add(key, hash, matches!(kind, Kind::Null));
            if let Some(field) = fields.named(key) {
                *field = match kind {
                    Kind::Null => Field::None,
                    Kind::Text => Field::Text(Cow::Borrowed(text.get(from + 1..scan.at - 1)?)),
                    Kind::Integer => Field::Text(Cow::Borrowed(text.get(from..scan.at)?)),
                    Kind::Other => Field::Other,
                    Kind::EscapedText | Kind::Number => return None,
                };
            }
            if scan.next_or(b'}')? {
                break;
            }
        }
    }
    scan.space();
    (scan.at == bytes.len()).then(|| (fields.finish(), sum.finish()))
}

#[derive(Clone, Copy)]
enum Kind {
    Null,
    Text,
    EscapedText,
    /// Spelled as it would be printed.
    Integer,
    Number,
    Other,
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// The byte here; 0, which no JSON has in it, at the end.
    #[inline]
    fn byte(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.byte() == byte).then(|| self.at += 1)
    }

    #[inline]
    fn colon(&mut self) -> Option<()> {
        self.space();
        self.take(b':')?;
        self.space();
        Some(())
    }

    /// Behind a member or element: whether it was the last one. Ends where the next one begins.
    #[inline]
    fn next_or(&mut self, close: u8) -> Option<bool> {
        self.space();
        if self.take(b',').is_some() {
            self.space();
            return Some(false);
        }
        self.take(close).map(|()| true)
    }

    /// Passes a string; returns whether there are escapes in it.
    #[inline]
    fn string(&mut self) -> Option<bool> {
        self.take(b'"')?;
        while let Some(word) = self.text.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let Some(n) = special(*word) else {
                self.at += 8;
                continue;
            };
            self.at += n;
            if self.byte() == b'"' {
                self.at += 1;
                return Some(false);
            }
            break;
        }
        self.rest_of_string()
    }

    /// From somewhere within a string that is not a plain one, or one of the last bytes of the event.
    #[cold]
    fn rest_of_string(&mut self) -> Option<bool> {
        let mut escaped = false;
        loop {
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                // A control character, or the end of the event.
                0..0x20 => return None,
                _ => {
                    let word = self.text.get(self.at..)?.first_chunk();
                    self.at += word.map_or(1, |word| special(*word).unwrap_or(8));
                }
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.text.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let hex = self.text.get(self.at + 2..self.at + 6)?;
                let code = hex.iter().try_fold(0, |n, c| Some(n * 16 + char::from(*c).to_digit(16)?))?;
                if matches!(code, 0 | 0xD800..=0xDFFF) {
                    return None;
                }
                self.at += 6;
            }
            _ => return None,
        }
        Some(())
    }

    /// What a value is, and its hash as [`hash`] has it.
    fn value(&mut self, depth: u32, seed: u64) -> Option<(Kind, u64)> {
        let from = self.at;
        let kind = match self.byte() {
            b'"' if self.string()? => Kind::EscapedText,
            b'"' => Kind::Text,
            b'{' => return Some((Kind::Other, self.object(depth, seed)?)),
            b'[' => return Some((Kind::Other, self.array(depth, seed)?)),
            b't' => self.word(b"true", Kind::Other)?,
            b'f' => self.word(b"false", Kind::Other)?,
            b'n' => self.word(b"null", Kind::Null)?,
            _ => self.number()?,
        };
        let value = &self.text[from..self.at];
        let hash = match kind {
            Kind::EscapedText | Kind::Number => hash(value, seed, 0),
            _ => plain_hash(value, seed),
        };
        Some((kind, hash))
    }

    fn object(&mut self, depth: u32, seed: u64) -> Option<u64> {
        if depth > DEPTH {
            return None;
        }
        let mut sum = 0u64;
        self.at += 1;
        self.space();
        if self.take(b'}').is_some() {
            return Some(object_hash(sum, seed));
        }
        loop {
            let from = self.at + 1;
            let is_escaped = self.string()?;
            let key = &self.text[from..self.at - 1];
            let seed_of_value =
                if is_escaped { member_seed(&unescaped(key), seed) } else { member_seed(key, seed) };
            self.colon()?;
            sum = sum.wrapping_add(self.value(depth + 1, seed_of_value)?.1);
            if self.next_or(b'}')? {
                return Some(object_hash(sum, seed));
            }
        }
    }

    fn array(&mut self, depth: u32, seed: u64) -> Option<u64> {
        if depth > DEPTH {
            return None;
        }
        let mut all = bracket_hash(b"[", seed);
        self.at += 1;
        self.space();
        if self.take(b']').is_some() {
            return Some(bracket_hash(b"]", all));
        }
        loop {
            (_, all) = self.value(depth + 1, all)?;
            if self.next_or(b']')? {
                return Some(bracket_hash(b"]", all));
            }
        }
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Option<Kind> {
        self.text.get(self.at..)?.starts_with(word).then(|| {
            self.at += word.len();
            kind
        })
    }

    /// At least one digit, and not very many.
    #[inline]
    fn digits(&mut self) -> Option<usize> {
        let from = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        let n = self.at - from;
        (1..=DIGITS).contains(&n).then_some(n)
    }

    fn number(&mut self) -> Option<Kind> {
        let negative = self.take(b'-').is_some();
        let zero = self.byte() == b'0';
        let n = self.digits()?;
        if zero && n > 1 {
            return None;
        }
        // Of -0 the long way makes a float.
        let mut kind = if negative && zero { Kind::Number } else { Kind::Integer };
        if self.take(b'.').is_some() {
            kind = Kind::Number;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            // An exponent is rare.
            return None;
        }
        Some(kind)
    }
}

/// Which of the bytes is the first quote, backslash or control character. The subtractions set the highest bit of the bytes
/// that are looked for and of some above 0x7f, which `!x` takes out again. A borrow only runs towards higher bytes, so the
/// lowest such bit is right.
#[inline]
fn special(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let x = u64::from_le_bytes(word);
    // The flipped bit puts the quote (0x22) right behind the control characters, in exchange for the space (0x20).
    let control_or_quote = (x ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (x ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let found = (control_or_quote | backslash) & !x & (ONES * 0x80);
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Limits, parse};
    use super::*;

    /// What the long way says.
    fn long<'a>(text: &'a [u8], fingerprint: &Fingerprint) -> Option<(Envelope<'a>, i64)> {
        Some((parse(text, &Limits::default()).ok()?, fingerprint.of(text)))
    }

    /// Whether it was taken; then both ways must agree.
    fn taken(text: &[u8]) -> bool {
        let fingerprints =
            [Fingerprint::default(), Fingerprint::without(vec![b"type".to_vec(), b"n".to_vec()])];
        fingerprints.iter().all(|fingerprint| {
            let short = scan(text, fingerprint);
            if short.is_some() {
                assert_eq!(short, long(text, fingerprint), "{}", String::from_utf8_lossy(text));
            }
            short.is_some()
        })
    }

    #[test]
    fn plain_events_are_taken() {
        for text in [
            "{}",
            " {\t}\r\n",
            r#"{"messageId":"a","type":"track","event":null,"timestamp":"2026-01-01T00:00:00Z","sentAt":"x"}"#,
            r#"{ "userId" : 17 , "user_id":"b", "anonymous_id":-4, "a":[1,2.5,-0,[],{}], "b":{"c":[{"d":null}]} }"#,
            r#"{"userId":null,"user_id":"b","anonymousId":true,"anonymous_id":"z","x":"\u00e9\n\"\\"}"#,
            r#"{"originalTimestamp":"a","timestamp":"b"}"#,
            r#"{"originalTimestamp":null,"timestamp":"b","timestamp":"c"}"#,
            r#"{"userId":{"a":1},"anonymousId":[1],"type":"Größe ✓","event":""}"#,
            r#"{"userId":123456789012345678}"#,
        ] {
            assert!(taken(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_or_rare_is_left_to_the_long_way() {
        for text in [
            "",
            " ",
            "[]",
            "{",
            "{}}",
            "{} x",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":.5}"#,
            r#"{"a":1.}"#,
            r#"{"a":-}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e5}"#,
            r#"{"a":tru}"#,
            r#"{"a":truex}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":"b}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a\n":1}"#,
            "{\"a\":\"\n\"}",
            "{\"a\":\"\u{0}\"}",
            "{\"a\":1}\u{0}",
            r#"{"userId":-0}"#,
            r#"{"userId":1.5}"#,
            r#"{"userId":"a\tb"}"#,
            r#"{"a":1234567890123456789}"#,
            "\u{feff}{}",
            r#"{"a":1]"#,
            r#"{"a":[1}"#,
            r#"{1:2}"#,
        ] {
            assert!(!taken(text.as_bytes()), "{text}");
        }
        assert!(!taken(b"{\"a\":\"\xff\"}"));
        for (depth, short) in [(59, true), (61, false), (1_000_000, false)] {
            let text = format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
            assert_eq!(taken(text.as_bytes()), short, "{depth}");
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_at_every_place() {
        for end in ["\"", "\\\"\"", "\u{1f}", "\u{0}", ""] {
            for n in 0..40 {
                let text: String = "ü!#[]~\u{7f}ab ".repeat(9).chars().take(n).collect();
                for (prefix, suffix) in [("\"", ""), ("\"", "é\\"), ("\"\\n", "\": \"0123456789")] {
                    let (begin, rest) = (format!("{prefix}{text}"), format!("{end}{suffix}"));
                    let all = format!("{begin}{rest}");
                    let mut scan = Scan { text: all.as_bytes(), at: 0 };
                    let expected = match end {
                        "\"" => Some(begin.len() + 1),
                        "\\\"\"" => Some(begin.len() + 3),
                        "" if suffix.starts_with('"') => Some(begin.len() + 1),
                        _ => None,
                    };
                    let escaped = prefix.len() > 1 || end.len() == 3;
                    assert_eq!(scan.string(), expected.map(|_| escaped), "{all:?}");
                    assert!(expected.is_none_or(|at| scan.at == at), "{all:?}");
                }
            }
        }
    }

    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                for around in *b"a\x7f\x80\xff !#[]" {
                    let mut word = [around; 8];
                    word[at] = byte;
                    assert_eq!(
                        special(word),
                        matches!(byte, 0..0x20 | b'"' | b'\\').then_some(at),
                        "{word:?}"
                    );
                }
            }
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[ -~äß\n\t\"\\\\🌊]{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::hash_map("[a-z\"é]{0,5}", inner, 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    const NAMES: [&str; 13] = [
        "messageId",
        "type",
        "event",
        "timestamp",
        "originalTimestamp",
        "receivedAt",
        "userId",
        "user_id",
        "anonymousId",
        "anonymous_id",
        "sentAt",
        "n",
        "properties",
    ];

    fn members() -> impl Strategy<Value = Vec<(&'static str, serde_json::Value)>> {
        proptest::collection::vec((proptest::sample::select(&NAMES[..]), value()), 0..12)
    }

    fn object(members: &[(&str, serde_json::Value)]) -> Vec<u8> {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    }

    proptest! {
        #[test]
        fn both_ways_agree_on_objects(members in members()) {
            taken(&object(&members));
        }

        #[test]
        fn both_ways_agree_on_damaged_objects(
            members in members(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..3),
        ) {
            let mut text = object(&members);
            for (at, byte, how) in damage {
                let at = at.index(text.len());
                let bytes = b"{}[]\",:\\ \n0-.eu\0x\xc3";
                let byte = bytes[usize::from(byte) % bytes.len()];
                match how {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ if text.len() > 1 => drop(text.remove(at)),
                    _ => {}
                }
            }
            taken(&text);
        }

        #[test]
        fn both_ways_agree_on_snippets(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u00e9", "\"userId\"", "\"event\":", "1", "-", "0", ".5", "e3", "true",
                "null", " ", "\n", "é", "{\"a\":1}", "\"b\":\"c\"",
            ]), 0..20)
        ) {
            taken(parts.concat().as_bytes());
        }
    }
}
