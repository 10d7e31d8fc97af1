//! IP addresses are cut to the network that they are of, 24 bits of IPv4 and 48 of IPv6, where they stand: what is shorter
//! then is filled up with blanks, so that nothing moves. Own networks are kept whole: they are the company, no person.

use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;

use tidemark_core::address::{alone, masked, parse, prefix};

use super::members::quote_at;

/// Some networks, as Postgres writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    /// Those of these texts that are networks.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Networks(texts.filter_map(network).collect())
    }

    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(network, bits)| {
            network.is_ipv4() == address.is_ipv4() && masked(address, *bits) == masked(*network, *bits)
        })
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "128"));
    let address = IpAddr::from_str(address).ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.parse::<u8>().ok()?.min(most)))
}

/// What stands for an address, or for several with commas between them, if any is one and is not an own one.
pub(super) fn cut(text: &str, own: &Networks) -> Option<String> {
    let part = |part: &str| match parse(part) {
        Some(address) if !own.contain(address) => prefix(address).0.to_string(),
        Some(_) => part.trim_ascii().to_owned(),
        // As in the header Forwarded, behind for=, or with the length of a network.
        None => {
            let mut bytes = part.trim_ascii().as_bytes().to_vec();
            cut_anywhere(&mut bytes, own);
            String::from_utf8(bytes).unwrap_or_default()
        }
    };
    let parts: Vec<String> = text.split(',').map(part).collect();
    let unchanged = text.split(',').zip(&parts).all(|(old, new)| old.trim_ascii() == new);
    (!unchanged).then(|| parts.join(",").trim_ascii_end().to_owned())
}

/// Puts a text in the place of another one, which ends where its quote begins, and blanks behind the quote.
pub(super) fn put(text: &mut [u8], at: Range<usize>, new: &str) {
    let Some(spare) = at.len().checked_sub(new.len()) else { return };
    let end = (at.end + quote_at(text, at.end)).min(text.len());
    text[at.start..at.start + new.len()].copy_from_slice(new.as_bytes());
    text.copy_within(at.end..end, at.start + new.len());
    text[end - spare..end].fill(b' ');
}

/// Cuts the addresses that cells between tabs are.
pub(super) fn cut_cells(text: &mut [u8], own: &Networks) {
    let mut at = 0;
    while at <= text.len() {
        let end = memchr::memchr(b'\t', &text[at..]).map_or(text.len(), |tab| at + tab);
        if std::str::from_utf8(&text[at..end]).is_ok_and(|cell| alone(cell).is_some()) {
            replace(text, at..end, own);
        }
        at = end + 1;
    }
}

/// Cuts whatever looks like an address in something that nobody can read.
pub(super) fn cut_anywhere(text: &mut [u8], own: &Networks) {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(b"\\u") {
            // Digits of an escape.
            at += 6;
            continue;
        }
        let len = text[at..].iter().take_while(|byte| is_part(byte)).count();
        if len == 0 {
            at += 1;
            continue;
        }
        // A dot or colon at an end is one of the sentence, or stands before a port or behind a name.
        let token = std::str::from_utf8(&text[at..at + len]).unwrap_or_default();
        let begins = usize::from(token.starts_with(':') && !token.starts_with("::"));
        let whole = token[begins..].trim_end_matches('.');
        let found =
            [whole, whole.trim_end_matches(':'), whole.rsplit_once(':').map_or(whole, |(host, _)| host)]
                .into_iter()
                .find(|token| alone(token).is_some())
                .map(|token| at + begins..at + begins + token.len());
        match found {
            Some(found) => replace(text, found, own),
            // Between what is none of it, as in ipv4:203.0.113.77:443 and 203.0.113.77.dsl.example.
            None => {
                let (token, mut from) = (token.to_owned(), at);
                let other = |c: char| !c.is_ascii_digit() && c != '.';
                for part in token.split(other) {
                    let address = part.trim_matches('.');
                    let start = from + part.len() - part.trim_start_matches('.').len();
                    if alone(address).is_some() {
                        replace(text, start..start + address.len(), own);
                    }
                    from += part.len() + 1;
                }
            }
        }
        at += len;
    }
}

