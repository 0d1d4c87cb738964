//! Four loops on one listening socket: a connection wakes one of them, and all four with the mistake `herd`. Alone in its file, since it
//! counts the sleeps of every thread that is named like a loop.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fs;
use std::net::TcpStream;

use reactor::policy::ListenerSharing;
use reactor::{Config, MISTAKES};
use support::lines::Lines;
use support::{Running, connect, listener, prepare_on, until};

const LOOPS: usize = 4;
const CONNECTIONS: u64 = 50;

/// `/proc/self/task/TID` of every loop.
fn loops() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path().display().to_string());
    tasks.filter(|task| fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name == "loop-0\n")).collect()
}

/// Whether every loop sleeps. One that was woken and waits for a processor does not.
fn all_sleep(loops: &[String]) -> bool {
    loops.iter().all(|task| fs::read_to_string(format!("{task}/stat")).unwrap().contains(") S "))
}

/// How often the loops have gone to sleep.
fn sleeps(loops: &[String]) -> u64 {
    let of = |task| {
        let status = fs::read_to_string(format!("{task}/status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse::<u64>().unwrap()
    };
    loops.iter().map(of).sum()
}

/// Sleeps of all loops for each of some connections that come one at a time.
fn sleeps_per_connection(sharing: ListenerSharing) -> f64 {
    let socket = listener();
    let servers: Vec<Running<Lines>> =
        (0..LOOPS).map(|_| prepare_on(socket.try_clone().unwrap(), sharing.wakes(), Config::default(), Lines::silent()).run()).collect();
    until("the loops run", || loops().len() == LOOPS);
    let loops = loops();
    until("all loops sleep", || all_sleep(&loops));
    let before = sleeps(&loops);
    let mut open: Vec<TcpStream> = Vec::new();
    for n in 1..=CONNECTIONS {
        open.push(connect(servers[0].address));
        until("it is accepted", || servers.iter().map(|server| server.stats.accepts.get()).sum::<u64>() == n);
        until("all loops sleep again", || all_sleep(&loops));
    }
    (sleeps(&loops) - before) as f64 / CONNECTIONS as f64
}

#[test]
fn a_new_connection_wakes_one_loop_and_with_herd_every_loop() {
    let mut wrong = Config::default();
    let (_, herd) = MISTAKES.iter().find(|(slug, _)| *slug == "herd").expect("the table has it");
    herd(&mut wrong);
    let all = sleeps_per_connection(wrong.policy.sharing);
    assert!(all > 3.0, "with the herd {all} for each connection");
    let one = sleeps_per_connection(ListenerSharing::Exclusive);
    assert!(one < 2.0, "{one} for each connection");
}
