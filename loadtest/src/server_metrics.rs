//! Single figures of the `/metrics` of the server under test, for scenarios.
//!
//! Read next: `kernel_sockets.rs`, figures from the kernel.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the admin port may take. It has a loop of its own, so a stalled service does not delay it; a busy machine may.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The whole page.
///
/// # Errors
/// The port does not answer, or not with 200.
pub fn metrics(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    if page.starts_with("HTTP/1.1 200 ") { Ok(page) } else { Err(io::Error::other("/metrics was not answered 200")) }
}

/// The value of a sample on that page, by name and labels as the page has them: `pool_jobs_ended_total{outcome="done"}`.
///
/// # Errors
/// There is no such sample.
pub fn sample(page: &str, name: &str) -> io::Result<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("no {name} in /metrics")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# TYPE a gauge\na 1\na_b 2\na{c=\"d\"} 3.5 1700000000\n";
        assert_eq!(["a", "a_b", "a{c=\"d\"}"].map(|name| sample(page, name).unwrap()), [1.0, 2.0, 3.5]);
        assert!(sample(page, "a{c").is_err());
    }
}
