//! docs/loader.md lists every configuration key, metric and exit code as the code has them. `UPDATE_DOCS=1` rewrites the
//! lists; read the diff.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

use std::path::{Path, PathBuf};

use tidemark_cli::{Cli, EXIT_CODES};
use tidemark_loader::config::Config;
use tidemark_loader::config::keys::{KEYS, Kind};
use tidemark_loader::operations::metrics::{METRICS, Metric};
use tidemark_loader::postgres::retry::TABLE;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn keys() -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap();
        if of != section {
            out.push_str(&format!(
                "{}**`[{of}]`**\n\n| key | default | |\n|---|---|---|\n",
                if section.is_empty() { "" } else { "\n" }
            ));
            section = of;
        }
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let words = match key.kind {
            Kind::Choice(words) => format!(" ({})", words.join(", ")),
            Kind::Secret => format!(" (secret, also as `{name}_file`)"),
            _ => String::new(),
        };
        out.push_str(&format!("| `{name}` | {default} | {}{words} |\n", key.help));
    }
    out
}

fn metrics() -> String {
    let mut out = "| name | type | labels | |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, labels, help, .. } in METRICS {
        out.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    out
}

fn retries() -> String {
    let mut out =
        "| error of Postgres | SQLSTATE | a command, a start | a loader that runs | a batch | again |\n\
                   |---|---|---|---|---|---|\n"
            .to_owned();
    for rule in TABLE {
        let codes: Vec<&str> = rule.codes.iter().copied().filter(|code| !code.is_empty()).collect();
        let verdicts = rule.verdicts.map(|verdict| verdict.to_string()).join(" | ");
        out.push_str(&format!("| {} | {} | {verdicts} |\n", rule.meaning, codes.join(", ")));
    }
    out
}

fn exit_codes() -> String {
    let mut out = "| code | |\n|---|---|\n".to_owned();
    for line in EXIT_CODES.lines().skip(1) {
        let (code, what) = line.trim().split_once(' ').unwrap();
        out.push_str(&format!("| {code} | {} |\n", what.trim()));
    }
    out
}

#[test]
fn the_lists_are_those_of_the_code() {
    let path = root().join("docs/loader.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut wanted = page.clone();
    let lists =
        [("keys", keys()), ("metrics", metrics()), ("exit codes", exit_codes()), ("retries", retries())];
    for (name, list) in lists {
        let begin = format!("<!-- {name} -->\n");
        let from = wanted.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = from + wanted[from..].find("<!-- end -->").unwrap();
        wanted.replace_range(from..to, &format!("{list}\n").replace("\n\n\n", "\n\n"));
    }
    if std::env::var("UPDATE_DOCS").is_ok_and(|v| v == "1") {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    assert!(page == wanted, "docs/loader.md is stale: UPDATE_DOCS=1 cargo test -p tidemark-cli --test docs");
}

#[test]
fn every_option_about_events_says_the_default_that_the_configuration_has() {
    let mut command = <Cli as clap::CommandFactory>::command();
    let options = [
        ("batch-rows", "batch.max_rows"),
        ("event-time-floor", "record.event_time_floor"),
        ("max-skew", "future.max_skew"),
        ("late-policy", "late.policy"),
        ("allowed-lateness", "late.allowed"),
        ("into", "target.table"),
        ("dedupe", "dedupe.mode"),
        ("dedupe-window-days", "dedupe.window_days"),
        ("mapping", "envelope.mapping"),
        ("lanes", "postgres.lanes"),
        ("listen", "http.listen"),
        ("maintain-every", "maintenance.every"),
        ("pipeline", "pipeline.name"),
    ];
    for name in ["run", "check", "load", "replay"] {
        let arguments: Vec<_> = command.find_subcommand_mut(name).unwrap().get_arguments().collect();
        let mut found = 0;
        for (option, key) in options {
            let Some(argument) = arguments.iter().find(|a| a.get_long() == Some(option)) else { continue };
            let help = argument.get_help().unwrap().to_string();
            let default = KEYS.iter().find(|k| k.name == key).unwrap().default;
            let default = if default.is_empty() { "none" } else { default };
            assert!(help.ends_with(&format!("[default: {default}]")), "{name} --{option}: {help}");
            assert!(
                argument.get_default_values().is_empty(),
                "{name} --{option} would hide the configuration"
            );
            found += 1;
        }
        assert!(found >= 9, "{name}: {found}");
        assert!(arguments.iter().any(|a| a.get_long() == Some("config")), "{name}");
    }
}

#[test]
fn every_exit_code_is_listed() {
    use tidemark_loader::error::Kind::*;
    for kind in [Problems, Usage, Input, Unavailable, Internal, Temporary, Permission, Config] {
        let code = format!("{:>4}  ", kind.exit_code());
        assert!(EXIT_CODES.lines().any(|line| line.starts_with(&code)), "{kind:?}");
    }
}

#[test]
fn the_example_is_valid_and_leaves_out_only_the_database() {
    let path = root().join("packaging/tidemark.toml");
    let config = Config::load(Some(&path), std::iter::empty()).unwrap();
    assert_eq!(config.list("kafka.topics"), ["events"]);
    assert!(config.get("postgres.dsn").is_none());
    // What is commented out is valid too.
    let all: String = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| {
            let bare = line.trim_start_matches("# ");
            let is_key = bare.contains(" = ") || bare.starts_with('[');
            format!("{}\n", if is_key { bare } else { "" })
        })
        .collect();
    let secret = std::env::temp_dir().join(format!("tidemark-docs-{}", std::process::id()));
    std::fs::write(&secret, "x").unwrap();
    let all = all.replace("/etc/tidemark/kafka-password", secret.to_str().unwrap());
    let all = all.replace("/etc/tidemark/dsn", secret.to_str().unwrap());
    let file = secret.with_extension("toml");
    std::fs::write(&file, &all).unwrap();
    let config = Config::load(Some(&file), std::iter::empty()).unwrap_or_else(|e| panic!("{e}\n{all}"));
    assert_eq!((config.get("postgres.dsn"), config.get("kafka.sasl_password")), (Some("x"), Some("x")));
    // Each section that says something about events is there.
    for section in ["target", "envelope", "dedupe", "late", "future", "dead_letters", "postgres"] {
        assert!(all.lines().any(|line| line == format!("[{section}]")), "{section}");
    }
    assert_eq!((config.count("postgres.lanes").unwrap(), config.get("dedupe.mode")), (3, Some("id_window")));
    for path in [secret, file] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_unit_is_what_the_code_expects() {
    let unit = std::fs::read_to_string(root().join("packaging/systemd/tidemark.service")).unwrap();
    for line in ["Type=notify", "WatchdogSec=60", "TimeoutStopSec=30", "RestartPreventExitStatus=64 78"] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
}
