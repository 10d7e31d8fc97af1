-- identity.resolve: brings owners, members and known_person, in silver.events and the typed tables, up to what events
-- and people say. Refreshes of these, and of what reads them, wait meanwhile: what is read here is all that any has
-- read.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION identity.first_event(account text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp
RETURN LEAST((SELECT e.event_time FROM silver.events AS e
               WHERE e.person = first_event.account AND silver.person_key(e.user_id, NULL) = first_event.account
               ORDER BY e.event_time LIMIT 1),
             -- Its events may be retired.
             (SELECT min(d.first_at) FROM identity.device_days AS d
               WHERE d.account = first_event.account AND d.account <> ''));
COMMENT ON FUNCTION identity.first_event(text) IS
    'When the first event of an account was; NULL without any.';
REVOKE EXECUTE ON FUNCTION identity.first_event(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.resolve_accounts(accounts text[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT integer := (SELECT y.max_accounts_per_person FROM identity.policy AS y);
    -- All that any link leads to from there.
    near CONSTANT text[] := ARRAY(
        WITH RECURSIVE linked(account) AS (
            SELECT a.account FROM unnest(accounts) AS a(account)
            UNION
            SELECT m.account FROM identity.members AS m
             WHERE m.component IN (SELECT x.component FROM identity.members AS x WHERE x.account = ANY (accounts))
            UNION
            SELECT CASE WHEN l.account_a = x.account THEN l.account_b ELSE l.account_a END
              FROM linked AS x
              JOIN identity.links AS l ON x.account IN (l.account_a, l.account_b) AND l.revoked_at IS NULL)
        SELECT x.account FROM linked AS x);
    before CONSTANT identity.members[] := ARRAY(
        SELECT m FROM identity.members AS m WHERE m.account = ANY (near));
    link identity.links;
    a text;
    b text;
    accounts_a bigint;
    accounts_b bigint;
    changed text[];
BEGIN
    DELETE FROM identity.members AS m WHERE m.account = ANY (near);
    DELETE FROM identity.refused_links AS r USING identity.links AS l
     WHERE l.link_id = r.link_id AND (l.account_a = ANY (near) OR l.account_b = ANY (near));
    INSERT INTO identity.members (account, component, first_at)
    SELECT n.account, n.account, identity.first_event(n.account)
      FROM unnest(near) AS n(account)
     WHERE NOT EXISTS (SELECT FROM identity.blocked AS x WHERE x.kind = 'account' AND x.id = n.account);
    -- In an order that is of the links, not of their arrival: what is too much is then the same whoever came first.
    FOR link IN SELECT l.* FROM identity.links AS l
                 WHERE l.revoked_at IS NULL AND l.account_a = ANY (near)
                 ORDER BY l.event_time, l.account_a COLLATE "C", l.account_b COLLATE "C", l.link_id LOOP
        a := (SELECT m.component FROM identity.members AS m WHERE m.account = link.account_a);
        b := (SELECT m.component FROM identity.members AS m WHERE m.account = link.account_b);
        IF a IS NULL OR b IS NULL THEN
            INSERT INTO identity.refused_links VALUES (link.link_id, 'an account is blocked');
        ELSIF a <> b THEN
            accounts_a := (SELECT count(*) FROM identity.members AS m WHERE m.component = a);
            accounts_b := (SELECT count(*) FROM identity.members AS m WHERE m.component = b);
            IF accounts_a + accounts_b > most THEN
                INSERT INTO identity.refused_links VALUES (link.link_id, format(
                    'the person would have more than %s accounts', most));
            ELSE
                -- Fewer rows are written when the smaller one goes over to the larger.
                UPDATE identity.members AS m SET component = CASE WHEN accounts_a < accounts_b THEN b ELSE a END
                 WHERE m.component = CASE WHEN accounts_a < accounts_b THEN a ELSE b END;
            END IF;
        END IF;
    END LOOP;
    -- Whoever is alone needs no row.
    DELETE FROM identity.members AS m
     WHERE m.account = ANY (near) AND (SELECT count(*) FROM identity.members AS x WHERE x.component = m.component) = 1;
    UPDATE identity.members AS m SET person = p.person, component = p.person
      FROM (SELECT DISTINCT ON (x.component) x.component, x.account AS person
              FROM identity.members AS x WHERE x.account = ANY (near)
             ORDER BY x.component, x.first_at NULLS LAST, x.account COLLATE "C") AS p
     WHERE m.component = p.component AND m.account = ANY (near);
    INSERT INTO identity.members (account)
    SELECT x.id FROM identity.blocked AS x WHERE x.kind = 'account' AND x.id = ANY (near);

    WITH logged AS (
        INSERT INTO identity.changes (kind, id, from_time, to_time, was, is_now)
        SELECT 'account', x.account, '-infinity', 'infinity', x.was, x.is_now
          FROM (SELECT n.account,
                       CASE WHEN w.account IS NULL THEN n.account ELSE w.person END AS was,
                       CASE WHEN m.account IS NULL THEN n.account ELSE m.person END AS is_now
                  FROM unnest(near) AS n(account)
                  LEFT JOIN unnest(before) AS w ON w.account = n.account
                  LEFT JOIN identity.members AS m ON m.account = n.account) AS x
         WHERE x.was IS DISTINCT FROM x.is_now
        RETURNING id)
    SELECT array_agg(l.id) INTO changed FROM logged AS l;
    RETURN COALESCE(changed, '{}');
END
$$;
COMMENT ON FUNCTION identity.resolve_accounts(text[]) IS
    'Part of identity.resolve: writes down whose these accounts are, and all that links lead to from them. Returns '
    'those of which that is something new.';
REVOKE EXECUTE ON FUNCTION identity.resolve_accounts(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.places() RETURNS SETOF regclass
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 10000 ROWS 5
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.target
      FROM tidemark.model_status AS m
     WHERE m.model = 'silver.events' OR m.query LIKE '%/* silver.create_event_table */%'
     ORDER BY m.model = 'silver.events'
$$;
COMMENT ON FUNCTION identity.places() IS
    'Part of identity.resolve: the tables that hold events with the person known now: those of '
    'silver.create_event_table, and silver.events.';
REVOKE EXECUTE ON FUNCTION identity.places() FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.know(accounts text[], devices text[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place regclass;
    changes record;
    events bigint;
    -- Events of blocked accounts are treated as if they had none, and belong to whom the device does.
    by_account CONSTANT text[] := accounts || ARRAY(
        SELECT DISTINCT b.id FROM identity.blocked AS b
          JOIN identity.device_days AS d ON d.account = b.id AND d.anonymous_id = ANY (devices)
         WHERE b.kind = 'account');
BEGIN
    FOR place IN SELECT identity.places() LOOP
        -- What silver.known_person says, for all anonymous events of an interval at once.
        EXECUTE format($sql$
            WITH known AS MATERIALIZED (
                SELECT o.anonymous_id, o.from_time, o.to_time,
                       CASE WHEN o.why IS DISTINCT FROM 'blocked'
                            THEN COALESCE(m.person, o.account, o.anonymous_id) END AS person
                  FROM unnest($2) AS d(id)
                  JOIN identity.owners AS o ON o.anonymous_id = d.id
                  LEFT JOIN identity.members AS m ON m.account = o.account
                UNION ALL
                -- What no owner has is the device's own.
                SELECT d.id, '-infinity', COALESCE(min(o.from_time), 'infinity'), d.id
                  FROM unnest($2) AS d(id)
                  LEFT JOIN identity.owners AS o ON o.anonymous_id = d.id
                 GROUP BY d.id
                HAVING COALESCE(min(o.from_time), 'infinity') > '-infinity'
            ), wrong AS MATERIALIZED (
                SELECT e.event_date, e.event_time, e.event_id, e.person AS id, e.known_person AS was, k.person AS is_now
                  FROM known AS k
                  JOIN %1$s AS e
                    ON e.person = k.anonymous_id AND e.event_time >= k.from_time AND e.event_time < k.to_time
                 WHERE e.known_person IS DISTINCT FROM k.person
                   AND (e.user_id IS NULL OR silver.is_nobody(e.user_id))
                UNION
                SELECT e.event_date, e.event_time, e.event_id, e.person, e.known_person, k.person
                  FROM unnest($1) AS x(id)
                  JOIN %1$s AS e ON e.person = x.id
                 CROSS JOIN LATERAL (SELECT silver.known_person(e.person, e.user_id, e.anonymous_id, e.event_time)
                                     OFFSET 0) AS k(person)
                 WHERE e.known_person IS DISTINCT FROM k.person
            ), changed AS (
                UPDATE %1$s AS e SET known_person = w.is_now
                  FROM wrong AS w
                 WHERE e.person = w.id AND e.event_time = w.event_time AND e.event_id = w.event_id
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM changed) AS events, array_agg(DISTINCT w.event_date) AS dates,
                   array_agg(DISTINCT p.id) FILTER (WHERE p.id IS NOT NULL) AS persons
              FROM wrong AS w CROSS JOIN LATERAL (VALUES (w.was), (w.is_now)) AS p(id)
            $sql$, place) INTO changes USING by_account, devices;
        -- Of so many persons models are quicker computed with everybody.
        PERFORM tidemark.mark_persons(place,
                    CASE WHEN cardinality(changes.persons) <= 10000 THEN changes.persons END, 'identity',
                    changes.dates, 'known_person')
          WHERE changes.events > 0;
        events := changes.events;
    END LOOP;
    RETURN events;
END
$$;
COMMENT ON FUNCTION identity.know(text[], text[]) IS
    'Part of identity.resolve: brings known_person in silver.events and in the typed tables up to date for events of '
    'these accounts, and for anonymous events of these devices. Returns how many of silver.events it changed.';
REVOKE EXECUTE ON FUNCTION identity.know(text[], text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.hold_sayings() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
BEGIN
    -- Who says something adds a row here.
    LOCK TABLE identity.waiting IN SHARE ROW EXCLUSIVE MODE;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'somebody is saying something of identity and does not come to an end'
        USING ERRCODE = '55P03', HINT = 'A transaction that called identity.link or another function of this kind is '
            'open: SELECT * FROM pg_locks WHERE relation = ''identity.waiting''::regclass.';
END
$$;
COMMENT ON FUNCTION identity.hold_sayings() IS
    'Part of identity.resolve: what people say waits until the end of the transaction, so that all of it sees the same.'
    ' 55P03 when somebody who said something has not committed within 10 seconds.';
REVOKE EXECUTE ON FUNCTION identity.hold_sayings() FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.resolve_now(OUT devices bigint, OUT accounts bigint, OUT events bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- So many devices at a time keep the memory small, and large tables from being read more often than needed.
    chunk CONSTANT integer := 200000;
    windowed CONSTANT boolean := (SELECT y.retroactive_window IS NOT NULL FROM identity.policy AS y);
    seen bigint;
    latest bigint;
    everything boolean;
    added date[];
    anew date[];
    changed_dates date[];
    candidates text[];
    ids text[];
    new_accounts text[] := '{}';
BEGIN
    devices := 0;
    accounts := 0;
    events := 0;
    IF NOT EXISTS (SELECT FROM identity.waiting)
       AND NOT EXISTS (SELECT FROM tidemark.refresh_log AS l
                        WHERE l.id > (SELECT COALESCE(r.log_id, 0) FROM identity.resolved AS r)) THEN
        RETURN;
    END IF;
    PERFORM identity.hold_sayings();
    PERFORM tidemark.change_dimension(VARIADIC ARRAY(SELECT identity.places()));
    SELECT r.log_id INTO seen FROM identity.resolved AS r FOR UPDATE;
    latest := (SELECT max(l.id) FROM tidemark.refresh_log AS l);
    -- The first time, or so long ago that nobody knows what happened since.
    everything := NOT EXISTS (SELECT FROM tidemark.refresh_log AS l WHERE l.id = seen);
    IF NOT everything THEN
        SELECT array_agg(l.event_date) FILTER (WHERE l.merged), array_agg(l.event_date) FILTER (WHERE NOT l.merged)
          INTO added, anew
          FROM (SELECT l.event_date, bool_and(l.way = 'merge') AS merged
                  FROM tidemark.refresh_log AS l
                 WHERE l.id > seen AND l.model = 'identity.device_days' GROUP BY l.event_date) AS l;
        changed_dates := ARRAY(SELECT DISTINCT l.event_date FROM tidemark.refresh_log AS l
                                WHERE l.id > seen AND l.model = 'silver.events');
    END IF;

    -- Accounts of which something was said, or whose first event may be an earlier one.
    WITH gone AS (DELETE FROM identity.waiting AS w WHERE w.kind = 'account' RETURNING w.id)
    SELECT array_agg(x.id) INTO ids
      FROM (SELECT g.id FROM gone AS g
            UNION
            SELECT m.account FROM identity.members AS m
             WHERE m.person IS NOT NULL
               AND (everything OR EXISTS (
                   SELECT FROM unnest(changed_dates) AS c(day)
                    WHERE (m.first_at >= c.day::timestamp AT TIME ZONE 'UTC') IS NOT FALSE
                      AND identity.first_event(m.account) IS DISTINCT FROM m.first_at))) AS x;
    IF ids IS NOT NULL THEN
        new_accounts := identity.resolve_accounts(ids);
        accounts := cardinality(new_accounts);
    END IF;

    -- Devices with a login that says something new; on dates that were not only added to, all that logged in.
    WITH gone AS (DELETE FROM identity.waiting AS w WHERE w.kind = 'device' RETURNING w.id)
    SELECT array_agg(x.id) INTO candidates
      FROM (SELECT g.id FROM gone AS g
            UNION
            SELECT d.anonymous_id FROM identity.device_days AS d
             WHERE (everything OR d.event_date = ANY (anew)) AND (d.account <> '' OR d.logout)
            UNION
            SELECT o.anonymous_id FROM identity.owners AS o
             WHERE everything OR (o.login_at AT TIME ZONE 'UTC')::date = ANY (anew)
                OR o.why IS NOT NULL AND anew <> '{}'
            UNION
            SELECT d.anonymous_id FROM identity.device_days AS d
             WHERE d.event_date = ANY (added) AND (d.account <> '' OR d.logout)
               AND NOT EXISTS (
                   SELECT FROM identity.owners AS o
                    WHERE o.anonymous_id = d.anonymous_id AND o.from_time <= d.first_at AND d.last_at < o.to_time
                      AND (o.why IN ('shared', 'blocked')
                           OR o.why IS NULL
                              AND o.account IS NOT DISTINCT FROM CASE WHEN NOT d.logout THEN d.account END)
                      AND (NOT windowed OR o.login_at <= d.first_at))) AS x;
    FOR n IN 0 .. (COALESCE(cardinality(candidates), 0) - 1) / chunk LOOP
        ids := identity.resolve_devices(candidates[n * chunk + 1 : (n + 1) * chunk]);
        devices := devices + cardinality(ids);
        events := events + identity.know('{}', ids);
    END LOOP;
    IF new_accounts <> '{}' THEN
        events := events + identity.know(new_accounts, ARRAY(
            SELECT DISTINCT o.anonymous_id FROM identity.owners AS o WHERE o.account = ANY (new_accounts)));
    END IF;
    UPDATE identity.resolved SET resolved_at = clock_timestamp(), log_id = COALESCE(latest, seen);
END
$$;
COMMENT ON FUNCTION identity.resolve_now() IS
    'The work behind identity.resolve: returns of how many devices and accounts it is something new whose they are,'
    ' and of how many events the person known changed.';
REVOKE EXECUTE ON FUNCTION identity.resolve_now() FROM PUBLIC;

CREATE OR REPLACE PROCEDURE identity.resolve()
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM identity.resolve_now();
END
$$;
COMMENT ON PROCEDURE identity.resolve() IS
    'Brings up to date whose devices and accounts are, and known_person in silver.events, by what was refreshed '
    'since the last time and what was said. tidemark run and maintain do it after each refresh. For members of '
    'tidemark_admin; needs the isolation level READ COMMITTED (25001). Waits for refreshes of silver.events that '
    'are under way.';
REVOKE EXECUTE ON PROCEDURE identity.resolve() FROM PUBLIC;
