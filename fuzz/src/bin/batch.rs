//! A batch of records: each ends in one outcome, and what goes to Postgres is a COPY that it can read.
#![no_main]

use std::sync::LazyLock;

use clap::ValueEnum;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidemark_loader::batch::copy::{Chunks, received_at};
use tidemark_loader::batch::{Batch, Encoder, RawBatch, RecordKind, Slot, Statistics};
use tidemark_loader::event::dead_letter::{Reason, Rejection};
use tidemark_loader::event::dedupe::Dedupe;
use tidemark_loader::event::envelope::Limits;
use tidemark_loader::event::envelope::mapping::{Description, Format, SHIPPED};
use tidemark_loader::event::time::LatePolicy;
use tidemark_loader::event::time::day_of;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    format: u8,
    dedupe: u8,
    late: u8,
    keep: u8,
    records: Vec<Record<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Record<'a> {
    slot: bool,
    kind: u8,
    /// Seconds around the time of the events below.
    received: i32,
    guessed: bool,
    key: Option<&'a [u8]>,
    headers: Option<Vec<(&'a [u8], Option<&'a [u8]>)>>,
    value: Value<'a>,
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Event { id: u8, uuid: bool, minute: u16, user: &'a str },
}

/// 2026-09-01T08:00:00Z.
const RECEIVED: i64 = 841_564_800_000_000;

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let shipped = SHIPPED.iter().map(|(name, text)| Description::parse(name, text).expect("a mapping"));
    shipped.map(|mapping| Format::new(&mapping, &[])).collect()
});

fn one_of<T: Copy + ValueEnum>(n: u8) -> T {
    T::value_variants()[usize::from(n) % T::value_variants().len()]
}

fn value(value: &Value<'_>) -> Vec<u8> {
    match *value {
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::Event { id, uuid, minute, user } => {
            let id = if uuid { format!("01990{id:03x}-0000-7000-8000-000000000000") } else { id.to_string() };
            let (hour, minute, day) = (minute / 60 % 24, minute % 60, minute / 1440 % 28 + 1);
            let user = serde_json::Value::from(user);
            let time = format!("2026-08-{day:02}T{hour:02}:{minute:02}:00Z");
            format!(
                r#"{{"messageId":"{id}","id":"{id}","event_id":"{id}","event":"e","type":"t","event_name":"e",
                     "timestamp":"{time}","time":"{time}","userId":{user}}}"#
            )
            .into_bytes()
        }
    }
}

fn encoded(headers: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [Some(*name), *value]) {
        out.extend_from_slice(&part.map_or(-1, |part| part.len() as i32).to_be_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    }
    out
}

fn raw(input: &Input<'_>) -> RawBatch {
    let mut raw = RawBatch::default();
    for (partition, topic) in ["events", "file:\u{e9}"].into_iter().enumerate() {
        let partition = partition as i32;
        raw.slots.push(Slot {
            topic: topic.into(),
            topic_id: 3,
            partition,
            epoch: 1,
            run: 0,
            from: 0,
            to: 9,
            leader_epoch: None,
        });
    }
    for (offset, record) in input.records.iter().enumerate() {
        let kind = [RecordKind::Value, RecordKind::Value, RecordKind::Tombstone, RecordKind::Filtered];
        let headers = record.headers.as_deref().map(encoded);
        raw.push(
            usize::from(record.slot),
            offset as i64,
            Some(RECEIVED + i64::from(record.received) * 1_000_000),
            kind[usize::from(record.kind % 4)],
            record.key,
            headers.as_deref(),
            &value(&record.value),
            if input.keep < 200 { 1 << 16 } else { usize::from(input.keep) },
        );
        if record.guessed {
            raw.receipt_is_guessed();
        }
    }
    raw
}

/// The fields of the rows of a COPY BINARY stream.
fn rows(stream: &[u8]) -> Vec<Vec<Option<&[u8]>>> {
    let mut rest = stream.strip_prefix(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").expect("the header");
    let mut rows = Vec::new();
    loop {
        let (columns, after) = rest.split_first_chunk().expect("a row or the trailer");
        rest = after;
        let columns = i16::from_be_bytes(*columns);
        if columns == -1 {
            assert!(rest.is_empty());
            return rows;
        }
        let mut row = Vec::new();
        for _ in 0..columns {
            let (len, after) = rest.split_first_chunk().expect("a length");
            rest = after;
            let len = usize::try_from(i32::from_be_bytes(*len)).ok();
            row.push(len.map(|len| {
                let (field, after) = rest.split_at(len);
                rest = after;
                field
            }));
        }
        rows.push(row);
    }
}

fn check_rows(batch: &Batch) {
    let stream = Chunks::new(batch, 42, 0, batch.rows.len()).collect::<Vec<_>>().concat();
    let rows = rows(&stream);
    assert_eq!(rows.len(), batch.rows.len());
    for (row, said) in rows.iter().zip(&batch.rows) {
        assert_eq!(row.len(), 13);
        assert_eq!(row[0], Some(&42i64.to_be_bytes()[..]));
        assert_eq!(row[1], Some(&said.time.to_be_bytes()[..]));
        assert_eq!(row[2], Some(&received_at(batch.encoded(said).0).to_be_bytes()[..]));
        assert!(row[7].is_none_or(|index| index.len() == 4), "the place in a record of several events");
        assert_eq!(row[8], Some(&said.id.as_bytes()[..]));
        assert_eq!(day_of(said.time), said.day);
        for text in row[9..12].iter().flatten() {
            assert!(std::str::from_utf8(text).is_ok_and(|text| !text.is_empty() && !text.contains('\0')));
        }
        let payload = row[12].and_then(|payload| payload.strip_prefix(b"\x01")).expect("jsonb of version 1");
        assert!(serde_json::from_slice::<IgnoredAny>(payload).is_ok());
    }
    assert!(batch.rows.is_sorted_by_key(|row| row.day));
    let statistics = Statistics::of(&batch.rows, batch.allowed_lateness);
    assert_eq!(statistics.rows.iter().sum::<i64>(), batch.rows.len() as i64);
    assert_eq!(statistics.days, batch.days());
}

/// Every record ends in one outcome.
fn check_counts(batch: &Batch) {
    let counts = batch.counts();
    let outcomes =
        counts.loaded + counts.duplicate + counts.late + counts.dead + counts.filtered + counts.tombstone;
    assert_eq!(outcomes, counts.read, "{counts:?}");
}

fuzz_target!(|input: Input<'_>| {
    let limits = Limits { late_policy: one_of::<LatePolicy>(input.late), ..Limits::default() };
    let mut encoder = Encoder::new(limits)
        .with_format(FORMATS[usize::from(input.format) % FORMATS.len()].clone())
        .with_dedupe(one_of::<Dedupe>(input.dedupe));
    let mut batch = encoder.encode(raw(&input));
    assert!(batch.counts().read >= input.records.len() as u64);
    check_counts(&batch);
    assert_eq!(batch.judged().filter(|(_, dead)| *dead).count(), batch.dead.len());
    for letter in batch.dead_letters() {
        assert!(!letter.dead.rejection.detail.contains('\0'));
        assert!(letter.dead.event_type.as_ref().is_none_or(|text| !text.contains('\0')));
    }
    check_rows(&batch);
    batch.swap_late();
    check_rows(&batch);
    batch.swap_late();
    if let Some(day) = batch.days().first() {
        batch.reject_day(*day, &Rejection::new(Reason::PartitionRetired, "retired"));
        check_counts(&batch);
        check_rows(&batch);
    }
});
