//! Retention: the aggregates `retention`, `cohort_member` and `cohort_retention`.
//!
//! What is retained when stands in `tidemark_core::retention`; the SQL declarations in `sql/retention.sql`.

use std::ffi::c_int;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::retention::calendar::DAY;
use tidemark_core::retention::cohort::{CohortLog, MAX_PERIODS, Spec, time_zone};
use tidemark_core::retention::matrix::Matrix;
use tidemark_core::retention::retention;

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::call_site::CallSite;
use crate::support::conditions::Conditions;
use crate::support::error::{check_same, invalid_argument, not_null, raise_hint};
use crate::support::interrupts::Interrupts;

/// The first day that a date can be, 4714-11-24 BC, as days since 2000-01-01.
const FIRST_DATE: i64 = -2_451_545;

/// The state of `retention`: which conditions were ever true.
struct Seen {
    conditions: Conditions,
    bits: u32,
}

impl State for Seen {
    fn like(&self, _: ContextAlloc) -> Self {
        Self { conditions: self.conditions, bits: 0 }
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        self.conditions.check_same(other.conditions.count());
        self.bits |= other.bits;
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.conditions.encode(w);
        w.u32(self.bits);
    }

    fn decode(r: &mut Reader<'_>, _: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        Ok(Self { conditions: Conditions::decode(r)?, bits: r.u32()? })
    }
}

aggregate! {
    retention: Seen {
        /// (internal, VARIADIC conditions)
        transition tidemark_retention_transition = see;
        /// boolean[], empty without a row.
        final tidemark_retention_final = seen;
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn see(slot: &mut Slot<Seen>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let conditions = |_| Seen { conditions: Conditions::of_call(fcinfo, 1, 1, "condition"), bits: 0 };
        let state = slot.get_or_place(conditions);
        state.bits |= state.conditions.bits(fcinfo);
    }
}

unsafe fn seen(state: Option<&mut Seen>, _: FunctionCallInfo) -> Option<Datum> {
    let (bits, count) = state.map_or((0, 0), |state| (state.bits, state.conditions.count()));
    let bits = retention(bits, count);
    Some(array::make((0..count).map(|i| Some(Datum::from(bits >> i & 1 == 1))), Element::BOOL))
}

/// The state of `cohort_member`, and its arguments as they were written, to notice quickly that they are the same.
struct Cohorts {
    period: AVec<u8, ContextAlloc>,
    mode: AVec<u8, ContextAlloc>,
    as_of: i64,
    log: CohortLog<ContextAlloc>,
}

impl Cohorts {
    fn new(spec: Spec, period: &[u8], mode: &[u8], as_of: i64, context: ContextAlloc) -> Self {
        let copy = |bytes: &[u8]| {
            let mut copy = AVec::with_capacity_in(bytes.len(), context);
            copy.extend_from_slice(bytes);
            copy
        };
        Self { period: copy(period), mode: copy(mode), as_of, log: CohortLog::new_in(spec, context) }
    }
}

/// What the clock of a time zone shows at a time, as a time of UTC.
///
/// # Safety
/// Must be called within Postgres; a time zone that it does not know is an ERROR.
unsafe fn by_clock(zone: &str, time: i64) -> i64 {
    // SAFETY: (text, timestamptz) -> timestamp, which has the same form as a timestamptz.
    unsafe {
        let zone = pg_sys::cstring_to_text_with_len(zone.as_ptr().cast(), zone.len() as c_int);
        let arguments = [Some(Datum::from(zone)), Some(Datum::from(time))];
        let local = pgrx::direct_function_call_as_datum(pg_sys::timestamptz_zone, &arguments);
        pg_sys::pfree(zone.cast());
        local.map_or(time, |local| local.value() as i64)
    }
}

const COHORT_ARGUMENTS: &str = "period, mode, periods and as_of";

impl State for Cohorts {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new(*self.log.spec(), &[], &[], self.as_of, context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.log.append(&other.log, Interrupts).is_ok(), COHORT_ARGUMENTS);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.log.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let none = || AVec::new_in(context);
        let log = CohortLog::decode_in(r, context, Interrupts)?;
        Ok(Self { period: none(), mode: none(), as_of: log.spec().as_of(), log })
    }
}

