//! Dictionaries: the code of each text of a property, 0 for NULL. Codes are given in the order in which texts are seen and
//! never change, so that a slice that is computed again has the same bytes.

use std::collections::HashMap;
use std::rc::Rc;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};
use tidemark_core::timeline::{Codes, View};

use super::query::{each_row, each_row_of_kept, name_of};
use super::read::corrupt;
use crate::support::error::{not_null, raise, raise_hint};
use crate::support::set::give_rows;
use crate::support::{args, pg_function};

/// How many texts a property may have.
pub const MAX_VALUES: usize = 1 << 20;

/// The texts of one property.
#[derive(Default)]
pub struct Dictionary {
    /// The text of code 1, 2 and so on.
    texts: Vec<Rc<str>>,
    codes: HashMap<Rc<str>, u32>,
    stored: usize,
}

impl Dictionary {
    /// Those of some properties, by their numbers: 0 is the event.
    pub fn load(codes: Oid, properties: &[usize]) -> Vec<Self> {
        let mut all: Vec<Self> = properties.iter().map(|_| Self::default()).collect();
        let name = name_of(codes);
        let sql = format!(
            "SELECT c.code::integer, c.value::text FROM {name} AS c WHERE c.property = $1 ORDER BY c.code"
        );
        for (dictionary, property) in all.iter_mut().zip(properties) {
            each_row_of_kept(&sql, &[(pg_sys::INT4OID, Datum::from(*property as i32))], |row| {
                // SAFETY: the second column is a text.
                match unsafe { row.text(1) } {
                    Some(value) => {
                        dictionary.push(value.into());
                    }
                    // Forgotten, as no event has it: whoever says it again gets another code.
                    None => dictionary.texts.push("".into()),
                }
                dictionary.stored += 1;
                if row.int(0) != i32::try_from(dictionary.stored).ok() {
                    raise(
                        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                        format!("codes of property {property} are missing in {name}"),
                    );
                }
            });
        }
        all
    }

    fn push(&mut self, text: Rc<str>) -> u32 {
        self.texts.push(text.clone());
        let code = self.texts.len() as u32;
        self.codes.insert(text, code);
        code
    }

    /// The code of a text, a new one if it has none; `name` is the property's, for the error of too many.
    pub fn code(&mut self, text: Option<&str>, name: impl FnOnce() -> String) -> u32 {
        let Some(text) = text else { return 0 };
        if let Some(code) = self.codes.get(text) {
            return *code;
        }
        if self.texts.len() == MAX_VALUES {
            raise_hint(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("property {} has more than {MAX_VALUES} values", name()),
                "A timeline is for properties of few values: create it without this one, or group the values in a \
                 column of the source.",
            );
        }
        self.push(text.into())
    }

    /// The text of a code; `None` for NULL.
    pub fn text(&self, code: u32) -> Option<&str> {
        self.texts.get((code as usize).checked_sub(1)?).map(AsRef::as_ref)
    }

    /// The codes of the texts that satisfy a condition.
    pub fn codes(&self, mut satisfies: impl FnMut(&str) -> bool) -> impl Iterator<Item = u32> {
        self.texts.iter().zip(1..).filter(move |(text, _)| satisfies(text)).map(|(_, code)| code)
    }

    /// The code that a text has, if any.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.codes.get(text).copied()
    }

    /// All texts, in the order of their codes.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(AsRef::as_ref)
    }

    /// The texts that are not stored, with their codes.
    pub fn new_texts(&self) -> impl Iterator<Item = (u32, &str)> {
        self.texts.iter().zip(1..).skip(self.stored).map(|(text, code)| (code, text.as_ref()))
    }
}

pg_function! {
    /// `timeline_used(target regclass, properties integer)`: (property, code).
    fn tidemark_timeline_used(fcinfo) {
        let target = Oid::from(not_null(args::int32(fcinfo, 0), "target") as u32);
        let properties = not_null(args::int32(fcinfo, 1), "properties");
        let name = name_of(target);
        let sql = format!(
            "SELECT s.property::integer, s.data::tidemark.timeline FROM {name} AS s WHERE s.property BETWEEN 0 AND $1"
        );
        let mut used: HashMap<i32, Vec<bool>> = HashMap::new();
        each_row(&sql, &[(pg_sys::INT4OID, Datum::from(properties))], |row| {
            let (Some(property), Some(bytes)) = (row.int(0), row.bytes(1)) else { return };
            let used = used.entry(property).or_default();
            let mut note = |code: u32| {
                let code = (code as usize).min(MAX_VALUES);
                if used.len() <= code {
                    used.resize(code + 1, false);
                }
                used[code] = true;
            };
            let read = if property == 0 {
                View::read(bytes).map(|view| view.codes().for_each(&mut note))
            } else {
                Codes::read(bytes).map(|codes| codes.codes().for_each(&mut note))
            };
            if let Err(error) = read {
                corrupt(&name, &format!("property {property}"), &error);
            }
        });
        let codes = used.iter().flat_map(|(property, used)| {
            (0i32..).zip(used).filter(|(_, used)| **used).map(|(code, _)| (*property as i16, code))
        });
        give_rows(fcinfo, codes.map(|(property, code)| [Some(Datum::from(property)), Some(Datum::from(code))]))
    }
}
