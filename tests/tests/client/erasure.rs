//! Erasure: nothing of a person is left in a dump, in statistics or in what is loaded again, and everybody else stays.

use std::process::Command;
use std::time::Duration;

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database, connect, program, rows, sqlstate};
use tidemark_tests::events::{self, Generated};
use tidemark_tests::identity::{Event, event};
use tidemark_tests::process::{Finished, Invocation, tidemark};
use tidemark_tests::wait_until;

use super::kafka::{catch_up, topic_of};
use super::warehouse::{load, maintain};

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "an old key that is long enough\n";

/// A dump of all data, and behind it what stands there as hexadecimal digits, decoded.
fn dump(database: &Database<'_>) -> Vec<u8> {
    let output = Command::new(program("pg_dump"))
        .args(["--data-only", "--no-owner", "-d", &database.superuser_url()])
        .output()
        .expect("cannot run pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all = output.stdout;
    let decoded: Vec<u8> = all
        .split(|byte| !byte.is_ascii_hexdigit() && *byte != b'x')
        .filter_map(|word| word.strip_prefix(b"x"))
        .flat_map(|word| {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
            word.chunks_exact(2).map(move |pair| digit(pair[0]) * 16 + digit(pair[1])).chain([b'\n'])
        })
        .collect();
    all.extend(decoded);
    all
}

fn contains(bytes: &[u8], id: &str) -> bool {
    bytes.windows(id.len()).any(|window| window == id.as_bytes())
}

/// As an array of SQL.
fn list(ids: &[String]) -> String {
    let quoted: Vec<_> = ids.iter().map(|id| format!("'{}'", id.replace('\'', "''"))).collect();
    format!("ARRAY[{}]::text[]", quoted.join(", "))
}

/// Sessions and activity of everybody but some, in order.
fn everybody_but(database: &Database<'_>, ids: &[String]) -> Vec<Vec<String>> {
    let ids = list(ids);
    database.rows(&format!(
        "SELECT person, started_at, ended_at, events, channel FROM gold.sessions WHERE person <> ALL ({ids})
         UNION ALL
         SELECT person, event_date::timestamptz, NULL, events, NULL FROM gold.person_days WHERE person <> ALL ({ids})
         ORDER BY 1, 2, 3, 4"
    ))
}

fn keyed(arguments: &[&str], url: &str, key: &std::path::Path) -> Invocation {
    tidemark(arguments).database(url).env("TIDEMARK__ERASURE__KEY_FILE", key.to_str().unwrap())
}

#[test]
fn nothing_of_a_person_is_left_and_nothing_comes_back() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    admin
        .batch_execute(
            "SELECT tidemark.create_timeline('gold.timeline', 'silver.events', 'known_person', '{locale,page_path}');
             SELECT silver.create_event_table('views', '{page_viewed}', '{\"path\": \"text page.path\"}')",
        )
        .unwrap();
    let shop = Generated::new("--events 6000 --days 6 --users 60 --seed 3 --malformed 0.01");
    tidemark(&["load", shop.path.to_str().unwrap()]).database(&database.loader_url()).run().ok();
    maintain(&database);
    // Somebody who came on a device, with a dead letter, a late event, a link, and a property that nobody else has.
    let sql = "SELECT known_person FROM silver.events GROUP BY 1 HAVING count(DISTINCT person) > 1 ORDER BY count(*) DESC LIMIT 1";
    let person = database.value(sql);
    let mut ids = database.column(&format!("SELECT id FROM identity.ids('{person}')"));
    assert!(ids.len() >= 2, "{ids:?}");
    ids.push("jo\u{eb}lle \"j\" d'x".to_owned());
    let letter = format!(
        "{{\"messageId\":\"m1\",\"userId\":\"{person}\",\"timestamp\":\"no time\",\"event\":\"x\"}}\n"
    );
    let odd = r#"{"messageId":"m2","type":"track","event":"page_viewed","timestamp":"2026-09-02T10:00:00Z","userId":"joëlle \"j\" d'x","context":{"page":{"path":"/only-joëlle"},"locale":"xx-JO"}}"#;
    let more =
        events::file(format!("{letter}{odd}\n{{\"userId\":\"jo\\u00eblle \\\"j\\\" d'x\"\n").as_bytes());
    tidemark(&["load", more.to_str().unwrap()]).database(&database.loader_url()).run().read_all();
    let late = format!(
        r#"{{"messageId":"m3","type":"track","event":"page_viewed","timestamp":"2026-09-02T10:00:00Z","receivedAt":"2026-09-30T10:00:00Z","userId":"{person}"}}"#
    );
    let late = events::file(late.as_bytes());
    tidemark(&["load", late.to_str().unwrap(), "--late-policy", "divert"])
        .database(&database.loader_url())
        .run()
        .ok();
    let link = format!(
        "SELECT identity.link('{person}', 'joëlle \"j\" d''x'), identity.block('device', 'zzz'), identity.link('{person}', 'u-other')"
    );
    admin.batch_execute(&link).unwrap();
    maintain(&database);
    database.rows("ANALYZE");

    let before = dump(&database);
    ids.iter().filter(|id| !id.contains('"')).for_each(|id| assert!(contains(&before, id), "{id}"));
    assert!(contains(&before, "only-joëlle") && contains(&before, "\\u00eblle"));
    let stats = |id: &str| {
        let id = id.replace('\'', "''");
        database.column(&format!(
            "SELECT tablename || '.' || attname FROM pg_stats WHERE most_common_vals::text::text[] && ARRAY['{id}']
                                              OR histogram_bounds::text::text[] && ARRAY['{id}']"
        ))
    };
    assert!(stats(&person).len() > 4);
    let (everybody, others) = (everybody_but(&database, &[]), everybody_but(&database, &ids));
    assert!(others.len() < everybody.len());
    let theirs = database.number(&format!(
        "SELECT count(*) FROM bronze.events WHERE user_id = ANY ({0}) OR anonymous_id = ANY ({0})",
        list(&ids)
    ));
    assert!(theirs > 20);

    // What is asked and not done leaves everything as it is.
    let key = events::file(KEY.as_bytes());
    let words: Vec<&str> = ids.iter().map(String::as_str).collect();
    let url = database.admin_url();
    let dry = keyed(&[&["person", "erase", "--dry-run"], &words[..]].concat(), &url, &key).run().ok().stdout;
    assert!(dry.contains("bronze.events") && dry.contains("nothing is erased"), "{dry}");
    let unkeyed = tidemark(&[&["person", "erase", "--yes"], &words[..]].concat()).database(&url).run();
    assert!(unkeyed.code == Some(64) && unkeyed.stderr.contains("openssl rand"), "{}", unkeyed.stderr);
    assert_eq!(everybody_but(&database, &[]), everybody, "nothing is erased yet");
    assert_eq!(database.number("SELECT count(*) FROM identity.erasures"), 0);
    let exported = tidemark(&[&["person", "export"], &words[..]].concat()).database(&url).run().ok().stdout;
    assert_eq!(exported.lines().count() as i64, theirs + 1, "with the late one");
    assert!(
        exported.lines().all(|line| line.starts_with('{') && ids.iter().any(|id| line.contains(&id[..4])))
    );

    let erased = keyed(&[&["person", "erase", "--yes"], &words[..]].concat(), &url, &key).run().ok().stdout;
    for what in ["models are refreshed", "on the suppression list", "receipt: ", "backups"] {
        assert!(erased.contains(what), "{erased}");
    }
    let clean = |when: &str| {
        let after = dump(&database);
        for word in ids.iter().map(String::as_str).chain(["jo\u{eb}lle", "jo\\u00eb", "xx-JO"]) {
            let at = after.windows(word.len()).position(|window| window == word.as_bytes());
            let near =
                at.map(|at| String::from_utf8_lossy(&after[at.saturating_sub(300)..at + 50]).into_owned());
            assert!(near.is_none(), "{when}: {word} in {near:?}");
        }
        ids.iter().for_each(|id| assert_eq!(stats(id), [""; 0], "{when}: {id}"));
        assert_eq!(everybody_but(&database, &ids), others, "{when}");
        for model in database.column("SELECT model FROM tidemark.model_status") {
            let sql = format!(
                "SELECT event_date, status, detail FROM tidemark.verify_model('{model}', '2026-08-01', '2026-11-01')
                  WHERE status <> 'ok'"
            );
            assert_eq!(database.rows(&sql), [[""; 3]; 0], "{when}: {model}");
        }
    };
    clean("erased");
    let receipt = database.rows("SELECT ids, (rows ->> 'bronze.events')::bigint FROM identity.erasures");
    assert_eq!(receipt, [[ids.len().to_string(), theirs.to_string()]]);

    // The same once more: nothing of it comes back, and not without the key.
    let again = |file: &std::path::Path| {
        keyed(&["load", file.to_str().unwrap(), "--restart"], &database.loader_url(), &key)
    };
    let refused =
        tidemark(&["load", shop.path.to_str().unwrap(), "--restart"]).database(&database.loader_url()).run();
    assert!(refused.code == Some(78) && refused.stderr.contains("erasure.key_file"), "{}", refused.stderr);
    let counts = again(&shop.path).run().ok().counts();
    assert_eq!(counts.loaded, 0, "{counts:?}");
    assert!(counts.filtered as i64 >= theirs - 1, "{counts:?}, {theirs}");
    for file in [&more, &late] {
        let counts = again(file).run().counts();
        assert_eq!((counts.loaded, counts.late_diverted), (0, 0), "{counts:?}");
    }
    maintain(&database);
    // A letter in which an id is written in another way is not known again: whoever reads it, erases it.
    database.rows("DELETE FROM loader.dead_letters WHERE payload::text LIKE '%u00eb%' OR encode(payload, 'escape') LIKE '%u00eb%'");
    database.rows("ANALYZE");
    clean("loaded again");

    // A key is changed with both of them there for a while.
    let both = events::file(format!("a new key that is long enough\n{KEY}").as_bytes());
    keyed(&["person", "erase", "nobody-has-it", "--yes"], &url, &both).run().ok();
    assert_eq!(database.number("SELECT count(*) FROM loader.suppression_keys"), 2);
    let refused = again(&shop.path).run();
    assert!(refused.code == Some(78), "{}", refused.stderr);
    let counts = keyed(&["load", shop.path.to_str().unwrap(), "--restart"], &database.loader_url(), &both)
        .run()
        .ok()
        .counts();
    assert_eq!(counts.loaded, 0, "{counts:?}");
}

