//! The grammar of filters and steps, in JSON: what is asked of the columns of a timeline. Each predicate is decided once
//! for each distinct text of its property, never for rows.
//!
//! `["is", "country", ["AT", "DE"]]`, and `["and", [...]]`, `["or", [...]]`, `["not", ...]` above it. Two-valued: what a
//! predicate says of NULL is false, and its negation true.

use pgrx::pg_sys::{self, FunctionCallInfo};
use serde_json::Value;
use tidemark_core::timeline::{CodeSet, Filter};

use super::dictionary::Dictionary;
use super::query::each_row;
use super::read::{Open, Timeline};
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::error::{INVALID, invalid_argument, raise_hint, shown};

const MAX_BYTES: usize = 1 << 16;
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 200;
const MAX_VALUES: usize = 1000;
const MAX_PATTERN: usize = 1000;
/// As many as a row can say of itself.
const MAX_STEPS: usize = 32;

/// A jsonb argument; `None` when it is NULL.
///
/// # Safety
/// The argument must be a jsonb.
pub unsafe fn json(fcinfo: FunctionCallInfo, index: usize, name: &str) -> Option<Value> {
    // SAFETY: see above; the output function of jsonb gives a C string.
    let text = unsafe {
        let datum = args::datum(fcinfo, index)?;
        if args::varlena_bytes(datum).len() > MAX_BYTES {
            invalid_argument(
                format!("{name} must not be longer than {MAX_BYTES} bytes"),
                "Use fewer conditions.",
            );
        }
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(datum)])
            .map(|text| std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy())
    }?;
    match serde_json::from_str(&text) {
        Ok(value) => Some(value),
        Err(_) => invalid_argument(format!("{name} is nested too deeply"), "At most 16 levels make sense."),
    }
}

/// A filter whose columns are known and whose texts are not codes yet.
pub enum Asked {
    Predicate(Predicate),
    Not(Box<Asked>),
    And(Vec<Asked>),
    Or(Vec<Asked>),
}

/// What is asked of one column.
pub struct Predicate {
    column: usize,
    op: Op,
    texts: Vec<String>,
}

#[derive(Clone, Copy)]
enum Op {
    Is,
    Contains,
    Matches,
    IsNull,
    Compare(fn(f64, f64) -> bool),
}

const GRAMMAR: &str = "A filter is [\"is\", \"country\", [\"AT\", \"DE\"]], or [\"and\", [filter, ...]], \
    [\"or\", [filter, ...]], [\"not\", filter]. Predicates: is, is_not, contains, contains_not, matches, \
    matches_not, >, >=, <, <=, is_null, is_not_null.";

fn refuse(message: String) -> ! {
    invalid_argument(message, GRAMMAR)
}

/// Reads filters, and notes which columns they need.
pub struct Parser<'t> {
    pub timeline: &'t mut Timeline,
    nodes: usize,
}

impl<'t> Parser<'t> {
    /// For the columns of a timeline.
    pub fn new(timeline: &'t mut Timeline) -> Self {
        Self { timeline, nodes: 0 }
    }

    /// Reads a filter.
    pub fn filter(&mut self, value: &Value) -> Asked {
        self.node(value, 1)
    }

