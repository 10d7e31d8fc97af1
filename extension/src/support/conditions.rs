//! Boolean conditions passed as `VARIADIC "any"`, read as bits.
//!
//! A boolean[] parameter would build an array for every row, which costs more than the rest of a transition;
//! `VARIADIC array` still works.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, FunctionCallInfo, Oid};
use tidemark_core::Allocator;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::MAX_CONDITIONS;

use super::args::{self, type_name};
use super::array::{Element, Elements, elements};
use super::call_site::CallSite;
use super::error::{check_same, invalid_argument, raise_hint};

/// Where the conditions of a call stand and how many they are; the same for all rows of a group.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// What messages call one of them: "step" or "condition".
    noun: &'static str,
    /// The argument at which they start.
    first: usize,
    /// How many there must be at least.
    minimum: usize,
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
            let (site, given) = (CallSite::of(fcinfo), args::count(fcinfo).saturating_sub(first));
            let as_array = site.is_variadic();
            for i in first..first + given {
                let actual = site.argument_type(i);
                let element = if as_array { pg_sys::get_base_element_type(actual) } else { actual };
                // A domain is as good as its type, and a literal NULL, which has no type, is false.
                let boolean = match element {
                    Oid::INVALID => false,
                    pg_sys::UNKNOWNOID => args::datum(fcinfo, i).is_none(),
                    _ => pg_sys::getBaseType(element) == pg_sys::BOOLOID,
                };
                if !boolean {
                    raise_hint(
                        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                        format!("{noun} {} must be boolean, not {}", i + 1 - first, type_name(actual)),
                        "Write a condition, for example event_type = 'purchase_completed'.",
                    );
                }
            }
            let mut conditions = Self { noun, first, minimum, count: given, as_array };
            if as_array {
                conditions.count = conditions.in_array(fcinfo).map_or(0, |array| array.len());
            }
            conditions.check_count(conditions.count);
            conditions
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
    #[inline]
    pub unsafe fn fits(self, fcinfo: FunctionCallInfo) -> bool {
        // SAFETY: types were checked when `self` was made.
        !self.as_array || unsafe { self.in_array(fcinfo) }.is_some_and(|array| array.len() == self.count)
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
    /// As for `bits`.
    unsafe fn array_bits(self, fcinfo: FunctionCallInfo) -> u32 {
        // SAFETY: see above.
        let mut array = unsafe { self.in_array(fcinfo) };
        let count = array.as_ref().map_or(0, |array| array.len());
        if count != self.count {
            self.check_count(count);
            self.check_same(count);
        }
        array.iter_mut().flatten().enumerate().fold(0, |bits, (i, condition)| {
            bits | u32::from(condition.is_some_and(|condition| condition.value() as u8 != 0)) << i
        })
    }

    /// # Safety
    /// As for `bits`, of a call with an array.
    unsafe fn in_array(self, fcinfo: FunctionCallInfo) -> Option<Elements> {
        // SAFETY: see above.
        unsafe { elements(fcinfo, self.first, "conditions", Element::BOOL) }
    }

    fn check_count(self, count: usize) {
        check_count(count, self.minimum, self.noun);
    }

    /// Raises 22023 unless there are as many conditions as these.
    pub fn check_same(self, count: usize) {
        check_same(count == self.count, &format!("the number of {}s", self.noun));
    }

    /// Writes how many there are: a byte.
    pub fn encode<A: Allocator>(self, w: &mut Writer<'_, A>) {
        w.u8(self.count as u8);
    }

    /// Reads the conditions of a partial state, to which no row is added.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::from(r.u8()?);
        if count > MAX_CONDITIONS {
            return Err(DecodeError::Malformed("number of conditions is out of range"));
        }
        Ok(Self { noun: "condition", first: 0, minimum: 0, count, as_array: false })
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
