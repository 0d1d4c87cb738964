//! The bounds of one loop: sizes, budgets and timeouts, and the check that they fit together.
//!
//! The doc comment of each number says its unit, its cost, its reason and its source.

use std::time::Duration;

use crate::errors::ConfigError;

/// The bounds of one event loop. [`Config::check`] runs before the loop starts. It rejects a count of 0 where the loop needs at least 1, and
/// requires `output_low_water_bytes` < `output_high_water_bytes` ≤ `buffer_bytes_max` ≤ a quarter of `buffer_memory_bytes_max`, with
/// `buffer_bytes_max` from 4 KiB to 16 MiB, and `connections_max` + `refusals_max` slots that fit a token.
///
/// To change some of them, use [`Config::with`]. A new limit with a default does not break code that does so.
///
/// `Duration::MAX` means no limit, and so does any duration that ends after the last `Instant` (test: `no_duration_is_too_long`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The number of open connections of this loop, lingering ones included, at which new clients are refused. Each connection costs one descriptor
    /// and one slot. Up to `refusals_max` more are open while they are refused.
    pub connections_max: u32,

    /// Slots that are kept free for new connections. When fewer are free, the loop evicts connections that wait for their peer
    /// ([`crate::policy::WhenNearlyFull`]). At most half of `connections_max` counts. The connections accepted in one turn must fit until the
    /// next turn has evicted others, so the default is twice `accepts_per_turn_max`. The youngest of the waiting connections, half as many as
    /// this number, are not evicted.
    pub free_slots_min: u32,

    /// Connections beyond `connections_max` that are accepted only to get a response and be closed. Each costs one descriptor and one slot
    /// for at most `refused_linger_timeout` and the time that its response takes. Further clients wait in the kernel's accept queue.
    pub refusals_max: u32,

    /// Bytes of buffers that partial input and pending output of all connections of the loop may lease together. An idle connection leases
    /// none. When a connection needs a buffer and the memory is full, the loop evicts a connection (`eviction.rs` says which). The default, 64 MiB,
    /// is 65,536 buffers of 1 KiB (a short request head each) or 1,024 of 64 KiB.
    pub buffer_memory_bytes_max: usize,
    /// Bytes of the smallest lease. A head that arrives a byte at a time costs this much and about 250 bytes of state until it is longer. A smaller
    /// minimum makes an ordinary head move to the next size sooner. 1 KiB holds the heads of most programs; a browser's is of this order. Measured:
    /// docs/numbers.md, "Memory per slow head". At most `buffer_bytes_max`.
    pub buffer_bytes_min: u32,
    /// Bytes of the loop's scratch buffers, and of the largest lease. One visit reads at most this much, so its partial input fits a lease.
    /// 64 KiB: Redis writes at most as much per event (`NET_MAX_WRITES_PER_EVENT`, src/server.h), and it is of the order of the default
    /// send buffer.
    pub buffer_bytes_max: u32,
    /// Bytes of pending output at which the loop stops delivering a connection's input and calling its `writable`. At most
    /// `buffer_bytes_max`, which is the default, so that the output of a visit fits one lease.
    pub output_high_water_bytes: u32,
    /// Bytes of pending output at which input resumes. Lower than the high water mark, so that the connection does not alternate between both
    /// states with each write. The default is a quarter of it.
    pub output_low_water_bytes: u32,
    /// Bytes of unsent output that the kernel may hold for one connection (`TCP_NOTSENT_LOWAT`, tcp(7), since Linux 3.12). At this many, a write
    /// takes no more, and half of them must be sent before the next write does. `None` leaves the bound to the kernel, which holds up to
    /// `tcp_wmem[2]`, usually 4 MiB, for a peer that does not read. That memory does not show in the process's resident memory.
    ///
    /// Bytes that are sent and not acknowledged do not count, so a long path keeps the buffer that its bandwidth needs. `SO_SNDBUF` would bound
    /// both and turn the kernel's autotuning off: with 64 KiB, 50 MB over 1 Gbit/s and 20 ms took 8.9 s instead of 0.7 s. 64 KiB is one full
    /// write of a visit. Measured: docs/numbers.md, "Slow readers".
    pub kernel_unsent_bytes_max: Option<u32>,

    /// Messages that the first visit after an event hands to the handler: the quantum of a connection on the list of new ones. Small, so that
    /// one round over thousands of connections that become runnable together is short. Measured: docs/numbers.md, "Pipelining clients".
    pub first_visit_messages_max: u32,
    /// Messages that a later visit hands to the handler: the quantum of a connection that has work left. Larger than the first quantum, so that
    /// bulk work stays efficient. memcached yields after 20 (`reqs_per_event`). A message costs less here, and the bytes are bounded as well.
    pub visit_messages_max: u32,
    /// Calls of read(2) in one visit. A peer that sends single bytes could otherwise extend the visit with each byte. Each read is one
    /// system call, so the default of 16 bounds their cost per visit. It is not measured.
    pub visit_reads_max: u32,
    /// Bytes written in one visit. After this many, the loop visits other connections before it resumes a fast reader of a long stream.
    /// The default is four times `output_high_water_bytes`. It is not measured.
    pub visit_written_bytes_max: u32,

    /// Time that a turn spends on visits to runnable connections. While connections with work left wait, newly runnable ones get half of it.
    ///
    /// The loop reads the clock after [`CLOCK_INTERVAL_VISITS`] visits, or after fewer visits that did much. A stage of a turn
    /// therefore makes at least one such interval of visits (or all there are), and lasts at most its time, one interval and the rest of the
    /// last visit (test: `a_stage_ends_within_its_time_and_one_interval_of_the_clock`). Connections that were not visited stay on a list, and the next poll
    /// returns at once. Measured: docs/numbers.md, "Pipelining clients".
    pub visits_time_max: Duration,
    /// Time that a turn spends on accept(2) and on adopting connections that another loop accepted, measured as for `visits_time_max`.
    pub accepts_time_max: Duration,
    /// Time that a turn spends on delivering mail, measured as for `visits_time_max`.
    pub mail_time_max: Duration,
    /// Time that a turn spends on expired deadlines, measured as for `visits_time_max`.
    pub deadlines_time_max: Duration,
    /// Time that a turn spends on beginning outbound connections, measured as for `visits_time_max`.
    pub connects_time_max: Duration,
    /// Time that a turn spends on close(2), measured as for `visits_time_max`.
    pub closes_time_max: Duration,

    /// Events taken from one poll. Further events wait in the kernel, so a smaller batch keeps turns short. An event costs from 1.5 µs (a peer
    /// that has disconnected) to 4 µs (a small request), measured: docs/numbers.md. So 128 of them take half a millisecond, and epoll_wait(2)
    /// is less than a hundredth of that.
    pub events_per_poll_max: usize,
    /// Connections accepted in one turn. The bound keeps a flood of new connections from delaying the established ones. Redis takes 10 a cycle,
    /// HAProxy 4 (`tune.maxaccept`). A listener whose accept queue is not empty yet stays on the ready list.
    pub accepts_per_turn_max: u32,
    /// Outbound connections begun in one turn. Each costs 10 µs (socket(2), connect(2) and epoll_ctl(2) on loopback: 2,000 took 21 ms), so the
    /// default equals that of `accepts_per_turn_max`. While more are waiting, the next poll returns at once.
    pub connects_per_turn_max: u32,
    /// Outbound connections requested and not begun yet. A `connect` beyond these is returned to its caller, which can wait or tell its own
    /// client that it is overloaded. Each costs 80 bytes. 1,024 of them begin within 32 turns.
    pub connects_waiting_max: u32,
    /// Pieces of mail delivered in one turn, so that a burst of results does not delay events. Each costs at most one visit. Mail beyond these is
    /// delivered in the next turn, whose poll returns at once. The default of 256 is not measured.
    pub mail_per_turn_max: u32,
    /// Deadlines that run in one turn, so that 10,000 that expire together do not delay events. Each costs at most one visit. Deadlines beyond
    /// these run in the next turn, whose poll returns at once. The default of 256 is not measured.
    pub deadlines_per_turn_max: u32,
    /// Connections closed in one turn. close(2) of a socket costs about 9 µs, and 10,000 peers can disconnect at once.
    ///
    /// It is far lower than `events_per_poll_max` because the kernel reports events in the order of arrival. While a turn closes, it takes no
    /// events, so the events of other connections wait behind those of the clients that disconnect. While 8,000 connections closed, other
    /// connections waited 23 to 31 ms with as many closes as events per turn, and less than 1 ms with an eighth as many (measured:
    /// docs/numbers.md).
    pub closes_per_turn_max: u32,

    /// Slots in the mailbox: permits reserved, and mail not delivered yet. The memory for all of them is allocated at the start, because the
    /// channel is an array. So it should be no more than the jobs that the worker pool can have in progress.
    pub mail_max: u32,

    /// Least rate, in bytes a second, at which a peer must acknowledge output while some is pending; 0 is no limit. A connection that acknowledges
    /// less than half of it over a window is reset (`stall.rs`). A handler can set another rate for a connection
    /// ([`crate::Context::set_output_rate_min`]). 500, like the least rate that Apache's mod_reqtimeout asks of request bodies.
    pub output_rate_min: u32,
    /// The window over which that rate is measured. At least as long as one receive buffer takes at the least rate, because a receiver
    /// acknowledges in steps of that size: 131,072 bytes, the default of Linux (`tcp_rmem[1]`, tcp(7)), take 262 s at 500 bytes a second. A reader of
    /// 2,000 bytes a second acknowledged nothing for up to 65 s, and, once its buffer had grown, for 197 s (loopback) and over 598 s (veth), so that one is reset (measured:
    /// docs/numbers.md, "Steps of acknowledgement"). 270 s. While memory or slots are short, such a connection is evicted earlier.
    pub output_rate_window: Duration,
    /// Time for which output must have stalled before its connection can be evicted for a new client when few slots are free. The stall counts
    /// from when the peer last took `output_low_water_bytes` in all. 15 s: within the 30 s that HAProxy's documentation recommends for
    /// `timeout client`, after which it would be closed there in any case.
    pub evictable_stall_min: Duration,
    /// Time for which a connection's input is still read and discarded after its FIN was sent, so that a reset does not destroy the last
    /// response (RFC 9112 section 9.6; nginx `lingering_timeout` 5 s).
    pub linger_timeout: Duration,
    /// Linger timeout for a rejected connection. At the descriptor limit it holds the only spare descriptor, which the next rejection
    /// needs. So it gets one round trip across a continent. While free slots are short
    /// ([`crate::policy::WhenNearlyFull::Evict`]), a connection that begins to linger gets no more than this.
    pub refused_linger_timeout: Duration,
    /// Bytes of input that are discarded before the close. After this many, the connection is closed without waiting for the peer.
    /// Discarding costs reads and no buffer memory. The default of 16 MiB is not measured.
    pub linger_bytes_max: u32,
    /// Pause after accept(2) fails for lack of descriptors or memory. A close ends the pause earlier. Shorter keeps a core busy with failing
    /// calls. Longer overflows the listen queue. nginx waits 500 ms (src/event/ngx_event.c, `accept_mutex_delay`). This loop resumes at each
    /// close, so the pause matters only for descriptors that something else held.
    pub accept_pause: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            free_slots_min: 64,
            refusals_max: 64,
            buffer_memory_bytes_max: 64 << 20,
            buffer_bytes_min: 1 << 10,
            buffer_bytes_max: 64 << 10,
            output_high_water_bytes: 64 << 10,
            output_low_water_bytes: 16 << 10,
            kernel_unsent_bytes_max: Some(64 << 10),
            first_visit_messages_max: 16,
            visit_messages_max: 512,
            visit_reads_max: 16,
            visit_written_bytes_max: 256 << 10,
            visits_time_max: Duration::from_micros(500),
            accepts_time_max: Duration::from_micros(250),
            mail_time_max: Duration::from_micros(250),
            deadlines_time_max: Duration::from_micros(250),
            connects_time_max: Duration::from_micros(250),
            closes_time_max: Duration::from_micros(250),
            events_per_poll_max: 128,
            accepts_per_turn_max: 32,
            connects_per_turn_max: 32,
            connects_waiting_max: 1024,
            mail_per_turn_max: 256,
            deadlines_per_turn_max: 256,
            closes_per_turn_max: 16,
            mail_max: 4096,
            output_rate_min: 500,
            output_rate_window: Duration::from_secs(270),
            evictable_stall_min: Duration::from_secs(15),
            linger_timeout: Duration::from_secs(2),
            refused_linger_timeout: Duration::from_millis(200),
            linger_bytes_max: 16 << 20,
            accept_pause: Duration::from_millis(100),
        }
    }
}

