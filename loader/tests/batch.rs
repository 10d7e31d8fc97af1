//! From records to COPY BINARY: every record has one outcome, and the encoded rows decode to what went in.

use std::sync::Arc;

use proptest::prelude::*;
use tidemark_loader::batch::copy::Chunks;
use tidemark_loader::batch::{BOUNDS, Batch, Encoder, MAX_DATES, RawBatch, RecordKind, Slot, Statistics};
use tidemark_loader::event::dead_letter::Reason;
use tidemark_loader::event::envelope::{Limits, sha256};
use tidemark_loader::event::time::LatePolicy;
use tidemark_loader::event::time::{Micros, parse_time};

/// When the records of some tests were received: 2026-09-01T10:00:05Z.
const DAY_ONE: Micros = 841_572_005_000_000;

fn slot() -> Slot {
    Slot {
        topic: Arc::from("t"),
        topic_id: 7,
        partition: 3,
        epoch: 1,
        run: 1,
        from: 0,
        to: 0,
        leader_epoch: None,
    }
}

fn batch_of(lines: &[Vec<u8>]) -> RawBatch {
    received(None, lines)
}

fn received(at: Option<Micros>, lines: &[Vec<u8>]) -> RawBatch {
    let mut raw = RawBatch::default();
    raw.slots.push(Slot { to: lines.len() as i64, ..slot() });
    for (i, line) in lines.iter().enumerate() {
        raw.push(0, i as i64, at, RecordKind::Value, Some(b"key"), Some(b"headers"), line, 1000);
    }
    raw
}

/// From, to and leader epoch of each slot, by partition.
fn ranges(raw: &RawBatch) -> Vec<(i32, i64, i64, Option<i32>)> {
    let mut ranges: Vec<_> = raw.slots.iter().map(|s| (s.partition, s.from, s.to, s.leader_epoch)).collect();
    ranges.sort_unstable();
    ranges
}

#[test]
fn a_batch_that_is_cut_covers_the_same_with_both_parts() {
    // Two partitions in turn with holes between their offsets, one with a single record, one that only moved on.
    let partitions = [0, 1, 0, 2, 1, 0];
    let whole = || {
        let mut raw = RawBatch::default();
        for (partition, to) in [(0, 60), (1, 50), (2, 40), (3, 5)] {
            raw.slots.push(Slot { partition, to, leader_epoch: Some(9), ..slot() });
        }
        for (n, partition) in partitions.into_iter().enumerate() {
            let value = line(n as u32, 1, n);
            raw.push(partition, n as i64 * 10, None, RecordKind::Value, None, None, &value, 1000);
            raw.leader_epoch_is(Some(n as i32));
        }
        raw
    };
    for at in 1..partitions.len() {
        let mut first = whole();
        let second = first.split_off(at);
        assert_eq!((first.len(), second.len()), (at, partitions.len() - at));
        assert_eq!(first.bytes() + second.bytes(), whole().bytes());
        for (partition, from, to, epoch) in ranges(&whole()) {
            let parts: Vec<_> =
                [&first, &second].into_iter().flat_map(ranges).filter(|r| r.0 == partition).collect();
            match parts.as_slice() {
                [one] => assert_eq!(*one, (partition, from, to, epoch), "{at}"),
                [a, b] => {
                    let last = (0..at).rev().find(|n| partitions[*n] == partition as usize).unwrap();
                    assert_eq!(*a, (partition, from, last as i64 * 10 + 1, Some(last as i32)), "{at}");
                    assert_eq!(*b, (partition, a.2, to, epoch), "{at}");
                }
                other => panic!("{at}: {other:?}"),
            }
        }
        let mut encoder = Encoder::new(Limits::default());
        let mut ids: Vec<_> = Vec::new();
        for raw in [first, second] {
            let slots = raw.slots.len();
            assert!(raw.slots_of_records().all(|slot| slot < slots));
            let batch = encoder.encode(raw);
            ids.extend(batch.rows.iter().map(|row| (row.id, batch.encoded(row).1.to_vec())));
        }
        let all = encoder.encode(whole());
        let all: Vec<_> = all.rows.iter().map(|row| (row.id, all.encoded(row).1.to_vec())).collect();
        assert!(ids.len() == partitions.len() && ids == all, "{at}");
    }
}

