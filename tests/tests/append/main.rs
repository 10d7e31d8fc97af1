//! Models that add what their source gained instead of computing a date anew: when they do, and when they must not.
//! A server of their own, because an open transaction elsewhere makes a refresh look back further.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod histories;
mod merge;
mod timeline;

use postgres::Client;
use tidemark_tests::cluster::{Cluster, Database, run, told};

/// A source with its marks by trigger, and a model of its rows whose key is the id; refreshed.
fn world(database: &Database<'_>) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE EXTENSION tidemark; CREATE SCHEMA w;
         CREATE TABLE w.events (id int, event_date date NOT NULL, name text);
         SELECT tidemark.track_changes('w.events');
         INSERT INTO w.events VALUES (1, '2026-01-01', 'a'), (2, '2026-01-01', 'junk'), (3, '2026-01-02', 'b')",
    );
    model(&mut client, "upper(name)", "name <> 'junk'");
    refreshed(&mut client);
    client
}

fn model(client: &mut Client, name: &str, filter: &str) {
    client
        .batch_execute(&format!(
            "SELECT tidemark.create_model('w.clean', '{{w.events}}', $query$
                 SELECT id, event_date, {name} AS name FROM w.events
                  WHERE event_date >= $1 AND event_date < $2 AND {filter}
             $query$, '{{event_date, id}}')"
        ))
        .unwrap();
}

/// Refreshes all there is and says, model by model and newest date first, how that went: rows inserted, updated,
/// deleted.
fn refreshed(client: &mut Client) -> String {
    client.batch_execute("CALL tidemark.refresh()").unwrap();
    told(
        client,
        "SELECT to_char(event_date, 'DD'), CASE way WHEN 'append' THEN 'appended' WHEN 'merge' THEN 'merged' ELSE 'computed' END,
                rows_inserted,
                rows_updated, rows_deleted
           FROM tidemark_internal.refresh_log
          WHERE run = (SELECT max(run) FROM tidemark_internal.refresh_log) ORDER BY id",
    )
}

fn clean(client: &mut Client) -> String {
    told(client, "SELECT to_char(event_date, 'DD'), id, name FROM w.clean ORDER BY event_date, id, name")
}

fn verified(client: &mut Client) -> String {
    told(client, "SELECT DISTINCT status FROM tidemark.verify_model('w.clean', '2026-01-01', '2026-01-05')")
}

