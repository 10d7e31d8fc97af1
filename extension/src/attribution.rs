//! Attribution: the aggregates `first` and `last`, and `channel_group`.
//!
//! The rules of channels stand in `tidemark_core::channel`; the SQL declarations in `sql/attribution.sql`. `first` and
//! `last` have no core: their values are of any SQL type, and so is the order that breaks ties.

use std::cmp::Ordering;
use std::ffi::{CStr, c_int};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use tidemark_core::AVec;
use tidemark_core::channel::channel_group;
use tidemark_core::codec::{DecodeError, Reader, Writer};

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::error::{OrRaise, raise};
use crate::support::pg_function;

/// Format of a partial state: version, type, time, how the value is written, value.
const STATE_VERSION: u8 = 1;

/// A value in the binary form of its type (send and receive functions).
const BINARY: u8 = 0;
/// A value in the text form of its type, which has no binary one.
const TEXT: u8 = 1;
/// A value as it is in memory: anonymous records cannot be received, and other processes of the server know them.
const IMAGE: u8 = 2;

// utils/datum.h is not among pgrx's bindings; these signatures have been the same since PostgreSQL 13.
unsafe extern "C-unwind" {
    fn datumCopy(value: Datum, by_value: bool, length: c_int) -> Datum;
    fn datum_image_eq(left: Datum, right: Datum, by_value: bool, length: c_int) -> bool;
}

/// Which end of time wins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

impl End {
    /// Whether a candidate that compares so with the value held replaces it.
    fn replaces(self, candidate: Ordering) -> bool {
        candidate == if self == Self::First { Ordering::Less } else { Ordering::Greater }
    }
}

/// The best value so far, a copy in the aggregate's memory context. The entry of the type cache lives as long as the
/// backend.
struct Touch {
    kind: *mut pg_sys::TypeCacheEntry,
    time: i64,
    value: Datum,
}

/// A type of values, as the type cache knows it.
#[derive(Clone, Copy)]
struct Kind(*mut pg_sys::TypeCacheEntry);

impl Kind {
    fn of(oid: Oid) -> Self {
        // SAFETY: raises an error for an oid that is no type; entries are never freed.
        Self(unsafe { pg_sys::lookup_type_cache(oid, pg_sys::TYPECACHE_CMP_PROC_FINFO as c_int) })
    }

    /// The type of argument 1, looked up once per call site.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed, of a transition of `first` or `last`.
    #[inline]
    unsafe fn of_call(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: nothing else is kept with the call site.
        unsafe {
            let call_site = &mut *(*fcinfo).flinfo;
            if call_site.fn_extra.is_null() {
                let oid = pg_sys::get_fn_expr_argtype(call_site, 1);
                if oid == Oid::INVALID {
                    raise(
                        PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE,
                        "could not determine the type of value",
                    );
                }
                call_site.fn_extra = Self::of(oid).0.cast();
            }
            Self(call_site.fn_extra.cast())
        }
    }

    fn oid(self) -> Oid {
        // SAFETY: the entry lives as long as the backend.
        unsafe { (*self.0).type_id }
    }

