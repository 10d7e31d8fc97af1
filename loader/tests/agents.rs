//! The real files, over real user agents: who is called a bot and who is not. `scripts/enrich-data.sh`
//! fetches them.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;
use tidemark_loader::enrich::data::Data;
use tidemark_loader::enrich::{Agent, Files};

fn file(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = root.join(".tools/enrich").join(name);
    assert!(file.exists(), "{} is not there: run scripts/enrich-data.sh", file.display());
    file
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

/// All of the files.
static DATA: LazyLock<Data> = LazyLock::new(|| {
    let (data, problems) = Data::read(&Files {
        user_agents: Some(file("regexes.yaml")),
        bots: Some(file("crawler-user-agents.json")),
        places: vec![file("dbip-country.mmdb")],
    });
    // The countries become old one day.
    assert!(
        problems.iter().all(|problem| problem.usable && problem.why.contains("months old")),
        "{problems:?}"
    );
    data
});

/// Without a list of bots.
static UAP_CORE: LazyLock<Data> =
    LazyLock::new(|| Data::read(&Files { user_agents: Some(file("regexes.yaml")), ..Files::default() }).0);

fn people() -> Vec<String> {
    let texts = json("user-agents.json");
    texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// User agents of bots, and the pattern under which each is listed.
fn bots() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = json("crawler-user-agents.json");
    let rows = rows.as_array().unwrap().iter();
    rows.flat_map(|row| {
        let instances = row["instances"].as_array().into_iter().flatten();
        instances.map(|instance| (text(instance), text(&row["pattern"]))).collect::<Vec<_>>()
    })
    .collect()
}

fn agent(browser: (&str, &str), os: (&str, Option<&str>), device: Option<&str>, bot: Option<&str>) -> Agent {
    let owned = |text: &str| text.to_owned();
    Agent {
        browser: Some(owned(browser.0)),
        browser_version: Some(owned(browser.1)),
        os: Some(owned(os.0)),
        os_version: os.1.map(owned),
        device: device.map(owned),
        bot: bot.map(owned),
    }
}

#[test]
fn no_person_is_called_a_bot() {
    let people = people();
    let bots = people.iter().filter_map(|text| Some((DATA.agent(text).bot?, text))).collect::<Vec<_>>();
    assert_eq!(bots, []);
    let known = people.iter().map(|text| DATA.agent(text));
    let known = known.filter(|agent| agent.browser.is_some() && agent.os.is_some()).count();
    println!("{known} of {} have a browser and a system", people.len());
    assert!(people.len() >= 900 && known * 100 >= people.len() * 99);
}

// user-agents.json has browsers only, and few that an app contains.
#[test]
fn people_in_apps_are_people() {
    for text in [
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148 [FBAN/FBIOS;FBAV/468.1.0.57.74;FBBV/604420937;FBDV/iPhone14,5;FBMD/iPhone;FBSN/iOS;\
         FBSV/17.5.1;FBSS/3;FBID/phone;FBLC/de_DE;FBOP/5;FBRV/607101862]",
        "Mozilla/5.0 (Linux; Android 14; SM-S911B Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like \
         Gecko) Version/4.0 Chrome/126.0.6478.71 Mobile Safari/537.36 \
         [FB_IAB/FB4A;FBAV/468.0.0.55.82;IABMV/1;]",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148 Instagram 335.0.8.27.93 (iPhone14,5; iOS 17_5_1; de_DE; de; scale=3.00; 1170x2532)",
        "Mozilla/5.0 (Linux; Android 13; 2201117TY Build/TKQ1.221114.001; wv) AppleWebKit/537.36 (KHTML, \
         like Gecko) Version/4.0 Chrome/125.0.6422.165 Mobile Safari/537.36 musical_ly_2023405030 JsSdk/1.0 \
         NetType/WIFI Channel/googleplay AppName/musical_ly app_version/34.5.3 ByteLocale/de-DE \
         BytedanceWebview/d8a21c6",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148 MicroMessenger/8.0.49(0x18003137) NetType/WIFI Language/de",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148 Safari/604.1 [LinkedInApp]/9.29.8962",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/15E148 [Pinterest/iOS]",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
         Mobile/21F79 Twitter for iPhone/10.44",
        "Mozilla/5.0 (Linux; Android 11; KFTRWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/126.2.5 like \
         Chrome/126.0.6478.71 Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0 Safari/537.36 \
         coc_coc_browser/119.0",
        "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
        "Mozilla/5.0 (Linux; U; Android 12; en-US; RMX2030) AppleWebKit/537.36 (KHTML, like Gecko) \
         Version/4.0 Chrome/100.0.4896.58 UCBrowser/13.4.0.1306 Mobile Safari/537.36",
        "Mozilla/5.0 (Linux; Android 12; NOH-NX9) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/114.0.5735.196 HuaweiBrowser/15.0.4.312 Mobile Safari/537.36",
        "Mozilla/5.0 (Linux; Android 14; SM-S921N) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 \
         Chrome/126.0.6478.71 Whale/1.0.0.0 Crosswalk/29.126.0.18 Mobile Safari/537.36 NAVER(inapp; search; \
         2000)",
        "Dalvik/2.1.0 (Linux; U; Android 13; Pixel 6 Build/TQ3A.230901.001)",
        "Shop/5 CFNetwork/1496.0.7 Darwin/23.5.0",
        "Mozilla/5.0 (PlayStation; PlayStation 5/8.60) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 \
         Safari/605.1.15",
        "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/538.1 (KHTML, like Gecko) Version/6.0 TV \
         Safari/538.1",
    ] {
        assert_eq!(DATA.agent(text).bot, None, "{text}");
        assert!(DATA.agent(text).browser.is_some(), "{text}");
    }
}

// The list finds bots by words that apps have as well; whoever has these takes their patterns out of the
// file.
#[test]
fn some_apps_are_taken_for_bots() {
    let android = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)";
    for (app, bot) in [
        ("Version/4.0 Chrome/146.0.7680.174 Mobile Safari/537.36 MetaIAB Facebook", "MetaIAB Facebook"),
        ("Slack/4.39.90 Chrome/126.0.6478.61 Electron/31.0.1 Safari/537.36 Sonic Slack_SSB/4.39.90", "Sonic"),
        ("Version/4.0 Chrome/87.0 Mobile Safari/537.36 SogouMSE,SogouMobileBrowser/5.29.7", "Sogou"),
        ("Mobile Safari/537.36 Tumblr/34.1", "Tumblr"),
    ] {
        let text = format!("{android} {app}");
        assert_eq!(DATA.agent(&text).bot.as_deref(), Some(bot), "{app}");
        assert_eq!(UAP_CORE.agent(&text).bot, None, "{app}");
    }
}

