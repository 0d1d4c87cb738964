//! Worker threads have their names and their nice value, and no mistake is on by default.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used)] // In helpers as in the tests themselves.

mod common;

use std::fs;
use std::sync::mpsc::channel;

use common::{Gate, TestPool, config_with};
use worker_pool::{Config, MISTAKES, Terms};

/// Fields of `/proc/thread-self/stat` after the name, counted as in proc_pid_stat(5) minus three.
fn nice_of_this_thread() -> i32 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// Name and niceness of each of the pool's threads.
fn threads_of(config: Config) -> Vec<(String, i32)> {
    let threads = config.threads;
    let bench = TestPool::new(config);
    let (report, reports) = channel();
    let gates: Vec<Gate> = (0..threads)
        .map(|i| {
            let (gate, mut wait) = common::gate();
            let report = report.clone();
            let action = move |checkpoint: &worker_pool::Checkpoint<'_>| {
                let name = std::thread::current().name().unwrap_or("").to_owned();
                report.send((name, nice_of_this_thread())).unwrap();
                wait(checkpoint)
            };
            bench.admit(bench.job(i, Box::new(action)), Terms::default());
            gate
        })
        .collect();
    gates.iter().for_each(Gate::wait_entered);
    gates.iter().for_each(Gate::open);
    let mut seen: Vec<_> = reports.iter().take(threads as usize).collect();
    seen.sort();
    seen
}

#[test]
fn worker_threads_are_named_in_order_and_nicer_than_the_loops() {
    let mine = nice_of_this_thread();
    let seen = threads_of(config_with(|config| {
        config.threads = 3;
        config.nice_increment = 7;
    }));
    let expected: Vec<_> = (0..3).map(|i| (format!("worker-{i}"), (mine + 7).min(19))).collect();
    assert_eq!(seen, expected);
    assert_eq!(nice_of_this_thread(), mine, "the priority of this thread has not changed");
}

#[test]
fn worker_threads_keep_the_priority_without_an_increment() {
    let mine = nice_of_this_thread();
    let seen = threads_of(config_with(|config| config.nice_increment = 0));
    assert!(seen.iter().all(|(_, nice)| *nice == mine));
}

#[test]
fn no_mistake_is_on_by_default_and_each_switch_changes_something() {
    let default = format!("{:?}", Config::default());
    for (slug, switch) in MISTAKES {
        let mut config = Config::default();
        switch(&mut config);
        assert_ne!(format!("{config:?}"), default, "{slug} changes nothing");
        config.check().unwrap();
    }
}
