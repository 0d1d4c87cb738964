//! The choices of the loop that have more than one reasonable answer, or a tempting and wrong one.
//!
//! The `#[default]` is correct. A variant whose arm ends in `MISTAKE(slug)` is wrong on purpose: the page `docs/failures/<slug>.md` shows what
//! it does, where there is one.

/// How far the loop reads after one readiness event before it polls again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainPolicy {
    /// Read until the socket is empty. A short read counts as empty, unless a close bit or urgent data was reported. It saves one read(2) per
    /// request (tokio `poll_evented.rs` does the same, with the same exception).
    #[default]
    UntilShortRead,
    /// Read until `WouldBlock`, also after a short read: the textbook rule. It costs one more system call per request.
    UntilWouldBlock,
    /// Read once for each event. Correct for level-triggered polling, wrong for edge-triggered: `edge-starvation`.
    OncePerEvent,
}

/// When a visit to one connection ends, so that other connections are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VisitPolicy {
    /// After the budgets in [`crate::Limits`]. A connection with work left is put on the ready list.
    #[default]
    Budgeted,
    /// Only when the socket is empty. A sender that is faster than the handler occupies the loop: `firehose`.
    UntilDone,
}

/// When a connection resumes that stopped with work left (budget, backpressure, pause).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumePolicy {
    /// From the ready list. Its bytes are already in the socket's receive buffer, and no further event reports them.
    #[default]
    ReadyList,
    /// At the next event, which may not come: `lost-resume`.
    NextEvent,
}

/// How the bytes of a read are divided into messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The bytes are a piece of a stream. The handler says where each message ends, and partial input is buffered until more arrives.
    #[default]
    ByMessage,
    /// Each read counts as one message. Bytes that the handler did not take are discarded: `partial-read`.
    ByRead,
}

/// How a visit's output is handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// All of it in one write(2), which the kernel sends at once (`TCP_NODELAY`, tcp(7)).
    #[default]
    Joined,
    /// The handler's last piece goes in a write(2) of its own. The kernel may hold it back until the peer has acknowledged the piece before
    /// (Nagle's algorithm, RFC 896, which is on unless `TCP_NODELAY` is set): `split-write`.
    Split,
}

impl WritePolicy {
    /// Whether listening sockets get `TCP_NODELAY`. Two writes together with no `TCP_NODELAY` cost 40 ms. Either of them alone costs no
    /// time (measured: `docs/failures/split-write.md`), so this policy decides both.
    #[must_use]
    pub fn nodelay(self) -> bool {
        self == WritePolicy::Joined
    }
}

/// How much pending output a connection may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputBound {
    /// The water marks in [`crate::Limits`]. At the high one the loop neither calls `writable` nor delivers input.
    #[default]
    WaterMarks,
    /// No bound but the buffer memory of the loop: `slow-consumer`.
    None,
}

/// What happens to the pending output when write(2) takes only a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestPolicy {
    /// It is buffered, and written before later output when the socket is writable again.
    #[default]
    Kept,
    /// It is lost, because the number that write(2) returned is ignored: `partial-write`.
    Dropped,
}

/// Which connections are on the ready list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyRule {
    /// Connections that can make progress now.
    #[default]
    CanProgress,
    /// Connections with something left to do, including connections that wait for their peer: `hot-loop`.
    HasWork,
}

/// How a connection is closed after its output was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosePolicy {
    /// The loop sends FIN, discards input within `linger_timeout` and `linger_bytes_max`, then calls close(2).
    #[default]
    Linger,
    /// The loop calls close(2). If input is unread, or arrives later, the kernel sends a reset: `early-close`.
    AtOnce,
}

/// What a FIN of the peer means while the handler has paused the connection, for example while its request is being answered.
///
/// A FIN says only that the peer sends nothing more. A client that has closed its socket looks the same as a client that still reads, until
/// something is sent to it. On an outbound connection a FIN is the end of the response. The input before it is delivered when the handler
/// resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfClose {
    /// The client may still be reading, so it gets its response (RFC 9112 section 9.6; HAProxy without `option abortonclose`).
    #[default]
    StillListens,
    /// The client has disconnected. The connection is closed at once as [`PeerClosed`](crate::CloseReason::PeerClosed), so the handler can cancel
    /// its work for the client. Right where clients do not half-close, such as behind a proxy (nginx without `proxy_ignore_client_abort`,
    /// pingora's `abort_on_close`, hyper without `half_close`). When pipelined requests fill a buffer, a FIN behind them is seen later.
    HasLeft,
}