    fn node(&mut self, value: &Value, depth: usize) -> Asked {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            refuse(format!("filters have at most {MAX_DEPTH} levels and {MAX_NODES} conditions in all"));
        }
        let (op, rest) = match value.as_array().map(Vec::as_slice) {
            Some([Value::String(op), rest @ ..]) => (op.as_str(), rest),
            _ => refuse(format!("not a filter: {}", shown(&value.to_string()))),
        };
        let many = |parser: &mut Self| match rest {
            [Value::Array(filters)] => filters.iter().map(|filter| parser.node(filter, depth + 1)).collect(),
            _ => refuse(format!("behind {op:?} there must be one list of filters")),
        };
        match (op, rest) {
            ("and", _) => Asked::And(many(self)),
            ("or", _) => Asked::Or(many(self)),
            ("not", [filter]) => Asked::Not(Box::new(self.node(filter, depth + 1))),
            _ => self.predicate(op, rest),
        }
    }

    fn predicate(&mut self, op: &str, rest: &[Value]) -> Asked {
        let (op, negated) = match op {
            "is" => (Op::Is, false),
            "is_not" => (Op::Is, true),
            "contains" => (Op::Contains, false),
            "contains_not" => (Op::Contains, true),
            "matches" => (Op::Matches, false),
            "matches_not" => (Op::Matches, true),
            "is_null" => (Op::IsNull, false),
            "is_not_null" => (Op::IsNull, true),
            ">" => (Op::Compare(|a, b| a > b), false),
            ">=" => (Op::Compare(|a, b| a >= b), false),
            "<" => (Op::Compare(|a, b| a < b), false),
            "<=" => (Op::Compare(|a, b| a <= b), false),
            _ => refuse(format!("unknown predicate {:?}", shown(op))),
        };
        let (column, values) = match rest {
            [Value::String(column)] if matches!(op, Op::IsNull) => (column, &[][..]),
            [Value::String(column), Value::Array(values)] if !matches!(op, Op::IsNull) => {
                (column, values.as_slice())
            }
            [Value::Array(_), ..] => refuse("a predicate is about one property".to_owned()),
            _ => refuse("a predicate has a property and a list of values".to_owned()),
        };
        if values.len() > MAX_VALUES {
            refuse(format!("a predicate has at most {MAX_VALUES} values, got {}", values.len()));
        }
        let texts = values.iter().map(scalar).collect();
        let asked = Asked::Predicate(Predicate { column: self.timeline.column(column), op, texts });
        if negated { Asked::Not(Box::new(asked)) } else { asked }
    }

    /// Reads a step: the name of an event, a list of such names, or an object with event, filters and name. Gives what it
    /// asks for and its name.
    pub fn step(&mut self, value: &Value) -> (Asked, String) {
        const SHAPE: &str = "A step is \"signed_up\", [\"signed_up\", \"invited\"], or {\"event\": \"signed_up\", \
            \"filters\": [\"is\", \"country\", [\"AT\"]], \"name\": \"signed up in Austria\"}.";
        let events = |value: &Value| -> Option<Vec<String>> {
            match value {
                Value::String(event) => Some(vec![event.clone()]),
                Value::Array(events) if !events.is_empty() => {
                    events.iter().map(|event| event.as_str().map(str::to_owned)).collect()
                }
                _ => None,
            }
        };
        let bad = || -> ! { invalid_argument(format!("not a step: {}", shown(&value.to_string())), SHAPE) };
        let (texts, filters, name) = match value {
            Value::Object(fields) => {
                if fields.keys().any(|key| !["event", "filters", "name"].contains(&key.as_str())) {
                    bad();
                }
                let name = fields.get("name").map(|name| name.as_str().unwrap_or_else(|| bad()).to_owned());
                let texts = fields.get("event").map(|event| events(event).unwrap_or_else(|| bad()));
                (texts, fields.get("filters").map(|filter| self.filter(filter)), name)
            }
            value => (Some(events(value).unwrap_or_else(|| bad())), None, None),
        };
        let name = name.or_else(|| texts.as_ref().map(|texts| texts.join(" or "))).unwrap_or_default();
        let event = texts.map(|texts| Asked::Predicate(Predicate { column: 0, op: Op::Is, texts }));
        let asked = match (event, filters) {
            (Some(event), None) => event,
            (None, Some(filters)) => filters,
            (Some(event), Some(filters)) => Asked::And(vec![event, filters]),
            (None, None) => bad(),
        };
        (asked, name)
    }

    /// Reads a list of 1 to 32 steps.
    pub fn steps(&mut self, value: &Value) -> Vec<(Asked, String)> {
        let Value::Array(steps) = value else {
            invalid_argument(
                "steps must be a list",
                "For example '[\"product_viewed\", \"order_completed\"]'.",
            )
        };
        if steps.is_empty() || steps.len() > MAX_STEPS {
            invalid_argument(
                format!("a funnel has 1 to {MAX_STEPS} steps, got {}", steps.len()),
                "Leave some out, or join events to one step: [\"a\", \"b\"].",
            );
        }
        steps.iter().map(|step| self.step(step)).collect()
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => refuse("values must be texts, numbers or booleans; NULL is asked for by is_null".to_owned()),
    }
}

