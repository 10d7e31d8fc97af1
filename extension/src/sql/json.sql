-- Reading JSON. Implemented in json.rs.

CREATE FUNCTION tidemark_internal.member_text(object jsonb, name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_member_text';
COMMENT ON FUNCTION tidemark_internal.member_text(jsonb, text) IS
'A member of a JSON object as text: a text that is not empty, a number or a
boolean. NULL without it, for anything else, and for what is no object.';
