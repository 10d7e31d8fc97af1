-- What every family uses: rights on the schema, and the bar that psql reports are drawn with.

COMMENT ON SCHEMA tidemark IS
'Functions, types and aggregates of the tidemark extension: sessions, funnels, distinct counts, partitions, models.';

-- USAGE without CREATE: everybody may call the functions, nobody may squat names beside them.
GRANT USAGE ON SCHEMA tidemark TO PUBLIC;

CREATE FUNCTION tidemark.bar(value numeric, maximum numeric, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 5
SET search_path = pg_catalog, pg_temp
RETURN CASE
    WHEN value IS NULL OR maximum IS NULL OR width IS NULL THEN NULL
    WHEN maximum <= 0 OR value <= 0 OR width <= 0 THEN ''
    ELSE repeat('█', floor(least(value / maximum, 1) * width)::integer)
         || (ARRAY['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'])[1
            + (floor(least(value / maximum, 1) * width * 8)::integer
               - 8 * floor(least(value / maximum, 1) * width)::integer)]
END;
COMMENT ON FUNCTION tidemark.bar(numeric, numeric, integer) IS
'A horizontal bar for psql: value / maximum of width characters (default 30), in steps of an eighth of a character. A value above the maximum fills the bar; zero, negative values and a maximum of zero give an empty one; NULL gives NULL.';
