//! A real PgBouncer in front of a private Postgres.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::Database;
use crate::{free_port, server, wait_until};

/// A running PgBouncer; stopped when it goes out of scope.
pub struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// Starts one that logs in to a database as the loader's login.
    pub fn start(database: &Database<'_>, pool_mode: &str) -> Pooler {
        let port = free_port();
        let (host, server_port) = database.cluster.address.split_once(':').expect("host:port");
        let url = database.loader_url();
        let (_, rest) = url.split_once("://").expect("a URL");
        let (user, rest) = rest.split_once(':').expect("a user");
        let (password, _) = rest.split_once('@').expect("a password");
        let path = server::scratch().join(format!("pgbouncer-{port}.ini"));
        let settings = format!(
            "[databases]\n{name} = host={host} port={server_port} dbname={name} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {pool_mode}\n\
             unix_socket_dir =\nlogfile =\n",
            name = database.name
        );
        std::fs::write(&path, settings).expect("cannot write to the directory for temporary files");
        let find = "PATH=$PATH:/usr/sbin; \
                    [ \"$(id -u)\" != 0 ] || set -- -u \"${TIDEMARK_SERVER_USER:-postgres}\" \"$@\"; \
                    exec pgbouncer -q \"$@\"";
        let child = Command::new("bash")
            .args(["-c", find, "pgbouncer"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot run bash");
        let mut pooler = Pooler { child, port };
        wait_until("PgBouncer to listen; scripts/deps.sh test installs it", Duration::from_secs(20), || {
            let ended = pooler.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "pgbouncer ended: {ended:?}; scripts/deps.sh test installs it");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        pooler
    }

    /// The URL of the database through it.
    pub fn url(&self, database: &Database<'_>) -> String {
        format!("postgresql://anybody@127.0.0.1:{}/{}", self.port, database.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
