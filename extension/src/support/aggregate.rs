//! The frame of all aggregates: where states live, and the functions that pass them between calls and processes.
//!
//! A state is a Rust value placed in the aggregate's memory context and passed between calls as a pointer
//! (`internal`). The functions that take one can only be reached through an aggregate: SQL has no way to make an
//! `internal` value, and the first row, which makes the state, is refused outside an aggregate.
//!
//! A family implements [`State`] and lists its transitions and finals with [`aggregate!`].

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};

use super::alloc::ContextAlloc;
use super::args;
use super::call_site::CallSite;
use super::error::{OrRaise, raise};

/// Format of all partial states: this byte, then what [`State::encode`] writes.
const STATE_VERSION: u8 = 1;

unsafe extern "C-unwind" {
    // Raises no error, so the guard that pgrx puts around every call (a sigsetjmp, for each row of a query) protects
    // from nothing here.
    fn AggCheckCallContext(fcinfo: FunctionCallInfo, context: *mut pg_sys::MemoryContext) -> std::ffi::c_int;
}

/// What a group remembers of its rows, and of the arguments that are the same for all of them.
pub trait State: Sized {
    /// A state without rows, of the same arguments, in `context`.
    fn like(&self, context: ContextAlloc) -> Self;

    /// Adds the rows of another partial state. Other arguments raise what they raise in a transition: which rows meet
    /// where is the plan's business, and no error may depend on it.
    fn merge(&mut self, other: &Self, context: ContextAlloc);

    /// Writes the state for another process.
    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>);

    /// Reads what [`State::encode`] wrote, into `context`, which is short-lived: the combine function copies what it
    /// keeps. The call site is that of the deserialize function.
    fn decode(r: &mut Reader<'_>, context: ContextAlloc, site: CallSite) -> Result<Self, DecodeError>;
}

/// The state of a group in a transition: there after the first row that made it.
pub struct Slot<T> {
    fcinfo: FunctionCallInfo,
    state: *mut T,
}

impl<T> Slot<T> {
    /// The state in argument 0.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed, argument 0 an `internal` that functions of the same `T` made.
    #[inline]
    pub unsafe fn of(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: see above.
        let state = unsafe { args::datum(fcinfo, 0) }.map_or(std::ptr::null_mut(), |d| d.cast_mut_ptr::<T>());
        Self { fcinfo, state }
    }

    /// The state, `None` before the first row that counts.
    #[inline]
    pub fn get(&mut self) -> Option<&mut T> {
        // SAFETY: the pointer came from `place`; one call at a time uses a state.
        unsafe { self.state.as_mut() }
    }

    /// Whether there is a state; does not touch it.
    #[inline]
    pub fn is_there(&self) -> bool {
        !self.state.is_null()
    }

    /// The state, made now in the aggregate's memory if there is none.
    #[inline]
    pub fn get_or_place(&mut self, make: impl FnOnce(ContextAlloc) -> T) -> &mut T {
        if self.state.is_null() {
            let context = self.context();
            self.state = context.place(make(context));
        }
        // SAFETY: as in `get`.
        unsafe { &mut *self.state }
    }

    /// The memory of the aggregate's states; an ERROR outside an aggregate.
    pub fn context(&self) -> ContextAlloc {
        // SAFETY: the frame is valid by the promise of `of`.
        unsafe { context(self.fcinfo) }
    }

    /// What the transition returns: the state, or NULL, so that an aggregate without rows stays without a state.
    ///
    /// # Safety
    /// The frame must still be valid.
    #[inline]
    pub unsafe fn give(self) -> Datum {
        if self.state.is_null() {
            // SAFETY: see above.
            return unsafe { args::return_null(self.fcinfo) };
        }
        Datum::from(self.state)
    }
}

/// The memory context of the aggregate that is calling, or an ERROR outside one.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
pub unsafe fn context(fcinfo: FunctionCallInfo) -> ContextAlloc {
    let mut context = std::ptr::null_mut();
    // SAFETY: see above.
    if unsafe { AggCheckCallContext(fcinfo, &mut context) } == 0 {
        raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "support function of an aggregate was called outside an aggregate",
        );
    }
    ContextAlloc::new(context)
}

