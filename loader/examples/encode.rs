//! Encodes a file of events as the lanes of `tidemark run` do and writes nothing, for counting instructions:
//! `valgrind --tool=callgrind target/release/examples/encode FILE [MAPPING]`. Prints what came of the events, and a checksum of
//! the encoded rows that a change must not change.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for whoever changes the hot path")]

use std::sync::Arc;

use tidemark_loader::batch::Encoder;
use tidemark_loader::event::envelope::Limits;
use tidemark_loader::event::envelope::mapping::{Description, Format};
use tidemark_loader::kafka::books::{Books, Record};
use tidemark_loader::postgres::position::Claim;

const ROWS: usize = 20_000;

fn main() {
    let path = std::env::args().nth(1).expect("usage: encode FILE [MAPPING]");
    let content = std::fs::read(path).expect("cannot read the file");
    let mapping = std::env::args().nth(2);
    let mapping = Description::of(mapping.as_deref().unwrap_or("segment")).expect("a mapping");
    let mut encoder = Encoder::new(Limits::default())
        .with_format(Format::new(&mapping, &[]))
        .with_enrichment(Arc::default())
        .with_fingerprint(mapping.fingerprint(Vec::new()));
    let mut books = Books::new(1, 16 << 20);
    let topic: Arc<str> = "events".into();
    books.hold(&topic, 1, 0, Claim { epoch: 1, next_offset: 0, run: 1 });
    let (mut rows, mut dead, mut duplicates, mut bytes, mut sum) = (0, 0, 0, 0, 0u64);
    let mut flush = |books: &mut Books| {
        let Some(raw) = books.hand_out(0) else { return };
        let batch = encoder.encode(raw);
        for row in &batch.rows {
            let (columns, payload) = batch.encoded(row);
            let len = columns.len() + payload.len();
            bytes += len;
            let middle = [columns, payload].concat()[len / 2];
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(middle)).wrapping_add(row.hash as u64);
        }
        rows += batch.rows.len();
        dead += batch.dead.len();
        duplicates += batch.duplicates;
    };
    let ends = memchr::memchr_iter(b'\n', &content).chain([content.len()]);
    let lines = ends.scan(0, |from, to| content.get(std::mem::replace(from, to + 1)..to));
    for (offset, line) in (0..).zip(lines.filter(|line| !line.is_empty())) {
        let record = Record {
            topic: &topic,
            partition: 0,
            offset,
            leader_epoch: None,
            received_at: None,
            key: None,
            headers: None,
            value: Some(line),
        };
        books.take(&record, 1 << 20);
        if books.filling(0).batch.len() >= ROWS {
            flush(&mut books);
        }
    }
    flush(&mut books);
    println!("rows {rows} dead {dead} duplicates {duplicates} bytes {bytes} checksum {sum:016x}");
}
