//! The generator knows who logged in where: sessions and persons of gold are as many as it says, and gold has the same
//! rows byte for byte in whatever order the events come.
//! For a larger shop: TRUTH="--events 600000 --days 30 --users 15000 --seed 7", and only this test.

use std::fs;

use tidemark_tests::cluster::{self, Database};
use tidemark_tests::events::{self, Generated};
use tidemark_tests::process::tidemark;
use tidemark_tests::random::Random;

use super::maintain;

/// Rows of gold, but for when they were loaded: how many, and what they hold.
const GOLD: &str = "SELECT count(*), md5(string_agg(row, E'\\n' ORDER BY row COLLATE \"C\"))
                      FROM (SELECT (to_jsonb(g) - 'last_loaded_at')::text AS row FROM {} AS g) AS rows";

/// What each table of gold holds.
pub(crate) fn gold(database: &Database<'_>) -> Vec<(String, Vec<Vec<String>>)> {
    let tables = database.column(
        "SELECT model FROM tidemark.model_status WHERE model LIKE 'gold\\_storage.%'
         UNION ALL SELECT oid::regclass::text FROM pg_class
          WHERE relkind = 'm' AND relnamespace = 'gold_storage'::regnamespace ORDER BY 1",
    );
    assert!(tables.len() >= 8, "{tables:?}");
    tables.into_iter().map(|table| (table.clone(), database.rows(&GOLD.replace("{}", &table)))).collect()
}

#[test]
fn gold_is_as_the_generator_knows_it_in_five_orders_of_arrival() {
    let shop = std::env::var("TRUTH");
    let shop =
        shop.as_deref().unwrap_or("--events 8000 --days 8 --users 300 --seed 7 --late 0.1 --malformed 0.01");
    let shop = Generated::new(shop);
    let whole = fs::read(&shop.path).unwrap();
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let mut random = Random::new(19);
    let mut first = None;
    for order in 0..5 {
        let database = cluster::shared().database();
        if order > 0 {
            lines.sort_by_cached_key(|_| random.bits());
        }
        for part in lines.chunks(lines.len() / (order + 1) + 1) {
            let file = events::file(&part.concat());
            tidemark(&["load", file.to_str().unwrap()]).database(&database.loader_url()).run().read_all();
            maintain(&database);
        }
        let found = |sql: &str| database.number(sql) as u64;
        assert_eq!(found("SELECT count(*) FROM silver.events"), shop.number("events"));
        assert_eq!(found("SELECT count(*) FROM gold.sessions"), shop.number("sessions"));
        assert_eq!(found("SELECT count(DISTINCT person) FROM gold.sessions"), shop.number("persons"));
        assert_eq!(found("SELECT count(DISTINCT person) FROM gold.person_days"), shop.number("persons"));
        let as_sent = found("SELECT count(DISTINCT person) FROM silver.events");
        assert!(as_sent > shop.number("persons"), "{as_sent}: nobody logged in");
        let gold = gold(&database);
        match first.as_ref() {
            None => first = Some(gold),
            Some(same) => assert_eq!(same, &gold, "order {order}"),
        }
    }
}
