-- What every aggregate has beside its transitions and finals: functions that combine, serialize and deserialize its
-- states, named as the states are in Rust (`aggregate!`). Aggregates with the same states share them.
DO $$
DECLARE
    states name;
    cost integer;
BEGIN
    FOR states, cost IN
        VALUES ('sessions', 10), ('funnel', 10), ('funnel_stats', 100), ('sequence', 10), ('next_node', 10),
               ('retention', 10), ('cohort_member', 10), ('cohort_retention', 10), ('touch', 10), ('attribution', 10),
               ('hll', 10), ('ddsketch', 100)
    LOOP
        EXECUTE pg_catalog.format($sql$
            CREATE FUNCTION tidemark_internal.%1$s_combine(state internal, other internal) RETURNS internal
            LANGUAGE c IMMUTABLE PARALLEL SAFE COST %2$s AS 'MODULE_PATHNAME', 'tidemark_%1$s_combine';
            CREATE FUNCTION tidemark_internal.%1$s_serialize(state internal) RETURNS bytea
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST %2$s AS 'MODULE_PATHNAME', 'tidemark_%1$s_serialize';
            CREATE FUNCTION tidemark_internal.%1$s_deserialize(state bytea, unused internal) RETURNS internal
            LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST %2$s AS 'MODULE_PATHNAME', 'tidemark_%1$s_deserialize';
            $sql$, states, cost);
    END LOOP;
END
$$;
