//! What silver makes of what events say: values of the wrong kind, ids that are none.

use std::fmt::Write as _;

use tidemark_tests::cluster::{self, connect, rows};

use super::warehouse::{event, load, maintain};

#[test]
fn malformed_properties_become_null_and_fail_no_date() {
    let database = cluster::shared().database();
    let bad = [
        r#""none""#,
        "[]",
        "7",
        "null",
        "true",
        r#"{"a":{"b":"c"}}"#,
        "1e300",
        "-1e300",
        "123456789012345678901234567890",
        "0.00000000000000000000000000000000000000001",
        r#""NaN""#,
        r#""12,5""#,
        r#""2026-02-31""#,
        r#""9999999999999999999999""#,
        r#""""#,
    ];
    let mut lines = String::new();
    let mut number = 0;
    let mut add = |name: &str, properties: &str, context: &str| {
        number += 1;
        let time = format!("2026-09-01T10:{:02}:{:02}Z", number / 60, number % 60);
        writeln!(lines, "{}", event(number, "u", &time, name, properties, context)).unwrap();
    };
    for value in bad {
        for context in [
            "{}".to_owned(),
            value.to_owned(),
            format!(
                r#"{{"page":{value},"campaign":{value},"device":{value},"os":{value},"platform":{value},"country":{value},"location":{value}}}"#
            ),
            format!(
                r#"{{"page":{{"path":{value},"url":{value},"title":{value},"referrer":{value}}},"campaign":{{"source":{value},"gclid":{value}}},"device":{{"type":{value}}}}}"#
            ),
        ] {
            add("page_viewed", &format!(r#"{{"performance":{{"load_ms":{value}}}}}"#), &context);
            add("Page", &format!(r#"{{"load_ms":{value},"path":{value}}}"#), &context);
            add("page", value, &context);
            add(
                "purchase_completed",
                &format!(r#"{{"order":{{"id":{value},"total":{value},"items":{value}}}}}"#),
                &context,
            );
            add(
                "Order Completed",
                &format!(r#"{{"revenue":{value},"products":[{{"quantity":{value}}},{value}]}}"#),
                &context,
            );
            add("Signed Up", &format!(r#"{{"method":{value}}}"#), &context);
            add(
                "typed",
                &format!(
                    r#"{{"n":{value},"b":{value},"i":{value},"f":{value},"t":{value},"d":{value},"z":{value}}}"#
                ),
                &context,
            );
        }
    }
    add(
        "typed",
        r#"{"n":"12.50","b":"yes","i":-3,"f":0.25,"t":"text","d":"2024-02-29T10:00","z":"2026-09-01T12:00:00+02:00"}"#,
        "{}",
    );
    add(
        "Order Completed",
        r#"{"order_id":"A1","total":19.9,"revenue":"18.50","currency":"EUR","products":[{"quantity":2},{}]}"#,
        "{}",
    );
    // A person longer than any index entry can be.
    let long = "x".repeat(5000);
    writeln!(lines, "{}", event(5001, &long, "2026-09-01T11:00:00Z", "page_viewed", "{}", "{}")).unwrap();
    load(&database, &lines);
    let mut admin = connect(&database.admin_url());
    rows(
        &mut admin,
        r#"SELECT silver.create_event_table('typed', ARRAY['typed'],
            '{"n":"numeric","b":"boolean","i":"bigint","i4":"integer i",'
            '"f":"double","t":"text","d":"date","z":"timestamptz"}')"#,
    );
    maintain(&database);
    let total = database.number("SELECT count(*) FROM bronze.events");
    assert!(total > 400, "only {total} events were loaded");
    assert_eq!(database.number("SELECT count(*) FROM silver.events"), total);
    assert_eq!(
        database.number("SELECT count(*) FROM silver.page_views WHERE event_date = '2026-09-01'"),
        15 * 4 * 3 + 1
    );
    assert_eq!(
        database.rows("SELECT n, b, i, i4, f, t, d, z AT TIME ZONE 'UTC' FROM silver.typed WHERE t = 'text'"),
        [["12.50", "t", "-3", "-3", "0.25", "text", "2024-02-29", "2026-09-01 10:00:00"]]
    );
    assert_eq!(
        database.rows("SELECT revenue, currency, items FROM silver.purchases WHERE order_id = 'A1'"),
        [["18.50", "EUR", "3"]]
    );
    // No object or array in any text column: a payload must not come through.
    for column in ["page_path", "page_url", "utm_source", "device", "os", "country", "platform"] {
        let sql = format!("SELECT count(*) FROM silver.events WHERE {column} ~ '^[{{\\[]'");
        assert_eq!(database.number(&sql), 0, "{column}");
    }
    assert_eq!(database.value("SELECT max(load_ms) FROM silver.page_views"), "7");
    assert_eq!(database.number("SELECT max(length(person)) FROM silver.events"), 233);
}

#[test]
fn what_programs_write_in_place_of_an_id_is_no_person() {
    let database = cluster::shared().database();
    let nobody = [
        "null",
        "NULL",
        "undefined",
        "'unknown'",
        "-1",
        "None",
        "NaN",
        "<nil>",
        "[object Object]",
        "0",
        "   ",
        "anonymous",
        "Guest",
        "00000000-0000-0000-0000-000000000000",
    ];
    let mut lines = String::new();
    for (n, id) in (1..).zip(nobody) {
        let time = format!("2026-09-01T10:00:{n:02}Z");
        let line = event(n, id, &time, "page_viewed", "{}", "{}");
        writeln!(lines, "{}", line.replacen('{', &format!(r#"{{"anonymousId":"visitor-{n}","#), 1)).unwrap();
        writeln!(lines, "{}", event(100 + n, id, &time, "page_viewed", "{}", "{}")).unwrap();
    }
    for (n, id) in (201..).zip(["0-1", "nullable", "u-0", "guest-7"]) {
        writeln!(lines, "{}", event(n, id, "2026-09-01T11:00:00Z", "page_viewed", "{}", "{}")).unwrap();
    }
    load(&database, &lines);
    maintain(&database);
    for table in ["silver.events", "silver.page_views"] {
        let persons =
            |of: &str| database.column(&format!("SELECT DISTINCT person FROM {table} WHERE {of} ORDER BY 1"));
        assert_eq!(persons("event_time >= '2026-09-01 11:00Z'"), ["0-1", "guest-7", "nullable", "u-0"]);
        assert_eq!(persons("person LIKE 'visitor-%'").len(), nobody.len());
        let without = format!("SELECT count(*) FROM {table} WHERE person IS NULL");
        assert_eq!(database.number(&without), nobody.len() as i64, "{table}");
    }
    let sent = "SELECT count(*) FROM silver.events WHERE user_id = 'undefined'";
    assert_eq!(database.number(sent), 2, "the id stays as it was sent");
    assert_eq!(
        database.number("SELECT sum(active_persons) FROM gold.daily_actives"),
        nobody.len() as i64 + 4
    );
}
