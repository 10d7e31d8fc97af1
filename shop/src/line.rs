//! Writes one event as one line of JSON (a Segment-like envelope). Decides nothing about what happened or when.
//!
//! Written by hand and not by a serializer: the order of keys and the form of numbers are part of "same bytes", and it
//! is several times faster.

use super::Args;
use super::calendar::{DAY_MS, write_instant};
use super::catalog::{
    CATEGORIES, CHANNELS, COUNTRIES, Channel, Country, DEVICES, Device, FAMILIES, SEARCHES, VARIANTS, page,
    price_cents,
};
use super::rng::{Rng, mix};
use super::timeline::{Event, Timeline, VisitRecord, purpose};
use super::visit::Kind;

/// Whom shoppers buy for, if not for themselves.
const COMPANIES: [&str; 6] = [
    "Halden Roasters",
    "Ostrea Hotels",
    "Pell & Daughters",
    "Quay Kitchens",
    "Saltmarsh Inns",
    "Wick Bakery",
];

const SITE: &str = "https://shop.example";

/// What stands in the place of `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timestamp {
    /// When the event happened.
    Event,
    /// No such key.
    Missing,
    /// This text.
    Text(&'static str),
}

/// Writes lines for one timeline.
pub(super) struct LineWriter<'a> {
    args: &'a Args,
    timeline: &'a Timeline,
}

fn put(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, value: u64) {
    // Room for the 20 digits of u64::MAX.
    let mut digits = [0; 20];
    let (mut at, mut left) = (digits.len(), value);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// At least `width` digits, with leading zeros.
fn put_padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (1..width).rev() {
        if value < 10u64.pow(place) {
            out.push(b'0');
        } else {
            break;
        }
    }
    put_number(out, value);
}

fn put_money(out: &mut Vec<u8>, cents: u64) {
    put_number(out, cents / 100);
    out.push(b'.');
    put_padded(out, cents % 100, 2);
}

fn put_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (place * 4)) as usize & 15]);
    }
}

fn put_uuid(out: &mut Vec<u8>, high: u64, low: u64) {
    put_hex(out, high >> 32, 8);
    out.push(b'-');
    put_hex(out, high >> 16, 4);
    out.push(b'-');
    put_hex(out, high, 4);
    out.push(b'-');
    put_hex(out, low >> 48, 4);
    out.push(b'-');
    put_hex(out, low, 12);
}

fn put_product(out: &mut Vec<u8>, product: u16) {
    let variants = VARIANTS.len();
    let family = &FAMILIES[usize::from(product) / variants];
    put(out, &["{\"id\":\"p"]);
    put_padded(out, u64::from(product) + 1, 4);
    put(out, &["\",\"name\":\"", family.name, " ", VARIANTS[usize::from(product) % variants].0]);
    put(out, &["\",\"category\":\"", CATEGORIES[family.category].0, "\",\"price\":"]);
    put_money(out, price_cents(product));
}

fn put_path(out: &mut Vec<u8>, page: u16) {
    match page {
        page::HOME => put(out, &["/"]),
        page::CART => put(out, &["/cart"]),
        page::CHECKOUT => put(out, &["/checkout"]),
        page::CONFIRMATION => put(out, &["/checkout/thank-you"]),
        p if p >= page::PRODUCT => {
            let (product, variants) = (usize::from(p - page::PRODUCT), VARIANTS.len());
            put(out, &["/p/", FAMILIES[product / variants].slug, "-", VARIANTS[product % variants].1]);
        }
        p if p >= page::SEARCH => put(out, &["/search"]),
        p if p >= page::CATEGORY => put(out, &["/c/", CATEGORIES[usize::from(p - page::CATEGORY)].1]),
        _ => put(out, &["/account"]),
    }
}

