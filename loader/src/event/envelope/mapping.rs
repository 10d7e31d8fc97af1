//! How the events of a source are written, as a mapping says: where its id, type, times and persons stand, and which of
//! its members are transport. What a mapping looks like in a file is in `description`. Events as Segment writes them take
//! the fast path, in the parent.

mod description;
mod records;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use self::description::{Description, SHIPPED, Source, parse_part};
use self::description::{Unless, What};
pub use self::records::headers;
use super::pointer::{Pointer, Tree, find};
use super::scan::scan;
use super::{Envelope, Field, Limits, parse, parse_with, sha256};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::fingerprint::Fingerprint;
use crate::event::time::{Micros, Unit};

/// What of an event goes into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The event's id.
    EventId,
    /// When it happened.
    EventTime,
    /// Its name.
    EventType,
    /// Known user.
    UserId,
    /// Anonymous identity.
    AnonymousId,
    /// When it was received, where no broker says so.
    ReceivedAt,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] =
        [Part::EventId, Part::EventTime, Part::EventType, Part::UserId, Part::AnonymousId, Part::ReceivedAt];

    /// The name of the column.
    pub fn word(self) -> &'static str {
        match self {
            Part::EventId => "event_id",
            Part::EventTime => "event_time",
            Part::EventType => "event_type",
            Part::UserId => "user_id",
            Part::AnonymousId => "anonymous_id",
            Part::ReceivedAt => "received_at",
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Part::EventTime | Part::ReceivedAt)
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

/// Where the fast path looks for the parts, in the words of a description.
const FAST: [&str; 6] = [
    "/messageId",
    "/timestamp or /originalTimestamp",
    "/event or /type",
    "/userId or /user_id",
    "/anonymousId or /anonymous_id",
    "/receivedAt",
];

/// How the events of a source are written: options of each command that reads events.
#[derive(Clone, Debug, clap::Args)]
pub struct FormatArgs {
    /// How the events are written: the name of a mapping, or the path of a file with one
    #[arg(long, default_value = "segment", value_name = "NAME|FILE", value_parser = shared)]
    mapping: Arc<Description>,
    /// Where a field of the event is found, such as user_id=/user/id; can be repeated, also for one field
    #[arg(long = "envelope", value_name = "FIELD=POINTER", value_parser = parse_part)]
    envelope: Vec<(Part, Source)>,
}

fn shared(text: &str) -> Result<Arc<Description>, String> {
    Description::of(text).map(Arc::new)
}

impl FormatArgs {
    /// What the options say.
    pub fn format(&self) -> Format {
        Format::new(&self.mapping, &self.envelope)
    }
}

/// How events are written.
#[derive(Clone, Debug, Default)]
pub enum Format {
    /// As Segment does: the fast path.
    #[default]
    Segment,
    /// Found by pointers.
    Mapped(Arc<Mapping>),
}

/// A description and what was said about its parts besides, to be noted in the books.
#[derive(Debug)]
pub struct Noted {
    /// Its name.
    pub name: String,
    /// Another one for each other description.
    pub version: String,
    /// Its text.
    pub description: String,
}

