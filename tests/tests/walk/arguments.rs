//! Calls of aggregates: which column of the rows, or which constant, stands for which argument.

use postgres::Client;
use tidemark_tests::cluster::rows;

/// An aggregate of the catalog.
pub struct Aggregate {
    /// As regprocedure writes it.
    pub signature: String,
    name: String,
    names: Vec<String>,
    arguments: Vec<Argument>,
}

/// How an argument is given.
enum Argument {
    /// A column of the rows.
    Column(&'static str),
    /// Three columns, or an array of them.
    Variadic,
    /// The same value for all rows: one that is right, another that is right, and others; with its type.
    Constant(&'static [&'static str], String),
}

/// Columns by type; a second argument of type boolean is another one.
const COLUMNS: [(&str, &str); 18] = [
    ("timestamp with time zone", "t"),
    ("boolean", "c1"),
    ("boolean", "c2"),
    ("text", "txt"),
    ("anyelement", "txt"),
    ("bytea", "byt"),
    ("smallint", "i2"),
    ("integer", "i4"),
    ("bigint", "i8"),
    ("double precision", "f8"),
    ("numeric", "num"),
    ("uuid", "u"),
    ("date", "d"),
    ("tidemark.hll", "h"),
    ("tidemark.ddsketch", "s"),
    ("tidemark.funnel_stats", "fs"),
    ("timestamp with time zone[]", "chain"),
    ("boolean[]", "retained"),
];

/// Arguments that must be constant, by name and type.
const CONSTANTS: [(&str, &str, &[&str]); 17] = [
    ("win", "interval", INTERVALS),
    ("gap", "interval", INTERVALS),
    ("look_back", "interval", INTERVALS),
    (
        "model",
        "text",
        &[
            "'linear'",
            "'time_decay=1,direct'",
            "NULL",
            "''",
            "'x'",
            "repeat('x', 1000000)",
            "repeat('direct,', 100)",
        ],
    ),
    (
        "mode",
        "text",
        &["''", "'strict_order'", "NULL", "'x'", "repeat('x', 1000000)", "repeat('strict_once,', 80)"],
    ),
    (
        "pattern",
        "text",
        &[
            "'(?1)(?2)'",
            "'(?1).*(?2)'",
            "NULL",
            "'('",
            "repeat('.', 1000000)",
            "repeat('(?1)?', 2000)",
            "repeat('.', 4000)",
            "'(?99)'",
            "'(?t<=99999999999999999999w)'",
        ],
    ),
    ("steps", "integer", &["3", "4", "NULL", "0", "-1", "33", "2147483647"]),
    (
        "steps",
        "text[]",
        &[
            "'{a,b}'",
            "'{a}'",
            "NULL",
            "'{}'",
            "'{a,NULL}'",
            "'{{a},{b}}'",
            "'{a,a}'",
            "array_fill('a'::text, '{32}')",
            "array_fill('a'::text, '{33}')",
            "array_fill('a'::text, '{63}')",
            "array_fill('a'::text, '{64}')",
            "array_fill('a'::text, '{65}')",
            "array_fill('a'::text, '{100000}')",
            "ARRAY[repeat('a', 1000000), 'a']",
        ],
    ),
    ("direction", "text", &["'forward'", "'backward'", "NULL", "'x'", "repeat('x', 1000000)"]),
    ("base", "text", &["'first_match'", "'last_match'", "NULL", "'tail'", "'x'", "repeat('x', 1000000)"]),
    ("period", "text", &["'day'", "'week'", "NULL", "'x'", "repeat('x', 1000000)"]),
    ("periods", "integer", &["5", "6", "NULL", "0", "-1", "1001", "2147483647"]),
    (
        "as_of",
        "timestamp with time zone",
        &[
            "'2026-02-01Z'",
            "'2026-03-01Z'",
            "NULL",
            "'infinity'",
            "'-infinity'",
            "'294276-12-31 23:59:59.999999Z'",
        ],
    ),
    ("q", "double precision", &["0.5", "0.9", "NULL", "-1", "2", "'NaN'", "'Infinity'"]),
    (
        "relative_error",
        "double precision",
        &["0.01", "0.02", "NULL", "0", "-1", "0.2", "'NaN'", "'Infinity'", "1e-300"],
    ),
    ("log2m", "integer", &["12", "13", "NULL", "-1", "0", "3", "18", "2147483647"]),
    ("regwidth", "integer", &["5", "6", "NULL", "-1", "0", "9", "2147483647"]),
];
const INTERVALS: &[&str] = &[
    "'1 hour'",
    "'2 hours'",
    "NULL",
    "'-1 day'",
    "'1 month'",
    "'1 month -30 days'",
    "'178000000 years'",
    "'2147483647 days'",
    "'-2147483648 days'",
    "'0'",
    "'1 second -1 microsecond'",
    // From 17 on; before, an error of its own.
    "'infinity'",
    "'-infinity'",
];

