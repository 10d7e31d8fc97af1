//! What the storm does next: random choices that the seed decides.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both inclusive.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

/// A blow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// SIGKILL of a loader; another one starts soon.
    KillLoader,
    /// `pg_terminate_backend` of one or all of the loaders' connections.
    CutConnection { all: bool },
    /// Immediate stop of Postgres, and its start.
    RestartPostgres { down: Duration },
    /// SIGKILL of Kafka, and its start.
    RestartKafka { down: Duration },
    /// SIGSTOP of a loader, SIGCONT later: past its session's end, or before.
    Freeze { time: Duration },
    /// One loader more.
    Join,
    /// SIGTERM of a loader.
    Leave,
}

impl Action {
    /// In a hundred blows: 34 kills, 24 cuts, 8 crashes of Postgres, 4 of Kafka, 14 freezes, 8 joins, 8 leaves.
    pub(super) fn next(rng: &mut Rng) -> Action {
        let down = |rng: &mut Rng| {
            Duration::from_millis(if rng.between(0, 2) == 0 { rng.between(500, 3_000) } else { 0 })
        };
        match rng.between(0, 99) {
            0..=33 => Action::KillLoader,
            34..=57 => Action::CutConnection { all: rng.between(0, 2) == 0 },
            58..=65 => Action::RestartPostgres { down: down(rng) },
            66..=69 => Action::RestartKafka { down: down(rng) },
            70..=76 => Action::Freeze { time: Duration::from_millis(rng.between(300, 2_000)) },
            77..=83 => Action::Freeze { time: Duration::from_millis(rng.between(4_000, 9_000)) },
            84..=91 => Action::Join,
            _ => Action::Leave,
        }
    }
}
