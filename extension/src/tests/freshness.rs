//! Watermark, lateness, change tracking.
