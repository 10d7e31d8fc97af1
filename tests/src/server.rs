//! What private servers have in common: where they live, how they are started, and that they never outlive the tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is not the top folder").to_owned()
}

/// A directory of this test process for files. It goes away with the process, however that ends.
pub(crate) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("tidemark-tests-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
        when_we_are_gone("exec rm -rf \"$0\"", &[path.as_os_str()]);
        path
    })
}

/// Starts a server with one of the scripts, which prints its address. It is destroyed when this process is gone.
pub(crate) fn start(script: &str, name: &str, settings: &[&str]) -> (PathBuf, String) {
    start_with(script, name, settings, &[])
}

/// The same with variables of the environment.
pub(crate) fn start_with(
    script: &str,
    name: &str,
    settings: &[&str],
    environment: &[(&str, &str)],
) -> (PathBuf, String) {
    let directory = std::env::temp_dir().join(format!("tidemark-tests-{}-{name}", std::process::id()));
    let script = root().join("scripts").join(script);
    when_we_are_gone("exec \"$0\" destroy \"$1\"", &[script.as_os_str(), directory.as_os_str()]);
    let mut said = String::new();
    // Between our look and its start somebody else may take the port.
    for _ in 0..5 {
        let output = Command::new(&script)
            .arg("start")
            .arg(&directory)
            .arg(free_port().to_string())
            .args(settings)
            .env("KAFKA_TIMEOUT", "180")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("cannot run {}: {e}", script.display()));
        if output.status.success() {
            return (directory, String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Kafka has a second port, and says it in its own words.
        if !said.contains("is taken") && !said.contains("ServerSocket") {
            break;
        }
    }
    panic!(
        "{} does not start a server:\n{said}\nscripts/deps.sh test installs what it needs",
        script.display()
    );
}

/// Has a script do something with a server that it started in this directory.
pub(crate) fn script(script: &str, command: &str, directory: &Path) {
    script_with(script, &[command.as_ref(), directory.as_os_str()]);
}

/// Runs a script that must succeed.
pub(crate) fn script_with(script: &str, arguments: &[&std::ffi::OsStr]) {
    script_in(&[], script, arguments);
}

/// Runs a script that must succeed, with more variables in its environment.
pub(crate) fn script_in(environment: &[(&str, &str)], script: &str, arguments: &[&std::ffi::OsStr]) {
    let path = root().join("scripts").join(script);
    run(Command::new(&path).args(arguments).envs(environment.iter().copied()));
}

/// Runs a script that must succeed; it and what it starts have so many kilobytes of address space each.
pub(crate) fn script_under(kilobytes: u64, script: &str, arguments: &[&std::ffi::OsStr]) {
    let path = root().join("scripts").join(script);
    let shell = ["-c", "ulimit -v \"$0\" && exec \"$@\""];
    run(Command::new("bash").args(shell).arg(kilobytes.to_string()).arg(path).args(arguments));
}

fn run(command: &mut Command) {
    let output = command.env("KAFKA_TIMEOUT", "180").stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A port of 127.0.0.1 on which nobody listened just now. Not one that the system hands out to outgoing connections:
/// one of those, or a client that tries again and again and meets itself, would sit on the port of a server that is to
/// come back.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first_outgoing: u32 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768);
    let (low, width) = (10_000, first_outgoing.clamp(10_100, 65_000) - 10_000);
    for _ in 0..width {
        // Test processes side by side start at different places.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = low + std::process::id().wrapping_mul(997).wrapping_add(step.wrapping_mul(7)) % width;
        let port = u16::try_from(port).expect("a port below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1")
}

/// Runs a line of shell once this process has ended, be it by kill -9: a shell in a session of its own waits for the
/// end of a pipe whose other end only we hold.
#[expect(clippy::zombie_processes, reason = "it outlives us, that is its purpose")]
fn when_we_are_gone(shell: &str, arguments: &[&std::ffi::OsStr]) {
    let guardian = Command::new("setsid")
        .args(["bash", "-c", &format!("cat >/dev/null; cd /; {shell}")])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cannot run setsid; it is in the package util-linux");
    std::mem::forget(guardian.stdin);
}
