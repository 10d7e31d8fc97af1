//! Fixtures for the client-side tests: private servers on private ports.
