//! What an error of Postgres means, as one table: whoever has to decide whether to go on asks it. What else there is to say
//! to people about an error is in `connection`; how a batch is halved, or a row taken out of it, in `transaction`.

use std::time::Duration;

use tokio_postgres::Error as PgError;
use tokio_postgres::error::{DbError, SqlState};

use crate::error::Kind::{self, Config, Internal, Permission, Temporary, Unavailable};

/// Errors that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The server or the way to it.
    Away,
    /// It does not let us in as who we say we are.
    Credentials,
    /// Or not into this database.
    Database,
    /// Full, or out of connections.
    Full,
    /// What is asked for at once is too much for its memory or its lock table.
    TooMuch,
    /// It took too long.
    TooSlow,
    /// Others are in the way.
    Contended,
    /// A standby, or one that was told to be read-only.
    ReadOnly,
    /// No privilege.
    Right,
    /// Wrong encoding of ours: no row is to blame.
    Bug,
    /// One row.
    Row,
    /// No partition takes the row.
    NoPartition,
    /// A unique key.
    Duplicate,
    /// Wrong schema, and whatever else nobody has thought of.
    Other,
}

/// In the middle of what an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// A command, or a loader that starts: somebody waits for the answer.
    Start,
    /// A loader that runs connects once more, claims, or looks after itself.
    Running,
    /// A batch, for the first time.
    Batch,
    /// The same batch once more.
    BatchAgain,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that waiting would cure: end, with this kind of error.
    Final(Kind),
    /// Wait and do the same again.
    Retry,
    /// The same in two halves.
    Halve,
    /// Read passwords and certificates anew, which every connect does, and leave the server more time.
    ReloadCredentials,
    /// Look at the rows: this one becomes a dead letter, is there already, or needs a partition.
    Rows,
}

use Verdict::{Final, Halve, ReloadCredentials, Retry, Rows};

/// A line of the table.
pub struct Rule {
    /// What the errors of this line have in common.
    pub class: Class,
    /// SQLSTATEs, or how they begin. `classify` knows what else belongs here.
    pub codes: &'static [&'static str],
    /// For the manual.
    pub meaning: &'static str,
    /// For each situation, in their order.
    pub verdicts: [Verdict; 4],
}

const fn rule(
    class: Class,
    codes: &'static [&'static str],
    meaning: &'static str,
    verdicts: [Verdict; 4],
) -> Rule {
    Rule { class, codes, meaning, verdicts }
}

/// What is true of a loader that runs and not of a batch: it keeps on, since a server that is restored, restarted or given
/// other passwords is often wrong for a while. Rights and tables are different: nobody changes them by accident for a
/// moment, and loading on would mean to guess.
pub const TABLE: &[Rule] = &[
    rule(
        Class::Away,
        &["08", "57P01", "57P02", "57P03", "57P05", "58", "25P03", "25P04"],
        "the connection broke or does not come about, the server starts, stops or cannot read its disk",
        [Final(Unavailable), Retry, Retry, Retry],
    ),
    rule(
        Class::Credentials,
        &["28"],
        "user, password or certificate refused",
        [Final(Permission), ReloadCredentials, ReloadCredentials, ReloadCredentials],
    ),
    rule(Class::Database, &["3D000", "57P04"], "no such database", [Final(Config), Retry, Retry, Retry]),
    rule(
        Class::TooMuch,
        &["53200"],
        "memory or lock table of the server exhausted",
        [Final(Unavailable), Retry, Halve, Halve],
    ),
    rule(Class::Full, &["53"], "disk full, too many connections", [Final(Unavailable), Retry, Retry, Retry]),
    rule(
        Class::TooSlow,
        &["57014"],
        "cancelled: a statement took too long",
        [Final(Temporary), Retry, Halve, Halve],
    ),
    rule(
        Class::Contended,
        &["40", "55P03"],
        "others hold a lock, deadlock",
        [Final(Temporary), Retry, Retry, Retry],
    ),
    rule(
        Class::ReadOnly,
        &["25006"],
        "a standby, or read-only: a failover is under way",
        [Final(Temporary), Retry, Retry, Retry],
    ),
    rule(Class::Right, &["42501"], "a privilege is missing", [Final(Permission); 4]),
    rule(Class::Bug, &["22P04"], "our encoding is wrong", [Final(Internal); 4]),
    rule(
        Class::NoPartition,
        &[],
        "23514 without a constraint: no partition for the date",
        [Final(Config), Final(Config), Rows, Rows],
    ),
    rule(
        Class::Row,
        &["22", "23502", "23514", "54000", "54001"],
        "a value that Postgres does not take",
        [Final(Config), Final(Config), Rows, Rows],
    ),
    rule(Class::Duplicate, &["23505"], "a unique key", [Final(Config), Final(Config), Rows, Rows]),
    rule(Class::Other, &[""], "a table or column is missing, and all else", [Final(Config); 4]),
];

/// Classifies any error of the driver.
pub fn classify(error: &PgError) -> Class {
    match error.as_db_error() {
        Some(db) if *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none() => {
            Class::NoPartition
        }
        Some(db) => classify_code(db.code().code()),
        // Not from the server. Encoding errors cannot arise, rows are encoded beforehand.
        None if std::error::Error::source(error).is_some_and(|why| why.to_string() == "password missing") => {
            Class::Credentials
        }
        None => Class::Away,
    }
}

fn rule_of(fits: impl Fn(&Rule) -> bool) -> &'static Rule {
    // The last one fits everything.
    TABLE.iter().find(|rule| fits(rule)).unwrap_or(&TABLE[TABLE.len() - 1])
}

