//! User agents: what browser, system and device one says it is, by the patterns of uap-core, and whether it
//! is a bot, by those of crawler-user-agents.

use std::panic::{AssertUnwindSafe, catch_unwind};

use regex_filtered::ParseError;
use serde_json::Value;
use sha2::{Digest, Sha256};
use ua_parser::{Extractor, Regexes};

use super::{Agent, append, brief, clean};

/// Of how many characters of a user agent anything is looked at.
const LONGEST: usize = 1000;

/// How many of the patterns that cannot be used are named.
const NAMED: usize = 3;

/// What is wrong with a pattern that repeats.
const REPEATS: &str = "repeats something 64 times or more";

/// What uap-core calls the device of a bot.
const SPIDER: &str = "Spider";

/// What Chrome says for each device of Android, since it no longer says which.
const FROZEN_DEVICE: &str = "K";

/// All that is known of user agents.
#[derive(Default)]
pub(super) struct Agents {
    browsers: Option<Extractor<'static>>,
    bots: Option<Bots>,
    /// The files and their hashes.
    pub(super) by: Option<String>,
}

/// Patterns of bots.
struct Bots {
    patterns: regex_filtered::Regexes,
    /// What the bot of each pattern is called.
    names: Vec<String>,
}

impl Agents {
    /// Uses what a `regexes.yaml` holds, or says why that cannot be.
    pub(super) fn add_browsers(&mut self, name: &str, content: &[u8]) -> Result<Option<String>, String> {
        let none = |error: &str| {
            Err(format!(
                "is no list of user agents: regexes.yaml of uap-core has user_agent_parsers, os_parsers and \
                 device_parsers ({error})"
            ))
        };
        let regexes = match serde_yaml_ng::from_slice::<Regexes<'static>>(content) {
            Ok(regexes) if regexes.user_agent_parsers.is_empty() => {
                return none("the first of them is empty");
            }
            Ok(regexes) => regexes,
            Err(error) => return none(&brief(&error)),
        };
        let patterns = regexes.user_agent_parsers.iter().map(|parser| &parser.regex);
        let patterns = patterns.chain(regexes.os_parsers.iter().map(|parser| &parser.regex));
        let mut patterns = patterns.chain(regexes.device_parsers.iter().map(|parser| &parser.regex));
        if let Some(pattern) = patterns.find(|pattern| repeats(pattern)) {
            let why = format!("{} {REPEATS}", brief(pattern));
            return Err(format!("has a pattern that cannot be used: correct it ({why})"));
        }
        // A panic in it must cost the file, not the loader.
        self.browsers = match catch_unwind(AssertUnwindSafe(|| Extractor::try_from(regexes))) {
            Ok(Ok(extractor)) => Some(extractor),
            Ok(Err(error)) => {
                let why = match &error {
                    ua_parser::Error::ParseError(ParseError::SyntaxError(text)) => brief(text),
                    other => brief(other),
                };
                return Err(format!("has a pattern that cannot be used: correct it ({why})"));
            }
            Err(_) => return Err("has a pattern that cannot be used: take the file of uap-core".to_owned()),
        };
        append(&mut self.by, &format!("{name} {}", hash(content)));
        Ok(None)
    }

    /// Uses what a `crawler-user-agents.json` holds, or says why that cannot be. The answer may name patterns
    /// that are left out.
    pub(super) fn add_bots(&mut self, name: &str, content: &[u8]) -> Result<Option<String>, String> {
        let none = |error: &str| {
            format!(
                "is no list of bots: crawler-user-agents.json is an array of objects that have a pattern \
                 ({error})"
            )
        };
        let rows: Vec<Value> = serde_json::from_slice(content).map_err(|error| none(&brief(&error)))?;
        let patterns = rows.iter().filter_map(|row| row.get("pattern")?.as_str());
        if patterns.clone().next().is_none() {
            return Err(none("no pattern in it"));
        }
        let mut usable = Vec::new();
        let mut refused = Vec::new();
        for pattern in patterns {
            match check(pattern) {
                Ok(()) => usable.push(pattern),
                Err(why) => refused.push(format!("{} ({why})", brief(&pattern))),
            }
        }
        let built = regex_filtered::Builder::new().push_all(&usable).map(regex_filtered::Builder::build);
        let (Ok(Ok(patterns)), false) = (built, usable.is_empty()) else {
            return Err(none(&format!("no pattern of it can be used: {}", first_of(&refused))));
        };
        let names = usable.into_iter().map(bot_of).collect();
        self.bots = Some(Bots { patterns, names });
        append(&mut self.by, &format!("{name} {}", hash(content)));
        Ok((!refused.is_empty()).then(|| {
            let (are, patterns) = if refused.len() == 1 { ("is", "pattern") } else { ("are", "patterns") };
            format!("has {} {patterns} that {are} left out: {}", refused.len(), first_of(&refused))
        }))
    }

    /// What is known of one.
    pub(super) fn agent(&self, text: &str) -> Agent {
        // Nothing has more characters than bytes.
        let end = (text.len() > LONGEST).then(|| text.char_indices().nth(LONGEST)).flatten();
        let text = end.map_or(text, |(end, _)| &text[..end]);
        let mut agent = Agent::default();
        let mut is_spider = false;
        if let Some(browsers) = &self.browsers {
            if let Some(found) = browsers.ua.extract(text) {
                agent.browser = known(&found.family);
                agent.browser_version = version([found.major, found.minor, found.patch]);
            }
            if let Some(found) = browsers.os.extract(text) {
                agent.os = known(&found.os);
                agent.os_version =
                    version([found.major.as_deref(), found.minor.as_deref(), found.patch.as_deref()]);
            }
            if let Some(found) = browsers.dev.extract(text) {
                is_spider = found.device == SPIDER;
                let device = known(&found.device).filter(|device| device != FROZEN_DEVICE);
                agent.device = device.filter(|_| !is_spider);
            }
        }
        agent.bot = self.bots.as_ref().and_then(|bots| bots.name(text));
        if agent.bot.is_none() && is_spider {
            agent.bot = agent.browser.clone().or_else(|| Some(SPIDER.to_owned()));
        }
        agent
    }
}

