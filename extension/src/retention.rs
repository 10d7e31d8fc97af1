//! Retention: the aggregates `retention`, `cohort_member` and `cohort_retention`.
//!
//! What is retained when stands in `tidemark_core::retention`; the SQL declarations in `sql/retention.sql`.

use std::ffi::c_int;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::retention::calendar::DAY;
use tidemark_core::retention::cohort::{CohortLog, Member, Spec};
use tidemark_core::retention::matrix::Matrix;
use tidemark_core::retention::retention;

use crate::support::aggregate::{context, give, give_none, state};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::conditions::Conditions;
use crate::support::error::{OrRaise, invalid_argument, raise, raise_hint};
use crate::support::pg_function;

/// Format of a partial state: version, configuration, content.
const STATE_VERSION: u8 = 1;

const INVALID: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;

/// The first day that a date can be, 4714-11-24 BC, as days since 2000-01-01.
const FIRST_DATE: i64 = -2_451_545;

/// The state of `retention`: which conditions were ever true.
#[derive(Clone, Copy)]
struct Seen {
    conditions: Conditions,
    bits: u32,
}

pg_function! {
    /// Transition of `retention`: (internal, conditions) -> internal.
    fn tidemark_retention_transition(fcinfo) {
        let context = context(fcinfo);
        let state = match state::<Seen>(fcinfo, 0) {
            Some(state) => state,
            None => &mut *context.place(Seen { conditions: Conditions::of_call(fcinfo, 1, 1, "condition"), bits: 0 }),
        };
        state.bits |= state.conditions.bits(fcinfo);
        give(state)
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_retention_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<Seen>(fcinfo, 0), state::<Seen>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (None, Some(from)) => give(context.place(*from)),
            (Some(into), Some(from)) => {
                if into.conditions != from.conditions {
                    raise(INVALID, "the number of conditions must be the same for all rows of a group");
                }
                into.bits |= from.bits;
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_retention_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<Seen>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        state.conditions.encode(&mut w);
        w.u32(state.bits);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_retention_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state = decode_seen(bytes).or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of retention");
        give(context.place(state))
    }
}

fn decode_seen(bytes: &[u8]) -> Result<Seen, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let seen = Seen { conditions: Conditions::decode(&mut r)?, bits: r.u32()? };
    r.finish()?;
    Ok(seen)
}

pg_function! {
    /// Final function of `retention`: (internal) -> boolean[]; empty without a row.
    fn tidemark_retention_final(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<Seen>(fcinfo, 0) else {
            return Datum::from(pg_sys::construct_empty_array(pg_sys::BOOLOID));
        };
        let count = state.conditions.count();
        let bits = retention(state.bits, count);
        make_array((0..count).map(|i| Some(Datum::from(bits >> i & 1 == 1))), pg_sys::BOOLOID)
    }
}

/// An array of booleans or bigints in the current memory context.
fn make_array(elements: impl ExactSizeIterator<Item = Option<Datum>>, element: Oid) -> Datum {
    let mut values = AVec::with_capacity_in(elements.len(), ContextAlloc::current());
    let mut nulls = AVec::with_capacity_in(elements.len(), ContextAlloc::current());
    for value in elements {
        nulls.push(value.is_none());
        values.push(value.unwrap_or(Datum::from(0)));
    }
    let (length, align) = if element == pg_sys::BOOLOID { (1, b'c') } else { (8, b'd') };
    let (mut dims, mut lower_bounds) = ([values.len() as c_int], [1]);
    // SAFETY: both types are passed by value; values and nulls are equally long.
    unsafe {
        if values.is_empty() {
            return Datum::from(pg_sys::construct_empty_array(element));
        }
        Datum::from(pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            dims.as_mut_ptr(),
            lower_bounds.as_mut_ptr(),
            element,
            length,
            true,
            align as _,
        ))
    }
}

/// The state of `cohort_member`, and its constant arguments as they were written, to notice when they change.
struct CohortState {
    written: Written,
    log: CohortLog<ContextAlloc>,
}

/// The constant arguments of `cohort_member`.
struct Written {
    period: AVec<u8, ContextAlloc>,
    mode: AVec<u8, ContextAlloc>,
    periods: i32,
    as_of: i64,
}

