//! Version numbers agree wherever they stand, and what was released never changes.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidemark_tests::installation::sql_files;
use tidemark_tests::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}

/// The value of a line `key = value` of the control file.
fn control(key: &str) -> String {
    let text = read("extension/tidemark.control");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    line.unwrap_or_else(|| panic!("the control file has no {key}")).trim().trim_matches('\'').to_owned()
}

#[test]
fn version_numbers_agree() {
    let version = super::current();
    assert!(
        read("Cargo.toml").contains(&format!("\nversion = \"{version}\"\n")),
        "the workspace has another version"
    );
    // The build fills it in.
    assert_eq!(control("default_version"), "@CARGO_VERSION@");
    let changelog = read("packaging/debian/changelog");
    assert!(
        changelog.starts_with(&format!("tidemark ({version}-")),
        "the Debian changelog begins with another version"
    );
    let page = read("docs/versions.md");
    assert!(
        page.contains(&format!("The current version is {version}.")),
        "docs/versions.md names another version"
    );

    let meta: serde_json::Value = serde_json::from_str(&read("META.json")).expect("META.json is JSON");
    let provided = &meta["provides"]["tidemark"];
    assert_eq!(meta["version"], *version);
    assert_eq!(provided["version"], *version);
    for file in ["file", "docfile"] {
        let file = provided[file].as_str().expect("a path");
        assert!(root().join(file).is_file(), "META.json names {file}, which is not there");
    }
    // What PGXN asks for.
    assert_eq!((&meta["name"], &meta["license"]), (&"tidemark".into(), &"apache_2_0".into()));
    assert_eq!(meta["meta-spec"]["version"], "1.0.0");
    for key in ["abstract", "maintainer", "release_status"] {
        assert!(meta[key].as_str().is_some_and(|text| !text.is_empty()), "META.json lacks {key}");
    }
    let oldest = meta["prereqs"]["runtime"]["requires"]["PostgreSQL"].as_str().expect("a version");
    let features = read("extension/Cargo.toml");
    let first = features
        .lines()
        .find_map(|line| line.strip_prefix("pg")?.split(' ').next())
        .expect("features pg15 ..");
    assert_eq!(oldest, format!("{first}.0.0"));
}

#[test]
fn the_control_file_keeps_what_upgrades_rely_on() {
    // One library name for all versions, so that upgrade scripts need not make every function anew; the script
    // makes its schemas itself; superusers only.
    for (key, value) in [
        ("module_pathname", "$libdir/tidemark"),
        ("schema", "pg_catalog"),
        ("relocatable", "false"),
        ("superuser", "true"),
        ("trusted", "false"),
    ] {
        assert_eq!(control(key), value, "{key}");
    }
}

/// What is wrong with the scripts of released versions in this directory, which is like `extension/`.
fn broken(directory: &Path, current: &str) -> Vec<String> {
    let list =
        std::fs::read_to_string(directory.join("released.sha256")).expect("the list of released scripts");
    let listed: Vec<(&str, &str)> =
        list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once("  ")).collect();
    let mut wrong = Vec::new();
    for (sum, file) in &listed {
        let output =
            Command::new("sha256sum").arg(directory.join(file)).output().expect("cannot run sha256sum");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        if found.split(' ').next() != Some(*sum) {
            wrong.push(format!("{file} was released and is not as it was"));
        }
    }
    for folder in ["install", "sql"] {
        for (name, _) in sql_files(&directory.join(folder)) {
            let version = name.trim_end_matches(".sql").rsplit("--").next().unwrap_or_default();
            let file = format!("{folder}/{name}");
            if version != current && !listed.iter().any(|(_, listed)| *listed == file) {
                wrong.push(format!("{file} is of another version than {current} and was never released"));
            }
        }
    }
    wrong
}

