//! What silver makes of what events say: values of the wrong kind, ids that are none.

use std::fmt::Write as _;

use tidemark_tests::cluster::{self, connect, rows, sqlstate};

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

/// Snowplow's events as its warehouse loaders write them: two pages, of which the first was reached by an advertisement, and
/// a transaction.
const SNOWPLOW: &str = r#"{"app_id":"web","platform":"web","collector_tstamp":"2026-10-02T08:15:23.001Z","event":"page_view","event_id":"c6ef3124-b53a-4b13-a233-0088f79dcbcb","event_name":"page_view","user_id":null,"domain_userid":"d1","page_url":"https://shop.example/p?utm_source=google&utm_medium=cpc&utm_campaign=spring","page_referrer":"https://www.google.com/","mkt_source":"google","mkt_medium":"cpc","mkt_campaign":"spring","geo_country":"DE","br_lang":"de-DE","dvce_type":"Computer","os_name":"Linux","derived_tstamp":"2026-10-02T08:15:22.100Z"}
{"app_id":"web","platform":"web","collector_tstamp":"2026-10-02T08:16:23.001Z","event":"page_view","event_id":"c6ef3124-b53a-4b13-a233-0088f79dcbcc","event_name":"page_view","domain_userid":"d1","page_url":"https://shop.example/q","derived_tstamp":"2026-10-02T08:16:22.100Z"}
{"app_id":"web","platform":"web","collector_tstamp":"2026-10-02T08:17:23.001Z","event":"transaction","event_id":"c6ef3124-b53a-4b13-a233-0088f79dcbcd","event_name":"transaction","domain_userid":"d1","tr_orderid":"o-1","tr_total":18.5,"tr_currency":"EUR","derived_tstamp":"2026-10-02T08:17:22.100Z"}
"#;

#[test]
fn snowplow_events_have_their_pages_campaigns_and_orders() {
    let database = cluster::shared().database();
    let file = tidemark_tests::events::file(SNOWPLOW.as_bytes());
    let load = ["load", "--mapping", "snowplow", file.to_str().unwrap()];
    tidemark_tests::process::tidemark(&load).database(&database.loader_url()).run().ok();
    maintain(&database);
    let sql = "SELECT event_type, page_path, referrer_host, utm_source, country, platform, device, os, locale
                 FROM silver.events ORDER BY event_time";
    assert_eq!(
        database.rows(sql),
        [
            ["page_view", "/p", "www.google.com", "google", "DE", "web", "Computer", "Linux", "de-DE"],
            ["page_view", "/q", "NULL", "NULL", "NULL", "web", "NULL", "NULL", "NULL"],
            ["transaction", "NULL", "NULL", "NULL", "NULL", "web", "NULL", "NULL", "NULL"],
        ]
    );
    let session = "SELECT page_views, purchases, channel, entry_page, utm_source, country FROM gold.sessions";
    assert_eq!(database.rows(session), [["2", "1", "Paid Search", "/p", "google", "DE"]]);
    assert_eq!(
        database.rows("SELECT order_id, revenue, currency FROM silver.purchases"),
        [["o-1", "18.5", "EUR"]]
    );
    let paths = "SELECT string_agg(page_path, ' ' ORDER BY event_time) FROM silver.page_views";
    assert_eq!(database.rows(paths), [["/p /q"]]);
}

