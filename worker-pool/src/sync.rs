//! The primitives that loom must see, under one name: std's in a build, loom's in a model check.
//!
//! Counters that decide nothing (`stats.rs`) stay on std's atomics in both: modelling them would only
//! multiply the interleavings to explore.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};
