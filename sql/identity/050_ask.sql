-- What people ask: who somebody is, why, and how identity is doing.
SET LOCAL ROLE tidemark_admin;

CREATE OR REPLACE FUNCTION identity.person(id text, at timestamptz DEFAULT now()) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN NOT EXISTS (SELECT FROM identity.device_days AS d WHERE d.anonymous_id = silver.bounded_id(person.id))
             AND NOT EXISTS (SELECT FROM identity.owners AS o WHERE o.anonymous_id = silver.bounded_id(person.id))
            THEN silver.known_person(silver.person_key(person.id, NULL), person.id, NULL, person.at)
            ELSE silver.known_person(silver.person_key(NULL, person.id), NULL, person.id, person.at) END;
COMMENT ON FUNCTION identity.person(text, timestamptz) IS
    'The person known now of an id: of an account (user_id) whose it is, of a device (anonymous_id) whose it was at'
    ' that time, now unless given. NULL for what is blocked or no id. As of the last identity.resolve. Not for '
    'everybody: grant it to who may ask.';
REVOKE EXECUTE ON FUNCTION identity.person(text, timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.ids(person text)
RETURNS TABLE (kind text, id text, from_time timestamptz, to_time timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    WITH account AS (
        SELECT m.account FROM identity.members AS m WHERE m.person = ids.person
        UNION
        SELECT ids.person WHERE NOT EXISTS (SELECT FROM identity.members AS m WHERE m.account = ids.person)
    )
    SELECT 'account', a.account, timestamptz '-infinity', timestamptz 'infinity'
      FROM account AS a
     WHERE EXISTS (SELECT FROM identity.members AS m WHERE m.account = a.account)
        OR EXISTS (SELECT FROM silver.events AS e WHERE e.person = a.account AND e.user_id IS NOT NULL)
    UNION ALL
    SELECT 'device', o.anonymous_id, o.from_time, o.to_time
      FROM account AS a JOIN identity.owners AS o ON o.account = a.account
    UNION ALL
    SELECT 'device', ids.person, timestamptz '-infinity', timestamptz 'infinity'
     WHERE EXISTS (SELECT FROM identity.device_days AS d WHERE d.anonymous_id = ids.person AND d.account = '')
     ORDER BY 1, 3, 2
$$;
COMMENT ON FUNCTION identity.ids(text) IS
    'Every id of a person known now: its accounts, and its devices with the times (from inclusive, to exclusive) at'
    ' which their anonymous events are the person''s. No rows for an id that is nobody''s own. As of the last '
    'identity.resolve. Not for everybody: grant it to who may ask.';
REVOKE EXECUTE ON FUNCTION identity.ids(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.explain(id text)
RETURNS TABLE (from_time timestamptz, to_time timestamptz, account text, person text, because text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.from_time, o.to_time, o.account, COALESCE(m.person, o.account, CASE WHEN o.why IS DISTINCT FROM 'blocked'
                                                                                 THEN o.anonymous_id END),
           CASE o.why WHEN 'shared' THEN 'the device has more accounts than identity.policy allows'
                      WHEN 'blocked' THEN 'the device is blocked: identity.blocked'
                      WHEN 'said' THEN 'identity.own_device was told: ' || COALESCE(
                          (SELECT s.said_by || COALESCE(', ' || s.note, '') FROM identity.said_owners AS s
                            WHERE s.anonymous_id = o.anonymous_id AND s.from_time <= o.from_time
                              AND o.from_time < s.to_time), '')
                      ELSE CASE WHEN o.login_at IS NULL THEN 'nobody has logged in'
                                WHEN o.account IS NULL THEN 'logout at ' ELSE 'login at ' END
                           || COALESCE(to_char(o.login_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US"Z"'), '') END
      FROM identity.owners AS o LEFT JOIN identity.members AS m ON m.account = o.account
     WHERE o.anonymous_id = silver.bounded_id(explain.id)
    UNION ALL
    SELECT '-infinity', 'infinity', m.account, m.person, 'the account is blocked: identity.blocked'
      FROM identity.members AS m WHERE m.account = silver.bounded_id(explain.id) AND m.person IS NULL
    UNION ALL
    SELECT '-infinity', 'infinity', m.account, m.person, 'link ' || l.link_id || ' of ' || l.account_a || ' and '
           || l.account_b || ': ' || l.said_by || COALESCE(', ' || l.note, '')
           || COALESCE('; not applied: ' || r.reason, '')
      FROM identity.members AS m
      JOIN identity.members AS other ON other.component = m.component
      JOIN identity.links AS l ON l.account_a = other.account AND l.revoked_at IS NULL
      LEFT JOIN identity.refused_links AS r ON r.link_id = l.link_id
     WHERE m.account = silver.bounded_id(explain.id)
     ORDER BY 1, 5
$$;
COMMENT ON FUNCTION identity.explain(text) IS
    'Why an id is whose it is: for a device a row for each interval (from inclusive, to exclusive) with the login '
    'or logout that decided it, for an account a row for each link of its person. No rows for what is simply '
    'itself. As of the last identity.resolve.';
REVOKE EXECUTE ON FUNCTION identity.explain(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION identity.preview_link(account_a text, account_b text)
RETURNS TABLE (account text, person text, events bigint, first_event_at timestamptz, last_event_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT x.id, identity.person(x.id), count(e.event_id), min(e.event_time), max(e.event_time)
      FROM (SELECT DISTINCT i.id
              FROM (VALUES (silver.bounded_id(preview_link.account_a)),
                           (silver.bounded_id(preview_link.account_b))) AS a(id)
             CROSS JOIN LATERAL (SELECT a.id UNION
                                 SELECT y.account FROM identity.members AS z
                                   JOIN identity.members AS y ON y.component = z.component
                                  WHERE z.account = a.id) AS i) AS x
      LEFT JOIN silver.events AS e ON e.person = x.id AND silver.person_key(e.user_id, NULL) = x.id
     GROUP BY x.id
     ORDER BY 4 NULLS LAST, 1
$$;
COMMENT ON FUNCTION identity.preview_link(text, text) IS
    'What identity.link of these accounts would put together: a row for each account, with whose it is now and its '
    'events. The first row would be the person.';
REVOKE EXECUTE ON FUNCTION identity.preview_link(text, text) FROM PUBLIC;

CREATE OR REPLACE VIEW identity.status AS
SELECT r.resolved_at,
       (SELECT count(DISTINCT (w.kind, w.id)) FROM identity.waiting AS w) AS waiting_ids,
       (SELECT min(w.since) FROM identity.waiting AS w) AS waiting_since,
       (SELECT count(DISTINCT l.event_date) FROM tidemark.refresh_log AS l
         WHERE l.model = 'identity.device_days' AND l.id > COALESCE(r.log_id, 0)) AS waiting_dates,
       (SELECT count(DISTINCT o.anonymous_id) FROM identity.owners AS o) AS devices,
       (SELECT count(*) FROM identity.owners AS o WHERE o.why = 'shared') AS shared_devices,
       (SELECT count(*) FROM identity.links AS l WHERE l.revoked_at IS NULL) AS links,
       (SELECT count(*) FROM identity.refused_links AS l) AS refused_links,
       (SELECT count(*) FROM identity.blocked AS b) AS blocked_ids,
       (SELECT max(c.changed_at) FROM identity.changes AS c) AS last_change_at
  FROM identity.resolved AS r;
COMMENT ON VIEW identity.status IS 'How identity is doing: one row.';
COMMENT ON COLUMN identity.status.resolved_at IS 'The last identity.resolve; NULL: there was none.';
COMMENT ON COLUMN identity.status.waiting_ids IS 'Ids of which something was said that it has not seen.';
COMMENT ON COLUMN identity.status.waiting_since IS 'Since when the first of them waits; NULL if none does.';
COMMENT ON COLUMN identity.status.waiting_dates IS 'Dates with events that it has not seen.';
COMMENT ON COLUMN identity.status.devices IS 'Devices on which somebody logged in.';
COMMENT ON COLUMN identity.status.shared_devices IS 'Those with more accounts than identity.policy allows.';
COMMENT ON COLUMN identity.status.links IS 'Links that count.';
COMMENT ON COLUMN identity.status.refused_links IS 'Those of them that are not applied: identity.refused_links.';
COMMENT ON COLUMN identity.status.blocked_ids IS 'Ids that are blocked.';
COMMENT ON COLUMN identity.status.last_change_at IS 'When an id went to another person last; NULL: never.';

CREATE OR REPLACE VIEW identity.suspects AS
SELECT 'device' AS kind, d.anonymous_id AS id, count(DISTINCT d.account) AS others,
       format('SELECT identity.block(%L, %L)', 'device', d.anonymous_id) AS statement
  FROM identity.owners AS o JOIN identity.device_days AS d USING (anonymous_id)
 WHERE o.why = 'shared' AND d.account <> ''
 GROUP BY d.anonymous_id
UNION ALL
SELECT 'account', d.account, count(DISTINCT d.anonymous_id),
       format('SELECT identity.block(%L, %L)', 'account', d.account)
  FROM identity.device_days AS d
 WHERE d.account <> '' AND NOT EXISTS (SELECT FROM identity.blocked AS b WHERE b.kind = 'account' AND b.id = d.account)
 GROUP BY d.account
HAVING count(DISTINCT d.anonymous_id) > 1000;
COMMENT ON VIEW identity.suspects IS
    'Ids that may be no identity: devices with more accounts than identity.policy allows, accounts of more than 1,000 '
    'devices. Reads all of identity.device_days.';
COMMENT ON COLUMN identity.suspects.kind IS 'account or device.';
COMMENT ON COLUMN identity.suspects.id IS 'The id.';
COMMENT ON COLUMN identity.suspects.others IS 'How many accounts the device, or devices the account, has.';
COMMENT ON COLUMN identity.suspects.statement IS 'What would block it.';
