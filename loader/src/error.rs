//! What can end a command, and the exit code that goes with it. Which Postgres error is worth a retry is decided in
//! `postgres::retry`, not here; a bad event is never an error (see `event::dead_letter`).

use std::fmt;

/// Why a command stopped. Each kind has its own exit code, after sysexits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `tidemark check` found problems (3).
    Problems,
    /// The command line asks for something impossible (64).
    Usage,
    /// An input file is missing, unreadable, or without events (66).
    Input,
    /// Postgres or Kafka cannot be reached (69).
    Unavailable,
    /// A bug in tidemark (70).
    Internal,
    /// Something that a later try may not meet again (75).
    Temporary,
    /// The database refuses this role (77).
    Permission,
    /// Server, schema or topic are not as they must be (78).
    Config,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Problems => 3,
            Kind::Usage => 64,
            Kind::Input => 66,
            Kind::Unavailable => 69,
            Kind::Internal => 70,
            Kind::Temporary => 75,
            Kind::Permission => 77,
            Kind::Config => 78,
        }
    }
}

/// One line for the person at the terminal: what failed, why, and what to do next.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the cause contains.
        let mut first = true;
        for part in self.message.split(['\n', '\r']).map(str::trim).filter(|p| !p.is_empty()) {
            if !first {
                f.write_str(" ")?;
            }
            f.write_str(part)?;
            first = false;
        }
        Ok(())
    }
}

impl Error {
    /// `what` failed because of `why`; `next` tells what to do about it.
    pub fn new(kind: Kind, what: impl fmt::Display, why: impl fmt::Display, next: impl fmt::Display) -> Self {
        Error { kind, message: format!("{what}: {why}; {next}") }
    }

    /// All of several, on one line, with the exit code of the first; `None` of none.
    pub fn all(errors: Vec<Error>) -> Option<Self> {
        let kind = errors.first()?.kind;
        let messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
        Some(Error { kind, message: messages.join(" | ") })
    }

    /// A state that only a bug can bring about.
    pub fn bug(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Error::new(Kind::Internal, what, why, "this is a bug in tidemark, please report it")
    }
}

/// Result of whatever can end a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The word that was most likely meant, and how far it is off.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> (&'a str, usize) {
    known.map(|known| (known, distance(word, known))).min_by_key(|(_, off)| *off).unwrap_or_default()
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
