//! Funnels: the aggregate `window_funnel`.
//!
//! What a level means stands in `tidemark_core::funnel`; the SQL declarations in `sql/window_funnel.sql`; the state and
//! its combine, serialize and deserialize functions are those of `funnel`.

use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::funnel::window_funnel;

use crate::funnel::state::{Group, Kind, Layout, Question, transition};
use crate::support::aggregate::aggregate;
use crate::support::interrupts::Interrupts;

aggregate! {
    Group {
        /// (internal, win, event_time, VARIADIC steps)
        transition tidemark_window_funnel_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::conditions(Kind::Level, false) });
        /// (internal, win, mode, event_time, VARIADIC steps)
        transition tidemark_window_funnel_mode_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::conditions(Kind::Level, true) });
        /// integer, 0 without a row.
        final tidemark_window_funnel_final = level;
    }
}

unsafe fn level(group: Option<&mut Group>, _: FunctionCallInfo) -> Option<Datum> {
    let level = match group.map(Group::parts) {
        Some((&Question::Level(mode, steps, window), log)) => {
            window_funnel(log.sorted(Interrupts), steps, window, mode, Interrupts)
        }
        _ => 0,
    };
    Some(Datum::from(level as i32))
}
