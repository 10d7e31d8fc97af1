//! Queries whose rows are looked at one by one where they lie, without a copy of the result; planned each time, or once a
//! session.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{PgMemoryContexts, PgSqlErrorCode, pg_guard};

use crate::support::args;
use crate::support::error::raise;

/// A row of a query; its values lie in a page or in memory that is free again after the row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl<'a> Row<'a> {
    /// A value; `None` for NULL and for a column that is not there.
    pub fn datum(&self, column: usize) -> Option<Datum> {
        self.values.get(column).copied().filter(|_| !self.nulls.get(column).is_none_or(|null| *null))
    }

    /// An integer, date or smallint.
    pub fn int(&self, column: usize) -> Option<i32> {
        self.datum(column).map(|datum| datum.value() as i32)
    }

    /// The content of a text or of a timeline.
    ///
    /// # Safety
    /// The column must be a varlena.
    pub unsafe fn bytes(&self, column: usize) -> Option<&'a [u8]> {
        // SAFETY: see above; what is fetched from elsewhere lives until the row is done.
        self.datum(column).map(|datum| unsafe { args::varlena_bytes(datum) })
    }

    /// The content of a text.
    ///
    /// # Safety
    /// The column must be a text.
    pub unsafe fn text(&self, column: usize) -> Option<&'a str> {
        // SAFETY: see above.
        unsafe { self.bytes(column) }.map(|bytes| args::utf8(bytes, "value"))
    }
}

#[repr(C)]
struct Receiver<'f> {
    base: pg_sys::DestReceiver,
    each: &'f mut dyn FnMut(Row<'_>),
    memory: PgMemoryContexts,
}

// These two do nothing, so nothing needs a guard.
unsafe extern "C-unwind" fn start(_: *mut pg_sys::DestReceiver, _: c_int, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn stop(_: *mut pg_sys::DestReceiver) {}

#[pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the receiver is the one that `each_row` passed; the slot has as many values as its descriptor says.
    unsafe {
        let receiver = &mut *receiver.cast::<Receiver>();
        let count = (*(*slot).tts_tupleDescriptor).natts as usize;
        pg_sys::slot_getallattrs(slot);
        let row = Row {
            values: std::slice::from_raw_parts((*slot).tts_values, count),
            nulls: std::slice::from_raw_parts((*slot).tts_isnull, count),
        };
        let each = &mut receiver.each;
        receiver.memory.switch_to(|_| each(row));
        receiver.memory.reset();
    }
    true
}

/// Runs a query with the rights of whoever is running now, under the snapshot of the calling query, and hands out its
/// rows.
pub fn each_row(sql: &str, arguments: &[(Oid, Datum)], each: impl FnMut(Row<'_>)) {
    run(sql, arguments, each, |sql, options| {
        // SAFETY: `run` is connected to SPI.
        unsafe { pg_sys::SPI_execute_extended(sql.as_ptr(), options) }
    });
}

type Plans = HashMap<CString, pg_sys::SPIPlanPtr>;

thread_local! {
    static PLANS: Cell<Plans> = Cell::default();
}

fn with_plans<T>(body: impl FnOnce(&mut Plans) -> T) -> T {
    let mut plans = PLANS.take();
    let result = body(&mut plans);
    PLANS.set(plans);
    result
}

/// So many plans are kept, a few for each timeline.
const MOST_PLANS: usize = 200;

/// The same for a query that is asked again and again and costs less than its plan, which is made once a session, for any
/// arguments. Postgres makes it anew when what it is about has changed.
///
/// For queries that name every table with its schema; the planner's settings are those of the first time.
pub fn each_row_of_kept(sql: &str, arguments: &[(Oid, Datum)], each: impl FnMut(Row<'_>)) {
    run(sql, arguments, each, |sql, options| {
        if let Some(plan) = with_plans(|plans| plans.get(sql).copied()) {
            // SAFETY: `run` is connected to SPI; the plan stays until the session ends.
            return unsafe { pg_sys::SPI_execute_plan_extended(plan, options) };
        }
        let mut kinds: Vec<Oid> = arguments.iter().map(|(kind, _)| *kind).collect();
        let generic = pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int;
        // SAFETY: as above; a plan that is not kept stays as long as the connection to SPI.
        unsafe {
            let plan =
                pg_sys::SPI_prepare_cursor(sql.as_ptr(), kinds.len() as c_int, kinds.as_mut_ptr(), generic);
            with_plans(|plans| {
                if plans.len() < MOST_PLANS && pg_sys::SPI_keepplan(plan) == 0 {
                    plans.insert(sql.to_owned(), plan);
                }
            });
            pg_sys::SPI_execute_plan_extended(plan, options)
        }
    });
}

fn run(
    sql: &str,
    arguments: &[(Oid, Datum)],
    mut each: impl FnMut(Row<'_>),
    execute: impl FnOnce(&CStr, &pg_sys::SPIExecuteOptions) -> c_int,
) {
    let Ok(sql) = CString::new(sql) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "text must not contain a zero byte")
    };
    let mut receiver = Receiver {
        base: pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(start),
            rShutdown: Some(stop),
            rDestroy: Some(stop),
            mydest: pg_sys::CommandDest::DestNone,
        },
        each: &mut each,
        memory: PgMemoryContexts::new("tidemark row"),
    };
    // SAFETY: SPI is connected and finished in pairs, an error in between aborts both. The receiver outlives the query,
    // and its first field is what Postgres knows of it.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "cannot connect to SPI");
        }
        let params = pg_sys::makeParamList(arguments.len() as c_int);
        for (place, (kind, value)) in (*params).params.as_mut_slice(arguments.len()).iter_mut().zip(arguments)
        {
            *place = pg_sys::ParamExternData {
                value: *value,
                isnull: false,
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: *kind,
            };
        }
        let options = pg_sys::SPIExecuteOptions {
            params,
            read_only: true,
            dest: (&raw mut receiver).cast(),
            ..Default::default()
        };
        let code = execute(&sql, &options);
        if code < 0 {
            raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("query failed with SPI code {code}"));
        }
        pg_sys::SPI_finish();
    }
}

/// The name of a relation, qualified and quoted; an ERROR if it is gone.
pub fn name_of(relation: Oid) -> String {
    // SAFETY: plain catalog look-ups; what they return is checked for null and copied.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation {} does not exist", relation.to_u32()),
            );
        }
        CStr::from_ptr(pg_sys::quote_qualified_identifier(schema, name)).to_string_lossy().into_owned()
    }
}
