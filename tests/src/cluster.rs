//! A private Postgres, one for the whole test process, and a fresh database in it for every test.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::installation::Installation;
use crate::{process, server, wait_until, watchdog};

/// Roles that the tests log in with: (role, password, the group role that it is a member of).
const LOGINS: [(&str, &str, &str); 3] = [
    ("e2e_loader", "loading", "tidemark_loader"),
    ("e2e_reader", "reading", "tidemark_reader"),
    ("e2e_admin", "managing", "tidemark_admin"),
];

/// A private Postgres server.
pub struct Cluster {
    /// Address as host:port.
    pub address: String,
    directory: PathBuf,
    superuser: String,
    logins: Mutex<bool>,
    /// Whether there is a migrated database to copy.
    template: Mutex<bool>,
}

/// The server that the tests share; started by whoever asks first.
pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start("postgres"))
}

impl Cluster {
    /// Starts a server of its own under this name.
    pub fn start(name: &str) -> Cluster {
        Cluster::start_with(name, &[])
    }

    /// Starts a server of its own under this name, with more settings (name=value).
    pub fn start_with(name: &str, more: &[&str]) -> Cluster {
        Cluster::start_of(name, more, None)
    }

    /// Starts a server of its own from this installation.
    pub fn start_of(name: &str, more: &[&str], installation: Option<&Installation>) -> Cluster {
        let pg_config = installation.map(Installation::pg_config);
        let environment: Vec<_> = pg_config.iter().map(|path| ("PG_CONFIG", path.as_str())).collect();
        Cluster::start_in(name, more, &environment)
    }

    /// Starts a copy of this server that follows it.
    pub fn standby(&self, name: &str) -> Cluster {
        let of = self.directory.to_str().expect("the path is UTF-8");
        Cluster::start_in(name, &[], &[("STANDBY_OF", of)])
    }

    fn start_in(name: &str, more: &[&str], environment: &[(&str, &str)]) -> Cluster {
        // Nobody pulls the plug here: what is tested does not depend on fsync. A lazy WAL writer, so that a crash
        // loses what was committed without waiting for it.
        let mut settings = vec![
            "fsync=off",
            "full_page_writes=off",
            "max_connections=200",
            "autovacuum_naptime=10",
            "wal_writer_delay=10s",
            "wal_writer_flush_after=1GB",
        ];
        settings.extend(more);
        let (directory, address) = server::start_with("pg.sh", name, &settings, environment);
        let password: String = std::fs::read_to_string(directory.join("password"))
            .unwrap_or_else(|e| panic!("scripts/pg.sh left no password in {}: {e}", directory.display()));
        let superuser = format!("postgresql://postgres:{}@{address}", password.trim());
        Cluster { address, directory, superuser, logins: Mutex::new(false), template: Mutex::new(false) }
    }

    /// Stops the server at once, as a crash would: what it had not written is lost.
    pub fn crash(&self) {
        server::script("pg.sh", "crash", &self.directory);
    }

    /// Has all processes of the server hang, as they do when a disk does not answer, until what is returned is dropped.
    pub fn freeze(&self) -> Frozen {
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).expect("it runs");
        let postmaster = pid.lines().next().expect("a number").to_owned();
        let children = std::process::Command::new("pgrep").args(["-P", &postmaster]).output().expect("pgrep");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        let mut frozen = Frozen(vec![postmaster]);
        frozen.0.extend(children.split_whitespace().map(str::to_owned));
        frozen.signal("-STOP");
        frozen
    }

    /// Shuts the server down, cutting all connections.
    pub fn stop(&self) {
        server::script("pg.sh", "stop", &self.directory);
    }

    /// Starts it again where it was.
    pub fn start_again(&self) {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        server::script_with("pg.sh", &["start".as_ref(), self.directory.as_os_str(), port.as_ref()]);
    }

    /// Starts it again where it was; each of its processes has so many kilobytes of address space.
    pub fn start_again_under(&self, kilobytes: u64) {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let arguments = ["start".as_ref(), self.directory.as_os_str(), port.as_ref()];
        server::script_under(kilobytes, "pg.sh", &arguments);
    }

    /// The superuser's URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.superuser)
    }

    /// A connection as the superuser.
    pub fn connect(&self, database: &str) -> Client {
        connect(&self.url(database))
    }

    /// An empty database, without any migration.
    pub fn empty_database(&self) -> Database<'_> {
        self.new_database("template0")
    }

    fn new_database(&self, template: &str) -> Database<'_> {
        watchdog::watch();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'");
        self.connect("postgres").batch_execute(&sql).expect("cannot create a database");
        Database { cluster: self, name }
    }

    /// A database after `tidemark migrate`: a copy, since migrating takes longer than most tests.
    pub fn database(&self) -> Database<'_> {
        let mut made = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            let sql = "CREATE DATABASE migrated TEMPLATE template0 ENCODING 'UTF8'";
            self.connect("postgres").batch_execute(sql).expect("cannot create a database");
            let database = Database { cluster: self, name: "migrated".to_owned() };
            database.migrate();
            // It stays.
            std::mem::forget(database);
            *made = true;
        }
        drop(made);
        self.new_database("migrated")
    }

    /// A copy of a database to which nobody is connected.
    pub fn copy_of(&self, template: &Database<'_>) -> Database<'_> {
        self.new_database(&template.name)
    }

    /// The password of the superuser, postgres.
    pub fn password(&self) -> &str {
        let login = self.superuser.split('@').next().unwrap_or_default();
        login.rsplit(':').next().unwrap_or_default()
    }

    /// Creates the roles to log in with. Needs the group roles, so some database must be migrated.
    pub fn create_logins(&self) {
        let mut created = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if !*created {
            let mut client = self.connect("postgres");
            for (login, password, group) in LOGINS {
                let sql =
                    format!("CREATE ROLE {login} LOGIN PASSWORD '{password}'; GRANT {group} TO {login}");
                client.batch_execute(&sql).unwrap_or_else(|e| panic!("cannot create role {login}: {e}"));
            }
            *created = true;
        }
    }
}

