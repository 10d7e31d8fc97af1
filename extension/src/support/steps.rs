//! Conditions given as `VARIADIC "any"`: checked to be boolean once, then read from every row as bits.
//!
//! A boolean[] parameter would build an array for every row, which costs more than the rest of a transition call;
//! `VARIADIC array` works all the same.

use pgrx::pg_sys::{self, FunctionCallInfo, Oid};
use pgrx::{FromDatum, PgSqlErrorCode};
use tidemark_core::event::MAX_CONDITIONS;

use super::args;
use super::error::{invalid_argument, raise, raise_hint};

/// Where the conditions of a call stand and how many they are; the same for all rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Index of the first argument that is a condition.
    first: usize,
    number: usize,
    /// Whether they come as one array (`VARIADIC array`) instead of one argument each.
    as_array: bool,
}

impl Steps {
    /// The conditions from argument `first` on, after checking that they are boolean and 1 to 32.
    ///
    /// # Safety
    /// `fcinfo` must be the frame that Postgres passed, of a function declared with `VARIADIC "any"` from `first` on.
    pub unsafe fn read(fcinfo: FunctionCallInfo, first: usize) -> Self {
        // SAFETY: see above; the type of each argument is checked before its value is read.
        unsafe {
            let as_array = pg_sys::get_fn_expr_variadic((*fcinfo).flinfo);
            let given = args::count(fcinfo).saturating_sub(first);
            let expected = if as_array { pg_sys::BOOLARRAYOID } else { pg_sys::BOOLOID };
            for step in 0..given {
                let actual = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, (first + step) as i32);
                if actual != expected {
                    raise_hint(
                        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                        format!("step {} must be boolean, not {}", step + 1, type_name(actual)),
                        "Write a condition, for example event_type = 'purchase_completed'.",
                    );
                }
            }
            let number = if as_array { array(fcinfo, first).map_or(0, |array| array.len()) } else { given };
            check_number(number);
            Self { first, number, as_array }
        }
    }

    /// How many conditions there are, 1 to 32.
    pub fn number(self) -> usize {
        self.number
    }

    /// Whether a row has as many conditions as these; with an array that can change from row to row.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a call of the function that these steps were read for.
    pub unsafe fn fits(self, fcinfo: FunctionCallInfo) -> bool {
        // SAFETY: the type was checked when the steps were read.
        !self.as_array || unsafe { array(fcinfo, self.first) }.is_some_and(|array| array.len() == self.number)
    }

    /// The conditions of a row as bits, the first one the lowest; NULL counts as false.
    ///
    /// # Safety
    /// `fcinfo` must be the frame of a call of the function that these steps were read for.
    #[inline]
    pub unsafe fn conditions(self, fcinfo: FunctionCallInfo) -> u32 {
        // SAFETY: types and number were checked when the steps were read.
        unsafe {
            if self.as_array {
                return self.array_conditions(fcinfo);
            }
            let mut bits = 0;
            for step in 0..self.number {
                bits |= u32::from(args::is_true(fcinfo, self.first + step)) << step;
            }
            bits
        }
    }

    /// The conditions of a row given as `VARIADIC array`.
    ///
    /// # Safety
    /// The argument must be a boolean[].
    unsafe fn array_conditions(self, fcinfo: FunctionCallInfo) -> u32 {
        // SAFETY: see above.
        let Some(array) = (unsafe { array(fcinfo, self.first) }) else {
            invalid_argument("steps must not be NULL", "Pass at least one boolean condition.");
        };
        if array.len() != self.number {
            raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "the number of steps must be the same for all rows of a group",
            );
        }
        array
            .iter()
            .enumerate()
            .fold(0, |bits, (step, condition)| bits | u32::from(condition.unwrap_or(false)) << step)
    }
}

/// Raises 22023 unless a number of steps is 1 to 32.
pub fn check_number(number: usize) {
    if number == 0 || number > MAX_CONDITIONS {
        invalid_argument(
            format!("steps must be 1 to {MAX_CONDITIONS} conditions, not {number}"),
            "Merge or leave out steps.",
        );
    }
}

/// # Safety
/// The argument must be a boolean[].
unsafe fn array<'a>(fcinfo: FunctionCallInfo, index: usize) -> Option<pgrx::Array<'a, bool>> {
    // SAFETY: see above.
    unsafe {
        let datum = args::datum(fcinfo, index)?;
        pgrx::Array::from_polymorphic_datum(datum, false, pg_sys::BOOLARRAYOID)
    }
}

fn type_name(oid: Oid) -> String {
    if oid == Oid::INVALID {
        return "of unknown type".to_owned();
    }
    // SAFETY: returns a palloc'd C string for any oid.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() }
}
