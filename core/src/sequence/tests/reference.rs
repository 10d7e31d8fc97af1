//! A brute-force reading of the pattern language: try every chain of rows. Exponential, for tiny inputs only.

use crate::event::Event;
use proptest::prelude::*;

/// An element as the generator builds it; gates are (operator, seconds).
#[derive(Debug, Clone)]
pub enum Part {
    Row { mask: u32, optional: bool },
    Star,
    Gate(&'static str, u64),
    Not(u32),
}

#[derive(Debug, Clone)]
pub struct Syntax {
    pub start: bool,
    pub end: bool,
    pub parts: Vec<Part>,
}

pub fn pattern() -> impl Strategy<Value = Syntax> {
    let operator = prop::sample::select(vec!["<=", "<", ">=", ">", "=="]);
    let row = (prop_oneof![4 => 1u32..8, 1 => Just(u32::MAX)], prop::bool::weighted(0.25));
    let part = prop_oneof![
        6 => row.prop_map(|(mask, optional)| Part::Row { mask, optional }),
        1 => Just(Part::Star),
        3 => (operator, 0u64..5).prop_map(|(op, seconds)| Part::Gate(op, seconds)),
        2 => (1u32..8).prop_map(Part::Not),
    ];
    (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::collection::vec(part, 0..8))
        .prop_map(|(start, end, parts)| Syntax { start, end, parts })
}

fn conditions(mask: u32) -> String {
    let numbers: Vec<_> = (1..4).filter(|n| mask >> (n - 1) & 1 == 1).map(|n| n.to_string()).collect();
    numbers.join("|")
}

pub fn render(syntax: &Syntax) -> String {
    let mut text = if syntax.start { "^".to_owned() } else { String::new() };
    for part in &syntax.parts {
        text += &match *part {
            Part::Row { mask, optional } => {
                let row = if mask == u32::MAX { ".".to_owned() } else { format!("(?{})", conditions(mask)) };
                row + if optional { "?" } else { "" }
            }
            Part::Star => ".*".to_owned(),
            Part::Gate(op, seconds) => format!("(?t{op}{seconds})"),
            Part::Not(mask) => format!("(?!{})", conditions(mask)),
        };
    }
    text + if syntax.end { "$" } else { "" }
}

/// A pattern without optional items: the gap before each row item, and the tail.
struct Plain<'a> {
    start: bool,
    end: bool,
    items: Vec<(Vec<Part>, u32)>,
    tail: Vec<Part>,
    rows: &'a [Event],
}

fn holds(op: &str, elapsed: i64, seconds: u64) -> bool {
    let limit = seconds as i64 * 1_000_000;
    match op {
        "<=" => elapsed <= limit,
        "<" => elapsed < limit,
        ">=" => elapsed >= limit,
        ">" => elapsed > limit,
        _ => elapsed == limit,
    }
}

/// How often the pattern matches without overlap.
pub fn count(syntax: &Syntax, events: &[Event]) -> u64 {
    let rows: Vec<_> = events.iter().copied().filter(|e| e.conditions != 0).collect();
    let variants = Plain::variants(syntax, &rows);
    let (mut from, mut found) = (0, 0);
    while from < rows.len() {
        let Some(end) = variants.iter().filter_map(|v| v.first_end(from)).min() else {
            break;
        };
        found += 1;
        from = end.max(from + 1);
    }
    found
}

impl<'a> Plain<'a> {
    /// Every choice of optional items.
    fn variants(syntax: &Syntax, rows: &'a [Event]) -> Vec<Self> {
        let optional = syntax.parts.iter().filter(|p| matches!(p, Part::Row { optional: true, .. })).count();
        let variant = |choice: u32| {
            let (mut items, mut gap, mut seen) = (vec![], vec![], 0);
            for part in &syntax.parts {
                match *part {
                    Part::Row { mask, optional } => {
                        seen += u32::from(optional);
                        if optional && choice >> (seen - 1) & 1 == 0 {
                            while matches!(gap.last(), Some(Part::Gate(..) | Part::Not(_))) {
                                gap.pop();
                            }
                        } else {
                            items.push((std::mem::take(&mut gap), mask));
                        }
                    }
                    _ => gap.push(part.clone()),
                }
            }
            Self { start: syntax.start, end: syntax.end, items, tail: gap, rows }
        };
        (0..1 << optional).map(variant).collect()
    }

    /// The earliest end of a match whose search starts at position `from`.
    fn first_end(&self, from: usize) -> Option<usize> {
        if self.start && from > 0 {
            return None;
        }
        self.ends(0, from, None, from)
    }

    fn ops(gap: &[Part], implicit: bool) -> (Vec<Part>, u32) {
        let mut ops = if implicit { vec![Part::Star] } else { vec![] };
        let mut forbidden = 0;
        for part in gap {
            match part {
                Part::Not(mask) => forbidden |= mask,
                _ => ops.push(part.clone()),
            }
        }
        if ops.is_empty() && forbidden != 0 {
            ops.push(Part::Star);
        }
        (ops, forbidden)
    }

    fn ends(&self, item: usize, from: usize, previous: Option<usize>, position: usize) -> Option<usize> {
        let implicit = previous.is_none() && !self.start;
        let n = self.rows.len();
        let Some((gap, mask)) = self.items.get(item) else {
            let (ops, forbidden) = Self::ops(&self.tail, implicit);
            if forbidden != 0 {
                let clean = (position..n).all(|r| {
                    let reached = match (previous, self.tail.iter().find(|p| matches!(p, Part::Gate(..)))) {
                        (Some(p), Some(Part::Gate(op, s))) => {
                            holds(op, self.rows[r].time - self.rows[p].time, *s)
                        }
                        _ => true,
                    };
                    !reached || self.rows[r].conditions & forbidden == 0
                });
                let end = if self.end { n } else { position };
                return clean.then_some(end);
            }
            return (position..=n)
                .find(|&q| (!self.end || q == n) && self.reach(&ops, position, previous.unwrap_or(from), q));
        };
        let (ops, forbidden) = Self::ops(gap, implicit);
        (position..n)
            .filter(|&q| self.rows[q].conditions & mask != 0)
            .filter(|&q| (position..q).all(|r| self.rows[r].conditions & forbidden == 0))
            .filter(|&q| self.reach(&ops, position, previous.unwrap_or(from), q))
            .filter_map(|q| self.ends(item + 1, from, Some(q), q + 1))
            .min()
    }

    /// Whether the operations lead from `position` to position `to`; gates measure from row `base`.
    fn reach(&self, ops: &[Part], position: usize, base: usize, to: usize) -> bool {
        let n = self.rows.len();
        match ops.split_first() {
            None => position == to,
            Some((Part::Gate(op, seconds), rest)) => {
                let at_end = position == n && (op.starts_with('<') || (*op == ">=" && *seconds == 0));
                (at_end && self.reach(rest, n, n, to))
                    || (position..n.min(to + 1)).any(|p| {
                        holds(op, self.rows[p].time - self.rows[base].time, *seconds)
                            && self.reach(rest, p, p, to)
                    })
            }
            Some((_, rest)) => (position..=to).any(|p| self.reach(rest, p, p, to)),
        }
    }
}
