//! What in a query may mean something else in another session: expressions that depend on its time zone, on how it
//! writes dates and numbers, on its user.
//!
//! A refresh runs queries under settings of its own (`owner.rs`); a live view is read under those of its reader. So that
//! both say the same, a query with a live view must not contain what is found here. The list is of what Postgres marks
//! STABLE, without what is known to be the same everywhere. What functions of users do inside cannot be seen: they must be
//! IMMUTABLE or bring the time zone along.

use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::{self, Datum, Node, NodeTag, Oid};
use pgrx::{FromDatum, pg_guard};

use super::copies::nodes;

/// The first Oid that initdb does not give away (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16384;

const SAY_THE_ZONE: &str = "Say which zone is meant: event_time AT TIME ZONE 'UTC' where a time of day or a date of a \
    timestamptz counts, date::timestamp AT TIME ZONE 'UTC' where it is compared with a date.";
const SAY_THE_FORMAT: &str = "How such a value is written, or read from text, is a setting: use to_char or to_date with a \
    format, on a timestamptz AT TIME ZONE 'UTC', or a function that is IMMUTABLE.";
const SAY_WHAT: &str =
    "It depends on settings or on the user: give what is meant as an argument, or leave it out.";
const PIN_THE_FUNCTION: &str = "Declare it IMMUTABLE if the same arguments always give the same, or give it its own time \
    zone: ALTER FUNCTION ... SET timezone = 'UTC'.";

/// How a value meets text.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    /// Dates and times without a zone are written in one way only.
    Json,
    /// From text.
    Read,
}

/// What `look` carries along: the text of the query, and what it found.
struct Walk<'a> {
    query: &'a str,
    found: Option<(String, &'static str)>,
}

/// The first expression that depends on the session, as words for an error message, and a hint.
///
/// # Safety
/// The query must be analyzed, from this text.
pub(super) unsafe fn unstable(
    source: &pg_sys::CachedPlanSource,
    query: &str,
) -> Option<(String, &'static str)> {
    let mut walk = Walk { query, found: None };
    // SAFETY: the list is that of an analyzed statement.
    unsafe {
        for tree in nodes::<Node>(source.query_list) {
            look(*tree, (&raw mut walk).cast());
        }
    }
    walk.found
}

