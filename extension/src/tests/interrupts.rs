//! Long calls inside Postgres: cancelled in time, and the inputs that once were endless.
#![allow(clippy::unwrap_used)]

#[pgrx::pg_schema]
mod tests {
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::time::{Duration, Instant};

    use crate::tests::support::text;
    use pgrx::prelude::*;

    // utils/timeout.h is not among pgrx's bindings; the first four timeouts have been these since PostgreSQL 9.3.
    const STATEMENT_TIMEOUT: c_int = 3;
    unsafe extern "C-unwind" {
        fn enable_timeout_after(id: c_int, milliseconds: c_int);
    }

    thread_local! {
        static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// Lets the statement time out 20 milliseconds after the last row: the time for a final function alone.
    #[pg_extern(volatile)]
    fn out_of_time() -> bool {
        BEGAN.set(Some(Instant::now()));
        // SAFETY: the timeout of a statement is registered in every backend.
        unsafe { enable_timeout_after(STATEMENT_TIMEOUT, 20) };
        true
    }

    /// Runs an aggregate over rows `n`, 1 to `rows`, and checks that it stops soon after its time is over.
    fn is_cancelled(aggregate: &str, rows: usize) {
        Spi::run(
            "CREATE OR REPLACE FUNCTION pg_temp.code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN EXECUTE statement; RETURN 'no error'; EXCEPTION WHEN query_canceled THEN RETURN SQLSTATE; END $$",
        )
        .unwrap();
        let query = format!(
            "SELECT {aggregate} FROM generate_series(1, {rows}) n, (SELECT array_fill(true, ARRAY[31]) || false) c(c)
              WHERE n < {rows} OR tests.out_of_time()"
        );
        let code = Spi::get_one_with_args::<String>("SELECT pg_temp.code_of($1)", &[query.into()]).unwrap();
        assert_eq!(code.as_deref(), Some("57014"), "{aggregate}");
        let took = BEGAN.get().unwrap().elapsed();
        assert!(took < Duration::from_millis(500), "{aggregate} took {took:?}");
    }

    #[pg_test]
    fn final_functions_that_take_seconds_are_cancelled_in_time() {
        let time = "to_timestamp(n)";
        is_cancelled(
            &format!("tidemark.sequence_match(repeat('(?1)(?t<=1h)', 1000) || '(?2)', {time}, true, false)"),
            100_000,
        );
        is_cancelled(
            "tidemark.cohort_member('day', 'recurring', 1000, 'infinity', to_timestamp(n * 86400.0), true, true)",
            200_000,
        );
        is_cancelled("tidemark.funnel('1 hour', 'any_order', to_timestamp(n / 30), VARIADIC c)", 1_000_000);
    }

    /// The answer of a query that must not take seconds.
    fn soon(query: &str) -> Option<String> {
        let began = Instant::now();
        let answer = text(query);
        assert!(began.elapsed() < Duration::from_secs(20), "{query} took {:?}", began.elapsed());
        answer
    }

    #[pg_test]
    fn many_rows_at_one_instant_that_satisfy_many_steps_take_no_time() {
        // Quadratic matching took minutes for these rows.
        let rows = "generate_series(1, 300000) n, (SELECT array_fill(true, ARRAY[31]) || false) c(c)";
        for call in
            ["funnel('1 hour',", "funnel('1 hour', 'step_window=1h',", "funnel('1 hour', 'strict_order',"]
        {
            let call = format!("cardinality(tidemark.{call} to_timestamp(n / 30), VARIADIC c))");
            assert_eq!(soon(&format!("SELECT {call} FROM {rows}")).as_deref(), Some("31"), "{call}");
        }
        let once = "tidemark.window_funnel('1 hour', 'strict_once', to_timestamp(n / 30), VARIADIC c)";
        assert_eq!(soon(&format!("SELECT {once} FROM {rows}")).as_deref(), Some("31"));
    }

    #[pg_test]
    fn chosen_hashes_take_no_longer_than_others() {
        // 200,000 ascending hashes h with h * 0x9e3779b97f4a7c15 = 1, 2, 3 ..., which a table that multiplies by this
        // puts into one slot, in an explicit sketch of the storage spec.
        Spi::run(
            "CREATE TABLE flood AS
             SELECT ('\\x12ae5f' || string_agg(lpad(to_hex(h), 16, '0'), '' ORDER BY h))::bytea AS b
               FROM (SELECT (m - CASE WHEN m >= 9223372036854775808 THEN 18446744073709551616 ELSE 0 END)::bigint AS h
                       FROM (SELECT (x * 17428512612931826493) % 18446744073709551616 AS m
                               FROM generate_series(1::numeric, 200000) x) multiples) hashes",
        )
        .unwrap();
        let flood = "(SELECT b::tidemark.hll FROM flood) f(h)";
        assert_eq!(
            soon(&format!("SELECT tidemark.hll_cardinality(h) FROM {flood}")).as_deref(),
            Some("200000")
        );
        let union = "tidemark.hll_cardinality(tidemark.hll_union_agg(h))";
        assert_eq!(
            soon(&format!("SELECT {union} FROM {flood}, generate_series(1, 3)")).as_deref(),
            Some("200000")
        );
    }

    #[pg_test]
    fn endless_patterns_and_modes_are_refused_by_their_length() {
        use crate::tests::support::error_of;
        assert_eq!(
            error_of("SELECT tidemark.sequence_match(repeat('.', 10000000), now(), true)"),
            "22023 pattern must have at most 65536 bytes, not 10000000"
        );
        assert_eq!(
            error_of("SELECT tidemark.window_funnel('1 day', repeat(',', 10000000), now(), true)"),
            "22023 mode must not be longer than 1000 bytes"
        );
        let member =
            "SELECT tidemark.cohort_member('day', repeat(',', 10000000), 3, now(), now(), true, true)";
        assert_eq!(error_of(member), "22023 mode must not be longer than 1000 bytes");
    }
}
