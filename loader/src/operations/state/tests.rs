use serde_json::json;

use super::*;
use crate::batch::{Encoder, RecordKind, Slot};
use crate::event::envelope;
use crate::operations::health::{LIMITS, Limits, Reason, line, ready, status};
use crate::postgres::transaction::WritePath;

const SECOND: i64 = 1_000_000;

/// That many seconds from now.
fn later(seconds: u64) -> Now {
    let now = Now::get();
    Now {
        clock: now.clock + Duration::from_secs(seconds),
        time: now.time + i64::try_from(seconds).unwrap() * SECOND,
    }
}

fn claim(next_offset: i64) -> Claim {
    Claim { epoch: 1, next_offset, run: 1 }
}

/// Of a pipeline with a lane that is a member and holds a partition, read up to its end.
fn running() -> State {
    let mut state = State::new("web", "me");
    state.begin(1);
    state.polled();
    state.hold("t", 3, claim(10), 10);
    state.joined();
    state
}

/// A batch of these records of the partition, all of which are no JSON.
fn batch(from: i64, to: i64) -> RawBatch {
    let mut raw = RawBatch::default();
    raw.slots.push(Slot {
        topic: Arc::from("t"),
        topic_id: 1,
        partition: 3,
        epoch: 1,
        run: 1,
        from,
        to,
        leader_epoch: None,
    });
    (from..to).for_each(|n| raw.push(0, n, None, RecordKind::Value, None, None, b"x", 100));
    raw
}

fn commit(state: &mut State, raw: RawBatch) {
    let batch = Encoder::new(envelope::Limits::default()).encode(raw);
    state.committed(0, &batch, &Written { batch_id: 77, counts: batch.counts(), path: WritePath::Direct });
}

fn reasons(state: &State, now: Now) -> Vec<String> {
    ready(state, now, &LIMITS).err().unwrap_or_default().iter().map(Reason::to_string).collect()
}

fn lag(state: &State, now: Now) -> (i64, i64) {
    (state.lag(), state.lag_seconds(now).round() as i64)
}

#[test]
fn it_is_ready_when_nothing_speaks_against_it() {
    let mut state = State::new("web", "me");
    assert_eq!(reasons(&state, later(0)), ["not a member of the consumer group yet"]);
    state = running();
    assert_eq!(ready(&state, later(0), &LIMITS), Ok(()));
    assert_eq!(line(&state, later(0), &LIMITS), "loading; 0 records so far");
    assert_eq!(reasons(&state, later(31)), ["the reading thread has been silent for 31 s"]);
    state.postgres = Some("gone".to_owned());
    state.kafka = Some("no broker is connected".to_owned());
    // A session that ends because Kafka is away does not bring it back.
    state.left();
    state.paused = Some("too many".to_owned());
    assert_eq!(
        reasons(&state, later(0)),
        [
            "Postgres does not answer: gone",
            "Kafka does not answer: no broker is connected",
            "the pipeline is paused: too many"
        ]
    );
}

#[test]
fn a_lane_that_works_on_one_batch_for_too_long_loads_nothing() {
    let mut state = running();
    let limits = Limits { silence: Duration::from_secs(900), ..LIMITS };
    let reasons = |state: &State, now| ready(state, now, &limits).err().unwrap_or_default();
    state.sent(0, &batch(10, 12));
    state.sent(0, &batch(12, 20));
    assert_eq!(reasons(&state, later(14)), []);
    assert_eq!(reasons(&state, later(17)), [Reason::Stuck(0, 17, None)]);
    state.failed(0, "53100", "disk full".to_owned(), Duration::from_secs(2));
    state.failed(0, "53100", "disk full".to_owned(), Duration::from_secs(4));
    let why = reasons(&state, later(17));
    assert_eq!(why[0].to_string(), "lane 0 has worked on one batch for 17 s: disk full");
    let shown = status(&state, later(17), &limits);
    assert_eq!(shown["not_ready"], json!(["lane 0 has worked on one batch for 17 s: disk full"]));
    assert_eq!(
        (&shown["lanes"][0]["retries"], &shown["lanes"][0]["backoff_seconds"]),
        (&json!(2), &json!(4.0))
    );
    // The next batch has its own time, and a lane without a batch has all the time in the world.
    commit(&mut state, batch(10, 12));
    assert_eq!(reasons(&state, later(14)), []);
    assert_eq!(reasons(&state, later(16)), [Reason::Stuck(0, 16, None)]);
    commit(&mut state, batch(12, 20));
    assert_eq!(reasons(&state, later(800)), []);
    // What a lane has given up it does not work on.
    state.sent(0, &batch(20, 21));
    state.ended();
    assert_eq!(reasons(&state, later(800)), []);
    assert_eq!((state.lanes[0].batches(), state.lanes[0].last.map(|(id, _)| id)), (0, Some(77)));
}

