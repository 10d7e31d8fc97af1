//! What the shop knows: products, pages, search terms, countries, devices, channels. Tables only, no behaviour.
//!
//! Strings are written into JSON as they stand, so they hold their JSON escapes already (`\"`), never a raw quote.

/// One product family; each comes in every [`VARIANTS`] variant.
pub(super) struct Family {
    pub(super) category: usize,
    pub(super) name: &'static str,
    pub(super) slug: &'static str,
    pub(super) cents: u64,
}

const fn family(category: usize, name: &'static str, slug: &'static str, cents: u64) -> Family {
    Family { category, name, slug, cents }
}

/// (name, slug)
pub(super) const CATEGORIES: [(&str, &str); 7] = [
    ("Kitchen", "kitchen"),
    ("Living", "living"),
    ("Garden", "garden"),
    ("Office", "office"),
    ("Outdoor", "outdoor"),
    ("Kids", "kids"),
    ("Café & Tea", "cafe-tea"),
];

/// (name, slug, price in percent of the family's price)
pub(super) const VARIANTS: [(&str, &str, u64); 5] = [
    ("Classic", "classic", 100),
    ("Nordic", "nordic", 115),
    ("Compact", "compact", 80),
    ("Pro", "pro", 165),
    ("Öko", "oeko", 125),
];

pub(super) const FAMILIES: [Family; 36] = [
    family(0, "Chef's Knife", "chefs-knife", 4_990),
    family(0, "Cast Iron Pan 28 cm", "cast-iron-pan", 3_950),
    family(0, "Crème Brûlée Set", "creme-brulee-set", 2_490),
    family(0, "Cutting Board", "cutting-board", 1_990),
    family(0, "Kitchen Scale", "kitchen-scale", 2_290),
    family(0, "Storage Jar", "storage-jar", 890),
    family(1, "Floor Lamp", "floor-lamp", 8_900),
    family(1, "Wool Throw", "wool-throw", 5_900),
    family(1, "Picture Frame 12\\\"", "picture-frame", 1_490),
    family(1, "Side Table", "side-table", 12_900),
    family(1, "Scented Candle", "scented-candle", 1_690),
    family(1, "Wall Clock", "wall-clock", 3_490),
    family(2, "Raised Bed", "raised-bed", 7_990),
    family(2, "Pruning Shears", "pruning-shears", 2_790),
    family(2, "Watering Can", "watering-can", 1_890),
    family(2, "Fire Bowl", "fire-bowl", 9_900),
    family(2, "Herb Seeds", "herb-seeds", 490),
    family(3, "Desk Lamp", "desk-lamp", 4_590),
    family(3, "Standing Desk", "standing-desk", 39_900),
    family(3, "Notebook A5", "notebook-a5", 1_290),
    family(3, "Monitor Stand", "monitor-stand", 5_490),
    family(3, "Fountain Pen", "fountain-pen", 3_290),
    family(4, "Trail Backpack 30 l", "trail-backpack", 10_900),
    family(4, "Vacuum Flask", "vacuum-flask", 2_990),
    family(4, "Headlamp", "headlamp", 3_590),
    family(4, "Hammock", "hammock", 6_490),
    family(4, "Picnic Blanket", "picnic-blanket", 2_690),
    family(5, "Wooden Train", "wooden-train", 3_990),
    family(5, "Building Blocks", "building-blocks", 2_890),
    family(5, "Puzzle 500", "puzzle-500", 1_590),
    family(5, "Night Light", "night-light", 1_990),
    family(6, "Pour Over Set", "pour-over-set", 3_490),
    family(6, "Hand Grinder", "hand-grinder", 6_990),
    family(6, "Espresso Beans 1 kg", "espresso-beans", 2_190),
    family(6, "Matcha Bowl", "matcha-bowl", 2_590),
    family(6, "Teapot", "teapot", 4_290),
];

pub(super) const PRODUCTS: u16 = (FAMILIES.len() * VARIANTS.len()) as u16;

/// Price of a product in cents, always ending in 0 like the prices of a shop.
pub(super) const fn price_cents(product: u16) -> u64 {
    let variants = VARIANTS.len();
    let (family, variant) = (product as usize / variants, product as usize % variants);
    FAMILIES[family].cents * VARIANTS[variant].2 / 1_000 * 10
}

