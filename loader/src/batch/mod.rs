//! A batch on its way: raw records in one arena, then encoded rows and dead letters. Every record ends in exactly
//! one of the outcomes counted in [`Counts`]. No I/O here.

pub mod copy;
mod encoder;
mod pool;
mod repeats;
mod statistics;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use self::encoder::Encoder;
pub use self::pool::Pool;
use self::repeats::Repeat;
pub use self::statistics::{BOUNDS, Statistics};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::envelope::preset::Format;
use crate::event::envelope::{self, Limits, sha256};
use crate::event::time::Micros;

/// A stretch of one partition that a batch covers, and the claim under which it was read.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Topic, or `file:<sha256>`.
    pub topic: Arc<str>,
    /// `loader.topics.topic_id`.
    pub topic_id: i32,
    /// Kafka partition; 0 for files.
    pub partition: i32,
    /// Epoch of our claim.
    pub epoch: i64,
    /// `loader.offsets.run` at the claim.
    pub run: i32,
    /// First offset, inclusive: where the batch before ended, which may lie before the first record's offset.
    pub from: i64,
    /// Last offset, exclusive.
    pub to: i64,
    /// Kafka's leader epoch of the record before that; `None` when unknown.
    pub leader_epoch: Option<i32>,
}

/// What a record is before anybody has looked into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Has a value.
    Value,
    /// A Kafka record without a value.
    Tombstone,
    /// Skipped on purpose, such as an empty line.
    Filtered,
}

/// A value too long to be kept whole.
#[derive(Clone, Copy, Debug)]
pub struct Oversize {
    /// Its whole length in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: [u8; 32],
}

/// One record; its bytes lie in the arena, one after the other: key, headers, value.
#[derive(Debug)]
pub struct RawRecord {
    /// Index into the batch's slots.
    pub slot: usize,
    /// Kafka offset or line number.
    pub offset: i64,
    /// The broker's time; `None` where there is no broker.
    pub received_at: Option<Micros>,
    /// Whether that time is only there to judge the event's clock by: nobody knows when it was received.
    pub receipt_guessed: bool,
    /// What it is.
    pub kind: RecordKind,
    start: usize,
    key: Option<usize>,
    headers: Option<usize>,
    value: usize,
    oversize: Option<Box<Oversize>>,
    /// Kafka's leader epoch of it; `None` when unknown.
    leader_epoch: Option<i32>,
}

impl RawRecord {
    /// Size of the value as it came.
    fn bytes(&self) -> u64 {
        self.oversize.as_ref().map_or(self.value as u64, |oversize| oversize.bytes)
    }
}

/// How large a batch may become.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most records.
    pub rows: usize,
    /// Most bytes.
    pub bytes: usize,
    /// Longest wait for more records.
    pub delay: Duration,
    /// Most bytes kept of one value.
    pub keep: usize,
}

impl BatchLimits {
    /// Whether a batch is full.
    pub fn reached(&self, batch: &RawBatch) -> bool {
        batch.len() >= self.rows || batch.arena_bytes() >= self.bytes
    }
}

/// Records as they came from the source.
#[derive(Debug, Default)]
pub struct RawBatch {
    /// The stretches covered.
    pub slots: Vec<Slot>,
    records: Vec<RawRecord>,
    arena: Vec<u8>,
    bytes: u64,
    /// How their events are written; set by the encoder.
    format: Format,
    /// Where the room for the records came from.
    pool: Option<Arc<Pool>>,
}

impl Drop for RawBatch {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(std::mem::take(&mut self.arena), std::mem::take(&mut self.records));
        }
    }
}

impl RawBatch {
    /// An empty one with room from this pool.
    pub fn with_room_of(pool: &Arc<Pool>) -> Self {
        let (arena, records) = pool.lend();
        let mut batch = RawBatch::default();
        (batch.arena, batch.records, batch.pool) = (arena, records, Some(pool.clone()));
        batch
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is neither a record nor an advance of position.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.slots.iter().all(|s| s.from == s.to)
    }

    /// Bytes held in memory.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Copies a record in. A value longer than `keep` is cut there and remembered as too large.
    #[expect(clippy::too_many_arguments, reason = "the parts of a Kafka record, borrowed until here")]
    pub fn push(
        &mut self,
        slot: usize,
        offset: i64,
        received_at: Option<Micros>,
        kind: RecordKind,
        key: Option<&[u8]>,
        headers: Option<&[u8]>,
        value: &[u8],
        keep: usize,
    ) {
        let oversize =
            (value.len() > keep).then(|| Oversize { bytes: value.len() as u64, sha256: sha256(value) });
        self.push_cut(
            slot,
            offset,
            received_at,
            kind,
            key,
            headers,
            &value[..value.len().min(keep)],
            oversize,
        );
    }

