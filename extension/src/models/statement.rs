//! The statements that work on one date of a model, put together from named parts: text only, nothing of Postgres but
//! the glue at the end. $1 is the date, $2 the day after, $3 persons.

use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};

use crate::support::args;
use crate::support::error::{invalid_argument, raise};
use crate::support::pg_function;

/// What the statements need to know of a model.
struct Model<'a> {
    /// The table, qualified and quoted.
    target: &'a str,
    /// The columns that the query fills: names and types, as what they are compared.
    columns: Vec<(String, String)>,
    key: Vec<String>,
    query: &'a str,
    /// The query for a part of the date: rows that are not stored yet, or those of some persons.
    part: Option<&'a str>,
    /// How two values of each column become one (`merges.rs`).
    merges: Vec<String>,
    /// What is true of a stored row of these persons.
    scope: Option<&'a str>,
    /// The same, for many rows that have no index.
    hashed: Option<&'a str>,
    /// The persons of a part, and from when on their rows are computed: a query of `person` and `since`.
    bounds: Option<&'a str>,
    /// A column whose values in the rows that are written are wanted.
    touched: Option<String>,
    /// Together with the earliest event_time of each.
    since: bool,
}

/// Of how many persons it is worth while to say that their rows were written.
const MOST_PERSONS: usize = 100_000;
/// Of how many rows it is worth while to say where they are.
const MOST_PLACES: usize = 500_000;

/// A name in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn join(items: impl IntoIterator<Item = String>, separator: &str) -> String {
    items.into_iter().collect::<Vec<_>>().join(separator)
}

