//! The binary mode of CloudEvents over Kafka: attributes in headers, the data as the value (CloudEvents, Kafka Protocol
//! Binding, 3.2).

/// Name and value of each header, from the encoding of `loader.dead_letters.headers`.
pub fn headers(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    fn part<'b>(bytes: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            *bytes = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(len)?;
        *bytes = rest;
        Some(Some(value))
    }
    std::iter::from_fn(move || Some((part(&mut bytes)??, part(&mut bytes)?)))
}

/// The whole event of a record in that mode; `None` for all other records: their value is the event.
pub(super) fn compose(encoded: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    // With that content type the value is the whole event, whatever the other headers say.
    let structured = |(name, value): (&[u8], Option<&[u8]>)| {
        name.eq_ignore_ascii_case(b"content-type")
            && value.is_some_and(|v| v.to_ascii_lowercase().starts_with(b"application/cloudevents"))
    };
    let attribute = |name: &[u8]| name.strip_prefix(b"ce_").map(<[u8]>::to_vec);
    if headers(encoded).any(structured) || !headers(encoded).any(|(name, _)| name == b"ce_specversion") {
        return None;
    }
    let mut out = Vec::with_capacity(encoded.len() + value.len() + 64);
    out.push(b'{');
    for (name, value) in headers(encoded) {
        let (Some(name), Some(value)) = (attribute(name), value) else { continue };
        // What is not UTF-8 goes in as it is, so that the event is refused for that.
        for part in [name.as_slice(), value] {
            match std::str::from_utf8(part) {
                Ok(text) => out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes()),
                Err(_) => out.extend_from_slice(part),
            }
            out.push(b':');
        }
        out.pop();
        out.push(b',');
    }
    out.extend_from_slice(b"\"data\":");
    out.extend_from_slice(value);
    out.push(b'}');
    Some(out)
}
