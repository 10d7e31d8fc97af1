//! A next version that exists only here: the install script of this version with changes of every usual kind, the
//! upgrade script that leads to it, and wrong ones, each with one thing forgotten or done otherwise.

/// The version that the changes lead to.
pub const NEXT: &str = "0.0.0-next";

/// The new body of a function that exists.
const CHANGED: &str = "FUNCTION tidemark.bar(value numeric, maximum numeric, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN value > 0 AND maximum > 0 THEN repeat('=', (least(value / maximum, 1) * width)::integer) ELSE '' END;
";

/// New objects of every kind.
const ADDED: &str = "
CREATE FUNCTION tidemark.answer(a integer, b integer DEFAULT 1) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 3 SET search_path = pg_catalog, pg_temp RETURN a + b;
COMMENT ON FUNCTION tidemark.answer(integer, integer) IS 'The sum.';
REVOKE EXECUTE ON FUNCTION tidemark.answer(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidemark.answer(integer, integer) TO pg_monitor;
CREATE FUNCTION tidemark.answers(n integer) RETURNS SETOF integer
LANGUAGE sql STABLE PARALLEL SAFE ROWS 20 SET search_path = pg_catalog, pg_temp
AS 'SELECT g FROM pg_catalog.generate_series(1, n) AS g';
COMMENT ON FUNCTION tidemark.answers(integer) IS 'The first numbers.';
CREATE AGGREGATE tidemark.product(double precision) (
    SFUNC = float8mul, STYPE = double precision, INITCOND = '1', COMBINEFUNC = float8mul, PARALLEL = SAFE);
COMMENT ON AGGREGATE tidemark.product(double precision) IS 'The product.';
CREATE TYPE tidemark.pair AS (first integer, second text);
COMMENT ON TYPE tidemark.pair IS 'Two values.';
COMMENT ON COLUMN tidemark.pair.first IS 'The first value.';
CREATE TYPE tidemark.size AS ENUM ('small', 'large');
COMMENT ON TYPE tidemark.size IS 'How large.';
CREATE OPERATOR tidemark.## (LEFTARG = integer, RIGHTARG = integer,
                             FUNCTION = tidemark.answer, COMMUTATOR = OPERATOR(tidemark.##));
COMMENT ON OPERATOR tidemark.## (integer, integer) IS 'The sum.';
CREATE FUNCTION tidemark.pair_text(tidemark.pair) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp RETURN ($1).second;
COMMENT ON FUNCTION tidemark.pair_text(tidemark.pair) IS 'Its second value.';
CREATE CAST (tidemark.pair AS text) WITH FUNCTION tidemark.pair_text(tidemark.pair) AS ASSIGNMENT;
CREATE TABLE tidemark.notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent regclass NOT NULL,
    note text NOT NULL DEFAULT 'none' CHECK (note <> ''),
    written_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE tidemark.notes IS 'Notes.';
COMMENT ON COLUMN tidemark.notes.note IS 'The note.';
CREATE INDEX ON tidemark.notes (parent, written_at DESC);
SELECT pg_catalog.pg_extension_config_dump('tidemark.notes', '');
SELECT pg_catalog.pg_extension_config_dump('tidemark.notes_id_seq', '');
ALTER TABLE tidemark.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON tidemark.notes FOR SELECT USING (true);
CREATE POLICY writers_write ON tidemark.notes FOR INSERT WITH CHECK (note <> 'secret');
GRANT SELECT, INSERT ON tidemark.notes TO PUBLIC;
CREATE FUNCTION tidemark.notes_stamp() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS 'BEGIN NEW.written_at := now(); RETURN NEW; END';
COMMENT ON FUNCTION tidemark.notes_stamp() IS 'Stamps a note.';
CREATE TRIGGER stamp BEFORE INSERT ON tidemark.notes FOR EACH ROW EXECUTE FUNCTION tidemark.notes_stamp();
CREATE VIEW tidemark.noted WITH (security_invoker = true) AS SELECT n.parent, pg_catalog.count(*) AS notes
  FROM tidemark.notes AS n GROUP BY n.parent;
COMMENT ON VIEW tidemark.noted IS 'How many notes.';
GRANT SELECT ON tidemark.noted TO PUBLIC;
";

/// The same new column, where a table is made and where it exists.
const COLUMN: &str = "note text NOT NULL DEFAULT 'none'";
const COLUMN_COMMENT: &str =
    "COMMENT ON COLUMN tidemark_internal.partition_config.note IS 'What there is to say.';\n";

/// The piece of a script from one text up to another.
fn piece<'a>(script: &'a str, from: &str, to: &str) -> &'a str {
    let start = script.find(from).unwrap_or_else(|| panic!("no {from} in the install script"));
    let length = script[start..].find(to).unwrap_or_else(|| panic!("no {to} after {from}"));
    &script[start..start + length]
}