/// What identifies the receiver of an event, of mail and of a wake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenCheck {
    /// Slot and generation.
    #[default]
    SlotAndGeneration,
    /// The slot alone. The connection that uses the slot now receives it: `stale-completion`.
    SlotOnly,
}

/// What happens at `connections_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtConnectionsMax {
    /// Accept, let the handler write a response, close. The client learns at once that it should use another server.
    #[default]
    Refuse,
    /// Leave new clients in the kernel's accept queue until a connection closes. The kernel completes
    /// their handshakes until the queue is full, and they get no response until they are accepted.
    ///
    /// The limit is per loop. With `ReusePort` the kernel continues to queue clients for a full loop, and with `Exclusive` it continues to wake
    /// one, while another loop has free slots. Where that matters, use `HandOff`, which sees all loops.
    Wait,
}

/// What happens near `connections_max`, when fewer than `free_slots_min` slots are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenNearlyFull {
    /// Evict the connection that has waited for its peer for the longest ([`crate::Context::expendable`]): an idle connection, or one whose
    /// request arrives slowly. So thousands of slow clients do not lock out others (`slowloris`). A connection that has its response and only
    /// lingers does so for `refused_linger_timeout`. nginx closes idle connections when it runs short of them (`ngx_drain_connections`,
    /// src/core/ngx_connection.c), and keeps those with a slow request head.
    #[default]
    Evict,
    /// Keep all connections until their timeouts. What happens to new clients is decided by [`AtConnectionsMax`].
    Keep,
}

/// What happens when accept(2) fails for lack of descriptors or memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptPressure {
    /// Pause accepting. Use the spare descriptor to accept one client and give it a response. Resume after `accept_pause`, or earlier when a
    /// connection closes.
    ///
    /// No connection is evicted for this. `connections_max` is fitted below the descriptor limit, so something else took the last descriptor
    /// (files, another process). It would also take the descriptors of evicted connections. nginx and HAProxy pause as well.
    #[default]
    PauseAndResume,
    /// Wait for the next event of the listener. An edge-triggered event comes only with the next new client: `fd-exhaustion`.
    NextEvent,
}

/// How several loops share one listening port. The table in docs/numbers.md is the reason for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerSharing {
    /// A socket for each loop (`SO_REUSEPORT`, socket(7)). The kernel chooses one by a hash of the addresses.
    #[default]
    ReusePort,
    /// One socket in the epoll of each loop. The kernel wakes at least one of them, not all (`EPOLLEXCLUSIVE`, epoll_ctl(2)).
    Exclusive,
    /// One loop accepts, and hands each connection to the loop that has the fewest.
    HandOff,
    /// One socket in the epoll of each loop. The kernel wakes all that wait: `herd`.
    WakeAll,
}

/// When the loop clears the flag that tells senders that it has been woken already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailboxOrder {
    /// Before it reads the channel. Mail that arrives later wakes it again. It costs an occasional needless wake-up.
    #[default]
    ClearThenEmpty,
    /// After it has found the channel empty. Mail that arrives in between wakes no loop: `lost-wakeup`.
    EmptyThenClear,
}

/// The policies of one loop. To change some of them, use [`Config::with`](crate::Config::with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How far the loop reads after an event.
    pub drain: DrainPolicy,
    /// When a visit ends.
    pub visit: VisitPolicy,
    /// When a connection with work left resumes.
    pub resume: ResumePolicy,
    /// How reads are divided into messages.
    pub framing: Framing,
    /// How output is written.
    pub write: WritePolicy,
    /// How connections are closed.
    pub close: ClosePolicy,
    /// What a FIN means while an accepted connection is paused.
    pub half_close: HalfClose,
    /// How much pending output a connection may have.
    pub output: OutputBound,
    /// What happens to pending output after a short write.
    pub rest: RestPolicy,
    /// Which connections are on the ready list.
    pub ready_rule: ReadyRule,
    /// How the receiver of an event, of mail and of a wake is identified.
    pub token_check: TokenCheck,
    /// When the mailbox clears its flag.
    pub mailbox_order: MailboxOrder,
    /// How loops share a port. Read by the code that creates the sockets. A single loop does not use it.
    pub sharing: ListenerSharing,
    /// What happens near the connection limit.
    pub when_nearly_full: WhenNearlyFull,
    /// What happens at the connection limit.
    pub at_connections_max: AtConnectionsMax,
    /// What happens at the descriptor limit.
    pub accept_pressure: AcceptPressure,
}
