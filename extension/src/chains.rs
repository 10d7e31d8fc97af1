//! Funnels: the aggregate `funnel`, the times of the deepest chain.
//!
//! Which chain that is stands in `tidemark_core::funnel::chain`; the SQL declarations in `sql/funnel.sql`; the state,
//! which `window_funnel` shares, in `funnels::state`.

use pgrx::pg_sys::{self, Datum};
use tidemark_core::AVec;

use crate::funnels::state::{Kind, Layout, Question, State, combine, deserialize, serialize, transition};
use crate::support::aggregate;
use crate::support::alloc::ContextAlloc;
use crate::support::pg_function;

pg_function! {
    /// Transition of `funnel(win, event_time, VARIADIC steps)`.
    fn tidemark_funnel_transition(fcinfo) {
        transition(fcinfo, const { Layout::conditions(Kind::Chain, false) })
    }
}

pg_function! {
    /// Transition of `funnel(win, mode, event_time, VARIADIC steps)`.
    fn tidemark_funnel_mode_transition(fcinfo) {
        transition(fcinfo, const { Layout::conditions(Kind::Chain, true) })
    }
}

pg_function! {
    /// Transition of `funnel(win, event_time, event_type, steps)`.
    fn tidemark_funnel_names_transition(fcinfo) {
        transition(fcinfo, const { Layout::names(Kind::Chain, false) })
    }
}

pg_function! {
    /// Transition of `funnel(win, mode, event_time, event_type, steps)`.
    fn tidemark_funnel_mode_names_transition(fcinfo) {
        transition(fcinfo, const { Layout::names(Kind::Chain, true) })
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_funnel_combine(fcinfo) { combine(fcinfo) }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_funnel_serialize(fcinfo) { serialize(fcinfo) }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_funnel_deserialize(fcinfo) { deserialize(fcinfo, Kind::Chain) }
}

pg_function! {
    /// Final function: (internal) -> timestamptz[]; an empty array without a row.
    fn tidemark_funnel_final(fcinfo) {
        aggregate::context(fcinfo);
        let mut chain = AVec::new_in(ContextAlloc::current());
        if let Some((Question::Chain(funnel), log)) = aggregate::state::<State>(fcinfo, 0).map(State::parts) {
            pgrx::check_for_interrupts!();
            let events = log.sorted();
            pgrx::check_for_interrupts!();
            funnel.run(events, &mut chain);
            pgrx::check_for_interrupts!();
        }
        array_of_times(&chain)
    }
}

/// A timestamptz[]; `None` becomes a NULL element.
fn array_of_times(times: &[Option<i64>]) -> Datum {
    const ALIGN: std::ffi::c_char = b'd' as std::ffi::c_char;
    let mut datums = [Datum::from(0); 32];
    let mut nulls = [false; 32];
    let len = times.len().min(datums.len());
    for ((datum, null), time) in datums.iter_mut().zip(&mut nulls).zip(times) {
        *datum = Datum::from(time.unwrap_or(0));
        *null = time.is_none();
    }
    // SAFETY: the arrays hold `len` elements; timestamptz is 8 bytes, passed by value, aligned as double.
    unsafe {
        if len == 0 {
            return Datum::from(pg_sys::construct_empty_array(pg_sys::TIMESTAMPTZOID));
        }
        let (mut lengths, mut lower) = ([len as i32], [1]);
        Datum::from(pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            lengths.as_mut_ptr(),
            lower.as_mut_ptr(),
            pg_sys::TIMESTAMPTZOID,
            8,
            true,
            ALIGN,
        ))
    }
}
