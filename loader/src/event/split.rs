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
