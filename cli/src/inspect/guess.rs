//! What a file says of which nobody knows the mapping: its members with their values, and a guess by these and by their
//! names where an event's parts may stand.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Sample, cut, shell};
use crate::status::table;
use tidemark_loader::event::envelope::mapping::Part;
use tidemark_loader::event::time::Unit;

/// Members deeper than that are not shown.
const DEPTH: usize = 3;
/// Most members shown.
const SHOWN: usize = 40;

/// Calls for each scalar with its pointer, but null and empty texts.
fn walk(value: &Value, found: &mut impl FnMut(&str, &Value)) {
    fn below(value: &Value, pointer: &mut String, depth: usize, found: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(object) if depth < DEPTH => {
                for (name, value) in object {
                    let len = pointer.len();
                    pointer.push('/');
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                    below(value, pointer, depth + 1, found);
                    pointer.truncate(len);
                }
            }
            Value::Null | Value::Object(_) | Value::Array(_) => {}
            Value::String(text) if text.is_empty() => {}
            value => found(pointer, value),
        }
    }
    below(value, &mut String::new(), 0, found);
}

struct Member {
    pointer: String,
    n: usize,
    values: HashSet<String>,
    example: String,
    /// What all of its values are times of, as behind a pointer; `None` when they are no times.
    unit: Option<&'static str>,
}

/// The members of a file's events.
pub(super) struct Members {
    members: Vec<Member>,
    events: usize,
}

