//! A record that is no event but holds several: an array of objects, or an object with such an array, as SDKs and APIs
//! send them. Finds where the events lie within the bytes of the record.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::envelope::pointer::Pointer;
use super::fingerprint::{for_each_element, for_each_member, unescaped};

/// Members that hold events in the requests of Segment, RudderStack and PostHog, Amplitude and Google, and of record
/// services.
const NAMES: [&[u8]; 3] = [b"batch", b"events", b"records"];

/// Where the events of a record lie; `None` where it is not one of those. With `at`, they are in the array there.
pub fn events(record: &[u8], at: Option<&Pointer>) -> Option<Vec<Range<usize>>> {
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
pub fn with_their_record(record: &[u8], at: &Pointer, beside: &str) -> Option<Vec<Vec<u8>>> {
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
    let name = serde_json::Value::from(beside).to_string();
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
}
