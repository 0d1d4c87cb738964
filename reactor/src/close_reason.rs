//! Why a connection ended: each reason is counted.

/// Why a connection ended. Each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The handler asked, and all output was sent.
    Finished,
    /// The peer ended the connection and nothing was left to do.
    PeerClosed,
    /// The peer reset the connection, or the network failed.
    Reset,
    /// The handler asked for an immediate end: a reset.
    Aborted,
    /// The output made no progress for `write_stall_timeout`: reset.
    WriteStalled,
    /// The handler gave no progress on a full buffer: a message longer than `buffer_bytes_max`.
    MessageTooLong,
    /// The handler asked for more output space than there is: [`Handler::input`] took nothing and called [`Context::want_room`] with no output pending
    /// (so that `output_high_water_bytes` were free, or 16 KiB while the buffer memory is short), before and after a call of [`Handler::room`] that wrote nothing. Asking it again would change nothing,
    /// and would keep a core busy. Counted: a bug of the service, or a limit that is too low for its messages.
    OutputSpaceTooSmall,
    /// The buffer memory was full, and this connection's unfinished message had waited for the longest.
    InputEvicted,
    /// The buffer memory was full, and this connection's peer had not read its output for the longest: reset.
    OutputEvicted,
    /// The handler panicked in one of this connection's callbacks.
    Panicked,
    /// It was over `connections_max`, or the handler did not let it in ([`Context::refuse`]).
    Refused,
    /// It had waited for its peer for the longest, and made room for newcomers.
    MadeRoom,
    /// The system refused to register the socket.
    RegisterFailed,
    /// An outbound connection did not come to be.
    ConnectFailed,
    /// The loop ended.
    LoopEnded,
}

impl CloseReason {
    /// How many reasons there are.
    pub const COUNT: usize = 15;
    /// All of them, in the order of their numbers.
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
        CloseReason::MadeRoom,
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
            CloseReason::MadeRoom => "made_room",
            CloseReason::RegisterFailed => "register_failed",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::LoopEnded => "loop_ended",
        }
    }
}
