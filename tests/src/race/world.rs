//! The tables and models of the race test, and what the models mean: the whole chain in plain SQL over the sources.
//!
//! ```text
//! events (partitioned) -> clean (partitioned) -> daily    -> rolling [-1, +2] -> summary [-1, 0]
//! refunds ---------------------------------------^           sessions [-1, +2] ---^
//!                         clean -----------------------------^
//! events -> visits, by person: the marks of persons that writers make reach it as they are
//! events -> timeline, of which reports are compared
//! ```
//!
//! People are active on three days, then away for two. So with a gap of a day a session lasts up to three dates, which
//! needs exactly the lookback and lookahead that the model of sessions declares.

use postgres::Client;

/// Dates that the race is about, from the first one on.
pub(super) const DAYS: u64 = 30;
/// The day that is today at the beginning.
pub(super) const FIRST_TODAY: u64 = 15;
/// People.
pub(super) const PEOPLE: u64 = 25;
/// The first of these dates.
pub(super) const FIRST_DAY: &str = "2026-03-01";

/// A model: its name, what it depends on and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Name without its schema.
    pub name: &'static str,
    sources: &'static str,
    key: &'static str,
    lookback: u64,
    lookahead: u64,
    /// Column by which it may be recomputed in part.
    scope: Option<&'static str>,
    /// Column from whose values on rows of the source are enough.
    since: Option<&'static str>,
    /// Empty for a timeline, which has no live view but reports, which are always live.
    query: &'static str,
    /// Columns as they are compared: types without an equality as text or bytes.
    pub(super) columns: &'static str,
    /// The same from the sources.
    pub(super) truth: &'static str,
}