/// Runs a script of `scripts/` on a directory that is like `extension/`: what it prints, or how it complains.
fn run(name: &str, directory: &Path, version: &str) -> Result<String, String> {
    let mut command = Command::new(root().join("scripts").join(name));
    let output =
        command.arg(directory).arg(version).output().unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The install script of a version.
fn script(directory: &Path, version: &str) -> Result<String, String> {
    run("install-sql.sh", directory, version)
}

fn freeze(directory: &Path, version: &str) -> Result<String, String> {
    run("freeze.sh", directory, version)
}

/// A directory that is like `extension/`, without any file, and how files are written there.
fn made_up(name: &str) -> (PathBuf, impl Fn(&str, &str)) {
    let directory = std::env::temp_dir().join(format!("tidemark-{name}-{}", std::process::id()));
    for folder in ["install", "sql", "src/sql"] {
        std::fs::create_dir_all(directory.join(folder)).unwrap();
    }
    let write = {
        let directory = directory.clone();
        move |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap()
    };
    write("released.sha256", "# released\n");
    (directory, write)
}

#[test]
fn the_install_script_is_put_together_until_a_release_keeps_it() {
    let (directory, write) = made_up("sources");
    write(
        "src/lib.rs",
        "extension_sql_file!(\"./sql/b.sql\");\nextension_sql_file!(\n    \"./sql/a.sql\",\n);\n",
    );
    write("src/sql/b.sql", "SELECT 1;\n");
    write("src/sql/a.sql", "SELECT 2;\n");
    let ours = Ok("SELECT 1;\nSELECT 2;\n".to_owned());
    assert_eq!(script(&directory, "0.1.0"), ours);
    freeze(&directory, "0.1.0").unwrap();
    assert_eq!(broken(&directory, "0.1.0"), Vec::<String>::new());

    write("src/sql/a.sql", "SELECT 3;\n");
    assert_eq!(script(&directory, "0.1.0"), ours, "it was released");
    assert_eq!(script(&directory, "0.2.0"), Ok("SELECT 1;\nSELECT 3;\n".to_owned()));

    write("src/sql/c.sql", "SELECT 4;\n");
    let said = script(&directory, "0.2.0").expect_err("c.sql is nowhere in lib.rs");
    assert!(said.contains("src/sql"), "{said}");
    freeze(&directory, "0.2.0").expect_err("there is nothing to keep");
    assert!(!directory.join("install/tidemark--0.2.0.sql").exists());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn released_scripts_never_change() {
    let wrong = broken(&root().join("extension"), &super::current());
    assert!(wrong.is_empty(), "{}\nwrite an upgrade script to a new version instead", wrong.join("\n"));
    // What a release kept is installed, whatever the sources say: they must not say anything else.
    let extension = root().join("extension");
    assert!(
        script(&extension, &super::current()) == script(&extension, "not-released"),
        "extension/src/sql changed after this version was released: begin the next one"
    );
    let list = read("extension/released.sha256");
    println!("{} released scripts unchanged", list.lines().filter(|line| !line.starts_with('#')).count());
}

#[test]
fn a_changed_a_missing_and_a_forgotten_script_are_found() {
    let (directory, write) = made_up("released");
    write("install/tidemark--0.1.0.sql", "SELECT 1;");
    assert_eq!(broken(&directory, "0.1.0"), Vec::<String>::new());
    assert_eq!(broken(&directory, "0.2.0").len(), 1, "0.1.0 was not released, and 0.2.0 begins");

    freeze(&directory, "0.1.0").unwrap();
    write("install/tidemark--0.2.0.sql", "SELECT 2;");
    write("sql/tidemark--0.1.0--0.2.0.sql", "SELECT 3;");
    assert_eq!(broken(&directory, "0.2.0"), Vec::<String>::new());
    freeze(&directory, "0.2.0").unwrap();
    assert_eq!(std::fs::read_to_string(directory.join("released.sha256")).unwrap().lines().count(), 4);
    assert_eq!(broken(&directory, "0.3.0"), Vec::<String>::new());
    freeze(&directory, "0.2.0").expect("freezing again changes nothing");

    write("sql/tidemark--0.1.0--0.2.0.sql", "SELECT 4;");
    std::fs::remove_file(directory.join("install/tidemark--0.1.0.sql")).unwrap();
    let wrong = broken(&directory, "0.2.0");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    let said =
        freeze(&directory, "0.2.0").expect_err("a released script was frozen again with other content");
    assert!(said.contains("tidemark--0.1.0--0.2.0.sql"), "{said}");
    std::fs::remove_dir_all(&directory).unwrap();
}
