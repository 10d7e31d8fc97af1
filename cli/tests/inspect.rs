//! `tidemark inspect` as a person meets it: the mapping it finds, what it shows, and that its advice leads on.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::path::PathBuf;
use std::process::{Command, Output};

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let directory = std::env::temp_dir().join(format!("tidemark-inspect-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Files(directory)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.current_dir(&self.0).args(arguments).env_clear().output().unwrap()
    }

    fn inspect(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["inspect"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A record or two of each system, as its documentation has them.
const SYSTEMS: [(&str, &str); 12] = [
    (
        "segment",
        r#"{"messageId":"a","type":"page","timestamp":"2026-10-02T08:15:22Z","anonymousId":"d","context":{"page":{"url":"https://shop.example/"}}}"#,
    ),
    (
        "rudderstack",
        r#"{"messageId":"a","type":"page","originalTimestamp":"2026-10-02T08:15:22Z","anonymousId":"d","rudderId":"r","channel":"web","request_ip":"203.0.113.9"}"#,
    ),
    (
        "segment-warehouse",
        "id,received_at,sent_at,original_timestamp,timestamp,user_id,anonymous_id,event,event_text\na,2026-10-02 08:15:23,2026-10-02 08:15:22,2026-10-02 08:15:22,2026-10-02 08:15:22,ada,d,sale,Sale\n",
    ),
    (
        "cloudevents",
        r#"{"specversion":"1.0","id":"a","source":"/shop","type":"sale","time":"2026-10-02T08:15:22Z","data":{"userId":"ada"}}"#,
    ),
    (
        "snowplow",
        r#"{"app_id":"web","platform":"web","event":"page_view","event_name":"page_view","event_id":"c6ef3124-b53a-4b13-a233-0088f79dcbcb","domain_userid":"d","collector_tstamp":"2026-10-02 08:15:23.001","derived_tstamp":"2026-10-02 08:15:22.100"}"#,
    ),
    (
        "posthog",
        r#"{"uuid":"018f2f0e-0000-4000-8000-000000000001","event":"$pageview","distinct_id":"d","timestamp":"2026-10-02T08:15:22.000000+00:00","properties":{"$device_id":"d","$lib":"web"},"team_id":1}"#,
    ),
    (
        "mixpanel",
        r#"{"event":"Sign up","properties":{"time":1790928922,"distinct_id":"ada","$insert_id":"x","$device_id":"d","mp_lib":"web"}}"#,
    ),
    (
        "amplitude",
        r#"{"uuid":"018f2f0e-0000-4000-8000-000000000001","$insert_id":"x","event_type":"sale","event_time":"2026-10-02 08:15:22.123000","user_id":"ada","device_id":"d","amplitude_id":1,"event_properties":{}}"#,
    ),
    (
        "ga4",
        r#"{"event_date":"20261002","event_timestamp":"1790928922000000","event_name":"page_view","event_params":[],"user_pseudo_id":"1.2"}"#,
    ),
    (
        "matomo",
        r#"{"idVisit":"7","visitorId":"v","siteName":"Shop","referrerType":"direct","actionDetails":[{"type":"action","pageId":"5","pageIdAction":"1","timestamp":1790928922,"url":"https://shop.example/"}]}"#,
    ),
    (
        "umami",
        "website_id,session_id,visit_id,event_id,hostname,url_path,event_type,event_name,distinct_id,created_at,job_id\nw,s,v,018f2f0e-0000-4000-8000-000000000001,shop.example,/a,1,,,2026-10-02 08:15:22,\n",
    ),
    (
        "access-log",
        "203.0.113.9 - - [02/Oct/2026:10:15:22 +0200] \"GET /p HTTP/1.1\" 200 23 \"-\" \"curl\"\n",
    ),
];

#[test]
fn the_mapping_of_each_system_is_found() {
    let files = Files::new("systems");
    for (name, content) in SYSTEMS {
        files.write("events", content);
        let shown = files.inspect(&["events"]);
        assert!(shown.starts_with(&format!("events: all of its 1 records, as {name}: ")), "{name}: {shown}");
        assert!(shown.contains("2026-10-02 08:15:22Z"), "{name}: {shown}");
        let mapping = if name == "segment" { String::new() } else { format!(" --mapping {name}") };
        assert!(shown.ends_with(&format!("\n  tidemark load events{mapping}\n")), "{name}: {shown}");
    }
}

#[test]
fn an_unknown_table_gets_a_proposal_that_can_be_run() {
    let files = Files::new("unknown");
    let rows = "1,2026-10-02 08:15:22,view,7\n2,2026-10-02 08:15:23,cart,7\n3,2026-10-02 08:16:24,view,8\n";
    files.write("the till.csv", &format!("no,when_created,action,customer_no\n{rows}"));
    let output = files.run(&["inspect", "the till.csv"]);
    assert_eq!(output.status.code(), Some(66));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("/when_created  3 of 3  3, times that do not say their zone  2026-10-02 08:15:22"),
        "{shown}"
    );
    let error = String::from_utf8(output.stderr).unwrap();
    let (_, command) = error.trim().split_once("it may be: tidemark ").unwrap();
    let expected = "inspect 'the till.csv' --envelope event_time=/when_created:UTC --envelope event_type=/action \
                    --envelope user_id=/customer_no";
    assert_eq!(command, expected);
    let arguments: Vec<&str> = command.split(' ').skip(3).collect();
    let shown = files.inspect(&[&["the till.csv"], arguments.as_slice()].concat());
    assert!(shown.contains("/action                        3 of 3  view 2, cart 1"), "{shown}");
    assert!(
        shown.contains("user_id       /customer_no                   3 of 3  2 different, such as 7"),
        "{shown}"
    );
    assert!(shown.contains("No event has an id."), "{shown}");
    assert!(shown.ends_with(&format!("  tidemark load {}\n", &expected["inspect ".len()..])), "{shown}");
}

#[test]
fn what_would_be_missing_or_dead_is_said() {
    let files = Files::new("dead");
    let lines = [
        r#"[{"messageId":"a","event":"x","timestamp":"2026-10-02T08:15:22Z"},{"messageId":"b","event":"x"}]"#,
        r#"{"messageId":"a","event":"x","timestamp":"2026-10-02T08:15:22Z","userId":"u"}"#,
        r#"{"messageId":"c","event":"x","timestamp":1790928922}"#,
        "",
    ];
    files.write("lines", &lines.join("\n"));
    let shown = files.inspect(&["lines"]);
    for part in [
        "lines: all of its 3 records, as segment",
        "user_id       /userId or /user_id               1 of 2  1 different, such as u",
        "anonymous_id  /anonymousId or /anonymous_id     0 of 2  -",
        "* 3 records hold 4 events: each is loaded by itself.",
        "* Events that repeat the id of another: 1.",
        "* Events that name no person: 1.",
        "2 of 4 would be dead letters:",
        "     1  missing_event_time: neither timestamp nor originalTimestamp is set\n        first in record 1: {\"messageId\":\"b\"",
        "     1  invalid_event_time: timestamp is a number, and does not say of what",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let seconds = files.inspect(&["lines", "--envelope", "event_time=/timestamp:s"]);
    assert!(seconds.contains("3 of 3") && seconds.contains("1 of 4 would be dead letters"), "{seconds}");
}

#[test]
fn what_holds_no_events_is_no_riddle() {
    let files = Files::new("none");
    files.write("empty", "\n\n");
    assert_eq!(files.inspect(&["empty"]), "empty: empty, nothing to load\n");
    files.write("text", "once upon a time\nthere was\n");
    let refused = files.run(&["inspect", "text"]);
    assert_eq!(refused.status.code(), Some(66));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("text holds no events"));
    files.write("numbers", "[1,2]");
    let refused = files.run(&["inspect", "numbers"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("none of its records is a JSON object"));
    let unknown = files.run(&["inspect", "empty", "--mapping", "snowplough"]);
    assert_eq!(unknown.status.code(), Some(64));
}

#[test]
fn only_what_silver_reads_is_promised() {
    let files = Files::new("promised");
    let event = |rest: &str| {
        format!(r#"{{"messageId":"a","type":"sale","timestamp":"2026-10-02T08:15:22Z","userId":"u",{rest}}}"#)
    };
    files.write("flat.ndjson", &event(r#""country":"DE","platform":"web","path":"/x""#));
    let seen = files.inspect(&["flat.ndjson"]);
    assert!(seen.contains("silver.events finds none of campaign, country, device, page, platform"), "{seen}");
    files.write("context.ndjson", &event(r#""context":{"country":"DE"},"platform":"web""#));
    let seen = files.inspect(&["context.ndjson"]);
    assert!(
        seen.contains("silver.events finds country 1, and no campaign, device, page, platform"),
        "{seen}"
    );
}