/// The tests share a server, one after the other: no transaction of one may be open while another refreshes.
#[test]
fn additions() {
    let cluster = Cluster::start("append");
    for (name, test) in [
        ("rows_that_were_only_added_are_only_added", only_added as fn(&Database<'_>)),
        ("a_change_or_a_deletion_among_the_marks_means_a_recompute", changes),
        ("what_went_without_a_mark_is_found_by_counting", unmarked),
        ("what_commits_meanwhile_waits_for_its_turn_and_does_not_count", meanwhile),
        ("rows_that_are_not_behind_those_before_are_found", in_gaps),
        ("a_mark_that_counts_wrongly_means_a_recompute", counted_wrongly),
        ("a_change_that_is_said_to_be_an_addition_is_found_by_its_key", changed_in_place),
        ("a_large_date_is_counted_now_and_then", now_and_then),
        ("a_key_that_comes_twice_is_an_error_as_in_a_recompute", twice),
        ("models_that_read_an_appended_one_append_too", chain),
        ("rows_that_came_back_are_no_additions_to_those_above", came_back),
        ("a_new_definition_is_computed_whole", definition),
        ("a_change_of_columns_is_computed_whole", columns),
        ("without_a_log_or_with_one_of_another_cluster_nothing_is_missed", log),
        ("a_transaction_that_was_open_for_long_is_not_missed", open_for_long),
        ("what_cannot_be_appended_is_computed", computed_instead),
        ("groups_are_put_together", merge::groups),
        ("rows_that_were_seen_before_their_mark_count_once", merge::seen_before_their_mark),
        ("a_merge_finds_what_went_without_a_mark", merge::unmarked),
        ("what_is_more_than_additions_is_not_merged", merge::other_changes),
        ("a_recompute_goes_on_where_a_merge_cannot", merge::recompute_goes_on),
        ("a_timeline_gains_parts", timeline::parts),
        ("rows_of_open_transactions_are_new_to_a_timeline_when_they_commit", timeline::open_parts),
        ("what_is_marked_while_a_timeline_is_refreshed_is_stored_once", timeline::marks_in_between),
        ("a_timeline_of_a_model_gains_parts_of_what_that_gained", timeline::parts_of_model),
        ("reports_say_of_random_histories_what_aggregates_say", histories::histories),
        ("reports_answer_while_a_timeline_is_made_anew", timeline::remade),
        ("parts_that_kill_9_left_half_merged_are_whole", timeline::killed_parts),
        ("a_rebuild_that_kill_9_ends_has_done_nothing", timeline::killed_rebuild),
        ("a_property_that_kill_9_keeps_out_is_not_there", timeline::killed_property),
    ] {
        println!("{name}");
        test(&cluster.empty_database());
    }
}

fn only_added(database: &Database<'_>) {
    let c = &mut world(database);
    assert_eq!(clean(c), "01 1 A, 02 3 B");
    run(
        c,
        "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'), (5, '2026-01-01', 'junk'), (6, '2026-01-03', 'd')",
    );
    // The third date had no rows: there is nothing that could be left as it is.
    assert_eq!(refreshed(c), "03 computed 1 0 0, 01 appended 1 0 0");
    assert_eq!(clean(c), "01 1 A, 01 4 C, 02 3 B, 03 6 D");
    run(c, "INSERT INTO w.events VALUES (7, '2026-01-01', 'junk')");
    assert_eq!(refreshed(c), "01 appended 0 0 0");
    assert_eq!(verified(c), "ok");
}

fn changes(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'); UPDATE w.events SET name = 'z' WHERE id = 1");
    assert_eq!(refreshed(c), "01 computed 1 1 0");
    run(c, "INSERT INTO w.events VALUES (5, '2026-01-01', 'e'); DELETE FROM w.events WHERE id = 4");
    assert_eq!(refreshed(c), "01 computed 1 0 1");
    run(
        c,
        "INSERT INTO w.events VALUES (6, '2026-01-01', 'f'); SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')",
    );
    assert_eq!(refreshed(c), "01 computed 1 0 0");
    // An UPDATE that moves a row to another date concerns both.
    run(
        c,
        "INSERT INTO w.events VALUES (8, '2026-01-02', 'g');
         UPDATE w.events SET event_date = '2026-01-01' WHERE id = 3",
    );
    assert_eq!(refreshed(c), "02 computed 1 0 1, 01 computed 1 0 0");
    assert_eq!(clean(c), "01 1 Z, 01 3 B, 01 5 E, 01 6 F, 02 8 G");
    assert_eq!(verified(c), "ok");
}

fn unmarked(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "ALTER TABLE w.events DISABLE TRIGGER USER; DELETE FROM w.events WHERE id = 1;
         ALTER TABLE w.events ENABLE TRIGGER USER",
    );
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'), (9, '2026-01-01', 'd')");
    assert_eq!(refreshed(c), "01 computed 2 0 1");
    assert_eq!(verified(c), "ok");
}

/// As under a stream of loads, where some batch always commits between the marks that are taken and the rows that are
/// counted.
fn meanwhile(database: &Database<'_>) {
    let c = &mut world(database);
    let last = "SELECT way, rows_inserted FROM tidemark_internal.refresh_log ORDER BY id DESC LIMIT 1";
    for (id, lost, how) in [
        (10, "", "append 1"),
        (20, "", "append 1"),
        (30, "DELETE FROM w.events WHERE id = 1;", "recompute 2"),
    ] {
        run(c, &format!("INSERT INTO w.events VALUES ({id}, '2026-01-01', 'c')"));
        run(c, "SELECT tidemark_internal.distribute_dirty()");
        run(
            c,
            &format!(
                "INSERT INTO w.events VALUES ({}, '2026-01-01', 'd'), ({}, '2026-01-01', 'junk')",
                id + 1,
                id + 2
            ),
        );
        if !lost.is_empty() {
            run(
                c,
                &format!(
                    "ALTER TABLE w.events DISABLE TRIGGER USER; {lost} ALTER TABLE w.events ENABLE TRIGGER USER"
                ),
            );
        }
        run(c, "SELECT tidemark_internal.refresh_step(10, NULL, '{}')");
        assert_eq!(told(c, last), how);
        refreshed(c);
        assert_eq!(verified(c), "ok");
    }
}

fn in_gaps(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "INSERT INTO w.events SELECT n, '2026-01-02', repeat('x', 100) FROM generate_series(1000, 3000) AS n;
         INSERT INTO w.events VALUES (4, '2026-01-01', 'c')",
    );
    assert_eq!(refreshed(c), "02 appended 2001 0 0, 01 appended 1 0 0");
    run(c, "DELETE FROM w.events WHERE id BETWEEN 1000 AND 3000; CALL tidemark.refresh(); VACUUM w.events");
    run(c, "INSERT INTO w.events VALUES (5, '2026-01-01', 'd')");
    let before = "SELECT (SELECT ctid FROM w.events WHERE id = 5) < (SELECT ctid FROM w.events WHERE id = 4)";
    assert_eq!(told(c, before), "t", "in the place of one that went");
    assert_eq!(refreshed(c), "01 appended 1 0 0");
    // Added and marked in a part of a transaction; and marked by the whole of it, in which these rows are not.
    run(c, "BEGIN; SAVEPOINT s; INSERT INTO w.events VALUES (6, '2026-01-01', 'e'); COMMIT");
    assert_eq!(refreshed(c), "01 appended 1 0 0");
    run(c, "ALTER TABLE w.events DISABLE TRIGGER USER");
    let loaded = "SELECT tidemark.mark_loaded('w.events', '{2026-01-01}', '{1}', '{0}', '{now}', '{now}')";
    run(
        c,
        &format!(
            "BEGIN; SAVEPOINT s; INSERT INTO w.events VALUES (7, '2026-01-01', 'f'); RELEASE s; {loaded}; COMMIT"
        ),
    );
    assert_eq!(refreshed(c), "01 computed 1 0 0");
    assert_eq!(verified(c), "ok");
}

