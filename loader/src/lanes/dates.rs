//! Which dates `run` begins: none that is too old, and no more than so many an hour. Broken clocks otherwise make a
//! partition for each date that they can think of, which takes the time of the stream beside them and stays for ever. Shared
//! by the lanes of a process; `load` and `replay` do what they are told and have none of this.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error as PgError};

use crate::event::dead_letter::{Reason, Rejection};
use crate::event::time::DAY_US;
use crate::postgres::partitions;
use crate::postgres::target::Target;

/// Oldest date that is loaded unless a floor is set, in days before today. A year of comparisons and what was offline for
/// a month; a device without a clock believes in 1970, or in the year of its firmware.
const MAX_AGE: i32 = 400;

/// New dates an hour. More than a topic of 90 days brings when it is loaded for the first time; even so many at once do not
/// hold the stream up for long.
const MAX_NEW: usize = 100;

const HOUR: Duration = Duration::from_secs(3600);

/// How often Postgres is asked what it keeps.
const PERIOD: Duration = Duration::from_secs(60);

/// What bounds the dates of a process.
#[derive(Debug)]
pub struct Dates {
    max_age: Option<i32>,
    floor: Arc<AtomicI64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    today: i32,
    /// Dates that were new, and when.
    begun: HashMap<i32, Instant>,
}

impl Dates {
    /// Bounds that are not known yet. Without `by_age` only retention says what is too old.
    pub fn new(by_age: bool) -> Self {
        Dates {
            max_age: by_age.then_some(MAX_AGE),
            floor: Arc::new(AtomicI64::new(i64::MIN)),
            state: Mutex::default(),
        }
    }

    /// The earliest event time that is accepted, as far as it is known at any moment.
    pub fn floor(&self) -> Arc<AtomicI64> {
        self.floor.clone()
    }

    /// Asks Postgres again if it is time to.
    pub async fn refresh(&self, client: &Client, target: &Target) -> Result<(), PgError> {
        if self.state().asked.is_some_and(|asked| asked.elapsed() < PERIOD) {
            return Ok(());
        }
        let (today, kept) = partitions::kept(client, target.table()).await?;
        let first = kept.max(self.max_age.map(|age| today - age));
        self.floor.store(first.map_or(i64::MIN, |day| i64::from(day) * DAY_US), Ordering::Relaxed);
        let mut state = self.state();
        (state.asked, state.today) = (Some(Instant::now()), today);
        Ok(())
    }

    /// Those of the dates without a partition that are too many now. Yesterday and later ones never are: a day must
    /// begin whatever came before.
    pub fn too_many(&self, mut missing: Vec<i32>, now: Instant) -> Vec<i32> {
        let mut state = self.state();
        state.begun.retain(|_, begun| now.duration_since(*begun) < HOUR);
        missing.sort_unstable_by(|a, b| b.cmp(a));
        missing.retain(|day| {
            if *day >= state.today - 1 || state.begun.contains_key(day) {
                return false;
            }
            let full = state.begun.len() >= MAX_NEW;
            if !full {
                state.begun.insert(*day, now);
            }
            full
        });
        missing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the events of such a date become.
pub fn refused() -> Rejection {
    let detail = format!(
        "its date has no partition, and {MAX_NEW} dates were begun within the hour; if it is no mistake, make the \
         partitions with tidemark.ensure_partitions, then replay"
    );
    Rejection::new(Reason::TooManyNewDates, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_dates_begin_an_hour_the_newest_first_and_the_stream_of_today_always() {
        let dates = Dates::new(true);
        dates.state().today = 10_000;
        let began = Instant::now();
        let old: Vec<i32> = (9_000..9_000 + MAX_NEW as i32 + 5).collect();
        let left: Vec<i32> = (9_000..9_005).rev().collect();
        assert_eq!(dates.too_many(old.clone(), began), left);
        // Asked again, as after a failure, it is the same dates.
        assert_eq!(dates.too_many(old, began), left);
        assert_eq!(dates.too_many(vec![9_998, 9_999, 10_000, 10_001], began), [9_998]);
        assert_eq!(dates.too_many(vec![9_998], began + HOUR / 2), [9_998]);
        assert!(dates.too_many(vec![9_998], began + HOUR).is_empty());
    }
}
