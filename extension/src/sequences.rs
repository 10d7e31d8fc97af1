//! Sequences: the aggregates `sequence_match`, `sequence_count` and `sequence_next_node`.
//!
//! What a pattern means stands in `tidemark_core::sequence`; the SQL declarations in `sql/sequences.sql`.

use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::EventLog;
use tidemark_core::sequence::next_node::{Base, Direction, NodeLog, Search};
use tidemark_core::sequence::{MAX_PATTERN, Pattern};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::call_site::CallSite;
use crate::support::conditions::Conditions;
use crate::support::error::{INVALID, OrRaise, check_same, invalid_argument, not_null, raise_hint, shown};
use crate::support::interrupts::Interrupts;

/// The state of `sequence_match` and `sequence_count`. The pattern is kept as text: parsed it would own memory that
/// does not go when the context goes; see [`parsed`].
struct Events {
    pattern: AVec<u8, ContextAlloc>,
    conditions: Conditions,
    log: EventLog<ContextAlloc>,
}

impl Events {
    fn new(pattern: &[u8], conditions: Conditions, context: ContextAlloc) -> Self {
        let mut copy = AVec::with_capacity_in(pattern.len(), context);
        copy.extend_from_slice(pattern);
        Self { pattern: copy, conditions, log: EventLog::new_in(context) }
    }
}

impl State for Events {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new(&self.pattern, self.conditions, context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.pattern == other.pattern, "pattern");
        self.conditions.check_same(other.conditions.count());
        self.log.append(&other.log, Interrupts);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.conditions.encode(w);
        w.bytes(&self.pattern);
        self.log.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let conditions = Conditions::decode(r)?;
        let state = Self::new(r.bytes()?, conditions, context);
        Ok(Self { log: EventLog::decode_in(r, context, Interrupts)?, ..state })
    }
}

