//! The service skeleton: strict HTTP/1.1 on the reactor and the worker pool.
//!
//! Reading order: [`service`] and [`answer`] (what a builder implements), `routes/` (eight small examples), [`connection`] and
//! `exchange` (the way of a request), `streaming`, [`dispatch`] (loop or pool), then [`http`], the machine below.

pub mod answer;
pub mod connection;
pub mod dispatch;
pub mod http;
pub mod http_stats;
pub mod routes;
pub mod service;

mod exchange;
mod streaming;
mod sys;