aggregate! {
    cohort_member: Cohorts {
        /// (internal, period, mode, periods, as_of, event_time, is_start, is_return)
        transition tidemark_cohort_member_transition = add;
        /// tidemark.cohort_member[], empty without a start.
        final tidemark_cohort_member_final = members;
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add(slot: &mut Slot<Cohorts>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let period = not_null(args::bytes(fcinfo, 1), "period");
        let mode = not_null(args::bytes(fcinfo, 2), "mode");
        let periods = i64::from(not_null(args::int32(fcinfo, 3), "periods"));
        let as_of = not_null(args::timestamp(fcinfo, 4), "as_of");
        let spec = || {
            let mode = args::word(mode, "mode");
            let known = time_zone(mode).map_or(as_of, |zone| by_clock(zone, as_of));
            match Spec::parse(args::word(period, "period"), mode, periods, known) {
                Ok(spec) => spec,
                Err(error) => {
                    invalid_argument(error.to_string(), "For example ('week', 'on', 9, now(), ...).")
                }
            }
        };
        let state = slot.get_or_place(|context| Cohorts::new(spec(), period, mode, as_of, context));
        let old = state.log.spec();
        if (&state.period[..], &state.mode[..], old.periods(), state.as_of) != (period, mode, periods, as_of)
        {
            check_same(*old == spec(), COHORT_ARGUMENTS);
        }
        if let Some(time) = args::event_time(fcinfo, 5).filter(|time| *time < as_of) {
            let zone = if old.is_utc() { None } else { time_zone(args::word(mode, "mode")) };
            let time = zone.map_or(time, |zone| by_clock(zone, time));
            state.log.push(time, args::is_true(fcinfo, 6), args::is_true(fcinfo, 7));
        }
    }
}

/// # Safety
/// `fcinfo` must be the frame of a function that returns tidemark.cohort_member[].
unsafe fn members(mut state: Option<&mut Cohorts>, fcinfo: FunctionCallInfo) -> Option<Datum> {
    if let Some(state) = &mut state {
        let (count, periods) = (state.log.members(Interrupts).count(), state.log.spec().periods());
        // What would pass Postgres' limit of 1 GB for an array.
        if count.saturating_mul(100 + 2 * periods as usize) > 1 << 29 {
            raise_hint(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("{count} cohorts of one group do not fit into an array"),
                "Group by person, or ask for fewer periods.",
            );
        }
    }
    let rows = state.into_iter().flat_map(|state| state.log.members(Interrupts)).map(|member| {
        let date = member.cohort.div_euclid(DAY).max(FIRST_DATE);
        let retained = member.retained().map(|r| r.map(Datum::from));
        [Some(Datum::from(date as i32)), Some(array::make(retained, Element::BOOL))]
    });
    // SAFETY: see above.
    Some(unsafe { array::make_rows(CallSite::of(fcinfo), [pg_sys::DATEOID, pg_sys::BOOLARRAYOID], rows) })
}

/// The state of `cohort_retention`: a matrix of one cohort, since GROUP BY separates them.
type Counts = Matrix<ContextAlloc>;

/// The one cohort of [`Counts`].
const COHORT: i64 = 0;

const SAME_PERIODS: &str = "the number of periods in retained";

impl State for Counts {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new_in(context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.append(other).is_ok(), SAME_PERIODS);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        Self::encode(self, w);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        Self::decode_in(r, context)
    }
}

aggregate! {
    cohort_retention: Counts {
        /// (internal, retained)
        transition tidemark_cohort_retention_transition = add_member;
        /// bigint[], empty without a row.
        final tidemark_cohort_retention_final = |counts: Option<&mut Counts>, _| {
            let row = counts.as_deref().and_then(|counts| counts.rows().next());
            let retained = row.iter().flat_map(|row| row.retained());
            let mut datums = AVec::new_in(ContextAlloc::current());
            datums.extend(retained.map(|n| n.map(|n| Datum::from(n as i64))));
            Some(array::make(datums.into_iter(), Element::INT8))
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add_member(slot: &mut Slot<Counts>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    let Some(retained) = (unsafe { array::elements(fcinfo, 1, "retained", Element::BOOL) }) else { return };
    if !(1..=MAX_PERIODS as usize).contains(&retained.len()) {
        invalid_argument(
            format!("retained must have 1 to {MAX_PERIODS} elements, not {}", retained.len()),
            "Pass the column retained of tidemark.cohort_member.",
        );
    }
    let mut periods = AVec::with_capacity_in(retained.len(), ContextAlloc::current());
    periods.extend(retained.map(|element| element.map(|element| element.value() as u8 != 0)));
    check_same(slot.get_or_place(Matrix::new_in).push(COHORT, &periods).is_ok(), SAME_PERIODS);
}
