//! `tidemark replay`: a stretch of a topic once more, exactly, beside a daemon that does not notice.

use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated, assert_books, assert_exact, id, line_received};
use tidemark_tests::process::{Invocation, tidemark};
use tidemark_tests::wait_until;

use crate::kafka::{PATIENCE, catch_up, topic_of};

fn replay(database: &Database<'_>, topic: &str, more: &[&str]) -> Invocation {
    let mut arguments = vec!["replay", "--topic", topic, "--brokers", &broker::shared().address];
    arguments.extend(more);
    tidemark(&arguments).database(&database.admin_url())
}

/// All but where and when a row was loaded.
fn rows_of(database: &Database<'_>, table: &str) -> Vec<Vec<String>> {
    database.rows(&format!(
        "SELECT count(*), md5(string_agg(md5(concat_ws('|', event_id, event_time, event_date, event_type, user_id,
                anonymous_id, received_at, source_topic, source_partition, source_offset, payload)), ''
                ORDER BY event_id, event_time)) FROM {table}"
    ))
}

#[test]
fn a_topic_is_reprocessed_into_another_table_beside_the_daemon() {
    let database = cluster::shared().database();
    let file =
        Generated::new("--events 20000 --days 4 --users 200 --seed 71 --malformed 0.005 --duplicates 0.01");
    let topic = topic_of(&file.path, "3");
    catch_up(&database, &topic, &[]);
    let web = "SELECT o.partition, next_offset, epoch, run, owner FROM loader.offsets AS o
                 JOIN loader.pipelines USING (pipeline_id) WHERE name = 'web' ORDER BY 1";
    let before = database.rows(web);

    // The table must be there, and the message must not send anybody to the migrations.
    let into = ["--into", "bronze.events_new"];
    let missing = replay(&database, &topic, &into).run();
    let line = missing.refused(78);
    assert!(
        line.contains("bronze.events_new") && line.contains("--create") && !line.contains("migrate"),
        "{line}"
    );
    assert_eq!(replay(&database, &topic, &["--into", "events"]).run().code, Some(64));

    let create = [&into[..], &["--create", "--batch-rows", "3000"]].concat();
    let counts = replay(&database, &topic, &create).run().ok().counts();
    assert_eq!(
        (counts.read, counts.loaded, counts.duplicate, counts.dead),
        (file.number("lines"), file.number("events"), file.number("duplicates"), file.number("malformed"))
    );
    assert_eq!(rows_of(&database, "bronze.events_new"), rows_of(&database, "bronze.events"));
    assert_eq!(database.rows(web), before, "the daemon's positions have moved");
    let dirty = "SELECT DISTINCT source::text FROM tidemark_internal.dirty_log ORDER BY 1";
    assert_eq!(database.column(dirty), ["bronze.events", "bronze.events_new"]);

    // The same once more is done already; from the start again, everything is known.
    let again = replay(&database, &topic, &create).run().ok();
    assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
    let counts = replay(&database, &topic, &[&create[..], &["--restart"]].concat()).run().ok().counts();
    assert_eq!((counts.read, counts.loaded), (file.number("lines"), 0));
    // Into bronze itself as well, where the daemon has loaded it.
    let counts = replay(&database, &topic, &[]).run().ok().counts();
    assert_eq!((counts.read, counts.loaded), (file.number("lines"), 0));
    assert_eq!(database.rows(web), before);
}

#[test]
fn a_replay_that_was_killed_goes_on_where_it_stopped() {
    let database = cluster::shared().database();
    let file = crate::big_file();
    let topic = topic_of(&file.path, "2");
    let position = || database.number("SELECT coalesce(sum(next_offset), 0) FROM loader.offsets");
    let process = replay(&database, &topic, &["--batch-rows", "2000"]).start();
    wait_until("the replay to get on", PATIENCE, || position() >= 40_000);
    process.kill_9();
    database.settle();
    let done = position();
    assert!(done < file.number("lines") as i64, "nothing was left");
    let process = replay(&database, &topic, &["--batch-rows", "2000"]).start();
    wait_until("the replay to get on", PATIENCE, || position() > done + 20_000);
    process.signal("TERM");
    let stopped = process.wait().ok();
    let now = position();
    assert_eq!(stopped.counts().read as i64, now - done);
    let counts = replay(&database, &topic, &["--batch-rows", "50000"]).run().ok().counts();
    assert_eq!(counts.read as i64, file.number("lines") as i64 - now);
    assert_exact(&database, &file.path);
}