impl Model<'_> {
    /// The statement of a kind; `None` for an unknown one, or one that this model has not.
    fn statement(&self, kind: &str) -> Option<String> {
        match kind {
            "build" => Some(format!("INSERT INTO {} {}", self.target, self.fill())),
            "fill" => Some(self.fill()),
            "built" => Some(self.built()),
            "append" => self.part.map(|part| self.append(part, false)),
            "append and count" => self.part.map(|part| self.append(part, true)),
            "diff" => Some(self.write(&self.differing(self.query, "true", &self.guard()), "true")),
            "scope" => {
                Some(self.write(&self.differing(self.part?, self.scope?, &self.guard()), self.hashed?))
            }
            "merge" => Some(self.write(&self.merged(self.part?), "true")),
            "compare" => Some(self.compare()),
            _ => None,
        }
    }

    /// What stands behind INSERT INTO and a table.
    fn fill(&self) -> String {
        let Self { query, .. } = self;
        let columns = self.columns("");
        // The guard stands where only rows that come out are looked at, never in a WHERE, which may be moved.
        let mut guarded = self.columns.iter().map(|(name, _)| format!("q.{}", quoted(name)));
        let first = guarded.next().unwrap_or_default();
        let guard = self.guard();
        let values =
            join(std::iter::once(format!("CASE WHEN {guard} THEN {first} END")).chain(guarded), ", ");
        format!("({columns}) SELECT {values} FROM ({query}\n) AS q")
    }

    /// An example of a key that is doubled or NULL among the stored rows.
    fn built(&self) -> String {
        let Self { target, .. } = self;
        let (example, keys, null_key) = (self.example(), self.keys(""), self.null_key());
        format!(
            "SELECT {example} FROM {target} WHERE event_date = $1 \
             GROUP BY {keys} HAVING count(*) > 1 OR {null_key} LIMIT 1"
        )
    }

    /// Adds the rows of those that came. Counts them all if wanted, so that a row which went without a mark is not passed
    /// over.
    fn append(&self, part: &str, count: bool) -> String {
        let Self { target, query, .. } = self;
        let (columns, computed, keys) = (self.columns(""), self.computed(), self.keys(""));
        let (example, null_key) = (self.example(), self.null_key());
        let touched = self.touched.iter().map(String::as_str);
        let time = self.touched.iter().filter(|_| self.since).map(|_| "event_time");
        let more = std::iter::once("event_date")
            .chain(touched)
            .chain(time)
            .filter(|name| self.key.iter().all(|key| key != name));
        let returned = join(self.key.iter().map(String::as_str).chain(more).map(quoted), ", ");
        let written = self.written("SELECT {}, {time} FROM added");
        // For the models that read these rows.
        let places = format!(
            "CASE WHEN count(*) <= {MOST_PLACES} THEN array_agg(tidemark_place)::pg_catalog.text END"
        );
        let counted = format!(
            "'rows', (SELECT n FROM stored), \
             'surplus', (SELECT n FROM stored) - (SELECT count(*) FROM ({query}\n) AS q), "
        );
        let counted = if count { counted.as_str() } else { "" };
        format!(
            "WITH added AS (\
                INSERT INTO {target} ({columns}) SELECT {computed} FROM ({part}\n) AS q \
                 WHERE q.event_date = $1 RETURNING {returned}, ctid AS tidemark_place), \
             stored AS (SELECT (SELECT count(*) FROM {target} AS t WHERE t.event_date = $1) \
                    + (SELECT count(*) FROM added) AS n) \
             SELECT json_build_object({written}\
                'inserted', (SELECT count(*) FROM added), \
                'places', (SELECT {places} FROM added), \
                {counted}\
                'wrong', (SELECT {example} FROM added GROUP BY {keys} HAVING count(*) > 1 OR {null_key} LIMIT 1), \
                'elsewhere', (SELECT count(*) FROM added WHERE event_date IS DISTINCT FROM $1))"
        )
    }

    /// The stored rows together with those of a part of the source that they do not hold yet.
    fn merged(&self, part: &str) -> String {
        let both = |((name, of), how): (&(String, String), &String)| {
            let (new, old) = (format!("new.{}", quoted(name)), format!("old.{}", quoted(name)));
            match how.as_str() {
                "key" => new,
                "sum" => format!("CAST(coalesce({new} OPERATOR(pg_catalog.+) {old}, {new}, {old}) AS {of})"),
                "least" | "greatest" => format!("{how}({new}, {old})"),
                sketch => format!(
                    "(SELECT tidemark.{sketch}_union_agg(v.v) FROM (VALUES ({new}), ({old})) AS v(v))"
                ),
            }
        };
        let values = self.columns.iter().zip(&self.merges).map(both).collect::<Vec<_>>();
        self.compared(part, "true", &self.guard(), "LEFT", &values)
    }

    /// Writes what differs. Deleted before updated before inserted: each part waits for the count of the one before, so
    /// that a value which is unique in the table can move from one row to another.
    fn write(&self, compared: &str, hashed: &str) -> String {
        let Self { target, .. } = self;
        let columns = self.columns("");
        let written = self.written(
            "SELECT {}, {time} FROM diff UNION ALL SELECT tidemark_old, tidemark_old_time FROM diff",
        );
        let assigned = join(
            self.columns.iter().map(|(name, _)| {
                let name = quoted(name);
                format!("{name} = d.{name}")
            }),
            ", ",
        );
        let same_row = "t.event_date = $1 AND t.tableoid = d.tidemark_table AND t.ctid = d.tidemark_row";
        format!(
            "{compared}, \
             deleted AS (DELETE FROM {target} AS t USING diff AS d \
                 WHERE {same_row} AND d.tidemark_new IS NULL RETURNING 1), \
             updated AS (UPDATE {target} AS t SET {assigned} FROM diff AS d \
                 WHERE {same_row} AND d.tidemark_new AND (SELECT count(*) FROM deleted) >= 0 RETURNING t.event_date), \
             inserted AS (INSERT INTO {target} ({columns}) SELECT {columns} FROM diff AS d \
                 WHERE d.tidemark_row IS NULL AND (SELECT count(*) FROM updated) >= 0 RETURNING event_date) \
             SELECT json_build_object({written}\
                'seen', tidemark_internal.current_seen(), \
                'computed', (SELECT count(*) FROM new), \
                'deleted', (SELECT count(*) FROM deleted), \
                'updated', (SELECT count(*) FROM updated), \
                'inserted', (SELECT count(*) FROM inserted), \
                'wrong', (SELECT key FROM wrong), \
                'elsewhere', (SELECT count(*) FROM (SELECT event_date FROM updated UNION ALL \
                    SELECT event_date FROM inserted) AS w WHERE event_date IS DISTINCT FROM $1), \
                'surplus', (SELECT count(*) FROM new WHERE ({hashed}) IS NOT TRUE))"
        )
    }

    /// Counts what differs, with the key of one such row, and one of another date.
    fn compare(&self) -> String {
        let compared = self.differing(self.query, "true", "q.event_date IS NOT DISTINCT FROM $1");
        let (example, keys) = (self.example(), self.keys(""));
        let (old_keys, diff_keys) = (self.keys("old."), self.keys("diff."));
        format!(
            "{compared} SELECT json_build_object(\
                'missing', count(*) FILTER (WHERE d.tidemark_row IS NULL), \
                'extra', count(*) FILTER (WHERE d.tidemark_new IS NULL), \
                'different', count(*) FILTER (WHERE d.tidemark_row IS NOT NULL AND d.tidemark_new), \
                'stored', (SELECT count(*) FROM old), \
                'computed', (SELECT count(*) FROM new), \
                'wrong', (SELECT key FROM wrong), \
                'outside', (SELECT (jsonb_build_object('event_date', tidemark_date) || {example}::jsonb)::text \
                    FROM new WHERE NOT tidemark_new LIMIT 1), \
                'example', (SELECT {example} FROM (SELECT {old_keys} FROM diff JOIN old \
                        ON old.tidemark_table = diff.tidemark_table AND old.tidemark_row = diff.tidemark_row \
                    UNION ALL SELECT {diff_keys} FROM diff WHERE diff.tidemark_row IS NULL) AS e \
                    ORDER BY {keys} LIMIT 1)) FROM diff AS d"
        )
    }

    /// The computed rows, the stored ones, and those in which they differ. `scope` limits the stored rows to those that
    /// the query is about, `is_new` says of a row `q` that it is of the date.
    fn differing(&self, query: &str, scope: &str, is_new: &str) -> String {
        let values = self.columns.iter().map(|(name, _)| format!("new.{}", quoted(name))).collect::<Vec<_>>();
        self.compared(query, scope, is_new, "FULL", &values)
    }

    /// The same, for stored rows that shall hold these values: what there is of them the join decides.
    fn compared(&self, query: &str, scope: &str, is_new: &str, join_kind: &str, values: &[String]) -> String {
        let Self { target, .. } = self;
        let (computed, example, keys, null_key) =
            (self.computed(), self.example(), self.keys(""), self.null_key());
        let named =
            self.columns.iter().zip(values).map(|((name, _), value)| format!("{value} AS {}", quoted(name)));
        let (named, new_row, old_row) = (join(named, ", "), values.join(", "), self.columns("old."));
        let same_key = join(
            self.key.iter().map(|name| {
                let name = quoted(name);
                format!("new.{name} = old.{name}")
            }),
            " AND ",
        );
        let old_person = self.touched.iter().map(|name| {
            let time = if self.since { "old.event_time" } else { "NULL::pg_catalog.timestamptz" };
            format!("old.{}::text AS tidemark_old, {time} AS tidemark_old_time, ", quoted(name))
        });
        let old_person = join(old_person, "");
        let bounds = self.bounds.map(|bounds| format!("tidemark_bounds AS MATERIALIZED ({bounds}), "));
        let old = format!(
            "SELECT t.tableoid AS tidemark_table, t.ctid AS tidemark_row, t.* FROM {target} AS t \
                 WHERE t.event_date = $1 AND {scope}"
        );
        // One person after the other, along an index.
        let (bounds, old) = match bounds {
            Some(bounds) => {
                (bounds, format!("SELECT o.* FROM tidemark_bounds CROSS JOIN LATERAL ({old} OFFSET 0) AS o"))
            }
            None => (String::new(), old),
        };
        format!(
            "WITH {bounds}new AS MATERIALIZED (\
                SELECT {is_new} AS tidemark_new, q.event_date AS tidemark_date, {computed} FROM ({query}\n) AS q), \
             old AS ({old}), \
             wrong AS (SELECT {example} AS key FROM new WHERE tidemark_new GROUP BY {keys} \
                 HAVING count(*) > 1 OR {null_key} LIMIT 1), \
             diff AS MATERIALIZED (\
                SELECT old.tidemark_table, old.tidemark_row, new.tidemark_new, {old_person}{named} \
                  FROM (SELECT * FROM new WHERE tidemark_new) AS new {join_kind} JOIN old ON {same_key} \
                 WHERE new.tidemark_new IS NULL OR old.tidemark_row IS NULL \
                    OR ROW({new_row})::record OPERATOR(pg_catalog.*<>) ROW({old_row})::record)"
        )
    }

    /// The persons of rows that were written, and their earliest times, for a list of keys and values. NULL for too many,
    /// and nothing at all where nobody asks.
    fn written(&self, rows: &str) -> String {
        let Some(touched) = &self.touched else { return String::new() };
        let (time, since) = match self.since {
            // Of a row without a time nobody knows what it changes.
            true => ("event_time", ", 'since', json_agg(p.since) FILTER (WHERE p.person IS NOT NULL)"),
            false => ("NULL::pg_catalog.timestamptz", ""),
        };
        let rows = rows.replace("{time}", time).replace("{}", &format!("{}::text", quoted(touched)));
        format!(
            "'written', (SELECT CASE WHEN count(*) <= {MOST_PERSONS} THEN json_build_object('persons', \
                coalesce(json_agg(p.person) FILTER (WHERE p.person IS NOT NULL), '[]'){since}) END \
                FROM (SELECT w.person, min(coalesce(w.at, '-infinity')) AS since FROM ({rows}) AS w(person, at) \
                     GROUP BY w.person LIMIT {MOST_PERSONS} + 1) AS p), "
        )
    }

    /// Raises an error for a row `q` of another date.
    fn guard(&self) -> String {
        format!("tidemark_internal.of_date(q.event_date, $1, {})", self.keys("q."))
    }

    /// The columns, each with a prefix.
    fn columns(&self, prefix: &str) -> String {
        join(self.columns.iter().map(|(name, _)| format!("{prefix}{}", quoted(name))), ", ")
    }

    /// The columns of a row `q` as what the table would store: numeric(12, 3) of a numeric, say.
    fn computed(&self) -> String {
        let cast = |(name, of): &(String, String)| {
            let name = quoted(name);
            format!("CAST(q.{name} AS {of}) AS {name}")
        };
        join(self.columns.iter().map(cast), ", ")
    }

    /// The columns of the key, each with a prefix.
    fn keys(&self, prefix: &str) -> String {
        join(self.key.iter().map(|name| format!("{prefix}{}", quoted(name))), ", ")
    }

    /// Whether a column of the key is NULL.
    fn null_key(&self) -> String {
        join(self.key.iter().map(|name| format!("{} IS NULL", quoted(name))), " OR ")
    }

    /// The key of a row as JSON.
    fn example(&self) -> String {
        let pair = |name: &String| format!("'{}', {}", name.replace('\'', "''"), quoted(name));
        format!("jsonb_build_object({})::text", join(self.key.iter().map(pair), ", "))
    }
}