/// The install script of the next version.
pub fn fresh(script: &str) -> String {
    let function = piece(script, "CREATE FUNCTION tidemark.bar(", "COMMENT ON FUNCTION tidemark.bar(");
    let table = piece(script, "CREATE TABLE tidemark_internal.partition_config (", "\n);");
    script.replace(function, &format!("CREATE {CHANGED}")).replace(table, &format!("{table},\n    {COLUMN}"))
        + COLUMN_COMMENT
        + ADDED
}

/// The right script to it.
pub fn upgrade() -> String {
    format!(
        "CREATE OR REPLACE {CHANGED}ALTER TABLE tidemark_internal.partition_config ADD COLUMN {COLUMN};\n\
         {COLUMN_COMMENT}{ADDED}"
    )
}

/// Ways to get the upgrade script wrong: what stands there instead of what, and an object that must be named.
pub const MISTAKES: [(&str, &str, &str); 34] = [
    ("COMMENT ON FUNCTION tidemark.answer(integer, integer) IS 'The sum.';", "", "tidemark.answer("),
    ("IS 'The first numbers.'", "IS 'The last numbers.'", "tidemark.answers("),
    ("COST 3", "COST 4", "tidemark.answer("),
    ("ROWS 20", "ROWS 30", "tidemark.answers("),
    ("IMMUTABLE STRICT", "STABLE STRICT", "tidemark.answer("),
    ("IMMUTABLE STRICT", "IMMUTABLE", "tidemark.answer("),
    ("STRICT PARALLEL SAFE", "STRICT PARALLEL RESTRICTED", "tidemark.answer("),
    ("b integer DEFAULT 1", "b integer DEFAULT 2", "tidemark.answer("),
    ("RETURN a + b", "RETURN a - b", "tidemark.answer("),
    ("ROWS 20 SET search_path = pg_catalog, pg_temp", "ROWS 20", "tidemark.answers("),
    ("'SELECT g FROM", "'SELECT -g FROM", "tidemark.answers("),
    (
        "RETURNS SETOF integer\nLANGUAGE sql STABLE",
        "RETURNS SETOF integer\nLANGUAGE sql SECURITY DEFINER STABLE",
        "tidemark.answers(",
    ),
    ("GRANT EXECUTE ON FUNCTION tidemark.answer(integer, integer) TO pg_monitor;", "", "tidemark.answer("),
    ("REVOKE EXECUTE ON FUNCTION tidemark.answer(integer, integer) FROM PUBLIC;", "", "tidemark.answer("),
    ("INITCOND = '1'", "INITCOND = '0'", "tidemark.product("),
    (", COMBINEFUNC = float8mul", "", "tidemark.product("),
    ("(first integer, second text)", "(first bigint, second text)", "tidemark.pair"),
    ("('small', 'large')", "('large', 'small')", "tidemark.size"),
    (", COMMUTATOR = OPERATOR(tidemark.##)", "", "tidemark.##"),
    (" AS ASSIGNMENT", "", "tidemark.pair AS"),
    ("DEFAULT 'none' CHECK", "DEFAULT 'nothing' CHECK", "tidemark.notes.note"),
    ("CHECK (note <> '')", "CHECK (note <> ' ')", "notes_note_check"),
    ("parent regclass NOT NULL,\n    note", "parent regclass,\n    note", "tidemark.notes.parent"),
    ("written_at DESC", "written_at", "notes_parent_written_at_idx"),
    (
        "SELECT pg_catalog.pg_extension_config_dump('tidemark.notes', '');",
        "",
        "extension tidemark, dumped: tidemark.notes:",
    ),
    ("ALTER TABLE tidemark.notes ENABLE ROW LEVEL SECURITY;", "", "tidemark.notes,"),
    ("WITH CHECK (note <> 'secret')", "WITH CHECK (true)", "writers_write"),
    (
        "GRANT SELECT, INSERT ON tidemark.notes TO PUBLIC;",
        "GRANT SELECT ON tidemark.notes TO PUBLIC;",
        "tidemark.notes,",
    ),
    (
        "CREATE TRIGGER stamp BEFORE INSERT ON",
        "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON",
        "stamp on tidemark.notes",
    ),
    ("count(*) AS notes", "count(n.note) AS notes", "tidemark.noted"),
    ("WITH (security_invoker = true) ", "", "tidemark.noted"),
    (
        "NOT NULL DEFAULT 'none';\nCOMMENT",
        "DEFAULT 'none';\nCOMMENT",
        "tidemark_internal.partition_config.note",
    ),
    (COLUMN_COMMENT, "", "tidemark_internal.partition_config.note"),
    ("repeat('=', ", "repeat('#', ", "tidemark.bar("),
];
