//! From a pattern as written to the edges that `run` advances.
//!
//! Row items consume one row each, so a match is a chain of rows joined by gaps. An edge is one gap together with the
//! item it leads to. Optional items add edges that leap over them; that keeps "with or without the item" exact without
//! expanding the pattern 2^n times.

use super::parse::{Element, Gate, Syntax, position};
use super::{PatternError, Problem};

/// More than any written pattern needs, and few enough that a row costs microseconds at worst.
const MAX_ELEMENTS: usize = 4096;

/// What advances over rows inside a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Star,
    Gate(Gate),
}

/// A gap and the item behind it. Node 0 is the start of the search, node `i` the row of item `i - 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: usize,
    /// The node reached.
    pub(super) to: usize,
    /// The row must have one of these conditions.
    pub(super) mask: u32,
    pub(super) ops: Vec<Op>,
    /// No skipped row may have one of these.
    pub(super) forbidden: u32,
}

/// How a match may end behind a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finish {
    /// At once.
    Here,
    /// If the node's row is the last one.
    AtLastRow,
    /// If no later row has one of the forbidden conditions: no row at all, or none that the gate reaches.
    Never { forbidden: u32, within: Option<Gate> },
    /// Where these operations arrive. Never empty.
    After(Vec<Op>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Final {
    pub(super) from: usize,
    pub(super) finish: Finish,
}

/// A pattern ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Row items plus the start.
    pub(super) nodes: usize,
    /// In descending order of `to`.
    pub(super) edges: Vec<Edge>,
    pub(super) finals: Vec<Final>,
    /// Only the first row may start a match.
    pub(super) anchored_start: bool,
    /// A match takes all rows up to the last.
    pub(super) anchored_end: bool,
}

pub(super) fn lower(text: &str, syntax: &Syntax) -> Result<Program, PatternError> {
    let items = &syntax.items;
    let mut program = Program {
        nodes: items.len() + 1,
        edges: vec![],
        finals: vec![],
        anchored_start: syntax.anchored_start,
        anchored_end: syntax.anchored_end,
    };
    let mut elements = 0;
    for to in (0..=items.len()).rev() {
        let mut gap = items.get(to).map_or(&syntax.tail, |item| &item.gap).clone();
        // Walk back over optional items: each one skipped puts what is left of its own gap in front.
        for from in (0..=to).rev() {
            if from == 0 && !syntax.anchored_start {
                gap.insert(0, Element::Star);
            }
            elements += gap.len() + 1;
            if elements > MAX_ELEMENTS {
                let problem = Problem::TooComplex { limit: MAX_ELEMENTS };
                return Err(PatternError { position: 1, problem });
            }
            let (ops, forbidden) = split(&gap);
            match items.get(to) {
                Some(item) => program.edges.push(Edge {
                    from,
                    to: to + 1,
                    mask: item.mask,
                    ops: if ops.is_empty() && forbidden != 0 { vec![Op::Star] } else { ops },
                    forbidden,
                }),
                None => {
                    let finish = finish(ops, forbidden, from == 0, text, syntax)?;
                    program.finals.push(Final { from, finish });
                }
            }
            let Some(skipped) = from.checked_sub(1).and_then(|i| items.get(i)).filter(|i| i.optional) else {
                break;
            };
            let kept = skipped.gap.iter().rposition(|e| *e == Element::Star).map_or(0, |i| i + 1);
            gap.splice(0..0, skipped.gap.iter().take(kept).copied());
        }
    }
    Ok(program)
}

/// A gap's stars and gates in order, neighbouring stars as one, and the union of its negations.
fn split(gap: &[Element]) -> (Vec<Op>, u32) {
    let mut ops: Vec<Op> = Vec::with_capacity(gap.len());
    let mut forbidden = 0;
    for element in gap {
        match *element {
            Element::Star if ops.last() == Some(&Op::Star) => {}
            Element::Star => ops.push(Op::Star),
            Element::Gate(gate) => ops.push(Op::Gate(gate)),
            Element::Not(mask) => forbidden |= mask,
        }
    }
    (ops, forbidden)
}

fn finish(
    ops: Vec<Op>,
    forbidden: u32,
    from_start: bool,
    text: &str,
    syntax: &Syntax,
) -> Result<Finish, PatternError> {
    let error =
        |what| PatternError { position: position(text, syntax.tail_start), problem: Problem::Expected(what) };
    if forbidden != 0 {
        return match ops.as_slice() {
            [] | [Op::Star] => Ok(Finish::Never { forbidden, within: None }),
            &[Op::Gate(gate)] if gate.is_upper_limit() && !from_start && !syntax.anchored_end => {
                Ok(Finish::Never { forbidden, within: Some(gate) })
            }
            _ => Err(error("no gate but one (?t<=n) or (?t<n) beside a negation that ends the pattern")),
        };
    }
    match (syntax.anchored_end, ops.last()) {
        (true, Some(Op::Gate(_))) => Err(error("a row item or .* between a time gate and $")),
        (true, None) => Ok(Finish::AtLastRow),
        (false, None) => Ok(Finish::Here),
        (_, Some(_)) => Ok(Finish::After(ops)),
    }
}