#[test]
fn a_batch_ends_before_the_date_that_is_one_too_many() {
    let value = |day: i32| {
        let date = tidemark_loader::event::time::format_day(day);
        format!(r#"{{"messageId":"{day}","event":"e","timestamp":"{date}T00:00:00Z"}}"#).into_bytes()
    };
    let days = (0..MAX_DATES as i32).chain([0, 1, 700, 2]);
    let lines: Vec<Vec<u8>> = days.map(value).collect();
    let mut batch = encode(&lines);
    let rest = batch.rest.take().unwrap();
    assert_eq!((batch.counts().read, batch.more), (MAX_DATES as u64 + 2, true));
    assert_eq!(batch.slots()[0].to, rest.slots[0].from);
    let mut encoder = Encoder::new(Limits::default());
    let rest = encoder.encode(rest);
    assert_eq!((rest.counts().read, rest.more, rest.slots()[0].to), (2, false, lines.len() as i64));
    let (first, second) = rest.halves(&encoder);
    assert_eq!((first.counts().loaded, first.more), (1, true));
    assert!(second.is_some_and(|second| second.counts().loaded == 1 && !second.more));
}

fn encode(lines: &[Vec<u8>]) -> Batch {
    let at = parse_time("2026-09-30T00:00:00Z");
    Encoder::new(Limits { max_bytes: 1000, ..Limits::default() }).encode(received(at, lines))
}

/// One decoded row: its columns, `None` for NULL.
type Columns = Vec<Option<Vec<u8>>>;

/// Decodes a COPY BINARY stream after the documentation.
fn decode(stream: &[u8]) -> Vec<Columns> {
    let (header, mut rest) = stream.split_at(19);
    assert_eq!(header, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    let mut rows = Vec::new();
    loop {
        let columns = take(2);
        let columns = i16::from_be_bytes([columns[0], columns[1]]);
        if columns == -1 {
            break;
        }
        let mut row = Vec::new();
        for _ in 0..columns {
            let len = take(4);
            let len = i32::from_be_bytes([len[0], len[1], len[2], len[3]]);
            row.push((len >= 0).then(|| take(len as usize)));
        }
        rows.push(row);
    }
    assert!(rest.is_empty());
    rows
}

fn stream(batch: &Batch, from: usize, to: usize) -> Vec<u8> {
    Chunks::new(batch, 99, from, to).flat_map(|c| c.to_vec()).collect()
}

fn line(id: u32, day: u32, pad: usize) -> Vec<u8> {
    format!(
        r#"{{"messageId":"id-{id}","type":"x","timestamp":"2026-09-{day:02}T00:00:00Z","anonymousId":"é","p":"{}"}}"#,
        "p".repeat(pad)
    )
    .into_bytes()
}

#[test]
fn rows_decode_to_what_went_in() {
    let lines = [line(1, 2, 10), line(2, 1, 20)];
    let batch = encode(&lines);
    let rows = decode(&stream(&batch, 0, 2));
    // Sorted by date, so the second line comes first.
    let row = &rows[0];
    let time = parse_time("2026-09-01T00:00:00Z").unwrap();
    assert_eq!(row.len(), 13);
    assert_eq!(row[0].as_deref(), Some(99i64.to_be_bytes().as_slice()));
    assert_eq!(row[1].as_deref(), Some(time.to_be_bytes().as_slice()));
    assert_eq!(row[3].as_deref(), Some(7i32.to_be_bytes().as_slice()));
    assert_eq!(row[4].as_deref(), Some(3i32.to_be_bytes().as_slice()));
    assert_eq!(row[5].as_deref(), Some(1i64.to_be_bytes().as_slice()));
    assert_eq!(row[6].as_ref().map(Vec::len), Some(8));
    assert_eq!(row[7], None);
    assert_eq!(row[8].as_ref().map(Vec::len), Some(16));
    assert_eq!(row[9].as_deref(), Some(b"x".as_slice()));
    assert_eq!(row[10], None);
    assert_eq!(row[11].as_deref(), Some("é".as_bytes()));
    let payload: Vec<u8> = [b"\x01".as_slice(), &lines[1]].concat();
    assert_eq!(row[12], Some(payload));
}

#[test]
fn an_id_counts_once_a_day() {
    let batch = encode(&[line(1, 1, 1), line(1, 1, 1), line(1, 2, 3)]);
    assert_eq!(batch.rows.len(), 2);
    let counts = batch.counts();
    assert_eq!((counts.read, counts.loaded, counts.duplicate), (3, 2, 1));
    // The first one is kept.
    assert_eq!(decode(&stream(&batch, 0, 1))[0][12].as_ref().map(Vec::len), Some(line(1, 1, 1).len() + 1));
}

#[test]
fn dead_letters_keep_the_bytes_and_where_they_came_from() {
    let long = vec![b'x'; 1001];
    let batch = encode(&[b"\xff\0".to_vec(), long.clone(), line(1, 1, 1)]);
    let letters: Vec<_> = batch.dead_letters().collect();
    assert_eq!(letters.len(), 2);
    assert_eq!((&*letters[0].payload, letters[0].truncated), (b"\xff\0".as_slice(), false));
    let parts = (letters[0].key.as_deref(), letters[0].headers.as_deref());
    assert_eq!(parts, (Some(b"key".as_slice()), Some(b"headers".as_slice())));
    assert_eq!(letters[0].dead.rejection.reason, Reason::InvalidUtf8);
    assert_eq!((letters[1].payload.len(), letters[1].truncated, letters[1].offset), (1000, true, 1));
    assert_eq!(letters[1].sha256, sha256(&long));
    assert_eq!(letters[1].dead.rejection.reason, Reason::TooLarge);
}

#[test]
fn rejected_rows_become_dead_letters_and_the_rest_stays() {
    let mut batch = encode(&[line(1, 1, 1), line(2, 2, 1), line(3, 2, 1), line(4, 3, 1)]);
    let rejection = tidemark_loader::event::dead_letter::Rejection::new(Reason::PartitionSealed, "sealed");
    let day = batch.rows[1].day;
    batch.reject_day(day, &rejection);
    assert_eq!(batch.rows.len(), 2);
    batch.reject_row(0, rejection);
    let counts = batch.counts();
    assert_eq!((counts.loaded, counts.dead, counts.read), (1, 3, 4));
    assert_eq!(decode(&stream(&batch, 0, 1))[0][5].as_deref(), Some(3i64.to_be_bytes().as_slice()));
}

#[test]
fn a_receipt_says_nothing_about_the_lines_after_it() {
    let text =
        |received: &str, time: &str| format!(r#"{{"type":"x"{received},"timestamp":"{time}"}}"#).into_bytes();
    let received = r#","receivedAt":"2026-09-01T00:00:00Z""#;
    let batch = Encoder::new(Limits::default()).encode(batch_of(&[
        text(received, "2026-09-01T00:00:00Z"),
        text("", "2026-10-01T00:00:00Z"),
        text("", "2025-09-01T00:00:00Z"),
    ]));
    let lateness: Vec<Option<Micros>> = batch.rows.iter().map(|row| row.lateness).collect();
    assert_eq!((lateness, batch.dead.len()), (vec![None, Some(0), None], 0));
}

#[test]
fn a_guessed_receipt_judges_the_clock_and_nothing_else() {
    let text = |time: &str| format!(r#"{{"type":"x","timestamp":"{time}"}}"#).into_bytes();
    let at = parse_time("2026-09-01T00:00:00Z");
    let limits = Limits { late_policy: LatePolicy::Refuse, ..Limits::default() };
    let mut raw = batch_of(&[]);
    for (n, time) in (0..).zip(["2026-08-01T00:00:00Z", "2026-09-01T00:05:01Z"]) {
        raw.push(0, n, at, RecordKind::Value, None, None, &text(time), usize::MAX);
        raw.receipt_is_guessed();
    }
    let batch = Encoder::new(limits).encode(raw);
    assert_eq!(batch.dead.len(), 1);
    assert_eq!(batch.dead[0].rejection.reason, Reason::EventTimeInFuture);
    assert_eq!((batch.rows.len(), batch.rows[0].lateness), (1, None));
    let row = &decode(&stream(&batch, 0, 1))[0];
    assert_eq!(row[1], row[2], "its receipt is its event time");
}

#[test]
fn the_same_id_with_another_content_is_a_dead_letter() {
    let batch = encode(&[line(1, 1, 1), line(1, 1, 2), line(1, 1, 1)]);
    let counts = batch.counts();
    assert_eq!((counts.loaded, counts.dead, counts.duplicate), (1, 1, 1));
    assert_eq!(batch.dead[0].rejection.reason, Reason::DuplicateIdConflict);
    assert_eq!(batch.dead[0].record, 1, "the first one is kept");
}

#[test]
fn known_ids_are_duplicates_or_conflicts() {
    let mut batch = encode(&[line(1, 1, 1), line(2, 1, 1), line(3, 1, 1), line(4, 1, 1)]);
    let key = |i: usize| (batch.rows[i].id, batch.rows[i].day);
    let hash = batch.rows[0].hash;
    let known = [(key(0), Some(hash)), (key(1), Some(hash)), (key(2), None)].into_iter().collect();
    batch.drop_known(&known);
    let counts = batch.counts();
    assert_eq!((counts.loaded, counts.dead, counts.duplicate, counts.read), (1, 1, 2, 4));
    assert_eq!(batch.dead[0].rejection.reason, Reason::DuplicateIdConflict);
    assert_eq!(batch.dead[0].record, 1);
    assert_eq!(batch.rows[0].record, 3);
}

/// Received at the beginning of 2026-09-30: the event of the first day is 29 days late, that of the 23rd is not late.
fn judged(policy: LatePolicy) -> Batch {
    let limits = Limits { late_policy: policy, ..Limits::default() };
    let at = parse_time("2026-09-30T00:00:00Z");
    Encoder::new(limits).encode(received(at, &[line(1, 1, 1), line(2, 23, 1), line(3, 22, 1)]))
}

#[test]
fn late_events_go_where_the_policy_says() {
    let recompute = judged(LatePolicy::Recompute);
    assert_eq!((recompute.rows.len(), recompute.late.len(), recompute.dead.len()), (3, 0, 0));
    let divert = judged(LatePolicy::Divert);
    assert_eq!((divert.rows.len(), divert.late.len(), divert.dead.len()), (1, 2, 0));
    assert_eq!(divert.rows[0].record, 1, "exactly as late as allowed is not late");
    let counts = divert.counts();
    assert_eq!((counts.read, counts.loaded, counts.late), (3, 1, 2));
    let refuse = judged(LatePolicy::Refuse);
    assert_eq!((refuse.rows.len(), refuse.late.len()), (1, 0));
    assert!(
        refuse.dead.iter().all(|dead| dead.rejection.reason == Reason::TooLate && dead.event_id.is_some())
    );
    assert_eq!(refuse.dead.len(), 2);
}

#[test]
fn statistics_count_lateness_by_date() {
    let batch = judged(LatePolicy::Recompute);
    let s = Statistics::of(&batch.rows, batch.allowed_lateness);
    assert_eq!(s.days, batch.days());
    assert_eq!((s.rows, s.late), (vec![1, 1, 1], vec![1, 1, 0]));
    assert_eq!(s.min_times, s.max_times);
    let buckets: Vec<usize> =
        s.lateness.chunks(BOUNDS.len() + 1).map(|b| b.iter().position(|n| *n == 1).unwrap()).collect();
    // 29, 8 and exactly 7 days.
    assert_eq!(buckets, [9, 9, 9]);
    assert_eq!(s.lateness.iter().sum::<i64>(), 3);
}

#[test]
fn an_event_whose_receipt_nobody_knows_is_not_late() {
    let limits = Limits { late_policy: LatePolicy::Refuse, ..Limits::default() };
    let batch = Encoder::new(limits).encode(batch_of(&[line(1, 1, 1)]));
    assert_eq!((batch.rows.len(), batch.dead.len()), (1, 0));
    let s = Statistics::of(&batch.rows, batch.allowed_lateness);
    assert_eq!((s.rows, s.late, s.lateness.iter().sum::<i64>()), (vec![1], vec![0], 0));
}

proptest! {
    /// Whatever the policy and however a stream is cut into batches, an event is classified alike.
    #[test]
    fn lateness_does_not_depend_on_batches(
        days in proptest::collection::vec(1u32..30, 1..60), cut in 0usize..60, policy in 0usize..3
    ) {
        let policy = [LatePolicy::Recompute, LatePolicy::Divert, LatePolicy::Refuse][policy];
        let lines: Vec<Vec<u8>> = days.iter().enumerate().map(|(i, day)| line(i as u32, *day, 0)).collect();
        let limits = Limits { late_policy: policy, ..Limits::default() };
        let at = parse_time("2026-09-30T00:00:00Z");
        let outcome = |batch: &Batch, from: usize| {
            let mut all = Vec::new();
            all.extend(batch.rows.iter().map(|r| (from + r.record, "row")));
            all.extend(batch.late.iter().map(|r| (from + r.record, "late")));
            all.extend(batch.dead.iter().map(|d| (from + d.record, "dead")));
            all
        };
        let mut whole = outcome(&Encoder::new(limits).encode(received(at, &lines)), 0);
        let cut = cut.min(lines.len());
        let mut encoder = Encoder::new(limits);
        let mut parts = outcome(&encoder.encode(received(at, &lines[..cut])), 0);
        parts.extend(outcome(&encoder.encode(received(at, &lines[cut..])), cut));
        whole.sort_unstable();
        parts.sort_unstable();
        prop_assert_eq!(whole.len(), lines.len());
        prop_assert_eq!(whole, parts);
    }

    /// I2 of the loader's invariants, and: whatever the pieces, the stream is one and complete.
    #[test]
    fn every_record_has_one_outcome(
        picks in proptest::collection::vec((0u32..20, 1u32..30, 0usize..40, 0u8..6), 0..200)
    ) {
        let lines: Vec<Vec<u8>> = picks
            .iter()
            .map(|(id, day, pad, kind)| match kind {
                0 => b"broken".to_vec(),
                1 => vec![b'x'; 1001],
                _ => line(*id, *day, *pad),
            })
            .collect();
        let batch = encode(&lines);
        let n = batch.rows.len();
        let counts = batch.counts();
        prop_assert_eq!(counts.read, lines.len() as u64);
        prop_assert_eq!(counts.read, counts.loaded + counts.duplicate + counts.dead);
        let rows = decode(&stream(&batch, 0, n));
        prop_assert_eq!(rows.len(), n);
        prop_assert!(batch.rows.is_sorted_by_key(|r| r.day));
        let split = n / 2;
        let mut parts = decode(&stream(&batch, 0, split));
        parts.extend(decode(&stream(&batch, split, n)));
        prop_assert_eq!(parts, rows);
    }
}

/// Events of a user each, as one record of this form.
fn several(form: (&str, &str), users: &[&str]) -> Vec<u8> {
    let event = |user: &&str| match *user {
        "" => r#"{"messageId":"m"}"#.to_owned(),
        user => format!(
            r#"{{"messageId":"{user}","event":"e","userId":"{user}","timestamp":"2026-09-01T10:00:00Z"}}"#
        ),
    };
    let events: Vec<String> = users.iter().map(event).collect();
    [form.0, &events.join(", "), form.1].concat().into_bytes()
}

/// Offset, index and payload of each row, and of each dead letter.
fn ends(batch: &Batch) -> (Vec<String>, Vec<(i64, i32, String)>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = batch.rows.iter().map(|row| text(batch.encoded(row).1));
    (rows.collect(), batch.dead_letters().map(|l| (l.offset, l.index, text(&l.payload))).collect())
}

#[test]
fn a_record_that_holds_several_events_is_split() {
    let forms =
        [("[", "]"), (r#"{"batch":["#, r#"],"sentAt":"2026-09-01T10:00:00Z"}"#), (r#"{"events" : [ "#, "]}")];
    for form in forms {
        let lines = [
            several(("", ""), &["a"]),
            several(form, &["b", "", "a", "c"]),
            several(form, &[]),
            several(form, &["d"]),
            b"[1]".to_vec(),
            several(("", ""), &["e"]),
        ];
        let batch = Encoder::new(Limits::default()).encode(received(Some(DAY_ONE), &lines));
        let n = batch.counts();
        assert_eq!((n.read, n.loaded, n.duplicate, n.dead, n.filtered), (9, 5, 1, 2, 1), "{form:?}");
        let (rows, dead) = ends(&batch);
        let users: Vec<&str> = rows.iter().map(|row| &row[14..15]).collect();
        assert_eq!(users, ["a", "b", "c", "d", "e"], "{form:?}");
        assert_eq!(dead, [(1, 2, r#"{"messageId":"m"}"#.to_owned()), (4, 0, "[1]".to_owned())]);
        // The first record with an id is the one that counts, whatever holds it.
        assert_eq!(batch.slots()[0].to, 6);
        // Twice is as once.
        let (first, second) = Batch::halves(batch, &Encoder::new(Limits::default()));
        let second = second.unwrap();
        assert_eq!((first.slots()[0].to, second.slots()[0].from), (2, 2));
        assert_eq!((first.counts().read, second.counts().read), (5, 4));
        assert_eq!(ends(&first).1, [(1, 2, r#"{"messageId":"m"}"#.to_owned())]);
    }
}

#[test]
fn one_bad_event_does_not_keep_the_others_of_its_record() {
    let good = String::from_utf8(several(("", ""), &["a"])).unwrap();
    let bad = good.replace("\"e\"", "\"\\u0000\"");
    let lines =
        [format!(r#"{{"batch":[{good},{bad},17]}}"#), format!("[{bad},{good}]")].map(String::into_bytes);
    let batch = Encoder::new(Limits::default()).encode(received(Some(DAY_ONE), &lines));
    let reasons: Vec<_> = batch.dead.iter().map(|dead| dead.rejection.reason).collect();
    assert_eq!(reasons, [Reason::NulEscape, Reason::NotAnObject, Reason::NulEscape]);
    assert_eq!((batch.counts().loaded, batch.counts().duplicate), (1, 1));
    // An event may have such a member of its own.
    let whole = good.replace("{", r#"{"batch":[{"n":1}],"#);
    let batch =
        Encoder::new(Limits::default()).encode(received(Some(DAY_ONE), &[whole.clone().into_bytes()]));
    assert_eq!(ends(&batch), (vec![whole], vec![]));
}

#[test]
fn events_without_ids_of_one_record_are_several() {
    let event = r#"{"event":"e","timestamp":"2026-09-01T10:00:00Z"}"#;
    let lines = [format!("[{event},{event}]").into_bytes()];
    let encode = || Encoder::new(Limits::default()).encode(received(Some(DAY_ONE), &lines));
    let ids = |batch: &Batch| batch.rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let batch = encode();
    assert_eq!(batch.counts().loaded, 2);
    assert_eq!(ids(&batch), ids(&encode()));
}

#[test]
fn a_record_is_never_cut_between_its_events() {
    let event = |day: usize| {
        let day = 10_000 + day as i64;
        let date = tidemark_loader::event::time::format_day(day as i32 - 3000);
        format!(r#"{{"event":"e","timestamp":"{date}T10:00:00Z"}}"#)
    };
    let array = |from: usize, to: usize| {
        format!("[{}]", (from..to).map(event).collect::<Vec<_>>().join(",")).into_bytes()
    };
    // The second record begins within the dates of a batch and ends beyond them.
    let lines = [array(0, 300), array(300, 500), array(500, 501)];
    let raw = || {
        let mut raw = RawBatch::default();
        raw.slots.push(Slot { to: lines.len() as i64, ..slot() });
        for (i, line) in lines.iter().enumerate() {
            raw.push(0, i as i64, Some(DAY_ONE), RecordKind::Value, None, None, line, usize::MAX);
        }
        raw
    };
    let mut encoder = Encoder::new(Limits::default());
    let mut batch = encoder.encode(raw());
    assert_eq!((batch.counts().loaded, batch.slots()[0].to), (500, 2));
    let rest = encoder.encode(batch.rest.take().unwrap());
    assert_eq!((rest.counts().loaded, rest.slots()[0].from, rest.slots()[0].to), (1, 2, 3));
    let (first, second) = batch.halves(&encoder);
    assert_eq!((first.slots()[0].to, second.unwrap().counts().loaded), (1, 200));
    // A single record cannot be halved.
    let (_, none) = rest.halves(&encoder);
    assert!(none.is_none());
}
