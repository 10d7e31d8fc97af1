//! The promise to whoever writes queries: what `extension/stable.txt` lists stays, with its argument names, types and
//! defaults. `UPDATE_STABLE=1` adds what is new; what a released version had can only be taken away by hand.

use std::collections::BTreeMap;

use tidemark_tests::root;

/// All of the schema `tidemark`: what people call and read. What these need in turn is in `tidemark_internal`.
const PUBLIC: &str = "
    SELECT CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window function' WHEN 'p' THEN 'procedure'
               ELSE 'function' END
           || format(' tidemark.%s(%s)', p.proname, pg_get_function_arguments(p.oid))
               || coalesce(' -> ' || pg_get_function_result(p.oid), '')
      FROM pg_proc AS p
     WHERE p.pronamespace = 'tidemark'::regnamespace
    UNION
    SELECT format('view tidemark.%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind = 'v'
    UNION
    SELECT format('type tidemark.%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind = 'c'
    UNION
    SELECT format('type tidemark.%s', t.typname) FROM pg_type AS t
     WHERE t.typnamespace = 'tidemark'::regnamespace AND obj_description(t.oid, 'pg_type') IS NOT NULL
    UNION
    SELECT format('operator %s -> %s', o.oid::regoperator, o.oprresult::regtype) FROM pg_operator AS o
     WHERE o.oprnamespace = 'tidemark'::regnamespace
    UNION
    SELECT format('cast %s -> %s', c.castsource::regtype, c.casttarget::regtype) FROM pg_cast AS c
      JOIN pg_type AS t ON t.oid IN (c.castsource, c.casttarget)
     WHERE t.typnamespace = 'tidemark'::regnamespace
    ORDER BY 1";

const HEADER: &str = "\
# What stays: each line is the version since when, and a thing that queries may rely on, with the names and the defaults
# of its arguments. The tests compare the list with the schema `tidemark`; UPDATE_STABLE=1 adds what is new.
";

#[test]
fn what_is_listed_as_stable_is_there_and_the_other_way_round() {
    let path = root().join("extension/stable.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut listed: BTreeMap<String, String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(since, what)| (what.to_owned(), since.to_owned()))
        .collect();
    let version = super::current();
    let there = super::installed(&version).column(PUBLIC);
    assert!(there.len() > 100, "only {}", there.len());

    if std::env::var("UPDATE_STABLE").is_ok_and(|v| v == "1") {
        let frozen =
            std::fs::read_to_string(root().join("extension/released.sha256")).expect("the list of releases");
        let released = frozen.contains(&format!("tidemark--{version}.sql"));
        listed.retain(|what, since| there.contains(what) || *since != version || released);
        for what in &there {
            listed.entry(what.clone()).or_insert_with(|| version.clone());
        }
        let lines: Vec<String> = listed.iter().map(|(what, since)| format!("{since} {what}\n")).collect();
        std::fs::write(&path, HEADER.to_owned() + &lines.concat()).expect("cannot write the list");
    }
    let gone: Vec<_> = listed.keys().filter(|what| !there.contains(what)).collect();
    assert!(gone.is_empty(), "promised, and gone or changed: {gone:#?}");
    let new: Vec<_> = there.iter().filter(|what| !listed.contains_key(*what)).collect();
    assert!(new.is_empty(), "not in extension/stable.txt (UPDATE_STABLE=1 adds it): {new:#?}");
    println!("{} stable names, signatures and columns", listed.len());
}
