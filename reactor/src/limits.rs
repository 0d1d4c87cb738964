//! Everything that bounds one loop. Nothing in it grows past one of these numbers.
//!
//! Each number has its cost, its reason and its source beside it.

use std::time::Duration;

/// The bounds of one event loop. A time limit of `Duration::MAX`, as of any other duration that ends behind the last `Instant`, is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of this loop, those being refused and those lingering among them. Each costs one descriptor and one slot.
    pub connections_max: u32,

    /// Places that are kept free for newcomers: when fewer are left, connections that wait for their peer make room
    /// ([`crate::policy::WhenNearlyFull`]). At most half of `connections_max` counts. What comes in one turn must fit until the next one has
    /// made room again: so twice `accepts_per_turn_max`. Half as many, the youngest of those that wait, are never asked to make room.
    pub newcomers_room: u32,

    /// Connections beyond `connections_max` that are accepted only to be told so and closed. Beyond these, new clients wait in the
    /// kernel's queue.
    pub refusals_max: u32,

    /// Bytes that unfinished input and unsent output of all connections of the loop may hold together. A connection at rest holds
    /// none. When a rest finds no room, the oldest unfinished request gives way.
    pub buffer_memory_bytes_max: usize,
    /// The scratch buffers of the loop and the largest lease. One visit reads no more than this, so a rest always fits a lease.
    /// 64 KiB: Redis stops at as much per event (`NET_MAX_WRITES_PER_EVENT`, src/server.h), and it is the default send buffer's order.
    pub buffer_bytes_max: u32,
    /// Unsent bytes at which a connection's input and its `room` calls stop. At most `buffer_bytes_max`.
    pub output_high_water_bytes: u32,
    /// Unsent bytes at which they go on. Lower than the high water, so that it does not flutter.
    pub output_low_water_bytes: u32,
    /// Bytes of output that the kernel may hold unsent for one connection (`TCP_NOTSENT_LOWAT`, tcp(7), since Linux 3.12): at so many a write
    /// takes no more, and half of them must be sent before the next one does. None leaves it to the kernel, which takes up to
    /// `tcp_wmem[2]`, usually 4 MiB, from a peer that does not read (failure mode L6), and no resident memory shows it.
    ///
    /// What is sent and not acknowledged does not count, so a long path keeps the buffer that its bandwidth needs. `SO_SNDBUF` would bound
    /// both and turn the kernel's autotuning off: with 64 KiB, 50 MB over 1 Gbit/s and 20 ms took 8.9 s instead of 0.7 s. 64 KiB is one full
    /// write of a visit; measured: docs/numbers.md, "Slow readers".
    pub kernel_unsent_bytes_max: Option<u32>,

    /// Messages that the first visit after an event hands to the handler: the quantum of a connection on the list of new ones. Small, so that
    /// one round over thousands of connections that all became runnable at once is short. Measured: docs/numbers.md, "Pipelining clients".
    pub first_visit_messages_max: u32,
    /// Messages that a later visit hands to the handler: the quantum of a connection that has work left. Larger, so that bulk work stays
    /// efficient. memcached yields after 20 (`reqs_per_event`); ours cost less each, and the bytes are bounded as well.
    pub visit_messages_max: u32,
    /// Calls of `read` in one visit: one peer that sends single bytes must not keep us.
    pub visit_reads_max: u32,
    /// Bytes written in one visit. A fast reader of a long stream gives way after this.
    pub visit_written_bytes_max: u32,

    /// Time that a turn spends on visits to runnable connections. While connections with work left wait, newly runnable ones get half of it.
    /// The loop reads the clock after 16 visits, or fewer that did much ([`CLOCK_INTERVAL_VISITS`]), and makes at least so many: a stage
    /// lasts at most its time and one such interval. The rest waits on a list, and the next poll returns at once. Measured: docs/numbers.md,
    /// "Pipelining clients".
    pub visits_time_max: Duration,
    /// The same for accept(2) and for adopting connections that another loop accepted.
    pub accepts_time_max: Duration,
    /// The same for mail.
    pub mail_time_max: Duration,
    /// The same for deadlines.
    pub deadlines_time_max: Duration,
    /// The same for outbound connections that are begun.
    pub connects_time_max: Duration,
    /// The same for close(2).
    pub closes_time_max: Duration,

    /// Events taken from one poll. More wait in the kernel; a smaller batch keeps turns short. An event costs from 1.5 µs (a peer that has
    /// gone) to 4 µs (a small request; measured: docs/numbers.md), so 128 of them are half a millisecond, and epoll_wait(2) is not a hundredth
    /// of it.
    pub events_per_poll_max: usize,
    /// Connections accepted in one turn. Redis takes 10 a cycle, HAProxy 4 (`tune.maxaccept`): a flood of connects must not keep
    /// the established waiting (failure mode H4). The rest of the queue stays on the ready list.
    pub accepts_per_turn_max: u32,
    /// Outbound connections begun in one turn. Each costs 10 µs (socket(2), connect(2) and epoll_ctl(2) on loopback: 2,000 took 21 ms), so as many as
    /// are accepted. The rest makes the next poll return at once.
    pub connects_per_turn_max: u32,
    /// Outbound connections asked for and not begun. A `connect` beyond these is given back to its caller, who can wait, or answer its own
    /// client that it is overloaded. 80 bytes each; 1,024 of them begin within 32 turns.
    pub connects_waiting_max: u32,
    /// Pieces of mail delivered in one turn.
    pub mail_per_turn_max: u32,
    /// Deadlines that run in one turn (failure mode H6: 10,000 that expire together).
    pub deadlines_per_turn_max: u32,
    /// Connections closed in one turn: close(2) of a socket costs about 9 µs, and 10,000 peers can leave at once (failure mode S6). Far fewer
    /// than events, on purpose: the kernel reports in the order of arrival, and where closing takes the time in which events should be
    /// taken, everybody waits behind the events of those who leave. With as many closes as events others waited 23 to 31 ms while
    /// 8,000 closed, with an eighth as many under one (measured: docs/numbers.md).
    pub closes_per_turn_max: u32,

    /// Places in the mailbox: mail admitted and not yet delivered. Each takes its memory at once (the channel is an array), so no more than
    /// the pool can have under way.
    pub mail_max: u32,

    /// A connection whose output makes no progress for this long is reset. HAProxy `timeout client` is of this order (30 s); 15 s, so that
    /// peers that never read are gone within 20 s, whatever else the loop does.
    pub write_stall_timeout: Duration,
    /// How long a closed-for-writing connection's input is discarded, so that the last response is not lost to a reset
    /// (RFC 9112 section 9.6; nginx `lingering_timeout` 5 s).
    pub linger_timeout: Duration,
    /// The same for a connection that was accepted only to be told that there is no room. It holds what the next one to be told needs, at
    /// the descriptor limit the only spare one, so it gets one round trip across a continent and no more. Near the connection limit
    /// ([`crate::policy::WhenNearlyFull::MakeRoom`]) everybody who begins to linger gets no more than this.
    pub refused_linger_timeout: Duration,
    /// How many bytes are discarded at most before the close.
    pub linger_bytes_max: u32,
    /// Pause after accept(2) fails for want of descriptors or memory, unless a close ends it earlier. Shorter burns a core; longer
    /// overflows the listen queue. nginx waits 500 ms (src/event/ngx_event.c, `accept_mutex_delay`); a close resumes us at once, so
    /// this is only for descriptors that others held.
    pub accept_pause: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            newcomers_room: 64,
            refusals_max: 64,
            buffer_memory_bytes_max: 64 << 20,
            buffer_bytes_max: 64 << 10,
            output_high_water_bytes: 64 << 10,
            output_low_water_bytes: 16 << 10,
            kernel_unsent_bytes_max: Some(64 << 10),
            first_visit_messages_max: 16,
            visit_messages_max: 256,
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
            write_stall_timeout: Duration::from_secs(15),
            linger_timeout: Duration::from_secs(2),
            refused_linger_timeout: Duration::from_millis(200),
            linger_bytes_max: 16 << 20,
            accept_pause: Duration::from_millis(100),
        }
    }
}