pg_function! {
    /// `statement_text(kind text, target text, columns text[], types text[], key text[], query text, part text,
    /// merges text[], scope text, hashed text, bounds text, touched text, since boolean) -> text`.
    fn tidemark_statement_text(fcinfo) {
        let required = |index, name: &str| match args::text(fcinfo, index, name) {
            Some(text) => text,
            None => raise(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be NULL")),
        };
        let list = |index| {
            args::datum(fcinfo, index)
                .and_then(|datum| <Vec<String> as FromDatum>::from_datum(datum, false))
                .unwrap_or_default()
        };
        let kind = required(0, "kind");
        let columns: Vec<(String, String)> = list(2).into_iter().zip(list(3)).collect();
        // Of a column that the table computes the statements do not know the values.
        let touched = args::text(fcinfo, 11, "touched").filter(|touched| columns.iter().any(|(name, _)| name == touched));
        let timed = columns.iter().any(|(name, of)| name == "event_time" && of == "timestamp with time zone");
        let since = timed && args::datum(fcinfo, 12).is_some_and(|datum| datum.value() != 0);
        let model = Model {
            target: required(1, "target"),
            touched: touched.map(str::to_owned),
            columns,
            key: list(4),
            query: required(5, "query"),
            part: args::text(fcinfo, 6, "part"),
            merges: list(7),
            scope: args::text(fcinfo, 8, "scope"),
            hashed: args::text(fcinfo, 9, "hashed"),
            bounds: args::text(fcinfo, 10, "bounds"),
            since,
        };
        match model.statement(kind).and_then(IntoDatum::into_datum) {
            Some(datum) => datum,
            None => invalid_argument(
                format!("there is no statement of kind {kind}"),
                "kind is build, fill, built, append, append and count, merge, scope, diff or compare.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Model;

    fn model() -> Model<'static> {
        let column = |name: &str, of: &str| (name.to_owned(), of.to_owned());
        Model {
            target: "w.m",
            columns: vec![column("event_date", "date"), column("The \"x\"", "numeric(12,3)")],
            key: vec!["event_date".to_owned(), "it's".to_owned()],
            query: "SELECT 1 -- a comment",
            part: None,
            merges: vec![],
            scope: None,
            hashed: None,
            bounds: None,
            touched: None,
            since: false,
        }
    }

    fn text(kind: &str) -> String {
        model().statement(kind).unwrap()
    }

    #[test]
    fn a_date_is_built_from_rows_that_are_looked_at() {
        let guard = r#"CASE WHEN tidemark_internal.of_date(q.event_date, $1, q."event_date", q."it's")"#;
        let fill = format!(
            "(\"event_date\", \"The \"\"x\"\"\") SELECT {guard} THEN q.\"event_date\" END, q.\"The \"\"x\"\"\" \
             FROM (SELECT 1 -- a comment\n) AS q"
        );
        assert_eq!(text("fill"), fill);
        assert_eq!(text("build"), format!("INSERT INTO w.m {fill}"));
    }

    #[test]
    fn a_doubled_key_is_shown() {
        assert_eq!(
            text("built"),
            concat!(
                r#"SELECT jsonb_build_object('event_date', "event_date", 'it''s', "it's")::text FROM w.m "#,
                r#"WHERE event_date = $1 GROUP BY "event_date", "it's" "#,
                r#"HAVING count(*) > 1 OR "event_date" IS NULL OR "it's" IS NULL LIMIT 1"#
            )
        );
    }

    #[test]
    fn differences_are_written_only_where_the_date_is_right() {
        let (diff, compare) = (text("diff"), text("compare"));
        assert!(diff.contains("of_date(q.event_date, $1,"), "{diff}");
        assert!(!compare.contains("of_date"), "{compare}");
        for part in ["DELETE FROM w.m", "UPDATE w.m", "INSERT INTO w.m"] {
            assert!(diff.contains(part) && !compare.contains(part), "{part}");
        }
        for statement in [diff, compare] {
            assert!(
                statement.contains(r#"CAST(q."The ""x""" AS numeric(12,3)) AS "The ""x""""#),
                "{statement}"
            );
            assert!(
                statement
                    .contains(r#"ON new."event_date" = old."event_date" AND new."it's" = old."it's" WHERE"#)
            );
            // A comment at the end of the query ends there.
            assert!(statement.contains("(SELECT 1 -- a comment\n) AS q"));
        }
    }

    #[test]
    fn a_merge_touches_only_rows_of_what_came() {
        assert_eq!(model().statement("merge"), None);
        let merges = vec!["key".to_owned(), "sum".to_owned()];
        let merge = Model { part: Some("SELECT 2"), merges, ..model() }.statement("merge").unwrap();
        assert!(merge.contains("AS new LEFT JOIN old ON"), "{merge}");
        let (new, old) = (r#"new."The ""x""""#, r#"old."The ""x""""#);
        let sum =
            format!("CAST(coalesce({new} OPERATOR(pg_catalog.+) {old}, {new}, {old}) AS numeric(12,3))");
        assert!(
            merge.contains(&format!(r#"new."event_date" AS "event_date", {sum} AS "The ""x""""#)),
            "{merge}"
        );
        assert!(merge.contains("(SELECT 2\n) AS q") && !merge.contains("SELECT 1 -- a comment"), "{merge}");
    }

    #[test]
    fn only_a_model_with_a_query_for_it_appends() {
        assert_eq!(model().statement("append"), None);
        let with = |kind| Model { part: Some("SELECT 2"), ..model() }.statement(kind).unwrap();
        let append = with("append");
        assert!(
            append.contains(
                "FROM (SELECT 2\n) AS q WHERE q.event_date = $1 RETURNING \"event_date\", \"it's\", ctid AS tidemark_place)"
            )
        );
        // All rows that the query returns count, those of other dates too.
        let counted = "- (SELECT count(*) FROM (SELECT 1 -- a comment\n) AS q),";
        assert!(!append.contains(counted), "{append}");
        assert!(with("append and count").contains(counted));
        assert_eq!(model().statement("guess"), None);
    }
}
