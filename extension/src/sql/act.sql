-- Who may act for whom: the one question that every function asks before it writes a catalog for somebody.
--
-- A catalog is written by the extension's owner only. A function that anybody may call and that writes one is a door:
-- LANGUAGE c, 'tidemark_act' (act.rs), which calls the function of its name in tidemark_internal with the caller's oid
-- before the other arguments. That one is not for others to call: EXECUTE is revoked at the end of the script.

CREATE FUNCTION tidemark_internal.may_act_as(caller oid, owner oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE COST 10
SET search_path = pg_catalog, pg_temp
-- From 16 on, a membership may give the rights (INHERIT), SET ROLE, both or neither of them.
RETURN coalesce(pg_has_role(caller, owner, CASE WHEN current_setting('server_version_num')::integer < 160000
                                                THEN 'USAGE' ELSE 'USAGE, SET' END), false);
COMMENT ON FUNCTION tidemark_internal.may_act_as(oid, oid) IS
'Whether a role has the rights of another one, by being it, by inheritance
or (from PostgreSQL 16 on) by SET ROLE; superusers always have. false for
NULL.';

CREATE FUNCTION tidemark_internal.check_may_act_as(caller oid, relation regclass) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class c WHERE c.oid = relation);
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'relation must not be NULL' USING ERRCODE = '22004';
    ELSIF owner IS NULL THEN
        RAISE EXCEPTION 'relation % does not exist', relation::oid USING ERRCODE = '42P01';
    ELSIF NOT tidemark_internal.may_act_as(caller, owner) THEN
        RAISE EXCEPTION 'must be owner of table %', relation
            USING ERRCODE = '42501', HINT = 'The caller must have the rights of the role that owns it.';
    END IF;
END
$$;
COMMENT ON FUNCTION tidemark_internal.check_may_act_as(oid, regclass) IS
'Raises 42501 unless a role may act for the owner of a relation, 42P01 when
there is no such relation, 22004 for NULL.';
