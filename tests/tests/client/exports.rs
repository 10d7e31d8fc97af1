//! Exports of other systems, from the file to the channels of sessions: what comes of the samples in `tests/exports` is
//! what a script beside them counts without any of our code. What each mapping was tested on, its file says.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidemark_tests::cluster;
use tidemark_tests::events::assert_books;
use tidemark_tests::process::{Counts, tidemark};

use super::warehouse::maintain;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("exports")
}

/// What the script counts, system by system.
fn counted() -> Vec<Value> {
    let script = samples().join("count.py");
    let output = Command::new("python3").arg(&script).output().expect("python3 runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {errors}", script.display());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is in the warehouse, in the words of the script.
const FOUND: &str = "SELECT jsonb_build_object(
    'rows', (SELECT count(*) FROM silver.events),
    'page_views', (SELECT count(*) FROM silver.page_views),
    'purchases', (SELECT coalesce(jsonb_agg(p.text ORDER BY p.text COLLATE \"C\"), '[]')
                    FROM (SELECT CASE WHEN revenue IS NULL THEN 'None' ELSE concat_ws(' ', order_id,
                                 trim_scale(revenue), currency, coalesce(items::text, 'None')) END AS text
                            FROM silver.purchases) AS p),
    'persons', (SELECT count(DISTINCT known_person) FROM silver.events),
    'sessions', (SELECT count(*) FROM gold.sessions),
    'channels', (SELECT jsonb_object_agg(c.channel, c.n)
                   FROM (SELECT channel, count(*) AS n FROM gold.sessions GROUP BY 1) AS c))";

#[test]
fn exports_of_other_systems_mean_what_a_script_counts_in_them() {
    let mut systems = counted();
    assert!(systems.len() >= 12, "only {} systems", systems.len());
    for expected in &mut systems {
        let expected = expected.as_object_mut().unwrap();
        let system = expected.remove("system").unwrap().as_str().unwrap().to_owned();
        let mapping = system.split(' ').next().unwrap();
        let database = cluster::shared().database();
        // A server's log does not say whose it is.
        database.rows("SELECT silver.set_own_hosts('{shop.example}')");
        let (mut read, mut dead) = (0, 0);
        let mut promised = String::new();
        for file in expected.remove("files").unwrap().as_array().unwrap() {
            let words: Vec<&str> =
                file.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            let path = samples().join(words[0]);
            let path = path.to_str().unwrap();
            let arguments = [&["inspect", path], &words[1..]].concat();
            let seen = tidemark(&arguments).run().ok().stdout;
            let first = seen.lines().next().unwrap();
            assert!(first.contains(&format!(", as {mapping}:")), "{system}: {first}");
            assert!(!seen.contains("would be dead letters"), "{system}: {seen}");
            let silver = seen.lines().find(|line| line.contains("silver.events finds ")).unwrap();
            promised += silver.split("finds none").next().and_then(|l| l.split(", and no").next()).unwrap();
            let arguments = [&["load", path, "--mapping", mapping], &words[1..]].concat();
            // The script counts addresses.
            let load = tidemark(&arguments).env("TIDEMARK__ENRICH__ADDRESSES", "keep");
            let finished = load.database(&database.loader_url()).run().ok();
            let counts: Counts = finished.counts();
            assert!(counts.duplicate + counts.loaded > 0, "{system}");
            (read, dead) = (read + counts.loaded + counts.duplicate, dead + counts.dead);
        }
        assert_eq!(dead, 0, "{system}");
        assert_eq!(Some(&Value::from(read)), expected.remove("read").as_ref(), "{system}: events read");
        maintain(&database);
        assert_books(&database);
        let found: Value = serde_json::from_str(&database.value(FOUND)).unwrap();
        assert_eq!(found, Value::Object(expected.clone()), "{system}");
        for (name, column) in [
            ("page", "coalesce(page_path, page_url)"),
            ("referrer", "referrer"),
            ("platform", "platform"),
            ("device", "device"),
            ("country", "country"),
        ] {
            let there = database.number(&format!("SELECT count({column}) FROM silver.events")) > 0;
            let said = promised.contains(&format!("{name} "));
            assert_eq!(said, there, "{system}: {name} of {promised}");
        }
        let views = "SELECT sum(page_views) FROM gold.sessions";
        assert_eq!(Some(&Value::from(database.number(views))), expected.get("page_views"), "{system}");
    }
}
