//! What files that others publish say of user agents and of addresses. They are read once, when the loader
//! starts, and one that cannot be used is a [`Problem`], never an end: what it would have said is then
//! unknown.
//!
//! Whose formats: `regexes.yaml` of uap-core (browsers, systems, devices), `crawler-user-agents.json` of the
//! project of that name (bots), and MaxMind DB files (.mmdb), with the members that MaxMind's GeoLite2 and
//! GeoIP2 have or the flat ones of ip-location-db. None of them is part of tidemark.

mod agents;
mod places;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;
use std::{fmt, fs, io};

use super::{Agent, Files, Place, Problem};

/// What the files say, ready to be asked. Nothing in it changes.
#[derive(Default)]
pub struct Data {
    agents: agents::Agents,
    places: places::Places,
}

impl Data {
    /// Reads all files, and says what is wrong with them.
    pub fn read(files: &Files) -> (Data, Vec<Problem>) {
        Data::read_at(files, SystemTime::now())
    }

    fn read_at(files: &Files, now: SystemTime) -> (Data, Vec<Problem>) {
        let mut data = Data::default();
        let mut problems = Vec::new();
        let mut read = |file: &Path, add: &mut dyn FnMut(Vec<u8>) -> Result<Option<String>, String>| {
            let (why, usable) = match content(file).and_then(add) {
                Ok(None) => return,
                Ok(Some(why)) => (why, true),
                Err(why) => (why, false),
            };
            problems.push(Problem { file: file.to_owned(), why, usable });
        };
        if let Some(file) = &files.user_agents {
            read(file, &mut |content| data.agents.add_browsers(&name(file), &content));
        }
        if let Some(file) = &files.bots {
            read(file, &mut |content| data.agents.add_bots(&name(file), &content));
        }
        for file in &files.places {
            read(file, &mut |content| data.places.add(&name(file), content, now));
        }
        (data, problems)
    }

    /// What is known of a user agent, from its first 1,000 characters. Nothing is for an empty one.
    pub fn agent(&self, text: &str) -> Agent {
        self.agents.agent(text)
    }

    /// Where an address is. Nothing is known of one that is in no file, such as a private one, nor of IPv6 in
    /// a file that has IPv4 only. An IPv4 address that is written as IPv6 (::ffff:192.0.2.1) is looked up as
    /// what it is.
    pub fn place(&self, address: IpAddr) -> Place {
        self.places.place(address.to_canonical())
    }

    /// Which data says what user agents are: the name of each file that is used and the first eight
    /// hexadecimal digits of its SHA-256, as in "regexes.yaml 1a2b3c4d, crawler-user-agents.json 99aabbcc".
    /// `None` without any.
    pub fn agents_by(&self) -> Option<&str> {
        self.agents.by.as_deref()
    }

    /// Which data says where addresses are: what each file that is used says it is, and the date (UTC) of
    /// which it is, as in "DBIP-Country-Lite 2026-06-01". `None` without any.
    pub fn places_by(&self) -> Option<&str> {
        self.places.by.as_deref()
    }
}

// The patterns and the networks are nothing to print.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("agents_by", &self.agents.by)
            .field("places_by", &self.places.by)
            .finish_non_exhaustive()
    }
}

/// The last part of a path.
fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

/// What the file holds, which is not nothing.
fn content(file: &Path) -> Result<Vec<u8>, String> {
    // A pipe would be waited for, a device never ends.
    if fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err("is neither a file nor a link to one: name the file".to_owned());
    }
    let read = fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is not there: correct the path, or fetch the file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "may not be read: give the user that the loader runs as the right to".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a directory: name the file in it".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    match read.is_empty() {
        true => Err("is empty: fetch it again".to_owned()),
        false => Ok(read),
    }
}

/// Adds one more to what the data is by.
fn append(by: &mut Option<String>, one: &str) {
    match by {
        Some(by) => {
            by.push_str(", ");
            by.push_str(one);
        }
        None => *by = Some(one.to_owned()),
    }
}

/// A text as it can be stored: Postgres takes no NUL. `None` if nothing is left of it.
fn clean(text: &str) -> Option<String> {
    let text = match text.contains('\0') {
        true => text.replace('\0', ""),
        false => text.to_owned(),
    };
    let trimmed = text.trim();
    match trimmed.len() {
        0 => None,
        all if all == text.len() => Some(text),
        _ => Some(trimmed.to_owned()),
    }
}

/// An error of another crate as the end of a sentence: in one line, and not a page of it.
fn brief(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((to, _)) => format!("{} ...", &line[..to]),
        None => line,
    }
}
