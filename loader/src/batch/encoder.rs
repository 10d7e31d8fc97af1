//! From records to rows: parses each record, judges its times, compares its id with those before it in the batch, and
//! encodes it for COPY. What a batch holds is in the parent; what becomes of repeated ids is in `repeats`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;

use super::repeats::Repeat;
use super::{Batch, Dead, MAX_DATES, RawBatch, RecordKind, Row, Slot};
use crate::batch::copy;
use crate::enrich::{Enrichment, Noted as Named, Strangers};
use crate::event::dead_letter::{Reason, Rejection};
use crate::event::dedupe::Dedupe;
use crate::event::envelope::mapping::{Format, Noted};
use crate::event::envelope::{self, Coordinates, Limits};
use crate::event::fingerprint::Fingerprint;
use crate::event::suppression::{self, Keys};
use crate::event::time::{self, Micros};
use crate::event::time::{LatePolicy, lateness};

/// Turns records into rows.
#[derive(Clone, Debug)]
pub struct Encoder {
    limits: Limits,
    format: Format,
    mapping: Option<Arc<Noted>>,
    dedupe: Dedupe,
    fingerprint: Fingerprint,
    floor: Option<Arc<AtomicI64>>,
    suppression: Option<Arc<Keys>>,
    enrichment: Option<Arc<Enrichment>>,
}

/// What a batch has had so far.
#[derive(Default)]
struct Seen {
    /// Record and hash of the first with an id, on a date if it is one event there only.
    ids: HashMap<(Uuid, i32), (usize, i64)>,
    dates: HashSet<i32>,
    /// User agents and networks.
    named: Named,
}

impl Encoder {
    /// An encoder that accepts what lies within `limits`.
    pub fn new(limits: Limits) -> Self {
        Encoder {
            limits,
            format: Format::default(),
            mapping: None,
            dedupe: Dedupe::default(),
            fingerprint: Fingerprint::default(),
            floor: None,
            suppression: None,
            enrichment: None,
        }
    }

    /// Makes it cut addresses and note user agents and networks.
    pub fn with_enrichment(mut self, enrichment: Arc<Enrichment>) -> Self {
        self.enrichment = Some(enrichment);
        self
    }

    /// What [`Encoder::with_enrichment`] was given.
    pub fn enrichment(&self) -> Option<&Arc<Enrichment>> {
        self.enrichment.as_ref()
    }

    /// Makes it hash ids under these keys, so that those of who was erased can be found.
    pub fn with_suppression(mut self, keys: Option<Keys>) -> Self {
        self.suppression = keys.map(Arc::new);
        self
    }

    /// Makes it accept nothing from before this time either, which may move while it works.
    pub fn with_floor(mut self, floor: Arc<AtomicI64>) -> Self {
        self.floor = Some(floor);
        self
    }

    /// Makes it read events of this format.
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Makes it note that this mapping is what it reads events by.
    pub fn with_mapping(mut self, mapping: Noted) -> Self {
        self.mapping = Some(Arc::new(mapping));
        self
    }

    /// Makes it find duplicates this way.
    pub fn with_dedupe(mut self, dedupe: Dedupe) -> Self {
        self.dedupe = dedupe;
        self
    }

