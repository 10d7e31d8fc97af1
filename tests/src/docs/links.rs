//! Whether the links of Markdown files lead somewhere: relative ones to a file that exists, anchors to a heading.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::server;

/// Directories that are no part of the documentation: builds, tools, data.
const SKIPPED: [&str; 8] =
    ["target", ".git", ".run", ".tools", "node_modules", "dbt_packages", ".venv", "venv"];

/// All Markdown files of the repository, sorted.
pub fn markdown_files() -> Vec<PathBuf> {
    fn visit(directory: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(directory);
        let entries = entries.unwrap_or_else(|e| panic!("cannot read {}: {e}", directory.display()));
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory && !SKIPPED.iter().any(|skipped| name == *skipped) {
                visit(&path, found);
            } else if !is_directory && path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&server::root(), &mut found);
    found.sort();
    found
}

/// The lines of a page that are text: not those inside blocks, and without code in backticks.
fn prose(page: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            found.push((number + 1, line.to_owned()));
        }
    }
    found
}

/// The anchors of a page as GitHub makes them: headings in lower case, blanks as hyphens, no other punctuation; the
/// second one of a name has -1 behind it.
pub fn anchors(page: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings = prose(page).into_iter().filter_map(|(_, line)| {
        let text = line.trim_start_matches('#');
        let level = line.len() - text.len();
        ((1..=6).contains(&level) && text.starts_with(' ')).then(|| text.trim().to_owned())
    });
    headings
        .map(|heading| {
            let anchor: String = heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let count = seen.entry(anchor.clone()).and_modify(|n| *n += 1).or_insert(0);
            if *count == 0 { anchor } else { format!("{anchor}-{count}") }
        })
        .collect()
}

/// The targets of `[text](target)`, with their lines.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(page) {
        // Every second part is between backticks.
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for part in text.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// What became of the links of all pages.
#[derive(Debug, Default)]
pub struct Links {
    /// Links inside the repository that were followed.
    pub followed: usize,
    /// Links to other hosts, which are not.
    pub external: usize,
    /// What is wrong, each with file and line.
    pub failures: Vec<String>,
    /// The files that each file links to, relative to the repository.
    pub targets: HashMap<PathBuf, Vec<PathBuf>>,
}

/// Follows the links of these files, which are below `root`.
pub fn check_links(root: &Path, files: &[PathBuf]) -> Links {
    let mut result = Links::default();
    for file in files {
        let page =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        let name = file.strip_prefix(root).unwrap_or(file);
        for (line, target) in links(&page) {
            if target.contains("://") || target.starts_with("mailto:") {
                result.external += 1;
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to =
                if path.is_empty() { file.clone() } else { plain(&file.parent().unwrap_or(root).join(path)) };
            let to_name = to.strip_prefix(root).unwrap_or(&to).to_owned();
            let at = format!("{}:{line}", name.display());
            if !to.exists() {
                result.failures.push(format!("{at}: {target} does not exist"));
                continue;
            }
            result.followed += 1;
            if !anchor.is_empty() {
                let page = std::fs::read_to_string(&to).unwrap_or_default();
                if !anchors(&page).iter().any(|a| a == anchor) {
                    result.failures.push(format!("{at}: {} has no heading #{anchor}", to_name.display()));
                }
            }
            result.targets.entry(name.to_owned()).or_default().push(to_name);
        }
    }
    result
}

/// A path without `.` and `..`, by its text.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
