//! Connections to Postgres, the types that the driver lacks, and messages for what can go wrong on the way there. What
//! a URL says about TLS is in `libpq`, which errors are worth another try in `retry`.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use tokio_postgres::Client;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::error::{Error, Kind, Result};
use crate::event::time::Micros;
use crate::postgres::libpq::{self, Tls};
use crate::postgres::retry::{self, Class};

/// A time as Postgres keeps it.
#[derive(Clone, Copy, Debug)]
pub struct PgTime(pub Micros);

/// A time read from Postgres; the infinite ones as the ends of the range.
#[derive(Clone, Copy, Debug)]
pub struct PgMoment(pub Micros);

impl<'a> FromSql<'a> for PgMoment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(PgMoment(i64::from_be_bytes(raw.try_into()?)))
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// A date as Postgres keeps it: days since 2000-01-01.
#[derive(Clone, Copy, Debug)]
pub struct PgDay(pub i32);

type BoxError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for PgTime {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
    to_sql_checked!();
}

impl ToSql for PgDay {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.put_i32(self.0);
        Ok(IsNull::No)
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::DATE
    }
    to_sql_checked!();
}

/// Where Postgres is, and how to talk to it.
#[derive(Clone)]
pub struct Config {
    driver: tokio_postgres::Config,
    tls: Tls,
    /// What the password was read from, where the URL has none.
    password_from: Option<String>,
    url: String,
    /// The file that the URL was read from.
    file: Option<String>,
    /// Settings of Postgres, as `-c name=value`.
    settings: String,
}

impl std::ops::Deref for Config {
    type Target = tokio_postgres::Config;

    fn deref(&self) -> &tokio_postgres::Config {
        &self.driver
    }
}

impl Config {
    /// Where the password came from that is not in the URL: PGPASSWORD, or the path of a file.
    pub fn password_from(&self) -> Option<&str> {
        self.password_from.as_deref()
    }

    /// Sends a setting of Postgres along with each connection, as `-c name=value`.
    pub fn setting(&mut self, name: &str, value: &str) {
        self.settings.push_str(&format!(" -c {name}={value}"));
    }

    /// Has the URL read anew from this file at each connect.
    pub fn from_file(mut self, file: Option<&str>) -> Self {
        self.file = file.map(str::to_owned);
        self
    }

    /// The same with the user, the password and the certificates that the files have now. What cannot be read now, or
    /// leads elsewhere, changes nothing: the position that a process holds is in the database that it began with.
    fn anew(&self) -> Config {
        let read = || {
            let url = match &self.file {
                Some(file) => std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?,
                None => self.url.clone(),
            };
            let new = parse_url(url.trim_end_matches(['\r', '\n'])).map_err(|e| e.to_string())?;
            let place = |c: &tokio_postgres::Config| {
                (c.get_hosts().to_vec(), c.get_hostaddrs().to_vec(), c.get_ports().to_vec())
            };
            let database = |c: &tokio_postgres::Config| c.get_dbname().or(c.get_user()).map(str::to_owned);
            if place(&new) != place(self) || database(&new) != database(self) {
                return Err("it leads to another database now: that takes a restart".to_owned());
            }
            Ok(Config { file: self.file.clone(), settings: self.settings.clone(), ..new })
        };
        read().unwrap_or_else(|why| {
            tracing::warn!("cannot read the database URL anew, using the one from before: {why}");
            self.clone()
        })
    }
}

