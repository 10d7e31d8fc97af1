//! Default channel grouping: which marketing channel a visit came from.
//!
//! [`channel_group`] applies the rules below; the well-known sources are in `tables`. The rules follow the order that
//! Google Analytics 4 and PostHog use. What does not live here: parsing URLs or query strings.
//!
//! # Inputs
//!
//! Compared without regard to ASCII case, blanks around them ignored; nothing beyond 1000 bytes is read. Absent are:
//! NULL, the empty string, `null`, `(none)`, `(not set)`, and `direct`, `(direct)`, `$direct`. A referrer on the site's
//! own host should be given as NULL.
//!
//! * A **source** or **referrer** has a *kind* when `tables` knows it: search, social, video, shopping, email, SMS,
//!   push, audio, affiliates or display. A source is a name (`google`, `fb`) or a host. A host matches by its ending:
//!   `l.facebook.com` is `facebook.com`; large brands match under any country's suffix: `www.google.co.uk` is `google`,
//!   `google.example.com` is not. The most specific entry wins: `mail.google.com` is email, not search.
//! * A **click id** is the name of the URL parameter, optionally followed by `=` and its value: `gclid`,
//!   `gad_source=1`.
//! * A **shopping campaign** contains `shopping`, or `shop` that does not continue a word (`e` may precede it: `eshop`);
//!   a **video campaign** contains `video`.
//!
//! # Rules
//!
//! The first rule that applies decides.
//!
//! | # | condition | channel |
//! |---|---|---|
//! | 1 | campaign contains `cross-network` | Cross Network |
//! | 2 | **paid**: medium is `cpc`, `cpm`, `cpv`, `cpa`, `ppc` or `retargeting`, or starts with `paid`, or a paid click id | 3 to 11 |
//! | 3 | paid, and the source's kind is search, social, video or shopping | Paid Search, Paid Social, Paid Video, Paid Shopping |
//! | 4 | paid, shopping campaign | Paid Shopping |
//! | 5 | paid, medium contains `search`, `social`, `video` or `shopping`, or is `cpv` (video) | as in rule 3 |
//! | 6 | paid, medium is `cpm`, `display`, `banner`, `expandable` or `interstitial` | Display |
//! | 7 | paid, and the referrer's kind is search, social, video or shopping | as in rule 3 |
//! | 8 | paid, click id `gad_source=1`, `msclkid` or `yclid` | Paid Search |
//! | 9 | paid, click id `dclid` | Display |
//! | 10 | paid, video campaign | Paid Video |
//! | 11 | paid, click id `fbclid` or a paid one of a social network; any other paid visit | Paid Social; Paid Other |
//! | 12 | no source, medium, referrer or click id | Direct |
//! | 13 | medium `display`, `banner`, `expandable`, `interstitial` | Display |
//! | 14 | the source has a kind | the organic channel of search, social, video or shopping; or that of its kind |
//! | 15 | shopping campaign | Organic Shopping |
//! | 16 | the medium says it, see below | as it says |
//! | 17 | the referrer has a kind | as in rule 14 |
//! | 18 | video campaign | Organic Video |
//! | 19 | click id `fbclid` | Organic Social |
//! | 20 | there is a referrer | Referral |
//! | 21 | otherwise (tagged, but with nothing known) | Unknown |
//!
//! **Paid click ids** are those that only advertisements set: `gclid`, `gbraid`, `wbraid`, `gad_source`, `dclid`, `msclkid`
//! and `yclid`; of social networks `ttclid`, `twclid`, `li_fat_id`, `rdt_cid`, `sccid` and `epik`.
//!
//! **Kinds** of sources and referrers beside search, social, video and shopping: Email, SMS, Push, Audio, Affiliates,
//! Display.
//!
//! **Media** of rule 16: `organic` is Organic Search; `social`, `sm` and the spellings of social network and media are
//! Organic Social; `shopping` is Organic Shopping; email in its spellings and `newsletter` are Email; `sms` is SMS;
//! `affiliate` and `affiliates` are Affiliates; `audio` and `podcast` are Audio; what contains `video` is Organic Video;
//! what ends with `push`, or contains `mobile` or `notification`, is Push; `referral`, `app` and `link` are Referral.

