//! What the fuzz targets share: a bound on memory, the laws of partial states, ways to take an input apart, seeds.
//!
//! A target is a file in `bin/`: its seeds and what must hold for any input. `scripts/fuzz.sh` runs them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::event::Event;
use tidemark_core::{AVec, Global};

/// The system's allocator, which also counts what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    PEAK.fetch_max(HELD.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: hands everything to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are those of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new exist side by side while the bytes move.
        took(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a parser may hold whatever its input: the registers of the largest sketch, and the table of its predecessor.
const FLOOR: usize = 512 << 10;

/// What `f` gives, unless it held more memory at once than [`FLOOR`] and this many bytes for each byte of its input.
pub fn bounded<T>(input: usize, per_byte: usize, f: impl FnOnce() -> T) -> T {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    let held = PEAK.load(Relaxed) - before;
    assert!(held <= FLOOR + per_byte * input, "an input of {input} bytes took {held} bytes of memory");
    result
}

/// A partial state of `core`.
pub trait State: Sized {
    /// What it knows, whatever the order in which it learned it.
    type Answer: PartialEq + Debug;

    fn decode(bytes: &[u8]) -> Option<Self>;
    fn encode(&mut self) -> Vec<u8>;
    /// False when the two are about different questions.
    fn merge(&mut self, other: &Self) -> bool;
    fn answer(&mut self) -> Self::Answer;
}

/// The bytes of a state that is written behind a version.
pub fn written(write: impl FnOnce(&mut Writer<'_, Global>)) -> Vec<u8> {
    let mut bytes = AVec::new();
    write(&mut Writer::new(&mut bytes, 1));
    bytes.to_vec()
}

/// A state that is read behind a version, and nothing behind it.
pub fn read_whole<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Option<T> {
    let mut r = Reader::new(bytes, 1).ok()?;
    let state = read(&mut r).ok()?;
    r.finish().is_ok().then_some(state)
}

/// The laws of partial states, for two of them that are stored in `data`.
pub fn check_state<S: State>(data: &[u8]) {
    // The densest is a session: 24 bytes from 3. A vector that has just grown held its old block (once that much) beside
    // its new one (twice), so 24 for each byte read.
    let decode = |bytes: &[u8]| bounded(bytes.len(), 24, || S::decode(bytes));
    let [a, b] = parts(data);
    for bytes in [&a, &b] {
        if let Some(mut state) = decode(bytes) {
            assert_eq!(state.encode(), &bytes[..], "read, and written differently");
            let answer = state.answer();
            let mut again = decode(&state.encode()).expect("what was written is read");
            assert_eq!(again.answer(), answer);
        }
    }
    let (Some(mut left), Some(mut right)) = (decode(&a), decode(&b)) else { return };
    let one_way = left.merge(&right);
    let other_way = right.merge(&decode(&a).expect("decoded before"));
    assert_eq!(one_way, other_way);
    if one_way {
        assert_eq!(left.answer(), right.answer());
        let mut again = decode(&left.encode()).expect("a union is written as any state");
        assert_eq!(again.answer(), left.answer());
    }
}

/// Most bytes of a part that was made longer.
const GROWN: usize = 128 << 10;

/// The parts of an input: each but the last one behind its length in two bytes. A length of 0xf000 or more stands for
/// half of the rest with a piece of it repeated: what takes more than linear time shows in long inputs only, and a
/// fuzzer would need long to come upon one.
pub fn parts<const N: usize>(mut data: &[u8]) -> [Cow<'_, [u8]>; N] {
    std::array::from_fn(|i| {
        if i + 1 == N {
            return Cow::Borrowed(std::mem::take(&mut data));
        }
        let Some((len, rest)) = data.split_first_chunk() else {
            return Cow::Borrowed(std::mem::take(&mut data));
        };
        let len = u16::from_be_bytes(*len);
        if len < 0xf000 {
            let (part, after) = rest.split_at(usize::from(len).min(rest.len()));
            data = after;
            return Cow::Borrowed(part);
        }
        let (part, after) = rest.split_at(rest.len().div_ceil(2));
        data = after;
        let from = usize::from(len >> 8 & 15) % part.len().max(1);
        let to = part.len() - usize::from(len >> 4 & 15) % (part.len() - from).max(1);
        let times = (1usize << (len & 15)).min(GROWN / (to - from).max(1));
        Cow::Owned([&part[..from], &part[from..to].repeat(times), &part[to..]].concat())
    })
}

/// An input with these parts.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        if i + 1 < parts.len() {
            data.extend_from_slice(&u16::try_from(part.len()).expect("seeds are short").to_be_bytes());
        }
        data.extend_from_slice(part);
    }
    data
}

/// Rows of a group in processing order, two bytes each: how long after the row before, and the conditions.
pub fn rows(bytes: &[u8]) -> Vec<Event> {
    let mut time = 0i64;
    let mut rows: Vec<_> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&[pause, conditions]| {
            // Mostly little, and sometimes all the way to the end of time.
            time = time.saturating_add(if pause < 0xf8 { i64::from(pause >> 4) } else { i64::MAX / 4 });
            Event { time, conditions: u32::from(conditions) }
        })
        .collect();
    rows.sort_unstable();
    rows
}

/// Inputs to begin with; goes behind `init:` of a target. Without them it takes long to find that JSON has quotes.
pub fn seeds<T: AsRef<[u8]>>(seeds: impl IntoIterator<Item = T>) {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    for (i, seed) in seeds.into_iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{i}")), seed).expect("the folder is there");
    }
}

/// A file for what reads files.
pub struct Scratch(PathBuf);

impl Scratch {
    /// The one of this process.
    pub fn get() -> &'static Self {
        static FILE: LazyLock<Scratch> = LazyLock::new(|| {
            Scratch(std::env::temp_dir().join(format!("tidemark-fuzz-{}", std::process::id())))
        });
        &FILE
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, content: &[u8]) {
        std::fs::write(&self.0, content).expect("there is room for temporary files");
    }
}
