//! What users of libpq expect of a database URL and the driver does not know: TLS by sslmode, sslrootcert, sslcert and
//! sslkey, the last two modes included, and the password for a URL that has none: PGPASSWORD, or else the password file
//! (PGPASSFILE, ~/.pgpass).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How far the server is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What a connection string says about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    mode: Mode,
    /// File with the certificates to trust; `system` stands for those of the system.
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Tls {
    /// Takes the parameters for TLS out of a connection string.
    pub fn split_from(text: &str) -> Result<(String, Tls), String> {
        let mut tls = Tls::default();
        // A URL behind blanks is one for the driver: what we leave has none before it.
        let text = text.trim_start();
        if text.starts_with("postgresql://") || text.starts_with("postgres://") {
            let Some((base, query)) = text.split_once('?') else { return Ok((text.to_owned(), tls)) };
            let mut kept = Vec::new();
            for parameter in query.split('&') {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let decoded = percent_decoded(value)
                    .ok_or_else(|| format!("{name} has a % without two digits, or is no UTF-8"))?;
                if !tls.take(name, &decoded)? {
                    kept.push(parameter);
                }
            }
            let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
            return Ok((format!("{base}{query}"), tls));
        }
        let mut kept = String::new();
        let mut rest = text;
        while let Some((pair, after)) = next_pair(rest) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !tls.take(name.trim(), &unquoted(value.trim()))? {
                kept.push_str(pair);
                kept.push(' ');
            }
            rest = after;
        }
        Ok((kept.trim_end().to_owned(), tls))
    }

    /// Whether this was a parameter for TLS.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "sslmode" => {
                self.mode = match value {
                    "disable" => Mode::Disable,
                    // Never asked for by us, as the driver cannot go back and try with TLS.
                    "allow" | "prefer" => Mode::Prefer,
                    "require" => Mode::Require,
                    "verify-ca" => Mode::VerifyCa,
                    "verify-full" => Mode::VerifyFull,
                    _ => {
                        return Err(
                            "sslmode is none of disable, prefer, require, verify-ca, verify-full".to_owned()
                        );
                    }
                }
            }
            "sslrootcert" => self.root = Some(value.to_owned()),
            "sslcert" => self.certificate = Some(value.to_owned()),
            "sslkey" => self.key = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The mode for the driver, which knows whether to ask for TLS but not whom to trust.
    pub fn driver_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// Whether the files that it names can be read. Where it names none, nothing is done: OpenSSL reads all certificates
    /// of the system for each connector, which takes longer than to connect.
    pub fn check(&self) -> Result<(), String> {
        let names = self.root.iter().chain(&self.certificate).next();
        names.map_or(Ok(()), |_| self.connector().map(drop))
    }

    /// What makes the connections. `require` with a root certificate checks it, as in libpq.
    pub fn connector(&self) -> Result<MakeTlsConnector, String> {
        let check = match self.mode {
            Mode::Disable | Mode::Prefer => false,
            Mode::Require => self.root.is_some(),
            Mode::VerifyCa | Mode::VerifyFull => true,
        };
        let named = |what: &str, path: &str| {
            let (what, path) = (what.to_owned(), path.to_owned());
            move |e: ErrorStack| format!("{what}={path}: {}", first(&e))
        };
        let build = || SslConnector::builder(SslMethod::tls_client());
        let mut builder = build().map_err(|e| first(&e))?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(|e| first(&e))?;
        if !check {
            builder.set_verify(SslVerifyMode::NONE);
        } else if let Some(root) = self.root.as_deref().filter(|root| *root != "system") {
            // Only these: a certificate of a public authority is no proof then.
            let empty = openssl::x509::store::X509StoreBuilder::new().map_err(|e| first(&e))?.build();
            builder.set_cert_store(empty);
            builder.set_ca_file(root).map_err(named("sslrootcert", root))?;
        }
        if let Some(path) = &self.certificate {
            builder.set_certificate_chain_file(path).map_err(named("sslcert", path))?;
            let key = self.key.as_deref().ok_or("sslcert needs sslkey")?;
            builder.set_private_key_file(key, SslFiletype::PEM).map_err(named("sslkey", key))?;
        }
        let mut connector = MakeTlsConnector::new(builder.build());
        let check_name = self.mode == Mode::VerifyFull;
        connector.set_callback(move |connection, _| {
            connection.set_verify_hostname(check_name);
            Ok(())
        });
        Ok(connector)
    }

    /// One that lets no connection come about.
    pub fn refusing() -> MakeTlsConnector {
        #[expect(
            clippy::expect_used,
            reason = "OpenSSL without any file to read fails only when memory is out"
        )]
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("OpenSSL is usable");
        builder.set_verify(SslVerifyMode::PEER);
        let mut connector = MakeTlsConnector::new(builder.build());
        connector.set_callback(|_, _| Err(ErrorStack::get()));
        connector
    }
}

