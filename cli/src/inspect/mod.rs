//! `tidemark inspect`: what the first records of a file would become, column by column, before anything is loaded and
//! without a database. How a look goes is in `look`, what is said where no mapping fits in `guess`.

mod guess;
mod look;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use self::look::Look;
use super::load::{is_stdin, unreadable};
use super::status::table;
use tidemark_loader::error::{Error, Kind, Result};
use tidemark_loader::event::envelope::mapping::{Description, Part, SHIPPED, parse_part};
use tidemark_loader::event::time;
use tidemark_loader::files::{self, Record, Records};

/// As many records are looked at.
const MOST: usize = 1000;
/// Values longer than that are cut in examples.
const WIDTH: usize = 48;

/// Arguments of `tidemark inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File, or - for standard input; whatever `load` reads
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the events are written: the name of a mapping, or the path of a file with one [default: the one that fits best]
    #[arg(long, value_name = "NAME|FILE", value_parser = Description::of)]
    mapping: Option<Description>,
    /// Where a field of the event is found, as for `load`; can be repeated
    #[arg(long = "envelope", value_name = "FIELD=POINTER", value_parser = checked)]
    envelope: Vec<String>,
}

fn checked(text: &str) -> Result<String, String> {
    parse_part(text).map(|_| text.to_owned())
}

/// The first records of a file.
pub(super) struct Sample {
    /// Without those that are blank.
    pub(super) records: Vec<Vec<u8>>,
    /// Whether there are more.
    more: bool,
}

impl Sample {
    fn read(file: &Path) -> Result<Sample> {
        let progress = files::Progress::default();
        let content =
            if is_stdin(file) { files::stream(io::stdin(), progress) } else { files::open(file, progress) };
        let mut records = Records::new(content.map_err(|e| unreadable(file, e))?);
        let (mut sample, mut record) = (Sample { records: Vec::new(), more: false }, Record::new(LONGEST));
        loop {
            match records.read(&mut record) {
                Ok(true) if sample.records.len() == MOST => sample.more = true,
                Ok(true) if record.is_blank() => continue,
                Ok(true) => {
                    sample.records.push(std::mem::take(&mut record.bytes));
                    continue;
                }
                Ok(false) => {}
                // What is there before it may help to see what is wrong.
                Err(e) if sample.records.is_empty() => return Err(unreadable(file, e)),
                Err(e) => eprintln!("tidemark: {} cannot be read to its end: {e}", file.display()),
            }
            return Ok(sample);
        }
    }
}

/// The default of `record.max_bytes`.
const LONGEST: usize = 1 << 20;

/// Looks, and says what there is to see.
pub fn run(args: &Args) -> Result<()> {
    let sample = Sample::read(&args.file)?;
    let name = args.file.display().to_string();
    if sample.records.is_empty() {
        say!("{name}: empty, nothing to load");
        return Ok(());
    }
    let own: Vec<_> = args.envelope.iter().filter_map(|text| parse_part(text).ok()).collect();
    let mappings: Vec<Description> = match &args.mapping {
        Some(mapping) => vec![mapping.clone()],
        None => SHIPPED.iter().filter_map(|(name, text)| Description::parse(name, text).ok()).collect(),
    };
    let mut looks: Vec<Look> = mappings.into_iter().map(|mapping| Look::of(&sample, mapping, &own)).collect();
    if !own.is_empty() && looks.len() > 1 {
        // Much fits by what somebody says himself: then a source must show itself, too.
        looks.retain(|look| look.has_signs() || look.mapping.name == "segment");
    }
    let alone = looks.len() == 1;
    // Stable: of two that fit alike the first one stays first.
    looks.sort_by_key(|look| std::cmp::Reverse(look.fit()));
    let Some(best) = looks.first() else { return Ok(()) };
    let head = match sample.more {
        true => format!("{name}: its first {} records", sample.records.len()),
        false => format!("{name}: all of its {} records", sample.records.len()),
    };
    if best.loaded.is_empty() {
        say!(
            "{head}, of which nothing can be loaded{}\n",
            if alone { "" } else { " by any mapping that is shipped" }
        );
        if alone {
            say!("{}", dead(best));
        }
        let members = guess::Members::of(&sample);
        say!("{}", members.table());
        let why = match members.is_empty() {
            true => "none of its records is a JSON object".to_owned(),
            false => "nobody knows where its events have their time and type".to_owned(),
        };
        return Err(Error::new(Kind::Input, format!("cannot map {name}"), why, members.command(&name)));
    }
    say!("{head}, as {}: {}\n", best.mapping.name, best.mapping.about);
    say!("{}", columns(best));
    say!("{}", notes(best));
    if !best.dead.is_empty() {
        say!("{}", dead(best));
    }
    let alike = looks[1..].iter().filter(|look| look.fit() == best.fit());
    let alike: Vec<&str> = alike.map(|look| look.mapping.name.as_str()).collect();
    if !alike.is_empty() {
        say!("The mapping {} fits as well.\n", alike.join(", "));
    }
    let mut command = format!("tidemark load {}", shell(&name));
    if best.mapping.name != "segment" {
        command.push_str(&format!(" --mapping {}", shell(&best.mapping.name)));
    }
    for text in &args.envelope {
        command.push_str(&format!(" --envelope {}", shell(text)));
    }
    say!("To load it:\n\n  {command}");
    Ok(())
}