    /// Says of the record that was pushed last that its time of receipt is a guess.
    pub fn receipt_is_guessed(&mut self) {
        if let Some(record) = self.records.last_mut() {
            record.receipt_guessed = true;
        }
    }

    /// Copies a record in whose value the source has cut already if `oversize` is set.
    #[expect(clippy::too_many_arguments, reason = "the parts of a Kafka record, borrowed until here")]
    pub fn push_cut(
        &mut self,
        slot: usize,
        offset: i64,
        received_at: Option<Micros>,
        kind: RecordKind,
        key: Option<&[u8]>,
        headers: Option<&[u8]>,
        value: &[u8],
        oversize: Option<Oversize>,
    ) {
        let start = self.arena.len();
        for part in [key, headers, Some(value)].into_iter().flatten() {
            self.arena.extend_from_slice(part);
        }
        self.bytes += oversize.map_or(value.len() as u64, |o| o.bytes);
        self.records.push(RawRecord {
            slot,
            offset,
            received_at,
            receipt_guessed: false,
            kind,
            start,
            key: key.map(<[u8]>::len),
            headers: headers.map(<[u8]>::len),
            value: value.len(),
            oversize: oversize.map(Box::new),
            leader_epoch: None,
        });
    }

    /// Says in which leader epoch the record was written that was pushed last.
    pub fn leader_epoch_is(&mut self, epoch: Option<i32>) {
        if let Some(record) = self.records.last_mut() {
            record.leader_epoch = epoch;
        }
    }

    /// Cuts off the records from this one on, which are neither all nor none: another batch.
    pub fn split_off(&mut self, at: usize) -> RawBatch {
        let mut rest = RawBatch::default();
        rest.records = self.records.split_off(at);
        let start = rest.records[0].start;
        rest.arena = self.arena.split_off(start);
        rest.records.iter_mut().for_each(|record| record.start -= start);
        rest.bytes = rest.records.iter().map(RawRecord::bytes).sum();
        self.bytes -= rest.bytes;
        // A range that does not move must not be there at all. What lies between two records goes with the second.
        for (index, slot) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            let last = self.records.iter().rfind(|record| record.slot == index);
            let last = last.map(|record| (record.offset + 1, record.leader_epoch));
            let more = rest.records.iter().any(|record| record.slot == index);
            match last {
                Some((to, leader_epoch)) if more => {
                    self.put_slot(index, Slot { to, leader_epoch, ..slot.clone() });
                    rest.put_slot(index, Slot { from: to, ..slot });
                }
                Some(_) => self.put_slot(index, slot),
                None => rest.put_slot(index, slot),
            }
        }
        rest
    }

    /// Adds the slot that its records know by this number, which is not smaller than what they know it by then.
    fn put_slot(&mut self, number: usize, slot: Slot) {
        let new = self.slots.len();
        self.records.iter_mut().filter(|record| record.slot == number).for_each(|record| record.slot = new);
        self.slots.push(slot);
    }

    /// Size of the values as they came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index of the slot of each record.
    pub fn slots_of_records(&self) -> impl Iterator<Item = usize> + '_ {
        self.records.iter().map(|r| r.slot)
    }

    fn value(&self, r: &RawRecord) -> &[u8] {
        let start = r.start + r.key.unwrap_or(0) + r.headers.unwrap_or(0);
        &self.arena[start..start + r.value]
    }

    fn headers(&self, r: &RawRecord) -> Option<&[u8]> {
        let start = r.start + r.key.unwrap_or(0);
        r.headers.map(|len| &self.arena[start..start + len])
    }

    /// Id, time and type of a record that is to be a dead letter, as far as it can be read at all.
    fn known(&self, r: &RawRecord) -> (Option<Uuid>, Option<Micros>, Option<String>) {
        if r.oversize.is_some() {
            return (None, None, None);
        }
        // It was measured already.
        let limits = Limits { max_bytes: usize::MAX, ..Limits::default() };
        let composed = self.format.compose(self.headers(r), self.value(r));
        let value = composed.as_deref().unwrap_or(self.value(r));
        self.format.parse(value, &limits).map(envelope::Envelope::known).unwrap_or_default()
    }
}

/// How many records ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read: the sum of the others.
    pub read: u64,
    /// Written to bronze.
    pub loaded: u64,
    /// Same id on the same date as another event.
    pub duplicate: u64,
    /// Later than allowed and diverted.
    pub late: u64,
    /// Dead letters.
    pub dead: u64,
    /// Skipped on purpose.
    pub filtered: u64,
    /// Kafka records without a value.
    pub tombstone: u64,
}

