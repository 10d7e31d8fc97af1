//! The loaders of the storm: who runs, who is frozen until when, who was asked to leave, who is to start again.

use std::time::{Duration, Instant};

use super::Plan;
use super::schedule::Rng;
use crate::cluster::Database;
use crate::process::Process;
use crate::run::Run;

const MOST: usize = 5;
/// Ends that a loader may come to by itself while servers are down: it could not start, or not stop in time.
const UNDERSTANDABLE: [i32; 2] = [69, 75];
/// SIGTERM has its own deadline in the loader, 25 s; a frozen one needs to be thawed first.
const LEAVING: Duration = Duration::from_secs(60);

struct Member {
    process: Process,
    number: u64,
    frozen_until: Option<Instant>,
    leaving_since: Option<Instant>,
}

pub(super) struct Fleet {
    run: Run,
    members: Vec<Member>,
    /// When to start further members.
    due: Vec<Instant>,
    started: u64,
    rng: Rng,
    complaints: Vec<String>,
    last_words: String,
    /// The first loader is spared, so that there is one whose memory is seen over the whole time.
    spare_first: bool,
}

impl Fleet {
    pub(super) fn new(database: &Database<'_>, brokers: &str, topic: &str, plan: &Plan) -> Fleet {
        let run = Run {
            url: database.loader_url(),
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            group: "storm".to_owned(),
            batch_rows: 1000,
            more: Vec::new(),
            environment: Vec::new(),
        };
        Fleet {
            run,
            members: Vec::new(),
            due: Vec::new(),
            started: 0,
            rng: Rng::new(!plan.seed),
            complaints: Vec::new(),
            last_words: String::new(),
            spare_first: plan.minutes > 0,
        }
    }

    pub(super) fn start(&mut self, n: usize) {
        (0..n).for_each(|_| self.spawn());
    }

    /// Loaders differ: sizes of batches, patience, lanes, and whether they wait for their commits to be on disk.
    fn spawn(&mut self) {
        let mut run = self.run.clone();
        run.batch_rows = [300, 1_000, 2_500, 8_000][self.rng.between(0, 3) as usize];
        let delay = self.rng.between(20, 500).to_string();
        if self.rng.between(0, 1) == 0 {
            run.url = format!("{}?options=-c%20synchronous_commit%3Doff", run.url);
        }
        let lanes = self.rng.between(1, 3).to_string();
        let process = run.with(&["--batch-delay-ms", &delay, "--lanes", &lanes]).start();
        self.started += 1;
        self.members.push(Member { process, number: self.started, frozen_until: None, leaving_since: None });
    }

    /// Starts who is due, thaws, and takes note of who has ended.
    pub(super) fn tend(&mut self) {
        let now = Instant::now();
        let due = self.due.len();
        self.due.retain(|at| *at > now);
        for _ in self.due.len()..due {
            self.spawn();
        }
        for index in (0..self.members.len()).rev() {
            let member = &mut self.members[index];
            if member.frozen_until.is_some_and(|until| until <= now) {
                member.process.signal("CONT");
                member.frozen_until = None;
            }
            let leaving = member.leaving_since;
            if !member.process.is_running() {
                let member = self.members.remove(index);
                let number = member.number;
                let finished = member.process.wait();
                let fine = match finished.code {
                    Some(0) => leaving.is_some(),
                    Some(code) => UNDERSTANDABLE.contains(&code),
                    None => false,
                };
                if !fine {
                    let words = last_lines(&finished.stderr);
                    self.complaints.push(format!("loader {number} ended with {:?}: {words}", finished.code));
                }
                if leaving.is_none() {
                    self.due.push(now + Duration::from_secs(1));
                }
            } else if leaving.is_some_and(|since| since.elapsed() > LEAVING) {
                let member = self.members.remove(index);
                self.complaints.push(format!(
                    "loader {} did not leave within {} s: {}",
                    member.number,
                    LEAVING.as_secs(),
                    last_lines(&member.process.errors())
                ));
            }
        }
    }

    fn may_be_hit(&self, member: &Member) -> bool {
        member.leaving_since.is_none() && !(self.spare_first && member.number == 1)
    }

    /// What the loaders hold in memory: the first one, if it is spared, and the largest.
    pub(super) fn memory(&self) -> String {
        let all = self.members.iter().map(|member| (member.number, member.process.memory()));
        let all: Vec<(u64, u64)> = all.collect();
        let first = all.iter().find(|(number, _)| *number == 1).map_or(0, |(_, mib)| *mib);
        let most = all.iter().map(|(_, mib)| *mib).max().unwrap_or(0);
        format!("first loader {first} MiB, largest {most} MiB")
    }

    /// A member that nobody has asked to leave.
    fn pick(&mut self, rng: &mut Rng) -> Option<usize> {
        self.tend();
        let stayers: Vec<usize> =
            (0..self.members.len()).filter(|i| self.may_be_hit(&self.members[*i])).collect();
        let choice = rng.next() as usize;
        stayers.get(choice.checked_rem(stayers.len())?).copied()
    }

    pub(super) fn kill(&mut self, rng: &mut Rng) {
        let wait = Duration::from_millis(rng.between(0, 2_000));
        if let Some(index) = self.pick(rng) {
            // Dropping kills it.
            let member = self.members.remove(index);
            self.last_words = member.process.errors();
            drop(member);
            self.due.push(Instant::now() + wait);
        }
    }

    pub(super) fn freeze(&mut self, rng: &mut Rng, time: Duration) {
        if let Some(index) = self.pick(rng) {
            let member = &mut self.members[index];
            member.process.signal("STOP");
            member.frozen_until = Some(Instant::now() + time);
        }
    }

    pub(super) fn join(&mut self) {
        if self.members.len() + self.due.len() < MOST {
            self.spawn();
        }
    }

    /// One leaves; where it was the only one, another comes at once.
    pub(super) fn leave(&mut self, rng: &mut Rng) {
        if let Some(index) = self.pick(rng) {
            let member = &mut self.members[index];
            member.process.signal("TERM");
            member.leaving_since = Some(Instant::now());
            let stayers = self.members.iter().filter(|m| m.leaving_since.is_none()).count();
            if stayers + self.due.len() < 2 {
                self.due.push(Instant::now());
            }
        }
    }

    /// For the progress line.
    pub(super) fn describe(&self) -> String {
        let count = |f: &dyn Fn(&Member) -> bool| self.members.iter().filter(|m| f(m)).count();
        format!(
            "loaders {} (frozen {}, leaving {}) of {}",
            self.members.len(),
            count(&|m| m.frozen_until.is_some()),
            count(&|m| m.leaving_since.is_some()),
            self.started
        )
    }

    /// The last that each loader said.
    pub(super) fn last_words(&self) -> String {
        let said =
            self.members.iter().map(|m| format!("loader {}: {}", m.number, last_lines(&m.process.errors())));
        said.collect::<Vec<_>>().join("\n")
    }

    /// Ends everybody in good order and returns the complaints of the whole storm.
    pub(super) fn end(&mut self) -> Vec<String> {
        self.due.clear();
        for member in &mut self.members {
            if member.frozen_until.take().is_some() {
                member.process.signal("CONT");
            }
            if member.leaving_since.is_none() && member.process.is_running() {
                member.process.signal("TERM");
                member.leaving_since = Some(Instant::now());
            }
        }
        while !self.members.is_empty() {
            self.tend();
            std::thread::sleep(Duration::from_millis(50));
        }
        std::mem::take(&mut self.complaints)
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}