#[test]
fn known_user_agents_are_taken_apart() {
    for (text, is) in [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Safari/537.36",
            agent(("Chrome", "141.0.0"), ("Windows", Some("10")), None, None),
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) \
             Version/18.6 Safari/605.1.15",
            agent(("Safari", "18.6"), ("Mac OS X", Some("10.15.7")), Some("Mac"), None),
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
             Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
            agent(("Mobile Safari", "18.6"), ("iOS", Some("18.6.2")), Some("iPhone"), None),
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 \
             Mobile Safari/537.36",
            agent(("Chrome Mobile", "141.0.0"), ("Android", Some("10")), None, None),
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) \
             SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36",
            agent(("Samsung Internet", "27.0"), ("Android", Some("14")), Some("Samsung SM-S911B"), None),
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
            agent(("Firefox", "143.0"), ("Ubuntu", None), None, None),
        ),
        (
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like \
             Gecko) Chrome/141.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; \
             +http://www.google.com/bot.html)",
            agent(("Googlebot", "2.1"), ("Android", Some("6.0.1")), None, Some("Googlebot")),
        ),
    ] {
        assert_eq!(DATA.agent(text), is, "{text}");
    }
}

#[test]
fn bots_are_called_by_name() {
    let bots = bots();
    let missed: Vec<_> = bots.iter().filter(|(text, _)| DATA.agent(text).bot.is_none()).collect();
    println!("{} of {} bots are called none: {missed:#?}", missed.len(), bots.len());
    assert!(bots.len() >= 2000 && missed.len() * 100 <= bots.len(), "{missed:#?}");
    // Not by a word that is not theirs: all of the name is in the user agent, but for the case of letters.
    let lower = |text: &str| text.to_lowercase();
    let strange = bots.iter().filter_map(|(text, pattern)| {
        let bot = DATA.agent(text).bot?;
        (!lower(text).contains(&lower(&bot))).then_some((bot, pattern, text))
    });
    let strange: Vec<_> = strange.collect();
    println!("{} are called by another name: {strange:#?}", strange.len());
    assert!(strange.len() * 100 <= bots.len());
}

#[test]
fn uap_core_alone_knows_many_of_them() {
    let bots = bots();
    let known = bots.iter().filter(|(text, _)| UAP_CORE.agent(text).bot.is_some()).count();
    println!("{known} of {} bots are known to uap-core alone", bots.len());
    // 62 % when this was written.
    assert!(known * 100 >= bots.len() * 58);
    let people = people();
    assert_eq!(people.iter().filter(|text| UAP_CORE.agent(text).bot.is_some()).count(), 0);
}

#[test]
fn public_addresses_have_a_country() {
    let country = |address: &str| DATA.place(address.parse().unwrap()).country;
    for (address, is) in [
        ("8.8.8.8", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("1.1.1.1", "AU"),
        ("193.0.6.139", "NL"),
        ("202.12.27.33", "JP"),
        ("2620:fe::fe", "US"),
        // Google's; DB-IP has it in Canada.
        ("2001:4860:4860::8888", "CA"),
    ] {
        assert_eq!(country(address).as_deref(), Some(is), "{address}");
    }
    for nowhere in ["10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fe80::1"] {
        assert_eq!(country(nowhere), None, "{nowhere}");
    }
}
