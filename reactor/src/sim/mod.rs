//! The other thing behind the door: a simulated system with a seed, under which the real loop runs, unchanged, in virtual time.
//!
//! [`run`] plays one seed and says which promise was broken, if one was; [`search`] plays many. [`SimOs`] and [`Kernel`] alone are a
//! system without anybody in it, for a test that plays the peers itself. What is simulated and what is not: `docs/simulator.md`.
//!
//! Reading order: `rng`, `socket`, `epoll`, `kernel`, `faults`, `calls`, `os` (the system); `world`, `protocol`, `peer`, `responses`, `upstream`,
//! `workers` (those outside); `service`, `requests` (the program); `callback_checks`, `check`, `expendable` (the rules); `plan`, `population`,
//! `trace`, `caught`, `run`, `search` (the game).

mod callback_checks;
mod calls;
mod caught;
mod check;
mod epoll;
mod expendable;
mod faults;
mod kernel;
mod os;
mod peer;
mod plan;
mod population;
mod protocol;
mod requests;
mod responses;
mod rng;
mod run;
mod search;
mod service;
mod socket;
mod trace;
mod upstream;
mod workers;
mod world;

pub use kernel::{Hostility, Kernel, Nanos, SocketId};
pub use os::{SimListener, SimOs, SimStream};
pub use rng::Rng;
pub use run::{Options, Outcome, Violation, run};
pub use search::{Found, search};
