//! Members of JSON objects as text, and the addresses that such texts are: what the warehouse reads most events by. Which
//! members those are, and what they mean, is in `sql/silver/`.

use std::ffi::{CString, c_char, c_int};

use pgrx::pg_sys::{self, Datum, JsonbValue, jbvType};
use tidemark_core::address;

use crate::support::{args, pg_function};

/// How a value begins that is stored on its own: with its length.
const HEADER: usize = 4;

pg_function! {
    /// `member_text(object jsonb, name text) -> text`, strict. Like `jsonb_extract_path_text`, but for text, numbers and
    /// booleans alone, and without making a value of the member first.
    fn tidemark_member_text(fcinfo) {
        let (object, name) = (args::datum(fcinfo, 0)?, args::bytes(fcinfo, 1)?);
        // Whole and aligned, which `args::bytes` need not be.
        let object = pg_sys::pg_detoast_datum(object.cast_mut_ptr());
        let container = object.cast::<u8>().add(HEADER).cast::<pg_sys::JsonbContainer>();
        if (*container).header & pg_sys::JB_FOBJECT == 0 {
            return None;
        }
        let mut found = JsonbValue::default();
        let (key, length) = (name.as_ptr().cast::<c_char>(), name.len() as c_int);
        let found = pg_sys::getKeyJsonValueFromContainer(container, key, length, &mut found);
        if found.is_null() {
            return None;
        }
        let text = |bytes: &[u8]| {
            Some(Datum::from(pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as c_int)))
        };
        let value = &(*found).val;
        match (*found).type_ {
            jbvType::jbvString if value.string.len > 0 => {
                Some(Datum::from(pg_sys::cstring_to_text_with_len(value.string.val, value.string.len)))
            }
            jbvType::jbvNumeric => {
                let digits = pg_sys::OidOutputFunctionCall(
                    pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT),
                    Datum::from(value.numeric),
                );
                Some(Datum::from(pg_sys::cstring_to_text(digits)))
            }
            jbvType::jbvBool => text(if value.boolean { b"true" } else { b"false" }),
            _ => None,
        }
    }
}

pg_function! {
    /// `ip_address(address text) -> inet`, strict.
    fn tidemark_ip_address(fcinfo) {
        let text = std::str::from_utf8(args::bytes(fcinfo, 0)?).ok()?;
        let address = CString::new(address::first(text)?.to_string()).ok()?;
        let (input, text) = (pg_sys::Oid::from(pg_sys::F_INET_IN), address.as_ptr().cast_mut());
        Some(pg_sys::OidInputFunctionCall(input, text, pg_sys::InvalidOid, -1))
    }
}
