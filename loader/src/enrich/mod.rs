//! What is done to an event at the door, and what is noted of it: addresses are cut, and which user agents and networks
//! come for the first time goes into the dimensions `silver.user_agents` and `silver.networks` before the event does
//! (`postgres::dimensions`). What an event says is found by `members`, what it means by `data`.

pub mod address;
#[cfg(feature = "enrich")]
pub mod data;
mod members;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::event::envelope::mapping::headers;
use tidemark_core::address::{parse, prefix};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::address::Networks;
use self::members::Subject;

/// How much of a user agent is looked at, in characters. `silver.user_agent_id` cuts it there, too.
pub const USER_AGENT: usize = 1000;

/// How many user agents and networks are remembered; a stranger costs one more question.
const REMEMBERED: usize = 200_000;

/// What is known of a user agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Family of the browser, such as Mobile Safari.
    pub browser: Option<String>,
    /// Its version, such as 17.4.
    pub browser_version: Option<String>,
    /// Operating system, such as iOS.
    pub os: Option<String>,
    /// Its version.
    pub os_version: Option<String>,
    /// Device, such as iPhone.
    pub device: Option<String>,
    /// Which bot it is; `None` for what looks like a human's.
    pub bot: Option<String>,
}

/// Where a network is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166 code in upper case.
    pub country: Option<String>,
    /// ISO 3166-2 code or name of a part of it.
    pub region: Option<String>,
    /// Name of the city.
    pub city: Option<String>,
    /// Number and name of the autonomous system that it belongs to.
    pub network: Option<String>,
}

/// The files that say it. Without any of them nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `regexes.yaml` of uap-core.
    pub user_agents: Option<PathBuf>,
    /// `crawler-user-agents.json`.
    pub bots: Option<PathBuf>,
    /// MaxMind DB files: of what two of them say, the first one's counts.
    pub places: Vec<PathBuf>,
}

/// What is wrong with one of them, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// To be read after its name: "is empty: fetch it again".
    pub why: String,
    /// Whether the rest of it is used.
    pub usable: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.file.display(), self.why)
    }
}

/// What comes for the first time, as far as this process knows.
#[derive(Debug, Default)]
pub struct Strangers {
    /// User agents, cut to [`USER_AGENT`] characters, in order.
    pub agents: Vec<(String, Agent)>,
    /// Networks as Postgres writes them, in order.
    pub networks: Vec<(String, Place)>,
    hashes: Vec<u64>,
}

/// What records say: each user agent and network once.
pub type Noted = HashMap<u64, (Subject, String)>;

/// What all encoders and connections of a process share. The default cuts addresses and knows nothing.
#[derive(Default)]
pub struct Enrichment {
    keep_addresses: bool,
    own: RwLock<Networks>,
    seen: Mutex<HashSet<u64>>,
    problems: Mutex<Vec<Problem>>,
    #[cfg(feature = "enrich")]
    data: data::Data,
}

impl std::fmt::Debug for Enrichment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrichment").field("keep_addresses", &self.keep_addresses).finish_non_exhaustive()
    }
}

impl Enrichment {
    /// Cuts addresses, unless they are kept, and knows what these files say. What is wrong with one is no error: what
    /// it would have said is unknown then.
    pub fn new(keep_addresses: bool, files: &Files) -> Self {
        #[cfg(feature = "enrich")]
        let (data, problems) = data::Data::read(files);
        #[cfg(not(feature = "enrich"))]
        let problems = {
            _ = files;
            Vec::new()
        };
        Enrichment {
            keep_addresses,
            problems: Mutex::new(problems),
            #[cfg(feature = "enrich")]
            data,
            ..Enrichment::default()
        }
    }

    /// What is wrong with the files; nothing when it is asked again.
    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says which networks are the company's own, of which addresses are kept whole.
    pub fn own_networks_are(&self, networks: Networks) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Cuts the addresses of an event and notes its user agents and networks.
    pub fn look_at(&self, event: &mut [u8], noted: &mut Noted) {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<(Subject, Range<usize>)> = Vec::new();
        members::for_each(event, |subject, at| found.push((subject, at)));
        // One within another one comes behind it.
        found.sort_unstable_by_key(|(_, at)| (at.start, usize::MAX - at.end));
        let mut done = 0;
        for (subject, at) in found {
            if at.start < done {
                continue;
            }
            done = at.end;
            let text = members::unescaped(&event[at.clone()]);
            match (subject, text) {
                (Subject::UserAgent, text) => text.iter().for_each(|text| note(noted, subject, text)),
                (Subject::Address, text) => {
                    let parts = text.iter().flat_map(|text| text.split(','));
                    for address in parts.filter_map(parse) {
                        let (network, bits) = prefix(address);
                        note(noted, subject, &format!("{network}/{bits}"));
                    }
                    if self.keep_addresses {
                        continue;
                    }
                    match text.as_deref().map(|text| address::cut(text, &own).map(escaped)) {
                        Some(None) => {}
                        Some(Some(new)) if new.len() <= at.len() => address::put(event, at, &new),
                        _ => address::cut_anywhere(&mut event[at], &own),
                    }
                }
            }
        }
    }