/// Visits between two readings of the clock in one stage of a turn. A visit that handed out many messages or wrote much counts as several. A
/// reading costs about 25 ns, a visit 1.5 µs and more, so this costs a thousandth of the work that it bounds.
pub const CLOCK_INTERVAL_VISITS: u32 = 16;

impl Limits {
    /// The longest that a turn lasts while no callback and no system call blocks: the sum of its stages' times. Each stage may exceed its own
    /// time by one interval of the clock ([`CLOCK_INTERVAL_VISITS`]).
    #[must_use]
    pub fn turn_time_max(&self) -> Duration {
        [self.accepts_time_max, self.mail_time_max, self.deadlines_time_max, self.connects_time_max, self.closes_time_max]
            .iter()
            .fold(self.visits_time_max, |sum, time| sum.saturating_add(*time))
    }

    /// More connections than this are too many for the room that is kept free.
    pub(crate) fn connections_at_ease_max(&self) -> u32 {
        self.connections_max - self.newcomers_room.min(self.connections_max / 2)
    }

    /// The youngest so many of those that wait for their peer need not make room: their request may be on its way. The other half of the
    /// room is for who comes next, also when all the rest are being answered.
    pub(crate) fn newcomers_safe_max(&self) -> u32 {
        self.newcomers_room.min(self.connections_max / 2) / 2
    }
}

