//! The mode of a funnel, read from its comma-separated text.
//!
//! What each token means for an answer is defined where the answer is computed: `window` for ClickHouse's five,
//! `chain` for all of them.

use crate::event::MAX_CONDITIONS;

/// The longest text of a mode, in bytes.
const MAX_TEXT: usize = 1000;

/// Why a mode text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The token is no mode.
    #[error("unknown funnel mode \"{0}\"")]
    Unknown(String),
    /// ClickHouse's old name, which was ambiguous.
    #[error("funnel mode \"strict\" is ambiguous, use \"strict_deduplication\"")]
    Strict,
    /// `allow_reentry` relaxes `strict_order` and means nothing without it.
    #[error("funnel mode \"allow_reentry\" requires \"strict_order\"")]
    ReentryWithoutOrder,
    /// The token exists, but not for `window_funnel`.
    #[error("funnel mode \"{0}\" is not supported by window_funnel, use funnel")]
    NotForWindowFunnel(String),
    /// The value behind `=` is missing or not usable.
    #[error("funnel mode \"{token}\": {problem}")]
    BadValue {
        /// The whole offending token.
        token: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token appears twice with different values.
    #[error("funnel mode \"{0}\" is given twice")]
    Twice(&'static str),
    /// The two tokens have no defined meaning together.
    #[error("funnel modes \"{0}\" and \"{1}\" cannot be combined")]
    Conflict(&'static str, &'static str),
    /// `exclude=N` or `optional=N` names a condition that is not there.
    #[error("funnel mode \"{name}={number}\" names a condition, but there are only {conditions}")]
    NoSuchCondition {
        /// `exclude` or `optional`.
        name: &'static str,
        /// The N of the token.
        number: usize,
        /// How many conditions the call has.
        conditions: usize,
    },
    /// The first step of a funnel is `optional`.
    #[error("the first step of a funnel cannot be optional")]
    OptionalFirst,
    /// Every condition is excluded, or there is none.
    #[error("a funnel needs at least one step")]
    NoSteps,
    /// A text longer than any mode; it is not read.
    #[error("a funnel mode has at most {MAX_TEXT} bytes, got {0}")]
    TooLong(usize),
    /// More conditions than an event can carry.
    #[error("a funnel has at most {MAX_CONDITIONS} conditions, got {0}")]
    TooMany(usize),
}

/// The five modes of ClickHouse's `windowFunnel`; all false is the default mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct WindowMode {
    /// A repeated step ends the chain.
    pub strict_deduplication: bool,
    /// An event that does not belong between two steps ends the chain.
    pub strict_order: bool,
    /// Steps must have strictly increasing times.
    pub strict_increase: bool,
    /// One row counts for one step only.
    pub strict_once: bool,
    /// With `strict_order`, events of other steps are skipped instead of ending the chain.
    pub allow_reentry: bool,
}

impl WindowMode {
    /// Reads the mode text of `window_funnel`. Tokens are case sensitive and separated by commas, spaces around them
    /// and empty tokens are ignored; an empty text and `default` are the default mode.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let mut mode = Self::default();
        for token in tokens(text)? {
            if !mode.set(token)? {
                let name = token.split('=').next().unwrap_or(token).trim_end();
                return Err(match name {
                    "any_order" | "exclude" | "optional" | "step_window" | "first_entry" => {
                        ModeError::NotForWindowFunnel(token.to_owned())
                    }
                    _ => ModeError::Unknown(token.to_owned()),
                });
            }
        }
        mode.check()?;
        Ok(mode)
    }

    /// Whether rows without a true condition change the answer and must be stored.
    pub fn needs_unmatched_rows(self) -> bool {
        self.strict_order
    }

    /// Sets the mode a token names; false when it is none of ClickHouse's.
    fn set(&mut self, token: &str) -> Result<bool, ModeError> {
        match token {
            "default" => {}
            "strict_deduplication" => self.strict_deduplication = true,
            "strict_order" => self.strict_order = true,
            "strict_increase" => self.strict_increase = true,
            "strict_once" => self.strict_once = true,
            "allow_reentry" => self.allow_reentry = true,
            "strict" => return Err(ModeError::Strict),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(self) -> Result<(), ModeError> {
        if self.allow_reentry && !self.strict_order { Err(ModeError::ReentryWithoutOrder) } else { Ok(()) }
    }
}

/// The mode of `funnel`: ClickHouse's five and five more. Conditions are bits: condition N is bit N - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Mode {
    /// The five modes shared with `window_funnel`; `strict_once` changes nothing, one row is one step anyway.
    pub strict: WindowMode,
    /// Steps may come in any order.
    pub any_order: bool,
    /// Only the first event of the first step starts a chain.
    pub first_entry: bool,
    /// Conditions that are no steps but end a chain.
    pub exclude: u32,
    /// Conditions that are steps a chain may leave out.
    pub optional: u32,
    /// The longest time between consecutive steps, inclusive, in microseconds.
    pub step_window_us: Option<i64>,
}

