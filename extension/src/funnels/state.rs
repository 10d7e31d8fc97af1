//! The state of `window_funnel` and `funnel`: events, and what all rows of a group must agree on.
//!
//! Most queries have many small groups and one configuration. It is read once per query and kept with the call site
//! (`fn_extra`); the state of a group is its events and a pointer. A group whose configuration is another one owns it.

use std::ptr::NonNull;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::{EventLog, MAX_CONDITIONS};
use tidemark_core::funnel::{Funnel, Mode, WindowMode};

use super::names::Names;
use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::conditions::Conditions;
use crate::support::error::{OrRaise, raise, raise_hint};
use crate::support::interval::fixed_microseconds;

/// Format of a partial state: version, configuration, events.
const STATE_VERSION: u8 = 1;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

/// Which of the two questions an aggregate asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `window_funnel`: ClickHouse's level.
    Level,
    /// `funnel`: the times of the deepest chain.
    Chain,
}

/// Where the arguments of a transition call stand: (internal, win, [mode,] event_time, steps...).
#[derive(Clone, Copy)]
pub struct Layout {
    kind: Kind,
    mode: Option<usize>,
    time: usize,
    /// The first condition, or the event's name, behind which an array of the steps' names follows.
    steps: usize,
    by_name: bool,
}

impl Layout {
    /// The arguments of a form that takes conditions.
    pub const fn conditions(kind: Kind, with_mode: bool) -> Self {
        let (mode, time) = if with_mode { (Some(2), 3) } else { (None, 2) };
        Self { kind, mode, time, steps: time + 1, by_name: false }
    }

    /// The arguments of a form that takes the event's name and the names of the steps.
    pub const fn names(kind: Kind, with_mode: bool) -> Self {
        Self { by_name: true, ..Self::conditions(kind, with_mode) }
    }
}

/// The mode, read for the question it belongs to.
#[derive(Clone)]
pub enum Question {
    /// For `window_funnel`: mode, number of conditions, window in microseconds.
    Level(WindowMode, usize, i64),
    /// For `funnel`.
    Chain(Funnel),
}

impl Question {
    fn new(kind: Kind, mode: &str, conditions: usize, window: i64) -> Result<Self, String> {
        match kind {
            Kind::Level => {
                let mode = WindowMode::parse(mode).map_err(|error| error.to_string())?;
                Ok(Self::Level(mode, conditions, window))
            }
            Kind::Chain => Mode::parse(mode)
                .and_then(|mode| Funnel::new(mode, conditions, window))
                .map(Self::Chain)
                .map_err(|error| error.to_string()),
        }
    }

    fn needs_unmatched_rows(&self) -> bool {
        match self {
            Self::Level(mode, ..) => mode.needs_unmatched_rows(),
            Self::Chain(funnel) => funnel.needs_unmatched_rows(),
        }
    }
}

/// How the conditions of a row are found.
#[derive(Clone)]
enum Source {
    Conditions(Conditions),
    Names(Names<ContextAlloc>),
    /// In a state that was sent: no row is added to it.
    Nowhere,
}

/// What must be the same for all rows of a group and travels with every partial state.
#[derive(Clone)]
struct Config {
    /// Version and configuration as they are sent; equal configurations have equal bytes.
    sent: AVec<u8, ContextAlloc>,
    question: Question,
    needs_unmatched_rows: bool,
    source: Source,
    /// Window and mode as they were written, to notice cheaply when a row brings others.
    window_written: pg_sys::Interval,
    mode_written: AVec<u8, ContextAlloc>,
    /// Whether it outlives every group of the query.
    shared: bool,
}

/// The state of a group.
pub struct State {
    config: NonNull<Config>,
    log: EventLog<ContextAlloc>,
}

impl State {
    fn new(config: NonNull<Config>, context: ContextAlloc) -> Self {
        Self { config, log: EventLog::new_in(context) }
    }

    fn config(&self) -> &Config {
        // SAFETY: a configuration lives at least as long as the states that point to it: with the query, or in the
        // memory context of the group.
        unsafe { self.config.as_ref() }
    }

    /// The question and the events, for a final function.
    pub fn parts(&mut self) -> (&Question, &mut EventLog<ContextAlloc>) {
        // SAFETY: as above; configuration and events do not overlap.
        (unsafe { &self.config.as_ref().question }, &mut self.log)
    }
}