impl Noted {
    /// What stands for a description with some of its parts found elsewhere.
    pub fn of(description: &Description, own: &[(Part, Source)]) -> Self {
        let own = own.iter().map(|(part, source)| format!("# --envelope {}={source}\n", part.word()));
        let text = own.fold(description.text.clone(), |text, line| text + &line);
        let version = sha256(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Noted { name: description.name.clone(), version, description: text }
    }
}

/// A description, ready to be used.
#[derive(Debug)]
pub struct Mapping {
    tree: Tree,
    /// How many values the pointers lead to.
    slots: usize,
    parts: [Vec<Rule>; Part::ALL.len()],
    /// Where each part is looked for, for messages.
    names: [String; Part::ALL.len()],
    split: Option<Pointer>,
    /// The name under which each event of a record keeps what stands beside them.
    beside: Option<String>,
    /// The columns of a record that is a line with tabs, as `records` begins their members.
    columns: Vec<String>,
    /// Names of events that are to be others.
    renamed: Vec<(String, String)>,
    binary: bool,
}

/// Where a part may stand.
#[derive(Debug)]
struct Rule {
    what: Taken,
    unit: Unit,
    /// Slots of what must stand before it to name it.
    within: Vec<usize>,
    /// Slots of what it must not be equal to.
    unlike: Vec<usize>,
    /// What it must not begin with.
    unless: Vec<String>,
}

#[derive(Debug)]
enum Taken {
    Slot(usize),
    Constant(String),
    Whole,
}

impl Format {
    /// A description with some of its parts found elsewhere.
    pub fn new(description: &Description, own: &[(Part, Source)]) -> Self {
        let mut mapping = Mapping {
            tree: Tree::default(),
            slots: 0,
            parts: Default::default(),
            names: Default::default(),
            split: description.split.clone(),
            beside: description.beside.clone(),
            columns: description.columns.iter().map(|column| records::member(column)).collect(),
            renamed: description.names.clone(),
            binary: description.binary,
        };
        for (i, part) in Part::ALL.into_iter().enumerate() {
            let of_own: Vec<&Source> = own.iter().filter(|(of, _)| *of == part).map(|(_, s)| s).collect();
            let sources = if of_own.is_empty() { description.sources(part).iter().collect() } else { of_own };
            mapping.names[i] = sources.iter().map(|s| s.to_string()).collect::<Vec<_>>().join(" or ");
            mapping.parts[i] = sources.into_iter().map(|source| mapping.rule(source)).collect();
        }
        let plain = mapping.split.is_none() && mapping.columns.is_empty() && mapping.renamed.is_empty();
        let fast = mapping.names == FAST && plain && !mapping.binary;
        if fast { Format::Segment } else { Format::Mapped(Arc::new(mapping)) }
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
            Format::Segment if bytes.len() <= limits.max_bytes && fingerprint.is_flat() => {
                scan(bytes, fingerprint)
            }
            _ => None,
        }
    }

    /// The whole event of a record in the binary mode of CloudEvents, or of a line of columns. `None` for all other
    /// records: their value is the event.
    pub fn compose(&self, headers: Option<&[u8]>, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Format::Mapped(mapping) if mapping.binary => records::from_headers(headers?, value),
            Format::Mapped(mapping) if !mapping.columns.is_empty() => {
                records::from_columns(&mapping.columns, value)
            }
            _ => None,
        }
    }

    /// Whether [`Format::compose`] may make something of a record that is no event by itself.
    pub fn composes(&self) -> bool {
        matches!(self, Format::Mapped(mapping) if mapping.binary || !mapping.columns.is_empty())
    }

    /// The events of a record, each with what the record says beside them, where the mapping wants that.
    pub fn events_with_their_record(&self, record: &[u8]) -> Option<Vec<Vec<u8>>> {
        match self {
            Format::Mapped(mapping) => {
                records::with_their_record(record, mapping.split.as_ref()?, mapping.beside.as_deref()?)
            }
            Format::Segment => None,
        }
    }

    /// Whether [`Format::events_with_their_record`] has to be asked.
    pub fn keeps_record(&self) -> bool {
        matches!(self, Format::Mapped(mapping) if mapping.split.is_some() && mapping.beside.is_some())
    }

    /// The event's own time of receipt, if it has one.
    pub fn received_at(&self, headers: Option<&[u8]>, value: &[u8], limits: &Limits) -> Option<Micros> {
        let composed = self.compose(headers, value);
        self.parse(composed.as_deref().unwrap_or(value), limits).ok()?.received_at()
    }

    /// Whether the mapping says that its records hold several events.
    pub fn is_split(&self) -> bool {
        matches!(self, Format::Mapped(mapping) if mapping.split.is_some())
    }

    /// Where the events of a record lie that is not one itself: where the mapping says, or else in an array that is all
    /// of it, or a member called `batch`, `events` or `records`. `None` for a record that is to be an event.
    pub fn events(&self, record: &[u8]) -> Option<Vec<Range<usize>>> {
        if let Format::Mapped(mapping) = self
            && let Some(at) = &mapping.split
        {
            return records::events(record, Some(at));
        }
        if record.trim_ascii_start().first() == Some(&b'{') {
            // Not as `parse` does: one bad event must not keep the others.
            let text = std::str::from_utf8(record).ok()?;
            let envelope: Envelope<'_> = match self {
                Format::Segment => serde_json::from_str(text).ok()?,
                Format::Mapped(mapping) => mapping.read(text).ok()?,
            };
            if !envelope.lacks_time_or_type() {
                return None;
            }
        }
        records::events(record, None)
    }

    /// Where a part is looked for.
    pub fn place(&self, part: Part) -> &str {
        match self {
            Format::Segment => FAST[part as usize],
            Format::Mapped(mapping) => &mapping.names[part as usize],
        }
    }

    /// Says in a rejection of [`Envelope::into_event`] where this format looks for the field.
    pub fn explain(&self, rejection: Rejection) -> Rejection {
        let Format::Mapped(mapping) = self else { return rejection };
        let place = |part: Part| match mapping.names[part as usize].as_str() {
            "" => "it".to_owned(),
            name => name.to_owned(),
        };
        let detail = match rejection.reason {
            Reason::MissingEventType => format!("no event_type: {} is not set", place(Part::EventType)),
            Reason::MissingEventTime => format!("no event_time: {} is not set", place(Part::EventTime)),
            _ => match rejection.detail.split_once(' ') {
                Some((first, rest)) => match Part::of_segment(first) {
                    Some(part) => format!("{} ({}) {rest}", part.word(), place(part)),
                    None => rejection.detail,
                },
                None => rejection.detail,
            },
        };
        Rejection { detail, ..rejection }
    }
}