/// Called for every node; stops at the first one that depends on the session.
#[pg_guard]
unsafe extern "C-unwind" fn look(node: *mut Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is; the context is what `unstable` passed.
    unsafe {
        if (*node).type_ == NodeTag::T_Query {
            return pg_sys::query_tree_walker(node.cast(), Some(look), context, 0);
        }
        let walk = &mut *context.cast::<Walk>();
        if let Some((mut what, hint)) = judge(node) {
            // Within a view there is no place in our text.
            let near = usize::try_from(pg_sys::exprLocation(node)).ok().and_then(|at| walk.query.get(at..));
            if let Some(near) = near {
                let shown: String = near.chars().take(40).collect();
                what = format!("{what} near \"{}\"", shown.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            walk.found = Some((what, hint));
            return true;
        }
        pg_sys::expression_tree_walker(node, Some(look), context)
    }
}

/// Whether this node by itself depends on the session.
unsafe fn judge(node: *mut Node) -> Option<(String, &'static str)> {
    // SAFETY: the tag says which node it is.
    unsafe {
        match (*node).type_ {
            NodeTag::T_FuncExpr => {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                function(call.funcid, &types(call.args), call.args)
            }
            NodeTag::T_OpExpr | NodeTag::T_DistinctExpr | NodeTag::T_NullIfExpr => {
                let call = &*node.cast::<pg_sys::OpExpr>();
                operator(call.opno, call.args)
            }
            NodeTag::T_ScalarArrayOpExpr => {
                let call = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                operator(call.opno, call.args)
            }
            NodeTag::T_RowCompareExpr => {
                let operators = (*node.cast::<pg_sys::RowCompareExpr>()).opnos;
                oids(operators).into_iter().find_map(|opno| operator(opno, std::ptr::null_mut()))
            }
            NodeTag::T_Aggref => {
                let call = &*node.cast::<pg_sys::Aggref>();
                function(call.aggfnoid, &oids(call.aggargtypes), std::ptr::null_mut())
            }
            NodeTag::T_WindowFunc => {
                let call = &*node.cast::<pg_sys::WindowFunc>();
                function(call.winfnoid, &types(call.args), call.args)
            }
            NodeTag::T_CoerceViaIO => {
                let cast = &*node.cast::<pg_sys::CoerceViaIO>();
                let (from, to) = (pg_sys::exprType(cast.arg.cast()), cast.resulttype);
                (depends(from, Form::Text) || depends(to, Form::Read)).then(|| {
                    (format!("the cast from {} to {}", type_name(from), type_name(to)), SAY_THE_FORMAT)
                })
            }
            NodeTag::T_RangeTblFunction => {
                // The columns of json_to_record and its like.
                let call = &*node.cast::<pg_sys::RangeTblFunction>();
                let column =
                    oids(call.funccoltypes).into_iter().find(|column| depends(*column, Form::Read))?;
                Some((
                    format!("a column of type {} that is read from JSON", type_name(column)),
                    SAY_THE_FORMAT,
                ))
            }
            NodeTag::T_SQLValueFunction => {
                use pg_sys::SQLValueFunctionOp::*;
                match (*node.cast::<pg_sys::SQLValueFunction>()).op {
                    SVFOP_CURRENT_TIMESTAMP | SVFOP_CURRENT_TIMESTAMP_N => None,
                    SVFOP_CURRENT_DATE => Some(("CURRENT_DATE".to_owned(), SAY_THE_ZONE)),
                    SVFOP_CURRENT_TIME
                    | SVFOP_CURRENT_TIME_N
                    | SVFOP_LOCALTIME
                    | SVFOP_LOCALTIME_N
                    | SVFOP_LOCALTIMESTAMP
                    | SVFOP_LOCALTIMESTAMP_N => Some(("the local time".to_owned(), SAY_THE_ZONE)),
                    _ => Some(("the current user, schema or database".to_owned(), SAY_WHAT)),
                }
            }
            // JSON_OBJECT and its like write values as jsonb_build_object does.
            #[cfg(not(feature = "pg15"))]
            NodeTag::T_JsonConstructorExpr => {
                let call = &*node.cast::<pg_sys::JsonConstructorExpr>();
                let written = types(call.args).into_iter().find(|argument| depends(*argument, Form::Json))?;
                Some((format!("a {} in a JSON constructor", type_name(written)), SAY_THE_FORMAT))
            }
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            NodeTag::T_JsonExpr => {
                let read = pg_sys::exprType(node);
                depends(read, Form::Read)
                    .then(|| (format!("a {} that is read from JSON", type_name(read)), SAY_THE_FORMAT))
            }
            _ => None,
        }
    }
}

/// Whether an operator depends on the session, with its arguments where they are known.
unsafe fn operator(operator: Oid, args: *mut pg_sys::List) -> Option<(String, &'static str)> {
    // SAFETY: plain look-ups; the arguments are expressions.
    unsafe {
        let (_, hint) = function(pg_sys::get_opcode(operator), &types(args), args)?;
        Some((format!("operator {}", owned(pg_sys::format_operator(operator))), hint))
    }
}

/// Whether a function depends on the session for arguments of these types.
unsafe fn function(function: Oid, types: &[Oid], args: *mut pg_sys::List) -> Option<(String, &'static str)> {
    // SAFETY: plain look-ups; the arguments are expressions.
    unsafe {
        let volatility = pg_sys::func_volatile(function) as u8;
        if volatility == pg_sys::PROVOLATILE_IMMUTABLE {
            return None;
        }
        let hint = if function.to_u32() >= FIRST_OF_USERS {
            if is_ours(function) || has_time_zone(function) {
                return None;
            }
            PIN_THE_FUNCTION
        } else if volatility == pg_sys::PROVOLATILE_VOLATILE {
            // random() and its like: not the same twice, but not for the session's sake.
            return None;
        } else {
            match function.to_u32() {
                pg_sys::F_NOW | pg_sys::F_TRANSACTION_TIMESTAMP | pg_sys::F_STATEMENT_TIMESTAMP
                // The zone is an argument.
                | pg_sys::F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT
                | pg_sys::F_MAKE_TIMESTAMPTZ_INT4_INT4_INT4_INT4_INT4_FLOAT8_TEXT
                // Only names of months and days, and the signs of currencies, depend on lc_time and lc_monetary.
                | pg_sys::F_TO_CHAR_TIMESTAMP_TEXT | pg_sys::F_TO_CHAR_INTERVAL_TEXT | pg_sys::F_TO_CHAR_NUMERIC_TEXT
                | pg_sys::F_TO_CHAR_INT4_TEXT | pg_sys::F_TO_CHAR_INT8_TEXT | pg_sys::F_TO_CHAR_FLOAT4_TEXT
                | pg_sys::F_TO_CHAR_FLOAT8_TEXT | pg_sys::F_TO_DATE | pg_sys::F_TO_NUMBER
                | pg_sys::F_CONVERT | pg_sys::F_CONVERT_FROM | pg_sys::F_CONVERT_TO | pg_sys::F_LENGTH_BYTEA_NAME
                | pg_sys::F_ENUM_FIRST | pg_sys::F_ENUM_LAST | pg_sys::F_ENUM_RANGE_ANYENUM
                | pg_sys::F_ENUM_RANGE_ANYENUM_ANYENUM | pg_sys::F_PG_TYPEOF | pg_sys::F_PG_COLUMN_SIZE
                // Their columns are looked at by themselves.
                | pg_sys::F_JSON_TO_RECORD | pg_sys::F_JSON_TO_RECORDSET
                | pg_sys::F_JSONB_TO_RECORD | pg_sys::F_JSONB_TO_RECORDSET => return None,
                pg_sys::F_TIMESTAMPTZ_PL_INTERVAL | pg_sys::F_TIMESTAMPTZ_MI_INTERVAL
                | pg_sys::F_INTERVAL_PL_TIMESTAMPTZ
                | pg_sys::F_GENERATE_SERIES_TIMESTAMPTZ_TIMESTAMPTZ_INTERVAL
                    if has_fixed_interval(args) =>
                {
                    return None;
                }
                pg_sys::F_CONCAT | pg_sys::F_CONCAT_WS | pg_sys::F_FORMAT_TEXT | pg_sys::F_FORMAT_TEXT_ANY
                | pg_sys::F_QUOTE_LITERAL_ANYELEMENT | pg_sys::F_QUOTE_NULLABLE_ANYELEMENT
                | pg_sys::F_ARRAY_TO_STRING_ANYARRAY_TEXT | pg_sys::F_ARRAY_TO_STRING_ANYARRAY_TEXT_TEXT
                | pg_sys::F_TEXTANYCAT | pg_sys::F_ANYTEXTCAT => {
                    types.iter().find(|argument| depends(**argument, Form::Text))?;
                    SAY_THE_FORMAT
                }
                pg_sys::F_TO_JSON | pg_sys::F_TO_JSONB | pg_sys::F_ARRAY_TO_JSON_ANYARRAY
                | pg_sys::F_ARRAY_TO_JSON_ANYARRAY_BOOL | pg_sys::F_ROW_TO_JSON_RECORD
                | pg_sys::F_ROW_TO_JSON_RECORD_BOOL | pg_sys::F_JSON_AGG | pg_sys::F_JSONB_AGG
                | pg_sys::F_JSON_OBJECT_AGG | pg_sys::F_JSONB_OBJECT_AGG | pg_sys::F_JSON_BUILD_ARRAY_ANY
                | pg_sys::F_JSON_BUILD_ARRAY_ | pg_sys::F_JSON_BUILD_OBJECT_ANY | pg_sys::F_JSON_BUILD_OBJECT_
                | pg_sys::F_JSONB_BUILD_ARRAY_ANY | pg_sys::F_JSONB_BUILD_ARRAY_ | pg_sys::F_JSONB_BUILD_OBJECT_ANY
                | pg_sys::F_JSONB_BUILD_OBJECT_ => {
                    types.iter().find(|argument| depends(**argument, Form::Json))?;
                    SAY_THE_FORMAT
                }
                pg_sys::F_JSON_POPULATE_RECORD | pg_sys::F_JSON_POPULATE_RECORDSET
                | pg_sys::F_JSONB_POPULATE_RECORD | pg_sys::F_JSONB_POPULATE_RECORDSET => {
                    types.iter().find(|argument| depends(**argument, Form::Read))?;
                    SAY_THE_FORMAT
                }
                _ if types.iter().any(|argument| is_time(*argument)) => SAY_THE_ZONE,
                _ => SAY_WHAT,
            }
        };
        Some((owned(pg_sys::format_procedure(function)), hint))
    }
}

/// Whether the last argument is an interval that is as long everywhere: without days, which a zone may lengthen.
unsafe fn has_fixed_interval(args: *mut pg_sys::List) -> bool {
    // SAFETY: the arguments are expressions; a constant interval is a fixed 16-byte struct passed by reference.
    unsafe {
        nodes::<Node>(args).iter().any(|argument| {
            if (**argument).type_ != NodeTag::T_Const {
                return false;
            }
            let value = &*argument.cast::<pg_sys::Const>();
            value.consttype == pg_sys::INTERVALOID && !value.constisnull && {
                let interval = &*value.constvalue.cast_mut_ptr::<pg_sys::Interval>();
                interval.day == 0 && interval.month == 0
            }
        })
    }
}

/// Whether a function is one of the extension's: these do not look at settings, or bring their own.
unsafe fn is_ours(function: Oid) -> bool {
    // SAFETY: plain look-ups.
    unsafe {
        let schema = pg_sys::get_func_namespace(function);
        [c"tidemark", c"tidemark_internal"]
            .iter()
            .any(|ours| pg_sys::get_namespace_oid(ours.as_ptr(), true) == schema)
    }
}

/// Whether a function sets the time zone for itself.
unsafe fn has_time_zone(function: Oid) -> bool {
    // SAFETY: plain look-ups; the tuple is released after the attribute was copied.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, Datum::from(function));
        if tuple.is_null() {
            return false;
        }
        let mut is_null = false;
        let config = pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::PROCOID as c_int,
            tuple,
            pg_sys::Anum_pg_proc_proconfig as pg_sys::AttrNumber,
            &mut is_null,
        );
        let settings = <Vec<String> as FromDatum>::from_datum(config, is_null).unwrap_or_default();
        pg_sys::ReleaseSysCache(tuple);
        settings.iter().any(|setting| setting.to_lowercase().starts_with("timezone="))
    }
}

