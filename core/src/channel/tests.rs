//! One line per rule and trap of channel grouping.

use super::tables::{BRANDS, HOSTS, NAMES};
use super::*;
use proptest::prelude::*;

/// source, medium, campaign, referrer, click id, separated by blanks; `-` is NULL.
#[track_caller]
fn is(channel: &str, visit: &str) {
    let mut fields = visit.split_whitespace().map(|f| (f != "-").then_some(f));
    let mut next = || fields.next().unwrap();
    assert_eq!(channel_group(next(), next(), next(), next(), next()), channel, "{visit}");
}

#[test]
fn paid_visits() {
    is("Cross Network", "google cpc 2024_Cross-Network_all - gclid");
    is("Paid Search", "google cpc brand - -");
    is("Paid Search", "Google CPC shopping_sale www.google.de -");
    is("Paid Social", "fb paid_social - - fbclid");
    is("Paid Video", "youtube.com paid - - -");
    is("Paid Shopping", "amazon ppc - - -");
    is("Paid Shopping", "partner cpc summer-shop - -");
    is("Paid Shopping", "partner cpc eShop - -");
    is("Paid Other", "partner cpc workshop - -");
    is("Paid Shopping", "partner cpc ShoppingAds - -");
    is("Paid Search", "partner paidsearch - - -");
    is("Paid Video", "partner cpv - - -");
    is("Display", "partner cpm - - -");
    is("Display", "partner banner - - gclid");
    is("Paid Search", "- - - www.google.com gclid");
    is("Paid Search", "- - - - gad_source=1");
    is("Paid Other", "- - - - gad_source=5");
    is("Paid Search", "- - - - msclkid=abc");
    is("Display", "- - - - dclid");
    is("Paid Video", "- cpc my_video_ad - -");
    is("Paid Social", "- cpc - - fbclid=1");
    is("Paid Social", "- - - - ttclid");
    is("Paid Other", "newsletter cpa - - -");
    is("Paid Other", "- retargeting - - -");
}

#[test]
fn direct_needs_the_absence_of_everything() {
    is("Direct", "- - - - -");
    is("Direct", "(direct) (none) - $direct null");
    is("Direct", "- - spring - -");
    is("Organic Social", "- - - - fbclid");
    is("Unknown", "flyer - - - -");
    is("Unknown", "- something - - -");
}

#[test]
fn unpaid_visits() {
    is("Organic Search", "google - - - -");
    is("Organic Search", "- - - www.google.co.uk -");
    is("Organic Search", "- organic - example.com -");
    is("Organic Social", "- - - L.Facebook.com. -");
    is("Organic Social", "- - - t.co:443 -");
    is("Organic Social", "IG story - - -");
    is("Organic Social", "- social_network - - -");
    is("Organic Video", "- - - m.youtube.com -");
    is("Organic Video", "- video-post - - -");
    is("Organic Video", "- - launch_video example.com -");
    is("Organic Shopping", "- - - smile.amazon.com.br -");
    is("Organic Shopping", "- - shop - fbclid");
    is("Email", "newsletter - - - -");
    is("Email", "crm E-Mail - - -");
    is("Email", "- - - mail.google.com -");
    is("Email", "- - - com.google.android.gm -");
    is("Affiliates", "partner affiliate - - -");
    is("Audio", "- - - open.spotify.com -");
    is("SMS", "sms - - - -");
    is("SMS", "crm SMS - - -");
    is("Push", "crm web_push - - -");
    is("Push", "firebase - - - -");
    is("Push", "crm mobile - - -");
    is("Display", "partner display - - -");
    // Whatever the source: an advertisement on a page is no search.
    is("Display", "google display - - -");
    is("Display", "facebook banner - - -");
    is("Display", "youtube interstitial - - -");
    is("Paid Search", "google cpm - - -");
    is("Referral", "partner link - - -");
    is("Referral", "- - - blog.example.com -");
    is("Referral", "- - - docs.google.com -");
}

#[test]
fn a_brand_in_another_place_of_a_host_is_not_the_brand() {
    is("Referral", "- - - google.example.com -");
    is("Referral", "- - - google.com.evil.example -");
    is("Referral", "- - - notgoogle.com -");
    is("Referral", "- - - nott.co -");
    is("Referral", "- - - google -");
    is("Unknown", "notgoogle - - - -");
}

#[test]
fn no_table_names_anything_twice_or_in_capitals() {
    let mut names: Vec<_> =
        BRANDS.iter().chain(NAMES).map(|e| e.0).chain(HOSTS.iter().map(|e| e.0)).collect();
    assert!(
        names
            .iter()
            .all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)))
    );
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

fn field() -> impl Strategy<Value = Option<String>> {
    let known =
        "google|fb|CPC|paid|email|video|shop|cross-network|www\\.bing\\.com|gclid|fbclid=1|null| |direct";
    prop_oneof![Just(None), known.prop_map(Some), "\\PC{0,12}".prop_map(Some)]
}

proptest! {
    #[test]
    fn every_visit_has_a_known_channel_and_case_and_blanks_do_not_matter(
        visit in prop::array::uniform5(field())
    ) {
        let ask = |v: &[Option<String>; 5]| {
            let [a, b, c, d, e] = v.each_ref().map(Option::as_deref);
            channel_group(a, b, c, d, e)
        };
        let channel = ask(&visit);
        prop_assert!(CHANNELS.contains(&channel));
        let shouted = visit.clone().map(|f| f.map(|f| format!(" {} ", f.to_ascii_uppercase())));
        prop_assert_eq!(ask(&shouted), channel);
        let absent = visit.map(|f| f.or_else(|| Some("NULL".to_owned())));
        prop_assert_eq!(ask(&absent), channel);
    }
}

#[test]
fn every_channel_can_be_reached() {
    let visits = [
        "- - cross-network - -",
        "google cpc - - -",
        "fb cpc - - -",
        "yt cpc - - -",
        "ebay cpc - - -",
        "- cpc - - -",
        "- - - - -",
        "google - - - -",
        "fb - - - -",
        "yt - - - -",
        "ebay - - - -",
        "email - - - -",
        "sms - - - -",
        "push - - - -",
        "podcast - - - -",
        "affiliate - - - -",
        "criteo - - - -",
        "- link - - -",
        "flyer - - - -",
    ];
    for (channel, visit) in CHANNELS.iter().zip(visits) {
        is(channel, visit);
    }
    assert_eq!(CHANNELS.len(), visits.len());
}

#[test]
fn of_an_endless_text_only_the_beginning_is_read() {
    let [paid, video, host] = ["paid ", "video ", ""].map(|head| format!("{head}{}", "é".repeat(50_000_000)));
    let started = std::time::Instant::now();
    assert_eq!(channel_group(None, Some(&paid), Some(&video), None, None), "Paid Video");
    assert_eq!(channel_group(None, None, Some("x"), Some(&host), None), "Referral");
    // To read them all takes longer.
    assert!(started.elapsed().as_secs() < 1);
}
