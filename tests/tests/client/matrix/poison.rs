//! Rows 16, 17, 19 and 20: records that cannot be loaded, records that come twice, and events with odd times.

use tidemark_tests::broker::{self, Record};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{assert_books, hex, id, line};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::run::{PATIENCE, Run, position};
use tidemark_tests::wait_until;

use super::{assert_all, lines_of, mixed_file, topic_of};

const TIME: &str = "2026-09-05T10:00:00Z";

/// Every class of the reference's table that the loader sees before Postgres does.
fn poisons() -> Vec<(Vec<u8>, &'static str)> {
    let good = line(999_999, "u", TIME);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        good.replace(from, to).into_bytes()
    };
    let path = r#""path":"/""#;
    let mut zero = with(path, r#""path":"?""#);
    let at = zero.iter().position(|b| *b == b'?').unwrap();
    zero[at] = 0;
    let mut not_utf8 = zero.clone();
    not_utf8[at] = 0xc3;
    let number = r#""n":999999"#;
    vec![
        (with(path, r#""path":"\u0000""#), "nul_escape"),
        (with(path, r#""path":"\ud83d""#), "lone_surrogate"),
        (good.as_bytes()[..60].to_vec(), "invalid_json"),
        (with(number, r#""n":NaN"#), "invalid_json"),
        (zero, "invalid_json"),
        (not_utf8, "invalid_utf8"),
        (with(number, r#""n":1e131072"#), "number_out_of_range"),
        (with(number, &format!(r#""n":{}{}"#, "[".repeat(100_000), "]".repeat(100_000))), "too_deep"),
        (b"12".to_vec(), "not_an_object"),
        (format!("[[{good}]]").into_bytes(), "not_an_object"),
    ]
}

/// Batches of five with poisons (`true`) first, last, in the middle, many, and nothing else.
const PATTERNS: [[bool; 5]; 5] = [
    [true, false, false, false, false],
    [false, false, false, false, true],
    [false, false, true, false, false],
    [true, true, false, true, true],
    [true, true, true, true, true],
];

/// A topic with every poison in every place; returns it with the ids of the good and the (offset, reason) of the bad.
fn poisoned_topic(poisons: &[(Vec<u8>, &str)]) -> (String, Vec<String>, Vec<Vec<String>>) {
    let (mut values, mut ids, mut dead) = (Vec::new(), Vec::new(), Vec::new());
    for (bytes, reason) in poisons {
        for poisoned in PATTERNS.concat() {
            let offset = values.len();
            if poisoned {
                dead.push(vec![offset.to_string(), (*reason).to_owned()]);
                // Each with an id of its own, or those with a readable one would be duplicates.
                match std::str::from_utf8(bytes) {
                    Ok(text) => values.push(text.replace(&id(999_999), &id(offset as u64)).into_bytes()),
                    Err(_) => values.push(bytes.clone()),
                }
            } else {
                ids.push(id(offset as u64));
                values.push(line(offset as u64, "u", TIME).into_bytes());
            }
        }
    }
    let records: Vec<Record<'_>> =
        values.iter().map(|v| Record { value: Some(v), ..Record::default() }).collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    (topic, ids, dead)
}

fn assert_poisons(database: &Database<'_>, ids: &[String], dead: &[Vec<String>]) {
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), ids);
    let letters = "SELECT \"offset\", reason FROM loader.dead_letters ORDER BY 1";
    assert_eq!(database.rows(letters), dead);
    assert_eq!(position(database), (ids.len() + dead.len()) as i64);
    assert_first_pass(database);
}

#[test]
fn row_16_each_poison_alone_first_last_many_and_as_a_whole_batch() {
    let (topic, ids, dead) = poisoned_topic(&poisons());
    for batch_rows in [1, 5, 1_000] {
        let database = cluster::shared().database();
        Run::new(&database, &topic).group(&batch_rows.to_string()).batch_rows(batch_rows).catch_up();
        assert_poisons(&database, &ids, &dead);
        let batches = database.number("SELECT count(*) FROM loader.batches");
        assert_eq!(
            batches,
            ((position(&database) - 1) / i64::from(batch_rows)) + 1,
            "batches of {batch_rows}"
        );
    }
}

#[test]
fn row_16_rows_that_only_postgres_refuses_are_found_by_their_number() {
    let refused = line(999_999, "u", TIME).replace("page_viewed", "poison").into_bytes();
    let (topic, ids, dead) = poisoned_topic(&[(refused, "refused_by_database")]);
    for batch_rows in [1, 5, 1_000] {
        let database = cluster::shared().database();
        let rule = "ALTER TABLE bronze.events ADD CONSTRAINT edible CHECK (event_type <> 'poison')";
        database.connect().batch_execute(rule).unwrap();
        Run::new(&database, &topic).group(&batch_rows.to_string()).batch_rows(batch_rows).catch_up();
        assert_poisons(&database, &ids, &dead);
        assert_eq!(database.column("SELECT DISTINCT sqlstate FROM loader.dead_letters"), ["23514"]);
    }
}

#[test]
fn row_16_a_batch_half_of_which_postgres_refuses() {
    let database = cluster::shared().database();
    let rule = "ALTER TABLE bronze.events ADD CONSTRAINT edible CHECK (event_type <> 'poison')";
    database.connect().batch_execute(rule).unwrap();
    let values: Vec<String> = (0..2_000)
        .map(|n| {
            let event = line(n, "u", TIME);
            if n % 2 == 0 { event } else { event.replace("page_viewed", "poison") }
        })
        .collect();
    let records: Vec<Record<'_>> =
        values.iter().map(|v| Record { value: Some(v.as_bytes()), ..Record::default() }).collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    let counts = Run::new(&database, &topic).batch_rows(2_000).catch_up();
    assert_eq!((counts.loaded, counts.dead), (1_000, 1_000));
    let even: Vec<String> = (0..2_000).step_by(2).map(id).collect();
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), even);
    let odd: Vec<String> = (1..2_000).step_by(2).map(|n: u32| n.to_string()).collect();
    assert_eq!(database.column("SELECT \"offset\" FROM loader.dead_letters ORDER BY \"offset\""), odd);
    assert_first_pass(&database);
}

#[test]
fn row_16_a_good_event_with_the_id_of_a_refused_one_is_not_lost() {
    let bad = |n: u64, user: &str| line(n, user, TIME).replace("page_viewed", "poison");
    let late = 1_788_652_800_000 + 30 * 86_400_000;
    let values = [
        // Refused, sent twice; then a good one with its id, sent twice; then one that says something else.
        (bad(1, "u"), 0),
        (bad(1, "u"), 0),
        (line(1, "u", TIME), 0),
        (line(1, "u", TIME), 0),
        (line(1, "v", TIME), 0),
        // Two that are refused before a good one, and no good one at all.
        (bad(2, "u"), 0),
        (bad(2, "v"), 0),
        (line(2, "u", TIME), 0),
        (bad(3, "u"), 0),
        (bad(3, "v"), 0),
        // A good one that goes elsewhere.
        (bad(4, "u"), 0),
        (line(4, "u", TIME), late),
    ];
    let records: Vec<Record<'_>> = values
        .iter()
        .map(|(value, received)| Record {
            value: Some(value.as_bytes()),
            unix_millis: if *received == 0 { Record::default().unix_millis } else { *received },
            ..Record::default()
        })
        .collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    // By the window an id is one event whatever it says: a conflict is a duplicate there.
    for (mode, duplicates, dead) in [("id_date", 2, "0 4 5 6 8 9 10"), ("id_window", 3, "0 5 6 8 9 10")] {
        for batch_rows in [1_000, 1] {
            let database = cluster::shared().database();
            let rule = "ALTER TABLE bronze.events ADD CONSTRAINT edible CHECK (event_type <> 'poison')";
            database.connect().batch_execute(rule).unwrap();
            let run = Run::new(&database, &topic)
                .batch_rows(batch_rows)
                .group(&format!("{mode}-{batch_rows}"))
                .with(&["--dedupe", mode, "--late-policy", "divert"]);
            let counts = run.catch_up();
            let what = format!("{mode}, batches of {batch_rows}");
            let loaded = "SELECT source_offset FROM bronze.events ORDER BY 1";
            assert_eq!(database.column(loaded), ["2", "7"], "{what}");
            let elsewhere = "SELECT source_offset FROM bronze.late_events";
            assert_eq!(database.column(elsewhere), ["11"], "{what}");
            let letters = database.column("SELECT \"offset\" FROM loader.dead_letters ORDER BY \"offset\"");
            if batch_rows == 1 {
                // Each on its own: nothing is a duplicate of a dead letter.
                assert!(letters.contains(&"1".to_owned()), "{what}: {letters:?}");
                assert_eq!(counts.duplicate, duplicates - 1, "{what}");
            } else {
                assert_eq!(letters.join(" "), dead, "{what}");
                assert_eq!(counts.duplicate, duplicates, "{what}");
            }
            assert_first_pass(&database);
            let noted = if mode == "id_window" { 3 } else { 0 };
            assert_eq!(database.number("SELECT count(*) FROM loader.seen_ids"), noted, "{what}");
        }
    }
}

#[test]
fn row_17_a_dead_letter_takes_any_bytes_and_fifty_megabytes() {
    let database = cluster::shared().database();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[("max.message.bytes", "60000000")]);
    let huge = vec![b'x'; 50_000_000];
    let odd = Record {
        key: Some(b"\x00\xff\x00"),
        header: Some(("trace", b"\x00\xfe")),
        value: Some(b"\x00\xff bad \xed\xa0\x80"),
        ..Record::default()
    };
    // The explanation of a bad field must not carry its bytes along either.
    let field = line(5, "u", TIME).replace(r#""userId":"u""#, r#""userId":["a\tb"]"#);
    let good = line(6, "u", TIME);
    let records = [
        odd,
        Record { value: Some(&huge), ..Record::default() },
        Record { value: Some(field.as_bytes()), ..Record::default() },
        Record { value: Some(good.as_bytes()), ..Record::default() },
    ];
    broker::shared().append_all(&topic, &records);
    let counts = Run::new(&database, &topic).catch_up();
    assert_eq!((counts.loaded, counts.dead), (1, 3));
    let letters = database.rows(
        "SELECT encode(key, 'hex'), encode(headers, 'hex'), length(payload), payload_truncated, reason
           FROM loader.dead_letters ORDER BY \"offset\"",
    );
    let headers = format!("00000005{}0000000200fe", hex(b"trace"));
    // Its first byte is that of a schema registry.
    assert_eq!(letters[0], ["00ff00", &headers, "10", "f", "registry_framing"]);
    assert_eq!(letters[1], ["NULL", "NULL", "1048576", "t", "too_large"]);
    assert_eq!(letters[2][4], "invalid_field");
    let sum = "SELECT payload_sha256 = sha256(convert_to(repeat('x', 50000000), 'UTF8'))
                 FROM loader.dead_letters WHERE payload_truncated";
    assert_eq!(database.value(sum), "t", "not the checksum of the whole record");
    assert_first_pass(&database);
}

#[test]
fn row_19_two_loaders_that_load_the_same_records_at_once_load_each_event_once() {
    let database = cluster::shared().database();
    let file = mixed_file(20_000);
    let topic = topic_of(&file, "3");
    let start = |pipeline: &str| {
        let more = ["--until-caught-up", "--pipeline", pipeline];
        Run::new(&database, &topic).group(pipeline).batch_rows(700).with(&more).start()
    };
    let both = [start("one"), start("two")];
    let [one, two] = both.map(|process| process.wait().ok().counts());
    let lines = lines_of(&file) as u64;
    assert_eq!((one.read, two.read), (lines, lines));
    let bad =
        database.number("SELECT count(DISTINCT \"offset\" * 10 + partition) FROM loader.dead_letters") as u64;
    assert_eq!((one.dead, two.dead), (bad, bad), "each pipeline has its own letters");
    let events = database.number("SELECT count(DISTINCT (event_id, event_date)) FROM bronze.events") as u64;
    assert_eq!(database.number("SELECT count(*) FROM bronze.events") as u64, events);
    assert_eq!(one.loaded + two.loaded, events);
    assert_books(&database);
    assert_first_pass(&database);
    // The same as one of them alone.
    let alone = cluster::shared().database();
    Run::new(&alone, &topic).group("alone").catch_up();
    assert_all(&alone, &file);
    let all = "SELECT event_id, event_date FROM bronze.events ORDER BY 1, 2";
    assert!(database.rows(all) == alone.rows(all), "other events than those that one loader loads");
}

#[test]
fn row_19_the_same_id_in_a_batch_across_batches_and_across_days() {
    let database = cluster::shared().database();
    let (one, two) = ("2026-09-01T10:00:00Z", "2026-09-02T10:00:00Z");
    let at = |n: u64, time: &str| line(n, "u", time);
    let values = [at(1, one), at(1, one), at(2, one), at(1, one), at(1, two), at(2, one), at(1, two)];
    let records: Vec<Record<'_>> =
        values.iter().map(|v| Record { value: Some(v.as_bytes()), ..Record::default() }).collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    let counts = Run::new(&database, &topic).batch_rows(3).catch_up();
    assert_eq!((counts.loaded, counts.duplicate), (3, 4));
    let found = database.rows("SELECT event_id, event_date, source_offset FROM bronze.events ORDER BY 1, 2");
    let row = |n: u64, date: &str, offset: &str| vec![id(n), date.to_owned(), offset.to_owned()];
    assert_eq!(found, [row(1, "2026-09-01", "0"), row(1, "2026-09-02", "4"), row(2, "2026-09-01", "2")]);
    assert_first_pass(&database);
}

#[test]
fn row_20_odd_times_sealed_and_missing_partitions() {
    let database = cluster::shared().database();
    // The loader may only insert: dates of years ago have partitions where somebody with more rights made them. And a
    // date that was closed: its partition is there, but detached.
    database.rows("SELECT tidemark.ensure_partitions('bronze.events', '{1970-01-01,2024-02-29,2026-08-20}')");
    let sealed = database
        .value("SELECT partition FROM tidemark.partitions('bronze.events') WHERE from_date = '2026-08-20'");
    database
        .connect()
        .batch_execute(&format!("ALTER TABLE bronze.events DETACH PARTITION {sealed}"))
        .unwrap();
    // Received on 2026-09-06 at midnight.
    let times = [
        ("2026-09-05T23:59:59.999999Z", "2026-09-05"),
        // Hours that a clock shows twice or never.
        ("2026-03-29T02:30:00+01:00", "2026-03-29"),
        ("2025-10-26T02:30:00+02:00", "2025-10-26"),
        ("2025-10-26T00:30:00+02:00", "2025-10-25"),
        ("2024-02-29T12:00:00Z", "2024-02-29"),
        ("2026-09-06T00:04:59Z", "2026-09-06"),
        ("1970-01-01T00:00:00Z", "1970-01-01"),
        ("1970-01-02T00:00:00Z", "partition_sealed"),
        ("2026-02-29T12:00:00Z", "invalid_event_time"),
        ("0000-01-01T00:00:00Z", "event_time_too_old"),
        ("9999-12-31T23:59:59Z", "event_time_in_future"),
        ("2026-09-06T00:05:01Z", "event_time_in_future"),
        ("2026/09/05 10:00:00", "invalid_event_time"),
        ("Sat, 05 Sep 2026 10:00:00 GMT", "invalid_event_time"),
        ("1788602400", "invalid_event_time"),
        ("2026-08-20T10:00:00Z", "partition_sealed"),
    ];
    let values: Vec<String> = (0..).zip(times).map(|(n, (time, _))| line(n, "u", time)).collect();
    let records: Vec<Record<'_>> =
        values.iter().map(|v| Record { value: Some(v.as_bytes()), ..Record::default() }).collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    Run::new(&database, &topic).setting("record.event_time_floor", "1970-01-01").catch_up();
    let found = database.column(
        "SELECT outcome FROM (SELECT source_offset AS n, event_date::text AS outcome FROM bronze.events
           UNION ALL SELECT \"offset\", reason FROM loader.dead_letters) AS o ORDER BY n",
    );
    assert_eq!(found, times.map(|(_, outcome)| outcome));
    let dirty = "SELECT DISTINCT event_date::text FROM tidemark_internal.dirty_log ORDER BY 1";
    assert_eq!(
        database.column(dirty),
        database.column("SELECT DISTINCT event_date::text FROM bronze.events ORDER BY 1")
    );
    assert_first_pass(&database);
}

#[test]
fn row_22_values_written_with_a_schema_registry_are_dead_letters_that_say_so() {
    let database = cluster::shared().database();
    let good = line(1, "u", TIME);
    let framed = |prefix: &[u8], rest: &[u8]| [prefix, rest].concat();
    let guid =
        [1, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
    let values = [
        // JSON behind a known, an unknown and a later kind of framing, Avro, and what is cut short.
        (framed(b"\0\0\0\0\x2a", good.as_bytes()), "schema 42 "),
        (framed(b"\0\xff\xff\xff\xff", good.as_bytes()), "schema 4294967295 "),
        (framed(&guid, good.as_bytes()), "schema 12345678-9abc-def0-1234-56789abcdef0 "),
        (framed(b"\0\0\0\0\x07", b"\x02\x80\xfe\xff"), "schema 7 "),
        (b"\0\0\0".to_vec(), ""),
        (b"\x01too short".to_vec(), ""),
        (b"\x02\0\0\0\x07{}".to_vec(), ""),
    ];
    let mut records: Vec<Record<'_>> =
        values.iter().map(|(v, _)| Record { value: Some(v), ..Record::default() }).collect();
    records.push(Record { value: Some(good.as_bytes()), ..Record::default() });
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    let counts = Run::new(&database, &topic).catch_up();
    assert_eq!((counts.loaded, counts.dead), (1, 7));
    let letters = database
        .rows("SELECT reason, detail, encode(payload, 'hex') FROM loader.dead_letters ORDER BY \"offset\"");
    for ((value, schema), letter) in values.iter().zip(&letters) {
        let reason = if schema.is_empty() { "invalid_json" } else { "registry_framing" };
        assert_eq!((letter[0].as_str(), &letter[2]), (reason, &hex(value)), "{letter:?}");
        assert!(letter[1].contains(schema), "{letter:?}");
    }
    assert_eq!(database.column("SELECT event_id FROM bronze.events"), [id(1)]);
    assert_first_pass(&database);
}

#[test]
fn row_26_only_the_times_of_the_records_count_never_the_clock_of_the_host() {
    let database = cluster::shared().database();
    let millis = |sql: &str| database.number(&format!("SELECT (extract(epoch FROM {sql}) * 1000)::bigint"));
    // Most of a year ahead of any clock, and yet received just after it happened.
    let text = |at: &str| {
        let format = "YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"";
        database.value(&format!("SELECT to_char(({at}) AT TIME ZONE 'UTC', '{format}')"))
    };
    let far = "now() + interval '300 days'";
    let later = millis(&format!("({far} + interval '10 seconds')"));
    // A role that may only insert gets no partition as far ahead, by the clock of the database: the owner made it.
    let made = format!(
        "SELECT tidemark.ensure_partitions('bronze.events', ARRAY[(({far}) AT TIME ZONE 'UTC')::date])"
    );
    database.rows(&made);
    let farther = "now() + interval '310 days'";
    let later_yet = millis(&format!("({farther} + interval '10 seconds')"));
    // Just now by the clock, and a day ahead of its receipt.
    let yesterday = millis("now() - interval '1 day'");
    let lines = [line(1, "u", &text(far)), line(2, "u", &text("now()")), line(3, "u", &text(farther))];
    let records: Vec<Record<'_>> = lines
        .iter()
        .zip([later, yesterday, later_yet])
        .map(|(line, unix_millis)| Record { value: Some(line.as_bytes()), unix_millis, ..Record::default() })
        .collect();
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    broker::shared().append_all(&topic, &records);
    Run::new(&database, &topic).catch_up();
    wait_until("all records", PATIENCE, || position(&database) == 3);
    assert_eq!(database.column("SELECT event_id FROM bronze.events"), [id(1)]);
    let letters = database.rows("SELECT reason, detail FROM loader.dead_letters ORDER BY \"offset\"");
    assert_eq!(
        (letters[0][0].as_str(), letters[1][0].as_str()),
        ("event_time_in_future", "partition_sealed")
    );
    assert!(letters[1][1].contains("Who may only insert gets partitions from "), "{letters:?}");
    assert!(letters[1][1].contains("tidemark.ensure_partitions"), "{letters:?}");
    assert_first_pass(&database);
}
