//! What is recorded of requests while a run is under way.
//!
//! Read next: `account.rs`.

pub mod account;
pub mod one_connection;
