//! A real Prometheus that scrapes one loader every second and evaluates the rules of `packaging/prometheus`, without
//! their delays: an alert fires as soon as its expression holds.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{free_port, root, server, wait_until};

/// A running server; stopped when it goes out of scope.
pub struct Prometheus {
    child: Child,
    address: String,
}

/// The rules that are delivered.
pub fn rules() -> PathBuf {
    root().join("packaging/prometheus/tidemark.rules.yml")
}

impl Prometheus {
    /// Starts one for the loader whose pages are there.
    pub fn start(loader: &str) -> Prometheus {
        let port = free_port();
        let directory = server::scratch().join(format!("prometheus-{port}"));
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let write = |name: &str, content: String| {
            std::fs::write(directory.join(name), content).expect("cannot write a temporary file");
        };
        let text = std::fs::read_to_string(rules()).expect("the rules are there");
        let now: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("for: ")).collect();
        write("rules.yml", now.join("\n"));
        write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
                 scrape_configs: [{{job_name: tidemark, static_configs: [{{targets: ['{loader}']}}]}}]\n"
            ),
        );
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cannot run prometheus; scripts/deps.sh test installs it");
        let prometheus = Prometheus { child, address };
        wait_until("Prometheus to have asked the loader", Duration::from_secs(60), || {
            prometheus.query("up == 1").is_ok_and(|found| !found.is_empty())
        });
        prometheus
    }

    /// The series that an expression gives, each with its value.
    pub fn query(&self, expression: &str) -> Result<Vec<String>, String> {
        promtool(&["query", "instant", &format!("http://{}", self.address), expression], "")
            .map(|out| out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Names of the alerts that fire.
    pub fn alerts(&self) -> BTreeSet<String> {
        let firing =
            self.query("count by (alertname) (ALERTS{alertstate=\"firing\"})").expect("Prometheus answers");
        firing.iter().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs promtool with this input; what it says if it likes it not.
pub fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot run promtool; scripts/deps.sh test installs prometheus");
    // It need not read what it has no use for.
    let _ = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a child can be waited for");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    }
}
