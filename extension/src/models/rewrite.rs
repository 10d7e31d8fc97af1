//! Rewriting the text of a query: Postgres's own parser says where its parameters and tables stand, and only these
//! places are replaced. Strings, comments and quoted names are never mistaken for them.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::pg_sys::{self, NodeTag};
use pgrx::{IntoDatum, PgSqlErrorCode, pg_guard};

use super::copies::nodes;
use super::statement::quoted;
use crate::support::args;
use crate::support::error::{invalid_argument, raise, raise_hint};
use crate::support::pg_function;

/// A place in the query that may be replaced.
enum Place {
    /// A parameter and its number.
    Parameter(i32),
    /// A table with its schema; whether it has an alias, and how it is read.
    Table { schema: String, table: String, parts: usize, alias: bool, read: Read },
    /// A column written as schema.table.column.
    Column { schema: String, table: String },
}

/// How a query reads a table.
#[derive(Clone, Copy, PartialEq)]
enum Read {
    /// In a FROM.
    Plain,
    /// As TABLE name.
    Command,
    /// With TABLESAMPLE.
    Sample,
}

/// What the walk through the parse tree collects.
#[derive(Default)]
struct Places {
    /// Places by their byte offset.
    places: Vec<(usize, Place)>,
    /// Names that something in a FROM goes by: aliases and those of CTEs.
    aliases: Vec<String>,
    /// Tables that are read in another way than by their name in a FROM.
    unusual: Vec<(*mut pg_sys::Node, Read)>,
}

/// A table to be replaced, and the SQL that stands in its place.
struct Replacement {
    schema: String,
    table: String,
    by: String,
}

