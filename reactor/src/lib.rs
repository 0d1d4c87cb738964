//! An edge-triggered epoll event loop. Connections close for a named and counted reason, and [`Limits`] bound queues, buffers and turns.
//!
//! Reading order:
//! 1. [`limits`], [`policy`]: the bounds, and the choices between algorithms;
//! 2. [`handler`], [`context`]: the callbacks that a protocol implements, and what a callback may do;
//! 3. [`event_loop`]: one turn of the loop, in order;
//! 4. `visit`: one visit to one connection; `io`: reading and writing until `EAGAIN`; `progress`, `notify`, `close`, `eviction`;
//! 5. `slot`: the state of one connection; `ready_list`: which connections can make progress; `buffers`: the memory that connections lease;
//! 6. `timers`, `mailbox`, `connect`, [`listen`], `shutdown`;
//! 7. [`os`]: the trait for all system calls; `sim` (feature `sim`): its second implementation, a simulated system that tests the whole loop by seeds.
//!
//! A complete server, which echoes with backpressure and closes idle connections, its client, and its end:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{Shutdown, TcpStream};
//! use std::time::Duration;
//!
//! use reactor::listen::socket::{ListenOptions, listen};
//! use reactor::{Config, Context, EventLoop, Handler, LinuxListener, ListenerWakes, Origin};
//!
//! const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Conn = (); // The protocol's state of one connection.
//!     type Mail = (); // What other threads send to a connection.
//!
//!     fn opened(&mut self, _origin: Origin, cx: &mut Context<'_>) {
//!         cx.deadline(Some(cx.now() + IDLE_TIMEOUT));
//!     }
//!
//!     fn input(&mut self, _conn: &mut (), input: &[u8], cx: &mut Context<'_>) -> usize {
//!         cx.deadline(Some(cx.now() + IDLE_TIMEOUT));
//!         let taken = cx.write(input);
//!         if taken == 0 {
//!             cx.want_writable(); // The client does not read, so no more is read from it: backpressure.
//!         }
//!         taken
//!     }
//!
//!     fn mail(&mut self, _conn: &mut (), _mail: (), _cx: &mut Context<'_>) {}
//! }
//!
//! let config = Config::with(|config| config.limits.connections_max = 1_000);
//! let mut event_loop = EventLoop::new(config, Echo)?;
//! let socket = listen("127.0.0.1:0".parse().expect("an address"), ListenOptions::default())?;
//! let address = socket.local_addr()?;
//! event_loop.listen_on(LinuxListener::new(socket)?, ListenerWakes::All)?;
//! let handle = event_loop.handle();
//! let thread = std::thread::spawn(move || event_loop.run());
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! client.shutdown(Shutdown::Write)?;
//! let mut echoed = String::new();
//! client.read_to_string(&mut echoed)?;
//! assert_eq!(echoed, "hello");
//!
//! handle.shut_down(Duration::from_secs(5)); // Open connections have five seconds to finish.
//! assert!(handle.wait(Duration::from_secs(10)));
//! thread.join().expect("the loop does not panic")?;
//! # std::io::Result::Ok(())
//! ```
//!
//! The same as a program is `examples/echo.rs`.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("reactor is an event loop on Linux's epoll(7), and its tokens need 64-bit pointers: build it for 64-bit Linux");

pub mod context;
pub mod counter;
pub mod event_loop;
pub mod handler;
pub mod limits;
pub mod listen;
#[cfg(feature = "mistakes")]
pub mod mistakes;
pub mod os;
pub mod policy;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stats;
pub mod token;

mod address;
mod buffers;
mod close;
mod connect;
mod errors;
mod eviction;
mod handle;
mod holders;
mod invariants;
mod io;
mod log_limit;
mod loop_state;
mod mailbox;
mod notify;
mod output;
mod output_window;
mod progress;
mod ready_list;
mod shutdown;
mod slot;
mod stall;
mod timers;
mod visit;

pub use address::{Address, Connect};
pub use buffers::BufferOwner;
pub use context::{Context, LoopContext};
pub use errors::{AcceptError, CloseReason, ConfigError, DescriptorsError};
pub use event_loop::{EventLoop, state_bytes};
pub use handle::Handle;
pub use handler::{Handler, Origin, Pressure};
pub use io::{Flushed, ReadOutcome, ReadStop, WriteOutcome, drain_read, drain_write};
pub use limits::{Config, Limits};
pub use mailbox::{Mailer, Reserved};
#[cfg(feature = "mistakes")]
pub use mistakes::MISTAKES;
pub use os::{Linux, LinuxListener, ListenerWakes, Os};
pub use output::{Cursor, Output, OutputBuffer};
pub use policy::{MailboxOrder, Policy};
pub use stats::{Callback, Stats};
pub use token::Token;