impl Mode {
    /// Reads the mode text of `funnel`, in the form [`WindowMode::parse`] describes. `exclude=N` and `optional=N` may
    /// be repeated; `step_window=` takes what [`duration_us`] reads.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let mut mode = Self::default();
        for token in tokens(text)? {
            if mode.strict.set(token)? {
                continue;
            }
            let (name, value) = match token.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
                None => (token, None),
            };
            let bad = |problem| Err(ModeError::BadValue { token: token.to_owned(), problem });
            match (name, value) {
                ("any_order", None) => mode.any_order = true,
                ("first_entry", None) => mode.first_entry = true,
                ("exclude" | "optional" | "step_window", None) => {
                    return bad("a value must follow after \"=\"");
                }
                ("exclude" | "optional", Some(value)) => {
                    let number = value.parse::<usize>().ok().filter(|n| (1..=MAX_CONDITIONS).contains(n));
                    let Some(number) = number.filter(|_| !value.starts_with('+')) else {
                        return bad("the value must be the number of a condition, 1 to 32");
                    };
                    let bits = if name == "exclude" { &mut mode.exclude } else { &mut mode.optional };
                    *bits |= 1 << (number - 1);
                }
                ("step_window", Some(value)) => {
                    let Some(us) = duration_us(value) else {
                        return bad("the value must be a duration such as 30m, 2h or 90 seconds");
                    };
                    if mode.step_window_us.is_some_and(|before| before != us) {
                        return Err(ModeError::Twice("step_window"));
                    }
                    mode.step_window_us = Some(us);
                }
                _ => return Err(ModeError::Unknown(token.to_owned())),
            }
        }
        mode.check()?;
        Ok(mode)
    }

    fn check(&self) -> Result<(), ModeError> {
        self.strict.check()?;
        if self.any_order {
            let others = [
                (self.strict.strict_order, "strict_order"),
                (self.strict.strict_deduplication, "strict_deduplication"),
                (self.first_entry, "first_entry"),
                (self.optional != 0, "optional"),
                (self.step_window_us.is_some(), "step_window"),
            ];
            if let Some((_, name)) = others.into_iter().find(|(given, _)| *given) {
                return Err(ModeError::Conflict("any_order", name));
            }
        }
        if self.optional != 0 && self.strict.strict_deduplication {
            return Err(ModeError::Conflict("optional", "strict_deduplication"));
        }
        if self.exclude & self.optional != 0 {
            return Err(ModeError::Conflict("exclude", "optional"));
        }
        Ok(())
    }

    /// Checks the mode against the number of conditions of a call.
    pub fn check_conditions(&self, conditions: usize) -> Result<(), ModeError> {
        if conditions > MAX_CONDITIONS {
            return Err(ModeError::TooMany(conditions));
        }
        let all = low_bits(conditions);
        for (name, bits) in [("exclude", self.exclude), ("optional", self.optional)] {
            if bits & !all != 0 {
                let number = (bits & !all).trailing_zeros() as usize + 1;
                return Err(ModeError::NoSuchCondition { name, number, conditions });
            }
        }
        let steps = all & !self.exclude;
        if steps == 0 {
            return Err(ModeError::NoSteps);
        }
        if self.optional & (steps & steps.wrapping_neg()) != 0 {
            return Err(ModeError::OptionalFirst);
        }
        Ok(())
    }

    /// Whether rows without a true condition change the answer and must be stored.
    pub fn needs_unmatched_rows(&self) -> bool {
        self.strict.needs_unmatched_rows()
    }
}

