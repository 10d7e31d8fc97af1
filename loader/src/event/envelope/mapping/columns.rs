//! A record that is a line of values with tabs between them and no header, as Snowplow's enriched events are: an object of
//! its columns. What is JSON in a column is JSON there.

use serde::de::IgnoredAny;
use serde_json::Value;

/// The beginning of the member of a column, so that it is made once.
pub(super) fn member(column: &str) -> String {
    Value::from(column).to_string() + ":"
}

/// The event of a line with exactly these columns, each as [`member`] has it; `None` for all other records. A column without
/// a value is absent.
pub(super) fn compose(columns: &[String], line: &[u8]) -> Option<Vec<u8>> {
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

    fn composed(line: &str) -> Option<String> {
        let columns = ["a", "b\"", "c"].map(member);
        compose(&columns, line.as_bytes()).map(|out| String::from_utf8(out).unwrap())
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
        assert_eq!(compose(&[member("a")], b"\xff"), None);
    }
}
