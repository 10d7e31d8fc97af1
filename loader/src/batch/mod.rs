//! A batch on its way: raw records in one arena, then encoded rows and dead letters. Every event of
//! every record ends in exactly one of the outcomes counted in [`Counts`]. No I/O here.

pub mod copy;
mod encoder;
mod raw;
mod repeats;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

pub use self::encoder::Encoder;
pub use self::raw::{BatchLimits, Oversize, Pool, RawBatch, RawRecord, RecordKind, Slot};
use self::repeats::Repeat;
use crate::enrich::{Enrichment, Strangers};
use crate::event::dead_letter::{Reason, Rejection, Stage};
use crate::event::envelope::mapping::Noted;
use crate::event::envelope::sha256;
use crate::event::suppression::Keys;
use crate::event::time::{DAY_US, Micros};

/// How many events ended how, and what records were none. A record that holds several events counts as so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read: the sum of the others.
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
    /// Which of the events of its record it is, counted from 1; 0 where the record is the event.
    pub index: i32,
    /// The broker's time.
    pub received_at: Option<Micros>,
    /// Kafka key.
    pub key: Option<Cow<'a, [u8]>>,
    /// Kafka headers, in the encoding of `loader.dead_letters.headers`.
    pub headers: Option<Cow<'a, [u8]>>,
    /// The value or its beginning.
    pub payload: Cow<'a, [u8]>,
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
    suppression: Option<Arc<Keys>>,
    /// Under its keys the ids of each record; of one that cannot be read, all that may be one.
    people: Vec<(Uuid, usize)>,
    enrichment: Option<Arc<Enrichment>>,
    strangers: Strangers,
    /// Whether a repeated id is a duplicate whatever the event says.
    id_alone: bool,
    /// What did not go into the batch any more: it would have had more than [`MAX_DATES`].
    pub rest: Option<RawBatch>,
    /// Whether another part comes of what was handed out as one batch.
    pub more: bool,
}

/// Most dates of the events of a batch. Its transaction locks the partition of each and its index, two locks a date
/// or more, and a server has room for 6,400 unless told otherwise. A year of dates is enough for any stream, and
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
    /// By which mapping its events were read, if that is to be noted.
    pub fn mapping(&self) -> Option<&Noted> {
        self.raw.mapping.as_deref()
    }

    /// The stretches covered.
    pub fn slots(&self) -> &[Slot] {
        &self.raw.slots
    }

    /// Size of the values read.
    pub fn bytes(&self) -> u64 {
        self.raw.bytes()
    }

    /// The encoded row in two pieces: the columns, and the text of the payload, which stays where it was read.
    pub fn encoded(&self, row: &Row) -> (&[u8], &[u8]) {
        let columns = &self.encoded[row.start..row.start + row.len];
        let payload: &[u8] = if row.composed { &[] } else { self.raw.value(&self.raw.records[row.record]) };
        (columns, payload)
    }

    /// How many records of the source it is made of.
    pub fn records(&self) -> u64 {
        (0..self.raw.len()).filter(|at| self.raw.is_first(*at)).count() as u64
    }

    /// The dates of the rows, each once, ascending.
    pub fn days(&self) -> Vec<i32> {
        let mut days: Vec<i32> = self.rows.iter().map(|r| r.day).collect();
        days.dedup();
        days
    }

    /// Two batches in its place, encoded anew; the first one as far as it goes if there is only one record.
    pub fn halves(self, encoder: &Encoder) -> (Batch, Option<Batch>) {
        let mut encoder = encoder.clone();
        let Batch { mut raw, more, .. } = self;
        let half = raw.middle();
        let rest = (half > 0).then(|| raw.split_off(half));
        let mut first = encoder.encode(raw);
        first.more = more || rest.is_some();
        let rest = rest.map(|rest| Batch { more, ..encoder.encode(rest) });
        (first, rest)
    }

    /// User agents and networks that need a row before the batch is written, and who knows more of them.
    pub fn strangers(&self) -> Option<(&Enrichment, &Strangers)> {
        let enrichment = self.enrichment.as_deref().filter(|_| !self.strangers.is_empty())?;
        Some((enrichment, &self.strangers))
    }

    /// Notes that the rows of its strangers are committed.
    pub fn strangers_are_known(&mut self) {
        if let Some(enrichment) = &self.enrichment {
            enrichment.saw(&std::mem::take(&mut self.strangers));
        }
    }

    /// Notes that such rows may be lost.
    pub fn forget_strangers(&self) {
        if let Some(enrichment) = &self.enrichment {
            enrichment.forget();
        }
    }

    /// The keys of the suppression list that are known here, as the list names them.
    pub fn keys(&self) -> Vec<Uuid> {
        self.suppression.as_ref().map_or(Vec::new(), |keys| keys.names())
    }

    /// The ids of its records, each once, as the suppression list has them.
    pub fn people(&self) -> HashSet<Uuid> {
        self.people.iter().map(|(hash, _)| *hash).collect()
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

    /// Of each record that was pushed and is here: its number, the index of its first event, and whether that is a dead
    /// letter.
    pub fn firsts(&self) -> impl Iterator<Item = (usize, i32, bool)> {
        let mut dead = vec![false; self.raw.records.len()];
        for letter in &self.dead {
            dead[letter.record] = true;
        }
        let records = self.raw.records.iter().zip(dead).enumerate();
        let firsts = records.filter(|(at, _)| self.raw.is_first(*at));
        firsts.map(|(_, (record, dead))| (record.root, record.index, dead))
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

    /// The dead letters with their bytes. Addresses of events were cut before anything was made of them; here they are
    /// in what is no event.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter<'_>> {
        let cut = |text| match &self.enrichment {
            Some(enrichment) => enrichment.cut_anywhere(text),
            None => Cow::Borrowed(text),
        };
        self.dead.iter().map(move |dead| {
            let r = &self.raw.records[dead.record];
            let mut value = Cow::Borrowed(self.raw.value(r));
            if dead.rejection.reason.stage() == Stage::Decode {
                value = cut(self.raw.value(r));
            } else if let Some(enrichment) = self.enrichment.as_ref().filter(|_| self.raw.format.composes()) {
                // It may be tried again, and is an event then.
                value = enrichment.cut_cells(self.raw.value(r));
            }
            let headers_at = r.start + r.key.unwrap_or(0);
            DeadLetter {
                slot: &self.raw.slots[r.slot],
                offset: r.offset,
                index: r.index,
                received_at: r.received_at,
                key: r.key.map(|len| cut(&self.raw.arena[r.start..r.start + len])),
                headers: r.headers.map(|len| {
                    let headers = &self.raw.arena[headers_at..headers_at + len];
                    self.enrichment.as_ref().map_or(Cow::Borrowed(headers), |e| e.cut_headers(headers))
                }),
                truncated: r.oversize.is_some(),
                sha256: r.oversize.as_ref().map_or_else(|| sha256(&value), |o| o.sha256),
                payload: value,
                dead,
            }
        })
    }
}

