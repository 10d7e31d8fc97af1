//! A dead letter in full: as a page for a person, and as a JSON object for programs. Bytes that are not UTF-8 are
//! escaped on the page and base64 in JSON, so that nothing of them is lost.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::letter_filter::part_of;
use tidemark_loader::event::envelope::mapping::headers;

/// What both forms are made of, up to a WHERE.
pub const SELECT: &str = "
    SELECT p.name AS pipeline, d.topic, d.partition, d.\"offset\", d.source_index, d.stage, d.reason, d.detail, d.sqlstate, d.status,
           d.attempts, d.batch_id,
           to_char(d.received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS received_at,
           to_char(d.quarantined_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS quarantined_at,
           to_char(d.resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS resolved_at,
           d.resolved_by, d.note, d.event_id::text AS event_id,
           to_char(d.event_time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS event_time, d.event_type,
           encode(d.payload_sha256, 'hex') AS payload_sha256, d.payload_truncated, d.key, d.headers, d.payload
      FROM loader.dead_letters AS d JOIN loader.pipelines AS p USING (pipeline_id)";

const TEXTS: [&str; 15] = [
    "pipeline",
    "topic",
    "stage",
    "reason",
    "detail",
    "sqlstate",
    "status",
    "received_at",
    "quarantined_at",
    "resolved_at",
    "resolved_by",
    "note",
    "event_id",
    "event_time",
    "event_type",
];

fn text(row: &Row, name: &str) -> Option<String> {
    row.get(name)
}

/// Adds `name`, or `name_base64` where the bytes are not UTF-8.
fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), text.into()),
        Some((bytes, Err(_))) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// One line of JSON.
pub fn json(row: &Row) -> String {
    let mut object = Map::new();
    for name in TEXTS {
        object.insert(name.to_owned(), text(row, name).map_or(Value::Null, Value::from));
    }
    object.insert("partition".to_owned(), row.get::<_, i32>("partition").into());
    object.insert("offset".to_owned(), row.get::<_, i64>("offset").into());
    object.insert("source_index".to_owned(), row.get::<_, i32>("source_index").into());
    object.insert("attempts".to_owned(), row.get::<_, i32>("attempts").into());
    object.insert("payload_sha256".to_owned(), row.get::<_, String>("payload_sha256").into());
    object.insert("payload_truncated".to_owned(), row.get::<_, bool>("payload_truncated").into());
    put(&mut object, "key", row.get("key"));
    let list = row.get::<_, Option<&[u8]>>("headers").map(|encoded| {
        headers(encoded)
            .map(|(name, value)| {
                let mut header = Map::new();
                put(&mut header, "name", Some(name));
                put(&mut header, "value", value);
                Value::Object(header)
            })
            .collect::<Vec<_>>()
    });
    object.insert("headers".to_owned(), list.map_or(Value::Null, Value::Array));
    put(&mut object, "payload", row.get("payload"));
    Value::Object(object).to_string()
}

/// A page for a person.
pub fn page(row: &Row) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<15}  {value}");
    };
    let (partition, offset): (i32, i64) = (row.get("partition"), row.get("offset"));
    let topic = text(row, "topic").unwrap_or_default();
    let part = part_of(row.get("source_index"));
    line("letter", &format!("{topic}:{partition}:{offset}{part}"));
    for name in TEXTS.into_iter().filter(|name| *name != "topic") {
        if let Some(value) = text(row, name) {
            line(name, &escaped(value.as_bytes()));
        }
    }
    line("attempts", &row.get::<_, i32>("attempts").to_string());
    line("batch_id", &row.get::<_, i64>("batch_id").to_string());
    if let Some(key) = row.get::<_, Option<&[u8]>>("key") {
        line("key", &escaped(key));
    }
    for (name, value) in headers(row.get::<_, Option<&[u8]>>("headers").unwrap_or_default()) {
        let value = value.map_or_else(|| "(none)".to_owned(), escaped);
        line("header", &format!("{}: {value}", escaped(name)));
    }
    let payload: &[u8] = row.get::<_, Option<&[u8]>>("payload").unwrap_or_default();
    let cut = if row.get("payload_truncated") { ", the beginning of a longer record" } else { "" };
    line("payload_sha256", &row.get::<_, String>("payload_sha256"));
    line("payload", &format!("{} bytes{cut}", payload.len()));
    out.push_str(&escaped(payload));
    out.push('\n');
    out
}

/// Text as it is; control characters and bytes that are not UTF-8 as `\xHH`, a backslash doubled. A terminal must not
/// obey what a producer sent.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_comes_through() {
        assert_eq!(escaped("grün {\"a\":1}".as_bytes()), "grün {\"a\":1}");
        assert_eq!(escaped(b"\x1b[2J\n\x00\xff\\"), "\\x1b[2J\\x0a\\x00\\xff\\\\");
        assert_eq!(escaped("\u{9b}".as_bytes()), "\\xc2\\x9b");
    }

    #[test]
    fn bytes_that_are_not_text_become_base64() {
        let mut object = Map::new();
        put(&mut object, "key", Some(b"\xff\x00"));
        put(&mut object, "payload", Some(b"text"));
        put(&mut object, "none", None);
        assert_eq!(
            Value::Object(object).to_string(),
            r#"{"key_base64":"/wA=","none":null,"payload":"text"}"#
        );
    }
}