    fn by_value(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).typbyval }
    }

    fn length(self) -> c_int {
        // SAFETY: as above.
        unsafe { c_int::from((*self.0).typlen) }
    }

    /// A copy of a value in `context`.
    ///
    /// # Safety
    /// `value` must be of this type, `context` valid.
    unsafe fn copy(self, value: Datum, context: pg_sys::MemoryContext) -> Datum {
        let (by_value, length) = (self.by_value(), self.length());
        if by_value {
            return value;
        }
        // SAFETY: see above; an error ends the transaction, which restores the current context itself.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let before = pg_sys::MemoryContextSwitchTo(context);
                let copy = datumCopy(value, by_value, length);
                pg_sys::MemoryContextSwitchTo(before);
                copy
            })
        }
    }

    /// The order of two values at the same time: the type's own, then that of the text form. Total, so that no plan
    /// can change who wins; equal only if nobody can tell the values apart.
    ///
    /// # Safety
    /// Both values must be of this type.
    unsafe fn compare(self, left: Datum, right: Datum) -> Ordering {
        let (by_value, length) = (self.by_value(), self.length());
        if by_value && left.value() == right.value() {
            return Ordering::Equal;
        }
        // SAFETY: see above; the comparison function belongs to the type.
        unsafe {
            let entry = &mut *self.0;
            // The order of anonymous records fails on fields without one, hence their text form.
            if entry.cmp_proc_finfo.fn_oid != Oid::INVALID && entry.type_id != pg_sys::RECORDOID {
                let order =
                    pg_sys::FunctionCall2Coll(&mut entry.cmp_proc_finfo, entry.typcollation, left, right);
                let order = (order.value() as i32).cmp(&0);
                if order != Ordering::Equal {
                    return order;
                }
            }
            let same = pg_sys::ffi::pg_guard_ffi_boundary(|| datum_image_eq(left, right, by_value, length));
            if same { Ordering::Equal } else { self.text(left).cmp(self.text(right)) }
        }
    }

    /// The text form of a value, in the current memory context.
    ///
    /// # Safety
    /// `value` must be of this type.
    unsafe fn text<'a>(self, value: Datum) -> &'a CStr {
        let (mut output, mut is_varlena) = (Oid::INVALID, false);
        // SAFETY: see above.
        unsafe {
            pg_sys::getTypeOutputInfo(self.oid(), &mut output, &mut is_varlena);
            CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value))
        }
    }

    /// How values of this type travel between processes.
    fn form(self) -> u8 {
        let oid = self.oid();
        if oid == pg_sys::RECORDOID || oid == pg_sys::RECORDARRAYOID {
            return IMAGE;
        }
        // SAFETY: the type exists; the tuple is released after its fields are copied.
        let both = unsafe {
            let tuple =
                pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as c_int, Datum::from(oid));
            if tuple.is_null() {
                return TEXT;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
            let both = (*form).typsend != Oid::INVALID && (*form).typreceive != Oid::INVALID;
            pg_sys::ReleaseSysCache(tuple);
            both
        };
        if both { BINARY } else { TEXT }
    }
}

/// The raw memory context of the calling aggregate.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed, inside an aggregate.
unsafe fn raw_context(fcinfo: FunctionCallInfo) -> pg_sys::MemoryContext {
    let mut raw = std::ptr::null_mut();
    // SAFETY: see above.
    unsafe { pg_sys::AggCheckCallContext(fcinfo, &mut raw) };
    raw
}

/// Puts a value into the state if it wins.
///
/// # Safety
/// `fcinfo` must be the frame of a transition or combine call, `value` of type `kind`.
#[inline]
unsafe fn offer(
    fcinfo: FunctionCallInfo,
    state: Option<&mut Touch>,
    end: End,
    (kind, time, value): (Kind, i64, Datum),
) -> Datum {
    // SAFETY: see above; the value held was allocated by `copy` and is not used after it is freed.
    unsafe {
        let Some(state) = state else {
            let value = kind.copy(value, raw_context(fcinfo));
            return give(context(fcinfo).place(Touch { kind: kind.0, time, value }));
        };
        let candidate = match time.cmp(&state.time) {
            Ordering::Equal => kind.compare(value, state.value),
            order => order,
        };
        if end.replaces(candidate) {
            let old = state.value;
            state.value = kind.copy(value, raw_context(fcinfo));
            state.time = time;
            if !kind.by_value() {
                pg_sys::pfree(old.cast_mut_ptr());
            }
        }
        give(state)
    }
}

/// Shared body of the transitions: (internal, anyelement, timestamptz) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of such a call.
#[inline]
unsafe fn transition(fcinfo: FunctionCallInfo, end: End) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        let state = state::<Touch>(fcinfo, 0);
        match (args::datum(fcinfo, 1), args::event_time(fcinfo, 2), state) {
            (Some(value), Some(time), state) => {
                offer(fcinfo, state, end, (Kind::of_call(fcinfo), time, value))
            }
            (_, _, Some(state)) => give(state),
            (_, _, None) => give_none(fcinfo),
        }
    }
}

/// Shared body of the combine functions: (internal, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of such a call.
unsafe fn combine(fcinfo: FunctionCallInfo, end: End) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        match (state::<Touch>(fcinfo, 0), state::<Touch>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                if into.as_ref().is_some_and(|into| into.kind != from.kind) {
                    raise(
                        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                        "value must have the same type in all rows of a group",
                    );
                }
                offer(fcinfo, into, end, (Kind(from.kind), from.time, from.value))
            }
        }
    }
}

