//! A mapping as it stands in a file (TOML), and those that are shipped. Each part says where it stands: a text, or several
//! of which the first with a value counts.
//!
//! * `/properties/time` leads there (RFC 6901); `/properties/time:ms` says of a time what it is counted in, or, as `:UTC`,
//!   `:+02:00` or `:Europe/Berlin`, what it means where it has no offset;
//! * `=page_viewed` is that text for each event;
//! * `*` is an id made of all that the event says;
//! * `{ at = "/id", within = "/source" }`: an id that is one only together with what stands there, or with several such;
//! * `{ at = "/distinct_id", unless = ["/device_id", "$device:"] }`: not where it is what stands there, or begins so.
//!
//! `names` says which names of events are to be others. `split` is where the events of a record stand, and `beside` the
//! name under which each of them keeps what the record says beside them. `columns` names the columns of a record that is a
//! line of values with tabs between them.

use std::fmt;

use toml::{Table, Value};

use super::Part;
use crate::event::envelope::pointer::Pointer;
use crate::event::fingerprint::Fingerprint;
use crate::event::time::Unit;
use crate::event::zone;

macro_rules! shipped {
    ($($name:literal)*) => {
        /// The mappings that are shipped, each with its name.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../mappings/", $name, ".toml"))),)*];
    };
}

// In the order in which they are tried on a file of nobody knows what: of two that fit alike the first one is taken.
shipped! {
    "segment" "rudderstack" "segment-warehouse" "cloudevents" "snowplow" "posthog" "mixpanel" "amplitude" "ga4"
    "matomo" "umami" "access-log"
}

/// A mapping as somebody wrote it down.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it is called: the name of a shipped one, or the path of its file.
    pub name: String,
    /// What it is of, in a sentence.
    pub about: String,
    /// The text of its file.
    pub(super) text: String,
    parts: [Vec<Source>; Part::ALL.len()],
    /// Members that differ from one sending of an event to the next.
    transport: Vec<String>,
    /// Members of members that do.
    transport_below: Vec<(Vec<u8>, Vec<u8>)>,
    /// Members that hardly any other source has: the more of them, the likelier it is this one.
    pub signs: Vec<Pointer>,
    pub(super) split: Option<Pointer>,
    pub(super) beside: Option<String>,
    pub(super) columns: Vec<String>,
    pub(super) names: Vec<(String, String)>,
    pub(super) binary: bool,
}

/// Where a part may stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub(super) what: What,
    pub(super) unit: Unit,
    pub(super) within: Vec<Pointer>,
    pub(super) unless: Vec<Unless>,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    At(Pointer),
    Constant(String),
    Whole,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unless {
    SameAs(Pointer),
    BeginsWith(String),
}

impl Description {
    /// The mapping of this name, or in the file at this path.
    pub fn of(name: &str) -> Result<Self, String> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Description::parse(name, text);
        }
        if !name.contains(['/', '.']) {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{name} is no mapping; there are {}, and files by their path",
                names.join(", ")
            ));
        }
        let text = std::fs::read_to_string(name).map_err(|e| format!("cannot read {name}: {e}"))?;
        Description::parse(name, &text)
    }

    /// Reads the text of a file.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|e| format!("{name}: {e}"))?;
        let read = Description::read(name, table).map_err(|why| format!("{name}: {why}"));
        read.map(|description| Description { text: text.to_owned(), ..description })
    }

    fn read(name: &str, mut file: Table) -> Result<Self, String> {
        let mut parts: [Vec<Source>; Part::ALL.len()] = Default::default();
        for part in Part::ALL {
            let written = file.remove(part.word()).map(several).unwrap_or_default();
            let sources = written.into_iter().map(|value| Source::of(part, value)).collect::<Result<_, _>>();
            parts[part as usize] = sources.map_err(|why: String| format!("{}: {why}", part.word()))?;
        }
        let signs =
            texts(&mut file, "signs")?.iter().map(|text| Pointer::new(text)).collect::<Result<_, _>>()?;
        let (below, transport): (Vec<_>, Vec<_>) =
            texts(&mut file, "transport")?.into_iter().partition(|member| member.starts_with('/'));
        let transport_below = below.iter().map(|text| two_steps(text)).collect::<Result<_, _>>()?;
        let split = texts(&mut file, "split")?.first().map(|text| Pointer::new(text)).transpose()?;
        let description = Description {
            name: name.to_owned(),
            about: texts(&mut file, "about")?.pop().ok_or("about is missing")?,
            text: String::new(),
            parts,
            transport,
            transport_below,
            signs,
            split,
            beside: texts(&mut file, "beside")?.pop(),
            columns: texts(&mut file, "columns")?,
            names: names(&mut file)?,
            binary: file.remove("binary_headers").is_some_and(|value| value.as_bool() == Some(true)),
        };
        nothing_left(&file).map(|()| description)
    }

    /// What tells events of it apart; of these members nothing either.
    pub fn fingerprint(&self, mut without: Vec<Vec<u8>>) -> Fingerprint {
        without.extend(self.transport.iter().map(|name| name.clone().into_bytes()));
        Fingerprint::without(without).and_below(self.transport_below.clone())
    }

    pub(super) fn sources(&self, part: Part) -> &[Source] {
        &self.parts[part as usize]
    }
}