/// Reads a connection string, URL or `key=value` pairs, with the parameters for TLS that libpq knows. A password that it
/// lacks comes from PGPASSWORD or the password file.
pub fn parse_url(url: &str) -> Result<Config> {
    let refuse = |why: String| {
        Error::new(
            Kind::Usage,
            "cannot read the database URL",
            why,
            "write postgresql://user@host:port/database",
        )
    };
    let (for_driver, tls) = Tls::split_from(url).map_err(refuse)?;
    let mut config: tokio_postgres::Config = for_driver.parse().map_err(|e: tokio_postgres::Error| {
        // Among pairs, what it takes for the name of a parameter may be the rest of a password with a blank in it.
        let is_url = for_driver.contains("://");
        refuse(if is_url {
            full_message(&e)
        } else {
            "the key=value pairs are not as libpq writes them".to_owned()
        })
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::new(
            Kind::Usage,
            "cannot read the database URL",
            "it names no server",
            "write postgresql://user@host:port/database, or postgresql:///database?host=/var/run/postgresql for a local socket",
        ));
    }
    let mut password_from = None;
    if config.get_password().is_none() {
        match libpq::find_password(&config, |name| std::env::var(name).ok()) {
            Ok(Some((password, from))) => {
                config.password(password);
                password_from = Some(from);
            }
            Ok(None) => {}
            Err(why) => tracing::warn!("{why}"),
        }
    }
    config.ssl_mode(tls.driver_mode());
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    // A loader whose host died must not hold its locks for two hours.
    config.keepalives_idle(Duration::from_secs(30));
    config.keepalives_interval(Duration::from_secs(10));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(60));
    if config.get_application_name().is_none() {
        config.application_name("tidemark");
    }
    tls.check().map_err(refuse)?;
    Ok(Config {
        driver: config,
        tls,
        password_from,
        url: url.to_owned(),
        file: None,
        settings: String::new(),
    })
}

/// A connection that is kept for what comes next, until it is old: a session holds on to its caches, and to the temporary
/// tables that it made, for as long as it lives.
pub struct Kept {
    client: Client,
    since: Instant,
}

/// How old a kept connection becomes. The work between two connects is minutes to an hour at most, so that what a session
/// has gathered (memory of plans and catalogs, temporary tables, which nothing freezes) goes before it counts; and a connect
/// takes milliseconds.
const MOST_AGE: Duration = Duration::from_secs(15 * 60);

impl Kept {
    /// One that was just made.
    pub fn new(client: Client) -> Self {
        Kept { client, since: Instant::now() }
    }

    /// It, unless it has broken or is old. To be asked between two transactions.
    pub fn usable(self) -> Option<Self> {
        (!self.client.is_closed() && self.since.elapsed() < MOST_AGE).then_some(self)
    }
}

impl std::ops::Deref for Kept {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// What a database or a role has set for people's queries is not meant for these sessions.
const SESSION: &str =
    "SET TIME ZONE 'UTC'; SET client_min_messages = warning; SET search_path = pg_catalog, pg_temp;
                       SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
                       SET default_transaction_isolation = 'read committed'; SET row_security = on;
                       SET quote_all_identifiers = off";

/// Opens a connection; a task of its own serves it until the client is dropped.
pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let client = open(config).await?;
    client.batch_execute(SESSION).await?;
    Ok(client)
}

/// Opens a connection and leaves its session as the server made it.
pub async fn open(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let Config { mut driver, tls, settings, .. } = config.anew();
    if !settings.is_empty() {
        let before = driver.get_options().unwrap_or_default().to_owned();
        driver.options((before + &settings).trim_start());
    }
    // Files that went away since the URL was read are a failure to connect.
    let connector = tls.connector().unwrap_or_else(|why| {
        tracing::error!("TLS: {why}");
        Tls::refusing()
    });
    let (client, connection) = driver.connect(connector).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!("database connection ended: {}", full_message(&e));
        }
    });
    Ok(client)
}

/// Opens a connection for a command, with an error for people.
pub async fn connect_once(config: &Config) -> Result<Client> {
    connect(config).await.map_err(|e| explain("cannot connect to the database", config, &e))
}

/// Server, port and database of a configuration, without any password.
pub fn describe(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        Some(Host::Unix(path)) => format!("{} port {port}", path.display()),
        None => format!("port {port}"),
    };
    format!("{host}, database {}", config.get_dbname().or(config.get_user()).unwrap_or("(default)"))
}