fn put_title(out: &mut Vec<u8>, page: u16) {
    match page {
        page::HOME => put(out, &["Tide & Marrow"]),
        page::CART => put(out, &["Your cart"]),
        page::CHECKOUT => put(out, &["Checkout"]),
        page::CONFIRMATION => put(out, &["Thank you"]),
        p if p >= page::PRODUCT => {
            let (product, variants) = (usize::from(p - page::PRODUCT), VARIANTS.len());
            put(out, &[FAMILIES[product / variants].name, " ", VARIANTS[product % variants].0]);
        }
        p if p >= page::SEARCH => put(out, &["Search: ", SEARCHES[usize::from(p - page::SEARCH)].0]),
        p if p >= page::CATEGORY => put(out, &[CATEGORIES[usize::from(p - page::CATEGORY)].0]),
        _ => put(out, &["Your account"]),
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::PageViewed => "page_viewed",
        Kind::ProductViewed => "product_viewed",
        Kind::SearchPerformed => "search_performed",
        Kind::ProductAdded => "product_added",
        Kind::CheckoutStarted => "checkout_started",
        Kind::PurchaseCompleted => "purchase_completed",
        Kind::SignedUp => "signed_up",
        Kind::LoggedIn => "logged_in",
    }
}

/// The tables that a visit points into.
struct Around {
    visit: VisitRecord,
    country: &'static Country,
    device: &'static Device,
    channel: &'static Channel,
    campaign: &'static str,
}

impl<'a> LineWriter<'a> {
    pub(super) const fn new(args: &'a Args, timeline: &'a Timeline) -> Self {
        LineWriter { args, timeline }
    }

    /// Appends the line of `event`, without a newline. `copy` tells apart events made from the same event (other
    /// message ids); 0 for the event itself.
    pub(super) fn write(&self, out: &mut Vec<u8>, event: &Event, copy: u8, timestamp: Timestamp) {
        let visit = self.timeline.visits[event.visit as usize];
        let channel = &CHANNELS[usize::from(visit.channel)];
        let around = Around {
            visit,
            country: &COUNTRIES[usize::from(visit.country)],
            device: &DEVICES[usize::from(visit.device_class)],
            channel,
            campaign: channel.campaigns[usize::from(visit.campaign)],
        };
        // Distinct for every (user, number, copy) of a seed, and `mix` keeps them distinct.
        let identity = u64::from(visit.user) << 32 | u64::from(event.number);
        let mut rng = Rng::new(self.args.seed, purpose::LINE, u64::from(copy));
        let high = mix(identity ^ rng.next());
        let mut rng = Rng::new(high, purpose::LINE, self.args.seed);
        put(out, &["{\"messageId\":\""]);
        self.put_message_id(out, event, high, rng.next());
        put(out, &["\",\"type\":\"track\",\"event\":\"", name(event.kind), "\""]);
        match timestamp {
            Timestamp::Event => {
                put(out, &[",\"timestamp\":\""]);
                write_instant(out, event.happened_ms());
                out.push(b'"');
            }
            Timestamp::Missing => {}
            Timestamp::Text(text) => put(out, &[",\"timestamp\":\"", text, "\""]),
        }
        put(out, &[",\"receivedAt\":\""]);
        write_instant(out, event.received_ms);
        let width = self.args.user_digits();
        let user = u64::from(visit.user) + 1;
        if event.known {
            put(out, &["\",\"userId\":\"u"]);
            put_padded(out, user, width);
        }
        put(out, &["\",\"anonymousId\":\"a"]);
        put_padded(out, user, width);
        out.push(b'-');
        put_number(out, u64::from(visit.device));
        put(out, &["\",\"properties\":{"]);
        self.put_properties(out, event, &around, &mut rng);
        put(out, &["},\"context\":{"]);
        self.put_context(out, event, &around);
        put(out, &["}}"]);
    }

    fn put_message_id(&self, out: &mut Vec<u8>, event: &Event, high: u64, low: u64) {
        let low = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
        let high = match self.args.id_version {
            super::IdVersion::V4 => high & !0xf000 | 0x4000,
            super::IdVersion::V7 => event.happened_ms() << 16 | 0x7000 | high & 0xfff,
        };
        put_uuid(out, high, low);
    }

