//! A mapping as it stands in a file (TOML), and those that are shipped. Each part says where it stands: a text, or several
//! of which the first with a value counts.
//!
//! * `/properties/time` leads there (RFC 6901); `/properties/time:ms` says of a time what it is counted in, or, as `:UTC`
//!   or `:+02:00`, what it means where it has no offset;
//! * `=page_viewed` is that text for each event;
//! * `*` is an id made of all that the event says;
//! * `{ at = "/id", within = "/source" }`: an id that is one only together with what stands there;
//! * `{ at = "/distinct_id", unless = ["/device_id", "$device:"] }`: not where it is what stands there, or begins so.

use std::fmt;

use serde::Deserialize;

use super::Part;
use crate::event::envelope::pointer::Pointer;
use crate::event::time::Unit;

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
    "umami" "access-log"
}

/// A mapping as somebody wrote it down.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it is called: the name of a shipped one, or the path of its file.
    pub name: String,
    /// What it is of, in a sentence.
    pub about: String,
    parts: [Vec<Source>; Part::ALL.len()],
    /// Members that differ from one sending of an event to the next.
    pub transport: Vec<String>,
    /// Members that hardly any other source has: the more of them, the likelier it is this one.
    pub signs: Vec<Pointer>,
    pub(super) split: Option<Pointer>,
    pub(super) binary: bool,
}

/// Where a part may stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub(super) what: What,
    pub(super) unit: Unit,
    pub(super) within: Option<Pointer>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    event_id: Sources,
    #[serde(default)]
    event_time: Sources,
    #[serde(default)]
    event_type: Sources,
    #[serde(default)]
    user_id: Sources,
    #[serde(default)]
    anonymous_id: Sources,
    #[serde(default)]
    received_at: Sources,
    #[serde(default)]
    transport: Vec<String>,
    #[serde(default)]
    signs: Vec<String>,
    split: Option<String>,
    #[serde(default)]
    binary_headers: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sources {
    // First: an array could also be the members of a table, in order.
    Several(Vec<Written>),
    One(Written),
}

impl Default for Sources {
    fn default() -> Self {
        Sources::Several(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    at: String,
    within: Option<String>,
    #[serde(default)]
    unless: Vec<String>,
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
        // What serde says about none of two ways to write something helps nobody.
        let file: File = toml::from_str(text).map_err(|e| {
            format!(
                "{name}: {}",
                e.to_string().replace("data did not match any variant of untagged enum", "no")
            )
        })?;
        let wrong = |why: String| format!("{name}: {why}");
        let pointers = |texts: &[String]| {
            texts.iter().map(|text| Pointer::new(text)).collect::<Result<Vec<_>, _>>().map_err(wrong)
        };
        let part = |part: Part, sources: Sources| {
            let written = match sources {
                Sources::One(one) => vec![one],
                Sources::Several(several) => several,
            };
            let read = written.into_iter().map(|written| Source::of(part, written));
            read.collect::<Result<Vec<_>, _>>().map_err(|why| wrong(format!("{}: {why}", part.word())))
        };
        Ok(Description {
            name: name.to_owned(),
            about: file.about,
            parts: [
                part(Part::EventId, file.event_id)?,
                part(Part::EventTime, file.event_time)?,
                part(Part::EventType, file.event_type)?,
                part(Part::UserId, file.user_id)?,
                part(Part::AnonymousId, file.anonymous_id)?,
                part(Part::ReceivedAt, file.received_at)?,
            ],
            transport: file.transport,
            signs: pointers(&file.signs)?,
            split: pointers(file.split.as_slice())?.pop(),
            binary: file.binary_headers,
        })
    }

    pub(super) fn sources(&self, part: Part) -> &[Source] {
        &self.parts[part as usize]
    }
}

impl Source {
    fn of(part: Part, written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => Source::parse(part, &text),
            Written::Table(table) => {
                let mut source = Source::parse(part, &table.at)?;
                source.within = table.within.as_deref().map(Pointer::new).transpose()?;
                let unless = |text: &String| match text.starts_with('/') {
                    true => Pointer::new(text).map(Unless::SameAs),
                    false => Ok(Unless::BeginsWith(text.clone())),
                };
                source.unless = table.unless.iter().map(unless).collect::<Result<_, _>>()?;
                Ok(source)
            }
        }
    }

    fn parse(part: Part, text: &str) -> Result<Self, String> {
        let (what, unit) = match text.strip_prefix('=') {
            Some(constant) => (What::Constant(constant.to_owned()), Unit::Certain),
            None if text == "*" && part == Part::EventId => (What::Whole, Unit::Certain),
            None => {
                let unit = text.rsplit_once('/').and_then(|(_, last)| last.split_once(':'));
                let unit =
                    unit.filter(|_| part.is_time()).and_then(|(_, unit)| Some((unit, Unit::parse(unit)?)));
                match unit {
                    Some((word, unit)) => {
                        (What::At(Pointer::new(&text[..text.len() - word.len() - 1])?), unit)
                    }
                    None => (What::At(Pointer::new(text)?), Unit::Certain),
                }
            }
        };
        Ok(Source { what, unit, within: None, unless: Vec::new(), text: text.to_owned() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Whole => f.write_str("the whole event"),
            _ => f.write_str(&self.text),
        }
    }
}

/// Reads `user_id=/user/id`.
pub fn parse_part(text: &str) -> Result<(Part, Source), String> {
    let (name, source) = text.split_once('=').ok_or("not of the form field=/pointer")?;
    let Some(part) = Part::ALL.into_iter().find(|part| part.word() == name) else {
        return Err(format!("{name} is no field; there are {}", Part::ALL.map(Part::word).join(", ")));
    };
    Ok((part, Source::parse(part, source)?))
}