/// All of them, sources first. `factor()` is what a change of definition changes.
pub const MODELS: [Model; 8] = [
    Model {
        name: "clean",
        sources: "race.events",
        key: "event_id, event_time",
        lookback: 0,
        lookahead: 0,
        scope: None,
        since: None,
        query: "SELECT e.event_date, e.event_time, e.event_id, e.person, e.kind, e.amount * factor() AS amount
                  FROM race.events e
                 WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
                   AND e.kind <> 'junk'",
        columns: "event_date, event_time, event_id, person, kind, amount",
        truth: "SELECT e.event_date, e.event_time, e.event_id, e.person, e.kind,
                       e.amount * (SELECT factor FROM race.factors WHERE model = 'clean') AS amount
                  FROM race.events e WHERE e.kind <> 'junk'",
    },
    Model {
        name: "daily",
        sources: "race.clean, race.refunds",
        key: "event_date, kind",
        lookback: 0,
        lookahead: 0,
        scope: None,
        since: None,
        query: "SELECT c.event_date, c.kind, count(*) AS events, sum(c.amount) * factor() AS total,
                       count(DISTINCT c.person) AS persons, tidemark.hll_agg(c.person) AS sketch,
                       json_build_object('first', min(c.event_id), 'null', NULL) AS extra,
                       (SELECT sum(r.cents) FROM race.refunds r WHERE r.event_date = c.event_date) AS refunded
                  FROM race.clean c
                 WHERE c.event_date >= $1 AND c.event_date < $2
                 GROUP BY c.event_date, c.kind",
        columns: "event_date, kind, events, total, persons, sketch::bytea AS sketch, extra::text AS extra, refunded",
        truth: "SELECT c.event_date, c.kind, count(*) AS events,
                       sum(c.amount) * (SELECT factor FROM race.factors WHERE model = 'daily') AS total,
                       count(DISTINCT c.person) AS persons, tidemark.hll_agg(c.person) AS sketch,
                       json_build_object('first', min(c.event_id), 'null', NULL) AS extra, max(r.refunded) AS refunded
                  FROM t_clean c
                  LEFT JOIN (SELECT event_date, sum(cents) AS refunded FROM race.refunds GROUP BY event_date) AS r USING (event_date)
                 GROUP BY c.event_date, c.kind",
    },
    Model {
        name: "sessions",
        sources: "race.clean",
        key: "person, started_at",
        lookback: 1,
        lookahead: 2,
        scope: Some("person"),
        since: Some("started_at"),
        query: "SELECT min(s.event_date) AS event_date, s.person, s.started_at,
                       max(s.event_time) AS ended_at, count(*) * factor() AS events, sum(s.amount) AS amount
                  FROM (SELECT c.*, tidemark.sessionize(c.event_time, interval '24 hours')
                                    OVER (PARTITION BY c.person ORDER BY c.event_time) AS started_at
                          FROM race.clean c
                         WHERE c.event_time >= ($1 - 1)::timestamp AT TIME ZONE 'UTC'
                           AND c.event_time < ($2 + 2)::timestamp AT TIME ZONE 'UTC') AS s
                 WHERE s.started_at >= $1::timestamp AT TIME ZONE 'UTC' AND s.started_at < $2::timestamp AT TIME ZONE 'UTC'
                 GROUP BY s.person, s.started_at",
        columns: "event_date, person, started_at, ended_at, events, amount",
        truth: "SELECT (min(event_time) AT TIME ZONE 'UTC')::date AS event_date, person, min(event_time) AS started_at,
                       max(event_time) AS ended_at,
                       count(*) * (SELECT factor FROM race.factors WHERE model = 'sessions') AS events, sum(amount) AS amount
                  FROM (SELECT *, count(*) FILTER (WHERE cut) OVER (PARTITION BY person ORDER BY event_time, event_id) AS number
                          FROM (SELECT *, coalesce(event_time - lag(event_time) OVER (PARTITION BY person ORDER BY event_time, event_id)
                                                   > interval '24 hours', true) AS cut
                                  FROM t_clean) AS a) AS b
                 GROUP BY person, number",
    },
    Model {
        name: "rolling",
        sources: "race.daily",
        key: "event_date",
        lookback: 1,
        lookahead: 2,
        scope: None,
        since: None,
        query: "SELECT d.event_date, sum(w.events) * factor() AS events, sum(w.total) AS total,
                       tidemark.hll_union_agg(w.sketch) AS sketch, sum(w.refunded) AS refunded
                  FROM (SELECT DISTINCT event_date FROM race.daily WHERE event_date >= $1 AND event_date < $2) AS d
                  JOIN race.daily w ON w.event_date BETWEEN d.event_date - 1 AND d.event_date + 2
                 WHERE w.event_date >= $1 - 1 AND w.event_date < $2 + 2
                 GROUP BY d.event_date",
        columns: "event_date, events, total, sketch::bytea AS sketch, refunded",
        // From the events: the sketch of several days is the union of theirs.
        truth: "SELECT d.event_date, count(*) * (SELECT factor FROM race.factors WHERE model = 'rolling') AS events,
                       sum(w.amount) * (SELECT factor FROM race.factors WHERE model = 'daily') AS total,
                       tidemark.hll_agg(w.person) AS sketch,
                       (SELECT sum(t.refunded) FROM t_daily t WHERE t.event_date BETWEEN d.event_date - 1 AND d.event_date + 2) AS refunded
                  FROM (SELECT DISTINCT event_date FROM t_clean) AS d
                  JOIN t_clean w ON w.event_date BETWEEN d.event_date - 1 AND d.event_date + 2
                 GROUP BY d.event_date",
    },
    Model {
        name: "summary",
        sources: "race.sessions, race.rolling",
        key: "event_date",
        lookback: 1,
        lookahead: 0,
        scope: None,
        since: None,
        query: "SELECT r.event_date, r.events * factor() AS events, count(s.person) AS sessions,
                       count(s.person) FILTER (WHERE s.event_date < r.event_date) AS of_yesterday,
                       max(s.ended_at) AS last_end
                  FROM race.rolling r
                  LEFT JOIN race.sessions s ON s.event_date BETWEEN r.event_date - 1 AND r.event_date
                                           AND s.event_date >= $1 - 1 AND s.event_date < $2
                 WHERE r.event_date >= $1 AND r.event_date < $2
                 GROUP BY r.event_date, r.events",
        columns: "event_date, events, sessions, of_yesterday, last_end",
        truth: "SELECT r.event_date, r.events * (SELECT factor FROM race.factors WHERE model = 'summary') AS events,
                       count(s.person) AS sessions,
                       count(s.person) FILTER (WHERE s.event_date < r.event_date) AS of_yesterday,
                       max(s.ended_at) AS last_end
                  FROM t_rolling r
                  LEFT JOIN t_sessions s ON s.event_date BETWEEN r.event_date - 1 AND r.event_date
                 GROUP BY r.event_date, r.events",
    },
    Model {
        name: "visits",
        sources: "race.events",
        key: "event_date, person",
        lookback: 0,
        lookahead: 0,
        scope: Some("person"),
        since: None,
        query: "SELECT e.event_date, e.person, count(*) * factor() AS events, sum(e.amount) AS amount
                  FROM race.events e
                 WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
                 GROUP BY e.event_date, e.person",
        columns: "event_date, person, events, amount",
        truth: "SELECT e.event_date, e.person,
                       count(*) * (SELECT factor FROM race.factors WHERE model = 'visits') AS events, sum(e.amount) AS amount
                  FROM race.events e GROUP BY e.event_date, e.person",
    },
    Model {
        name: "totals",
        sources: "race.events",
        key: "event_date, kind",
        lookback: 0,
        lookahead: 0,
        scope: None,
        since: None,
        query: "SELECT e.event_date, e.kind, count(*) AS events, sum(e.amount * factor()) AS amount,
                       max(e.event_time) AS last_at, tidemark.hll_agg(e.person) AS sketch
                  FROM race.events e
                 WHERE e.event_time >= $1::timestamp AT TIME ZONE 'UTC' AND e.event_time < $2::timestamp AT TIME ZONE 'UTC'
                 GROUP BY e.event_date, e.kind",
        columns: "event_date, kind, events, amount, last_at, sketch::bytea AS sketch",
        truth: "SELECT e.event_date, e.kind, count(*) AS events,
                       sum(e.amount * (SELECT factor FROM race.factors WHERE model = 'totals')) AS amount,
                       max(e.event_time) AS last_at, tidemark.hll_agg(e.person) AS sketch
                  FROM race.events e GROUP BY e.event_date, e.kind",
    },
    Model {
        name: "timeline",
        sources: "race.events",
        key: "slice, event_date, property",
        lookback: 0,
        lookahead: 0,
        scope: None,
        since: None,
        query: "",
        columns: "event_date, what, value",
        truth: "SELECT e.event_date, 'kind ' || e.kind AS what, count(*) AS value FROM race.events e GROUP BY 1, 2
                UNION ALL
                SELECT e.event_date, 'amount ' || coalesce(e.amount::text, '(none)'), count(*) FROM race.events e GROUP BY 1, 2
                UNION ALL
                SELECT p.event_date, 'sessions', count(*)
                  FROM (SELECT e.event_date, e.event_time - lag(e.event_time) OVER (PARTITION BY e.event_date, e.person ORDER BY e.event_time) AS pause
                          FROM race.events e) AS p
                 WHERE (p.pause > interval '1 hour') IS NOT FALSE GROUP BY 1",
    },
];