    /// Makes it compare events by this fingerprint.
    pub fn with_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Parses, judges and encodes each record, until there are too many dates.
    pub fn encode(&mut self, mut raw: RawBatch) -> Batch {
        (raw.format, raw.mapping) = (self.format.clone(), self.mapping.clone());
        let mut seen = Seen { ids: HashMap::with_capacity(raw.records.len()), ..Seen::default() };
        // Before anything is made of it or compared: nobody is to find a whole address again.
        if let Some(enrichment) = &self.enrichment {
            raw.for_each_value(|value| enrichment.look_at(value, &mut seen.named));
        }
        if self.format.keeps_record() {
            raw.split_all(|record| self.format.events_with_their_record(record));
        }
        if let Some(floor) = &self.floor {
            self.limits.floor = self.limits.floor.max(floor.load(Ordering::Relaxed));
        }
        let mut batch = Batch {
            rows: Vec::with_capacity(raw.records.len()),
            encoded: Vec::with_capacity(raw.records.len() * copy::ROW_OVERHEAD),
            late: Vec::new(),
            dead: Vec::new(),
            allowed_lateness: self.limits.allowed_lateness,
            duplicates: 0,
            known: 0,
            filtered: 0,
            tombstones: 0,
            repeats: HashMap::new(),
            heirs: Vec::new(),
            suppression: self.suppression.clone(),
            people: Vec::new(),
            enrichment: self.enrichment.clone(),
            strangers: Strangers::default(),
            // The ledger knows ids only, so what they say must not matter within a batch either.
            id_alone: self.dedupe == Dedupe::IdWindow,
            raw: RawBatch::default(),
            rest: None,
            more: false,
        };
        let (mut full_at, mut index) = (None, 0);
        // The records behind one that was split, each put back when its turn has come.
        let mut behind = Vec::new().into_iter();
        loop {
            if index == raw.records.len() {
                match behind.next() {
                    Some(record) => raw.records.push(record),
                    None => break,
                }
            }
            let record = &raw.records[index];
            match record.kind {
                RecordKind::Tombstone => batch.tombstones += 1,
                RecordKind::Filtered => batch.filtered += 1,
                RecordKind::Value => {
                    let slot = &raw.slots[record.slot];
                    let mut events = None;
                    if self.format.is_split() && !self.format.keeps_record() {
                        events = self.events(&raw, index);
                    }
                    let encoded = match events {
                        Some(_) => Ok(true),
                        None => self.encode_one(&raw, index, slot, &mut seen, &mut batch),
                    };
                    if encoded.is_err() {
                        events = self.events(&raw, index);
                    }
                    if let Some(events) = events {
                        let rest = raw.records.split_off(index + 1);
                        if !rest.is_empty() {
                            behind = rest.into_iter();
                        }
                        raw.split_last(&events);
                        continue;
                    }
                    match encoded {
                        Ok(true) => {}
                        Ok(false) => {
                            full_at = Some(index);
                            break;
                        }
                        Err(rejection) => {
                            if let Some(keys) = &self.suppression {
                                let words = suppression::words(raw.value(record));
                                let hashes = words.flat_map(|word| keys.hashes(word));
                                batch.people.extend(hashes.map(|hash| (hash, index)));
                            }
                            let (event_id, event_time, event_type) = raw.known(record);
                            batch.dead.push(Dead {
                                record: index,
                                rejection,
                                event_id,
                                event_time,
                                event_type,
                            });
                        }
                    }
                }
            }
            index += 1;
        }
        raw.records.extend(behind);
        batch.sort();
        if let Some(enrichment) = &self.enrichment {
            batch.strangers = enrichment.strangers(seen.named);
        }
        batch.rest = full_at.map(|at| raw.split_off(at));
        batch.more = batch.rest.is_some();
        batch.raw = raw;
        batch
    }

    /// Where the events of a record lie that holds several.
    #[cold]
    fn events(&self, raw: &RawBatch, index: usize) -> Option<Vec<Range<usize>>> {
        let record = &raw.records[index];
        let whole = record.index == 0 && record.oversize.is_none();
        // One that is put together of headers and value is one event.
        let single = whole && self.format.compose(raw.headers(record), raw.value(record)).is_none();
        if single { self.format.events(raw.value(record)) } else { None }
    }

