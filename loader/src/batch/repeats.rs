//! What becomes of rows that cannot be loaded, and of the records of the same batch that repeat their ids. A repetition
//! is judged against the first record with its id: a duplicate, or a dead letter where it says something else. When
//! that first one turns out not to be loadable, the next that says something else is written in its place; or an event
//! would be lost because it came behind a bad one.

use std::collections::HashSet;

use uuid::Uuid;

use super::{Batch, Dead, Known, RawBatch, RecordKind, Row, conflict};
use crate::event::dead_letter::Rejection;

/// A record with the id of an earlier one of the batch.
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) row: Row,
    /// Its place is `bronze.late_events`.
    pub(super) late: bool,
}

/// Rows that are written already, while others are.
#[derive(Debug)]
pub struct Written {
    rows: Vec<Row>,
    late: Vec<Row>,
}

fn dead_row(raw: &RawBatch, row: &Row, rejection: Rejection) -> Dead {
    let (_, _, event_type) = raw.known(&raw.records[row.record]);
    Dead { record: row.record, rejection, event_id: Some(row.id), event_time: Some(row.time), event_type }
}

impl Batch {
    /// Judges a record with the id of the record `leader`, which has the hash `first`. The error is for its dead letter.
    pub(super) fn repeat(&mut self, leader: usize, first: i64, repeat: Repeat) -> Result<(), Rejection> {
        let same = self.id_alone || repeat.row.hash == first;
        self.repeats.entry(leader).or_default().push(repeat);
        if same {
            self.duplicates += 1;
            Ok(())
        } else {
            Err(conflict("in the same batch"))
        }
    }

    /// Takes records with one of these ids out: they are not wanted. Who repeats the id of one of them comes in its place.
    pub fn suppress(&mut self, listed: &HashSet<Uuid>) {
        let listed = self.people.iter().filter(|(hash, _)| listed.contains(hash));
        let gone: HashSet<usize> = listed.map(|(_, record)| *record).collect();
        let Self { raw, rows, late, dead, heirs, repeats, filtered, duplicates, .. } = self;
        let mut stays = |record: usize| {
            let stays = !gone.contains(&record);
            if !stays {
                raw.records[record].kind = RecordKind::Filtered;
                *filtered += 1;
            }
            stays
        };
        let letters: HashSet<usize> = dead.iter().map(|dead| dead.record).collect();
        dead.retain(|dead| stays(dead.record));
        for repeats in repeats.values_mut() {
            // What is no dead letter of them was counted as a duplicate.
            repeats.retain(|repeat| {
                let letter = letters.contains(&repeat.row.record);
                let stays =
                    if letter { !gone.contains(&repeat.row.record) } else { stays(repeat.row.record) };
                *duplicates -= u64::from(!stays && !letter);
                stays
            });
        }
        heirs.retain(|heir| !gone.contains(&heir.row.record));
        let mut leaders = Vec::new();
        for rows in [rows, late] {
            rows.retain(|row| {
                let stays = stays(row.record);
                if !stays {
                    leaders.push((row.record, row.hash));
                }
                stays
            });
        }
        for (leader, hash) in leaders {
            let repeats = self.repeats.remove(&leader).unwrap_or_default();
            self.succeed(hash, repeats);
        }
        self.admit_heirs();
    }

    /// Turns the row at this index into a dead letter.
    pub fn reject_row(&mut self, index: usize, rejection: Rejection) {
        let row = self.rows.remove(index);
        self.reject(&row, rejection);
    }

    fn reject(&mut self, row: &Row, rejection: Rejection) {
        self.dead.push(dead_row(&self.raw, row, rejection));
        let repeats = self.repeats.remove(&row.record).unwrap_or_default();
        // What says the same as a dead letter is a duplicate of it, and as unloadable.
        let others = repeats.into_iter().filter(|repeat| repeat.row.hash != row.hash);
        self.succeed(row.hash, others.collect());
    }

    /// Makes the first of these, which were judged against the hash `before`, an heir, and judges the others against it.
    fn succeed(&mut self, before: i64, mut repeats: Vec<Repeat>) {
        if repeats.is_empty() {
            return;
        }
        let heir = repeats.remove(0);
        self.unjudge(&heir.row, before);
        for repeat in &repeats {
            let was_same = self.id_alone || repeat.row.hash == before;
            if !was_same && repeat.row.hash == heir.row.hash {
                self.unjudge(&repeat.row, before);
                self.duplicates += 1;
            }
        }
        self.repeats.insert(heir.row.record, repeats);
        self.heirs.push(heir);
    }

    fn unjudge(&mut self, row: &Row, before: i64) {
        if self.id_alone || row.hash == before {
            self.duplicates -= 1;
        } else if let Some(index) = self.dead.iter().position(|dead| dead.record == row.record) {
            self.dead.remove(index);
        }
    }

