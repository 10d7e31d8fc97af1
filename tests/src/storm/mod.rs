//! The storm: several loaders share a topic that is being produced, while a seeded schedule kills, freezes, restarts
//! and cuts off whatever takes part. Here: the course of events. `schedule` decides what comes next, `fleet` keeps the
//! loaders, `feed` produces, `hour` watches what must not grow, `verdict` compares in the end.

mod feed;
mod fleet;
mod hour;
mod schedule;
mod verdict;

use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::broker::Broker;
use crate::cluster::{Cluster, Database};
use crate::events::Generated;
use feed::Feed;
use fleet::Fleet;
use hour::Hour;
use schedule::{Action, Rng};
pub use verdict::Verdict;

/// Partitions of the topic: more than there are ever loaders.
const PARTITIONS: i32 = 8;
/// How long everything may stand still after the last blow before the storm gives up waiting.
const STANDSTILL: Duration = Duration::from_secs(180);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of all random choices: events, schedule, sizes of batches. Who is where at a blow depends on the machine.
    pub seed: u64,
    /// Blows: kills, cut connections, restarts, freezes, members that come and go.
    pub kills: u64,
    /// Distinct well-formed events; duplicates and malformed lines come on top.
    pub events: u64,
    /// How long the blows and the topic take; 0 is as fast as it goes.
    pub minutes: u64,
}

/// Runs a storm and judges what is left.
pub fn run(plan: &Plan) -> Verdict {
    let began = Instant::now();
    say(began, &format!("{plan:?}"));
    let users = (plan.events / 50).clamp(100, 100_000);
    let file = Generated::new(&format!(
        "--events {} --days 8 --users {users} --seed {} --malformed 0.003 --duplicates 0.02 --late 0.05",
        plan.events, plan.seed
    ));
    let lines = file.number("lines");
    say(began, &format!("{lines} lines generated; starting Postgres and Kafka"));
    let cluster = Cluster::start("storm-postgres");
    let broker = Broker::start("storm-kafka");
    let database = cluster.database();
    let topic = "storm";
    broker.create_topic(topic, PARTITIONS, &[]);

    let mut storm = Storm {
        began,
        cluster: &cluster,
        broker: &broker,
        rng: Rng::new(plan.seed),
        fleet: Fleet::new(&database, &broker.address, topic, plan),
        feed: Feed::start(&file.path, &broker.address, topic, lines),
        database: &database,
        hour: Hour::default(),
        shown: Instant::now(),
        done: 0,
        plan: *plan,
    };
    storm.blow();
    let mut complaints = storm.calm(&broker, topic, lines);
    complaints.extend(storm.fleet.end());
    say(began, "comparing");
    let mut verdict = Verdict::of(&database, &file.path, lines, broker.records(topic) as u64, *plan);
    verdict.complaints.extend(complaints);
    verdict.seconds = began.elapsed().as_secs();
    verdict
}

struct Storm<'a> {
    began: Instant,
    cluster: &'a Cluster,
    broker: &'a Broker,
    database: &'a Database<'a>,
    rng: Rng,
    fleet: Fleet,
    feed: Feed,
    hour: Hour,
    shown: Instant,
    done: u64,
    plan: Plan,
}

