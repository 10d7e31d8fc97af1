//! A record as Kafka delivers it, in the form in which the books take it; and what tells its log from another one of the
//! same name: ids of topics, and the leader epochs of records. librdkafka knows both; the safe API shows neither, so this is
//! where its C interface is called.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Timestamp, TopicPartitionList, bindings as c};

use super::books::Record;
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
        leader_epoch: leader_epoch(message),
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

/// Something of librdkafka's that is to be given back.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from librdkafka together with the function that takes it back, and nobody else has it.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// The ids of those topics that exist now, as Kafka writes them: `None` from brokers before 2.8. A topic that is made
/// anew has another one. Asks this broker, or the leader of a partition of the first. Blocks.
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    broker: Option<i32>,
    timeout: Duration,
) -> KafkaResult<HashMap<String, Option<String>>> {
    let mut found = HashMap::new();
    let Some(first) = topics.first() else { return Ok(found) };
    // librdkafka would ask the controller, of which there need not be any that answers clients.
    let broker = match broker {
        Some(broker) => broker,
        None => {
            let metadata = client.fetch_metadata(Some(first), timeout)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let leader = partitions.map(|partition| partition.leader()).find(|leader| *leader >= 0);
            let any = || metadata.brokers().first().map(|broker| broker.id());
            leader.or_else(any).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))?
        }
    };
    let names: Vec<CString> = topics.iter().map(|t| CString::new(*t)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    let failed = |code: RDKafkaErrorCode| KafkaError::MetadataFetch(code);
    // SAFETY: the client outlives this call, the names outlive the collection, which copies them, and what belongs to
    // an event is read before the event is given back. Values are dropped in the opposite order of their creation.
    unsafe {
        let rk = client.native_ptr();
        let queue = Owned(c::rd_kafka_queue_new(rk), c::rd_kafka_queue_destroy);
        let api = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned(c::rd_kafka_AdminOptions_new(rk, api), c::rd_kafka_AdminOptions_destroy);
        c::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        c::rd_kafka_AdminOptions_set_broker(options.0, broker, ptr::null_mut(), 0);
        let names = c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let names = Owned(names, c::rd_kafka_TopicCollection_destroy);
        c::rd_kafka_DescribeTopics(rk, names.0, options.0, queue.0);
        let event = Owned(c::rd_kafka_queue_poll(queue.0, millis), c::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        let error = RDKafkaErrorCode::from(c::rd_kafka_event_error(event.0));
        if error != RDKafkaErrorCode::NoError {
            return Err(failed(error));
        }
        let result = c::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(failed(RDKafkaErrorCode::Unknown));
        }
        let mut count = 0;
        let list = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for i in 0..count {
            let topic = *list.add(i);
            let error =
                RDKafkaErrorCode::from(c::rd_kafka_error_code(c::rd_kafka_TopicDescription_error(topic)));
            match error {
                RDKafkaErrorCode::NoError => {}
                RDKafkaErrorCode::UnknownTopicOrPartition => continue,
                other => return Err(failed(other)),
            }
            let name =
                CStr::from_ptr(c::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
            let id = c::rd_kafka_TopicDescription_topic_id(topic);
            let none = id.is_null()
                || c::rd_kafka_Uuid_most_significant_bits(id) == 0
                    && c::rd_kafka_Uuid_least_significant_bits(id) == 0;
            // As `kafka-topics --describe` prints it, which has the alphabet for URLs.
            let text = || CStr::from_ptr(c::rd_kafka_Uuid_base64str(id)).to_string_lossy();
            let id = (!none).then(|| text().replace('+', "-").replace('/', "_"));
            found.insert(name, id);
        }
    }
    Ok(found)
}

/// The first of these topics, given with their ids, that is another one now. One that is gone is not another one. Asks
/// those brokers that records came from, since a broker knows of a topic before it serves it, and others may not know
/// yet; another in place of one that does not answer. Blocks.
pub fn made_anew<C: ClientContext>(
    client: &Client<C>,
    topics: &HashMap<String, String>,
    brokers: &BTreeSet<i32>,
    timeout: Duration,
) -> KafkaResult<Option<String>> {
    let names: Vec<&str> = topics.keys().map(String::as_str).collect();
    let any = brokers.is_empty().then_some(None);
    for broker in brokers.iter().copied().map(Some).chain(any) {
        let now = match topic_ids(client, &names, broker, timeout) {
            Err(_) if broker.is_some() => topic_ids(client, &names, None, timeout),
            now => now,
        }?;
        let other = topics.iter().find(|(name, id)| matches!(now.get(*name), Some(Some(now)) if now != *id));
        if let Some((name, _)) = other {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// The broker that a record came from.
pub fn broker(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is alive as long as it is borrowed.
    unsafe { c::rd_kafka_message_broker_id(message.ptr()) }
}

/// The epoch in which a record was written.
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the message is alive as long as it is borrowed.
    known(unsafe { c::rd_kafka_message_leader_epoch(message.ptr()) })
}

/// The epoch that belongs to the offset of a partition in a list.
pub fn leader_epoch_in(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i32> {
    let element = element(list, topic, partition)?;
    // SAFETY: the element belongs to the list, which is borrowed.
    known(unsafe { c::rd_kafka_topic_partition_get_leader_epoch(element) })
}

/// Says to which epoch the record before the offset of a partition in a list belongs.
pub fn set_leader_epoch(list: &mut TopicPartitionList, topic: &str, partition: i32, epoch: Option<i32>) {
    if let Some(element) = element(list, topic, partition) {
        // SAFETY: the element belongs to the list, which nobody else has borrowed.
        unsafe { c::rd_kafka_topic_partition_set_leader_epoch(element, epoch.unwrap_or(-1)) }
    }
}

fn element(
    list: &TopicPartitionList,
    topic: &str,
    partition: i32,
) -> Option<*mut c::rd_kafka_topic_partition_t> {
    let topic = CString::new(topic).ok()?;
    // SAFETY: list and name are alive; the answer is null or points into the list.
    let element = unsafe { c::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition) };
    (!element.is_null()).then_some(element)
}

fn known(epoch: i32) -> Option<i32> {
    (epoch >= 0).then_some(epoch)
}