/// Conditions that are not right; the last one changes from row to row.
const CONDITIONS: [&str; 14] = [
    "VARIADIC '{}'::boolean[]",
    "VARIADIC ARRAY[c1]",
    "VARIADIC array_fill(c1, '{31}')",
    "VARIADIC array_fill(c1, '{32}')",
    "VARIADIC array_fill(c1, '{33}')",
    "VARIADIC array_fill(c1, '{63}')",
    "VARIADIC array_fill(c1, '{64}')",
    "VARIADIC array_fill(c1, '{65}')",
    "VARIADIC array_fill(c1, '{100000}')",
    "VARIADIC ARRAY[[c1], [c2]]",
    "VARIADIC NULL::boolean[]",
    "VARIADIC ARRAY[i, i]",
    "c1, i, txt",
    "VARIADIC CASE i % 2 WHEN 0 THEN ARRAY[c1, c2, c3] ELSE ARRAY[c1, c2] END",
];

impl Aggregate {
    /// All aggregates of the catalog. Panics for an argument that nothing here knows how to give.
    pub fn all(client: &mut Client) -> Vec<Self> {
        let sql = "SELECT p.oid::regprocedure, p.proname, coalesce(n.name, ''), format_type(a.type, NULL)
                     FROM pg_aggregate g JOIN pg_proc p ON p.oid = g.aggfnoid
                    CROSS JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS a(type, nr)
                     LEFT JOIN LATERAL unnest(p.proargnames) WITH ORDINALITY AS n(name, nr) ON n.nr = a.nr
                    WHERE p.pronamespace = 'tidemark'::regnamespace ORDER BY p.oid::regprocedure::text, a.nr";
        let mut all: Vec<Self> = vec![];
        for row in rows(client, sql) {
            let [signature, name, argument, kind] = row.try_into().unwrap();
            if all.last().is_none_or(|last| last.signature != signature) {
                all.push(Self { signature, name, names: vec![], arguments: vec![] });
            }
            let last = all.last_mut().unwrap();
            let given = last.argument(&argument, &kind);
            last.names.push(argument);
            last.arguments.push(given);
        }
        all
    }

    fn argument(&self, name: &str, kind: &str) -> Argument {
        if kind == "\"any\"" || kind == "any" {
            return Argument::Variadic;
        }
        if let Some((.., values)) = CONSTANTS.iter().find(|(n, k, _)| (*n, *k) == (name, kind)) {
            let cohort = name == "mode" && self.name == "cohort_member";
            let of_cohort = &["'on'", "'on_or_after,recurring'", "NULL", "'x'", "repeat('x', 1000000)"];
            return Argument::Constant(if cohort { of_cohort } else { values }, kind.to_owned());
        }
        let taken =
            |column: &str| self.arguments.iter().any(|a| matches!(a, Argument::Column(c) if *c == column));
        let column = COLUMNS.iter().find(|(k, column)| *k == kind && !taken(column));
        match column {
            Some((_, column)) => Argument::Column(column),
            None => panic!(
                "the test does not know what to give for argument {name} ({kind}) of {}: add the type to COLUMNS here \
                 and to the rows in inputs.rs, or the argument to CONSTANTS if it is the same for all rows",
                self.signature
            ),
        }
    }

    /// A call for rows with these columns.
    pub fn call(&self) -> Call {
        let mut columns = vec![];
        let arguments = self.arguments.iter().map(|argument| match argument {
            Argument::Column(column) => {
                columns.push(*column);
                (*column).to_owned()
            }
            Argument::Variadic => {
                columns.extend(["c1", "c2", "c3"]);
                "c1, c2, c3".to_owned()
            }
            Argument::Constant(values, kind) => format!("{}::{kind}", values[0]),
        });
        let arguments: Vec<_> = arguments.collect();
        Call { name: self.name.clone(), arguments, columns }
    }

