//! How rows get into the table when a plain COPY does not do: what the staged path leaves behind, and triggers that take
//! rows away without a word.

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, assert_books, id, line};
use tidemark_tests::process::{Finished, tidemark};
use tidemark_tests::run::{PATIENCE, Run, position, wait_for};
use tidemark_tests::wait_until;

use crate::kafka::{append, topic_of};

const TIME: &str = "2026-09-01T10:00:00Z";

/// Event 1 first; then more refused rows than a COPY is tried again for, and event 1 again: the staged path.
fn sorted_out(refused: u64, more: &[u64]) -> [std::path::PathBuf; 2] {
    let mut lines: Vec<String> = (0..refused).map(|n| line(1_000 + n, "bob", TIME)).collect();
    lines.push(line(1, "ada", TIME));
    lines.extend(more.iter().map(|n| line(*n, "eve", TIME)));
    [line(1, "ada", TIME), lines.join("\n")].map(|content| events::file(content.as_bytes()))
}

fn refuse_bob(database: &Database<'_>) {
    let sql = "ALTER TABLE bronze.events ADD CONSTRAINT no_bob CHECK (user_id <> 'bob') NOT VALID";
    database.connect().batch_execute(sql).unwrap();
}

#[test]
fn a_loader_that_has_used_its_staging_table_holds_no_transaction_age() {
    let cluster = cluster::Cluster::start("staging");
    let database = cluster.database();
    refuse_bob(&database);
    let [first, second] = sorted_out(10, &[2]);
    let topic = topic_of(&first, "1");
    let mut process = Run::new(&database, &topic).start();
    wait_for(&database, &mut process, 1);
    append(&second, &topic, "1");
    wait_for(&database, &mut process, 13);
    let staged = "SELECT count(*) FROM loader.batches WHERE write_path = 'staged'";
    assert!(database.number(staged) > 0);
    assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2)]);
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relpersistence = 't'"), 0);
    let mut client = database.connect();
    client.batch_execute("SET synchronous_commit = off").unwrap();
    client
        .batch_execute(
            "DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$",
        )
        .unwrap();
    // Whatever else runs in this cluster for a moment is over the next time.
    wait_until("the age to fall", PATIENCE, || {
        assert!(process.is_running(), "{}", process.errors());
        client.batch_execute("VACUUM (FREEZE)").unwrap();
        let age = "SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()";
        database.number(age) < 10_000
    });
    process.signal("TERM");
    process.wait().ok();
    assert_books(&database);
}

fn refused_target(finished: &Finished) -> bool {
    let lines = finished.stdout.lines();
    finished.code == Some(3)
        && lines.into_iter().any(|line| {
            line.split_whitespace().take(2).eq(["problem", "target"])
                && line.contains("lose on bronze.events")
        })
}

#[test]
fn a_trigger_that_takes_rows_away_is_refused_and_never_counted_as_loaded() {
    for refused in [0, 10] {
        let database = cluster::shared().database();
        refuse_bob(&database);
        let [first, second] = sorted_out(refused, &[2, 3]);
        let topic = topic_of(&first, "1");
        let run = Run::new(&database, &topic);
        let mut process = run.start();
        wait_for(&database, &mut process, 1);
        let lose =
            "CREATE FUNCTION public.lose() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
                    CREATE TRIGGER lose BEFORE INSERT ON bronze.events FOR EACH ROW
                        WHEN (NEW.user_id = 'eve') EXECUTE FUNCTION public.lose()";
        database.connect().batch_execute(lose).unwrap();
        append(&second, &topic, "1");
        // The loader that runs already stops where it is.
        let ended = process.wait();
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("a trigger took 2 rows of a batch away"), "{}", ended.stderr);
        assert_eq!(position(&database), 1);
        // So does one that starts, and check says why.
        let ended = run.clone().group("again").start().wait();
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("lose on bronze.events"), "{}", ended.stderr);
        let arguments = ["check", "--brokers", &run.brokers, "--topic", &topic];
        let checked = tidemark(&arguments).database(&database.loader_url()).run();
        assert!(refused_target(&checked), "{}", checked.stdout);
        database.connect().batch_execute("DROP TRIGGER lose ON bronze.events").unwrap();
        run.clone().group("at last").catch_up();
        assert_eq!(database.column("SELECT event_id FROM bronze.events ORDER BY 1"), [id(1), id(2), id(3)]);
        assert_books(&database);
    }
}