/// The processes of a server that hangs; they go on when this is dropped, also when a test fails: who then drops its
/// database would wait for ever.
#[must_use]
pub struct Frozen(Vec<String>);

impl Frozen {
    fn signal(&self, signal: &str) {
        let status = std::process::Command::new("kill").arg(signal).args(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot signal {:?}", self.0);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// A database of one test; dropped at its end.
pub struct Database<'a> {
    /// The server that it is on.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl Database<'_> {
    /// Runs `tidemark migrate` as the superuser.
    pub fn migrate(&self) -> process::Finished {
        let finished = process::tidemark(&["migrate"]).database(&self.superuser_url()).run().ok();
        self.cluster.create_logins();
        finished
    }

    /// Loads a file and refreshes everything that depends on it.
    pub fn load_and_maintain(&self, path: &std::path::Path) {
        let path = path.to_str().expect("the path is UTF-8");
        process::tidemark(&["load", path]).database(&self.loader_url()).run().ok();
        process::tidemark(&["maintain"]).database(&self.admin_url()).run().ok();
    }

    /// The URL of the superuser.
    pub fn superuser_url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// The URL of a login role that is a member of tidemark_loader and of nothing else.
    pub fn loader_url(&self) -> String {
        self.login_url(0)
    }

    /// The URL of a login role that is a member of tidemark_reader and of nothing else.
    pub fn reader_url(&self) -> String {
        self.login_url(1)
    }

    /// The URL of a login role that is a member of tidemark_admin and of nothing else.
    pub fn admin_url(&self) -> String {
        self.login_url(2)
    }

    fn login_url(&self, which: usize) -> String {
        let (login, password, _) = LOGINS[which];
        format!("postgresql://{login}:{password}@{}/{}", self.cluster.address, self.name)
    }

    /// A connection as the superuser, who may look into everything.
    pub fn connect(&self) -> Client {
        connect(&self.superuser_url())
    }

    /// Runs a query as the superuser and returns every value as text, `NULL` for a null.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&mut self.connect(), sql)
    }

    /// The one value of a query, as text.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "not one value but {rows:?}: {sql}");
        rows[0][0].clone()
    }

    /// The one number of a query.
    pub fn number(&self, sql: &str) -> i64 {
        let value = self.value(sql);
        value.parse().unwrap_or_else(|_| panic!("not a number but {value}: {sql}"))
    }

    /// Waits until no process of ours has a transaction here any more: Postgres may notice late that a process was
    /// killed, and commit what it had already asked for.
    pub fn settle(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'tidemark'";
        wait_until("Postgres to end connections", Duration::from_secs(60), || self.number(sql) == 0);
    }

    /// The one column of a query, as texts.
    pub fn column(&self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().map(|mut row| row.remove(0)).collect()
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A panic here, during another one, would abort without any report.
        if let Ok(mut client) = Client::connect(&self.cluster.url("postgres"), NoTls) {
            let _ = client.batch_execute(&sql);
        }
    }
}

/// A connection to a URL.
pub fn connect(url: &str) -> Client {
    let shown = url.rsplit('@').next().unwrap_or(url);
    Client::connect(url, NoTls).unwrap_or_else(|e| panic!("cannot connect to {shown}: {}", explain(&e)))
}

/// Runs statements, each by itself: CALL commits, which a string of several does not allow.
pub fn run(client: &mut Client, sql: &str) {
    for statement in sql.split(";\n").flat_map(|part| part.split("; ")) {
        client.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {}", explain(&e)));
    }
}

/// What a query says, its rows one after the other.
pub fn told(client: &mut Client, sql: &str) -> String {
    let lines: Vec<String> = rows(client, sql).into_iter().map(|row| row.join(" ")).collect();
    lines.join(", ")
}

/// Runs statements and returns the rows of all of them, every value as text, `NULL` for a null.
pub fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(sql).unwrap_or_else(|e| panic!("{}\nin {sql}", explain(&e)));
    let mut rows = Vec::new();
    for message in messages {
        if let postgres::SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()).collect());
        }
    }
    rows
}

/// An error with what the server said.
pub fn explain(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}: {}", db.severity(), db.code().code(), db.message()),
        None => error.to_string(),
    }
}

/// The SQLSTATE of what must fail.
pub fn sqlstate<T>(result: Result<T, postgres::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(e) => e.code().map_or_else(|| e.to_string(), |code| code.code().to_owned()),
    }
}

/// Where the client programs of the server under test are.
pub fn program(name: &str) -> PathBuf {
    PathBuf::from(ask("$PGBIN")).join(name)
}

/// The pg_config of the server under test.
pub fn pg_config() -> PathBuf {
    PathBuf::from(ask("$PG_CONFIG"))
}

/// What a variable holds after scripts/lib.sh found the server.
fn ask(variable: &str) -> String {
    let script = server::root().join("scripts/lib.sh");
    let find = format!("SERVER_ONLY=1; . {} && use_postgres && printf %s \"{variable}\"", script.display());
    let output = std::process::Command::new("bash").args(["-c", &find]).output().expect("cannot run bash");
    assert!(output.status.success(), "no Postgres found: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