#[test]
fn a_topic_and_dead_letters_that_are_read_again_bring_nobody_back() {
    let database = cluster::shared().database();
    let shop = Generated::new("--events 3000 --days 4 --users 40 --seed 5 --malformed 0 --duplicates 0");
    let topic = topic_of(&shop.path, "2");
    catch_up(&database, &topic, &[]);
    maintain(&database);
    let busiest = "SELECT known_person FROM silver.events WHERE user_id IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1";
    let person = database.value(busiest);
    let ids = database.column(&format!("SELECT id FROM identity.ids('{person}')"));
    // Letters that could be loaded later: theirs, written so that no search for it finds it, and somebody else's.
    let escaped: String = person.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let letter = |number, who: &str| {
        format!(
            r#"{{"messageId":"{}","type":"track","event":"x","timestamp":"2026-09-02T10:00:00Z","userId":"{who}"}}"#,
            events::id(number)
        )
    };
    let letters =
        events::file(format!("{}\n{}\n", letter(1, &escaped), letter(2, "somebody-else")).as_bytes());
    let load = ["load", letters.to_str().unwrap(), "--event-time-floor", "2999-01-01"];
    assert_eq!(tidemark(&load).database(&database.loader_url()).run().read_all().counts().dead, 2);

    let key = events::file(KEY.as_bytes());
    let words: Vec<&str> = ids.iter().map(String::as_str).collect();
    let theirs = format!(
        "SELECT count(*) FROM bronze.events WHERE user_id = ANY ({0}) OR anonymous_id = ANY ({0})",
        list(&ids)
    );
    let (before, all) = (database.number(&theirs), database.number("SELECT count(*) FROM bronze.events"));
    assert!(before > 30, "{before}");
    keyed(&[&["person", "erase", "--yes"], &words[..]].concat(), &database.admin_url(), &key).run().ok();
    assert_eq!(database.number("SELECT count(*) FROM loader.dead_letters"), 2, "nobody can see whose it is");

    let brokers = &broker::shared().address;
    let replays = [&["replay", "--topic", &topic, "--brokers", brokers][..], &["dead-letters", "replay"]];
    for replay in replays {
        let refused = tidemark(replay).database(&database.admin_url()).run();
        assert!(
            refused.code == Some(78) && refused.stderr.contains("erasure.key_file"),
            "{}",
            refused.stderr
        );
    }
    let counts = keyed(replays[0], &database.admin_url(), &key).run().ok().counts();
    assert_eq!((counts.filtered as i64, counts.loaded), (before, 0), "{counts:?}");
    let told = keyed(replays[1], &database.admin_url(), &key).run().ok().stdout;
    assert!(told.contains("1 loaded"), "{told}");
    // A daemon that reads the topic from its beginning.
    let again = ["run", "--brokers", brokers, "--topic", &topic, "--group", "again", "--pipeline", "again"];
    let more = ["--maintain-every", "off", "--until-caught-up"];
    let counts = keyed(&[&again[..], &more].concat(), &database.loader_url(), &key).run().ok().counts();
    assert_eq!((counts.filtered as i64, counts.loaded), (before, 0), "{counts:?}");
    maintain(&database);
    assert_eq!(database.number(&theirs), 0);
    assert_eq!(
        database.number("SELECT count(*) FROM bronze.events"),
        all - before + 1,
        "and somebody else's"
    );
    assert_eq!(
        database.number("SELECT count(*) FROM loader.dead_letters WHERE status = 'open'"),
        0,
        "{told}"
    );
    assert_eq!(
        database.number(&format!("SELECT count(*) FROM gold.sessions WHERE person = ANY ({})", list(&ids))),
        0
    );
}

