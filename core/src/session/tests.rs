//! Sessions against their definition, and the laws of their states.

use super::*;
use crate::Global;
use crate::codec::{read_whole, written};
use proptest::prelude::*;

/// The definition: sort the times, cut where the pause is greater than the gap.
fn by_definition(times: &[i64], gap: i64) -> Vec<Session> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let mut sessions: Vec<Session> = Vec::new();
    for time in times {
        match sessions.last_mut() {
            Some(s) if i128::from(time) - i128::from(s.ended_at) <= i128::from(gap) => {
                s.ended_at = time;
                s.events += 1;
            }
            _ => sessions.push(Session { started_at: time, ended_at: time, events: 1 }),
        }
    }
    sessions
}

fn state(times: &[i64], gap: i64) -> Sessions<Global> {
    let mut state = Sessions::new_in(gap, Global);
    times.iter().for_each(|&t| state.push(t, ()));
    state
}

fn sessions_of(state: &mut Sessions<Global>) -> Vec<Session> {
    state.finish(()).collect()
}

fn bytes_of(state: &mut Sessions<Global>) -> AVec<u8> {
    written(|w| state.encode(w, ()))
}

fn read(bytes: &[u8]) -> Result<Sessions<Global>, DecodeError> {
    read_whole(bytes, |r| Sessions::decode_in(r, Global, ()))
}

/// Few and many events beside what is kept without joining, dense and scattered, some at the ends of time.
fn any_times() -> impl Strategy<Value = Vec<i64>> {
    let span = prop_oneof![Just(60i64), Just(1_000), Just(100_000)];
    let times = span.prop_flat_map(|span| {
        let time = prop_oneof![
            16 => -span..span,
            1 => any::<i64>(),
            1 => prop_oneof![Just(i64::MIN), Just(i64::MIN + 1), Just(i64::MAX), Just(i64::MAX - 3)],
        ];
        prop_oneof![3 => prop::collection::vec(time.clone(), 0..20), 1 => prop::collection::vec(time, 0..300)]
    });
    prop_oneof![
        3 => times.clone(),
        1 => times.prop_map(|mut times| { times.sort_unstable(); times }),
    ]
}

fn any_gap() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0), 6 => 0i64..6, 2 => 0i64..200, 1 => Just(i64::MAX)]
}

#[test]
fn a_pause_equal_to_the_gap_stays_in_the_session() {
    assert_eq!(state(&[0, 30, 61], 30).count(()), 2);
    let one = [Session { started_at: 0, ended_at: 60, events: 3 }];
    assert_eq!(sessions_of(&mut state(&[0, 30, 60], 30)), one);
    assert_eq!(sessions_of(&mut state(&[60, 0, 30], 30)), one);
}

#[test]
fn no_events_give_no_sessions() {
    let mut none = state(&[], 5);
    assert!(none.is_empty());
    assert_eq!(none.count(()), 0);
    assert!(read(&bytes_of(&mut none)).unwrap().is_empty());
    assert!(!state(&[0], 5).is_empty());
}

#[test]
fn memory_follows_sessions_not_events() {
    // 200,000 events of 20 interleaved sessions, never in order.
    let mut s = Sessions::new_in(10, Global);
    for i in 0..200_000i64 {
        s.push((i * 7919 % 20) * 10_000 + (i / 20 * 31 % 100), ());
    }
    assert!(s.singles.capacity() <= 1024 && s.runs.capacity() <= 512);
    assert_eq!(s.count(()), 20);
    assert_eq!(s.finish(()).map(|r| r.events).sum::<i64>(), 200_000);
}

#[test]
fn a_scattered_event_takes_the_room_of_its_time() {
    let mut s = Sessions::new_in(10, Global);
    (0..50i64).for_each(|i| s.push(i * 7919 % 50 * 1000, ()));
    assert_eq!((s.singles.capacity(), s.runs.capacity()), (64, 0));
    assert_eq!(s.count(()), 50);
}

#[test]
fn different_gaps_do_not_merge() {
    let mut a = state(&[1], 5);
    assert_eq!(a.merge(&state(&[2], 6), ()), Err(Mismatch { left: 5, right: 6 }));
    assert_eq!(sessions_of(&mut a), [Session { started_at: 1, ended_at: 1, events: 1 }]);
}

#[test]
fn impossible_states_are_refused() {
    let refused = |bytes: &[u8]| read(bytes).err();
    let sessions = |gap: u64, rows: &[(u64, u64, u64)]| {
        written(|w| {
            w.varint(gap);
            w.varint(rows.len() as u64);
            rows.iter().for_each(|&(a, b, c)| [a, b, c].into_iter().for_each(|v| w.varint(v)));
        })
    };
    assert_eq!(refused(&sessions(5, &[(1 << 63, 9, 3), (6, 0, 1)])), None);
    assert!(refused(&sessions(1 << 63, &[])).is_some(), "gap");
    assert!(refused(&sessions(5, &[(0, 0, 1), (5, 0, 1)])).is_some(), "sessions that touch");
    assert!(refused(&sessions(5, &[(0, 0, 0)])).is_some(), "no events");
    assert!(refused(&sessions(5, &[(0, 1, 1)])).is_some(), "one event with a length");
    assert!(refused(&sessions(5, &[(0, 11, 3)])).is_some(), "a pause inside that must exceed the gap");
    assert!(refused(&sessions(5, &[(0, 0, u64::MAX)])).is_some(), "event count");
    assert!(refused(&sessions(0, &[(u64::MAX, 0, 1), (1, 0, 1)])).is_some(), "time");
    assert!(
        refused(&written(|w| [0, 200, 1].into_iter().for_each(|byte| w.u8(byte)))).is_some(),
        "count beyond the bytes"
    );
}

