//! Finds the members of an event that say an address of the internet or a user agent, wherever they stand: by their names,
//! in its text, which need not even be valid JSON. What becomes of them is in `address` and in the parent.

use std::borrow::Cow;
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
const NAME: usize = 64;

/// Words that make a name that of an address, alone or two together; numbers behind them are left out.
const WORDS: &[&[u8]] = &[
    b"addr",
    b"address",
    b"addresses",
    b"callerip",
    b"cfconnectingip",
    b"clientaddr",
    b"clientaddress",
    b"clientip",
    b"clientipaddr",
    b"clientipaddress",
    b"connectingip",
    b"currentip",
    b"customerip",
    b"destip",
    b"dstaddr",
    b"dstip",
    b"externalip",
    b"forwarded",
    b"forwardedfor",
    b"fromip",
    b"hostip",
    b"ip",
    b"ip6addr",
    b"ipaddr",
    b"ipaddress",
    b"ipaddresses",
    b"ipaddrs",
    b"iplist",
    b"ipnumber",
    b"ips",
    b"ipv",
    b"ipv4addr",
    b"ipv4address",
    b"ipv6addr",
    b"ipv6address",
    b"lastip",
    b"localip",
    b"loginip",
    b"originip",
    b"peeraddr",
    b"peeraddress",
    b"peerip",
    b"privateip",
    b"proxyip",
    b"publicip",
    b"realip",
    b"registrationip",
    b"remoteaddr",
    b"remoteaddress",
    b"remotehost",
    b"remoteip",
    b"remoteipaddress",
    b"requestip",
    b"serverip",
    b"signupip",
    b"sourceaddr",
    b"sourceaddress",
    b"sourceip",
    b"srcaddr",
    b"srcip",
    b"trueclientip",
    b"userip",
    b"useripaddress",
    b"visitip",
    b"visitorip",
    b"wanip",
    b"xclientip",
    b"xforwardedfor",
    b"xrealip",
];

/// What the member of this name says. Words of a name are told apart by capitals and by whatever is no letter or digit:
/// `user_ipaddress`, `visitIp`, `$ip`, `X-Forwarded-For`, `ip_raw` and `$raw_user_agent` are all known.
pub fn subject(name: &[u8]) -> Option<Subject> {
    // Nearly all names have none of ip, addr, agent, forwarded and host in them.
    let sign = |two: &[u8]| {
        matches!(
            [two[0] | 32, two[1] | 32],
            [b'i', b'p'] | [b'd', b'd'] | [b'g', b'e'] | [b'w', b'a'] | [b'h', b'o']
        )
    };
    if memchr::memchr(b'\\', name).is_some() {
        let plain = unescaped(name)?;
        return if plain.contains('\\') { None } else { subject(plain.as_bytes()) };
    } else if !name.windows(2).any(sign) {
        return None;
    }
    // Letters and digits alone, and where among them the last word begins and the one before it.
    let mut letters = [0; NAME];
    let (mut len, mut last, mut before) = (0, 0, 0);
    let mut was_small = false;
    let mut says = None;
    for byte in name[name.len().saturating_sub(NAME)..].iter().chain(b"_") {
        let begins = byte.is_ascii_uppercase() && was_small || !byte.is_ascii_alphanumeric();
        if begins && len > last {
            let (word, both) = (&letters[last..len], &letters[before..len]);
            let letter = |byte: &u8| !byte.is_ascii_digit();
            let plain = &word[..word.iter().rposition(letter).map_or(0, |at| at + 1)];
            if says == Some(Subject::UserAgent) {
                // Hints of it, and the like.
                says = None;
            }
            if word == b"useragent" || both == b"useragent" {
                says = Some(Subject::UserAgent);
            } else if [plain, both].iter().any(|known| WORDS.contains(known)) {
                says = Some(Subject::Address);
            }
            (before, last) = (last, len);
        }
        if byte.is_ascii_alphanumeric() {
            letters[len] = byte.to_ascii_lowercase();
            len += 1;
        }
        was_small = byte.is_ascii_lowercase() || byte.is_ascii_digit();
    }
    says
}

/// A text of JSON without its escapes; `None` for what is none.
pub fn unescaped(text: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text).is_none() {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice(&[b"\"", text, b"\""].concat()).ok().map(Cow::Owned)
}

