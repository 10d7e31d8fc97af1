//! Produces the storm's file line by line through `tidemark-shop produce`, never further than the storm allows.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::shop_binary;

pub(super) struct Feed {
    allowed: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    lines: u64,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Feed {
    pub(super) fn start(path: &Path, brokers: &str, topic: &str, lines: u64) -> Feed {
        let child = Command::new(shop_binary())
            .args(["produce", "-", "--brokers", brokers, "--topic", topic])
            .env_remove("TIDEMARK_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("cannot run tidemark-shop produce");
        let file =
            BufReader::with_capacity(1 << 18, File::open(path).expect("cannot read the generated file"));
        let (allowed, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (limit, count) = (allowed.clone(), sent.clone());
        let thread = std::thread::spawn(move || feed(file, child, &limit, &count));
        Feed { allowed, sent, lines, thread: Some(thread) }
    }

    /// Allows this share of the file.
    pub(super) fn allow(&self, share: f64) {
        let lines = if share >= 1.0 { u64::MAX } else { (self.lines as f64 * share) as u64 };
        self.allowed.store(lines, Ordering::Relaxed);
    }

    /// Lines given to the producer so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until Kafka has everything.
    pub(super) fn wait(&mut self) -> Result<(), String> {
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| "the producing thread panicked".to_owned())?,
            None => Ok(()),
        }
    }
}

fn feed(
    mut file: BufReader<File>,
    mut child: Child,
    limit: &AtomicU64,
    count: &AtomicU64,
) -> Result<(), String> {
    let mut input = child.stdin.take().ok_or("the producer has no standard input")?;
    let mut line = Vec::new();
    loop {
        while count.load(Ordering::Relaxed) >= limit.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(|e| e.to_string())? == 0 {
            break;
        }
        input.write_all(&line).map_err(|e| format!("the producer went away: {e}"))?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    drop(input);
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the producer ended with {status}")) }
}
