//! Parts of one date side by side: which rows can be read part by part, and which must be sorted together first.
//!
//! Parts hold what arrived in one round, so a person's rows in a later part are mostly later. Only where they are not,
//! or at the very time of others, the person's rows of all parts are taken together.

use super::scan::Row;
use super::tile::{Run, Tile};

/// A person's rows that matter, in one part.
struct Piece {
    hash: u64,
    part: usize,
    run: Run,
    /// The times of the first row and the last.
    first: i64,
    last: i64,
}

impl Piece {
    #[inline(always)]
    fn new(tile: &Tile<'_>, part: usize, run: Run) -> Option<Self> {
        let (first, last) = tile.ends(&run)?;
        Some(Self { hash: tile.hash(run.person), part, run, first: tile.time(first), last: tile.time(last) })
    }
}

/// Memory for one date after the other.
#[derive(Default)]
pub(super) struct Merge {
    pieces: Vec<Piece>,
    /// Whose rows were taken: the number of the part, and the person there.
    pub(super) taken: Vec<(usize, Run)>,
}

impl Merge {
    /// Calls `each` with the rows of persons whose parts do not follow each other in time, and notes where these are.
    pub(super) fn persons(
        &mut self,
        tiles: &[Tile<'_>],
        buffer: &mut Vec<Row>,
        each: &mut dyn FnMut(u64, &[Row]),
    ) {
        let Self { pieces, taken } = self;
        pieces.clear();
        for (part, tile) in tiles.iter().enumerate().skip(1) {
            pieces.extend(tile.runs().filter_map(|run| Piece::new(tile, part, run)));
        }
        pieces.sort_unstable_by_key(|piece| (piece.hash, piece.part));
        // The first part, mostly by far the largest, is walked through beside the others.
        let mut own = tiles.first().map(|tile| (tile, tile.runs().peekable()));
        for person in pieces.chunk_by(|a, b| a.hash == b.hash) {
            let hash = person[0].hash;
            let before = own.as_mut().and_then(|(tile, runs)| {
                while runs.next_if(|run| tile.hash(run.person) < hash).is_some() {}
                let run = runs.next_if(|run| tile.hash(run.person) == hash)?;
                Piece::new(tile, 0, run)
            });
            let mut last = before.as_ref().map(|piece| piece.last);
            if person.iter().all(|piece| last.replace(piece.last).is_none_or(|last| last < piece.first)) {
                continue;
            }
            buffer.clear();
            for Piece { part, run, .. } in before.iter().chain(person) {
                if let Some(tile) = tiles.get(*part) {
                    tile.gather(run.begin, run.end, buffer);
                    taken.push((*part, *run));
                }
            }
            buffer.sort_unstable();
            each(hash, buffer);
        }
    }
}
