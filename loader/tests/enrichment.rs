//! What becomes of addresses, user agents and networks between a record and its row or dead letter.

use std::sync::Arc;

use tidemark_loader::batch::{Batch, Encoder, RawBatch, RecordKind, Slot};
use tidemark_loader::enrich::{Enrichment, Networks};
use tidemark_loader::event::envelope::mapping::{Description, Format};
use tidemark_loader::event::envelope::{Limits, sha256};

fn slot(records: usize) -> Slot {
    Slot {
        topic: Arc::from("t"),
        topic_id: 7,
        partition: 3,
        epoch: 1,
        run: 1,
        from: 0,
        to: records as i64,
        leader_epoch: None,
    }
}

fn batch_of(lines: &[Vec<u8>]) -> RawBatch {
    let mut raw = RawBatch::default();
    raw.slots.push(slot(lines.len()));
    for (i, line) in lines.iter().enumerate() {
        raw.push(0, i as i64, None, RecordKind::Value, None, None, line, 1000);
    }
    raw
}

/// Payload of each row, and offset and payload of each dead letter.
fn ends(batch: &Batch) -> (Vec<String>, Vec<(i64, i32, String)>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = batch.rows.iter().map(|row| text(batch.encoded(row).1));
    (rows.collect(), batch.dead_letters().map(|l| (l.offset, l.index, text(&l.payload))).collect())
}

fn enriched(format: Format, raw: RawBatch) -> Batch {
    let enrichment = Arc::new(Enrichment::default());
    enrichment.own_networks_are(Networks::of(["192.0.2.0/28"].into_iter()));
    Encoder::new(Limits { max_bytes: 1000, ..Limits::default() })
        .with_format(format)
        .with_enrichment(enrichment)
        .encode(raw)
}

#[test]
fn no_whole_address_is_left_in_rows_and_dead_letters() {
    let event = |ip: &str, rest: &str| {
        format!(
            r#"{{"messageId":"m","event":"e","userId":"u","context":{{"ip":"{ip}","userAgent":"Agent/1"}}{rest}}}"#
        )
    };
    let timed = r#","timestamp":"2026-09-01T10:00:00Z""#;
    let lines = [
        event("203.0.113.77", timed),
        // The same once more, but for what is cut.
        event("203.0.113.78", timed),
        event("192.0.2.9", timed).replace("\"m\"", "\"own\""),
        event("203.0.113.77", ""),
        format!("no JSON from 203.0.113.77: {}", event("203.0.113.77", timed)),
        [event("2001:db8:1:2:3::4", timed), "x".repeat(1000)].concat(),
    ];
    let mut raw = RawBatch::default();
    raw.slots.push(slot(lines.len()));
    let header = |name: &str, value: &str| {
        let part = |text: &str| [&(text.len() as i32).to_be_bytes()[..], text.as_bytes()].concat();
        [part(name), part(value)].concat()
    };
    // 48 bytes, so that the length before it looks like a digit of the address.
    let headers = header("x-forwarded-for", "203.0.113.77, 203.0.113.78, 203.0.113.79, 10.1.1");
    for (i, line) in lines.iter().enumerate() {
        let key = Some(b"203.0.113.77".as_slice());
        raw.push(0, i as i64, None, RecordKind::Value, key, Some(&headers), line.as_bytes(), 1000);
    }
    let batch = enriched(Format::Segment, raw);
    let (rows, letters) = ends(&batch);
    assert_eq!((rows.len(), batch.counts().duplicate, letters.len()), (2, 1, 3));
    assert!(rows.iter().any(|row| row.contains(r#""ip":"203.0.113.0" ,"#)), "{rows:?}");
    assert!(rows.iter().any(|row| row.contains(r#""ip":"192.0.2.9","#)), "{rows:?}");
    assert!(letters[1].2.starts_with("no JSON from 203.0.113.0 : {"), "{letters:?}");
    assert!(letters[2].2.contains(r#""ip":"2001:db8:1::"     ,"#), "{letters:?}");
    for letter in batch.dead_letters() {
        let parts = [&letter.payload, letter.key.as_ref().unwrap(), letter.headers.as_ref().unwrap()];
        for part in parts {
            let text = String::from_utf8_lossy(part);
            assert!(!text.contains("113.7") && !text.contains("2:3::4"), "{text}");
        }
        assert_eq!(letter.headers.as_ref().unwrap().len(), headers.len());
        if !letter.truncated {
            assert_eq!(letter.sha256, sha256(&letter.payload));
        }
    }
    let (_, strangers) = batch.strangers().unwrap();
    let agents: Vec<&str> = strangers.agents.iter().map(|(text, _)| text.as_str()).collect();
    let networks: Vec<&str> = strangers.networks.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(agents, ["Agent/1"]);
    assert_eq!(networks, ["192.0.2.0/24", "2001:db8:1::/48", "203.0.113.0/24"]);
}

#[test]
fn what_is_composed_is_cut_as_well() {
    let snowplow = Format::new(&Description::of("snowplow").unwrap(), &[]);
    let address = "203.0.113.77";
    let mut cells = vec![""; 131];
    (cells[3], cells[124], cells[126]) = ("2026-09-01 10:00:01.500", "2026-09-01 10:00:00.123", "page_view");
    (cells[6], cells[13], cells[15]) = ("018f2f0e-0000-4000-8000-000000000001", address, "d");
    let line = cells.join("\t");
    let batch = enriched(snowplow.clone(), batch_of(&[line.clone().into_bytes()]));
    let payload = String::from_utf8_lossy(batch.encoded(&batch.rows[0]).0).into_owned();
    assert!(payload.contains(r#""user_ipaddress":"203.0.113.0""#) && !payload.contains(address), "{payload}");
    // Without a time it is a dead letter, of which the whole line is kept.
    (cells[3], cells[124]) = ("", "");
    let batch = enriched(snowplow, batch_of(&[cells.join("\t").into_bytes()]));
    let letters = ends(&batch).1;
    assert!(letters.len() == 1 && letters[0].2.contains("\t203.0.113.0 \t"), "{letters:?}");
}

#[test]
fn a_stranger_is_one_until_its_row_is_committed() {
    let enrichment = Arc::new(Enrichment::default());
    let mut encoder = Encoder::new(Limits::default()).with_enrichment(enrichment);
    let line =
        br#"{"messageId":"m","event":"e","timestamp":"2026-09-01T10:00:00Z","userAgent":"A"}"#.to_vec();
    let lines = [line];
    let mut first = encoder.encode(batch_of(&lines));
    let again = encoder.encode(batch_of(&lines));
    assert!(first.strangers().is_some() && again.strangers().is_some());
    first.strangers_are_known();
    assert!(first.strangers().is_none());
    assert!(encoder.encode(batch_of(&lines)).strangers().is_none());
    again.forget_strangers();
    assert!(encoder.encode(batch_of(&lines)).strangers().is_some());
}
