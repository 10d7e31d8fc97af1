//! The HTTP side of a running loader: /metrics, /healthz, /readyz, /status. Reads only; whoever may connect may see it.
//! What they say is made of `state` when somebody asks.

use std::convert::Infallible;
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
use tokio::net::TcpListener;

use crate::error::{Error, Kind, Result};
use crate::operations::health::{LIMITS, Reason, ready, status};
use crate::operations::metrics;
use crate::operations::state::{Now, Shared, State};

const TEXT: &str = "text/plain; charset=utf-8";

/// Listens, and answers from a task of its own for as long as the process runs. Returns the address.
pub async fn serve(listen: &str, state: Arc<Shared>) -> Result<SocketAddr> {
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
            let state = state.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), &state.get());
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

fn respond(method: &Method, path: &str, state: &State) -> Response<Full<Bytes>> {
    let now = Now::get();
    let ok_or = |reasons: Vec<Reason>| match reasons {
        reasons if reasons.is_empty() => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        reasons => {
            let lines = reasons.iter().map(|reason| format!("{reason}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
        }
    };
    let (status, kind, body) = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned())
        }
        "/metrics" => {
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(state, now))
        }
        "/healthz" => {
            let silence = state.silence(now);
            ok_or(Vec::from_iter((silence > LIMITS.silence).then_some(Reason::Silent(silence.as_secs()))))
        }
        "/readyz" => ok_or(ready(state, now, &LIMITS).err().unwrap_or_default()),
        "/status" => (StatusCode::OK, "application/json", format!("{:#}\n", status(state, now, &LIMITS))),
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
