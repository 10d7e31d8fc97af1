//! Reads from an event what bronze keeps in columns, and decides whether the event can be loaded. Works on the
//! original bytes, which go into the payload untouched. Knows nothing about batches or Postgres.

pub mod mapping;
pub mod pointer;
mod scan;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event::dead_letter::{Reason, Rejection};
use crate::event::screen::screen;
use crate::event::time::LatePolicy;
use crate::event::time::{self, Micros};

/// Namespace of the UUIDv5 that stand for ids which are no UUIDs. Fixed for ever: another value would let every
/// event load twice.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x8d1f_3c52_60a7_5e49_9b0e_7a41_c6d2_f853);

/// What is accepted as an event.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest event in bytes, inclusive.
    pub max_bytes: usize,
    /// Earliest event time, inclusive.
    pub floor: Micros,
    /// How far the event time may lie after the receipt, inclusive, in microseconds.
    pub max_skew: i64,
    /// What becomes of an event that was received later than allowed.
    pub late_policy: LatePolicy,
    /// How long after it happened an event may be received, inclusive, in microseconds.
    pub allowed_lateness: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_bytes: 1 << 20,
            floor: time::UNIX_EPOCH_US,
            max_skew: 300_000_000,
            late_policy: LatePolicy::Recompute,
            allowed_lateness: 7 * time::DAY_US,
        }
    }
}

/// Where an event comes from; names it when it has no id of its own.
#[derive(Clone, Copy, Debug)]
pub struct Coordinates<'a> {
    /// Topic or file.
    pub topic: &'a str,
    /// Kafka partition; 0 for files.
    pub partition: i32,
    /// Kafka offset or line number.
    pub offset: i64,
    /// Which of several events of its record it is, counted from 1.
    pub index: Option<i32>,
    /// The event. Part of its name, because another cluster, or a topic made anew, has the same coordinates.
    pub bytes: &'a [u8],
}

/// The columns of an event that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The producer's id, or what stands for it.
    pub event_id: Uuid,
    /// When it happened.
    pub event_time: Micros,
    /// When the broker got it.
    pub received_at: Micros,
    /// `event`, else `type`.
    pub event_type: Cow<'a, str>,
    /// Known user, if any.
    pub user_id: Option<Cow<'a, str>>,
    /// Anonymous identity, if any.
    pub anonymous_id: Option<Cow<'a, str>>,
}

/// A field of the envelope as it came.
#[derive(Clone, Debug, Default, PartialEq)]
enum Field<'a> {
    /// Absent or null.
    #[default]
    None,
    Text(Cow<'a, str>),
    /// A number with a fraction.
    Number(f64),
    /// A time of which somebody else knew the unit.
    Time(Micros),
    /// In place of an id: the event is known by all that it says.
    Whole,
    /// A value whose text would be ambiguous: boolean, array, object.
    Other,
}

impl Field<'_> {
    /// Null and an empty text are nothing.
    fn is_absent(&self) -> bool {
        matches!(self, Field::None) || matches!(self, Field::Text(text) if text.is_empty())
    }
}

/// The fields of the envelope, not yet judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    message_id: Field<'a>,
    kind: Field<'a>,
    event: Field<'a>,
    timestamp: Field<'a>,
    original_timestamp: Field<'a>,
    received_at: Field<'a>,
    user_id: Field<'a>,
    anonymous_id: Field<'a>,
}

/// An envelope while its fields are found.
#[derive(Debug, Default)]
struct Fields<'a> {
    envelope: Envelope<'a>,
    user_id: Field<'a>,
    anonymous_id: Field<'a>,
}

impl<'a> Fields<'a> {
    /// Where the value of a member belongs; `None` for one that is no field. A name that comes twice: the last one wins,
    /// as in jsonb.
    fn named(&mut self, key: &[u8]) -> Option<&mut Field<'a>> {
        let e = &mut self.envelope;
        Some(match key {
            b"messageId" => &mut e.message_id,
            b"type" => &mut e.kind,
            b"event" => &mut e.event,
            b"timestamp" => &mut e.timestamp,
            b"originalTimestamp" => &mut e.original_timestamp,
            b"receivedAt" => &mut e.received_at,
            b"userId" => &mut e.user_id,
            b"user_id" => &mut self.user_id,
            b"anonymousId" => &mut e.anonymous_id,
            b"anonymous_id" => &mut self.anonymous_id,
            _ => return None,
        })
    }

    /// Of two spellings the first one here wins.
    fn finish(self) -> Envelope<'a> {
        let Fields { mut envelope, user_id, anonymous_id } = self;
        if envelope.user_id == Field::None {
            envelope.user_id = user_id;
        }
        if envelope.anonymous_id == Field::None {
            envelope.anonymous_id = anonymous_id;
        }
        envelope
    }
}

