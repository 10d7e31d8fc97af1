//! Sessions: the aggregates `sessions` and `session_count`, the window functions `sessionize` and `session_number`,
//! and `session_id`.
//!
//! What a session is stands in `tidemark_core::session`; the SQL declarations in `sql/sessions.sql`.

use std::ffi::{c_int, c_void};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::session::{OutOfOrder, Sessionizer, Sessions};
use uuid::Uuid;

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::interval::fixed_microseconds;
use crate::support::pg_function;

static DEFAULT_GAP: pg_sys::Interval = pg_sys::Interval { time: 30 * 60 * 1_000_000, day: 0, month: 0 };

/// Namespace of [`tidemark_session_id`]: the UUIDv5 of the name `tidemark:session` in the URL namespace.
const SESSION_NAMESPACE: &[u8] = b"tidemark:session";

/// The state of `sessions` and `session_count`, and the gap as it was written, to notice when it changes.
struct State {
    gap: pg_sys::Interval,
    sessions: Sessions<ContextAlloc>,
}

fn same_interval(a: &pg_sys::Interval, b: &pg_sys::Interval) -> bool {
    a.time == b.time && a.day == b.day && a.month == b.month
}

/// The gap argument, or the default in the form without one.
///
/// # Safety
/// Argument `index`, if there is one, must be an interval.
unsafe fn gap<'a>(fcinfo: FunctionCallInfo, index: usize) -> &'a pg_sys::Interval {
    // SAFETY: see above.
    unsafe {
        if args::count(fcinfo) <= index {
            return &DEFAULT_GAP;
        }
        match args::interval(fcinfo, index) {
            Some(gap) => gap,
            None => raise_hint(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "gap must not be NULL",
                "Leave the argument out to get 30 minutes.",
            ),
        }
    }
}

pg_function! {
    /// Transition function of `sessions` and `session_count`: (internal, timestamptz [, interval]) -> internal.
    fn tidemark_sessions_transition(fcinfo) {
        let context = context(fcinfo);
        let state = state::<State>(fcinfo, 0);
        let gap = gap(fcinfo, 2);
        let Some(time) = args::event_time(fcinfo, 1) else {
            return match state {
                Some(state) => give(state),
                None => give_none(fcinfo),
            };
        };
        match state {
            Some(state) => {
                if !same_interval(&state.gap, gap) {
                    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "gap must be the same for all rows of a group");
                }
                state.sessions.push(time);
                give(state)
            }
            None => {
                let mut sessions = Sessions::new_in(fixed_microseconds(gap, "gap"), context);
                sessions.push(time);
                give(context.place(State { gap: *gap, sessions }))
            }
        }
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_sessions_combine(fcinfo) {
        let context = context(fcinfo);
        let (into, from) = (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1));
        match (into, from) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => {
                        let sessions = Sessions::new_in(from.sessions.gap(), context);
                        &mut *context.place(State { gap: from.gap, sessions })
                    }
                };
                into.sessions
                    .merge(&from.sessions)
                    .or_raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "gap must be the same for all rows of a group");
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_sessions_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        for part in [i64::from(state.gap.day), state.gap.time] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        state.sessions.encode(&mut bytes);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_sessions_deserialize(fcinfo) {
        context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        // In the short-lived context: the combine function copies what it keeps.
        let context = ContextAlloc::current();
        let state = decode(bytes, context).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of sessions");
        give(context.place(state))
    }
}

