//! Sequences: the aggregates `sequence_match`, `sequence_count` and `sequence_next_node`.
//!
//! What a pattern means stands in `tidemark_core::sequence`; the SQL declarations in `sql/sequences.sql`.

use pgrx::pg_sys::{Datum, FunctionCallInfo};
use pgrx::{PgMemoryContexts, PgSqlErrorCode};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::EventLog;
use tidemark_core::sequence::Pattern;
use tidemark_core::sequence::next_node::{Base, Direction, NodeLog, Search};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::conditions::Conditions;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::pg_function;

/// Format of a partial state: version, configuration, events.
const STATE_VERSION: u8 = 1;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

/// The state of `sequence_match` and `sequence_count`. The pattern is kept as text: parsed it would own memory that
/// does not go when the context goes; see [`parsed`].
struct State {
    pattern: AVec<u8, ContextAlloc>,
    conditions: Conditions,
    log: EventLog<ContextAlloc>,
}

fn copy(bytes: &[u8], context: ContextAlloc) -> AVec<u8, ContextAlloc> {
    let mut copy = AVec::with_capacity_in(bytes.len(), context);
    copy.extend_from_slice(bytes);
    copy
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
    // SAFETY: the call site lives in fn_mcxt, which drops the parsed pattern when it goes.
    unsafe {
        let call_site = &mut *(*fcinfo).flinfo;
        let kept = call_site.fn_extra.cast::<Parsed>();
        match kept.as_mut() {
            Some(kept) if kept.text == text && kept.conditions == conditions => &kept.pattern,
            Some(kept) => {
                *kept = parse(text, conditions);
                &kept.pattern
            }
            None => {
                let new = parse(text, conditions);
                let kept = PgMemoryContexts::For(call_site.fn_mcxt).leak_and_drop_on_delete(new);
                call_site.fn_extra = kept.cast();
                &(*kept).pattern
            }
        }
    }
}

fn parse(text: &[u8], conditions: usize) -> Parsed {
    let Ok(pattern) = std::str::from_utf8(text) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "pattern must be UTF-8 text")
    };
    match Pattern::parse(pattern, conditions) {
        Ok(pattern) => Parsed { text: text.to_vec(), conditions, pattern },
        Err(error) => invalid_argument(
            format!("invalid pattern \"{pattern}\": {error}"),
            "A pattern is made of (?N), (?N|M), (?!N), ., .*, (?t<=30m), ? after an event, ^ and $.",
        ),
    }
}

pg_function! {
    /// Transition of `sequence_match` and `sequence_count`: (internal, text, timestamptz, conditions) -> internal.
    fn tidemark_sequence_transition(fcinfo) {
        let context = context(fcinfo);
        let Some(pattern) = args::bytes(fcinfo, 1) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "pattern must not be NULL")
        };
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                if pattern != &state.pattern[..] {
                    raise(INVALID, "pattern must be the same for all rows of a group");
                }
                state
            }
            None => {
                let conditions = Conditions::of_call(fcinfo, 3, 1, "condition");
                parsed(fcinfo, pattern, conditions.count());
                &mut *context.place(State { pattern: copy(pattern, context), conditions, log: EventLog::new_in(context) })
            }
        };
        if let Some(time) = args::event_time(fcinfo, 2) {
            let bits = state.conditions.bits(fcinfo);
            if bits != 0 {
                state.log.push(time, bits);
            }
        }
        give(state)
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_sequence_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(State {
                        pattern: copy(&from.pattern, context),
                        conditions: from.conditions,
                        log: EventLog::new_in(context),
                    }),
                };
                if into.pattern != from.pattern || into.conditions != from.conditions {
                    raise(INVALID, "pattern and number of conditions must be the same for all rows of a group");
                }
                into.log.append(&from.log);
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_sequence_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        state.conditions.encode(&mut w);
        w.bytes(&state.pattern);
        state.log.encode(&mut w);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_sequence_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state = decode(bytes, context).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of a sequence");
        give(context.place(state))
    }
}

fn decode(bytes: &[u8], context: ContextAlloc) -> Result<State, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let conditions = Conditions::decode(&mut r)?;
    let pattern = copy(r.bytes()?, context);
    let log = EventLog::decode_in(&mut r, context)?;
    r.finish()?;
    Ok(State { pattern, conditions, log })
}

