-- Who it was: what was said about ids, and what follows from it. The rules are in docs/identity.md; what is derived is
-- a function of the events and of what was said, never of the order in which either arrived.
CREATE SCHEMA identity AUTHORIZATION tidemark_admin;
COMMENT ON SCHEMA identity IS 'Which devices and accounts are whose: the person known now of every event';

-- Said by people, and kept for ever.
CREATE TABLE identity.policy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    max_accounts_per_device integer NOT NULL DEFAULT 5 CHECK (max_accounts_per_device > 0),
    max_accounts_per_person integer NOT NULL DEFAULT 100 CHECK (max_accounts_per_person BETWEEN 1 AND 1000),
    retroactive_window interval CHECK (retroactive_window >= interval '0')
);
ALTER TABLE identity.policy OWNER TO tidemark_admin;
INSERT INTO identity.policy DEFAULT VALUES;
COMMENT ON TABLE identity.policy IS 'How far identity goes; one row, changed by identity.set_policy';
COMMENT ON COLUMN identity.policy.only_row IS 'Key: there is one row';
COMMENT ON COLUMN identity.policy.max_accounts_per_device IS
    'A device with more accounts is shared: its anonymous events belong to nobody but itself';
COMMENT ON COLUMN identity.policy.max_accounts_per_person IS 'A link that would put more together is not applied';
COMMENT ON COLUMN identity.policy.retroactive_window IS
    'Anonymous events longer than this before the first login stay the device''s; NULL: none does';

CREATE TABLE identity.links (
    link_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_a text NOT NULL,
    account_b text NOT NULL,
    event_time timestamptz NOT NULL,
    said_at timestamptz NOT NULL DEFAULT now(),
    said_by name NOT NULL DEFAULT session_user,
    note text,
    revoked_at timestamptz,
    revoked_by name,
    revoke_note text
);
ALTER TABLE identity.links OWNER TO tidemark_admin;
CREATE INDEX ON identity.links (account_a);
CREATE INDEX ON identity.links (account_b);
COMMENT ON TABLE identity.links IS
    'Accounts that are one person, as identity.link was told; one that identity.unlink took back counts no more';
COMMENT ON COLUMN identity.links.link_id IS 'Key';
COMMENT ON COLUMN identity.links.account_a IS 'One account (user_id)';
COMMENT ON COLUMN identity.links.account_b IS 'The other one';
COMMENT ON COLUMN identity.links.event_time IS
    'When they became one; only decides which link comes first where a person would have too many accounts';
COMMENT ON COLUMN identity.links.said_at IS 'When it was said';
COMMENT ON COLUMN identity.links.said_by IS 'Who said it';
COMMENT ON COLUMN identity.links.note IS 'Why';
COMMENT ON COLUMN identity.links.revoked_at IS 'When it was taken back; NULL: it counts';
COMMENT ON COLUMN identity.links.revoked_by IS 'Who took it back';
COMMENT ON COLUMN identity.links.revoke_note IS 'Why it was taken back';

CREATE TABLE identity.blocked (
    kind text NOT NULL CHECK (kind IN ('account', 'device')),
    id text NOT NULL,
    said_at timestamptz NOT NULL DEFAULT now(),
    said_by name NOT NULL DEFAULT session_user,
    note text,
    PRIMARY KEY (kind, id)
);
ALTER TABLE identity.blocked OWNER TO tidemark_admin;
COMMENT ON TABLE identity.blocked IS 'Ids that are nobody''s, as identity.block was told';
COMMENT ON COLUMN identity.blocked.kind IS 'account or device';
COMMENT ON COLUMN identity.blocked.id IS 'The id';
COMMENT ON COLUMN identity.blocked.said_at IS 'When it was said';
COMMENT ON COLUMN identity.blocked.said_by IS 'Who said it';
COMMENT ON COLUMN identity.blocked.note IS 'Why';

CREATE TABLE identity.said_owners (
    anonymous_id text NOT NULL,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    account text,
    said_at timestamptz NOT NULL DEFAULT now(),
    said_by name NOT NULL DEFAULT session_user,
    note text,
    PRIMARY KEY (anonymous_id, from_time),
    CHECK (from_time < to_time)
);
ALTER TABLE identity.said_owners OWNER TO tidemark_admin;
COMMENT ON TABLE identity.said_owners IS
    'Whose a device was for a while, as identity.own_device was told, whatever its events say';
COMMENT ON COLUMN identity.said_owners.anonymous_id IS 'The device';
COMMENT ON COLUMN identity.said_owners.from_time IS 'Since when (inclusive)';
COMMENT ON COLUMN identity.said_owners.to_time IS 'Until when (exclusive)';
COMMENT ON COLUMN identity.said_owners.account IS 'Whose; NULL: nobody''s';
COMMENT ON COLUMN identity.said_owners.said_at IS 'When it was said';
COMMENT ON COLUMN identity.said_owners.said_by IS 'Who said it';
COMMENT ON COLUMN identity.said_owners.note IS 'Why';