proptest! {
    #[test]
    fn sessions_equal_the_definition_in_any_order(times in any_times(), gap in any_gap(), early in 0usize..300) {
        let mut s = Sessions::new_in(gap, Global);
        for (i, &t) in times.iter().enumerate() {
            // Asking for an answer in between must not disturb later ones.
            if i == early { s.count(()); }
            s.push(t, ());
        }
        let expected = by_definition(&times, gap);
        prop_assert_eq!(s.count(()), expected.len());
        prop_assert_eq!(sessions_of(&mut s), expected);
    }

    #[test]
    fn any_split_and_merge_order_gives_the_same_bytes(
        times in any_times(), gap in any_gap(), cuts in prop::collection::vec(0usize..4, 300)
    ) {
        let parts = || {
            let mut parts: Vec<_> = (0..4).map(|_| Sessions::new_in(gap, Global)).collect();
            times.iter().zip(&cuts).for_each(|(&t, &p)| parts[p].push(t, ()));
            parts
        };
        let sent = |part: &mut Sessions<Global>| read(&bytes_of(part)).unwrap();
        let expected = bytes_of(&mut state(&times, gap));
        for order in [[0usize, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
            let mut parts = parts();
            let (mut all, mut received) = (Sessions::new_in(gap, Global), Sessions::new_in(gap, Global));
            for p in order {
                all.merge(&parts[p], ()).unwrap();
                received.merge(&sent(&mut parts[p]), ()).unwrap();
            }
            prop_assert_eq!(&bytes_of(&mut all), &expected);
            prop_assert_eq!(&bytes_of(&mut received), &expected);
        }
        let mut parts = parts().into_iter();
        let mut pair = || {
            let (mut a, b) = (parts.next().unwrap(), parts.next().unwrap());
            a.merge(&b, ()).unwrap();
            a
        };
        let (mut a, b) = (pair(), pair());
        a.merge(&b, ()).unwrap();
        a.push(3, ());
        let with_three: Vec<i64> = times.iter().copied().chain([3]).collect();
        prop_assert_eq!(sessions_of(&mut a), by_definition(&with_three, gap));
    }

    #[test]
    fn sessions_survive_their_bytes(times in any_times(), gap in any_gap()) {
        let mut before = state(&times, gap);
        let mut after = read(&bytes_of(&mut before)).unwrap();
        prop_assert_eq!(after.gap(), gap);
        prop_assert_eq!(sessions_of(&mut before), sessions_of(&mut after));
    }

    #[test]
    fn mutated_bytes_are_refused_or_read_as_a_valid_state(
        times in any_times(), at in 0usize..400, byte: u8, cut in 0usize..400
    ) {
        let mut bytes = bytes_of(&mut state(&times, 4));
        if let Some(b) = bytes.get_mut(at) { *b = byte; }
        bytes.truncate(cut);
        if let Ok(mut s) = read(&bytes) {
            let gap = s.gap.into();
            for w in sessions_of(&mut s).windows(2) {
                prop_assert!(i128::from(w[1].started_at) - i128::from(w[0].ended_at) > gap);
            }
        }
    }

    #[test]
    fn the_running_form_agrees_with_the_aggregate(mut times in any_times(), gap in any_gap()) {
        times.sort_unstable();
        let mut running = Sessionizer::new();
        let expected = by_definition(&times, gap);
        for &t in &times {
            let start = running.next(Some(t), gap, false).unwrap().unwrap();
            let session = &expected[running.number() as usize - 1];
            prop_assert_eq!(start, session.started_at);
            prop_assert!(session.started_at <= t && t <= session.ended_at);
        }
        prop_assert_eq!(running.number() as usize, expected.len());
    }
}

#[test]
fn a_forced_cut_starts_a_session_and_a_missing_time_changes_nothing() {
    let mut s = Sessionizer::new();
    assert_eq!(s.next(None, 30, true), Ok(None));
    assert_eq!(s.number(), 0);
    assert_eq!(s.next(Some(5), 30, false), Ok(Some(5)));
    assert_eq!(s.next(Some(6), 30, true), Ok(Some(6)));
    assert_eq!(s.next(None, 30, true), Ok(None));
    assert_eq!(s.next(Some(7), 30, false), Ok(Some(6)));
    assert_eq!(s.number(), 2);
    assert_eq!(s.next(Some(7), 30, true), Ok(Some(7)));
    assert_eq!(s.number(), 3);
}

#[test]
fn unordered_input_is_an_error_not_a_wrong_session() {
    let mut s = Sessionizer::new();
    s.next(Some(5), 30, false).unwrap();
    assert_eq!(s.next(Some(4), 30, false), Err(OutOfOrder));
}