#[test]
fn who_is_not_named_stays_and_what_was_theirs_by_a_device_is_known_anew() {
    let database = cluster::shared().database();
    let all = [
        event(1, 0, "", "kiosk"),
        event(2, 10, "jane", "kiosk"),
        event(3, 20, "", "kiosk"),
        event(4, 1500, "mary", "kiosk"),
        event(5, 1510, "", "kiosk"),
        event(6, 1600, "old-mary", "phone"),
    ];
    load(&database, &all.iter().map(Event::line).collect::<Vec<_>>().join("\n"));
    let mut admin = connect(&database.admin_url());
    admin.batch_execute("SELECT identity.link('mary', 'old-mary')").unwrap();
    maintain(&database);
    let known =
        "SELECT person_as_sent || ' ' || coalesce(person, '-') FROM silver.events_known ORDER BY event_id";
    assert_eq!(database.column(known)[..3], ["kiosk jane", "jane jane", "kiosk jane"]);
    // In a transaction that is undone, as in any.
    admin.batch_execute("BEGIN; SELECT identity.erase_person('{jane}', false); ROLLBACK").unwrap();
    assert_eq!(
        rows(
            &mut admin,
            "SELECT relation, rows FROM identity.erase_person('{jane}', false) WHERE relation ~ 'events'"
        ),
        [["bronze.events", "1"], ["silver.events", "1"]]
    );
    maintain(&database);
    assert_eq!(
        database.column(known),
        ["kiosk mary", "kiosk mary", "mary mary", "kiosk mary", "old-mary mary"]
    );
    // The person was called mary, and old-mary is left.
    admin.batch_execute("SELECT identity.erase_person('{mary}', false)").unwrap();
    maintain(&database);
    assert_eq!(database.column(known), ["kiosk kiosk", "kiosk kiosk", "kiosk kiosk", "old-mary old-mary"]);
    assert_eq!(database.number("SELECT count(*) FROM identity.links"), 0);
    // Events that are not refreshed yet, and a device that is named with whoever was there.
    load(
        &database,
        &[event(7, 1700, "bob", "kiosk"), event(8, 1800, "bob", "x")].map(|e| e.line()).join("\n"),
    );
    let gone =
        "SELECT relation, rows FROM identity.erase_person('{kiosk}', false) WHERE relation = 'bronze.events'";
    assert_eq!(rows(&mut admin, gone), [["bronze.events", "4"]]);
    maintain(&database);
    assert_eq!(database.column(known), ["old-mary old-mary", "bob bob"]);
    assert_eq!(database.column("SELECT DISTINCT person FROM gold.sessions ORDER BY 1"), ["bob", "old-mary"]);

    for (ids, code) in
        [("NULL", "22004"), ("'{jane,NULL}'", "22004"), ("'{undefined}'", "22023"), ("'{\"\"}'", "22023")]
    {
        let found = sqlstate(admin.batch_execute(&format!("SELECT identity.erase_person({ids})")));
        assert_eq!(found, code, "{ids}");
    }
    let nobody = "SELECT count(*) FROM identity.erase_person('{never-here}', false)";
    assert_eq!(rows(&mut admin, nobody), [["0"]]);
    let mut loader = connect(&database.loader_url());
    assert_eq!(sqlstate(loader.batch_execute("SELECT identity.erase_person('{bob}', false)")), "42501");

    // What cannot be read may have an id in it, as a word and however JSON writes it.
    for (content, id, found) in [
        ("{\"u\":\"u1\"", "u1", true),
        ("{\"u\":\"u12\"", "u1", false),
        ("a,u-1,b", "u-1", true),
        ("a,u-1,b", "1", false),
        ("\"\u{eb}\u{1f600}\"", "\u{eb}\u{1f600}", true),
        ("\"\\u00eb\\ud83d\\ude00\"", "\u{eb}\u{1f600}", true),
        ("\"\\u00EB\\uD83D\\uDE00\"", "\u{eb}\u{1f600}", true),
        ("1, jane ;2", "jane", true),
        ("1\tjane\n2", "jane", true),
        ("\"{\\\"u\\\":\\\"jane\\\"}\"", "jane", true),
        ("\"lang\":\"de-AT\",\"qty\":3,\"at\":\"10:01:02\"", "de", false),
        ("\"lang\":\"de-AT\",\"qty\":3,\"at\":\"10:01:02\"", "3", false),
        ("\"jane@x.org\"", "jane", false),
        ("\"a \\\"b\\\"\"", "a \"b\"", true),
        ("\"a.b\"", "a+b", false),
        ("u1", "u1", true),
    ] {
        let sql = "SELECT identity.mentions($1, ARRAY[$2])";
        let mentions: bool = admin.query_one(sql, &[&content.as_bytes(), &id]).unwrap().get(0);
        assert_eq!(mentions, found, "{id} in {content}");
    }
}