/// (query, results)
pub(super) const SEARCHES: [(&str, u32); 24] = [
    ("knife", 5),
    ("lamp", 15),
    ("gift", 48),
    ("coffee grinder", 5),
    ("desk", 20),
    ("teapot", 5),
    ("backpack", 5),
    ("candle", 5),
    ("puzzle", 5),
    ("garden", 25),
    ("cast iron", 5),
    ("blanket", 10),
    ("crème brûlée", 5),
    ("frame 12\\\"", 5),
    ("wooden toys", 10),
    ("espresso", 5),
    ("notebook", 5),
    ("hammock", 5),
    ("抹茶", 5),
    ("dishwasher", 0),
    ("vase", 0),
    ("gift 🎁", 48),
    ("standing desk", 5),
    ("thermos", 0),
];

/// Where shoppers live. Offsets from UTC are those of September, all year.
pub(super) struct Country {
    pub(super) code: &'static str,
    pub(super) offset_minutes: i64,
    pub(super) locale: &'static str,
    pub(super) zone: &'static str,
    pub(super) currency: &'static str,
    pub(super) weight: u32,
    /// Page load time in percent of the base.
    pub(super) load_percent: u64,
}

macro_rules! countries {
    ($(($code:literal, $offset:literal, $locale:literal, $zone:literal, $currency:literal, $weight:literal,
        $load:literal),)*) => {
        pub(super) const COUNTRIES: &[Country] = &[$(Country {
            code: $code, offset_minutes: $offset, locale: $locale, zone: $zone, currency: $currency,
            weight: $weight, load_percent: $load,
        },)*];
    };
}

countries![
    ("DE", 120, "de-DE", "Europe/Berlin", "EUR", 24, 90),
    ("US", -240, "en-US", "America/New_York", "USD", 20, 120),
    ("GB", 60, "en-GB", "Europe/London", "GBP", 12, 95),
    ("FR", 120, "fr-FR", "Europe/Paris", "EUR", 10, 95),
    ("NL", 120, "nl-NL", "Europe/Amsterdam", "EUR", 6, 85),
    ("ES", 120, "es-ES", "Europe/Madrid", "EUR", 6, 105),
    ("PL", 120, "pl-PL", "Europe/Warsaw", "EUR", 5, 105),
    ("IN", 330, "en-IN", "Asia/Kolkata", "USD", 5, 190),
    ("BR", -180, "pt-BR", "America/Sao_Paulo", "USD", 4, 180),
    ("JP", 540, "ja-JP", "Asia/Tokyo", "USD", 4, 150),
    ("CA", -420, "en-CA", "America/Vancouver", "USD", 2, 130),
    ("AU", 600, "en-AU", "Australia/Sydney", "USD", 2, 170),
];

/// A kind of device; the platform decides whether it has an app.
pub(super) struct Device {
    pub(super) platform: &'static str,
    pub(super) kind: &'static str,
    pub(super) os: &'static str,
    pub(super) os_version: &'static str,
    /// Model of the device; for the web platform, the browser.
    pub(super) model: &'static str,
    pub(super) weight: u32,
}

impl Device {
    pub(super) fn is_app(&self) -> bool {
        self.platform != "web"
    }

    /// Devices that are carried about lose their connection more often.
    pub(super) fn is_mobile(&self) -> bool {
        self.kind != "desktop"
    }
}

macro_rules! devices {
    ($(($platform:literal, $kind:literal, $os:literal, $version:literal, $model:literal, $weight:literal),)*) => {
        pub(super) const DEVICES: &[Device] = &[$(Device {
            platform: $platform, kind: $kind, os: $os, os_version: $version, model: $model, weight: $weight,
        },)*];
    };
}

