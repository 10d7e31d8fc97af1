//! Lines that cannot be loaded: each one a dead letter with its raw bytes and the reason, whatever stands around it,
//! and everything around it loaded. And where events with odd times go.

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, hex, id, line, line_received};
use tidemark_tests::process::{Counts, tidemark};

/// Every class of bad lines: the bytes, and the reason that must be given.
fn bad_lines() -> Vec<(Vec<u8>, &'static str)> {
    let good = line(999_999, "u", "2026-09-01T10:00:00Z");
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        good.replace(from, to).into_bytes()
    };
    let time = r#""timestamp":"2026-09-01T10:00:00Z""#;
    let mut large = with(r#""n":999999"#, &format!(r#""n":"{}""#, "x".repeat(1 << 20)));
    large.truncate(large.len());
    let mut not_utf8 = with(r#""path":"/""#, r#""path":"/?""#);
    let at = not_utf8.iter().position(|byte| *byte == b'?').unwrap();
    not_utf8[at] = 0xff;
    let mut zero = not_utf8.clone();
    zero[at] = 0;
    vec![
        (b"hello".to_vec(), "invalid_json"),
        (good.as_bytes()[..100].to_vec(), "invalid_json"),
        (format!("{good}{good}").into_bytes(), "invalid_json"),
        (with(r#""n":999999"#, r#""n":NaN"#), "invalid_json"),
        (zero, "invalid_json"),
        (b"{}".to_vec(), "missing_event_type"),
        (with(r#""type":"track","event":"page_viewed","#, ""), "missing_event_type"),
        (format!("[[{good}]]").into_bytes(), "not_an_object"),
        (b"\"text\"".to_vec(), "not_an_object"),
        (b"12".to_vec(), "not_an_object"),
        (b"null".to_vec(), "not_an_object"),
        (with(&format!("{time},"), ""), "missing_event_time"),
        (with(time, r#""timestamp":"yesterday""#), "invalid_event_time"),
        (with(time, r#""timestamp":"2026-09-01T10:00:00""#), "invalid_event_time"),
        (with(time, r#""timestamp":"2026-02-30T10:00:00Z""#), "invalid_event_time"),
        (with(time, r#""timestamp":1788256800"#), "invalid_event_time"),
        (with(time, r#""timestamp":"infinity""#), "invalid_event_time"),
        (with(time, r#""timestamp":"1969-12-31T23:59:59.999Z""#), "event_time_too_old"),
        (with(time, r#""timestamp":"0001-01-01T00:00:00Z""#), "event_time_too_old"),
        (with(time, r#""timestamp":"2100-01-01T00:00:00Z""#), "event_time_in_future"),
        (with(time, r#""timestamp":"9999-12-31T23:59:59Z""#), "event_time_in_future"),
        (with(time, r#""timestamp":"2026-09-01T10:05:00.501Z""#), "event_time_in_future"),
        (with(r#""path":"/""#, r#""path":"a\u0000b""#), "nul_escape"),
        (with(r#""path":"/""#, r#""\u0000":1"#), "nul_escape"),
        (with(r#""path":"/""#, r#""path":"\ud83d""#), "lone_surrogate"),
        (with(r#""path":"/""#, r#""path":"\ude00 x""#), "lone_surrogate"),
        (not_utf8, "invalid_utf8"),
        (with(r#""n":999999"#, &format!(r#""n":{}{}"#, "[".repeat(200), "]".repeat(200))), "too_deep"),
        (with(r#""n":999999"#, r#""n":1e131072"#), "number_out_of_range"),
        (with(r#""userId":"u""#, r#""userId":{"id":1}"#), "invalid_field"),
        (with(r#""messageId":"#, r#""messageId":[],"x":"#), "invalid_field"),
        (large, "too_large"),
    ]
}

fn load(database: &Database<'_>, lines: &[Vec<u8>], more: &[&str]) -> Counts {
    load_as(&database.loader_url(), lines, more)
}

fn load_as(url: &str, lines: &[Vec<u8>], more: &[&str]) -> Counts {
    let mut content = lines.join(&b'\n');
    content.push(b'\n');
    let path = events::file(&content);
    let mut arguments = vec!["load", path.to_str().unwrap()];
    arguments.extend(more);
    tidemark(&arguments).database(url).run().read_all().counts()
}

#[test]
fn each_kind_of_bad_line_is_a_dead_letter_wherever_it_stands() {
    let database = cluster::shared().database();
    let limit = 1 << 20;
    let mut next_id = 0;
    let mut ids = Vec::new();
    for (bad, reason) in bad_lines() {
        let shown = String::from_utf8_lossy(&bad[..bad.len().min(200)]).into_owned();
        database.connect().batch_execute("DELETE FROM loader.dead_letters").unwrap();
        let mut good = || {
            next_id += 1;
            ids.push(id(next_id));
            line(next_id, "u", "2026-09-01T10:00:00Z").into_bytes()
        };
        // Batches of three: first, in the middle, last, and nothing but bad lines.
        let bad = &bad;
        let lines = [
            [bad.clone(), good(), good()],
            [good(), bad.clone(), good()],
            [good(), good(), bad.clone()],
            [bad.clone(), bad.clone(), bad.clone()],
            [good(), good(), good()],
        ];
        let counts = load(&database, &lines.concat(), &["--batch-rows", "3"]);
        assert_eq!((counts.loaded, counts.dead, counts.read), (9, 6, 15), "{shown}");
        // And alone. Another file each time, or it would be known. Where not even a brace is seen, it is no file of lines.
        let alone = bad.starts_with(b"{");
        if alone {
            let lines = [b" ".repeat(next_id as usize), bad.clone()];
            let counts = load(&database, &lines, &["--batch-rows", "1"]);
            assert_eq!((counts.loaded, counts.dead, counts.filtered), (0, 1, 1), "{shown}");
        }

        let kept = &bad[..bad.len().min(limit)];
        let found = database.rows(
            "SELECT reason, encode(payload, 'hex'), payload_truncated, encode(payload_sha256, 'hex'), count(*)
               FROM loader.dead_letters GROUP BY 1, 2, 3, 4",
        );
        assert_eq!(found.len(), 1, "{shown}: {} kinds of letters", found.len());
        let truncated = if bad.len() > limit { "t" } else { "f" };
        let letters = if alone { "7" } else { "6" };
        assert_eq!((found[0][0].as_str(), found[0][4].as_str()), (reason, letters), "{shown}");
        assert!(found[0][1] == hex(kept), "{shown}: other bytes than those of the line");
        assert_eq!(found[0][2], truncated, "{shown}");
        let sum = format!("SELECT encode(sha256(decode('{}', 'hex')), 'hex')", hex(bad));
        assert_eq!(found[0][3], database.value(&sum), "{shown}: not the checksum of the whole line");
    }
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), ids);
}

#[test]
fn events_without_a_usable_time_create_no_partition() {
    let database = cluster::shared().database();
    let partitions = "SELECT count(*) FROM tidemark.partitions('bronze.events')";
    let before = database.number(partitions);
    let at = |time: &str| line_received(1, "u", time, "2026-09-01T10:00:00Z").into_bytes();
    let times =
        ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "9999-12-31T00:00:00Z"];
    let counts = load(&database, &times.map(at), &[]);
    assert_eq!((counts.dead, counts.loaded), (4, 0));
    assert_eq!(database.number(partitions), before);
    assert_eq!(
        database.number("SELECT count(*) FROM tidemark_internal.dirty_log"),
        0,
        "no rows, no dirty dates"
    );
    assert_books(&database);
}

#[test]
fn events_far_apart_create_their_own_partitions_and_none_between() {
    let database = cluster::shared().database();
    let partitions = "SELECT from_date FROM tidemark.partitions('bronze.events') ORDER BY 1";
    let before = database.column(partitions);
    let times = [
        "1970-01-01T00:00:00Z",
        "1999-12-31T23:59:59.999999Z",
        "2000-01-01T00:00:00Z",
        "2024-02-29T12:00:00Z",
    ];
    let lines: Vec<_> = (1..)
        .zip(times)
        .map(|(n, time)| line_received(n, "u", time, "2026-09-01T10:00:00Z").into_bytes())
        .collect();
    // Who may only insert makes no partitions of dates years away (`partitions/dates.rs`); the owner of the table does.
    assert_eq!(load_as(&database.admin_url(), &lines, &[]).loaded, 4);
    let mut expected = ["1970-01-01", "1999-12-31", "2000-01-01", "2024-02-29"].map(str::to_owned).to_vec();
    assert_eq!(database.column("SELECT event_date FROM bronze.events ORDER BY 1"), expected);
    expected.extend(before);
    expected.sort();
    assert_eq!(database.column(partitions), expected);
}

#[test]
fn late_events_land_in_the_partition_of_their_own_day_and_make_it_dirty() {
    let database = cluster::shared().database();
    let midnight = [
        // Edges of the UTC day, also when written with another offset.
        ("2026-09-05T00:00:00Z", "2026-09-05"),
        ("2026-09-04T23:59:59.999999Z", "2026-09-04"),
        ("2026-09-05T01:59:59+02:00", "2026-09-04"),
        ("2026-09-05T22:30:00-05:00", "2026-09-06"),
        // Five weeks late.
        ("2026-08-01T12:00:00Z", "2026-08-01"),
    ];
    let lines: Vec<_> = (1..)
        .zip(midnight)
        .map(|(n, (time, _))| line_received(n, "u", time, "2026-09-06T10:00:00Z").into_bytes())
        .collect();
    assert_eq!(load(&database, &lines, &[]).loaded, 5);
    let dates: Vec<String> = midnight.iter().map(|(_, date)| (*date).to_owned()).collect();
    assert_eq!(database.column("SELECT event_date FROM bronze.events ORDER BY event_id"), dates);
    let astray = database.rows(
        "SELECT e.event_id, e.tableoid::regclass FROM bronze.events AS e
           JOIN tidemark.partitions('bronze.events') AS p ON p.partition = e.tableoid
          WHERE NOT (e.event_date >= p.from_date AND e.event_date < p.to_date)",
    );
    assert!(astray.is_empty(), "{astray:?}");
    let mut expected = dates;
    expected.sort();
    expected.dedup();
    let dirty = "SELECT DISTINCT event_date FROM tidemark_internal.dirty_log
                  WHERE source = 'bronze.events'::regclass ORDER BY 1";
    assert_eq!(database.column(dirty), expected);

    // Duplicates alone change nothing, so they make nothing dirty.
    database.connect().batch_execute("DELETE FROM tidemark_internal.dirty_log").unwrap();
    let mut again = lines;
    again.push(b" ".to_vec());
    assert_eq!(load(&database, &again, &[]).duplicate, 5);
    assert_eq!(database.number("SELECT count(*) FROM tidemark_internal.dirty_log"), 0);
    assert_books(&database);
}

#[test]
fn the_same_id_counts_once_a_day() {
    let database = cluster::shared().database();
    let at = |n: u64, time: &str| line(n, "u", time).into_bytes();
    let (one, two) = ("2026-09-01T10:00:00Z", "2026-09-02T10:00:00Z");
    // In one batch, in the next one, and on another date, which is another event as documented.
    let lines = [at(1, one), at(1, one), at(2, one), at(1, one), at(1, two), at(2, one)];
    let counts = load(&database, &lines, &["--batch-rows", "3"]);
    assert_eq!((counts.loaded, counts.duplicate), (3, 3));
    assert_eq!(
        database.rows("SELECT event_id, event_date FROM bronze.events ORDER BY 1, 2"),
        [[id(1), "2026-09-01".into()], [id(1), "2026-09-02".into()], [id(2), "2026-09-01".into()]]
    );
    assert_books(&database);
}