fn counted_wrongly(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "ALTER TABLE w.events DISABLE TRIGGER USER");
    for (id, rows, how) in
        [(4, "1", "appended"), (5, "2", "computed"), (6, "0", "computed"), (7, "NULL", "appended")]
    {
        run(
            c,
            &format!(
                "BEGIN; INSERT INTO w.events VALUES ({id}, '2026-01-01', 'c');
                 SELECT tidemark.mark_loaded('w.events', '{{2026-01-01}}', '{{{rows}}}', '{{0}}', '{{now}}', '{{now}}');
                 COMMIT"
            ),
        );
        assert_eq!(refreshed(c), format!("01 {how} 1 0 0"), "{rows}");
        assert_eq!(verified(c), "ok", "{rows}");
    }
}

fn changed_in_place(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "ALTER TABLE w.events DISABLE TRIGGER USER");
    run(
        c,
        "BEGIN; UPDATE w.events SET name = 'z' WHERE id = 1;
         SELECT tidemark.mark_loaded('w.events', '{2026-01-01}', '{1}', '{0}', '{now}', '{now}'); COMMIT",
    );
    assert_eq!(refreshed(c), "01 computed 0 1 0");
    assert_eq!(verified(c), "ok");
}

fn now_and_then(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'); CALL tidemark.refresh()");
    // As if counting had taken a minute, a moment ago.
    run(c, "UPDATE tidemark_internal.model_dates SET count_seconds = 60");
    let unmarked = "ALTER TABLE w.events DISABLE TRIGGER USER; DELETE FROM w.events WHERE id = 1;
                    ALTER TABLE w.events ENABLE TRIGGER USER";
    run(c, unmarked);
    run(c, "INSERT INTO w.events VALUES (5, '2026-01-01', 'd')");
    assert_eq!(refreshed(c), "01 appended 1 0 0");
    assert_eq!(verified(c), "different, ok", "found by who compares");
    run(c, "UPDATE tidemark_internal.model_dates SET counted_at = counted_at - interval '101 minutes'");
    run(c, "INSERT INTO w.events VALUES (6, '2026-01-01', 'e')");
    assert_eq!(refreshed(c), "01 computed 1 0 1", "and by the next count");
    assert_eq!(verified(c), "ok");
}

