//! Quantiles: the type `ddsketch`, its aggregates and functions, and `approx_percentile`.
//!
//! Buckets, error bound and format are those of `tidemark_core::ddsketch`; the SQL declarations stand in
//! `sql/ddsketch.sql`.

use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::AVec;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::ddsketch::{Accuracy, DdsketchError};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::call_site::CallSite;
use crate::support::error::{INVALID, OrRaise, check_same, invalid_argument, not_null};
use crate::support::stored::{Stored, read, stored_type, write};
use crate::support::{args, pg_function};

type Sketch = tidemark_core::ddsketch::Sketch<ContextAlloc>;

impl Stored for Sketch {
    const NAME: &'static str = "ddsketch";
    type Error = DdsketchError;

    fn decode_in(bytes: &[u8], context: ContextAlloc) -> Result<Self, DdsketchError> {
        Self::decode_in(bytes, context)
    }

    fn encode(&self, out: &mut AVec<u8, ContextAlloc>) {
        Self::encode(self, out);
    }
}

stored_type!(ddsketch: Sketch);

/// Which aggregate a state belongs to, and what all rows of its group must agree on beside the accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Purpose {
    /// `ddsketch_agg`.
    Build,
    /// `ddsketch_union_agg`.
    Union,
    /// `approx_percentile`, with its quantile.
    Percentile(f64),
}

/// The state of all aggregates.
struct Values {
    purpose: Purpose,
    sketch: Sketch,
}

impl Values {
    fn new(purpose: Purpose, accuracy: Accuracy, context: ContextAlloc) -> Self {
        Self { purpose, sketch: Sketch::new_in(accuracy, context) }
    }
}

impl State for Values {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new(self.purpose, self.sketch.accuracy(), context)
    }

    fn merge(&mut self, other: &Self, context: ContextAlloc) {
        check_same(self.purpose == other.purpose, "q");
        if self.purpose == Purpose::Union {
            return union_with(&mut self.sketch, &other.sketch, context);
        }
        check_same(self.sketch.accuracy() == other.sketch.accuracy(), "relative_error");
        merge(&mut self.sketch, &other.sketch);
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        w.f64(match self.purpose {
            Purpose::Build => -1.0,
            Purpose::Union => -2.0,
            Purpose::Percentile(q) => q,
        });
        self.sketch.encode(w.out());
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let purpose = match r.f64()? {
            -1.0 => Purpose::Build,
            -2.0 => Purpose::Union,
            q => Purpose::Percentile(q),
        };
        Ok(Self { purpose, sketch: read(r.rest(), context) })
    }
}