impl std::ops::Sub for Counts {
    type Output = Counts;

    fn sub(self, o: Counts) -> Counts {
        Counts {
            read: self.read - o.read,
            loaded: self.loaded - o.loaded,
            duplicate: self.duplicate - o.duplicate,
            late: self.late - o.late,
            dead: self.dead - o.dead,
            filtered: self.filtered - o.filtered,
            tombstone: self.tombstone - o.tombstone,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, o: Counts) {
        self.read += o.read;
        self.loaded += o.loaded;
        self.duplicate += o.duplicate;
        self.late += o.late;
        self.dead += o.dead;
        self.filtered += o.filtered;
        self.tombstone += o.tombstone;
    }
}

/// An event encoded for COPY.
#[derive(Debug)]
pub struct Row {
    /// Event date, in days since 2000-01-01.
    pub day: i32,
    /// Event time.
    pub time: Micros,
    /// Event id.
    pub id: Uuid,
    /// How long after it happened it was received, in microseconds; `None` when nobody knows when it was received.
    pub lateness: Option<Micros>,
    /// What it says, without what differs from one sending to the next.
    pub hash: i64,
    /// Index of its record.
    pub record: usize,
    start: usize,
    len: usize,
    /// Its payload is not the record's value but made of it, and lies behind the other columns.
    composed: bool,
}

/// An event that cannot be loaded.
#[derive(Debug)]
pub struct Dead {
    /// Index of its record.
    pub record: usize,
    /// Why.
    pub rejection: Rejection,
    /// As far as it is known.
    pub event_id: Option<Uuid>,
    /// As far as it is known.
    pub event_time: Option<Micros>,
    /// As far as it is known.
    pub event_type: Option<String>,
}

/// A dead letter with the bytes of its record.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// Where it came from.
    pub slot: &'a Slot,
    /// Offset or line number.
    pub offset: i64,
    /// The broker's time.
    pub received_at: Option<Micros>,
    /// Kafka key.
    pub key: Option<&'a [u8]>,
    /// Kafka headers, in the encoding of `loader.dead_letters.headers`.
    pub headers: Option<&'a [u8]>,
    /// The value or its beginning.
    pub payload: &'a [u8],
    /// Whether it is the beginning only.
    pub truncated: bool,
    /// SHA-256 of the whole value.
    pub sha256: [u8; 32],
    /// Why, and what is known about the event.
    pub dead: &'a Dead,
}

/// A batch ready to be written.
#[derive(Debug)]
pub struct Batch {
    raw: RawBatch,
    /// Events in the order in which they go to Postgres: by date, then as they came.
    pub rows: Vec<Row>,
    /// Late events that go to `bronze.late_events`, in the same order.
    pub late: Vec<Row>,
    /// Events that go to the dead letters.
    pub dead: Vec<Dead>,
    /// Duplicates within the batch.
    pub duplicates: u64,
    /// Duplicates of committed rows that were found and taken out before writing.
    pub known: u64,
    encoded: Vec<u8>,
    filtered: u64,
    tombstones: u64,
    /// From which lateness on a row counts as late.
    pub allowed_lateness: Micros,
    /// Records with the id of an earlier one, by the record of that.
    repeats: HashMap<usize, Vec<Repeat>>,
    /// Those of them that are to be written in its place.
    heirs: Vec<Repeat>,
    /// Whether a repeated id is a duplicate whatever the event says.
    id_alone: bool,
    /// What did not go into the batch any more: it would have had more than [`MAX_DATES`].
    pub rest: Option<RawBatch>,
    /// Whether another part comes of what was handed out as one batch.
    pub more: bool,
    /// Receipt time of the record before the first one, where records inherit it.
    received_before: Option<Micros>,
}

/// Most dates of the events of a batch. Its transaction locks the partition of each and the indexes of that, three or
/// four locks a date, and a server has room for 6,400 unless told otherwise. A year of dates is enough for any stream, and
/// leaves a file whose dates are in no order still in batches of hundreds of rows.
pub const MAX_DATES: usize = 366;

/// Ids that are in bronze already, each with its date and the hash of what it says (`None`: loaded before there were
/// hashes).
pub type Known = HashMap<(Uuid, i32), Option<i64>>;

fn conflict(place: &str) -> Rejection {
    let detail = format!("another event with this id and date was first {place}, and says something else");
    Rejection::new(Reason::DuplicateIdConflict, detail)
}

