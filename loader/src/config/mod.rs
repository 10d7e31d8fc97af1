//! Configuration in layers: built-in default, TOML file, environment, command line; the later one counts. A value is
//! kept as text together with where it came from, so that `tidemark check` can show both. The keys are in `keys`.

pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use keys::{KEYS, Kind};
use toml::{Table, Value};

use crate::error::{Error, Kind as ErrorKind, Result, nearest};
use crate::event::time::{self, Micros};

/// Prefix of variables of the environment.
const PREFIX: &str = "TIDEMARK__";
/// Section that takes any setting of librdkafka.
const PASS_THROUGH: &str = "kafka.librdkafka.";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment(String),
    /// An option of the command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File => f.write_str("file"),
            Source::Environment(name) => write!(f, "environment, {name}"),
            Source::CommandLine => f.write_str("command line"),
        }
    }
}

#[derive(Clone, Debug)]
struct Set {
    value: String,
    source: Source,
    /// The file that held a secret.
    from: Option<String>,
}

/// All values in force.
#[derive(Clone, Debug, Default)]
pub struct Config {
    values: BTreeMap<String, Set>,
}

fn refuse(what: impl fmt::Display, why: impl fmt::Display, next: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, what, why, next)
}

impl Config {
    /// The defaults, the file if there is one, and the environment, which is passed as names and values.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Config> {
        let mut config = Config::default();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let set = Set { value: key.default.to_owned(), source: Source::Default, from: None };
            config.values.insert(key.name.to_owned(), set);
        }
        // All that is wrong at once: nobody wants to learn it try by try.
        let mut wrong = Vec::new();
        if let Some(path) = file {
            config.read_file(path, &mut wrong)?;
        }
        config.read_environment(environment, &mut wrong);
        Error::all(wrong).map_or(Ok(config), Err)
    }

    fn read_file(&mut self, path: &Path, wrong: &mut Vec<Error>) -> Result<()> {
        let what = format!("cannot use the configuration {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| refuse(&what, e, "correct --config"))?;
        // The error's own text quotes the line, which may hold a password.
        let table: Table = toml::from_str(&text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            refuse(&what, format!("line {at}: {}", e.message()), "write it as TOML")
        })?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat)
            .map_err(|(key, why)| refuse(&what, format!("{key}: {why}"), "correct the value"))?;
        self.add(flat.into_iter().map(|(k, v)| (k, v, Source::File)), &what, wrong);
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
        wrong: &mut Vec<Error>,
    ) {
        let what = "cannot use the environment";
        let mut found: Vec<_> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        found.sort();
        let values = found.into_iter().map(|(name, value)| {
            let parts: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            let mut key = parts.join(".");
            // Names of librdkafka have dots, which a variable cannot have.
            if let Some(setting) = key.strip_prefix(PASS_THROUGH) {
                key = format!("{PASS_THROUGH}{}", setting.replace('_', "."));
            }
            (key, value, Source::Environment(name))
        });
        self.add(values, what, wrong);
    }

    /// Takes over one layer.
    fn add(
        &mut self,
        layer: impl Iterator<Item = (String, String, Source)>,
        what: &str,
        wrong: &mut Vec<Error>,
    ) {
        let mut secrets: Vec<String> = Vec::new();
        for (name, value, source) in layer {
            wrong.extend(self.add_one(name, value, source, what, &mut secrets).err());
        }
    }

    /// A secret and the file of it cannot both be given in one layer, of which `secrets` are those before.
    fn add_one(
        &mut self,
        name: String,
        value: String,
        source: Source,
        what: &str,
        secrets: &mut Vec<String>,
    ) -> Result<()> {
        let shown = match &source {
            Source::Environment(variable) => variable.clone(),
            _ => name.clone(),
        };
        let secret = name.strip_suffix("_file").filter(|key| is_secret_key(key)).map(str::to_owned);
        let (key, value, from) = match secret {
            None => (name, value, None),
            Some(key) => {
                let content = std::fs::read_to_string(&value).map_err(|e| {
                    let next = "name a file, and make it readable for this user";
                    refuse(what, format!("{shown}: {e}"), next)
                })?;
                (key, content.trim_end_matches(['\r', '\n']).to_owned(), Some(value))
            }
        };
        if is_secret_key(&key) {
            if secrets.contains(&key) {
                return Err(refuse(what, format!("both {key} and {key}_file are set"), "set one of them"));
            }
            secrets.push(key.clone());
        }
        self.put(&key, value, source, from, &shown, what)
    }

    /// Sets a value on behalf of the command line.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<()> {
        self.put(name, value.into(), Source::CommandLine, None, name, "cannot use the command line").map_err(
            |mut e| {
                e.kind = ErrorKind::Usage;
                e
            },
        )
    }

    /// Sets what an option says that a variable of the environment can stand for, and knows which of both it was.
    pub fn set_option(&mut self, name: &str, value: &str, variable: &str) -> Result<()> {
        // The parser of options does not tell; where both say the same, it does not matter.
        if std::env::var(variable).is_ok_and(|there| there == value) {
            let source = Source::Environment(variable.to_owned());
            return self.put(name, value.to_owned(), source, None, variable, "cannot use the environment");
        }
        self.set(name, value)
    }

    fn put(
        &mut self,
        name: &str,
        value: String,
        source: Source,
        from: Option<String>,
        shown: &str,
        what: &str,
    ) -> Result<()> {
        if let Some(setting) = name.strip_prefix(PASS_THROUGH) {
            if let Some(why) = keys::reserved(setting) {
                return Err(refuse(what, format!("{shown}: {setting} {why}"), "take it out"));
            }
        } else {
            let Some(key) = keys::find(name) else {
                let (why, next) = unknown(name);
                let next = match &source {
                    Source::Environment(_) => format!("{next} ({PREFIX}SECTION__KEY)"),
                    _ => next,
                };
                return Err(refuse(what, format!("{shown}: {why}"), next));
            };
            // Not what it says: somebody may have put a password there.
            if let Err(why) = key.kind.check(&value) {
                let next = format!("the default is {:?}", key.default);
                return Err(refuse(what, format!("{shown}: {why}"), next));
            }
        }
        self.values.insert(name.to_owned(), Set { value, source, from });
        Ok(())
    }

    /// The value of a key, if it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(keys::find(name).is_some(), "{name} is no key");
        self.values.get(name).map(|set| set.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Where the value of a key came from, if it has one.
    pub fn source(&self, name: &str) -> Option<&Source> {
        self.values.get(name).map(|set| &set.source)
    }

    /// The file that a secret was read from, if it was one that can be read again: a pipe cannot.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.from.as_deref().filter(|path| Path::new(path).is_file())
    }

    /// The value of a key that has one in any case; what is missing or misread here is our mistake.
    fn read<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.get(name)
            .and_then(parse)
            .ok_or_else(|| Error::bug("cannot use the configuration", format!("{name} has no value")))
    }

    /// A text that must be given.
    pub fn required(&self, name: &str, option: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| {
            let (section, key) = name.split_once('.').unwrap_or(("", name));
            let next = format!(
                "set {option}, or {key} in [{section}] of the configuration; see tidemark run --help"
            );
            Error::new(ErrorKind::Usage, "cannot start", format!("{name} is not set"), next)
        })
    }

    /// Bytes.
    pub fn size(&self, name: &str) -> Result<usize> {
        self.read(name, |v| usize::try_from(keys::size(v)?).ok())
    }

    /// A length of time; `None` is off.
    pub fn time(&self, name: &str) -> Result<Option<Duration>> {
        self.read(name, |v| if v == "off" { Some(None) } else { keys::duration(v).map(Some) })
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> Result<u64> {
        self.read(name, |v| v.replace('_', "").parse().ok())
    }

    /// A number from 0 to 1.
    pub fn share(&self, name: &str) -> Result<f64> {
        self.read(name, |v| v.parse().ok())
    }

    /// The first moment of a date; `None` where none was given.
    pub fn date(&self, name: &str) -> Result<Option<Micros>> {
        let moment = |v: &str| time::parse_day(v).map(|day| i64::from(day) * time::DAY_US);
        self.get(name).map(|_| self.read(name, moment)).transpose()
    }

    /// Names.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map(|v| v.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default()
    }

    /// What is to be passed through to librdkafka.
    pub fn librdkafka(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .filter_map(|(name, set)| Some((name.strip_prefix(PASS_THROUGH)?, set.value.as_str())))
    }

    /// Everything in force as TOML, each value with where it came from, secrets as `***`.
    pub fn effective(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        let mut show = |name: &'static str, set: &Set| {
            let (of, key) = name.split_once('.').unwrap_or(("", name));
            if of != section {
                out.push_str(&format!("{}[{of}]\n", if section.is_empty() { "" } else { "\n" }));
                section = of;
            }
            out.push_str(&format!("{key} = {} # {}\n", self.shown(name, set), set.origin()));
        };
        for key in KEYS {
            if let Some(set) = self.values.get(key.name) {
                show(key.name, set);
            }
        }
        let passed: Vec<_> = self.values.iter().filter(|(name, _)| name.starts_with(PASS_THROUGH)).collect();
        if !passed.is_empty() {
            out.push_str("\n[kafka.librdkafka]\n");
            for (name, set) in passed {
                let key = &name[PASS_THROUGH.len()..];
                out.push_str(&format!("{} = {} # {}\n", quoted(key), self.shown(name, set), set.origin()));
            }
        }
        out
    }

    /// Names, values and sources as JSON, secrets as `***`.
    pub fn effective_json(&self) -> serde_json::Value {
        let shown = self.values.iter().map(|(name, set)| {
            let value = if is_secret(name) { "***" } else { set.value.as_str() };
            (name.clone(), serde_json::json!({ "value": value, "source": set.source.to_string() }))
        });
        serde_json::Value::Object(shown.collect())
    }

    fn shown(&self, name: &str, set: &Set) -> String {
        if is_secret(name) {
            return "\"***\"".to_owned();
        }
        // Numbers as they were understood: elsewhere they may be written in ways that TOML does not know, such as 007.
        match keys::find(name).map(|key| key.kind) {
            Some(Kind::List) => {
                let names: Vec<String> = self.list(name).iter().map(|name| quoted(name)).collect();
                format!("[{}]", names.join(", "))
            }
            Some(Kind::Count { .. }) => {
                self.count(name).map_or_else(|_| quoted(&set.value), |n| n.to_string())
            }
            Some(Kind::Share) => self.share(name).map_or_else(|_| quoted(&set.value), |n| format!("{n:?}")),
            Some(Kind::Choice(&["true", "false"])) => set.value.clone(),
            _ => quoted(&set.value),
        }
    }
}

