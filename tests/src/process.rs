//! The `tidemark` binary as a process: run to its end, or in the background with signals.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::{server, watchdog};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The binary under test: `TIDEMARK_BIN`, else the newest one in the target directory that these tests were built in.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEMARK_BIN").map(PathBuf::from) {
        assert!(path.is_file(), "TIDEMARK_BIN={} is no file; build it, or unset it", path.display());
        return path;
    }
    let exe = std::env::current_exe().expect("this program has a path");
    let newest = exe
        .ancestors()
        .skip(1)
        .take(4)
        .flat_map(|dir| [dir.join("release/tidemark"), dir.join("debug/tidemark")])
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    match newest {
        Some((_, path)) => path,
        None => panic!("there is no binary to test; run `scripts/build.sh`, or set TIDEMARK_BIN"),
    }
}

/// The program that makes events, beside it.
pub fn shop_binary() -> PathBuf {
    binary().with_file_name("tidemark-shop")
}

/// A command line of the binary, to be run.
pub fn tidemark(arguments: &[&str]) -> Invocation {
    invoke(&binary(), arguments)
}

/// A command line of the program that makes events, to be run.
pub fn shop(arguments: &[&str]) -> Invocation {
    invoke(&shop_binary(), arguments)
}

fn invoke(program: &Path, arguments: &[&str]) -> Invocation {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    // Only what the test says counts.
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|n| n.starts_with("TIDEMARK_") && n != "TIDEMARK_BIN");
        if ours || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    Invocation { command, name: format!("{} {}", program.display(), arguments.join(" ")) }
}

/// A command line that was not run yet.
pub struct Invocation {
    command: Command,
    name: String,
}

impl Invocation {
    /// Uses this database.
    pub fn database(mut self, url: &str) -> Self {
        self.command.env("TIDEMARK_DATABASE_URL", url);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Reads this file as standard input.
    pub fn stdin(mut self, path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
        self.command.stdin(file);
        self
    }

    /// Starts it in the background.
    pub fn start(mut self) -> Process {
        watchdog::watch();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Files, not pipes: nobody reads while it runs.
        let [out, err] =
            ["out", "err"].map(|kind| server::scratch().join(format!("process-{number}.{kind}")));
        let create = |path| File::create(path).expect("cannot write to the directory for temporary files");
        let child = self.command.stdout(create(&out)).stderr(create(&err)).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot run {}: {e}", binary().display()));
        Process { child, out, err, name: self.name }
    }

    /// Runs a command line that must be refused as such, with help on standard error.
    pub fn run_usage(self) {
        let finished = self.run();
        assert_eq!(finished.code, Some(64), "{}: {}", finished.name, finished.stderr);
        assert!(finished.stderr.contains("--help"), "{}: {}", finished.name, finished.stderr);
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.start().wait()
    }
}

/// A running process; killed when it goes out of scope.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    name: String,
}

