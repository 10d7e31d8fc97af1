//! Who was erased is not loaded again. The list in the database holds keyed hashes of ids (HMAC-SHA-256, RFC 2104), cut
//! to 16 bytes: without the key, which stays with the loader's secrets, neither the list nor a dump says who is on it.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Fewest bytes of a key.
const SHORTEST: usize = 16;
/// What stands in the list for a key: the hash of this.
const NAME: &str = "tidemark suppression key";

/// The keys of the list, the newest first.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads keys, one a line; `None` where there is none.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Result<Vec<_>, _> = lines
            .map(|line| match line.len() {
                SHORTEST.. => Hmac::new_from_slice(line.as_bytes()).map_err(|e| e.to_string()),
                _ => Err(format!("a key has fewer than {SHORTEST} bytes")),
            })
            .collect();
        Ok(Some(Keys(keys?)).filter(|keys| !keys.0.is_empty()))
    }

    /// What stands in the list for each key.
    pub fn names(&self) -> Vec<Uuid> {
        self.hashes(NAME.as_bytes()).collect()
    }

    /// Whether all of these are among its keys.
    pub fn know(&self, names: &[Uuid]) -> bool {
        let ours = self.names();
        names.iter().all(|name| ours.contains(name))
    }

    /// An id as the list has it, under each key.
    pub fn hashes(&self, id: &[u8]) -> impl Iterator<Item = Uuid> {
        self.0.iter().map(move |key| {
            let hash: [u8; 32] = key.clone().chain_update(id).finalize().into_bytes().into();
            let mut half = [0; 16];
            half.copy_from_slice(&hash[..16]);
            Uuid::from_bytes(half)
        })
    }
}

/// An id as `silver.bounded_id` has it: a long one has an end that tells it from others.
pub fn bounded(id: &str) -> Cow<'_, str> {
    if id.len() <= 256 || id.chars().count() <= 256 {
        return id.into();
    }
    let end: String = Md5::digest(id.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    id.chars().take(200).chain(['#']).chain(end.chars()).collect::<String>().into()
}

/// What may be an id in a record that cannot be read: everything between quotation marks, commas and the like.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = bytes.split(|byte| byte.is_ascii_control() || b"\",;{}[]".contains(byte));
    words.map(<[u8]>::trim_ascii).filter(|word| (1..=1000).contains(&word.len()) && *word != b":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_line_by_line_and_hash_as_rfc_4231_says() {
        assert!(Keys::parse(" \n\n").unwrap().is_none());
        assert_eq!(Keys::parse("short").unwrap_err(), "a key has fewer than 16 bytes");
        let keys = Keys::parse("0123456789abcdef0123\n\n  another key, longer  \n").unwrap().unwrap();
        let hashes: Vec<_> = keys.hashes(b"jane").collect();
        assert_eq!(hashes.len(), 2);
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(keys.names(), hashes);
        assert_eq!(
            Keys::parse("another key, longer").unwrap().unwrap().hashes(b"jane").next(),
            Some(hashes[1])
        );
        assert_eq!(format!("{keys:?}"), "Keys(2)");
        // Test case 1 of RFC 4231, whose key is of 20 bytes 0x0b.
        let keys = Keys(vec![Hmac::new_from_slice(&[0x0b; 20]).unwrap()]);
        let expected = Uuid::parse_str("b0344c61-d8db-3853-5ca8-afceaf0bf12b").unwrap();
        assert_eq!(keys.hashes(b"Hi There").next(), Some(expected));
    }

    #[test]
    fn long_ids_are_bounded_as_silver_does() {
        assert_eq!(bounded(&"\u{eb}".repeat(256)), "\u{eb}".repeat(256));
        let long = "\u{eb}".repeat(257);
        let expected = format!("{}#3ae481d991d7bd01df135a0ab1beba88", "\u{eb}".repeat(200));
        assert_eq!(bounded(&long), expected);
    }

    #[test]
    fn ids_are_found_in_what_cannot_be_read() {
        let found: Vec<_> = words(br#"{"userId": "jane", "x":[1,"b c"]"#).collect();
        assert_eq!(found, [&b"userId"[..], b"jane", b"x", b"1", b"b c"]);
        assert_eq!(words(b"1,jane;2\tx\n").collect::<Vec<_>>(), [&b"1"[..], b"jane", b"2", b"x"]);
    }
}
