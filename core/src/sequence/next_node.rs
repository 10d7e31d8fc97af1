//! The event that follows, or precedes, a chain of events: ClickHouse's `sequenceNextNode`.
//!
//! Rows are kept whole, with their value, in one arena of bytes; the caller leaves out rows with a NULL argument. What
//! the value means (a page, an event name) is the caller's business.
//!
//! # Rules
//!
//! Rows are ordered by (time, value bytes, base flag, conditions), which ClickHouse orders by (time, value). With n
//! conditions:
//!
//! 1. One base row is chosen. `head` is the first row and `tail` the last, and it must carry the base flag;
//!    `first_match` and `last_match` are the first and last row that carry the base flag and condition 1.
//! 2. Forward, the base row and the rows behind it must have conditions 1, 2, .. n in turn, and the answer is the
//!    value of the row behind those. Backward, the same towards earlier rows.
//! 3. No such row, no base row, or a broken chain: no answer. Another base row is never tried. Without conditions the
//!    answer is the base row's own value; the match bases need one condition at least.

use crate::codec::{DecodeError, Reader, Writer};
use crate::event::MAX_CONDITIONS;
use crate::interrupt::{Interrupt, extend};
use crate::{AVec, Allocator};
use std::str::FromStr;

/// Which way to look from the base row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards later rows.
    Forward,
    /// Towards earlier rows.
    Backward,
}

/// Which row is the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The first row.
    Head,
    /// The last row.
    Tail,
    /// The first row with the base flag and condition 1.
    FirstMatch,
    /// The last row with the base flag and condition 1.
    LastMatch,
}

/// Why direction and base were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The direction is not one of the two.
    #[error("unknown direction \"{0}\", expected forward or backward")]
    UnknownDirection(String),
    /// The base is not one of the four.
    #[error("unknown base \"{0}\", expected head, tail, first_match or last_match")]
    UnknownBase(String),
    /// Nothing can follow the last row.
    #[error("base \"tail\" cannot be used with direction \"forward\"")]
    ForwardFromTail,
    /// Nothing can precede the first row.
    #[error("base \"head\" cannot be used with direction \"backward\"")]
    BackwardFromHead,
    /// The match bases are defined by condition 1.
    #[error("base first_match or last_match needs at least one condition")]
    NoConditionToMatch,
    /// More conditions than an event can carry.
    #[error("at most {MAX_CONDITIONS} conditions are possible, not {0}")]
    TooManyConditions(usize),
}

/// As much of a text as an error message repeats.
fn beginning(text: &str) -> String {
    text.chars().take(100).collect()
}

impl FromStr for Direction {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        match text {
            "forward" => Ok(Self::Forward),
            "backward" => Ok(Self::Backward),
            _ => Err(SearchError::UnknownDirection(beginning(text))),
        }
    }
}

impl FromStr for Base {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        match text {
            "head" => Ok(Self::Head),
            "tail" => Ok(Self::Tail),
            "first_match" => Ok(Self::FirstMatch),
            "last_match" => Ok(Self::LastMatch),
            _ => Err(SearchError::UnknownBase(beginning(text))),
        }
    }
}

/// What to look for: a valid combination of direction, base and number of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    direction: Direction,
    base: Base,
    conditions: usize,
}

impl Search {
    /// Combines direction, base and how many conditions the chain has.
    ///
    /// # Errors
    /// Forward from the tail, backward from the head, a match base without conditions, more than 32 conditions.
    pub fn new(direction: Direction, base: Base, conditions: usize) -> Result<Self, SearchError> {
        match (direction, base) {
            (Direction::Forward, Base::Tail) => Err(SearchError::ForwardFromTail),
            (Direction::Backward, Base::Head) => Err(SearchError::BackwardFromHead),
            (_, Base::FirstMatch | Base::LastMatch) if conditions == 0 => {
                Err(SearchError::NoConditionToMatch)
            }
            _ if conditions > MAX_CONDITIONS => Err(SearchError::TooManyConditions(conditions)),
            _ => Ok(Self { direction, base, conditions }),
        }
    }

    /// Parses both words (lower case, as ClickHouse spells them) and combines them.
    ///
    /// # Errors
    /// An unknown word or a refused combination.
    pub fn parse(direction: &str, base: &str, conditions: usize) -> Result<Self, SearchError> {
        Self::new(direction.parse()?, base.parse()?, conditions)
    }
}

#[derive(Clone, Copy)]
struct Row {
    time: i64,
    /// Where the value lies in the arena.
    start: usize,
    len: usize,
    conditions: u32,
    base: bool,
}

/// A growing, mergeable multiset of rows with values.
pub struct NodeLog<A: Allocator> {
    rows: AVec<Row, A>,
    arena: AVec<u8, A>,
    sorted: bool,
}

