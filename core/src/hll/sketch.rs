//! The sketch while it is being built: inserting, merging, writing. The stored form is read in `encoded`.

use super::HllError;
use super::config::Config;
use super::encoded::{EncodedRef, Encoding};
use super::estimate::Histogram;
use super::explicit::HashSet;
use super::registers::{fold, pack_full, pack_sparse, raise, raise_all, rule, visit_full, visit_sparse};
use crate::interrupt::Interrupt;
use crate::{AVec, Allocator};

enum State<A: Allocator> {
    /// At most `limit` hashes.
    Explicit(HashSet<A>),
    /// One byte a register, 2^log2m of them.
    Registers(AVec<u8, A>),
}

/// A HyperLogLog under construction.
///
/// Memory beside the struct itself (about 64 bytes): nothing while empty; 64 bytes up to 6 distinct values,
/// doubling with their number to 2 KB at 128; then one byte a register, 2^log2m (16 KB at the default 14).
pub struct Sketch<A: Allocator> {
    config: Config,
    limit: usize,
    /// The greatest register value.
    cap: u8,
    state: State<A>,
}

impl<A: Allocator + Clone> Sketch<A> {
    /// An empty sketch whose memory comes from `alloc`; allocates nothing yet.
    pub fn new_in(config: Config, alloc: A) -> Self {
        Self {
            config,
            limit: config.explicit_limit(),
            cap: config.max_register(),
            state: State::Explicit(HashSet::new_in(alloc)),
        }
    }

    /// Builds a sketch from stored bytes. Bytes that are not a valid sketch are an error that says where.
    ///
    /// Accepts every valid sketch of the spec; writing it again may give other bytes when another implementation
    /// chose between SPARSE and FULL differently.
    pub fn decode_in(bytes: &[u8], alloc: A, interrupt: impl Interrupt) -> Result<Self, HllError> {
        let encoded = EncodedRef::parse(bytes)?;
        let mut sketch = Self::new_in(encoded.config(), alloc);
        sketch.absorb(&encoded, interrupt)?;
        Ok(sketch)
    }

    /// The parameters; a union may have lowered them.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Whether nothing was inserted yet.
    pub fn is_empty(&self) -> bool {
        matches!(&self.state, State::Explicit(set) if set.len() == 0)
    }

