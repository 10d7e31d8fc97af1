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
use crate::support::aggregate::{context, give, give_none, is_constant, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::conditions::Conditions;
use crate::support::error::{OrRaise, raise, raise_hint};
use crate::support::interval::fixed_microseconds;
pub use partial::{combine, deserialize, serialize};

mod partial;

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

    /// Whether window, mode and names cannot differ from row to row.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    unsafe fn is_constant(self, fcinfo: FunctionCallInfo) -> bool {
        let names = self.by_name.then_some(self.steps + 1);
        // SAFETY: see above.
        [Some(1), self.mode, names].into_iter().flatten().all(|index| unsafe { is_constant(fcinfo, index) })
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
    /// Whether the call gives the same configuration for every row, by the plan.
    constant: bool,
    /// Of a shared one: whether a group of its call site owns another one.
    has_rivals: bool,
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
                constant: layout.is_constant(fcinfo),
                has_rivals: false,
            }
        }
    }

    /// Whether this, kept with the call site, is what the row brings and what every group of the call site has.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    #[inline]
    unsafe fn is_everyones(&self, fcinfo: FunctionCallInfo, layout: Layout) -> bool {
        // SAFETY: see above.
        !self.has_rivals && (self.constant || unsafe { self.difference(fcinfo, layout) }.is_none())
    }

    /// What a group has to remember of a row, if anything: event time and conditions.
    ///
    /// # Safety
    /// As above.
    #[inline]
    unsafe fn event(&self, fcinfo: FunctionCallInfo, layout: Layout) -> Option<(i64, u32)> {
        // SAFETY: see above.
        unsafe {
            let time = args::event_time(fcinfo, layout.time)?;
            let conditions = match &self.source {
                Source::Conditions(steps) => steps.bits(fcinfo),
                Source::Names(names) => args::bytes(fcinfo, layout.steps).map_or(0, |name| names.bits(name)),
                Source::Nowhere => 0,
            };
            (conditions != 0 || self.needs_unmatched_rows).then_some((time, conditions))
        }
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
        } else {
            (*(*flinfo).fn_extra.cast::<Config>()).has_rivals = true;
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
        if let Some(given) = args::datum(fcinfo, 0)
            && let Some(kept) = kept(fcinfo)
            && kept.as_ref().is_everyones(fcinfo, layout)
        {
            // Most rows of most funnels are no step: their group's state, a cache miss, is not looked at.
            if let Some((time, conditions)) = kept.as_ref().event(fcinfo, layout) {
                (*given.cast_mut_ptr::<State>()).log.push(time, conditions);
            }
            return given;
        }
        any_transition(fcinfo, layout)
    }
}

/// The first row of a group, and rows whose group may have a configuration of its own.
///
/// # Safety
/// As for [`transition`].
#[inline(never)]
unsafe fn any_transition(fcinfo: FunctionCallInfo, layout: Layout) -> Datum {
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
        if let Some((time, conditions)) = state.config().event(fcinfo, layout) {
            state.log.push(time, conditions);
        }
        give(state)
    }
}
