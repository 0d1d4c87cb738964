//! What a server says at its start: the first line on stdout, and the first lines of the log.
//!
//! Read next: `check.rs`, which says all of it.

use std::net::SocketAddr;

use reactor::listen::socket::ListenAddress;

use crate::budget::Budget;
use crate::config::Config;
use crate::probe::{Probe, probes};

/// Logs the limits, and a warning for each of them that is lower than usual or wrong on purpose.
pub(crate) fn log_settings(config: &Config, budget: &Budget) {
    log::info!(
        "limits connections_max={} descriptors={}/{} memory={}/{} ({})",
        budget.connections_max,
        budget.descriptors_sum(),
        budget.machine.descriptors_max,
        crate::budget::mebibytes(budget.memory_sum()),
        crate::budget::mebibytes(budget.machine.memory_bytes_max),
        budget.machine.memory_source,
    );
    if budget.cut {
        log::warn!(
            "fewer connections than usual fit under the descriptor limit (raise it: ulimit -n) connections_max={} descriptors_max={}",
            budget.connections_max,
            budget.machine.descriptors_max
        );
    }
    for complaint in probes(config.files_root.is_some()).iter().filter_map(Probe::complaint) {
        log::warn!("{complaint}");
    }
    for slug in &config.mistakes {
        log::warn!("a deliberate mistake is on: this server fails on purpose mistake={slug}");
    }
}

/// The first line of a server: each address of the service, the admin port's, and the process.
pub(crate) fn listening(http: &[ListenAddress], admin: SocketAddr) -> String {
    let http: String = http.iter().map(|address| format!(" http={address}")).collect();
    format!("listening{http} admin={admin} pid={}", std::process::id())
}