/// An error of the driver with everything that the server said.
pub fn full_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// Whether a missing table or schema would be there after the migrations: users name tables of their own too.
fn names_ours(code: &str, why: &str) -> bool {
    !matches!(code, "42P01" | "3F000")
        || ["\"bronze", "\"loader", "\"tidemark", "\"silver", "\"gold"].iter().any(|ours| why.contains(ours))
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// What gives the user of this connection the right to temporary tables.
pub fn grant_temporary(config: &tokio_postgres::Config) -> String {
    let user = config.get_user().unwrap_or_default();
    let database = quoted(config.get_dbname().unwrap_or(user));
    format!("GRANT TEMPORARY ON DATABASE {database} TO {}", quoted(user))
}

/// Turns an error of the driver into one for people.
pub fn explain(what: &str, config: &tokio_postgres::Config, error: &tokio_postgres::Error) -> Error {
    let why = full_message(error);
    let at = describe(config);
    let code = error.as_db_error().map(|db| db.code().code());
    let class = retry::classify(error);
    let next = match (class, code) {
        (Class::Other, Some(c @ ("42P01" | "3F000" | "42703" | "42883"))) if names_ours(c, &why) => {
            format!("run `tidemark migrate` against {at} first")
        }
        (Class::Right, _) if why.contains("temporary tables") => {
            grant_temporary(config)
        }
        (Class::Right, _) => "grant the role what it lacks (GRANT tidemark_loader for loading, tidemark_admin for \
                              maintenance)"
            .to_owned(),
        (Class::Database, _) => "create the database or correct the URL".to_owned(),
        (Class::Contended, _) => "others use the same tables; try again".to_owned(),
        // Said by the driver, not by the server: there is nothing to send.
        (Class::Credentials, None) => {
            let of = config.get_user().map(|user| format!(" of {user}")).unwrap_or_default();
            let why = format!("the server at {at} asks for the password{of}, and there is none");
            return Error::new(retry::kind(error), what, why, libpq::PASSWORD_ADVICE);
        }
        (Class::Credentials, Some(_)) => {
            "check the user in the database URL and the password: in the URL, or else in PGPASSWORD or ~/.pgpass".to_owned()
        }
        (_, Some(_)) => format!("check the server at {at} and try again"),
        (_, None) => format!("check that a server runs at {at}, or set --database-url"),
    };
    Error::new(retry::kind(error), what, why, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to a server that lets everybody in and then says nothing, and that end of it.
    async fn connected() -> (Kept, tokio::net::TcpStream) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgresql://u:p@{}/d?sslmode=disable", listener.local_addr().unwrap());
        let client = tokio::spawn(async move { open(&parse_url(&url).unwrap()).await.unwrap() });
        let (mut server, _) = listener.accept().await.unwrap();
        let _ = server.read(&mut [0; 1024]).await.unwrap();
        // Authenticated, and ready for a query.
        server.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        (Kept::new(client.await.unwrap()), server)
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_it_is_old_or_broken() {
        let aged = |kept: Kept, by: Duration| Kept { since: kept.since - by, ..kept };
        let (kept, _server) = connected().await;
        let kept = aged(kept.usable().unwrap(), MOST_AGE / 2).usable().unwrap();
        assert!(aged(kept, MOST_AGE / 2).usable().is_none());

        let (kept, server) = connected().await;
        drop(server);
        let noticed = tokio::time::timeout(Duration::from_secs(10), async {
            while !kept.is_closed() {
                tokio::task::yield_now().await;
            }
        });
        noticed.await.unwrap();
        assert!(kept.usable().is_none());
    }

    #[test]
    fn credentials_are_read_anew_and_another_place_is_not() {
        let file = std::env::temp_dir().join(format!("tidemark-dsn-{}", uuid::Uuid::new_v4()));
        let path = file.to_str().unwrap();
        let first = "postgresql://u:one@h:1/d?sslmode=disable";
        let config = parse_url(first).unwrap().from_file(Some(path));
        let password = |config: &Config| String::from_utf8_lossy(config.get_password().unwrap()).into_owned();
        // A file that is gone for a moment changes nothing.
        assert_eq!(password(&config.anew()), "one");
        for (text, user, expected) in [
            ("postgresql://u:two@h:1/d\n", "u", "two"),
            ("postgresql://other:three@h:1/d", "other", "three"),
            ("postgresql://u:four@elsewhere:1/d", "u", "one"),
            ("postgresql://u:four@h:1/elsewhere", "u", "one"),
            ("half a l", "u", "one"),
        ] {
            std::fs::write(&file, text).unwrap();
            let new = config.anew();
            assert_eq!((new.get_user(), password(&new).as_str()), (Some(user), expected), "{text}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn only_what_the_migrations_make_is_said_to_come_from_them() {
        assert!(names_ours("42P01", "relation \"loader.offsets\" does not exist"));
        assert!(names_ours("3F000", "schema \"tidemark\" does not exist"));
        assert!(names_ours("42883", "function tidemark.mark_dirty(regclass, date[]) does not exist"));
        assert!(!names_ours("42P01", "relation \"mine.events\" does not exist"));
        assert!(!names_ours("3F000", "schema \"mine\" does not exist"));
    }
}
