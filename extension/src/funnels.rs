//! Funnels: the aggregate `window_funnel`.
//!
//! What a level means stands in `tidemark_core::funnel`; the SQL declarations in `sql/funnels.sql`.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::{EventLog, MAX_CONDITIONS};
use tidemark_core::funnel::{WindowMode, window_funnel};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::interval::fixed_microseconds;
use crate::support::pg_function;

/// Format of a partial state: version, configuration, events.
const STATE_VERSION: u8 = 1;

/// What must be the same for all rows of a group and travels with every partial state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Config {
    window: i64,
    mode: WindowMode,
    steps: usize,
}

struct State {
    config: Config,
    /// The window and mode as they were written, to notice cheaply when a row brings others.
    window_written: pg_sys::Interval,
    mode_written: AVec<u8, ContextAlloc>,
    /// Whether the steps come as one array (`VARIADIC array`) instead of one argument each.
    as_array: bool,
    log: EventLog<ContextAlloc>,
}

/// Where the arguments of a transition call stand: (internal, win, [mode,] event_time, steps...).
#[derive(Clone, Copy)]
struct Layout {
    mode: Option<usize>,
    time: usize,
    steps: usize,
}

const WITHOUT_MODE: Layout = Layout { mode: None, time: 2, steps: 3 };
const WITH_MODE: Layout = Layout { mode: Some(2), time: 3, steps: 4 };

/// The conditions of a row as bits; NULL counts as false.
///
/// # Safety
/// The step arguments must be booleans, or one array of booleans.
#[inline]
unsafe fn conditions(fcinfo: FunctionCallInfo, layout: Layout, state: &State) -> u32 {
    // SAFETY: checked when the state was made.
    unsafe {
        if state.as_array {
            return array_conditions(fcinfo, layout, state.config.steps);
        }
        let mut bits = 0;
        for step in 0..state.config.steps {
            bits |= u32::from(args::is_true(fcinfo, layout.steps + step)) << step;
        }
        bits
    }
}

/// The conditions of a row given as `VARIADIC array`.
///
/// # Safety
/// The argument must be a boolean[].
unsafe fn array_conditions(fcinfo: FunctionCallInfo, layout: Layout, steps: usize) -> u32 {
    use pgrx::FromDatum;
    // SAFETY: see above.
    let array = unsafe {
        args::datum(fcinfo, layout.steps)
            .and_then(|d| pgrx::Array::<bool>::from_polymorphic_datum(d, false, pg_sys::BOOLARRAYOID))
    };
    let Some(array) = array else {
        invalid_argument("steps must not be NULL", "Pass at least one boolean condition.");
    };
    if array.len() != steps {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the number of steps must be the same for all rows of a group",
        );
    }
    array
        .iter()
        .enumerate()
        .fold(0, |bits, (step, condition)| bits | u32::from(condition.unwrap_or(false)) << step)
}

/// Reads and checks what is constant in a group, at its first row.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
unsafe fn begin(fcinfo: FunctionCallInfo, layout: Layout, context: ContextAlloc) -> State {
    // SAFETY: see above.
    unsafe {
        let Some(window) = args::interval(fcinfo, 1) else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "win must not be NULL")
        };
        let mode = match layout.mode.map(|index| args::text(fcinfo, index, "mode")) {
            None => "",
            Some(Some(mode)) => mode,
            Some(None) => raise_hint(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "mode must not be NULL",
                "Leave the argument out for the default mode.",
            ),
        };
        let as_array = pg_sys::get_fn_expr_variadic((*fcinfo).flinfo);
        let steps = count_steps(fcinfo, layout, as_array);
        if steps == 0 || steps > MAX_CONDITIONS {
            invalid_argument(
                format!("steps must be 1 to {MAX_CONDITIONS} conditions, not {steps}"),
                "Merge or leave out steps.",
            );
        }
        let config = Config {
            window: fixed_microseconds(window, "win"),
            mode: WindowMode::parse(mode).or_raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "mode"),
            steps,
        };
        let mut mode_written = AVec::new_in(context);
        mode_written.extend_from_slice(mode.as_bytes());
        State { config, window_written: *window, mode_written, as_array, log: EventLog::new_in(context) }
    }
}

