//! What is known at the door: no whole address is kept, gold counts people, and a new data file changes the events of which
//! it says something else and nothing more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use maxminddb_writer::Database as Places;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use tidemark_tests::cluster::{self, Database, connect, rows, sqlstate};
use tidemark_tests::events;
use tidemark_tests::process::{Finished, Invocation, tidemark};
use tidemark_tests::random::Random;

use super::identity::truth::gold;
use super::warehouse::{assert_same, event, maintain};

const BROWSERS: &str = "
user_agent_parsers:
  - regex: '(Ship)/(\\d+)'
  - regex: '(Robot[AB])/(\\d+)'
os_parsers:
  - regex: '(Sea) (\\d+)'
device_parsers: []
";

/// Files in one version: which user agents are bots, and in which country each network is.
struct Files {
    browsers: PathBuf,
    bots: PathBuf,
    places: PathBuf,
}

fn file(name: &str, content: &[u8]) -> PathBuf {
    let new = events::file(content);
    let path = new.with_file_name(format!("enrichment-{name}"));
    std::fs::rename(new, &path).unwrap();
    path
}

impl Files {
    fn of(version: &str, bots: &[&str], places: &[(&str, &str)]) -> Files {
        let patterns: Vec<String> = bots.iter().map(|bot| format!(r#"{{"pattern":"{bot}"}}"#)).collect();
        let mut database = Places::default();
        database.metadata.database_type = format!("Places-{version}");
        // 2026-11-01.
        database.metadata.build_epoch = 1_793_491_200;
        database.metadata.binary_format_major_version = 2;
        database.metadata.ip_version = IpVersion::V4;
        for (network, country) in places {
            let record = database.insert_value(BTreeMap::from([("country_code", country)])).unwrap();
            database.insert_node(network.parse::<IpAddrWithMask>().unwrap(), record);
        }
        Files {
            browsers: file(&format!("{version}.yaml"), BROWSERS.as_bytes()),
            bots: file(&format!("{version}.json"), format!("[{}]", patterns.join(",")).as_bytes()),
            places: file(&format!("{version}.mmdb"), &database.write_to(Vec::new()).unwrap()),
        }
    }

    fn given_to(&self, command: Invocation) -> Invocation {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        command
            .env("TIDEMARK__ENRICH__USER_AGENT_FILE", &text(&self.browsers))
            .env("TIDEMARK__ENRICH__BOT_FILE", &text(&self.bots))
            .env("TIDEMARK__ENRICH__PLACE_FILES", &text(&self.places))
    }

    fn load(&self, database: &Database<'_>, lines: &[String]) -> Finished {
        let path = events::file(lines.join("\n").as_bytes());
        let command = tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url());
        self.given_to(command).run().ok()
    }

    fn enrich(&self, database: &Database<'_>, what: &str) -> String {
        let command = tidemark(&["enrich", what]).database(&database.admin_url());
        self.given_to(command).run().ok().stdout
    }
}

fn first_files() -> Files {
    let places = [("198.51.100.0/24", "DE"), ("203.0.113.0/24", "FR"), ("192.0.2.0/24", "IT")];
    Files::of("one", &["RobotA"], &places)
}

/// Visits of people and robots on ten days, each from a network or none, some of them customers; shuffled.
fn visits(seed: u64) -> Vec<String> {
    const NAMES: [&str; 4] = ["page_viewed", "product_viewed", "purchase_completed", "page_viewed"];
    const AGENTS: [&str; 5] = ["Ship/1 (Sea 7)", "Ship/2 (Sea 8)", "RobotA/1", "RobotB/1", ""];
    const NETWORKS: [&str; 4] = ["198.51.100.", "203.0.113.", "192.0.2.", ""];
    let random = &mut Random::new(seed);
    let mut lines = Vec::new();
    for visit in 0..150 {
        let person = random.below(40);
        let agent = AGENTS[person as usize % AGENTS.len()];
        let network = random.pick(&NETWORKS);
        let day = 1 + random.below(10);
        let mut second = random.below(80_000);
        for step in 0..1 + random.below(6) {
            second += 1 + random.below(900);
            let time = format!(
                "2026-11-{day:02}T{:02}:{:02}:{:02}Z",
                second / 3600 % 24,
                second / 60 % 60,
                second % 60
            );
            let name = random.pick(&NAMES);
            let mut context = vec![r#""platform":"web""#.to_owned()];
            if !agent.is_empty() {
                context.push(format!(r#""userAgent":"{agent}""#));
            }
            if !network.is_empty() {
                context.push(format!(r#""ip":"{network}{}""#, 1 + random.below(200)));
            }
            let host = if random.below(20) == 0 { "test.shop.example" } else { "shop.example" };
            context.push(format!(r#""page":{{"url":"https://{host}/p{step}","path":"/p{step}"}}"#));
            let user = if person == 39 { "guest".to_owned() } else { format!("p{person}") };
            let said = if name == "purchase_completed" {
                r#"{"revenue":10,"currency":"EUR"}"#
            } else {
                r#"{"load_ms":7}"#
            };
            let context = format!("{{{}}}", context.join(","));
            lines.push(event(visit * 100 + step, &user, &time, name, said, &context));
        }
    }
    lines.sort_by_cached_key(|_| random.bits());
    lines
}

/// Why the event is no customer's, said in another way than silver does: of the text of the event.
fn left_out(line: &str) -> Option<&'static str> {
    match line {
        line if line.contains("https://test.shop.example") => Some("test host"),
        line if line.contains("RobotA/") => Some("bot"),
        _ => None,
    }
}

#[test]
fn gold_counts_people_and_what_it_leaves_out_stands_beside() {
    let files = first_files();
    let lines = visits(20);
    let (all, people) = (cluster::shared().database(), cluster::shared().database());
    all.rows("SELECT silver.set_own_traffic(hosts => '{test.shop.example}')");
    // In parts, so that some are added to dates that are there.
    for part in lines.chunks(lines.len() / 3 + 1) {
        files.load(&all, part);
        maintain(&all);
    }
    let of_people: Vec<String> = lines.iter().filter(|line| left_out(line).is_none()).cloned().collect();
    assert!(of_people.len() > 100 && of_people.len() < lines.len() * 9 / 10);
    files.load(&people, &of_people);
    maintain(&people);

    let expected = gold(&people);
    for ((table, found), (_, expected)) in gold(&all).iter().zip(&expected) {
        if table != "gold_storage.excluded_days" {
            assert_eq!(found, expected, "{table}");
        }
    }
    for view in [
        "gold.revenue_daily",
        "gold.sessions",
        "gold.purchases_star",
        "gold.attribution_report('2026-11-01', '2026-11-12')",
    ] {
        let sql = format!("SELECT md5(string_agg(g::text, ',' ORDER BY g::text)) FROM {view} AS g");
        assert_eq!(all.value(&sql), people.value(&sql), "{view}");
        assert!(all.number(&format!("SELECT count(*) FROM {view} AS g")) > 0);
    }
    // And nothing is lost: all that came is one or the other.
    let sum =
        "SELECT (SELECT sum(events) FROM gold.daily_actives) + (SELECT sum(events) FROM gold.excluded_daily)";
    assert_eq!(all.number(sum), lines.len() as i64);
    assert_same(
        &all,
        "SELECT event_date, reason, events, persons, page_views, purchases FROM gold.excluded_daily",
        "SELECT event_time::date, v.reason, count(*), count(DISTINCT nullif(user_id, 'guest')),
                count(*) FILTER (WHERE event_type = 'page_viewed'),
                count(*) FILTER (WHERE event_type = 'purchase_completed')
           FROM (SELECT *, CASE WHEN payload::text LIKE '%https://test.shop.example%' THEN 'test host'
                                WHEN payload::text LIKE '%RobotA/%' THEN 'bot' END AS reason FROM bronze.events) AS v
          WHERE v.reason IS NOT NULL GROUP BY 1, 2",
    );
    // Sessions know where and with what.
    let known = all.rows("SELECT DISTINCT browser, os, country FROM gold.sessions ORDER BY 1, 2, 3");
    assert!(known.contains(&vec!["Ship".to_owned(), "Sea".to_owned(), "DE".to_owned()]), "{known:?}");
    assert!(known.iter().all(|row| row[0] != "RobotA"), "{known:?}");

    // Live views leave out what has not been refreshed yet, too.
    let more = |n, agent: &str| {
        let context = format!(r#"{{"userAgent":"{agent}","ip":"203.0.113.9"}}"#);
        event(n, "late", "2026-11-05T12:00:00Z", "page_viewed", "{}", &context)
    };
    files.load(&all, &[more(1_000_001, "RobotA/1"), more(1_000_002, "Ship/1 (Sea 7)")]);
    let sql = "SELECT (SELECT events FROM gold.daily_actives_live WHERE event_date = '2026-11-05')
                      - (SELECT events FROM gold.daily_actives WHERE event_date = '2026-11-05'),
                      (SELECT sum(events) FROM gold.excluded_daily_live) - (SELECT sum(events) FROM gold.excluded_daily)";
    assert_eq!(all.rows(sql), [["1", "1"]]);
    // The loader's rows are there before the events are, and each once.
    assert_eq!(all.value("SELECT count(*) || ' ' || count(bot) FROM silver.user_agents"), "4 1");
    assert_eq!(all.column("SELECT country FROM silver.networks ORDER BY ip_prefix"), ["IT", "DE", "FR"]);

    // What is own traffic no more is counted, and the other way round.
    all.rows("SELECT silver.set_own_traffic(networks => '{203.0.113.0/24}', hosts => '{}')");
    maintain(&all);
    assert_eq!(
        all.value("SELECT count(*) FROM silver.events WHERE excluded_as = 'own network'"),
        all.value("SELECT count(*) FROM bronze.events WHERE payload::text LIKE '%203.0.113.%'")
    );
    assert_eq!(all.number("SELECT count(*) FROM silver.events WHERE excluded_as = 'test host'"), 0);
    assert_eq!(all.number("SELECT silver.set_own_traffic(hosts => '{}')"), 0, "nothing new");
}

#[test]
fn a_new_file_changes_the_events_of_which_it_says_something_else() {
    let one = first_files();
    // RobotA turns out to be a browser, RobotB to be a robot, and one network to be elsewhere.
    let places = [("198.51.100.0/24", "DE"), ("203.0.113.0/24", "BE"), ("192.0.2.0/24", "IT")];
    let two = Files::of("two", &["RobotB"], &places);
    let lines = visits(21);
    let (changed, anew) = (cluster::shared().database(), cluster::shared().database());
    one.load(&changed, &lines);
    maintain(&changed);
    two.load(&anew, &lines);
    maintain(&anew);
    assert_ne!(gold(&changed), gold(&anew));

    let said = one.enrich(&changed, "update");
    assert!(
        said.contains("0 user agents were looked up") && said.ends_with("0 events of 0 dates changed\n"),
        "{said}"
    );
    let before = "SELECT event_id::text, xmin::text FROM silver.events ORDER BY 1";
    let written_before: BTreeMap<String, String> =
        changed.rows(before).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let log = changed.number("SELECT max(id) FROM tidemark.refresh_log");

    let said = two.enrich(&changed, "update");
    let touched = |line: &&String| line.contains("Robot") || line.contains("203.0.113.");
    let expected = lines.iter().filter(touched).count();
    let dates: std::collections::BTreeSet<&str> = lines
        .iter()
        .filter(touched)
        .map(|line| line.split("2026-11-").nth(1).unwrap().split('T').next().unwrap())
        .collect();
    assert!(
        said.contains("4 user agents were looked up in two.yaml")
            || said.contains("4 user agents were looked up in enrichment-two.yaml"),
        "{said}"
    );
    assert!(said.contains("2 are something else now") && said.contains("1 are somewhere else now"), "{said}");
    assert!(
        said.contains(&format!("\n{expected} events of {} dates changed; tidemark maintain", dates.len())),
        "{said}"
    );
    // Exactly these rows were written.
    let written_again =
        changed.rows(before).into_iter().filter(|row| written_before[&row[0]] != row[1]).count();
    assert_eq!(written_again, expected);
    // Live views are right before any refresh.
    let live = "SELECT md5(string_agg((to_jsonb(g) - 'last_loaded_at')::text, ',' ORDER BY event_date, g::text)) FROM gold.{} AS g";
    for view in [
        "daily_actives",
        "excluded_daily",
        "revenue_daily",
        "funnel_daily",
        "daily_actives_by_platform_country",
    ] {
        let found = changed.value(&live.replace("{}", &format!("{view}_live")));
        assert_eq!(found, anew.value(&live.replace("{}", view)), "{view}_live");
    }
    maintain(&changed);
    assert_eq!(gold(&changed), gold(&anew));
    // Scoped models compute the persons again that have such an event, others their dates; and silver nothing.
    let refreshed = changed.column(&format!(
        "SELECT DISTINCT model FROM tidemark.refresh_log WHERE id > {log} AND way <> 'changed' AND model LIKE 'silver.%'"
    ));
    assert_eq!(refreshed, [""; 0]);
    let wrong = changed.rows(
        "SELECT m.model, v.event_date, v.detail FROM tidemark.model_status AS m
          CROSS JOIN LATERAL tidemark.verify_model(m.model, '2026-10-30', '2026-11-13') AS v WHERE v.status <> 'ok'",
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    let said = two.enrich(&changed, "update");
    assert!(said.ends_with("0 events of 0 dates changed\n"), "{said}");
    let status = two.enrich(&changed, "status");
    assert!(status.contains("Places-two 2026-11-01") && status.contains("4, 1 of them bots"), "{status}");

    // Events that came without the loader are brought in, too.
    let context = r#"{"context":{"userAgent":"RobotB/9","ip":"198.51.100.7"}}"#;
    changed.rows(&format!(
        "INSERT INTO bronze.events (event_id, event_time, event_type, user_id, payload, received_at)
         VALUES (gen_random_uuid(), '2026-11-05T12:00:00Z', 'page_viewed', 'direct', '{context}', '2026-11-05T12:00:00Z')"
    ));
    changed.rows("SELECT tidemark.mark_dirty('bronze.events', '{2026-11-05}', 'by hand')");
    maintain(&changed);
    let of_it = "SELECT ip_country, excluded_as FROM silver.events WHERE user_id = 'direct'";
    assert_eq!(changed.rows(of_it), [["DE", "NULL"]]);
    let said = two.enrich(&changed, "update");
    assert!(
        said.starts_with("1 user agents and 0 networks were missing")
            && said.contains("\n1 events of 1 dates"),
        "{said}"
    );
    assert_eq!(changed.rows(of_it), [["DE", "bot"]]);
    // Of one person only this one is computed again.
    let log = changed.number("SELECT max(id) FROM tidemark.refresh_log");
    maintain(&changed);
    let scoped = format!(
        "SELECT DISTINCT way, persons FROM tidemark.refresh_log
          WHERE id > {log} AND model = 'gold_storage.person_activity'"
    );
    assert_eq!(changed.rows(&scoped), [["scope", "1"]]);
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_the_loader_goes_on() {
    let database = cluster::shared().database();
    let files = Files {
        browsers: PathBuf::from("/nowhere/regexes.yaml"),
        bots: file("broken.json", b"{"),
        places: file("broken.mmdb", b"nothing of the kind"),
    };
    let check =
        tidemark(&["check", "--brokers", "127.0.0.1:1", "--topic", "t"]).database(&database.loader_url());
    let check = files.given_to(check).run();
    assert_eq!(check.code, Some(3), "{}", check.stdout);
    let named: Vec<&str> =
        check.stdout.lines().filter(|line| line.starts_with("problem  enrichment")).collect();
    assert_eq!(named.len(), 3, "{}", check.stdout);
    for (line, name) in named.iter().zip(["/nowhere/regexes.yaml", "broken.json", "broken.mmdb"]) {
        assert!(line.contains(name), "{line}");
    }
    let loaded = files.load(&database, &visits(22)[..5]);
    assert!(loaded.stdout.contains("loaded 5"), "{}", loaded.stdout);
    assert!(loaded.stderr.contains("goes on without /nowhere/regexes.yaml"), "{}", loaded.stderr);
    let status = files.enrich(&database, "status");
    assert!(status.lines().skip(1).all(|line| line.contains("none")), "{status}");
    // An update would take away what the file said; and what is known stays where none says anything.
    let good = first_files();
    good.enrich(&database, "update");
    let known = database.rows("SELECT * FROM silver.user_agents ORDER BY 1");
    let update = tidemark(&["enrich", "update"]).database(&database.admin_url());
    let refused = files.given_to(update).run();
    assert!(
        refused.code == Some(78) && refused.stderr.contains("/nowhere/regexes.yaml"),
        "{}",
        refused.stderr
    );
    tidemark(&["enrich", "update"]).database(&database.admin_url()).run().ok();
    assert_eq!(database.rows("SELECT * FROM silver.user_agents ORDER BY 1"), known);
}

#[test]
fn a_table_that_has_read_more_than_the_events_is_right_in_the_end() {
    let database = cluster::shared().database();
    let one = first_files();
    let two = Files::of("three", &["RobotB"], &[("198.51.100.0/24", "DE")]);
    let of = |n, agent: &str, ip: &str| {
        let context = format!(r#"{{"userAgent":"{agent}","ip":"{ip}"}}"#);
        event(n, "p", "2026-11-05T12:00:00Z", "signed_up", "{}", &context)
    };
    one.load(&database, &[of(1, "RobotA/1", "203.0.113.7"), of(2, "RobotB/1", "192.0.2.7")]);
    let mut admin = connect(&database.admin_url());
    admin.batch_execute("CALL tidemark.refresh('silver.sign_ups')").unwrap();
    assert_eq!(database.number("SELECT silver.set_own_traffic('{192.0.2.0/24}')"), 1);
    two.enrich(&database, "update");
    maintain(&database);
    let reasons = "SELECT excluded_as FROM silver.{} ORDER BY event_id";
    for table in ["events", "sign_ups"] {
        assert_eq!(database.column(&reasons.replace("{}", table)), ["NULL", "own network"], "{table}");
    }
}

#[test]
fn addresses_are_kept_whole_where_that_is_said() {
    let database = cluster::shared().database();
    database.rows("SELECT silver.set_own_traffic('{192.0.2.7,2001:db8:7::/48}')");
    let of = |n, ip: &str| {
        let context = format!(r#"{{"ip":"{ip}","traits":{{"last_ip":"{ip}"}}}}"#);
        event(n, "p", "2026-11-05T12:00:00Z", "page_viewed", "{}", &context)
    };
    let load = |lines: &[String], keep: &str| {
        let path = events::file(lines.join("\n").as_bytes());
        let command = tidemark(&["load", path.to_str().unwrap()]).database(&database.loader_url());
        command.env("TIDEMARK__ENRICH__ADDRESSES", keep).run().ok();
    };
    let lines = [
        of(1, "203.0.113.77"),
        of(2, "192.0.2.7"),
        of(3, "2001:db8:7::9"),
        of(4, "2001:db8:8::9"),
        "203.0.113.78".to_owned(),
    ];
    load(&lines, "cut");
    // The same event from another address of the network is the same; kept whole it would be another one.
    load(&[of(1, "203.0.113.78")], "cut");
    load(&[of(5, "203.0.113.79")], "keep");
    maintain(&database);
    let said = "SELECT payload #>> '{context,ip}', payload #>> '{context,traits,last_ip}' FROM bronze.events ORDER BY event_id";
    let expected = ["203.0.113.0", "192.0.2.7", "2001:db8:7::9", "2001:db8:8::", "203.0.113.79"]
        .map(|ip| vec![ip.to_owned(); 2]);
    assert_eq!(database.rows(said), expected);
    let letters = "SELECT convert_from(payload, 'UTF8') FROM loader.dead_letters";
    assert_eq!(database.column(letters), ["203.0.113.0 "]);
    let seen = "SELECT ip_prefix, excluded_as FROM silver.events ORDER BY event_id";
    let silver: Vec<String> = database.rows(seen).iter().map(|row| row.join(" ")).collect();
    assert_eq!(
        silver,
        [
            "203.0.113.0/24 NULL",
            "192.0.2.0/24 own network",
            "2001:db8:7::/48 own network",
            "2001:db8:8::/48 NULL",
            "203.0.113.0/24 NULL",
        ]
    );
}

#[test]
fn what_is_no_network_or_host_is_refused_and_strangers_are_kept_out() {
    let database = cluster::shared().database();
    let mut admin = connect(&database.admin_url());
    for (call, code) in [
        ("silver.set_own_traffic(hosts => '{Shop.example}')", "22023"),
        ("silver.set_own_traffic(hosts => '{NULL}')", "22023"),
        ("silver.set_own_traffic('{NULL}')", "22004"),
        ("silver.set_own_traffic('{192.0.2.7/24}')", "22P02"),
    ] {
        assert_eq!(sqlstate(admin.simple_query(&format!("SELECT {call}"))), code, "{call}");
    }
    assert_eq!(rows(&mut admin, "SELECT count(*)::text FROM loader.own_networks"), [["0"]]);
    for url in [database.reader_url(), database.loader_url()] {
        let mut client = connect(&url);
        for call in ["silver.set_own_traffic('{}')", "silver.apply_enrichment()", "silver.unknown_networks()"]
        {
            assert_eq!(sqlstate(client.simple_query(&format!("SELECT {call}"))), "42501", "{call}");
        }
        for sql in ["UPDATE silver.networks SET country = 'XX'", "DELETE FROM silver.user_agents"] {
            assert_eq!(sqlstate(client.simple_query(sql)), "42501", "{sql}");
        }
    }
    // A loader adds rows, but none that would never be found again.
    let mut loader = connect(&database.loader_url());
    for row in [
        "silver.user_agents (user_agent_id, user_agent) VALUES (md5('a')::uuid, 'b')",
        "silver.user_agents (user_agent_id, user_agent) VALUES (md5(repeat('a', 1001))::uuid, repeat('a', 1001))",
        "silver.networks (ip_prefix) VALUES ('203.0.113.0/25')",
    ] {
        assert_eq!(sqlstate(loader.simple_query(&format!("INSERT INTO {row}"))), "23514", "{row}");
    }
    // Of an own network that is a part of what is left of an address, the first address may be any neighbour's.
    database.rows("SELECT silver.set_own_traffic('{203.0.113.0/25,2001:db8:1::/64,198.51.100.0/24}')");
    let asked = "SELECT coalesce(silver.own_traffic(a, NULL), 'no') FROM unnest(ARRAY['203.0.113.0', '203.0.113.7', '203.0.113.200',
                     '2001:db8:1::', '2001:db8:1::7', '2001:db8:1:1::7', '198.51.100.0', '198.51.100.9']::inet[]) AS a";
    let expected = ["no", "own network", "no", "no", "own network", "no", "own network", "own network"];
    assert_eq!(database.column(asked), expected);
    let refused = tidemark(&["enrich", "update"]).database(&database.reader_url()).run();
    assert_eq!(refused.code, Some(77), "{}", refused.stderr);
}
