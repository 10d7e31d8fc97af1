//! Types whose values are the bytes of a stored state: their input and output.
//!
//! The text form is that of bytea: `\x` and two hexadecimal digits a byte. What the bytes mean is for the type's own
//! module. Equal states have equal bytes, so comparing, hashing and sending values is Postgres' own business with
//! bytes (`sql/stored.sql`).

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::interrupt::Interrupt;

use super::alloc::ContextAlloc;
use super::args;
use super::error::{OrRaise, raise};
use super::interrupts::Interrupts;
use super::pg_function;

/// What a type's input function raises for text that is not a value.
pub const INVALID_TEXT: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;

/// What a type's receive function and its cast from bytea raise for bytes that are not a value.
pub const INVALID_BINARY: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION;

/// A state that is a value of a type.
pub trait Stored: Sized {
    /// The name of the type.
    const NAME: &'static str;
    /// Why bytes are not a value.
    type Error: std::fmt::Display;

    /// Reads the stored form and checks it completely.
    fn decode_in(bytes: &[u8], context: ContextAlloc) -> Result<Self, Self::Error>;

    /// Appends the stored form; equal states have equal bytes.
    fn encode(&self, out: &mut AVec<u8, ContextAlloc>);
}

/// Reads a stored value, or an ERROR that says what is wrong with its bytes.
pub fn read<T: Stored>(bytes: &[u8], context: ContextAlloc) -> T {
    check(bytes, context, PgSqlErrorCode::ERRCODE_DATA_CORRUPTED)
}

fn check<T: Stored>(bytes: &[u8], context: ContextAlloc, code: PgSqlErrorCode) -> T {
    T::decode_in(bytes, context).or_raise(code, &format!("invalid {}", T::NAME))
}

/// A value, in the current memory context.
pub fn write<T: Stored>(value: &T) -> Datum {
    let mut bytes = AVec::new_in(ContextAlloc::current());
    value.encode(&mut bytes);
    args::make_varlena(&bytes)
}

/// Checks bytes from outside and returns them as a value, in the one form that equal states have.
pub fn accept<T: Stored>(bytes: &[u8], code: PgSqlErrorCode) -> Datum {
    write(&check::<T>(bytes, ContextAlloc::current(), code))
}

/// Declares the C symbols of a stored type `NAME`: `tidemark_NAME_in`, `tidemark_NAME_recv`, and
/// `tidemark_NAME_from_bytea` for the cast.
macro_rules! stored_type {
    ($name:ident: $state:ty) => {
        ::pastey::paste! {
            $crate::support::pg_function! {
                /// Type input: the hexadecimal form of bytea.
                fn [<tidemark_ $name _in>](fcinfo) {
                    use $crate::support::stored;
                    stored::accept::<$state>(&stored::bytes_of_text(fcinfo, stringify!($name)), stored::INVALID_TEXT)
                }
            }
            $crate::support::pg_function! {
                /// Binary input: the stored bytes.
                fn [<tidemark_ $name _recv>](fcinfo) {
                    use $crate::support::stored;
                    stored::accept::<$state>(stored::bytes_of_message(fcinfo), stored::INVALID_BINARY)
                }
            }
            $crate::support::pg_function! {
                /// Cast from bytea, strict.
                fn [<tidemark_ $name _from_bytea>](fcinfo) {
                    use $crate::support::stored;
                    Some(stored::accept::<$state>($crate::support::args::bytes(fcinfo, 0)?, stored::INVALID_BINARY))
                }
            }
        }
    };
}
pub(crate) use stored_type;

pg_function! {
    /// Type output of all stored types: the hexadecimal form of bytea, whatever `bytea_output` is.
    fn tidemark_stored_out(fcinfo) { Some(text_of_bytes(args::bytes(fcinfo, 0)?)) }
}

/// Bytes between two looks for interrupts.
const PART: usize = 1 << 20;

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
        Interrupts.check();
        match ((*high as char).to_digit(16), (*low as char).to_digit(16)) {
            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
            _ => refuse("not a hexadecimal digit"),
        }
    }
    bytes
}

/// The text form of a value, a cstring, for an output function.
fn text_of_bytes(bytes: &[u8]) -> Datum {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let len = bytes.len() * 2 + 3;
    args::check_size(len);
    // SAFETY: the block has `len` bytes, all of which are written below.
    let out = unsafe {
        let text = pg_sys::palloc(len).cast::<u8>();
        text.write_bytes(0, len);
        std::slice::from_raw_parts_mut(text, len)
    };
    out[..2].copy_from_slice(b"\\x");
    for (pairs, part) in out[2..].as_chunks_mut::<2>().0.chunks_mut(PART).zip(bytes.chunks(PART)) {
        pgrx::check_for_interrupts!();
        for (pair, byte) in pairs.iter_mut().zip(part) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
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