/// Classifies an SQLSTATE: the first line that has it counts.
pub fn classify_code(code: &str) -> Class {
    rule_of(|rule| rule.codes.iter().any(|begin| code.starts_with(begin))).class
}

/// What to do about an error.
pub fn verdict(error: &PgError, situation: Situation) -> Verdict {
    let class = classify(error);
    rule_of(|rule| rule.class == class).verdicts[situation as usize]
}

/// What a command ends with that gives up over an error.
pub fn kind(error: &PgError) -> Kind {
    match verdict(error, Situation::Start) {
        Final(kind) => kind,
        _ => Config,
    }
}

/// How long to wait before the next try, after so many in vain: between half and all of a time that doubles, so that many
/// loaders do not come back at the same moment. A login that is refused locks accounts in some places, so it takes longer.
pub fn pause(verdict: Verdict, failures: u32) -> Duration {
    let (first, most) = match verdict {
        ReloadCredentials => (Duration::from_secs(1), Duration::from_secs(30)),
        _ => (Duration::from_millis(100), Duration::from_secs(10)),
    };
    let pause = (first * 2u32.pow(failures.saturating_sub(1).min(16))).min(most);
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    pause / 2 + pause * u32::from(random) / 512
}

/// The row to blame, counted from 0, as the context line of a COPY names it (`COPY events, line 1702, ...`).
pub fn copy_row(error: &DbError) -> Option<usize> {
    let context = error.where_()?;
    let at = context.lines().find_map(|l| l.strip_prefix("COPY ").and_then(|l| l.split_once(", line ")))?;
    let digits = at.1.bytes().take_while(u8::is_ascii_digit).count();
    at.1[..digits].parse::<usize>().ok()?.checked_sub(1)
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Final(kind) => write!(f, "stop, {}", kind.exit_code()),
            Retry => f.write_str("try again"),
            Halve => f.write_str("halve"),
            ReloadCredentials => f.write_str("read credentials anew"),
            Rows => f.write_str("look at the rows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as it must be, one line a code.
    const WANTED: &str = "
        08006 stop, 69 | try again             | try again             | try again
        53100 stop, 69 | try again             | try again             | try again
        53200 stop, 69 | try again             | halve                 | halve
        53300 stop, 69 | try again             | try again             | try again
        57P01 stop, 69 | try again             | try again             | try again
        57P03 stop, 69 | try again             | try again             | try again
        57P05 stop, 69 | try again             | try again             | try again
        58030 stop, 69 | try again             | try again             | try again
        25P03 stop, 69 | try again             | try again             | try again
        28P01 stop, 77 | read credentials anew | read credentials anew | read credentials anew
        28000 stop, 77 | read credentials anew | read credentials anew | read credentials anew
        3D000 stop, 78 | try again             | try again             | try again
        57014 stop, 75 | try again             | halve                 | halve
        40001 stop, 75 | try again             | try again             | try again
        40P01 stop, 75 | try again             | try again             | try again
        55P03 stop, 75 | try again             | try again             | try again
        25006 stop, 75 | try again             | try again             | try again
        42501 stop, 77 | stop, 77              | stop, 77              | stop, 77
        22P04 stop, 70 | stop, 70              | stop, 70              | stop, 70
        22P02 stop, 78 | stop, 78              | look at the rows      | look at the rows
        22P05 stop, 78 | stop, 78              | look at the rows      | look at the rows
        22021 stop, 78 | stop, 78              | look at the rows      | look at the rows
        22003 stop, 78 | stop, 78              | look at the rows      | look at the rows
        23502 stop, 78 | stop, 78              | look at the rows      | look at the rows
        23514 stop, 78 | stop, 78              | look at the rows      | look at the rows
        54001 stop, 78 | stop, 78              | look at the rows      | look at the rows
        23505 stop, 78 | stop, 78              | look at the rows      | look at the rows
        42P01 stop, 78 | stop, 78              | stop, 78              | stop, 78
        42703 stop, 78 | stop, 78              | stop, 78              | stop, 78
        0A000 stop, 78 | stop, 78              | stop, 78              | stop, 78
        XX000 stop, 78 | stop, 78              | stop, 78              | stop, 78";

    #[test]
    fn the_whole_table() {
        for line in WANTED.lines().skip(1) {
            let (code, wanted) = line.trim().split_once(' ').unwrap();
            let class = classify_code(code);
            let found = rule_of(|rule| rule.class == class).verdicts.map(|verdict| verdict.to_string());
            let wanted: Vec<&str> = wanted.split('|').map(str::trim).collect();
            assert_eq!(found.as_slice(), wanted, "{code}: {class:?}");
        }
        for rule in TABLE {
            // Each class has one line, and each line is reached by all that it names.
            assert_eq!(TABLE.iter().filter(|other| other.class == rule.class).count(), 1, "{:?}", rule.class);
            for code in rule.codes.iter().filter(|code| code.len() == 5) {
                assert_eq!(classify_code(code), rule.class, "{code}");
            }
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_refused_logins_wait_longer() {
        for failures in [1, 2, 7, 1_000_000] {
            let (retry, login) = (pause(Retry, failures), pause(ReloadCredentials, failures));
            let least = Duration::from_millis(50) * 2u32.pow((failures - 1).min(6));
            assert!(retry >= least && retry <= Duration::from_secs(10), "{failures}: {retry:?}");
            assert!(login >= Duration::from_millis(500) && login <= Duration::from_secs(30), "{login:?}");
        }
        assert!(pause(Retry, 1_000) >= Duration::from_secs(5));
        assert!(pause(ReloadCredentials, 1_000) >= Duration::from_secs(15));
    }
}
