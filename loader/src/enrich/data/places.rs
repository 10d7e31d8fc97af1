//! Places: in which country, region, city and network an address is, by MaxMind DB files.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use maxminddb::PathElement::{self, Index, Key};
use maxminddb::{LookupResult, Reader, WithinOptions};

use super::{Place, append, brief, clean};

/// A path to a member of a record.
type Member = &'static [PathElement<'static>];

// The flat one first: it is found, or not, at the first step.
const COUNTRY: &[Member] = &[&[Key("country_code")], &[Key("country"), Key("iso_code")]];
const REGION: &[Member] = &[&[Key("state1")], &[Key("subdivisions"), Index(0), Key("iso_code")]];
const CITY: &[Member] = &[&[Key("city")], &[Key("city"), Key("names"), Key("en")]];
const NUMBER: Member = &[Key("autonomous_system_number")];
const ORGANIZATION: &[Member] = &[&[Key("autonomous_system_organization")]];

/// How many networks are looked at for a member that is known.
const SAMPLE: usize = 100_000;

/// From what age on, in days, a file is named: one that is fetched once a year is not.
const OLD_DAYS: i64 = 400;

/// All that is known of addresses.
#[derive(Default)]
pub(super) struct Places {
    readers: Vec<Reader<Vec<u8>>>,
    /// What the files say they are, and of when.
    pub(super) by: Option<String>,
}

impl Places {
    /// Uses what a MaxMind DB file holds, or says why that cannot be. The answer may be that it is old.
    pub(super) fn add(
        &mut self,
        name: &str,
        content: Vec<u8>,
        now: SystemTime,
    ) -> Result<Option<String>, String> {
        let reader = Reader::from_source(content).map_err(|error| {
            let why = brief(&error);
            format!(
                "is no MaxMind DB file: unpack it if it is compressed, or fetch it again, as .mmdb ({why})"
            )
        })?;
        if !has_known_member(&reader) {
            return Err(
                "has none of country_code, country.iso_code, state1, subdivisions.0.iso_code, city, \
                        city.names.en, autonomous_system_number, autonomous_system_organization: take one of \
                        countries, cities or networks"
                    .to_owned(),
            );
        }
        let kind = clean(&reader.metadata().database_type);
        let built = i64::try_from(reader.metadata().build_epoch)
            .ok()
            .and_then(|built| DateTime::from_timestamp(built, 0));
        let date = built.map_or("of no date".to_owned(), |built| built.date_naive().to_string());
        append(&mut self.by, &format!("{} {date}", kind.as_deref().unwrap_or(name)));
        self.readers.push(reader);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
        let days = built.map_or(0, |built| (now - built.timestamp()) / 86_400);
        Ok((days > OLD_DAYS).then(|| {
            // A month has 30.44 days.
            format!("is of {date}, {} months old: fetch a newer one", days * 100 / 3044)
        }))
    }

    /// Where an address is.
    pub(super) fn place(&self, address: IpAddr) -> Place {
        let mut place = Place::default();
        for reader in &self.readers {
            // An error is an IPv6 address in a file of IPv4.
            let Ok(found) = reader.lookup(address) else { continue };
            if !found.has_data() {
                continue;
            }
            let Place { country, region, city, network } = &mut place;
            fill(country, || {
                text(&found, COUNTRY).filter(|code| code != "ZZ").map(|code| code.to_uppercase())
            });
            fill(region, || text(&found, REGION));
            fill(city, || text(&found, CITY));
            fill(network, || system(&found));
        }
        place
    }
}

/// What an earlier file said stays.
fn fill(part: &mut Option<String>, found: impl FnOnce() -> Option<String>) {
    if part.is_none() {
        *part = found();
    }
}

/// The first text at one of these paths. A dash stands for none in some files.
fn text(found: &LookupResult<'_, Vec<u8>>, paths: &[Member]) -> Option<String> {
    // An error is a member that is no text: `city` is one in the flat files only.
    let mut texts = paths.iter().filter_map(|path| found.decode_path::<&str>(path).ok().flatten());
    texts.find_map(clean).filter(|text| text != "-")
}

/// The autonomous system.
fn system(found: &LookupResult<'_, Vec<u8>>) -> Option<String> {
    // The reader takes a number only as what it was written; MaxMind writes the first.
    let short = || found.decode_path::<u32>(NUMBER).ok().flatten().map(u64::from);
    let number = short().or_else(|| found.decode_path::<u64>(NUMBER).ok().flatten());
    let number = number.filter(|number| *number > 0).map(|number| format!("AS{number}"));
    match (number, text(found, ORGANIZATION)) {
        (Some(number), Some(name)) => Some(format!("{number} {name}")),
        (number, name) => number.or(name),
    }
}

/// Whether any of the first networks has something that is looked for.
fn has_known_member(reader: &Reader<Vec<u8>>) -> bool {
    // With those that have no record: a damaged tree may have endless ways to none.
    let options = WithinOptions::default().include_networks_without_data();
    let Ok(networks) = reader.networks(options) else { return false };
    networks.take(SAMPLE).flatten().any(|found| {
        [COUNTRY, REGION, CITY, ORGANIZATION].into_iter().any(|paths| text(&found, paths).is_some())
            || system(&found).is_some()
    })
}