pg_function! {
    /// Transition of `first`.
    fn tidemark_first_transition(fcinfo) { transition(fcinfo, End::First) }
}

pg_function! {
    /// Transition of `last`.
    fn tidemark_last_transition(fcinfo) { transition(fcinfo, End::Last) }
}

pg_function! {
    /// Combine function of `first`.
    fn tidemark_first_combine(fcinfo) { combine(fcinfo, End::First) }
}

pg_function! {
    /// Combine function of `last`.
    fn tidemark_last_combine(fcinfo) { combine(fcinfo, End::Last) }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_touch_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<Touch>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let kind = Kind(state.kind);
        let form = kind.form();
        let content = match form {
            BINARY => {
                let (mut send, mut is_varlena) = (Oid::INVALID, false);
                pg_sys::getTypeBinaryOutputInfo(kind.oid(), &mut send, &mut is_varlena);
                args::varlena_bytes(Datum::from(pg_sys::OidSendFunctionCall(send, state.value)))
            }
            TEXT => kind.text(state.value).to_bytes(),
            _ => args::varlena_bytes(state.value),
        };
        let mut bytes = AVec::with_capacity_in(content.len() + 24, ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        w.u32(kind.oid().to_u32());
        w.i64(state.time);
        w.u8(form);
        w.bytes(content);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_touch_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let (oid, time, form, content) =
            decode(bytes).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of first or last");
        let kind = Kind::of(oid);
        if form != kind.form() {
            raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of first or last: form is not that of the type");
        }
        let value = read_value(kind, form, content);
        let value = kind.copy(value, raw_context(fcinfo));
        give(context.place(Touch { kind: kind.0, time, value }))
    }
}

fn decode(bytes: &[u8]) -> Result<(Oid, i64, u8, &[u8]), DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let parts = (Oid::from(r.u32()?), r.i64()?, r.u8()?, r.bytes()?);
    r.finish()?;
    Ok(parts)
}

/// A value from what `tidemark_touch_serialize` wrote, in the current memory context.
///
/// # Safety
/// `content` must be in that form; an image must come from a process of the same server.
unsafe fn read_value(kind: Kind, form: u8, content: &[u8]) -> Datum {
    let (mut function, mut parameter) = (Oid::INVALID, Oid::INVALID);
    // SAFETY: see above; the buffer has a terminating zero, which input and receive functions expect.
    unsafe {
        if form == IMAGE {
            return args::make_varlena(content);
        }
        let mut buffer = pg_sys::StringInfoData::default();
        pg_sys::initStringInfo(&mut buffer);
        pg_sys::appendBinaryStringInfo(&mut buffer, content.as_ptr().cast(), content.len() as c_int);
        if form == BINARY {
            pg_sys::getTypeBinaryInputInfo(kind.oid(), &mut function, &mut parameter);
            pg_sys::OidReceiveFunctionCall(function, &mut buffer, parameter, -1)
        } else {
            pg_sys::getTypeInputInfo(kind.oid(), &mut function, &mut parameter);
            pg_sys::OidInputFunctionCall(function, buffer.data, parameter, -1)
        }
    }
}

pg_function! {
    /// Final function: (internal, anyelement, timestamptz) -> anyelement; NULL without a value.
    fn tidemark_touch_final(fcinfo) {
        context(fcinfo);
        match state::<Touch>(fcinfo, 0) {
            // A copy: as a window function the aggregate goes on and may free the value it holds.
            Some(state) => Kind(state.kind).copy(state.value, pg_sys::CurrentMemoryContext),
            None => args::return_null(fcinfo),
        }
    }
}

pg_function! {
    /// `channel_group(utm_source, utm_medium, utm_campaign, referrer_host, click_id text) -> text`; NULL allowed.
    fn tidemark_channel_group(fcinfo) {
        let channel = channel_group(
            args::text(fcinfo, 0, "utm_source"),
            args::text(fcinfo, 1, "utm_medium"),
            args::text(fcinfo, 2, "utm_campaign"),
            args::text(fcinfo, 3, "referrer_host"),
            args::text(fcinfo, 4, "click_id"),
        );
        args::make_varlena(channel.as_bytes())
    }
}