fn twice(database: &Database<'_>) {
    let c = &mut world(database);
    for twice in [
        "(1, '2026-01-01', 'again')",
        "(10, '2026-01-01', 'x'), (10, '2026-01-01', 'y')",
        "(NULL, '2026-01-01', 'n')",
    ] {
        run(c, &format!("INSERT INTO w.events VALUES {twice}"));
        assert!(c.batch_execute("CALL tidemark.refresh()").is_err(), "{twice}");
        let error = told(c, "SELECT last_error FROM tidemark.model_status");
        assert!(
            ["key that is NULL or not unique", "null value in column", "duplicate key value"]
                .iter()
                .any(|e| error.contains(e)),
            "{twice}: {error}"
        );
        assert_eq!(clean(c), "01 1 A, 02 3 B", "{twice}");
        run(c, "DELETE FROM w.events WHERE name IN ('again', 'x', 'y', 'n')");
        assert_eq!(refreshed(c), "01 computed 0 0 0", "the date stayed dirty");
    }
}

/// Two models above: one that appends and one that counts.
fn above(c: &mut Client) {
    run(
        c,
        "SELECT tidemark.create_model('w.above', '{w.clean}',
             'SELECT event_date, id, name FROM w.clean WHERE event_date >= $1 AND event_date < $2', '{id}');
         SELECT tidemark.create_model('w.counts', '{w.clean}',
             'SELECT event_date, count(*) AS n FROM w.clean WHERE event_date >= $1 AND event_date < $2 GROUP BY 1',
             '{event_date}')",
    );
    refreshed(c);
}

fn chain(database: &Database<'_>) {
    let c = &mut world(database);
    above(c);
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c')");
    assert_eq!(refreshed(c), "01 appended 1 0 0, 01 appended 1 0 0, 01 merged 0 1 0");
    run(c, "UPDATE w.events SET name = 'y' WHERE id = 4");
    assert_eq!(refreshed(c), "01 computed 0 1 0, 01 computed 0 1 0, 01 computed 0 0 0");
}

fn came_back(database: &Database<'_>) {
    let c = &mut world(database);
    above(c);
    // Whoever deletes from a model's table, and the change of a row that was there.
    run(c, "DELETE FROM w.clean; UPDATE w.events SET name = 'q' WHERE id = 1");
    assert_eq!(refreshed(c), "01 computed 1 0 0, 01 computed 0 1 0, 01 computed 0 0 0");
    assert_eq!(told(c, "SELECT id, name FROM w.above ORDER BY 1"), "1 Q, 3 B");
}

fn definition(database: &Database<'_>) {
    let c = &mut world(database);
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c')");
    model(c, "lower(name)", "true");
    assert_eq!(refreshed(c), "02 computed 0 1 0, 01 computed 2 1 0");
    assert_eq!(clean(c), "01 1 a, 01 2 junk, 01 4 c, 02 3 b");
}

fn columns(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "ALTER TABLE w.events ALTER COLUMN name TYPE text USING name || '!';
         INSERT INTO w.events VALUES (4, '2026-01-01', 'c')",
    );
    assert_eq!(refreshed(c), "01 computed 2 1 0", "no longer junk, and with a mark");
    assert_eq!(clean(c), "01 1 A!, 01 2 JUNK!, 01 4 C, 02 3 B");
    run(
        c,
        "ALTER TABLE w.clean ALTER COLUMN name TYPE text USING 'x'; INSERT INTO w.events VALUES (5, '2026-01-01', 'd')",
    );
    assert_eq!(refreshed(c), "01 computed 1 3 0");
    run(c, "ANALYZE w.events; VACUUM w.events; INSERT INTO w.events VALUES (6, '2026-01-01', 'e')");
    assert_eq!(refreshed(c), "01 appended 1 0 0");
    assert_eq!(clean(c), "01 1 A!, 01 2 JUNK!, 01 4 C, 01 5 D, 01 6 E, 02 3 x");
}