aggregate! {
    sequence: Events {
        /// `sequence_match` and `sequence_count`: (internal, pattern, event_time, VARIADIC conditions).
        transition tidemark_sequence_transition = add;
        /// `sequence_match`: boolean, false without a row.
        final tidemark_sequence_match_final = |events: Option<&mut Events>, fcinfo| {
            Some(Datum::from(events.is_some_and(|events| {
                let pattern = parsed(fcinfo, &events.pattern, events.conditions.count());
                pattern.matches(events.log.sorted(Interrupts), ContextAlloc::current(), Interrupts)
            })))
        };
        /// `sequence_count`: bigint, 0 without a row.
        final tidemark_sequence_count_final = |events: Option<&mut Events>, fcinfo| {
            Some(Datum::from(events.map_or(0, |events| {
                let pattern = parsed(fcinfo, &events.pattern, events.conditions.count());
                pattern.count(events.log.sorted(Interrupts), ContextAlloc::current(), Interrupts)
            }) as i64))
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add(slot: &mut Slot<Events>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let pattern = not_null(args::bytes(fcinfo, 1), "pattern");
        let events = slot.get_or_place(|context| {
            let conditions = Conditions::of_call(fcinfo, 3, 1, "condition");
            parsed(fcinfo, pattern, conditions.count());
            Events::new(pattern, conditions, context)
        });
        if pattern != &events.pattern[..] {
            parsed(fcinfo, pattern, events.conditions.count());
            check_same(false, "pattern");
        }
        if let Some(time) = args::event_time(fcinfo, 2) {
            let bits = events.conditions.bits(fcinfo);
            if bits != 0 {
                events.log.push(time, bits);
            }
        }
    }
}

/// A parsed pattern and what it was parsed from.
struct Parsed {
    text: Vec<u8>,
    conditions: usize,
    pattern: Pattern,
}

/// The parsed pattern, kept with the call site: a query with a million groups parses it once.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed, of a function that keeps nothing else with its call site.
unsafe fn parsed<'a>(fcinfo: FunctionCallInfo, text: &[u8], conditions: usize) -> &'a Pattern {
    // SAFETY: see above.
    let site = unsafe { CallSite::of(fcinfo) };
    // SAFETY: see above.
    match unsafe { site.kept::<Parsed>() } {
        Some(kept) if kept.text == text && kept.conditions == conditions => &kept.pattern,
        Some(kept) => {
            *kept = parse(text, conditions);
            &kept.pattern
        }
        // SAFETY: see above.
        None => unsafe { &site.keep(parse(text, conditions)).pattern },
    }
}

fn parse(text: &[u8], conditions: usize) -> Parsed {
    // A longer one is refused by its length alone; the message need not repeat it.
    let pattern = if text.len() > MAX_PATTERN {
        invalid_argument(
            format!("pattern must have at most {MAX_PATTERN} bytes, not {}", text.len()),
            "Write rows that may be skipped as .*, and alternatives as (?1|2).",
        )
    } else {
        args::utf8(text, "pattern")
    };
    match Pattern::parse(pattern, conditions) {
        Ok(pattern) => Parsed { text: text.to_vec(), conditions, pattern },
        Err(error) => invalid_argument(
            format!("invalid pattern \"{}\": {error}", shown(pattern)),
            "A pattern is made of (?N), (?N|M), (?!N), ., .*, (?t<=30m), ? after an event, ^ and $.",
        ),
    }
}

/// The state of `sequence_next_node`.
struct Nodes {
    direction: Direction,
    base: Base,
    conditions: Conditions,
    log: NodeLog<ContextAlloc>,
}

/// What to look for, or an ERROR for a combination that makes no sense.
fn search(direction: Direction, base: Base, conditions: Conditions) -> Search {
    match Search::new(direction, base, conditions.count()) {
        Ok(search) => search,
        Err(error) => raise_hint(
            INVALID,
            error.to_string(),
            "Go forward from head, backward from tail, or from first_match or last_match either way.",
        ),
    }
}

impl State for Nodes {
    fn like(&self, context: ContextAlloc) -> Self {
        Self { log: NodeLog::new_in(context), ..*self }
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same((self.direction, self.base) == (other.direction, other.base), "direction and base");
        self.conditions.check_same(other.conditions.count());
        self.log.append(&other.log, Interrupts);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        w.u8(match self.direction {
            Direction::Forward => 0,
            Direction::Backward => 1,
        });
        w.u8(match self.base {
            Base::Head => 0,
            Base::Tail => 1,
            Base::FirstMatch => 2,
            Base::LastMatch => 3,
        });
        self.conditions.encode(w);
        self.log.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let direction = match r.u8()? {
            0 => Direction::Forward,
            1 => Direction::Backward,
            _ => return Err(DecodeError::Malformed("direction is not known")),
        };
        let base = match r.u8()? {
            0 => Base::Head,
            1 => Base::Tail,
            2 => Base::FirstMatch,
            3 => Base::LastMatch,
            _ => return Err(DecodeError::Malformed("base is not known")),
        };
        Ok(Self {
            direction,
            base,
            conditions: Conditions::decode(r)?,
            log: NodeLog::decode_in(r, context, Interrupts)?,
        })
    }
}

aggregate! {
    next_node: Nodes {
        /// (internal, direction, base, event_time, value, base_cond, VARIADIC conditions)
        transition tidemark_next_node_transition = add_node;
        /// text, NULL without an answer.
        final tidemark_next_node_final = |nodes: Option<&mut Nodes>, _| {
            let nodes = nodes?;
            let search = search(nodes.direction, nodes.base, nodes.conditions);
            nodes.log.next_node(search, Interrupts).map(args::make_varlena)
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add_node(slot: &mut Slot<Nodes>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let direction = args::word(not_null(args::bytes(fcinfo, 1), "direction"), "direction");
        let direction: Direction = direction.parse().or_raise(INVALID, "direction");
        let base = args::word(not_null(args::bytes(fcinfo, 2), "base"), "base");
        let base: Base = base.parse().or_raise(INVALID, "base");
        let nodes = slot.get_or_place(|context| {
            let conditions = Conditions::of_call(fcinfo, 6, 0, "condition");
            search(direction, base, conditions);
            Nodes { direction, base, conditions, log: NodeLog::new_in(context) }
        });
        if (nodes.direction, nodes.base) != (direction, base) {
            search(direction, base, nodes.conditions);
            check_same(false, "direction and base");
        }
        if let (Some(time), Some(value)) = (args::event_time(fcinfo, 3), args::bytes(fcinfo, 4)) {
            let bits = nodes.conditions.bits(fcinfo);
            nodes.log.push(time, value, args::is_true(fcinfo, 5), bits);
        }
    }
}
