//! Documentation as tests: finds the SQL blocks of a Markdown page, runs them with psql and compares what psql prints
//! with the block that follows. Which pages there are, and the server, is up to `tests/docs.rs`.
//!
//! A block is a fence that opens with ```` ```sql ````, and tags behind it:
//!
//! * `no-run`: not run;
//! * `no-compare`: run, its output is not looked at (it must not fail, though);
//! * `keep`: run outside a transaction; every other block is rolled back at its end;
//! * `error`: must fail; every other block must not.
//!
//! A fence without a language, or with `text`, that follows a SQL block with nothing but empty lines between them is its
//! output. Set-up that readers need not see is a block inside an HTML comment.
//!
//! A page gets an empty database with the extension, unless it creates that itself; one with the comment
//! `<!-- database: migrated -->` gets the whole warehouse.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::server;

const TAGS: [&str; 4] = ["no-run", "no-compare", "keep", "error"];

/// A SQL block and where its output stands. Lines count from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence.
    pub line: usize,
    /// Line of the closing fence.
    pub end: usize,
    tags: Vec<String>,
    sql: String,
    /// Lines of the fences around the output, if there is one.
    output: Option<(usize, usize)>,
}

impl Block {
    fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|t| t == tag)
    }
}

/// What became of the blocks of a page.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Blocks that were run.
    pub ran: usize,
    /// Blocks whose output was compared.
    pub compared: usize,
    /// What is wrong, each with file and line.
    pub failures: Vec<String>,
    /// The page with every output as it came out this time.
    pub updated: String,
}

/// The SQL blocks of a page, in order; or what is wrong with its fences.
pub fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let lines: Vec<&str> = page.lines().collect();
    let mut blocks: Vec<Block> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(info) = lines[at].strip_prefix("```") else {
            at += 1;
            continue;
        };
        let end = (at + 1..lines.len())
            .find(|&i| lines[i].trim_end() == "```")
            .ok_or_else(|| format!("line {}: the block never ends", at + 1))?;
        let mut words = info.split_whitespace();
        match words.next() {
            Some("sql") => {
                let tags: Vec<String> = words.map(str::to_owned).collect();
                if let Some(tag) = tags.iter().find(|t| !TAGS.contains(&t.as_str())) {
                    return Err(format!("line {}: unknown tag {tag}", at + 1));
                }
                blocks.push(Block { line: at, end, tags, sql: lines[at + 1..end].join("\n"), output: None });
            }
            None | Some("text") => {
                if let Some(block) = blocks.last_mut()
                    && block.output.is_none()
                    && lines[block.end + 1..at].iter().all(|line| line.trim().is_empty())
                {
                    block.output = Some((at, end));
                }
            }
            Some(_) => {}
        }
        at = end + 1;
    }
    Ok(blocks)
}

/// Runs the blocks of a page in the database behind `url`, in order, and compares their output.
pub fn check(name: &str, page: &str, url: &str, psql: &Path) -> Outcome {
    let mut outcome = Outcome::default();
    let blocks = match blocks(page) {
        Ok(blocks) => blocks,
        Err(e) => {
            outcome.failures.push(format!("{name}: {e}"));
            outcome.updated = page.to_owned();
            return outcome;
        }
    };
    let lines: Vec<&str> = page.lines().collect();
    let mut updated: Vec<String> = Vec::new();
    let mut copied = 0;
    for block in blocks.iter().filter(|b| !b.has("no-run")) {
        let place = format!("{name}:{}", block.line + 1);
        let (printed, failed) = run(block, url, psql);
        outcome.ran += 1;
        if failed != block.has("error") {
            let expected = if failed { "fails" } else { "should fail and does not" };
            outcome.failures.push(format!("{place}: the block {expected}\n{printed}"));
            continue;
        }
        if block.has("no-compare") {
            continue;
        }
        let Some((open, close)) = block.output else {
            // A block that prints nothing needs no output.
            if !printed.is_empty() {
                outcome
                    .failures
                    .push(format!("{place}: the block prints, but no output follows it\n{printed}"));
            }
            continue;
        };
        outcome.compared += 1;
        let written = trimmed(&lines[open + 1..close]);
        if written != printed {
            outcome.failures.push(format!(
                "{place}: the output differs; UPDATE_DOCS=1 rewrites it\n--- written\n{written}\n--- printed\n{printed}"
            ));
        }
        updated.extend(lines[copied..=open].iter().map(|&line| line.to_owned()));
        updated.extend(printed.lines().map(str::to_owned));
        copied = close;
    }
    updated.extend(lines[copied..].iter().map(|&line| line.to_owned()));
    outcome.updated = updated.join("\n") + "\n";
    outcome
}

/// What psql prints for a block, errors behind results, and whether it failed.
fn run(block: &Block, url: &str, psql: &Path) -> (String, bool) {
    let script = if block.has("keep") {
        format!("{}\n", block.sql)
    } else {
        format!("BEGIN;\n{}\n;\nROLLBACK;\n", block.sql)
    };
    let mut child = Command::new(psql)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "SHOW_CONTEXT=never"])
        .args(["-P", "pager=off", "-P", "border=1", "-P", "linestyle=ascii", "-d", url])
        .env("PGTZ", "UTC")
        .env("PGDATESTYLE", "ISO, YMD")
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGOPTIONS", "-c client_min_messages=warning -c intervalstyle=postgres -c extra_float_digits=1")
        .env("LC_ALL", "C.UTF-8")
        // So that a page can show \i sql/dashboards/...
        .current_dir(server::root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", psql.display()));
    // A block is far smaller than the buffer of a pipe, so this cannot wait for output to be read.
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("psql stopped reading");
    let output = child.wait_with_output().expect("cannot wait for psql");
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (trimmed(&printed.lines().collect::<Vec<_>>()), !output.status.success())
}

/// Without blanks at the ends of lines, which editors remove, and without empty lines around.
fn trimmed(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// `README.md` and the pages of `docs/`, with their names.
pub fn pages() -> Vec<(String, PathBuf)> {
    let root = server::root();
    let mut pages = vec![("README.md".to_owned(), root.join("README.md"))];
    let folder = std::fs::read_dir(root.join("docs")).expect("cannot read docs/");
    for entry in folder {
        let path = entry.expect("cannot read docs/").path();
        if path.extension().is_some_and(|e| e == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            pages.push((format!("docs/{name}"), path.clone()));
        }
    }
    pages.sort();
    pages
}
