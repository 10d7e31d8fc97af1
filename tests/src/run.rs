//! `tidemark run` as the fault tests start it, and ways to stop its transactions at a known point from outside: with
//! locks and triggers in the database, so that the loader needs no fail points.

use std::time::{Duration, Instant};

use postgres::Client;

use crate::cluster::{Database, rows};
use crate::process::{Counts, Invocation, Process, tidemark};
use crate::{broker, wait_until};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How to start a loader.
#[derive(Clone, Debug)]
pub struct Run {
    /// Database URL.
    pub url: String,
    /// Kafka.
    pub brokers: String,
    /// Topic.
    pub topic: String,
    /// Consumer group. A new one for each start makes joining quick: nobody waits for a dead member's session to end.
    pub group: String,
    /// Records in one transaction.
    pub batch_rows: u32,
    /// Further arguments.
    pub more: Vec<String>,
    /// Settings given in the environment.
    pub environment: Vec<(String, String)>,
}

impl Run {
    /// A loader of one topic of the shared broker, as the role e2e_loader.
    pub fn new(database: &Database<'_>, topic: &str) -> Run {
        Run {
            url: database.loader_url(),
            brokers: broker::shared().address.clone(),
            topic: topic.to_owned(),
            group: format!("group-of-{topic}"),
            batch_rows: 1000,
            more: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With another group.
    pub fn group(mut self, suffix: &str) -> Run {
        self.group = format!("{}-{suffix}", self.group);
        self
    }

    /// With batches of this many records.
    pub fn batch_rows(mut self, n: u32) -> Run {
        self.batch_rows = n;
        self
    }

    /// With further arguments.
    pub fn with(mut self, more: &[&str]) -> Run {
        self.more.extend(more.iter().map(|m| (*m).to_owned()));
        self
    }

    /// With a key of the configuration, such as `batch.max_rows`, set to something else.
    pub fn setting(mut self, key: &str, value: &str) -> Run {
        let name = format!("TIDEMARK__{}", key.replace('.', "__").to_uppercase());
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Starts it.
    pub fn start(&self) -> Process {
        let rows = self.batch_rows.to_string();
        let mut arguments =
            vec!["run", "--brokers", &self.brokers, "--topic", &self.topic, "--group", &self.group];
        arguments.extend(["--maintain-every", "off", "--batch-rows", &rows]);
        // With this protocol they are up to the brokers.
        let classic = !self.more.iter().any(|more| more == "group.protocol=consumer");
        for setting in
            ["session.timeout.ms=3000", "heartbeat.interval.ms=500"].into_iter().filter(|_| classic)
        {
            arguments.extend(["--kafka-config", setting]);
        }
        arguments.extend(self.more.iter().map(String::as_str));
        let lanes = lanes();
        if !arguments.contains(&"--lanes") {
            arguments.extend(lanes.iter().flat_map(|n| ["--lanes", n]));
        }
        let invocation = tidemark(&arguments).database(&self.url);
        self.environment.iter().fold(invocation, |i, (name, value)| i.env(name, value)).start()
    }

    /// Runs until everything is loaded that the topic holds.
    pub fn catch_up(&self) -> Counts {
        self.clone().with(&["--until-caught-up"]).start().wait().ok().counts()
    }
}

/// Runs until everything is loaded that the topic holds, without maintenance, whatever the address of the database is.
pub fn until_caught_up(broker: &str, topic: &str) -> Invocation {
    let read = ["run", "--brokers", broker, "--topic", topic];
    tidemark(&[&read[..], &["--until-caught-up", "--maintain-every", "off"]].concat())
}

/// `LANES=3` has the loaders of these tests run with three lanes, unless a test says how many.
pub fn lanes() -> Option<String> {
    std::env::var("LANES").ok().filter(|n| !n.is_empty())
}

/// The sum of all positions.
pub fn position(database: &Database<'_>) -> i64 {
    database.number("SELECT coalesce(sum(next_offset), 0)::bigint FROM loader.offsets")
}

/// Waits until the positions add up to this, and the loader still runs; says where they stand otherwise.
pub fn wait_for(database: &Database<'_>, process: &mut Process, wanted: i64) {
    let began = Instant::now();
    while position(database) < wanted {
        let running = process.is_running() || position(database) >= wanted;
        assert!(running, "the loader ended: {}", process.errors());
        if began.elapsed() > PATIENCE {
            let stand =
                database.rows("SELECT partition::text, next_offset::text FROM loader.offsets ORDER BY 1");
            panic!(
                "waited in vain for the position {wanted}: {stand:?}; the loader said: {}",
                process.errors()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Something held in the database that loaders come to wait for.
pub struct Barrier {
    holder: Client,
    observer: Client,
}

/// Number that no advisory lock of anybody else has.
const ADVISORY: i64 = 7_355_608;

impl Barrier {
    /// Takes what these statements take, in a transaction that stays open.
    pub fn hold(database: &Database<'_>, sql: &str) -> Barrier {
        let mut holder = database.connect();
        holder.batch_execute(&format!("BEGIN; {sql}")).unwrap_or_else(|e| panic!("{e}: {sql}"));
        Barrier { holder, observer: database.connect() }
    }

    /// Takes the lock that the triggers of `trap` wait for.
    pub fn hold_trap(database: &Database<'_>) -> Barrier {
        Barrier::hold(database, &format!("SELECT pg_advisory_xact_lock({ADVISORY})"))
    }

    /// Waits until a loader waits for it; returns its backend.
    pub fn wait_for_loader(&mut self, process: &mut Process) -> i32 {
        let waiting = "SELECT pid FROM pg_stat_activity AS a
                        WHERE datname = current_database() AND application_name = 'tidemark'
                          AND wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0";
        let mut pid = 0;
        wait_until("a loader to come to the barrier", PATIENCE, || {
            assert!(process.is_running(), "the loader ended: {}", process.errors());
            let found = rows(&mut self.observer, waiting);
            pid = found.first().map_or(0, |row| row[0].parse().expect("a process id"));
            pid != 0
        });
        pid
    }

    /// Lets everybody go on.
    pub fn release(self) {
        self.end("ROLLBACK");
    }

    /// Ends its transaction this way.
    pub fn end(mut self, how: &str) {
        self.holder.batch_execute(how).expect("a transaction can be ended");
    }
}

/// Where in a batch transaction a trap waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// At the end of the statement that moves the position.
    AfterAdvance,
    /// Inside COMMIT.
    DuringCommit,
}

/// Sets a trap: every batch now waits at that point while somebody holds [`Barrier::hold_trap`].
pub fn set_trap(database: &Database<'_>, trap: Trap) {
    let trigger = match trap {
        Trap::AfterAdvance => {
            "CREATE TRIGGER trap AFTER UPDATE OF next_offset ON loader.offsets
                 FOR EACH STATEMENT EXECUTE FUNCTION public.trap()"
        }
        Trap::DuringCommit => {
            "CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON loader.batches DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION public.trap()"
        }
    };
    database
        .connect()
        .batch_execute(&format!(
            "CREATE OR REPLACE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
                 $$BEGIN PERFORM pg_advisory_xact_lock_shared({ADVISORY}); RETURN NULL; END$$;
             DROP TRIGGER IF EXISTS trap ON loader.offsets;
             DROP TRIGGER IF EXISTS trap ON loader.batches;
             GRANT USAGE ON SCHEMA public TO PUBLIC;
             {trigger}"
        ))
        .expect("cannot set a trap");
}

/// Removes the traps.
pub fn remove_traps(database: &Database<'_>) {
    database
        .connect()
        .batch_execute(
            "DROP TRIGGER IF EXISTS trap ON loader.offsets; DROP TRIGGER IF EXISTS trap ON loader.batches",
        )
        .expect("cannot remove a trap");
}
