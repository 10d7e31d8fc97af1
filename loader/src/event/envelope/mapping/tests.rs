use super::*;
use crate::event::envelope::{Coordinates, Event};
use crate::event::time::parse_time;

const AT: Coordinates<'_> = Coordinates { topic: "t", partition: 0, offset: 0, bytes: b"", index: None };

fn shipped(name: &str) -> Description {
    Description::of(name).unwrap()
}

fn judge<'a>(format: &Format, text: &'a [u8]) -> Result<Event<'a>, Rejection> {
    let limits = Limits::default();
    let received = parse_time("2026-09-01T10:00:05Z").unwrap();
    format
        .parse(text, &limits)
        .and_then(|e| e.into_event(AT, received, &limits))
        .map_err(|e| format.explain(e))
}

fn encoded(pairs: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.extend_from_slice(&(name.len() as i32).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&value.map_or(-1, |v| v.len() as i32).to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

#[test]
fn segment_by_pointers_reads_what_the_fast_path_reads() {
    let mapped = Format::new(&shipped("segment"), &[parse_part("received_at=/receivedAt:UTC").unwrap()]);
    assert!(matches!(mapped, Format::Mapped(_)));
    for fast in ["segment", "rudderstack"] {
        assert!(matches!(Format::new(&shipped(fast), &[]), Format::Segment), "{fast}");
    }
    for text in [
        r#"{"messageId":"018f2f0e-0000-4000-8000-000000000001","type":"track","event":"e",
            "timestamp":"2026-09-01T10:00:00Z","userId":"u","anonymousId":"a"}"#,
        r#"{"messageId":"x","type":"page","originalTimestamp":"2026-09-01T10:00:00+02:00","user_id":7}"#,
        r#"{"messageId":"x","type":"page","timestamp":"2026-09-01T10:00:00Z","userId":"","user_id":"v"}"#,
        r#"{"type":"track","event":"e","timestamp":"2026-09-01T10:00:00Z"}"#,
    ] {
        let (fast, slow) = (judge(&Format::Segment, text.as_bytes()), judge(&mapped, text.as_bytes()));
        // Of an empty first spelling and a filled second one, pointers take the filled one.
        if !text.contains(r#""userId":"""#) {
            assert_eq!(fast, slow, "{text}");
        }
    }
    for text in ["{}", "[]", "{", r#"{"event":"e"}"#, r#"{"event":"e","timestamp":"x"}"#, r#"{"event":[1]}"#]
    {
        let reason = |format: &Format| judge(format, text.as_bytes()).unwrap_err().reason;
        assert_eq!(reason(&Format::Segment), reason(&mapped), "{text}");
    }
}

#[test]
fn pointers_of_the_command_line_replace_those_of_the_mapping() {
    let own: Vec<_> =
        ["event_id=/meta/id", "event_time=/at", "event_time=/when", "event_type=/what", "user_id=/who/0"]
            .into_iter()
            .map(|text| parse_part(text).unwrap())
            .collect();
    let format = Format::new(&shipped("segment"), &own);
    let event = br#"{"meta":{"id":"018f2f0e-0000-4000-8000-000000000001"},"when":"2026-09-01T10:00:00Z",
        "what":"sale","who":["ada"],"anonymousId":"a","event":"other"}"#;
    let event = judge(&format, event).unwrap();
    assert_eq!((event.event_type.as_ref(), event.user_id.as_deref()), ("sale", Some("ada")));
    assert_eq!(event.anonymous_id.as_deref(), Some("a"));
    let missing = judge(&format, br#"{"what":"x"}"#).unwrap_err();
    assert_eq!(missing.detail, "no event_time: /at or /when is not set");
    let wrong = judge(&format, br#"{"what":"x","at":"noon"}"#).unwrap_err();
    assert_eq!(wrong.detail, "event_time (/at or /when) is no time such as 2026-09-01T08:15:22Z");
    for bad in ["user=/x", "user_id", "user_id=x"] {
        assert!(parse_part(bad).is_err(), "{bad}");
    }
}

#[test]
fn cloudevents_are_read_in_both_modes() {
    let format = Format::new(&shipped("cloudevents"), &[]);
    let structured = br#"{"specversion":"1.0","id":"1","source":"/shop","type":"sale",
        "time":"2026-09-01T10:00:00Z","data":{"userId":"ada"}}"#;
    let json = Some(b"application/cloudevents+json; charset=utf-8".as_slice());
    let marked = encoded(&[("content-type", json), ("ce_specversion", Some(b"1.0"))]);
    assert_eq!(format.compose(Some(&marked), structured), None);
    assert_eq!(format.compose(None, structured), None);
    let whole = judge(&format, structured).unwrap();
    assert_eq!((whole.event_type.as_ref(), whole.user_id.as_deref()), ("sale", Some("ada")));

    let binary = encoded(&[
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"1")),
        ("ce_source", Some(b"/shop")),
        ("ce_type", Some(b"sale")),
        ("ce_time", Some(b"2026-09-01T10:00:00Z")),
        ("traceparent", Some(b"\xff")),
        ("ce_none", None),
    ]);
    let composed = format.compose(Some(&binary), br#"{"userId":"ada"}"#).unwrap();
    assert_eq!(judge(&format, &composed).unwrap(), whole);
    // The same id of another source is another event.
    let other = String::from_utf8(structured.to_vec()).unwrap().replace("/shop", "/app");
    assert_ne!(judge(&format, other.as_bytes()).unwrap().event_id, whole.event_id);
    let empty = format.compose(Some(&binary), b"").unwrap();
    assert_eq!(judge(&format, &empty).unwrap_err().reason, Reason::InvalidJson);
    let broken = encoded(&[("ce_specversion", Some(b"\xff"))]);
    let broken = format.compose(Some(&broken), b"{}").unwrap();
    assert_eq!(judge(&format, &broken).unwrap_err().reason, Reason::InvalidUtf8);
}

#[test]
fn snowplow_times_are_utc_whether_they_say_so_or_not() {
    let format = Format::new(&shipped("snowplow"), &[]);
    for time in ["2026-09-01 10:00:00.123", "2026-09-01T10:00:00.123Z", "2026-09-01T12:00:00.123+02:00"] {
        let text = format!(
            r#"{{"event_id":"018f2f0e-0000-4000-8000-000000000001","event":"unstruct",
                "event_name":"add_to_cart","derived_tstamp":"{time}","collector_tstamp":"2026-09-01 10:00:01",
                "user_id":"","domain_userid":"d"}}"#
        );
        let event = judge(&format, text.as_bytes()).unwrap();
        assert_eq!(event.event_time, parse_time("2026-09-01T10:00:00.123Z").unwrap(), "{time}");
        assert_eq!((event.event_type.as_ref(), event.user_id), ("add_to_cart", None));
        assert_eq!(event.anonymous_id.as_deref(), Some("d"));
        let received = format.received_at(None, text.as_bytes(), &Limits::default());
        assert_eq!(received, parse_time("2026-09-01T10:00:01Z"));
    }
}

