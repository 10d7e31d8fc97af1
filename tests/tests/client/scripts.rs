//! That the scripts find what cargo built, wherever it is told to put it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tidemark_tests::root;

/// Where the scripts of this clone look, with this in the environment.
fn target_directory(clone: &Path, environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new("bash");
    command.args(["-c", ". scripts/lib.sh && target_dir"]).current_dir(clone);
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    let output = command.envs(environment.iter().copied()).output().expect("cannot run bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn scripts_look_where_cargo_builds() {
    // A clone below a folder that configures cargo, since ours may itself have a configuration.
    let above = std::env::temp_dir().join(format!("tidemark-cargo-{}", std::process::id()));
    let clone = above.join("clone");
    for folder in [above.join(".cargo"), clone.join("src")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    symlink(root().join("scripts"), clone.join("scripts")).unwrap();
    std::fs::write(clone.join("Cargo.toml"), "[package]\nname = \"made-up\"\n").unwrap();
    std::fs::write(clone.join("src/lib.rs"), "").unwrap();
    assert_eq!(target_directory(&clone, &[]), clone.join("target").to_string_lossy());

    let configured = above.join("configured");
    std::fs::write(above.join(".cargo/config.toml"), format!("build.target-dir = {configured:?}\n")).unwrap();
    assert_eq!(target_directory(&clone, &[]), configured.to_string_lossy());
    let given = above.join("with a space");
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        assert_eq!(target_directory(&clone, &[(variable, &given)]), given.to_string_lossy());
    }
    std::fs::remove_dir_all(&above).unwrap();
}

#[test]
fn no_script_takes_the_target_directory_for_granted() {
    let scripts = std::fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    for path in scripts.chain([root().join("Makefile")]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let guess =
            text.lines().find(|line| ["target/release", "target/debug"].iter().any(|g| line.contains(g)));
        assert_eq!(guess, None, "{}: scripts/lib.sh has target_dir", path.display());
    }
}
