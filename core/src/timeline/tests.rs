//! Random histories, stored in every way, and what the aggregates over rows make of them.

mod bytes;
mod laws;

use std::collections::BTreeMap;

use super::*;
use crate::Global;
use crate::event::{Event, EventLog};
use crate::retention::calendar::DAY;
use proptest::prelude::*;

/// A row before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Given {
    person: u8,
    time: i64,
    event: u32,
    properties: [u32; 2],
    /// In which part it arrives.
    part: u8,
}

impl Given {
    fn hash(&self) -> u64 {
        person_hash(&[self.person])
    }

    fn date(&self) -> i32 {
        self.time.div_euclid(DAY) as i32
    }

    fn codes(&self) -> [u32; 3] {
        [self.event, self.properties[0], self.properties[1]]
    }
}

/// How many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(n: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(n))
}

/// Few persons and dates, times that meet often, in steps of a second, a millisecond or a microsecond.
fn histories() -> impl Strategy<Value = Vec<Given>> {
    let unit = prop::sample::select(vec![1i64, 1_000, 1_000_000, 3_600_000_000]);
    let dates = prop::sample::select(vec![-1i64, 0, 1, 2, 9]);
    let row = (0u8..4, dates, 0i64..12, prop::bool::weighted(0.1), 0u32..5, (0u32..3, 0u32..70), 0u8..4);
    let rows = prop_oneof![
        4 => prop::collection::vec(row.clone(), 0..40),
        1 => prop::collection::vec(row, 100..300),
    ];
    (unit, rows).prop_map(|(unit, rows)| {
        rows.into_iter()
            .map(|(person, date, step, late, event, properties, part)| {
                let within = if late { DAY - 1 - step * unit } else { step * unit };
                let time = date * DAY + within;
                Given { person, time, event, properties: properties.into(), part }
            })
            .collect()
    })
}

/// Values as a table holds them: by slice and date, or a part of a date for all slices.
struct Stored {
    bits: u32,
    slices: BTreeMap<(u32, i32), Vec<Encoded>>,
    whole: BTreeMap<i32, Vec<Encoded>>,
}

fn builder(rows: &[Given]) -> Builder {
    let mut builder = Builder::new(2);
    for row in rows {
        builder.push(row.hash(), row.time, row.event, &row.properties).unwrap();
    }
    builder
}

fn encode(rows: &[Given], bits: u32) -> Vec<Encoded> {
    builder(rows).finish(bits, ()).map(Result::unwrap).collect()
}

/// The rows of each date.
fn builders(rows: &[Given]) -> BTreeMap<i32, Builder> {
    let mut dates: BTreeMap<i32, Vec<Given>> = BTreeMap::new();
    rows.iter().for_each(|row| dates.entry(row.date()).or_default().push(*row));
    dates.into_iter().map(|(date, rows)| (date, builder(&rows))).collect()
}

fn source(slice: &Encoded) -> Source<'_> {
    let view = View::read(&slice.core).unwrap();
    Source::new(view, slice.properties.iter().map(|p| Codes::read(p).unwrap()).collect()).unwrap()
}

impl Stored {
    /// Rows of part 0 and 1 by slice, those of the others not; or without any parts.
    fn new(rows: &[Given], bits: u32, parts: bool) -> Self {
        let mut grouped: BTreeMap<(i32, u8), Vec<Given>> = BTreeMap::new();
        for row in rows {
            grouped.entry((row.date(), if parts { row.part } else { 0 })).or_default().push(*row);
        }
        let mut stored = Self { bits, slices: BTreeMap::new(), whole: BTreeMap::new() };
        for ((date, part), rows) in grouped {
            if part < 2 {
                for slice in encode(&rows, bits) {
                    stored.slices.entry((slice.slice, date)).or_default().push(slice);
                }
            } else {
                stored.whole.entry(date).or_default().extend(encode(&rows, 0));
            }
        }
        stored
    }

    fn scan<K: Kernel>(&self, kernel: K, level: Level) -> K {
        let mut scan = Scan::new(kernel, self.bits, level).unwrap();
        let dates: std::collections::BTreeSet<i32> =
            self.slices.keys().map(|key| key.1).chain(self.whole.keys().copied()).collect();
        for slice in 0..1 << self.bits {
            for &date in &dates {
                let own = self.slices.get(&(slice, date)).into_iter().flatten().map(source);
                let whole = self.whole.get(&date).into_iter().flatten();
                let whole = whole.filter_map(|part| source(part).of_slice(slice, self.bits));
                let parts: Vec<_> = own.chain(whole).collect();
                if !parts.is_empty() {
                    scan.read(slice, date, &parts, ()).unwrap();
                }
            }
        }
        scan.finish(())
    }
}

