//! Steps given as names of events: which steps does a row with a certain name satisfy?

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::FunctionCallInfo;
use tidemark_core::{AVec, Allocator};

use crate::support::alloc::ContextAlloc;
use crate::support::args;
use crate::support::array::{self, Element};
use crate::support::conditions::check_count;
use crate::support::error::{not_null, raise};

/// The names of the steps, ready to be compared with the name in a row, byte by byte.
pub struct Names<A: Allocator> {
    /// The array as it was written, to notice when a row brings another one.
    written: AVec<u8, A>,
    /// All names: each one's length in 4 bytes, little-endian, and its bytes. Names may occur twice.
    packed: AVec<u8, A>,
    /// Each different name once.
    entries: AVec<Entry, A>,
    /// Bit (length modulo 64) is set for the length of every name: rules out most other names at once.
    lengths: u64,
    number: usize,
}

/// A name's place in `packed`, and the steps that have it.
#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    len: u32,
    bits: u32,
}

impl Names<ContextAlloc> {
    /// Reads argument `index`, an array of 1 to 32 names (22023 otherwise) without NULL (22004).
    ///
    /// # Safety
    /// The argument must be a text[].
    pub unsafe fn read(fcinfo: FunctionCallInfo, index: usize, alloc: ContextAlloc) -> Self {
        // SAFETY: see above. Copies everything into `alloc`, so that nothing points into the row.
        unsafe {
            let elements = not_null(array::elements(fcinfo, index, "steps", Element::TEXT), "steps");
            check_count(elements.len(), 1, "step");
            let mut names = Self::sent(&[], alloc);
            names.written.extend_from_slice(not_null(args::bytes(fcinfo, index), "steps"));
            for (step, name) in elements.enumerate() {
                let Some(name) = name else {
                    raise(
                        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                        format!("steps must not contain NULL (step {})", step + 1),
                    )
                };
                names.add(args::varlena_bytes(name));
            }
            names
        }
    }

    /// The names of a state that was sent, to which no row is added.
    pub fn sent(packed: &[u8], alloc: ContextAlloc) -> Self {
        let mut names = Self {
            written: AVec::new_in(alloc),
            packed: AVec::new_in(alloc),
            entries: AVec::new_in(alloc),
            lengths: 0,
            number: 0,
        };
        names.packed.extend_from_slice(packed);
        names
    }
}

impl<A: Allocator> Names<A> {
    fn add(&mut self, name: &[u8]) {
        let bit = 1 << self.number;
        self.number += 1;
        self.packed.extend_from_slice(&(name.len() as u32).to_le_bytes());
        let start = self.packed.len() as u32;
        self.packed.extend_from_slice(name);
        let Self { entries, packed, .. } = self;
        match entries.iter_mut().find(|entry| entry.name(packed) == name) {
            Some(entry) => entry.bits |= bit,
            None => entries.push(Entry { start, len: name.len() as u32, bits: bit }),
        }
        self.lengths |= 1 << (name.len() % 64);
    }

    /// How many steps there are.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The content of the array they were read from.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// The names in order, unambiguous as bytes.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The steps of a name as bits, the first step the lowest.
    #[inline]
    pub fn bits(&self, name: &[u8]) -> u32 {
        if self.lengths & 1 << (name.len() % 64) == 0 {
            return 0;
        }
        self.entries.iter().find(|entry| entry.name(&self.packed) == name).map_or(0, |entry| entry.bits)
    }
}

impl Entry {
    #[inline]
    fn name(self, packed: &[u8]) -> &[u8] {
        packed.get(self.start as usize..).and_then(|tail| tail.get(..self.len as usize)).unwrap_or_default()
    }
}
