//! The reasons for which connections close. Each is counted.

/// Why a connection closed. [`crate::Stats::closes`] counts each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseReason {
    /// The handler closed it, and all output was sent.
    #[default]
    Finished,
    /// The peer sent FIN, and nothing was left to send.
    PeerClosed,
    /// The peer reset the connection, or the network failed.
    Reset,
    /// The handler aborted it: reset.
    Aborted,
    /// The peer acknowledged too little of its output over a window ([`crate::Limits::output_rate_min`]): reset.
    WriteStalled,
    /// The handler took nothing from a full buffer: the message is longer than `buffer_bytes_max`.
    MessageTooLong,
    /// The handler asked for more output space than there is. [`Handler::input`](crate::Handler::input) took nothing and called
    /// [`Context::want_writable`](crate::Context::want_writable) with no output pending, so that `output_high_water_bytes` were free (16 KiB while the buffer
    /// memory is short). It did so before and after a call of [`Handler::writable`](crate::Handler::writable) that wrote nothing. Calling it again would
    /// change nothing and keep a core busy. The cause is a bug of the service, or a limit that is too low for its messages.
    OutputSpaceTooSmall,
    /// The buffer memory was full, and this connection's partial input was evicted (`eviction.rs` says how it is chosen).
    InputEvicted,
    /// The buffer memory was full, and this connection's pending output was evicted: reset.
    OutputEvicted,
    /// The handler panicked in one of this connection's callbacks.
    Panicked,
    /// It was rejected: it was beyond `connections_max`, or the handler called [`Context::refuse`](crate::Context::refuse).
    Refused,
    /// Few slots were free, and it was evicted because it had waited for its peer for the longest, or because its peer had not taken its output
    /// for the longest. The latter is a reset.
    Evicted,
    /// epoll_ctl(2) failed to register the socket.
    RegisterFailed,
    /// An outbound connection failed before it was opened.
    ConnectFailed,
    /// The loop ended, and closed the connections that were still open.
    LoopEnded,
}

impl CloseReason {
    /// The number of reasons.
    pub const COUNT: usize = 15;
    /// All reasons, in the order of their discriminants.
    pub const ALL: [CloseReason; Self::COUNT] = [
        CloseReason::Finished,
        CloseReason::PeerClosed,
        CloseReason::Reset,
        CloseReason::Aborted,
        CloseReason::WriteStalled,
        CloseReason::MessageTooLong,
        CloseReason::OutputSpaceTooSmall,
        CloseReason::InputEvicted,
        CloseReason::OutputEvicted,
        CloseReason::Panicked,
        CloseReason::Refused,
        CloseReason::Evicted,
        CloseReason::RegisterFailed,
        CloseReason::ConnectFailed,
        CloseReason::LoopEnded,
    ];

    /// The name in metrics: lower case, underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::Reset => "reset",
            CloseReason::Aborted => "aborted",
            CloseReason::WriteStalled => "write_stalled",
            CloseReason::MessageTooLong => "message_too_long",
            CloseReason::OutputSpaceTooSmall => "output_space_too_small",
            CloseReason::InputEvicted => "input_evicted",
            CloseReason::OutputEvicted => "output_evicted",
            CloseReason::Panicked => "panicked",
            CloseReason::Refused => "refused",
            CloseReason::Evicted => "evicted",
            CloseReason::RegisterFailed => "register_failed",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::LoopEnded => "loop_ended",
        }
    }
}