aggregate! {
    ddsketch: Values {
        /// `ddsketch_agg`: (internal, value [, relative_error])
        transition tidemark_ddsketch_transition = add;
        /// `approx_percentile`: (internal, q, value)
        transition tidemark_approx_percentile_transition = add_for_percentile;
        /// `ddsketch_union_agg`: (internal, ddsketch)
        transition tidemark_ddsketch_union_transition = unite;
        /// `ddsketch_agg` and `ddsketch_union_agg`: ddsketch, the empty one without a row.
        final tidemark_ddsketch_final = |values: Option<&mut Values>, _| Some(match values {
            Some(values) => write(&values.sketch),
            None => write(&Sketch::new_in(Accuracy::default(), ContextAlloc::current())),
        });
        /// `approx_percentile`: double precision, NULL without a value.
        final tidemark_approx_percentile_final = |values: Option<&mut Values>, _| {
            let Values { purpose: Purpose::Percentile(q), sketch } = values? else { return None };
            sketch.quantile(*q).or_raise(INVALID, "q").map(args::make_float)
        };
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
#[inline]
unsafe fn add(slot: &mut Slot<Values>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let accuracy = accuracy(fcinfo, 2);
        let values = slot.get_or_place(|context| Values::new(Purpose::Build, accuracy, context));
        check_same(values.sketch.accuracy() == accuracy, "relative_error");
        if let Some(value) = args::float(fcinfo, 1) {
            insert(&mut values.sketch, value);
        }
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
#[inline]
unsafe fn add_for_percentile(slot: &mut Slot<Values>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let purpose = Purpose::Percentile(quantile(fcinfo, 1));
        let values = slot.get_or_place(|context| Values::new(purpose, Accuracy::default(), context));
        check_same(values.purpose == purpose, "q");
        if let Some(value) = args::float(fcinfo, 2) {
            insert(&mut values.sketch, value);
        }
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn unite(slot: &mut Slot<Values>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    let Some(bytes) = (unsafe { args::bytes(fcinfo, 1) }) else { return };
    let context = slot.context();
    match slot.get() {
        Some(values) => union_with(&mut values.sketch, &read(bytes, ContextAlloc::current()), context),
        None => {
            slot.get_or_place(|context| Values { purpose: Purpose::Union, sketch: read(bytes, context) });
        }
    }
}

/// The accuracy that argument `index` asks for, or the default in the form without it.
///
/// # Safety
/// Argument `index`, if there is one, must be a double precision.
#[inline]
unsafe fn accuracy(fcinfo: FunctionCallInfo, index: usize) -> Accuracy {
    // SAFETY: see above.
    unsafe {
        if args::count(fcinfo) <= index {
            return Accuracy::default();
        }
        let value = not_null(args::float(fcinfo, index), "relative_error");
        match Accuracy::from_fraction(value) {
            Ok(accuracy) => accuracy,
            Err(_) => invalid_argument(
                format!("relative_error must be a whole number of per mille from 0.001 to 0.1, not {value}"),
                "Leave the argument out for 0.01, that is 1 %.",
            ),
        }
    }
}

/// Argument `index` as a quantile.
///
/// # Safety
/// The argument must be a double precision.
#[inline]
unsafe fn quantile(fcinfo: FunctionCallInfo, index: usize) -> f64 {
    // SAFETY: see above.
    let q = not_null(unsafe { args::float(fcinfo, index) }, "q");
    if !(0.0..=1.0).contains(&q) {
        invalid_argument(
            format!("q must be between 0 and 1, not {q}"),
            "Write 0.95 for the 95th percentile.",
        );
    }
    q
}

/// Adds a value, or raises 22023 for NaN and the infinities.
#[inline]
fn insert(sketch: &mut Sketch, value: f64) {
    if sketch.insert(value).is_err() {
        invalid_argument(
            format!("value must be finite, not {value}"),
            "Leave out such rows with FILTER (WHERE abs(value) < 'Infinity').",
        );
    }
}

/// Merges stored sketches. One without values fits every accuracy, since an aggregate over no rows cannot know the
/// one that was meant; of two such the coarser accuracy stays, so that the order does not matter.
fn union_with(into: &mut Sketch, other: &Sketch, alloc: ContextAlloc) {
    if into.accuracy() != other.accuracy() && (into.count() == 0 || other.count() == 0) {
        let finer = into.accuracy().fraction() < other.accuracy().fraction();
        if other.count() == 0 && (into.count() > 0 || !finer) {
            return;
        }
        *into = Sketch::new_in(other.accuracy(), alloc);
    }
    merge(into, other);
}

fn merge(into: &mut Sketch, other: &Sketch) {
    if into.merge(other).is_err() {
        invalid_argument(
            "sketches of different relative errors cannot be merged",
            "Build all of them with the same relative_error.",
        );
    }
}

pg_function! {
    /// `ddsketch_quantile(ddsketch, q) -> double precision`, strict; NULL for an empty sketch.
    fn tidemark_ddsketch_quantile(fcinfo) {
        let (bytes, q) = (args::bytes(fcinfo, 0)?, quantile(fcinfo, 1));
        read::<Sketch>(bytes, ContextAlloc::current()).quantile(q).or_raise(INVALID, "q").map(args::make_float)
    }
}

pg_function! {
    /// `ddsketch_count(ddsketch) -> bigint`, strict.
    fn tidemark_ddsketch_count(fcinfo) {
        let count = read::<Sketch>(args::bytes(fcinfo, 0)?, ContextAlloc::current()).count();
        Some(Datum::from(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

pg_function! {
    /// `ddsketch_relative_error(ddsketch) -> double precision`, strict.
    fn tidemark_ddsketch_relative_error(fcinfo) {
        let sketch = read::<Sketch>(args::bytes(fcinfo, 0)?, ContextAlloc::current());
        Some(args::make_float(sketch.relative_error()))
    }
}

pg_function! {
    /// `ddsketch_union(ddsketch, ddsketch) -> ddsketch`; a NULL is an identity, two of them give NULL.
    fn tidemark_ddsketch_union(fcinfo) {
        let (a, b, context) = (args::bytes(fcinfo, 0), args::bytes(fcinfo, 1), ContextAlloc::current());
        let mut sketch = read(a.or(b)?, context);
        if let (Some(_), Some(b)) = (a, b) {
            union_with(&mut sketch, &read(b, context), context);
        }
        Some(write(&sketch))
    }
}