devices![
    ("web", "desktop", "Windows", "11", "Chrome 140", 20),
    ("web", "desktop", "macOS", "15.6", "Safari 18", 10),
    ("web", "desktop", "Linux", "6.12", "Firefox 142", 3),
    ("web", "mobile", "iOS", "18.6", "Safari 18", 14),
    ("web", "mobile", "Android", "15", "Chrome 140", 15),
    ("web", "tablet", "iPadOS", "18.6", "Safari 18", 3),
    ("ios", "mobile", "iOS", "18.6", "iPhone15,4", 9),
    ("ios", "mobile", "iOS", "17.7", "iPhone13,2", 4),
    ("ios", "tablet", "iPadOS", "18.6", "iPad14,1", 2),
    ("android", "mobile", "Android", "15", "Pixel 9", 5),
    ("android", "mobile", "Android", "14", "SM-S911B", 11),
    ("android", "mobile", "Android", "12", "Redmi Note 11", 4),
];

/// Where a visit came from. `source` is empty without utm parameters, `referrer` without a referring page.
pub(super) struct Channel {
    pub(super) source: &'static str,
    pub(super) medium: &'static str,
    pub(super) referrer: &'static str,
    /// Name of the click id parameter that the ad network adds; empty for none.
    pub(super) click: &'static str,
    pub(super) campaigns: &'static [&'static str],
    pub(super) weight: u32,
}

macro_rules! channels {
    ($(($source:literal, $medium:literal, $referrer:literal, $click:literal, $campaigns:expr, $weight:literal),)*) => {
        pub(super) const CHANNELS: &[Channel] = &[$(Channel {
            source: $source, medium: $medium, referrer: $referrer, click: $click, campaigns: $campaigns,
            weight: $weight,
        },)*];
    };
}

/// The channel of a visit without any trace of where it came from.
pub(super) const DIRECT: u8 = 0;

channels![
    ("", "", "", "", &[""], 18),
    ("", "", "https://www.google.com/", "", &[""], 22),
    ("google", "cpc", "https://www.google.com/", "gclid", &["brand", "autumn-sale", "kitchen-generic"], 18),
    ("facebook", "paid_social", "https://l.facebook.com/", "fbclid", &["autumn-sale", "lookalike-eu"], 10),
    ("instagram", "social", "https://l.instagram.com/", "", &["stories", "creator-collab"], 6),
    ("newsletter", "email", "", "", &["weekly-36", "weekly-37", "welcome-series", "win-back"], 9),
    ("bing", "cpc", "https://www.bing.com/", "msclkid", &["brand"], 4),
    ("", "", "https://duckduckgo.com/", "", &[""], 3),
    ("bestdeals", "affiliate", "https://bestdeals.example/top-10", "", &["partner-2026"], 4),
    ("", "", "https://homeblog.example/best-lamps", "", &[""], 4),
    ("youtube", "video", "https://www.youtube.com/", "gclid", &["unboxing"], 2),
];

/// Where on the site an event happened, packed into 16 bits.
pub(super) mod page {
    pub(crate) const HOME: u16 = 0;
    pub(crate) const CART: u16 = 1;
    pub(crate) const CHECKOUT: u16 = 2;
    pub(crate) const CONFIRMATION: u16 = 3;
    pub(crate) const ACCOUNT: u16 = 4;
    /// `CATEGORY + index`
    pub(crate) const CATEGORY: u16 = 100;
    /// `SEARCH + index`
    pub(crate) const SEARCH: u16 = 200;
    /// `PRODUCT + index`
    pub(crate) const PRODUCT: u16 = 1_000;
    /// As the previous page: the visit starts here.
    pub(crate) const OUTSIDE: u16 = u16::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_a_valid_json_string() {
        let texts = CATEGORIES
            .iter()
            .flat_map(|c| [c.0, c.1])
            .chain(FAMILIES.iter().flat_map(|f| [f.name, f.slug]))
            .chain(VARIANTS.iter().flat_map(|v| [v.0, v.1]))
            .chain(SEARCHES.iter().map(|s| s.0));
        for text in texts {
            let quoted = format!("\"{text}\"");
            assert!(serde_json::from_str::<String>(&quoted).is_ok(), "{quoted}");
        }
    }

    #[test]
    fn codes_of_pages_do_not_overlap() {
        assert!(page::CATEGORY as usize + CATEGORIES.len() <= page::SEARCH as usize);
        assert!(page::SEARCH as usize + SEARCHES.len() <= page::PRODUCT as usize);
        const { assert!(page::PRODUCT + PRODUCTS < page::OUTSIDE) };
        assert!(FAMILIES.iter().all(|family| family.category < CATEGORIES.len()));
    }
}
