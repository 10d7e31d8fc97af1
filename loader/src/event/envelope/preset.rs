//! The ways in which events are written: Segment-like (the fast path, in `envelope`), and others whose fields are found
//! by JSON pointers: CloudEvents, Snowplow, or whatever the command line says.

use std::borrow::Cow;
use std::sync::Arc;

use super::pointer::{Pointer, Tree, find};
use super::scan::scan;
use super::{Envelope, Field, Limits, parse, parse_with};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::fingerprint::Fingerprint;
use crate::event::time::Micros;

/// A known way to write events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// messageId, event or type, timestamp or originalTimestamp, userId, anonymousId, receivedAt
    #[default]
    Segment,
    /// CloudEvents 1.0 in JSON, and over Kafka also in binary mode (ce_ headers); users from data.userId and the like
    Cloudevents,
    /// Snowplow enriched events in JSON: event_id, event_name, derived_tstamp, user_id, domain_userid, collector_tstamp
    Snowplow,
}

/// What of an event goes into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Part {
    /// The event's id
    EventId,
    /// When it happened
    EventTime,
    /// Its name
    EventType,
    /// Known user
    UserId,
    /// Anonymous identity
    AnonymousId,
    /// When it was received, where no broker says so
    ReceivedAt,
}

const PARTS: [Part; 6] =
    [Part::EventId, Part::EventTime, Part::EventType, Part::UserId, Part::AnonymousId, Part::ReceivedAt];

impl Part {
    fn word(self) -> &'static str {
        match self {
            Part::EventId => "event_id",
            Part::EventTime => "event_time",
            Part::EventType => "event_type",
            Part::UserId => "user_id",
            Part::AnonymousId => "anonymous_id",
            Part::ReceivedAt => "received_at",
        }
    }

    /// The field that the messages of `envelope` name.
    fn of_segment(name: &str) -> Option<Part> {
        Some(match name {
            "messageId" => Part::EventId,
            "event" | "type" => Part::EventType,
            "timestamp" | "originalTimestamp" => Part::EventTime,
            "userId" => Part::UserId,
            "anonymousId" => Part::AnonymousId,
            _ => return None,
        })
    }
}

impl Preset {
    /// Where a part is found: the first pointer with a value counts.
    fn pointers(self, part: Part) -> &'static [&'static str] {
        match (self, part) {
            (Preset::Segment, Part::EventId) => &["/messageId"],
            (Preset::Segment, Part::EventTime) => &["/timestamp", "/originalTimestamp"],
            (Preset::Segment, Part::EventType) => &["/event", "/type"],
            (Preset::Segment, Part::UserId) => &["/userId", "/user_id"],
            (Preset::Segment, Part::AnonymousId) => &["/anonymousId", "/anonymous_id"],
            (Preset::Segment, Part::ReceivedAt) => &["/receivedAt"],
            (Preset::Cloudevents, Part::EventId) => &["/id"],
            (Preset::Cloudevents, Part::EventTime) => &["/time"],
            (Preset::Cloudevents, Part::EventType) => &["/type"],
            (Preset::Cloudevents, Part::UserId) => &["/data/userId", "/data/user_id", "/userid"],
            (Preset::Cloudevents, Part::AnonymousId) => &["/data/anonymousId", "/data/anonymous_id"],
            (Preset::Cloudevents, Part::ReceivedAt) => &[],
            (Preset::Snowplow, Part::EventId) => &["/event_id"],
            (Preset::Snowplow, Part::EventTime) => {
                &["/derived_tstamp", "/dvce_created_tstamp", "/collector_tstamp"]
            }
            (Preset::Snowplow, Part::EventType) => &["/event_name", "/event"],
            (Preset::Snowplow, Part::UserId) => &["/user_id"],
            (Preset::Snowplow, Part::AnonymousId) => &["/domain_userid", "/network_userid"],
            (Preset::Snowplow, Part::ReceivedAt) => &["/collector_tstamp"],
        }
    }
}

impl Preset {
    /// Members that differ from one sending of an event to the next, beside those of Segment, which never count.
    pub fn per_sending(self) -> &'static [&'static str] {
        match self {
            Preset::Segment | Preset::Cloudevents => &[],
            // Times and versions of what stood between the tracker and the file, and what is computed from them.
            Preset::Snowplow => &[
                "collector_tstamp",
                "etl_tstamp",
                "dvce_sent_tstamp",
                "derived_tstamp",
                "network_userid",
                "v_collector",
                "v_etl",
            ],
        }
    }
}

