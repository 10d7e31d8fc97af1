//! What records become under a mapping: the same judgement as that of `load`, event by event.

use std::collections::BTreeMap;

use super::Sample;
use tidemark_loader::event::dead_letter::{Reason, Rejection};
use tidemark_loader::event::envelope::mapping::{Description, Format, Part, Source};
use tidemark_loader::event::envelope::{Coordinates, Limits};
use tidemark_loader::event::time::{self, Micros};
use uuid::Uuid;

/// Columns of silver.events that need more than the envelope, and where it looks for them: silver.context_of and the
/// context of Segment.
const SILVER: [(&str, &[&str]); 6] = [
    (
        "page",
        &[
            "/context/page/url",
            "/context/page/path",
            "/properties/url",
            "/properties/path",
            "/page_url",
            "/url_path",
            "/properties/$current_url",
            "/properties/$pathname",
            "/event_params/0",
            "/path",
            "/event_properties/[Amplitude] Page Location",
            "/event_properties/[Amplitude] Page Path",
            "/visit/idVisit",
            "/context_page_url",
        ],
    ),
    (
        "referrer",
        &[
            "/context/page/referrer",
            "/properties/referrer",
            "/page_referrer",
            "/referrer_domain",
            "/properties/$referrer",
            "/referrer",
            "/event_properties/referrer",
            "/visit/referrerUrl",
            "/context_page_referrer",
        ],
    ),
    (
        "campaign",
        &[
            "/context/campaign/source",
            "/context/campaign/medium",
            "/context/campaign/name",
            "/mkt_source",
            "/utm_source",
            "/properties/utm_source",
            "/event_properties/utm_source",
            "/collected_traffic_source/manual_source",
            "/visit/campaignSource",
            "/context_campaign_source",
        ],
    ),
    ("platform", &["/context/platform", "/platform", "/properties/$lib", "/properties/mp_lib"]),
    (
        "device",
        &[
            "/context/device/type",
            "/dvce_type",
            "/device",
            "/properties/$device_type",
            "/device/category",
            "/device_type",
            "/visit/deviceType",
            "/context_device_type",
        ],
    ),
    (
        "country",
        &[
            "/context/country",
            "/context/location/country",
            "/geo_country",
            "/country",
            "/properties/$geoip_country_code",
            "/properties/mp_country_code",
            "/geo/country",
            "/visit/countryCode",
            "/context_location_country",
        ],
    ),
];

/// An event that can be loaded.
pub(super) struct Loaded {
    pub(super) id: Uuid,
    pub(super) has_id: bool,
    pub(super) time: Micros,
    pub(super) kind: String,
    pub(super) user: Option<String>,
    pub(super) anonymous: Option<String>,
    pub(super) received: Option<Micros>,
}

/// Events that cannot be loaded for the same reason.
pub(super) struct Dead {
    pub(super) n: usize,
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// The first of their records, counted from 1.
    pub(super) record: usize,
    /// That event.
    pub(super) example: String,
}

/// What a sample is under a mapping.
pub(super) struct Look {
    pub(super) mapping: Description,
    pub(super) format: Format,
    pub(super) records: usize,
    pub(super) events: usize,
    pub(super) loaded: Vec<Loaded>,
    /// The most frequent first.
    pub(super) dead: Vec<Dead>,
    pub(super) silver: BTreeMap<&'static str, usize>,
    signs: usize,
}

impl Look {
    pub(super) fn of(sample: &Sample, mapping: Description, own: &[(Part, Source)]) -> Look {
        let format = Format::new(&mapping, own);
        let mut look = Look {
            mapping,
            format,
            records: sample.records.len(),
            events: 0,
            loaded: Vec::new(),
            dead: Vec::new(),
            silver: SILVER.iter().map(|(name, _)| (*name, 0)).collect(),
            signs: 0,
        };
        for (n, record) in sample.records.iter().enumerate() {
            let composed = look.format.compose(None, record);
            let record = composed.as_ref().unwrap_or(record);
            if let Some(events) = look.format.events_with_their_record(record) {
                for (index, event) in (1..).zip(&events) {
                    look.one(event, n, Some(index));
                }
                continue;
            }
            let whole = if look.format.is_split() { None } else { look.judge(record, n, None) };
            // As the loader does: what is no event may hold several.
            match (whole, look.format.events(record)) {
                (Some(loaded), _) => look.take(record, Ok(loaded), n),
                (None, Some(events)) => {
                    for (index, range) in (1..).zip(events) {
                        look.one(&record[range], n, Some(index));
                    }
                }
                (None, None) => look.one(record, n, None),
            }
        }
        look.dead.sort_by_key(|dead| std::cmp::Reverse(dead.n));
        look
    }

    /// The more, the better it fits: first what can be loaded, with its ids and persons, then what speaks for the source.
    pub(super) fn fit(&self) -> (usize, usize) {
        let known =
            |e: &Loaded| 2 + usize::from(e.has_id) + usize::from(e.user.is_some() || e.anonymous.is_some());
        (self.loaded.iter().map(known).sum(), self.signs)
    }

    /// Whether anything speaks for the source that the mapping is of.
    pub(super) fn has_signs(&self) -> bool {
        self.signs > 0
    }

    fn one(&mut self, event: &[u8], record: usize, index: Option<i32>) {
        let judged = self.event(event, record, index);
        self.take(event, judged, record);
    }

    fn judge(&self, event: &[u8], record: usize, index: Option<i32>) -> Option<Loaded> {
        self.event(event, record, index).ok()
    }

    fn event(&self, bytes: &[u8], record: usize, index: Option<i32>) -> Result<Loaded, Rejection> {
        let limits = Limits::default();
        let envelope = self.format.parse(bytes, &limits)?;
        let (received, has_id) = (envelope.received_at(), envelope.has_id());
        let at = Coordinates { topic: "file", partition: 0, offset: record as i64, index, bytes };
        let now = received.unwrap_or_else(time::now);
        let event = envelope.into_event(at, now, &limits).map_err(|e| self.format.explain(e))?;
        Ok(Loaded {
            id: event.event_id,
            has_id,
            time: event.event_time,
            kind: event.event_type.into_owned(),
            user: event.user_id.map(Into::into),
            anonymous: event.anonymous_id.map(Into::into),
            received,
        })
    }

    fn take(&mut self, event: &[u8], judged: Result<Loaded, Rejection>, record: usize) {
        self.events += 1;
        match judged {
            Ok(loaded) => {
                self.loaded.push(loaded);
                self.see(event);
            }
            Err(Rejection { reason, detail, .. }) => {
                match self.dead.iter_mut().find(|dead| dead.reason == reason && dead.detail == detail) {
                    Some(dead) => dead.n += 1,
                    None => self.dead.push(Dead {
                        n: 1,
                        reason,
                        detail,
                        record: record + 1,
                        example: String::from_utf8_lossy(event).into_owned(),
                    }),
                }
            }
        }
    }

    /// Notes what else an event has.
    fn see(&mut self, event: &[u8]) {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(event) else { return };
        let has = |pointer: &str| value.pointer(pointer).is_some_and(|value| !value.is_null() && value != "");
        self.signs += self.mapping.signs.iter().filter(|pointer| has(&pointer.to_string())).count();
        for (name, pointers) in SILVER {
            if pointers.iter().any(|pointer| has(pointer)) {
                *self.silver.entry(name).or_default() += 1;
            }
        }
    }
}
