//! Lines that no loader can load: each is made from a good event (with a message id of its own) by one defect.
//! Every one is a single line and must end as a dead letter, whole.

use super::line::{LineWriter, Timestamp};
use super::rng::Rng;
use super::timeline::Event;

/// What is wrong with a malformed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Cut off in the middle: not JSON.
    Truncated,
    /// No time at all.
    NoTimestamp,
    /// `"timestamp":"yesterday"`.
    BadTimestamp,
    /// The escape `\u0000` in a string: JSON, but no text that Postgres can hold.
    NulEscape,
    /// An event time in the year 2100.
    FarFuture,
    /// The event in an array in an array, where nobody looks for events.
    Array,
    /// `{}`.
    EmptyObject,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// Half of a surrogate pair, `\ud83d`.
    LoneSurrogate,
}

impl Defect {
    /// All of them, in the order in which they take turns.
    pub const ALL: [Defect; 9] = [
        Defect::Truncated,
        Defect::NoTimestamp,
        Defect::BadTimestamp,
        Defect::NulEscape,
        Defect::FarFuture,
        Defect::Array,
        Defect::EmptyObject,
        Defect::InvalidUtf8,
        Defect::LoneSurrogate,
    ];

    /// A word for summaries: lower case, with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Defect::Truncated => "truncated",
            Defect::NoTimestamp => "no_timestamp",
            Defect::BadTimestamp => "bad_timestamp",
            Defect::NulEscape => "nul_escape",
            Defect::FarFuture => "far_future",
            Defect::Array => "array",
            Defect::EmptyObject => "empty_object",
            Defect::InvalidUtf8 => "invalid_utf8",
            Defect::LoneSurrogate => "lone_surrogate",
        }
    }
}

/// Appends a malformed line made from `event`, without a newline.
pub(super) fn write(out: &mut Vec<u8>, lines: &LineWriter<'_>, event: &Event, defect: Defect, rng: &mut Rng) {
    let from = out.len();
    let timestamp = match defect {
        Defect::NoTimestamp => Timestamp::Missing,
        Defect::BadTimestamp => Timestamp::Text("yesterday"),
        Defect::FarFuture => Timestamp::Text("2100-01-01T00:00:00.000Z"),
        _ => Timestamp::Event,
    };
    if defect == Defect::Array {
        out.extend_from_slice(b"[[");
    }
    if defect == Defect::EmptyObject {
        out.extend_from_slice(b"{}");
        return;
    }
    lines.write(out, event, 1, timestamp);
    match defect {
        Defect::Truncated => {
            let length = (out.len() - from) as u64;
            let mut cut = from + rng.between(length / 10, length * 9 / 10) as usize;
            // Not inside a character: that would be the other defect, invalid UTF-8.
            while out[cut] & 0xc0 == 0x80 {
                cut -= 1;
            }
            out.truncate(cut);
        }
        Defect::Array => out.extend_from_slice(b"]]"),
        Defect::NulEscape => insert_into_title(out, from, b"\\u0000"),
        Defect::LoneSurrogate => insert_into_title(out, from, b"\\ud83d"),
        Defect::InvalidUtf8 => insert_into_title(out, from, b"\xc3\x28\xff"),
        Defect::NoTimestamp | Defect::BadTimestamp | Defect::FarFuture | Defect::EmptyObject => {}
    }
}

fn insert_into_title(out: &mut Vec<u8>, from: usize, bytes: &[u8]) {
    const KEY: &[u8] = b"\"title\":\"";
    if let Some(at) = out[from..].windows(KEY.len()).position(|window| window == KEY) {
        let at = from + at + KEY.len();
        out.splice(at..at, bytes.iter().copied());
    }
}
