//! Timelines: a model whose rows are slices of `tidemark_core::timeline`, and reports that are answered from them.
//!
//! `encode` makes the slices of a date and gives texts their codes (`dictionary`); a refresh compares and writes them as
//! it does with any model, or adds `parts`. `read` leads a kernel through stored slices and parts and through what waits
//! for a refresh, which is made on the fly; `sums` is what needs no slices; `filter` is the grammar of filters; `funnel`
//! and the others are the reports. What is encoded how does not live here (see `core::timeline`), nor what is registered
//! (`sql/timelines.sql`).

mod counts;
mod dictionary;
mod encode;
mod filter;
mod funnel;
mod parts;
mod paths;
mod query;
mod read;
mod scope;
mod stored;
mod sums;

use tidemark_core::AVec;
use tidemark_core::timeline::{Codes, Corrupt, View, check_counts};

use crate::support::alloc::ContextAlloc;
use crate::support::stored::{Stored, stored_type};

/// A value of the type `timeline`: persons, times and events of a slice, its codes of one property, or counts.
struct Value(AVec<u8, ContextAlloc>);

impl Stored for Value {
    const NAME: &'static str = "timeline";
    type Error = Corrupt;

    fn decode_in(bytes: &[u8], context: ContextAlloc) -> Result<Self, Corrupt> {
        // The second byte tells them apart; what is neither is refused as a core.
        match bytes.get(1) {
            Some(b'p') => Codes::read(bytes)?.check()?,
            Some(b'c') => check_counts(bytes)?,
            _ => View::read(bytes)?.check()?,
        }
        let mut copy = AVec::with_capacity_in(bytes.len(), context);
        copy.extend_from_slice(bytes);
        Ok(Self(copy))
    }

    fn encode(&self, out: &mut AVec<u8, ContextAlloc>) {
        out.extend_from_slice(&self.0);
    }
}

stored_type!(timeline: Value);
