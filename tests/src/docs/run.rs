//! Runs a block: SQL with psql, commands with bash.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{Block, Kind, Place};

/// Seconds that a block may take.
const LIMIT: &str = "120";
/// What separates the outputs of the commands of a console block.
const MARK: &str = "--8<-- end of a command";

/// What a block prints, and whether it failed. The text of a console block contains its commands.
pub(super) fn block(block: &Block, place: &Place) -> (String, bool) {
    match block.kind {
        Kind::Sql => sql(block, place),
        Kind::Sh => sh(&format!("exec 2>&1\n{}\n", block.text), place),
        Kind::Console => console(&block.text, place),
        Kind::File(_) | Kind::From(_) => unreachable!("data does not run"),
    }
}

/// Writes a data block into the working directory of the page.
pub(super) fn write(place: &Place, name: &str, text: &str) {
    let path: PathBuf = place.directory.join(name);
    std::fs::write(&path, format!("{text}\n"))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// Without blanks at the ends of lines, which editors remove, and without empty lines around.
pub(super) fn trimmed(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

fn trimmed_text(text: &[u8]) -> String {
    trimmed(&String::from_utf8_lossy(text).lines().collect::<Vec<_>>())
}

fn url(place: &Place) -> String {
    format!("postgresql://postgres:{}@{}/{}", place.password, place.address, place.database)
}

/// What all programs get: the database of the page, and nothing that depends on this machine.
fn prepare(command: &mut Command, place: &Place) {
    for (name, _) in std::env::vars_os() {
        let theirs = name.to_str().is_some_and(|n| n.starts_with("TIDEMARK_") || n.starts_with("PG"));
        if theirs || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path =
        [place.bin.to_owned(), place.postgres.clone()].into_iter().chain(std::env::split_paths(&inherited));
    let (host, port) = place.address.split_once(':').expect("an address has a port");
    command
        .env("PATH", std::env::join_paths(path).expect("a path without a colon"))
        .env("TIDEMARK_DATABASE_URL", url(place))
        .envs(place.brokers.iter().map(|brokers| ("TIDEMARK_BROKERS", brokers)))
        // Pages share a Kafka; in one consumer group they would share the records, too.
        .envs(place.brokers.iter().map(|_| ("TIDEMARK__KAFKA__GROUP_ID", &place.database)))
        .envs([("PGHOST", host), ("PGPORT", port), ("PGUSER", "postgres")])
        .envs([("PGPASSWORD", place.password.as_str()), ("PGDATABASE", place.database.as_str())])
        .envs([("PGTZ", "UTC"), ("PGDATESTYLE", "ISO, YMD"), ("PGCLIENTENCODING", "UTF8")])
        .env("PGOPTIONS", "-c client_min_messages=warning -c intervalstyle=postgres -c extra_float_digits=1")
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("PSQLRC", "/dev/null"),
            ("PSQL_PAGER", "cat"),
            ("NO_COLOR", "1"),
        ])
        .env("HOME", &place.directory)
        .current_dir(&place.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

/// With psql: errors behind results.
fn sql(block: &Block, place: &Place) -> (String, bool) {
    let script = if block.keep {
        format!("{}\n", block.text)
    } else {
        format!("BEGIN;\n{}\n;\nROLLBACK;\n", block.text)
    };
    let mut command = Command::new("timeout");
    prepare(&mut command, place);
    command
        .arg(LIMIT)
        .arg(place.postgres.join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "SHOW_CONTEXT=never"])
        .args(["-P", "pager=off", "-P", "border=1", "-P", "linestyle=ascii"])
        .stdin(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run psql: {e}"));
    // A block is far smaller than the buffer of a pipe, so this cannot wait for output to be read.
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("psql stopped reading");
    let Output { status, mut stdout, stderr } = child.wait_with_output().expect("cannot wait for psql");
    stdout.extend(stderr);
    (trimmed_text(&stdout), !status.success())
}

fn sh(script: &str, place: &Place) -> (String, bool) {
    let mut command = Command::new("timeout");
    prepare(&mut command, place);
    command.args([LIMIT, "bash", "-eu", "-o", "pipefail", "-c", script]);
    let output = command.output().expect("cannot run bash");
    let mut printed = output.stdout;
    printed.extend(output.stderr);
    (trimmed_text(&printed), !output.status.success())
}

/// Each command by itself in one shell, so that variables last for the block; the first one that fails ends it.
fn console(text: &str, place: &Place) -> (String, bool) {
    let mut commands: Vec<Vec<&str>> = Vec::new();
    let mut may_go_on = false;
    for line in text.lines() {
        let goes_on = may_go_on && line.starts_with("> ");
        may_go_on = goes_on || line.starts_with("$ ");
        match commands.last_mut() {
            Some(command) if goes_on => command.push(line),
            _ if may_go_on => commands.push(vec![line]),
            _ => {}
        }
    }
    assert!(!commands.is_empty(), "a console block needs a line that begins with \"$ \":\n{text}");
    let mut script = "exec 2>&1\nset +e\n".to_owned();
    for command in &commands {
        let body: Vec<&str> = command.iter().map(|line| &line[2..]).collect();
        // Not in a group of braces: a here-document would swallow the end of it.
        script.push_str(&format!(
            "{}\nstatus=$?; printf '\\n%s\\n' '{MARK}'; [ $status = 0 ] || exit $status\n",
            body.join("\n")
        ));
    }
    let (printed, failed) = sh(&script, place);
    let mut outputs = printed.split(MARK).map(|part| part.trim_matches('\n'));
    let mut page = Vec::new();
    for command in &commands {
        page.extend(command.iter().map(|line| (*line).to_owned()));
        if let Some(output) = outputs.next().filter(|output| !output.is_empty()) {
            page.push(output.to_owned());
        }
    }
    (page.join("\n"), failed)
}
