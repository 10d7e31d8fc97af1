//! Documentation as tests: the SQL and the commands of a Markdown page run, and what they print is compared with what
//! the page says. Which pages there are, and what is counted, is up to `tests/docs.rs`.
//!
//! # What runs
//!
//! | fence | runs |
//! |---|---|
//! | ```` ```sql ```` | with psql, in a transaction that is rolled back at the end of the block |
//! | ```` ```sh ```` | with `bash -eu`; standard error and standard output together are its output |
//! | ```` ```console ```` | each line that begins with `$ `, with the lines behind it that begin with `> `; what stands below it in the same block is its output |
//!
//! A fence without a language, or with `text`, that follows a `sql` or `sh` block with nothing but empty lines between
//! them is its output. A block without one must print nothing. Other languages (`json`, `toml`, `yaml`) are data; an
//! unknown one is an error, and so is a fence that is indented, because it would be passed over in silence.
//!
//! # Tags
//!
//! Behind the language: `keep` (SQL, not rolled back) and `error` (must fail; every other block must not). In a comment
//! on a line of its own right above the fence:
//!
//! * `<!-- not run: REASON -->`: cannot run in a test;
//! * `<!-- not compared: REASON -->`: runs and must not fail, what it prints is not looked at;
//! * `<!-- file: NAME -->`: a data block that is written into the working directory of the page;
//! * `<!-- from: PATH -->`: lines of a file of the repository, in any language. They are not run, but must still stand
//!   there.
//!
//! Set-up that readers need not see is a block inside an HTML comment.
//!
//! # Where it runs
//!
//! A page has a database of its own, chosen by a comment: `<!-- database: empty -->`, `migrated` (the whole warehouse)
//! or `shop` (with the small generated shop loaded, see `tests/docs.rs`); without one it is empty but for the
//! extension. `TIDEMARK_DATABASE_URL` and the variables of libpq lead there, as the superuser. With
//! `<!-- kafka: shop -->` there is also a Kafka, in `TIDEMARK_BROKERS`, whose topic `events` has the events of the
//! shop. `tidemark` and Postgres' programs are on PATH. The working directory is empty but for links to what the
//! repository holds at its top.

mod blocks;
mod compare;
mod links;
mod run;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use blocks::{Block, Kind, parse};
pub use compare::alike;
pub use links::{anchors, check_links, markdown_files};

use crate::cluster::{self, Database};
use crate::{process, server};

/// What became of the blocks of a page.
#[derive(Debug, Default)]
pub struct Outcome {
    /// SQL blocks that were run.
    pub sql: usize,
    /// Blocks of commands that were run.
    pub commands: usize,
    /// Blocks whose output was compared.
    pub compared: usize,
    /// Data blocks that were written to files.
    pub files: usize,
    /// Blocks that were found in the file that they are from.
    pub excerpts: usize,
    /// Blocks that were not run: place and reason.
    pub not_run: Vec<(String, String)>,
    /// Blocks that were run and not compared: place and reason.
    pub not_compared: Vec<(String, String)>,
    /// What is wrong, each with file and line.
    pub failures: Vec<String>,
    /// The page with every output as it came out this time.
    pub updated: String,
}

impl Outcome {
    /// Adds the numbers and lists of another page.
    pub fn add(&mut self, other: Outcome) {
        self.sql += other.sql;
        self.commands += other.commands;
        self.compared += other.compared;
        self.files += other.files;
        self.excerpts += other.excerpts;
        self.not_run.extend(other.not_run);
        self.not_compared.extend(other.not_compared);
        self.failures.extend(other.failures);
    }
}

/// Where the blocks of a page run.
pub struct Place {
    directory: PathBuf,
    /// Holds links to the binaries `tidemark` and `tidemark-shop`.
    bin: &'static Path,
    /// Holds Postgres' programs.
    postgres: PathBuf,
    address: String,
    database: String,
    password: String,
    brokers: Option<String>,
}

/// Programs that change the machine or take minutes. In a page's PATH stands a stub in their place, so that a block
/// which nobody tagged fails at once instead of installing something.
const BARRED: [&str; 6] = ["make", "cargo", "apt-get", "sudo", "systemctl", "shutdown"];

/// What of the repository the working directory of a page has links to.
const LINKED: [&str; 9] =
    ["Makefile", "dbt", "docs", "extension", "migrations", "packaging", "scripts", "sql", "tests"];

/// A directory with a link to the binary and the stubs.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let bin = server::scratch().join("bin");
        std::fs::create_dir_all(&bin).expect("cannot create a directory for programs");
        link(&process::binary(), &bin.join("tidemark"));
        link(&process::shop_binary(), &bin.join("tidemark-shop"));
        let stub = bin.join("barred");
        let text = concat!(
            "#!/bin/sh\n",
            "echo \"${0##*/} does not run in the tests of the pages; tag the block: <!-- not run: WHY -->\"\n",
            "exit 99\n"
        );
        std::fs::write(&stub, text).expect("cannot write a stub");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&stub, executable).expect("cannot make a stub executable");
        for name in BARRED {
            link(&stub, &bin.join(name));
        }
        bin
    })
}