/// Parses the bytes of one event. An error means that they are no JSON object that Postgres can store.
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Envelope<'a>, Rejection> {
    parse_with(bytes, limits, serde_json::from_str)
}

/// The same with another way to find the fields.
fn parse_with<'a, T>(
    bytes: &'a [u8],
    limits: &Limits,
    read: impl FnOnce(&'a str) -> serde_json::Result<T>,
) -> Result<T, Rejection> {
    if bytes.len() > limits.max_bytes {
        return Err(too_large(bytes.len() as u64, limits));
    }
    // No JSON begins with one of these.
    if let [0 | 1, ..] = bytes
        && let Some(framing) = registry_framing(bytes)
    {
        return Err(Rejection::new(Reason::RegistryFraming, framing));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Rejection::new(Reason::InvalidUtf8, format!("byte {} does not continue valid UTF-8", e.valid_up_to()))
    })?;
    screen(bytes)?;
    match read(text) {
        Ok(envelope) => Ok(envelope),
        // The visitor takes nothing but objects, so this class of error is raised for other values only.
        Err(e) if e.is_data() => Err(Rejection::new(Reason::NotAnObject, no_object(text))),
        Err(e) if bytes.is_empty() => Err(Rejection::new(Reason::InvalidJson, format!("empty: {e}"))),
        Err(e) => Err(Rejection::new(Reason::InvalidJson, several(text).unwrap_or_else(|| e.to_string()))),
    }
}

/// What there is instead of an object.
fn no_object(text: &str) -> String {
    match serde_json::from_str::<Vec<IgnoredAny>>(text) {
        Ok(elements) => format!("an array of {} values, where one event is expected", elements.len()),
        Err(_) => "JSON, but not an object".to_owned(),
    }
}

/// Whether a text that is no JSON value is several.
fn several(text: &str) -> Option<String> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let count = values.collect::<Result<Vec<_>, _>>().ok()?.len();
    (count > 1).then(|| format!("{count} JSON values, where one event is expected"))
}

/// What a value begins with that was written with a schema registry: 0 and a number of four bytes, or 1 and a UUID.
fn registry_framing(bytes: &[u8]) -> Option<String> {
    let schema = match bytes.first()? {
        0 => u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?).to_string(),
        _ => Uuid::from_slice(bytes.get(1..17)?).ok()?.to_string(),
    };
    let magic = bytes[0];
    Some(format!(
        "begins with the byte {magic} and the schema {schema} of a schema registry; only plain JSON can be read"
    ))
}

/// The rejection of an event of this many bytes.
pub fn too_large(bytes: u64, limits: &Limits) -> Rejection {
    Rejection::new(Reason::TooLarge, format!("{bytes} bytes, more than the limit of {}", limits.max_bytes))
}

impl<'a> Envelope<'a> {
    /// When it says that it happened; `None` when that is absent or no time with an offset.
    pub fn happened_at(&self) -> Option<Micros> {
        let fields = [&self.timestamp, &self.original_timestamp].into_iter();
        fields.filter(|field| !field.is_absent()).map(time_of).next()?
    }

    /// The event's own `receivedAt`; `None` when it is absent or no time with an offset.
    pub fn received_at(&self) -> Option<Micros> {
        time_of(&self.received_at)
    }

    /// What is known about an event whatever is wrong with the rest: its own id, its time and its type, each as it
    /// would be in bronze.
    pub fn known(self) -> (Option<Uuid>, Option<Micros>, Option<String>) {
        let plain = |field| text("", field).ok().flatten();
        let time = self.happened_at();
        let event_type = plain(self.event).or_else(|| plain(self.kind)).map(Cow::into_owned);
        let id = plain(self.message_id).map(|id| id_from_text(&id));
        (id, time, event_type)
    }

    /// Whether something of it names it, be it all that it says.
    pub fn has_id(&self) -> bool {
        !self.message_id.is_absent()
    }

    /// Whether it says neither when nor what it was, or only one of them: then it may not be an event at all.
    pub fn lacks_time_or_type(&self) -> bool {
        self.timestamp.is_absent() && self.original_timestamp.is_absent()
            || self.event.is_absent() && self.kind.is_absent()
    }

    /// The identity that keeps a person's events in order: user id, else anonymous id.
    pub fn key(&self) -> Option<&str> {
        [&self.user_id, &self.anonymous_id].into_iter().find_map(|f| match f {
            Field::Text(text) if !text.is_empty() => Some(text.as_ref()),
            _ => None,
        })
    }

