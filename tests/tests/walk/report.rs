//! What came of statements: judged one by one, counted by aggregate and way, printed at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use postgres::{Client, SimpleQueryMessage};
use tidemark_tests::cluster::Database;

/// Classes of errors that are about what was asked: not supported, values, names and types and rights, limits.
/// Class 53 (no memory) and 57 (cancelled) are expected where something was limited.
const EXPECTED: [&str; 4] = ["0A", "22", "42", "54"];

/// What came of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Answer(String),
    /// The SQLSTATE of an ERROR.
    Error(String),
    /// The connection is gone.
    Lost,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => write!(f, "answer {}", short(answer, 200)),
            Self::Error(code) => write!(f, "error {code}"),
            Self::Lost => f.write_str("lost connection"),
        }
    }
}

/// Answers, errors and the time they took.
#[derive(Default)]
struct Cell {
    answers: u32,
    errors: u32,
    took: Duration,
}

/// What all walks of a test found.
#[derive(Default)]
pub struct Report {
    /// By who was asked and the way.
    cells: Mutex<BTreeMap<(String, &'static str), Cell>>,
    failures: Mutex<Vec<String>>,
}

impl Report {
    /// Notes what should not be.
    pub fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// Notes that a process of the server died, if its log says so.
    pub fn look_into_log(&self, database: &Database<'_>) {
        let died = database.value(
            "SELECT coalesce(string_agg(line, E'\\n'), '')
               FROM regexp_split_to_table(pg_read_file('server.log'), E'\\n') AS line
              WHERE line ~ 'terminated by signal|PANIC|TRAP|reinitializing'",
        );
        if !died.is_empty() {
            self.fail(format!("the log of the server says:\n{died}"));
        }
    }

    /// Notes who had no answer in some way, in which nothing was tested then; these ways excepted.
    pub fn fail_without_answers(&self, excepted: &[&str]) {
        for ((who, way), cell) in &*self.cells.lock().unwrap() {
            if cell.answers == 0 && !excepted.contains(way) {
                self.fail(format!("{who}, {way}: all {} statements ended in an error", cell.errors));
            }
        }
    }

    /// How many errors there were in a way.
    pub fn errors(&self, way: &str) -> u32 {
        self.cells.lock().unwrap().iter().filter(|((_, w), _)| *w == way).map(|(_, cell)| cell.errors).sum()
    }

    /// Prints the table: answers and errors by who was asked and way. Panics if anything failed.
    pub fn print(&self) {
        let cells = self.cells.lock().unwrap();
        let mut ways: Vec<_> = cells.keys().map(|(_, way)| *way).collect();
        ways.sort_unstable();
        ways.dedup();
        let mut asked: Vec<_> = cells.keys().map(|(who, _)| who).collect();
        asked.dedup();
        println!("answers+errors in each of the ways\n");
        for (nr, way) in ways.iter().enumerate() {
            let took: Duration = cells.iter().filter(|((_, w), _)| w == way).map(|(_, cell)| cell.took).sum();
            println!("{:>4}  {way} ({:.1} s)", (b'A' + nr as u8) as char, took.as_secs_f64());
        }
        let row = |cells: Vec<String>| cells.iter().map(|cell| format!("{cell:>8}")).collect::<String>();
        println!("\n{:<64}{}", "", row((0..ways.len()).map(|n| ((b'A' + n as u8) as char).into()).collect()));
        for who in asked {
            let cells = ways.iter().map(|way| match cells.get(&(who.clone(), way)) {
                Some(cell) => format!("{}+{}", cell.answers, cell.errors),
                None => "-".to_owned(),
            });
            println!("{:<64}{}", short_name(who), row(cells.collect()));
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} failures:\n{}",
            failures.len(),
            failures[..failures.len().min(20)].join("\n")
        );
    }
}

/// Who is asked, about what, through which connection.
pub struct Session<'a> {
    pub report: &'a Report,
    database: &'a Database<'a>,
    pub client: Client,
    /// The aggregate or function.
    pub who: String,
    /// The rows or arguments.
    pub input: String,
    /// Classes of errors that are expected besides.
    limits: &'static [&'static str],
}

impl<'a> Session<'a> {
    /// A session; `limits` are the classes of errors that say that a limit was met.
    pub fn new(report: &'a Report, database: &'a Database<'a>, limits: &'static [&'static str]) -> Self {
        let client = database.connect();
        Self { report, database, client, who: String::new(), input: String::new(), limits }
    }

    /// Notes what should not be.
    pub fn fail(&self, way: &str, what: &str, sql: &str) {
        let Self { who, input, .. } = self;
        self.report.fail(format!("{who}, {way}, input {input}: {what}\n    {}", short(sql, 1500)));
    }

    /// Runs a statement, counts and judges what came of it; the answer is the last one's first value.
    pub fn ask(&mut self, way: &'static str, sql: &str) -> Outcome {
        let began = Instant::now();
        let result = self.client.simple_query(sql);
        let took = began.elapsed();
        let outcome = match result {
            Ok(messages) => {
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                    _ => None,
                });
                Outcome::Answer(rows.last().unwrap_or_default())
            }
            Err(error) => match error.as_db_error() {
                Some(db) if !self.client.is_closed() => {
                    let code = db.code().code();
                    let expected = EXPECTED.iter().chain(self.limits).any(|class| code.starts_with(class));
                    if !expected || db.severity() != "ERROR" {
                        let said = format!("{} {code}: {}", db.severity(), short(db.message(), 300));
                        self.fail(way, &said, sql);
                    }
                    Outcome::Error(code.to_owned())
                }
                _ => {
                    self.fail(way, &format!("the connection is lost: {error}"), sql);
                    self.connect_again();
                    Outcome::Lost
                }
            },
        };
        let mut cells = self.report.cells.lock().unwrap();
        let cell = cells.entry((self.who.clone(), way)).or_default();
        cell.took += took;
        match outcome {
            Outcome::Answer(_) => cell.answers += 1,
            Outcome::Error(_) | Outcome::Lost => cell.errors += 1,
        }
        outcome
    }

    /// The process that serves it.
    pub fn pid(&mut self) -> i32 {
        self.client.query_one("SELECT pg_backend_pid()", &[]).map_or(0, |row| row.get(0))
    }

    /// Another connection to the same database.
    pub fn another_client(&self) -> Client {
        self.database.connect()
    }

    /// Fails unless a statement ends as another one did.
    pub fn ask_same(&mut self, way: &'static str, sql: &str, expected: &Outcome) {
        let found = self.ask(way, sql);
        if found != *expected {
            self.fail(way, &format!("{found}, but {expected} otherwise"), sql);
        }
    }

    /// After a crash the server takes a moment.
    fn connect_again(&mut self) {
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            if let Ok(client) = Client::connect(&self.database.superuser_url(), postgres::NoTls) {
                self.client = client;
                return;
            }
        }
        panic!("the server does not come back");
    }
}

/// The beginning of a text that may have megabytes.
pub fn short(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// A signature without schema and with the short names of types.
fn short_name(signature: &str) -> String {
    let mut name = signature.replace("tidemark.", "").replace("timestamp with time zone", "timestamptz");
    name = name.replace("double precision", "float8").replace("\"any\"", "any");
    short(&name, 63)
}