fn is_time(of: Oid) -> bool {
    matches!(
        of,
        pg_sys::TIMESTAMPTZOID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMETZOID
            | pg_sys::TIMEOID
            | pg_sys::DATEOID
            | pg_sys::INTERVALOID
    )
}

/// Whether values of a type are written as text, or read from it, in a way that settings change.
unsafe fn depends(of: Oid, form: Form) -> bool {
    // SAFETY: plain look-ups.
    unsafe {
        pg_sys::check_stack_depth();
        let of = pg_sys::getBaseType(of);
        match of {
            pg_sys::TIMESTAMPTZOID | pg_sys::TIMETZOID | pg_sys::INTERVALOID | pg_sys::MONEYOID => {
                return true;
            }
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID => return form != Form::Json,
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID | pg_sys::BYTEAOID => return form != Form::Read,
            pg_sys::TIMEOID => return false,
            pg_sys::RECORDOID => return true,
            _ => {}
        }
        let element = pg_sys::get_element_type(of);
        let range = pg_sys::get_range_subtype(of);
        let multirange = pg_sys::get_multirange_range(of);
        if element != Oid::INVALID {
            return depends(element, form);
        } else if range != Oid::INVALID {
            return depends(range, form);
        } else if multirange != Oid::INVALID {
            return depends(multirange, form);
        }
        match pg_sys::get_typtype(of) as u8 {
            pg_sys::TYPTYPE_COMPOSITE => {
                let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(of, -1);
                (1..=(*descriptor).natts).any(|n| depends(pg_sys::SPI_gettypeid(descriptor, n), form))
            }
            pg_sys::TYPTYPE_BASE => {
                let (mut function, mut parameter, mut varies) = (Oid::INVALID, Oid::INVALID, false);
                if form == Form::Read {
                    pg_sys::getTypeInputInfo(of, &mut function, &mut parameter);
                } else {
                    pg_sys::getTypeOutputInfo(of, &mut function, &mut varies);
                }
                pg_sys::func_volatile(function) as u8 != pg_sys::PROVOLATILE_IMMUTABLE
            }
            // Enums are written by their labels; of what is no type yet nothing is known.
            _ => false,
        }
    }
}

/// The types of expressions in a list.
unsafe fn types(args: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: the list is one of expressions.
    unsafe { nodes::<Node>(args).iter().map(|argument| pg_sys::exprType(*argument)).collect() }
}

/// The elements of a list of oids.
unsafe fn oids(list: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: a ListCell of such a list is one oid.
    unsafe {
        if list.is_null() {
            return vec![];
        }
        (0..usize::try_from((*list).length).unwrap_or(0))
            .map(|n| (*(*list).elements.add(n)).oid_value)
            .collect()
    }
}

unsafe fn type_name(of: Oid) -> String {
    // SAFETY: a plain look-up.
    unsafe { owned(pg_sys::format_type_be(of)) }
}

unsafe fn owned(text: *const c_char) -> String {
    // SAFETY: Postgres's names end with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
