//! One event, as text: every mapping and pointers of one's own, both ways of reading it, and what is said about it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidemark_fuzz::{bounded, joined, parts, seeds};
use tidemark_loader::event::envelope::mapping::{Description, Format, SHIPPED, headers, parse_part};
use tidemark_loader::event::envelope::{Coordinates, Limits};
use tidemark_loader::event::fingerprint::Fingerprint;
use tidemark_loader::event::screen::{MAX_DEPTH, screen};

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let own =
        ["event_id=/meta/id", "event_time=/at", "event_time=/when/0", "user_id=/who/0", "user_id=/who/a~1b"];
    let own = own.map(|text| parse_part(text).expect("a pointer"));
    let shipped = SHIPPED.iter().map(|(name, text)| Description::parse(name, text).expect("a mapping"));
    let shipped = shipped.map(|mapping| Format::new(&mapping, &[]));
    let segment = Description::of("segment").expect("a mapping");
    shipped.chain([Format::new(&segment, &own)]).collect()
});

/// 2026-09-01T08:15:22Z.
const RECEIVED: i64 = 841_565_722_000_000;

/// What Postgres cannot keep, anywhere within a value.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn check(format: &Format, event: &[u8]) {
    let limits = Limits::default();
    let parsed = bounded(event.len(), 16, || format.parse(event, &limits));
    let fingerprint = Fingerprint::without(vec![b"type".to_vec()]);
    let hash = fingerprint.of(event);
    if let Some(short) = bounded(event.len(), 16, || format.scan(event, &limits, &fingerprint)) {
        assert_eq!(parsed.as_ref().map(|envelope| (envelope.clone(), hash)), Ok(short), "both ways agree");
    }
    let Ok(envelope) = parsed else { return };
    // Numbers that no f64 holds are fine for Postgres.
    if let Ok(value) = serde_json::from_slice::<Value>(event) {
        assert!(value.is_object() && !has_nul(&value) && depth(&value) <= MAX_DEPTH);
    }
    let _ = (envelope.key(), envelope.happened_at(), envelope.received_at());
    let known = envelope.clone().known();
    let at = Coordinates { topic: "events", partition: 0, offset: 7, bytes: event, index: None };
    match envelope.into_event(at, RECEIVED, &limits) {
        Ok(event) => {
            assert!(event.event_time >= limits.floor && event.event_time <= RECEIVED + limits.max_skew);
            assert_eq!((known.1, known.2.as_deref()), (Some(event.event_time), Some(&*event.event_type)));
            assert!(known.0.is_none_or(|id| id == event.event_id));
            let texts = [Some(event.event_type), event.user_id, event.anonymous_id];
            assert!(texts.iter().flatten().all(|text| !text.is_empty() && !text.contains('\0')));
        }
        Err(rejection) => assert!(!format.explain(rejection).detail.is_empty()),
    }
}

fn header(name: &str, value: &str) -> Vec<u8> {
    [name, value]
        .iter()
        .flat_map(|part| [&(part.len() as u32).to_be_bytes(), part.as_bytes()].concat())
        .collect()
}

fn examples() -> Vec<Vec<u8>> {
    let none = b"".as_slice();
    let binary = [header("ce_specversion", "1.0"), header("ce_id", "1"), header("ce_type", "sale")].concat();
    let structured = header("content-type", "application/cloudevents+json; charset=utf-8");
    let examples: [(&[u8], &str); 9] = [
        (
            none,
            r#"{"messageId":"018f2f0e-0000-4000-8000-000000000001","type":"track","event":"e\n","userId":17,
                "timestamp":"2026-09-01T08:00:00.123Z","properties":{"a":[1,-2.5e3,true,null,{}]}}"#,
        ),
        (
            none,
            r#" { "type" : "page", "originalTimestamp":"2026-09-01T10:00:00+02:00","anonymousId":"a",
                "user_id":"\u00e9\ud83d\ude00", "receivedAt":"2026-09-01T08:15:22Z","sentAt":null } "#,
        ),
        (
            none,
            r#"{"event_id":"x","event_name":"add","derived_tstamp":"2026-09-01 08:00:00.123",
                "collector_tstamp":"2026-09-01T08:00:01","domain_userid":"d"}"#,
        ),
        (none, r#"{"meta":{"id":"m"},"when":["2026-09-01T08:00:00Z"],"who":["ada",{"a/b":3}],"event":"e"}"#),
        (
            &structured,
            r#"{"specversion":"1.0","id":"1","source":"/shop","type":"sale","time":"2026-09-01T08:00:00Z",
                "data":{"userId":"ada"}}"#,
        ),
        (&binary, r#"{"anonymousId":"a"}"#),
        (none, "\0\0\0\0\u{7}{}"),
        (none, r#"{"a":"\u0000"}"#),
        (none, r#"{"a":1e1001,"b":[[[[]]]]}"#),
    ];
    examples.map(|(headers, value)| joined(&[headers, value.as_bytes()])).to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [encoded, value] = parts(data);
    let _ = screen(&value);
    let size: usize = headers(&encoded).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 8).sum();
    assert!(size <= encoded.len());
    for format in FORMATS.iter() {
        check(format, &value);
        let size = encoded.len() + value.len();
        if let Some(composed) = bounded(size, 16, || format.compose(Some(&encoded), &value)) {
            check(format, &composed);
        }
        let _ = format.received_at(Some(&encoded), &value, &Limits::default());
    }
});
