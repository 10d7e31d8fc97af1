//! What records become under a mapping: the same judgement as that of `load`, event by event.

use std::collections::BTreeMap;

use super::Sample;
use tidemark_loader::event::dead_letter::{Reason, Rejection};
use tidemark_loader::event::envelope::mapping::{Description, Format, Part, Source};
use tidemark_loader::event::envelope::{Coordinates, Limits};
use tidemark_loader::event::time::{self, Micros};
use uuid::Uuid;

/// Columns of silver.events that need more than the envelope.
const SILVER: [&str; 6] = ["page", "referrer", "campaign", "platform", "device", "country"];

/// Where silver looks for them in the events of a system.
struct Shape {
    /// It is recognized by one of these, and by all of those.
    any: &'static [&'static str],
    all: &'static [&'static str],
    columns: [&'static [&'static str]; SILVER.len()],
}

/// As silver.context_of has them, in its order; the first one is Segment's context, which goes before it.
const SHAPES: [Shape; 9] = [
    Shape {
        any: &[],
        all: &["/context"],
        columns: [
            &["/context/page/url", "/context/page/path"],
            &["/context/page/referrer"],
            &["/context/campaign/source", "/context/campaign/medium", "/context/campaign/name"],
            &["/context/platform"],
            &["/context/device/type"],
            &["/context/country", "/context/location/country"],
        ],
    },
    // Snowplow
    Shape {
        any: &["/collector_tstamp", "/derived_tstamp"],
        all: &[],
        columns: [
            &["/page_url", "/page_urlpath"],
            &["/page_referrer"],
            &["/mkt_source", "/mkt_medium", "/mkt_campaign"],
            &["/platform"],
            &["/dvce_type"],
            &["/geo_country"],
        ],
    },
    // Umami, whose platform is the web
    Shape {
        any: &[],
        all: &["/url_path", "/website_id"],
        columns: [
            &["/url_path"],
            &["/referrer_domain"],
            &["/utm_source", "/utm_medium", "/utm_campaign"],
            &["/website_id"],
            &["/device"],
            &["/country"],
        ],
    },
    // PostHog and Mixpanel
    Shape {
        any: &["/properties/$current_url", "/properties/$pathname", "/properties/$lib", "/properties/mp_lib"],
        all: &[],
        columns: [
            &["/properties/$current_url", "/properties/$pathname", "/properties/current_url_path"],
            &["/properties/$referrer"],
            &["/properties/utm_source", "/properties/utm_medium", "/properties/utm_campaign"],
            &["/properties/$lib", "/properties/mp_lib"],
            &["/properties/$device_type"],
            &["/properties/$geoip_country_code", "/properties/mp_country_code"],
        ],
    },
    // Amplitude
    Shape {
        any: &[],
        all: &["/event_properties", "/device_id"],
        columns: [
            &["/event_properties/[Amplitude] Page Location", "/event_properties/[Amplitude] Page Path"],
            &["/event_properties/referrer"],
            &[
                "/event_properties/utm_source",
                "/event_properties/utm_medium",
                "/event_properties/utm_campaign",
            ],
            &["/platform"],
            &["/device_type"],
            &["/country"],
        ],
    },
    // Google Analytics 4, whose parameters are a list of names and values
    Shape {
        any: &[],
        all: &["/event_params/0"],
        columns: [
            &["/event_params/page_location"],
            &["/event_params/page_referrer"],
            &["/collected_traffic_source/manual_source", "/event_params/source", "/event_params/medium"],
            &["/platform"],
            &["/device/category"],
            &["/geo/country"],
        ],
    },
    // Matomo
    Shape {
        any: &[],
        all: &["/visit/idVisit"],
        columns: [
            &["/url"],
            &["/visit/referrerUrl"],
            &["/visit/campaignSource"],
            &[],
            &["/visit/deviceType"],
            &["/visit/countryCode"],
        ],
    },
    // Tables of Segment and RudderStack in a warehouse
    Shape {
        any: &["/context_page_url", "/context_library_name", "/context_ip"],
        all: &[],
        columns: [
            &["/context_page_url", "/url", "/context_page_path", "/path"],
            &["/context_page_referrer", "/referrer"],
            &["/context_campaign_source", "/context_campaign_medium", "/context_campaign_name"],
            &[],
            &["/context_device_type"],
            &["/context_location_country"],
        ],
    },
    // A web server's log
    Shape {
        any: &[],
        all: &["/remote_addr", "/status"],
        columns: [&["/path"], &["/referrer"], &[], &[], &[], &[]],
    },
];

/// And where page views describe their page whatever they are of.
const VIEWS: [&[&str]; 2] = [&["/properties/url", "/properties/path"], &["/properties/referrer"]];

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
            silver: SILVER.iter().map(|name| (*name, 0)).collect(),
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
        let has = |pointer: &str| match (value.pointer(pointer), pointer.rsplit_once('/')) {
            (Some(value), _) => !value.is_null() && value != "",
            (None, Some((list, name))) => value
                .pointer(list)
                .and_then(serde_json::Value::as_array)
                .is_some_and(|list| list.iter().any(|item| item.get("key").is_some_and(|key| key == name))),
            (None, None) => false,
        };
        self.signs += self.mapping.signs.iter().filter(|pointer| has(&pointer.to_string())).count();
        let there = |pointer: &&str| value.pointer(pointer).is_some();
        let shape = SHAPES.iter().find(|shape| {
            (shape.any.is_empty() || shape.any.iter().any(there)) && shape.all.iter().all(there)
        });
        for (n, name) in SILVER.into_iter().enumerate() {
            let of_shape = shape.map_or(&[][..], |shape| shape.columns[n]);
            let of_views = VIEWS.get(n).copied().unwrap_or_default();
            if of_shape.iter().chain(of_views).any(|pointer| has(pointer)) {
                *self.silver.entry(name).or_default() += 1;
            }
        }
    }
}
