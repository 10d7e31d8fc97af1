//! Every SQL block and every block of commands of README.md, CONTRIBUTING.md and docs/ runs, and prints what the page
//! says; every link leads somewhere. `UPDATE_DOCS=1` rewrites outputs instead (read the diff), `DOCS=name` restricts
//! the run to pages whose name contains this. What a block may look like is in `tidemark_tests::docs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use tidemark_tests::broker;
use tidemark_tests::cluster::{Cluster, Database};
use tidemark_tests::docs::{self, Outcome, Place};
use tidemark_tests::events::Generated;
use tidemark_tests::process::{shop, tidemark};

#[path = "docs/itself.rs"]
mod itself;

/// The arguments of the shop that pages with `<!-- database: shop -->` find loaded. README.md names them.
const SHOP: &str = "--events 20000 --days 30 --users 500 --seed 42";

/// The file with these events.
fn events() -> &'static str {
    static EVENTS: OnceLock<Generated> = OnceLock::new();
    EVENTS.get_or_init(|| Generated::new(SHOP)).path.to_str().expect("a path in UTF-8")
}

/// What most pages begin with, made once and copied.
struct Templates<'a> {
    cluster: &'a Cluster,
    migrated: OnceLock<Database<'a>>,
    shop: OnceLock<Database<'a>>,
}

impl<'a> Templates<'a> {
    fn new(cluster: &'a Cluster) -> Templates<'a> {
        Templates { cluster, migrated: OnceLock::new(), shop: OnceLock::new() }
    }

    fn migrated(&self) -> &Database<'a> {
        self.migrated.get_or_init(|| self.cluster.database())
    }

    fn shop(&self) -> &Database<'a> {
        self.shop.get_or_init(|| {
            let shop = self.cluster.copy_of(self.migrated());
            tidemark(&["load", events()]).database(&shop.superuser_url()).run().ok();
            tidemark(&["maintain"]).database(&shop.superuser_url()).run().ok();
            shop
        })
    }

    /// Brokers with the topic `events`.
    fn brokers() -> &'static str {
        static BROKERS: OnceLock<&str> = OnceLock::new();
        BROKERS.get_or_init(|| {
            let brokers = broker::shared().address.as_str();
            shop(&["produce", events(), "--brokers", brokers, "--topic", "events"]).run().ok();
            brokers
        })
    }

    fn database(&self, name: &str, page: &str) -> Database<'a> {
        match docs::wanted_database(page) {
            Some("migrated") => self.cluster.copy_of(self.migrated()),
            Some("shop") => self.cluster.copy_of(self.shop()),
            Some("empty") => self.cluster.empty_database(),
            Some(other) => panic!("{name} wants a database that nobody knows: {other}"),
            None => {
                let database = self.cluster.empty_database();
                let sql = "CREATE EXTENSION tidemark";
                database.connect().batch_execute(sql).expect("cannot create the extension");
                database
            }
        }
    }
}

#[test]
fn the_pages_say_what_the_server_says() {
    let started = Instant::now();
    let update = std::env::var("UPDATE_DOCS").is_ok_and(|v| v == "1");
    let only = std::env::var("DOCS").unwrap_or_default();
    let pages: Vec<(String, PathBuf)> =
        docs::pages().into_iter().filter(|(name, _)| name.contains(&only)).collect();
    assert!(!pages.is_empty(), "no page has {only} in its name");
    let cluster = Cluster::start("docs");
    let templates = Templates::new(&cluster);
    let outcomes: Mutex<BTreeMap<&str, Outcome>> = Mutex::default();
    let next = AtomicUsize::new(0);
    // Most of the time is spent waiting for psql to start and end.
    std::thread::scope(|scope| {
        if pages
            .iter()
            .any(|(_, path)| std::fs::read_to_string(path).is_ok_and(|page| docs::wants_kafka(&page)))
        {
            scope.spawn(Templates::brokers);
        }
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, path)) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(name, path, &templates, update);
                    outcomes.lock().unwrap().insert(name, outcome);
                }
            });
        }
    });
    let mut all = Outcome::default();
    for (name, outcome) in outcomes.into_inner().unwrap() {
        println!(
            "{name}: {} SQL and {} command blocks ran, {} outputs compared",
            outcome.sql, outcome.commands, outcome.compared
        );
        all.add(outcome);
    }
    for (what, blocks) in [("not run", &all.not_run), ("run, not compared", &all.not_compared)] {
        for (place, reason) in blocks {
            println!("  {what}: {place}: {reason}");
        }
    }
    println!(
        "docs: {} blocks ran ({} SQL, {} of commands), {} outputs compared, {} run and not compared, {} not run, \
         {} files written, {} excerpts found in their files, {} wrong, in {:.0} s",
        all.sql + all.commands,
        all.sql,
        all.commands,
        all.compared,
        all.not_compared.len(),
        all.not_run.len(),
        all.files,
        all.excerpts,
        all.failures.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(all.failures.is_empty(), "{}", all.failures.join("\n\n"));
    assert!(all.compared > 0 || !only.is_empty(), "no output was compared: is docs/ empty?");
}

fn run(name: &str, path: &Path, templates: &Templates<'_>, update: bool) -> Outcome {
    let page = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {name}: {e}"));
    let database = templates.database(name, &page);
    let mut place = Place::new(name, &database);
    if docs::wants_kafka(&page) {
        place = place.with_brokers(Templates::brokers());
    }
    let mut outcome = docs::check(name, &page, &place);
    if update && outcome.updated != page {
        std::fs::write(path, &outcome.updated).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
        outcome.failures.retain(|failure| !failure.contains("UPDATE_DOCS=1"));
    }
    outcome
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files = docs::markdown_files();
    let links = docs::check_links(root, &files);
    println!(
        "docs: {} links in {} files followed, {} to other hosts are not",
        links.followed,
        files.len(),
        links.external
    );
    assert!(links.failures.is_empty(), "{}", links.failures.join("\n"));
    assert!(links.followed > 0, "no link was found");
    let index = links.targets.get(Path::new("docs/index.md")).expect("docs/index.md links to nothing");
    for (name, _) in docs::pages() {
        let listed =
            !name.starts_with("docs/") || name == "docs/index.md" || index.contains(&PathBuf::from(&name));
        assert!(listed, "docs/index.md does not link to {name}");
    }
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
    let names = database.column(
        "SELECT DISTINCT p.proname::text FROM pg_proc p
          WHERE p.pronamespace = 'tidemark'::regnamespace
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
