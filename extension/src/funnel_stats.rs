//! Funnels over many persons: the type `funnel_stats`, its aggregates, and `funnel_table`.
//!
//! Figures and format are those of `tidemark_core::funnel::stats`; the SQL declarations stand in
//! `sql/funnel_stats.sql`.

use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::{AnyNumeric, IntoDatum, PgSqlErrorCode};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::funnel::stats::{FunnelStats, MAX_STEPS, StatsError};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::call_site::CallSite;
use crate::support::error::{INVALID, OrRaise, check_same, invalid_argument, not_null, raise, raise_hint};
use crate::support::pg_function;
use crate::support::set::give_rows;
use crate::support::stored::{Stored, read, stored_type, write};

type Stats = FunnelStats<ContextAlloc>;

impl Stored for Stats {
    const NAME: &'static str = "funnel_stats";
    type Error = DecodeError;

    fn decode_in(bytes: &[u8], context: ContextAlloc) -> Result<Self, DecodeError> {
        Self::decode_in(bytes, context)
    }

    fn encode(&self, out: &mut AVec<u8, ContextAlloc>) {
        Self::encode(self, out);
    }
}

stored_type!(funnel_stats: Stats);

impl State for Stats {
    fn like(&self, context: ContextAlloc) -> Self {
        new(self.steps() as i32, context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(Self::merge(self, other).is_ok(), "steps");
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        Self::encode(self, w.out());
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        Ok(read(r.rest(), context))
    }
}

aggregate! {
    funnel_stats: Stats {
        /// `funnel_stats`: (internal, chain, steps)
        transition tidemark_funnel_stats_transition = add;
        /// `funnel_stats_union_agg`: (internal, funnel_stats)
        transition tidemark_funnel_stats_union_transition = unite;
        /// funnel_stats, NULL without a row, since the number of steps is not known then.
        final tidemark_funnel_stats_final = |stats: Option<&mut Stats>, _| stats.map(|stats| write(stats));
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add(slot: &mut Slot<Stats>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let steps = not_null(args::int32(fcinfo, 2), "steps");
        let stats = slot.get_or_place(|context| new(steps, context));
        if stats.steps() as i64 != i64::from(steps) {
            new(steps, ContextAlloc::current());
            check_same(false, "steps");
        }
        let Some(chain) = array::elements(fcinfo, 1, "chain", Element::TIMESTAMPTZ) else { return };
        // One time too many is enough for an error; then none of them is looked at.
        let (mut times, found) = ([None; MAX_STEPS + 1], chain.len());
        for (place, time) in times.iter_mut().take(if found > MAX_STEPS { 0 } else { found }).zip(chain) {
            *place = time.map(|time| time.value() as i64);
            if let Some(i64::MIN | i64::MAX) = *place {
                raise(
                    PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
                    "chain must contain finite times only",
                );
            }
        }
        let error = match stats.push(times.get(..found).unwrap_or(&times)) {
            Ok(()) => return,
            Err(StatsError::Chain { steps, .. }) => StatsError::Chain { found, steps },
            Err(error) => error,
        };
        let hint = match error {
            StatsError::Chain { .. } => "Pass how many steps the funnel has, without excluded conditions.",
            _ => "Pass the result of tidemark.funnel.",
        };
        raise_hint(INVALID, error.to_string(), hint);
    }
}

fn new(steps: i32, context: ContextAlloc) -> Stats {
    match Stats::new_in(steps.into(), context) {
        Ok(stats) => stats,
        Err(_) => invalid_argument(
            format!("steps must be 1 to {MAX_STEPS}, not {steps}"),
            "Pass how many steps the funnel has, without excluded conditions.",
        ),
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn unite(slot: &mut Slot<Stats>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    let Some(bytes) = (unsafe { args::bytes(fcinfo, 1) }) else { return };
    match slot.get() {
        Some(stats) => {
            let other: Stats = read(bytes, ContextAlloc::current());
            check_same(stats.merge(&other).is_ok(), "steps");
        }
        None => {
            slot.get_or_place(|context| read(bytes, context));
        }
    }
}

pg_function! {
    /// `funnel_table(funnel_stats [, names text[]])`: one row a step, rounded for people.
    fn tidemark_funnel_table(fcinfo) {
        let stats = args::bytes(fcinfo, 0).map(|bytes| read::<Stats>(bytes, ContextAlloc::current()));
        let mut names = array::elements(fcinfo, 1, "names", Element::TEXT);
        if let (Some(stats), Some(names)) = (&stats, &names)
            && names.len() > stats.steps()
        {
            invalid_argument(
                format!("names has {} elements, the funnel has {} steps", names.len(), stats.steps()),
                "Pass one name per step, without excluded conditions.",
            );
        }
        give_rows(fcinfo, stats.iter().flat_map(Stats::rows).map(|row| {
            let name = names.as_mut().and_then(Iterator::next).flatten();
            [
                Some(Datum::from(row.step as i32)),
                Some(name.unwrap_or_else(|| args::make_varlena(format!("step {}", row.step).as_bytes()))),
                Some(Datum::from(i64::try_from(row.entered).unwrap_or(i64::MAX))),
                row.pct_of_first.and_then(|value| rounded(value, 2)),
                row.pct_of_previous.and_then(|value| rounded(value, 2)),
                row.median_seconds.and_then(|value| rounded(value, 3)),
                row.avg_seconds.and_then(|value| rounded(value, 3)),
            ]
        }))
    }
}

/// A finite figure as a numeric with so many decimals.
pub(crate) fn rounded(value: f64, decimals: usize) -> Option<Datum> {
    let text = format!("{value:.decimals$}");
    // Read as an integer, it takes a fraction of the time.
    if let Ok(digits) = text.replace('.', "").parse() {
        // SAFETY: takes any numbers, and returns a new numeric.
        return Some(Datum::from(unsafe { pg_sys::int64_div_fast_to_numeric(digits, decimals as i32) }));
    }
    AnyNumeric::try_from(text.as_str())
        .or_raise(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "round a figure of funnel_table")
        .into_datum()
}
