//! Well-known sources: which kind of site a name or host is. Chosen by hand; unknown sites have no kind.

/// What kind of site or tool sent a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Search,
    Social,
    Video,
    Shopping,
    Email,
    Sms,
    Push,
    Audio,
    Affiliates,
    Display,
}

use Kind::{Affiliates, Audio, Display, Email, Push, Search, Shopping, Sms, Social, Video};

/// Brands that own their name under every suffix: as a source the bare name, as a host `name.suffix` and below.
pub(super) const BRANDS: &[(&str, Kind)] = &[
    ("alibaba", Shopping),
    ("aliexpress", Shopping),
    ("amazon", Shopping),
    ("baidu", Search),
    ("bilibili", Video),
    ("bing", Search),
    ("dailymotion", Video),
    ("deezer", Audio),
    ("douyin", Video),
    ("duckduckgo", Search),
    ("ebay", Shopping),
    ("ecosia", Search),
    ("etsy", Shopping),
    ("facebook", Social),
    ("flipkart", Shopping),
    ("google", Search),
    ("idealo", Shopping),
    ("instagram", Social),
    ("linkedin", Social),
    ("mastodon", Social),
    ("mercadolibre", Shopping),
    ("mercadolivre", Shopping),
    ("naver", Search),
    ("pinterest", Social),
    ("qwant", Search),
    ("quora", Social),
    ("rakuten", Shopping),
    ("reddit", Social),
    ("rutube", Video),
    ("shopee", Shopping),
    ("snapchat", Social),
    ("sogou", Search),
    ("soundcloud", Audio),
    ("spotify", Audio),
    ("startpage", Search),
    ("taobao", Shopping),
    ("temu", Shopping),
    ("tiktok", Social),
    ("tumblr", Social),
    ("twitch", Video),
    ("twitter", Social),
    ("vimeo", Video),
    ("vkontakte", Social),
    ("walmart", Shopping),
    ("weibo", Social),
    ("yahoo", Search),
    ("yandex", Search),
    ("youku", Video),
    ("youtube", Video),
    ("zalando", Shopping),
];

/// Hosts, with everything below them. Also sources. More specific than a brand of the same name. `None`: known to be
/// no channel of its own, although the brand is one.
pub(super) const HOSTS: &[(&str, Option<Kind>)] = &[
    ("ask.com", Some(Search)),
    ("bsky.app", Some(Social)),
    ("com.facebook.katana", Some(Social)),
    ("com.google.android.gm", Some(Email)),
    ("com.google.android.googlequicksearchbox", Some(Search)),
    ("com.google.android.youtube", Some(Video)),
    ("com.instagram.android", Some(Social)),
    ("com.linkedin.android", Some(Social)),
    ("com.pinterest", Some(Social)),
    ("com.reddit.frontpage", Some(Social)),
    ("com.twitter.android", Some(Social)),
    ("daum.net", Some(Search)),
    ("discord.com", Some(Social)),
    ("docs.google.com", None),
    ("drive.google.com", None),
    ("fb.com", Some(Social)),
    ("fb.me", Some(Social)),
    ("groups.google.com", None),
    ("kagi.com", Some(Search)),
    ("lnkd.in", Some(Social)),
    ("mail.google.com", Some(Email)),
    ("mail.naver.com", Some(Email)),
    ("mail.proton.me", Some(Email)),
    ("mail.ru", Some(Email)),
    ("mail.yahoo.com", Some(Email)),
    ("mail.yahoo.co.jp", Some(Email)),
    ("mail.yandex.ru", Some(Email)),
    ("meet.google.com", None),
    ("messenger.com", Some(Social)),
    ("news.ycombinator.com", Some(Social)),
    ("ok.ru", Some(Social)),
    ("outlook.com", Some(Email)),
    ("outlook.live.com", Some(Email)),
    ("outlook.office.com", Some(Email)),
    ("outlook.office365.com", Some(Email)),
    ("play.google.com", None),
    ("podcasts.apple.com", Some(Audio)),
    ("search.brave.com", Some(Search)),
    ("shopping.google.com", Some(Shopping)),
    ("sites.google.com", None),
    ("so.com", Some(Search)),
    ("stackexchange.com", Some(Social)),
    ("stackoverflow.com", Some(Social)),
    ("t.co", Some(Social)),
    ("t.me", Some(Social)),
    ("telegram.org", Some(Social)),
    ("threads.com", Some(Social)),
    ("threads.net", Some(Social)),
    ("translate.google.com", None),
    ("video.google.com", Some(Video)),
    ("vk.com", Some(Social)),
    ("wa.me", Some(Social)),
    ("whatsapp.com", Some(Social)),
    ("x.com", Some(Social)),
    ("xing.com", Some(Social)),
    ("youtu.be", Some(Video)),
];

