//! Tests of what happens when memory is refused.

#[pgrx::pg_schema]
mod tests {
    use crate::tests::support_grouped::{error_of, text};
    use pgrx::prelude::*;

    /// Takes so many bytes from Rust's heap, which nothing of the extension does for sizes that users choose.
    #[pg_extern]
    fn take_from_heap(bytes: i64) -> i64 {
        let taken: Vec<u8> = Vec::with_capacity(usize::try_from(bytes).unwrap());
        std::hint::black_box(&taken).capacity() as i64
    }

    #[pg_test]
    fn an_allocation_that_fails_is_an_error_every_time() {
        // More than any address space has.
        let too_much = "SELECT tests.take_from_heap(1::bigint << 61)";
        for _ in 0..20 {
            assert_eq!(error_of(too_much), "53200 out of memory");
        }
        // Errors that Rust raises, that Postgres raises below Rust, and messages in between change nothing.
        assert!(
            error_of("SELECT tidemark.window_funnel('1 day', 'no_mode', now(), true)").starts_with("22023")
        );
        assert!(error_of("SELECT tidemark.session_count(now(), '1 month')").starts_with("22023"));
        Spi::run("DO $$ BEGIN RAISE NOTICE 'notice'; END $$").unwrap();
        assert_eq!(error_of(too_much), "53200 out of memory");
        assert_eq!(text("SELECT tests.take_from_heap(1000)"), "1000");
    }

    #[pg_test]
    fn a_text_that_is_parsed_is_refused_when_it_is_long() {
        let long = "repeat('.', 100000000)";
        for (statement, error) in [
            (
                format!("SELECT tidemark.window_funnel('1 day', {long}, now(), true)"),
                "22023 mode must not be longer than 1000 bytes",
            ),
            (
                format!("SELECT tidemark.funnel('1 day', {long}, now(), true)"),
                "22023 mode must not be longer than 1000 bytes",
            ),
            (
                format!("SELECT tidemark.cohort_member({long}, 'on', 9, now(), now(), true, true)"),
                "22023 period must not be longer than 1000 bytes",
            ),
            (
                format!("SELECT tidemark.cohort_member('day', {long}, 9, now(), now(), true, true)"),
                "22023 mode must not be longer than 1000 bytes",
            ),
            (
                format!("SELECT tidemark.sequence_next_node({long}, 'head', now(), 'a', true, true)"),
                "22023 direction must not be longer than 1000 bytes",
            ),
            (
                format!("SELECT tidemark.sequence_next_node('forward', {long}, now(), 'a', true, true)"),
                "22023 base must not be longer than 1000 bytes",
            ),
        ] {
            assert_eq!(error_of(&statement), error, "{statement}");
        }
        // Quoted, but not all of it.
        let error = error_of("SELECT tidemark.sequence_match(repeat('x', 5000), now(), true)");
        assert!(error.starts_with("22023 invalid pattern \"xxx") && error.len() < 500, "{error}");
    }

    #[pg_test]
    fn a_long_person_has_a_session_id() {
        // The name of the UUID is hashed piece by piece; computed with another implementation of UUIDv5.
        assert_eq!(
            text("SELECT tidemark.session_id(repeat('ab', 3000000), '2026-01-01 00:00:00Z')"),
            "f827d8f2-8614-5902-a1f4-fd0d7c54e660"
        );
    }
}
