//! Listening sockets that this process inherits: from systemd's socket activation, or from any parent that keeps them across restarts.
//!
//! While a parent holds the socket, its queue outlives each server, so a restart refuses no client (`ungraceful-shutdown`). The protocol is
//! sd_listen_fds(3): `LISTEN_PID` is the process that they are for, `LISTEN_FDS` the number of descriptors from 3 on, `LISTEN_FDNAMES` their names.
//! Read next: `listeners.rs`, how the loops share them.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use reactor::listen::socket::{ListenAddress, ListenSocket, adopt};

use crate::{process, sys};

/// The inherited sockets, if any.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The service's socket.
    pub http: Option<ListenSocket>,
    /// The admin port's socket.
    pub admin: Option<TcpListener>,
}

/// The first descriptor (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// The variables that are read and then removed.
const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The purpose of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Http,
    Admin,
}

impl Inherited {
    /// Takes the sockets that were passed to this process, if any. A second call finds none.
    ///
    /// Child processes do not get the sockets, because exec(3) closes them. The variables are removed if this is the only thread: with other threads,
    /// writing to the environment is not safe (setenv(3)). If the variables stay, `LISTEN_PID` tells a child that they are not meant for it.
    ///
    /// Call this before anything is opened. Otherwise the number of a missing descriptor may belong to another file.
    ///
    /// # Errors
    /// One sentence: a variable is malformed, or a descriptor is not a listening socket (the service's: TCP or Unix; the admin port's: TCP).
    pub fn take() -> Result<Inherited, String> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Inherited::default());
        }
        let roles = roles(std::process::id(), |name| std::env::var_os(name));
        if process::threads().len() == 1 {
            VARIABLES.iter().for_each(|name| sys::remove_variable(name));
        }
        let mut inherited = Inherited::default();
        for (number, role) in (FIRST..).zip(roles?) {
            let socket = sys::take_descriptor(number).and_then(adopt);
            let socket = socket.map_err(|e| format!("descriptor {number} of LISTEN_FDS must be a listening socket, TCP or Unix: {e}"))?;
            match (role, socket) {
                (Role::Http, socket) => inherited.http = Some(socket),
                (Role::Admin, ListenSocket::Tcp(socket)) => inherited.admin = Some(socket),
                (Role::Admin, ListenSocket::Unix(_)) => {
                    return Err(format!("descriptor {number} of LISTEN_FDS is a Unix socket; the admin port's must be a TCP socket"));
                }
            }
        }
        Ok(inherited)
    }

    /// Where the service's socket listens.
    #[must_use]
    pub fn http_address(&self) -> Option<ListenAddress> {
        self.http.as_ref()?.address().ok()
    }

    /// Where the admin port's socket listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }
}

/// The role of each descriptor, in the order of their numbers.
fn roles(own_pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Role>, String> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let number = |name| match text(name) {
        None => Ok(None),
        Some(value) => value.parse::<u32>().map(Some).map_err(|_| format!("{name} is '{value}'; a number is expected (sd_listen_fds(3))")),
    };
    // The variables are meant for another process, whose environment this one has inherited.
    let Some(pid) = number(VARIABLES[0])? else { return Ok(Vec::new()) };
    if pid != own_pid {
        return Ok(Vec::new());
    }
    let count = number(VARIABLES[1])?.unwrap_or(0) as usize;
    if count > 2 {
        return Err(format!("LISTEN_FDS is {count}; at most 2 are of use: one for the service, one for the admin port"));
    }
    let names = text(VARIABLES[2]);
    let names: Vec<&str> = names.as_deref().map_or_else(Vec::new, |names| names.split(':').collect());
    if !names.is_empty() && names.len() != count {
        return Err(format!("LISTEN_FDNAMES has {} names, and LISTEN_FDS is {count}", names.len()));
    }
    // Without FileDescriptorName= systemd names each socket after its unit. Any other name gives no role.
    let named = |index: usize| match names.get(index) {
        Some(&"http") => Some(Role::Http),
        Some(&"admin") => Some(Role::Admin),
        _ => None,
    };
    let mut roles: Vec<Option<Role>> = (0..count).map(named).collect();
    for role in [Role::Http, Role::Admin] {
        match roles.iter().filter(|found| **found == Some(role)).count() {
            0 => {
                if let Some(place) = roles.iter_mut().find(|place| place.is_none()) {
                    *place = Some(role);
                }
            }
            1 => {}
            _ => return Err(format!("LISTEN_FDNAMES is '{}'; a name may stand there once", names.join(":"))),
        }
    }
    Ok(roles.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Admin, Http};

    fn ask(variables: &[(&str, &str)]) -> Result<Vec<Role>, String> {
        roles(7, |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn descriptors_are_told_apart_by_name_and_otherwise_by_place() {
        let table: &[(&str, Option<&str>, &[Role])] = &[
            ("0", None, &[]),
            ("1", None, &[Http]),
            ("2", None, &[Http, Admin]),
            ("1", Some("server.socket"), &[Http]),
            ("2", Some("server.socket:server.socket"), &[Http, Admin]),
            ("1", Some("admin"), &[Admin]),
            ("2", Some("admin:http"), &[Admin, Http]),
            ("2", Some("other:http"), &[Admin, Http]),
            ("2", Some("admin:other"), &[Admin, Http]),
        ];
        for (count, names, expected) in table {
            let mut variables = vec![("LISTEN_PID", "7"), ("LISTEN_FDS", *count)];
            variables.extend(names.map(|names| ("LISTEN_FDNAMES", names)));
            assert_eq!(ask(&variables).as_deref(), Ok(*expected), "{count} {names:?}");
        }
    }

    #[test]
    fn what_is_meant_for_another_process_is_not_taken() {
        assert_eq!(ask(&[]), Ok(vec![]));
        assert_eq!(ask(&[("LISTEN_FDS", "1")]), Ok(vec![]));
        assert_eq!(ask(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "1")]), Ok(vec![]));
        assert_eq!(ask(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "nonsense")]), Ok(vec![]), "not ours to judge");
    }

    #[test]
    fn nonsense_is_named() {
        let table = [
            ("me", "1", "http", "LISTEN_PID is 'me'"),
            ("7", "-1", "http", "LISTEN_FDS is '-1'"),
            ("7", "3", "a:b:c", "LISTEN_FDS is 3; at most 2"),
            ("7", "1", "http:admin", "LISTEN_FDNAMES has 2 names, and LISTEN_FDS is 1"),
            ("7", "2", "http:http", "LISTEN_FDNAMES is 'http:http'"),
        ];
        for (pid, count, names, needle) in table {
            let error = ask(&[("LISTEN_PID", pid), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", names)]).expect_err("it is nonsense");
            assert!(error.contains(needle), "{needle} is not in {error}");
        }
    }
}
