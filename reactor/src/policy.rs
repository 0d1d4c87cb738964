//! Every choice of the loop that has more than one reasonable, or one tempting and wrong, answer.
//!
//! The `#[default]` is the correct one. A variant whose arm ends in `MISTAKE(slug)` is wrong on purpose: it is what the page
//! `docs/failures/<slug>.md` is about.

/// How much of one readiness event to use before asking the poller again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainPolicy {
    /// Read until the socket is empty, and take a short read for empty unless a close bit or urgent data says otherwise. It saves
    /// one read(2) per request (tokio `poll_evented.rs` does the same, with the same exception).
    #[default]
    UntilShortRead,
    /// Read until `WouldBlock`, whatever a read returned. The textbook rule; one more system call per request.
    UntilWouldBlock,
    /// Read once for each event. Right for level triggers, wrong here.
    OncePerEvent,
}

/// When a visit to one connection ends in favour of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VisitPolicy {
    /// After the budgets in [`crate::Limits`]; the rest of the work goes on the ready list.
    #[default]
    Budgeted,
    /// Only when the socket is empty. A sender that is faster than the handler keeps the loop for itself.
    UntilDone,
}

/// What becomes of a connection that stopped with work left (budget, backpressure, pause).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumePolicy {
    /// It goes on the ready list: its bytes are already in the kernel, and no event will come for them.
    #[default]
    ReadyList,
    /// It waits for the next event.
    NextEvent,
}

/// What a read of the socket is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// A piece of a stream: the handler says where each message ends, and what no message took stays until more has come.
    #[default]
    ByMessage,
    /// A message: what the handler did not take of it is forgotten.
    ByRead,
}

/// How a visit's output is handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    /// All of it in one write(2), which the kernel sends at once (`TCP_NODELAY`, tcp(7)).
    #[default]
    Joined,
    /// What the handler said last goes in a write(2) of its own, and the kernel may keep it back until the peer has acknowledged the
    /// one before (Nagle's algorithm, RFC 896; on unless `TCP_NODELAY` is set).
    Split,
}

impl WritePolicy {
    /// Whether listening sockets get `TCP_NODELAY`. Two writes *and* no `TCP_NODELAY` cost 40 ms; one of the two alone costs no
    /// time (measured: `docs/failures/split-write.md`), so this choice decides both.
    #[must_use]
    pub fn nodelay(self) -> bool {
        self == WritePolicy::Joined
    }
}

/// How much output a connection may have waiting for its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputBound {
    /// The water marks in [`crate::Limits`]: above the high one nothing is asked for and nothing is read.
    #[default]
    WaterMarks,
    /// As much as there is to say.
    None,
}

/// What becomes of the rest when write(2) takes only a part of what it was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestPolicy {
    /// It keeps its place: it is written first, as soon as there is room.
    #[default]
    Kept,
    /// Nobody looks at the number that write(2) returned.
    Dropped,
}

/// Who is on the ready list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyRule {
    /// A connection that can make progress now, and no other.
    #[default]
    CanProgress,
    /// Every connection with something left to do, even one that waits for its peer.
    HasWork,
}

/// How a connection ends once its output is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosePolicy {
    /// FIN, then input is read and forgotten within `linger_timeout` and `linger_bytes_max`, then close(2).
    #[default]
    Linger,
    /// close(2). If input is unread, or still comes, the kernel sends a reset.
    AtOnce,
}

/// What a FIN of the peer means while the handler has paused it: while its request is being answered, say. A FIN says only that the peer has
/// nothing more to say. A client that has closed its socket looks the same as one that still listens, until something is sent to it. On an
/// outbound connection a FIN is the end of the response, and what came before it is delivered when the handler resumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfClose {
    /// It may be listening: it gets its answer (RFC 9112 section 9.6; HAProxy without `option abortonclose`).
    #[default]
    StillListens,
    /// It has left: the connection is closed at once, as [`PeerClosed`](crate::CloseReason::PeerClosed), and the handler can call off what it does
    /// for it. Right where clients never half-close, as behind a proxy (nginx without `proxy_ignore_client_abort`, pingora's `abort_on_close`,
    /// hyper without `half_close`). Where pipelined requests more than fill a buffer a FIN behind them is seen later.
    HasLeft,
}

