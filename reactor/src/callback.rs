//! The names of a handler's callbacks, for metrics and for a watchdog that reports the callback that runs too long.

/// One of the [`crate::Handler`]'s callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// [`crate::Handler::opened`]
    Opened,
    /// [`crate::Handler::input`]
    Input,
    /// [`crate::Handler::ended`]
    Ended,
    /// [`crate::Handler::writable`]
    Writable,
    /// [`crate::Handler::mail`], or [`crate::Handler::undelivered`]
    Mail,
    /// [`crate::Handler::deadline`]
    Deadline,
    /// [`crate::Handler::pressed`]
    Pressed,
    /// [`crate::Handler::panicked`]
    Panicked,
    /// [`crate::Handler::closed`]
    Closed,
    /// [`crate::Handler::woke`]
    Woke,
    /// [`crate::Handler::connect_failed`]
    ConnectFailed,
    /// [`crate::Handler::turn_ended`]
    TurnEnded,
}

impl Callback {
    /// The number of callbacks.
    pub const COUNT: usize = 12;
    /// All callbacks, in the order of their discriminants.
    pub const ALL: [Callback; Self::COUNT] = [
        Callback::Opened,
        Callback::Input,
        Callback::Ended,
        Callback::Writable,
        Callback::Mail,
        Callback::Deadline,
        Callback::Pressed,
        Callback::Panicked,
        Callback::Closed,
        Callback::Woke,
        Callback::ConnectFailed,
        Callback::TurnEnded,
    ];

    /// The name in metrics and logs: the name of the method.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Callback::Opened => "opened",
            Callback::Input => "input",
            Callback::Ended => "ended",
            Callback::Writable => "writable",
            Callback::Mail => "mail",
            Callback::Deadline => "deadline",
            Callback::Pressed => "pressed",
            Callback::Panicked => "panicked",
            Callback::Closed => "closed",
            Callback::Woke => "woke",
            Callback::ConnectFailed => "connect_failed",
            Callback::TurnEnded => "turn_ended",
        }
    }
}
