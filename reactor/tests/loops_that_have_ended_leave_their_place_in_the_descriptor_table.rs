//! Each loop has the kernel make room in the process's table of descriptors. A loop that has ended gives its part back, so that a process that
//! makes loops again and again does not grow the table to its limit.
#![allow(clippy::unwrap_used)] // In helpers too: what fails here fails the test.

mod support;

use reactor::os::descriptors::raise_descriptor_limit;
use reactor::{Config, EventLoop};
use support::lines::Lines;

/// Places in the table: `FDSize` in /proc/self/status (proc_pid_status(5)).
fn table_size() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn the_table_does_not_grow_with_the_number_of_loops_that_have_been() {
    let limit = raise_descriptor_limit().unwrap();
    let mut config = Config::default();
    config.limits.connections_max = u32::try_from(limit / 16).unwrap();
    drop(EventLoop::new(config.clone(), Lines::silent()).unwrap());
    let of_one = table_size();
    for _ in 0..32 {
        drop(EventLoop::new(config.clone(), Lines::silent()).unwrap());
    }
    assert_eq!(table_size(), of_one);
}