impl<A: Allocator + Clone> NodeLog<A> {
    /// An empty log whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(alloc: A) -> Self {
        Self { rows: AVec::new_in(alloc.clone()), arena: AVec::new_in(alloc), sorted: true }
    }

    /// Adds a row: its value, whether it may be the base, and its true conditions (bit `i` is condition `i + 1`).
    pub fn push(&mut self, time: i64, value: &[u8], base: bool, conditions: u32) {
        let row = Row { time, start: self.arena.len(), len: value.len(), conditions, base };
        self.arena.extend_from_slice(value);
        self.sorted &= self.rows.last().is_none_or(|last| key(&self.arena, last) <= key(&self.arena, &row));
        self.rows.push(row);
    }

    /// Adds all rows of another log.
    pub fn append<B: Allocator>(&mut self, other: &NodeLog<B>, interrupt: impl Interrupt) {
        let offset = self.arena.len();
        extend(&mut self.arena, &other.arena, interrupt);
        self.rows.extend(other.rows.iter().map(|row| {
            interrupt.check();
            Row { start: row.start + offset, ..*row }
        }));
        self.sorted = self.rows.len() < 2;
    }

    /// How many rows the log holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the log holds no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The value of the row next to the chain, by the [rules](self); `None` if there is none. Sorts the rows if they
    /// are not sorted.
    pub fn next_node(&mut self, search: Search, interrupt: impl Interrupt) -> Option<&[u8]> {
        if !self.sorted {
            let arena = &self.arena;
            // Values may be long, so even few comparisons may take a while.
            self.rows.sort_unstable_by(|a, b| {
                interrupt.check();
                key(arena, a).cmp(&key(arena, b))
            });
            self.sorted = true;
        }
        let matches = |row: &Row| {
            interrupt.check();
            row.base && row.conditions & 1 != 0
        };
        let base = match search.base {
            Base::Head => self.rows.first().filter(|row| row.base).map(|_| 0),
            Base::Tail => self.rows.last().filter(|row| row.base).map(|_| self.rows.len() - 1),
            Base::FirstMatch => self.rows.iter().position(matches),
            Base::LastMatch => self.rows.iter().rposition(matches),
        }?;
        let step = |i: usize| match search.direction {
            Direction::Forward => self.rows.get(base.checked_add(i)?),
            Direction::Backward => self.rows.get(base.checked_sub(i)?),
        };
        for i in 0..search.conditions {
            if step(i)?.conditions >> i & 1 == 0 {
                return None;
            }
        }
        step(search.conditions).map(|row| value(&self.arena, row))
    }

    /// Writes the log; the caller has written version and configuration before.
    pub fn encode<B: Allocator>(&self, w: &mut Writer<'_, B>, interrupt: impl Interrupt) {
        w.varint(self.rows.len() as u64);
        for row in &self.rows {
            interrupt.check();
            w.i64(row.time);
            w.u32(row.conditions);
            w.u8(u8::from(row.base));
            w.bytes(value(&self.arena, row));
        }
    }

    /// Reads what [`NodeLog::encode`] wrote.
    ///
    /// # Errors
    /// Anything that `encode` would not write again as it is.
    pub fn decode_in(r: &mut Reader<'_>, alloc: A, interrupt: impl Interrupt) -> Result<Self, DecodeError> {
        let len = usize::try_from(r.varint()?).map_err(|_| DecodeError::Truncated)?;
        // A row takes 14 bytes or more; checked before memory is set aside for the count.
        if len > r.remaining() / 14 {
            return Err(DecodeError::Truncated);
        }
        let mut log = Self::new_in(alloc);
        log.rows.reserve(len);
        log.arena.reserve(r.remaining() - 14 * len);
        for _ in 0..len {
            interrupt.check();
            let (time, conditions) = (r.i64()?, r.u32()?);
            let base = match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Malformed("base flag is neither 0 nor 1")),
            };
            log.push(time, r.bytes()?, base, conditions);
        }
        Ok(log)
    }
}

fn value<'a>(arena: &'a [u8], row: &Row) -> &'a [u8] {
    arena.get(row.start..row.start + row.len).unwrap_or(&[])
}

