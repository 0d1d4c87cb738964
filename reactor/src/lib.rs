//! An edge-triggered epoll event loop in which every exit has a name and everything is bounded.
//!
//! Reading order:
//! 1. [`limits`], [`policy`]: the numbers and the choices;
//! 2. [`handler`], [`context`]: what a protocol implements, and what it may do;
//! 3. [`event_loop`] and `turn`: the loop and its stages;
//! 4. `connection/`: `drain_read`, `drain_write`, `visit`, `input`, `sending`, `closing`; then `slots` and `buffers`;
//! 5. `ready_list`, `timers`, `mailbox`, `listen/`, `connect`, `drain`;
//! 6. [`os`]: the one door to the system; [`sim`]: the other thing behind it, in which the whole loop is tested by seeds.
//!
//! The smallest use is `examples/echo.rs`.

pub mod accept_error;
pub mod callback;
pub mod context;
pub mod event_loop;
pub mod handler;
pub mod histogram;
pub mod limits;
pub mod listen;
pub mod mail;
pub mod mistakes;
pub mod os;
pub mod policy;
pub mod sim;
pub mod stats;
pub mod token;

mod clock;
mod connect;
mod connection;
mod drain;
mod invariants;
mod log_limit;
mod mailbox;
mod ready_list;
mod shared;
mod timers;
mod turn;

pub use accept_error::AcceptError;
pub use callback::Callback;
pub use connection::buffers::BufferOwner;
pub use connection::drain_read::{Drained, ReadOutcome, drain_read};
pub use connection::drain_write::{Flushed, WriteOutcome, drain_write};
pub use connection::output::Output;
pub use connection::state_bytes;
pub use context::{Connect, Context, LoopContext};
pub use event_loop::EventLoop;
pub use handler::{CloseReason, Handler, Origin, Pressure};
pub use limits::{Config, Limits};
pub use mail::{Handle, Mailer, Reserved};
pub use mailbox::DrainOrder;
pub use mistakes::MISTAKES;
pub use os::{Linux, LinuxListener, ListenerWakes, Os};
pub use policy::Policy;
pub use stats::Stats;
pub use token::Token;
