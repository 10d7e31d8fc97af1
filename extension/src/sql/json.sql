-- Reading JSON. Implemented in json.rs.

CREATE FUNCTION tidemark_internal.member_text(object jsonb, name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_member_text';
COMMENT ON FUNCTION tidemark_internal.member_text(jsonb, text) IS
'A member of a JSON object as text: a text that is not empty, a number or a
boolean. NULL without it, for anything else, and for what is no object.';

CREATE FUNCTION tidemark_internal.ip_address(address text) RETURNS inet
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'tidemark_ip_address';
COMMENT ON FUNCTION tidemark_internal.ip_address(text) IS
'The address that a text says, with or without a port or a zone, or the
first of several with commas between them; IPv4 in IPv6 is IPv4. NULL for
anything else.';
