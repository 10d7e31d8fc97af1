//! The fingerprint of an event: the same for each sending of it, another one for another event, and fixed for ever.

use proptest::prelude::*;
use tidemark_loader::event::fingerprint::{Fingerprint, fingerprint, member};

fn of(text: &str) -> i64 {
    fingerprint(text.as_bytes())
}

#[test]
fn it_is_stored_so_it_never_changes() {
    assert_eq!(of("{}"), 0);
    assert_eq!(of(r#"{"messageId":"a","n":1}"#), 7_140_756_065_450_954_258);
}

#[test]
fn what_a_second_sending_changes_does_not_count() {
    let first = r#"{"messageId":"a","sentAt":"2026-01-01T00:00:00Z","p":{"x":[1,{"y":"}"}]}}"#;
    for same in [
        r#"{"messageId":"a","sentAt":"2026-01-02T00:00:00Z","p":{"x":[1,{"y":"}"}]}}"#,
        r#"{"messageId":"a","receivedAt":"2026-01-02T00:00:00Z","p":{"x":[1,{"y":"}"}]}}"#,
        r#" { "p" : {"x":[1,{"y":"}"}]} , "messageId" : "a" } "#,
        r#"{"\u006dessageId":"\u0061","sent\u0041t":1,"p":{"x": [1.0 , {"y" : "\u007d"} ] }}"#,
    ] {
        assert_eq!(of(first), of(same), "{same}");
    }
    for other in [
        r#"{"messageId":"a","p":{"x":[1,{"y":"]"}]}}"#,
        r#"{"messageId":"a","p":{"x":[1,{"y":"}"}]},"q":null}"#,
        r#"{"messageId":"a","q":{"x":[1,{"y":"}"}]}}"#,
        r#"{"messageId":"a"}"#,
    ] {
        assert_ne!(of(first), of(other), "{other}");
    }
}

#[test]
fn what_is_said_counts_and_not_how_it_is_written() {
    for (one, other) in [
        (r#"{"p":{"a":1,"b":2}}"#, r#"{"p": {"b": 2, "a": 1}}"#),
        (r#"{"city":"Köln"}"#, r#"{"city":"K\u00f6ln"}"#),
        (r#"{"url":"https://x.example/"}"#, r#"{"url":"https:\/\/x.example\/"}"#),
        (r#"{"p":{"revenue":18.50}}"#, r#"{"p":{"revenue":18.5}}"#),
        (r#"{"n":[1e2,{"ö":-0}]}"#, r#"{"n":[ 100, {"\u00f6":0.0} ]}"#),
        (r#"{"smile":"😀"}"#, r#"{"smile":"\ud83d\ude00"}"#),
    ] {
        assert_eq!(of(one), of(other), "{one}");
    }
    for (one, other) in [
        (r#"{"p":[1,2]}"#, r#"{"p":[2,1]}"#),
        (r#"{"p":[1,[2]]}"#, r#"{"p":[[1],2]}"#),
        (r#"{"p":[1,[2]]}"#, r#"{"p":[1,2]}"#),
        (r#"{"p":[]}"#, r#"{"p":[[]]}"#),
        (r#"{"p":{}}"#, r#"{"p":[]}"#),
        (r#"{"p":{"a":{"b":1},"c":2}}"#, r#"{"p":{"a":{"c":2},"b":1}}"#),
        (r#"{"p":"1"}"#, r#"{"p":1}"#),
        (r#"{"p":18.5}"#, r#"{"p":185}"#),
        (r#"{"p":9007199254740993}"#, r#"{"p":9007199254740992}"#),
        (r#"{"p":null}"#, r#"{"p":"null"}"#),
        (r#"{"p":"a\\n"}"#, r#"{"p":"a\n"}"#),
    ] {
        assert_ne!(of(one), of(other), "{one}");
    }
}

#[test]
fn members_do_not_cancel_or_trade_places() {
    assert_ne!(of(r#"{"a":1,"b":2}"#), of(r#"{"a":2,"b":1}"#));
    assert_ne!(of(r#"{"a":1,"b":1}"#), of(r#"{"a":2,"b":2}"#));
    assert_ne!(of(r#"{"a":"\"","b":1}"#), of(r#"{"a":"\\","b":1}"#));
}

#[test]
fn the_computed_timestamp_counts_only_without_the_original() {
    let with = |time: &str| format!(r#"{{"timestamp":"{time}","originalTimestamp":"2026-01-01T00:00:00Z"}}"#);
    assert_eq!(of(&with("2026-01-01T00:00:01Z")), of(&with("2026-01-01T00:00:02Z")));
    assert_ne!(of(r#"{"timestamp":"a"}"#), of(r#"{"timestamp":"b"}"#));
    assert_ne!(
        of(r#"{"timestamp":"a","originalTimestamp":null}"#),
        of(r#"{"timestamp":"b","originalTimestamp":null}"#)
    );
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,8}".prop_map(serde_json::Value::from),
        r#"["\\{}\[\],: ]{0,8}"#.prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(r#"[a-c"\\{}]{0,3}"#, inner, 0..4)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
}

/// The same value as another program may write it.
fn respelled(value: &serde_json::Value, seed: &mut u64) -> String {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let choice = (*seed >> 60) as usize;
    let space = ["", " ", "\n", "\t "][choice % 4];
    let text = |text: &str| match choice % 3 {
        0 => serde_json::Value::from(text).to_string(),
        _ => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
    };
    match value {
        serde_json::Value::String(plain) => text(plain),
        serde_json::Value::Number(number) => format!("{number}{}", ["", ".0", "e0", ".00E-0"][choice % 4]),
        serde_json::Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| respelled(value, seed)).collect();
            format!("[{space}{}{space}]", values.join(&format!("{space},{space}")))
        }
        serde_json::Value::Object(members) => {
            let member = |(key, value): (&String, &serde_json::Value)| {
                format!("{}{space}:{space}{}", text(key), respelled(value, seed))
            };
            let mut members: Vec<_> = members.iter().map(member).collect();
            let places = members.len().max(1);
            members.rotate_left(choice % places);
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        }
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn every_spelling_of_an_event_is_the_same(
        members in proptest::collection::btree_map("[a-z\"\\\\{}ö]{1,4}", json(), 0..6), mut seed in any::<u64>()
    ) {
        let event = serde_json::Value::Object(members.into_iter().collect());
        let other = respelled(&event, &mut seed);
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&other).is_ok(), &true, "{}", other);
        prop_assert_eq!(of(&event.to_string()), of(&other), "{} and {}", event, other);
    }

    #[test]
    fn order_and_space_between_members_do_not_matter_and_every_member_does(
        members in proptest::collection::btree_map(r#"[a-z"\\{}]{1,4}"#, json(), 1..6), seed in any::<u64>()
    ) {
        let mut members: Vec<String> = members
            .iter()
            .map(|(k, v)| format!("{}:{v}", serde_json::Value::from(k.as_str())))
            .collect();
        let plain = format!("{{{}}}", members.join(","));
        let gone = format!("{{{}}}", members[1..].join(","));
        let n = members.len() as u64;
        members.rotate_left((seed % n) as usize);
        members.insert((seed / n % (n + 1)) as usize, "\"sentAt\": [1, \"}\"]".to_owned());
        let shuffled = format!(" {{\n{} }}\r\n", members.join(" ,\t"));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&shuffled).is_ok());
        prop_assert_eq!(of(&plain), of(&shuffled));
        prop_assert_ne!(of(&plain), of(&gone));
    }

    #[test]
    fn no_bytes_make_it_panic_or_hang(bytes in r#"[{}\[\]",:\\ a]{0,30}"#) {
        of(&bytes);
    }
}

#[test]
fn further_members_can_be_left_out() {
    let members = ["/etl_tstamp", "/a~1b"].map(|pointer| member(pointer).unwrap());
    let fingerprint = Fingerprint::without(members.to_vec());
    let of_both = |text: &str| fingerprint.of(text.as_bytes());
    let first = r#"{"event_id":"a","etl_tstamp":"1","a/b":{"x":1},"n":1}"#;
    assert_eq!(of_both(first), of_both(r#"{"event_id":"a","etl_tstamp":"2","n":1,"sentAt":"x"}"#));
    assert_eq!(of_both(first), of(r#"{"event_id":"a","n":1}"#), "without them it is what it always was");
    assert_ne!(of_both(first), of_both(r#"{"event_id":"a","etl_tstamp":"1","a/b":{"x":1},"n":2}"#));
    // Inside of others they count.
    assert_ne!(of_both(r#"{"p":{"etl_tstamp":1}}"#), of_both(r#"{"p":{"etl_tstamp":2}}"#));
    for bad in ["etl_tstamp", "/", "", "/a/b", "/a~"] {
        assert!(member(bad).is_err(), "{bad:?}");
    }
}
