//! `tidemark-shop generate`: the same bytes for the same arguments, and a summary that tells the truth about the file.

// Helpers of tests may panic like the tests themselves; clippy only knows the latter.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tidemark_shop::{Args, Defect, IdVersion, Summary, generate};

fn args(events: u64, days: u64, users: u32, seed: u64) -> Args {
    Args { events, days, users, seed, ..Args::default() }
}

fn bytes_of(args: &Args) -> (Vec<u8>, Summary) {
    let mut out = Vec::new();
    let summary = generate(args, &mut out).unwrap();
    (out, summary)
}

fn sha256(args: &Args) -> String {
    Sha256::digest(bytes_of(args).0).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds of an instant as the generator writes it, by position; for comparisons within a few weeks.
fn instant(text: &str) -> i64 {
    assert_eq!((text.len(), &text[10..11], &text[23..]), (24, "T", "Z"), "{text}");
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (year, month) = (part(0, 4), part(5, 7));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    let days = (year - 1970) * 365
        + (year - 1969) / 4
        + before
        + i64::from(year % 4 == 0 && month > 2)
        + part(8, 10);
    (((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60 + part(17, 19)) * 1000 + part(20, 23)
}

/// What a loader would make of a line, decided here without the generator's or the loader's code.
fn well_formed(line: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(line).ok()?;
    // serde_json refuses lone surrogates; NUL is legal JSON, but no Postgres text.
    let value: Value = serde_json::from_str(text).ok().filter(|_| !text.contains("\\u0000"))?;
    let at = value.get("timestamp")?.as_str().filter(|at| at.len() == 24)?;
    let received = value["receivedAt"].as_str()?;
    (instant(at) <= instant(received)).then_some(value)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n')
}

#[test]
fn the_same_arguments_give_the_bytes_they_always_gave() {
    // A change of these hashes changes every generated file, and every figure that anybody noted for one.
    let small = args(2_000, 3, 60, 42);
    assert_eq!(sha256(&small), "e5b1f35f282273410b4db3aebab9f900fd903fb258614fe278ee7d91ac278767");
    assert_eq!(
        sha256(&Args { id_version: IdVersion::V7, ..small }),
        "0cccb7a1b9517a9fdcf7da6c705c91feaa573c73894596fcb224d1eea856b39c"
    );
}

#[test]
fn two_runs_are_equal_and_another_seed_is_another_file() {
    let small = args(3_000, 5, 100, 7);
    assert!(bytes_of(&small) == bytes_of(&small));
    assert!(bytes_of(&small).0 != bytes_of(&args(3_000, 5, 100, 8)).0);
}

#[test]
fn the_summary_tells_what_the_file_holds() {
    let cases = [
        args(20_000, 14, 500, 1),
        Args { late: 0.2, duplicates: 0.1, malformed: 0.05, ..args(5_000, 2, 50, 2) },
        Args { late: 0.0, duplicates: 0.0, malformed: 0.0, ..args(1_000, 1, 1, 3) },
        Args { duplicates: 1.0, malformed: 1.0, id_version: IdVersion::V7, ..args(500, 30, 10_000, 4) },
        Args { malformed: 1.0, ..args(1, 1, 1, 5) },
    ];
    for args in cases {
        let (bytes, summary) = bytes_of(&args);
        let (mut first_seen, mut late, mut duplicates, mut malformed, mut bought) =
            (HashMap::new(), 0, 0, 0, 0);
        for line in lines(&bytes) {
            let Some(event) = well_formed(line) else {
                malformed += 1;
                continue;
            };
            let id = event["messageId"].as_str().unwrap().to_owned();
            if let Some(earlier) = first_seen.insert(id, line) {
                assert_eq!(earlier, line, "a repeated line repeats every byte");
                duplicates += 1;
                continue;
            }
            let lateness = instant(event["receivedAt"].as_str().unwrap())
                - instant(event["timestamp"].as_str().unwrap());
            assert!(lateness <= 6 * 86_400_000);
            late += u64::from(lateness >= 3_600_000);
            bought += u64::from(event["event"] == "purchase_completed");
        }
        assert_eq!(summary.events, args.events);
        assert_eq!(summary.events, first_seen.len() as u64);
        assert_eq!(summary.late, late);
        assert_eq!(summary.purchases, bought);
        assert_eq!(summary.duplicates, duplicates);
        assert_eq!(summary.duplicates, (args.duplicates * args.events as f64).round() as u64);
        assert_eq!(summary.malformed, malformed);
        assert_eq!(summary.malformed, (args.malformed * args.events as f64).round() as u64);
        assert_eq!(summary.malformed, summary.by_defect.iter().sum::<u64>());
        assert_eq!(summary.lines, summary.events + summary.duplicates + summary.malformed);
        assert_eq!(summary.lines, lines(&bytes).count() as u64);
        assert_eq!(summary.bytes, bytes.len() as u64);
        let wanted = (args.late * args.events as f64).round() as u64;
        assert!(late.abs_diff(wanted) <= 60, "{late} late events, {wanted} wanted");
    }
}

#[test]
fn every_defect_is_there_and_is_the_one_it_claims_to_be() {
    let args = Args { malformed: 0.09, duplicates: 0.0, ..args(1_000, 3, 40, 11) };
    let (bytes, summary) = bytes_of(&args);
    assert_eq!(summary.by_defect, [10; Defect::ALL.len()]);
    let mut found = HashMap::<&str, u64>::new();
    for line in lines(&bytes).filter(|line| well_formed(line).is_none()) {
        let text = std::str::from_utf8(line);
        let value = text.ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let defect = match (text, &value) {
            (Err(_), _) => "invalid_utf8",
            (Ok(text), None) if text.contains("\\ud83d") => "lone_surrogate",
            (Ok(_), None) => "truncated",
            (Ok(text), Some(_)) if text.contains("\\u0000") => "nul_escape",
            (_, Some(Value::Array(_))) => "array",
            (_, Some(Value::Object(fields))) if fields.is_empty() => "empty_object",
            (_, Some(value)) => match value["timestamp"].as_str() {
                None => "no_timestamp",
                Some("yesterday") => "bad_timestamp",
                Some(_) => "far_future",
            },
        };
        *found.entry(defect).or_default() += 1;
    }
    for defect in Defect::ALL {
        assert_eq!(found.get(defect.name()), Some(&10), "{defect:?} of {found:?}");
    }
}

#[test]
fn the_file_is_in_the_order_in_which_a_broker_receives() {
    let (bytes, summary) = bytes_of(&args(20_000, 14, 500, 3));
    let (mut seen, mut previous, mut disorder) = (HashSet::new(), 0, 0);
    let mut newest = 0;
    for event in lines(&bytes).filter_map(well_formed) {
        let received = instant(event["receivedAt"].as_str().unwrap());
        if !seen.insert(event["messageId"].as_str().unwrap().to_owned()) {
            assert!(received <= previous, "a repetition stands after its first time");
            continue;
        }
        assert!(received >= previous);
        previous = received;
        let at = instant(event["timestamp"].as_str().unwrap());
        disorder += u64::from(at < newest);
        newest = newest.max(at);
    }
    assert!(disorder > summary.late, "not only late events are out of order: {disorder}");
}

#[test]
fn every_event_has_the_envelope_and_the_properties_of_its_type() {
    let args = args(30_000, 14, 500, 9);
    let (bytes, _) = bytes_of(&args);
    let mut types = HashMap::<String, u64>::new();
    for event in lines(&bytes).filter_map(well_formed) {
        let id = event["messageId"].as_str().unwrap();
        assert!(id.len() == 36 && &id[14..15] == "4" && "89ab".contains(&id[19..20]), "{id}");
        assert_eq!(event["type"], "track");
        let anonymous = event["anonymousId"].as_str().unwrap();
        if let Some(user) = event.get("userId") {
            assert_eq!(user.as_str().unwrap()[1..], anonymous[1..7]);
        }
        let at = event["timestamp"].as_str().unwrap();
        assert!(("2026-09-01".."2026-09-15").contains(&&at[..10]), "{at}");
        for pointer in ["/context/page/path", "/context/device/os", "/context/country", "/context/platform"] {
            assert!(event.pointer(pointer).is_some_and(Value::is_string), "{pointer} in {event}");
        }
        let name = event["event"].as_str().unwrap();
        let needed: &[&str] = match name {
            "page_viewed" => &["/performance/load_ms"],
            "product_viewed" => &["/product/id", "/product/price"],
            "search_performed" => &["/search/query", "/search/results"],
            "product_added" => &["/product/quantity", "/cart/total"],
            "checkout_started" => &["/cart/items", "/cart/total"],
            "purchase_completed" => &["/order/id", "/order/total", "/order/currency", "/order/items/0/price"],
            "signed_up" | "logged_in" => {
                assert!(event["context"]["traits"]["plan"].is_string(), "{event}");
                &["/method"]
            }
            other => panic!("unknown event {other}"),
        };
        for pointer in needed {
            assert!(event["properties"].pointer(pointer).is_some(), "{pointer} in {event}");
        }
        if name == "signed_up" || name == "logged_in" {
            assert!(event.get("userId").is_some(), "who signs in is known: {event}");
        }
        *types.entry(name.to_owned()).or_default() += 1;
    }
    assert_eq!(types.len(), 8, "{types:?}");
    let funnel = ["page_viewed", "product_viewed", "product_added", "checkout_started", "purchase_completed"];
    assert!(funnel.windows(2).all(|step| types[step[0]] > types[step[1]]), "{types:?}");
}

#[test]
fn an_anonymous_device_becomes_that_of_a_known_user() {
    let (bytes, _) = bytes_of(&args(30_000, 14, 500, 9));
    let mut events: Vec<Value> = lines(&bytes).filter_map(well_formed).collect();
    events.sort_by_key(|event| instant(event["timestamp"].as_str().unwrap()));
    let mut anonymous_before = HashSet::new();
    let mut linked = HashSet::new();
    for event in &events {
        let device = event["anonymousId"].as_str().unwrap();
        if event.get("userId").is_none() {
            assert!(!linked.contains(device), "{device} was known already");
            anonymous_before.insert(device);
        } else if anonymous_before.contains(device) {
            linked.insert(device);
        }
    }
    assert!(linked.len() > 50, "{} devices signed in after browsing without a name", linked.len());
    assert!(anonymous_before.len() > linked.len() + 50, "some never sign in");
}

#[test]
fn version_seven_ids_rise_with_the_event_time() {
    let (bytes, _) = bytes_of(&Args { id_version: IdVersion::V7, ..args(2_000, 3, 50, 5) });
    let mut events: Vec<(i64, String)> = (lines(&bytes).filter_map(well_formed))
        .map(|event| {
            (
                instant(event["timestamp"].as_str().unwrap()),
                event["messageId"].as_str().unwrap()[..13].to_owned(),
            )
        })
        .collect();
    events.sort();
    assert!(events.is_sorted_by(|a, b| a.1 <= b.1));
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let directory = std::env::temp_dir().join(format!("tidemark-generate-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("events.ndjson");
    let args = Args { out: Some(path.clone()), ..args(500, 2, 20, 6) };
    tidemark_shop::run(&args).unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes_of(&args).0);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no partial file stays");
    std::fs::remove_dir_all(&directory).unwrap();
    let error = tidemark_shop::run(&args).unwrap_err();
    assert_eq!(error.exit_code(), 75);
    assert!(error.to_string().contains("create the directory"), "{error}");
}

#[test]
fn arguments_without_sense_are_refused() {
    for wrong in [
        Args { late: 1.5, ..Args::default() },
        Args { malformed: f64::NAN, ..Args::default() },
        Args { users: 0, ..Args::default() },
        Args { start: "2098-12-30".parse().unwrap(), ..Args::default() },
    ] {
        let error = generate(&wrong, &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit_code(), 64, "{error}");
    }
}