/// Visits between two readings of the clock in one stage of a turn. A visit that delivered many messages or wrote many bytes counts as several.
/// A reading costs about 25 ns and a visit at least 1.5 µs, so the readings cost a thousandth of the work that they bound.
pub const CLOCK_INTERVAL_VISITS: u32 = 16;

impl Limits {
    /// The sum of the times of a turn's stages: 1.75 ms with the default limits. A turn can last longer, because each stage may exceed its own time by
    /// one interval of the clock ([`CLOCK_INTERVAL_VISITS`]) and the rest of that interval's last visit, and because a callback may block.
    #[must_use]
    pub fn turn_time_max(&self) -> Duration {
        [self.accepts_time_max, self.mail_time_max, self.deadlines_time_max, self.connects_time_max, self.closes_time_max]
            .iter()
            .fold(self.visits_time_max, |sum, time| sum.saturating_add(*time))
    }

    /// The number of connections above which fewer slots are free than `free_slots_min`.
    pub(crate) fn connections_before_eviction_max(&self) -> u32 {
        self.connections_max - self.free_slots_min.min(self.connections_max / 2)
    }

    /// How many of the connections that wait for their peer are not evicted, the youngest first: their request may be on its way. The other half
    /// of the free slots is for the next clients, also while all other connections are being answered.
    pub(crate) fn expendable_min(&self) -> u32 {
        self.free_slots_min.min(self.connections_max / 2) / 2
    }
}