impl Config {
    /// Reads and checks the configuration in the arguments of a row.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    unsafe fn read(fcinfo: FunctionCallInfo, layout: Layout, alloc: ContextAlloc) -> Self {
        // SAFETY: see above.
        unsafe {
            let Some(window_written) = args::interval(fcinfo, 1) else {
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
            let (source, conditions) = if layout.by_name {
                let names = Names::read(fcinfo, layout.steps + 1, alloc);
                let number = names.number();
                (Source::Names(names), number)
            } else {
                let steps = Conditions::of_call(fcinfo, layout.steps, 1, "step");
                (Source::Conditions(steps), steps.count())
            };
            let window = fixed_microseconds(window_written, "win");
            let question = Question::new(layout.kind, mode, conditions, window).or_raise(INVALID, "mode");
            let mut sent = AVec::new_in(alloc);
            let mut w = Writer::new(&mut sent, STATE_VERSION);
            w.u8(match layout.kind {
                Kind::Level => 0,
                Kind::Chain => 1,
            });
            w.u8(conditions as u8);
            w.i64(window);
            w.bytes(mode.as_bytes());
            match &source {
                Source::Names(names) => w.bytes(names.packed()),
                _ => w.bytes(&[]),
            }
            Self {
                needs_unmatched_rows: question.needs_unmatched_rows(),
                sent,
                question,
                source,
                window_written: *window_written,
                mode_written: copy(mode.as_bytes(), alloc),
                shared: false,
            }
        }
    }

    /// Reads the configuration at the front of a sent state and moves `r` behind it.
    fn decode(bytes: &[u8], kind: Kind, alloc: ContextAlloc) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, STATE_VERSION)?;
        let read_kind = match r.u8()? {
            0 => Kind::Level,
            1 => Kind::Chain,
            _ => return Err(DecodeError::Malformed("unknown kind of funnel")),
        };
        if kind != read_kind {
            return Err(DecodeError::Malformed("state of another aggregate"));
        }
        let conditions = usize::from(r.u8()?);
        if !(1..=MAX_CONDITIONS).contains(&conditions) {
            return Err(DecodeError::Malformed("number of steps is out of range"));
        }
        let window = r.i64()?;
        if window < 0 {
            return Err(DecodeError::Malformed("window is out of range"));
        }
        let mode = r.bytes()?;
        r.bytes()?;
        let question = std::str::from_utf8(mode)
            .ok()
            .and_then(|mode| Question::new(kind, mode, conditions, window).ok())
            .ok_or(DecodeError::Malformed("mode is not known"))?;
        Ok(Self {
            needs_unmatched_rows: question.needs_unmatched_rows(),
            sent: copy(bytes.get(..bytes.len() - r.remaining()).unwrap_or_default(), alloc),
            question,
            source: Source::Nowhere,
            window_written: pg_sys::Interval { time: 0, day: 0, month: 0 },
            mode_written: AVec::new_in(alloc),
            shared: false,
        })
    }

    /// What a row brings that differs from this configuration.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    #[inline]
    unsafe fn difference(&self, fcinfo: FunctionCallInfo, layout: Layout) -> Option<&'static str> {
        // SAFETY: see above.
        unsafe {
            let same_window = args::interval(fcinfo, 1).is_some_and(|w| {
                let v = &self.window_written;
                (w.time, w.day, w.month) == (v.time, v.day, v.month)
            });
            if !same_window {
                return Some("win must be the same for all rows of a group");
            }
            if let Some(index) = layout.mode
                && args::bytes(fcinfo, index) != Some(&self.mode_written[..])
            {
                return Some("mode must be the same for all rows of a group");
            }
            if let Source::Names(names) = &self.source
                && args::bytes(fcinfo, layout.steps + 1) != Some(names.written())
            {
                return Some("steps must be the same for all rows of a group");
            }
            None
        }
    }
}

fn copy(bytes: &[u8], alloc: ContextAlloc) -> AVec<u8, ContextAlloc> {
    let mut copy = AVec::with_capacity_in(bytes.len(), alloc);
    copy.extend_from_slice(bytes);
    copy
}

/// The configuration kept with a call site, if there is one yet.
///
/// # Safety
/// `fcinfo` must be the frame of a function whose `fn_extra` only this module uses.
unsafe fn kept(fcinfo: FunctionCallInfo) -> Option<NonNull<Config>> {
    // SAFETY: see above.
    unsafe { NonNull::new((*(*fcinfo).flinfo).fn_extra.cast()) }
}

/// Makes a configuration: the first of a call site is kept with it for all groups of the query, any other belongs to
/// the group in `context`.
///
/// # Safety
/// As for [`kept`].
unsafe fn keep(
    fcinfo: FunctionCallInfo,
    context: ContextAlloc,
    make: impl FnOnce(ContextAlloc) -> Config,
) -> NonNull<Config> {
    // SAFETY: see above; `fn_mcxt` lives as long as the call site, which is part of the query's plan.
    unsafe {
        let flinfo = (*fcinfo).flinfo;
        let shared = (*flinfo).fn_extra.is_null();
        let context = if shared { ContextAlloc::new((*flinfo).fn_mcxt) } else { context };
        let config = context.place(Config { shared, ..make(context) });
        if shared {
            (*flinfo).fn_extra = config.cast();
        }
        NonNull::new_unchecked(config)
    }
}

