use super::*;
use crate::Global;
use proptest::prelude::*;

/// Time, channel of a touch, worth of a conversion.
type Event = (i64, Option<&'static str>, Option<u8>);

const MODELS: [&str; 7] =
    ["first", "last", "linear", "position", "time_decay", "time_decay=1", "position, direct"];

fn journey(model: &str, look_back: i64, events: &[Event]) -> Journey<Global> {
    let mut journey = Journey::new_in(Spec::parse(model, look_back).unwrap(), Global);
    for (time, channel, worth) in events {
        if let Some(channel) = channel {
            journey.touch(*time, channel.as_bytes(), ());
        }
        if let Some(worth) = worth {
            journey.convert(*time, &[*worth], ());
        }
    }
    journey
}

type Found = Vec<(i64, Vec<u8>, Vec<(i64, String, f64)>)>;

fn credits(mut journey: Journey<Global>) -> Found {
    let mut found = vec![];
    journey.credits((), |time, worth, credits| {
        let credits = credits
            .iter()
            .map(|c| (c.time, String::from_utf8_lossy(c.channel).into_owned(), c.weight))
            .collect();
        found.push((time, worth.to_vec(), credits));
    });
    found
}

fn day(n: i64) -> i64 {
    n * DAY as i64
}

/// Four touches, of which two are direct, and a conversion on the tenth day.
fn four(model: &str) -> Vec<(i64, String, f64)> {
    let events = [
        (day(10), None, Some(1)),
        (day(3), Some("Email"), None),
        (day(9), Some("Direct"), None),
        (day(1), Some("Direct"), None),
        (day(10), Some("Paid Search"), None),
    ];
    credits(journey(model, day(30), &events)).remove(0).2
}

#[test]
fn models_weigh_as_they_say() {
    let (email, paid) = ((day(3), "Email".to_owned()), (day(10), "Paid Search".to_owned()));
    assert_eq!(four("first"), [(email.0, email.1.clone(), 1.0)]);
    assert_eq!(four("last"), [(paid.0, paid.1.clone(), 1.0)]);
    let half = [(email.0, email.1.clone(), 0.5), (paid.0, paid.1.clone(), 0.5)];
    assert_eq!(four("linear"), half);
    assert_eq!(four("position"), half);
    let weights = |model| four(model).into_iter().map(|(_, _, weight)| weight).collect::<Vec<_>>();
    // Seven days older: half as much.
    assert_eq!(weights("time_decay"), [1.0 / 3.0, 2.0 / 3.0]);
    assert_eq!(weights("position,direct"), [0.4, 0.1, 0.1, 0.4]);
    assert_eq!(weights("linear,direct"), [0.25; 4]);
    assert_eq!(four("first,direct")[0].1, "Direct");
}

#[test]
fn only_touches_within_the_look_back_count_and_direct_ones_if_there_are_no_others() {
    let events = [
        (day(1), Some("Email"), None),
        (day(3), Some("Direct"), None),
        (day(4), None, Some(7)),
        (0, None, Some(8)),
    ];
    let of = |look_back| credits(journey("last", look_back, &events));
    let email = vec![(day(1), "Email".to_owned(), 1.0)];
    let direct = vec![(day(3), "Direct".to_owned(), 1.0)];
    assert_eq!(of(day(3)), [(0, vec![8], vec![]), (day(4), vec![7], email)]);
    assert_eq!(of(day(3) - 1)[1].2, direct);
    assert_eq!(of(day(1))[1].2, direct);
    assert_eq!(of(day(1) - 1)[1].2, []);
    assert_eq!(of(-1)[1].2, []);
    assert_eq!(
        credits(journey("last", i64::MAX, &[(i64::MIN, Some("Email"), None), (i64::MAX, None, Some(1))]))[0]
            .2,
        []
    );
}

#[test]
fn what_is_no_model_is_refused() {
    let refused = |model: &str| Spec::parse(model, 0).unwrap_err();
    assert_eq!(refused(" "), SpecError::Missing);
    assert_eq!(refused("direct"), SpecError::Missing);
    assert_eq!(refused("first,last"), SpecError::Conflict("last".to_owned()));
    assert_eq!(refused("direct,first,direct"), SpecError::Conflict("direct".to_owned()));
    assert_eq!(refused("First"), SpecError::Unknown("First".to_owned()));
    assert_eq!(refused("time_decay=0"), SpecError::HalfLife("0".to_owned()));
    assert_eq!(refused("time_decay=40000"), SpecError::HalfLife("40000".to_owned()));
    assert_eq!(refused(&"x".repeat(1001)), SpecError::TooLong(1001));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let channel = prop::option::of(prop::sample::select(vec!["Direct", "Email", "Paid Search", ""]));
    prop::collection::vec((0i64..40, channel, prop::option::of(0u8..3)), 0..20)
        .prop_map(|events| events.into_iter().map(|(time, c, w)| (time * day(1) / 4, c, w)).collect())
}

/// Rule by rule, for one conversion.
fn by_hand(model: &str, look_back: i64, events: &[Event], at: i64) -> Vec<(i64, String, f64)> {
    let mut touches: Vec<(i64, &str)> = events.iter().filter_map(|(t, c, _)| c.map(|c| (*t, c))).collect();
    touches.retain(|(time, _)| *time <= at && at - time <= look_back.max(0));
    touches.sort_unstable();
    if !model.contains("direct") && touches.iter().any(|(_, channel)| *channel != "Direct") {
        touches.retain(|(_, channel)| *channel != "Direct");
    }
    let count = touches.len();
    let raw = |n: usize, time: i64| match model.split([',', '=']).next().unwrap() {
        "first" => f64::from(u8::from(n == 0)),
        "last" => f64::from(u8::from(n + 1 == count)),
        "linear" => 1.0,
        "position" if count <= 2 => 1.0,
        "position" if n == 0 || n + 1 == count => 0.4,
        "position" => 0.2 / (count as f64 - 2.0),
        _ => {
            let half_life = if model.ends_with("=1") { 1.0 } else { 7.0 };
            0.5f64.powf((at - time) as f64 / day(1) as f64 / half_life)
        }
    };
    let sum: f64 = touches.iter().enumerate().map(|(n, (time, _))| raw(n, *time)).sum();
    let all = touches.iter().enumerate();
    all.map(|(n, (time, c))| (*time, (*c).to_owned(), raw(n, *time) / sum)).filter(|x| x.2 > 0.0).collect()
}

proptest! {
    #[test]
    fn weights_are_those_of_the_rules_and_1_together(
        model in prop::sample::select(MODELS.to_vec()), look_back in -1i64..12, events in events(),
    ) {
        let look_back = day(look_back);
        for (time, _, found) in credits(journey(model, look_back, &events)) {
            let expected = by_hand(model, look_back, &events, time);
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!((found.0, &found.1), (expected.0, &expected.1));
                prop_assert!((found.2 - expected.2).abs() < 1e-12, "{} {}", found.2, expected.2);
            }
            let sum: f64 = found.iter().map(|credit| credit.2).sum();
            prop_assert!(found.is_empty() || (sum - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn any_order_and_any_split_give_the_same(
        model in prop::sample::select(MODELS.to_vec()), events in events(), seed: u64, parts in 1usize..4,
    ) {
        let whole = credits(journey(model, day(5), &events));
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|e| (e.0 as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut merged = journey(model, day(5), &[]);
        for part in shuffled.chunks(shuffled.len().div_ceil(parts).max(1)) {
            let mut bytes = AVec::new_in(Global);
            journey(model, day(5), part).encode(&mut Writer::new(&mut bytes, 1), ());
            let mut reader = Reader::new(&bytes, 1).unwrap();
            let read = Journey::decode_in(&mut reader, Global, ()).unwrap();
            reader.finish().unwrap();
            merged.append(&read, ()).unwrap();
        }
        prop_assert_eq!(credits(merged), whole);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read(events in events(), at in 0usize..400, byte: u8) {
        let mut bytes = AVec::new_in(Global);
        journey("time_decay", day(5), &events).encode(&mut Writer::new(&mut bytes, 1), ());
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Ok(mut reader) = Reader::new(&bytes, 1)
            && let Ok(journey) = Journey::decode_in(&mut reader, Global, ())
        {
            credits(journey);
        }
    }
}

#[test]
fn questions_that_differ_do_not_mix() {
    let mut one = journey("last", 1, &[]);
    assert_eq!(one.append(&journey("first", 1, &[]), ()), Err(SpecMismatch));
    assert_eq!(one.append(&journey("last", 2, &[]), ()), Err(SpecMismatch));
}