/// Limits and policies of one loop. The default is the correct one; [`Config::with`] changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Sizes, budgets and timeouts.
    pub limits: Limits,
    /// Choices between several algorithms.
    pub policy: crate::Policy,
}

impl Config {
    /// The default with some values changed.
    ///
    /// ```
    /// use reactor::policy::HalfClose;
    ///
    /// let config = reactor::Config::with(|config| {
    ///     config.limits.connections_max = 1_000;
    ///     config.policy.half_close = HalfClose::HasLeft;
    /// });
    /// assert_eq!(config.check(), Ok(()));
    /// ```
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    /// Checks that the numbers fit together. [`crate::EventLoop`] calls it before it starts.
    ///
    /// # Errors
    /// The first number that does not fit, with its value and what is allowed.
    ///
    /// ```
    /// let config = reactor::Config::with(|config| config.limits.buffer_bytes_max = 100);
    /// let error = config.check().unwrap_err();
    /// assert_eq!(error.to_string(), "buffer_bytes_max is 100; 4096 to 16777216 are allowed");
    /// ```
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let at_least_one = [
            ("connections_max", u64::from(limits.connections_max)),
            ("first_visit_messages_max", u64::from(limits.first_visit_messages_max)),
            ("visit_messages_max", u64::from(limits.visit_messages_max)),
            ("visit_reads_max", u64::from(limits.visit_reads_max)),
            ("visit_written_bytes_max", u64::from(limits.visit_written_bytes_max)),
            ("events_per_poll_max", limits.events_per_poll_max as u64),
            ("accepts_per_turn_max", u64::from(limits.accepts_per_turn_max)),
            ("connects_per_turn_max", u64::from(limits.connects_per_turn_max)),
            ("connects_waiting_max", u64::from(limits.connects_waiting_max)),
            ("mail_per_turn_max", u64::from(limits.mail_per_turn_max)),
            ("deadlines_per_turn_max", u64::from(limits.deadlines_per_turn_max)),
            ("closes_per_turn_max", u64::from(limits.closes_per_turn_max)),
            ("mail_max", u64::from(limits.mail_max)),
        ];
        if let Some((field, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { field });
        }
        let Limits { connections_max, refusals_max, buffer_bytes_min, buffer_bytes_max, .. } = *limits;
        let Limits { output_low_water_bytes, output_high_water_bytes, .. } = *limits;
        // Both need slots, and the slots from FIRST_LISTENER_SLOT up are the listeners'.
        let sum_max = crate::Token::FIRST_LISTENER_SLOT;
        if u64::from(connections_max) + u64::from(refusals_max) > u64::from(sum_max) {
            return Err(ConfigError::Slots { connections_max, refusals_max, sum_max });
        }
        let (allowed_min, allowed_max) = BUFFER_BYTES_MAX_ALLOWED;
        if !(allowed_min..=allowed_max).contains(&buffer_bytes_max) {
            return Err(ConfigError::BufferBytesMax { buffer_bytes_max, allowed_min, allowed_max });
        }
        if !(BUFFER_BYTES_MIN_ALLOWED_MIN..=buffer_bytes_max).contains(&buffer_bytes_min) {
            let allowed_min = BUFFER_BYTES_MIN_ALLOWED_MIN;
            return Err(ConfigError::BufferBytesMin { buffer_bytes_min, allowed_min, buffer_bytes_max });
        }
        if output_high_water_bytes > buffer_bytes_max || output_low_water_bytes >= output_high_water_bytes {
            return Err(ConfigError::WaterMarks { output_low_water_bytes, output_high_water_bytes, buffer_bytes_max });
        }
        if let Some(kernel_unsent_bytes_max) = limits.kernel_unsent_bytes_max.filter(|bytes| *bytes == 0 || i32::try_from(*bytes).is_err())
        {
            return Err(ConfigError::KernelUnsentBytesMax { kernel_unsent_bytes_max });
        }
        let allowed_min = 4 * buffer_bytes_max as usize;
        if limits.buffer_memory_bytes_max < allowed_min {
            return Err(ConfigError::BufferMemoryBytesMax { buffer_memory_bytes_max: limits.buffer_memory_bytes_max, allowed_min });
        }
        Ok(())
    }
}

