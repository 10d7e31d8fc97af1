//! Timelines as models: what is stored, how it is kept up to date, who may do what, what is refused.

use super::models_support::run;

/// A source with random events of the first days of 2026 (few persons, times that meet, NULLs) and a timeline of it.
pub fn shop(rows: u32) {
    run(&format!(
        "SELECT setseed(0.5); CREATE SCHEMA w;
         CREATE TABLE w.events (event_date date, event_time timestamptz, person text, event_type text, country text,
                                properties jsonb);
         INSERT INTO w.events
         SELECT (t.at AT TIME ZONE 'UTC')::date, t.at, CASE WHEN t.p > 0 THEN 'person ' || t.p END,
                (ARRAY['view', 'add', 'buy', 'leave'])[t.e], (ARRAY['AT', 'DE', 'it''s \"x\"'])[t.c],
                jsonb_build_object('plan', jsonb_build_object('name', (ARRAY['free', 'pro'])[t.c]), 'price', t.price)
           FROM (SELECT timestamptz '2026-01-01 00:00Z' + floor(random() * 4 * 24 * 12) * interval '5 minutes' AS at,
                        floor(random() * 25)::integer AS p, 1 + floor(random() * 4)::integer AS e,
                        1 + floor(random() * 4)::integer AS c, floor(random() * 20)::integer AS price
                   FROM generate_series(1, {rows})) AS t;
         SELECT tidemark.create_timeline('w.timeline', 'w.events',
             properties => '{{country,properties.plan.name,properties.price}}', slices => 4)"
    ));
}

/// More events, late ones, one that goes and one that changes hands, with their marks: three dates of four.
pub fn more() {
    run("INSERT INTO w.events SELECT event_date, event_time + interval '7 seconds', person, 'buy', 'FR', properties
           FROM w.events WHERE event_date IN ('2026-01-02', '2026-01-03') AND event_type = 'view';
         DELETE FROM w.events WHERE ctid IN (SELECT ctid FROM w.events WHERE event_date = '2026-01-01' LIMIT 9);
         UPDATE w.events SET person = 'new' WHERE event_date = '2026-01-01' AND person = 'person 1';
         SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03}')");
}

/// Stores the rows of all dates anew: some as slices, the others in three parts that do not follow each other in time.
pub fn into_parts() {
    run("DELETE FROM w.timeline");
    for part in 0..4 {
        run(&format!(
            "CREATE OR REPLACE VIEW w.some AS SELECT * FROM w.timeline_rows r
              WHERE hashtext(concat(r.event_time, r.event_type, r.country)) & 3 = {part};
             INSERT INTO w.timeline (event_date, property, slice, part, events, persons, data)
             SELECT event_date, property, slice, part, events, persons, data
               FROM tidemark_internal.timeline_encode('w.some', 'w.timeline_codes', 3, {}, '2026-01-01', '2026-01-05', {part})",
            if part == 0 { 2 } else { 0 }
        ));
    }
}

#[pgrx::pg_schema]
mod tests {
    use super::{into_parts, more, shop};
    use crate::tests::models_support::{refresh, run, verified};
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    fn error_with(statement: &str, part: &str) {
        let error = error_of(statement);
        assert!(error.contains(part), "{statement}: {error}");
    }

    #[pg_test]
    fn a_timeline_is_a_model_whose_rows_are_slices() {
        shop(600);
        assert_eq!(text("SELECT count(*) FROM w.timeline"), "0");
        refresh();
        let counted =
            "SELECT (sum(events), count(DISTINCT event_date), max(slice)) FROM w.timeline WHERE property = 0";
        assert_eq!(text(counted), text("SELECT (count(*), 4, 3) FROM w.events WHERE person IS NOT NULL"));
        assert_eq!(
            text("SELECT array_agg(DISTINCT property)::text FROM w.timeline"),
            "{-8,-7,-6,-5,-4,-3,-2,-1,0,1,2,3}",
            "a row for each property, and counts"
        );
        assert_eq!(
            text(
                "SELECT string_agg(value, ',' ORDER BY value) FROM w.timeline_codes WHERE property IN (0, 2)"
            ),
            "add,buy,free,leave,pro,view"
        );
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        assert_eq!(
            text("SELECT (timeline, source, slices, dirty_dates, bytes > 0) FROM tidemark.timeline_status"),
            "(w.timeline,w.events,4,0,t)"
        );
    }

