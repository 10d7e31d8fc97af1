//! Finds what is valid JSON to a parser but poison to jsonb: NUL escapes, lone surrogates, bottomless nesting,
//! absurd numbers. Does not check the grammar; `envelope` parses the same bytes afterwards.

use crate::event::dead_letter::{Reason, Rejection};

/// Deepest nesting of arrays and objects that is loaded. Postgres itself gives up at some thousands.
pub const MAX_DEPTH: usize = 128;
/// Longest number in bytes, and largest exponent. numeric takes 131,072 digits, and would print every one of them.
pub const MAX_NUMBER: usize = 1000;

/// Looks through the text of a JSON document once. Garbage in gives any answer but no panic: the parser decides
/// about grammar.
pub fn screen(text: &[u8]) -> Result<(), Rejection> {
    let mut depth = 0usize;
    let mut i = 0;
    while i < text.len() {
        match text[i] {
            b'"' => i = string(text, i + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Rejection::new(
                        Reason::TooDeep,
                        format!("nested deeper than {MAX_DEPTH} levels"),
                    ));
                }
                i += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                i += 1;
            }
            b'-' | b'0'..=b'9' => i = number(text, i)?,
            _ => i += 1,
        }
    }
    Ok(())
}

/// Reads a string from behind its opening quote; returns the index behind the closing one.
fn string(text: &[u8], mut i: usize) -> Result<usize, Rejection> {
    // Some high surrogate was the directly preceding escape.
    let mut open_pair = false;
    loop {
        let Some(step) = memchr::memchr2(b'"', b'\\', &text[i..]) else { return Ok(text.len()) };
        if open_pair && step > 0 {
            return Err(lone());
        }
        i += step;
        if text[i] == b'"' {
            return if open_pair { Err(lone()) } else { Ok(i + 1) };
        }
        let Some(hex) = (text.get(i + 1) == Some(&b'u')).then(|| text.get(i + 2..i + 6)).flatten() else {
            if open_pair {
                return Err(lone());
            }
            i = (i + 2).min(text.len());
            continue;
        };
        let code = hex.iter().try_fold(0u32, |n, c| Some(n * 16 + char::from(*c).to_digit(16)?));
        let Some(code) = code else { return Ok(text.len()) };
        open_pair = match (open_pair, code) {
            (false, 0) => {
                return Err(Rejection::new(
                    Reason::NulEscape,
                    "a string contains the escape \\u0000, which Postgres cannot store",
                ));
            }
            (false, 0xD800..=0xDBFF) => true,
            (true, 0xDC00..=0xDFFF) => false,
            (true, _) | (false, 0xDC00..=0xDFFF) => return Err(lone()),
            (false, _) => false,
        };
        i += 6;
    }
}

fn lone() -> Rejection {
    Rejection::new(
        Reason::LoneSurrogate,
        "a string contains half of a UTF-16 surrogate pair, which Postgres cannot store",
    )
}

/// Reads a number; returns the index behind it.
fn number(text: &[u8], start: usize) -> Result<usize, Rejection> {
    let len = text[start..]
        .iter()
        .take_while(|c| matches!(c, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .count();
    let token = &text[start..start + len];
    let exponent = token.iter().position(|c| matches!(c, b'e' | b'E')).map_or(0, |e| {
        let digits = token[e + 1..].iter().filter(|c| c.is_ascii_digit());
        digits.fold(0usize, |n, c| n.saturating_mul(10).saturating_add(usize::from(c - b'0')))
    });
    if len > MAX_NUMBER || exponent > MAX_NUMBER {
        let detail = format!("a number has more than {MAX_NUMBER} digits or an exponent beyond {MAX_NUMBER}");
        return Err(Rejection::new(Reason::NumberOutOfRange, detail));
    }
    Ok(start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(text: &str) -> Option<Reason> {
        screen(text.as_bytes()).err().map(|r| r.reason)
    }

    #[test]
    fn poison_for_jsonb_is_found() {
        for (text, expected) in [
            (r#"{"a":"x\u0000y"}"#, Some(Reason::NulEscape)),
            (r#"{"\u0000":1}"#, Some(Reason::NulEscape)),
            (r#"{"a":"x\\u0000y"}"#, None),
            (r#"{"a":"x\\\u0000y"}"#, Some(Reason::NulEscape)),
            (r#"{"a":"\u0001"}"#, None),
            (r#"{"a":"\ud83d"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":"\uD83D\uDE00"}"#, None),
            (r#"{"a":"\ud83d x\ude00"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":"\ud83d\n"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":"\ude00"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":"\ud83d\ud83d"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":"\ud83d\u0000"}"#, Some(Reason::LoneSurrogate)),
            (r#"{"a":1e1000}"#, None),
            (r#"{"a":1e1001}"#, Some(Reason::NumberOutOfRange)),
            (r#"{"a":1E+131072}"#, Some(Reason::NumberOutOfRange)),
            (r#"{"a":[-1e-99999999999999999999999]}"#, Some(Reason::NumberOutOfRange)),
            (r#"{"a":"1e131072 [[[["}"#, None),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }

    #[test]
    fn depth_is_counted_outside_strings_only() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(reason(&nested(MAX_DEPTH)), None);
        assert_eq!(reason(&nested(MAX_DEPTH + 1)), Some(Reason::TooDeep));
        assert_eq!(reason(&"[]".repeat(100_000)), None);
        assert_eq!(reason(&format!("\"{}\"", "[".repeat(100_000))), None);
        assert_eq!(reason(&"9".repeat(MAX_NUMBER + 1)), Some(Reason::NumberOutOfRange));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = screen(&bytes);
        }

        #[test]
        fn snippets_in_any_order_do_not_make_it_panic(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["\\u", "\\", "\"", "d83d", "0000", "{", "]", "1e", "-", "9", "é"]), 0..30)
        ) {
            let _ = screen(parts.concat().as_bytes());
        }
    }
}