impl Bots {
    /// What the first pattern that matches is called.
    fn name(&self, text: &str) -> Option<String> {
        let (at, _) = self.patterns.matching(text).next()?;
        self.names.get(at).cloned()
    }
}

/// Whether a pattern can be used for bots, else why not.
fn check(pattern: &str) -> Result<(), String> {
    if repeats(pattern) {
        return Err(format!("it {REPEATS}"));
    }
    let built = catch_unwind(|| {
        let alone = regex_filtered::Builder::new().push(pattern).map_err(|error| reason(&error))?;
        let alone = alone.build().map_err(|error| brief(&error))?;
        Ok(alone.is_match(""))
    });
    match built {
        Ok(Ok(false)) => Ok(()),
        // It would make bots of everybody.
        Ok(Ok(true)) => Err("it matches an empty text".to_owned()),
        Ok(Err(why)) => Err(why),
        // A panic must cost the pattern, not the loader.
        Err(_) => Err("it makes no sense".to_owned()),
    }
}

/// Whether a pattern has something at least 64 times. `regex-filtered` 0.2.1 writes down all that such a
/// thing can be, if their number, as a power, overflows to a small one: for `[ab]{64}` it would never end.
fn repeats(pattern: &str) -> bool {
    pattern.split('{').skip(1).any(|rest| {
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<u64>().map_or(digits > 0, |times| times >= 64)
    })
}

/// What is wrong with a pattern.
fn reason(error: &ParseError) -> String {
    match error {
        // A drawing of the pattern, and then the reason.
        ParseError::SyntaxError(text) => {
            brief(&text.rsplit_once("error: ").map_or(text.as_str(), |(_, reason)| reason))
        }
        ParseError::RegexTooLarge(_) => "it is too large".to_owned(),
        ParseError::ProcessingError(error) => brief(error),
    }
}

/// The first of those that are left out, and how many more there are.
fn first_of(refused: &[String]) -> String {
    let named = refused.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match refused.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A text of uap-core, unless it stands for none.
fn known(text: &str) -> Option<String> {
    clean(text).filter(|text| text != "Other")
}

/// Numbers of a version up to the first that is missing.
fn version(numbers: [Option<&str>; 3]) -> Option<String> {
    let numbers = numbers.into_iter().map_while(|number| number.filter(|number| !number.is_empty()));
    clean(&numbers.collect::<Vec<_>>().join("."))
}

/// The first eight hexadecimal digits of the SHA-256.
fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// What the bot is called that a pattern finds: its words up to the first wildcard, without the syntax of
/// patterns. Of alternatives the first, of a set of letters a capital.
pub(super) fn bot_of(pattern: &str) -> String {
    let mut name = String::new();
    let mut chars = pattern.chars();
    let mut depth = 0u32;
    while let Some(char) = chars.next() {
        let literal = match char {
            // Classes such as \d have a letter.
            '\\' => chars.next().filter(|escaped| !escaped.is_ascii_alphanumeric()),
            '[' => {
                let set: Vec<char> = chars.by_ref().take_while(|char| *char != ']').collect();
                let capital = set.iter().find(|char| char.is_uppercase()).or(set.first());
                capital.copied().filter(|_| set.iter().all(|char| char.is_alphanumeric()))
            }
            '.' => None,
            '(' => {
                depth += 1;
                continue;
            }
            ')' => {
                depth = depth.saturating_sub(1);
                continue;
            }
            '|' if depth > 0 => {
                skip_group(&mut chars);
                depth -= 1;
                continue;
            }
            '|' if !name.trim().is_empty() => break,
            '|' | '^' | '$' | '?' | '*' | '+' => continue,
            char => Some(char),
        };
        match literal {
            Some(char) => name.push(char),
            None if name.chars().filter(|char| char.is_alphanumeric()).count() > 2 => break,
            None => name.clear(),
        }
    }
    // What follows in parentheses is an address.
    let whole = name.split(" (").next().unwrap_or_default();
    let whole = whole.trim_start_matches("https://").trim_start_matches("http://");
    let name = whole.trim_matches(|char: char| !char.is_alphanumeric());
    clean(name).or_else(|| clean(pattern)).unwrap_or_else(|| SPIDER.to_owned())
}

/// Goes behind the parenthesis that ends the group in which the next character is.
fn skip_group(chars: &mut std::str::Chars<'_>) {
    let mut depth = 1u32;
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '[' => drop(chars.by_ref().find(|char| *char == ']')),
            '(' => depth += 1,
            ')' if depth == 1 => return,
            ')' => depth -= 1,
            _ => {}
        }
    }
}