impl Written {
    fn copy(period: &[u8], mode: &[u8], periods: i32, as_of: i64, context: ContextAlloc) -> Self {
        let copy = |bytes: &[u8]| {
            let mut copy = AVec::with_capacity_in(bytes.len(), context);
            copy.extend_from_slice(bytes);
            copy
        };
        Self { period: copy(period), mode: copy(mode), periods, as_of }
    }
}

/// A constant argument that must not be NULL.
fn given<T>(value: Option<T>, name: &str) -> T {
    match value {
        Some(value) => value,
        None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be NULL")),
    }
}

pg_function! {
    /// Transition of `cohort_member`: (internal, period, mode, periods, as_of, event_time, is_start, is_return) -> internal.
    fn tidemark_cohort_member_transition(fcinfo) {
        let context = context(fcinfo);
        let period = given(args::bytes(fcinfo, 1), "period");
        let mode = given(args::bytes(fcinfo, 2), "mode");
        let periods = given(args::int32(fcinfo, 3), "periods");
        let as_of = given(args::timestamp(fcinfo, 4), "as_of");
        let state = match state::<CohortState>(fcinfo, 0) {
            Some(state) => {
                let w = &state.written;
                if (&w.period[..], &w.mode[..], w.periods, w.as_of) != (period, mode, periods, as_of) {
                    raise(INVALID, "period, mode, periods and as_of must be the same for all rows of a group");
                }
                state
            }
            None => {
                let (Some(unit), Some(words)) = (args::text(fcinfo, 1, "period"), args::text(fcinfo, 2, "mode")) else {
                    return give_none(fcinfo);
                };
                let spec = match Spec::parse(unit, words, i64::from(periods), as_of) {
                    Ok(spec) => spec,
                    Err(error) => invalid_argument(error.to_string(), "For example ('week', 'on', 9, now(), ...)."),
                };
                let written = Written::copy(period, mode, periods, as_of, context);
                &mut *context.place(CohortState { written, log: CohortLog::new_in(spec, context) })
            }
        };
        if let Some(time) = args::event_time(fcinfo, 5) {
            state.log.push(time, args::is_true(fcinfo, 6), args::is_true(fcinfo, 7));
        }
        give(state)
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_cohort_member_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<CohortState>(fcinfo, 0), state::<CohortState>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => {
                        let w = &from.written;
                        let written = Written::copy(&w.period, &w.mode, w.periods, w.as_of, context);
                        &mut *context.place(CohortState { written, log: CohortLog::new_in(*from.log.spec(), context) })
                    }
                };
                into.log.append(&from.log).or_raise(INVALID, "cohort_member");
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_cohort_member_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<CohortState>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut log = AVec::new_in(ContextAlloc::current());
        state.log.encode(&mut log);
        let mut bytes = AVec::with_capacity_in(log.len() + 64, ContextAlloc::current());
        let mut w = Writer::new(&mut bytes, STATE_VERSION);
        w.bytes(&state.written.period);
        w.bytes(&state.written.mode);
        w.u32(state.written.periods.cast_unsigned());
        w.i64(state.written.as_of);
        w.bytes(&log);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_cohort_member_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state = decode_cohort(bytes, context)
            .or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of cohort_member");
        give(context.place(state))
    }
}

fn decode_cohort(bytes: &[u8], context: ContextAlloc) -> Result<CohortState, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let (period, mode) = (r.bytes()?, r.bytes()?);
    let (periods, as_of) = (r.u32()?.cast_signed(), r.i64()?);
    let log = CohortLog::decode_in(r.bytes()?, context)?;
    r.finish()?;
    Ok(CohortState { written: Written::copy(period, mode, periods, as_of, context), log })
}

