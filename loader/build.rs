//! Lists the warehouse scripts (`sql/silver/*.sql`, then `sql/gold/*.sql`) so that the binary carries them, and
//! rebuilds the crate when a migration or a script changes. A missing folder counts as an empty one.
use std::{env, fmt::Write as _, fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new("..");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../migrations");

    let mut code = String::from("&[\n");
    for folder in ["silver", "gold"] {
        let path = root.join("sql").join(folder);
        println!("cargo:rerun-if-changed={}", path.display());
        let Ok(entries) = fs::read_dir(&path) else { continue };
        let mut files = Vec::new();
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "sql") {
                files.push(fs::canonicalize(file)?);
            }
        }
        files.sort();
        for file in files {
            println!("cargo:rerun-if-changed={}", file.display());
            let Some(name) = file.file_name().and_then(|n| n.to_str()) else { continue };
            // Debug formatting quotes and escapes both strings the way Rust source wants them.
            writeln!(code, "    ({:?}, include_str!({:?})),", format!("{folder}/{name}"), file)
                .map_err(io::Error::other)?;
        }
    }
    code.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("repeatable_scripts.rs"), code)
}