impl Set {
    /// Where the value came from, as a comment in TOML.
    fn origin(&self) -> String {
        let from = self.from.as_ref().map(|path| format!(", read from {path}")).unwrap_or_default();
        format!("{}{from}", self.source).replace(char::is_control, "?")
    }
}

/// A string of TOML. The strings of JSON are such, except that they may have a DEL in them.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn is_secret_key(name: &str) -> bool {
    keys::find(name).is_some_and(|key| key.kind == Kind::Secret)
}

/// Whether a value must not be shown: the keys that say so, and everything that is passed through to librdkafka, since
/// only that knows whether `sasl.pasword` is a password.
fn is_secret(name: &str) -> bool {
    is_secret_key(name) || name.starts_with(PASS_THROUGH)
}

/// Tables within tables become names with dots.
fn flatten(prefix: &str, table: &Table, out: &mut Vec<(String, String)>) -> Result<(), (String, String)> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::Table(inner) => {
                flatten(&name, inner, out)?;
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Integer(n) => n.to_string(),
            Value::Float(n) => n.to_string(),
            Value::Boolean(b) => b.to_string(),
            Value::Datetime(time) => time.to_string(),
            Value::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts
                    .ok_or_else(|| (name.clone(), "an array of something else than texts".to_owned()))?
                    .join(",")
            }
        };
        out.push((name, text));
    }
    Ok(())
}

