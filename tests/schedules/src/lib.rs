//! The places of phicandle where threads meet, built with the locks and atomics of loom, which runs a model again and again
//! until it has seen every order of their steps, and every value that a processor may let a load see.
//!
//! The files are the crate's own. What they only carry (texts, statistics, errors of the engine) has a stand-in here.

#![allow(dead_code, unused_imports, reason = "their users are not here")]

#[path = "../../../src/error.rs"]
mod error;
mod explore;
mod sync;

pub mod engine;
#[allow(unsafe_code, reason = "that of the crate's own files")]
pub mod kernels;

/// What an event carries and nobody here looks at.
mod sampling {
    /// As in the crate.
    #[derive(Debug, Clone, PartialEq)]
    pub struct TokenLogprob;
}

pub use error::{Error, ErrorKind, Result};
pub use explore::{Bound, Clock, explore};