/// Names that occur as a source only.
pub(super) const NAMES: &[(&str, Kind)] = &[
    ("adwords", Search),
    ("affiliate", Affiliates),
    ("affiliates", Affiliates),
    ("brevo", Email),
    ("criteo", Display),
    ("discord", Social),
    ("doubleclick", Display),
    ("email", Email),
    ("e-mail", Email),
    ("fb", Social),
    ("firebase", Push),
    ("google-ads", Search),
    ("google_ads", Search),
    ("googleads", Search),
    ("hackernews", Social),
    ("ig", Social),
    ("klaviyo", Email),
    ("mailchimp", Email),
    ("meta", Social),
    ("newsletter", Email),
    ("onesignal", Push),
    ("outbrain", Display),
    ("podcast", Audio),
    ("push", Push),
    ("sendgrid", Email),
    ("sms", Sms),
    ("social", Social),
    ("taboola", Display),
    ("telegram", Social),
    ("threads", Social),
    ("vk", Social),
    ("whatsapp", Social),
    ("x", Social),
    ("xing", Social),
    ("yt", Video),
];

/// The kind of a source: a name, a brand or a host.
pub(super) fn source_kind(source: &str) -> Option<Kind> {
    let named = BRANDS.iter().chain(NAMES).find(|(name, _)| source.eq_ignore_ascii_case(name));
    match named {
        Some((_, kind)) => Some(*kind),
        None if source.contains('.') => host_kind(source),
        None => None,
    }
}

/// The kind of a host; a port and a final dot are ignored.
pub(super) fn host_kind(host: &str) -> Option<Kind> {
    let host = host.split_once(':').map_or(host, |(name, _)| name);
    let host = host.strip_suffix('.').unwrap_or(host);
    let exact = HOSTS.iter().filter(|(name, _)| is_below(host, name)).max_by_key(|(name, _)| name.len());
    if let Some((_, kind)) = exact {
        return *kind;
    }
    let label = registrable_label(host)?;
    BRANDS.iter().find(|(name, _)| label.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// Whether `host` is `name` or a host below it.
fn is_below(host: &str, name: &str) -> bool {
    let Some(at) = host.len().checked_sub(name.len()) else {
        return false;
    };
    let same = host.as_bytes().get(at..).is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes()));
    same && (at == 0 || host.as_bytes().get(at - 1) == Some(&b'.'))
}

/// The label in front of the suffix: `google` of `www.google.de` and of `google.co.uk`.
///
/// A suffix is one label, or a generic second level (`co`, `com`, ...) below a country. That is far from the public
/// suffix list, but enough for brands that hold their name everywhere.
fn registrable_label(host: &str) -> Option<&str> {
    const SECOND_LEVEL: [&str; 5] = ["co", "com", "ne", "net", "org"];
    let mut labels = host.rsplit('.');
    let (country, second) = (labels.next()?, labels.next()?);
    let generic = SECOND_LEVEL.iter().any(|s| second.eq_ignore_ascii_case(s));
    if country.len() == 2 && generic { labels.next() } else { Some(second) }
}