fn first(errors: &ErrorStack) -> String {
    let reason = errors.errors().iter().find_map(|e| e.reason());
    reason.map_or_else(|| "OpenSSL failed".to_owned(), str::to_owned)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
        let [Some(high), Some(low)] = digits else { return None };
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

/// The first `key=value` of such pairs, and what follows. A value may stand in quotes, with backslashes before quotes.
fn next_pair(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if text.is_empty() {
        return None;
    }
    let start = text.find('=').map_or(text.len(), |at| at + 1);
    let start = start + (text[start..].len() - text[start..].trim_start().len());
    let quoted = text[start..].starts_with('\'');
    let mut escaped = false;
    let end = text[start..].char_indices().find_map(|(at, c)| {
        let was_escaped = escaped;
        escaped = c == '\\' && !was_escaped;
        if was_escaped {
            None
        } else if quoted {
            (c == '\'' && at > 0).then_some(start + at + 1)
        } else {
            c.is_whitespace().then_some(start + at)
        }
    });
    Some(text.split_at(end.unwrap_or(text.len())))
}

fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).unwrap_or(text);
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// What to do when the server asks for a password and there is none.
pub const PASSWORD_ADVICE: &str = "give it in PGPASSWORD, in ~/.pgpass (or the file that PGPASSFILE names), or in the database URL: \
                          postgresql://user:password@host:port/database";

/// The password and where it comes from. `variable` looks into the environment.
pub fn find_password(
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

    fn split(text: &str) -> (String, Tls) {
        Tls::split_from(text).unwrap()
    }

    #[test]
    fn urls_keep_all_but_what_is_about_tls() {
        let (url, tls) = split(
            "postgresql://u:p%40@h:5432/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Ftmp%2Fa%20b",
        );
        assert_eq!(url, "postgresql://u:p%40@h:5432/d?connect_timeout=3");
        assert_eq!((tls.mode, tls.root.as_deref()), (Mode::VerifyFull, Some("/tmp/a b")));
        let (url, tls) = split("\n postgres://h/d?sslmode=require");
        assert_eq!((url.as_str(), tls.mode), ("postgres://h/d", Mode::Require));
        assert_eq!(split("postgresql://h/d").1, Tls::default());
        assert!(Tls::split_from("postgresql://h/d?sslmode=verify").is_err());
        assert!(Tls::split_from("postgresql://h/d?sslrootcert=%2").is_err());
    }

    #[test]
    fn pairs_keep_all_but_what_is_about_tls() {
        let (rest, tls) =
            split(r"host=h  password='a b\'sslmode=x' sslmode=verify-ca sslrootcert='/tmp/a b' dbname=d");
        assert_eq!(rest, r"host=h password='a b\'sslmode=x' dbname=d");
        assert_eq!((tls.mode, tls.root.as_deref()), (Mode::VerifyCa, Some("/tmp/a b")));
        let (rest, tls) = split("host = h sslmode = disable");
        assert_eq!((rest.as_str(), tls.mode), ("host = h", Mode::Disable));
        assert_eq!(split("").0, "");
    }

    #[test]
    fn files_that_are_missing_are_named() {
        let (_, tls) = split("postgresql://h/d?sslmode=verify-full&sslrootcert=/nonexistent/root.pem");
        assert!(tls.connector().err().unwrap().contains("sslrootcert=/nonexistent/root.pem"));
        // Not asked to check: not read.
        let (_, tls) = split("postgresql://h/d?sslmode=prefer&sslrootcert=/nonexistent/root.pem");
        assert!(tls.connector().is_ok());
        let (_, tls) = split("postgresql://h/d?sslcert=/nonexistent/cert.pem");
        assert!(tls.connector().err().unwrap().contains("sslcert"));
    }

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
