-- Bars of text, so that a result in psql is a chart.

-- Eighths are counted with one exact division: a quotient that is rounded first would fall short of whole characters
-- (1 of 3 in 24 characters is 8, not 7.99). U+2588 is the full block, U+2589 to U+258F have 7 eighths to 1. By number,
-- so that the script is ASCII: in a database of another encoding it must come as far as its own refusal.
CREATE FUNCTION tidemark.bar(value numeric, maximum numeric, width integer DEFAULT 30) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5
RETURN CASE
    WHEN value <= 0 OR maximum <= 0 OR width <= 0 OR value = 'NaN' OR maximum = 'NaN' THEN ''
    WHEN value >= maximum THEN repeat(chr(9608), least(width, 1000))
    ELSE repeat(chr(9608), div(div(value * least(width, 1000) * 8, maximum), 8)::integer)
         || CASE mod(div(value * least(width, 1000) * 8, maximum), 8)
                WHEN 0 THEN '' ELSE chr(9616 - mod(div(value * least(width, 1000) * 8, maximum), 8)::integer) END
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
