//! Version numbers agree wherever they stand, and what was released never changes.

use std::path::Path;
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
    assert!(read(&format!("extension/install/tidemark--{version}.sql")).len() > 100_000);

    let meta: serde_json::Value = serde_json::from_str(&read("META.json")).expect("META.json is JSON");
    let provided = &meta["provides"]["tidemark"];
    assert_eq!(meta["version"], *version);
    assert_eq!(provided["version"], *version);
    assert_eq!(provided["file"], format!("extension/install/tidemark--{version}.sql"));
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

#[test]
fn released_scripts_never_change() {
    let wrong = broken(&root().join("extension"), &super::current());
    assert!(wrong.is_empty(), "{}\nwrite an upgrade script to a new version instead", wrong.join("\n"));
    let list = read("extension/released.sha256");
    println!("{} released scripts unchanged", list.lines().filter(|line| !line.starts_with('#')).count());
}

#[test]
fn a_changed_a_missing_and_a_forgotten_script_are_found() {
    let directory = std::env::temp_dir().join(format!("tidemark-released-{}", std::process::id()));
    for folder in ["install", "sql"] {
        std::fs::create_dir_all(directory.join(folder)).unwrap();
    }
    let write = |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap();
    let freeze = |version: &str| {
        let script = root().join("scripts/freeze.sh");
        Command::new(script).arg(&directory).arg(version).output().expect("cannot run scripts/freeze.sh")
    };
    write("released.sha256", "# released\n");
    write("install/tidemark--0.1.0.sql", "SELECT 1;");
    assert_eq!(broken(&directory, "0.1.0"), Vec::<String>::new());
    assert_eq!(broken(&directory, "0.2.0").len(), 1, "0.1.0 was not released, and 0.2.0 begins");

    let output = freeze("0.1.0");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    write("install/tidemark--0.2.0.sql", "SELECT 2;");
    write("sql/tidemark--0.1.0--0.2.0.sql", "SELECT 3;");
    assert_eq!(broken(&directory, "0.2.0"), Vec::<String>::new());
    assert!(freeze("0.2.0").status.success());
    assert_eq!(std::fs::read_to_string(directory.join("released.sha256")).unwrap().lines().count(), 4);
    assert_eq!(broken(&directory, "0.3.0"), Vec::<String>::new());
    assert!(freeze("0.2.0").status.success(), "freezing again changes nothing");

    write("sql/tidemark--0.1.0--0.2.0.sql", "SELECT 4;");
    std::fs::remove_file(directory.join("install/tidemark--0.1.0.sql")).unwrap();
    let wrong = broken(&directory, "0.2.0");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    let output = freeze("0.2.0");
    assert!(!output.status.success(), "a released script was frozen again with other content");
    assert!(String::from_utf8_lossy(&output.stderr).contains("tidemark--0.1.0--0.2.0.sql"));
    std::fs::remove_dir_all(&directory).unwrap();
}