/// Limits and choices of one loop: all that a program may decide about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The numbers.
    pub limits: Limits,
    /// The choices.
    pub policy: crate::Policy,
}

impl Config {
    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// A sentence that names the number, its value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
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
        for (name, value) in at_least_one {
            if value == 0 {
                return Err(format!("{name} is 0; it must be at least 1"));
            }
        }
        // Both have slots, and those from there up are the listeners'.
        if u64::from(limits.connections_max) + u64::from(limits.refusals_max) > u64::from(crate::Token::FIRST_LISTENER_SLOT) {
            return Err(format!(
                "connections_max is {} and refusals_max {}; at most {} together fit a token",
                limits.connections_max,
                limits.refusals_max,
                crate::Token::FIRST_LISTENER_SLOT
            ));
        }
        if !(4096..=1 << 24).contains(&limits.buffer_bytes_max) {
            return Err(format!("buffer_bytes_max is {}; 4096 to 16777216 are allowed", limits.buffer_bytes_max));
        }
        if limits.output_high_water_bytes > limits.buffer_bytes_max || limits.output_low_water_bytes >= limits.output_high_water_bytes {
            return Err(format!(
                "output water marks are {} and {}; needed: low < high <= buffer_bytes_max ({})",
                limits.output_low_water_bytes, limits.output_high_water_bytes, limits.buffer_bytes_max
            ));
        }
        if limits.kernel_unsent_bytes_max.is_some_and(|bytes| bytes == 0 || i32::try_from(bytes).is_err()) {
            return Err(format!(
                "kernel_unsent_bytes_max is {}; 1 to {} are allowed, or None",
                limits.kernel_unsent_bytes_max.unwrap_or_default(),
                i32::MAX
            ));
        }
        if limits.buffer_memory_bytes_max < 4 * limits.buffer_bytes_max as usize {
            return Err(format!(
                "buffer_memory_bytes_max is {}; at least 4 buffers of {} are needed",
                limits.buffer_memory_bytes_max, limits.buffer_bytes_max
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Limits};

    #[test]
    fn connections_and_refusals_that_fit_no_token_together_are_refused() {
        for (connections_max, refusals_max) in [(10, u32::MAX), (u32::MAX - 70, 64), (u32::MAX, 0)] {
            let config = Config { limits: Limits { connections_max, refusals_max, ..Limits::default() }, ..Config::default() };
            let complaint = config.check().unwrap_err();
            assert!(complaint.contains("refusals_max"), "{complaint}");
        }
        assert_eq!(Config::default().check(), Ok(()));
    }
}
