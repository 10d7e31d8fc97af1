//! Funnels: the aggregate `window_funnel`.
//!
//! What a level means stands in `tidemark_core::funnel`; the SQL declarations in `sql/funnels.sql`; the state, which
//! `funnel` shares, in `state`.

use pgrx::pg_sys::Datum;
use tidemark_core::funnel::window_funnel;

use crate::support::aggregate;
use crate::support::pg_function;
use state::{Kind, Layout, Question, State, combine, deserialize, serialize, transition};

mod names;
pub mod state;

pg_function! {
    /// Transition of `window_funnel(win, event_time, VARIADIC steps)`.
    fn tidemark_window_funnel_transition(fcinfo) {
        transition(fcinfo, const { Layout::conditions(Kind::Level, false) })
    }
}

pg_function! {
    /// Transition of `window_funnel(win, mode, event_time, VARIADIC steps)`.
    fn tidemark_window_funnel_mode_transition(fcinfo) {
        transition(fcinfo, const { Layout::conditions(Kind::Level, true) })
    }
}

pg_function! {
    /// Combine function: (internal, internal) -> internal.
    fn tidemark_window_funnel_combine(fcinfo) { combine(fcinfo) }
}

pg_function! {
    /// Serialize function: (internal) -> bytea.
    fn tidemark_window_funnel_serialize(fcinfo) { serialize(fcinfo) }
}

pg_function! {
    /// Deserialize function: (bytea, internal) -> internal.
    fn tidemark_window_funnel_deserialize(fcinfo) { deserialize(fcinfo, Kind::Level) }
}

pg_function! {
    /// Final function: (internal) -> integer; 0 without a row.
    fn tidemark_window_funnel_final(fcinfo) {
        aggregate::context(fcinfo);
        let level = match aggregate::state::<State>(fcinfo, 0).map(State::parts) {
            Some((&Question::Level(mode, steps, window), log)) => {
                pgrx::check_for_interrupts!();
                let level = window_funnel(log.sorted(), steps, window, mode);
                pgrx::check_for_interrupts!();
                level
            }
            _ => 0,
        };
        Datum::from(level as i32)
    }
}