/// How the events of a source are written: options of each command that reads events.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FormatArgs {
    /// How the events are written
    #[arg(long, default_value = "segment", value_enum)]
    envelope_preset: Preset,
    /// Where a field of the event is found, such as user_id=/user/id; can be repeated, also for one field
    ///
    /// Fields: event_id, event_time, event_type, user_id, anonymous_id, received_at. What is given here replaces what
    /// the preset says about the field; of several pointers for one field the first one with a value counts.
    #[arg(long = "envelope", value_name = "FIELD=POINTER", value_parser = parse_part)]
    envelope: Vec<(Part, Pointer)>,
}

impl FormatArgs {
    /// What the options say.
    pub fn format(&self) -> Format {
        Format::new(self.envelope_preset, &self.envelope)
    }
}

/// Reads `user_id=/user/id`.
pub fn parse_part(text: &str) -> Result<(Part, Pointer), String> {
    let (name, pointer) = text.split_once('=').ok_or("not of the form field=/pointer")?;
    let Some(part) = PARTS.into_iter().find(|part| part.word() == name) else {
        return Err(format!("{name} is no field; there are {}", PARTS.map(Part::word).join(", ")));
    };
    Ok((part, Pointer::new(pointer)?))
}

/// How events are written.
#[derive(Clone, Debug, Default)]
pub enum Format {
    /// As `envelope` reads them.
    #[default]
    Segment,
    /// Found by pointers.
    Mapped(Arc<Mapping>),
}

/// Pointers to the fields.
#[derive(Debug)]
pub struct Mapping {
    preset: Preset,
    tree: Tree,
    /// For each part the slots of its pointers, in order of preference.
    slots: [Vec<usize>; PARTS.len()],
    /// The pointers of each part, for messages.
    names: [String; PARTS.len()],
    /// Slot of the attribute `source` of CloudEvents.
    source: usize,
}

impl Format {
    /// A preset with some of its fields found elsewhere.
    pub fn new(preset: Preset, own: &[(Part, Pointer)]) -> Self {
        if preset == Preset::Segment && own.is_empty() {
            return Format::Segment;
        }
        let (mut tree, mut n) = (Tree::default(), 0);
        let mut slots: [Vec<usize>; PARTS.len()] = Default::default();
        let mut names: [String; PARTS.len()] = Default::default();
        for (i, part) in PARTS.into_iter().enumerate() {
            let mut pointers: Vec<Pointer> =
                own.iter().filter(|(of, _)| *of == part).map(|(_, pointer)| pointer.clone()).collect();
            if pointers.is_empty() {
                pointers = preset.pointers(part).iter().filter_map(|text| Pointer::new(text).ok()).collect();
            }
            for pointer in &pointers {
                tree.insert(pointer, n);
                slots[i].push(n);
                n += 1;
            }
            names[i] = pointers.iter().map(Pointer::to_string).collect::<Vec<_>>().join(" or ");
        }
        if let Ok(pointer) = Pointer::new("/source") {
            tree.insert(&pointer, n);
        }
        Format::Mapped(Arc::new(Mapping { preset, tree, slots, names, source: n }))
    }

    /// Parses the bytes of one event, as [`parse`] does.
    pub fn parse<'a>(&self, bytes: &'a [u8], limits: &Limits) -> Result<Envelope<'a>, Rejection> {
        match self {
            Format::Segment => parse(bytes, limits),
            Format::Mapped(mapping) => parse_with(bytes, limits, |text| mapping.read(text)),
        }
    }

    /// What [`Format::parse`] and [`Fingerprint::of`] say about a plain event, in one pass; `None` if those two have to
    /// be asked.
    pub fn scan<'a>(
        &self,
        bytes: &'a [u8],
        limits: &Limits,
        fingerprint: &Fingerprint,
    ) -> Option<(Envelope<'a>, i64)> {
        match self {
            Format::Segment if bytes.len() <= limits.max_bytes => scan(bytes, fingerprint),
            _ => None,
        }
    }

    /// The whole event of a record in the binary mode of CloudEvents, in which headers hold the attributes and the
    /// value is the data (CloudEvents, Kafka Protocol Binding, 3.2). `None` for all other records: their value is the
    /// event.
    pub fn compose(&self, headers: Option<&[u8]>, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Format::Mapped(mapping) if mapping.preset == Preset::Cloudevents => compose(headers?, value),
            _ => None,
        }
    }

    /// The event's own time of receipt, if it has one.
    pub fn received_at(&self, headers: Option<&[u8]>, value: &[u8], limits: &Limits) -> Option<Micros> {
        let composed = self.compose(headers, value);
        self.parse(composed.as_deref().unwrap_or(value), limits).ok()?.received_at()
    }

    /// Says in a rejection of [`Envelope::into_event`] where this format looks for the field.
    pub fn explain(&self, rejection: Rejection) -> Rejection {
        let Format::Mapped(mapping) = self else { return rejection };
        let name = |part: Part| mapping.names[part as usize].as_str();
        let detail = match rejection.reason {
            Reason::MissingEventType => format!("no event_type: {} is not set", name(Part::EventType)),
            Reason::MissingEventTime => format!("no event_time: {} is not set", name(Part::EventTime)),
            _ => match rejection.detail.split_once(' ') {
                Some((first, rest)) => match Part::of_segment(first) {
                    Some(part) => format!("{} ({}) {rest}", part.word(), name(part)),
                    None => rejection.detail,
                },
                None => rejection.detail,
            },
        };
        Rejection { detail, ..rejection }
    }
}