mod tables;
#[cfg(test)]
mod tests;

use tables::Kind;

/// All answers of [`channel_group`].
pub const CHANNELS: [&str; 19] = [
    "Cross Network",
    "Paid Search",
    "Paid Social",
    "Paid Video",
    "Paid Shopping",
    "Paid Other",
    "Direct",
    "Organic Search",
    "Organic Social",
    "Organic Video",
    "Organic Shopping",
    "Email",
    "SMS",
    "Push",
    "Audio",
    "Affiliates",
    "Display",
    "Referral",
    "Unknown",
];

/// The channel of a visit by the [rules](self); always one of [`CHANNELS`]. Total: any text is accepted, nothing is
/// allocated.
pub fn channel_group(
    utm_source: Option<&str>,
    utm_medium: Option<&str>,
    utm_campaign: Option<&str>,
    referrer_host: Option<&str>,
    click_id: Option<&str>,
) -> &'static str {
    let (source, medium) = (present(utm_source), present(utm_medium));
    let (campaign, referrer, click_id) = (present(utm_campaign), present(referrer_host), present(click_id));
    let click = click_id.map(|id| id.split_once('=').unwrap_or((id, "")));
    let clicked = |names: &[&str]| click.is_some_and(|(name, _)| is_any(name, names));

    if campaign.is_some_and(|c| contains(c, "cross-network")) {
        return "Cross Network";
    }
    let shopping = campaign.is_some_and(shopping_campaign);
    let video = campaign.is_some_and(|c| contains(c, "video"));
    let source_kind = source.and_then(tables::source_kind);
    let referrer_kind = || referrer.and_then(tables::host_kind);

    if medium.is_some_and(paid_medium) || clicked(&AD_CLICK_IDS) {
        return if let Some(channel) = source_kind.and_then(paid) {
            channel
        } else if shopping {
            "Paid Shopping"
        } else if let Some(channel) = medium.and_then(paid_channel_of_medium) {
            channel
        } else if let Some(channel) = referrer_kind().and_then(paid) {
            channel
        } else if clicked(&["msclkid", "yclid"])
            || (clicked(&["gad_source"]) && click.is_some_and(|c| c.1 == "1"))
        {
            "Paid Search"
        } else if clicked(&["dclid"]) {
            "Display"
        } else if video {
            "Paid Video"
        } else if clicked(&["fbclid", "ttclid", "twclid", "li_fat_id", "rdt_cid", "sccid", "epik"]) {
            "Paid Social"
        } else {
            "Paid Other"
        };
    }
    if source.is_none() && medium.is_none() && referrer.is_none() && click.is_none() {
        "Direct"
    } else if medium.is_some_and(|medium| is_any(medium, &DISPLAY)) {
        "Display"
    } else if let Some(kind) = source_kind {
        organic(kind)
    } else if shopping {
        "Organic Shopping"
    } else if let Some(channel) = medium.and_then(channel_of_medium) {
        channel
    } else if let Some(kind) = referrer_kind() {
        organic(kind)
    } else if video {
        "Organic Video"
    } else if clicked(&["fbclid"]) {
        "Organic Social"
    } else if referrer.is_some() {
        "Referral"
    } else {
        "Unknown"
    }
}

/// Click ids that only advertisements set. `fbclid` is not among them: Facebook adds it to every link.
const AD_CLICK_IDS: [&str; 13] = [
    "gclid",
    "gbraid",
    "wbraid",
    "gad_source",
    "dclid",
    "msclkid",
    "yclid",
    "ttclid",
    "twclid",
    "li_fat_id",
    "rdt_cid",
    "sccid",
    "epik",
];

/// How much of a text is read, in bytes; a name, a host or the name of a parameter is far shorter.
const MAX_LEN: usize = 1000;

