//! Work is bounded by dates: broken clocks take neither the locks of the server nor the time of the stream beside them, and
//! a batch that is too much for Postgres is written in parts.

use std::collections::BTreeSet;

use tidemark_tests::broker::{self, Record};
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, id, line, line_received};
use tidemark_tests::oracle::assert_first_pass;
use tidemark_tests::process::tidemark;
use tidemark_tests::run::{PATIENCE, Run, wait_for};
use tidemark_tests::wait_until;

/// So many days before today, by the server.
fn day(database: &Database<'_>, ago: i64) -> String {
    database.value(&format!("SELECT ((now() AT TIME ZONE 'UTC')::date - {ago})::text"))
}

/// An event of so many days ago, with that as its number, received now.
fn lines(database: &Database<'_>, ago: impl IntoIterator<Item = i64>) -> Vec<String> {
    let now = database.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    let ago: Vec<i64> = ago.into_iter().collect();
    let list: Vec<String> = ago.iter().map(i64::to_string).collect();
    let sql = format!(
        "SELECT ((now() AT TIME ZONE 'UTC')::date - n)::text FROM unnest(ARRAY[{}]) WITH ORDINALITY AS v(n, i)
          ORDER BY i",
        list.join(", ")
    );
    let days = database.column(&sql);
    ago.iter()
        .zip(days)
        .map(|(n, day)| line_received(*n as u64, "u", &format!("{day}T00:00:01Z"), &now))
        .collect()
}

fn topic_with(lines: &[String]) -> String {
    let topic = broker::shared().topic();
    broker::shared().create_topic(&topic, 1, &[]);
    append(&topic, lines);
    topic
}

fn append(topic: &str, lines: &[String]) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let unix_millis = now.as_millis() as i64;
    let records: Vec<Record<'_>> = lines
        .iter()
        .map(|line| Record { value: Some(line.as_bytes()), unix_millis, ..Record::default() })
        .collect();
    broker::shared().append_all(topic, &records);
}

fn ids(numbers: impl IntoIterator<Item = i64>) -> BTreeSet<String> {
    numbers.into_iter().map(|n| id(n as u64)).collect()
}

fn loaded(database: &Database<'_>) -> BTreeSet<String> {
    let found = database.column("SELECT event_id FROM bronze.events");
    let unique: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(unique.len(), found.len(), "an event twice");
    unique
}

fn dead(database: &Database<'_>, reason: &str) -> BTreeSet<String> {
    let sql = "SELECT event_id FROM loader.dead_letters WHERE status = 'open' AND reason = ";
    database.column(&format!("{sql}'{reason}'")).into_iter().collect()
}

#[test]
fn one_event_a_day_since_1970_is_loaded_as_far_as_a_stream_may_reach_and_the_rest_can_be_replayed() {
    let database = cluster::shared().database();
    let since_1970 = database.number("SELECT (now() AT TIME ZONE 'UTC')::date - date '1970-01-01'");
    // The oldest first, as whoever reads a device's memory sends them.
    let topic = topic_with(&lines(&database, (0..=since_1970).rev()));
    let run = Run::new(&database, &topic).batch_rows(20_000);
    let counts = run.catch_up();
    // Those of today and yesterday are never too many, and 100 others begin: which ones is up to the bounds of batches.
    assert_eq!((counts.read as i64, counts.loaded, counts.duplicate), (since_1970 + 1, 102, 0));
    assert_eq!(dead(&database, "event_time_too_old"), ids(401..=since_1970));
    let (new, refused) = (loaded(&database), dead(&database, "too_many_new_dates"));
    assert!(new.len() == 102 && new.is_superset(&ids(0..2)) && new.is_disjoint(&refused), "{new:?}");
    assert_eq!(new.union(&refused).cloned().collect::<BTreeSet<_>>(), ids(0..=400));
    assert_first_pass(&database);

    // What is replayed has neither bound.
    let replay = |more: &[&str]| {
        let arguments = [&["dead-letters", "replay"], more].concat();
        tidemark(&arguments).database(&database.admin_url()).run().ok().stdout
    };
    let said = replay(&["--reason", "too_many_new_dates"]);
    assert!(said.contains("  299 loaded\n"), "{said}");
    let said = replay(&["--reason", "event_time_too_old", "--event-date", &day(&database, 500)]);
    assert!(said.contains("  1 loaded\n"), "{said}");
    assert_eq!(loaded(&database), ids((0..=400).chain([500])));
    assert_books(&database);
}

#[test]
fn a_stream_takes_nothing_from_before_retention_or_before_a_floor_that_is_set() {
    for (floor, bounds, oldest) in [(None, "retention_days => 30", 30), (Some(500), "premake_days => 4", 500)]
    {
        let database = cluster::shared().database();
        let manage =
            format!("SELECT tidemark.manage_partitions(parent => 'bronze.events'::regclass, {bounds})");
        database.connect().batch_execute(&manage).unwrap();
        let ago = [0, 29, 30, 31, 400, 401, 499, 500, 501];
        let topic = topic_with(&lines(&database, ago));
        let mut run = Run::new(&database, &topic);
        if let Some(floor) = floor {
            run = run.setting("record.event_time_floor", &day(&database, floor));
        }
        run.catch_up();
        let (kept, old): (Vec<i64>, Vec<i64>) = ago.iter().partition(|ago| **ago <= oldest);
        assert_eq!(loaded(&database), ids(kept), "{bounds}");
        assert_eq!(dead(&database, "event_time_too_old"), ids(old), "{bounds}");
        assert_first_pass(&database);
    }
}

