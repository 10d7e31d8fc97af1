//! Whether what a command prints is what the page says, apart from what differs every time. Written and printed text
//! are compared word by word, line by line; how many blanks are between words does not count. Two words that differ are
//! nevertheless alike when both are
//!
//! * a moment of wall clock time (`2026-11-21T07:12:01Z`, or a date and a time) and the printed one is of today or
//!   yesterday: times of events lie far from that and are compared;
//! * a number before `seconds`, `s`, `ms` or `events/s`;
//! * an address of 127.0.0.1 with another port;
//! * a version behind the word `tidemark`.
//!
//! Lines that say how far a load has come, which a slow machine prints every few seconds, are left out.
//!
//! Everything else that varies needs the tag `not compared` and a reason. The output of SQL is compared exactly.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whether two outputs of a command say the same.
pub fn alike(written: &str, printed: &str) -> bool {
    let lines = |text| -> Vec<&str> { str::lines(text).filter(|line| !is_progress(line)).collect() };
    let (written, printed) = (lines(written), lines(printed));
    written.len() == printed.len() && written.iter().zip(&printed).all(|(w, p)| lines_alike(w, p))
}

fn is_progress(line: &str) -> bool {
    line.starts_with("loaded ") && line.contains(" lines, ") && line.ends_with(" events/s")
}

fn lines_alike(written: &str, printed: &str) -> bool {
    let (written, printed): (Vec<&str>, Vec<&str>) =
        (written.split_whitespace().collect(), printed.split_whitespace().collect());
    if written.len() != printed.len() {
        return false;
    }
    // Whether the word before was a date of the wall clock, so that a time of day may follow.
    let mut after_date = false;
    (0..written.len()).all(|i| {
        let (w, p) = (written[i], printed[i]);
        let before = i.checked_sub(1).map_or("", |before| printed[before]);
        let next = printed.get(i + 1).copied().unwrap_or_default();
        let was_date = std::mem::replace(&mut after_date, is_date(w) && is_recent(p));
        w == p
            || (after_date && is_date(p))
            || (was_date && is_time(w) && is_time(p))
            || (is_moment(w) && is_moment(p) && is_recent(p))
            || (is_number(w) && is_number(p) && is_unit(next))
            || (is_address(w) && is_address(p))
            || (before == "tidemark" && is_version(w) && is_version(p))
    })
}

fn is_unit(word: &str) -> bool {
    ["seconds", "s", "ms", "events/s"].contains(&word.trim_end_matches(['.', ',', ';', ':', ')']))
}

fn is_number(word: &str) -> bool {
    word.trim_start_matches('(').parse::<f64>().is_ok()
}

fn is_version(word: &str) -> bool {
    word.split('.').count() == 3 && word.split('.').all(|part| part.parse::<u32>().is_ok())
}

fn is_address(word: &str) -> bool {
    word.split_once("127.0.0.1:").is_some_and(|(_, port)| port.starts_with(|c: char| c.is_ascii_digit()))
}

/// `YYYY-MM-DD`.
fn is_date(word: &str) -> bool {
    word.len() == 10 && days(word).is_some()
}

/// `HH:MM:SS`, with or without a fraction and an offset.
fn is_time(word: &str) -> bool {
    let parts: Vec<&str> = word.splitn(3, ':').collect();
    parts.len() == 3 && parts.iter().all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
}

/// `YYYY-MM-DDTHH:MM:SS...`.
fn is_moment(word: &str) -> bool {
    word.split_once('T').is_some_and(|(date, time)| is_date(date) && is_time(time))
}

/// Whether a word begins with the UTC date of today or yesterday.
fn is_recent(word: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400);
    days(word).is_some_and(|day| i64::try_from(now).is_ok_and(|now| (0..=1).contains(&(now - day))))
}

/// Days since 1970 of the date that a word begins with.
fn days(word: &str) -> Option<i64> {
    let date = chrono::NaiveDate::parse_from_str(word.get(..10)?, "%Y-%m-%d").ok()?;
    Some(date.signed_duration_since(chrono::NaiveDate::default()).num_days())
}