/// Puts its network in the place of an address, and blanks behind it.
fn replace(text: &mut [u8], at: Range<usize>, own: &Networks) {
    let token = std::str::from_utf8(&text[at.clone()]).unwrap_or_default();
    if let Some(new) = cut(token, own)
        && let Some(spare) = at.len().checked_sub(new.len())
    {
        text[at.start..at.start + new.len()].copy_from_slice(new.as_bytes());
        text[at.end - spare..at.end].fill(b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::super::Enrichment;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn cut_members(text: &mut [u8], own: Networks) {
        let enrichment = Enrichment::default();
        enrichment.own_networks_are(own);
        enrichment.look_at(text, &mut HashMap::new());
    }

    fn members(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        cut_members(&mut bytes, Networks::of(["192.0.2.7/32", "2001:db8:ffff::/48", "none"].into_iter()));
        assert_eq!(bytes.len(), text.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn addresses_are_cut_where_they_stand() {
        for (text, expected) in [
            (r#"{"ip":"203.0.113.77","a":1}"#, r#"{"ip":"203.0.113.0" ,"a":1}"#),
            (r#"{"ip":"203.0.113.0","a":1}"#, r#"{"ip":"203.0.113.0","a":1}"#),
            (r#"{"ip":"2001:db8:1:2:3:4:5:6"}"#, r#"{"ip":"2001:db8:1::"        }"#),
            (r#"{"ip":"::ffff:203.0.113.77"}"#, r#"{"ip":"203.0.113.0"        }"#),
            (r#"{"ip":"203.0.113.77:8080"}"#, r#"{"ip":"203.0.113.0"      }"#),
            (r#"{"ip":"[2001:db8::1]:80"}"#, r#"{"ip":"2001:db8::"      }"#),
            (r#"{"ip":"fe80::1%eth0"}"#, r#"{"ip":"fe80::"      }"#),
            (
                r#"{"x_forwarded_for":"203.0.113.77, 10.1.2.3, unknown"}"#,
                r#"{"x_forwarded_for":"203.0.113.0,10.1.2.0,unknown"   }"#,
            ),
            (
                r#"{"ip":"192.0.2.7","ips":["192.0.2.8","2001:db8:ffff::1"]}"#,
                r#"{"ip":"192.0.2.7","ips":["192.0.2.0","2001:db8:ffff::1"]}"#,
            ),
            (r#"{"m":"{\"ip\":\"203.0.113.77\"}"}"#, r#"{"m":"{\"ip\":\"203.0.113.0\" }"}"#),
            (r#"{"ip":"203.0.113.\u0037"}"#, r#"{"ip":"203.0.113.0"     }"#),
            (
                r#"{"ip":"for=203.0.113.77;proto=http, 203.0.113.78/32"}"#,
                r#"{"ip":"for=203.0.113.0 ;proto=http,203.0.113.0 /32" }"#,
            ),
            (r#"{"ip":"a\"b, 203.0.113.77"}"#, r#"{"ip":"a\"b,203.0.113.0"  }"#),
            (
                r#"{"ips":[["203.0.113.77"],["203.0.113.78"]]}"#,
                r#"{"ips":[["203.0.113.0" ],["203.0.113.0" ]]}"#,
            ),
            (
                r#"{"m":"{\"n\":\"{\\\"ip\\\":\\\"203.0.113.77\\\"}\"}"}"#,
                r#"{"m":"{\"n\":\"{\\\"ip\\\":\\\"203.0.113.0\\\" }\"}"}"#,
            ),
            (
                r#"{"ip":"{\"ip\":\"203.0.113.77\", \"a\":1}"}"#,
                r#"{"ip":"{\"ip\":\"203.0.113.0 \",\"a\":1}" }"#,
            ),
            (
                r#"{"ips":[null,1,-1.5e3,true,"203.0.113.77"]}"#,
                r#"{"ips":[null,1,-1.5e3,true,"203.0.113.0" ]}"#,
            ),
            (
                r#"{"m":"{\"ips\":[\n \"203.0.113.77\",\n\"203.0.113.78\"]}"}"#,
                r#"{"m":"{\"ips\":[\n \"203.0.113.0\" ,\n\"203.0.113.0\" ]}"}"#,
            ),
            (
                r#"{"iP":"203.0.113.77","iPAddress":"203.0.113.77"}"#,
                r#"{"iP":"203.0.113.0" ,"iPAddress":"203.0.113.0" }"#,
            ),
            (r#"{"\u0069p":"203.0.113.77"}"#, r#"{"\u0069p":"203.0.113.0" }"#),
            // No address, or no member that says one.
            (
                r#"{"ip":"localhost","version":"1.2.3.4","ip2":7}"#,
                r#"{"ip":"localhost","version":"1.2.3.4","ip2":7}"#,
            ),
        ] {
            assert_eq!(members(text), expected);
        }
    }

    #[test]
    fn in_what_nobody_can_read_all_that_looks_like_one_is_cut() {
        let cut = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            cut_anywhere(&mut bytes, &Networks::of(["10.0.0.0/8"].into_iter()));
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(cut("ipv4:203.0.113.77:443 ...203.0.113.78"), "ipv4:203.0.113.0 :443 ...203.0.113.0 ");
        assert_eq!(
            cut("ip:203.0.113.77, h:2001:db8:1:2::77, 203.0.113.77.dsl"),
            "ip:203.0.113.0 , h:2001:db8:1::    , 203.0.113.0 .dsl"
        );
        assert_eq!(cut(r"\u00e9::1 x"), r"\u00e9::  x");
        assert_eq!(cut("a;203.0.113.77;2026-09-05T10:00:00Z,b"), "a;203.0.113.0 ;2026-09-05T10:00:00Z,b");
        assert_eq!(cut("from 203.0.113.77:443, 10.1.2.3."), "from 203.0.113.0 :443, 10.1.2.3.");
        assert_eq!(
            cut("x=2001:db8:1:2::9 1.2.3 12:30:45 300.1.1.1"),
            "x=2001:db8:1::    1.2.3 12:30:45 300.1.1.1"
        );
    }

    /// An event of members that say addresses in all kinds of ways, and of one that says none.
    fn event(depth: u32) -> impl Strategy<Value = serde_json::Value> {
        let address = prop_oneof![
            Just("203.0.113.77"),
            Just("203.0.113.77:80"),
            Just("::ffff:203.0.113.77"),
            Just("a\"b\\, 203.0.113.77 ,\n[203.0.113.77]"),
            Just("for=203.0.113.77;by=203.0.113.77"),
            Just("unknown"),
        ];
        let text = address.prop_map(serde_json::Value::from);
        let value = text.prop_recursive(depth, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
                inner.prop_map(|inner| serde_json::json!({ "ip": inner })),
            ]
        });
        let names = proptest::sample::select(vec!["ip", "X-Forwarded-For", "clientIp", "ip_raw"]);
        let member = (names, value, 0u8..3).prop_map(|(name, value, nested)| {
            let mut value = serde_json::json!({ name: value });
            for _ in 0..nested {
                value = serde_json::json!({ "text": value.to_string() });
            }
            value
        });
        let others =
            proptest::sample::select(vec!["v1.2.3.4", "a:b", "\\\"", "1.2.3.4", "{\"zip\":[\"1.2.3.4\"]}"]);
        (proptest::collection::vec(member, 0..4), proptest::collection::vec(others, 0..4)).prop_map(
            |(members, other)| serde_json::json!({ "members": members, "other": other, "zip": other }),
        )
    }

    proptest! {
        #[test]
        fn what_is_cut_is_never_longer_is_valid_json_and_stays_as_it_is_then(
            bits in any::<u128>(), shift in 0u32..128, four in any::<bool>()
        ) {
            let address = match four {
                true => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
                false => IpAddr::V6(Ipv6Addr::from_bits(bits >> shift << (shift / 2))),
            };
            let text = format!("{{\"ip\":\"{address}\",\"b\":[1]}}");
            let mut once = text.clone().into_bytes();
            cut_members(&mut once, Networks::default());
            let read: serde_json::Value = serde_json::from_slice(&once).unwrap();
            let expected = prefix(address.to_canonical()).0;
            prop_assert_eq!(read["ip"].as_str().unwrap(), expected.to_string());
            prop_assert_eq!(read["b"][0].as_i64(), Some(1));
            let mut again = once.clone();
            cut_members(&mut again, Networks::default());
            prop_assert_eq!(&again, &once);
            let mut anywhere = address.to_string().into_bytes();
            cut_anywhere(&mut anywhere, &Networks::default());
            let anywhere = String::from_utf8(anywhere).unwrap();
            prop_assert_eq!(anywhere.trim_end().parse::<IpAddr>().unwrap(), expected);
        }

        #[test]
        fn any_event_stays_valid_and_says_no_whole_address(event in event(3)) {
            let text = event.to_string();
            let mut cut = text.clone().into_bytes();
            cut_members(&mut cut, Networks::default());
            let cut: serde_json::Value = serde_json::from_slice(&cut).map_err(|e| {
                TestCaseError::fail(format!("{e}: {text}\n{}", String::from_utf8_lossy(&cut)))
            })?;
            prop_assert!(!cut.to_string().contains("203.0.113.77"), "{}", cut);
            // And what is no address says what it said.
            let other = |value: &serde_json::Value| value["other"].clone();
            prop_assert_eq!(other(&cut), other(&event));
        }

        #[test]
        fn no_bytes_make_it_panic_or_change_their_number(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut text = [b"\"ip\":\"".as_slice(), &bytes].concat();
            let len = text.len();
            cut_members(&mut text, Networks::default());
            cut_anywhere(&mut text, &Networks::default());
            prop_assert_eq!(text.len(), len);
        }
    }
}
