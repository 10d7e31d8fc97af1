//! Types whose values are the bytes of a stored state: text form, binary form.
//!
//! The text form is that of bytea: `\x` and two hexadecimal digits a byte. What the bytes mean, and whether they are
//! valid, is for the type's own module.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;

use super::alloc::ContextAlloc;
use super::args;
use super::error::raise;

/// What a type's input function raises for text that is not a value.
pub const INVALID_TEXT: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;

/// What a type's receive function and its cast from bytea raise for bytes that are not a value.
pub const INVALID_BINARY: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION;

/// The bytes that the text given to an input function spells; 22P02 naming the type when it is not hexadecimal.
///
/// # Safety
/// Argument 0 must be a cstring and not NULL.
pub unsafe fn bytes_of_text(fcinfo: FunctionCallInfo, type_name: &str) -> AVec<u8, ContextAlloc> {
    let refuse =
        |why: &str| -> ! { raise(INVALID_TEXT, format!("invalid input syntax for type {type_name}: {why}")) };
    // SAFETY: see above.
    let text = unsafe { args::datum(fcinfo, 0) }
        .map_or(&b""[..], |text| unsafe { std::ffi::CStr::from_ptr(text.cast_mut_ptr()) }.to_bytes());
    let Some(digits) = text.strip_prefix(b"\\x") else {
        refuse("expected \\x and hexadecimal digits");
    };
    let mut bytes = AVec::with_capacity_in(digits.len() / 2, ContextAlloc::current());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        refuse("odd number of hexadecimal digits");
    }
    for [high, low] in pairs {
        match ((*high as char).to_digit(16), (*low as char).to_digit(16)) {
            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
            _ => refuse("not a hexadecimal digit"),
        }
    }
    bytes
}

/// The text form of a value, a cstring, for an output function.
pub fn text_of_bytes(bytes: &[u8]) -> Datum {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let len = bytes.len() * 2 + 3;
    // A value of more than half a gigabyte does not fit into one allocation of the usual kind; then palloc raises.
    // SAFETY: the block has `len` bytes, all of which are written below.
    let out = unsafe {
        let text = pg_sys::palloc(len).cast::<u8>();
        text.write_bytes(0, len);
        std::slice::from_raw_parts_mut(text, len)
    };
    out[..2].copy_from_slice(b"\\x");
    for (pair, byte) in out[2..].as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    Datum::from(out.as_mut_ptr())
}

/// The rest of the message given to a receive function; marks it as read.
///
/// # Safety
/// Argument 0 must be the StringInfo of a receive function; the slice lives as long as the call.
pub unsafe fn bytes_of_message<'a>(fcinfo: FunctionCallInfo) -> &'a [u8] {
    // SAFETY: see above; cursor and length stay within the message.
    unsafe {
        let Some(message) = args::datum(fcinfo, 0) else { return &[] };
        let message = &mut *message.cast_mut_ptr::<pg_sys::StringInfoData>();
        let (len, cursor) = (message.len.max(0) as usize, message.cursor.max(0) as usize);
        let bytes = std::slice::from_raw_parts(message.data.cast::<u8>(), len);
        message.cursor = message.len;
        bytes.get(cursor..).unwrap_or_default()
    }
}