impl Members {
    pub(super) fn of(sample: &Sample) -> Members {
        let mut all = Members { members: Vec::new(), events: 0 };
        let mut places: HashMap<String, usize> = HashMap::new();
        for record in &sample.records {
            let Ok(value @ Value::Object(_)) = serde_json::from_slice(record) else { continue };
            all.events += 1;
            walk(&value, &mut |pointer, value| {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let unit = unit_of(&text);
                let at = *places.entry(pointer.to_owned()).or_insert_with(|| {
                    all.members.push(Member {
                        pointer: pointer.to_owned(),
                        n: 0,
                        values: HashSet::new(),
                        example: text.clone(),
                        unit,
                    });
                    all.members.len() - 1
                });
                let member = &mut all.members[at];
                member.n += 1;
                member.unit = member.unit.filter(|unit_before| unit == Some(unit_before));
                member.values.insert(text);
            });
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Each with how many events have it, how many values it has, and one of them.
    pub(super) fn table(&self) -> String {
        let rows = self.members.iter().take(SHOWN).map(|member| {
            let kind = match member.unit {
                None => String::new(),
                Some("") => ", times".to_owned(),
                Some(":UTC") => ", times that do not say their zone".to_owned(),
                Some(unit) => format!(", times in {}", &unit[1..]),
            };
            let cells = [
                member.pointer.clone(),
                format!("{} of {}", member.n, self.events),
                format!("{}{kind}", member.values.len()),
                cut(&member.example),
            ];
            cells.into_iter().map(Some).collect()
        });
        let mut out =
            table(&["member", "filled", "values", "first"].map(str::to_owned), &rows.collect::<Vec<_>>());
        if self.members.len() > SHOWN {
            out.push_str(&format!("and {} more\n", self.members.len() - SHOWN));
        }
        out
    }

    /// The command with which to go on.
    pub(super) fn command(&self, file: &str) -> String {
        let parts = self.parts(file);
        if parts.is_empty() {
            return "look at its first lines; docs/loading.md says what can be loaded".to_owned();
        }
        let options: Vec<String> = parts.iter().map(|part| format!("--envelope {}", shell(part))).collect();
        format!(
            "say where they stand; by names and values it may be: tidemark inspect {} {}",
            shell(file),
            options.join(" ")
        )
    }

    fn parts(&self, file: &str) -> Vec<String> {
        let Some(time) = self.best(Part::EventTime) else { return Vec::new() };
        let mut parts = vec![format!("event_time={}{}", time.pointer, time.unit.unwrap_or_default())];
        parts.push(match self.best(Part::EventType) {
            Some(kind) => format!("event_type={}", kind.pointer),
            // A table of one type of event: its name is that of the file.
            None => {
                let name = file.rsplit('/').next().unwrap_or(file).split('.').next().unwrap_or(file);
                format!("event_type=={}", if name.is_empty() || name == "-" { "event" } else { name })
            }
        });
        for part in [Part::EventId, Part::UserId, Part::AnonymousId] {
            parts.extend(self.best(part).map(|member| format!("{}={}", part.word(), member.pointer)));
        }
        parts
    }

    /// The member that is likeliest this part, if one may be.
    fn best(&self, part: Part) -> Option<&Member> {
        let words: &[&str] = match part {
            Part::EventTime => {
                &["event_time", "timestamp", "occurred", "created", "time", "date", "_at", "ts"]
            }
            Part::EventType => &["event_type", "event_name", "event", "action", "activity", "type", "name"],
            Part::EventId => &["event_id", "eventid", "uuid", "message_id", "messageid", "id"],
            Part::UserId => &["user_id", "userid", "customer", "account", "member", "user", "email"],
            _ => &["anonymous", "device", "visitor", "cookie", "client", "session"],
        };
        let fits = |member: &&Member| {
            let (all, values) = (member.n == self.events, member.values.len());
            match part {
                Part::EventTime => member.unit.is_some() && member.n * 10 >= self.events * 9,
                Part::EventType => {
                    member.unit.is_none()
                        && all
                        && values <= 50.max(self.events / 10)
                        && (values < self.events || values == 1)
                }
                Part::EventId => member.unit.is_none() && all && values == self.events,
                _ => member.unit.is_none() && !member.pointer.to_lowercase().contains("agent"),
            }
        };
        let rank = |member: &Member| {
            let name = member.pointer.rsplit('/').next().unwrap_or_default().to_lowercase();
            let exact = words.iter().position(|word| name == *word);
            exact.or_else(|| Some(words.len() + words.iter().position(|word| is_word_of(word, &name))?))
        };
        let ranked = self.members.iter().filter(fits).filter_map(|member| Some((rank(member)?, member)));
        // Of two alike the first one, and the one that is not so deep.
        ranked
            .min_by_key(|(rank, member)| (*rank, member.pointer.matches('/').count()))
            .map(|(_, member)| member)
    }
}

/// Whether a name has that word in it; short ones at an end only.
fn is_word_of(word: &str, name: &str) -> bool {
    if word.len() > 3 {
        name.contains(word)
    } else {
        name.ends_with(word) || name.starts_with(&format!("{word}_"))
    }
}

/// What a text is a time of.
fn unit_of(text: &str) -> Option<&'static str> {
    if Unit::Certain.read(text).is_some() {
        return Some("");
    }
    if Unit::Ahead(0).read(text).is_some() {
        return Some(":UTC");
    }
    let whole = text.split('.').next().unwrap_or(text);
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) || text.parse::<f64>().is_err() {
        return None;
    }
    // From 2001 to 2286 seconds have ten digits.
    match whole.len() {
        10 => Some(":s"),
        13 => Some(":ms"),
        16 => Some(":us"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(lines: &[&str]) -> Vec<String> {
        let records = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        Members::of(&Sample { records, more: false }).parts("dir/till.csv")
    }

    #[test]
    fn parts_are_guessed_by_values_and_names() {
        assert_eq!(
            parts(&[
                r#"{"no":"1","uuid":"a","when_created":"2026-10-02 08:15:22","what":"x","customer_no":"7","user_agent":"m"}"#,
                r#"{"no":"2","uuid":"b","when_created":"2026-10-02 08:15:23","what":"x","customer_no":"7","user_agent":"m"}"#,
            ]),
            ["event_time=/when_created:UTC", "event_type==till", "event_id=/uuid", "user_id=/customer_no"]
        );
        assert_eq!(
            parts(&[
                r#"{"data":{"ts":1790928922123,"action":"view","user":{"id":5}},"device_id":"d","id":"x"}"#,
                r#"{"data":{"ts":1790928922124,"action":"view"},"device_id":"d","id":"x"}"#,
            ]),
            ["event_time=/data/ts:ms", "event_type=/data/action", "anonymous_id=/device_id"]
        );
        assert!(parts(&[r#"{"a":1}"#]).is_empty());
        assert!(parts(&["17", "[]"]).is_empty());
    }

    #[test]
    fn times_are_told_from_other_values() {
        for (text, unit) in [
            ("2026-10-02T08:15:22Z", Some("")),
            ("2026-10-02 08:15:22.5", Some(":UTC")),
            ("1790928922", Some(":s")),
            ("1790928922.25", Some(":s")),
            ("1790928922123456", Some(":us")),
            ("12345", None),
            ("1790928922x", None),
            ("yesterday", None),
        ] {
            assert_eq!(unit_of(text), unit, "{text}");
        }
    }
}