/// The range of [`Limits::buffer_bytes_max`]: a page, so that a request head fits, to 16 MiB, so that one visit does not hold the loop for
/// long.
const BUFFER_BYTES_MAX_ALLOWED: (u32, u32) = (4 << 10, 16 << 20);

/// The least [`Limits::buffer_bytes_min`]: with less, the state of a lease is larger than its buffer.
const BUFFER_BYTES_MIN_ALLOWED_MIN: u32 = 64;

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Config, Limits};

    /// A change of the limits that cannot work, and what the error must contain.
    type Wrong = (fn(&mut Limits), &'static [&'static str]);

    #[test]
    fn a_limit_that_cannot_work_is_refused_with_its_field_its_value_and_what_is_allowed() {
        let table: &[Wrong] = &[
            (|limits| limits.mail_max = 0, &["mail_max is 0", "at least 1"]),
            (|limits| (limits.connections_max, limits.refusals_max) = (10, u32::MAX), &["refusals_max 4294967295", "at most"]),
            (|limits| (limits.connections_max, limits.refusals_max) = (u32::MAX - 70, 64), &["connections_max is 4294967225", "at most"]),
            (|limits| (limits.connections_max, limits.refusals_max) = (u32::MAX, 0), &["connections_max is 4294967295", "at most"]),
            (|limits| limits.buffer_bytes_max = 4095, &["buffer_bytes_max is 4095", "4096 to 16777216"]),
            (|limits| limits.buffer_bytes_min = 63, &["buffer_bytes_min is 63", "64 to buffer_bytes_max (65536)"]),
            (|limits| limits.buffer_bytes_min = 65_537, &["buffer_bytes_min is 65537", "64 to buffer_bytes_max (65536)"]),
            (|limits| limits.output_high_water_bytes = 70_000, &["output_high_water_bytes 70000", "buffer_bytes_max (65536)"]),
            (|limits| limits.output_low_water_bytes = 65_536, &["output_low_water_bytes is 65536", "low < high"]),
            (|limits| limits.kernel_unsent_bytes_max = Some(0), &["kernel_unsent_bytes_max is 0", "1 to 2147483647", "None"]),
            (|limits| limits.kernel_unsent_bytes_max = Some(1 << 31), &["kernel_unsent_bytes_max is 2147483648", "None"]),
            (|limits| limits.buffer_memory_bytes_max = 100_000, &["buffer_memory_bytes_max is 100000", "at least 262144"]),
        ];
        for (change, needles) in table {
            let error = Config::with(|config| change(&mut config.limits)).check().unwrap_err();
            for needle in *needles {
                assert!(error.to_string().contains(needle), "'{error}' does not contain '{needle}'");
            }
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(Config::default().check(), Ok(()));
    }
}
