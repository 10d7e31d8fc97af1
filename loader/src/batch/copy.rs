//! COPY BINARY by hand (PostgreSQL documentation, COPY, "Binary Format"): the payload goes through as the bytes that
//! came in, from where they were read. Rows are encoded completely before COPY starts, so that no error of ours can arise
//! in the middle of it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{Batch, RawRecord, Slot};
use crate::event::envelope::Event;
use crate::event::time::Micros;

/// The columns, in the order of [`encode_row`]. Those of fixed width come first: `batch_id` is filled in at the end.
pub const COLUMNS: &str = "batch_id, event_time, received_at, source_topic, source_partition, source_offset, \
                           payload_hash, source_index, event_id, event_type, user_id, anonymous_id, payload";
/// The same with types, for the staging table.
pub const TYPED_COLUMNS: &str = "batch_id bigint, event_time timestamptz, received_at timestamptz, \
     source_topic integer, source_partition integer, source_offset bigint, payload_hash bigint, source_index integer, \
     event_id uuid, \
     event_type text, user_id text, anonymous_id text, payload jsonb";
/// What a row usually needs beside its payload.
pub const ROW_OVERHEAD: usize = 200;

const N_COLUMNS: i16 = 13;
/// Where the batch id lies in an encoded row: behind the number of columns and its own length.
const BATCH_ID_AT: usize = 6;
/// Size of the pieces handed to the driver: small enough to come from the heap and not from the kernel each time.
const CHUNK: usize = 128 * 1024;
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &[0xff, 0xff];

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), String> {
    let len = i32::try_from(bytes.len()).map_err(|_| "a field of 2 GiB or more".to_owned())?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) => put(out, text.as_bytes()),
        None => {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            Ok(())
        }
    }
}

/// Appends one row up to the text of its payload, which is to follow, with batch id 0. Fails only on fields that no COPY
/// could carry.
pub fn encode_row(
    out: &mut Vec<u8>,
    event: &Event<'_>,
    slot: &Slot,
    record: &RawRecord,
    hash: i64,
    payload: usize,
) -> Result<(), String> {
    out.extend_from_slice(&N_COLUMNS.to_be_bytes());
    put(out, &0i64.to_be_bytes())?;
    put(out, &event.event_time.to_be_bytes())?;
    put(out, &event.received_at.to_be_bytes())?;
    put(out, &slot.topic_id.to_be_bytes())?;
    put(out, &slot.partition.to_be_bytes())?;
    put(out, &record.offset.to_be_bytes())?;
    put(out, &hash.to_be_bytes())?;
    match record.index {
        0 => put_text(out, None)?,
        index => put(out, &index.to_be_bytes())?,
    }
    put(out, event.event_id.as_bytes())?;
    put_text(out, Some(&event.event_type))?;
    put_text(out, event.user_id.as_deref())?;
    put_text(out, event.anonymous_id.as_deref())?;
    // jsonb: a version byte, then the text.
    let len = i32::try_from(payload + 1).map_err(|_| "a payload of 2 GiB or more".to_owned())?;
    out.extend_from_slice(&len.to_be_bytes());
    out.push(1);
    Ok(())
}

/// The time of receipt in an encoded row: the third column, behind two of eight bytes, each with its length.
pub fn received_at(row: &[u8]) -> Micros {
    let at = 2 + 3 * 4 + 2 * 8;
    row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes)
}

/// The rows of `range` as a complete COPY BINARY stream, in pieces.
pub struct Chunks<'a> {
    batch: &'a Batch,
    batch_id: [u8; 8],
    next: usize,
    end: usize,
    started: bool,
    done: bool,
}

impl<'a> Chunks<'a> {
    /// The stream for the rows from index `from` (inclusive) to `to` (exclusive).
    pub fn new(batch: &'a Batch, batch_id: i64, from: usize, to: usize) -> Self {
        Chunks { batch, batch_id: batch_id.to_be_bytes(), next: from, end: to, started: false, done: false }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK + 16 * 1024);
        if !self.started {
            out.put_slice(HEADER);
            self.started = true;
        }
        while self.next < self.end && out.len() < CHUNK {
            let (columns, payload) = self.batch.encoded(&self.batch.rows[self.next]);
            out.put_slice(&columns[..BATCH_ID_AT]);
            out.put_slice(&self.batch_id);
            out.put_slice(&columns[BATCH_ID_AT + 8..]);
            out.put_slice(payload);
            self.next += 1;
        }
        if self.next == self.end {
            out.put_slice(TRAILER);
            self.done = true;
        }
        Some(out.freeze())
    }
}