    /// Bytes of memory held beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Explicit(set) => set.heap_bytes(),
            State::Registers(registers) => registers.capacity(),
        }
    }

    /// Counts a value by its hash (see [`super::hash`]).
    #[inline]
    pub fn insert_hash(&mut self, hash: u64) {
        // Where values are inserted one by one, each caller looks for interrupts between them.
        self.insert(hash, ());
    }

    #[inline]
    fn insert(&mut self, hash: u64, interrupt: impl Interrupt) {
        interrupt.check();
        match &mut self.state {
            State::Registers(registers) => {
                let (index, value) = rule(hash, self.config.log2m(), self.cap);
                raise(registers, index, value);
            }
            State::Explicit(_) => self.insert_explicit(hash, interrupt),
        }
    }

    fn insert_explicit(&mut self, hash: u64, interrupt: impl Interrupt) {
        let State::Explicit(set) = &mut self.state else { return };
        if set.contains(hash) {
            return;
        }
        if set.len() < self.limit {
            set.insert_new(hash, interrupt);
        } else {
            let (index, value) = rule(hash, self.config.log2m(), self.cap);
            raise(self.registers_mut(interrupt), index, value);
        }
    }

    /// The registers, leaving the explicit form first if need be.
    fn registers_mut(&mut self, interrupt: impl Interrupt) -> &mut [u8] {
        if let State::Explicit(set) = &self.state {
            let len = self.config.registers();
            let mut registers = AVec::with_capacity_in(len, set.allocator().clone());
            registers.resize(len, 0);
            for hash in set.iter() {
                interrupt.check();
                let (index, value) = rule(hash, self.config.log2m(), self.cap);
                raise(&mut registers, index, value);
            }
            self.state = State::Registers(registers);
        }
        match &mut self.state {
            State::Registers(registers) => registers,
            State::Explicit(_) => &mut [], // was just left
        }
    }

    /// Prepares for a union with a sketch of configuration `other`, which has values if `other_has_values`.
    fn meet(&mut self, other: Config, other_has_values: bool, interrupt: impl Interrupt) {
        let config = match (self.is_empty(), other_has_values) {
            (true, true) => other,
            (false, false) => return,
            _ => self.config.meet(other),
        };
        if config == self.config {
            return;
        }
        let from = self.config.log2m();
        self.config = config;
        self.limit = config.explicit_limit();
        self.cap = config.max_register();
        let (to, cap, len) = (config.log2m(), self.cap, config.registers());
        match &mut self.state {
            State::Explicit(set) if set.len() <= self.limit => {}
            State::Explicit(_) => {
                self.registers_mut(interrupt);
            }
            State::Registers(registers) => {
                // In place: an index never grows by folding, and a register is read before it is overwritten.
                for index in 0..registers.len() {
                    let Some(&value) = registers.get(index) else { break };
                    let (target, value) = fold(index, value, from, to, cap);
                    if target == index {
                        if let Some(register) = registers.get_mut(index) {
                            *register = value;
                        }
                    } else {
                        raise(registers, target, value);
                    }
                }
                registers.truncate(len);
                registers.shrink_to_fit();
            }
        }
    }

    /// Makes this sketch the union of itself and `other`. See the module for unions of different configurations.
    pub fn merge<B: Allocator + Clone>(&mut self, other: &Sketch<B>, interrupt: impl Interrupt) {
        self.meet(other.config, !other.is_empty(), interrupt);
        match &other.state {
            State::Explicit(set) => set.iter().for_each(|hash| self.insert(hash, interrupt)),
            State::Registers(theirs) => {
                let (to, cap) = (self.config.log2m(), self.cap);
                let (from, their_cap) = (other.config.log2m(), other.cap);
                let ours = self.registers_mut(interrupt);
                if (from, their_cap) == (to, cap) {
                    raise_all(ours, theirs);
                } else {
                    for (index, &value) in theirs.iter().enumerate() {
                        let (index, value) = fold(index, value, from, to, cap);
                        raise(ours, index, value);
                    }
                }
            }
        }
    }

    /// Makes this sketch the union of itself and a stored one, without decoding that one first.
    ///
    /// After an error (the contents turned out to be malformed) the sketch may hold a part of them: drop it.
    pub fn merge_encoded(
        &mut self,
        other: &EncodedRef<'_>,
        interrupt: impl Interrupt,
    ) -> Result<(), HllError> {
        self.meet(other.config(), other.encoding() != Encoding::Empty, interrupt);
        self.absorb(other, interrupt)
    }

    /// The union with stored contents whose configuration was met already.
    fn absorb(&mut self, other: &EncodedRef<'_>, interrupt: impl Interrupt) -> Result<(), HllError> {
        let (to, cap) = (self.config.log2m(), self.cap);
        let (from, their_cap) = (other.config().log2m(), other.config().max_register());
        match other.encoding() {
            Encoding::Empty => Ok(()),
            Encoding::Explicit => other.visit_hashes(|hash| self.insert(hash, interrupt)),
            Encoding::Sparse => {
                let registers = self.registers_mut(interrupt);
                visit_sparse(other.body(), other.config(), |index, value| {
                    let (index, value) = fold(index, value, from, to, cap);
                    raise(registers, index, value);
                })
            }
            Encoding::Full if (from, their_cap) == (to, cap) => {
                let registers = self.registers_mut(interrupt);
                visit_full(other.body(), other.config(), |from, block| {
                    raise_all(registers.get_mut(from..).unwrap_or_default(), block);
                })
            }
            Encoding::Full => {
                let registers = self.registers_mut(interrupt);
                // Values are checked after the visit; limiting them here keeps the fold within a byte.
                visit_full(other.body(), other.config(), |first, block| {
                    for (i, &value) in block.iter().enumerate() {
                        let (index, value) = fold(first + i, value.min(their_cap), from, to, cap);
                        raise(registers, index, value);
                    }
                })
            }
        }
    }

    /// The estimated number of distinct values: 0 when empty, exact up to the explicit cutoff, then with a
    /// standard error of [`Config::standard_error`].
    pub fn estimate(&self) -> f64 {
        match &self.state {
            State::Explicit(set) => set.len() as f64,
            State::Registers(registers) => {
                let mut histogram = Histogram::new();
                histogram.add_all(registers);
                histogram.estimate(self.config)
            }
        }
    }

    /// Which encoding [`Sketch::encode`] writes, and how many bytes, header included.
    pub fn encoding(&self) -> (Encoding, usize) {
        match &self.state {
            State::Explicit(set) if set.len() == 0 => (Encoding::Empty, 3),
            State::Explicit(set) => (Encoding::Explicit, 3 + set.len() * 8),
            State::Registers(registers) => {
                let used = registers.iter().filter(|&&value| value != 0).count();
                // By bits, as postgresql-hll decides: of two that are as many bytes long, either may be shorter.
                let shorter = used * self.config.sparse_bits() < self.config.full_len() * 8;
                if self.config.sparse() && shorter {
                    (Encoding::Sparse, 3 + self.config.sparse_len(used))
                } else {
                    (Encoding::Full, 3 + self.config.full_len())
                }
            }
        }
    }

    /// Appends the stored form: storage spec v1.0.0, canonical (equal sketches have equal bytes).
    pub fn encode<B: Allocator>(&self, out: &mut AVec<u8, B>, interrupt: impl Interrupt) {
        let (encoding, len) = self.encoding();
        out.reserve(len);
        let kind = match encoding {
            Encoding::Empty => 0x11,
            Encoding::Explicit => 0x12,
            Encoding::Sparse => 0x13,
            Encoding::Full => 0x14,
        };
        out.push(kind);
        out.extend_from_slice(&self.config.header());
        match &self.state {
            State::Explicit(set) => {
                for hash in &set.sorted(interrupt) {
                    interrupt.check();
                    out.extend_from_slice(&hash.to_be_bytes());
                }
            }
            State::Registers(registers) if encoding == Encoding::Sparse => {
                pack_sparse(registers, self.config, out);
            }
            State::Registers(registers) => pack_full(registers, self.config, out),
        }
    }
}
