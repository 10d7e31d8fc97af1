//! A test that hangs ends its program, with its name and what our processes were doing: CI would stop the whole run at
//! its limit and say neither.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::read_to_string;
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Longer than the longest test on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

/// The tests that run, each with its name and when it was first seen.
static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

thread_local! {
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

/// Goes with the thread of a test.
struct Seen(String);

impl Drop for Seen {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Watches over the test on whose thread this is called, from now to its end. Threads that a test starts have no name
/// and are not watched.
pub(crate) fn watch() {
    static DOG: Once = Once::new();
    DOG.call_once(|| _ = std::thread::spawn(bark));
    let thread = std::thread::current();
    let Some(name) = thread.name().filter(|name| *name != "main") else { return };
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.entry(name.to_owned()).or_insert_with(|| {
        SEEN.set(Some(Seen(name.to_owned())));
        Instant::now()
    });
}

fn bark() {
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let names = running.iter().filter(|(_, since)| since.elapsed() > LIMIT);
        let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            let limit = LIMIT.as_secs();
            let said =
                format!("\ntests that run for more than {limit} s: {}\n{}", names.join(", "), processes());
            // Past libtest, which would keep it for a report that never comes.
            _ = std::io::stderr().write_all(said.as_bytes());
            std::process::exit(101);
        }
    }
}

/// Every thread of ours and of the programs that we have started, and where in the kernel it waits.
fn processes() -> String {
    let mut text = String::new();
    let group = |pid: &str| {
        let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next()?.split(' ').nth(2).map(str::to_owned)
    };
    let ours = group("self");
    for pid in numbers("/proc").into_iter().filter(|pid| group(pid) == ours) {
        let command = read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        _ = writeln!(text, "{pid} {command}");
        for task in numbers(&format!("/proc/{pid}/task")) {
            let about = |what| read_to_string(format!("/proc/{pid}/task/{task}/{what}")).unwrap_or_default();
            _ = writeln!(text, "  {task} {} {}", about("comm").trim_end(), about("wchan"));
        }
    }
    text
}

fn numbers(directory: &str) -> Vec<String> {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.parse::<u32>().is_ok()).collect()
}
