//! Cohort retention by calendar periods over slices: the same as a [`CohortLog`] of each person.
//!
//! Persons that were active in the same periods are alike, so each person is two sets of periods, and the log is asked
//! once for each pair of sets. Where everybody counts, who was there is all there is to read. Rolling periods need times:
//! [`EachPerson`](super::EachPerson) and the log itself.

use crate::interrupt::Interrupt;
use crate::retention::calendar::{DAY, Unit};
use crate::retention::cohort::{CohortLog, Spec};
use crate::retention::matrix::{Matrix, PeriodsMismatch};
use crate::timeline::filter::Filter;
use crate::timeline::masks::Cpu;
use crate::timeline::scan::read_rows;
use crate::timeline::{ByCode, Kernel, People, Question, Row, Tile};
use crate::{AVec, Global};

/// The specification rolls, or its days are more periods than are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("retention of rolling periods or of more than 64 calendar periods needs the rows of each person")]
pub struct NotCalendar;

/// Starts (condition 0) and returns (condition 1) of each person by period.
pub struct Cohorts {
    question: Question,
    spec: Spec,
    unit: Unit,
    first: i64,
    /// Whether any row is a start and a return.
    everybody: bool,
    alike: ByCode<(u64, u64), u64>,
}

impl Cohorts {
    /// For dates (days since 2000-01-01) from `from` to the one before `to`.
    ///
    /// # Errors
    /// [`NotCalendar`], also when the question has not two conditions or asks for unmatched rows.
    pub fn new(question: Question, spec: Spec, from: i32, to: i32) -> Result<Self, NotCalendar> {
        let unit = spec.calendar().ok_or(NotCalendar)?;
        let period = |date: i32| unit.index(i64::from(date).saturating_mul(DAY));
        let first = period(from);
        if period(to.max(from)) - first >= 64 || question.conditions.len() != 2 || question.unmatched {
            return Err(NotCalendar);
        }
        let everybody =
            question.only.is_none() && question.conditions.iter().all(|asked| *asked == Filter::any());
        Ok(Self { question, spec, unit, first, everybody, alike: ByCode::default() })
    }

    /// Adds all persons of a kernel of the same question.
    pub fn merge(&mut self, other: &Self) {
        other.alike.iter().for_each(|(sets, n)| *self.alike.entry(*sets).or_default() += n);
    }

    /// The persons by cohort.
    ///
    /// # Errors
    /// Never: all persons have the same periods.
    pub fn matrix(&self, interrupt: impl Interrupt) -> Result<Matrix<Global>, PeriodsMismatch> {
        let mut matrix = Matrix::new_in(Global);
        let mut retained = AVec::new_in(Global);
        for (&(starts, returns), &persons) in &self.alike {
            let mut log = CohortLog::new_in(self.spec, Global);
            for bit in 0..64 {
                let time = self.unit.start(self.first + bit);
                log.push(time, starts >> bit & 1 == 1, returns >> bit & 1 == 1);
            }
            for member in log.members(interrupt) {
                retained.clear();
                retained.extend(member.retained());
                matrix.push_alike(member.cohort, persons, &retained)?;
            }
        }
        Ok(matrix)
    }

    /// The bit of a period; 0 for one that was not asked for.
    fn bit(&self, time: i64) -> u64 {
        u32::try_from(self.unit.index(time) - self.first)
            .ok()
            .and_then(|bit| 1u64.checked_shl(bit))
            .unwrap_or(0)
    }
}

impl Kernel for Cohorts {
    type Person = (u64, u64);

    const TIMES: bool = false;

    fn question(&self) -> Question {
        self.question.clone()
    }

    fn rows(&mut self, (starts, returns): &mut (u64, u64), rows: &[Row]) {
        for row in rows.iter().filter(|row| row.time < self.spec.as_of()) {
            let bit = self.bit(row.time);
            *starts |= if row.conditions & 1 == 0 { 0 } else { bit };
            *returns |= if row.conditions & 2 == 0 { 0 } else { bit };
        }
    }

    fn end(&mut self, _: u64, person: &mut (u64, u64), _: impl Interrupt) {
        *self.alike.entry(std::mem::take(person)).or_default() += 1;
    }

    #[inline(always)]
    fn tile<C: Cpu>(
        &mut self,
        _: C,
        tile: &Tile<'_>,
        people: &mut People<(u64, u64)>,
        buffer: &mut Vec<Row>,
    ) {
        let date = i64::from(tile.date).saturating_mul(DAY);
        if date.saturating_add(DAY) > self.spec.as_of() {
            return read_rows(self, tile, people, buffer);
        }
        let bit = self.bit(date);
        if self.everybody && tile.alone {
            for person in 0..tile.persons {
                let (starts, returns) = people.get(tile.hash(person));
                (*starts, *returns) = (*starts | bit, *returns | bit);
            }
            return;
        }
        for run in tile.selected_runs() {
            let (start, returned) = (Tile::any(tile.mask(0), &run), Tile::any(tile.mask(1), &run));
            let (starts, returns) = people.get(tile.hash(run.person));
            *starts |= bit * u64::from(start);
            *returns |= bit * u64::from(returned);
        }
    }
}
