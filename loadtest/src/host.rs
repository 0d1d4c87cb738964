//! The machine that a result comes from, as far as it can change the result.

use serde_json::{Value, json};

/// Kernel, processors, and the limits that load generators meet.
#[must_use]
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "nofile": reactor::os::descriptors::descriptor_limit().ok(),
        "port_range": read("/proc/sys/net/ipv4/ip_local_port_range"),
        "somaxconn": read("/proc/sys/net/core/somaxconn").and_then(|text| text.parse::<u64>().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_as_far_as_it_says() {
        let host = describe();
        assert!(host["kernel"].is_string() && host["cpus"].as_u64() >= Some(1) && host["nofile"].is_u64(), "{host}");
    }
}
