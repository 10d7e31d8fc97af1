//! Which events are accepted, and what the columns say; every class of bad input with its reason.

use tidemark_loader::event::dead_letter::Reason;
use tidemark_loader::event::envelope::{Coordinates, Event, Limits, parse};
use tidemark_loader::event::time::{self, parse_time};

const AT: Coordinates<'_> =
    Coordinates { topic: "events", partition: 3, offset: 42, bytes: b"{}", index: None };
const GOOD: &str = r#"{"messageId":"018f2f0e-0000-4000-8000-000000000001","type":"track","event":"page_viewed",
    "timestamp":"2026-09-01T08:15:22.123Z","userId":"u1","anonymousId":"a1","properties":{"price":1.5}}"#;

fn received() -> i64 {
    parse_time("2026-09-01T08:15:23Z").unwrap_or_default()
}

fn judge(bytes: &[u8]) -> Result<Event<'_>, Reason> {
    let limits = Limits { max_bytes: 4096, ..Limits::default() };
    parse(bytes, &limits).and_then(|e| e.into_event(AT, received(), &limits)).map_err(|r| r.reason)
}

fn with(replace: &str, by: &str) -> String {
    assert!(GOOD.contains(replace), "{replace}");
    GOOD.replace(replace, by)
}

#[test]
fn a_complete_event_fills_every_column() {
    let event = judge(GOOD.as_bytes()).unwrap();
    assert_eq!(event.event_id.to_string(), "018f2f0e-0000-4000-8000-000000000001");
    assert_eq!(event.event_time, parse_time("2026-09-01T08:15:22.123Z").unwrap());
    assert_eq!(event.received_at, received());
    assert_eq!(event.event_type, "page_viewed");
    assert_eq!(event.user_id.as_deref(), Some("u1"));
    assert_eq!(event.anonymous_id.as_deref(), Some("a1"));
}