/// Creates the timeline, and reports of it in the place of a live view.
const TIMELINE: &str =
    "SELECT tidemark.create_timeline('race.timeline', 'race.events', event_type => 'kind', properties => '{amount}', slices => 4);
     CREATE OR REPLACE VIEW race.timeline_live AS
     WITH days AS (SELECT date '2026-03-01' + n AS event_date FROM generate_series(0, 29) AS n)
     SELECT d.event_date, p.property || ' ' || t.series AS what, t.value
       FROM days AS d, (VALUES ('kind', 'event_type'), ('amount', 'amount')) AS p(property, breakdown),
            LATERAL tidemark.trend('race.timeline', d.event_date, d.event_date + 1, breakdown => p.breakdown, top => 1000) AS t
     UNION ALL
     SELECT d.event_date, 'sessions', s.sessions
       FROM days AS d, LATERAL tidemark.session_report('race.timeline', d.event_date, d.event_date + 1, '1 hour') AS s
      WHERE s.sessions > 0";

impl Model {
    /// The statement that registers the model with this factor.
    pub(super) fn definition(&self, factor: u64) -> String {
        if self.query.is_empty() {
            return TIMELINE.to_owned();
        }
        format!(
            "SELECT tidemark.create_model('race.{}', string_to_array('{}', ', ')::regclass[], $query${}$query$,
                    string_to_array('{}', ', ')::name[], {}, {}, live => true, scope => {}, scope_since => {})",
            self.name,
            self.sources,
            self.query.replace("factor()", &factor.to_string()),
            self.key,
            self.lookback,
            self.lookahead,
            self.scope.map_or_else(|| "NULL".to_owned(), |column| format!("'{column}'")),
            self.since.map_or_else(|| "NULL".to_owned(), |column| format!("'{column}'"))
        )
    }

    /// What is compared with the truth.
    pub(super) fn relations(&self) -> Vec<String> {
        let kinds = if self.query.is_empty() { &["_live"][..] } else { &["", "_live"] };
        kinds.iter().map(|kind| format!("race.{}{kind}", self.name)).collect()
    }

    /// A query whose rows are the differences between a table or view and the truth: which way, how many, one row.
    /// `filter` is a condition on `event_date`, or `true`.
    pub(super) fn differences(&self, found: &str, filter: &str) -> String {
        let chain: Vec<String> = MODELS.iter().map(|m| format!("t_{} AS ({})", m.name, m.truth)).collect();
        let columns = self.columns;
        format!(
            "WITH {}, truth AS (SELECT {columns} FROM t_{} WHERE {filter}), found AS (SELECT {columns} FROM {found} WHERE {filter})
             SELECT 'too much' AS way, count(*), min(x::text) FROM (SELECT * FROM found EXCEPT ALL SELECT * FROM truth) AS x HAVING count(*) > 0
             UNION ALL
             SELECT 'missing' AS way, count(*), min(x::text) FROM (SELECT * FROM truth EXCEPT ALL SELECT * FROM found) AS x HAVING count(*) > 0",
            chain.join(", "),
            self.name
        )
    }
}

