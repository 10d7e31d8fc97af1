//! Messages to systemd (sd_notify): that we are ready, that we are alive, that we stop. Without NOTIFY_SOCKET in the
//! environment nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::operations::health::LIMITS;
use crate::operations::state::{Now, Shared};

/// Sends a message such as `READY=1`.
pub fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|p| !p.is_empty()) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &a));
    if let Err(e) = sent {
        tracing::debug!("cannot notify systemd: {e}");
    }
}

/// Tells the watchdog that we are alive, for as long as the reading thread is.
pub async fn watchdog(state: Arc<Shared>) {
    let limit = std::env::var("WATCHDOG_USEC").ok().and_then(|v| v.parse().ok()).map(Duration::from_micros);
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let Some(limit) = limit.filter(|l| ours && !l.is_zero()) else { return };
    let mut timer = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        timer.tick().await;
        if state.with(|s| s.silence(Now::get())) < LIMITS.silence {
            notify("WATCHDOG=1");
        }
    }
}