/// The columns of bronze, each with where it comes from.
fn columns(look: &Look) -> String {
    let n = look.loaded.len();
    let texts = |of: fn(&look::Loaded) -> Option<&str>| {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        look.loaded.iter().filter_map(of).for_each(|text| *counts.entry(text).or_default() += 1);
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(text, n)| (std::cmp::Reverse(*n), *text));
        counts
    };
    let persons = |of: fn(&look::Loaded) -> Option<&str>| {
        let counts = texts(of);
        let example =
            counts.first().map(|(text, _)| format!("{} different, such as {}", counts.len(), cut(text)));
        (counts.iter().map(|(_, n)| n).sum(), example)
    };
    let (first, last) = (look.loaded.iter().map(|e| e.time).min(), look.loaded.iter().map(|e| e.time).max());
    let mut rows = Vec::new();
    for part in Part::ALL {
        let (filled, example) = match part {
            Part::EventId => (
                look.loaded.iter().filter(|e| e.has_id).count(),
                look.loaded.first().map(|e| e.id.to_string()),
            ),
            Part::EventTime => (n, first.zip(last).map(|(a, b)| format!("{} to {}", moment(a), moment(b)))),
            Part::EventType => {
                let counts = texts(|e| Some(&e.kind));
                let mut shown: Vec<String> =
                    counts.iter().take(4).map(|(text, n)| format!("{} {n}", cut(text))).collect();
                if counts.len() > 4 {
                    shown.push(format!("{} more", counts.len() - 4));
                }
                (n, Some(shown.join(", ")))
            }
            Part::UserId => persons(|e| e.user.as_deref()),
            Part::AnonymousId => persons(|e| e.anonymous.as_deref()),
            Part::ReceivedAt => {
                let received = || look.loaded.iter().filter_map(|e| e.received);
                (received().count(), received().min().map(|a| format!("{} and later", moment(a))))
            }
        };
        let place = shortened(look.format.place(part));
        let example = example.filter(|_| filled > 0);
        rows.push(vec![
            Some(part.word().to_owned()),
            Some(place),
            Some(format!("{filled} of {n}")),
            Some(example.unwrap_or_else(|| "-".to_owned())),
        ]);
    }
    table(&["column", "from", "filled", "values"].map(str::to_owned), &rows)
}

/// Where a part is looked for, if that fits beside the others; else the first place, and how many more there are.
fn shortened(place: &str) -> String {
    let mut places = place.split(" or ");
    match (places.next().unwrap_or_default(), places.count()) {
        ("", _) => "-".to_owned(),
        (first, more) if more > 0 && place.len() > 80 => format!("{first} or {more} more"),
        _ => place.to_owned(),
    }
}

/// What a person should know who loads this.
fn notes(look: &Look) -> String {
    let mut notes = Vec::new();
    let n = look.loaded.len();
    let count = |of: fn(&look::Loaded) -> bool| look.loaded.iter().filter(|event| of(event)).count();
    if look.events > look.records {
        notes
            .push(format!("{} records hold {} events: each is loaded by itself.", look.records, look.events));
    }
    match count(|e| e.has_id) {
        all if all == n => {}
        0 => notes.push(
            "No event has an id. Its place in the file names it, so another file with the same events loads them again; \
             with --envelope event_id=* all that it says names it."
                .to_owned(),
        ),
        some => notes.push(format!("Events without an id: {}. Their place in the file names them.", n - some)),
    }
    let mut ids: Vec<_> = look.loaded.iter().map(|e| (e.id, time::day_of(e.time))).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < n {
        let twice = n - ids.len();
        notes.push(format!(
            "Events that repeat the id of another: {twice}. They are duplicates, or dead letters where they say \
             something else."
        ));
    }
    match count(|e| e.user.is_none() && e.anonymous.is_none()) {
        0 => {}
        all if all == n => notes.push(
            "No event names a person: there will be no sessions, funnels or retention. Say where the person stands: \
             --envelope user_id=/..."
                .to_owned(),
        ),
        some => notes.push(format!("Events that name no person: {some}. They are counted, and in no session.")),
    }
    if count(|e| e.received.is_some()) == 0 {
        notes.push("Nobody says when they were received: none counts as late.".to_owned());
    }
    let (found, missing): (Vec<_>, Vec<_>) = look.silver.iter().partition(|(_, n)| **n > 0);
    let names = |of: &[(&&str, &usize)]| of.iter().map(|(name, _)| **name).collect::<Vec<_>>().join(", ");
    let mut silver = String::new();
    if !found.is_empty() {
        let counts: Vec<String> = found.iter().map(|(name, n)| format!("{name} {n}")).collect();
        silver.push_str(&format!("silver.events finds {}", counts.join(", ")));
    }
    if !missing.is_empty() {
        silver.push_str(if found.is_empty() { "silver.events finds none of " } else { ", and no " });
        silver.push_str(&names(&missing));
        silver.push_str(" where it looks");
    }
    notes.push(format!(
        "{silver}. All that an event says is in bronze.events.payload; silver.show_properties opens more of it to readers."
    ));
    notes.iter().map(|note| format!("* {note}\n")).collect()
}

/// The dead letters by reason.
fn dead(look: &Look) -> String {
    let n: usize = look.dead.iter().map(|d| d.n).sum();
    let mut out = format!("{n} of {} would be dead letters:\n\n", look.events);
    for d in &look.dead {
        let (reason, detail, example) = (d.reason, &d.detail, cut(&d.example));
        out.push_str(&format!(
            "  {:>4}  {reason}: {detail}\n        first in record {}: {example}\n",
            d.n, d.record
        ));
    }
    out
}

fn moment(time: time::Micros) -> String {
    let seconds = time.rem_euclid(time::DAY_US) / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{} {hour:02}:{minute:02}:{second:02}Z", time::format_day(time::day_of(time)))
}

/// An example within its width, without what a terminal would obey.
pub(super) fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => text[..at].chars().map(plain).chain("...".chars()).collect(),
        None => text.chars().map(plain).collect(),
    }
}

/// A word as a shell takes it.
pub(super) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
