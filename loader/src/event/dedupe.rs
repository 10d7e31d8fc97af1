//! How an event that comes twice is noticed, and what that means for its event time. The ledger behind `id_window` is
//! in `postgres::ledger`.

use uuid::Uuid;

use super::dead_letter::{Reason, Rejection};
use super::envelope::Limits;
use super::time::{self, Micros, UNIX_EPOCH_US};

/// How an event that comes twice is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Dedupe {
    /// Not at all: each Kafka record is loaded once, whatever its id; for a table without a unique index
    Offsets,
    /// One event an id and UTC date of its time, by the unique index of each partition
    #[default]
    IdDate,
    /// One event an id: ids must be UUIDv7, and the date of an event is that of its id
    IdUuidv7,
    /// One event an id within some days of receipt, by a ledger of ids beside the indexes of id_date
    IdWindow,
}

impl Dedupe {
    /// Whether an id is one event on any date, also within a batch.
    pub fn across_dates(self) -> bool {
        matches!(self, Dedupe::IdUuidv7 | Dedupe::IdWindow)
    }

    /// Whether ids are compared at all.
    pub fn by_id(self) -> bool {
        self != Dedupe::Offsets
    }

    /// The event time to store for an event with this id: the one it has, unless the id decides about the date and the
    /// two disagree.
    pub fn event_time(
        self,
        id: Uuid,
        event_time: Micros,
        received_at: Micros,
        limits: &Limits,
    ) -> Result<Micros, Rejection> {
        if self != Dedupe::IdUuidv7 {
            return Ok(event_time);
        }
        let Some(made) = uuidv7_time(id) else {
            return Err(Rejection::new(
                Reason::NotUuidv7,
                "its id is no UUIDv7, which --dedupe id_uuidv7 needs",
            ));
        };
        if time::day_of(made) == time::day_of(event_time) {
            return Ok(event_time);
        }
        if made < limits.floor {
            let floor = time::format_day(time::day_of(limits.floor));
            return Err(Rejection::new(
                Reason::EventTimeTooOld,
                format!("the time in its id lies before {floor}"),
            ));
        }
        if made > received_at.saturating_add(limits.max_skew) {
            let ahead = (made - received_at) / 1_000_000;
            let detail = format!("the time in its id lies {ahead} s after its receipt");
            return Err(Rejection::new(Reason::EventTimeInFuture, detail));
        }
        Ok(made)
    }
}

/// The time in a UUIDv7 (RFC 9562, 5.7: 48 bits of Unix milliseconds); `None` for any other UUID.
fn uuidv7_time(id: Uuid) -> Option<Micros> {
    if id.get_version_num() != 7 || id.get_variant() != uuid::Variant::RFC4122 {
        return None;
    }
    let ms = (id.as_u128() >> 80) as i64;
    Some(UNIX_EPOCH_US + ms * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::time::parse_time;

    #[test]
    fn the_date_of_an_event_is_that_of_its_uuidv7() {
        // 0x0199_1a2b_3c00 ms
        let id = Uuid::parse_str("01991a2b-3c00-7abc-8def-0123456789ab").unwrap();
        let made = uuidv7_time(id).unwrap();
        assert_eq!(time::to_unix_millis(made), 0x0199_1a2b_3c00);
        let day = made.div_euclid(time::DAY_US) * time::DAY_US;
        // On the same date the event's own time stays, with its microseconds.
        let limits = Limits::default();
        let place = |mode: Dedupe, id, time| mode.event_time(id, time, made, &limits);
        assert_eq!(place(Dedupe::IdUuidv7, id, day + 1), Ok(day + 1));
        assert_eq!(place(Dedupe::IdUuidv7, id, day - 1), Ok(made));
        assert_eq!(place(Dedupe::IdUuidv7, id, day + time::DAY_US), Ok(made));
        let other = parse_time("2020-02-02T00:00:00Z").unwrap();
        assert_eq!(place(Dedupe::IdDate, id, other), Ok(other));
        let future = Dedupe::IdUuidv7.event_time(id, other, other, &limits).unwrap_err();
        assert_eq!(future.reason, Reason::EventTimeInFuture);
        for bad in ["01991a2b-3c00-4abc-8def-0123456789ab", "01991a2b-3c00-7abc-cdef-0123456789ab"] {
            let rejected = place(Dedupe::IdUuidv7, Uuid::parse_str(bad).unwrap(), day).unwrap_err();
            assert_eq!(rejected.reason, Reason::NotUuidv7);
        }
    }
}