/// What identifies the receiver of an event, of mail and of a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenCheck {
    /// Slot and generation.
    #[default]
    SlotAndGeneration,
    /// The slot alone: whoever sits there now gets it.
    SlotOnly,
}

/// What happens at `connections_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtConnectionsMax {
    /// Accept, let the handler say why, close: the client learns at once that it should go elsewhere.
    #[default]
    Refuse,
    /// Leave new clients in the kernel's queue until a connection closes. They see a slow connect. The limit is each loop's own: with
    /// `ReusePort` the kernel goes on queueing clients for a full loop, and with `Exclusive` it goes on waking one, while another loop has
    /// room. Where that matters use `HandOff`, which sees all loops.
    Wait,
}

/// What happens before `connections_max` is reached: when fewer than `newcomers_room` places are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenNearlyFull {
    /// Of those that wait for their peer ([`crate::Context::expendable`]) the one that has waited for the longest makes room: an idle
    /// connection, or a request that dribbles in. Thousands of slow clients cannot lock others out then (failure mode P3). nginx closes
    /// idle connections when it is short of them (`ngx_drain_connections`, src/core/ngx_connection.c); slow heads it keeps. Who has its answer
    /// and only lingers does so for `refused_linger_timeout` then.
    #[default]
    MakeRoom,
    /// Everybody stays until a timeout. Newcomers find out at [`AtConnectionsMax`].
    Keep,
}

/// What happens when accept(2) fails for want of descriptors or memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptPressure {
    /// Pause accepting, use the spare descriptor to refuse one client audibly, resume by timer and on every close.
    ///
    /// Nobody is closed for it: `connections_max` is fitted below the limit of descriptors, so whoever took the last one is somebody else (files,
    /// another process), and would take those that our clients gave up. nginx and HAProxy pause as well.
    #[default]
    PauseAndResume,
    /// Wait for the next event of the listener. Edge-triggered, it comes with the next new client, or never.
    NextEvent,
}

/// How several loops share one listening port. Default chosen from the table in docs/numbers.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerSharing {
    /// A socket for each loop (`SO_REUSEPORT`, socket(7)): the kernel spreads by a hash of the addresses.
    #[default]
    ReusePort,
    /// One socket in every loop's epoll, one of them woken (`EPOLLEXCLUSIVE`).
    Exclusive,
    /// One loop accepts and hands each connection to the loop that has the fewest.
    HandOff,
    /// One socket in every loop's epoll, all of them woken.
    WakeAll,
}

/// When the loop clears the flag that keeps senders from waking it twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainOrder {
    /// Before it looks into the channel: whatever comes later wakes it again. It costs a needless wake now and then.
    #[default]
    ClearThenDrain,
    /// After it has found the channel empty.
    DrainThenClear,
}

/// All choices of one loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How much of an event to use.
    pub drain: DrainPolicy,
    /// When a visit ends.
    pub visit: VisitPolicy,
    /// What becomes of work left over.
    pub resume: ResumePolicy,
    /// What a read is taken for.
    pub framing: Framing,
    /// How output is written.
    pub write: WritePolicy,
    /// How connections end.
    pub close: ClosePolicy,
    /// What a FIN means while an accepted connection is paused.
    pub half_close: HalfClose,
    /// How much output may wait.
    pub output: OutputBound,
    /// What becomes of a short write's rest.
    pub rest: RestPolicy,
    /// Who is on the ready list.
    pub ready_rule: ReadyRule,
    /// How late arrivals are told from the slot's new tenant.
    pub token_check: TokenCheck,
    /// When the mailbox clears its flag.
    pub drain_order: DrainOrder,
    /// How loops share a port. For whoever makes the sockets; one loop alone has no use for it.
    pub sharing: ListenerSharing,
    /// Near the connection limit.
    pub when_nearly_full: WhenNearlyFull,
    /// At the connection limit.
    pub at_connections_max: AtConnectionsMax,
    /// At the descriptor limit.
    pub accept_pressure: AcceptPressure,
}
