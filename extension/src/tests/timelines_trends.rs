//! Trends compared with counts of rows: of every unit, by the clock of a zone, from counts and from slices.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::models_support::{refresh, run};
    use crate::tests::support_grouped::{error_of, text};
    use crate::tests::timelines::shop;
    use crate::tests::timelines_reports::{DATES, OF_PERSONS, same};
    use pgrx::prelude::*;

    #[pg_test]
    fn a_trend_counts_events_and_persons() {
        let pair = |math: &str, unit: &str, more: &str, condition: &str, by: &str| {
            let value = if math == "total" { "count(*)" } else { "count(DISTINCT person)" };
            let report = format!(
                "SELECT * FROM tidemark.trend('w.events', {DATES}, '{math}', unit => '{unit}'{more})"
            );
            let rows = format!(
                "SELECT date_trunc('{unit}', event_time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', {by}, {value} {OF_PERSONS} AND ({condition}) GROUP BY 1, 2"
            );
            (report, rows)
        };
        let country = "coalesce(country, '(none)')";
        let mut pairs = vec![];
        for math in ["total", "persons"] {
            for unit in ["hour", "day", "week", "month"] {
                pairs.push(pair(math, unit, "", "true", "NULL::text"));
                pairs.push(pair(math, unit, ", breakdown => 'country'", "true", country));
                pairs.push(pair(
                    math,
                    unit,
                    ", events => '[\"view\", \"buy\"]'",
                    "event_type IN ('view', 'buy')",
                    "NULL::text",
                ));
            }
        }
        same(&pairs);
    }

    #[pg_test]
    fn a_trend_is_of_the_clock_and_the_dates_of_a_zone() {
        let pair = |math: &str, unit: &str, zone: &str, more: &str, condition: &str, by: &str| {
            let value = if math == "total" { "count(*)" } else { "count(DISTINCT person)" };
            let report = format!(
                "SELECT * FROM tidemark.trend('w.events', '2026-01-02', '2026-01-04', '{math}', unit => '{unit}', time_zone => '{zone}'{more})"
            );
            let rows = format!(
                "SELECT date_trunc('{unit}', event_time, '{zone}'), {by}, {value} FROM w.events
                  WHERE person IS NOT NULL AND event_time >= timestamp '2026-01-02' AT TIME ZONE '{zone}'
                    AND event_time < timestamp '2026-01-04' AT TIME ZONE '{zone}' AND ({condition}) GROUP BY 1, 2"
            );
            (report, rows)
        };
        let country = "coalesce(country, '(none)')";
        let mut pairs = vec![];
        for zone in
            ["Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "UTC", "Etc/UTC"]
        {
            for unit in ["hour", "day", "week", "month"] {
                pairs.push(pair("total", unit, zone, "", "true", "NULL::text"));
            }
            let filtered = r#", events => '"buy"', filters => '["is_not", "country", ["AT"]]'"#;
            let condition = "event_type = 'buy' AND country IS DISTINCT FROM 'AT'";
            pairs.push(pair("total", "hour", zone, filtered, condition, "NULL::text"));
            pairs.push(pair("persons", "day", zone, ", breakdown => 'country'", "true", country));
            let two = r#", breakdown => 'country', filters => '["is", "properties.price", [3, 4, 5]]'"#;
            pairs.push(pair("total", "day", zone, two, "properties ->> 'price' IN ('3', '4', '5')", country));
        }
        same(&pairs);
        for (zone, error) in [
            ("nowhere", "22023 time zone \"nowhere\" not recognized"),
            ("+01:07", "22023 time_zone is not ahead of UTC, or behind it, by quarters of an hour"),
        ] {
            let found = error_of(&format!(
                "SELECT * FROM tidemark.trend('w.events', '2026-01-01', '2026-01-04', time_zone => '{zone}')"
            ));
            assert!(found.starts_with(error), "{found}");
        }
    }

    #[pg_test]
    fn a_property_of_too_many_values_is_not_counted_but_read() {
        shop(10);
        run("CREATE TABLE w.many AS SELECT date '2026-01-01' AS event_date, timestamptz '2026-01-01Z' + n * interval '37 seconds' AS event_time,
                    'person ' || n % 9 AS person, 'event ' || n % 3 AS event_type, n % 900 AS id FROM generate_series(1, 1300) AS n;
             SELECT tidemark.create_timeline('w.line', 'w.many', properties => '{id}', slices => 2)");
        refresh();
        let columns = "SELECT string_agg((octet_length(data::bytea) > 16)::text, ' ' ORDER BY property DESC)
                         FROM w.line WHERE property < 0";
        assert_eq!(text(columns), "true true true false", "the events, and no id by slot");
        // Beside a date that is counted, in a part that is not stored.
        run("INSERT INTO w.many SELECT event_date + 1, event_time + interval '1 day', person, event_type, id FROM w.many LIMIT 100;
             SELECT tidemark.mark_dirty('w.many', '{2026-01-02}')");
        for (by, column) in [("event_type", "event_type"), ("id", "id::text")] {
            let all = |query: &str| {
                text(&format!("SELECT string_agg(q::text, ' ' ORDER BY q::text) FROM ({query}) AS q"))
            };
            assert_eq!(
                all(&format!(
                    "SELECT * FROM tidemark.trend('w.many', '2026-01-01', '2026-01-03', unit => 'hour', breakdown => '{by}', top => 2000)"
                )),
                all(&format!(
                    "SELECT date_trunc('hour', event_time), {column}, count(*) FROM w.many GROUP BY 1, 2"
                ))
            );
        }
    }
}
