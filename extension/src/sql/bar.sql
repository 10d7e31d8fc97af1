-- Bars of text, so that a result in psql is a chart.

-- Eighths are counted with one exact division: a quotient that is rounded first would fall short of whole characters
-- (1 of 3 in 24 characters is 8, not 7.99).
CREATE FUNCTION tidemark.bar(value numeric, maximum numeric, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5
RETURN CASE
    WHEN value <= 0 OR maximum <= 0 OR width <= 0 OR value = 'NaN' OR maximum = 'NaN' THEN ''
    WHEN value >= maximum THEN repeat('█', least(width, 1000))
    ELSE repeat('█', div(div(value * least(width, 1000) * 8, maximum), 8)::integer)
         || (ARRAY['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'])[1 + mod(div(value * least(width, 1000) * 8, maximum), 8)::integer]
END;
COMMENT ON FUNCTION tidemark.bar(numeric, numeric, integer) IS
'A horizontal bar for psql: value / maximum of width characters (default 30,
at most 1000), in steps of an eighth of a character. The maximum and more
fill it; 0 and less, NaN, and a maximum or width of 0 or less give an empty
text. NULL gives NULL.';

CREATE FUNCTION tidemark.bar(value double precision, maximum double precision, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10
RETURN tidemark.bar(value::numeric, maximum::numeric, width);
COMMENT ON FUNCTION tidemark.bar(double precision, double precision, integer) IS
'A horizontal bar for psql, of numbers in double precision; see
tidemark.bar(numeric, numeric, integer).';
