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
    /// What messages call one of them: "step" or "condition".
    noun: &'static str,
    /// The argument at which they start.
    first: usize,
    count: usize,
    /// Whether they come as one array instead of one argument each.
    as_array: bool,
}

impl Conditions {
    /// The conditions from argument `first` on, after checking that they are boolean and `minimum` to 32. Messages
    /// call one of them `noun`.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a function declared with `VARIADIC "any"` as argument `first`.
    pub unsafe fn of_call(
        fcinfo: FunctionCallInfo,
        first: usize,
        minimum: usize,
        noun: &'static str,
    ) -> Self {
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
                        format!("{noun} {} must be boolean, not {}", i + 1, type_name(actual)),
                        "Write a condition, for example event_type = 'purchase_completed'.",
                    );
                }
            }
            let count = if as_array { array(fcinfo, first).map_or(0, |array| array.len()) } else { given };
            check_count(count, minimum, noun);
            Self { noun, first, count, as_array }
        }
    }

    /// How many conditions there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// Whether a row has as many conditions as these; with an array that can change from row to row.
    ///
    /// # Safety
    /// `fcinfo` must be a frame of the call that `self` was made from.
    pub unsafe fn fits(self, fcinfo: FunctionCallInfo) -> bool {
        // SAFETY: types were checked when `self` was made.
        !self.as_array || unsafe { array(fcinfo, self.first) }.is_some_and(|array| array.len() == self.count)
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
                format!("the number of {}s must be the same for all rows of a group", self.noun),
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
        Ok(Self { noun: "condition", first, count, as_array })
    }
}

/// Raises 22023 unless a number of conditions is `minimum` to 32.
pub fn check_count(count: usize, minimum: usize, noun: &str) {
    if count < minimum || count > MAX_CONDITIONS {
        invalid_argument(
            format!("{noun}s must be {minimum} to {MAX_CONDITIONS} booleans, not {count}"),
            format!("Merge or leave out {noun}s."),
        );
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