    /// Judges the fields. `received_at` is the broker's time: skew is measured against it and never against the
    /// clock, so that loading again classifies alike.
    pub fn into_event(
        self,
        at: Coordinates<'_>,
        received_at: Micros,
        limits: &Limits,
    ) -> Result<Event<'a>, Rejection> {
        let event_type = match (text("event", self.event)?, text("type", self.kind)?) {
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => {
                return Err(Rejection::new(Reason::MissingEventType, "neither event nor type is set"));
            }
        };
        let (name, time) = match (self.timestamp, self.original_timestamp) {
            (time, _) if !time.is_absent() => ("timestamp", time),
            (_, time) if !time.is_absent() => ("originalTimestamp", time),
            _ => {
                let detail = "neither timestamp nor originalTimestamp is set";
                return Err(Rejection::new(Reason::MissingEventTime, detail));
            }
        };
        let Some(event_time) = time_of(&time) else {
            let why = match &time {
                Field::Text(text) => time::why_no_time(text),
                Field::Number(_) => time::why_no_time("0"),
                _ => time::why_no_time(""),
            };
            return Err(Rejection::new(Reason::InvalidEventTime, format!("{name} {why}")));
        };
        if event_time < limits.floor {
            let detail = format!("{name} lies before {}", time::format_day(time::day_of(limits.floor)));
            return Err(Rejection::new(Reason::EventTimeTooOld, detail));
        }
        if event_time > received_at.saturating_add(limits.max_skew) {
            let ahead = event_time.saturating_sub(received_at) / 1_000_000;
            return Err(Rejection::new(
                Reason::EventTimeInFuture,
                format!("{name} lies {ahead} s after its receipt"),
            ));
        }
        let event_id = match self.message_id {
            Field::Whole => id_from_content(at.bytes),
            id => match text("messageId", id)? {
                Some(id) => id_from_text(&id),
                None => id_from_coordinates(at),
            },
        };
        Ok(Event {
            event_id,
            event_time,
            received_at,
            event_type,
            user_id: text("userId", self.user_id)?,
            anonymous_id: text("anonymousId", self.anonymous_id)?,
        })
    }
}

fn time_of(field: &Field<'_>) -> Option<Micros> {
    match field {
        Field::Text(text) => time::parse_time(text),
        Field::Time(time) => Some(*time),
        _ => None,
    }
}

/// Null and empty text count as absent.
fn text<'a>(name: &str, field: Field<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
    match field {
        Field::None => Ok(None),
        Field::Text(text) => Ok(Some(text).filter(|t| !t.is_empty())),
        _ => Err(Rejection::new(
            Reason::InvalidField,
            format!("{name} is neither a string nor a whole number"),
        )),
    }
}

/// A UUID in any of its usual spellings is itself; any other text gets the UUIDv5 of it.
fn id_from_text(id: &str) -> Uuid {
    Uuid::try_parse(id).unwrap_or_else(|_| Uuid::new_v5(&ID_NAMESPACE, id.as_bytes()))
}

/// The id of an event without one: the UUIDv5 of topic, partition, offset and bytes.
fn id_from_coordinates(at: Coordinates<'_>) -> Uuid {
    let mut name = Vec::with_capacity(at.topic.len() + 13 + at.bytes.len());
    name.extend_from_slice(at.topic.as_bytes());
    // A NUL, so that no messageId can name the same bytes: Postgres text and our screen keep NUL out of those.
    name.push(0);
    name.extend_from_slice(&at.partition.to_be_bytes());
    name.extend_from_slice(&at.offset.to_be_bytes());
    if let Some(index) = at.index {
        name.extend_from_slice(&index.to_be_bytes());
    }
    name.extend_from_slice(at.bytes);
    Uuid::new_v5(&ID_NAMESPACE, &name)
}

/// The id of an event that is known by all that it says: the UUIDv5 of its bytes behind two NULs, which no other name
/// of ours begins with.
fn id_from_content(bytes: &[u8]) -> Uuid {
    Uuid::new_v5(&ID_NAMESPACE, &[&b"\0\0"[..], bytes].concat())
}

/// SHA-256 of a record.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                    match fields.named(key.as_bytes()) {
                        Some(field) => *field = map.next_value()?,
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields.finish())
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'a> Field<'a> {
    /// What a JSON value says as a field. A whole number is its digits, however many: a float would change them.
    fn of(value: &'a RawValue) -> Self {
        let text = value.get();
        match text.as_bytes() {
            [b'"', ..] => serde_json::from_str(text).map_or(Field::Other, |Key(text)| Field::Text(text)),
            b"null" => Field::None,
            b"-0" => Field::Number(-0.0),
            [b'0'..=b'9', rest @ ..] | [b'-', b'0'..=b'9', rest @ ..] => {
                if rest.iter().all(u8::is_ascii_digit) {
                    Field::Text(Cow::Borrowed(text))
                } else {
                    text.parse().map_or(Field::Other, Field::Number)
                }
            }
            _ => Field::Other,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(Field::of)
    }
}
