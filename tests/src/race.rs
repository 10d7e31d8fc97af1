//! The race test: writers of late rows, refreshers that get killed, and judges that recompute everything from the
//! sources at random moments. Nothing here looks at how models are refreshed: a judge knows what each model means and
//! compares. `tests/race.rs` runs it for seconds, `make race` for as long as wanted.
//!
//! * `race/world.rs`: the tables, the models, and what they mean in plain SQL;
//! * `race/writer.rs`: those who change the sources;
//! * `race/actors.rs`: refreshers, those who end their connections, who changes definitions;
//! * `race/judge.rs`: comparisons while all of them are at work, and when all is quiet;
//! * `race/identity.rs`: the same for who everybody is, in the warehouse.

mod actors;
mod identity;
mod judge;
mod world;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};

use crate::cluster::{self, Cluster};
use crate::random::Random;

pub use actors::kill_9;
pub use identity::run as run_identity;
pub use judge::{state, wrong};
pub use world::{MODELS, Model, create, fill};

/// How a writer breaks the rule that a mark commits with its rows. What the race test must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Some transactions change rows and mark nothing.
    Forgets,
    /// Some marks commit before their rows do, so that a refresher may take the mark and not see the rows.
    MarksApart,
    /// Some events change hands and only who had them before is marked.
    NamesTooFew,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides what everybody does; when they do it is up to the machine.
    pub seed: u64,
    /// For how long they race; being brought to rest and checked comes on top, so that a slow machine has as many rounds.
    pub duration: Duration,
    /// After how long everything is brought to rest and checked.
    pub round: Duration,
    /// Sessions that write.
    pub writers: u64,
    /// Sessions that refresh.
    pub refreshers: u64,
    /// Sessions that compare live views.
    pub judges: u64,
    /// Rows of the source to stay near.
    pub rows: i64,
    /// Whether connections are ended and statements cancelled.
    pub disturb: bool,
    /// How many disturbances there are for one `kill -9`; 0 for no `kill -9`.
    pub crash_every: u64,
    /// Whether definitions change.
    pub redefine: bool,
    /// Broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// Whether a line about the progress is printed every ten seconds.
    pub progress: bool,
}

impl Options {
    /// The usual settings for this seed and time.
    pub fn new(seed: u64, duration: Duration) -> Options {
        Options {
            seed,
            duration,
            round: Duration::from_secs(60),
            writers: 8,
            refreshers: 3,
            judges: 2,
            rows: 6000,
            disturb: true,
            crash_every: 10,
            redefine: true,
            sabotage: None,
            progress: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Times that everything was brought to rest and checked.
    pub rounds: u64,
    /// Rows of the source inserted, changed or deleted by transactions that committed.
    pub events: u64,
    /// Transactions of writers that committed.
    pub commits: u64,
    /// Dates of models recomputed.
    pub refreshed: i64,
    /// How many of them by adding the rows that the source had gained; as far back as the log goes.
    pub appended: i64,
    /// How many of these are of the timeline, which gained parts; of identity, how many of its dates were scoped.
    pub parts: i64,
    /// How many by putting groups together; as far back as the log goes.
    pub merged: i64,
    /// How many by computing only some persons; as far back as the log goes.
    pub scoped: i64,
    /// Calls of refresh that ended well.
    pub refreshes: u64,
    /// Statements cancelled, connections ended, backends killed with -9.
    pub disturbed: [u64; 3],
    /// Definitions changed.
    pub redefined: u64,
    /// Ids of which it became known that they are somebody else's.
    pub known: u64,
    /// Live views compared with a recompute while everything was at work.
    pub compared: u64,
    /// Of these, how many read a date that waited for a recompute.
    pub compared_dirty: u64,
    /// What a live view got wrong.
    pub live_differences: Vec<String>,
    /// What was wrong at rest, or that should not have happened at all.
    pub differences: Vec<String>,
    /// Errors that belong to such a crowd, by SQLSTATE: conflicts and what disturbances cause.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Number of differences of both kinds.
    pub fn wrong(&self) -> usize {
        self.live_differences.len() + self.differences.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cancelled, ended, killed] = self.disturbed;
        write!(
            f,
            "rounds={} events={} commits={} refreshes={} refreshed_dates={} appended_dates={} of_timeline={} merged_dates={} scoped_dates={} cancelled={cancelled} \
             terminated={ended} kill_9={killed} redefinitions={} identity_changes={} live_comparisons={} of_dirty_dates={} differences={}",
            self.rounds,
            self.events,
            self.commits,
            self.refreshes,
            self.refreshed,
            self.appended,
            self.parts,
            self.merged,
            self.scoped,
            self.redefined,
            self.known,
            self.compared,
            self.compared_dirty,
            self.wrong()
        )
    }
}

/// What all threads share.
struct Race<'a> {
    options: &'a Options,
    url: String,
    /// Held shared for a transaction, exclusively while everything rests.
    gate: RwLock<()>,
    stop: AtomicBool,
    /// Rows of the source, roughly.
    rows: AtomicI64,
    /// The last day that has events, moving on.
    today: AtomicU64,
    report: Mutex<Report>,
    /// The last warnings of the server.
    warnings: Arc<Mutex<VecDeque<String>>>,
}

