//! A listening socket that another process has opened: taken over, once it is known to be one.
//!
//! Whoever holds the socket while servers come and go keeps its queue, so a restart refuses nobody (failure mode H3). Read next:
//! `../drain.rs`, what is different at the end.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Type};

/// Takes a listening TCP socket over. It becomes non-blocking, for whoever else holds it too (`O_NONBLOCK` belongs to the open socket, not
/// to the descriptor: fcntl(2)). What accepted sockets inherit is still to be set (`ListenOptions::set_what_is_accepted`), and
/// is not for those who are in the queue already: whoever makes the socket sets `TCP_NODELAY` on it (systemd: `NoDelay=yes`).
///
/// # Errors
/// `InvalidInput` with what it is instead: no socket, not TCP over IPv4 or IPv6, not listening; getsockopt(2), fcntl(2).
pub fn adopt(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let socket = SockRef::from(&descriptor);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    // SO_DOMAIN, SO_TYPE, SO_PROTOCOL and SO_ACCEPTCONN: socket(7).
    let domain = socket.domain().map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTSOCK) => wrong("it is no socket"),
        _ => e,
    })?;
    if domain != Domain::IPV4 && domain != Domain::IPV6 {
        return Err(wrong("it is a socket of another family than IPv4 and IPv6"));
    }
    if socket.r#type()? != Type::STREAM || socket.protocol()? != Some(Protocol::TCP) {
        return Err(wrong("it is a socket, and not TCP's"));
    }
    if !socket.is_listener()? {
        return Err(wrong("it is a TCP socket that does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::sharing::ListenOptions;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use socket2::{SockAddr, Socket};

    #[test]
    fn a_listening_tcp_socket_is_taken_over() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show for it.
            let Ok(original) = TcpListener::bind(address) else { continue };
            let adopted = adopt(original.try_clone().unwrap().into()).unwrap();
            assert_eq!(adopted.local_addr().unwrap(), original.local_addr().unwrap());
            assert_eq!(adopted.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ListenOptions::default().set_what_is_accepted(&adopted).unwrap();
            let _client = TcpStream::connect(original.local_addr().unwrap()).unwrap();
            let (accepted, _) = adopted.accept().unwrap();
            assert!(accepted.nodelay().unwrap());
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let directory = std::env::temp_dir().join(format!("inherited-{}", std::process::id()));
        let unix = UnixListener::bind(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let table: [(OwnedFd, &str); 5] = [
            (std::fs::File::open("/dev/null").unwrap().into(), "no socket"),
            (unix.into(), "another family"),
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "not TCP's"),
            (connected.into(), "does not listen"),
            (bound.into(), "does not listen"),
        ];
        for (descriptor, needle) in table {
            let error = adopt(descriptor).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(needle), "{error} does not say {needle}");
        }
    }
}
