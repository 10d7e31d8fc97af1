//! Records that are no JSON event by themselves. One that holds several: an array of objects, or an object with such an
//! array, as SDKs and APIs send them; found is where the events lie within its bytes. One of which only the data is JSON,
//! and one that is a line of columns; of these an event is composed.

use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::event::envelope::pointer::Pointer;
use crate::event::fingerprint::{for_each_element, for_each_member, unescaped};

/// Members that hold events in the requests of Segment, RudderStack and PostHog, Amplitude and Google, and of record
/// services.
const NAMES: [&[u8]; 3] = [b"batch", b"events", b"records"];

/// Where the events of a record lie; `None` where it is not one of those. With `at`, they are in the array there.
pub(super) fn events(record: &[u8], at: Option<&Pointer>) -> Option<Vec<Range<usize>>> {
    // What is found below relies on it.
    serde_json::from_slice::<IgnoredAny>(record).ok()?;
    let whole = record.trim_ascii_start();
    let array = match (at, whole.first()?) {
        (None, b'[') => whole,
        (None, b'{') => {
            let mut found = None;
            for_each_member(whole, |key, value| {
                if value.first() == Some(&b'[') && NAMES.contains(&unescaped(key).as_ref()) {
                    found = Some(value);
                }
            });
            found?
        }
        (Some(pointer), b'{') => pointer.steps().try_fold(whole, |object, step| {
            let mut found = None;
            for_each_member(object, |key, value| {
                if unescaped(key).as_ref() == step.as_bytes() {
                    found = Some(value);
                }
            });
            found.filter(|value| matches!(value.first(), Some(b'{' | b'[')))
        })?,
        _ => return None,
    };
    if array.first() != Some(&b'[') {
        return None;
    }
    let (mut events, mut any) = (Vec::new(), false);
    for_each_element(array, |element| {
        any |= element.first() == Some(&b'{');
        let from = element.as_ptr().addr() - record.as_ptr().addr();
        events.push(from..from + element.len());
    });
    (any || events.is_empty()).then_some(events)
}

/// Most bytes that the events of one record may have together, once each of them has what stands beside them.
const MOST: usize = 16 << 20;

/// The events of a record, each an object that has, under the name `beside`, what the record says beside the array at
/// `at`. `None` where [`events`] finds none there, and where they would be too large together.
pub(super) fn with_their_record(record: &[u8], at: &Pointer, beside: &str) -> Option<Vec<Vec<u8>>> {
    let events = events(record, Some(at))?;
    let array = at.steps().next()?;
    let mut rest = Vec::new();
    for_each_member(record.trim_ascii_start(), |key, value| {
        if unescaped(key).as_ref() != array.as_bytes() {
            rest.push(if rest.is_empty() { b'{' } else { b',' });
            rest.push(b'"');
            rest.extend_from_slice(key);
            rest.extend_from_slice(b"\":");
            rest.extend_from_slice(value);
        }
    });
    if rest.is_empty() {
        rest.push(b'{');
    }
    rest.push(b'}');
    let name = Value::from(beside).to_string();
    if events.iter().map(|event| event.len() + name.len() + rest.len() + 2).sum::<usize>() > MOST {
        return None;
    }
    let whole = |event: Range<usize>| {
        let event = &record[event];
        let Some(open) = event.strip_suffix(b"}") else { return event.to_vec() };
        let comma: &[u8] = if open[1..].trim_ascii().is_empty() { b"" } else { b"," };
        [open, comma, name.as_bytes(), b":", &rest, b"}"].concat()
    };
    Some(events.into_iter().map(whole).collect())
}

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