#[test]
fn every_shipped_mapping_is_read() {
    for (name, text) in SHIPPED {
        let mapping = Description::parse(name, text).unwrap();
        assert!(!mapping.about.is_empty() && !mapping.sources(Part::EventTime).is_empty(), "{name}");
    }
}

#[test]
fn a_mapping_that_says_something_else_is_refused() {
    let why = |text: &str| Description::parse("f.toml", text).unwrap_err();
    for (text, part) in [
        ("event_id = '/a'", "f.toml: about is missing"),
        ("about = 'x'\nevent_time = 'time'", "event_time: time is no JSON pointer"),
        ("about = 'x'\nuser_id = '*'", "user_id: * is no JSON pointer"),
        ("about = 'x'\nperson = '/a'", "f.toml: unknown key person"),
        ("about = 'x'\nuser_id = [{ at = '/a', as = 'b' }]", "user_id: unknown key as"),
        ("about = 'x'\nsigns = ['a']", "a is no JSON pointer"),
        ("about = ", "f.toml: TOML parse error"),
    ] {
        assert!(why(text).contains(part), "{text}: {}", why(text));
    }
    assert!(Description::of("segmant").unwrap_err().contains("there are segment, rudderstack"));
    assert!(Description::of("./none.toml").unwrap_err().contains("cannot read ./none.toml"));
}

