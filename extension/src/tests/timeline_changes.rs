//! What changes a timeline that is there: a property more, other slices, values that are forgotten, what is personal.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{refresh, run, verified};
    use crate::tests::support_grouped::{error_of, text};
    use crate::tests::timelines::{into_parts, more, shop};
    use pgrx::prelude::*;

    fn error_with(statement: &str, part: &str) {
        let error = error_of(statement);
        assert!(error.contains(part), "{statement}: {error}");
    }

    /// Reports of all properties, beside what the rows say of them.
    fn same(properties: &[(&str, &str)]) {
        let all = |query: &str| {
            text(&format!("SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM ({query}) AS q"))
        };
        for (property, column) in properties {
            let report = format!(
                "SELECT * FROM tidemark.trend('w.events', '2026-01-01', '2026-01-05', 'persons', breakdown => '{property}', top => 1000)"
            );
            let rows = format!(
                "SELECT date_trunc('day', event_time, 'UTC'), coalesce({column}, '(none)'), count(DISTINCT person)
                   FROM w.events WHERE person IS NOT NULL GROUP BY 1, 2"
            );
            assert_eq!(all(&report), all(&rows), "{property}");
        }
        let report = r#"SELECT entered FROM tidemark.funnel_report('w.events', '2026-01-01', '2026-01-05', '["view", "buy"]', '1 day')"#;
        let rows = "SELECT t.entered FROM (SELECT tidemark.funnel_stats(f, 2) AS s
                      FROM (SELECT tidemark.funnel('1 day', event_time, event_type, '{view,buy}') AS f FROM w.events WHERE person IS NOT NULL GROUP BY person) AS p
                     WHERE cardinality(f) > 0) AS q, tidemark.funnel_table(q.s) AS t";
        assert_eq!(all(report), all(rows));
    }

    const OLD: [(&str, &str); 3] = [
        ("country", "country"),
        ("properties.plan.name", "properties #>> '{plan,name}'"),
        ("properties.price", "properties ->> 'price'"),
    ];

    const NEW: (&str, &str) = ("properties.plan", "properties ->> 'plan'");

    #[pg_test]
    fn a_property_more_changes_nothing_else() {
        shop(600);
        refresh();
        let slices = "SELECT md5(string_agg(s::text, ' ' ORDER BY slice, event_date, property)) FROM w.timeline AS s WHERE property BETWEEN 0 AND 3";
        let before = text(slices);
        run("SELECT tidemark.add_property('w.timeline', 'properties.plan')");
        assert_eq!(text(slices), before);
        same(&[&OLD[..], &[NEW]].concat());
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        assert_eq!(
            text("SELECT (properties, dirty_dates) FROM tidemark.timeline_status"),
            r#"("{country,properties.plan.name,properties.price,properties.plan}",0)"#
        );
        // With dates that wait, and again as parts.
        more();
        run(
            "SELECT tidemark.add_property('w.timeline', 'properties'), tidemark.add_property('w.timeline', 'country')",
        );
        same(&[&OLD[..], &[NEW, ("properties", "properties::text")]].concat());
        refresh();
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        run("SELECT tidemark.drop_timeline('w.timeline')");
        assert_eq!(
            text("SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'w'::regnamespace"),
            "events"
        );
    }

    #[pg_test]
    fn a_property_more_of_a_date_without_rows_is_null() {
        shop(300);
        refresh();
        run("INSERT INTO tidemark_internal.retired_dates (parent, event_date, partition, state, from_time, to_time, retention_action)
             VALUES ('w.events', '2026-01-02', 'p', 'dropped', '2026-01-02Z', '2026-01-03Z', 'drop');
             DELETE FROM w.events WHERE event_date = '2026-01-02';
             SELECT tidemark.add_property('w.timeline', 'properties.plan')");
        let of = |date: &str, by: &str| {
            text(&format!(
                "SELECT string_agg(DISTINCT series, ' ' ORDER BY series) FROM tidemark.trend('w.events', '{date}', date '{date}' + 1, 'persons', breakdown => '{by}')"
            ))
        };
        assert_eq!(of("2026-01-02", "properties.plan"), "(none)");
        assert_eq!(of("2026-01-02", "country"), r#"(none) AT DE it's "x""#);
        assert_eq!(of("2026-01-03", "properties.plan"), r#"{"name": "free"} {"name": "pro"} {"name": null}"#);
        assert_eq!(verified("w.timeline"), "01 ok, 02 frozen, 03 ok");
    }

    #[pg_test]
    fn other_slices_hold_the_same() {
        shop(600);
        refresh();
        let slices =
            "SELECT md5(string_agg(s::text, ' ' ORDER BY slice, event_date, property)) FROM w.timeline AS s";
        let before = text(slices);
        into_parts();
        more();
        run("SELECT tidemark.rebuild_timeline('w.timeline', 64)");
        let counted = "SELECT (count(DISTINCT slice) > 10, max(part), (SELECT slices FROM tidemark.timeline_status)) FROM w.timeline";
        assert_eq!(text(counted), "(t,0,64)");
        same(&OLD);
        refresh();
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        same(&OLD);
        run("DROP VIEW w.some; SELECT tidemark.drop_timeline('w.timeline');
             SELECT tidemark.create_timeline('w.timeline', 'w.events', properties => '{country,properties.plan.name,properties.price}', slices => 64)");
        refresh();
        let made = text(slices);
        run("SELECT tidemark.rebuild_timeline('w.timeline', 4), tidemark.rebuild_timeline('w.timeline', 64)");
        assert_eq!(text(slices), made, "as if it had been so from the beginning");
        assert_ne!(made, before);
        for (call, error) in [
            ("rebuild_timeline('w.timeline', 3)", "22023 slices must be a power of two, 1 to 65536, got 3"),
            ("rebuild_timeline('w.timeline', NULL)", "22023 slices must be a power of two"),
            ("rebuild_timeline('w.other', 4)", "42704 timeline w.other does not exist"),
            ("add_property('w.timeline', 'city')", "42703 w.events has no column city"),
            ("add_property('w.timeline', NULL)", "22023 a property must have a name"),
            ("add_property('w.timeline', 'person')", "42701 property person is named twice"),
            ("add_property(NULL, 'person')", "42704 timeline <NULL> does not exist"),
        ] {
            error_with(&format!("SELECT tidemark.{call}"), error);
        }
        run("CREATE ROLE stranger; GRANT USAGE ON SCHEMA w TO stranger; SET ROLE stranger");
        for call in [
            "rebuild_timeline('w.timeline', 4)",
            "add_property('w.timeline', 'properties')",
            "forget_values('w.timeline')",
        ] {
            error_with(&format!("SELECT tidemark.{call}"), "42501 must be owner of table w.timeline");
        }
        run("RESET ROLE");
    }

    #[pg_test]
    fn values_that_no_event_has_are_forgotten() {
        shop(300);
        refresh();
        let known = "SELECT string_agg(concat(property, '=', value), ' ' ORDER BY property, value) FROM w.timeline_codes WHERE property < 2 AND value IS NOT NULL";
        assert_eq!(text(known), r#"0=add 0=buy 0=leave 0=view 1=AT 1=DE 1=it's "x""#);
        assert_eq!(text("SELECT tidemark.forget_values('w.timeline')"), "0");
        run("UPDATE w.events SET country = 'CH' WHERE country = 'AT';
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
        assert_eq!(text("SELECT tidemark.forget_values('w.timeline')"), "0", "stored events still have it");
        same(&OLD);
        refresh();
        assert_eq!(text("SELECT tidemark.forget_values('w.timeline')"), "1");
        assert_eq!(text(known), r#"0=add 0=buy 0=leave 0=view 1=CH 1=DE 1=it's "x""#);
        same(&OLD);
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
        run("ANALYZE w.timeline_codes");
        let statistics =
            "SELECT count(*) FROM pg_stats WHERE tablename = 'timeline_codes' AND attname = 'value'";
        assert_eq!(text(statistics), "0", "which would quote some");
        // It may come back, under another number.
        run("UPDATE w.events SET country = 'AT' WHERE country = 'DE';
             SELECT tidemark.mark_dirty('w.events', '{2026-01-01,2026-01-02,2026-01-03,2026-01-04}')");
        same(&OLD);
        refresh();
        same(&OLD);
        assert_eq!(verified("w.timeline"), "01 ok, 02 ok, 03 ok");
    }

    #[pg_test]
    fn what_is_personal_no_timeline_keeps() {
        shop(10);
        error_with(
            "SELECT tidemark.declare_personal('w.events', '{properties.plan}')",
            "55000 timeline w.timeline keeps property properties.plan.name",
        );
        error_with(
            "SELECT tidemark.declare_personal('w.events', '{email}')",
            "42703 w.events has no column email",
        );
        error_with("SELECT tidemark.declare_personal('w.events', NULL)", "22004 properties must not be NULL");
        run("SELECT tidemark.declare_personal('w.events', '{properties.contact}')");
        let create = |property: &str| {
            format!("SELECT tidemark.create_timeline('w.other', 'w.events', properties => '{{{property}}}')")
        };
        for property in ["properties.contact", "properties.contact.email", "properties"] {
            let error = format!("42501 property {property} of w.events is personal");
            error_with(&create(property), &error);
            error_with(&format!("SELECT tidemark.add_property('w.timeline', '{property}')"), &error);
        }
        error_with(&create("properties.contacted"), "no error");
        run("CREATE ROLE stranger; GRANT USAGE ON SCHEMA w TO stranger; SET ROLE stranger");
        error_with(
            "SELECT tidemark.declare_personal('w.events', '{}')",
            "42501 must be owner of table w.events",
        );
        run(
            "RESET ROLE; SELECT tidemark.declare_personal('w.events', '{}'), tidemark.add_property('w.timeline', 'properties')",
        );
    }
}
