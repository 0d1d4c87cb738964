//! The service skeleton: strict HTTP/1.1 on the reactor and the worker pool.
//!
//! To make a service of your own: `docs/fork.md`, and `examples/` (`hello`, `key_value`; `line_chat` for a protocol that is not HTTP).
//!
//! Reading order: [`service`] and [`answer`] (what a builder implements), `routes/` and `demo/` (eleven small examples), [`connection`] and
//! `exchange` (the way of a request), `sending`, `streaming`, [`dispatch`] (loop or pool), then [`http`], the machine below.

pub mod activation;
pub mod admin;
pub mod answer;
pub mod args;
pub mod body_rate;
pub mod budget;
pub mod cgroup;
pub mod check;
pub mod clock;
pub mod collected;
pub mod config;
pub mod connection;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dispatch;
pub mod http;
pub mod http_stats;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod metrics_format;
pub mod monitor;
pub mod pool_args;
pub mod probe;
pub mod process;
pub mod routes;
pub mod run;
pub mod service;
pub mod shutdown;
pub mod source_limit;
pub mod sources;
pub mod thread;
pub mod units;
pub mod watchdog;

/// `docs/fork.md`: its program is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/fork.md")]
pub mod guide {}

mod beginning;
mod beneath;
mod complaint;
mod exchange;
mod exchange_limits;
mod listeners;
mod memory;
mod metrics_page;
mod rejecting;
mod rejection_log;
mod sending;
mod startup_log;
mod streaming;
mod sys;