/// The whole event of a record in the binary mode of CloudEvents over Kafka: attributes in headers, the data as the value
/// (CloudEvents, Kafka Protocol Binding, 3.2); `None` for all other records: their value is the event.
pub(super) fn from_headers(encoded: &[u8], value: &[u8]) -> Option<Vec<u8>> {
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
                Ok(text) => out.extend_from_slice(Value::from(text).to_string().as_bytes()),
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

/// The beginning of the member of a column, so that it is made once.
pub(super) fn member(column: &str) -> String {
    Value::from(column).to_string() + ":"
}

/// The event of a line of values with tabs between them and no header, as Snowplow's enriched events are: an object of its
/// columns. What is JSON in a column is JSON there. Only of a line with exactly these columns, each as [`member`] has it;
/// `None` for all other records. A column without a value is absent.
pub(super) fn from_columns(columns: &[String], line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if memchr::memchr_iter(b'\t', line).count() + 1 != columns.len() {
        return None;
    }
    let line = std::str::from_utf8(line).ok()?;
    let mut out = Vec::with_capacity(line.len() * 2);
    for (member, text) in columns.iter().zip(line.split('\t')).filter(|(_, text)| !text.is_empty()) {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(member.as_bytes());
        if is_json(text) {
            out.extend_from_slice(text.as_bytes());
        } else {
            serde_json::to_writer(&mut out, text).ok()?;
        }
    }
    if out.is_empty() {
        return None;
    }
    out.push(b'}');
    Some(out)
}

/// Whether a text is a JSON object or array.
fn is_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(record: &str, at: Option<&str>) -> Option<Vec<String>> {
        let at = at.map(|at| Pointer::new(at).unwrap());
        let events = events(record.as_bytes(), at.as_ref())?;
        Some(events.into_iter().map(|range| record[range].to_owned()).collect())
    }

    #[test]
    fn events_are_found_where_they_lie() {
        let two = || Some(vec![r#"{"a":"]"}"#.to_owned(), r#"{"b":[1]}"#.to_owned()]);
        for (record, at) in [
            (r#"[{"a":"]"},{"b":[1]}]"#, None),
            (r#" [ {"a":"]"} , {"b":[1]} ] "#, None),
            (r#"{"x":{"batch":[1]},"batch":[{"a":"]"},{"b":[1]}],"sentAt":"t"}"#, None),
            (r#"{"\u0065vents": [{"a":"]"}, {"b":[1]}]}"#, None),
            (r#"{"records":[{"a":"]"},{"b":[1]}]}"#, None),
            (r#"{"d":{"rows":[{"a":"]"},{"b":[1]}]}}"#, Some("/d/rows")),
        ] {
            assert_eq!(found(record, at), two(), "{record}");
        }
        assert_eq!(found(r#"[1,{"a":2},"x"]"#, None).unwrap(), ["1", r#"{"a":2}"#, r#""x""#]);
        assert_eq!(found("[]", None), Some(vec![]));
        assert_eq!(found(r#"{"batch":[ ]}"#, None), Some(vec![]));
    }

    #[test]
    fn events_keep_what_their_record_says() {
        let split = |record: &str, at: &str| {
            let events = with_their_record(record.as_bytes(), &Pointer::new(at).unwrap(), "visit")?;
            Some(events.into_iter().map(|event| String::from_utf8(event).unwrap()).collect::<Vec<_>>())
        };
        let record = r#" {"id":7, "who":{"a":[1]}, "actions": [{"t":1}, { }, 5 ]} "#;
        let visit = r#""visit":{"id":7,"who":{"a":[1]}}}"#;
        assert_eq!(
            split(record, "/actions").unwrap(),
            [format!(r#"{{"t":1,{visit}"#), format!("{{ {visit}"), "5".to_owned()]
        );
        assert_eq!(split(r#"{"d":{"a":[{}]}}"#, "/d/a").unwrap(), [r#"{"visit":{}}"#]);
        assert_eq!(split(r#"{"actions":[]}"#, "/actions").unwrap(), [""; 0]);
        assert_eq!(split(r#"{"actions":1}"#, "/actions"), None);
        // A record cannot become a multiple of itself without an end.
        let much = format!(r#"{{"who":"{}","actions":[{}{{}}]}}"#, "x".repeat(1 << 20), "{},".repeat(20));
        assert_eq!(split(&much, "/actions"), None);
    }

    #[test]
    fn other_records_are_left_whole() {
        for (record, at) in [
            ("[1,2]", None),
            ("[[{}]]", None),
            (r#"{"batch":{"a":1}}"#, None),
            (r#"{"items":[{"a":1}]}"#, None),
            (r#"{"batch":[{"a":1}"#, None),
            (r#"{"batch":[{"a":1}]}"#, Some("/rows")),
            (r#"{"d":1}"#, Some("/d/rows")),
            (r#"[{"a":1}]"#, Some("/rows")),
            ("17", None),
            ("", None),
        ] {
            assert_eq!(found(record, at), None, "{record}");
        }
    }

    fn composed(line: &str) -> Option<String> {
        let columns = ["a", "b\"", "c"].map(member);
        from_columns(&columns, line.as_bytes()).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_line_becomes_an_object_of_its_columns() {
        for (line, expected) in [
            ("x\t\t[1]", r#"{"a":"x","c":[1]}"#),
            ("x\t7\t{\"d\": null}\r", r#"{"a":"x","b\"":"7","c":{"d": null}}"#),
            ("{\t\"\t[1", r#"{"a":"{","b\"":"\"","c":"[1"}"#),
        ] {
            assert_eq!(composed(line).as_deref(), Some(expected), "{line}");
            assert!(is_json(expected));
        }
        for other in ["", "\t\t", "x\ty", "x\ty\tz\t", r#"{"a":1}"#] {
            assert_eq!(composed(other), None, "{other:?}");
        }
        assert_eq!(from_columns(&[member("a")], b"\xff"), None);
    }
}
