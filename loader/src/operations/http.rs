//! The HTTP side of a running loader: /metrics, /healthz, /readyz, /status. Reads only; whoever may connect may see it.
//! What is counted, and where, is in `metrics`; gauges are read from `health`.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use crate::error::{Error, Kind, Result};
use crate::operations::health::{Health, SILENCE};
use crate::operations::metrics::{METRICS, PREFIX};

const TEXT: &str = "text/plain; charset=utf-8";

/// Starts counting in this process.
pub fn count() -> Result<PrometheusHandle> {
    let seconds: &[f64] =
        &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
    let rows: &[f64] = &[1.0, 10.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6];
    let bytes: &[f64] = &[1e3, 1e4, 1e5, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6, 256e6];
    let builder = [("batch_duration_seconds", seconds), ("batch_rows", rows), ("batch_bytes", bytes)]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
            builder.set_buckets_for_metric(Matcher::Full(format!("{PREFIX}{name}")), buckets)
        });
    let installed = builder.and_then(PrometheusBuilder::install_recorder);
    let handle = installed.map_err(|e| Error::bug("cannot start counting", e))?;
    for (name, kind, _, help) in METRICS {
        let name = format!("{PREFIX}{name}");
        match *kind {
            "counter" => metrics::describe_counter!(name, *help),
            "histogram" => metrics::describe_histogram!(name, *help),
            _ => {}
        }
    }
    Ok(handle)
}

/// Everything in the text format of Prometheus.
fn render(handle: &PrometheusHandle, health: &Health) -> String {
    let mut out = handle.render();
    let mut last = "";
    for (name, labels, value) in health.gauges() {
        if name != last {
            let help = METRICS.iter().find(|m| m.0 == name).map_or("", |m| m.3);
            let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge");
            last = name;
        }
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{PREFIX}{name}{labels} {value}");
    }
    out
}

/// Listens, and answers from a task of its own for as long as the process runs. Returns the address.
pub async fn serve(listen: &str, health: Arc<Health>, counters: PrometheusHandle) -> Result<SocketAddr> {
    let failed = |e: std::io::Error| {
        let next = "choose another address with --listen, or listen in [http] of the configuration";
        Error::new(Kind::Config, format!("cannot listen on {listen}"), e, next)
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, most likely: loading goes on.
                    tracing::warn!("cannot accept an HTTP connection: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (health, counters) = (health.clone(), counters.clone());
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), &health, &counters);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                // Who connects and says nothing is not waited for.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    Ok(address)
}

fn respond(
    method: &Method,
    path: &str,
    health: &Health,
    counters: &PrometheusHandle,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned())
        }
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render(counters, health)),
        "/healthz" => match health.silence() {
            silence if silence < SILENCE => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            silence => {
                let why = format!("the reading thread has been silent for {} s\n", silence.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, why)
            }
        },
        "/readyz" => match health.not_ready() {
            reasons if reasons.is_empty() => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            reasons => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", reasons.join("\n"))),
        },
        "/status" => (StatusCode::OK, "application/json", format!("{:#}\n", health.status())),
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz, /readyz and /status\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