pg_function! {
    /// Final function of `cohort_member`: (internal) -> tidemark.cohort_member[]; empty without a start.
    fn tidemark_cohort_member_final(fcinfo) {
        context(fcinfo);
        let element = element_type(fcinfo);
        let members = state::<CohortState>(fcinfo, 0)
            .map_or_else(Vec::new, |state| state.log.members(|| { pgrx::check_for_interrupts!(); }));
        if members.is_empty() {
            return Datum::from(pg_sys::construct_empty_array(element));
        }
        check_size(&members);
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(element, -1);
        let mut datums = AVec::with_capacity_in(members.len(), ContextAlloc::current());
        for member in &members {
            let date = member.cohort.div_euclid(DAY).max(FIRST_DATE);
            let retained = member.retained.iter().map(|r| r.map(Datum::from));
            let mut values = [Datum::from(date as i32), make_array(retained, pg_sys::BOOLOID)];
            let mut nulls = [false; 2];
            let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            datums.push(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data));
        }
        let array = pg_sys::construct_array(datums.as_mut_ptr(), datums.len() as c_int, element, -1, false, b'd' as _);
        Datum::from(array)
    }
}

/// Refuses what would pass Postgres' limit of 1 GB for an array, with a message that helps.
fn check_size(members: &[Member]) {
    let bytes: usize = members.iter().map(|member| 100 + member.retained.len() * 2).sum();
    if bytes > 1 << 29 {
        raise_hint(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{} cohorts of one group do not fit into an array", members.len()),
            "Group by person, or ask for fewer periods.",
        );
    }
}

/// The element type of the declared result: works in any search path and without an expression tree.
///
/// # Safety
/// `fcinfo` must be the frame that Postgres passed.
unsafe fn element_type(fcinfo: FunctionCallInfo) -> Oid {
    // SAFETY: the function is being called, so its catalog row exists.
    unsafe { pg_sys::get_element_type(pg_sys::get_func_rettype((*(*fcinfo).flinfo).fn_oid)) }
}

/// The state of `cohort_retention`: a matrix of one cohort, since GROUP BY separates them.
type Counts = Matrix<ContextAlloc>;

/// The one cohort of [`Counts`].
const COHORT: i64 = 0;

const SAME_PERIODS: &str = "retained must have the same number of periods in all rows of a group";

pg_function! {
    /// Transition of `cohort_retention`: (internal, boolean[]) -> internal.
    fn tidemark_cohort_retention_transition(fcinfo) {
        use pgrx::FromDatum;
        let context = context(fcinfo);
        let state = state::<Counts>(fcinfo, 0);
        let retained = args::datum(fcinfo, 1)
            .and_then(|d| pgrx::Array::<bool>::from_polymorphic_datum(d, false, pg_sys::BOOLARRAYOID));
        let Some(retained) = retained else {
            return match state {
                Some(state) => give(state),
                None => give_none(fcinfo),
            };
        };
        if retained.is_empty() {
            invalid_argument("retained must not be empty", "Pass the column retained of tidemark.cohort_member.");
        }
        let state = match state {
            Some(state) => state,
            None => &mut *context.place(Matrix::new_in(context)),
        };
        let mut periods = AVec::with_capacity_in(retained.len(), ContextAlloc::current());
        periods.extend(retained.iter());
        state.push(COHORT, &periods).or_raise(INVALID, SAME_PERIODS);
        give(state)
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_cohort_retention_combine(fcinfo) {
        let context = context(fcinfo);
        match (state::<Counts>(fcinfo, 0), state::<Counts>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => &mut *context.place(Matrix::new_in(context)),
                };
                into.append(from).or_raise(INVALID, SAME_PERIODS);
                give(into)
            }
        }
    }
}

pg_function! {
    /// Serialize function: (internal) -> bytea. The matrix writes its own version.
    fn tidemark_cohort_retention_serialize(fcinfo) {
        context(fcinfo);
        let Some(state) = state::<Counts>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut bytes = AVec::new_in(ContextAlloc::current());
        state.encode(&mut bytes);
        args::make_varlena(&bytes)
    }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_cohort_retention_deserialize(fcinfo) {
        let context = context(fcinfo);
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let state: Counts = Matrix::decode_in(bytes, context)
            .or_raise(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, "read a partial state of cohort_retention");
        give(context.place(state))
    }
}

pg_function! {
    /// Final function of `cohort_retention`: (internal) -> bigint[]; empty without a row.
    fn tidemark_cohort_retention_final(fcinfo) {
        context(fcinfo);
        let row = state::<Counts>(fcinfo, 0).and_then(|state| state.rows().next());
        let counts = row.map_or_else(Vec::new, |row| row.retained);
        make_array(counts.iter().map(|n| n.map(|n| Datum::from(n as i64))), pg_sys::INT8OID)
    }
}
