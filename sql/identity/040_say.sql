-- What people say of ids, and what they ask. What is said waits for the next identity.resolve.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION identity.checked_id(argument text, id text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION '% must not be NULL', argument USING ERRCODE = '22004';
    ELSIF silver.is_nobody(id) THEN
        RAISE EXCEPTION '% must be an id, got %', argument, quote_literal(id)
            USING ERRCODE = '22023', HINT = 'What programs write in place of one is nobody (silver.is_nobody).';
    END IF;
    RETURN silver.bounded_id(id);
END
$$;
COMMENT ON FUNCTION identity.checked_id(text, text) IS
    'An id as silver.events.person would have it; an error that names the argument if it is none.';
REVOKE EXECUTE ON FUNCTION identity.checked_id(text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.link(account_a text, account_b text, event_time timestamptz DEFAULT NULL,
                                         note text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    a CONSTANT text := identity.checked_id('account_a', account_a);
    b CONSTANT text := identity.checked_id('account_b', account_b);
    new_link bigint;
BEGIN
    IF a = b THEN
        RAISE EXCEPTION 'account_a and account_b must be two accounts, both are %', quote_literal(a)
            USING ERRCODE = '22023';
    END IF;
    INSERT INTO identity.links (account_a, account_b, event_time, note)
    VALUES (a, b, COALESCE(event_time, now()), note) RETURNING link_id INTO new_link;
    INSERT INTO identity.waiting VALUES ('account', a), ('account', b);
    RETURN new_link;
END
$$;
COMMENT ON FUNCTION identity.link(text, text, timestamptz, text) IS
    'Says that two accounts (user_id) are one person; all events of either are, too. event_time decides which link '
    'comes first where a person would have more accounts than identity.policy allows, now unless given. Returns the'
    ' link_id for identity.unlink. Takes effect with the next identity.resolve. 22004 and 22023 for what is no id, '
    '22023 for one account twice. For members of tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.unlink(link_id bigint, note text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    link identity.links;
BEGIN
    -- Before the link, as identity.erase_person has it.
    LOCK TABLE identity.waiting IN ROW EXCLUSIVE MODE;
    UPDATE identity.links AS l SET revoked_at = now(), revoked_by = session_user, revoke_note = note
     WHERE l.link_id = unlink.link_id AND l.revoked_at IS NULL RETURNING l.* INTO link;
    IF link IS NULL THEN
        RAISE EXCEPTION 'there is no link % that counts', link_id
            USING ERRCODE = '42704',
                  HINT = 'SELECT * FROM identity.links WHERE revoked_at IS NULL shows those that do.';
    END IF;
    INSERT INTO identity.waiting VALUES ('account', link.account_a), ('account', link.account_b);
END
$$;
COMMENT ON FUNCTION identity.unlink(bigint, text) IS
    'Takes a link back: with the next identity.resolve everything is as if it had never been there. 42704: there is no '
    'such link, or it was taken back already. For members of tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.wait_for_id(kind text, id text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO identity.waiting
    SELECT kind, id
    UNION
    -- Whose device it is may depend on whether the account counts.
    SELECT 'device', d.anonymous_id FROM identity.device_days AS d
     WHERE kind = 'account' AND d.account = id AND d.account <> ''
    UNION
    SELECT 'device', s.anonymous_id FROM identity.said_owners AS s WHERE kind = 'account' AND s.account = id;
$$;
COMMENT ON FUNCTION identity.wait_for_id(text, text) IS
    'Part of identity.block: has the next identity.resolve look at an id, and at the devices of an account.';
REVOKE EXECUTE ON FUNCTION identity.wait_for_id(text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.block(kind text, id text, note text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF kind IS NULL OR kind NOT IN ('account', 'device') THEN
        RAISE EXCEPTION 'kind must be account or device, got %', quote_nullable(kind) USING ERRCODE = '22023';
    END IF;
    INSERT INTO identity.blocked (kind, id, note) VALUES (kind, identity.checked_id('id', id), note)
    ON CONFLICT DO NOTHING;
    PERFORM identity.wait_for_id(kind, silver.bounded_id(id));
END
$$;
COMMENT ON FUNCTION identity.block(text, text, text) IS
    'Says that an id is nobody''s, such as one that a program gives to everybody: events of the account (user_id) are '
    'treated as if they had none, those of the device (anonymous_id) are of no person unless they have an account. For '
    'all events, also those that are there, with the next identity.resolve. kind is account or device (22023). For '
    'members of tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.unblock(kind text, id text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    DELETE FROM identity.blocked AS b WHERE b.kind = unblock.kind AND b.id = silver.bounded_id(unblock.id);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kind % and id % are not blocked', quote_nullable(kind), quote_nullable(id)
            USING ERRCODE = '42704', HINT = 'SELECT * FROM identity.blocked shows what is.';
    END IF;
    PERFORM identity.wait_for_id(kind, silver.bounded_id(id));
END
$$;
COMMENT ON FUNCTION identity.unblock(text, text) IS
    'Takes back what identity.block was told (42704 if it was not). For members of tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.own_device(anonymous_id text, from_time timestamptz, to_time timestamptz,
                                               account text DEFAULT NULL, note text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    device CONSTANT text := identity.checked_id('anonymous_id', anonymous_id);
    owner CONSTANT text := CASE WHEN account IS NOT NULL THEN identity.checked_id('account', account) END;
BEGIN
    IF from_time IS NULL OR to_time IS NULL THEN
        RAISE EXCEPTION '% must not be NULL', CASE WHEN from_time IS NULL THEN 'from_time' ELSE 'to_time' END
            USING ERRCODE = '22004';
    ELSIF from_time >= to_time THEN
        RAISE EXCEPTION 'from_time must be before to_time, got % and %', from_time, to_time USING ERRCODE = '22023';
    END IF;
    -- One after the other: what another session is saying cannot be seen yet.
    LOCK TABLE identity.said_owners IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM identity.said_owners AS s
                   WHERE s.anonymous_id = device AND s.from_time < own_device.to_time
                     AND own_device.from_time < s.to_time) THEN
        RAISE EXCEPTION 'something else was said of device % for a part of this time', quote_literal(device)
            USING ERRCODE = '23P01', HINT = 'identity.forget_owner takes it back.';
    END IF;
    INSERT INTO identity.said_owners (anonymous_id, from_time, to_time, account, note)
    VALUES (device, from_time, to_time, owner, note);
    INSERT INTO identity.waiting VALUES ('device', device);
END
$$;
COMMENT ON FUNCTION identity.own_device(text, timestamptz, timestamptz, text, text) IS
    'Says whose a device was from a time (inclusive) to another (exclusive), whatever its events say; nobody''s '
    'without an account. For example when somebody logged in on the device of a customer. Takes effect with the '
    'next identity.resolve. 22023: times in the wrong order; 23P01: something else was said of a part of that time.'
    ' For members of tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.forget_owner(anonymous_id text, from_time timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    DELETE FROM identity.said_owners AS s
     WHERE s.anonymous_id = silver.bounded_id(forget_owner.anonymous_id) AND s.from_time = forget_owner.from_time;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing was said of device % from %', quote_nullable(anonymous_id), from_time
            USING ERRCODE = '42704', HINT = 'SELECT * FROM identity.said_owners shows what was.';
    END IF;
    INSERT INTO identity.waiting VALUES ('device', silver.bounded_id(anonymous_id));
END
$$;
COMMENT ON FUNCTION identity.forget_owner(text, timestamptz) IS
    'Takes back what identity.own_device was told from this time on (42704 if nothing was). For members of '
    'tidemark_admin.';

CREATE OR REPLACE FUNCTION identity.set_policy(max_accounts_per_device integer DEFAULT 5,
    max_accounts_per_person integer DEFAULT 100, retroactive_window interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    IF (max_accounts_per_device > 0) IS NOT TRUE THEN
        RAISE EXCEPTION 'max_accounts_per_device must be at least 1' USING ERRCODE = '22023';
    ELSIF (max_accounts_per_person BETWEEN 1 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'max_accounts_per_person must be 1 to 1000' USING ERRCODE = '22023';
    ELSIF retroactive_window NOT BETWEEN interval '0' AND interval '36500 days'
          OR extract(month FROM retroactive_window) <> 0 OR extract(year FROM retroactive_window) <> 0 THEN
        RAISE EXCEPTION 'retroactive_window must be 0 to 36500 days, without months' USING ERRCODE = '22023';
    END IF;
    -- A resolve that is under way goes by what was said before, and is seen after it.
    PERFORM FROM identity.resolved FOR UPDATE;
    UPDATE identity.policy AS y
       SET max_accounts_per_device = set_policy.max_accounts_per_device,
           max_accounts_per_person = set_policy.max_accounts_per_person,
           retroactive_window = set_policy.retroactive_window;
    INSERT INTO identity.waiting
    SELECT 'device', o.anonymous_id FROM identity.owners AS o
    UNION
    SELECT 'account', l.account_a FROM identity.links AS l WHERE l.revoked_at IS NULL;
END
$$;
COMMENT ON FUNCTION identity.set_policy(integer, integer, interval) IS
    'Says how far identity goes, and has everything resolved anew: more accounts than max_accounts_per_device make '
    'a device a shared one, a link that would give a person more than max_accounts_per_person is not applied, and '
    'anonymous events longer than retroactive_window before the first login stay the device''s (NULL: none does). '
    '22023 for numbers below 1, more than 1000 accounts a person, months. For members of tidemark_admin.';

-- A role may be a member of tidemark_admin and yet not be meant to say anything: as with resolve, EXECUTE decides.
REVOKE EXECUTE ON FUNCTION identity.link(text, text, timestamptz, text), identity.unlink(bigint, text),
    identity.block(text, text, text), identity.unblock(text, text),
    identity.own_device(text, timestamptz, timestamptz, text, text), identity.forget_owner(text, timestamptz),
    identity.set_policy(integer, integer, interval) FROM PUBLIC;
