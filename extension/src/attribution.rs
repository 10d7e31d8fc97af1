//! Attribution: the aggregates `first` and `last`, and `channel_group`; `attribution` is in `credits`.
//!
//! The rules of channels stand in `tidemark_core::channel`; the SQL declarations in `sql/attribution.sql`. `first` and
//! `last` have no core: their values are of any SQL type, and so is the order that breaks ties.

mod credits;

use std::cmp::Ordering;
use std::ffi::{CStr, c_int};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use tidemark_core::channel::channel_group;
use tidemark_core::codec::{DecodeError, Reader, Writer};

use crate::support::aggregate::{self, Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::call_site::CallSite;
use crate::support::error::raise;
use crate::support::pg_function;

// utils/datum.h is not among pgrx's bindings; these signatures have been the same since PostgreSQL 13.
unsafe extern "C-unwind" {
    fn datumCopy(value: Datum, by_value: bool, length: c_int) -> Datum;
    fn datumGetSize(value: Datum, by_value: bool, length: c_int) -> usize;
    fn datum_image_eq(left: Datum, right: Datum, by_value: bool, length: c_int) -> bool;
}

/// Which end of time wins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// The best value so far, a copy in the aggregate's memory.
struct Touch {
    kind: Kind,
    end: End,
    /// Before the first value only while partial states meet.
    held: Option<(i64, Datum)>,
}

impl Touch {
    /// Takes a value if it wins.
    ///
    /// # Safety
    /// `value` must be of the state's type.
    #[inline]
    unsafe fn offer(&mut self, time: i64, value: Datum, context: impl FnOnce() -> ContextAlloc) {
        // SAFETY: see above; the value held was allocated by `copy` and is not used after it is freed.
        unsafe {
            if let Some((held_time, held)) = self.held {
                let candidate = match time.cmp(&held_time) {
                    Ordering::Equal => self.kind.compare(value, held),
                    order => order,
                };
                if candidate != if self.end == End::First { Ordering::Less } else { Ordering::Greater } {
                    return;
                }
            }
            let old = self.held.replace((time, self.kind.copy(value, context())));
            if let (Some((_, old)), false) = (old, self.kind.by_value()) {
                pg_sys::pfree(old.cast_mut_ptr());
            }
        }
    }
}

impl State for Touch {
    fn like(&self, _: ContextAlloc) -> Self {
        Self { held: None, ..*self }
    }

    fn merge(&mut self, other: &Self, context: ContextAlloc) {
        if let Some((time, value)) = other.held {
            // SAFETY: a call has one type of values.
            unsafe { self.offer(time, value, || context) };
        }
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        w.u32(self.kind.oid().to_u32());
        w.u8(u8::from(self.end == End::Last));
        let Some((time, value)) = self.held else { return };
        w.i64(time);
        // SAFETY: the value is of this type.
        unsafe { self.kind.with_image(value, |image| w.bytes(image)) };
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let (kind, last) = (Kind::of(Oid::from(r.u32()?)), r.u8()? != 0);
        let time = r.i64()?;
        let value = kind.of_image(r.bytes()?, context).ok_or(DecodeError::Malformed("length of a value"))?;
        Ok(Self { kind, end: if last { End::Last } else { End::First }, held: Some((time, value)) })
    }
}

aggregate! {
    touch: Touch {
        /// `first`: (internal, value anyelement, event_time)
        transition tidemark_first_transition = |slot, fcinfo| add(slot, fcinfo, End::First);
        /// `last`: (internal, value anyelement, event_time)
        transition tidemark_last_transition = |slot, fcinfo| add(slot, fcinfo, End::Last);
        /// (internal, anyelement, timestamptz) -> anyelement, NULL without a value.
        final tidemark_touch_final = |touch: Option<&mut Touch>, _| {
            let touch = touch?;
            // A copy: as a window function the aggregate goes on and may free the value it holds.
            touch.held.map(|(_, value)| touch.kind.copy(value, ContextAlloc::current()))
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
#[inline]
unsafe fn add(slot: &mut Slot<Touch>, fcinfo: FunctionCallInfo, end: End) {
    // SAFETY: see above.
    unsafe {
        if let (Some(value), Some(time)) = (args::datum(fcinfo, 1), args::event_time(fcinfo, 2)) {
            let touch = slot.get_or_place(|_| Touch { kind: Kind::of_call(fcinfo), end, held: None });
            touch.offer(time, value, || aggregate::context(fcinfo));
        }
    }
}

/// A type of values, as the type cache knows it. Its entry lives as long as the backend.
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
    unsafe fn of_call(fcinfo: FunctionCallInfo) -> Self {
        // SAFETY: nothing else is kept with the call site.
        unsafe {
            let site = CallSite::of(fcinfo);
            if let Some(kept) = site.kept::<Self>() {
                return *kept;
            }
            let oid = site.argument_type(1);
            if oid == Oid::INVALID {
                raise(
                    PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE,
                    "could not determine the type of value",
                );
            }
            *site.keep(Self::of(oid))
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
    /// `value` must be of this type.
    unsafe fn copy(self, value: Datum, context: ContextAlloc) -> Datum {
        let (by_value, length) = (self.by_value(), self.length());
        if by_value {
            return value;
        }
        // SAFETY: see above; an error ends the transaction, which restores the current context itself.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let before = pg_sys::MemoryContextSwitchTo(context.context());
                let copy = datumCopy(value, by_value, length);
                pg_sys::MemoryContextSwitchTo(before);
                copy
            })
        }
    }

    /// A value as it is in memory, for another process of this server: unlike its binary or text form it needs no
    /// function of the type, which some types lack.
    ///
    /// # Safety
    /// `value` must be of this type.
    unsafe fn with_image(self, value: Datum, then: impl FnOnce(&[u8])) {
        let (by_value, length) = (self.by_value(), self.length());
        // SAFETY: see above; a varlena is in one piece once it is fetched.
        unsafe {
            if by_value {
                return then(&value.value().to_ne_bytes());
            }
            let mut start = value.cast_mut_ptr::<u8>();
            if length == -1 {
                start = pg_sys::pg_detoast_datum_packed(start.cast()).cast();
            }
            let size =
                pg_sys::ffi::pg_guard_ffi_boundary(|| datumGetSize(Datum::from(start), by_value, length));
            then(std::slice::from_raw_parts(start, size));
        }
    }

    /// The value of an image; `None` for bytes that are none.
    fn of_image(self, image: &[u8], context: ContextAlloc) -> Option<Datum> {
        if self.by_value() {
            return Some(Datum::from(usize::from_ne_bytes(image.try_into().ok()?)));
        }
        if usize::try_from(self.length()).is_ok_and(|length| length != image.len()) {
            return None;
        }
        Some(Datum::from(context.place_bytes(image)))
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