fn decode(bytes: &[u8], context: ContextAlloc) -> Result<State, tidemark_core::codec::DecodeError> {
    use tidemark_core::codec::DecodeError;
    let (day, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    let (time, rest) = rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    let day =
        i32::try_from(i64::from_le_bytes(*day)).map_err(|_| DecodeError::Malformed("gap is out of range"))?;
    let gap = pg_sys::Interval { time: i64::from_le_bytes(*time), day, month: 0 };
    Ok(State { gap, sessions: Sessions::decode_in(rest, context)? })
}

pg_function! {
    /// Final function of `session_count`: (internal) -> bigint; 0 without a row.
    fn tidemark_session_count_final(fcinfo) {
        context(fcinfo);
        let count = state::<State>(fcinfo, 0).map_or(0, |state| state.sessions.finish().len());
        Datum::from(count as i64)
    }
}

pg_function! {
    /// Final function of `sessions`: (internal) -> tidemark.session[]; an empty array without a row.
    fn tidemark_sessions_final(fcinfo) {
        context(fcinfo);
        let element = session_type(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else {
            return Datum::from(pg_sys::construct_empty_array(element));
        };
        let sessions = state.sessions.finish();
        if sessions.len() > 1_000_000 {
            // A composite takes about 60 bytes; far beyond this the array would pass Postgres' limit of 1 GB.
            raise_hint(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("{} sessions in one group do not fit into an array", sessions.len()),
                "Group by person, or count them with session_count.",
            );
        }
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(element, -1);
        let mut datums = AVec::with_capacity_in(sessions.len(), ContextAlloc::current());
        for session in sessions {
            let mut values = [
                Datum::from(session.started_at),
                Datum::from(session.ended_at),
                Datum::from(session.events),
            ];
            let mut nulls = [false; 3];
            let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            datums.push(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data));
        }
        let array = pg_sys::construct_array(datums.as_mut_ptr(), datums.len() as c_int, element, -1, false, b'd' as _);
        Datum::from(array)
    }
}

/// The type `tidemark.session`, from the declared result type of the final function: works in any schema search path
/// and without an expression tree (as under Citus).
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
unsafe fn session_type(fcinfo: FunctionCallInfo) -> pg_sys::Oid {
    // SAFETY: the function is being called, so its catalog row exists.
    unsafe { pg_sys::get_element_type(pg_sys::get_func_rettype((*(*fcinfo).flinfo).fn_oid)) }
}

// windowapi.h is not among pgrx's bindings; both functions have kept these signatures since PostgreSQL 8.4.
unsafe extern "C-unwind" {
    fn WinGetPartitionLocalMemory(window: *mut c_void, size: usize) -> *mut c_void;
    fn WinGetFuncArgCurrent(window: *mut c_void, index: c_int, is_null: *mut bool) -> Datum;
}

/// What `sessionize` and `session_number` remember of a window partition. All-zero bytes are the start.
#[repr(C)]
struct WindowState {
    begun: bool,
    gap: pg_sys::Interval,
    gap_microseconds: i64,
    sessionizer: Sessionizer,
}

/// Advances the window by one row: start and number of its session, `None` for a row without event time.
///
/// # Safety
/// `fcinfo` must be the frame of a window function with the arguments (timestamptz, interval [, boolean]).
unsafe fn advance(fcinfo: FunctionCallInfo) -> Option<(i64, i64)> {
    // SAFETY: Postgres evaluates the arguments of the current row; an error in them must not jump over Rust frames,
    // hence the guard. The memory lives as long as the partition and starts zeroed.
    unsafe {
        let window = (*fcinfo).context.cast::<c_void>();
        let arguments = args::count(fcinfo);
        let (state, time, gap, cut) = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let state = WinGetPartitionLocalMemory(window, size_of::<WindowState>()).cast::<WindowState>();
            let mut is_null = false;
            let time = WinGetFuncArgCurrent(window, 0, &mut is_null);
            let time = if is_null { None } else { Some(time.value() as i64) };
            let gap = if arguments > 1 {
                let gap = WinGetFuncArgCurrent(window, 1, &mut is_null);
                if is_null { std::ptr::null() } else { gap.cast_mut_ptr::<pg_sys::Interval>().cast_const() }
            } else {
                &raw const DEFAULT_GAP
            };
            let cut = arguments > 2 && {
                let cut = WinGetFuncArgCurrent(window, 2, &mut is_null);
                !is_null && cut.value() as u8 != 0
            };
            (state, time, gap, cut)
        });
        let state = &mut *state;
        let Some(gap) = gap.as_ref() else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "gap must not be NULL")
        };
        if !state.begun {
            *state = WindowState {
                begun: true,
                gap: *gap,
                gap_microseconds: fixed_microseconds(gap, "gap"),
                sessionizer: Sessionizer::new(),
            };
        } else if !same_interval(&state.gap, gap) {
            raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "gap must be the same for all rows of a window partition",
            );
        }
        if let Some(i64::MIN | i64::MAX) = time {
            raise(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "event_time must be finite");
        }
        match state.sessionizer.next(time, state.gap_microseconds, cut) {
            Ok(started_at) => started_at.map(|started_at| (started_at, state.sessionizer.number())),
            Err(OutOfOrder) => invalid_argument(
                "event_time must not go back within a window partition",
                "Write OVER (PARTITION BY person ORDER BY event_time).",
            ),
        }
    }
}

pg_function! {
    /// Window function `sessionize`: the start of the session that the row belongs to.
    fn tidemark_sessionize(fcinfo) {
        match advance(fcinfo) {
            Some((started_at, _)) => Datum::from(started_at),
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// Window function `session_number`: 1 for the first session of the window partition, then 2, 3 ...
    fn tidemark_session_number(fcinfo) {
        match advance(fcinfo) {
            Some((_, number)) => Datum::from(number),
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// `session_id(person text, started_at timestamptz) -> uuid`, strict.
    fn tidemark_session_id(fcinfo) {
        let (Some(person), Some(started_at)) = (args::bytes(fcinfo, 0), args::timestamp(fcinfo, 1)) else {
            return args::return_null(fcinfo);
        };
        let id = session_id(person, started_at);
        let place = ContextAlloc::current().place(*id.as_bytes());
        Datum::from(place)
    }
}

/// UUIDv5 (RFC 9562) of `<person>|<microseconds since 1970-01-01 UTC>`, so that any language can compute it.
fn session_id(person: &[u8], started_at: i64) -> Uuid {
    const MICROSECONDS_1970_TO_2000: i128 = 946_684_800_000_000;
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, SESSION_NAMESPACE);
    let since_1970 = i128::from(started_at) + MICROSECONDS_1970_TO_2000;
    let mut name = Vec::with_capacity(person.len() + 24);
    name.extend_from_slice(person);
    name.push(b'|');
    name.extend_from_slice(since_1970.to_string().as_bytes());
    Uuid::new_v5(&namespace, &name)
}
