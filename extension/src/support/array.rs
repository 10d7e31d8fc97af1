//! Arrays: reading arguments, making results.

use std::ffi::c_int;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::{PgSqlErrorCode, PgTupleDesc};
use tidemark_core::AVec;

use super::alloc::ContextAlloc;
use super::args::{self, type_name};
use super::call_site::CallSite;
use super::error::{INVALID, raise, raise_hint};

/// A type of elements, as the functions of Postgres want it described.
#[derive(Clone, Copy)]
pub struct Element {
    oid: Oid,
    length: i16,
    by_value: bool,
    align: u8,
}

impl Element {
    /// boolean
    pub const BOOL: Self = Self::by_value(pg_sys::BOOLOID, 1, b'c');
    /// integer
    pub const INT4: Self = Self::by_value(pg_sys::INT4OID, 4, b'i');
    /// date
    pub const DATE: Self = Self::by_value(pg_sys::DATEOID, 4, b'i');
    /// bigint
    pub const INT8: Self = Self::by_value(pg_sys::INT8OID, 8, b'd');
    /// timestamptz
    pub const TIMESTAMPTZ: Self = Self::by_value(pg_sys::TIMESTAMPTZOID, 8, b'd');
    /// xid
    pub const XID: Self = Self::by_value(pg_sys::XIDOID, 4, b'i');
    /// text
    pub const TEXT: Self = Self { oid: pg_sys::TEXTOID, length: -1, by_value: false, align: b'i' };

    const fn by_value(oid: Oid, length: i16, align: u8) -> Self {
        Self { oid, length, by_value: true, align }
    }
}

/// The elements of an array argument, NULL as `None`. How many there are is known from the array's header: they are
/// taken apart, which for the largest arrays takes a gigabyte and seconds that nothing interrupts, once the first is
/// asked for.
pub struct Elements {
    array: *mut pg_sys::ArrayType,
    of: Element,
    apart: Option<(*mut Datum, *mut bool)>,
    next: usize,
    len: usize,
}

/// The elements of an array argument; `None` when the array is NULL, an ERROR when it has more than one dimension. They
/// lie in the current memory context.
///
/// # Safety
/// The argument must be an array of such elements; the result must not outlive the call.
pub unsafe fn elements(fcinfo: FunctionCallInfo, index: usize, name: &str, of: Element) -> Option<Elements> {
    // SAFETY: see above; the length of a dimension follows the header.
    unsafe {
        let datum = args::datum(fcinfo, index)?;
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let len = match (*array).ndim {
            0 => 0,
            1 => array.add(1).cast::<c_int>().read(),
            _ => raise(INVALID, format!("{name} must be a one-dimensional array")),
        };
        Some(Elements { array, of, apart: None, next: 0, len: len.max(0) as usize })
    }
}

impl Iterator for Elements {
    type Item = Option<Datum>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.len {
            return None;
        }
        let (array, of) = (self.array, self.of);
        // SAFETY: `elements` was told what the array holds; both arrays that Postgres makes have `len` elements.
        unsafe {
            let (datums, nulls) = *self.apart.get_or_insert_with(|| take_apart(array, of));
            let (datum, is_null) = (*datums.add(self.next), *nulls.add(self.next));
            self.next += 1;
            Some((!is_null).then_some(datum))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len - self.next, Some(self.len - self.next))
    }
}

impl ExactSizeIterator for Elements {}

/// # Safety
/// The array must have such elements.
unsafe fn take_apart(array: *mut pg_sys::ArrayType, of: Element) -> (*mut Datum, *mut bool) {
    let (mut datums, mut nulls, mut len) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: see above.
    unsafe {
        pg_sys::deconstruct_array(
            array,
            of.oid,
            of.length.into(),
            of.by_value,
            of.align as _,
            &mut datums,
            &mut nulls,
            &mut len,
        );
    }
    (datums, nulls)
}

/// An array in the current memory context; `None` becomes a NULL element.
pub fn make(elements: impl ExactSizeIterator<Item = Option<Datum>>, of: Element) -> Datum {
    let mut values = AVec::with_capacity_in(elements.len(), ContextAlloc::current());
    let mut nulls = AVec::with_capacity_in(elements.len(), ContextAlloc::current());
    for value in elements {
        nulls.push(value.is_none());
        values.push(value.unwrap_or(Datum::from(0)));
    }
    let (mut dims, mut lower_bounds) = ([values.len() as c_int], [1]);
    // SAFETY: values and nulls are equally long, and the values are of the type described.
    unsafe {
        if values.is_empty() {
            return Datum::from(pg_sys::construct_empty_array(of.oid));
        }
        Datum::from(pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            dims.as_mut_ptr(),
            lower_bounds.as_mut_ptr(),
            of.oid,
            of.length.into(),
            of.by_value,
            of.align as _,
        ))
    }
}

/// An array of the composite type that the function at `site` returns an array of, from the fields of each element;
/// `None` is NULL.
///
/// # Safety
/// The fields must be of those types.
pub unsafe fn make_rows<const N: usize>(
    site: CallSite,
    types: [Oid; N],
    rows: impl Iterator<Item = [Option<Datum>; N]>,
) -> Datum {
    // SAFETY: see above; the descriptor is found to have these attributes.
    unsafe {
        let oid = site.result_element();
        let descriptor = PgTupleDesc::from_pg_is_copy(pg_sys::lookup_rowtype_tupdesc_copy(oid, -1));
        if !descriptor.iter().map(|a| if a.attisdropped { Oid::INVALID } else { a.atttypid }).eq(types) {
            raise_hint(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("type {} does not have the attributes that tidemark expects", type_name(oid)),
                "It was altered, or the extension was updated since this session began: connect again.",
            );
        }
        let mut datums = AVec::new_in(ContextAlloc::current());
        datums.extend(rows.map(|values| {
            pgrx::check_for_interrupts!();
            let mut nulls = values.map(|value| value.is_none());
            let mut values = values.map(|value| value.unwrap_or(Datum::from(0)));
            let tuple = pg_sys::heap_form_tuple(descriptor.as_ptr(), values.as_mut_ptr(), nulls.as_mut_ptr());
            Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }));
        make(datums.into_iter(), Element { oid, length: -1, by_value: false, align: b'd' })
    }
}
