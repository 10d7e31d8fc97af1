//! The state of `window_funnel` and `funnel`: events, and what all rows of a group must agree on.
//!
//! Most queries have many small groups and one configuration. It is read once per query and kept with the call site;
//! the state of a group is its events and a pointer. A group whose configuration is another one owns it.

use std::ptr::NonNull;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::FunctionCallInfo;
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::{EventLog, MAX_CONDITIONS};
use tidemark_core::funnel::{Funnel, Mode, WindowMode};

use super::names::Names;
use crate::support::aggregate::{Slot, State};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::call_site::{CallSite, is_constant};
use crate::support::conditions::Conditions;
use crate::support::error::{INVALID, OrRaise, check_same, not_null, raise_hint};
use crate::support::interrupts::Interrupts;
use crate::support::interval::ConstantInterval;

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

/// What must be the same for all rows of a group and travels with every partial state.
#[derive(Clone, Copy, PartialEq)]
struct Asked<'a> {
    kind: Kind,
    /// In microseconds.
    window: i64,
    mode: &'a [u8],
    /// The names of the steps, empty where they are conditions.
    names: &'a [u8],
    steps: usize,
}

impl<'a> Asked<'a> {
    fn check_same(&self, other: &Self) {
        check_same(self.window == other.window, "win");
        check_same(self.mode == other.mode, "mode");
        if self.names.is_empty() {
            check_same(self.steps == other.steps, "the number of steps");
        }
        check_same(self == other, "steps");
    }

    fn encode(&self, w: &mut Writer<'_, ContextAlloc>) {
        w.u8(u8::from(self.kind == Kind::Chain));
        w.u8(self.steps as u8);
        w.i64(self.window);
        w.bytes(self.mode);
        w.bytes(self.names);
    }

    fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = if r.u8()? == 0 { Kind::Level } else { Kind::Chain };
        let (steps, window) = (usize::from(r.u8()?), r.i64()?);
        if !(1..=MAX_CONDITIONS).contains(&steps) || window < 0 {
            return Err(DecodeError::Malformed("number of steps or window is out of range"));
        }
        Ok(Self { kind, window, mode: r.bytes()?, names: r.bytes()?, steps })
    }
}

/// The mode, read for the question it belongs to.
pub enum Question {
    /// For `window_funnel`: mode, number of conditions, window in microseconds.
    Level(WindowMode, usize, i64),
    /// For `funnel`.
    Chain(Funnel),
}

impl Question {
    fn new(asked: &Asked<'_>) -> Result<Self, String> {
        let mode = args::word(asked.mode, "mode");
        match asked.kind {
            Kind::Level => WindowMode::parse(mode)
                .map(|mode| Self::Level(mode, asked.steps, asked.window))
                .map_err(|error| error.to_string()),
            Kind::Chain => Mode::parse(mode)
                .and_then(|mode| Funnel::new(mode, asked.steps, asked.window))
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

/// What was asked, ready for use.
struct Config {
    kind: Kind,
    question: Question,
    needs_unmatched_rows: bool,
    window: ConstantInterval,
    mode: AVec<u8, ContextAlloc>,
    names: Names<ContextAlloc>,
    steps: usize,
    /// Where the conditions of a row stand; `None` with names, and in a state that was sent, to which no row is added.
    conditions: Option<Conditions>,
    /// Whether it outlives every group of the query.
    shared: bool,
    /// Whether the call gives the same configuration for every row, by the plan.
    constant: bool,
    /// Of a shared one: whether a group of its call site owns another one.
    has_rivals: bool,
}

impl Config {
    /// What was asked in another process or group.
    fn of(asked: &Asked<'_>, alloc: ContextAlloc) -> Result<Self, String> {
        let question = Question::new(asked)?;
        let mut mode = AVec::with_capacity_in(asked.mode.len(), alloc);
        mode.extend_from_slice(asked.mode);
        Ok(Self {
            kind: asked.kind,
            needs_unmatched_rows: question.needs_unmatched_rows(),
            question,
            window: ConstantInterval::of(asked.window),
            mode,
            names: Names::sent(asked.names, alloc),
            steps: asked.steps,
            conditions: None,
            shared: false,
            constant: false,
            has_rivals: false,
        })
    }

    /// Reads and checks the configuration in the arguments of a row.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    unsafe fn read(fcinfo: FunctionCallInfo, layout: Layout, alloc: ContextAlloc) -> Self {
        // SAFETY: see above.
        unsafe {
            let window = not_null(args::interval(fcinfo, 1), "win");
            let mode = match layout.mode.map(|index| args::bytes(fcinfo, index)) {
                None => &[],
                Some(Some(mode)) => mode,
                Some(None) => raise_hint(
                    PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                    "mode must not be NULL",
                    "Leave the argument out for the default mode.",
                ),
            };
            let (names, conditions) = if layout.by_name {
                (Names::read(fcinfo, layout.steps + 1, alloc), None)
            } else {
                (Names::sent(&[], alloc), Some(Conditions::of_call(fcinfo, layout.steps, 1, "step")))
            };
            let window = ConstantInterval::new(window, "win");
            let steps = conditions.map_or(names.number(), Conditions::count);
            let asked =
                Asked { kind: layout.kind, window: window.length, mode, names: names.packed(), steps };
            let config = Self::of(&asked, alloc).or_raise(INVALID, "mode");
            Self { window, names, conditions, constant: layout.is_constant(fcinfo), ..config }
        }
    }

    fn asked(&self) -> Asked<'_> {
        let (window, names) = (self.window.length, self.names.packed());
        Asked { kind: self.kind, window, mode: &self.mode, names, steps: self.steps }
    }

    /// Whether a row brings this very configuration, as far as that can be seen at a glance.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    #[inline]
    unsafe fn is_of(&self, fcinfo: FunctionCallInfo, layout: Layout) -> bool {
        // SAFETY: see above.
        unsafe {
            args::interval(fcinfo, 1).is_some_and(|window| self.window.is(window, "win"))
                && layout.mode.is_none_or(|index| args::bytes(fcinfo, index) == Some(&self.mode[..]))
                && match self.conditions {
                    Some(conditions) => conditions.fits(fcinfo),
                    None => args::bytes(fcinfo, layout.steps + 1) == Some(self.names.written()),
                }
        }
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
            let conditions = match self.conditions {
                Some(conditions) => conditions.bits(fcinfo),
                None => args::bytes(fcinfo, layout.steps).map_or(0, |name| self.names.bits(name)),
            };
            (conditions != 0 || self.needs_unmatched_rows).then_some((time, conditions))
        }
    }

