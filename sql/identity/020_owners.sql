-- Whose devices are: computed from what happened on them and from what was said, for some devices at a time.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION identity.find_owners(devices text[]) RETURNS SETOF identity.owners
LANGUAGE sql STABLE PARALLEL RESTRICTED COST 100000 ROWS 10000
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    WITH device AS (
        SELECT d.id,
               EXISTS (SELECT FROM identity.blocked AS b WHERE b.kind = 'device' AND b.id = d.id) AS blocked,
               EXISTS (SELECT FROM identity.said_owners AS s WHERE s.anonymous_id = d.id) AS said
          FROM unnest(devices) AS d(id)
    ), days AS (
        SELECT d.anonymous_id, d.account, d.logout, d.first_at, d.last_at,
               count(*) OVER (PARTITION BY d.anonymous_id, d.event_date) AS on_the_date
          FROM device AS x
          JOIN identity.device_days AS d ON d.anonymous_id = x.id
         WHERE NOT x.blocked AND (d.account <> '' OR d.logout)
           AND (d.logout OR NOT EXISTS (SELECT FROM identity.blocked AS b
                                         WHERE b.kind = 'account' AND b.id = d.account))
    ), points AS (
        -- What is alone on its date says nothing new after its first event. Where several are, each event counts; where
        -- these are retired, the first and the last.
        SELECT d.anonymous_id, d.first_at AS at, CASE WHEN NOT d.logout THEN d.account END AS account
          FROM days AS d
        UNION ALL
        SELECT d.anonymous_id, d.last_at, CASE WHEN NOT d.logout THEN d.account END
          FROM days AS d WHERE d.on_the_date > 1
        UNION ALL
        SELECT d.anonymous_id, e.event_time, CASE WHEN NOT d.logout THEN d.account END
          FROM days AS d
          JOIN silver.events AS e
            ON e.person = CASE WHEN d.account = '' THEN d.anonymous_id ELSE d.account END
           AND e.event_time > d.first_at AND e.event_time < d.last_at
         WHERE d.on_the_date > 1
           AND silver.person_key(NULL, e.anonymous_id) = d.anonymous_id
           AND COALESCE(silver.person_key(e.user_id, NULL), '') = d.account
           AND silver.is_logout(e.event_type) = d.logout
    ), at_once AS (
        -- At one instant the smallest account, and a logout only where there is none.
        SELECT DISTINCT ON (p.anonymous_id, p.at) p.anonymous_id, p.at, p.account
          FROM points AS p
         ORDER BY p.anonymous_id, p.at, p.account COLLATE "C" NULLS LAST
    ), marked AS (
        SELECT a.anonymous_id, a.at, a.account,
               row_number() OVER one AS n, lag(a.account) OVER one AS account_before
          FROM at_once AS a
        WINDOW one AS (PARTITION BY a.anonymous_id ORDER BY a.at)
    ), shared AS (
        SELECT p.anonymous_id
          FROM points AS p
         GROUP BY p.anonymous_id
        HAVING count(DISTINCT p.account) > (SELECT y.max_accounts_per_device FROM identity.policy AS y)
    ), by_events AS (
        SELECT m.anonymous_id,
               CASE WHEN m.n > 1 THEN m.at
                    ELSE COALESCE(m.at - (SELECT y.retroactive_window FROM identity.policy AS y), '-infinity')
               END AS from_time,
               COALESCE(lead(m.at) OVER (PARTITION BY m.anonymous_id ORDER BY m.at), 'infinity') AS to_time,
               m.account, m.at AS login_at, NULL AS why
          FROM marked AS m
         WHERE (m.n = 1 OR m.account IS DISTINCT FROM m.account_before)
           AND m.anonymous_id NOT IN (SELECT s.anonymous_id FROM shared AS s)
        UNION ALL
        SELECT s.anonymous_id, '-infinity', 'infinity', NULL, NULL, 'shared' FROM shared AS s
        UNION ALL
        SELECT x.id, '-infinity', 'infinity', NULL, NULL, 'blocked' FROM device AS x WHERE x.blocked
    ), bounds AS (
        -- Where something begins: what events say (a row of by_events), and what people do. Rows without either end it.
        SELECT e.anonymous_id, e.from_time AS at, e.account, e.login_at, e.why, true AS of_events, false AS of_people
          FROM by_events AS e JOIN device AS x ON x.id = e.anonymous_id WHERE x.said AND NOT x.blocked
        UNION ALL
        SELECT s.anonymous_id, b.at,
               CASE WHEN b.begins AND NOT EXISTS (SELECT FROM identity.blocked AS k
                                                   WHERE k.kind = 'account' AND k.id = s.account)
                    THEN s.account END, NULL, CASE WHEN b.begins THEN 'said' END, false, true
          FROM device AS x
          JOIN identity.said_owners AS s ON s.anonymous_id = x.id
         CROSS JOIN LATERAL (VALUES (s.from_time, true), (s.to_time, false)) AS b(at, begins)
         WHERE NOT x.blocked AND b.at < 'infinity'
           -- One that begins where another one ends goes on.
           AND (b.begins OR NOT EXISTS (SELECT FROM identity.said_owners AS n
                                         WHERE n.anonymous_id = s.anonymous_id AND n.from_time = s.to_time))
        UNION ALL
        SELECT x.id, '-infinity', NULL, NULL, NULL, false, false FROM device AS x WHERE x.said AND NOT x.blocked
    ), last_of AS (
        SELECT b.*, count(*) FILTER (WHERE b.of_events) OVER one AS events_before,
               count(*) FILTER (WHERE b.of_people) OVER one AS sayings_before
          FROM bounds AS b
        WINDOW one AS (PARTITION BY b.anonymous_id ORDER BY b.at)
    ), pieces AS (
        SELECT DISTINCT ON (l.anonymous_id, l.at) l.anonymous_id, l.at,
               max(l.why) FILTER (WHERE l.of_people) OVER people AS said,
               max(l.account) FILTER (WHERE l.of_people) OVER people AS said_account,
               max(l.account) FILTER (WHERE l.of_events) OVER events AS account,
               max(l.login_at) FILTER (WHERE l.of_events) OVER events AS login_at,
               max(l.why) FILTER (WHERE l.of_events) OVER events AS why
          FROM last_of AS l
        WINDOW people AS (PARTITION BY l.anonymous_id, l.sayings_before),
               events AS (PARTITION BY l.anonymous_id, l.events_before)
         ORDER BY l.anonymous_id, l.at
    )
    SELECT e.anonymous_id, e.from_time, e.to_time, e.account, e.login_at, e.why
      FROM by_events AS e JOIN device AS x ON x.id = e.anonymous_id WHERE NOT x.said OR x.blocked
    UNION ALL
    SELECT p.anonymous_id, p.at, COALESCE(lead(p.at) OVER (PARTITION BY p.anonymous_id ORDER BY p.at), 'infinity'),
           CASE WHEN p.said IS NULL THEN p.account ELSE p.said_account END,
           CASE WHEN p.said IS NULL THEN p.login_at END, COALESCE(p.said, p.why)
      FROM pieces AS p
