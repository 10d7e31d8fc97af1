//! Models: definitions, refresh by minimal diff, verification. What needs many sessions or COMMIT is tested from
//! outside.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{late, models, refresh, rows, run, step, verified};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn dirty_dates_are_recomputed_in_order_of_dependency() {
        models(false);
        assert_eq!(
            refresh(),
            "w.daily 2026-01-02, w.daily 2026-01-01, w.doubled 2026-01-02, w.doubled 2026-01-01"
        );
        assert_eq!(rows("w.doubled"), "2026-01-01=4 2026-01-02=2");
        assert_eq!(refresh(), "", "nothing is dirty");
        late("2026-01-01", "late");
        assert_eq!(
            text("SELECT string_agg(dirty_dates::text, ' ' ORDER BY model) FROM tidemark.model_status"),
            "1 1",
            "what is stale below is stale above"
        );
        assert_eq!(refresh(), "w.daily 2026-01-01, w.doubled 2026-01-01", "exactly the changed date");
        assert_eq!(rows("w.doubled"), "2026-01-01=6 2026-01-02=2");
    }

    #[pg_test]
    fn a_failing_date_stays_dirty_and_says_why() {
        models(false);
        refresh();
        run("SELECT tidemark.create_model('w.broken', '{w.events}',
                 'SELECT event_date, 1 / (count(*) - 1) AS x FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY event_date', '{event_date}')");
        assert_eq!(step("'w.broken'", ""), "w.broken 2026-01-02 division by zero");
        assert_eq!(step("'w.broken'", "w.broken 2026-01-02"), "w.broken 2026-01-01");
        assert_eq!(
            text(
                "SELECT concat_ws(' ', dirty_dates, oldest_dirty_date, newest_dirty_date, last_error) FROM tidemark.model_status WHERE model = 'w.broken'"
            ),
            "1 2026-01-02 2026-01-02 2026-01-02: division by zero"
        );
        late("2026-01-02", "b");
        assert_eq!(step("'w.broken'", ""), "w.broken 2026-01-02");
        assert_eq!(text("SELECT last_error FROM tidemark.model_status WHERE model = 'w.broken'"), "NULL");
    }

    #[pg_test]
    fn only_a_new_definition_makes_dates_dirty() {
        models(false);
        refresh();
        let define = |query: &str, more: &str| {
            run(&format!(
                "SELECT tidemark.create_model('w.doubled', '{{w.daily}}', '{query}', '{{event_date}}'{more})"
            ));
        };
        let same =
            "SELECT event_date, events * 2 AS events FROM w.daily WHERE event_date >= $1 AND event_date < $2";
        define(same, "");
        define(&format!("{same};  "), "");
        assert_eq!(refresh(), "");
        define(same, ", lookback_days => 1");
        assert_eq!(refresh(), "w.doubled 2026-01-03, w.doubled 2026-01-02, w.doubled 2026-01-01");
        define(same, "");
        refresh();
        // A date that only the table holds is recomputed as well, and goes.
        run("INSERT INTO w.doubled VALUES ('2020-02-02', 1)");
        define(&same.replace("* 2", "* 3"), "");
        assert_eq!(refresh(), "w.doubled 2026-01-02, w.doubled 2026-01-01, w.doubled 2020-02-02");
        assert_eq!(rows("w.doubled"), "2026-01-01=6 2026-01-02=3");
        run(&format!(
            "SELECT tidemark.create_model('w.doubled', '{{w.daily,w.events}}', '{}', '{{event_date}}')",
            same.replace("* 2", "* 3")
        ));
        assert_eq!(refresh(), "w.doubled 2026-01-02, w.doubled 2026-01-01", "another source");
    }

    #[pg_test]
    fn only_rows_that_differ_are_written() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (event_date date, id integer, amount numeric, tags json);
             INSERT INTO w.events SELECT '2026-01-01', i, i, '{\"a\": 1}' FROM generate_series(1, 5) AS i;
             SELECT tidemark.create_model('w.copy', '{w.events}', 'SELECT * FROM w.events WHERE event_date >= $1 AND event_date < $2', '{id}');
             SELECT tidemark.create_model('w.reader', '{w.copy}', 'SELECT event_date, count(*) AS rows FROM w.copy WHERE event_date = $1 GROUP BY 1', '{event_date}')");
        refresh();
        let places =
            || text("SELECT string_agg(id || ctid::text, ' ' ORDER BY id) FROM w.copy WHERE id IN (2, 4)");
        let before = places();
        // Equal to `=`, not equal in bytes; a type without `=`; gone; new. Two rows stay.
        run("UPDATE w.events SET amount = 1.00 WHERE id = 1;
             UPDATE w.events SET tags = '{\"a\":1}' WHERE id = 3;
             DELETE FROM w.events WHERE id = 5;
             INSERT INTO w.events VALUES ('2026-01-01', 6, 6, NULL);
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')");
        assert_eq!(refresh(), "w.copy 2026-01-01, w.reader 2026-01-01");
        let logged = "SELECT concat_ws(' ', model, event_date, rows_inserted, rows_updated, rows_deleted) FROM tidemark_internal.refresh_log";
        assert_eq!(
            text(&format!("{logged} WHERE model = 'w.copy' ORDER BY id DESC LIMIT 1")),
            "w.copy 2026-01-01 1 2 1"
        );
        assert_eq!(text("SELECT string_agg(amount::text, ' ' ORDER BY id) FROM w.copy"), "1.00 2 3 4 6");
        assert_eq!(places(), before, "these were not touched");
        // The reader's rows are the same, so its counter for materialized views stands still.
        assert_eq!(
            text(
                "SELECT string_agg(refresh_count || ' ' || change_count, ', ' ORDER BY name) FROM tidemark_internal.models"
            ),
            "2 2, 2 1"
        );
        // Nothing changed: looked at, nobody told.
        run("SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')");
        assert_eq!(refresh(), "w.copy 2026-01-01");
        assert_eq!(text(&format!("{logged} ORDER BY id DESC LIMIT 1")), "w.copy 2026-01-01 0 0 0");
        assert_eq!(
            text(
                "SELECT string_agg(refresh_count || ' ' || change_count, ', ' ORDER BY name) FROM tidemark_internal.models"
            ),
            "3 2, 2 1"
        );
    }

    #[pg_test]
    fn a_unique_value_may_move_from_one_row_to_another() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (event_date date, id integer, place text);
             CREATE TABLE w.m (event_date date, id integer PRIMARY KEY, place text UNIQUE);
             INSERT INTO w.events VALUES ('2026-01-01', 1, 'x'), ('2026-01-01', 2, 'y');
             SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT * FROM w.events WHERE event_date >= $1 AND event_date < $2', '{id}')");
        refresh();
        run("DELETE FROM w.events WHERE id = 1;
             INSERT INTO w.events VALUES ('2026-01-01', 0, 'x');
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01}')");
        assert_eq!(refresh(), "w.m 2026-01-01");
        assert_eq!(text("SELECT string_agg(id || place, ' ' ORDER BY id) FROM w.m"), "0x 2y");
    }

    #[pg_test]
    fn a_key_that_is_null_or_not_unique_is_an_error() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.events (event_date date, person text);
             CREATE TABLE w.m (event_date date, person text);
             INSERT INTO w.events VALUES ('2026-01-01', 'a'), ('2026-01-01', 'a'), ('2026-01-02', NULL), ('2026-01-03', 'c');
             SELECT tidemark.create_model('w.m', '{w.events}', 'SELECT * FROM w.events WHERE event_date >= $1 AND event_date < $2', '{event_date,person}')");
        let wrong = "query of model w.m returns a key that is NULL or not unique";
        let detail =
            "SELECT detail FROM tidemark_internal.refresh_step(10, 'w.m', '{w.m 2026-01-03,w.m 2026-01-02}')";
        for _ in ["built", "brought in line"] {
            assert_eq!(step("NULL", ""), "w.m 2026-01-03");
            assert_eq!(step("NULL", "w.m 2026-01-03"), format!("w.m 2026-01-02 {wrong}"));
            assert_eq!(
                text(detail),
                "On 2026-01-01 it returns {\"person\": \"a\", \"event_date\": \"2026-01-01\"}."
            );
            run("INSERT INTO w.m VALUES ('2026-01-01', 'a'), ('2026-01-02', 'b') ON CONFLICT DO NOTHING;
                 SELECT tidemark.mark_dirty('w.events', '{2026-01-03}')");
        }
        assert_eq!(verified("w.m"), "01 stale, 02 stale, 03 stale");
        run("DELETE FROM tidemark_internal.dirty_log; DELETE FROM tidemark_internal.model_dirty");
        assert_eq!(verified("w.m"), "01 different, 02 different, 03 ok");
    }

    #[pg_test]
    fn a_table_with_daily_partitions_gets_them() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.raw (event_time timestamptz NOT NULL, id integer) PARTITION BY RANGE (event_time);
             SELECT count(*) FROM tidemark.ensure_partitions('w.raw', '{2026-01-01,2026-01-02,2026-01-03}');
             INSERT INTO w.raw SELECT '2026-01-01 12:00Z'::timestamptz + i * interval '1 hour', i FROM generate_series(1, 20) AS i;
             CREATE TABLE w.clean (event_time timestamptz NOT NULL, id integer,
                 event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED) PARTITION BY RANGE (event_time);
             SELECT tidemark.create_model('w.clean', '{w.raw}', 'SELECT event_time, id, (event_time AT TIME ZONE ''UTC'')::date AS event_date FROM w.raw
                 WHERE event_time >= $1::timestamp AT TIME ZONE ''UTC'' AND event_time < $2::timestamp AT TIME ZONE ''UTC''', '{id}', live => true)");
        let truth = "SELECT count(*) || ' ' || sum(id) FROM w.raw";
        let all = |relation: &str| text(&format!("SELECT count(*) || ' ' || sum(id) FROM {relation}"));
        assert_eq!(all("w.clean_live"), text(truth));
        assert_eq!(refresh(), "w.clean 2026-01-02, w.clean 2026-01-01", "the third partition is empty");
        assert_eq!(all("w.clean"), text(truth));
        assert_eq!(
            text("SELECT string_agg(from_date::text, ' ') FROM tidemark.partitions('w.clean')"),
            "2026-01-01 2026-01-02"
        );
        run("UPDATE w.raw SET event_time = event_time - interval '9 hours' WHERE id = 15;
             SELECT tidemark.mark_dirty('w.raw', '{2026-01-01,2026-01-02}')");
        assert_eq!(refresh(), "w.clean 2026-01-02, w.clean 2026-01-01");
        assert_eq!(all("w.clean"), text(truth));
        assert_eq!(verified("w.clean"), "01 ok, 02 ok, 03 ok");
        assert_eq!(
            text(
                "SELECT sum(rows_updated + rows_deleted + rows_inserted) - 20 FROM tidemark_internal.refresh_log"
            ),
            "2"
        );
    }

    #[pg_test]
    fn a_table_with_triggers_sees_every_row_come() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.raw (event_time timestamptz NOT NULL, id integer, event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED);
             INSERT INTO w.raw SELECT '2026-01-01 12:00Z'::timestamptz + i * interval '1 minute', i FROM generate_series(1, 20) AS i;
             CREATE TABLE w.seen (id integer);
             CREATE FUNCTION w.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO w.seen VALUES (new.id); RETURN new; END $$;
             CREATE TABLE w.m (event_time timestamptz NOT NULL, event_date date NOT NULL, id integer NOT NULL) PARTITION BY RANGE (event_time);
             CREATE TRIGGER see BEFORE INSERT ON w.m FOR EACH ROW EXECUTE FUNCTION w.see()");
        run("SELECT tidemark.manage_partitions(parent => 'w.m'::regclass, premake_days => 0, partition_schema => 'w');
             SELECT tidemark.create_model('w.m', '{w.raw}', 'SELECT event_time, (event_time AT TIME ZONE ''UTC'')::date AS event_date, id FROM w.raw
                 WHERE event_time >= $1::timestamp AT TIME ZONE ''UTC'' AND event_time < $2::timestamp AT TIME ZONE ''UTC''', '{event_date,id}')");
        assert_eq!(step("NULL", ""), "w.m 2026-01-01");
        assert_eq!(
            text("SELECT concat((SELECT count(DISTINCT id) FROM w.seen), ' ', (SELECT count(*) FROM w.m))"),
            "20 20"
        );
    }

    #[pg_test]
    fn a_partition_that_a_refresh_fills_is_like_any_other() {
        run("CREATE SCHEMA w;
             CREATE TABLE w.raw (event_time timestamptz NOT NULL, id integer, event_date date GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED);
             INSERT INTO w.raw SELECT '2026-01-01 12:00Z'::timestamptz + i * interval '1 hour', i FROM generate_series(1, 20) AS i;
             INSERT INTO w.raw VALUES ('2026-01-03 08:00Z', 7), ('2026-01-03 09:00Z', 7);
             CREATE TABLE w.m (event_time timestamptz NOT NULL, event_date date NOT NULL, id integer NOT NULL, UNIQUE (event_time, id))
                 PARTITION BY RANGE (event_time);
             CREATE INDEX by_id ON w.m (id, event_time DESC);
             SELECT tidemark.manage_partitions(parent => 'w.m'::regclass, premake_days => 0, partition_schema => 'w', partition_unique => '{id}');
             SELECT tidemark.create_model('w.m', '{w.raw}', 'SELECT event_time, (event_time AT TIME ZONE ''UTC'')::date AS event_date, id FROM w.raw
                 WHERE event_time >= $1::timestamp AT TIME ZONE ''UTC'' AND event_time < $2::timestamp AT TIME ZONE ''UTC''', '{event_date,id}');
             SELECT count(*) FROM tidemark.ensure_partitions('w.m', '{2026-01-02}')");
        // The second of January has a partition, those of the others are made; the third has an id twice.
        let failed = step("NULL", "");
        assert!(failed.starts_with("w.m 2026-01-03 ") && failed.contains("unique index"), "{failed}");
        assert_eq!(step("NULL", "w.m 2026-01-03"), "w.m 2026-01-02");
        assert_eq!(step("NULL", "w.m 2026-01-03"), "w.m 2026-01-01");
        assert_eq!(
            text(
                "SELECT string_agg(p.partition::text || ' ' || (SELECT count(*) FROM w.m WHERE event_date = p.from_date), ', ')
                   FROM tidemark.partitions('w.m') p WHERE p.from_date < '2026-02-01'"
            ),
            "w.m_p20260101 11, w.m_p20260102 9",
            "the partition of a failed date is gone as well"
        );
        let shape = |day: u32| {
            text(&format!(
                "SELECT replace(replace(replace(
                    (SELECT string_agg(pg_get_indexdef(i.indexrelid) || (SELECT count(*) FROM pg_inherits h WHERE h.inhrelid = i.indexrelid), ', ' ORDER BY i.indexrelid::regclass::text)
                       FROM pg_index i WHERE i.indrelid = r AND i.indisvalid)
                    || (SELECT string_agg(conname || pg_get_constraintdef(oid), ', ' ORDER BY conname) FROM pg_constraint WHERE conrelid = r),
                    'm_p2026010{day}', 'm_p'), '2026-01-0{day}', 'day'), '2026-01-0{}', 'past') FROM (SELECT 'w.m_p2026010{day}'::regclass AS r) AS x",
                day + 1
            ))
        };
        assert_eq!(shape(1), shape(2));
        assert_eq!(shape(2).matches("INDEX").count(), 3, "{}", shape(2));
    }

    #[pg_test]
    fn verification_finds_every_kind_of_difference() {
        models(false);
        refresh();
        assert_eq!(verified("w.daily"), "01 ok, 02 ok, 03 ok");
        let spoiled = |sql: &str| {
            run(sql);
            text(
                "SELECT string_agg(detail, ', ') FROM tidemark.verify_model('w.daily', '2026-01-01', '2026-01-03') WHERE status = 'different'",
            )
        };
        assert_eq!(
            spoiled("UPDATE w.daily SET events = events + 1 WHERE event_date = '2026-01-01'"),
            "of 1 stored and 1 computed rows 0 are missing, 0 too many, 1 different, for example {\"event_date\": \"2026-01-01\"}"
        );
        assert_eq!(
            spoiled("DELETE FROM w.daily WHERE event_date = '2026-01-01'"),
            "of 0 stored and 1 computed rows 1 are missing, 0 too many, 0 different, for example {\"event_date\": \"2026-01-01\"}"
        );
        assert_eq!(
            spoiled(
                "SELECT tidemark.mark_dirty('w.events', '{2026-01-01}'); INSERT INTO w.daily VALUES ('2026-01-03', 7)"
            ),
            "of 1 stored and 0 computed rows 0 are missing, 1 too many, 0 different, for example {\"event_date\": \"2026-01-03\"}"
        );
        assert_eq!(verified("w.daily"), "01 stale, 02 ok, 03 different");
        assert_eq!(
            error_of("SELECT tidemark.verify_model('w.daily', '2026-01-02', '2026-01-01')"),
            "22023 to_date must not be before from_date"
        );
    }

    #[pg_test]
    fn model_errors_name_the_argument() {
        models(false);
        run("CREATE TABLE w.undated (a integer); CREATE VIEW w.view AS SELECT * FROM w.events; CREATE VIEW w.over_daily AS SELECT * FROM w.daily;
             CREATE TABLE w.typed (event_date date, events integer)");
        let daily = "SELECT event_date, 1 AS n FROM w.events WHERE event_date >= $1 AND event_date < $2";
        for (call, expected) in [
            (
                "'daily', '{w.events}', 'SELECT 1', '{event_date}'",
                "22023 name must be schema.table, got daily",
            ),
            ("'w.x', '{}', 'SELECT 1', '{event_date}'", "22023 sources, query and key must not be empty"),
            (
                "'w.x', '{w.events,NULL}', 'SELECT 1', '{event_date}'",
                "22004 sources and key must not contain NULL",
            ),
            (
                "'w.x', '{w.events}', 'SELECT 1', '{event_date}', -1",
                "22023 lookback_days and lookahead_days must be between 0 and 1000",
            ),
            (
                "'w.x', '{w.view}', 'SELECT 1', '{event_date}'",
                "42809 source w.view is not a table, or a temporary one",
            ),
            ("'w.x', '{w.events}', 'DELETE FROM w.events', '{event_date}'", "22023 query must be one SELECT"),
            ("'w.x', '{w.events}', 'SELECT 1; SELECT 2', '{event_date}'", "22023 query must be one SELECT"),
            ("'w.x', '{w.events}', 'SELECT 1 INTO w.y', '{event_date}'", "22023 query must not have an INTO"),
            ("'w.x', '{w.events}', 'SELECT $3', '{event_date}'", "42P02 query has a parameter $3"),
            (
                "'w.undated', '{w.events}', 'SELECT 1 AS a', '{a}'",
                "42703 model w.undated has no column event_date of type date",
            ),
            (
                "'w.daily', '{w.doubled}', 'SELECT * FROM w.doubled', '{event_date}'",
                "22023 model w.daily would read itself through its sources",
            ),
            (
                "'w.x', '{w.events}', 'SELECT * FROM w.over_daily', '{event_date}'",
                "42P17 query of model w.x reads model w.daily, which is not among its sources",
            ),
            (
                "'w.daily', '{w.events}', 'SELECT event_date, 1 AS events, 2 AS more FROM w.events', '{event_date}'",
                "42703 query of model w.daily returns column more, which the table does not have",
            ),
            (
                "'w.daily', '{w.events}', 'SELECT event_date FROM w.events', '{event_date}'",
                "42703 query of model w.daily does not return column events of the table",
            ),
            (
                "'w.typed', '{w.events}', 'SELECT event_date, 1 AS events FROM w.events', '{nothing}'",
                "42703 key of model w.typed names column nothing, which its query does not fill",
            ),
            (
                "'w.typed', '{w.events}', 'SELECT event_date, person AS events FROM w.events', '{event_date}'",
                "42804 column events of w.typed is of type integer and cannot take the text that the query returns",
            ),
        ] {
            assert_eq!(error_of(&format!("SELECT tidemark.create_model({call})")), expected);
        }
        run(&format!("SELECT tidemark.create_model('w.fine', '{{w.events}}', '{daily}', '{{event_date}}')"));
        assert_eq!(
            error_of("SELECT tidemark_internal.start_refresh(10, 'w.nothing')"),
            "42704 model w.nothing does not exist"
        );
        assert!(error_of("CALL tidemark.refresh()").starts_with("2D000 refresh cannot run inside"));
        assert_eq!(
            error_of("SELECT tidemark.stale_dates('w.nothing')"),
            "42704 model w.nothing does not exist"
        );
        assert_eq!(
            error_of("SELECT tidemark.manage_materialized_view('w.events', '{w.daily}')"),
            "42809 view w.events is not a materialized view"
        );
        assert_eq!(
            error_of("SELECT tidemark.drop_model('w.daily', true)"),
            "2BP01 the table of model w.daily is read by model w.doubled"
        );
        run(
            "DROP VIEW w.over_daily; SELECT tidemark.drop_model('w.doubled'); SELECT tidemark.drop_model('w.daily', true)",
        );
        assert_eq!(
            text("SELECT concat_ws(' ', to_regclass('w.doubled'), to_regclass('w.daily'))"),
            "w.doubled"
        );
        assert_eq!(text("SELECT string_agg(name, ' ') FROM tidemark_internal.models"), "w.fine");
    }
}
