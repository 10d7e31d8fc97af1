//! Partial states of the matrix of cohort retention.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::retention::matrix::Matrix;
use tidemark_fuzz::{State, check_state, joined, read_whole, seeds, written};

struct Table(Matrix<Global>);

impl State for Table {
    /// Cohorts, their sizes, and who came back.
    type Answer = Vec<(i64, u64, Vec<Option<u64>>)>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| Matrix::decode_in(r, Global)).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.append(&other.0).is_ok()
    }

    fn answer(&mut self) -> Self::Answer {
        let rows: Vec<_> =
            self.0.rows().map(|row| (row.cohort, row.size, row.retained().collect::<Vec<_>>())).collect();
        assert!(rows.is_sorted_by(|before, after| before.0 < after.0));
        assert!(rows.iter().all(|(_, size, retained)| retained.iter().flatten().all(|n| n <= size)));
        rows
    }
}

fn of(persons: &[(i64, &[Option<bool>])]) -> Vec<u8> {
    let mut matrix = Matrix::new_in(Global);
    persons.iter().for_each(|(cohort, retained)| matrix.push(*cohort, retained).expect("as many periods"));
    Table(matrix).encode()
}

fn examples() -> Vec<Vec<u8>> {
    let (back, gone, unknown) = (Some(true), Some(false), None);
    vec![
        joined(&[&of(&[]), &of(&[(7, &[back, gone, unknown])])]),
        joined(&[
            &of(&[(7, &[back, gone]), (0, &[back, back]), (7, &[back, unknown])]),
            &of(&[(7, &[back, back]), (i64::MAX, &[back, gone])]),
        ]),
    ]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| check_state::<Table>(data));