/// The same rows, of which those that happened later arrived in later parts.
fn in_rounds(rows: &[Given]) -> Vec<Given> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.time);
    let len = rows.len();
    rows.iter_mut().enumerate().for_each(|(i, row)| row.part = (4 * i / len) as u8);
    rows
}

/// Rows, and every way to store them.
struct History {
    rows: Vec<Given>,
    stored: [Stored; 3],
}

impl History {
    fn new(rows: Vec<Given>) -> Self {
        let stored = [
            Stored::new(&rows, 0, false),
            Stored::new(&rows, 2, true),
            Stored::new(&in_rounds(&rows), 1, true),
        ];
        Self { rows, stored }
    }

    /// Every way to store and to read.
    fn ways(&self, mut each: impl FnMut(&Stored, Level)) {
        for stored in &self.stored {
            each(stored, Level::plain());
            each(stored, Level::best());
        }
    }
}

fn holds(filter: &Filter, codes: [u32; 3]) -> bool {
    match filter {
        Filter::Is(column, set) => set.contains(codes[*column]),
        Filter::Not(filter) => !holds(filter, codes),
        Filter::And(filters) => filters.iter().all(|f| holds(f, codes)),
        Filter::Or(filters) => filters.iter().any(|f| holds(f, codes)),
    }
}

/// What a question selects, person by person, without any timeline.
fn expected(question: &Question, rows: &[Given]) -> BTreeMap<u64, Vec<Row>> {
    let mut persons: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let codes = row.codes();
        let bits = question.conditions.iter().enumerate();
        let conditions = bits.fold(0, |all, (i, filter)| all | u32::from(holds(filter, codes)) << i);
        let matters = question.only.as_ref().is_none_or(|only| holds(only, codes));
        if matters && (conditions != 0 || question.unmatched) {
            let value = question.value.map_or(0, |column| codes[column]);
            persons.entry(row.hash()).or_default().push(Row { time: row.time, conditions, value });
        }
    }
    persons.values_mut().for_each(|rows| rows.sort_unstable());
    persons
}

/// As the aggregate has them, whatever the order in which they arrive.
fn events(rows: &[Row]) -> Vec<Event> {
    let mut log = EventLog::new_in(Global);
    rows.iter().rev().for_each(|row| log.push(row.time, row.conditions));
    log.sorted(()).to_vec()
}

/// Questions of several kinds: steps by event, with filters, that overlap, with a value, of all rows.
fn questions() -> impl Strategy<Value = Question> {
    let event = (0u32..5).prop_map(Filter::event);
    let property = (1usize..3, prop::collection::vec(0u32..70, 0..30))
        .prop_map(|(column, codes)| Filter::Is(column, codes.into_iter().collect()));
    let step = prop_oneof![
        3 => event.clone(),
        1 => (event, property.clone()).prop_map(|(event, property)| Filter::And(vec![event, property])),
        1 => property.clone().prop_map(|property| Filter::Not(Box::new(property))),
    ];
    let value = prop::option::of(0usize..3);
    (prop::collection::vec(step, 1..5), any::<bool>(), prop::option::weighted(0.2, property), value)
        .prop_map(|(conditions, unmatched, only, value)| Question { conditions, unmatched, only, value })
}

/// Steps that no two rows share, as streaming wants them.
fn steps() -> impl Strategy<Value = Question> {
    let order = Just([0u32, 1, 2, 3, 4]).prop_shuffle();
    let codes = prop::collection::vec(prop::option::of(prop::collection::vec(0u32..70, 10..60)), 5);
    (order, codes, 1usize..6, prop::option::of(0usize..3)).prop_map(|(order, codes, n, value)| {
        let step = |(event, codes): (u32, Option<Vec<u32>>)| match codes {
            Some(codes) => {
                Filter::And(vec![Filter::event(event), Filter::Is(2, codes.into_iter().collect())])
            }
            None => Filter::event(event),
        };
        let conditions = order.into_iter().zip(codes).take(n).map(step).collect();
        Question { conditions, unmatched: false, only: None, value }
    })
}
