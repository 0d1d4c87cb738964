//! What the kernel says about another process without its help: threads, their sleep, receive queues. All from proc(5).
//!
//! Read next: `scenarios/herd.rs`, which uses it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddrV4;

/// The threads of a process whose name begins with `prefix`, in the order of their ids.
///
/// # Errors
/// The process has gone.
pub fn threads(pid: u32, prefix: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A thread may end between the two readings.
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with(prefix)) {
            found.push(tid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Name and state of each thread of a process: what `ps -T -o comm,stat` shows. R runs or waits for a processor, S sleeps, D waits in the
/// kernel and cannot be interrupted, Z has ended and nobody has asked for its status yet (proc_pid_stat(5)).
///
/// # Errors
/// The process has gone.
pub fn thread_states(pid: u32) -> io::Result<Vec<(String, char)>> {
    // By id: a directory that changes while it is read may list an entry twice (readdir(3)).
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may end between the two readings.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        found.extend(name_and_state(&stat).map(|thread| (entry.file_name(), thread)));
    }
    Ok(found.into_values().collect())
}

fn name_and_state(stat: &str) -> Option<(String, char)> {
    // The name may hold anything, brackets among it; the first one opens and the last one closes it.
    let (before, after) = stat.rsplit_once(')')?;
    Some((before.split_once('(')?.1.to_owned(), after.trim_start().chars().next()?))
}

/// How often a thread has gone to sleep by itself (`voluntary_ctxt_switches`).
///
/// # Errors
/// The thread has gone.
pub fn voluntary_switches(pid: u32, tid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
    count.ok_or_else(|| io::Error::other("no voluntary_ctxt_switches in /proc/PID/task/TID/status"))
}

/// Whether a thread sleeps: state S. One that was woken and waits for a processor is in state R.
///
/// # Errors
/// The thread has gone.
pub fn sleeps(pid: u32, tid: u32) -> io::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"))?;
    Ok(name_and_state(&stat).is_some_and(|(_, state)| state == 'S'))
}

/// Open descriptors of a process.
///
/// # Errors
/// The process has gone.
pub fn open_descriptors(pid: u32) -> io::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

/// Bytes of a process that lie in memory (`VmRSS`).
///
/// # Errors
/// The process has gone.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("no VmRSS in /proc/PID/status"))
}

/// For each established connection of a listening address, the bytes that have arrived and that nobody has read: `Recv-Q` in `ss -tn`.
///
/// # Errors
/// /proc/net/tcp cannot be read.
pub fn receive_queues(local: SocketAddrV4) -> io::Result<Vec<u64>> {
    Ok(sockets(&fs::read_to_string("/proc/net/tcp")?, local, "01"))
}

/// Connections that wait in the queue of a listening address for accept(2): `Recv-Q` in `ss -ltn`.
///
/// # Errors
/// /proc/net/tcp cannot be read.
pub fn accept_queue(local: SocketAddrV4) -> io::Result<u64> {
    Ok(sockets(&fs::read_to_string("/proc/net/tcp")?, local, "0A").iter().sum())
}

/// A counter of TCP, of all processes together: `TCPAbortOnClose` is what nstat(8) calls `TcpExtTCPAbortOnClose`.
///
/// # Errors
/// /proc/net/netstat cannot be read, or has no such counter.
pub fn tcp_counter(name: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    // Two lines: the names, and below each its number (net/ipv4/proc.c).
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = names.split(' ').zip(numbers.split(' ')).find(|(found, _)| *found == name);
    found.and_then(|(_, number)| number.parse().ok()).ok_or_else(|| io::Error::other(format!("no {name} in /proc/net/netstat")))
}

/// The receive queues of the sockets with that local address and state (include/net/tcp_states.h; proc_net_tcp(5)).
fn sockets(table: &str, local: SocketAddrV4, wanted_state: &str) -> Vec<u64> {
    // The address is printed as one number in the machine's byte order, the port in the usual one (net/ipv4/tcp_ipv4.c).
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(local.ip().octets()), local.port());
    let queue = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, _, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_, received) = queues.split_once(':')?;
        (address == wanted && state == wanted_state).then(|| u64::from_str_radix(received, 16).ok())?
    };
    table.lines().skip(1).filter_map(queue).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    #[test]
    fn bytes_that_nobody_has_read_and_clients_that_nobody_has_accepted_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!("it is IPv4") };
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(accept_queue(address).unwrap(), 1);
        let (_server, _) = listener.accept().unwrap();
        assert_eq!(accept_queue(address).unwrap(), 0);
        assert_eq!(receive_queues(address).unwrap(), [5]);
    }

    #[test]
    fn a_thread_is_found_by_its_name_and_its_sleeps_are_counted() {
        let (go, wait) = channel::<()>();
        let thread = std::thread::Builder::new().name("proc-test) S".to_owned()).spawn(move || wait.iter().count()).unwrap();
        let pid = std::process::id();
        // A thread names itself when it first runs.
        let tid = loop {
            match threads(pid, "proc-test").unwrap()[..] {
                [] => std::thread::yield_now(),
                [tid] => break tid,
                _ => panic!("one thread has that name"),
            }
        };
        while !sleeps(pid, tid).unwrap() {
            std::thread::yield_now();
        }
        let before = voluntary_switches(pid, tid).unwrap();
        go.send(()).unwrap();
        while voluntary_switches(pid, tid).unwrap() == before {
            std::thread::yield_now();
        }
        drop(go);
        assert_eq!(thread.join().unwrap(), 1);
        assert!(sleeps(pid, tid).is_err(), "it has gone");
    }

    #[test]
    fn a_close_with_unread_input_is_counted() {
        let before = tcp_counter("TCPAbortOnClose").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        while server.peek(&mut [0; 8]).unwrap() == 0 {}
        drop(server);
        assert!(tcp_counter("TCPAbortOnClose").unwrap() > before);
        assert!(tcp_counter("TCPNoSuchThing").is_err());
    }

    #[test]
    fn memory_that_was_touched_is_resident() {
        let pid = std::process::id();
        let before = resident_bytes(pid).unwrap();
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes(pid).unwrap() > before + held.len() as u64 / 2);
    }

    #[test]
    fn names_may_hold_brackets_and_states_come_after_the_last() {
        let of = |stat| name_and_state(stat).unwrap();
        assert_eq!(of("17 (loop-0) S 1 17"), ("loop-0".to_owned(), 'S'));
        assert_eq!(of("17 (a) (b) R) D 1 17"), ("a) (b) R".to_owned(), 'D'));
        assert_eq!(name_and_state("17"), None);
    }

    #[test]
    fn this_process_has_a_thread_that_runs() {
        assert!(thread_states(std::process::id()).unwrap().iter().any(|(_, state)| *state == 'R'));
    }

    #[test]
    fn descriptors_are_counted() {
        let pid = std::process::id();
        let few = open_descriptors(pid).unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close some of their own.
        assert!(open_descriptors(pid).unwrap() + 25 > few + files.len() as u64);
    }
}