impl Source {
    fn of(part: Part, written: Value) -> Result<Self, String> {
        let mut table = match written {
            Value::String(text) => return Source::parse(part, &text),
            Value::Table(table) => table,
            other => return Err(format!("{} where a text or a table belongs", other.type_str())),
        };
        let at = texts(&mut table, "at")?.pop().ok_or("at is missing")?;
        let mut source = Source::parse(part, &at)?;
        source.within =
            texts(&mut table, "within")?.iter().map(|text| Pointer::new(text)).collect::<Result<_, _>>()?;
        let unless = |text: &String| match text.starts_with('/') {
            true => Pointer::new(text).map(Unless::SameAs),
            false => Ok(Unless::BeginsWith(text.clone())),
        };
        source.unless = texts(&mut table, "unless")?.iter().map(unless).collect::<Result<_, _>>()?;
        nothing_left(&table).map(|()| source)
    }

    fn parse(part: Part, text: &str) -> Result<Self, String> {
        let (what, unit) = match text.strip_prefix('=') {
            Some(constant) => (What::Constant(constant.to_owned()), Unit::Certain),
            None if text == "*" && part == Part::EventId => (What::Whole, Unit::Certain),
            None => {
                let (pointer, unit) = if part.is_time() { with_unit(text)? } else { (text, Unit::Certain) };
                (What::At(Pointer::new(pointer)?), unit)
            }
        };
        Ok(Source { what, unit, within: Vec::new(), unless: Vec::new(), text: text.to_owned() })
    }
}

/// A pointer to a time, and what stands behind it.
fn with_unit(text: &str) -> Result<(&str, Unit), String> {
    // Names of members have colons too, and names of zones have slashes.
    let mut words = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
    if let Some(found) = words.find_map(|(pointer, word)| Some((pointer, Unit::parse(word)?))) {
        return Ok(found);
    }
    let mistaken = text.rsplit_once(':').and_then(|(_, word)| zone::mistaken(word));
    mistaken.map_or(Ok((text, Unit::Certain)), Err)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Whole => f.write_str("the whole event"),
            _ => f.write_str(&self.text),
        }
    }
}

fn several(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        one => vec![one],
    }
}

/// The texts of a key: one, or an array of them.
fn texts(table: &mut Table, key: &str) -> Result<Vec<String>, String> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        other => Err(format!("{key}: {} where a text belongs", other.type_str())),
    };
    table.remove(key).map(several).unwrap_or_default().into_iter().map(text).collect()
}

/// The names of a member and of one in it, from a pointer.
fn two_steps(text: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let pointer = Pointer::new(text)?;
    match pointer.steps().collect::<Vec<_>>()[..] {
        [member, below] => Ok((member.as_bytes().to_vec(), below.as_bytes().to_vec())),
        _ => Err(format!("transport: {text} is no member of a member, such as /properties/sent_at")),
    }
}

/// The table of names: what an event is called there, and here.
fn names(file: &mut Table) -> Result<Vec<(String, String)>, String> {
    let pair = |(theirs, ours)| match ours {
        Value::String(ours) => Ok((theirs, ours)),
        other => Err(format!("names: {} where a text belongs", other.type_str())),
    };
    match file.remove("names") {
        None => Ok(Vec::new()),
        Some(Value::Table(table)) => table.into_iter().map(pair).collect(),
        Some(other) => Err(format!("names: {} where a table belongs", other.type_str())),
    }
}

fn nothing_left(table: &Table) -> Result<(), String> {
    table.keys().next().map_or(Ok(()), |key| Err(format!("unknown key {key}")))
}

/// Reads `user_id=/user/id`.
pub fn parse_part(text: &str) -> Result<(Part, Source), String> {
    let (name, source) = text.split_once('=').ok_or("not of the form field=/pointer")?;
    let Some(part) = Part::ALL.into_iter().find(|part| part.word() == name) else {
        return Err(format!("{name} is no field; there are {}", Part::ALL.map(Part::word).join(", ")));
    };
    Ok((part, Source::parse(part, source)?))
}
