//! Just enough HTTP to ask a loader how it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers as they came.
    pub headers: String,
    /// Body.
    pub body: String,
}

/// Sends a request; `None` when nobody answers.
pub fn request(method: &str, address: &str, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (headers, body) = text.split_once("\r\n\r\n")?;
    let status = headers.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, headers: headers.to_owned(), body: body.to_owned() })
}

/// Asks for a page; panics when nobody answers.
pub fn get(address: &str, path: &str) -> Answer {
    request("GET", address, path).unwrap_or_else(|| panic!("no answer from http://{address}{path}"))
}

/// The value of a metric, with its labels as they are shown; `None` when it is not there.
pub fn metric(address: &str, name: &str) -> Option<f64> {
    let page = get(address, "/metrics").body;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
