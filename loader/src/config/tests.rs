//! Layers, unknown keys, secrets.

use std::path::PathBuf;

use super::*;

/// A file that goes away at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(content: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("tidemark-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, content).unwrap();
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config> {
    let file = Temporary::new(file);
    Config::load(Some(&file.0), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    let error = load(file, environment).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
    error.to_string()
}

#[test]
fn the_command_line_overrides_the_environment_overrides_the_file_overrides_the_default() {
    let file = "[batch]\nmax_rows = 100\nmax_bytes = '2MiB'\nmax_delay = '3s'\n";
    let mut config = load(
        file,
        &[("TIDEMARK__BATCH__MAX_BYTES", "4MiB"), ("TIDEMARK__BATCH__MAX_DELAY", "5s"), ("OTHER", "x")],
    )
    .unwrap();
    config.set("batch.max_delay", "7s").unwrap();
    assert_eq!(config.count("batch.max_rows").unwrap(), 100);
    assert_eq!(config.size("batch.max_bytes").unwrap(), 4 << 20);
    assert_eq!(config.time("batch.max_delay").unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(config.size("record.max_bytes").unwrap(), 1 << 20);
    let effective = config.effective();
    for line in [
        "max_rows = 100 # file",
        "max_bytes = \"4MiB\" # environment, TIDEMARK__BATCH__MAX_BYTES",
        "max_delay = \"7s\" # command line",
        "max_buffer_bytes = \"256MiB\" # default",
    ] {
        assert!(effective.contains(line), "{line} is not in\n{effective}");
    }
    // What it prints, it can read, and then says the same.
    let again = load(&effective, &[]).unwrap();
    assert_eq!(again.effective().replace("# file", "#").lines().count(), effective.lines().count());
    assert_eq!(again.time("batch.max_delay").unwrap(), Some(Duration::from_secs(7)));
}

#[test]
fn lists_are_arrays_or_have_commas() {
    let config = load("[kafka]\ntopics = ['a', 'b']\n", &[]).unwrap();
    assert_eq!(config.list("kafka.topics"), ["a", "b"]);
    let config = load("", &[("TIDEMARK__KAFKA__TOPICS", "a, b")]).unwrap();
    assert_eq!(config.list("kafka.topics"), ["a", "b"]);
    assert!(refused("[kafka]\ntopics = [1]\n", &[]).contains("kafka.topics"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    for (file, expected) in [
        (
            "[batch]\nmax_row = 1\n",
            "batch.max_row: unknown key max_row in section [batch]; did you mean max_rows?",
        ),
        ("[batsch]\nmax_rows = 1\n", "batsch.max_rows: unknown section [batsch]; did you mean [batch]?"),
        (
            "[batch]\nmax_buffer_bytes = 1\n",
            "unknown key max_buffer_bytes in section [batch]; did you mean memory.max_buffer_bytes?",
        ),
        ("[postgres]\ndsn_fil = 'x'\n", "did you mean dsn_file?"),
        ("max_rows = 1\n", "max_rows: unknown key outside of any section; it belongs into section [batch]"),
    ] {
        let said = refused(file, &[]);
        assert!(said.contains(expected), "{said}");
    }
    let said = refused("", &[("TIDEMARK__BATCH__MAX_ROW", "1")]);
    assert!(said.contains("TIDEMARK__BATCH__MAX_ROW: unknown key max_row"), "{said}");
    assert!(refused("", &[("TIDEMARK__BATCH", "1")]).contains("TIDEMARK__BATCH"));
}

#[test]
fn a_wrong_value_is_refused_with_its_key() {
    let said = refused("[batch]\nmax_rows = -1\n", &[]);
    assert!(said.contains("batch.max_rows: not a whole number"), "{said}");
    let said = refused("[batch]\nmax_rows = 1\nmax_rows = 2\n", &[]);
    assert!(said.contains("line 3"), "{said}");
    let mut config = load("", &[]).unwrap();
    assert_eq!(config.set("batch.max_rows", "x").unwrap_err().kind, ErrorKind::Usage);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let said = refused("[batch]\nmax_rows = -1\nmax_row = 1\n", &[("TIDEMARK__LOG__FORMAT", "xml")]);
    for expected in ["batch.max_rows: not", "batch.max_row: unknown", "TIDEMARK__LOG__FORMAT: not one of"] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn what_is_shown_is_toml_whatever_the_values() {
    let odd = "\0\u{1b}[2J\u{7f}\"\\\n\u{e9}";
    let variables = [
        ("TIDEMARK__PIPELINE__NAME", odd),
        ("TIDEMARK__KAFKA__TOPICS", odd),
        ("TIDEMARK__KAFKA__LIBRDKAFKA__A\nB\u{7f}", "x"),
        ("TIDEMARK__BATCH__MAX_ROWS", "0_0_7"),
        ("TIDEMARK__DEAD_LETTERS__MAX_RATIO", ".5"),
    ];
    let config = load("", &variables).unwrap();
    let again = load(&config.effective(), &[]).unwrap();
    assert_eq!(again.get("pipeline.name"), Some(odd));
    assert_eq!(again.list("kafka.topics"), config.list("kafka.topics"));
    assert_eq!(again.librdkafka().collect::<Vec<_>>(), [("a\nb\u{7f}", "***")]);
    assert_eq!(
        (again.count("batch.max_rows").unwrap(), again.share("dead_letters.max_ratio").unwrap()),
        (7, 0.5)
    );
}

#[test]
fn settings_of_librdkafka_pass_through_but_those_that_exactly_once_relies_on() {
    let file =
        "[kafka.librdkafka]\n'socket.timeout.ms' = 30000\nfetch.min.bytes = 1\n'sasl.password' = 'hush'\n";
    let config = load(file, &[("TIDEMARK__KAFKA__LIBRDKAFKA__CLIENT_ID", "me")]).unwrap();
    let passed: Vec<_> = config.librdkafka().collect();
    assert_eq!(
        passed,
        [
            ("client.id", "me"),
            ("fetch.min.bytes", "1"),
            ("sasl.password", "hush"),
            ("socket.timeout.ms", "30000")
        ]
    );
    assert!(!config.effective().contains("hush"));
    let misspelt = load("[kafka.librdkafka]\n'sasl.pasword' = 'hush'\n", &[]).unwrap();
    let shown = misspelt.effective() + &misspelt.effective_json().to_string();
    assert!(shown.contains("sasl.pasword") && !shown.contains("hush"), "{shown}");
    for reserved in
        ["enable.auto.commit", "isolation.level", "auto.offset.reset", "group.id", "enable.auto.offset.store"]
    {
        let said = refused(&format!("[kafka.librdkafka]\n'{reserved}' = 'x'\n"), &[]);
        assert!(said.contains(reserved), "{said}");
    }
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let secret = Temporary::new("postgresql://u:sesame@h/d\n");
    let path = secret.0.to_str().unwrap();
    let config =
        load(&format!("[postgres]\ndsn_file = '{path}'\n[kafka]\nsasl_password = 'sesame'\n"), &[]).unwrap();
    assert_eq!(config.get("postgres.dsn"), Some("postgresql://u:sesame@h/d"));
    let effective = config.effective();
    assert!(effective.contains(&format!("dsn = \"***\" # file, read from {path}")), "{effective}");
    assert!(!effective.contains("sesame") && !config.effective_json().to_string().contains("sesame"));
    assert!(!format!("{:?}", config.effective_json()).contains("sesame"));

    // A higher layer replaces either form by either form.
    let config = load("[postgres]\ndsn = 'a'\n", &[("TIDEMARK__POSTGRES__DSN_FILE", path)]).unwrap();
    assert_eq!(config.get("postgres.dsn"), Some("postgresql://u:sesame@h/d"));
    let said = refused(&format!("[postgres]\ndsn = 'sesame'\ndsn_file = '{path}'\n"), &[]);
    assert!(
        said.contains("both postgres.dsn and postgres.dsn_file are set") && !said.contains("sesame"),
        "{said}"
    );
    // The password itself where its file should be, or where something else should be.
    let said = refused("[postgres]\ndsn_file = '/nonexistent/sesame'\n", &[]);
    assert!(said.contains("postgres.dsn_file: No such file") && !said.contains("sesame"), "{said}");
    let said = refused("[kafka]\nsasl_mechanism = 'sesame'\n", &[]);
    assert!(said.contains("kafka.sasl_mechanism: not one of PLAIN") && !said.contains("sesame"), "{said}");
    // A line that is no TOML may hold a password.
    let said = refused("[postgres]\ndsn = 'sesame\n", &[]);
    assert!(said.contains("line 2") && !said.contains("sesame"), "{said}");
}