fn key<'a>(arena: &'a [u8], row: &Row) -> (i64, &'a [u8], bool, u32) {
    (row.time, value(arena, row), row.base, row.conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Global;
    use crate::codec::{read_whole, written};
    use proptest::prelude::*;

    type Given = (i64, &'static str, bool, u32);

    fn log(rows: &[Given]) -> NodeLog<Global> {
        let mut log = NodeLog::new_in(Global);
        for &(time, value, base, conditions) in rows {
            log.push(time, value.as_bytes(), base, conditions);
        }
        log
    }

    fn ask(rows: &[Given], direction: &str, base: &str, conditions: usize) -> Option<String> {
        let search = Search::parse(direction, base, conditions).unwrap();
        log(rows).next_node(search, ()).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    /// home, basket, home, basket, pay; base everywhere; condition 1 home, 2 basket.
    const VISIT: [Given; 5] = [
        (1, "home", true, 1),
        (2, "basket", true, 2),
        (3, "home", true, 1),
        (4, "basket", true, 2),
        (5, "pay", true, 0),
    ];

    #[test]
    fn the_row_behind_the_chain_answers() {
        assert_eq!(ask(&VISIT, "forward", "head", 1).as_deref(), Some("basket"));
        assert_eq!(ask(&VISIT, "forward", "head", 2).as_deref(), Some("home"));
        assert_eq!(ask(&VISIT, "forward", "last_match", 2).as_deref(), Some("pay"));
        assert_eq!(ask(&VISIT, "forward", "head", 3), None, "the third row lacks condition 3");
        assert_eq!(ask(&VISIT, "forward", "head", 0).as_deref(), Some("home"));
        assert_eq!(ask(&VISIT, "backward", "tail", 1), None, "the last row lacks condition 1");
        assert_eq!(ask(&VISIT, "backward", "last_match", 1).as_deref(), Some("basket"));
        assert_eq!(ask(&VISIT, "backward", "first_match", 1), None, "nothing before the first row");
        assert_eq!(ask(&VISIT, "backward", "last_match", 2).as_deref(), Some("home"));
        assert_eq!(ask(&VISIT[..2], "forward", "head", 2), None, "nothing behind the last row");
        assert_eq!(ask(&[], "forward", "head", 0), None);
    }

    #[test]
    fn only_one_base_row_is_tried() {
        let rows =
            [(1, "a", true, 1), (2, "x", true, 0), (3, "a", true, 1), (4, "b", true, 2), (5, "c", true, 0)];
        assert_eq!(ask(&rows, "forward", "first_match", 2), None);
        assert_eq!(ask(&rows, "forward", "last_match", 2).as_deref(), Some("c"));
        let without_base = [(1, "a", false, 1), (2, "b", true, 1), (3, "c", true, 0)];
        assert_eq!(ask(&without_base, "forward", "head", 1), None);
        assert_eq!(ask(&without_base, "forward", "first_match", 1).as_deref(), Some("c"));
    }

    #[test]
    fn impossible_and_unknown_searches_are_refused() {
        assert_eq!(Search::parse("forward", "tail", 1), Err(SearchError::ForwardFromTail));
        assert_eq!(Search::parse("backward", "head", 1), Err(SearchError::BackwardFromHead));
        assert_eq!(Search::parse("Forward", "head", 1), Err(SearchError::UnknownDirection("Forward".into())));
        assert_eq!(Search::parse("forward", "first", 1), Err(SearchError::UnknownBase("first".into())));
        assert_eq!(Search::parse("forward", "first_match", 0), Err(SearchError::NoConditionToMatch));
        assert_eq!(Search::parse("forward", "head", 33), Err(SearchError::TooManyConditions(33)));
        assert!(Search::parse("forward", "head", 0).is_ok());
    }

    fn rows() -> impl Strategy<Value = Vec<Given>> {
        let value = prop::sample::select(vec!["", "a", "ab", "b", "é"]);
        prop::collection::vec((0i64..4, value, any::<bool>(), 0u32..8), 0..12)
    }

    proptest! {
        #[test]
        fn any_split_merge_order_and_encoding_gives_the_same_answer(
            given in rows(), cut in 0usize..12, n in 1usize..4
        ) {
            let cut = cut.min(given.len());
            for (direction, base) in [("forward", "head"), ("forward", "first_match"), ("forward", "last_match"),
                                      ("backward", "tail"), ("backward", "first_match"), ("backward", "last_match")] {
                let search = Search::parse(direction, base, n).unwrap();
                let mut whole = log(&given);
                let mut merged = log(&given[cut..]);
                let bytes = written(|w| log(&given[..cut]).encode(w, ()));
                merged.append(&read_whole(&bytes, |r| NodeLog::decode_in(r, Global, ())).unwrap(), ());
                prop_assert_eq!(merged.len(), whole.len());
                prop_assert_eq!(whole.next_node(search, ()), merged.next_node(search, ()));
            }
        }

        #[test]
        fn damaged_bytes_are_refused_or_read(given in rows(), at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut bytes = written(|w| log(&given).encode(w, ()));
            let read = |bytes: &[u8]| read_whole(bytes, |r| NodeLog::decode_in(r, Global, ()));
            let cut = cut.min(bytes.len());
            if cut < bytes.len() {
                prop_assert!(read(&bytes[..cut]).is_err());
            }
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(log) = read(&bytes) {
                prop_assert_eq!(&written(|w| log.encode(w, ())), &bytes);
            }
        }
    }
}
