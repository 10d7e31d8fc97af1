//! CSV and TSV with a header: each row is an object of its columns, all of them texts, but for those that hold a JSON object
//! or array, which are that; a column without a value is absent.
//! A row that has other columns than the header, or is no UTF-8, stays as it was written, and will be a dead letter.

use std::io::{self, BufRead};

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::Record;

/// Reads the rows of a table.
pub struct Table<R> {
    reader: csv::Reader<R>,
    names: Vec<String>,
    row: ByteRecord,
    delimiter: u8,
}

impl<R: BufRead> Table<R> {
    pub fn new(reader: R, delimiter: u8) -> io::Result<Self> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            // Tabs cannot be part of a value, so quotes are part of it.
            .quoting(delimiter != b'\t')
            .flexible(true)
            .from_reader(reader);
        let names = reader.byte_headers()?.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned());
        let names = names.collect();
        Ok(Table { reader, names, row: ByteRecord::new(), delimiter })
    }

    pub fn into_inner(self) -> R {
        self.reader.into_inner()
    }

    /// The next row.
    pub fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        if !self.reader.read_byte_record(&mut self.row)? {
            return Ok(false);
        }
        match self.object() {
            Some(object) => record.push(Value::Object(object).to_string().as_bytes()),
            None => {
                for (at, field) in self.row.iter().enumerate() {
                    if at > 0 {
                        record.push(&[self.delimiter]);
                    }
                    record.push(field);
                }
            }
        }
        Ok(true)
    }

    fn object(&self) -> Option<Map<String, Value>> {
        if self.row.len() != self.names.len() {
            return None;
        }
        let mut object = Map::new();
        for (name, field) in self.names.iter().zip(&self.row) {
            let field = std::str::from_utf8(field).ok()?;
            if !field.is_empty() {
                let json = field.starts_with(['{', '[']).then(|| serde_json::from_str(field).ok()).flatten();
                object.insert(name.clone(), json.unwrap_or_else(|| Value::String(field.to_owned())));
            }
        }
        Some(object)
    }
}