    fn put_properties(&self, out: &mut Vec<u8>, event: &Event, around: &Around, rng: &mut Rng) {
        match event.kind {
            Kind::PageViewed => {
                let (median, sigma) = if around.device.is_app() { (310, 50) } else { (780, 62) };
                let load = rng.log_normal(median, sigma) * around.country.load_percent / 100;
                put(out, &["\"performance\":{\"load_ms\":"]);
                put_number(out, load.max(15));
                put(out, &["}"]);
            }
            Kind::ProductViewed => {
                put(out, &["\"product\":"]);
                put_product(out, event.page - page::PRODUCT);
                put(out, &["},\"currency\":\"", around.country.currency, "\""]);
            }
            Kind::SearchPerformed => {
                let (query, results) = SEARCHES[usize::from(event.page - page::SEARCH)];
                put(out, &["\"search\":{\"query\":\"", query, "\",\"results\":"]);
                put_number(out, u64::from(results));
                put(out, &["}"]);
            }
            Kind::ProductAdded => {
                if let Some((product, quantity)) = self.timeline.carts.lines(event.cart).last() {
                    put(out, &["\"product\":"]);
                    put_product(out, product);
                    put(out, &[",\"quantity\":"]);
                    put_number(out, u64::from(quantity));
                    put(out, &["},"]);
                }
                self.put_cart(out, event, around);
            }
            Kind::CheckoutStarted => self.put_cart(out, event, around),
            Kind::PurchaseCompleted => self.put_order(out, event, around, rng),
            Kind::SignedUp | Kind::LoggedIn => {
                let method = ["password", "google", "apple"][rng.weighted([70, 20, 10])];
                put(out, &["\"method\":\"", method, "\""]);
            }
        }
    }

    fn subtotal_cents(&self, event: &Event) -> u64 {
        self.timeline.carts.lines(event.cart).map(|(product, n)| price_cents(product) * u64::from(n)).sum()
    }

    fn put_cart(&self, out: &mut Vec<u8>, event: &Event, around: &Around) {
        let pieces = self.timeline.carts.lines(event.cart).map(|line| u64::from(line.1)).sum();
        put(out, &["\"cart\":{\"items\":"]);
        put_number(out, pieces);
        put(out, &[",\"total\":"]);
        put_money(out, self.subtotal_cents(event));
        put(out, &[",\"currency\":\"", around.country.currency, "\"}"]);
    }