impl Mapping {
    fn slot(&mut self, pointer: &Pointer) -> usize {
        self.tree.insert(pointer, self.slots);
        self.slots += 1;
        self.slots - 1
    }

    fn rule(&mut self, source: &Source) -> Rule {
        let mut rule = Rule {
            what: match &source.what {
                What::At(pointer) => Taken::Slot(self.slot(pointer)),
                What::Constant(text) => Taken::Constant(text.clone()),
                What::Whole => Taken::Whole,
            },
            unit: source.unit,
            within: source.within.iter().map(|pointer| self.slot(pointer)).collect(),
            unlike: Vec::new(),
            unless: Vec::new(),
        };
        for unless in &source.unless {
            match unless {
                Unless::SameAs(pointer) => rule.unlike.push(self.slot(pointer)),
                Unless::BeginsWith(text) => rule.unless.push(text.clone()),
            }
        }
        rule
    }

    fn read<'a>(&self, text: &'a str) -> serde_json::Result<Envelope<'a>> {
        let mut found = vec![Field::None; self.slots];
        find(text, &self.tree, &mut found)?;
        let pick = |part: Part| {
            let mut fields = self.parts[part as usize].iter().map(|rule| rule.take(&found));
            fields.find(|field| !field.is_absent()).unwrap_or_default()
        };
        let mut event = pick(Part::EventType);
        if let Field::Text(name) = &event
            && let Some((_, ours)) = self.renamed.iter().find(|(theirs, _)| theirs == name)
        {
            event = Field::Text(ours.clone().into());
        }
        Ok(Envelope {
            message_id: pick(Part::EventId),
            event,
            timestamp: pick(Part::EventTime),
            received_at: pick(Part::ReceivedAt),
            user_id: pick(Part::UserId),
            anonymous_id: pick(Part::AnonymousId),
            ..Envelope::default()
        })
    }
}

impl Rule {
    fn take<'a>(&self, found: &[Field<'a>]) -> Field<'a> {
        let field = match &self.what {
            Taken::Slot(slot) => found[*slot].clone(),
            Taken::Constant(text) => Field::Text(text.clone().into()),
            Taken::Whole => Field::Whole,
        };
        let Field::Text(text) = &field else {
            return match field {
                Field::Number(number) => self.unit.read_number(number).map_or(field, Field::Time),
                _ => field,
            };
        };
        let is_other = |slot: &usize| matches!(&found[*slot], Field::Text(other) if other == text);
        if self.unlike.iter().any(is_other) || self.unless.iter().any(|begin| text.starts_with(begin)) {
            return Field::None;
        }
        if self.unit != Unit::Certain
            && let Some(time) = self.unit.read(text)
        {
            return Field::Time(time);
        }
        // A UUID needs no help.
        if text.is_empty() || self.within.is_empty() || uuid::Uuid::try_parse(text).is_ok() {
            return field;
        }
        let within = self.within.iter().filter_map(|slot| match &found[*slot] {
            Field::Text(within) => Some(within.as_ref()),
            _ => None,
        });
        Field::Text(within.chain([text.as_ref()]).collect::<Vec<_>>().join(" ").into())
    }
}