    /// Calls that make work: with `VARIADIC c` for conditions, where `c` is an array.
    pub fn laborious_calls(&self) -> Vec<Call> {
        let mut calls = vec![self.call()];
        for (at, argument) in self.arguments.iter().enumerate() {
            if let Argument::Variadic = argument {
                calls.iter_mut().for_each(|call| call.arguments[at] = "VARIADIC c".to_owned());
            }
            let Argument::Constant(_, kind) = argument else { continue };
            let Some((_, values)) = LABORIOUS.iter().find(|(name, _)| *name == self.names[at]) else {
                continue;
            };
            calls = calls
                .iter()
                .flat_map(|call| {
                    values.iter().map(|value| {
                        let mut call = call.clone();
                        call.arguments[at] = format!("({value})::{kind}");
                        call
                    })
                })
                .collect();
        }
        calls
    }

    /// The call with arrays of as many elements as a value can have, if it takes any.
    pub fn with_huge_arrays(&self) -> Option<Call> {
        let mut call = self.call();
        let mut any = false;
        for (at, argument) in self.arguments.iter().enumerate() {
            let huge = match argument {
                Argument::Variadic => "VARIADIC array_fill(true, '{30000000}')",
                Argument::Constant(_, kind) if kind == "text[]" => "array_fill('a'::text, '{10000000}')",
                Argument::Column("chain") => "array_fill(t, '{30000000}')",
                Argument::Column("retained") => "array_fill(true, '{30000000}')",
                _ => continue,
            };
            any = true;
            call.arguments[at] = huge.to_owned();
        }
        any.then_some(call)
    }

    /// The same call with one constant that is another one, for all rows or for every other row, or with other
    /// conditions.
    pub fn other_calls(&self) -> Vec<Call> {
        let mut calls = vec![];
        for (at, argument) in self.arguments.iter().enumerate() {
            if let Argument::Variadic = argument {
                for conditions in CONDITIONS {
                    let mut call = self.call();
                    call.arguments[at] = conditions.to_owned();
                    calls.push(call);
                }
            }
            let Argument::Constant(values, kind) = argument else { continue };
            let changing = format!("(CASE i % 2 WHEN 0 THEN {} ELSE {} END)", values[0], values[1]);
            for value in values[1..].iter().copied().chain([&changing[..]]) {
                let mut call = self.call();
                call.arguments[at] = format!("{value}::{kind}");
                calls.push(call);
            }
        }
        calls
    }
}

/// Constants that make work, by name.
const LABORIOUS: [(&str, &[&str]); 8] = [
    ("win", &["'1 hour'"]),
    ("mode", &["''", "'any_order'", "'step_window=1h'", "'strict_once'", "'recurring'"]),
    ("pattern", &["'(?1).*(?32)'", "repeat('(?1)(?t<=1h)', 1000) || '(?32)'"]),
    ("periods", &["1000"]),
    ("as_of", &["'infinity'"]),
    ("model", &["'last'", "'linear'", "'time_decay'"]),
    ("look_back", &["'36500 days'"]),
    ("log2m", &["17"]),
];

/// An aggregate with arguments.
#[derive(Clone)]
pub struct Call {
    name: String,
    arguments: Vec<String>,
    columns: Vec<&'static str>,
}

impl Call {
    /// The call, with something behind its arguments.
    pub fn with(&self, modifier: &str) -> String {
        format!("tidemark.{}({}{modifier})", self.name, self.arguments.join(", "))
    }

    /// The call with the keyword DISTINCT.
    pub fn distinct(&self) -> String {
        format!("tidemark.{}(DISTINCT {})", self.name, self.arguments.join(", "))
    }

    /// The call with its conditions as an array, if it has any.
    pub fn as_array(&self) -> Option<String> {
        let call = self.with("");
        let array = call.replace("c1, c2, c3", "VARIADIC ARRAY[c1, c2, c3]");
        (array != call).then_some(array)
    }

    /// The columns that it reads.
    pub fn columns(&self) -> String {
        let mut columns = self.columns.clone();
        columns.sort_unstable();
        columns.dedup();
        columns.join(", ")
    }

    /// Whether it reads this column.
    pub fn reads(&self, column: &str) -> bool {
        self.columns.contains(&column)
    }

    /// Whether it reads values of any size.
    pub fn reads_long_values(&self) -> bool {
        self.columns.iter().any(|column| ["txt", "byt", "retained", "chain"].contains(column))
    }
}