    /// Turns all rows of a date into dead letters.
    pub fn reject_day(&mut self, day: i32, rejection: &Rejection) {
        loop {
            let (gone, kept): (Vec<Row>, Vec<Row>) =
                std::mem::take(&mut self.rows).into_iter().partition(|r| r.day == day);
            self.rows = kept;
            if gone.is_empty() {
                return;
            }
            gone.iter().for_each(|row| self.reject(row, rejection.clone()));
            self.admit_heirs();
        }
    }

    /// Takes out the rows whose id is in bronze already on their date: as duplicates, or as dead letters where bronze
    /// has something else under that id. Bronze is append-only, so this holds whatever becomes of the transaction that
    /// found out.
    pub fn drop_known(&mut self, known: &Known) {
        if known.is_empty() {
            return;
        }
        for row in std::mem::take(&mut self.rows) {
            match known.get(&(row.id, row.day)) {
                None => self.rows.push(row),
                Some(hash) if hash.is_none_or(|hash| hash == row.hash) => self.known += 1,
                Some(hash) => self.drop_conflicting(&row, *hash),
            }
        }
    }

    /// A row whose id bronze has with the hash `loaded`. So do its repetitions on the same date.
    fn drop_conflicting(&mut self, row: &Row, loaded: Option<i64>) {
        self.dead.push(dead_row(&self.raw, row, conflict("loaded")));
        let repeats = self.repeats.remove(&row.record).unwrap_or_default();
        let (same_date, others): (Vec<_>, Vec<_>) = repeats.into_iter().partition(|r| r.row.day == row.day);
        if !self.id_alone {
            for repeat in same_date.iter().filter(|r| r.row.hash != row.hash && Some(r.row.hash) == loaded) {
                self.unjudge(&repeat.row, row.hash);
                self.duplicates += 1;
            }
        }
        self.succeed(row.hash, others);
    }

    /// Whether there are heirs of rows that could not be loaded.
    pub fn has_heirs(&self) -> bool {
        !self.heirs.is_empty()
    }

    /// Puts the heirs among the rows that are still to be written.
    pub fn admit_heirs(&mut self) {
        if self.heirs.is_empty() {
            return;
        }
        for heir in std::mem::take(&mut self.heirs) {
            if heir.late { &mut self.late } else { &mut self.rows }.push(heir.row);
        }
        self.sort();
    }

    /// Leaves the heirs alone as rows to be written. The others come back with [`Batch::reunite`].
    pub fn only_heirs(&mut self) -> Written {
        let written = Written { rows: std::mem::take(&mut self.rows), late: std::mem::take(&mut self.late) };
        self.admit_heirs();
        written
    }

    /// Puts the rows together again.
    pub fn reunite(&mut self, mut written: Written) {
        self.rows.append(&mut written.rows);
        self.late.append(&mut written.late);
        self.sort();
    }

    /// Ends the search for something loadable under an id: the heirs left become dead letters like other conflicts.
    pub fn disown_heirs(&mut self) {
        for heir in std::mem::take(&mut self.heirs) {
            self.dead.push(dead_row(&self.raw, &heir.row, conflict("in the same batch")));
        }
    }

    /// By date, as COPY wants them. Stable, so that events of one day stay in the order in which they came.
    pub(super) fn sort(&mut self) {
        self.rows.sort_by_key(|r| r.day);
        self.late.sort_by_key(|r| r.day);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Encoder, RawBatch, RecordKind, Slot};
    use super::*;
    use crate::event::dead_letter::Reason;
    use crate::event::dedupe::Dedupe;
    use crate::event::envelope::Limits;
    use crate::event::suppression::Keys;

