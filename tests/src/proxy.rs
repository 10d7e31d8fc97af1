//! A TCP proxy on 127.0.0.1 between the loader and Postgres that can cut the loader off without the server noticing, as
//! a firewall or a failed switch does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A running proxy. Its threads end with the process.
pub struct Proxy {
    /// Where to connect instead, as host:port.
    pub address: String,
    links: Arc<Mutex<Vec<Link>>>,
}

struct Link {
    client: TcpStream,
    /// Held open: the server must not see that anything happened.
    _server: TcpStream,
}

impl Proxy {
    /// Starts a proxy to an address.
    pub fn to(address: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("no free port on 127.0.0.1");
        let own = listener.local_addr().expect("a bound socket has an address").to_string();
        let links = Arc::new(Mutex::new(Vec::new()));
        let (target, kept) = (address.to_owned(), links.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let clone = |s: &TcpStream| s.try_clone().expect("a socket can be cloned");
                let (to_server, to_client) = (clone(&server), clone(&client));
                let (from_client, from_server) = (clone(&client), clone(&server));
                let link = Link { client, _server: server };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(link);
                std::thread::spawn(move || pump(from_client, to_server));
                std::thread::spawn(move || pump(from_server, to_client));
            }
        });
        Proxy { address: own, links }
    }

    /// Cuts every client off; the server's ends stay open.
    pub fn cut(&self) {
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = link.client.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