$$;
COMMENT ON FUNCTION identity.find_owners(text[]) IS
    'Whose these devices are, as rows of identity.owners, computed anew: by their events, the last login or logout at '
    'or before a time, and before the first one that one; over that what identity.own_device was told. A device with '
    'more accounts than identity.policy allows is nobody''s, and so is a blocked one. No rows for devices that nobody '
    'logged in on.';
REVOKE EXECUTE ON FUNCTION identity.find_owners(text[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.resolve_devices(devices text[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
SET role = tidemark_admin
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found CONSTANT identity.owners[] := ARRAY(SELECT n FROM identity.find_owners(devices) AS n);
    changed CONSTANT text[] := ARRAY(
        SELECT DISTINCT anonymous_id
          FROM (SELECT o.* FROM identity.owners AS o WHERE o.anonymous_id = ANY (devices)) AS o
          FULL JOIN unnest(found) AS n USING (anonymous_id, from_time)
         WHERE (o.to_time, o.account, o.login_at, o.why) IS DISTINCT FROM (n.to_time, n.account, n.login_at, n.why));
    before CONSTANT identity.owners[] := ARRAY(
        SELECT o FROM identity.owners AS o WHERE o.anonymous_id = ANY (changed));
BEGIN
    DELETE FROM identity.owners AS o WHERE o.anonymous_id = ANY (changed);
    INSERT INTO identity.owners
    SELECT n.* FROM unnest(found) AS n JOIN unnest(changed) AS c ON c = n.anonymous_id;
    -- Piece by piece of what was and what is: each goes on to where the next of its kind begins.
    INSERT INTO identity.changes (kind, id, from_time, to_time, was, is_now)
    SELECT 'device', p.anonymous_id, p.at, p.to_time, p.was, p.is_now
      FROM (SELECT l.anonymous_id, l.at, l.to_time,
                   max(l.account) FILTER (WHERE l.old) OVER (PARTITION BY l.anonymous_id, l.n_old) AS was,
                   max(l.account) FILTER (WHERE NOT l.old) OVER (PARTITION BY l.anonymous_id, l.n_new) AS is_now,
                   row_number() OVER (PARTITION BY l.anonymous_id, l.at) AS n
              FROM (SELECT u.*, count(*) FILTER (WHERE u.old) OVER one AS n_old,
                           count(*) FILTER (WHERE NOT u.old) OVER one AS n_new,
                           COALESCE(min(u.at) OVER (PARTITION BY u.anonymous_id ORDER BY u.at
                                                    GROUPS BETWEEN 1 FOLLOWING AND 1 FOLLOWING), 'infinity') AS to_time
                      FROM (SELECT w.anonymous_id, w.from_time AS at, w.account, true AS old FROM unnest(before) AS w
                            UNION ALL
                            SELECT n.anonymous_id, n.from_time, n.account, false
                              FROM unnest(found) AS n JOIN unnest(changed) AS c ON c = n.anonymous_id) AS u
                    WINDOW one AS (PARTITION BY u.anonymous_id ORDER BY u.at)) AS l) AS p
     WHERE p.n = 1 AND p.was IS DISTINCT FROM p.is_now;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION identity.resolve_devices(text[]) IS
    'Part of identity.resolve: writes down whose these devices are. Returns those of which that is something new.';
REVOKE EXECUTE ON FUNCTION identity.resolve_devices(text[]) FROM PUBLIC;