impl Asked {
    /// The filter over codes.
    pub fn of_codes(&self, open: &Open) -> Filter {
        match self {
            Self::Predicate(predicate) => {
                Filter::Is(predicate.column, predicate.codes(open.dictionary(predicate.column)))
            }
            Self::Not(asked) => Filter::Not(Box::new(asked.of_codes(open))),
            Self::And(all) => Filter::And(all.iter().map(|asked| asked.of_codes(open)).collect()),
            Self::Or(all) => Filter::Or(all.iter().map(|asked| asked.of_codes(open)).collect()),
        }
    }
}

impl Predicate {
    fn codes(&self, dictionary: &Dictionary) -> CodeSet {
        match self.op {
            Op::Is => self.texts.iter().filter_map(|text| dictionary.find(text)).collect(),
            Op::IsNull => [0].into_iter().collect(),
            Op::Contains => {
                dictionary.codes(|text| self.texts.iter().any(|part| text.contains(part.as_str()))).collect()
            }
            Op::Compare(holds) => {
                let number = |text: &str| text.parse::<f64>().ok();
                let Some(bounds) = self.texts.iter().map(|text| number(text)).collect::<Option<Vec<_>>>()
                else {
                    refuse("a comparison needs numbers".to_owned())
                };
                let of = |text: &str| number(text).is_some_and(|n| bounds.iter().any(|b| holds(n, *b)));
                dictionary.codes(of).collect()
            }
            Op::Matches => {
                if self.texts.iter().any(|pattern| pattern.len() > MAX_PATTERN) {
                    refuse(format!("a pattern has at most {MAX_PATTERN} bytes"));
                }
                matching(dictionary, &self.texts)
            }
        }
    }
}

/// The texts that match a regular expression of Postgres.
fn matching(dictionary: &Dictionary, patterns: &[String]) -> CodeSet {
    let list = |texts: &mut dyn ExactSizeIterator<Item = &str>| {
        let texts = texts.map(|text| Some(args::make_varlena(text.as_bytes())));
        (pg_sys::TEXTARRAYOID, array::make(texts, Element::TEXT))
    };
    let mut codes = vec![];
    let arguments = [list(&mut dictionary.texts()), list(&mut patterns.iter().map(String::as_str))];
    each_row(
        "SELECT t.code::integer FROM pg_catalog.unnest($1) WITH ORDINALITY AS t(value, code)
          WHERE t.value OPERATOR(pg_catalog.~) ANY ($2)",
        &arguments,
        |row| codes.extend(row.int(0).map(|code| code as u32)),
    );
    codes.into_iter().collect()
}

/// The property that a breakdown names.
///
/// # Safety
/// The argument must be a text.
pub unsafe fn breakdown(fcinfo: FunctionCallInfo, index: usize, timeline: &mut Timeline) -> Option<usize> {
    // SAFETY: see above.
    unsafe { args::text(fcinfo, index, "breakdown") }.map(|name| timeline.column(name))
}

/// How many series or rows are told apart, a number of its own for NULL.
///
/// # Safety
/// The argument must be an integer.
pub unsafe fn top(fcinfo: FunctionCallInfo, index: usize, otherwise: i32) -> usize {
    // SAFETY: see above.
    match unsafe { args::int32(fcinfo, index) }.unwrap_or(otherwise) {
        n @ 1..=10_000 => n as usize,
        n => raise_hint(
            INVALID,
            format!("top must be 1 to 10000, got {n}"),
            "It says how many series, or rows, are shown by themselves.",
        ),
    }
}