/// Why a key is unknown, and which one may have been meant.
fn unknown(name: &str) -> (String, String) {
    let names: Vec<String> = KEYS
        .iter()
        .flat_map(|key| {
            let file = (key.kind == Kind::Secret).then(|| format!("{}_file", key.name));
            [Some(key.name.to_owned()), file]
        })
        .flatten()
        .collect();
    let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
    let sections: Vec<&str> = names.iter().filter_map(|n| n.split('.').next()).collect();
    if section.is_empty() {
        let next = match names.iter().find(|n| n.ends_with(&format!(".{key}"))) {
            Some(known) => format!("it belongs into section [{}]", known.split('.').next().unwrap_or("")),
            None => "see docs/loader.md for all keys".to_owned(),
        };
        return ("unknown key outside of any section".to_owned(), next);
    }
    if !sections.contains(&section) {
        let (known, _) = nearest(section, sections.into_iter());
        return (format!("unknown section [{section}]"), format!("did you mean [{known}]?"));
    }
    let why = format!("unknown key {key} in section [{section}]");
    if let Some(elsewhere) = names.iter().find(|n| n.rsplit('.').next() == Some(key)) {
        return (why, format!("did you mean {elsewhere}?"));
    }
    let (known, _) = nearest(key, names.iter().filter_map(|n| n.strip_prefix(section)?.strip_prefix('.')));
    (why, format!("did you mean {known}?"))
}

#[cfg(test)]
mod tests;