/// Creates the tables, empty, and the models.
pub fn create(client: &mut Client) {
    let run = |client: &mut Client, sql: &str| {
        client.batch_execute(sql).unwrap_or_else(|e| panic!("{}\nin {sql}", crate::cluster::explain(&e)));
    };
    run(
        client,
        &format!(
            "CREATE EXTENSION tidemark;
             CREATE SCHEMA race;
             CREATE SCHEMA race_partitions;
             CREATE SEQUENCE race.event_ids;
             CREATE TABLE race.events (
                 event_id bigint NOT NULL DEFAULT nextval('race.event_ids'),
                 event_time timestamptz NOT NULL,
                 event_date date NOT NULL GENERATED ALWAYS AS ((event_time AT TIME ZONE 'UTC')::date) STORED,
                 person text NOT NULL, kind text NOT NULL, amount bigint
             ) PARTITION BY RANGE (event_time);
             CREATE INDEX ON race.events (event_id);
             SELECT tidemark.manage_partitions('race.events', 0, 'race_partitions');
             SELECT tidemark.ensure_partitions('race.events',
                 ARRAY(SELECT date '{FIRST_DAY}' + n FROM generate_series(0, {}) AS n));
             CREATE TABLE race.refunds (refund_id bigserial PRIMARY KEY, event_date date NOT NULL, cents bigint NOT NULL);
             -- Its partitions stand before anybody reads, as with a warehouse that makes them ahead: Postgres plans a
             -- statement before it takes its snapshot, and a plan lacks the partitions made in between.
             CREATE TABLE race.clean (
                 event_date date NOT NULL, event_time timestamptz NOT NULL, event_id bigint NOT NULL,
                 person text NOT NULL, kind text NOT NULL, amount bigint,
                 PRIMARY KEY (event_id, event_time)
             ) PARTITION BY RANGE (event_time);
             CREATE INDEX ON race.clean (event_date);
             SELECT tidemark.manage_partitions('race.clean', 0, 'race_partitions');
             SELECT tidemark.ensure_partitions('race.clean',
                 ARRAY(SELECT date '{FIRST_DAY}' + n FROM generate_series(0, {}) AS n));
             CREATE TABLE race.factors (model text PRIMARY KEY, factor bigint NOT NULL);",
            DAYS - 1,
            DAYS - 1
        ),
    );
    for model in MODELS {
        run(client, &format!("INSERT INTO race.factors VALUES ('{}', 1)", model.name));
        run(client, &model.definition(1));
    }
}

/// Events on every date and some refunds, always the same, in one transaction with their marks.
pub fn fill(client: &mut Client) {
    let sql = format!(
        "BEGIN;
         INSERT INTO race.events (event_time, person, kind, amount)
         SELECT timestamptz '{FIRST_DAY} 00:00:00+00' + day * interval '1 day' + (hash % 86400) * interval '1 second',
                'person ' || person, (ARRAY['view', 'buy', 'junk'])[1 + (hash % 3)::int], nullif(hash % 50, 7)
           FROM generate_series(0, {}) AS day, generate_series(0, {}) AS person, generate_series(1, 4) AS n,
                LATERAL (SELECT abs(hashint8(day * 1000 + person * 10 + n)::bigint) AS hash) AS h
          WHERE (day + person) % 5 < 3;
         INSERT INTO race.refunds (event_date, cents) SELECT date '{FIRST_DAY}' + day, 100 FROM generate_series(2, 20, 3) AS day;
         SELECT tidemark.mark_dirty('race.events', ARRAY(SELECT DISTINCT event_date FROM race.events));
         SELECT tidemark.mark_dirty('race.refunds', ARRAY(SELECT DISTINCT event_date FROM race.refunds));
         COMMIT",
        DAYS - 1,
        PEOPLE - 1
    );
    client.batch_execute(&sql).unwrap_or_else(|e| panic!("{}\nin {sql}", crate::cluster::explain(&e)));
}