/// Time, type, user and anonymous id of an event, its time as from the beginning of 2026-09-01 10:00 in microseconds.
fn read(mapping: &str, text: &str) -> (i64, String, Option<String>, Option<String>) {
    let format = Format::new(&shipped(mapping), &[]);
    let event = judge(&format, text.as_bytes()).unwrap_or_else(|e| panic!("{mapping} {text}: {e:?}"));
    (
        event.event_time - parse_time("2026-09-01T10:00:00Z").unwrap(),
        event.event_type.into_owned(),
        event.user_id.map(Into::into),
        event.anonymous_id.map(Into::into),
    )
}

#[test]
fn events_of_other_systems_are_read_by_their_mappings() {
    let some = |text: &str| Some(text.to_owned());
    for (mapping, text, expected) in [
        (
            "posthog",
            r#"{"uuid":"018f2f0e-0000-4000-8000-000000000001","event":"$pageview","distinct_id":"d1",
                "timestamp":"2026-09-01 10:00:00.5","properties":{"$device_id":"d1","$lib":"web"}}"#,
            (500_000, "$pageview", None, some("d1")),
        ),
        (
            "posthog",
            r#"{"uuid":"u","event":"paid","distinct_id":"ada","timestamp":"2026-09-01T10:00:00.000000+00:00",
                "properties":{"$device_id":"d1"}}"#,
            (0, "paid", some("ada"), some("d1")),
        ),
        (
            "mixpanel",
            r#"{"event":"sale","properties":{"time":1788256800,"distinct_id":"$device:d1","$device_id":"d1",
                "$insert_id":"x"}}"#,
            (0, "sale", None, some("d1")),
        ),
        (
            "mixpanel",
            r#"{"event":"sale","properties":{"time":1788256800.25,"distinct_id":"ada","$user_id":"ada"}}"#,
            (250_000, "sale", some("ada"), None),
        ),
        (
            "amplitude",
            r#"{"uuid":"u1","event_type":"sale","event_time":"2026-09-01 10:00:00.123000","user_id":null,
                "device_id":"d1","server_received_time":"2026-09-01 10:00:02.000000"}"#,
            (123_000, "sale", None, some("d1")),
        ),
        (
            "ga4",
            r#"{"event_date":"20260901","event_timestamp":"1788256800000001","event_name":"page_view",
                "user_pseudo_id":"1.2","user_id":null}"#,
            (1, "page_view", None, some("1.2")),
        ),
        (
            "umami",
            r#"{"website_id":"w","session_id":"s","url_path":"/p","event_type":"1","created_at":"2026-09-01 10:00:00"}"#,
            (0, "page_viewed", None, some("s")),
        ),
        (
            "segment-warehouse",
            r#"{"id":"i","event":"sale","timestamp":"2026-09-01 10:00:00.000","user_id":"ada","anonymous_id":"a"}"#,
            (0, "sale", some("ada"), some("a")),
        ),
        (
            "access-log",
            r#"{"remote_addr":"127.0.0.1","time":"2026-09-01T12:00:00+02:00","method":"GET","path":"/","status":200}"#,
            (0, "request", None, None),
        ),
    ] {
        let (time, kind, user, anonymous) = expected;
        assert_eq!(read(mapping, text), (time, kind.to_owned(), user, anonymous), "{text}");
    }
}