#[test]
fn a_stretch_is_given_by_offsets_or_times() {
    let database = cluster::shared().database();
    let minute = |n: u64| format!("2026-09-01T10:{n:02}:00Z");
    let content: Vec<String> = (0..10).map(|n| line_received(n, "u", &minute(n), &minute(n))).collect();
    let topic = topic_of(&events::file(content.join("\n").as_bytes()), "1");
    let ids = || database.column("SELECT event_id FROM bronze.events ORDER BY 1");
    let times = ["--from-time", "2026-09-01T10:02:00Z", "--to-time", "2026-09-01T10:04:00Z"];
    assert_eq!(replay(&database, &topic, &times).run().ok().counts().loaded, 2);
    assert_eq!(ids(), [id(2), id(3)]);
    let offsets = ["--from-offset", "3", "--to-offset", "6"];
    let counts = replay(&database, &topic, &offsets).run().ok().counts();
    assert_eq!((counts.read, counts.loaded, counts.duplicate), (3, 2, 1));
    assert_eq!(ids(), [id(2), id(3), id(4), id(5)]);
    assert_eq!(replay(&database, &topic, &["--from-offset", "9"]).run().ok().counts().loaded, 1);
    assert_eq!(
        replay(&database, &topic, &["--to-time", "2026-09-01T10:01:00Z"]).run().ok().counts().loaded,
        1
    );
    assert_eq!(ids(), [id(0), id(2), id(3), id(4), id(5), id(9)]);
    assert_eq!(replay(&database, &topic, &["--from-time", "2h", "--from-offset", "1"]).run().code, Some(64));

    let wide = topic_of(&events::file(content.join("\n").as_bytes()), "2");
    assert!(replay(&database, &wide, &offsets).run().refused(64).contains("--partition"));
}

#[test]
fn runs_that_end_pass_over_what_no_reader_sees() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    let event = |n| line_received(n, "u", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z");
    let received = 1_788_256_801_000;
    // Nothing but an aborted transaction, then events, then another one at the end.
    let topic = topic_of(&events::file(b""), "1");
    let gone = event(99);
    broker.transaction(&topic, &[gone.as_bytes(), gone.as_bytes()], received, false);
    assert_eq!(catch_up(&database, &topic, &[]).read, 0);
    broker.transaction(&topic, &[event(1).as_bytes(), event(2).as_bytes()], received, true);
    broker.transaction(&topic, &[gone.as_bytes()], received, false);
    assert_eq!(catch_up(&database, &topic, &[]).loaded, 2);
    assert_eq!(replay(&database, &topic, &[]).run().ok().counts().duplicate, 2);
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2)]);
    let ends = "SELECT count(DISTINCT next_offset), min(next_offset) FROM loader.offsets";
    assert_eq!(database.rows(ends), [["1".to_owned(), broker.records(&topic).to_string()]]);
}

#[test]
fn a_compacted_topic_is_read_to_its_end_over_its_holes() {
    let database = cluster::shared().database();
    let broker = broker::shared();
    let topic = broker.compacted_topic();
    let received = 1_788_256_801_000;
    let event = |n| line_received(n, "u", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z");
    // A segment is closed once the times of its records span 100 ms, and only closed ones are compacted.
    let mut at = received;
    let mut append = |key: &[u8], value: Option<&[u8]>| {
        at += 1000;
        broker.append(&topic, Some(key), value, at);
    };
    append(b"a", Some(event(1).as_bytes()));
    for _ in 0..3 {
        append(b"b", Some(event(2).as_bytes()));
        append(b"b", None);
    }
    append(b"c", Some(event(3).as_bytes()));
    // The second may be gone already.
    let loaded = catch_up(&database, &topic, &["--batch-rows", "2"]).loaded;
    let found = database.column("SELECT event_id FROM bronze.events ORDER BY 1");
    assert!(found == [id(1), id(2), id(3)] || found == [id(1), id(3)], "{found:?}");
    assert_eq!(loaded as usize, found.len());
    // Once the broker has cleaned up, another pipeline reads what is left, over the holes and to the same end.
    wait_until("the broker to compact the topic", PATIENCE, || {
        append(b"c", None);
        std::thread::sleep(std::time::Duration::from_secs(5));
        let fresh = cluster::shared().database();
        let counts = catch_up(&fresh, &topic, &[]);
        let end = broker.records(&topic);
        assert_eq!(fresh.number("SELECT next_offset FROM loader.offsets"), end);
        assert!(fresh.column("SELECT event_id FROM bronze.events").contains(&id(1)));
        counts.read < end as u64 - 2
    });
}

#[test]
fn replay_needs_the_rights_of_the_table() {
    let database = cluster::shared().database();
    let topic = topic_of(
        &events::file(
            format!("{}\n", line_received(1, "u", "2026-09-01T10:00:00Z", "2026-09-01T10:00:01Z")).as_bytes(),
        ),
        "1",
    );
    let arguments = ["replay", "--topic", &topic, "--brokers", &broker::shared().address];
    tidemark(&arguments).database(&database.reader_url()).run().refused(77);
    let counts = tidemark(&arguments).database(&database.loader_url()).run().ok().counts();
    assert_eq!(counts.loaded, 1);
    let create = [&arguments[..], &["--into", "bronze.other", "--create"]].concat();
    tidemark(&create).database(&database.loader_url()).run().refused(77);
    assert_books(&database);
}
