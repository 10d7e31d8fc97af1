//! Marks: what is accepted, what becomes of one that is wrong all the same, and rows that a query returns where it was
//! not asked for them.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{late, models, refresh, rows, run, step, verified};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn what_a_mark_says_is_checked() {
        models(false);
        run("CREATE VIEW w.seen AS SELECT * FROM w.events; CREATE TEMPORARY TABLE mine (event_date date);
             CREATE INDEX by_date ON w.events (event_date)");
        let years = "22008 dates must lie in the years 1 to 9999";
        for (arguments, error) in [
            ("'w.events', '{5874897-12-31}'", years),
            ("'w.events', '{2026-01-01,infinity}'", years),
            ("'w.events', '{0001-12-31 BC}'", years),
            (
                "'w.events', '{2026-01-01}', repeat('x', 1001)",
                "22023 reason must have at most 1000 characters",
            ),
            ("'w.seen', '{2026-01-01}'", "42809 source w.seen is not a table, or a temporary one"),
            ("'w.by_date', '{2026-01-01}'", "42809 source w.by_date is not a table, or a temporary one"),
            ("'mine', '{2026-01-01}'", "42809 source mine is not a table, or a temporary one"),
            ("4000000000, '{2026-01-01}'", "42P01 source 4000000000 does not exist"),
            ("NULL, '{2026-01-01}'", "22004 source must not be NULL"),
            ("'w.events', NULL", "no error"),
            ("'w.events', '{NULL}'", "no error"),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.mark_dirty({arguments})")), error, "{arguments}");
        }
        let counts = "22023 rows, late_rows and lateness must lie between 0 and 10^12";
        let times = "22008 min_event_times and max_event_times must lie in the years 1 to 9999";
        for (arguments, error) in [
            ("'{9223372036854775807}', '{0}', '{now}', '{now}'", counts),
            ("'{1}', '{-1}', '{now}', '{now}'", counts),
            ("'{1}', '{0}', '{now}', '{now}', '{0,0,0,0,0,0,0,0,0,0,0,1000000000001}'", counts),
            ("'{1}', '{0}', '{-infinity}', '{now}'", times),
            ("'{1}', '{0}', '{now}', '{infinity}'", times),
            ("'{1}', '{0}', '{now}', '{294276-01-01}'", times),
            // However the array is counted, the first twelve are those of the first date.
            ("'{1}', '{0}', '{now}', '{now}', '[0:11]={7,0,0,0,0,0,0,0,0,0,0,0}'", "no error"),
        ] {
            let statement = format!("SELECT tidemark.mark_loaded('w.events', '{{2026-01-01}}', {arguments})");
            assert_eq!(error_of(&statement), error, "{arguments}");
        }
        assert_eq!(
            text("SELECT string_agg(lateness::text, ' ') FROM tidemark_internal.dirty_log"),
            "{7,0,0,0,0,0,0,0,0,0,0,0}"
        );
    }

    #[pg_test]
    fn sums_of_marks_end_at_the_greatest_number() {
        models(false);
        run("SELECT tidemark.mark_loaded('w.events', '{2026-01-01}', '{1000000000000}', '{1000000000000}', '{now}', '{now}', ARRAY[1000000000000] || array_fill(0, ARRAY[11])::bigint[]);
             SELECT tidemark_internal.distribute_dirty();
             UPDATE tidemark_internal.watermarks SET events_loaded = 9223372036854775000, late_events = 9223372036854775000;
             UPDATE tidemark_internal.lateness_counts SET rows = 9223372036854775000");
        let status = "SELECT concat_ws(' ', s.events_loaded, s.late_events, l.events) FROM tidemark.source_status s JOIN tidemark.lateness l USING (source)";
        run(
            "SELECT tidemark.mark_loaded('w.events', '{2026-01-01}', '{1000000000000}', '{1000000000000}', '{now}', '{now}', ARRAY[1000000000000] || array_fill(0, ARRAY[11])::bigint[])",
        );
        let greatest = "9223372036854775807 9223372036854775807 9223372036854775807";
        assert_eq!(text(status), greatest, "while the mark waits");
        assert_eq!(
            refresh(),
            "w.daily 2026-01-02, w.daily 2026-01-01, w.doubled 2026-01-02, w.doubled 2026-01-01"
        );
        assert_eq!(text(status), greatest);
    }

    #[pg_test]
    fn a_mark_that_cannot_be_passed_on_holds_up_no_other() {
        models(true);
        refresh();
        // By hand, as no function would.
        run("ALTER TABLE tidemark_internal.dirty_log DROP CONSTRAINT dirty_log_event_date_check, DROP CONSTRAINT dirty_log_lateness_check;
             UPDATE tidemark_internal.models SET lookback_days = 1 WHERE name = 'w.daily';
             INSERT INTO tidemark_internal.dirty_log (source, event_date) VALUES ('w.events', '5874897-12-31');
             INSERT INTO tidemark_internal.dirty_log (source, event_date, rows, lateness) VALUES ('w.events', '2026-01-01', 1, array_fill(1, ARRAY[13]))");
        late("2026-01-02", "late");
        assert_eq!(rows("w.daily_live"), "2026-01-01=2 2026-01-02=2", "views go on");
        assert_eq!(
            refresh(),
            "w.daily 2026-01-03, w.daily 2026-01-02, w.doubled 2026-01-02",
            "all others are passed on"
        );
        assert_eq!(
            text("SELECT string_agg(left(set_aside, 5), ' ' ORDER BY id) FROM tidemark_internal.dirty_log"),
            "22008 23514"
        );
        assert_eq!(text("SELECT marks_set_aside FROM tidemark.source_status"), "2");
        assert_eq!(rows("w.daily_live"), "2026-01-01=2 2026-01-02=2");
    }

    #[pg_test]
    fn rows_of_other_dates_than_asked_for_are_an_error() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (event_time timestamptz NOT NULL, event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED);
             INSERT INTO w.events VALUES ('2026-01-02 02:00Z'), ('2026-01-02 12:00Z');
             SELECT tidemark.create_model('w.local', '{w.events}', $q$SELECT (event_time AT TIME ZONE 'America/Los_Angeles')::date AS event_date, count(*) AS events
                 FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY 1$q$, '{event_date}')");
        let wrong = "w.local 2026-01-02 query returns a row of 2026-01-01 when it is asked for 2026-01-02";
        assert_eq!(step("NULL", ""), wrong, "built");
        assert_eq!(
            text("SELECT split_part(detail, E'\\n', 1) FROM tidemark_internal.refresh_step(10, NULL, '{}')"),
            "Its key is (2026-01-01)."
        );
        run("INSERT INTO w.local VALUES ('2026-01-02', 7)");
        assert_eq!(step("NULL", ""), wrong, "brought in line");
        run("DELETE FROM tidemark_internal.model_dirty");
        assert_eq!(verified("w.local"), "01 ok, 02 different, 03 ok");
        assert_eq!(
            text("SELECT detail FROM tidemark.verify_model('w.local', '2026-01-02', '2026-01-02')"),
            "the query returns rows of other dates, for example {\"event_date\": \"2026-01-01\"}"
        );
    }

    #[pg_test]
    fn a_date_that_is_there_already_is_not_lost_among_other_dates() {
        // The check must look at rows that come out, not at those that a join leaves out.
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (event_date date, id integer); CREATE TABLE w.wanted (id integer, event_date date);
             INSERT INTO w.events VALUES ('2026-01-01', 1), ('2026-01-02', 2); INSERT INTO w.wanted VALUES (1, '2026-01-01');
             SELECT tidemark.create_model('w.m', '{w.events}', $q$SELECT e.event_date, e.id FROM w.events AS e JOIN w.wanted AS x USING (id)
                 WHERE x.event_date >= $1 AND x.event_date < $2$q$, '{event_date,id}')");
        assert_eq!(refresh(), "w.m 2026-01-02, w.m 2026-01-01");
        assert_eq!(text("SELECT string_agg(id::text, ' ') FROM w.m"), "1");
    }

    #[pg_test]
    fn a_column_of_another_type_is_an_error() {
        run("CREATE SCHEMA w; CREATE DOMAIN w.few AS integer CHECK (VALUE < 100);
             CREATE TABLE w.events (event_date date, a text, n integer);
             INSERT INTO w.events VALUES ('2026-01-01', '1.50', 7);
             CREATE TABLE w.m (event_date date, a text, PRIMARY KEY (event_date, a));
             CREATE TABLE w.id (event_date date PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY);
             CREATE TABLE w.n (event_date date PRIMARY KEY, n w.few)");
        let create = |table: &str, column: &str, key: &str| {
            error_of(&format!(
                "SELECT tidemark.create_model('w.{table}', '{{w.events}}', 'SELECT event_date, {column} FROM w.events WHERE event_date >= $1 AND event_date < $2', '{key}')"
            ))
        };
        assert_eq!(create("m", "a", "{event_date,a}"), "no error");
        assert_eq!(
            create("m", "a::numeric AS a", "{event_date,a}"),
            "42804 column a of w.m is of type text and cannot take the numeric that the query returns"
        );
        assert_eq!(create("m", "a::varchar(7) AS a", "{event_date,a}"), "no error");
        assert_eq!(
            create("id", "n AS id", "{event_date}"),
            "428C9 column id of w.id is GENERATED ALWAYS AS IDENTITY, which a model cannot fill"
        );
        assert_eq!(create("n", "n", "{event_date}"), "no error", "a domain over the type");
        assert_eq!(
            create("n", "n::bigint AS n", "{event_date}"),
            "42804 column n of w.n is of type w.few and cannot take the bigint that the query returns"
        );
        refresh();
        assert_eq!(text("SELECT n FROM w.n"), "7");
    }

    #[pg_test]
    fn tables_that_are_written_in_other_ways() {
        models(true);
        let create = |from: &str| {
            error_of(&format!(
                "SELECT tidemark.create_model('w.x', '{{w.daily}}', 'SELECT x.event_date, x.events FROM {from} AS x WHERE x.event_date >= $1 AND x.event_date < $2', '{{event_date}}', live => true)"
            ))
        };
        assert_eq!(create("(TABLE w.daily)"), "no error");
        assert_eq!(rows("w.x_live"), "2026-01-01=2 2026-01-02=1");
        assert_eq!(
            create("(SELECT * FROM w.daily TABLESAMPLE SYSTEM (10))"),
            "0A000 query takes a sample of table w.daily, which is itself a model"
        );
        run("ALTER TABLE w.x RENAME TO y");
        let again = error_of(
            "SELECT tidemark.create_model('w.y', '{w.daily}', 'SELECT event_date, events FROM w.daily WHERE event_date >= $1 AND event_date < $2', '{event_date}')",
        );
        assert_eq!(again, "42710 w.y is the table of model w.x, which was registered under that name");
        run("CREATE TEMPORARY TABLE mine (event_date date)");
        assert_eq!(
            error_of(
                "SELECT tidemark.create_model('w.z', '{mine}', 'SELECT event_date FROM mine', '{event_date}')"
            ),
            "42809 source mine is not a table, or a temporary one"
        );
        assert_eq!(
            error_of(
                "SELECT tidemark.create_model('pg_temp.mine', '{w.events}', 'SELECT event_date FROM w.events', '{event_date}')"
            ),
            "42809 mine is not a table, or a temporary one"
        );
    }

    #[pg_test]
    fn chains_of_models_end_somewhere() {
        run("CREATE SCHEMA w; CREATE TABLE w.m0 (event_date date)");
        let chain = |n: u32| {
            error_of(&format!(
                "SELECT tidemark.create_model('w.m{n}', '{{w.m{0}}}', 'SELECT event_date FROM w.m{0} WHERE event_date >= $1 AND event_date < $2', '{{event_date}}')",
                n - 1
            ))
        };
        for n in 1..=32 {
            assert_eq!(chain(n), "no error");
        }
        assert_eq!(
            chain(33),
            "54000 with model w.m33, models would read each other over more than 32 levels"
        );
        assert_eq!(
            error_of(
                "SELECT tidemark.create_model('w.m1', '{w.m9}', 'SELECT event_date FROM w.m9 WHERE event_date = $1', '{event_date}')"
            ),
            "22023 model w.m1 would read itself through its sources"
        );
    }

    #[pg_test]
    fn a_reader_that_may_not_read_blocks_no_retirement() {
        models(false);
        run(
            "CREATE ROLE keeper; GRANT USAGE ON SCHEMA w TO keeper; GRANT SELECT ON w.events TO keeper; ALTER TABLE w.daily OWNER TO keeper",
        );
        let blockers = "SELECT string_agg(DISTINCT model, ' ') FROM tidemark_internal.date_blockers('w.events', '2026-01-01')";
        assert_eq!(text(blockers), "w.daily");
        run("REVOKE SELECT ON w.events FROM keeper");
        assert_eq!(text(blockers), "NULL");
        run("GRANT SELECT (event_date) ON w.events TO keeper");
        assert_eq!(text(blockers), "w.daily");
        run("REVOKE USAGE ON SCHEMA w FROM keeper");
        assert_eq!(text(blockers), "NULL");
    }

    #[pg_test]
    fn rows_that_a_replica_applies_are_marked_once_a_date() {
        run("CREATE SCHEMA w; CREATE TABLE w.events (event_time timestamptz, id integer) PARTITION BY RANGE (event_time);
             CREATE TABLE w.old PARTITION OF w.events FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z');
             SELECT tidemark.track_changes('w.events'); SELECT tidemark.track_changes('w.old');
             CREATE TABLE w.new PARTITION OF w.events FOR VALUES FROM ('2026-02-01Z') TO ('2026-03-01Z')");
        let marks = || {
            let marks = text(
                "SELECT string_agg(concat_ws(' ', reason, source, event_date, added_by IS NOT NULL), ', ' ORDER BY id) FROM tidemark_internal.dirty_log",
            );
            run("DELETE FROM tidemark_internal.dirty_log");
            marks
        };
        run("SET LOCAL session_replication_role = replica;
             INSERT INTO w.events SELECT '2026-01-01 12:00Z', i FROM generate_series(1, 50) AS i;
             INSERT INTO w.old VALUES ('2026-01-01 13:00Z', 51)");
        assert_eq!(marks(), "replicated w.events 2026-01-01 t");
        run("UPDATE w.events SET event_time = '2026-02-02 12:00Z' WHERE id = 1; DELETE FROM w.events WHERE id = 2;
             INSERT INTO w.new VALUES ('2026-02-03 12:00Z', 60)");
        assert_eq!(
            marks(),
            "replicated w.events 2026-01-01 f, replicated w.events 2026-02-02 t, replicated w.events 2026-02-03 t"
        );
        run("TRUNCATE w.events");
        let all = ["01-01", "02-02", "02-03"].map(|day| format!("truncate w.events 2026-{day} f"));
        assert!(marks().starts_with(&all.join(", ")));
        // Statement triggers are for everybody else, and only for them.
        run(
            "SET LOCAL session_replication_role = origin; INSERT INTO w.events VALUES ('2026-01-05 12:00Z', 70), ('2026-01-05 12:00Z', 71)",
        );
        assert_eq!(marks(), "insert w.events 2026-01-05 t");
        run("ALTER TABLE w.events ENABLE TRIGGER ALL; INSERT INTO w.events VALUES ('2026-01-05 12:00Z', 72)");
        assert_eq!(marks(), "insert w.events 2026-01-05 t", "as pg_restore --disable-triggers leaves them");
        run("SELECT tidemark.untrack_changes('w.events'); SELECT tidemark.untrack_changes('w.old')");
        assert_eq!(
            text(
                "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'w'::regnamespace"
            ),
            "0"
        );
    }
}