#[test]
fn every_class_of_bad_input_has_its_reason() {
    let time = r#""timestamp":"2026-09-01T08:15:22.123Z""#;
    let deep = format!(r#""properties":{}1{}"#, "[".repeat(200), "]".repeat(200));
    let long = format!(r#""properties":"{}""#, "x".repeat(5000));
    let cases: Vec<(Vec<u8>, Reason)> = vec![
        (b"".to_vec(), Reason::InvalidJson),
        (b"   ".to_vec(), Reason::InvalidJson),
        (b"no json".to_vec(), Reason::InvalidJson),
        (b"{".to_vec(), Reason::InvalidJson),
        (b"{}{}".to_vec(), Reason::InvalidJson),
        (b"{\"a\":1,}".to_vec(), Reason::InvalidJson),
        (b"{\"a\":NaN}".to_vec(), Reason::InvalidJson),
        (b"{\"a\":01}".to_vec(), Reason::InvalidJson),
        (b"{\"a\":\"\x01\"}".to_vec(), Reason::InvalidJson),
        (b"{\"a\":\"\\x\"}".to_vec(), Reason::InvalidJson),
        (b"\x00".to_vec(), Reason::InvalidJson),
        (GOOD.as_bytes()[..60].to_vec(), Reason::InvalidJson),
        (b"\xff\xfe{}".to_vec(), Reason::InvalidUtf8),
        (b"{\"a\":\"\xc3\"}".to_vec(), Reason::InvalidUtf8),
        (b"{\"a\":\"\xed\xa0\x80\"}".to_vec(), Reason::InvalidUtf8),
        (b"[1,2]".to_vec(), Reason::NotAnObject),
        (b"null".to_vec(), Reason::NotAnObject),
        (b"17".to_vec(), Reason::NotAnObject),
        (b"\"text\"".to_vec(), Reason::NotAnObject),
        (with("u1", "u\\u0000").into(), Reason::NulEscape),
        (with("page_viewed", "\\ud83d").into(), Reason::LoneSurrogate),
        (with("1.5", "1e131072").into(), Reason::NumberOutOfRange),
        (with(r#""properties":{"price":1.5}"#, &deep).into(), Reason::TooDeep),
        (with(r#""properties":{"price":1.5}"#, &long).into(), Reason::TooLarge),
        (with(r#""type":"track","event":"page_viewed","#, "").into(), Reason::MissingEventType),
        (with(r#""track","event":"page_viewed""#, r#""","event":null"#).into(), Reason::MissingEventType),
        (with(time, r#""x":1"#).into(), Reason::MissingEventTime),
        (with(time, r#""timestamp":null"#).into(), Reason::MissingEventTime),
        (with(time, r#""timestamp":"""#).into(), Reason::MissingEventTime),
        (with(time, r#""timestamp":"yesterday""#).into(), Reason::InvalidEventTime),
        (with(time, r#""timestamp":"2026-09-01T08:15:22""#).into(), Reason::InvalidEventTime),
        (with(time, r#""timestamp":1788250522"#).into(), Reason::InvalidEventTime),
        (with(time, r#""timestamp":{"$date":1}"#).into(), Reason::InvalidEventTime),
        (with(time, r#""timestamp":"1969-12-31T23:59:59.999999Z""#).into(), Reason::EventTimeTooOld),
        (with(time, r#""timestamp":"2026-09-01T08:20:23.000001Z""#).into(), Reason::EventTimeInFuture),
        (with(time, r#""timestamp":"9999-12-31T23:59:59Z""#).into(), Reason::EventTimeInFuture),
        (with(r#""u1""#, "{}").into(), Reason::InvalidField),
        (with(r#""a1""#, "true").into(), Reason::InvalidField),
        (with(r#""page_viewed""#, "[1]").into(), Reason::InvalidField),
        (with(r#""018f2f0e-0000-4000-8000-000000000001""#, "1.5").into(), Reason::InvalidField),
    ];
    for (bytes, reason) in cases {
        assert_eq!(judge(&bytes).err(), Some(reason), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn bounds_of_time_are_inclusive() {
    for time in ["1970-01-01T00:00:00Z", "2026-09-01T08:20:23Z", "2026-09-01T10:20:23+02:00"] {
        assert!(judge(with("2026-09-01T08:15:22.123Z", time).as_bytes()).is_ok(), "{time}");
    }
}

#[test]
fn a_limit_on_size_is_inclusive() {
    let limits = Limits { max_bytes: GOOD.len(), ..Limits::default() };
    assert!(parse(GOOD.as_bytes(), &limits).is_ok());
    let limits = Limits { max_bytes: GOOD.len() - 1, ..Limits::default() };
    assert_eq!(parse(GOOD.as_bytes(), &limits).err().map(|r| r.reason), Some(Reason::TooLarge));
}

#[test]
fn harmless_oddities_are_accepted() {
    for (replace, by) in [
        ("page_viewed", "\\\\u0000"),
        ("page_viewed", "\\ud83d\\ude00"),
        ("page_viewed", "größer 日本"),
        (r#""price":1.5"#, r#""price":1e3,"price":-0.0"#),
        (r#""userId":"u1""#, r#""userId":null"#),
        (r#""userId":"u1""#, r#""userId":"","userId":"""#),
        (r#""track","event":"page_viewed""#, r#""page""#),
        (r#""timestamp""#, r#""originalTimestamp""#),
        (r#""timestamp""#, r#""timestamp":null,"originalTimestamp""#),
    ] {
        let text = with(replace, by);
        assert!(judge(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn columns_follow_the_last_of_doubled_keys_and_the_first_of_two_spellings() {
    let text = with(r#""userId":"u1""#, r#""userId":"u1","user_id":"other","userId":17"#);
    assert_eq!(judge(text.as_bytes()).unwrap().user_id.as_deref(), Some("17"));
    let text = with(r#""userId":"u1""#, r#""user_id":"snake""#);
    assert_eq!(judge(text.as_bytes()).unwrap().user_id.as_deref(), Some("snake"));
    let text = with(r#""event":"page_viewed","#, "");
    assert_eq!(judge(text.as_bytes()).unwrap().event_type, "track");
}

#[test]
fn ids_are_deterministic() {
    let id = |text: &str| judge(text.as_bytes()).unwrap().event_id;
    let uuid = "018f2f0e-0000-4000-8000-000000000001";
    assert_eq!(id(GOOD), id(&with(uuid, &uuid.to_uppercase())));
    let other = id(&with(uuid, "ajs-next-1"));
    assert_eq!(other.get_version_num(), 5);
    // Pinned: a different mapping would load every event of the past a second time.
    assert_eq!(other.to_string(), "75bf5713-5556-5d42-bd35-342d027622ed");
    assert_ne!(other, id(&with(uuid, "ajs-next-2")));
    assert_eq!(id(&with(&format!("\"{uuid}\""), "7")), id(&with(uuid, "7")));

    let none = with(&format!(r#""messageId":"{uuid}","#), "");
    assert_eq!(id(&none).to_string(), "c6f0aafc-28ae-5377-add4-f07445ef3170");
    assert_eq!(id(&none), id(&with(uuid, "")));
    let limits = Limits::default();
    // The next record, and the record at the same place of another cluster or of the topic made anew.
    for other in [Coordinates { offset: 43, ..AT }, Coordinates { bytes: b"{ }", ..AT }] {
        let other = parse(none.as_bytes(), &limits).unwrap().into_event(other, received(), &limits).unwrap();
        assert_ne!(other.event_id, id(&none));
    }
}

#[test]
fn dead_letters_know_what_can_be_read_of_the_event() {
    let limits = Limits::default();
    let known = |text: &str| parse(text.as_bytes(), &limits).unwrap().known();
    let (id, time, name) = known(GOOD);
    assert_eq!(id.map(|id| id.to_string()).as_deref(), Some("018f2f0e-0000-4000-8000-000000000001"));
    assert_eq!((time, name.as_deref()), (parse_time("2026-09-01T08:15:22.123Z"), Some("page_viewed")));
    assert_eq!(
        known(r#"{"messageId":[],"type":"track","timestamp":"x"}"#),
        (None, None, Some("track".into()))
    );
    assert_eq!(known("{}"), (None, None, None));
}

#[test]
fn receipt_and_key_are_read_for_producing() {
    let limits = Limits::default();
    let text = with(r#""type""#, r#""receivedAt":"2026-09-01T08:15:23.001Z","type""#);
    let envelope = parse(text.as_bytes(), &limits).unwrap();
    assert_eq!(envelope.received_at().map(time::to_unix_millis), Some(1_788_250_523_001));
    assert_eq!(envelope.key(), Some("u1"));
    let text = with(r#""userId":"u1","#, "");
    assert_eq!(parse(text.as_bytes(), &limits).unwrap().key(), Some("a1"));
}

#[test]
fn several_events_in_one_record_are_named_as_such() {
    for (text, reason, detail) in [
        (r#"[{"a":1},{"a":2}]"#, Reason::NotAnObject, "an array of 2 values, where one event is expected"),
        (r#"{"a":1}{"a":2} {}"#, Reason::InvalidJson, "3 JSON values, where one event is expected"),
        (r#"{"a":1}{"#, Reason::InvalidJson, "trailing characters"),
        ("7", Reason::NotAnObject, "JSON, but not an object"),
    ] {
        let wrong = parse(text.as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!(wrong.reason, reason, "{text}");
        assert!(wrong.detail.starts_with(detail), "{text}: {}", wrong.detail);
    }
}
