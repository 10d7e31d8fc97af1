//! Doors: functions that anybody may call and that work with the rights of the extension's owner, knowing who called.
//!
//! `SECURITY DEFINER` would not do: the work could not tell who called it. `current_user` is the definer there, and the
//! session's user and the outer user are somebody else's inside a model's query or another definer's function. Who may do
//! what is asked in the work itself (`tidemark_internal.may_act_as`, `sql/act.sql`).

use std::ffi::{CStr, c_int};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FmgrInfo, Oid};

use crate::support::args;
use crate::support::error::raise;
use crate::support::pg_function;
use crate::support::settings::under;

/// What a door remembers between calls: the owner whose rights it lends, and the function behind it.
struct Behind {
    owner: Oid,
    function: FmgrInfo,
}

/// The owner of a function that is being called.
///
/// # Safety
/// There must be such a function.
pub(crate) unsafe fn owner_of_function(function: Oid) -> Oid {
    // SAFETY: see above; the tuple is released after its field is copied.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, Datum::from(function));
        if tuple.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("function {} is gone", function.to_u32()),
            );
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).proowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

/// Finds the function behind a door: of the same name in `tidemark_internal`, with the caller's oid before the arguments.
///
/// # Safety
/// `flinfo` must be that of the call.
unsafe fn find(flinfo: *mut FmgrInfo) -> *mut Behind {
    // SAFETY: the door is being called, so its catalog row exists; everything is placed in the memory of the call site.
    unsafe {
        let door = (*flinfo).fn_oid;
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, Datum::from(door));
        if tuple.is_null() {
            raise(PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION, format!("function {} is gone", door.to_u32()));
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let (owner, count) = ((*form).proowner, (*form).pronargs as usize);
        let mut types = vec![pg_sys::OIDOID];
        types.extend_from_slice((*form).proargtypes.values.as_slice(count));
        let name = pg_sys::pstrdup((*form).proname.data.as_ptr());
        pg_sys::ReleaseSysCache(tuple);
        let found = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            Datum::from(name),
            Datum::from(pg_sys::buildoidvector(types.as_ptr(), types.len() as c_int)),
            Datum::from(pg_sys::get_namespace_oid(c"tidemark_internal".as_ptr(), false)),
            Datum::from(0),
        );
        if found == Oid::INVALID {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("there is no work behind function {}", CStr::from_ptr(name).to_string_lossy()),
            );
        }
        let behind = pg_sys::MemoryContextAllocZero((*flinfo).fn_mcxt, size_of::<Behind>()).cast::<Behind>();
        (*behind).owner = owner;
        pg_sys::fmgr_info_cxt(found, &raw mut (*behind).function, (*flinfo).fn_mcxt);
        behind
    }
}

pg_function! {
    /// Calls `tidemark_internal.<own name>(caller oid, ...)` with the rights of the owner of the function called.
    ///
    /// After an error Postgres itself restores the user when it aborts the (sub)transaction.
    fn tidemark_act(fcinfo) {
        let flinfo = (*fcinfo).flinfo;
        if (*flinfo).fn_extra.is_null() {
            (*flinfo).fn_extra = find(flinfo).cast();
        }
        let behind = (*flinfo).fn_extra.cast::<Behind>();
        let (mut caller, mut context) = (Oid::INVALID, 0);
        pg_sys::GetUserIdAndSecContext(&mut caller, &mut context);

        let count = args::count(fcinfo);
        let size = size_of::<pg_sys::FunctionCallInfoBaseData>() + (count + 1) * size_of::<pg_sys::NullableDatum>();
        let call = pg_sys::palloc0(size).cast::<pg_sys::FunctionCallInfoBaseData>();
        (*call).flinfo = &raw mut (*behind).function;
        (*call).context = (*fcinfo).context;
        (*call).resultinfo = (*fcinfo).resultinfo;
        (*call).fncollation = (*fcinfo).fncollation;
        (*call).nargs = count as i16 + 1;
        let given = (*fcinfo).args.as_slice(count);
        let passed = (*call).args.as_mut_slice(count + 1);
        passed[0].value = Datum::from(caller);
        passed[1..].copy_from_slice(given);

        // Names of relations are stored, compared and built upon, so they are written in one way.
        let plain_names: (&CStr, &CStr) = (c"quote_all_identifiers", c"off");
        pg_sys::SetUserIdAndSecContext((*behind).owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
        let function = (*behind).function.fn_addr;
        let result = match function {
            Some(function) => under(&[plain_names], || pg_sys::ffi::pg_guard_ffi_boundary(|| function(call))),
            None => raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "function without an address"),
        };
        pg_sys::SetUserIdAndSecContext(caller, context);
        (*fcinfo).isnull = (*call).isnull;
        result
    }
}

pg_function! {
    /// `current_xid() -> xid`.
    fn tidemark_current_xid(_fcinfo) { Datum::from(pg_sys::GetCurrentTransactionId().into_inner()) }
}
