//! What a figure is worth: the stamps of a request, how much of a time is the generator's own, and what could not be measured.
//!
//! Read next: `stamps.rs`.

pub mod bounds;
pub mod hiccup;
pub mod limits;
pub mod outstanding;
pub mod silence;
pub mod stamps;
pub mod verdict;