#[test]
fn an_event_without_an_id_may_be_known_by_what_it_says() {
    let format = Format::new(&shipped("ga4"), &[]);
    let id = |text: &str, offset: i64| {
        let (limits, bytes) = (Limits::default(), text.as_bytes());
        let at = Coordinates { topic: "t", partition: 0, offset, bytes, index: None };
        let received = parse_time("2026-09-01T10:00:05Z").unwrap();
        format.parse(bytes, &limits).unwrap().into_event(at, received, &limits).unwrap().event_id
    };
    let event = r#"{"event_timestamp":1788256800000001,"event_name":"page_view"}"#;
    let other = r#"{"event_timestamp":1788256800000001,"event_name":"page_view","n":1}"#;
    assert_eq!(id(event, 1), id(event, 2));
    assert_ne!(id(event, 1), id(other, 1));
}

#[test]
fn parts_of_the_command_line_may_have_units_and_be_constants() {
    let own =
        ["event_time=/at:ms", "event_type==page_viewed", "event_id=/a:b"].map(|p| parse_part(p).unwrap());
    let format = Format::new(&shipped("segment"), &own);
    let event = judge(&format, br#"{"at":1788256800250,"a:b":"x"}"#).unwrap();
    assert_eq!(event.event_time, parse_time("2026-09-01T10:00:00.25Z").unwrap());
    assert_eq!(event.event_type, "page_viewed");
    assert_eq!(
        event.event_id,
        judge(
            &Format::Segment,
            br#"{"event":"e","messageId":"x",
        "timestamp":"2026-09-01T10:00:00Z"}"#
        )
        .unwrap()
        .event_id
    );
    let naive = judge(&Format::Segment, br#"{"event":"e","timestamp":"2026-09-01 10:00:00"}"#).unwrap_err();
    assert!(naive.detail.contains("has no offset from UTC"), "{}", naive.detail);
    let number = judge(&Format::Segment, br#"{"event":"e","timestamp":1788256800.5}"#).unwrap_err();
    assert!(
        number.detail.starts_with("timestamp is a number, and does not say of what"),
        "{}",
        number.detail
    );
    let zone = parse_part("event_time=/a:b/at:Europe/Berlin").unwrap();
    let local = Format::new(&shipped("segment"), &[zone]);
    let event = judge(&local, br#"{"event":"e","a:b":{"at":"2026-09-01 12:00:00"}}"#).unwrap();
    assert_eq!(event.event_time, parse_time("2026-09-01T10:00:00Z").unwrap());
    let mistaken = "Europa/Berlin is no time zone; did you mean Europe/Berlin?";
    assert_eq!(parse_part("event_time=/at:Europa/Berlin").unwrap_err(), mistaken);
    let mapping = Description::parse("till.toml", "about = 'x'\nevent_time = '/at:Europa/Berlin'");
    assert_eq!(mapping.unwrap_err(), format!("till.toml: event_time: {mistaken}"));
    // Only times have a zone.
    assert!(parse_part("user_id=/at:Europa/Berlin").is_ok());
    let empty = judge(&Format::Segment, br#"{"event":"e","timestamp":""}"#).unwrap_err();
    assert_eq!(empty.reason, Reason::MissingEventTime);
}

#[test]
fn numbers_of_any_length_are_ids_by_their_digits() {
    let format = Format::new(&shipped("segment"), &[parse_part("user_id=/u").unwrap()]);
    for (written, user) in [
        ("18446744073709551615", Some("18446744073709551615")),
        ("18446744073709551617", Some("18446744073709551617")),
        ("-9223372036854775809", Some("-9223372036854775809")),
        ("340282366920938463463374607431768211457", Some("340282366920938463463374607431768211457")),
        ("0", Some("0")),
        ("-0", None),
        ("1.0", None),
        ("1e3", None),
        ("[1]", None),
    ] {
        for (format, name) in [(&format, "u"), (&Format::Segment, "userId")] {
            let text = format!(
                r#"{{"messageId":"x","event":"e","timestamp":"2026-09-01T10:00:00Z","{name}":{written}}}"#
            );
            let judged = judge(format, text.as_bytes());
            match user {
                Some(user) => assert_eq!(judged.unwrap().user_id.as_deref(), Some(user), "{written}"),
                None => assert_eq!(judged.unwrap_err().reason, Reason::InvalidField, "{written}"),
            }
        }
    }
}

#[test]
fn actions_of_matomo_keep_their_visit() {
    let format = Format::new(&shipped("matomo"), &[]);
    assert!(format.keeps_record() && format.is_split());
    let visit = r#"{"idVisit":"7","visitorId":"v1","userId":null,"actionDetails":[
        {"type":"action","pageId":"5","timestamp":1788256800,"url":"https://shop.example/"},
        {"type":"event","eventAction":"Played","pageId":"6","timestamp":1788256800},
        {"type":"ecommerceOrder","orderId":"A1","revenue":5,"timestamp":1788256801},
        {"type":"goal","goalId":"3","timestamp":1788256801},{"type":"goal","goalId":"4","timestamp":1788256801}]}"#;
    let events = format.events_with_their_record(visit.as_bytes()).unwrap();
    let judged: Vec<_> = events.iter().map(|event| judge(&format, event).unwrap()).collect();
    let types: Vec<_> = judged.iter().map(|event| event.event_type.as_ref()).collect();
    assert_eq!(types, ["page_view", "Played", "purchase", "goal", "goal"]);
    assert!(
        judged.iter().all(|event| event.anonymous_id.as_deref() == Some("v1") && event.user_id.is_none())
    );
    let ids: std::collections::HashSet<_> = judged.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), 5);
    assert!(Format::Segment.events_with_their_record(visit.as_bytes()).is_none());
}

