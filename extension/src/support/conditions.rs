//! Boolean conditions passed as `VARIADIC "any"`, read as bits.
//!
//! A boolean[] parameter would build an array for every row, which costs more than the rest of a transition;
//! `VARIADIC array` still works.

use pgrx::pg_sys::{self, FunctionCallInfo, Oid};
use pgrx::{FromDatum, PgSqlErrorCode};
use tidemark_core::Allocator;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::MAX_CONDITIONS;

use super::args;
use super::error::{invalid_argument, raise, raise_hint};

/// Where the conditions of a call stand and how many they are; the same for all rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The argument at which they start.
    first: usize,
    count: usize,
    /// Whether they come as one array instead of one argument each.
    as_array: bool,
}

impl Conditions {
    /// The conditions from argument `first` on, after checking that they are boolean and `minimum` to 32.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a function declared with `VARIADIC "any"` as argument `first`.
    pub unsafe fn of_call(fcinfo: FunctionCallInfo, first: usize, minimum: usize) -> Self {
        // SAFETY: the type of each argument is checked before its value is read.
        unsafe {
            let as_array = pg_sys::get_fn_expr_variadic((*fcinfo).flinfo);
            let given = args::count(fcinfo).saturating_sub(first);
            let expected = if as_array { pg_sys::BOOLARRAYOID } else { pg_sys::BOOLOID };
            for i in 0..given {
                let actual = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, (first + i) as i32);
                if actual != expected {
                    raise_hint(
                        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                        format!("condition {} must be boolean, not {}", i + 1, type_name(actual)),
                        "Write a condition, for example event_type = 'purchase_completed'.",
                    );
                }
            }
            let count = if as_array { array(fcinfo, first).map_or(0, |array| array.len()) } else { given };
            if count < minimum || count > MAX_CONDITIONS {
                invalid_argument(
                    format!("expected {minimum} to {MAX_CONDITIONS} conditions, not {count}"),
                    "Merge or leave out conditions.",
                );
            }
            Self { first, count, as_array }
        }
    }

    /// How many conditions there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// The conditions of a row as bits, the first one lowest; NULL counts as false.
    ///
    /// # Safety
    /// `fcinfo` must be a frame of the call that `self` was made from.
    #[inline]
    pub unsafe fn bits(self, fcinfo: FunctionCallInfo) -> u32 {
        // SAFETY: types were checked when `self` was made.
        unsafe {
            if self.as_array {
                return self.array_bits(fcinfo);
            }
            (0..self.count).fold(0, |bits, i| bits | u32::from(args::is_true(fcinfo, self.first + i)) << i)
        }
    }

    /// # Safety
    /// The argument must be a boolean[].
    unsafe fn array_bits(self, fcinfo: FunctionCallInfo) -> u32 {
        // SAFETY: see above.
        let array = unsafe { array(fcinfo, self.first) }.filter(|array| array.len() == self.count);
        let Some(array) = array else {
            raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "the number of conditions must be the same for all rows of a group",
            )
        };
        array
            .iter()
            .enumerate()
            .fold(0, |bits, (i, condition)| bits | u32::from(condition.unwrap_or(false)) << i)
    }

    /// Writes what [`Conditions::decode`] reads: three bytes.
    pub fn encode<A: Allocator>(self, w: &mut Writer<'_, A>) {
        [self.first as u8, self.count as u8, u8::from(self.as_array)].into_iter().for_each(|byte| w.u8(byte));
    }

    /// Reads the conditions of a partial state.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first, count, as_array) = (usize::from(r.u8()?), usize::from(r.u8()?), r.u8()? != 0);
        if count > MAX_CONDITIONS {
            return Err(DecodeError::Malformed("number of conditions is out of range"));
        }
        Ok(Self { first, count, as_array })
    }
}

/// # Safety
/// The argument must be a boolean[].
unsafe fn array<'a>(fcinfo: FunctionCallInfo, index: usize) -> Option<pgrx::Array<'a, bool>> {
    // SAFETY: see above.
    unsafe {
        args::datum(fcinfo, index)
            .and_then(|d| pgrx::Array::<bool>::from_polymorphic_datum(d, false, pg_sys::BOOLARRAYOID))
    }
}

/// The name of a type as SQL writes it.
fn type_name(oid: Oid) -> String {
    if oid == Oid::INVALID {
        return "of unknown type".to_owned();
    }
    // SAFETY: returns a palloc'd C string for any oid.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() }
}