impl Storm<'_> {
    /// Every blow of the plan, with the topic growing along.
    fn blow(&mut self) {
        let first = if self.plan.minutes == 0 { 0.2 } else { 0.0 };
        self.feed.allow(first);
        self.fleet.start(3);
        // The first blow hits loaders at work, not at their start.
        self.wait(Duration::from_secs(4));
        while self.done < self.plan.kills {
            let action = Action::next(&mut self.rng);
            self.strike(action);
            // The topic grows all the time, so that there is always something under way.
            let most =
                if self.plan.minutes == 0 { 3_200 } else { self.plan.minutes * 120_000 / self.plan.kills };
            let pause = Duration::from_millis(self.rng.between(300, most.max(300)));
            let paused = Instant::now();
            while paused.elapsed() < pause {
                self.wait(Duration::from_millis(50));
                let part = (paused.elapsed().as_secs_f64() / pause.as_secs_f64()).min(1.0);
                self.feed.allow(first + (1.0 - first) * (self.done as f64 + part) / self.plan.kills as f64);
            }
            self.done += 1;
        }
        self.feed.allow(1.0);
        say(self.began, "the last blow is done; everybody may go on");
    }

    fn strike(&mut self, action: Action) {
        self.await_transaction();
        match action {
            Action::KillLoader => self.fleet.kill(&mut self.rng),
            Action::CutConnection { all } => {
                let limit = if all { "" } else { "LIMIT 1" };
                let sql = format!(
                    "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                      WHERE datname = 'DB' AND application_name = 'tidemark' ORDER BY random() {limit}) AS a"
                );
                if let Some(mut client) = self.ask() {
                    let _ = client.simple_query(&sql.replace("DB", &self.database.name));
                }
            }
            Action::RestartPostgres { down } => {
                self.cluster.crash();
                self.wait(down);
                self.cluster.start_again();
            }
            Action::RestartKafka { down } => {
                self.broker.kill();
                self.wait(down);
                self.broker.start_again();
            }
            Action::Freeze { time } => self.fleet.freeze(&mut self.rng, time),
            Action::Join => self.fleet.join(),
            Action::Leave => self.fleet.leave(&mut self.rng),
        }
        self.show(Some(action));
    }

    /// Waits a moment for some loader to be in the middle of a batch: there a blow hurts most.
    fn await_transaction(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name = 'tidemark' AND backend_xid IS NOT NULL";
        let Some(mut client) = self.ask() else { return };
        for _ in 0..200 {
            let open = client.query_one(sql, &[]).map_or(1, |row| row.get::<_, i64>(0));
            if open > 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets things happen for a while.
    fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.fleet.tend();
            self.show(None);
            self.look();
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
    }

    fn look(&mut self) {
        if self.plan.minutes > 0 {
            let minute = self.began.elapsed().as_secs() / 60;
            if let Some(line) = self.hour.look(self.database, minute, &self.fleet.memory()) {
                say(self.began, &line);
            }
        }
    }

    /// Waits until everything is produced and loaded. Returns what went wrong meanwhile.
    fn calm(&mut self, broker: &Broker, topic: &str, lines: u64) -> Vec<String> {
        let mut complaints: Vec<String> = self.feed.wait().err().into_iter().collect();
        let wanted = broker.records(topic);
        if wanted as u64 != lines {
            complaints.push(format!("{lines} lines were produced, and the topic holds {wanted} records"));
        }
        let (mut best, mut since) = (-1, Instant::now());
        loop {
            self.wait(Duration::from_millis(500));
            let Some(position) = self.position() else { continue };
            if position >= wanted {
                return complaints;
            }
            if position > best {
                (best, since) = (position, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                complaints
                    .push(format!("stuck at {position} of {wanted} records:\n{}", self.fleet.last_words()));
                return complaints;
            }
        }
    }

    /// A connection, if there is a server.
    fn ask(&self) -> Option<Client> {
        Client::connect(&self.database.superuser_url(), NoTls).ok()
    }

    fn position(&self) -> Option<i64> {
        let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM loader.offsets";
        self.ask()?.query_one(sql, &[]).ok().map(|row| row.get(0))
    }

    fn show(&mut self, action: Option<Action>) {
        if action.is_none() && self.shown.elapsed() < Duration::from_secs(5) {
            return;
        }
        self.shown = Instant::now();
        let position = self.position().map_or("?".to_owned(), |p| p.to_string());
        let what = action.map_or(String::new(), |a| format!("  {a:?}"));
        let line = format!(
            "blows {}/{} produced {} loaded {position} {}{what}",
            self.done + u64::from(action.is_some()),
            self.plan.kills,
            self.feed.sent(),
            self.fleet.describe()
        );
        say(self.began, &line);
    }
}

fn say(began: Instant, text: &str) {
    println!("[{:4} s] {text}", began.elapsed().as_secs());
}
