//! Erasure: nothing of a person is left in a dump, in statistics or in what is loaded again, and everybody else stays.

use std::process::Command;

use tidemark_tests::cluster::{self, Database, connect, program, rows, sqlstate};
use tidemark_tests::events::{self, Generated};
use tidemark_tests::identity::{Event, event};
use tidemark_tests::process::{Invocation, tidemark};

use super::warehouse::{load, maintain};

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
    let others = everybody_but(&database, &ids);
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
    assert_eq!(everybody_but(&database, &[]).len(), everybody_but(&database, &[]).len());
    assert_eq!(database.number("SELECT count(*) FROM identity.erasures"), 0);
    let exported = tidemark(&[&["person", "export"], &words[..]].concat()).database(&url).run().ok().stdout;
    assert_eq!(exported.lines().count() as i64, theirs + 1, "with the late one");
    assert!(
        exported.lines().all(|line| line.starts_with('{') && ids.iter().any(|id| line.contains(&id[..4])))
    );

    let erased = keyed(&[&["person", "erase", "--yes"], &words[..]].concat(), &url, &key).run().ok().stdout;
    for what in ["erased, and models refreshed", "on the suppression list", "receipt: ", "backups"] {
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
        ("x \u{eb}\u{1f600} y", "\u{eb}\u{1f600}", true),
        ("x \\u00eb\\ud83d\\ude00 y", "\u{eb}\u{1f600}", true),
        ("x \\u00EB\\uD83D\\uDE00 y", "\u{eb}\u{1f600}", true),
        ("\"a \\\"b\\\"\"", "a \"b\"", true),
        ("\"a.b\"", "a+b", false),
        ("u1", "u1", true),
    ] {
        let sql = "SELECT identity.mentions($1, ARRAY[$2])";
        let mentions: bool = admin.query_one(sql, &[&content.as_bytes(), &id]).unwrap().get(0);
        assert_eq!(mentions, found, "{id} in {content}");
    }
}
