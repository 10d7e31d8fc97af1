//! Marketing channels: any text is an answer, and case and blanks around it do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_core::channel::{CHANNELS, channel_group};
use tidemark_fuzz::{bounded, joined, parts, seeds};

fn group(texts: &[String; 5]) -> &'static str {
    let [source, medium, campaign, referrer, click_id] = texts.each_ref().map(|text| Some(text.as_str()));
    let channel = bounded(0, 0, || channel_group(source, medium, campaign, referrer, click_id));
    assert!(CHANNELS.contains(&channel));
    channel
}

fn examples() -> Vec<Vec<u8>> {
    [
        ["google", "cpc", "", "", "gclid=abc"],
        ["newsletter", "e-mail", "eshop-spring", "mail.google.com:443", ""],
        ["", "", "", "www.google.co.uk.", ""],
        ["(direct)", "(none)", "cross-network", "l.facebook.com", "fbclid"],
        ["x", "mobile push", "video", "t.co", "gad_source=1"],
    ]
    .map(|texts| joined(&texts.map(str::as_bytes)))
    .to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let texts = parts::<5>(data).map(|part| String::from_utf8_lossy(&part).into_owned());
    let channel = group(&texts);
    assert_eq!(group(&texts.each_ref().map(|text| text.to_ascii_uppercase())), channel);
    // Of long texts the beginning is read, blanks included.
    if texts.iter().all(|text| text.len() < 900) {
        assert_eq!(group(&texts.each_ref().map(|text| format!(" {text}\t"))), channel);
    }
});