/// The configuration for a group that begins with this row.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
unsafe fn begin(fcinfo: FunctionCallInfo, layout: Layout, context: ContextAlloc) -> NonNull<Config> {
    // SAFETY: see above. An array of conditions may have another length in each group.
    unsafe {
        if let Some(kept) = kept(fcinfo)
            && kept.as_ref().difference(fcinfo, layout).is_none()
            && match &kept.as_ref().source {
                Source::Conditions(steps) => steps.fits(fcinfo),
                _ => true,
            }
        {
            return kept;
        }
        keep(fcinfo, context, |alloc| Config::read(fcinfo, layout, alloc))
    }
}

/// Shared body of the transition functions.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
#[inline]
pub unsafe fn transition(fcinfo: FunctionCallInfo, layout: Layout) -> Datum {
    // SAFETY: see above.
    unsafe {
        let context = context(fcinfo);
        let state = match state::<State>(fcinfo, 0) {
            Some(state) => {
                if let Some(difference) = state.config().difference(fcinfo, layout) {
                    raise(INVALID, difference);
                }
                state
            }
            None => &mut *context.place(State::new(begin(fcinfo, layout, context), context)),
        };
        if let Some(time) = args::event_time(fcinfo, layout.time) {
            let config = state.config();
            let conditions = match &config.source {
                Source::Conditions(steps) => steps.bits(fcinfo),
                Source::Names(names) => args::bytes(fcinfo, layout.steps).map_or(0, |name| names.bits(name)),
                Source::Nowhere => 0,
            };
            if conditions != 0 || config.needs_unmatched_rows {
                state.log.push(time, conditions);
            }
        }
        give(state)
    }
}

/// Shared body of the combine functions: (internal, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of a combine function.
pub unsafe fn combine(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => {
                        let config = if from.config().shared {
                            from.config
                        } else {
                            let mine = context.place(copy_config(from.config(), context));
                            NonNull::new_unchecked(mine)
                        };
                        &mut *context.place(State::new(config, context))
                    }
                };
                if into.config != from.config && into.config().sent != from.config().sent {
                    raise(INVALID, "win, mode and steps must be the same for all rows of a group");
                }
                into.log.append(&from.log);
                give(into)
            }
        }
    }
}

/// A copy for a combined state, to which no row is added.
fn copy_config(config: &Config, alloc: ContextAlloc) -> Config {
    Config {
        sent: copy(&config.sent, alloc),
        question: config.question.clone(),
        needs_unmatched_rows: config.needs_unmatched_rows,
        source: Source::Nowhere,
        window_written: config.window_written,
        mode_written: AVec::new_in(alloc),
        shared: false,
    }
}

/// Shared body of the serialize functions: (internal) -> bytea.
///
/// # Safety
/// `fcinfo` must be the frame of a serialize function.
pub unsafe fn serialize(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut log = AVec::new_in(ContextAlloc::current());
        let mut w = Writer::new(&mut log, STATE_VERSION);
        state.log.encode(&mut w);
        let mut bytes =
            AVec::with_capacity_in(state.config().sent.len() + log.len(), ContextAlloc::current());
        bytes.extend_from_slice(&state.config().sent);
        bytes.extend_from_slice(&log);
        args::make_varlena(&bytes)
    }
}

/// Shared body of the deserialize functions: (bytea, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of a deserialize function.
pub unsafe fn deserialize(fcinfo: FunctionCallInfo, kind: Kind) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        // Combined right away and then dropped with the current context; combine copies what it keeps.
        let context = ContextAlloc::current();
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let refuse = |error: DecodeError| -> ! {
            raise(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("read a partial state of a funnel: {error}"),
            )
        };
        let config = match kept(fcinfo) {
            Some(kept) if bytes.starts_with(&kept.as_ref().sent) => kept,
            _ => keep(fcinfo, context, |alloc| match Config::decode(bytes, kind, alloc) {
                Ok(config) => config,
                Err(error) => refuse(error),
            }),
        };
        let events = bytes.get(config.as_ref().sent.len()..).unwrap_or_default();
        match decode_log(events, context) {
            Ok(log) => give(context.place(State { config, log })),
            Err(error) => refuse(error),
        }
    }
}

fn decode_log(bytes: &[u8], alloc: ContextAlloc) -> Result<EventLog<ContextAlloc>, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let log = EventLog::decode_in(&mut r, alloc)?;
    r.finish()?;
    Ok(log)
}
