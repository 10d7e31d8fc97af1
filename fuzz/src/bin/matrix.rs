//! Partial states of the matrix of cohort retention.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::Global;
use tidemark_core::retention::matrix::{Matrix, Row};
use tidemark_fuzz::{State, check_state, joined, read_whole, seeds, written};

struct Table(Matrix<Global>);

impl State for Table {
    type Answer = Vec<Row>;

    fn decode(bytes: &[u8]) -> Option<Self> {
        read_whole(bytes, |r| Matrix::decode_in(r, Global)).map(Self)
    }

    fn encode(&mut self) -> Vec<u8> {
        written(|w| self.0.encode(w))
    }

    fn merge(&mut self, other: &Self) -> bool {
        self.0.append(&other.0).is_ok()
    }

    fn answer(&mut self) -> Vec<Row> {
        let rows: Vec<_> = self.0.rows().collect();
        assert!(rows.windows(2).all(|pair| pair[0].cohort < pair[1].cohort));
        assert!(rows.iter().all(|row| row.retained.iter().flatten().all(|&n| n <= row.size)));
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