const ABSENT: [&str; 7] = ["", "null", "(none)", "(not set)", "direct", "(direct)", "$direct"];

fn present(value: Option<&str>) -> Option<&str> {
    let end = |value: &str| value.floor_char_boundary(MAX_LEN);
    value.map(|value| value[..end(value)].trim()).filter(|v| !is_any(v, &ABSENT))
}

fn is_any(value: &str, names: &[&str]) -> bool {
    names.iter().any(|name| value.eq_ignore_ascii_case(name))
}

/// Where `needle` occurs, in any case.
fn find<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let windows = text.as_bytes().windows(needle.len()).enumerate();
    windows.filter(|(_, w)| w.eq_ignore_ascii_case(needle.as_bytes())).map(|(at, _)| at)
}

fn contains(text: &str, needle: &str) -> bool {
    find(text, needle).next().is_some()
}

fn starts_with(text: &str, prefix: &str) -> bool {
    find(text, prefix).next() == Some(0)
}

fn shopping_campaign(campaign: &str) -> bool {
    let begins_word = |at: usize| {
        let before = at.checked_sub(1).and_then(|i| campaign.as_bytes().get(i));
        before.is_none_or(|b| !b.is_ascii_alphabetic() || b.eq_ignore_ascii_case(&b'e'))
    };
    contains(campaign, "shopping") || find(campaign, "shop").any(begins_word)
}

fn paid_medium(medium: &str) -> bool {
    is_any(medium, &["cpc", "cpm", "cpv", "cpa", "ppc", "retargeting"]) || starts_with(medium, "paid")
}

const DISPLAY: [&str; 5] = ["cpm", "display", "banner", "expandable", "interstitial"];

fn paid_channel_of_medium(medium: &str) -> Option<&'static str> {
    if contains(medium, "search") {
        Some("Paid Search")
    } else if contains(medium, "social") {
        Some("Paid Social")
    } else if contains(medium, "video") || is_any(medium, &["cpv"]) {
        Some("Paid Video")
    } else if contains(medium, "shopping") {
        Some("Paid Shopping")
    } else {
        is_any(medium, &DISPLAY).then_some("Display")
    }
}

fn channel_of_medium(medium: &str) -> Option<&'static str> {
    const SOCIAL: [&str; 8] = [
        "social",
        "sm",
        "social-network",
        "social_network",
        "social network",
        "social-media",
        "social_media",
        "social media",
    ];
    const EMAIL: [&str; 5] = ["email", "e-mail", "e_mail", "e mail", "newsletter"];
    let exact: [(&[&str], &str); 8] = [
        (&["organic"], "Organic Search"),
        (&SOCIAL, "Organic Social"),
        (&["shopping"], "Organic Shopping"),
        (&EMAIL, "Email"),
        (&["sms"], "SMS"),
        (&["affiliate", "affiliates"], "Affiliates"),
        (&["audio", "podcast"], "Audio"),
        (&["referral", "app", "link"], "Referral"),
    ];
    if let Some((_, channel)) = exact.iter().find(|(names, _)| is_any(medium, names)) {
        return Some(channel);
    }
    let push = find(medium, "push").last().is_some_and(|at| at + "push".len() == medium.len());
    if contains(medium, "video") {
        Some("Organic Video")
    } else {
        (push || contains(medium, "mobile") || contains(medium, "notification")).then_some("Push")
    }
}

fn paid(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Search => Some("Paid Search"),
        Kind::Social => Some("Paid Social"),
        Kind::Video => Some("Paid Video"),
        Kind::Shopping => Some("Paid Shopping"),
        _ => None,
    }
}

fn organic(kind: Kind) -> &'static str {
    match kind {
        Kind::Search => "Organic Search",
        Kind::Social => "Organic Social",
        Kind::Video => "Organic Video",
        Kind::Shopping => "Organic Shopping",
        Kind::Email => "Email",
        Kind::Sms => "SMS",
        Kind::Push => "Push",
        Kind::Audio => "Audio",
        Kind::Affiliates => "Affiliates",
        Kind::Display => "Display",
    }
}
