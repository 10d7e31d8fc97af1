//! Finds the members of an event that say an address of the internet or a user agent, wherever they stand: by their names,
//! in its text, which need not even be valid JSON. What becomes of them is in `address` and in the parent.

use std::ops::Range;

use memchr::memchr_iter;

/// What a member says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One or more IP addresses.
    Address,
    /// What a program calls itself.
    UserAgent,
}

/// Longest name that is looked at, in bytes.
const NAME: usize = 48;

/// Last words of names of addresses, and last two words together.
const ADDRESSES: &[&[u8]] = &[
    b"ip",
    b"ips",
    b"ipv4",
    b"ipv6",
    b"ipaddr",
    b"ipaddress",
    b"clientip",
    b"remoteip",
    b"requestip",
    b"sourceip",
    b"userip",
    b"visitip",
    b"clientaddr",
    b"clientaddress",
    b"remoteaddr",
    b"remoteaddress",
    b"useripaddress",
    b"forwardedfor",
    b"xforwardedfor",
];

/// What the member of this name says. Words of a name are told apart by capitals and by whatever is no letter or digit:
/// `user_ipaddress`, `visitIp`, `$ip`, `X-Forwarded-For` and `$raw_user_agent` are all known.
pub fn subject(name: &[u8]) -> Option<Subject> {
    // Nearly all names end otherwise.
    let end = name.trim_ascii_end().last()?.to_ascii_lowercase();
    if !b"ps46rt".contains(&end) {
        return None;
    }
    // Letters and digits alone, and where among them the last word begins and the one before it.
    let mut letters = [0; NAME];
    let (mut len, mut last, mut before) = (0, 0, 0);
    let mut was_small = false;
    for byte in &name[name.len().saturating_sub(NAME)..] {
        let begins = byte.is_ascii_uppercase() && was_small || !byte.is_ascii_alphanumeric();
        if begins && len > last {
            (before, last) = (last, len);
        }
        if byte.is_ascii_alphanumeric() {
            letters[len] = byte.to_ascii_lowercase();
            len += 1;
        }
        was_small = byte.is_ascii_lowercase() || byte.is_ascii_digit();
    }
    let (word, both) = (&letters[last..len], &letters[before..len]);
    if word == b"useragent" || both == b"useragent" {
        return Some(Subject::UserAgent);
    }
    let known = |text: &[u8]| ADDRESSES.contains(&text);
    (known(word) || known(both)).then_some(Subject::Address)
}

/// The texts of these members, each with where it lies between its quotes. JSON within a text, whose quotes have
/// backslashes before them, is looked through as well, and the elements of an array of texts.
pub fn for_each(text: &[u8], mut found: impl FnMut(Subject, Range<usize>)) {
    for colon in memchr_iter(b':', text) {
        let Some(name) = name_before(text, colon) else { continue };
        let Some(subject) = subject(name) else { continue };
        let mut at = skip_space(text, colon + 1);
        let is_array = text.get(at) == Some(&b'[');
        if is_array {
            at = skip_space(text, at + 1);
        }
        while let Some(value) = value_at(text, at) {
            at = skip_space(text, value.end + 1);
            // The quote of a text in a text has its backslash before it.
            if text.get(value.end) == Some(&b'\\') {
                at = skip_space(text, value.end + 2);
            }
            found(subject, value);
            if !is_array || text.get(at) != Some(&b',') {
                break;
            }
            at = skip_space(text, at + 1);
        }
    }
}

/// The name in quotes before a colon.
fn name_before(text: &[u8], colon: usize) -> Option<&[u8]> {
    let before = text[..colon].trim_ascii_end();
    let before = before.strip_suffix(b"\"")?;
    let before = before.strip_suffix(b"\\").unwrap_or(before);
    let window = &before[before.len().saturating_sub(NAME)..];
    let quote = memchr::memrchr(b'"', window)?;
    Some(&window[quote + 1..])
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Between the quotes of the text that begins there.
fn value_at(text: &[u8], at: usize) -> Option<Range<usize>> {
    let nested = text.get(at) == Some(&b'\\');
    let start = at + usize::from(nested) + 1;
    if text.get(start - 1) != Some(&b'"') {
        return None;
    }
    let mut end = start;
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        match text[end] {
            b'"' => return Some(start..end),
            _ if nested => return Some(start..end),
            _ => end += 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<(Subject, &str)> {
        let mut found = Vec::new();
        for_each(text.as_bytes(), |subject, at| found.push((subject, &text[at])));
        found
    }

    #[test]
    fn names_are_known_by_their_last_words() {
        for name in [
            "ip",
            "IP",
            "$ip",
            "user_ipaddress",
            "visitIp",
            "context_ip",
            "ipAddress",
            "IPAddress",
            "remote_addr",
            "X-Forwarded-For",
            "request_ip",
            "clientIP",
            "ipv6",
            "last.ip",
        ] {
            assert_eq!(subject(name.as_bytes()), Some(Subject::Address), "{name}");
        }
        for name in
            ["userAgent", "user_agent", "useragent", "User-Agent", "$raw_user_agent", "context_user_agent"]
        {
            assert_eq!(subject(name.as_bytes()), Some(Subject::UserAgent), "{name}");
        }
        for name in
            ["", "ship", "zip", "ip_version", "membership", "agent", "address", "userAgentHints", "script"]
        {
            assert_eq!(subject(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn members_are_found_at_any_depth_in_arrays_and_in_texts() {
        assert_eq!(
            all(
                r#"{"a":{"ip" : "1.2.3.4","userAgent":"a \"b\" c"},"ips":[ "1.1.1.1" , "2.2.2.2"],"ip":null,"x":1}"#
            ),
            [
                (Subject::Address, "1.2.3.4"),
                (Subject::UserAgent, r#"a \"b\" c"#),
                (Subject::Address, "1.1.1.1"),
                (Subject::Address, "2.2.2.2"),
            ]
        );
        assert_eq!(all(r#"{"m":"{\"ip\":\"1.2.3.4\",\"b\":1}"}"#), [(Subject::Address, "1.2.3.4")]);
        // What is cut off or no JSON is read as far as it goes.
        assert_eq!(all(r#"{"ip":"1.2.3.4","ip":"5.6"#), [(Subject::Address, "1.2.3.4")]);
        assert_eq!(all(r#"ip:"1.2.3.4""#), []);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(parts in proptest::collection::vec(
            proptest::sample::select(vec!["\"", "\\", "ip", ":", "[", ",", " ", "userAgent", "1.2.3.4", "é"]), 0..40)
        ) {
            let text = parts.concat();
            for_each(text.as_bytes(), |_, at| assert!(text.as_bytes().get(at).is_some()));
        }
    }
}