unsafe fn owned(text: *const c_char) -> String {
    // SAFETY: the parser's strings end with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Called for every node of the parse tree; `context` is the `Places` of the walk.
#[pg_guard]
unsafe extern "C-unwind" fn collect(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the tag says which node it is; the context is what `parse` passed.
    unsafe {
        let Places { places, aliases, unusual } = &mut *context.cast::<Places>();
        match (*node).type_ {
            NodeTag::T_ParamRef => {
                let parameter = &*node.cast::<pg_sys::ParamRef>();
                places.push((parameter.location.max(0) as usize, Place::Parameter(parameter.number)));
                return false;
            }
            NodeTag::T_Alias => aliases.push(owned((*node.cast::<pg_sys::Alias>()).aliasname)),
            NodeTag::T_CommonTableExpr => {
                aliases.push(owned((*node.cast::<pg_sys::CommonTableExpr>()).ctename));
            }
            NodeTag::T_SelectStmt => {
                // The grammar makes SELECT * FROM name of TABLE name, with a * that stands nowhere.
                let select = &*node.cast::<pg_sys::SelectStmt>();
                if let ([target], [table]) =
                    (nodes::<pg_sys::ResTarget>(select.targetList), nodes::<pg_sys::Node>(select.fromClause))
                    && (**target).location < 0
                {
                    unusual.push((*table, Read::Command));
                }
            }
            NodeTag::T_RangeTableSample => {
                unusual.push(((*node.cast::<pg_sys::RangeTableSample>()).relation, Read::Sample));
            }
            NodeTag::T_RangeVar => {
                let table = &*node.cast::<pg_sys::RangeVar>();
                if !table.schemaname.is_null() {
                    let read = unusual.iter().find(|(unusual, _)| *unusual == node);
                    places.push((
                        table.location.max(0) as usize,
                        Place::Table {
                            schema: owned(table.schemaname),
                            table: owned(table.relname),
                            parts: if table.catalogname.is_null() { 2 } else { 3 },
                            alias: !table.alias.is_null(),
                            read: read.map_or(Read::Plain, |(_, read)| *read),
                        },
                    ));
                }
            }
            NodeTag::T_ColumnRef => {
                let column = &*node.cast::<pg_sys::ColumnRef>();
                let name = |n: usize| {
                    let field = (*(*column.fields).elements.add(n)).ptr_value.cast::<pg_sys::Node>();
                    ((*field).type_ == NodeTag::T_String)
                        .then(|| owned((*field.cast::<pg_sys::String>()).sval))
                };
                if (*column.fields).length == 3
                    && let (Some(schema), Some(table)) = (name(0), name(1))
                {
                    places.push((column.location.max(0) as usize, Place::Column { schema, table }));
                }
            }
            _ => {}
        }
        pg_sys::raw_expression_tree_walker(node, Some(collect), context)
    }
}

/// The text of the query without a semicolon, and its places in ascending order. An ERROR unless it is one SELECT.
fn parse(query: &str) -> (&str, Places) {
    let Ok(text) = CString::new(query) else {
        raise(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "query must not contain a zero byte")
    };
    let mut places = Places::default();
    // SAFETY: the parser's result lives in the current memory context, longer than this function.
    let (start, length) = unsafe {
        let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if list.is_null() || (*list).length != 1 {
            invalid_argument("query must be one SELECT", "Several statements do not make a model.");
        }
        let raw = &*(*(*list).elements).ptr_value.cast::<pg_sys::RawStmt>();
        if (*raw.stmt).type_ != NodeTag::T_SelectStmt {
            invalid_argument("query must be one SELECT", "A model's rows are what a SELECT returns.");
        }
        if !(*raw.stmt.cast::<pg_sys::SelectStmt>()).intoClause.is_null() {
            invalid_argument("query must not have an INTO", "A model's rows are what a SELECT returns.");
        }
        collect(raw.stmt, (&raw mut places).cast());
        (raw.stmt_location.max(0) as usize, raw.stmt_len.max(0) as usize)
    };
    let end = if length == 0 { query.len() } else { (start + length).min(query.len()) };
    // A node that the grammar uses twice has one place.
    places.places.sort_by_key(|(at, _)| *at);
    places.places.dedup_by_key(|(at, _)| *at);
    (&query[..end], places)
}

/// The end of `$12` that begins at `at`.
fn parameter_end(query: &str, at: usize) -> usize {
    let digits = query[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
    at + 1 + digits
}

/// The end of the white space and comments that begin at `at`.
fn skip_space(query: &str, mut at: usize) -> usize {
    let bytes = query.as_bytes();
    loop {
        match &bytes[at.min(bytes.len())..] {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => at += 1,
            [b'-', b'-', rest @ ..] => {
                at += 2 + rest.iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count();
            }
            [b'/', b'*', ..] => {
                let mut depth = 0;
                while at < bytes.len() {
                    match &bytes[at..] {
                        [b'/', b'*', ..] => {
                            depth += 1;
                            at += 2;
                        }
                        [b'*', b'/', ..] => {
                            depth -= 1;
                            at += 2;
                        }
                        _ => at += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => return at,
        }
    }
}

/// The end of one name, quoted or not, that begins at `at`; `None` if there is none, as for U&"...".
fn name_end(query: &str, at: usize) -> Option<usize> {
    let bytes = query.as_bytes();
    if bytes.get(at) == Some(&b'"') {
        let mut end = at + 1;
        loop {
            match &bytes[end.min(bytes.len())..] {
                [b'"', b'"', ..] => end += 2,
                [b'"', ..] => return Some(end + 1),
                [_, ..] => end += 1,
                [] => return None,
            }
        }
    }
    let length = bytes[at.min(bytes.len())..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..))
        .count();
    let end = at + length;
    (length > 0 && !matches!(&bytes[end..], [b'&', b'"', ..])).then_some(end)
}

/// The end of a name of several parts with dots between them; an ERROR when it is written in a way not understood.
fn qualified_end(query: &str, at: usize, parts: usize) -> usize {
    let mut end = at;
    for part in 0..parts {
        if part > 0 {
            end = skip_space(query, end);
            if query.as_bytes().get(end) != Some(&b'.') {
                unreadable(query, at);
            }
            end = skip_space(query, end + 1);
        }
        end = name_end(query, end).unwrap_or_else(|| unreadable(query, at));
    }
    end
}

fn unreadable(query: &str, at: usize) -> ! {
    let shown: String = query[at.min(query.len())..].chars().take(40).collect();
    raise_hint(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("query names a table in a way that cannot be rewritten: {shown}"),
        "Write it as schema.table, in plain or double-quoted names, and give it an alias if something else has its name.",
    )
}

/// The query with its two parameters and some of its tables replaced. `None` leaves the parameters as they are.
fn rewrite(query: &str, parameters: Option<(&str, &str)>, replacements: &[Replacement]) -> String {
    let (query, Places { places, aliases, .. }) = parse(query);
    // Where schema.table.column is written as table.column, nothing else may go by the name of the table.
    let taken = |schema: &str, table: &str| {
        aliases.iter().any(|alias| alias == table)
            || places.iter().any(|(_, place)| {
                matches!(place, Place::Table { schema: s, table: t, alias: false, .. } if t == table && s != schema)
            })
    };
    let by = |schema: &str, table: &str| replacements.iter().find(|r| r.schema == schema && r.table == table);
    let mut written = String::with_capacity(query.len() * 2);
    let mut done = 0;
    for (at, place) in &places {
        let mut at = *at;
        let (end, text) = match place {
            Place::Parameter(number) => {
                if !(1..=2).contains(number) {
                    raise_hint(
                        PgSqlErrorCode::ERRCODE_UNDEFINED_PARAMETER,
                        format!("query has a parameter ${number}"),
                        "There are two: $1 is the first date, $2 the end date (exclusive).",
                    );
                }
                let Some((first, second)) = parameters else { continue };
                (parameter_end(query, at), if *number == 1 { first } else { second }.to_owned())
            }
            Place::Table { schema, table, parts, alias, read } => {
                let Some(replacement) = by(schema, table) else { continue };
                let mut end = qualified_end(query, at, *parts);
                let mut select = "";
                match read {
                    Read::Plain => {}
                    Read::Command => {
                        let before = query[..at].trim_end();
                        let word = before.len().checked_sub(5).filter(|from| {
                            before.get(*from..).is_some_and(|word| word.eq_ignore_ascii_case("TABLE"))
                        });
                        at = word.unwrap_or_else(|| unreadable(query, at));
                        select = "SELECT * FROM ";
                    }
                    Read::Sample => raise_hint(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        format!("query takes a sample of table {schema}.{table}, which is itself a model"),
                        "A live view cannot: leave TABLESAMPLE out, or create the model without live.",
                    ),
                }
                // FROM t *, which means the same as FROM t.
                let star = skip_space(query, end);
                if query.as_bytes().get(star) == Some(&b'*') {
                    end = star + 1;
                }
                let alias = if *alias { String::new() } else { format!(" AS {}", quoted(table)) };
                (end, format!("{select}{}{alias}", replacement.by))
            }
            Place::Column { schema, table } => {
                if by(schema, table).is_none() {
                    continue;
                }
                if taken(schema, table) {
                    unreadable(query, at);
                }
                (qualified_end(query, at, 2), quoted(table))
            }
        };
        written.push_str(&query[done..at]);
        written.push_str(&text);
        done = end;
    }
    written.push_str(&query[done..]);
    written
}

pg_function! {
    /// `rewrite_query(query text, first text, last text, schemas text[], tables text[], replacements text[]) -> text`.
    fn tidemark_rewrite_query(fcinfo) {
        let Some(query) = args::text(fcinfo, 0, "query") else {
            raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "query must not be NULL")
        };
        let parameters = args::text(fcinfo, 1, "first").zip(args::text(fcinfo, 2, "last"));
        let list = |index| {
            args::datum(fcinfo, index)
                .and_then(|datum| <Vec<String> as pgrx::FromDatum>::from_datum(datum, false))
                .unwrap_or_default()
        };
        let replacements: Vec<Replacement> = list(3).into_iter().zip(list(4)).zip(list(5))
            .map(|((schema, table), by)| Replacement { schema, table, by })
            .collect();
        match rewrite(query, parameters, &replacements).into_datum() {
            Some(datum) => datum,
            None => args::return_null(fcinfo),
        }
    }
}
