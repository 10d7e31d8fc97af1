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
}