    /// A batch of events with one id, each with its user and the day of the month.
    fn one_id(dedupe: Dedupe, events: &[(&str, u32)]) -> Batch {
        let mut raw = RawBatch::default();
        let to = events.len() as i64;
        let slot = Slot {
            topic: Arc::from("t"),
            topic_id: 1,
            partition: 0,
            epoch: 1,
            run: 1,
            from: 0,
            to,
            leader_epoch: None,
        };
        raw.slots.push(slot);
        for (offset, (user, day)) in (0..).zip(events) {
            let value = format!(
                r#"{{"messageId":"00000000-0000-4000-8000-000000000001","event":"e",
                    "userId":"{user}","timestamp":"2026-09-{day:02}T10:00:00Z"}}"#
            );
            raw.push(0, offset, None, RecordKind::Value, None, None, value.as_bytes(), 10_000);
        }
        let limits = Limits { max_skew: i64::MAX / 4, ..Limits::default() };
        let keys = Keys::parse(KEY).unwrap();
        Encoder::new(limits).with_dedupe(dedupe).with_suppression(keys).encode(raw)
    }

    const KEY: &str = "a key that is long enough";

    /// The state once this user is on the list, with how many are filtered.
    fn without(batch: &mut Batch, user: &str) -> ((Vec<usize>, u64, Vec<usize>), u64) {
        let keys = Keys::parse(KEY).unwrap().unwrap();
        batch.suppress(&keys.hashes(user.as_bytes()).collect());
        assert_eq!(batch.counts_by_slot(), [batch.counts()]);
        (state(batch), batch.counts().filtered)
    }

    #[test]
    fn who_is_suppressed_goes_and_who_repeats_the_id_comes_in_their_place() {
        for (dedupe, events, expected) in [
            (
                Dedupe::IdDate,
                &[("x", 1), ("x", 1), ("b", 1), ("c", 1), ("b", 1)][..],
                ((vec![2], 1, vec![3]), 2),
            ),
            (Dedupe::IdDate, &[("a", 1), ("x", 1), ("a", 1)][..], ((vec![0], 1, vec![]), 1)),
            (Dedupe::IdWindow, &[("x", 1), ("b", 1), ("x", 1)][..], ((vec![1], 0, vec![]), 2)),
            (Dedupe::IdWindow, &[("a", 1), ("x", 1)][..], ((vec![0], 0, vec![]), 1)),
            (Dedupe::Offsets, &[("a", 1), ("x", 1)][..], ((vec![0], 0, vec![]), 1)),
        ] {
            let mut batch = one_id(dedupe, events);
            assert_eq!(without(&mut batch, "x"), expected, "{events:?}");
            assert_eq!(without(&mut batch, "x"), expected, "another try");
            // What is refused now has no heir that was suppressed.
            if dedupe == Dedupe::IdWindow {
                batch.reject_row(0, refused());
                batch.admit_heirs();
                assert!(batch.rows.is_empty(), "{events:?}");
            }
        }
    }

    fn refused() -> Rejection {
        Rejection::new(Reason::RefusedByDatabase, "no")
    }

    /// The records of the rows, how many duplicates there are, and the records of the dead letters.
    fn state(batch: &Batch) -> (Vec<usize>, u64, Vec<usize>) {
        let counts = batch.counts();
        let sum = counts.loaded + counts.late + counts.duplicate + counts.dead + counts.filtered;
        assert_eq!(counts.read, sum, "{counts:?}");
        let mut dead: Vec<usize> = batch.dead.iter().map(|dead| dead.record).collect();
        dead.sort_unstable();
        (batch.rows.iter().map(|row| row.record).collect(), counts.duplicate, dead)
    }

    #[test]
    fn the_first_that_says_something_else_takes_the_place_of_a_refused_one() {
        let mut batch = one_id(Dedupe::IdDate, &[("a", 1), ("a", 1), ("b", 1), ("c", 1), ("b", 1)]);
        assert_eq!(state(&batch), (vec![0], 1, vec![2, 3, 4]));
        batch.reject_row(0, refused());
        assert!(batch.has_heirs());
        batch.admit_heirs();
        // The second is like the letter of the first, the fifth like the third.
        assert_eq!(state(&batch), (vec![2], 2, vec![0, 3]));
        batch.reject_row(0, refused());
        batch.admit_heirs();
        assert_eq!(state(&batch), (vec![3], 2, vec![0, 2]));
        batch.reject_row(0, refused());
        assert!(!batch.has_heirs());
        assert_eq!(state(&batch), (vec![], 2, vec![0, 2, 3]));
    }

    #[test]
    fn heirs_left_over_are_conflicts() {
        let mut batch = one_id(Dedupe::IdDate, &[("a", 1), ("b", 1)]);
        batch.reject_row(0, refused());
        batch.disown_heirs();
        assert_eq!(state(&batch), (vec![], 0, vec![0, 1]));
        assert_eq!(batch.dead[1].rejection.reason, Reason::DuplicateIdConflict);
    }

    #[test]
    fn rows_that_are_written_come_back() {
        let mut batch = one_id(Dedupe::IdWindow, &[("a", 5), ("b", 2)]);
        assert_eq!(state(&batch), (vec![0], 1, vec![]));
        batch.reject_row(0, refused());
        let written = batch.only_heirs();
        assert_eq!(state(&batch), (vec![1], 0, vec![0]));
        batch.reunite(written);
        assert_eq!(state(&batch), (vec![1], 0, vec![0]));
    }

    #[test]
    fn a_closed_date_takes_its_heirs_along_but_no_other_date() {
        let mut other = one_id(Dedupe::IdDate, &[("a", 1), ("b", 1), ("b", 2)]);
        let day = other.rows[0].day;
        other.reject_day(day, &refused());
        assert_eq!(state(&other), (vec![2], 0, vec![0, 1]));
        let mut window = one_id(Dedupe::IdWindow, &[("a", 1), ("b", 1), ("b", 2)]);
        window.reject_day(day, &refused());
        assert_eq!(state(&window), (vec![2], 0, vec![0, 1]));
    }

    #[test]
    fn what_bronze_has_is_compared_with_each_repetition() {
        let mut batch = one_id(Dedupe::IdDate, &[("a", 1), ("b", 1), ("a", 1), ("c", 1)]);
        let other = one_id(Dedupe::IdDate, &[("b", 1)]);
        let known = Known::from([((batch.rows[0].id, batch.rows[0].day), Some(other.rows[0].hash))]);
        batch.drop_known(&known);
        assert!(!batch.has_heirs());
        // The second is in bronze, the third is like the letter of the first.
        assert_eq!(state(&batch), (vec![], 2, vec![0, 3]));
    }
}