    /// Puts a new configuration where it belongs: the first of a call site is kept with it for all groups of the
    /// query, any other belongs to the group in `context`.
    ///
    /// # Safety
    /// The call site must be of a function that keeps nothing else.
    unsafe fn keep(
        site: CallSite,
        context: ContextAlloc,
        make: impl FnOnce(ContextAlloc) -> Self,
    ) -> NonNull<Self> {
        // SAFETY: see above; a place is never null.
        unsafe {
            NonNull::from(match site.kept::<Self>() {
                None => site.keep(Self { shared: true, ..make(site.alloc()) }),
                Some(first) => {
                    first.has_rivals = true;
                    &mut *context.place(make(context))
                }
            })
        }
    }
}

/// The state of a group.
pub struct Group {
    config: NonNull<Config>,
    log: EventLog<ContextAlloc>,
}

impl Group {
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

    /// A group that begins with this row.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a transition call with this layout.
    unsafe fn begin(fcinfo: FunctionCallInfo, layout: Layout, context: ContextAlloc) -> Self {
        // SAFETY: see above.
        let config = unsafe {
            let site = CallSite::of(fcinfo);
            match site.kept::<Config>() {
                Some(kept) if kept.is_of(fcinfo, layout) => NonNull::from(kept),
                _ => Config::keep(site, context, |alloc| Config::read(fcinfo, layout, alloc)),
            }
        };
        Self { config, log: EventLog::new_in(context) }
    }
}

impl State for Group {
    fn like(&self, context: ContextAlloc) -> Self {
        let config = if self.config().shared {
            self.config
        } else {
            let copy = Config::of(&self.config().asked(), context).or_raise(INVALID, "mode");
            // SAFETY: a place is never null.
            unsafe { NonNull::new_unchecked(context.place(copy)) }
        };
        Self { config, log: EventLog::new_in(context) }
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        if self.config != other.config {
            self.config().asked().check_same(&other.config().asked());
        }
        self.log.append(&other.log, Interrupts);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.config().asked().encode(w);
        self.log.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, site: CallSite) -> Result<Self, DecodeError> {
        let asked = Asked::decode(r)?;
        // SAFETY: deserialize functions keep nothing else.
        let config = match unsafe { site.kept::<Config>() } {
            Some(kept) if kept.asked() == asked => NonNull::from(kept),
            // SAFETY: as above.
            _ => unsafe {
                Config::keep(site, context, |alloc| Config::of(&asked, alloc).or_raise(INVALID, "mode"))
            },
        };
        Ok(Self { config, log: EventLog::decode_in(r, context, Interrupts)? })
    }
}

/// The transition of a form of arguments.
///
/// # Safety
/// `fcinfo` must be the frame of a transition call with this layout.
#[inline]
pub unsafe fn transition(slot: &mut Slot<Group>, fcinfo: FunctionCallInfo, layout: Layout) {
    // SAFETY: see above.
    unsafe {
        if slot.is_there()
            && let Some(kept) = CallSite::of(fcinfo).kept::<Config>()
            && !kept.has_rivals
            && (kept.constant || kept.is_of(fcinfo, layout))
        {
            // Most rows of most funnels are no step: their group's state, a cache miss, is not looked at.
            if let (Some((time, conditions)), Some(group)) = (kept.event(fcinfo, layout), slot.get()) {
                group.log.push(time, conditions);
            }
            return;
        }
        any_transition(slot, fcinfo, layout);
    }
}

/// The first row of a group, and rows whose group may have a configuration of its own.
///
/// # Safety
/// As for [`transition`].
#[inline(never)]
unsafe fn any_transition(slot: &mut Slot<Group>, fcinfo: FunctionCallInfo, layout: Layout) {
    // SAFETY: see above.
    unsafe {
        let group = slot.get_or_place(|context| Group::begin(fcinfo, layout, context));
        if !group.config().is_of(fcinfo, layout) {
            let row = Config::read(fcinfo, layout, ContextAlloc::current());
            group.config().asked().check_same(&row.asked());
        }
        if let Some((time, conditions)) = group.config().event(fcinfo, layout) {
            group.log.push(time, conditions);
        }
    }
}
