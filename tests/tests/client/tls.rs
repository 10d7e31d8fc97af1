//! Encrypted ways to Postgres and to Kafka, against servers that speak TLS. What `check` says otherwise is in `operations`.

use std::path::PathBuf;
use std::process::Command;

use tidemark_tests::broker::{self, Secure};
use tidemark_tests::cluster::{self, Cluster, Database};
use tidemark_tests::events::{self, assert_exact};
use tidemark_tests::process::tidemark;
use tidemark_tests::run::until_caught_up;

use crate::operations::{check, config, some_events, topic_of, with_config};

/// A self-signed certificate for localhost and its key.
fn certificate(name: &str) -> (PathBuf, PathBuf) {
    let [cert, key] =
        ["cert", "key"].map(|kind| events::file(b"").with_extension(format!("{name}.{kind}.pem")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tidemark-test"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl is there; scripts/deps.sh test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

/// Switches TLS on with a certificate, written by the server itself into its data directory.
fn switch_tls_on(database: &Database<'_>, cert: &std::path::Path, key: &std::path::Path) {
    let mut client = database.connect();
    for (path, name) in [(cert, "server.crt"), (key, "server.key")] {
        let content = std::fs::read_to_string(path).unwrap();
        let sql = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM 'umask 077; cat >{name}'",
            content.trim()
        );
        client.batch_execute(&sql).unwrap();
    }
    client.batch_execute("ALTER SYSTEM SET ssl = on").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    tidemark_tests::wait_until("TLS", std::time::Duration::from_secs(20), || {
        database.value("SHOW ssl") == "on"
    });
}

#[test]
fn tls_to_postgres_checks_what_sslmode_says() {
    let cluster = Cluster::start("postgres-tls");
    let database = cluster.database();
    let (cert, key) = certificate("server");
    let (other, _) = certificate("other");
    switch_tls_on(&database, &cert, &key);
    let (cert, other) = (cert.display(), other.display());
    let plain = database.loader_url();
    let named = plain.replace("127.0.0.1", "localhost");
    let broker = &broker::shared().address;
    let file = some_events("306");
    let topic = topic_of(&file, broker);
    let line = |url: &str| {
        let finished = check(url, broker, &topic, &[]);
        let found = finished
            .stdout
            .lines()
            .find(|l| l.split_whitespace().nth(1) == Some("postgres"))
            .map(str::to_owned);
        found.unwrap_or_else(|| panic!("{}{}", finished.stdout, finished.stderr))
    };
    for (url, expected) in [
        (format!("{plain}?sslmode=disable"), "without TLS"),
        (plain.clone(), "with TLS"),
        (format!("{plain}?sslmode=require"), "with TLS"),
        (format!("{plain}?sslmode=verify-ca&sslrootcert={cert}"), "with TLS"),
        (format!("{named}?sslmode=verify-full&sslrootcert={cert}"), "with TLS"),
        // The certificate is for localhost.
        (format!("{plain}?sslmode=verify-full&sslrootcert={cert}"), "certificate verify failed"),
        // Of nobody whom we trust.
        (format!("{named}?sslmode=verify-full&sslrootcert={other}"), "certificate verify failed"),
        (format!("{named}?sslmode=verify-full"), "certificate verify failed"),
        (format!("{plain}?sslmode=require&sslrootcert={other}"), "certificate verify failed"),
    ] {
        let line = line(&url);
        assert!(line.contains(expected), "{url}: {line}");
        assert_eq!(line.starts_with("ok"), expected.ends_with("TLS"), "{url}: {line}");
    }
    let url = format!("{named}?sslmode=verify-full&sslrootcert={cert}");
    until_caught_up(broker, &topic).database(&url).run().ok();
    assert_exact(&database, &file.path);
    // A server without TLS and a client that insists on it.
    let off = cluster::shared().database();
    assert!(line(&format!("{}?sslmode=require", off.loader_url())).starts_with("problem"));
    assert!(line(&format!("{}?sslmode=prefer", off.loader_url())).contains("without TLS"));
}

#[test]
fn kafka_with_tls_and_sasl() {
    let secure = Secure::start();
    let database = cluster::shared().database();
    tidemark(&["maintain"]).database(&database.superuser_url()).run().ok();
    let file = some_events("307");
    let topic = topic_of(&file, &secure.open.address);
    let password = events::file(b"alice-secret\n");
    let settings = |mechanism: &str, more: &str| {
        config(&format!(
            "[kafka]\nbrokers = '{}'\ntopics = ['{topic}']\nsecurity_protocol = 'sasl_ssl'\nssl_ca_file = '{}'\n\
             sasl_mechanism = '{mechanism}'\nsasl_username = 'alice'\n{more}\n[maintenance]\nevery = 'off'\n",
            secure.address,
            secure.certificate.display(),
        ))
    };
    let url = database.loader_url();
    let good = format!("sasl_password_file = '{}'", password.display());
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let finished = with_config(&["check"], &settings(mechanism, &good)).database(&url).run().ok();
        let shown = with_config(&["config", "show"], &settings(mechanism, &good)).database(&url).run().ok();
        assert!(shown.stdout.contains("sasl_password = \"***\" # file"), "{}", shown.stdout);
        for said in [finished.stdout, finished.stderr, shown.stdout, shown.stderr] {
            assert!(!said.contains("alice-secret"), "{said}");
        }
    }
    let run = |settings: &PathBuf, pipeline: &str| {
        with_config(&["run", "--until-caught-up", "--pipeline", pipeline], settings).database(&url).run()
    };
    let finished = run(&settings("SCRAM-SHA-512", "sasl_password = 'wrong'"), "web");
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("SASL authentication error")
            || finished.stderr.contains("Authentication failed"),
        "{}",
        finished.stderr
    );
    assert!(!finished.stderr.contains("wrong"), "{}", finished.stderr);
    run(&settings("SCRAM-SHA-512", &good), "web").ok();
    assert_exact(&database, &file.path);
    // A token of nobody who signs, until 2030 and until 2001.
    let token = |claims: &str| {
        let claims = events::file(format!("eyJhbGciOiJub25lIn0.{claims}.\n").as_bytes());
        settings("OAUTHBEARER", &format!("sasl_token_file = '{}'", claims.display()))
    };
    let good_token = token("eyJzdWIiOiJhbGljZSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjoxOTAwMDAwMDAwfQ");
    let finished = with_config(&["check"], &good_token).database(&url).run().ok();
    assert!(!finished.stdout.contains("eyJ") && !finished.stderr.contains("eyJ"));
    assert!(run(&good_token, "token").ok().counts().duplicate > 0);
    let old_token = token("eyJzdWIiOiJhbGljZSIsImlhdCI6OTAwMDAwMDAwLCJleHAiOjEwMDAwMDAwMDB9");
    let finished = run(&old_token, "token");
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    assert!(!finished.stderr.contains("eyJ"), "{}", finished.stderr);
    assert_eq!(
        run(&settings("PLAIN", &good), "again").ok().counts().duplicate,
        file.number("events") + file.number("duplicates")
    );
}