/// Body of a combine function: (internal, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of one, both arguments states of type `T`.
pub unsafe fn combine<T: State>(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above; the two states are different ones.
    unsafe {
        let mut slot = Slot::<T>::of(fcinfo);
        if let Some(from) = args::datum(fcinfo, 1) {
            let (from, context) = (&*from.cast_mut_ptr::<T>(), slot.context());
            slot.get_or_place(|context| from.like(context)).merge(from, context);
        }
        slot.give()
    }
}

/// Body of a serialize function: (internal) -> bytea.
///
/// # Safety
/// `fcinfo` must be the frame of one, argument 0 a state of type `T`.
pub unsafe fn serialize<T: State>(fcinfo: FunctionCallInfo) -> Option<Datum> {
    // SAFETY: see above.
    unsafe {
        let mut slot = Slot::<T>::of(fcinfo);
        slot.context();
        let mut bytes = AVec::new_in(ContextAlloc::current());
        slot.get()?.encode(&mut Writer::new(&mut bytes, STATE_VERSION));
        Some(args::make_varlena(&bytes))
    }
}

/// Body of a deserialize function: (bytea, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of one.
pub unsafe fn deserialize<T: State>(fcinfo: FunctionCallInfo, name: &str) -> Option<Datum> {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        let (bytes, short_lived) = (args::bytes(fcinfo, 0)?, ContextAlloc::current());
        let read = || {
            let mut r = Reader::new(bytes, STATE_VERSION)?;
            let state = T::decode(&mut r, short_lived, CallSite::of(fcinfo))?;
            r.finish()?;
            Ok::<_, DecodeError>(state)
        };
        let what = format!("read a partial state of {name}");
        Some(Datum::from(short_lived.place(read().or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, &what))))
    }
}

/// Body of a final function; `answer` gets the state, `None` without a row.
///
/// # Safety
/// `fcinfo` must be the frame of one, argument 0 a state of type `T`.
pub unsafe fn finish<T>(
    fcinfo: FunctionCallInfo,
    answer: impl FnOnce(Option<&mut T>) -> Option<Datum>,
) -> Option<Datum> {
    // SAFETY: see above.
    unsafe {
        let mut slot = Slot::<T>::of(fcinfo);
        slot.context();
        answer(slot.get())
    }
}

/// Declares the C symbols of a type of states: `tidemark_NAME_combine`, `_serialize` and `_deserialize`, and one for
/// each transition and final. Without NAME only the latter, for another aggregate with the same states.
///
/// A transition is an `unsafe fn(&mut Slot<State>, FunctionCallInfo)`, a final an `unsafe fn(Option<&mut State>,
/// FunctionCallInfo) -> Option<Datum>`; both are called with a valid frame only.
macro_rules! aggregate {
    ($name:ident: $state:ty { $($members:tt)* }) => {
        ::pastey::paste! {
            $crate::support::pg_function! {
                /// Combine function: (internal, internal) -> internal.
                fn [<tidemark_ $name _combine>](fcinfo) { $crate::support::aggregate::combine::<$state>(fcinfo) }
            }
            $crate::support::pg_function! {
                /// Serialize function: (internal) -> bytea.
                fn [<tidemark_ $name _serialize>](fcinfo) { $crate::support::aggregate::serialize::<$state>(fcinfo) }
            }
            $crate::support::pg_function! {
                /// Deserialize function: (bytea, internal) -> internal.
                fn [<tidemark_ $name _deserialize>](fcinfo) {
                    $crate::support::aggregate::deserialize::<$state>(fcinfo, stringify!($name))
                }
            }
        }
        $crate::support::aggregate::aggregate! { $state { $($members)* } }
    };
    ($state:ty { $($(#[$meta:meta])* $kind:ident $symbol:ident = $body:expr;)* }) => {
        $($crate::support::aggregate::aggregate!(@$kind $state, $(#[$meta])* $symbol, $body);)*
    };
    (@transition $state:ty, $(#[$meta:meta])* $symbol:ident, $body:expr) => {
        $crate::support::pg_function! {
            $(#[$meta])*
            fn $symbol(fcinfo) {
                let mut slot = $crate::support::aggregate::Slot::<$state>::of(fcinfo);
                ($body)(&mut slot, fcinfo);
                slot.give()
            }
        }
    };
    (@final $state:ty, $(#[$meta:meta])* $symbol:ident, $body:expr) => {
        $crate::support::pg_function! {
            $(#[$meta])*
            fn $symbol(fcinfo) { $crate::support::aggregate::finish::<$state>(fcinfo, |state| ($body)(state, fcinfo)) }
        }
    };
}
pub(crate) use aggregate;