pg_function! {
    /// Final function of `sequence_match`: (internal) -> boolean; false without a row.
    fn tidemark_sequence_match_final(fcinfo) {
        context(fcinfo);
        let matches = state::<State>(fcinfo, 0).is_some_and(|state| {
            let pattern = parsed(fcinfo, &state.pattern, state.conditions.count());
            pattern.matches(state.log.sorted(), || { pgrx::check_for_interrupts!(); })
        });
        Datum::from(matches)
    }
}

pg_function! {
    /// Final function of `sequence_count`: (internal) -> bigint; 0 without a row.
    fn tidemark_sequence_count_final(fcinfo) {
        context(fcinfo);
        let count = state::<State>(fcinfo, 0).map_or(0, |state| {
            let pattern = parsed(fcinfo, &state.pattern, state.conditions.count());
            pattern.count(state.log.sorted(), || { pgrx::check_for_interrupts!(); })
        });
        Datum::from(count as i64)
    }
}

/// The state of `sequence_next_node`.
struct NodeState {
    direction: Direction,
    base: Base,
    conditions: Conditions,
    log: NodeLog<ContextAlloc>,
}

/// A text argument that must not be NULL.
///
/// # Safety
/// The argument must be a text.
unsafe fn word<'a>(fcinfo: FunctionCallInfo, index: usize, name: &str) -> &'a str {
    // SAFETY: see above.
    match unsafe { args::text(fcinfo, index, name) } {
        Some(text) => text,
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be NULL")),
    }
}

pg_function! {
    /// Transition of `sequence_next_node`: (internal, direction, base, event_time, value, base_cond, conditions) -> internal.
    fn tidemark_next_node_transition(fcinfo) {
        let context = context(fcinfo);
        let direction: Direction = word(fcinfo, 1, "direction").parse().or_raise(INVALID, "direction");
        let base: Base = word(fcinfo, 2, "base").parse().or_raise(INVALID, "base");
        let state = match state::<NodeState>(fcinfo, 0) {
            Some(state) => {
                if (state.direction, state.base) != (direction, base) {
                    raise(INVALID, "direction and base must be the same for all rows of a group");
                }
                state
            }
            None => {
                let conditions = Conditions::of_call(fcinfo, 6, 0, "condition");
                if let Err(error) = Search::new(direction, base, conditions.count()) {
                    raise_hint(INVALID, error.to_string(),
                        "Go forward from head, backward from tail, or from first_match or last_match either way.");
                }
                &mut *context.place(NodeState { direction, base, conditions, log: NodeLog::new_in(context) })
            }
        };
        if let (Some(time), Some(value)) = (args::event_time(fcinfo, 3), args::bytes(fcinfo, 4)) {
            let bits = state.conditions.bits(fcinfo);
            state.log.push(time, value, args::is_true(fcinfo, 5), bits);
        }
        give(state)
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_next_node_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<NodeState>(fcinfo, 0), state::<NodeState>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(NodeState { log: NodeLog::new_in(context), ..*from }),
                };
                if (into.direction, into.base, into.conditions) != (from.direction, from.base, from.conditions) {
                    raise(INVALID, "direction, base and number of conditions must be the same for all rows of a group");
                }
                into.log.append(&from.log);
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_next_node_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<NodeState>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut log = AVec::new_in(ContextAlloc::current());
        state.log.encode(&mut log);
        let mut bytes = AVec::with_capacity_in(log.len() + 16, ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        w.u8(match state.direction { Direction::Forward => 0, Direction::Backward => 1 });
        w.u8(match state.base { Base::Head => 0, Base::Tail => 1, Base::FirstMatch => 2, Base::LastMatch => 3 });
        state.conditions.encode(&mut w);
        w.bytes(&log);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_next_node_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state = decode_nodes(bytes, context)
            .or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of sequence_next_node");
        give(context.place(state))
    }
}

fn decode_nodes(bytes: &[u8], context: ContextAlloc) -> Result<NodeState, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
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
    let conditions = Conditions::decode(&mut r)?;
    let log = NodeLog::decode_in(r.bytes()?, context)?;
    r.finish()?;
    Ok(NodeState { direction, base, conditions, log })
}

pg_function! {
    /// Final function of `sequence_next_node`: (internal) -> text; NULL without an answer.
    fn tidemark_next_node_final(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<NodeState>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let search = Search::new(state.direction, state.base, state.conditions.count()).or_raise(INVALID, "sequence_next_node");
        match state.log.next_node(search) {
            Some(value) => args::make_varlena(value),
            None => args::return_null(fcinfo),
        }
    }
}