impl Mapping {
    fn read<'a>(&self, text: &'a str) -> serde_json::Result<Envelope<'a>> {
        let mut found = vec![Field::None; self.source + 1];
        find(text, &self.tree, &mut found)?;
        let pick = |part: Part| {
            let filled =
                |f: &&Field<'a>| !matches!(f, Field::None) && !matches!(f, Field::Text(t) if t.is_empty());
            let fields = self.slots[part as usize].iter().map(|slot| &found[*slot]);
            fields.clone().find(filled).or_else(|| fields.clone().next()).cloned().unwrap_or_default()
        };
        let time = |field: Field<'a>| if self.preset == Preset::Snowplow { in_utc(field) } else { field };
        let mut message_id = pick(Part::EventId);
        if self.preset == Preset::Cloudevents
            && let (Field::Text(id), Field::Text(source)) = (&message_id, &found[self.source])
            && uuid::Uuid::try_parse(id).is_err()
            && !id.is_empty()
        {
            // Source and id together name an event; a UUID needs no help.
            message_id = Field::Text(format!("{source} {id}").into());
        }
        Ok(Envelope {
            message_id,
            event: pick(Part::EventType),
            timestamp: time(pick(Part::EventTime)),
            received_at: time(pick(Part::ReceivedAt)),
            user_id: pick(Part::UserId),
            anonymous_id: pick(Part::AnonymousId),
            ..Envelope::default()
        })
    }
}

/// Snowplow's times are in UTC and often do not say so.
fn in_utc(field: Field<'_>) -> Field<'_> {
    match field {
        Field::Text(text)
            if text.len() >= 19
                && text.is_ascii()
                && !text.ends_with(['Z', 'z'])
                && !text[19..].contains(['+', '-']) =>
        {
            Field::Text(Cow::Owned(format!("{text}Z")))
        }
        other => other,
    }
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

fn compose(encoded: &[u8], value: &[u8]) -> Option<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::envelope::{Coordinates, Event};
    use crate::event::time::parse_time;

    const AT: Coordinates<'_> = Coordinates { topic: "t", partition: 0, offset: 0, bytes: b"" };

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
        let mapped = Format::new(Preset::Segment, &[parse_part("received_at=/receivedAt").unwrap()]);
        assert!(
            matches!(mapped, Format::Mapped(_))
                && matches!(Format::new(Preset::Segment, &[]), Format::Segment)
        );
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
        for text in
            ["{}", "[]", "{", r#"{"event":"e"}"#, r#"{"event":"e","timestamp":"x"}"#, r#"{"event":[1]}"#]
        {
            let reason = |format: &Format| judge(format, text.as_bytes()).unwrap_err().reason;
            assert_eq!(reason(&Format::Segment), reason(&mapped), "{text}");
        }
    }

    #[test]
    fn pointers_of_the_command_line_replace_those_of_the_preset() {
        let own: Vec<_> =
            ["event_id=/meta/id", "event_time=/at", "event_time=/when", "event_type=/what", "user_id=/who/0"]
                .into_iter()
                .map(|text| parse_part(text).unwrap())
                .collect();
        let format = Format::new(Preset::Segment, &own);
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
        let format = Format::new(Preset::Cloudevents, &[]);
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
        let format = Format::new(Preset::Snowplow, &[]);
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
}
