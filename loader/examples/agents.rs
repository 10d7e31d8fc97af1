//! How long user agents take at first sight, of people and of bots, and those that were seen before, within an event; and
//! how long their files take to be read.
//!
//! `scripts/enrich-data.sh` first, then `cargo run --release -p tidemark-loader --example agents`.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidemark_loader::enrich::data::Data;
use tidemark_loader::enrich::{Enrichment, Files, Noted};

const ROUNDS: usize = 5;

type Failure = Box<dyn std::error::Error>;

/// The middle one of some rounds.
fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// Memory that this process has by itself, in KiB, where the kernel says it.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn load(what: &str, files: &Files) -> Result<Data, Failure> {
    let before = memory();
    let (data, problems) = Data::read(files);
    let more = memory().saturating_sub(before);
    let time = median(|| {
        let start = Instant::now();
        black_box(Data::read(files));
        start.elapsed()
    });
    if let Some(problem) = problems.iter().find(|problem| !problem.usable) {
        return Err(format!("{} {}; run scripts/enrich-data.sh", problem.file.display(), problem.why).into());
    }
    println!("{what:<8} read in {time:>9.1?}, {more:>6} KiB more in use");
    Ok(data)
}

fn main() -> Result<(), Failure> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/enrich");
    let of = |name: &str| directory.join(name);
    let user_agents = Some(of("regexes.yaml"));
    let bots = Some(of("crawler-user-agents.json"));
    let only_agents = Files { user_agents: user_agents.clone(), ..Files::default() };
    let only_bots = Files { bots: bots.clone(), ..Files::default() };
    let both = Files { user_agents, bots, places: Vec::new() };
    let places = Files { places: vec![of("dbip-country.mmdb")], ..Files::default() };
    let parts = [
        ("agents", load("agents", &only_agents)?),
        ("bots", load("bots", &only_bots)?),
        ("both", load("both", &both)?),
    ];
    let places = load("places", &places)?;

    let people: Vec<String> = serde_json::from_slice(&std::fs::read(of("user-agents.json"))?)?;
    let rows: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(of("crawler-user-agents.json"))?)?;
    let instances = rows.iter().filter_map(|row| row["instances"].as_array()).flatten();
    let instances: Vec<String> = instances.filter_map(|text| Some(text.as_str()?.to_owned())).collect();
    for (who, texts) in [("people", &people), ("bots", &instances)] {
        for (part, data) in &parts {
            // Patterns remember states of their automata, which a loader has seen after some thousand texts.
            let once = || {
                let start = Instant::now();
                for text in texts {
                    black_box(data.agent(text));
                }
                start.elapsed()
            };
            let cold = once();
            let warm = median(once);
            let each = |time: Duration| time.as_nanos() / texts.len() as u128;
            println!(
                "{who:<8} {part:<8} {:>5} texts: {:>7} ns each, {:>7} ns in the first round",
                texts.len(),
                each(warm),
                each(cold)
            );
        }
    }

    // An event that names one, less the same without it: what is left is the user agent.
    let enrichment = Enrichment::default();
    let event = |agent: &str| {
        let agent = serde_json::Value::from(agent);
        format!(
            r#"{{"event":"page_viewed","userId":"u","context":{{"agent":{agent},"page":{{"path":"/"}}}}}}"#
        )
    };
    let without: Vec<String> = people.iter().map(|agent| event(agent)).collect();
    let with: Vec<String> = without.iter().map(|event| event.replace("\"agent\"", "\"userAgent\"")).collect();
    let mut noted = Noted::new();
    let mut seen = |events: &[String]| {
        let mut events: Vec<Vec<u8>> = events.iter().map(|event| event.clone().into_bytes()).collect();
        let mut round = || {
            let start = Instant::now();
            events.iter_mut().for_each(|event| enrichment.look_at(event, &mut noted));
            start.elapsed()
        };
        round();
        median(round).as_nanos() / people.len() as u128
    };
    println!("seen     {} ns each in an event, {} ns the event without", seen(&with), seen(&without));

    let addresses: Vec<std::net::IpAddr> =
        (0..100_000u32).map(|n| std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761)).into()).collect();
    let time = median(|| {
        let start = Instant::now();
        for address in &addresses {
            black_box(places.place(*address));
        }
        start.elapsed()
    });
    println!(
        "places   {:>14} addresses: {:>3} ns each",
        addresses.len(),
        time.as_nanos() / addresses.len() as u128
    );
    Ok(())
}
