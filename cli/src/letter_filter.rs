//! Which dead letters a command is about: options, and the SQL condition that they make.

use tokio_postgres::types::ToSql;

use super::Database;
use super::output::parse_moment;
use tidemark_loader::event::time::{self, Micros};
use tidemark_loader::postgres::connection::{PgDay, PgTime};

/// Which letters.
#[derive(Clone, Debug, clap::Args)]
pub struct Filter {
    /// Where the database is
    #[command(flatten)]
    pub database: Database,
    /// Only one letter, as `list` shows it: TOPIC:PARTITION:OFFSET, with #N for one event of a record with several
    #[arg(long, value_name = "LETTER", value_parser = parse_letter)]
    letter: Option<Letter>,
    /// Only those of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only those of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those with this reason, such as invalid_event_time
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// Only those of this stage: decode, envelope, partition or database
    #[arg(long, value_name = "WORD")]
    stage: Option<String>,
    /// Only those recorded at or after this time (RFC 3339, a date, or how long ago: 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<Micros>,
    /// Only those recorded before this time
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Micros>,
    /// Only those whose event happened on this UTC date, as far as the date is known
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    event_date: Option<i32>,
}

/// Coordinates of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Topic or file.
    pub topic: String,
    /// Kafka partition; 0 for files.
    pub partition: i32,
    /// Offset or line number.
    pub offset: i64,
    /// Which event of a record with several, counted from 1; without it all of them.
    pub index: Option<i32>,
}

/// How the name of a letter ends.
pub fn part_of(index: Option<i32>) -> String {
    index.filter(|index| *index > 0).map(|index| format!("#{index}")).unwrap_or_default()
}

/// Reads `TOPIC:PARTITION:OFFSET` or `TOPIC:PARTITION:OFFSET#N`. The name of a file's topic contains a colon itself.
pub fn parse_letter(text: &str) -> Result<Letter, String> {
    let mut parts = text.rsplitn(3, ':');
    let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
    let parsed = || {
        let topic = topic.filter(|topic| !topic.is_empty())?;
        let (offset, index) = match offset?.split_once('#') {
            Some((offset, index)) => (offset, Some(index.parse().ok()?)),
            None => (offset?, None),
        };
        Some(Letter {
            topic: topic.to_owned(),
            partition: partition?.parse().ok()?,
            offset: offset.parse().ok()?,
            index,
        })
    };
    parsed().ok_or_else(|| "not of the form TOPIC:PARTITION:OFFSET".to_owned())
}

fn parse_date(text: &str) -> Result<i32, String> {
    time::parse_day(text).ok_or_else(|| "not a date of the form YYYY-MM-DD".to_owned())
}

/// The parameters of [`Filter::condition`].
pub struct Parameters {
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    index: Option<i32>,
    since: Option<PgTime>,
    until: Option<PgTime>,
    day: Option<PgDay>,
}

impl Filter {
    /// The values that the condition compares with.
    pub fn parameters(&self) -> Parameters {
        let letter = self.letter.as_ref();
        Parameters {
            topic: letter.map(|l| l.topic.clone()).or_else(|| self.topic.clone()),
            partition: letter.map(|l| l.partition),
            offset: letter.map(|l| l.offset),
            index: letter.and_then(|l| l.index),
            since: self.since.map(PgTime),
            until: self.until.map(PgTime),
            day: self.event_date.map(PgDay),
        }
    }

    /// In the order of the numbers in [`condition`].
    pub fn list<'a>(&'a self, p: &'a Parameters) -> Vec<&'a (dyn ToSql + Sync)> {
        vec![
            &self.pipeline,
            &p.topic,
            &p.partition,
            &p.offset,
            &self.reason,
            &self.stage,
            &p.since,
            &p.until,
            &p.day,
            &p.index,
        ]
    }
}

/// The condition over `d` and `p`, with its parameters from `$first` on.
pub fn condition(first: usize) -> String {
    let n = |i: usize| first + i;
    format!(
        "(${}::text IS NULL OR p.name = ${0}) AND (${}::text IS NULL OR d.topic = ${1})
         AND (${}::int IS NULL OR d.partition = ${2}) AND (${}::bigint IS NULL OR d.\"offset\" = ${3})
         AND (${}::text IS NULL OR d.reason = ${4}) AND (${}::text IS NULL OR d.stage = ${5})
         AND (${}::timestamptz IS NULL OR d.quarantined_at >= ${6})
         AND (${}::timestamptz IS NULL OR d.quarantined_at < ${7})
         AND (${}::date IS NULL OR (d.event_time AT TIME ZONE 'UTC')::date = ${8})
         AND (${}::int IS NULL OR d.source_index = ${9})",
        n(0),
        n(1),
        n(2),
        n(3),
        n(4),
        n(5),
        n(6),
        n(7),
        n(8),
        n(9)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_named_by_their_coordinates() {
        let letter = parse_letter("file:abc:0:17").unwrap();
        assert_eq!((letter.topic.as_str(), letter.partition, letter.offset), ("file:abc", 0, 17));
        assert_eq!(parse_letter("events:3:5").unwrap().topic, "events");
        let event = parse_letter("file:abc:0:17#2").unwrap();
        assert_eq!((event.offset, event.index, letter.index), (17, Some(2), None));
        for bad in ["", "events", "events:3", ":3:5", "events:x:5", "events:3:", "events:3:5#", "events:3:#1"]
        {
            assert!(parse_letter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_condition_numbers_its_parameters() {
        let text = condition(7);
        assert!(text.starts_with("($7::text IS NULL OR p.name = $7) AND ($8::text"), "{text}");
        assert!(text.ends_with("= $16)") && !text.contains("$17") && !text.contains("$6"), "{text}");
    }
}
