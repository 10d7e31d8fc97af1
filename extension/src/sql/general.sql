-- What every family uses: the schema and the rights on it.

COMMENT ON SCHEMA tidemark IS
'Functions, types and aggregates of the tidemark extension: sessions, funnels, distinct counts, partitions, models.';

-- USAGE without CREATE: everybody may call the functions, nobody may squat names beside them.
GRANT USAGE ON SCHEMA tidemark TO PUBLIC;
