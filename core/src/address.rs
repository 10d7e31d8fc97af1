//! IP addresses as programs write them, and the networks that stand for them: what the loader cuts and silver looks up must
//! be the same network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// An address as programs write it: by itself, with a port or a zone, with zeros before its numbers (which are decimal), or
/// as IPv4 in IPv6, which is IPv4. `None` for anything else.
pub fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let address = match IpAddr::from_str(text) {
        Ok(address) => address,
        Err(_) => match SocketAddr::from_str(text) {
            Ok(socket) => socket.ip(),
            Err(_) => {
                let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
                alone(bare.split('%').next()?)?
            }
        },
    };
    Some(address.to_canonical())
}

/// An address and nothing else; the numbers of an IPv4 address may have zeros before them.
pub fn alone(text: &str) -> Option<IpAddr> {
    if let Ok(address) = IpAddr::from_str(text) {
        return Some(address);
    }
    let mut numbers = text.split('.').map(|number| number.parse::<u8>().ok().filter(|_| number.len() <= 3));
    let mut next = || numbers.next().flatten();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    numbers.next().is_none().then_some(address.into())
}

/// The first of several with commas between them, as in X-Forwarded-For: the client's own.
pub fn first(text: &str) -> Option<IpAddr> {
    parse(text.split(',').next()?)
}

/// The network of an address: its first address and its length in bits, 24 for IPv4 and 48 for IPv6.
pub fn prefix(address: IpAddr) -> (IpAddr, u8) {
    let bits = if address.is_ipv4() { 24 } else { 48 };
    (masked(address, bits), bits)
}

/// An address without all but its first bits; a length that is too large is the largest.
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_programs_write_them() {
        for (text, expected) in [
            ("203.0.113.77", Some("203.0.113.77")),
            (" 203.0.113.77:8080 ", Some("203.0.113.77")),
            ("::ffff:203.0.113.77", Some("203.0.113.77")),
            ("[2001:DB8::1]:80", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("203.000.113.007", Some("203.0.113.7")),
            ("203.0.113.0077", None),
            ("203.0.113.7.1", None),
            ("203.0.113", None),
            ("203.0.113.777", None),
            ("localhost", None),
            ("", None),
            ("%", None),
        ] {
            assert_eq!(parse(text), expected.map(|e| e.parse().unwrap()), "{text}");
        }
        assert_eq!(first("203.0.113.77, 10.0.0.1"), parse("203.0.113.77"));
        assert_eq!(first("unknown, 10.0.0.1"), None);
    }

    #[test]
    fn a_network_is_the_first_address_of_it() {
        let network = |text| prefix(parse(text).unwrap());
        assert_eq!(network("203.0.113.77"), (parse("203.0.113.0").unwrap(), 24));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), (parse("2001:db8:1::").unwrap(), 48));
        let all = parse("255.255.255.255").unwrap();
        assert_eq!((masked(all, 0), masked(all, 200)), (parse("0.0.0.0").unwrap(), all));
        let all = parse("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").unwrap();
        assert_eq!((masked(all, 0), masked(all, 128)), (parse("::").unwrap(), all));
    }
}
