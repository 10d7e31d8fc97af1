//! A record as Kafka delivers it, in the form in which the books take it.

use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::books::Record;
use super::identity;
use crate::event::time::{self, Micros};

/// The broker's or producer's time of a record.
pub fn received_at(message: &BorrowedMessage<'_>) -> Option<Micros> {
    match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => time::from_unix_millis(ms),
        Timestamp::NotAvailable => None,
    }
}

/// Borrows a record. Its headers are encoded into `headers`, as `loader.dead_letters.headers` has them.
pub fn borrow<'a>(message: &'a BorrowedMessage<'_>, headers: &'a mut Vec<u8>) -> Record<'a> {
    let headers = message.headers().map(|list| {
        headers.clear();
        for header in list.iter() {
            put(headers, Some(header.key.as_bytes()));
            put(headers, header.value);
        }
        headers.as_slice()
    });
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        leader_epoch: identity::leader_epoch(message),
        received_at: received_at(message),
        key: message.key(),
        headers,
        value: message.payload(),
    }
}

/// Length and bytes; -1 stands for no bytes.
fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let len = bytes.map_or(-1, |b| i32::try_from(b.len()).unwrap_or(i32::MAX));
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}
