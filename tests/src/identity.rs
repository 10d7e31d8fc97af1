//! The rules of docs/identity.md once more, one event after the other and without any thought of speed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::events;

/// An event of a device, an account, or both.
#[derive(Debug, Clone)]
pub struct Event {
    /// Of which its id is made.
    pub number: u64,
    /// Minutes since 2026-09-01.
    pub minute: u64,
    /// Who was logged in.
    pub account: Option<String>,
    /// Where.
    pub device: Option<String>,
    /// Whether it ends a login.
    pub logout: bool,
}

impl Event {
    /// As it is loaded, without the end of the line.
    pub fn line(&self) -> String {
        let (day, hour, minute) = (1 + self.minute / 1440, self.minute / 60 % 24, self.minute % 60);
        let mut line = format!(
            r#"{{"messageId":"{}","type":"track","event":"{}","timestamp":"2026-09-{day:02}T{hour:02}:{minute:02}:00Z""#,
            events::id(self.number),
            if self.logout { "Logged Out" } else { "page_viewed" }
        );
        for (name, id) in [("userId", &self.account), ("anonymousId", &self.device)] {
            if let Some(id) = id {
                write!(line, r#","{name}":"{id}""#).unwrap();
            }
        }
        line + "}"
    }
}

/// One that is no logout; an empty id is none.
pub fn event(number: u64, minute: u64, account: &str, device: &str) -> Event {
    let id = |id: &str| (!id.is_empty()).then(|| id.to_owned());
    Event { number, minute, account: id(account), device: id(device), logout: false }
}

/// What people said.
#[derive(Debug, Default)]
pub struct Said {
    /// In the order in which they count.
    pub links: Vec<(String, String)>,
    /// Kind and id.
    pub blocked: BTreeSet<(&'static str, String)>,
    /// The device, from and to in minutes, and the account.
    pub owners: Vec<(String, u64, u64, Option<String>)>,
}

/// Who each event is of, by the rules in docs/identity.md, one event after the other.
pub fn expected(all: &[Event], said: &Said) -> BTreeMap<u64, Option<String>> {
    let blocked =
        |kind, id: &Option<String>| id.as_ref().is_some_and(|id| said.blocked.contains(&(kind, id.clone())));
    let mut component: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (a, b) in &said.links {
        if [a, b].iter().any(|id| blocked("account", &Some((*id).clone()))) {
            continue;
        }
        let own = |id: &String| component.get(id).cloned().unwrap_or_else(|| BTreeSet::from([id.clone()]));
        let union: BTreeSet<_> = own(a).union(&own(b)).cloned().collect();
        if union.len() <= 4 {
            union.iter().for_each(|id| _ = component.insert(id.clone(), union.clone()));
        }
    }
    let person = |account: &String| {
        let first = |id: &String| {
            let own = all.iter().filter(|e| e.account.as_ref() == Some(id)).map(|e| e.minute).min();
            (own.unwrap_or(u64::MAX), id.clone())
        };
        component
            .get(account)
            .and_then(|all| all.iter().min_by_key(|id| first(id)))
            .unwrap_or(account)
            .clone()
    };
    // Logins and logouts of a device at one minute count as the smallest account, a logout only alone.
    let points = |device: &String| {
        let mut points: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for event in all.iter().filter(|e| e.device.as_ref() == Some(device)) {
            let account =
                event.account.clone().filter(|_| !event.logout && !blocked("account", &event.account));
            if account.is_some() || event.logout {
                let known = points.entry(event.minute).or_insert_with(|| account.clone());
                *known = match (known.take(), account) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        points
    };
    let owner = |device: &String, minute: u64| {
        let mut said = said.owners.iter().filter(|s| &s.0 == device && s.1 <= minute && minute < s.2);
        if let Some(said) = said.next() {
            return said.3.clone().filter(|id| !blocked("account", &Some(id.clone())));
        }
        let here = all.iter().filter(|e| e.device.as_ref() == Some(device) && !e.logout);
        let accounts = here.filter_map(|e| e.account.as_ref().filter(|_| !blocked("account", &e.account)));
        let points = points(device);
        if accounts.collect::<BTreeSet<_>>().len() > 5 {
            return None;
        }
        points.range(..=minute).next_back().or_else(|| points.iter().next()).and_then(|point| point.1.clone())
    };
    let known = |event: &Event| {
        if let Some(account) = event.account.as_ref().filter(|_| !blocked("account", &event.account)) {
            return Some(person(account));
        }
        let device = event.device.as_ref()?;
        if blocked("device", &event.device) {
            return None;
        }
        Some(owner(device, event.minute).map_or_else(|| device.clone(), |account| person(&account)))
    };
    all.iter().map(|event| (event.number, known(event))).collect()
}