    fn put_order(&self, out: &mut Vec<u8>, event: &Event, around: &Around, rng: &mut Rng) {
        let subtotal = self.subtotal_cents(event);
        let shipping = if subtotal >= 5_000 { 0 } else { 490 };
        put(out, &["\"order\":{\"id\":\"o"]);
        put_hex(out, rng.next(), 12);
        put(out, &["\",\"total\":"]);
        put_money(out, subtotal + shipping);
        put(out, &[",\"subtotal\":"]);
        put_money(out, subtotal);
        put(out, &[",\"shipping\":"]);
        put_money(out, shipping);
        let payment = ["card", "paypal", "invoice", "wallet"][rng.weighted([46, 30, 12, 12])];
        put(
            out,
            &[",\"currency\":\"", around.country.currency, "\",\"payment\":\"", payment, "\",\"items\":["],
        );
        for (position, (product, quantity)) in self.timeline.carts.lines(event.cart).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            put_product(out, product);
            put(out, &[",\"quantity\":"]);
            put_number(out, u64::from(quantity));
            out.push(b'}');
        }
        put(out, &["]}"]);
    }

    /// What is true of a shopper with an account at that time. It follows from who and when alone, so that it costs no
    /// event and no other value of the file.
    fn put_traits(&self, out: &mut Vec<u8>, event: &Event, around: &Around) {
        let salt = mix(self.args.seed ^ mix(u64::from(around.visit.user)));
        let day = (event.happened_ms() / DAY_MS).saturating_sub(self.args.start.days());
        // A third of them pays from some day on, and leaves again.
        let from = salt % 30;
        let until = from + 5 + (salt >> 8) % 40;
        let plan = match (salt >> 16) % 3 {
            0 if (from..until).contains(&day) => "plus",
            _ => "free",
        };
        put(out, &["\"traits\":{\"plan\":\"", plan, "\",\"company\":"]);
        match COMPANIES.get((salt >> 32) as usize % 24) {
            Some(company) if day < 10 + (salt >> 24) % 40 => put(out, &["\"", company, "\"},"]),
            _ => put(out, &["null},"]),
        }
    }

    fn put_context(&self, out: &mut Vec<u8>, event: &Event, around: &Around) {
        if matches!(event.kind, Kind::SignedUp | Kind::LoggedIn) {
            self.put_traits(out, event, around);
        }
        let landing = event.previous == page::OUTSIDE;
        put(out, &["\"page\":{\"path\":\""]);
        put_path(out, event.page);
        put(out, &["\",\"title\":\""]);
        put_title(out, event.page);
        put(out, &["\",\"url\":\"", SITE]);
        put_path(out, event.page);
        if landing {
            put_campaign_query(out, around);
        }
        // No key instead of an empty referrer, as browsers' libraries do.
        if !landing {
            put(out, &["\",\"referrer\":\"", SITE]);
            put_path(out, event.previous);
        } else if !around.channel.referrer.is_empty() {
            put(out, &["\",\"referrer\":\"", around.channel.referrer]);
        }
        put(out, &["\"}"]);
        if !around.channel.referrer.is_empty() {
            put(out, &[",\"referrer\":\"", around.channel.referrer, "\""]);
        }
        if !around.channel.source.is_empty() {
            let Channel { source, medium, click, .. } = around.channel;
            put(out, &[",\"campaign\":{\"source\":\"", source, "\",\"medium\":\"", medium]);
            put(out, &["\",\"name\":\"", around.campaign]);
            if !click.is_empty() {
                put(out, &["\",\"", click, "\":\""]);
                put_hex(out, around.visit.salt, 16);
            }
            put(out, &["\"}"]);
        }
        let device = around.device;
        put(
            out,
            &[",\"device\":{\"type\":\"", device.kind, "\",\"os\":\"", device.os, "\",\"osVersion\":\""],
        );
        put(
            out,
            &[
                device.os_version,
                if device.is_app() { "\",\"model\":\"" } else { "\",\"browser\":\"" },
                device.model,
                "\"},\"platform\":\"",
                device.platform,
            ],
        );
        if device.is_app() {
            // A release every fortnight; a third of the installs are one behind.
            let releases = (event.happened_ms() / DAY_MS).saturating_sub(self.args.start.days()) / 14;
            put(out, &["\",\"app\":{\"version\":\"4."]);
            put_number(out, (7 + releases).saturating_sub(u64::from(around.visit.user.is_multiple_of(3))));
            put(out, &[".0\"},\"country\":\""]);
        } else {
            put(out, &["\",\"country\":\""]);
        }
        let Country { code, locale, zone, .. } = around.country;
        put(out, &[code, "\",\"locale\":\"", locale, "\",\"timezone\":\"", zone, "\""]);
    }
}

fn put_campaign_query(out: &mut Vec<u8>, around: &Around) {
    let Channel { source, medium, click, .. } = around.channel;
    if source.is_empty() {
        return;
    }
    put(out, &["?utm_source=", source, "&utm_medium=", medium, "&utm_campaign=", around.campaign]);
    if !click.is_empty() {
        put(out, &["&", click, "="]);
        put_hex(out, around.visit.salt, 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_in_full() {
        assert_eq!(text(|out| put_number(out, 0)), "0");
        assert_eq!(text(|out| put_number(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(text(|out| put_padded(out, 42, 6)), "000042");
        assert_eq!(text(|out| put_padded(out, 1_234_567, 6)), "1234567");
        assert_eq!(text(|out| put_padded(out, 0, 2)), "00");
        assert_eq!(text(|out| put_money(out, 4_905)), "49.05");
        assert_eq!(
            text(|out| put_uuid(out, 0x0123_4567_89ab_4def, 0x8123_4567_89ab_cdef)),
            "01234567-89ab-4def-8123-456789abcdef"
        );
    }
}