    #[pg_test]
    fn only_slices_that_differ_are_written() {
        shop(600);
        refresh();
        run("SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
        refresh();
        let last = "SELECT (sum(rows_inserted), sum(rows_updated), sum(rows_deleted)) FROM (
                        SELECT * FROM tidemark.refresh_log ORDER BY id DESC LIMIT 4) AS l";
        assert_eq!(text(last), "(0,0,0)", "nothing changed");
        run("INSERT INTO w.events SELECT * FROM w.events WHERE event_date = '2026-01-02' AND person IS NOT NULL LIMIT 1;
             SELECT tidemark.mark_dirty('w.events', '{2026-01-02}')");
        refresh();
        let last = "SELECT (rows_inserted, rows_updated, rows_deleted) FROM tidemark.refresh_log ORDER BY id DESC LIMIT 1";
        assert_eq!(text(last), "(0,12,0)", "one slice, its core and three properties, and counts");
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
    }

    #[pg_test]
    fn parts_are_as_good_as_slices_and_become_them() {
        shop(600);
        refresh();
        let slices =
            "SELECT md5(string_agg(s::text, ' ' ORDER BY slice, event_date, property)) FROM w.timeline AS s";
        let before = text(slices);
        into_parts();
        assert_ne!(text(slices), before);
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        run("UPDATE w.timeline SET data = (SELECT data FROM w.timeline WHERE event_date = '2026-01-02' AND property = 0 AND part = 1)
              WHERE event_date = '2026-01-02' AND property = 0 AND part = 2");
        let error = error_of("SELECT * FROM tidemark.verify_model('w.timeline', '2026-01-02', '2026-01-02')");
        assert!(
            error.starts_with("XX001 timeline w.timeline, date 2026-01-02, part 2, slice 0: codes"),
            "{error}"
        );
        run("DELETE FROM w.timeline WHERE event_date = '2026-01-02' AND part = 2");
        assert_eq!(verified("w.timeline"), "01 ok, 02 different, 03 ok");
        run("SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
        refresh();
        assert_eq!(text(slices), before, "a recompute makes slices of all");
    }

    /// Adds some events to a date in a transaction of their own, as far as their rows can tell, and appends them as a
    /// refresh does. What it says, and the events by part.
    fn append(date: &str, events: u32) -> String {
        run(&format!(
            "DO $$ BEGIN
                 INSERT INTO w.events SELECT date '{date}', timestamptz '{date} 00:00Z' + n * interval '1 second', 'added', 'view', 'AT', '{{}}'
                   FROM generate_series(1, {events}) AS n;
             EXCEPTION WHEN OTHERS THEN RAISE; END $$"
        ));
        let added = format!(
            "SELECT r - 'seen' - 'rows' FROM (SELECT to_jsonb(tidemark_internal.timeline_append('w.timeline', 'w.timeline', 'w.timeline_rows', 'w.timeline_codes', 3, 2, '{date}',
                 ARRAY[max(xmin::text::bigint)::text::xid], NULL, ('\\x' || regexp_replace(lpad(to_hex(max(xmin::text::bigint)), 8, '0'), '(..)(..)(..)(..)', '\\4\\3\\2\\1'))::bytea, true)) AS r
                   FROM w.events WHERE person = 'added') AS a"
        );
        let said = text(&added);
        let parts = text(&format!(
            "SELECT string_agg(part || ':' || events, ' ' ORDER BY part) FROM (SELECT part, sum(events) AS events
               FROM w.timeline WHERE event_date = '{date}' AND property = 0 GROUP BY part) AS p"
        ));
        format!("{said} {parts}")
    }

    #[pg_test]
    fn new_rows_become_parts_and_parts_slices_in_tiers() {
        shop(3000);
        refresh();
        let base =
            text("SELECT sum(events) FROM w.timeline WHERE event_date = '2026-01-02' AND property = 0");
        let said = |inserted: u32, updated: u32, deleted: u32| {
            format!(
                r#"{{"deleted": {deleted}, "surplus": 0, "updated": {updated}, "inserted": {inserted}, "elsewhere": 0}}"#
            )
        };
        for n in 1..8 {
            let parts: String = (1..=n).map(|part| format!(" {part}:2")).collect();
            assert_eq!(append("2026-01-02", 2), format!("{} 0:{base}{parts}", said(12, 0, 0)));
            assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        }
        assert_eq!(append("2026-01-02", 2), format!("{} 0:{base} 1:16", said(12, 0, 96)), "eight are one");
        assert_eq!(append("2026-01-02", 1), format!("{} 0:{base} 1:16 2:1", said(12, 0, 0)));
        // An eighth of the date: only the slice of whom they are of is written.
        let all: u32 = base.parse::<u32>().unwrap() + 117;
        assert_eq!(append("2026-01-02", 100), format!("{} 0:{all}", said(0, 12, 36)));
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        // A date without slices has some at once.
        assert_eq!(append("2026-01-07", 1), format!("{} 0:1", said(12, 0, 12)));
        run(
            "DELETE FROM w.events WHERE ctid IN (SELECT ctid FROM w.events WHERE event_date = '2026-01-03' LIMIT 1)",
        );
        assert!(append("2026-01-03", 1).starts_with(r#"{"surplus": -1}"#), "one went without a mark");
    }

    #[pg_test]
    fn where_rows_of_some_persons_changed_only_their_slices_are_written() {
        let stored = "SELECT string_agg(concat_ws(' ', event_date, slice, property, part, events, persons, md5(data::text)), E'\\n'
                                        ORDER BY event_date, slice, property, part) FROM w.timeline";
        let scope = |persons: &str| {
            run(&format!(
                "DO $$ BEGIN PERFORM tidemark_internal.execute_for_persons('w.timeline',
                                 tidemark_internal.timeline_statement('w.timeline', 'scope'), d, '{persons}')
                           FROM unnest('{{2026-01-01,2026-01-02,2026-01-03,2026-01-04,2026-01-05}}'::date[]) AS d; END $$"
            ));
        };
        for in_parts in [false, true] {
            shop(6000);
            // Too many to be counted on two dates of four.
            run("UPDATE w.events SET properties = jsonb_build_object('price', (random() * 1e9)::integer)
                  WHERE event_date IN ('2026-01-02', '2026-01-03')");
            refresh();
            if in_parts {
                into_parts();
            }
            run("UPDATE w.events SET person = 'new 1' WHERE person = 'person 3';
                 UPDATE w.events SET event_time = event_time + interval '1 second', country = 'CH' WHERE person = 'person 5' AND event_type = 'buy';
                 DELETE FROM w.events WHERE person = 'person 7' AND event_date <> '2026-01-04';
                 UPDATE w.events SET person = 'person 9' WHERE person IS NULL AND event_type = 'add';
                 UPDATE w.events SET person = NULL WHERE person = 'person 10';
                 INSERT INTO w.events VALUES ('2026-01-05', '2026-01-05 12:00Z', 'new 1', 'view', 'AT', '{}')");
            let others =
                "SELECT count(*) || md5(string_agg(ctid::text || xmin, ' ' ORDER BY ctid)) FROM w.timeline
                           WHERE property >= 0 AND part = 0 AND slice > 0";
            let before = text(others);
            scope("{nobody}");
            assert_eq!(text(others), before);
            scope("{person 3,new 1,person 5,person 7,person 9,person 10,nobody}");
            assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
            if in_parts {
                run("SELECT tidemark_internal.timeline_append('w.timeline', 'w.timeline', 'w.timeline_rows', 'w.timeline_codes', 3, 2, d, '{}',
                                '{}', '\\x00000000', false) FROM unnest('{2026-01-01,2026-01-02,2026-01-03,2026-01-04}'::date[]) AS d");
            }
            let found = text(stored);
            run(
                "SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04,2026-01-05}')",
            );
            refresh();
            assert_eq!(found, text(stored), "a recompute stores the same");
            // Everybody goes, and so does the date.
            run("DELETE FROM w.events WHERE event_date = '2026-01-05'");
            scope("{new 1}");
            assert_eq!(text("SELECT count(*) FROM w.timeline WHERE event_date = '2026-01-05'"), "0");
            run(
                "DROP VIEW IF EXISTS w.some; SELECT tidemark.drop_timeline('w.timeline'); DROP SCHEMA w CASCADE",
            );
        }
    }

    #[pg_test]
    fn which_rows_are_new_is_seen_by_their_transactions() {
        let unseen = |seen: &str| {
            text(&format!(
                "SELECT string_agg(x, ' ') FROM unnest('{{1,2,3,99,100,101,2147483700,4294967295}}'::text[]) AS x
                  WHERE tidemark_internal.unseen(x::xid, '{seen}'::bytea)"
            ))
        };
        // From 100 on, where numbers go round; and 99, which was in progress.
        assert_eq!(unseen("\\x64000000"), "100 101 2147483700");
        assert_eq!(unseen("\\x6400000003000000630000006e000000"), "3 99 100 101 2147483700");
        assert_eq!(unseen("\\xffffffff"), "3 99 100 101 4294967295");
        assert_eq!(unseen(""), "NULL");
        assert_eq!(
            text(
                "SELECT string_agg(x, ' ') FROM unnest('{10,11,12}'::text[]) AS x
                   WHERE tidemark_internal.unseen(x::xid, tidemark_internal.current_seen('{12,10,NULL}'))"
            ),
            "10 12",
            "whatever the order"
        );
        run("CREATE TABLE w_seen AS SELECT tidemark_internal.current_seen() AS seen");
        assert_eq!(
            text(
                "SELECT count(*) FROM pg_class WHERE tidemark_internal.unseen(xmin, (SELECT seen FROM w_seen)) AND relname = 'pg_class'"
            ),
            "0"
        );
    }

    #[pg_test]
    fn verifying_finds_what_was_altered_and_stores_no_codes() {
        shop(300);
        refresh();
        run("UPDATE w.events SET country = 'unknown so far' WHERE event_date = '2026-01-02'");
        assert_eq!(verified("w.timeline"), "01 ok, 02 different, 03 ok");
        assert_eq!(text("SELECT count(*) FROM w.timeline_codes WHERE value = 'unknown so far'"), "0");
    }

    #[pg_test]
    fn a_timeline_is_made_once_and_dropped_whole() {
        shop(10);
        let again = "SELECT tidemark.create_timeline('w.timeline', 'w.events', slices => 4, properties => ";
        assert_eq!(
            text(&format!("{again}'{{country,properties.plan.name,properties.price}}')")),
            "w.timeline"
        );
        error_with(
            &format!("{again}'{{country}}')"),
            "55000 timeline w.timeline exists with another definition",
        );
        refresh();
        more();
        run("SELECT tidemark.drop_timeline('w.timeline')");
        assert_eq!(
            text(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'timeline%' AND relnamespace = 'w'::regnamespace"
            ),
            "0"
        );
        assert_eq!(text("SELECT count(*) FROM tidemark.model_status"), "0");
        error_with("SELECT tidemark.drop_timeline('w.timeline')", "42704 timeline w.timeline does not exist");
    }

    #[pg_test]
    fn what_cannot_be_a_timeline_is_refused_by_name() {
        shop(10);
        let create =
            |arguments: &str| format!("SELECT tidemark.create_timeline('w.other', 'w.events', {arguments})");
        for (arguments, error) in [
            ("properties => '{nothing}'", "42703 w.events has no column nothing"),
            (
                "properties => '{country.x}'",
                "42703 w.events has no column \"country.x\" and no jsonb column country",
            ),
            ("properties => '{country,country}'", "42701 property country is named twice"),
            ("properties => '{person}'", "42701 property person is named twice"),
            (
                "properties => array_fill('x'::text, '{101}')",
                "54000 a timeline has at most 100 properties, got 101",
            ),
            ("slices => 5", "22023 slices must be a power of two"),
            ("slices => 131072", "22023 slices must be a power of two"),
            ("person => 'nobody'", "42703 w.events has no column nobody"),
            ("person => NULL", "22004 arguments of create_timeline must not be NULL"),
        ] {
            error_with(&create(arguments), error);
        }
    }

    #[pg_test]
    fn a_property_with_too_many_values_is_refused_by_name() {
        shop(10);
        refresh();
        run("DELETE FROM w.timeline_codes WHERE property = 1;
             INSERT INTO w.timeline_codes SELECT 1, n, 'value ' || n FROM generate_series(1, 1048576) AS n");
        let made = "SELECT * FROM tidemark_internal.timeline_encode('w.timeline_rows', 'w.timeline_codes', 3, 2, '2026-01-01', '2026-01-05')";
        error_with(made, "54000 property country has more than 1048576 values");
        run("DELETE FROM w.timeline_codes WHERE property = 1 AND code = 7");
        error_with(made, "XX001 codes of property 1 are missing in w.timeline_codes");
    }

    #[pg_test]
    fn a_row_of_another_date_is_an_error() {
        shop(10);
        run("INSERT INTO w.events VALUES ('2026-01-02', '2026-01-03 00:00Z', 'late', 'view')");
        error_with(
            "SELECT * FROM tidemark_internal.timeline_encode('w.timeline_rows', 'w.timeline_codes', 3, 2, '2026-01-02', '2026-01-03')",
            "22008 w.timeline_rows has a row whose event_date is not the UTC date of its event_time",
        );
    }

    #[pg_test]
    fn altered_bytes_are_refused_or_found_when_read() {
        shop(300);
        refresh();
        let hex =
            text("SELECT data::text FROM w.timeline WHERE property = 0 ORDER BY slice, event_date LIMIT 1");
        let codes =
            text("SELECT data::text FROM w.timeline WHERE property = 1 ORDER BY slice, event_date LIMIT 1");
        let counts =
            text("SELECT data::text FROM w.timeline WHERE property = -1 ORDER BY event_date LIMIT 1");
        for value in [&hex, &codes, &counts] {
            let (cut, last) = (&value[..value.len() - 2], &value[value.len() - 1..]);
            let flipped = format!("{}{}", &value[..value.len() - 1], if last == "0" { "1" } else { "0" });
            error_with(&format!("SELECT '{cut}'::tidemark.timeline"), "22P02 invalid timeline: timeline");
            error_with(&format!("SELECT '{flipped}'::tidemark.timeline"), "22P02 invalid timeline: timeline");
            error_with(
                &format!("SELECT '{cut}'::bytea::tidemark.timeline"),
                "22P03 invalid timeline: timeline",
            );
            assert_eq!(
                text(&format!("SELECT '{value}'::tidemark.timeline OPERATOR(tidemark.=) '{value}'")),
                "true"
            );
        }
        error_with("SELECT '\\x0174'::tidemark.timeline", "22P02 invalid timeline: timeline is truncated");
        // What somebody stored past the checks of the type.
        run("CREATE FUNCTION w.unchecked(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE RETURN substr($1, 1, length($1) - 8);
             SET LOCAL allow_system_table_mods = on;
             UPDATE pg_cast SET castmethod = 'b', castfunc = 0
              WHERE castsource = 'bytea'::regtype AND casttarget = 'tidemark.timeline'::regtype;
             UPDATE w.timeline SET data = w.unchecked(data::bytea)::tidemark.timeline
              WHERE property = 1 AND event_date = '2026-01-02'");
        let report = |by: &str| {
            format!(
                "SELECT * FROM tidemark.trend('w.timeline', '2026-01-01', '2026-01-05', 'persons', breakdown => {by})"
            )
        };
        error_with(&report("'country'"), "XX001 timeline w.timeline, slice 0, date 2026-01-02: timeline ");
        assert_eq!(error_of(&report("NULL")), "no error", "what is not read is not missed");
        run("DELETE FROM w.timeline WHERE property = 1 AND event_date = '2026-01-02'");
        error_with(&report("'country'"), "XX001 timeline w.timeline, slice 0, date 2026-01-02");
        run("UPDATE w.timeline SET data = w.unchecked(data::bytea)::tidemark.timeline
              WHERE property = -1 AND event_date = '2026-01-02'");
        error_with(
            &report("NULL").replace("persons", "total"),
            "XX001 timeline w.timeline, counts of date 2026-01-02: ",
        );
    }

    #[pg_test]
    fn a_timeline_belongs_to_who_made_it_and_reports_need_its_tables() {
        shop(50);
        refresh();
        run("CREATE ROLE analyst; CREATE ROLE stranger;
             GRANT USAGE ON SCHEMA w TO analyst, stranger; GRANT SELECT ON w.timeline, w.timeline_codes TO analyst");
        let report = "SELECT * FROM tidemark.session_report('w.timeline', '2026-01-01', '2026-01-05')";
        run("SET ROLE analyst");
        error_with(report, "no error");
        error_with("SELECT tidemark.drop_timeline('w.timeline')", "42501 must be owner of table w.timeline");
        error_with("SELECT tidemark.create_timeline('w.mine', 'w.events')", "42501 permission denied");
        run("SET ROLE stranger");
        error_with(report, "42501 permission denied for table timeline");
        run("RESET ROLE");
        more();
        run("SET ROLE analyst");
        error_with(report, "42501 permission denied for view timeline_rows");
        run("RESET ROLE; GRANT SELECT ON w.timeline_rows TO analyst; SET ROLE analyst");
        error_with(report, "no error");
        run("RESET ROLE; ALTER TABLE w.timeline ENABLE ROW LEVEL SECURITY; SET ROLE analyst");
        error_with(report, "55000 w.timeline has row level security");
        let trend = "SELECT * FROM tidemark.trend('w.events', '2026-01-01', '2026-01-05')";
        error_with(trend, "55000 w.timeline has row level security");
        run("RESET ROLE; ALTER TABLE w.timeline DISABLE ROW LEVEL SECURITY;
             ALTER TABLE w.timeline_codes ENABLE ROW LEVEL SECURITY; SET ROLE analyst");
        error_with(trend, "55000 w.timeline_codes has row level security");
        run("RESET ROLE");
    }

    #[pg_test]
    fn a_session_that_has_asked_before_sees_what_has_changed_since() {
        let asked = || {
            let reports = ["'total', breakdown => 'country'", "'persons'", "'persons', unit => 'week'"]
                .map(|more| format!("tidemark.trend('w.events', '2026-01-01', '2026-01-05', {more})"));
            text(&format!(
                "SELECT md5(string_agg(q::text, ' ' ORDER BY q::text)) FROM ({}) AS q",
                reports.map(|report| format!("SELECT * FROM {report}")).join(" UNION ALL ")
            ))
        };
        shop(300);
        refresh();
        let before = asked();
        run("ALTER TABLE w.timeline RENAME TO line; ALTER TABLE w.line SET SCHEMA public;
             ALTER TABLE w.timeline_codes RENAME TO words");
        assert_eq!(asked(), before);
        run("ALTER TABLE public.line SET SCHEMA w; ALTER TABLE w.line RENAME TO timeline;
             ALTER TABLE w.words RENAME TO timeline_codes;
             SELECT tidemark.drop_timeline('w.timeline');
             UPDATE w.events SET country = 'FR' WHERE country IS NULL;
             SELECT tidemark.create_timeline('w.timeline', 'w.events', properties => '{properties.price,country}', slices => 2)");
        refresh();
        let after = asked();
        assert_ne!(after, before);
        run("UPDATE w.events SET country = NULL WHERE country = 'FR';
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
        assert_eq!(asked(), before, "from rows");
        refresh();
        assert_eq!(asked(), before);
        run("ALTER TABLE w.timeline DROP CONSTRAINT timeline_pkey");
        error_with(
            "SELECT * FROM tidemark.session_report('w.events', '2026-01-01', '2026-01-05')",
            "55000 w.timeline is not the table that tidemark.create_timeline made",
        );
    }
}