fn link(to: &Path, name: &Path) {
    std::os::unix::fs::symlink(to, name).unwrap_or_else(|e| panic!("cannot link {}: {e}", name.display()));
}

impl Place {
    /// A working directory for a page and its database.
    pub fn new(page: &str, database: &Database<'_>) -> Place {
        let directory = server::scratch().join("pages").join(page);
        std::fs::create_dir_all(&directory).expect("cannot create the directory of a page");
        for name in LINKED.into_iter().filter(|name| server::root().join(name).exists()) {
            link(&server::root().join(name), &directory.join(name));
        }
        let psql = cluster::program("psql");
        Place {
            directory,
            bin: programs(),
            postgres: psql.parent().expect("psql is in a directory").to_owned(),
            address: database.cluster.address.clone(),
            database: database.name.clone(),
            password: database.cluster.password().to_owned(),
            brokers: None,
        }
    }

    /// The same with a Kafka, for `TIDEMARK_BROKERS`.
    pub fn with_brokers(mut self, brokers: &str) -> Place {
        self.brokers = Some(brokers.to_owned());
        self
    }
}

impl Drop for Place {
    /// Ends servers that a page started and, having failed, left.
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.directory.join(".run")).into_iter().flatten().flatten() {
            if entry.path().join("port").exists() {
                let script = server::root().join("scripts/pg.sh");
                let _ = std::process::Command::new(script).arg("destroy").arg(entry.path()).output();
            }
        }
    }
}

/// Runs the blocks of a page in order and compares their output.
pub fn check(name: &str, page: &str, place: &Place) -> Outcome {
    let mut outcome = Outcome { updated: page.to_owned(), ..Outcome::default() };
    let blocks = match parse(page) {
        Ok(blocks) => blocks,
        Err(e) => {
            outcome.failures.push(format!("{name}: {e}"));
            return outcome;
        }
    };
    let lines: Vec<&str> = page.lines().collect();
    let mut updated: Vec<String> = Vec::new();
    let mut copied = 0;
    for block in &blocks {
        let at = format!("{name}:{}", block.line + 1);
        if let Some(reason) = &block.not_run {
            outcome.not_run.push((at, reason.clone()));
            continue;
        }
        match &block.kind {
            Kind::File(file) => {
                run::write(place, file, &block.text);
                outcome.files += 1;
                continue;
            }
            Kind::From(file) => {
                let source = std::fs::read_to_string(server::root().join(file)).unwrap_or_default();
                if !source.contains(&block.text) {
                    outcome.failures.push(format!("{at}: {file} does not have these lines"));
                }
                outcome.excerpts += 1;
                continue;
            }
            Kind::Sql => outcome.sql += 1,
            Kind::Sh | Kind::Console => outcome.commands += 1,
        }
        let (printed, failed) = run::block(block, place);
        if failed != block.error {
            let what = if failed { "fails" } else { "should fail and does not" };
            outcome.failures.push(format!("{at}: the block {what}\n{printed}"));
            continue;
        }
        if let Some(reason) = &block.not_compared {
            outcome.not_compared.push((at, reason.clone()));
            continue;
        }
        // The lines that hold what was printed when the page was written.
        let (open, close) = match (&block.kind, block.output) {
            (Kind::Console, _) => (block.line, block.end),
            (_, Some(fences)) => fences,
            (_, None) => {
                if !printed.is_empty() {
                    outcome
                        .failures
                        .push(format!("{at}: the block prints, but no output follows it\n{printed}"));
                }
                continue;
            }
        };
        outcome.compared += 1;
        let written = run::trimmed(&lines[open + 1..close]);
        let same = match block.kind {
            Kind::Sql => written == printed,
            _ => alike(&written, &printed),
        };
        if !same {
            outcome.failures.push(format!(
                "{at}: the output differs; UPDATE_DOCS=1 rewrites it\n--- written\n{written}\n--- printed\n{printed}"
            ));
            updated.extend(lines[copied..=open].iter().map(|&line| line.to_owned()));
            updated.extend(printed.lines().map(str::to_owned));
            copied = close;
        }
    }
    updated.extend(lines[copied..].iter().map(|&line| line.to_owned()));
    outcome.updated = updated.join("\n") + "\n";
    outcome
}

/// The comment that says which database a page wants.
pub fn wanted_database(page: &str) -> Option<&str> {
    page.lines().find_map(|line| line.strip_prefix("<!-- database: ")?.strip_suffix(" -->"))
}

/// Whether a page wants a Kafka.
pub fn wants_kafka(page: &str) -> bool {
    page.lines().any(|line| line == "<!-- kafka: shop -->")
}

/// `README.md`, `CONTRIBUTING.md` and all pages of `docs/`, with their names.
pub fn pages() -> Vec<(String, PathBuf)> {
    let root = server::root();
    markdown_files()
        .into_iter()
        .filter(|path| {
            let name = path.strip_prefix(&root).unwrap_or(path);
            name.starts_with("docs") || name == Path::new("README.md") || name == Path::new("CONTRIBUTING.md")
        })
        .map(|path| (path.strip_prefix(&root).unwrap_or(&path).display().to_string(), path))
        .collect()
}
