//! Sockets of another process, as the kernel reports them in proc(5): receive queues, accept queues, counters.
//!
//! Its threads and its memory: `server::process`. Read next: `scenarios/early_close.rs`, which uses both sides.

use std::fs;
use std::io;
use std::net::SocketAddrV4;

/// For each established connection of a listening address, the bytes in its receive buffer that the process has not read: `Recv-Q` in `ss -tn`.
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

    #[test]
    fn unread_bytes_and_the_accept_queue_are_reported() {
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
    fn a_close_with_unread_input_increments_the_abort_counter() {
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
}