    /// Returns false, and leaves the record alone, if its date is one too many. The events of a record stay together,
    /// because a position cannot stand between them.
    fn encode_one(
        &mut self,
        raw: &RawBatch,
        index: usize,
        slot: &Slot,
        seen: &mut Seen,
        batch: &mut Batch,
    ) -> Result<bool, Rejection> {
        let record = &raw.records[index];
        if let Some(oversize) = &record.oversize {
            return Err(envelope::too_large(oversize.bytes, &self.limits));
        }
        let mut composed = self.format.compose(raw.headers(record), raw.value(record));
        if let (Some(enrichment), Some(composed)) = (&self.enrichment, &mut composed) {
            enrichment.look_at(composed, &mut seen.named);
        }
        let value = composed.as_deref().unwrap_or(raw.value(record));
        let (envelope, hash) = match self.format.scan(value, &self.limits, &self.fingerprint) {
            Some((envelope, hash)) => (envelope, Some(hash)),
            None => (self.format.parse(value, &self.limits)?, None),
        };
        // Where nobody knows the receipt, there is no lateness either: that by our clock would change with each try.
        let known_receipt =
            if record.receipt_guessed { None } else { record.received_at.or_else(|| envelope.received_at()) };
        let received = known_receipt.or(record.received_at).unwrap_or_else(time::now);
        let at = Coordinates {
            topic: &slot.topic,
            partition: slot.partition,
            offset: record.offset,
            index: (record.index > 0).then_some(record.index),
            bytes: value,
        };
        let mut event =
            envelope.into_event(at, received, &self.limits).map_err(|e| self.format.explain(e))?;
        event.event_time =
            self.dedupe.event_time(event.event_id, event.event_time, received, &self.limits)?;
        if known_receipt.is_none() {
            // What stands in the table must say the same as what is counted here.
            event.received_at = event.event_time;
        }
        let day = time::day_of(event.event_time);
        let lateness = known_receipt.map(|received| lateness(event.event_time, received));
        let late = lateness.is_some_and(|lateness| lateness > self.limits.allowed_lateness);
        if late && self.limits.late_policy == LatePolicy::Refuse {
            return Err(too_late(lateness.unwrap_or_default(), &self.limits));
        }
        if seen.dates.len() < MAX_DATES {
            seen.dates.insert(day);
        } else if !seen.dates.contains(&day) {
            if raw.is_first(index) {
                return Ok(false);
            }
            seen.dates.insert(day);
        }
        let hash = hash.unwrap_or_else(|| self.fingerprint.of(value));
        if let Some(keys) = &self.suppression {
            let ids = [&event.user_id, &event.anonymous_id].into_iter().flatten();
            for id in ids {
                let id = suppression::bounded(id);
                batch.people.extend(keys.hashes(id.as_bytes()).map(|hash| (hash, index)));
            }
        }
        let start = batch.encoded.len();
        copy::encode_row(&mut batch.encoded, &event, slot, record, hash, value.len()).map_err(|what| {
            batch.encoded.truncate(start);
            Rejection::new(Reason::TooLarge, what)
        })?;
        if let Some(composed) = &composed {
            batch.encoded.extend_from_slice(composed);
        }
        let len = batch.encoded.len() - start;
        let row = Row {
            day,
            time: event.event_time,
            id: event.event_id,
            lateness,
            hash,
            record: index,
            start,
            len,
            composed: composed.is_some(),
        };
        let late = late && self.limits.late_policy == LatePolicy::Divert;
        if self.dedupe.by_id() {
            let date = if self.dedupe.across_dates() { 0 } else { day };
            match seen.ids.entry((event.event_id, date)) {
                Entry::Vacant(entry) => {
                    entry.insert((index, hash));
                }
                Entry::Occupied(first) => {
                    let (leader, first) = *first.get();
                    return batch.repeat(leader, first, Repeat { row, late }).map(|()| true);
                }
            }
        }
        if late { &mut batch.late } else { &mut batch.rows }.push(row);
        Ok(true)
    }
}

fn too_late(lateness: Micros, limits: &Limits) -> Rejection {
    let seconds = |span: Micros| span / 1_000_000;
    let (late, allowed) = (seconds(lateness), seconds(limits.allowed_lateness));
    Rejection::new(
        Reason::TooLate,
        format!("received {late} s after it happened, more than the {allowed} s allowed"),
    )
}
