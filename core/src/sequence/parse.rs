//! From the text of a pattern to its items and gaps. Meaning is given by `compile` and `run`.

use super::{PatternError, Problem};
use crate::event::MAX_CONDITIONS;

/// How a time gate compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
}

/// A time gate: elapsed microseconds compared with a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) comparison: Comparison,
    pub(super) micros: u64,
}

impl Gate {
    #[inline]
    pub(super) fn holds(self, elapsed: u64) -> bool {
        match self.comparison {
            Comparison::AtMost => elapsed <= self.micros,
            Comparison::Below => elapsed < self.micros,
            Comparison::AtLeast => elapsed >= self.micros,
            Comparison::Above => elapsed > self.micros,
            Comparison::Equal => elapsed == self.micros,
        }
    }

    /// Whether the end of the rows satisfies the gate: no row has to come within the limit.
    pub(super) fn accepts_end(self) -> bool {
        match self.comparison {
            Comparison::AtMost | Comparison::Below => true,
            Comparison::AtLeast => self.micros == 0,
            Comparison::Above | Comparison::Equal => false,
        }
    }

    /// Whether the gate limits how far it may reach.
    pub(super) fn is_upper_limit(self) -> bool {
        matches!(self.comparison, Comparison::AtMost | Comparison::Below)
    }
}

/// One element of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Star,
    Gate(Gate),
    /// The conditions that no row of the gap may have.
    Not(u32),
}

/// A row item and the gap in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) gap: Vec<Element>,
    /// Any of these conditions makes the row fit.
    pub(super) mask: u32,
    pub(super) optional: bool,
}

/// A pattern as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) anchored_start: bool,
    pub(super) items: Vec<Item>,
    pub(super) tail: Vec<Element>,
    /// Byte offset of the tail, for errors about it.
    pub(super) tail_start: usize,
    pub(super) anchored_end: bool,
}

pub(super) fn parse(text: &str, conditions: usize) -> Result<Syntax, PatternError> {
    let conditions = conditions.min(MAX_CONDITIONS);
    let mut c = Cursor { text, at: 0, conditions };
    let mut syntax = Syntax {
        anchored_start: c.eat("^"),
        items: vec![],
        tail: vec![],
        tail_start: 0,
        anchored_end: false,
    };
    syntax.tail_start = c.at;
    while !c.rest().is_empty() {
        let gap = &mut syntax.tail;
        if c.eat("(?t") {
            let opened = c.at - "(?t".len();
            let gate = c.gate()?;
            c.expect(")", "a closing parenthesis, or a duration such as 30, 1.5, 500ms or 30m")?;
            let after_gate = gap
                .iter()
                .rev()
                .find(|e| !matches!(e, Element::Not(_)))
                .is_some_and(|e| matches!(e, Element::Gate(_)));
            if after_gate {
                return Err(PatternError {
                    position: position(text, opened),
                    problem: Problem::AdjacentGates,
                });
            }
            gap.push(Element::Gate(gate));
        } else if c.eat("(?!") {
            gap.push(Element::Not(c.mask()?));
            c.expect(")", "a closing parenthesis or | and another condition")?;
        } else if c.eat("(?") {
            if !c.rest().starts_with(|d: char| d.is_ascii_digit()) {
                return Err(c.expected("a condition number, ! or t"));
            }
            let mask = c.mask()?;
            c.expect(")", "a closing parenthesis or | and another condition")?;
            syntax.push_item(mask, &mut c);
        } else if c.eat(".*") {
            gap.push(Element::Star);
        } else if c.eat(".") {
            syntax.push_item(u32::MAX, &mut c);
        } else if c.eat("$") {
            syntax.anchored_end = true;
            if !c.rest().is_empty() {
                return Err(c.expected("the end of the pattern after $"));
            }
        } else {
            return Err(c.expected("(?, ., .* or $"));
        }
    }
    Ok(syntax)
}

