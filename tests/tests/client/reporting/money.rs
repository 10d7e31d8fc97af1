//! Money in the reports: what touches get of it, and in which currency it is.

use super::*;

#[test]
fn every_cent_of_revenue_is_some_touch_s() {
    let database = cluster::shared().database();
    load(&database, &visits("2026-03-28", 5).join("\n"));
    let mut admin = connect(&database.admin_url());
    set(&mut admin, "Asia/Kathmandu");
    maintain(&database);
    let mut reader = connect(&database.reader_url());
    let days = "(SELECT min(event_date) + 3 FROM gold.calendar), (SELECT max(event_date) FROM gold.calendar)";
    let revenue = "SELECT currency, sum(purchases), sum(revenue) FROM gold.revenue_daily
                    WHERE event_date >= (SELECT min(event_date) + 3 FROM gold.calendar)
                      AND event_date < (SELECT max(event_date) FROM gold.calendar) GROUP BY 1 ORDER BY 1";
    let revenue = rows(&mut reader, revenue);
    assert_eq!(revenue.len(), 2);
    for model in ["first", "last", "linear", "position", "time_decay", "time_decay=1,direct"] {
        for breakdown in ["channel", "entry_page"] {
            let report = format!("gold.attribution_report({days}, '{model}', '10 days', '{breakdown}')");
            let sums = format!(
                "SELECT currency, round(sum(purchases)), sum(revenue) FROM {report} GROUP BY 1 ORDER BY 1"
            );
            assert_eq!(rows(&mut reader, &sums), revenue, "{model} by {breakdown}");
        }
    }
    // Purchases of nobody have no touch.
    let unattributed =
        format!("SELECT count(*) FROM gold.attribution_report({days}) WHERE touch = 'Unattributed'");
    assert_eq!(rows(&mut reader, &unattributed), [["2"]]);
    let refused = |reader: &mut Client, sql: &str| sqlstate(reader.batch_execute(&format!("SELECT {sql}")));
    let bad = "gold.attribution_report('2026-04-01', '2026-04-02', 'last', '1 day', 'color')";
    assert_eq!(refused(&mut reader, bad), "22023");
    let bad = "gold.attribution_report('2026-04-01', '2026-04-12', 'best', '1 day')";
    assert_eq!(refused(&mut reader, bad), "22023");
}

#[test]
fn amounts_are_converted_by_the_rate_of_their_date_or_not_at_all() {
    let database = cluster::shared().database();
    load(&database, &visits("2026-03-28", 7).join("\n"));
    let mut admin = connect(&database.admin_url());
    rows(&mut admin, "SELECT * FROM gold.set_reporting('Asia/Kathmandu', currency => 'EUR')");
    maintain(&database);
    let unconverted =
        "SELECT DISTINCT currency, revenue_converted = revenue FROM gold.revenue_daily ORDER BY 1";
    assert_eq!(database.rows(unconverted), [["EUR", "t"], ["USD", "NULL"]]);
    run(
        &mut admin,
        "SET ROLE tidemark_admin;
         INSERT INTO gold.currency_rates VALUES ('USD', '2026-03-30', 0.9213), ('USD', '2026-04-01', 0.9154),
             ('USD', '2026-04-02', 0.93), ('GBP', '2026-03-01', 1.2)",
    );
    let expected = "SELECT (p.event_time AT TIME ZONE 'Asia/Kathmandu')::date, p.currency, sum(p.revenue),
                           CASE WHEN count(*) = count(r.rate) THEN round(sum(p.revenue * r.rate), 2) END
                      FROM silver.purchases AS p
                      LEFT JOIN LATERAL (
                           SELECT CASE p.currency WHEN 'EUR' THEN 1
                                       ELSE (ARRAY[NULL, 0.9213, 0.9154, 0.93, NULL])[width_bucket(
                                           (p.event_time AT TIME ZONE 'UTC')::date - date '2026-03-30', ARRAY[0, 2, 3, 11]) + 1]
                                   END AS rate) AS r ON true
                     GROUP BY 1, 2";
    let found = "SELECT event_date, currency, revenue, revenue_converted FROM gold.revenue_daily";
    assert!(
        database.number("SELECT count(revenue_converted) FROM gold.revenue_daily WHERE currency = 'USD'") > 5
    );
    assert!(database.number("SELECT count(*) FROM gold.revenue_daily WHERE revenue_converted IS NULL") > 2);
    for view in ["revenue_daily", "revenue_daily_live"] {
        assert_same(&database, &found.replace("revenue_daily", view), expected);
    }
    let mut reader = connect(&database.reader_url());
    let star = "SELECT count(*) FILTER (WHERE revenue_converted IS DISTINCT FROM gold.converted(revenue, currency, (event_time AT TIME ZONE 'UTC')::date)),
                       count(*) > 20 FROM gold.purchases_star";
    assert_eq!(rows(&mut reader, star), [["0", "t"]]);
    rows(&mut admin, "SELECT * FROM gold.set_reporting(currency => '')");
    assert_eq!(database.number("SELECT count(revenue_converted) FROM gold.revenue_daily"), 0);
    assert_eq!(sqlstate(admin.batch_execute("SELECT gold.set_reporting(currency => 'euro')")), "22023");
}
