-- The person known now of an event: read by silver.events for every event that comes, and by identity.resolve for those
-- that are there. Both see the same tables, since identity.resolve holds refreshes off.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION silver.is_logout(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('logged_out', 'logout', 'log_out', 'signed_out', 'sign_out', 'user_logged_out',
                      'user_signed_out');
COMMENT ON FUNCTION silver.is_logout(text) IS
    'Whether events of this name, spelled as in silver.events, end a login: logged_out, logout, log_out, signed_out, '
    'sign_out, user_logged_out, user_signed_out.';

CREATE OR REPLACE FUNCTION silver.known_person(person text, user_id text, anonymous_id text, event_time timestamptz)
RETURNS text
-- It reads tables, and yet is declared to depend on its arguments alone: whoever changes these tables changes the rows
-- that came of them, too. So silver.events can be appended to.
-- Who reads a live view may know persons, and nothing else of identity.
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER COST 100
AS $$
#variable_conflict use_variable
DECLARE
    device text := person;
    member identity.members;
    found_owner identity.owners;
BEGIN
    IF person IS NULL THEN
        RETURN NULL;
    ELSIF person OPERATOR(pg_catalog.=) user_id
          OR pg_catalog.length(user_id) OPERATOR(pg_catalog.>) 256
             AND person OPERATOR(pg_catalog.=) silver.bounded_id(user_id) THEN
        SELECT m.* INTO member FROM identity.members AS m WHERE m.account OPERATOR(pg_catalog.=) person;
        IF NOT FOUND THEN
            RETURN person;
        ELSIF member.person IS NOT NULL THEN
            RETURN member.person;
        END IF;
        -- Blocked: as if the event had no account.
        device := silver.person_key(NULL, anonymous_id);
    END IF;
    SELECT o.* INTO found_owner FROM identity.owners AS o
     WHERE o.anonymous_id OPERATOR(pg_catalog.=) device
       AND o.from_time OPERATOR(pg_catalog.<=) known_person.event_time
     ORDER BY o.from_time DESC LIMIT 1;
    IF found_owner.why OPERATOR(pg_catalog.=) 'blocked' THEN
        RETURN NULL;
    ELSIF found_owner.account IS NULL THEN
        RETURN device;
    END IF;
    SELECT m.* INTO member FROM identity.members AS m WHERE m.account OPERATOR(pg_catalog.=) found_owner.account;
    RETURN COALESCE(member.person, found_owner.account);
END
$$;
COMMENT ON FUNCTION silver.known_person(text, text, text, timestamptz) IS
    'Who an event is known to be of now, given its person as sent, its ids and its time: the person of its account, '
    'else of the account whose the device was at that time, else the device. NULL: nobody. '
    'As of the last identity.resolve.';
REVOKE EXECUTE ON FUNCTION silver.known_person(text, text, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION silver.known_person(text, text, text, timestamptz) TO tidemark_reader;