impl Race<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but no longer than the race lasts.
    fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while !self.stopped() && Instant::now() < until {
            std::thread::sleep(
                Duration::from_millis(10).min(until.saturating_duration_since(Instant::now())),
            );
        }
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Something that must not happen, in one line.
    fn wrong(&self, what: String) {
        self.tell(&what);
        self.note(|r| r.differences.push(what));
    }

    /// Tells at once, since the end may be far; not what was broken on purpose.
    fn tell(&self, what: &str) {
        if self.options.sabotage.is_none() {
            eprintln!("race: {what}");
        }
    }

    /// Counts an error that is part of the game and says whether the connection is still of use. Any other error is
    /// reported as a difference.
    fn judge_error(&self, who: &str, error: &postgres::Error) {
        let code = error.code().map_or_else(|| "connection".to_owned(), |code| code.code().to_owned());
        // Conflicts, cancelled, ended or crashed or starting server, lost connection.
        let expected = ["40001", "40P01", "57014", "57P01", "57P02", "57P03", "connection"];
        if !expected.contains(&code.as_str()) && !code.starts_with("08") {
            let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.wrong(format!("{who}: {}; last warnings {warnings:?}", cluster::explain(error)));
        }
        self.note(|r| *r.errors.entry(code).or_default() += 1);
    }

    /// A connection, waiting for a server that recovers; `None` at the end of the race.
    fn connect(&self, name: &str) -> Option<Client> {
        let started = Instant::now();
        let mut config: Config = self.url.parse().expect("the fixture gives a right URL");
        let warnings = Arc::clone(&self.warnings);
        config.application_name(name).notice_callback(move |notice| {
            let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
            // Beside what every session is told when the server crashes, and about our superfluous ROLLBACK.
            if notice.severity() == "WARNING" && !["57P02", "25P01"].contains(&notice.code().code()) {
                warnings.push_back(notice.message().to_owned());
                if warnings.len() > 5 {
                    warnings.pop_front();
                }
            }
        });
        while !self.stopped() {
            match config.connect(NoTls) {
                Ok(client) => return Some(client),
                Err(e) => {
                    assert!(started.elapsed() < Duration::from_secs(120), "the server is gone: {e}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        None
    }

    /// Calls `act` with a connection until the end; a new connection whenever the old one broke.
    fn repeat(&self, name: &str, mut act: impl FnMut(&mut Client) -> Result<(), postgres::Error>) {
        while let Some(mut client) = self.connect(name) {
            while !self.stopped() && !client.is_closed() {
                if let Err(e) = act(&mut client) {
                    self.judge_error(name, &e);
                    // After an error of ours the transaction is still open.
                    if client.batch_execute("ROLLBACK").is_err() {
                        break;
                    }
                }
            }
            if self.stopped() {
                return;
            }
        }
    }

    fn random(&self, who: u64) -> Random {
        Random::new(self.options.seed.wrapping_mul(1000).wrapping_add(who))
    }
}

/// Runs the race on a server of its own, since `kill -9` makes Postgres restart under everybody.
pub fn run(options: &Options, name: &str) -> Report {
    let cluster = Cluster::start_with(name, &["max_prepared_transactions=20", "deadlock_timeout=100ms"]);
    let database = cluster.empty_database();
    create(&mut database.connect());
    let reader = "CREATE ROLE race_reader; GRANT USAGE ON SCHEMA race TO race_reader;
                  GRANT SELECT ON ALL TABLES IN SCHEMA race TO race_reader;
                  REVOKE ALL ON race.events, race.refunds FROM race_reader";
    database.rows(reader);
    start(options, database.superuser_url(), everybody, judge::at_rest)
}

fn everybody<'scope>(race: &'scope Race<'_>, scope: &'scope Scope<'scope, '_>) {
    let options = race.options;
    for n in 0..options.writers {
        scope.spawn(move || writer::run(race, n));
    }
    for n in 0..options.refreshers {
        scope.spawn(move || actors::refresh(race, n));
    }
    for n in 0..options.judges {
        scope.spawn(move || judge::watch(race, n));
    }
    if options.disturb {
        scope.spawn(|| actors::disturb(race));
    }
    if options.redefine {
        scope.spawn(|| actors::redefine(race));
    }
}

/// Starts everybody, and brings them to rest until the time is over.
fn start(
    options: &Options,
    url: String,
    everybody: impl for<'scope> FnOnce(&'scope Race<'_>, &'scope Scope<'scope, '_>),
    at_rest: impl Fn(&Race<'_>),
) -> Report {
    let race = Race {
        options,
        url,
        gate: RwLock::new(()),
        stop: AtomicBool::new(false),
        rows: AtomicI64::new(0),
        today: AtomicU64::new(world::FIRST_TODAY),
        report: Mutex::new(Report::default()),
        warnings: Arc::default(),
    };
    std::thread::scope(|scope| {
        everybody(&race, scope);
        lead(&race, at_rest);
    });
    let mut report = race.report.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *report)
}

/// Lets them race, brings everything to rest at the end of every round, and ends it.
fn lead(race: &Race<'_>, at_rest: impl Fn(&Race<'_>)) {
    // Whatever happens here, the others must come to their end.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let _stop = Stop(&race.stop);
    let options = race.options;
    let mut raced = Duration::ZERO;
    let mut progress = Instant::now();
    while raced < options.duration {
        let started = Instant::now();
        let length = options.round.min(options.duration - raced);
        while started.elapsed() < length {
            let passed = (raced + started.elapsed()).as_secs_f64() / options.duration.as_secs_f64();
            let days = (world::DAYS - 1 - world::FIRST_TODAY) as f64;
            race.today.store(world::FIRST_TODAY + (days * passed.min(1.0)) as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(100).min(length.saturating_sub(started.elapsed())));
            if options.progress && progress.elapsed() >= Duration::from_secs(10) {
                progress = Instant::now();
                race.note(|r| println!("{:5} s  {r}", (raced + started.elapsed()).as_secs()));
            }
        }
        raced += length;
        let _rest = race.gate.write().unwrap_or_else(PoisonError::into_inner);
        at_rest(race);
    }
}