/// The texts of these members, each with where it lies between its quotes. JSON within a text, whose quotes have
/// backslashes before them, is looked through as well, and arrays whatever is in them.
pub fn for_each(text: &[u8], mut found: impl FnMut(Subject, Range<usize>)) {
    // Objects within arrays are passed over again for each array around them: of what nests for its own sake, not all.
    let mut budget = 16 * text.len();
    for colon in memchr_iter(b':', text) {
        let Some(name) = name_before(text, colon) else { continue };
        let Some(subject) = subject(name) else { continue };
        let (mut at, mut depth) = (colon + 1, 0);
        loop {
            at = skip_space(text, at);
            match text.get(at) {
                Some(b'[') => depth += 1,
                Some(b']') => depth -= 1,
                Some(b',') if depth > 0 => {}
                // A number, null, true or false.
                Some(byte) if depth > 0 && (byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) => {}
                // What it says has names of its own.
                Some(b'{') if depth > 0 => {
                    let end = end_of_object(&text[..text.len().min(at.saturating_add(budget))], at);
                    budget -= end.unwrap_or(text.len()).saturating_sub(at).min(budget);
                    let Some(end) = end else { break };
                    at = end;
                }
                _ => {
                    let Some(value) = value_at(text, at) else { break };
                    at = value.end + quote_at(text, value.end) - 1;
                    found(subject, value);
                }
            }
            at += 1;
            if depth <= 0 {
                break;
            }
        }
    }
}

/// Where the object ends that begins there: its last brace.
fn end_of_object(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    loop {
        match text.get(at)? {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at),
            b'}' => depth -= 1,
            b'"' | b'\\' => {
                let value = value_at(text, at)?;
                at = value.end + quote_at(text, value.end) - 1;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The name in quotes before a colon.
fn name_before(text: &[u8], colon: usize) -> Option<&[u8]> {
    let before = text[..colon].trim_ascii_end();
    let mut before = before.strip_suffix(b"\"")?;
    while let Some(shorter) = before.strip_suffix(b"\\") {
        before = shorter;
    }
    let window = &before[before.len().saturating_sub(NAME)..];
    let quote = memchr::memrchr(b'"', window)?;
    Some(&window[quote + 1..])
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    loop {
        at += text.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        // Within a text it is written with backslashes.
        let behind = quote_at(text, at) - 1;
        match text.get(at + behind) {
            Some(b'n' | b't' | b'r') if behind > 0 => at += behind + 1,
            _ => return at,
        }
    }
}

/// Length of the quote there with the backslashes before it, at least 1.
pub fn quote_at(text: &[u8], at: usize) -> usize {
    let behind = text.get(at..).unwrap_or_default();
    1 + behind.iter().take_while(|byte| **byte == b'\\').count()
}

/// Between the quotes of the text that begins there. Within other texts, quotes have backslashes before them, twice as many
/// and one more for each; where there are fewer, a text ends that this one is within.
fn value_at(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at + quote_at(text, at);
    if text.get(start - 1) != Some(&b'"') {
        return None;
    }
    let ours = start - at - 1;
    memchr_iter(b'"', &text[start..]).map(|quote| start + quote).find_map(|quote| {
        let before = backslashes_before(&text[start..quote]);
        // The text may end with backslashes of its own.
        let ends = before < ours || (before - ours).is_multiple_of(2 * (ours + 1));
        ends.then(|| start..quote - before.min(ours))
    })
}

fn backslashes_before(text: &[u8]) -> usize {
    text.iter().rev().take_while(|byte| **byte == b'\\').count()
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
    fn names_are_known_by_their_words() {
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
            "ip_raw",
            "ip1",
            "ipAddress ",
            "ipv4_address",
            "ip_addresses",
            "peer_addr",
            "remoteHost",
            "X-Real-IP",
            "xForwardedFor",
            r"\u0069p",
        ] {
            assert_eq!(subject(name.as_bytes()), Some(Subject::Address), "{name}");
        }
        for name in
            ["userAgent", "user_agent", "useragent", "User-Agent", "$raw_user_agent", "context_user_agent"]
        {
            assert_eq!(subject(name.as_bytes()), Some(Subject::UserAgent), "{name}");
        }
        for name in
            ["", "ship", "zip", "tip", "membership", "agent", "userAgentHints", "script", "equip", r"i\p"]
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

    // Were it read over and over, this would not end.
    #[test]
    fn a_large_text_that_nests_for_its_own_sake_is_read_once() {
        for unit in [r#""ip":[{"#, r#""ip":["#, r#"\"ip\":[{"#, r#""ip":[{"a":["#, "\"ip\":", "\"", ":", "[{"]
        {
            let text = unit.repeat(1_000_000 / unit.len());
            let mut found = 0;
            for_each(text.as_bytes(), |_, _| found += 1);
            assert!(found <= text.matches('"').count() / 2, "{unit}: {found}");
        }
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