fn erase(database: &Database<'_>, ids: &[&str]) -> Finished {
    let key = events::file(KEY.as_bytes());
    keyed(&[&["person", "erase", "--yes"], ids].concat(), &database.admin_url(), &key).run()
}

/// How many rows of bronze and of silver are somebody's.
fn left(database: &Database<'_>, user: &str) -> Vec<String> {
    let count = |table: &str| format!("SELECT count(*) FROM {table} WHERE user_id = '{user}'");
    database.column(&format!("{} UNION ALL {}", count("bronze.events"), count("silver.events")))
}

#[test]
fn what_is_on_its_way_is_waited_for() {
    let database = cluster::shared().database();
    let key = events::file(KEY.as_bytes());
    let old: Vec<Event> = (1..=5).map(|n| event(n, n, "jane", "d")).collect();
    load(&database, &old.iter().map(Event::line).collect::<Vec<_>>().join("\n"));
    maintain(&database);
    erase(&database, &["somebody-else"]).ok();
    // A batch with duplicates, which is written in pieces, is held up before its end.
    let mut holder = database.connect();
    holder.batch_execute("BEGIN; LOCK TABLE loader.batches IN SHARE ROW EXCLUSIVE MODE").unwrap();
    let lines: Vec<String> = (1..=20).map(|n| event(n, n, "jane", "d").line()).collect();
    let file = events::file(lines.join("\n").as_bytes());
    let loading = keyed(&["load", file.to_str().unwrap()], &database.loader_url(), &key).start();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'loader.batches'::regclass";
    wait_until("the batch to come to its end", PATIENCE, || database.number(waiting) > 0);
    let erasing = keyed(&["person", "erase", "jane", "--yes"], &database.admin_url(), &key).start();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'loader.suppression_keys'::regclass";
    wait_until("the erasure to wait for the batch", PATIENCE, || database.number(waiting) > 0);
    holder.batch_execute("ROLLBACK").unwrap();
    loading.wait().ok();
    erasing.wait().ok();
    maintain(&database);
    assert_eq!(left(&database, "jane"), ["0", "0"]);

    // Late events on their way into bronze.
    let late = event(30, 30, "lena", "e")
        .line()
        .replace("\"type\"", "\"receivedAt\":\"2026-09-30T10:00:00Z\",\"type\"");
    let late = events::file(late.as_bytes());
    keyed(&["load", late.to_str().unwrap(), "--late-policy", "divert"], &database.loader_url(), &key)
        .run()
        .ok();
    holder.batch_execute("BEGIN; SELECT loader.merge_late_events()").unwrap();
    let erasing = keyed(&["person", "erase", "lena", "--yes"], &database.admin_url(), &key).start();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bronze.late_events'::regclass";
    wait_until("the erasure to wait for the merge", PATIENCE, || database.number(waiting) > 0);
    holder.batch_execute("COMMIT").unwrap();
    erasing.wait().ok();
    maintain(&database);
    assert_eq!(left(&database, "lena"), ["0", "0"]);
}

