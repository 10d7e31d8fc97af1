//! What the tests of models share: a small source with models on it, and a refresh without COMMIT.

use crate::tests::support_grouped::text;
use pgrx::prelude::*;

/// Runs statements.
pub fn run(sql: &str) {
    Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Two models, the second reading the first, over a source with two dates. `live`: with live views.
pub fn models(live: bool) {
    run(&format!("CREATE SCHEMA w;
         CREATE TABLE w.events (event_date date, person text);
         INSERT INTO w.events VALUES ('2026-01-01', 'a'), ('2026-01-01', 'b'), ('2026-01-02', 'a');
         SELECT tidemark.create_model('w.daily', '{{w.events}}',
             'SELECT event_date, count(*) AS events FROM w.events WHERE event_date >= $1 AND event_date < $2 GROUP BY event_date', '{{event_date}}', live => {live});
         SELECT tidemark.create_model('w.doubled', '{{w.daily}}',
             'SELECT event_date, events * 2 AS events FROM w.daily WHERE event_date >= $1 AND event_date < $2', '{{event_date}}', live => {live})"));
}

/// A late event with its mark.
pub fn late(date: &str, person: &str) {
    run(&format!(
        "INSERT INTO w.events VALUES ('{date}', '{person}'); SELECT tidemark.mark_dirty('w.events', '{{{date}}}', 'test')"
    ));
}

/// Recomputes one date; what was done, as "model date error", empty when nothing is left.
pub fn step(model: &str, skip: &str) -> String {
    step_of("postgres", model, skip)
}

/// The same, as far as a role may refresh: what `tidemark.refresh` does when this role calls it.
pub fn step_of(role: &str, model: &str, skip: &str) -> String {
    run("SELECT tidemark_internal.distribute_dirty()");
    text(&format!(
        "SELECT coalesce(max(concat_ws(' ', s.refreshed_model, s.refreshed_date, s.error)), '')
           FROM tidemark_internal.refresh_step((SELECT oid FROM pg_roles WHERE rolname = '{role}' OR '{role}' = 'postgres' AND rolname = current_user), {model}, '{{{skip}}}') AS s"
    ))
}

/// Recomputes everything that is dirty; what was done, in order.
pub fn refresh() -> String {
    let mut steps = vec![];
    loop {
        let step = step("NULL", "");
        if step.is_empty() {
            return steps.join(", ");
        }
        steps.push(step);
        assert!(steps.len() < 20, "{steps:?}");
    }
}

/// The rows of a relation with the columns event_date and events.
pub fn rows(relation: &str) -> String {
    text(&format!("SELECT string_agg(event_date || '=' || events, ' ' ORDER BY event_date) FROM {relation}"))
}

/// What `verify_model` says of the first days of 2026.
pub fn verified(model: &str) -> String {
    text(&format!(
        "SELECT string_agg(concat_ws(' ', to_char(event_date, 'DD'), status), ', ') FROM tidemark.verify_model('{model}', '2026-01-01', '2026-01-03')"
    ))
}
