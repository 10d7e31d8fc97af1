//! That the test of the pages notices what is wrong: with a block, a tag, a comparison, a link.

use tidemark_tests::cluster::Cluster;
use tidemark_tests::docs::{self, Place};

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

<!-- file: lines.txt -->
```json
{\"n\": 1}
```

```sh
psql -Atc 'SELECT a FROM t' && cat lines.txt
```

```text
1
{\"n\": 2}
```

```console
$ number=3
$ cat <<EOF
> one
> EOF
two
$ echo \"$number\"
3
```

<!-- not run: needs a moon -->
```sh
launch
```

<!-- not compared: chance -->
```sh
echo $RANDOM
```

```sh
echo seen by nobody
```

```console
$ false
```

```console error
$ echo 1
1
$ make something
make does not run in the tests of the pages; tag the block: <!-- not run: WHY -->
```
";

#[test]
fn a_wrong_page_is_noticed_and_rewritten() {
    let cluster = Cluster::start("docs-self");
    let database = cluster.empty_database();
    let outcome = docs::check("page", PAGE, &Place::new("page", &database));
    assert_eq!((outcome.sql, outcome.commands, outcome.compared, outcome.files), (5, 6, 5, 1));
    assert_eq!(outcome.not_run, [("page:57".to_owned(), "needs a moon".to_owned())]);
    assert_eq!(outcome.not_compared, [("page:62".to_owned(), "chance".to_owned())]);
    let beginnings = [
        "page:10: the output differs",
        "page:28: the block fails",
        "page:37: the output differs",
        "page:46: the output differs",
        "page:66: the block prints, but no output follows it",
        "page:70: the block fails",
    ];
    assert_eq!(outcome.failures.len(), beginnings.len(), "{:#?}", outcome.failures);
    for (failure, beginning) in outcome.failures.iter().zip(beginnings) {
        assert!(failure.starts_with(beginning), "{failure}");
    }
    // The DELETE was rolled back, so there is a row. Outputs are corrected, everything else stays.
    let right = PAGE.replace("\n 2\n", "\n 1\n").replace("\": 2", "\": 1").replace("\ntwo\n", "\none\n");
    assert_eq!(outcome.updated, right);
}

#[test]
fn a_block_that_would_be_passed_over_is_an_error() {
    for (page, message) in [
        ("```sql kepe\n```\n", "unknown tag kepe"),
        ("```sql\nSELECT 1;\n", "never ends"),
        ("```sql no-run\n```\n", "no-run without a reason"),
        ("* a list\n  ```sh\n  ls\n  ```\n", "line 2: a block that is indented"),
        ("```bash\nls\n```\n", "bash is neither"),
        ("<!-- not run: why -->\n\n```sh\n```\n", "line 1: a tag that is not right above a block"),
        ("<!-- not run: why -->\n", "a tag of no block"),
        ("<!-- file: x -->\n```sh\n```\n", "cannot be the file x"),
    ] {
        let said = docs::parse(page).unwrap_err();
        assert!(said.contains(message), "{page:?}: {said}");
    }
}

#[test]
fn only_what_varies_may_differ() {
    let now = std::process::Command::new("date").args(["-u", "+%FT%TZ %F %T"]).output().unwrap();
    let now = String::from_utf8(now.stdout).unwrap();
    let words: Vec<&str> = now.split_whitespace().collect();
    let (moment, date_and_time) = (words[0], format!("{} {}", words[1], words[2]));
    for (written, printed) in [
        ("at  2020-01-01T00:00:00Z", format!("at {moment}")),
        ("at 2020-01-01 00:00:00 file", format!("at {date_and_time} file")),
        ("0.6 seconds, 36031 events/s", "12 seconds, 1.5 events/s".to_owned()),
        ("one\ntwo", "one\nloaded 5 of 9 lines, 0 dead letters, 3 events/s\ntwo".to_owned()),
        ("at 127.0.0.1:54329.", "at 127.0.0.1:5.".to_owned()),
        ("tidemark 0.1.0", "tidemark 0.2.11".to_owned()),
    ] {
        assert!(docs::alike(written, &printed), "{written} and {printed} should be alike");
    }
    for (written, printed) in [
        ("at 2020-01-01T00:00:00Z", "at 2020-01-02T00:00:00Z"),
        ("loaded 3 + dead 1", "loaded 2 + dead 1"),
        ("on 2026-09-01", "on 2026-09-02"),
        ("one", "one\ntwo"),
        ("a b", "a"),
        ("postgres 15.1.2", "postgres 15.1.3"),
    ] {
        assert!(!docs::alike(written, printed), "{written} and {printed} should not be alike");
    }
}

#[test]
fn links_and_anchors_are_followed() {
    let page = "# One `two`: three\n## A\n## A\n```text\n# no heading\n[no](link.md)\n```\n`[no](code.md)`\n";
    assert_eq!(docs::anchors(page), ["one-two-three", "a", "a-1"]);
    let root = std::env::temp_dir().join(format!("tidemark-links-{}", std::process::id()));
    std::fs::create_dir_all(root.join("docs")).unwrap();
    let (one, two) = (root.join("one.md"), root.join("docs/two.md"));
    std::fs::write(&one, page).unwrap();
    std::fs::write(&two, "[a](../one.md#a-1) [b](../one.md#b) [`c`](gone.md)\n[e](https://example.com/)\n")
        .unwrap();
    let links = docs::check_links(&root, &[one, two]);
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!((links.followed, links.external), (2, 1));
    assert_eq!(
        links.failures,
        ["docs/two.md:1: one.md has no heading #b", "docs/two.md:1: gone.md does not exist"]
    );
}
