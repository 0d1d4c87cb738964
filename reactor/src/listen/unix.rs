//! Listening sockets at a path of the file system, or with an abstract name ([`listen_unix`]): for clients of the same machine, such as a
//! proxy in front of the server (unix(7)).
//!
//! What differs from TCP:
//! - A path stays when its listener closes, whatever ended the process. So the next server finds it, and must tell a path that nobody
//!   listens on from one that another server uses ([`listen_unix`]).
//! - There is no `SO_REUSEPORT`. Several loops share one socket ([`ListenerSharing::Exclusive`](crate::policy::ListenerSharing)), or one of
//!   them hands connections over.
//! - There is no reset: a response that was cut short ends like a complete one. HTTP/1.1 shows the difference by the length of the body; a
//!   protocol that ends its responses with the connection cannot be used safely.
//! - The peer has no IP address ([`Address::Unix`](crate::Address::Unix)).

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::listen::socket::LISTEN_BACKLOG;

/// Options of a listening Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixListenOptions {
    /// The permissions of the path, such as `0o660`. connect(2) needs write permission (unix(7)). `None`: `0o777` without the bits of the
    /// process's umask, as bind(2) makes it. An abstract name has no permissions: every process of the network namespace can connect.
    pub mode: Option<u32>,
    /// `SO_SNDBUF` of accepted connections, in bytes. It bounds what the kernel holds for a client that does not read. `None`:
    /// `net.core.wmem_default`, usually 208 KiB (socket(7)). [`crate::Limits::kernel_unsent_bytes_max`] is an option of TCP and has no effect
    /// on a Unix socket.
    pub send_buffer_bytes: Option<usize>,
}

/// Makes a non-blocking listening Unix socket. A `path` that begins with `@` is a name in the abstract namespace, which needs no file
/// (as systemd.socket(5) writes it); a relative path can begin with `./`.
///
/// If there is a socket at the path and nobody listens on it, a server that has ended has left it there, and it is replaced. To find that
/// out, this function connects to it: only ECONNREFUSED means that nobody listens. Nothing else is ever removed: a path that a server
/// answers on, a file of another kind and a socket that this process may not connect to are errors. Two servers that start at the same
/// time on the same abandoned path can both succeed, and then only the second is reachable.
///
/// The path stays when the socket is closed. Removing it then could remove the path of a successor that has bound it meanwhile.
///
/// # Errors
/// `AddrInUse` when a server answers at the path, or when it is a file of another kind; `InvalidInput` when it is longer than 107 bytes;
/// socket(2), bind(2), chmod(2), listen(2). The message names the path. Tests: `an_abandoned_socket_file_is_replaced_and_nothing_else`.
///
/// ```no_run
/// use reactor::listen::unix::{UnixListenOptions, listen_unix};
///
/// let options = UnixListenOptions { mode: Some(0o660), ..UnixListenOptions::default() };
/// let socket = listen_unix("/run/greeter/http.sock", options)?;
/// # std::io::Result::Ok(())
/// ```
pub fn listen_unix(path: impl AsRef<Path>, options: UnixListenOptions) -> io::Result<UnixListener> {
    let path = path.as_ref();
    let in_context = |what: &str, e: io::Error| io::Error::new(e.kind(), format!("{what} {}: {e}", path.display()));
    let (address, is_abstract) = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        // A name that begins with a NUL is abstract (unix(7)).
        Some(name) => (SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&[b"\0", name].concat()))), true),
        None => (SockAddr::unix(path), false),
    };
    let address = address.map_err(|e| in_context("cannot listen on", e))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).map_err(|e| in_context("no socket for", e))?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    let mode = options.mode.filter(|_| !is_abstract);
    if let Some(mode) = mode {
        // Before bind(2), which gives the path the permissions of the socket without the bits of the umask (`unix_bind_bsd`,
        // net/unix/af_unix.c). So at no time more is allowed than was asked for.
        File::from(OwnedFd::from(socket.try_clone()?)).set_permissions(Permissions::from_mode(mode))?;
    }
    match socket.bind(&address) {
        Err(e) if e.kind() == ErrorKind::AddrInUse && !is_abstract => {
            remove_if_abandoned(path, &address).map_err(|e| in_context("cannot listen on", e))?;
            socket.bind(&address)
        }
        bound => bound,
    }
    .map_err(|e| in_context("cannot bind", e))?;
    if let Some(mode) = mode {
        // The bits that the umask took away.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| in_context("cannot set the permissions of", e))?;
    }
    socket.listen(LISTEN_BACKLOG).map_err(|e| in_context("cannot listen on", e))?;
    Ok(OwnedFd::from(socket).into())
}

/// Removes the socket at a path if nobody listens on it.
fn remove_if_abandoned(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "there is a file that is not a socket"));
    }
    // Non-blocking: a server whose queue is full answers EAGAIN.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match probe.connect(address) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            log::info!("{} was left by a server that has ended, and is replaced", path.display());
            fs::remove_file(path)
        }
        // EACCES: this process cannot find out whether a server listens.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(e),
        Ok(()) | Err(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another server listens on it")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
    use std::path::PathBuf;

    use super::*;
    use crate::listen::socket::ListenSocket;

    /// A directory of a test. It is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("reactor-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn listen_at(path: &Path) -> io::Result<UnixListener> {
        listen_unix(path, UnixListenOptions::default())
    }

    #[test]
    fn an_abandoned_socket_file_is_replaced_and_nothing_else() {
        let directory = Directory::new("abandoned");
        let path = directory.0.join("socket");
        drop(listen_at(&path).unwrap());
        assert!(path.exists(), "a listener leaves its path");

        let listener = listen_at(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();

        let error = listen_at(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error} does not name the path");
        assert!(error.to_string().contains("another server"), "{error}");
        UnixStream::connect(&path).expect("the first listener still has its path");

        let file = directory.0.join("file");
        fs::write(&file, "precious").unwrap();
        let error = listen_at(&file).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");

        let datagrams = directory.0.join("datagrams");
        let _other = UnixDatagram::bind(&datagrams).unwrap();
        assert_eq!(listen_at(&datagrams).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(datagrams.exists(), "a socket of another type is not abandoned while its owner lives");

        let long = directory.0.join("x".repeat(200));
        assert!(listen_at(&long).unwrap_err().to_string().contains("xxx"));
    }

    #[test]
    fn the_path_has_the_mode_that_was_asked_for_whatever_the_umask() {
        let directory = Directory::new("mode");
        for mode in [0o600, 0o660, 0o666, 0o777] {
            let path = directory.0.join(format!("{mode:o}"));
            let _listener = listen_unix(&path, UnixListenOptions { mode: Some(mode), ..UnixListenOptions::default() }).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn a_name_with_an_at_sign_is_abstract_and_needs_no_file() {
        let name = format!("reactor-abstract-{}", std::process::id());
        let listener = listen_unix(format!("@{name}"), UnixListenOptions::default()).unwrap();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        let listener = ListenSocket::from(listener);
        assert_eq!(listener.address().unwrap().to_string(), format!("unix:@{name}"));
        let _client = UnixStream::connect_addr(&address).unwrap();
        let ListenSocket::Unix(listener) = listener else { unreachable!() };
        listener.accept().unwrap();
        assert_eq!(listen_unix(format!("@{name}"), UnixListenOptions::default()).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(!Path::new(&format!("@{name}")).exists());
    }
}