#[test]
fn a_file_of_many_dates_is_loaded_in_batches_of_few() {
    let database = cluster::shared().database();
    // In no order, each date twice, one line in a hundred malformed: 800 dates, 1,616 lines.
    let mut all = lines(&database, (0..1_600).map(|n| n * 7_919 % 800));
    for (n, line) in all.iter_mut().enumerate() {
        *line = line.replace("-8000-", &format!("-8{:03x}-", n / 800));
    }
    for n in 0..16 {
        all.insert(n * 101, format!("no event {n}"));
    }
    let file = events::file(all.join("\n").as_bytes());
    let load = ["load", file.to_str().unwrap()];
    let counts = tidemark(&load).database(&database.admin_url()).run().ok().counts();
    assert_eq!((counts.read, counts.loaded, counts.dead), (1_616, 1_600, 16));
    assert_eq!(database.number("SELECT count(DISTINCT event_date) FROM bronze.events"), 800);
    assert_eq!(loaded(&database).len(), 1_600);
    let most = "SELECT max(n) FROM (SELECT count(DISTINCT event_date) AS n FROM bronze.events GROUP BY batch_id) AS b";
    assert_eq!(database.number(most), 366);
    assert_first_pass(&database);
}

#[test]
fn a_batch_with_no_room_among_the_locks_or_no_time_is_written_in_parts() {
    let cluster = cluster::Cluster::start("few-locks");
    let databases = [("locks", "53200"), ("time", "57014")].map(|kind| (kind, cluster.database()));
    // As little room as a server can have: for some hundreds. To migrate takes more.
    let mut client = databases[0].1.connect();
    for setting in [
        "max_locks_per_transaction = 10",
        "max_connections = 20",
        "max_wal_senders = 0",
        "max_worker_processes = 0",
        "autovacuum = off",
    ] {
        client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
    cluster.stop();
    cluster.start_again();
    for ((what, code), database) in databases {
        let topic = topic_with(&[line(0, "u", "2026-11-01T00:00:00Z")]);
        // All that is appended below comes as one batch, however slowly.
        let run = Run::new(&database, &topic).batch_rows(20_000).setting("batch.max_delay", "5s");
        let mut process = run.start();
        wait_for(&database, &mut process, 1);
        let mut ago: Vec<i64> = (1..=360).collect();
        if what == "time" {
            // More rows at once than a statement has time for.
            ago.truncate(64);
            let slow = "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                            IF (SELECT count(*) FROM written) > 32 THEN PERFORM pg_sleep(600); END IF;
                            RETURN NULL; END$$;
                        CREATE TRIGGER slow AFTER INSERT ON bronze.events REFERENCING NEW TABLE AS written
                            FOR EACH STATEMENT EXECUTE FUNCTION public.slow()";
            database.connect().batch_execute(slow).unwrap();
        }
        let dates = "SELECT tidemark.ensure_partitions('bronze.events', ARRAY(
                         SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(%1, %2) AS n))";
        for from in (1..=360).step_by(10) {
            let make = dates.replace("%1", &from.to_string()).replace("%2", &(from + 9).to_string());
            database.connect().batch_execute(&make).unwrap();
        }
        // Where there is no room among the locks, there is none for a new session either.
        let mut watch = database.connect();
        append(&topic, &lines(&database, ago.iter().copied()));
        wait_until("the batch in parts", PATIENCE, || {
            assert!(process.is_running(), "the loader ended: {}", process.errors());
            let position = watch.query_one("SELECT sum(next_offset)::bigint FROM loader.offsets", &[]);
            position.is_ok_and(|row| row.get::<_, i64>(0) > ago.len() as i64)
        });
        process.signal("TERM");
        let ended = process.wait().ok();
        assert!(ended.stderr.contains(&format!("SQLSTATE {code}")), "{what}: {}", ended.stderr);
        // To look at all partitions at once takes more room again.
        database.connect().batch_execute("ALTER SYSTEM RESET ALL").unwrap();
        cluster.stop();
        cluster.start_again();
        assert_eq!(loaded(&database), ids([0].into_iter().chain(ago)), "{what}");
        assert!(database.number("SELECT count(*) FROM loader.batches") > 2, "{what}");
        assert_first_pass(&database);
    }
}

#[test]
fn a_stream_keeps_its_rate_beside_one_event_a_day_since_1970() {
    let mut seconds = Vec::new();
    for clocks in [false, true] {
        let database = cluster::shared().database();
        let since_1970 = database.number("SELECT (now() AT TIME ZONE 'UTC')::date - date '1970-01-01'");
        let yesterday = day(&database, 1);
        let normal =
            |n: u64| line(1_000_000 + n, &format!("user-{}", n % 997), &format!("{yesterday}T10:00:00Z"));
        let mut old = lines(&database, (2..=since_1970).rev()).into_iter().filter(|_| clocks);
        let mut all = Vec::new();
        for n in 0..150_000 {
            all.push(normal(n));
            if n % 6 == 0 {
                all.extend(old.next());
            }
        }
        let topic = topic_with(&all);
        let counts = Run::new(&database, &topic).batch_rows(5_000).catch_up();
        assert_eq!(counts.loaded, if clocks { 150_100 } else { 150_000 });
        assert_eq!(counts.read, all.len() as u64);
        let took =
            "SELECT extract(epoch FROM max(updated_at) - (SELECT min(committed_at) FROM loader.batches))
                      FROM loader.offsets";
        seconds.push(database.value(took).parse::<f64>().unwrap());
        assert_first_pass(&database);
    }
    let ratio = seconds[0] / seconds[1];
    eprintln!(
        "150,000 events took {:.1} s, {:.1} s beside the clocks: {ratio:.2} of the rate",
        seconds[0], seconds[1]
    );
    assert!(ratio > 0.4, "{seconds:?}");
}
