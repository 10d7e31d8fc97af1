//! Every SQL block of README.md and docs/*.md runs, and prints what the page says. `UPDATE_DOCS=1` rewrites the pages
//! instead; read the diff. What a block may look like is in `tidemark_tests::docs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use tidemark_tests::cluster::{Cluster, program};
use tidemark_tests::docs;

const PAGE: &str = "\
```sql keep
CREATE TABLE t (a integer);
INSERT INTO t VALUES (1);
```

```sql
DELETE FROM t;
```

```sql
SELECT a FROM t;
```

```text
 a
---
 2
(1 row)
```

```sql error
SELECT 1/0;
```
```
ERROR:  division by zero
```

```sql
SELECT b FROM t;
```
";

#[test]
fn a_wrong_page_is_noticed_and_rewritten() {
    let cluster = Cluster::start("docs-self");
    let psql = program("psql");
    let database = cluster.empty_database();
    let first = docs::check("page", PAGE, &database.superuser_url(), &psql);
    assert_eq!((first.ran, first.compared), (5, 2));
    assert_eq!(first.failures.len(), 2, "{:?}", first.failures);
    assert!(first.failures[0].starts_with("page:10: the output differs"), "{}", first.failures[0]);
    assert!(first.failures[1].starts_with("page:28: the block fails"), "{}", first.failures[1]);
    // The DELETE was rolled back, so there is a row; its value is corrected, everything else stays.
    assert_eq!(first.updated, PAGE.replace("\n 2\n", "\n 1\n"));

    assert!(docs::blocks("```sql kepe\n```\n").unwrap_err().contains("unknown tag kepe"));
    assert!(docs::blocks("```sql\nSELECT 1;\n").unwrap_err().contains("never ends"));
}

#[test]
fn the_pages_say_what_the_server_says() {
    let update = std::env::var("UPDATE_DOCS").is_ok_and(|v| v == "1");
    let only = std::env::var("DOCS").ok();
    let cluster = Cluster::start("docs");
    let psql = program("psql");
    let (mut ran, mut compared, mut failures) = (0, 0, Vec::new());
    for (name, path) in docs::pages() {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {name}: {e}"));
        let database = cluster.empty_database();
        if page.contains("<!-- database: migrated -->") {
            database.migrate();
        } else if !page.contains("CREATE EXTENSION tidemark") {
            database
                .connect()
                .batch_execute("CREATE EXTENSION tidemark")
                .expect("cannot create the extension");
        }
        let outcome = docs::check(&name, &page, &database.superuser_url(), &psql);
        println!("{name}: {} blocks ran, {} outputs compared", outcome.ran, outcome.compared);
        ran += outcome.ran;
        compared += outcome.compared;
        if update && outcome.updated != page {
            std::fs::write(&path, &outcome.updated).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
        }
        failures.extend(outcome.failures.into_iter().filter(|f| !(update && f.contains("UPDATE_DOCS=1"))));
    }
    println!("docs: {ran} blocks ran, {compared} outputs compared, {} wrong", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(ran > 0 && compared > 0, "no block was run: is docs/ empty?");
}

#[test]
fn every_public_function_and_type_is_described() {
    let cluster = Cluster::start("docs-names");
    let database = cluster.empty_database();
    database.connect().batch_execute("CREATE EXTENSION tidemark").expect("cannot create the extension");
    let text: String = docs::pages()
        .iter()
        .map(|(_, path)| std::fs::read_to_string(path).expect("cannot read a page"))
        .collect();
    // Support functions and those behind types and other functions say so in their comments.
    let names = database.column(
        "SELECT DISTINCT p.proname::text FROM pg_proc p
          WHERE p.pronamespace = 'tidemark'::regnamespace
            AND obj_description(p.oid, 'pg_proc') !~ '^(Support function|Part of|(Text|Binary) (in|out)put|The work behind|Creates the missing daily partitions with the rights|The name of the column a table is range-partitioned by)'
         UNION
         SELECT t.typname::text FROM pg_type t
          WHERE t.typnamespace = 'tidemark'::regnamespace AND obj_description(t.oid, 'pg_type') IS NOT NULL
         UNION
         SELECT c.relname::text FROM pg_class c
          WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind = 'v'
          ORDER BY 1",
    );
    assert!(names.len() > 40, "only {} names: {names:?}", names.len());
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == **name))
        .collect();
    assert!(missing.is_empty(), "no page mentions {missing:?}");
    println!("docs: {} public names, all of them mentioned", names.len());
}