impl Batch {
    /// The stretches covered.
    pub fn slots(&self) -> &[Slot] {
        &self.raw.slots
    }

    /// Size of the values read.
    pub fn bytes(&self) -> u64 {
        self.raw.bytes
    }

    /// The encoded row in two pieces: the columns, and the text of the payload, which stays where it was read.
    pub fn encoded(&self, row: &Row) -> (&[u8], &[u8]) {
        let columns = &self.encoded[row.start..row.start + row.len];
        let payload: &[u8] = if row.composed { &[] } else { self.raw.value(&self.raw.records[row.record]) };
        (columns, payload)
    }

    /// The dates of the rows, each once, ascending.
    pub fn days(&self) -> Vec<i32> {
        let mut days: Vec<i32> = self.rows.iter().map(|r| r.day).collect();
        days.dedup();
        days
    }

    /// Two batches in its place, encoded anew; the first one as far as it goes if there is only one record.
    pub fn halves(self, encoder: &Encoder) -> (Batch, Option<Batch>) {
        let mut encoder = encoder.clone().after(self.received_before);
        let Batch { mut raw, more, .. } = self;
        let half = raw.len() / 2;
        let rest = (half > 0).then(|| raw.split_off(half));
        let mut first = encoder.encode(raw);
        first.more = more || rest.is_some();
        let rest = rest.map(|rest| Batch { more, ..encoder.encode(rest) });
        (first, rest)
    }

    /// Exchanges the rows with the late ones, so that what writes the one writes the other.
    pub fn swap_late(&mut self) {
        std::mem::swap(&mut self.rows, &mut self.late);
    }

    /// The outcome of each record when the rows and late rows left are those that were new.
    pub fn counts(&self) -> Counts {
        Counts {
            read: self.raw.records.len() as u64,
            loaded: self.rows.len() as u64,
            duplicate: self.duplicates + self.known,
            late: self.late.len() as u64,
            dead: self.dead.len() as u64,
            filtered: self.filtered,
            tombstone: self.tombstones,
        }
    }

    /// The same for each slot.
    pub fn counts_by_slot(&self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.raw.slots.len()];
        for record in &self.raw.records {
            let of = &mut counts[record.slot];
            of.read += 1;
            match record.kind {
                RecordKind::Value => {}
                RecordKind::Filtered => of.filtered += 1,
                RecordKind::Tombstone => of.tombstone += 1,
            }
        }
        self.rows.iter().for_each(|row| counts[self.raw.records[row.record].slot].loaded += 1);
        self.late.iter().for_each(|row| counts[self.raw.records[row.record].slot].late += 1);
        self.dead.iter().for_each(|dead| counts[self.raw.records[dead.record].slot].dead += 1);
        for n in &mut counts {
            n.duplicate = n.read.saturating_sub(n.loaded + n.late + n.dead + n.filtered + n.tombstone);
        }
        counts
    }

    /// Where a record came from.
    pub fn slot_of(&self, record: usize) -> &Slot {
        &self.raw.slots[self.raw.records[record].slot]
    }

    /// For each record, in the order in which they were read, the index of its slot and whether it is a dead letter.
    /// Without those that are too old: a single broken clock sends years of them in a row.
    pub fn judged(&self) -> impl Iterator<Item = (usize, bool)> {
        let mut dead = vec![Some(false); self.raw.records.len()];
        for letter in &self.dead {
            dead[letter.record] = (letter.rejection.reason != Reason::EventTimeTooOld).then_some(true);
        }
        self.raw.slots_of_records().zip(dead).filter_map(|(slot, dead)| Some((slot, dead?)))
    }

    /// Latest receipt time among the records of a slot, as far as a broker gave one.
    pub fn last_received(&self, slot: usize) -> Option<Micros> {
        self.raw.records.iter().rev().filter(|r| r.slot == slot).find_map(|r| r.received_at)
    }

    /// The dead letters with their bytes.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter<'_>> {
        self.dead.iter().map(|dead| {
            let r = &self.raw.records[dead.record];
            let value = self.raw.value(r);
            let headers_at = r.start + r.key.unwrap_or(0);
            DeadLetter {
                slot: &self.raw.slots[r.slot],
                offset: r.offset,
                received_at: r.received_at,
                key: r.key.map(|len| &self.raw.arena[r.start..r.start + len]),
                headers: r.headers.map(|len| &self.raw.arena[headers_at..headers_at + len]),
                payload: value,
                truncated: r.oversize.is_some(),
                sha256: r.oversize.as_ref().map_or_else(|| sha256(value), |o| o.sha256),
                dead,
            }
        })
    }
}
