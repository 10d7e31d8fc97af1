//! Events of other systems: shipped mappings, own ones, times as exports write them. Each file says itself which ids must
//! come of it, and when.

use std::path::Path;

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books};
use tidemark_tests::process::{Finished, tidemark};

fn load(database: &Database<'_>, content: &str, options: &[&str]) -> Finished {
    load_file(database, &events::file(content.as_bytes()), options)
}

fn load_file(database: &Database<'_>, file: &Path, options: &[&str]) -> Finished {
    let mut arguments = vec!["load", file.to_str().unwrap()];
    arguments.extend(options);
    tidemark(&arguments).database(&database.loader_url()).run()
}

/// Id, time, type, user and anonymous id of each event of bronze, NULL as a dash.
fn loaded(database: &Database<'_>) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', to_char(event_time AT TIME ZONE 'UTC', 'DD HH24:MI:SS.US'), event_type,
                                coalesce(user_id, '-'), coalesce(anonymous_id, '-'))
                 FROM bronze.events ORDER BY event_time, event_id";
    database.rows(sql).into_iter().map(|row| row.join("|")).collect()
}

#[test]
fn times_that_exports_write_are_read_where_their_meaning_is_certain_or_stated() {
    let certain = [
        "2026-10-02T08:15:22+0000",
        "2026-10-02T08:15:22+00",
        "2026-10-02 08:15:22.123 UTC",
        "2026-10-02 08:15:22+00",
        "2026-10-02T08:15Z",
    ];
    let times = [
        ("", certain.map(|t| format!("\"{t}\"")).to_vec()),
        (":s", vec!["1790928922".into(), "\"1790928922\"".into(), "1790928922.123".into()]),
        (":ms", vec!["1790928922123".into()]),
        (":us", vec!["\"1790928922123456\"".into()]),
        (":UTC", vec!["\"2026-10-02 08:15:22.123000\"".into()]),
        (":+02:00", vec!["\"2026-10-02T10:15:22\"".into()]),
    ];
    for (unit, times) in times {
        let database = cluster::shared().database();
        let lines: Vec<String> = times
            .iter()
            .enumerate()
            .map(|(n, time)| format!(r#"{{"messageId":"t{n}","event":"x","timestamp":{time},"userId":"u"}}"#))
            .collect();
        let option = format!("event_time=/timestamp{unit}");
        let counts = load(&database, &lines.join("\n"), &["--envelope", &option]).ok().counts();
        assert_eq!((counts.loaded, counts.dead), (times.len() as u64, 0), "{unit}");
        let sql = "SELECT count(*) FROM bronze.events
                    WHERE event_time NOT IN ('2026-10-02 08:15:22Z', '2026-10-02 08:15:22.123Z',
                                             '2026-10-02 08:15:22.123456Z', '2026-10-02 08:15Z')";
        assert_eq!(database.number(sql), 0, "{unit}");
    }
    let database = cluster::shared().database();
    let lines = [
        "1790928922",
        "\"2026-10-02 08:15:22.123000\"",
        "\"2026-02-30T08:15:22Z\"",
        "\"Fri, 02 Oct 2026 08:15:22 GMT\"",
        "\"\"",
    ];
    let lines = lines.map(|time| format!(r#"{{"messageId":"x","event":"x","timestamp":{time}}}"#));
    load(&database, &lines.join("\n"), &[]).read_all();
    let details = database.rows("SELECT detail FROM loader.dead_letters ORDER BY \"offset\"");
    for (detail, part) in details.iter().zip([
        "is a number, and does not say of what",
        "has no offset from UTC",
        "is on a date that does not exist",
        "is no time such as",
        "neither timestamp nor originalTimestamp is set",
    ]) {
        assert!(detail[0].contains(part), "{detail:?}");
    }
    assert_eq!(details.len(), 5);
}

#[test]
fn a_table_of_another_system_is_loaded_twice_and_counted_once() {
    let database = cluster::shared().database();
    let header = "website_id,session_id,visit_id,event_id,hostname,url_path,event_type,event_name,distinct_id,created_at,job_id\n";
    let row = |n: u32, name: &str, job: &str| {
        format!(
            "w,s{n},v,00000000-0000-4000-8000-00000000000{n},shop.example,\"/a,{n}\",1,{name},,2026-10-02 08:15:2{n},{job}\n"
        )
    };
    let first = [header, &row(1, "", "1"), &row(2, "sale", "1")].concat();
    let again = [header, &row(1, "", "2"), &row(2, "sale", "2"), &row(3, "", "2")].concat();
    assert_eq!(load(&database, &first, &["--mapping", "umami"]).ok().counts().loaded, 2);
    let counts = load(&database, &again, &["--mapping", "umami"]).ok().counts();
    assert_eq!((counts.loaded, counts.duplicate, counts.dead), (1, 2, 0));
    assert_eq!(
        loaded(&database),
        [
            "02 08:15:21.000000 page_viewed - s1",
            "02 08:15:22.000000 sale - s2",
            "02 08:15:23.000000 page_viewed - s3"
        ]
    );
    let paths = "SELECT payload ->> 'url_path' FROM bronze.events ORDER BY event_time";
    assert_eq!(database.rows(paths), [["/a,1"], ["/a,2"], ["/a,3"]]);
    assert_books(&database);
}

#[test]
fn events_without_ids_are_known_by_what_they_say_or_by_their_place() {
    let database = cluster::shared().database();
    let ga4 = |n: u32| {
        format!(
            r#"{{"event_date":"20261002","event_timestamp":"179092892200000{n}","event_name":"page_view","user_pseudo_id":"1.2"}}"#
        )
    };
    let options = ["--mapping", "ga4"];
    assert_eq!(load(&database, &[ga4(1), ga4(2)].join("\n"), &options).ok().counts().loaded, 2);
    let counts = load(&database, &[ga4(2), ga4(1), ga4(3)].join("\n"), &options).ok().counts();
    assert_eq!((counts.loaded, counts.duplicate), (1, 2));
    // The same line twice is two requests.
    let line = r#"203.0.113.9 - ada [02/Oct/2026:10:15:30 +0200] "GET /p HTTP/1.1" 200 23 "-" "curl""#;
    let log = [line, line, "no line of it"].join("\n");
    let counts = load(&database, &log, &["--mapping", "access-log"]).ok().counts();
    assert_eq!((counts.loaded, counts.dead), (2, 1));
    assert_eq!(
        loaded(&database)[3..],
        ["02 08:15:30.000000 request ada -", "02 08:15:30.000000 request ada -"]
    );
    let letter = "SELECT convert_from(payload, 'UTF8') FROM loader.dead_letters";
    assert_eq!(database.rows(letter), [["no line of it"]]);
    assert_books(&database);
}

#[test]
fn an_own_mapping_is_a_file() {
    let database = cluster::shared().database();
    let mapping = events::file(
        br#"about = "Receipts of the tills"
            event_id = { at = "/number", within = "/till" }
            event_time = ["/paid_at:+02:00", "/printed:ms"]
            event_type = "=order_completed"
            user_id = ["/card/holder", { at = "/customer", unless = ["/till", "walk-in"] }]
            transport = ["printed"]"#,
    );
    // A path is one: it has a slash.
    let options = ["--mapping", mapping.to_str().unwrap()];
    let lines = [
        r#"{"till":"t1","number":1,"paid_at":"2026-10-02 10:15:20","card":{"holder":"ada"}}"#,
        r#"{"till":"t2","number":1,"printed":1790928921000,"customer":"walk-in 7"}"#,
        r#"{"till":"t1","number":2,"paid_at":"","printed":1790928922000,"customer":"bob"}"#,
        r#"{"till":"t1","number":1,"paid_at":"2026-10-02 10:15:20","card":{"holder":"ada"},"printed":5}"#,
        r#"{"till":"t1","number":3}"#,
    ];
    let counts = load(&database, &lines.join("\n"), &options).ok().counts();
    assert_eq!((counts.loaded, counts.duplicate, counts.dead), (3, 1, 1));
    assert_eq!(
        loaded(&database),
        [
            "02 08:15:20.000000 order_completed ada -",
            "02 08:15:21.000000 order_completed - -",
            "02 08:15:22.000000 order_completed bob -"
        ]
    );
    let detail = "SELECT detail FROM loader.dead_letters";
    assert_eq!(database.rows(detail), [["no event_time: /paid_at:+02:00 or /printed:ms is not set"]]);
    // The books say by which mapping each event of bronze was read. Another text is another version of it.
    let text = std::fs::read_to_string(&mapping).unwrap();
    let one = |n: u32| format!(r#"{{"till":"t9","number":{n},"paid_at":"2026-10-02 10:15:20"}}"#);
    load(&database, &one(1), &[&options[..], &["--envelope", "user_id=/nobody"]].concat()).ok();
    std::fs::write(&mapping, text.replace("tills", "cash desks")).unwrap();
    load(&database, &one(2), &options).ok();
    load(&database, &one(3), &options).ok();
    let books = "SELECT m.mapping_id, m.name = '{}', m.description LIKE '%cash desks%',
                        m.description LIKE '%# --envelope user_id=/nobody%', count(*)
                   FROM bronze.events AS e JOIN loader.batches AS b USING (batch_id)
                   JOIN loader.mappings AS m USING (mapping_id) GROUP BY m.mapping_id ORDER BY 1";
    let of: Vec<Vec<String>> = database.rows(&books.replace("{}", options[1]));
    let of: Vec<&[String]> = of.iter().map(|row| &row[1..]).collect();
    assert_eq!(of, [["t", "f", "f", "3"], ["t", "f", "t", "1"], ["t", "t", "f", "2"]]);
    let broken = events::file(b"about = 'x'\nevent_time = 'time'\n");
    let refused = load(&database, "{}", &["--mapping", broken.to_str().unwrap()]);
    assert!(refused.stderr.contains("event_time: time is no JSON pointer"), "{}", refused.stderr);
    let unknown = load(&database, "{}", &["--mapping", "snowplough"]);
    assert!(
        unknown.stderr.contains("snowplough is no mapping; there are segment, rudderstack"),
        "{}",
        unknown.stderr
    );
}
