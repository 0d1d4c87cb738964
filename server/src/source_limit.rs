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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// What counts as one source: an IPv4 address, also one that an IPv6 address contains; a /64 of IPv6; and in the range of local translators, the
/// whole address.
fn source(peer: IpAddr) -> (u8, u128) {
    let address = match peer {
        IpAddr::V4(address) => return (4, u128::from(address.to_bits())),
        IpAddr::V6(address) => address,
    };
    match embedded_ipv4(address) {
        Some(address) => (4, u128::from(address.to_bits())),
        // 64:ff9b:1::/48, RFC 8215: a translator of this network puts the IPv4 address at a place that it chose (RFC 6052 section 2.2). Only the
        // translator can make these addresses, so each of them is a client.
        None if address.segments()[..3] == [0x64, 0xff9b, 1] => (128, address.to_bits()),
        None => (64, address.to_bits() >> 64),
    }
}

/// The IPv4 address of the client that an IPv6 address contains. By its /64, all clients of a NAT64 translator or of a Teredo server would be one
/// source, and one client of 6to4, which has 65,536 networks of this size, would be many.
fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    match address.segments() {
        // ::ffff:0:0/96, a client of a socket that serves both versions: RFC 4291 section 2.5.5.2.
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(Ipv4Addr::from_bits(bits as u32)),
        // 64:ff9b::/96, NAT64: RFC 6052 section 2.1.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(bits as u32)),
        // 2001::/32, Teredo, where the address is inverted: RFC 4380 section 4.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!bits as u32)),
        // 2002::/16, 6to4: RFC 3056 section 2.
        [0x2002, ..] => Some(Ipv4Addr::from_bits((bits >> 80) as u32)),
        _ => None,
    }
}

/// The group of a source address for the eviction of buffers: what [`source`] counts as one, in 32 bits. The hash has a key that a client cannot
/// know. Without one, a client that owns a range of IPv6 could choose addresses that fall into the group of another client, fill the buffer memory
/// of that group and so have the other client evicted. Test: `a_client_cannot_choose_an_address_that_falls_into_the_group_of_another`.
pub(crate) fn group_of(keyed: &impl BuildHasher, address: IpAddr) -> u32 {
    keyed.hash_one(source(address)) as u32
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
    fn addresses_that_contain_an_ipv4_client_are_sources_like_that_client() {
        for (one, other) in [
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"),
            ("2002:c000:201::1", "2002:c000:202::1"),
            // One Teredo server (65.54.227.120), two clients, inverted.
            ("2001:0:4136:e378:8000:63bf:3fff:fdfe", "2001:0:4136:e378:8000:63bf:3fff:fdfd"),
        ] {
            let limit = limit(1);
            assert!(limit.enter(ip(one)).is_some());
            assert!(limit.enter(ip(other)).is_some(), "{one} and {other} share a source");
            assert_eq!(limit.enter(ip("192.0.2.1")), None, "{one} is another source than its IPv4 address");
            assert_ne!(group_of(&limit.hasher, ip(one)), group_of(&limit.hasher, ip(other)));
            assert_eq!(group_of(&limit.hasher, ip(one)), group_of(&limit.hasher, ip("192.0.2.1")));
        }
        // 6to4: all networks of one client are one source.
        assert_eq!(source(ip("2002:c000:201:7::1")), source(ip("2002:c000:201:8::1")));
        // A local translator: each address, wherever the IPv4 address is in it.
        assert_ne!(source(ip("64:ff9b:1::192.0.2.1")), source(ip("64:ff9b:1::192.0.2.2")));
        // Neither is Teredo, 6to4 or NAT64.
        for network in ["2001:1::", "2003::", "64:ff9b:2::"] {
            assert_eq!(source(ip(&format!("{network}1"))), source(ip(&format!("{network}2"))), "{network}");
        }
    }

    /// In both /64s the 32-bit halves have the same exclusive or, so a hash without a key that folds the address gives both the same group. Two keys
    /// are tried: by chance alone the groups agree under both with a probability of 2^-64.
    #[test]
    fn a_client_cannot_choose_an_address_that_falls_into_the_group_of_another() {
        let (a, b) = (RandomState::new(), RandomState::new());
        let (victim, chosen) = (ip("2001:db8:0:1::1"), ip("2001:db9:0:0::1"));
        assert!(group_of(&a, victim) != group_of(&a, chosen) || group_of(&b, victim) != group_of(&b, chosen));
        assert!(
            group_of(&a, victim) != group_of(&b, victim) || group_of(&a, chosen) != group_of(&b, chosen),
            "two processes have two keys"
        );
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