impl Process {
    /// Sends a signal, such as TERM, STOP or CONT.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        // The shell's own kill: a minimal Debian has no program of that name.
        let sent = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, signal, &pid]).status();
        assert!(sent.is_ok_and(|s| s.success()), "cannot send {signal} to {}: {}", self.name, self.errors());
        if signal == "STOP" {
            // Each thread stops when the kernel next looks at it, which may be after its next system call.
            crate::wait_until("all threads to stop", LIMIT, || self.is_stopped());
        }
    }

    /// Waits until it would hear a SIGTERM: before that, the signal would just kill it.
    pub fn wait_until_it_listens(&mut self) {
        let status = format!("/proc/{}/status", self.child.id());
        crate::wait_until("a process to listen to SIGTERM", LIMIT, || {
            assert!(self.is_running(), "{} ended: {}", self.name, self.errors());
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
            caught & (1 << 14) != 0
        });
    }

    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.is_ok_and(|tasks| {
            tasks.flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // The state follows the name, which is in parentheses. Z: it was killed meanwhile.
                stat.rsplit(") ")
                    .next()
                    .is_none_or(|rest| rest.starts_with(['T', 't', 'Z', 'X']) || rest.is_empty())
            })
        })
    }

    /// Kills it at once; it must still have been running.
    pub fn kill_9(mut self) -> Finished {
        let ended = self.child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "{} ended before it could be killed: {}", self.name, self.errors());
        self.child.kill().expect("a child can be killed");
        self.wait()
    }

    /// The most memory that it has had resident so far, in MiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:").unwrap_or_else(|| panic!("{} has no peak memory; is it running?", self.name))
    }

    /// The memory that it has resident, in MiB; 0 if it has ended.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:").unwrap_or(0)
    }

    /// A size that the kernel knows of it, in MiB.
    fn status(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let size = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(size.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops its threads of these names, while the others run, until what is returned is dropped.
    pub fn hold_threads(&self, names: &[&str]) -> mpsc::Sender<()> {
        let threads: Vec<Pid> = names.iter().map(|name| self.thread(name)).collect();
        let (release, released) = mpsc::channel();
        let (held, holding) = mpsc::channel::<()>();
        // Whoever traces a thread has to be the one who lets it go, also when a test fails.
        std::thread::spawn(move || {
            for thread in &threads {
                ptrace::seize(*thread, ptrace::Options::empty()).expect("root may trace");
                ptrace::interrupt(*thread).expect("it is traced");
                waitpid(*thread, Some(WaitPidFlag::__WALL)).expect("it stops");
            }
            drop(held);
            let _ = released.recv();
            threads.iter().for_each(|thread| _ = ptrace::detach(*thread, None));
        });
        let _ = holding.recv();
        release
    }

    fn thread(&self, name: &str) -> Pid {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it is running");
        let mut tasks = tasks.flatten().map(|task| task.path());
        let named = |task: &PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.find(named).unwrap_or_else(|| panic!("{} has no thread {name}", self.name));
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a task is a number");
        Pid::from_raw(id)
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Finished {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if started.elapsed() > LIMIT {
                panic!("{} did not end within {} s; it said: {}", self.name, LIMIT.as_secs(), self.errors());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Finished {
            code: status.code(),
            stdout: String::from_utf8_lossy(&std::fs::read(&self.out).unwrap_or_default()).into_owned(),
            stderr: self.errors(),
            name: self.name.clone(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of a process.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    name: String,
}

/// How the records that a load or a run read have ended, from its summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sum of the following.
    pub read: u64,
    /// In bronze.
    pub loaded: u64,
    /// There already.
    pub duplicate: u64,
    /// Diverted because too late.
    pub late_diverted: u64,
    /// Dead letters.
    pub dead: u64,
    /// Skipped on purpose.
    pub filtered: u64,
    /// Without a value.
    pub tombstone: u64,
}

impl Finished {
    /// Panics unless it ended well.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{} failed: {}", self.name, self.stderr);
        self
    }

    /// Panics unless it read its file to the end, even if all of it became dead letters.
    pub fn read_all(self) -> Self {
        let nothing = self.code == Some(66) && self.stderr.contains("nothing was loaded of");
        if nothing { self } else { self.ok() }
    }

    /// Panics unless it ended with this code and one line on standard error, which is returned.
    pub fn refused(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}: {}{}", self.name, self.stdout, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().filter(|l| !l.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "{}: not one line but {}", self.name, self.stderr);
        let said_by = lines[0].split(": ").next().unwrap_or_default();
        assert!(["tidemark", "tidemark-shop"].contains(&said_by), "{}: {}", self.name, lines[0]);
        lines[0]
    }

    /// The summary of a load or a run. Panics when there is none or its sum is wrong.
    pub fn counts(&self) -> Counts {
        let line = self.stdout.lines().find(|line| line.starts_with("read "));
        let line = line.unwrap_or_else(|| panic!("{} printed no summary: {}", self.name, self.stdout));
        let words: Vec<&str> = line.split([' ', '=', '+']).filter(|w| !w.is_empty()).collect();
        let number = |name: &str| -> u64 {
            let at = words.iter().position(|w| *w == name);
            let text = at.and_then(|at| words.get(at + 1));
            let number = text.and_then(|text| text.trim_end_matches(',').parse().ok());
            number.unwrap_or_else(|| panic!("the summary has no {name}: {line}"))
        };
        let counts = Counts {
            read: number("read"),
            loaded: number("loaded"),
            duplicate: number("duplicate"),
            late_diverted: number("late_diverted"),
            dead: number("dead"),
            filtered: number("filtered"),
            tombstone: number("tombstone"),
        };
        let Counts { read, loaded, duplicate, late_diverted, dead, filtered, tombstone } = counts;
        assert_eq!(read, loaded + duplicate + late_diverted + dead + filtered + tombstone, "{line}");
        counts
    }
}
