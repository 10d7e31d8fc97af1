//! A Postgres installation with an extension directory of its own: the programs are copies, everything else links to
//! the real one. Postgres finds its files from where its program lies, so scripts of versions that do not exist can be
//! installed without touching the machine's Postgres, and without being root.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cluster, root, server};

/// The programs that `scripts/pg.sh` calls.
const PROGRAMS: [&str; 5] = ["initdb", "pg_config", "pg_ctl", "pg_isready", "postgres"];

/// A Postgres installation of the tests.
pub struct Installation {
    bin: PathBuf,
    extensions: PathBuf,
}

impl Installation {
    /// Makes one under this name, with the extensions that the real one has, and tidemark's scripts: this version's,
    /// those of released ones, and those that lead from one to the next.
    pub fn new(name: &str) -> Installation {
        let real = cluster::pg_config();
        let [bin, share] = ["--bindir", "--sharedir"].map(|what| directory(&real, what));
        let others = ["--libdir", "--pkglibdir", "--includedir-server"].map(|what| directory(&real, what));
        let common = |a: &Path, b: &Path| -> PathBuf {
            a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
        };
        let prefix = others.iter().fold(common(&bin, &share), |prefix, other| common(&prefix, other));
        let own = server::scratch().join(name);
        let moved = |path: &Path| own.join(path.strip_prefix(&prefix).expect("it is a prefix of all"));

        let installation = Installation { bin: moved(&bin), extensions: moved(&share).join("extension") };
        for made in [&installation.bin, &installation.extensions] {
            std::fs::create_dir_all(made).expect("cannot write to the directory for temporary files");
        }
        for program in PROGRAMS {
            let from = bin.join(program);
            std::fs::copy(&from, installation.bin.join(program))
                .unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
        }
        link_missing(&share, &moved(&share));
        link_missing(&share.join("extension"), &installation.extensions);
        for other in others {
            let to = moved(&other);
            if !to.exists() {
                std::fs::create_dir_all(to.parent().expect("below the prefix"))
                    .expect("cannot create a directory");
                symlink(&other, &to).unwrap_or_else(|e| panic!("cannot link {}: {e}", to.display()));
            } else {
                link_missing(&other, &to);
            }
        }
        for scripts in ["extension/install", "extension/sql"] {
            for (file, path) in sql_files(&root().join(scripts)) {
                let text = std::fs::read_to_string(path).expect("a file that was just listed");
                installation.put(&file, &text);
            }
        }
        installation.put(&format!("tidemark--{}.sql", env!("CARGO_PKG_VERSION")), &install_script());
        installation
    }

    /// Its pg_config, which says of all its directories where they are.
    pub fn pg_config(&self) -> String {
        self.bin.join("pg_config").to_string_lossy().into_owned()
    }

    /// Adds or replaces a file among the extensions.
    pub fn put(&self, file: &str, text: &str) {
        let path = self.extensions.join(file);
        // It may be a link to the real one.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}

/// The install script of this version, as `make install` copies it.
pub fn install_script() -> String {
    let output =
        Command::new(root().join("scripts/install-sql.sh")).output().expect("cannot run install-sql.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the script is UTF-8")
}

/// The SQL files of a directory: name and path, in order.
pub fn sql_files(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|e| panic!("cannot read {}: {e}", directory.display()));
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name.ends_with(".sql"))
        .collect();
    files.sort();
    files
}

/// A directory that pg_config knows.
fn directory(pg_config: &Path, what: &str) -> PathBuf {
    let output = Command::new(pg_config)
        .arg(what)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", pg_config.display()));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Links what one directory has and the other has not.
fn link_missing(from: &Path, to: &Path) {
    let entries = std::fs::read_dir(from).unwrap_or_else(|e| panic!("cannot read {}: {e}", from.display()));
    for entry in entries.flatten() {
        let to = to.join(entry.file_name());
        if !to.exists() {
            symlink(entry.path(), &to).unwrap_or_else(|e| panic!("cannot link {}: {e}", to.display()));
        }
    }
}
