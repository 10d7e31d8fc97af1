//! Finds the blocks of a page: what they are, what they are tagged with, and where their output stands.

/// What a block is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQL for psql.
    Sql,
    /// A script for the shell; its output follows in a block of its own.
    Sh,
    /// Commands behind `$ `, with their output below them.
    Console,
    /// Data to be written into a file of this name.
    File(String),
    /// Lines that must stand in this file of the repository.
    From(String),
}

/// A block that does something. Lines count from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence.
    pub line: usize,
    /// Line of the closing fence.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
    /// Must fail.
    pub error: bool,
    /// SQL that is not rolled back.
    pub keep: bool,
    /// Why it cannot run.
    pub not_run: Option<String>,
    /// Why its output is not compared.
    pub not_compared: Option<String>,
    /// What it says.
    pub text: String,
    /// Lines of the fences around the output, if there is one.
    pub output: Option<(usize, usize)>,
}

/// Languages that are shown and neither run nor output.
const DATA: [&str; 7] = ["json", "toml", "yaml", "ini", "diff", "rust", "jinja"];

/// A comment of one line above a block: its name and what follows the colon.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.split_once(": ")?;
    ["not run", "not compared", "file", "from"].contains(&name).then_some((name, value))
}

/// The blocks of a page, in order; or what is wrong with its fences.
pub fn parse(page: &str) -> Result<Vec<Block>, String> {
    let lines: Vec<&str> = page.lines().collect();
    let mut blocks: Vec<Block> = Vec::new();
    let mut directives: Vec<(&str, &str)> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let Some(info) = line.strip_prefix("```") else {
            if line.trim_start().starts_with("```") {
                return Err(format!(
                    "line {}: a block that is indented is not tested; move it to the left",
                    at + 1
                ));
            }
            match directive(line) {
                Some(found) => directives.push(found),
                None if directives.is_empty() => {}
                None => return Err(format!("line {at}: a tag that is not right above a block")),
            }
            at += 1;
            continue;
        };
        let end = (at + 1..lines.len())
            .find(|&i| lines[i].trim_end() == "```")
            .ok_or_else(|| format!("line {}: the block never ends", at + 1))?;
        let mut words = info.split_whitespace();
        let language = words.next().unwrap_or("text");
        let mut block = Block {
            line: at,
            end,
            kind: Kind::Sql,
            error: false,
            keep: false,
            not_run: None,
            not_compared: None,
            text: lines[at + 1..end].join("\n"),
            output: None,
        };
        let (mut file, mut source) = (None, None);
        for (name, value) in directives.drain(..) {
            match name {
                "not run" => block.not_run = Some(value.to_owned()),
                "not compared" => block.not_compared = Some(value.to_owned()),
                "from" => source = Some(value.to_owned()),
                _ => file = Some(value.to_owned()),
            }
        }
        for word in words {
            match (word, language) {
                ("keep", "sql") => block.keep = true,
                ("error", "sql" | "sh" | "console") => block.error = true,
                ("no-run" | "no-compare", "sql") => {
                    return Err(format!(
                        "line {}: {word} without a reason; \
                         write <!-- not run: WHY --> or <!-- not compared: WHY --> above the block",
                        at + 1
                    ));
                }
                _ => return Err(format!("line {}: unknown tag {word}", at + 1)),
            }
        }
        if let Some(path) = source {
            blocks.push(Block { kind: Kind::From(path), ..block });
            at = end + 1;
            continue;
        }
        match (language, file) {
            ("sql", None) => blocks.push(block),
            ("sh", None) => blocks.push(Block { kind: Kind::Sh, ..block }),
            ("console", None) => blocks.push(Block { kind: Kind::Console, ..block }),
            ("sql" | "sh" | "console", Some(name)) => {
                return Err(format!("line {}: a block that runs cannot be the file {name}", at + 1));
            }
            (_, Some(name)) => blocks.push(Block { kind: Kind::File(name), ..block }),
            ("text", None) => {
                if let Some(before) = blocks.last_mut()
                    && matches!(before.kind, Kind::Sql | Kind::Sh)
                    && before.output.is_none()
                    && lines[before.end + 1..at].iter().all(|line| line.trim().is_empty())
                {
                    before.output = Some((at, end));
                }
            }
            (language, None) if DATA.contains(&language) => {}
            (language, None) => {
                return Err(format!(
                    "line {}: {language} is neither sql, sh nor console, which run, \
                     nor text, json, toml ..., which are shown",
                    at + 1
                ));
            }
        }
        at = end + 1;
    }
    if directives.is_empty() { Ok(blocks) } else { Err("the last line is a tag of no block".to_owned()) }
}