const SECOND: Micros = 1_000_000;
const HOUR: Micros = 3600 * SECOND;

/// The inner bounds of the buckets of `tidemark.lateness_buckets()`; a bound belongs to the bucket after it.
pub const BOUNDS: [Micros; 11] = [
    SECOND,
    10 * SECOND,
    60 * SECOND,
    600 * SECOND,
    HOUR,
    6 * HOUR,
    DAY_US,
    3 * DAY_US,
    7 * DAY_US,
    30 * DAY_US,
    90 * DAY_US,
];

/// What `tidemark.mark_loaded` takes: one element a date, and the buckets of all dates one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The dates, ascending, in days since 2000-01-01.
    pub days: Vec<i32>,
    /// Rows of each date.
    pub rows: Vec<i64>,
    /// Those of them that were later than allowed.
    pub late: Vec<i64>,
    /// Earliest event time of each date.
    pub min_times: Vec<Micros>,
    /// Latest event time of each date.
    pub max_times: Vec<Micros>,
    /// Rows in each bucket; an event whose receipt nobody knows is in none.
    pub lateness: Vec<i64>,
}

impl Statistics {
    /// Counts rows that are sorted by date.
    pub fn of(rows: &[Row], allowed: Micros) -> Self {
        let mut s = Statistics::default();
        for day in rows.chunk_by(|a, b| a.day == b.day) {
            let mut buckets = [0i64; BOUNDS.len() + 1];
            let mut late = 0;
            for lateness in day.iter().filter_map(|row| row.lateness) {
                buckets[BOUNDS.partition_point(|bound| *bound <= lateness)] += 1;
                late += i64::from(lateness > allowed);
            }
            s.days.push(day[0].day);
            s.rows.push(day.len() as i64);
            s.late.push(late);
            s.min_times.push(day.iter().map(|row| row.time).min().unwrap_or(day[0].time));
            s.max_times.push(day.iter().map(|row| row.time).max().unwrap_or(day[0].time));
            s.lateness.extend(buckets);
        }
        s
    }
}