#[test]
fn lag_is_the_age_of_the_oldest_record_that_is_not_committed() {
    let mut state = running();
    assert_eq!(lag(&state, later(500)), (0, 0), "nothing is there, from the claim on");
    // What comes after hours of silence is one second old.
    state.begun("t", 3, 10, Some(time::now() - SECOND));
    state.read("t", 3, 15);
    assert_eq!(lag(&state, later(0)), (5, 1));
    state.begun("t", 3, 15, Some(time::now()));
    state.read("t", 3, 18);
    assert_eq!(lag(&state, later(10)), (8, 11));
    commit(&mut state, batch(10, 15));
    assert_eq!(lag(&state, later(10)), (3, 10));
    // While the group is left it goes on growing, from the same record.
    state.left();
    assert_eq!(lag(&state, later(60)), (3, 60));
    state.hold("t", 3, claim(15), 18);
    state.begun("t", 3, 15, Some(time::now()));
    state.joined();
    commit(&mut state, batch(15, 18));
    assert_eq!(lag(&state, later(60)), (0, 0));
    assert_eq!(state.take_positions(), [(Arc::from("t"), 3, 18)]);
    assert_eq!(state.take_positions(), []);
    state.release("t", 3);
    assert_eq!(status(&state, later(0), &LIMITS)["partitions"], json!([]));
}

#[test]
fn what_nobody_reads_is_as_old_as_it_was_found_to_be() {
    let mut state = running();
    state.left();
    assert_eq!(state.unread(later(0)), [(Arc::from("t"), 3, 10)]);
    state.looked("t", 3, 10, 10, None);
    assert_eq!(lag(&state, later(5)), (0, 0));
    state.looked("t", 3, 10, 12, Some((10, time::now() - 90 * SECOND)));
    assert_eq!(lag(&state, later(0)), (2, 90));
    // Held and not read, as while the lane has no room: it counts from when that was noticed, until somebody looks.
    let mut state = running();
    state.ends("t", 3, 30);
    assert_eq!((lag(&state, later(1)), state.unread(later(1))), ((20, 1), vec![]));
    assert_eq!(state.unread(later(3)).len(), 1);
    state.looked("t", 3, 9, 30, Some((9, 0)));
    assert_eq!(lag(&state, later(1)), (20, 1), "of a position that we have left");
    state.looked("t", 3, 10, 30, Some((10, time::now() - 40 * SECOND)));
    assert_eq!((lag(&state, later(0)), state.unread(later(9))), ((20, 40), vec![]));
}

#[test]
fn partitions_of_others_are_forgotten_once_we_know_ours() {
    let mut state = running();
    state.hold("t", 4, claim(0), 5);
    state.left();
    state.begin(2);
    assert_eq!((state.partitions.len(), state.holdings().len()), (2, 0));
    state.hold("t", 4, claim(0), 5);
    state.joined();
    assert_eq!(state.partitions.keys().map(|(_, p)| *p).collect::<Vec<_>>(), [4]);
}

#[test]
fn what_postgres_has_lost_is_of_the_claim_that_was_asked_about() {
    let mut state = running();
    let asked = state.holdings();
    state.compared(&asked, &[Some(10)], None);
    assert_eq!((&state.void, state.partitions[&("t".into(), 3)].next), (&None, Some(10)));
    state.compared(&asked, &[Some(4)], Some("went back".to_owned()));
    assert_eq!(state.void.as_deref(), Some("went back"));
    state.begin(1);
    state.hold("t", 3, Claim { epoch: 2, ..claim(4) }, 10);
    state.compared(&asked, &[Some(4)], Some("went back".to_owned()));
    assert_eq!(state.void, None, "it was claimed anew since");
}

#[test]
fn records_are_counted_by_topic() {
    let mut state = running();
    let raw = batch(10, 14);
    state.sent(0, &raw);
    commit(&mut state, raw);
    let topic = &state.topics["t"];
    assert_eq!((topic.consumed, topic.counts.dead, topic.counts.read), (4, 4, 4));
    assert_eq!(topic.dead, BTreeMap::from([("invalid_json", 4)]));
    assert_eq!(status(&state, later(0), &LIMITS)["topics"]["t"]["dead"], 4);
    assert_eq!(state.counts(), topic.counts);
}
