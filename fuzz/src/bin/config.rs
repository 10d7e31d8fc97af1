//! The configuration: a file in TOML, variables of the environment above it, and what is made of both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_cli::{kafka_options, options};
use tidemark_fuzz::{Scratch, bounded, joined, parts, seeds};
use tidemark_loader::config::Config;

fn load(file: &Scratch, text: &str, environment: &str) -> Option<Config> {
    file.write(text.as_bytes());
    let variables = environment.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::load(Some(file.path()), variables).ok()
}

/// Names and values, however numbers and lists are spelled.
fn values(config: &Config) -> Vec<(String, String)> {
    let json = config.effective_json();
    let spelled = |text: &str| match text.replace('_', "").parse::<f64>() {
        Ok(n) => n.to_string(),
        Err(_) => text.split(',').map(str::trim).collect::<Vec<_>>().join(","),
    };
    let values = json.as_object().expect("an object").iter();
    values.map(|(name, value)| (name.clone(), spelled(value["value"].as_str().expect("a text")))).collect()
}

fn examples() -> Vec<Vec<u8>> {
    let file = r#"
        [kafka]
        topics = ["events", "clicks"]
        brokers = "127.0.0.1:9092" # ours
        [kafka.librdkafka]
        "socket.timeout.ms" = 30_000
        [batch]
        max_rows = 5000
        max_delay = "250ms"
        [record]
        max_bytes = "1MiB"
        event_time_floor = 2024-01-01
        [dead_letters]
        max_ratio = 0.5
        [postgres]
        dsn = 'postgresql://u:p@h/d'
        [envelope]
        mapping = "snowplow"
        fields = ["user_id=/who/id"]"#;
    let environment = "TIDEMARK__LATE__POLICY=refuse\nTIDEMARK__LATE__ALLOWED=36h\n\
                       TIDEMARK__KAFKA__LIBRDKAFKA__CLIENT_ID=x";
    let other = "[dedupe]\nmode = \"id_window\"\nwindow_days = 7\nfingerprint_exclude = ['/a']\n\
                 [target]\ntable = \"bronze.other\"";
    vec![joined(&[file.as_bytes(), environment.as_bytes()]), joined(&[other.as_bytes(), b""])]
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [text, environment] = parts(data).map(|part| String::from_utf8_lossy(&part).into_owned());
    // Those keys make it read any file.
    if [&text, &environment].iter().any(|text| text.to_ascii_lowercase().contains("_file")) {
        return;
    }
    let file = Scratch::get();
    let config = bounded(text.len() + environment.len(), 256, || load(file, &text, &environment));
    let Some(config) = config else { return };
    let made = (
        options::limits(&config).is_ok(),
        options::format(&config).is_ok(),
        options::target(&config).is_ok(),
        options::encoder(&config).is_ok(),
        options::breaker(&config).is_ok(),
        options::lanes(&config).and_then(|lanes| options::batch_limits(&config, lanes)).is_ok(),
        kafka_options::kafka(&config).is_ok(),
        kafka_options::topics(&config).is_ok(),
        kafka_options::on_data_loss(&config).is_ok(),
        kafka_options::group(&config),
    );
    assert!(made.0 && made.4 && made.8, "single values are checked when they are read");
    let shown = config.effective();
    let again = load(file, &shown, "").unwrap_or_else(|| panic!("what is shown is no configuration:\n{shown}"));
    assert_eq!(values(&again), values(&config));
});
