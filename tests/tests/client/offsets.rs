//! `tidemark offsets`: positions are shown as they are and moved by hand without a loss that nobody is told about.

use serde_json::Value;
use tidemark_tests::broker;
use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated, id, line_received};
use tidemark_tests::process::{Finished, tidemark};
use tidemark_tests::wait_until;

use crate::kafka::{PATIENCE, append, catch_up, start, topic_of};

fn offsets(database: &Database<'_>, arguments: &[&str]) -> Finished {
    let mut all = vec!["offsets"];
    all.extend(arguments);
    all.extend(["--brokers", &broker::shared().address]);
    tidemark(&all).database(&database.admin_url()).run()
}

fn shown(database: &Database<'_>, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["show", "--output", "json"];
    arguments.extend(more);
    let text = offsets(database, &arguments).ok().stdout;
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn sum(rows: &[Value], name: &str) -> i64 {
    rows.iter().map(|row| row[name].as_i64().unwrap()).sum()
}

#[test]
fn row_27_a_position_is_not_moved_while_its_loader_lives() {
    let database = cluster::shared().database();
    let file = Generated::new("--events 5000 --days 2 --users 80 --seed 61 --malformed 0.01");
    let topic = topic_of(&file.path, "2");
    let lines = file.number("lines") as i64;
    let run = start(&database, &topic, &[]);
    let position = "SELECT coalesce(sum(next_offset), 0) FROM loader.offsets";
    wait_until("everything to be loaded", PATIENCE, || database.number(position) == lines);
    assert!(shown(&database, &[]).iter().all(|row| row["owner_alive"] == true));

    let set = ["set", "--topic", &topic, "--earliest", "--yes"];
    assert!(offsets(&database, &set).refused(75).contains("is running"));
    assert_eq!(database.number(position), lines);
    run.signal("TERM");
    run.wait().ok();
    database.settle();

    let rows = shown(&database, &["--topic", &topic, "--pipeline", "web"]);
    assert!(rows.iter().all(|row| row["owner_alive"] == false && row["topic"] == topic.as_str()));
    assert_eq!(
        (sum(&rows, "next_offset"), sum(&rows, "end_offset"), sum(&rows, "lag_records")),
        (lines, lines, 0)
    );

    // Without a terminal it must be said that it is meant.
    let asked = offsets(&database, &set[..set.len() - 1]);
    assert_eq!(asked.code, Some(64));
    assert!(asked.stderr.contains("--yes") && asked.stdout.contains("are read again"), "{}", asked.stdout);
    assert_eq!(database.number(position), lines);

    let before =
        database.rows("SELECT partition, epoch + 1, run + 1, next_offset FROM loader.offsets ORDER BY 1");
    offsets(&database, &set).ok();
    assert_eq!(sum(&shown(&database, &[]), "lag_records"), lines);
    let after = database.rows("SELECT partition, epoch, run, next_offset FROM loader.offsets ORDER BY 1");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before[..3], after[3].as_str()), (&after[..3], "0"));
    }
    let gaps = "SELECT partition, run + 1, expected, resumed_at, cause FROM loader.offset_gaps
                  JOIN (SELECT 1 AS run) AS r ON true ORDER BY 1";
    let gaps = database.rows(gaps);
    for (gap, before) in gaps.iter().zip(&before) {
        assert_eq!(
            (&gap[0], gap[2].as_str(), gap[3].as_str(), gap[4].as_str()),
            (&before[0], before[3].as_str(), "0", "manual")
        );
    }
    assert_eq!(gaps.len(), before.len());

    // Everything is read again and nothing is doubled.
    let counts = catch_up(&database, &topic, &[]);
    assert_eq!((counts.read as i64, counts.loaded), (lines, 0));
    assert_eq!(database.number("SELECT count(*) FROM bronze.events") as u64, file.number("events"));
    let nothing = offsets(&database, &["set", "--topic", &topic, "--latest", "--yes"]).ok();
    assert!(nothing.stdout.contains("nothing to do"), "{}", nothing.stdout);
}

#[test]
fn positions_move_to_offsets_and_times() {
    let database = cluster::shared().database();
    let minute = |n: u64| format!("2026-09-01T10:{n:02}:00Z");
    let content: Vec<String> = (0..10).map(|n| line_received(n, "u", &minute(n), &minute(n))).collect();
    let topic = topic_of(&events::file(content.join("\n").as_bytes()), "1");
    assert_eq!(catch_up(&database, &topic, &[]).loaded, 10);
    let position = || database.number("SELECT next_offset FROM loader.offsets");
    let set = |to: &[&str]| {
        let arguments = [&["set", "--topic", &topic, "--yes"], to].concat();
        offsets(&database, &arguments)
    };
    for (to, expected) in [
        (&["--to-time", "2026-09-01T10:03:00Z"][..], 3),
        (&["--to-time", "2026-09-01T10:03:00.000001Z"], 4),
        (&["--to-time", "2026-09-02"], 10),
        (&["--to-time", "2026-08-01"], 0),
        (&["--partition", "0", "--to-offset", "7"], 7),
        (&["--latest"], 10),
        (&["--earliest"], 0),
        (&["--partition", "0", "--to-offset", "8"], 8),
    ] {
        set(to).ok();
        assert_eq!(position(), expected, "{to:?}");
    }
    for (to, why) in [
        (&["--partition", "0", "--to-offset", "11"][..], "0 to 10"),
        (&["--partition", "1", "--latest"], "no partition 1"),
        (&["--pipeline", "other", "--latest"], "no pipeline"),
    ] {
        assert!(set(to).refused(64).contains(why), "{to:?}");
    }
    assert_eq!(set(&[]).code, Some(64));
    assert_eq!(set(&["--earliest", "--latest"]).code, Some(64));
    assert_eq!(set(&["--to-offset", "3"]).code, Some(64));
    assert_eq!(position(), 8);

    // What lies between is skipped and told, what comes is loaded.
    database.connect().batch_execute("DELETE FROM bronze.events").unwrap();
    append(
        &events::file(format!("{}\n", line_received(20, "u", &minute(20), &minute(20))).as_bytes()),
        &topic,
        "1",
    );
    assert_eq!(catch_up(&database, &topic, &[]).loaded, 3);
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(8), id(9), id(20)]);
    let sql =
        "SELECT expected, resumed_at, cause, acknowledged_by FROM loader.offset_gaps ORDER BY gap_id LIMIT 1";
    assert_eq!(database.rows(sql), [["10", "3", "manual", "e2e_admin"]]);
    // A reader of dashboards may not look at this.
    tidemark(&["offsets", "show"]).database(&database.reader_url()).run().refused(77);
}