#[test]
fn where_a_visit_came_from_is_also_read_in_the_address() {
    let database = cluster::shared().database();
    let mut lines = String::new();
    for (n, page, expected) in [
        (
            1,
            r#""url":"https://shop.example/p?utm_source=google&utm_medium=cpc&utm_campaign=a+b%20c","referrer":"""#,
            "",
        ),
        (2, r#""url":"https://shop.example/p?yclid=123""#, ""),
        (3, r#""url":"https://shop.example/p?gad_source=1""#, ""),
        (4, r#""url":"https://shop.example/p?rdt_cid=1""#, ""),
        (5, r#""url":"https://shop.example/p?a=1&ScCid=1""#, ""),
        (6, r#""url":"https://shop.example/p","referrer":"https://www.shop.example/""#, ""),
        (7, r#""url":"https://www.shop.example/p","referrer":"https://other.example/""#, ""),
        (8, "", ""),
    ] {
        let context = format!(r#"{{"page":{{{page}}}}}{expected}"#);
        let line = event(n, &format!("a{n}"), "2026-10-02T08:00:00Z", "page", "{}", &context);
        writeln!(lines, "{line}").unwrap();
    }
    load(&database, &lines);
    maintain(&database);
    let sql = "SELECT s.person, e.utm_source, e.utm_campaign, e.click_id, s.referrer_host, s.channel
                 FROM gold.sessions AS s JOIN silver.events AS e USING (person) ORDER BY 1";
    assert_eq!(
        database.rows(sql),
        [
            ["a1", "google", "a b c", "NULL", "NULL", "Paid Search"],
            ["a2", "NULL", "NULL", "yclid=123", "NULL", "Paid Search"],
            ["a3", "NULL", "NULL", "gad_source=1", "NULL", "Paid Search"],
            ["a4", "NULL", "NULL", "rdt_cid=1", "NULL", "Paid Social"],
            ["a5", "NULL", "NULL", "ScCid=1", "NULL", "Paid Social"],
            ["a6", "NULL", "NULL", "NULL", "NULL", "Direct"],
            ["a7", "NULL", "NULL", "NULL", "other.example", "Referral"],
            // No page could have said where it came from.
            ["a8", "NULL", "NULL", "NULL", "NULL", "Unknown"],
        ]
    );
}

/// Case 11: own domains, payment and login are no referrers.
#[test]
fn self_referral_own_domains_are_a_setting() {
    let database = cluster::shared().database();
    let page = |n: u64, url: &str, referrer: &str| {
        let context = format!(r#"{{"page":{{"url":"{url}","referrer":"{referrer}"}}}}"#);
        event(n, &format!("a{n}"), "2026-10-02T08:00:00Z", "page", "{}", &context)
    };
    let lines = [
        page(13, "https://shop.example/p", "https://www.shop.example/"),
        page(14, "https://www.shop.example/p", "https://checkout.shop.example/"),
        page(15, "https://www.shop.example/p", "https://pay.stripe.com/x"),
        page(16, "https://www.shop.example/p", "https://notshop.example/"),
        page(17, "https://www.shop.example/p", "https://stripe.com.evil.test/"),
    ];
    load(&database, &lines.join("\n"));
    maintain(&database);
    let channels = "SELECT string_agg(person || ' ' || channel, ', ' ORDER BY person) FROM gold.sessions";
    assert_eq!(
        database.value(channels),
        "a13 Direct, a14 Referral, a15 Referral, a16 Referral, a17 Referral"
    );
    let append = "SELECT ways::text FROM tidemark.model_status WHERE model = 'silver.events'";
    assert!(database.value(append).contains("append"));
    database.rows("SELECT silver.set_own_hosts('{shop.example,stripe.com}')");
    assert!(database.value(append).contains("append"), "what is new is still appended");
    maintain(&database);
    assert_eq!(database.value(channels), "a13 Direct, a14 Direct, a15 Direct, a16 Referral, a17 Referral");
    // What migrate does again keeps what was said, and marks nothing.
    database.rows("SELECT silver.define_events()");
    database.rows("SELECT silver.set_own_hosts('{stripe.com,shop.example}')");
    let dirty = "SELECT coalesce(sum(dirty_dates), 0) FROM tidemark.model_status";
    assert_eq!(database.number(dirty), 0);
    for bad in ["{Shop.example}", "{shop.example/}", "{%}", "{NULL}", "{\"\"}"] {
        let call = format!("SELECT silver.set_own_hosts('{bad}')");
        assert_eq!(sqlstate(connect(&database.admin_url()).batch_execute(&call)), "22023", "{bad}");
    }
}

/// Case 26: a column that is there does not change its type in silence.
#[test]
fn column_type_change_is_refused() {
    let database = cluster::shared().database();
    load(&database, &event(1, "u", "2026-10-02T08:00:00Z", "x", r#"{"a":1.50,"n":7}"#, "{}"));
    let create = |columns: &str| format!("SELECT silver.create_event_table('t13', ARRAY['x'], '{columns}')");
    database.rows(&create(r#"{"a":"text","n":"bigint"}"#));
    maintain(&database);
    let mut admin = connect(&database.admin_url());
    // Also where Postgres itself would pass one on as the other.
    for (columns, told) in [
        (r#"{"a":"numeric","n":"bigint"}"#, "column a of silver.t13 is text and cannot become numeric"),
        (r#"{"a":"text","n":"integer"}"#, "column n of silver.t13 is bigint and cannot become integer"),
        (
            r#"{"a":"text","n":"double"}"#,
            "column n of silver.t13 is bigint and cannot become double precision",
        ),
    ] {
        let error = admin.batch_execute(&create(columns)).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("42804", told));
        assert!(error.hint().unwrap().contains("tidemark.drop_model('silver.t13', drop_table => true)"));
    }
    assert_eq!(database.rows("SELECT a, n FROM silver.t13"), [["1.50", "7"]]);
    database.rows("SELECT tidemark.drop_model('silver.t13', drop_table => true)");
    database.rows(&create(r#"{"a":"numeric"}"#));
    maintain(&database);
    assert_eq!(database.rows("SELECT sum(a) FROM silver.t13"), [["1.50"]]);
}

#[test]
fn properties_are_there_as_far_as_somebody_chose() {
    let database = cluster::shared().database();
    let mut lines = String::new();
    for (n, properties) in
        (1..).zip([r#"{"email":"a@b.example","plan":"pro","deep":{"x":[1]},"none":null}"#, "{}", "7"])
    {
        let name = if n == 1 { "Signed Up" } else { "x" };
        writeln!(lines, "{}", event(n, "u", &format!("2026-10-02T08:00:0{n}Z"), name, properties, "{}"))
            .unwrap();
    }
    load(&database, &lines);
    maintain(&database);
    let sql = "SELECT properties FROM silver.events ORDER BY event_time";
    assert_eq!(database.column(sql), ["NULL", "NULL", "NULL"], "nobody chose anything");
    for (call, first) in [
        (
            "show_properties('{*}')",
            r#"{"deep": {"x": [1]}, "none": null, "plan": "pro", "email": "a@b.example"}"#,
        ),
        ("show_properties('{*}', hidden => '{email,deep}')", r#"{"none": null, "plan": "pro"}"#),
        ("show_properties('{plan}')", r#"{"plan": "pro"}"#),
        ("show_properties('{}', hashed => '{email,none}')", "a hash"),
        ("show_properties('{}')", "NULL"),
    ] {
        database.rows(&format!("SELECT silver.{call}"));
        maintain(&database);
        let found = database.column(sql);
        if call.contains("hashed") {
            let hash = database.value("SELECT encode(sha256('a@b.example'), 'hex')");
            assert_eq!(found[0], format!(r#"{{"none": null, "email": "{hash}"}}"#));
            continue;
        }
        assert_eq!(found[0], first, "{call}");
        assert_eq!(found[2], "NULL", "what is no object has no properties: {call}");
    }
    // One more event is appended, and has them at once in the live view.
    database.rows("SELECT silver.show_properties('{*}')");
    maintain(&database);
    load(&database, &event(9, "u", "2026-10-02T09:00:00Z", "x", r#"{"n":1}"#, "{}"));
    let live = "SELECT properties FROM silver.events_live WHERE event_time = '2026-10-02 09:00Z'";
    assert_eq!(database.column(live), [r#"{"n": 1}"#]);
    maintain(&database);
    let way = "SELECT way FROM tidemark.refresh_log WHERE model = 'silver.events' ORDER BY id DESC LIMIT 1";
    assert_eq!(database.value(way), "append");
    let mut admin = connect(&database.admin_url());
    for (call, code) in [("'{*,a}'", "22023"), ("NULL", "22004"), ("'{NULL}'", "22004")] {
        let call = format!("SELECT silver.show_properties({call})");
        assert_eq!(sqlstate(admin.batch_execute(&call)), code, "{call}");
    }
    let reader = database.number(
        "SELECT has_function_privilege('tidemark_reader',
        'silver.show_properties(text[], text[], text[])', 'EXECUTE')::int",
    );
    assert_eq!(reader, 0);
}

#[test]
fn paths_of_a_typed_table_may_begin_where_the_event_does() {
    let database = cluster::shared().database();
    let order = r#"{"specversion":"1.0","id":"o2","source":"/orders","type":"order_completed","time":"2026-10-02T10:01:00Z","data":{"userId":"ada","order_id":"A1","revenue":18.5}}"#;
    let file = tidemark_tests::events::file(order.as_bytes());
    let load = ["load", "--mapping", "cloudevents", file.to_str().unwrap()];
    tidemark_tests::process::tidemark(&load).database(&database.loader_url()).run().ok();
    let client = "SELECT silver.create_event_table('orders', ARRAY['order_completed'],
        '{\"order_id\": \"text data.order_id\", \"rev\": \"numeric /data/revenue|data.revenue\", \"src\": \"text source\"}')";
    assert_eq!(database.rows(client), [["silver.orders"]]);
    let sql = "SELECT order_id, rev, src FROM silver.orders_live";
    assert_eq!(database.rows(sql), [["A1", "18.5", "/orders"]]);
}