impl Syntax {
    fn push_item(&mut self, mask: u32, c: &mut Cursor<'_>) {
        let optional = c.eat("?");
        self.items.push(Item { gap: std::mem::take(&mut self.tail), mask, optional });
        self.tail_start = c.at;
    }
}

/// The character, counted from 1, at a byte offset. Linear, so only for errors.
pub(super) fn position(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(0, |before| before.chars().count()) + 1
}

struct Cursor<'a> {
    text: &'a str,
    /// A byte offset on a character boundary.
    at: usize,
    conditions: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str, what: &'static str) -> Result<(), PatternError> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(what)) }
    }

    fn expected(&self, what: &'static str) -> PatternError {
        PatternError { position: position(self.text, self.at), problem: Problem::Expected(what) }
    }

    /// The digits at the cursor, consumed; empty if there are none.
    fn digits(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += len;
        rest.get(..len).unwrap_or("")
    }

    /// `N` or `N|M|..` as a bit set.
    fn mask(&mut self) -> Result<u32, PatternError> {
        let mut mask = 0;
        loop {
            let start = self.at;
            let digits = self.digits();
            if digits.is_empty() {
                return Err(self.expected("a condition number"));
            }
            let number = digits.parse::<u64>().unwrap_or(u64::MAX);
            if number == 0 || number > self.conditions as u64 {
                let problem = Problem::NoSuchCondition { number, conditions: self.conditions };
                return Err(PatternError { position: position(self.text, start), problem });
            }
            mask |= 1 << (number - 1);
            if !self.eat("|") {
                return Ok(mask);
            }
        }
    }

    fn gate(&mut self) -> Result<Gate, PatternError> {
        let comparison = if self.eat("<=") {
            Comparison::AtMost
        } else if self.eat("<") {
            Comparison::Below
        } else if self.eat(">=") {
            Comparison::AtLeast
        } else if self.eat(">") {
            Comparison::Above
        } else if self.eat("==") {
            Comparison::Equal
        } else {
            return Err(self.expected("<=, <, >=, > or =="));
        };
        Ok(Gate { comparison, micros: self.duration()? })
    }

    fn duration(&mut self) -> Result<u64, PatternError> {
        let (text, start) = (self.text, self.at);
        let error = |problem| PatternError { position: position(text, start), problem };
        let whole = self.digits();
        if whole.is_empty() {
            return Err(self.expected("a duration such as 30, 1.5, 500ms or 30m"));
        }
        let mut fraction = "";
        if self.eat(".") {
            fraction = self.digits();
            if fraction.is_empty() {
                return Err(self.expected("digits after the decimal point"));
            }
        }
        let unit: u128 = match () {
            // The two-letter units first: "m" would match the start of "ms".
            () if self.eat("us") => 1,
            () if self.eat("ms") => 1_000,
            () if self.eat("s") => 1_000_000,
            () if self.eat("m") => 60_000_000,
            () if self.eat("h") => 3_600_000_000,
            () if self.eat("d") => 86_400_000_000,
            () if self.eat("w") => 604_800_000_000,
            () => 1_000_000,
        };
        let fraction = fraction.trim_end_matches('0');
        // No unit has more than thirteen factors of two or of five (a week has 2^13), so a longer fraction cannot be
        // whole microseconds.
        let scale = match u32::try_from(fraction.len()) {
            Ok(digits @ 0..=13) => 10u128.pow(digits),
            _ => return Err(error(Problem::DurationTooFine)),
        };
        let whole = whole.parse::<u64>().map_err(|_| error(Problem::DurationTooLong))?;
        let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().unwrap_or(0) };
        let value = (u128::from(whole) * scale + u128::from(fraction)).checked_mul(unit);
        let value = value.ok_or_else(|| error(Problem::DurationTooLong))?;
        if value % scale != 0 {
            return Err(error(Problem::DurationTooFine));
        }
        u64::try_from(value / scale).map_err(|_| error(Problem::DurationTooLong))
    }
}