-- Derived by identity.resolve.
CREATE TABLE identity.owners (
    anonymous_id text NOT NULL,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    account text,
    login_at timestamptz,
    why text,
    PRIMARY KEY (anonymous_id, from_time)
);
ALTER TABLE identity.owners OWNER TO tidemark_admin;
CREATE INDEX ON identity.owners (account);
COMMENT ON TABLE identity.owners IS
    'Whose a device was when: intervals that follow each other, as of the last identity.resolve. '
    'A device that nobody logged in on has none';
COMMENT ON COLUMN identity.owners.anonymous_id IS 'The device, as silver.bounded_id has it';
COMMENT ON COLUMN identity.owners.from_time IS
    'Since when (inclusive); -infinity for the first owner, who has what was before the login as well';
COMMENT ON COLUMN identity.owners.to_time IS 'Until when (exclusive); infinity for the last owner';
COMMENT ON COLUMN identity.owners.account IS 'Whose; NULL: nobody''s, so its anonymous events are the device''s own';
COMMENT ON COLUMN identity.owners.login_at IS 'The login or logout that says so; NULL where none does';
COMMENT ON COLUMN identity.owners.why IS
    'shared: it has too many accounts; blocked: its anonymous events are nobody''s; said: by identity.own_device; '
    'NULL: by its events';

CREATE TABLE identity.members (
    account text PRIMARY KEY,
    person text,
    component text,
    first_at timestamptz
);
ALTER TABLE identity.members OWNER TO tidemark_admin;
CREATE INDEX ON identity.members (component);
CREATE INDEX ON identity.members (person);
COMMENT ON TABLE identity.members IS
    'Accounts that are not simply their own person: linked ones and blocked ones, as of the last identity.resolve';
COMMENT ON COLUMN identity.members.account IS 'The account';
COMMENT ON COLUMN identity.members.person IS
    'Whose: of the accounts that are linked the one whose first event is earliest; NULL: blocked';
COMMENT ON COLUMN identity.members.component IS 'The same for accounts that are linked; NULL: blocked';
COMMENT ON COLUMN identity.members.first_at IS 'Its first event; NULL without any';

CREATE TABLE identity.refused_links (
    link_id bigint PRIMARY KEY REFERENCES identity.links,
    reason text NOT NULL
);
ALTER TABLE identity.refused_links OWNER TO tidemark_admin;
COMMENT ON TABLE identity.refused_links IS 'Links that are not applied, as of the last identity.resolve';
COMMENT ON COLUMN identity.refused_links.link_id IS 'identity.links.link_id';
COMMENT ON COLUMN identity.refused_links.reason IS 'Why not';

CREATE TABLE identity.changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    id text NOT NULL,
    from_time timestamptz NOT NULL,
    to_time timestamptz NOT NULL,
    was text,
    is_now text
);
ALTER TABLE identity.changes OWNER TO tidemark_admin;
CREATE INDEX ON identity.changes (id);
COMMENT ON TABLE identity.changes IS
    'Append-only: which id went from whom to whom. Who keeps persons outside follows it';
COMMENT ON COLUMN identity.changes.change_id IS 'Key';
COMMENT ON COLUMN identity.changes.changed_at IS 'When it became known here';
COMMENT ON COLUMN identity.changes.kind IS 'device (was and is_now are accounts) or account (they are persons)';
COMMENT ON COLUMN identity.changes.id IS 'The device or account';
COMMENT ON COLUMN identity.changes.from_time IS 'For events since (inclusive)';
COMMENT ON COLUMN identity.changes.to_time IS 'and until (exclusive)';
COMMENT ON COLUMN identity.changes.was IS 'Whose before; NULL: nobody''s';
COMMENT ON COLUMN identity.changes.is_now IS 'Whose now; NULL: nobody''s';

CREATE TABLE identity.waiting (
    kind text NOT NULL CHECK (kind IN ('account', 'device')),
    id text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE identity.waiting OWNER TO tidemark_admin;
COMMENT ON TABLE identity.waiting IS 'Ids of which something was said that identity.resolve has not looked at yet';
COMMENT ON COLUMN identity.waiting.kind IS 'account or device';
COMMENT ON COLUMN identity.waiting.id IS 'The id';
COMMENT ON COLUMN identity.waiting.since IS 'When it was said';

CREATE TABLE identity.resolved (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    resolved_at timestamptz,
    log_id bigint
);
ALTER TABLE identity.resolved OWNER TO tidemark_admin;
INSERT INTO identity.resolved DEFAULT VALUES;
COMMENT ON TABLE identity.resolved IS 'What the last identity.resolve has seen; one row';
COMMENT ON COLUMN identity.resolved.only_row IS 'Key: there is one row';
COMMENT ON COLUMN identity.resolved.resolved_at IS 'When it was; NULL: there was none';
COMMENT ON COLUMN identity.resolved.log_id IS 'The last row of tidemark.refresh_log that it has seen';
