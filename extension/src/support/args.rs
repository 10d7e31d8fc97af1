//! Reading arguments straight from the call frame.
//!
//! All functions here are unsafe for one reason: the caller vouches that the argument has the SQL type that the
//! function's declaration gives it.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};

use super::error::{INVALID, raise, raise_hint};

/// How many arguments the call has.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
#[inline]
pub unsafe fn count(fcinfo: FunctionCallInfo) -> usize {
    // SAFETY: see above.
    unsafe { (*fcinfo).nargs as usize }
}

/// The datum of an argument, `None` when it is NULL.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed and have more than `index` arguments.
#[inline]
pub unsafe fn datum(fcinfo: FunctionCallInfo, index: usize) -> Option<Datum> {
    // SAFETY: the frame has `nargs` arguments behind it.
    unsafe {
        let arg = &*(*fcinfo).args.as_ptr().add(index);
        if arg.isnull { None } else { Some(arg.value) }
    }
}

/// A timestamptz as microseconds since 2000-01-01 UTC; `None` when NULL.
///
/// # Safety
/// The argument must be a timestamptz.
#[inline]
pub unsafe fn timestamp(fcinfo: FunctionCallInfo, index: usize) -> Option<i64> {
    // SAFETY: see above; timestamptz is passed by value.
    unsafe { datum(fcinfo, index) }.map(|d| d.value() as i64)
}

/// A boolean, NULL taken as false.
///
/// # Safety
/// The argument must be a boolean.
#[inline]
pub unsafe fn is_true(fcinfo: FunctionCallInfo, index: usize) -> bool {
    // SAFETY: see above.
    unsafe { datum(fcinfo, index) }.is_some_and(|d| d.value() as u8 != 0)
}

/// An integer; `None` when NULL.
///
/// # Safety
/// The argument must be an integer.
#[inline]
pub unsafe fn int32(fcinfo: FunctionCallInfo, index: usize) -> Option<i32> {
    // SAFETY: see above.
    unsafe { datum(fcinfo, index) }.map(|d| d.value() as i32)
}

/// A double precision; `None` when NULL.
///
/// # Safety
/// The argument must be a double precision.
#[inline]
pub unsafe fn float(fcinfo: FunctionCallInfo, index: usize) -> Option<f64> {
    // SAFETY: see above; double precision is passed by value.
    unsafe { datum(fcinfo, index) }.map(|d| f64::from_bits(d.value() as u64))
}

/// An interval; `None` when NULL.
///
/// # Safety
/// The argument must be an interval; the reference lives as long as the call.
#[inline]
pub unsafe fn interval<'a>(fcinfo: FunctionCallInfo, index: usize) -> Option<&'a pg_sys::Interval> {
    // SAFETY: an interval is a fixed 16-byte struct passed by reference.
    unsafe { datum(fcinfo, index) }.map(|d| unsafe { &*d.cast_mut_ptr::<pg_sys::Interval>() })
}

/// The content of a text, bytea or sketch argument without its header; `None` when NULL.
///
/// A value stored out of line or compressed is fetched into the current memory context.
///
/// # Safety
/// The argument must be a varlena; the slice lives as long as the call.
#[inline]
pub unsafe fn bytes<'a>(fcinfo: FunctionCallInfo, index: usize) -> Option<&'a [u8]> {
    // SAFETY: see above.
    unsafe { datum(fcinfo, index).map(|d| varlena_bytes(d)) }
}

/// The content of a varlena datum without its header.
///
/// # Safety
/// `datum` must point to a varlena; the slice lives as long as the datum or the current memory context.
#[inline]
pub unsafe fn varlena_bytes<'a>(datum: Datum) -> &'a [u8] {
    // SAFETY: see above; only a value that is not plain needs the call into Postgres.
    unsafe {
        let mut varlena = datum.cast_mut_ptr::<pg_sys::varlena>();
        if pgrx::varatt_is_1b_e(varlena) || pgrx::varatt_is_4b_c(varlena) {
            varlena = pg_sys::pg_detoast_datum_packed(varlena);
        }
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast::<u8>(), pgrx::varsize_any_exhdr(varlena))
    }
}

/// A text argument as a string slice; `None` when NULL.
///
/// # Safety
/// The argument must be a text; the slice lives as long as the call.
#[inline]
pub unsafe fn text<'a>(fcinfo: FunctionCallInfo, index: usize, name: &str) -> Option<&'a str> {
    // SAFETY: see above.
    unsafe { bytes(fcinfo, index) }.map(|b| utf8(b, name))
}

/// The bytes of a text as a string slice; an ERROR when they are not UTF-8.
pub fn utf8<'a>(bytes: &'a [u8], name: &str) -> &'a str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, format!("{name} must be UTF-8 text"))
        }
    }
}

/// The longest text that is read as a mode, a direction, a unit of time: many times what makes sense.
const MAX_WORD: usize = 1000;

/// The bytes of such a text as a string slice; an ERROR when they are too many or not UTF-8.
pub fn word<'a>(bytes: &'a [u8], name: &str) -> &'a str {
    check_length(bytes, MAX_WORD, name);
    utf8(bytes, name)
}

/// Raises 22023 for a text that is too long to be parsed: what is made of it, and an error that quotes it, is allocated
/// by Rust.
pub fn check_length(bytes: &[u8], limit: usize, name: &str) {
    if bytes.len() > limit {
        raise(INVALID, format!("{name} must not be longer than {limit} bytes"));
    }
}

/// A bytea (or sketch) datum holding a copy of `content`, in the current memory context.
pub fn make_varlena(content: &[u8]) -> Datum {
    let total = content.len() + pg_sys::VARHDRSZ;
    check_size(total);
    // SAFETY: the block has room for header and content; palloc raises an error when it cannot give it.
    unsafe {
        let block = pg_sys::palloc(total).cast::<u8>();
        pgrx::set_varsize_4b(block.cast(), total as i32);
        std::ptr::copy_nonoverlapping(content.as_ptr(), block.add(pg_sys::VARHDRSZ), content.len());
        Datum::from(block)
    }
}

/// Raises 54000 for what does not fit into one value; palloc would call it an internal error.
pub fn check_size(bytes: usize) {
    /// `MaxAllocSize`
    const MAX: usize = (1 << 30) - 1;
    if bytes > MAX {
        raise_hint(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{bytes} bytes do not fit into one value, which has at most 1 GB"),
            "Group by person; a group of many rows may fit with max_parallel_workers_per_gather = 0.",
        );
    }
}

/// A double precision.
pub fn make_float(value: f64) -> Datum {
    Datum::from(value.to_bits())
}

/// Returns SQL NULL.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
pub unsafe fn return_null(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe { (*fcinfo).isnull = true };
    Datum::from(0)
}

/// A finite event time; `None` when NULL, an ERROR for `infinity` and `-infinity`, which no event can have.
///
/// # Safety
/// The argument must be a timestamptz.
#[inline]
pub unsafe fn event_time(fcinfo: FunctionCallInfo, index: usize) -> Option<i64> {
    // SAFETY: see above.
    let time = unsafe { timestamp(fcinfo, index) };
    if let Some(i64::MIN | i64::MAX) = time {
        raise_hint(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            "event_time must be finite",
            "Leave out such rows with FILTER (WHERE isfinite(event_time)).",
        );
    }
    time
}

/// The name of a type as SQL writes it.
pub fn type_name(oid: pg_sys::Oid) -> String {
    if oid == pg_sys::Oid::INVALID {
        return "of unknown type".to_owned();
    }
    // SAFETY: returns a palloc'd C string for any oid.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() }
}