/// How many steps the call has, after checking that all are boolean.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
unsafe fn count_steps(fcinfo: FunctionCallInfo, layout: Layout, as_array: bool) -> usize {
    use pgrx::FromDatum;
    // SAFETY: the type of each argument is checked before its value is read.
    unsafe {
        let given = args::count(fcinfo).saturating_sub(layout.steps);
        let expected = if as_array { pg_sys::BOOLARRAYOID } else { pg_sys::BOOLOID };
        for step in 0..given {
            let actual = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, (layout.steps + step) as i32);
            if actual != expected {
                raise_hint(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!("step {} must be boolean, not {}", step + 1, type_name(actual)),
                    "Write a condition, for example event_type = 'purchase_completed'.",
                );
            }
        }
        if !as_array {
            return given;
        }
        args::datum(fcinfo, layout.steps)
            .and_then(|d| pgrx::Array::<bool>::from_polymorphic_datum(d, false, pg_sys::BOOLARRAYOID))
            .map_or(0, |array| array.len())
    }
}

fn type_name(oid: Oid) -> String {
    if oid == Oid::INVALID {
        return "of unknown type".to_owned();
    }
    // SAFETY: returns a palloc'd C string for any oid.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() }
}

/// Shared body of the two transition functions.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
#[inline]
unsafe fn transition(fcinfo: FunctionCallInfo, layout: Layout) -> Datum {
    // SAFETY: see above.
    unsafe {
        let context = context(fcinfo);
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                let same_window = args::interval(fcinfo, 1).is_some_and(|w| {
                    let v = &state.window_written;
                    (w.time, w.day, w.month) == (v.time, v.day, v.month)
                });
                if !same_window {
                    raise(
                        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                        "win must be the same for all rows of a group",
                    );
                }
                if let Some(index) = layout.mode
                    && args::bytes(fcinfo, index) != Some(&state.mode_written[..])
                {
                    raise(
                        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                        "mode must be the same for all rows of a group",
                    );
                }
                state
            }
            None => &mut *context.place(begin(fcinfo, layout, context)),
        };
        if let Some(time) = args::event_time(fcinfo, layout.time) {
            let conditions = conditions(fcinfo, layout, state);
            if conditions != 0 || state.config.mode.needs_unmatched_rows() {
                state.log.push(time, conditions);
            }
        }
        give(state)
    }
}

pg_function! {
    /// Transition of `window_funnel(win, event_time, VARIADIC steps)`.
    fn tidemark_window_funnel_transition(fcinfo) { transition(fcinfo, WITHOUT_MODE) }
}

pg_function! {
    /// Transition of `window_funnel(win, mode, event_time, VARIADIC steps)`.
    fn tidemark_window_funnel_mode_transition(fcinfo) { transition(fcinfo, WITH_MODE) }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_window_funnel_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(State {
                        config: from.config,
                        window_written: from.window_written,
                        mode_written: copy(&from.mode_written, context),
                        as_array: from.as_array,
                        log: EventLog::new_in(context),
                    }),
                };
                if into.config != from.config {
                    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "win, mode and steps must be the same for all rows of a group");
                }
                into.log.append(&from.log);
                give(into)
            }
        }
    }
}

fn copy(bytes: &[u8], context: ContextAlloc) -> AVec<u8, ContextAlloc> {
    let mut copy = AVec::with_capacity_in(bytes.len(), context);
    copy.extend_from_slice(bytes);
    copy
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_window_funnel_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        w.u8(state.config.steps as u8);
        w.u8(u8::from(state.as_array));
        w.i64(i64::from(state.window_written.day));
        w.i64(state.window_written.time);
        w.bytes(&state.mode_written);
        state.log.encode(&mut w);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_window_funnel_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state = decode(bytes, context).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of window_funnel");
        give(context.place(state))
    }
}

fn decode(bytes: &[u8], context: ContextAlloc) -> Result<State, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let steps = usize::from(r.u8()?);
    if !(1..=MAX_CONDITIONS).contains(&steps) {
        return Err(DecodeError::Malformed("number of steps is out of range"));
    }
    let as_array = r.u8()? != 0;
    let day = i32::try_from(r.i64()?).map_err(|_| DecodeError::Malformed("window is out of range"))?;
    let window_written = pg_sys::Interval { time: r.i64()?, day, month: 0 };
    let mode_written = copy(r.bytes()?, context);
    let mode = std::str::from_utf8(&mode_written)
        .ok()
        .and_then(|mode| WindowMode::parse(mode).ok())
        .ok_or(DecodeError::Malformed("mode is not known"))?;
    let log = EventLog::decode_in(&mut r, context)?;
    r.finish()?;
    let config = Config { window: fixed_microseconds(&window_written, "win"), mode, steps };
    Ok(State { config, window_written, mode_written, as_array, log })
}

pg_function! {
    /// Final function: (internal) -> integer; 0 without a row.
    fn tidemark_window_funnel_final(fcinfo) {
        context(fcinfo);
        let level = state::<State>(fcinfo, 0).map_or(0, |state| {
            let Config { window, mode, steps } = state.config;
            window_funnel(state.log.sorted(), steps, window, mode)
        });
        Datum::from(level as i32)
    }
}