#[test]
fn lines_of_snowplow_are_events_with_and_without_json() {
    let format = Format::new(&shipped("snowplow"), &[]);
    let mut cells = vec![""; 131];
    cells[3] = "2026-09-01 10:00:01.500";
    cells[6] = "018f2f0e-0000-4000-8000-000000000001";
    cells[15] = "d";
    cells[52] = r#"{"data":[1]}"#;
    cells[124] = "2026-09-01 10:00:00.123";
    cells[126] = "page_view";
    let line = cells.join("\t");
    let composed = format.compose(None, line.as_bytes()).unwrap();
    let event = judge(&format, &composed).unwrap();
    assert_eq!((event.event_type.as_ref(), event.anonymous_id.as_deref()), ("page_view", Some("d")));
    assert_eq!(event.event_time, parse_time("2026-09-01T10:00:00.123Z").unwrap());
    assert!(String::from_utf8(composed).unwrap().contains(r#""contexts":{"data":[1]}"#));
    assert_eq!(format.compose(None, br#"{"event_id":"x"}"#), None);
    assert_eq!(format.compose(None, cells[..130].join("\t").as_bytes()), None);
}

#[test]
fn what_a_file_says_is_checked() {
    let read = |more: &str| Description::parse("x", &format!("about = 'x'\n{more}"));
    for (more, told) in [
        ("names = 'x'", "x: names: string where a table belongs"),
        ("[names]\na = 1", "x: names: integer where a text belongs"),
        ("transport = '/a'", "x: transport: /a is no member of a member, such as /properties/sent_at"),
        (
            "transport = '/a/b/c'",
            "x: transport: /a/b/c is no member of a member, such as /properties/sent_at",
        ),
        ("columns = [1]", "x: columns: integer where a text belongs"),
        ("nothing = 'x'", "x: unknown key nothing"),
    ] {
        assert_eq!(read(more).unwrap_err(), told);
    }
    assert!(read("transport = ['a', '/a/b']\nnames = { a = 'b' }").is_ok());
}
