//! How many connections one source address may have: so that no single client can take them all. Off unless asked for.
//!
//! Off, because a proxy in front makes all clients one source, and so do load tests and large networks behind one address. For IPv6 a
//! source is a /64: that is what one subscriber gets at least (RFC 6177 section 2), and its addresses cost nothing.
//!
//! The state is bounded whoever comes: a fixed table of counters that all loops share without a lock, each source at the place of its
//! hash. Two sources that share a place share its limit; with 65,536 places and a secret key nobody can choose whom to meet. nginx keeps a
//! tree under a mutex instead (`limit_conn`, src/http/modules/ngx_http_limit_conn_module.c). Read next: `connection.rs`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places of the table, 4 bytes each: 256 KiB, allocated only where there is a limit.
const PLACES: usize = 1 << 16;

/// The connections of all sources.
#[derive(Debug)]
pub struct SourceLimit<B = RandomState> {
    open: Box<[AtomicU32]>,
    connections_max: u32,
    hasher: B,
}

/// A connection that is counted; to be given back with [`SourceLimit::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Seat(NonZero<u16>);

impl SourceLimit {
    /// At most `connections_max` for each source.
    #[must_use]
    pub fn new(connections_max: u32) -> SourceLimit {
        SourceLimit::with_hasher(connections_max, RandomState::new())
    }
}

impl<B: BuildHasher> SourceLimit<B> {
    fn with_hasher(connections_max: u32, hasher: B) -> SourceLimit<B> {
        SourceLimit { open: (0..PLACES).map(|_| AtomicU32::new(0)).collect(), connections_max, hasher }
    }

    /// A connection from `peer` comes. None if it is one too many.
    pub fn enter(&self, peer: IpAddr) -> Option<Seat> {
        // Two bytes in each connection, `None` included: place 0 stays empty.
        let place = NonZero::new(self.hasher.hash_one(source(peer)) as u16).unwrap_or(NonZero::<u16>::MIN);
        // No other memory hangs on this number.
        let counted = self.open[usize::from(place.get())]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < self.connections_max).then_some(open + 1));
        counted.ok().map(|_| Seat(place))
    }

    /// It has closed.
    pub fn leave(&self, seat: Seat) {
        self.open[usize::from(seat.0.get())].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What counts as one source.
fn source(peer: IpAddr) -> (bool, u64) {
    match peer.to_canonical() {
        IpAddr::V4(address) => (false, u64::from(address.to_bits())),
        IpAddr::V6(address) => (true, (address.to_bits() >> 64) as u64),
    }
}

/// The group of a source address for the eviction of buffers. One subscriber of IPv6 has a whole /64 (RFC 6177), so the rest of the address
/// does not count.
pub(crate) fn group_of(address: IpAddr) -> u32 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let network = (address.to_bits() >> 64) as u64;
            (network >> 32) as u32 ^ network as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasherDefault, DefaultHasher};

    /// Without a key, so that no run of the tests meets a collision that another does not.
    fn limit(connections_max: u32) -> SourceLimit<BuildHasherDefault<DefaultHasher>> {
        SourceLimit::with_hasher(connections_max, BuildHasherDefault::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_gets_its_number_of_connections_and_others_get_theirs() {
        let limit = limit(2);
        let first = limit.enter(ip("192.0.2.1")).expect("the first");
        let _second = limit.enter(ip("192.0.2.1")).expect("the second");
        assert_eq!(limit.enter(ip("192.0.2.1")), None);
        assert!(limit.enter(ip("192.0.2.2")).is_some(), "another source");
        limit.leave(first);
        assert!(limit.enter(ip("192.0.2.1")).is_some(), "one has left");
    }

    #[test]
    fn a_slash_64_is_one_source_and_a_mapped_address_is_that_of_ipv4() {
        let limit = limit(1);
        assert!(limit.enter(ip("2001:db8:0:1::1")).is_some());
        assert_eq!(limit.enter(ip("2001:db8:0:1:ffff:ffff:ffff:ffff")), None);
        assert!(limit.enter(ip("2001:db8:0:2::1")).is_some());
        assert!(limit.enter(ip("::ffff:192.0.2.1")).is_some());
        assert_eq!(limit.enter(ip("192.0.2.1")), None);
    }

    #[test]
    fn threads_that_come_and_go_together_never_exceed_the_limit_and_leave_nothing_behind() {
        let limit = limit(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(seat) = limit.enter(ip("192.0.2.1")) {
                            limit.leave(seat);
                        }
                    }
                });
            }
        });
        assert!(limit.open.iter().all(|open| open.load(Ordering::Relaxed) == 0));
    }
}