#[test]
fn what_others_have_made_neither_stops_an_erasure_nor_keeps_anybody() {
    let database = cluster::shared().database();
    let long = "u".repeat(300);
    let mut all: Vec<Event> = (1..=60).map(|n| event(n, 1440 * (n % 4) + n, &n.to_string(), "d")).collect();
    all.push(event(61, 10, &long, "long"));
    load(&database, &all.iter().map(Event::line).collect::<Vec<_>>().join("\n"));
    maintain(&database);
    let mut superuser = database.connect();
    superuser
        .batch_execute(
            "CREATE SCHEMA ann; CREATE VIEW gold.seen AS SELECT * FROM bronze.events;
             CREATE TABLE ann.mine (event_date date, person text, n bigint, PRIMARY KEY (event_date, person));
             SELECT tidemark.create_model('ann.mine', '{silver.events}',
                 'SELECT event_date, known_person AS person, count(*) AS n FROM silver.events
                   WHERE event_date >= $1 AND event_date < $2 AND known_person IS NOT NULL GROUP BY 1, 2',
                 '{event_date,person}', scope => 'person', scope_source => 'known_person');
             CREATE TABLE ann.raw (event_date date, user_id text, n bigint, PRIMARY KEY (event_date, user_id));
             SELECT tidemark.create_model('ann.raw', '{bronze.events}',
                 'SELECT event_date, user_id, count(*) AS n FROM gold.seen
                   WHERE event_date >= $1 AND event_date < $2 GROUP BY 1, 2', '{event_date,user_id}');
             CREATE TABLE ann.broken (event_date date PRIMARY KEY, n bigint);
             SELECT tidemark.create_model('ann.broken', '{silver.events}',
                 'SELECT event_date, 1 / (count(*) - count(*)) AS n FROM silver.events
                   WHERE event_date >= $1 AND event_date < $2 GROUP BY 1', '{event_date}');
             SELECT tidemark.create_timeline('ann.line', 'silver.events', properties => '{page_path}');",
        )
        .unwrap();
    tidemark(&["maintain"]).database(&database.superuser_url()).run();
    database.rows("ANALYZE");
    assert_eq!(database.number("SELECT count(*) FROM ann.raw WHERE user_id = '2'"), 1);
    // The id is also a number in catalogs; one model is broken and others are not ours to refresh: all else is done.
    let done = erase(&database, &["2"]);
    assert_ne!(done.code, Some(0));
    assert!(done.stderr.contains("the person is erased, but not yet from all"), "{}", done.stderr);
    assert!(done.stdout.contains("receipt: identity.erasures, erasure_id 1"), "{}", done.stdout);
    assert_eq!(left(&database, "2"), ["0", "0"]);
    let stats = "SELECT schemaname || '.' || tablename FROM pg_stats
                  WHERE schemaname IN ('bronze_partitions', 'silver_partitions', 'gold_storage', 'identity')
                    AND attname IN ('user_id', 'anonymous_id', 'person', 'known_person', 'account', 'id')
                    AND (most_common_vals::text::text[] && '{2}' OR histogram_bounds::text::text[] && '{2}')";
    assert_eq!(database.column(stats), [""; 0]);
    // Whoever may refresh these does.
    superuser.batch_execute("SELECT tidemark.drop_model('ann.broken')").unwrap();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    assert_eq!(database.number("SELECT count(*) FROM ann.raw WHERE user_id = '2'"), 0);
    assert_eq!(database.number("SELECT count(*) FROM ann.mine WHERE person = '2'"), 0);

    // An id that silver cuts, as it is listed and as it was sent.
    let listed =
        database.value(&format!("SELECT DISTINCT person FROM silver.events WHERE user_id = '{long}'"));
    assert_ne!(listed, long);
    erase(&database, &[&listed]);
    let file = events::file(all.iter().map(Event::line).collect::<Vec<_>>().join("\n").as_bytes());
    let key = events::file(KEY.as_bytes());
    let again = ["load", "--restart", file.to_str().unwrap()];
    let counts = keyed(&again, &database.loader_url(), &key).run().ok().counts();
    assert_eq!((counts.loaded, counts.filtered, counts.duplicate), (0, 2, 59), "{counts:?}");

    // Dates of which silver is retired and bronze is not.
    superuser
        .batch_execute(
            "SELECT tidemark.manage_partitions('silver.events', partition_schema => 'silver_partitions',
                 partition_unique => '{event_id}', retention_days => (now() AT TIME ZONE 'UTC')::date - date '2026-09-03')",
        )
        .unwrap();
    tidemark(&["maintain"]).database(&database.superuser_url()).run();
    assert_eq!(left(&database, "4"), ["1", "0"]);
    assert_eq!(database.number("SELECT count(*) FROM gold.sessions WHERE person = '4'"), 1);
    let exported = tidemark(&["person", "export", "4"]).database(&database.admin_url()).run().ok().stdout;
    assert_eq!(exported.lines().count(), 1);
    erase(&database, &["4"]);
    assert_eq!(left(&database, "4"), ["0", "0"]);
    assert_eq!(database.number("SELECT count(*) FROM gold.sessions WHERE person = '4'"), 0);

    // Another key than the one in use.
    let other = events::file(b"another key, which nobody knows");
    let refused = keyed(&["person", "erase", "--yes", "6"], &database.admin_url(), &other).run();
    assert!(
        refused.code == Some(78) && refused.stderr.contains("begun under another key"),
        "{}",
        refused.stderr
    );
    assert_eq!(left(&database, "6"), ["1", "1"]);
    assert_eq!(database.number("SELECT count(*) FROM loader.suppression_keys"), 1);
    let n = database.number("SELECT count(*) FROM identity.erasures");
    superuser.batch_execute("SELECT identity.erase_person('{}', false)").unwrap();
    assert_eq!(database.number("SELECT count(*) FROM identity.erasures"), n);
}
