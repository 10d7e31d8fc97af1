//! A month of a made-up shop, as large as one asks for.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemark_core::timeline::person_hash;

use super::{DATES, DAY, FROM};

// Shares of twelve kinds of events.
const SHARES: [f64; 12] = [0.40, 0.18, 0.09, 0.07, 0.035, 0.02, 0.015, 0.10, 0.03, 0.03, 0.01, 0.02];
pub const VIEWED: u32 = 1;
pub const ADDED: u32 = 3;
pub const CHECKOUT: u32 = 4;
pub const ORDERED: u32 = 5;
pub const PLATFORM: usize = 1;
pub const COUNTRY: usize = 2;
pub const PAGE: usize = 3;

#[derive(Clone, Copy)]
pub struct Event {
    pub hash: u64,
    pub time: i64,
    pub event: u32,
    pub properties: [u32; 3],
}

/// An index by weights that fall off with a power of the rank.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize, power: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += (rank as f64).powf(-power);
                    sum
                })
                .collect(),
        )
    }

    fn of(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        Self(
            weights
                .into_iter()
                .map(|w| {
                    sum += w;
                    sum
                })
                .collect(),
        )
    }

    fn pick(&self, random: &mut StdRng) -> usize {
        let at = random.random::<f64>() * self.0.last().unwrap();
        self.0.partition_point(|sum| *sum <= at).min(self.0.len() - 1)
    }
}

/// A month of a shop: about one person for 51 events, some with very many; visits of eight events; times in ms; rows in
/// order of time but for 2 % that are up to three days late. Codes are numbered by how frequent they are.
pub fn events(n: usize) -> Vec<Event> {
    let random = &mut StdRng::seed_from_u64(7);
    let persons = (n / 51).max(1);
    let visits = persons.max(n / 8);
    let owners = Zipf::of((0..persons).map(|_| (1.0 - random.random::<f64>()).powf(-1.0 / 1.2) - 0.8));
    let (kinds, countries, pages) = (Zipf::of(SHARES), Zipf::new(40, 1.1), Zipf::new(2000, 0.9));
    let home: Vec<(u32, u32)> = (0..persons)
        .map(|_| (Zipf(vec![0.6, 0.85, 1.0]).pick(random) as u32, countries.pick(random) as u32))
        .collect();
    let end = i64::from(FROM + DATES) * DAY;
    let mut rows: Vec<(i64, Event)> = vec![];
    for visit in 0.. {
        if rows.len() >= n {
            break;
        }
        let person = if visit < persons && visit < visits { visit } else { owners.pick(random) };
        let mut time = i64::from(FROM) * DAY + random.random_range(0..i64::from(DATES) * DAY / 1000) * 1000;
        while {
            let at = if time < end { time } else { end - random.random_range(1..3_600_000) * 1000 };
            let platform =
                if random.random_ratio(1, 10) { random.random_range(0..3) } else { home[person].0 };
            let country = if random.random_ratio(2, 100) { 0 } else { home[person].1 + 1 };
            let page = if random.random_ratio(8, 100) { 0 } else { pages.pick(random) as u32 + 1 };
            let late = if random.random_ratio(2, 100) { random.random_range(0..3 * DAY) } else { 0 };
            let event = kinds.pick(random) as u32;
            let properties = [platform + 1, country, page];
            let hash = person_hash(&(person as u64).to_le_bytes());
            rows.push((at + late, Event { hash, time: at, event, properties }));
            time += (-75_000.0 * (1.0 - random.random::<f64>()).ln()) as i64 * 1000;
            !random.random_ratio(1, 8)
        } {}
    }
    rows.truncate(n);
    rows.sort_by_key(|row| row.0);
    rows.into_iter().map(|row| row.1).collect()
}
