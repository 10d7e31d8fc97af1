//! The aggregate `attribution`: what each touch of a person gets of each conversion.
//!
//! The weights are found by `tidemark_core::attribution`. Here they split an amount, which stays a numeric: a sum of
//! shares is rounded, not each of them, so that they add up to the last decimal.

use pgrx::PgSqlErrorCode;
use pgrx::direct_function_call_as_datum;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::attribution::{Journey, Spec};
use tidemark_core::codec::{DecodeError, Reader, Writer};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::array;
use crate::support::call_site::CallSite;
use crate::support::error::{check_same, invalid_argument, not_null, raise, raise_hint};
use crate::support::interrupts::Interrupts;
use crate::support::interval::fixed_microseconds;

/// Who gets a conversion without touches.
const UNATTRIBUTED: &[u8] = b"Unattributed";

/// The fewest decimals of a share.
const CENTS: i32 = 2;

/// So many credits of 100 bytes and more would pass Postgres' limit of 1 GB for an array.
const MOST_CREDITS: usize = 2_000_000;

const ARGUMENTS: &str = "model and look_back";

/// The state: a journey, and the model as it was written, to notice quickly that it is the same.
struct Credits {
    model: AVec<u8, ContextAlloc>,
    look_back: i64,
    journey: Journey<ContextAlloc>,
}

impl Credits {
    fn new(spec: Spec, model: &[u8], look_back: i64, context: ContextAlloc) -> Self {
        let mut copy = AVec::with_capacity_in(model.len(), context);
        copy.extend_from_slice(model);
        Self { model: copy, look_back, journey: Journey::new_in(spec, context) }
    }
}

impl State for Credits {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new(*self.journey.spec(), &[], 0, context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.journey.append(&other.journey, Interrupts).is_ok(), ARGUMENTS);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.journey.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let journey = Journey::decode_in(r, context, Interrupts)?;
        Ok(Self { model: AVec::new_in(context), look_back: 0, journey })
    }
}

aggregate! {
    attribution: Credits {
        /// (internal, model, look_back, event_time, channel, amount)
        transition tidemark_attribution_transition = add;
        /// tidemark.credit[], empty without a conversion.
        final tidemark_attribution_final = credits;
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add(slot: &mut Slot<Credits>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let model = not_null(args::bytes(fcinfo, 1), "model");
        let look_back = fixed_microseconds(not_null(args::interval(fcinfo, 2), "look_back"), "look_back");
        let spec = || match Spec::parse(args::word(model, "model"), look_back) {
            Ok(spec) => spec,
            Err(error) => invalid_argument(
                error.to_string(),
                "'last' is the last touch that is not direct, 'last,direct' the last one whatever it is.",
            ),
        };
        let state = slot.get_or_place(|context| Credits::new(spec(), model, look_back, context));
        if (&state.model[..], state.look_back) != (model, look_back) {
            check_same(*state.journey.spec() == spec(), ARGUMENTS);
        }
        let Some(time) = args::event_time(fcinfo, 3) else { return };
        if let Some(channel) = args::bytes(fcinfo, 4) {
            state.journey.touch(time, channel, Interrupts);
        }
        if let Some(amount) = args::datum(fcinfo, 5) {
            state.journey.convert(time, args::varlena_bytes(amount), Interrupts);
        }
    }
}

/// Calls a function of numerics that never returns NULL for them, and frees the first argument if wanted: credits are many.
fn numeric(function: unsafe fn(FunctionCallInfo) -> Datum, arguments: [Datum; 2], free: bool) -> Datum {
    // SAFETY: the callers pass functions of Postgres and what these take; what they free they have made themselves.
    unsafe {
        let result = direct_function_call_as_datum(function, &arguments.map(Some));
        if free {
            pg_sys::pfree(arguments[0].cast_mut_ptr());
        }
        result.unwrap_or_else(|| raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a number became NULL"))
    }
}

/// Splits an amount by weights, which are 1 together: the shares are its sum.
struct Shares {
    amount: Datum,
    decimals: i32,
    weight: f64,
    /// The sum of the shares so far.
    given: Option<Datum>,
}

impl Shares {
    fn new(amount: &[u8]) -> Self {
        let amount = args::make_varlena(amount);
        // SAFETY: takes a numeric.
        let decimals = unsafe { direct_function_call_as_datum(pg_sys::numeric_scale, &[Some(amount)]) };
        // Here and not where rows come in: which error there is must not depend on their order.
        let Some(decimals) = decimals else {
            raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "amount must be finite")
        };
        let decimals = CENTS.max(decimals.value() as i32);
        Self { amount, decimals, weight: 0.0, given: None }
    }

    /// The share of the next weight, the rest for the last one.
    fn next(&mut self, weight: f64, last: bool) -> Datum {
        self.weight += weight;
        let until = if last {
            self.amount
        } else {
            let weight = args::make_float(self.weight);
            let weight = numeric(pg_sys::float8_numeric, [weight, weight], false);
            let weighed = numeric(pg_sys::numeric_mul, [weight, self.amount], true);
            // Half a cent that a third of something lost to binary fractions is half a cent.
            let near = numeric(pg_sys::numeric_round, [weighed, Datum::from(self.decimals + 6)], true);
            numeric(pg_sys::numeric_round, [near, Datum::from(self.decimals)], true)
        };
        match self.given.replace(until) {
            None => numeric(pg_sys::numeric_uplus, [until, until], false),
            Some(given) => {
                let share = numeric(pg_sys::numeric_sub, [until, given], false);
                // SAFETY: made above, and not the amount: that one comes last.
                unsafe { pg_sys::pfree(given.cast_mut_ptr()) };
                share
            }
        }
    }
}

/// # Safety
/// `fcinfo` must be the frame of a function that returns tidemark.credit[].
unsafe fn credits(state: Option<&mut Credits>, fcinfo: FunctionCallInfo) -> Option<Datum> {
    let mut rows = AVec::new_in(ContextAlloc::current());
    if let Some(state) = state {
        state.journey.credits(Interrupts, |time, amount, credits| {
            if rows.len() + credits.len() > MOST_CREDITS {
                raise_hint(
                    PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                    format!("more than {MOST_CREDITS} credits of one group do not fit into an array"),
                    "Group by person, or look less far back.",
                );
            }
            let mut shares = Shares::new(amount);
            let conversion = Some(Datum::from(time));
            for (n, credit) in credits.iter().enumerate() {
                pgrx::check_for_interrupts!();
                rows.push([
                    conversion,
                    Some(Datum::from(credit.time)),
                    Some(args::make_varlena(credit.channel)),
                    Some(args::make_float(credit.weight)),
                    Some(shares.next(credit.weight, n + 1 == credits.len())),
                ]);
            }
            if credits.is_empty() {
                let channel = Some(args::make_varlena(UNATTRIBUTED));
                rows.push([conversion, None, channel, Some(args::make_float(1.0)), Some(shares.amount)]);
            }
        });
    }
    let types = [
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TEXTOID,
        pg_sys::FLOAT8OID,
        pg_sys::NUMERICOID,
    ];
    // SAFETY: see above.
    Some(unsafe { array::make_rows(CallSite::of(fcinfo), types, rows.into_iter()) })
}
