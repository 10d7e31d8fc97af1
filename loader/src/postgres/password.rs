//! The password for a database URL that has none: PGPASSWORD, or else the password file of libpq (PGPASSFILE, ~/.pgpass).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// What to do when the server asks for a password and there is none.
pub const ADVICE: &str = "give it in PGPASSWORD, in ~/.pgpass (or the file that PGPASSFILE names), or in the database URL: \
                          postgresql://user:password@host:port/database";

/// The password and where it comes from. `variable` looks into the environment.
pub fn find(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(String, String)>, String> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(password) = variable("PGPASSWORD") {
        return Ok(Some((password, "PGPASSWORD".to_owned())));
    }
    let named = variable("PGPASSFILE").map(PathBuf::from);
    let Some(path) = named.or_else(|| Some(Path::new(&variable("HOME")?).join(".pgpass"))) else {
        return Ok(None);
    };
    let Ok(about) = std::fs::metadata(&path) else { return Ok(None) };
    if !about.is_file() {
        return Ok(None);
    }
    if about.permissions().mode() & 0o077 != 0 {
        // libpq passes over it with a warning; the server's refusal that follows would hide the reason.
        let path = path.display();
        return Err(format!(
            "{path} can be read by others, so it is not used as password file: chmod 600 {path}"
        ));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let user = config.get_user().map(str::to_owned).or_else(|| variable("USER")).unwrap_or_default();
    let database = config.get_dbname().unwrap_or(&user);
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) if path != Path::new("/var/run/postgresql") && path != Path::new("/tmp") => {
            path.display().to_string()
        }
        // So libpq calls the usual directories of sockets.
        _ => "localhost".to_owned(),
    };
    let found = text.lines().find_map(|line| password_of(line, &[&host, &port, database, &user]));
    Ok(found.map(|password| (password, path.display().to_string())))
}

/// The fifth field of a line `host:port:database:user:password` whose first four say this or `*`.
fn password_of(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![(String::new(), false)];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        let last = fields.len() == 5;
        let (field, escaped) = fields.last_mut()?;
        match c {
            '\\' => {
                *escaped = true;
                field.extend(characters.next());
            }
            // A password may hold colons.
            ':' if !last => fields.push((String::new(), false)),
            _ => field.push(c),
        }
    }
    let password = (fields.len() == 5).then(|| fields.pop())??;
    let fits =
        fields.iter().zip(wanted).all(|((field, escaped), want)| field == "*" && !escaped || field == want);
    (fits && !password.0.is_empty()).then_some(password.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_as_in_libpq() {
        let wanted = ["db.example", "5432", "shop", "app"];
        let of = |line: &str| password_of(line, &wanted);
        assert_eq!(of("db.example:5432:shop:app:secret").as_deref(), Some("secret"));
        assert_eq!(of("*:*:*:*:a:b\\\\c").as_deref(), Some("a:b\\c"));
        assert_eq!(of("*:*:*:app:x").as_deref(), Some("x"));
        for other in ["db:5432:shop:app:x", "*:*:*:\\*:x", "#*:*:*:*:x", "*:*:*:*:", "*:*:app:x", ""] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(password_of("a\\:b:1:c:d:x", &["a:b", "1", "c", "d"]).as_deref(), Some("x"));
    }
}
