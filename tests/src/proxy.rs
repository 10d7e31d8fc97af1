//! A TCP proxy on 127.0.0.1 between the loader and Postgres that can cut the loader off without the server noticing,
//! or hold everything back, as a firewall or a failed switch does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A running proxy. Its threads end with the process.
pub struct Proxy {
    /// Where to connect instead, as host:port.
    pub address: String,
    links: Arc<Mutex<Vec<Link>>>,
    silent: Arc<AtomicBool>,
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
        let silent = Arc::new(AtomicBool::new(false));
        let (target, kept, hush) = (address.to_owned(), links.clone(), silent.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let clone = |s: &TcpStream| s.try_clone().expect("a socket can be cloned");
                let (to_server, to_client) = (clone(&server), clone(&client));
                let (from_client, from_server) = (clone(&client), clone(&server));
                let link = Link { client, _server: server };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(link);
                let (one, other) = (hush.clone(), hush.clone());
                std::thread::spawn(move || pump(from_client, to_server, &one));
                std::thread::spawn(move || pump(from_server, to_client, &other));
            }
        });
        Proxy { address: own, links, silent }
    }

    /// Passes nothing on from now, or everything again; all connections stay open.
    pub fn silence(&self, on: bool) {
        self.silent.store(on, Ordering::SeqCst);
    }

    /// Cuts every client off; the server's ends stay open.
    pub fn cut(&self) {
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = link.client.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut buffer) {
        while silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
