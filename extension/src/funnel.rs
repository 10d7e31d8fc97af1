//! Funnels: the aggregate `funnel`, the times of the deepest chain.
//!
//! Which chain that is stands in `tidemark_core::funnel::chain`; the SQL declarations in `sql/funnel.sql`; the state,
//! which `window_funnel` shares, in `state`.

use pgrx::pg_sys::{Datum, FunctionCallInfo};
use tidemark_core::AVec;

use crate::support::aggregate::aggregate;
use crate::support::alloc::ContextAlloc;
use crate::support::array::{self, Element};
use crate::support::interrupts::Interrupts;
use state::{Group, Kind, Layout, Question, transition};

mod names;
pub mod state;

aggregate! {
    funnel: Group {
        /// (internal, win, event_time, VARIADIC steps)
        transition tidemark_funnel_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::conditions(Kind::Chain, false) });
        /// (internal, win, mode, event_time, VARIADIC steps)
        transition tidemark_funnel_mode_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::conditions(Kind::Chain, true) });
        /// (internal, win, event_time, event_type, steps)
        transition tidemark_funnel_names_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::names(Kind::Chain, false) });
        /// (internal, win, mode, event_time, event_type, steps)
        transition tidemark_funnel_mode_names_transition =
            |slot, fcinfo| transition(slot, fcinfo, const { Layout::names(Kind::Chain, true) });
        /// timestamptz[], empty without a row.
        final tidemark_funnel_final = times;
    }
}

unsafe fn times(group: Option<&mut Group>, _: FunctionCallInfo) -> Option<Datum> {
    let mut chain = AVec::new_in(ContextAlloc::current());
    if let Some((Question::Chain(funnel), log)) = group.map(Group::parts) {
        funnel.run(log.sorted(Interrupts), &mut chain, Interrupts);
    }
    Some(array::make(chain.iter().map(|time| time.map(Datum::from)), Element::TIMESTAMPTZ))
}