    /// Without whatever looks like an address, something that is no event.
    pub fn cut_anywhere<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.keep_addresses {
            return Cow::Borrowed(text);
        }
        let mut text = text.to_vec();
        address::cut_anywhere(&mut text, &self.own.read().unwrap_or_else(PoisonError::into_inner));
        Cow::Owned(text)
    }

    /// Without the addresses that are a cell by themselves, a line of columns.
    pub fn cut_cells<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.keep_addresses {
            return Cow::Borrowed(text);
        }
        let mut text = text.to_vec();
        address::cut_cells(&mut text, &self.own.read().unwrap_or_else(PoisonError::into_inner));
        Cow::Owned(text)
    }

    /// The same for the values of headers, encoded as `loader.dead_letters.headers` has them.
    pub fn cut_headers<'a>(&self, encoded: &'a [u8]) -> Cow<'a, [u8]> {
        if self.keep_addresses {
            return Cow::Borrowed(encoded);
        }
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let mut cut = encoded.to_vec();
        for value in headers(encoded).filter_map(|(_, value)| value) {
            // It is a part of what it was found in.
            let at = value.as_ptr() as usize - encoded.as_ptr() as usize;
            address::cut_anywhere(&mut cut[at..at + value.len()], &own);
        }
        Cow::Owned(cut)
    }

    /// Those that were not seen before, with what is known of them.
    pub fn strangers(&self, noted: Noted) -> Strangers {
        let mut strangers = Strangers::default();
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (hash, (subject, text)) in noted {
                if seen.contains(&hash) {
                    continue;
                }
                strangers.hashes.push(hash);
                match subject {
                    Subject::UserAgent => strangers.agents.push((text, Agent::default())),
                    Subject::Address => strangers.networks.push((text, Place::default())),
                }
            }
        }
        strangers.agents.iter_mut().for_each(|(text, agent)| *agent = self.agent(text));
        strangers.networks.iter_mut().for_each(|(text, place)| *place = self.place(text));
        // Two who add the same must not wait for each other.
        strangers.agents.sort_by(|a, b| a.0.cmp(&b.0));
        strangers.networks.sort_by(|a, b| a.0.cmp(&b.0));
        strangers
    }

    /// Remembers those whose rows are committed.
    pub fn saw(&self, strangers: &Strangers) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() + strangers.hashes.len() > REMEMBERED {
            seen.clear();
        }
        seen.extend(&strangers.hashes);
    }

    /// Forgets whom it saw: Postgres may have lost their rows.
    pub fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is known of a user agent; nothing without a file that says it.
    pub fn agent(&self, text: &str) -> Agent {
        #[cfg(feature = "enrich")]
        return self.data.agent(text);
        #[cfg(not(feature = "enrich"))]
        {
            _ = text;
            Agent::default()
        }
    }

    /// Where a network is, which is written as Postgres does; nothing without a file that says it.
    pub fn place(&self, network: &str) -> Place {
        #[cfg(feature = "enrich")]
        return match network.split('/').next().and_then(parse) {
            Some(address) => self.data.place(address),
            None => Place::default(),
        };
        #[cfg(not(feature = "enrich"))]
        {
            _ = network;
            Place::default()
        }
    }

    /// Which files say what user agents are; `None` without any.
    pub fn agents_by(&self) -> Option<&str> {
        #[cfg(feature = "enrich")]
        return self.data.agents_by();
        #[cfg(not(feature = "enrich"))]
        None
    }

    /// Which files say where networks are; `None` without any.
    pub fn places_by(&self) -> Option<&str> {
        #[cfg(feature = "enrich")]
        return self.data.places_by();
        #[cfg(not(feature = "enrich"))]
        None
    }
}

impl Strangers {
    /// These user agents and networks, with what is known of them.
    pub fn of(enrichment: &Enrichment, agents: Vec<String>, networks: Vec<String>) -> Self {
        let mut noted = Noted::new();
        agents.iter().for_each(|text| note(&mut noted, Subject::UserAgent, text));
        networks.iter().for_each(|text| note(&mut noted, Subject::Address, text));
        enrichment.strangers(noted)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// A text as it stands between quotes.
fn escaped(text: String) -> String {
    if text.contains(|c: char| c < ' ' || c == '"' || c == '\\') {
        let quoted = serde_json::Value::from(text).to_string();
        return quoted[1..quoted.len() - 1].to_owned();
    }
    text
}

fn note(noted: &mut Noted, subject: Subject, text: &str) {
    let text = match text.char_indices().nth(USER_AGENT) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    // Postgres has no text with a NUL, and an empty one says nothing.
    if !text.is_empty() && !text.contains('\0') {
        let hash = xxh3_64_with_seed(text.as_bytes(), subject as u64);
        noted.entry(hash).or_insert_with(|| (subject, text.to_owned()));
    }
}