fn log(database: &Database<'_>) {
    let c = &mut world(database);
    for (log, how) in [
        ("DELETE FROM tidemark_internal.model_dates", "computed"),
        ("UPDATE tidemark_internal.model_dates SET cluster = 1", "computed"),
        // All rows look old: found by counting.
        ("UPDATE tidemark_internal.model_dates SET horizon = '1000000000'", "computed"),
        // All rows look new, and so does the definition of the tables.
        ("UPDATE tidemark_internal.model_dates SET horizon = '3'", "computed"),
        ("SELECT", "appended"),
    ] {
        run(
            c,
            &format!("{log}; INSERT INTO w.events SELECT max(id) + 1, '2026-01-01', 'more' FROM w.events"),
        );
        assert_eq!(refreshed(c), format!("01 {how} 1 0 0"), "{log}");
        assert_eq!(verified(c), "ok", "{log}");
    }
}

fn open_for_long(database: &Database<'_>) {
    let c = &mut world(database);
    let other = &mut database.connect();
    run(
        other,
        "BEGIN; INSERT INTO w.events VALUES (4, '2026-01-01', 'old'); SAVEPOINT s;
         INSERT INTO w.events VALUES (5, '2026-01-01', 'old')",
    );
    for id in 10..13 {
        run(c, &format!("INSERT INTO w.events VALUES ({id}, '2026-01-01', 'new')"));
        assert_eq!(refreshed(c), "01 appended 1 0 0");
    }
    run(other, "RELEASE s; COMMIT");
    assert_eq!(refreshed(c), "01 appended 2 0 0");
    assert_eq!(verified(c), "ok");
}

/// What a refresh could do before it knew how to append, it still can.
fn computed_instead(database: &Database<'_>) {
    let c = &mut world(database);
    run(
        c,
        "CREATE ROLE plain; GRANT USAGE, CREATE ON SCHEMA w TO plain; GRANT SELECT ON w.events TO plain;
         ALTER TABLE w.clean OWNER TO plain; CALL tidemark.refresh()",
    );
    run(c, "INSERT INTO w.events VALUES (4, '2026-01-01', 'c'); CALL tidemark.refresh()");
    let mut add = |setting: &str, id: i32| {
        run(c, &format!("{setting}; INSERT INTO w.events VALUES ({id}, '2026-01-01', 'x')"));
        refreshed(c)
    };
    assert_eq!(add("SELECT", 5), "01 appended 1 0 0");
    assert_eq!(add("SET row_security = off", 6), "01 appended 1 0 0");
    assert_eq!(add("RESET row_security", 7), "01 appended 1 0 0");
    assert_eq!(add("REVOKE USAGE ON SCHEMA tidemark FROM PUBLIC", 8), "01 appended 1 0 0");
    assert_eq!(add("GRANT USAGE ON SCHEMA tidemark TO PUBLIC", 9), "01 appended 1 0 0");
    assert_eq!(
        add(
            "REVOKE SELECT ON w.events FROM plain; GRANT SELECT (id, event_date, name) ON w.events TO plain",
            10
        ),
        "01 computed 1 0 0"
    );
    assert_eq!(verified(c), "ok");
    // Written as no table is that could be replaced.
    run(
        c,
        "SELECT tidemark.create_model('w.whole', '{w.events}',
                                      'SELECT * FROM (TABLE w.events) AS x WHERE event_date >= $1 AND event_date < $2',
                                      '{id}');
         SELECT tidemark.create_model('w.odd', '{w.events}',
             'SELECT w.events.id, w.events.event_date, (SELECT w.events.name FROM (VALUES (7)) AS events(name)) AS name
                FROM w.events WHERE event_date >= $1 AND event_date < $2', '{id}');
         CALL tidemark.refresh(); INSERT INTO w.events VALUES (20, '2026-01-01', 'y'); CALL tidemark.refresh()",
    );
    for model in ["whole", "odd"] {
        assert_eq!(
            told(c, &format!("SELECT name FROM w.{model} WHERE id IN (5, 20) ORDER BY id")),
            "x, y",
            "{model}"
        );
        let wrong = format!(
            "SELECT count(*) FROM tidemark.verify_model('w.{model}', '2026-01-01', '2026-01-03') WHERE status <> 'ok'"
        );
        assert_eq!(told(c, &wrong), "0", "{model}");
    }
}
