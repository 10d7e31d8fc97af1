//! Puts the migrations (`migrations/`) and the warehouse scripts (`sql/silver/`, `sql/identity/`, `sql/gold/`) into the
//! binary, and rebuilds the crate when one of them changes. A missing folder counts as an empty one.
use std::path::{Path, PathBuf};
use std::{env, fmt::Write as _, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let mut migrations = Vec::new();
    for (name, path) in files("migrations")? {
        // V12__what_it_does.sql
        let parts = name.strip_prefix('V').and_then(|name| name.strip_suffix(".sql")?.split_once("__"));
        let parts =
            parts.and_then(|(version, what)| Some((version.parse::<i32>().ok()?, what.to_owned(), path)));
        migrations.push(
            parts
                .ok_or_else(|| io::Error::other(format!("migrations/{name} is no V<number>__<name>.sql")))?,
        );
    }
    migrations.sort();
    if let Some(pair) = migrations.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(io::Error::other(format!("there are two migrations of number {}", pair[0].0)));
    }
    // Debug formatting quotes and escapes strings the way Rust source wants them.
    let mut code = String::from("const MIGRATIONS: &[(i32, &str, &str)] = &[\n");
    for (version, name, path) in migrations {
        writeln!(code, "    ({version}, {name:?}, include_str!({path:?})),").map_err(io::Error::other)?;
    }
    code.push_str("];\nconst SCRIPTS: &[(&str, &str)] = &[\n");
    for folder in ["silver", "identity", "gold"] {
        for (name, path) in files(&format!("sql/{folder}"))? {
            writeln!(code, "    (\"{folder}/{name}\", include_str!({path:?})),").map_err(io::Error::other)?;
        }
    }
    code.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("scripts.rs"), code)
}

/// The SQL files of a folder: names and paths, in the order of the names.
fn files(folder: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let folder = Path::new("..").join(folder);
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let path = fs::canonicalize(entry?.path())?;
        if let Some(name) =
            path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".sql"))
        {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push((name.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}