/// The `n` lowest bits.
pub(super) fn low_bits(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

fn tokens(text: &str) -> Result<impl Iterator<Item = &str>, ModeError> {
    if text.len() > MAX_TEXT {
        return Err(ModeError::TooLong(text.len()));
    }
    Ok(text.split(',').map(str::trim).filter(|token| !token.is_empty()))
}

/// Reads a duration in microseconds: whole numbers with a unit each, `30m`, `1h 30m`, `90 seconds`, `500ms`.
///
/// Units are us, ms, s, m, h, d (24 hours) and w, their English names in singular or plural, and sec, min, hr.
/// Anything else, and what exceeds `i64`, is `None`: months have no fixed length, and a bare `m` is a minute.
pub fn duration_us(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0i64;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(unit_at);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit_us: i64 = match unit {
            "us" | "microsecond" | "microseconds" => 1,
            "ms" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit_us)?)?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clickhouse_modes_combine_freely_and_tolerate_spaces() {
        assert_eq!(WindowMode::parse(""), Ok(WindowMode::default()));
        assert_eq!(WindowMode::parse(" default "), Ok(WindowMode::default()));
        let all = " strict_order ,allow_reentry, strict_once,strict_increase,strict_deduplication";
        let mode = WindowMode::parse(all).unwrap();
        assert_eq!(mode, Mode::parse(all).unwrap().strict);
        assert!(mode.strict_order && mode.allow_reentry && mode.strict_once);
        assert!(mode.strict_increase && mode.strict_deduplication && mode.needs_unmatched_rows());
        assert!(!WindowMode::parse("strict_once").unwrap().needs_unmatched_rows());
    }

    #[test]
    fn bad_tokens_are_refused_by_name() {
        let endless = ",".repeat(1001);
        assert_eq!(WindowMode::parse(&endless), Err(ModeError::TooLong(1001)));
        assert_eq!(Mode::parse(&endless), Err(ModeError::TooLong(1001)));
        assert!(Mode::parse(&endless[1..]).is_ok());
        assert_eq!(WindowMode::parse("strict"), Err(ModeError::Strict));
        assert_eq!(Mode::parse("strict"), Err(ModeError::Strict));
        assert_eq!(WindowMode::parse("allow_reentry"), Err(ModeError::ReentryWithoutOrder));
        assert_eq!(Mode::parse("allow_reentry"), Err(ModeError::ReentryWithoutOrder));
        assert_eq!(WindowMode::parse("Strict_order"), Err(ModeError::Unknown("Strict_order".into())));
        assert_eq!(Mode::parse("strict_order=1"), Err(ModeError::Unknown("strict_order=1".into())));
        for token in ["any_order", "exclude=3", "optional = 2", "step_window=30m", "first_entry"] {
            let refused = Err(ModeError::NotForWindowFunnel(token.into()));
            assert_eq!(WindowMode::parse(&format!("strict_order,{token}")), refused);
            assert!(Mode::parse(token).is_ok(), "{token}");
        }
        for token in ["exclude", "exclude=", "optional=0", "exclude=33", "optional=+2", "step_window=1month"]
        {
            assert!(
                matches!(Mode::parse(token), Err(ModeError::BadValue { token: t, .. }) if t == token),
                "{token}"
            );
        }
        assert_eq!(Mode::parse("step_window=1m,step_window=2m"), Err(ModeError::Twice("step_window")));
        assert_eq!(Mode::parse("exclude=2,optional=2"), Err(ModeError::Conflict("exclude", "optional")));
        for (token, name) in [
            ("strict_order", "strict_order"),
            ("strict_deduplication", "strict_deduplication"),
            ("first_entry", "first_entry"),
            ("optional=2", "optional"),
            ("step_window=1m", "step_window"),
        ] {
            let text = format!("any_order,{token}");
            assert_eq!(Mode::parse(&text), Err(ModeError::Conflict("any_order", name)));
        }
        let repeats = Mode::parse("strict_deduplication,optional=2");
        assert_eq!(repeats, Err(ModeError::Conflict("optional", "strict_deduplication")));
    }

    #[test]
    fn conditions_are_checked_against_the_call() {
        let mode = Mode::parse("exclude=3,exclude=1,optional=4").unwrap();
        assert_eq!((mode.exclude, mode.optional), (0b101, 0b1000));
        assert_eq!(mode.check_conditions(4), Ok(()));
        let missing = ModeError::NoSuchCondition { name: "optional", number: 4, conditions: 3 };
        assert_eq!(mode.check_conditions(3), Err(missing));
        let first = Mode::parse("exclude=1,optional=2").unwrap();
        assert_eq!(first.check_conditions(3), Err(ModeError::OptionalFirst));
        assert_eq!(Mode::parse("exclude=1").unwrap().check_conditions(1), Err(ModeError::NoSteps));
        assert_eq!(Mode::default().check_conditions(0), Err(ModeError::NoSteps));
        assert_eq!(Mode::default().check_conditions(33), Err(ModeError::TooMany(33)));
        assert_eq!(Mode::default().check_conditions(32), Ok(()));
    }

    #[test]
    fn durations_have_units() {
        for (text, us) in [
            ("500ms", 500_000),
            ("90s", 90_000_000),
            ("30 minutes", 1_800_000_000),
            ("30m", 1_800_000_000),
            (" 1h 30m ", 5_400_000_000),
            ("1h30m", 5_400_000_000),
            ("1 day", 86_400_000_000),
            ("2w", 1_209_600_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration_us(text), Some(us), "{text}");
        }
        for text in
            ["", "30", "m", "1.5h", "-1h", "1 month", "1h 2", "9999999999999w", "99999999999999999999s", "1ü"]
        {
            assert_eq!(duration_us(text), None, "{text}");
        }
    }
}
