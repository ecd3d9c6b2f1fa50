//! The kernels of phicandle with what they stand on, and their tests.

#![allow(dead_code, unused_imports, reason = "their users are not here")]

#[path = "../../../src/gguf/dtype.rs"]
mod dtype;
#[path = "../../../src/env.rs"]
mod env;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/kernels/mod.rs"]
mod kernels;
#[path = "../../../src/sync.rs"]
mod sync;

/// Types of weights, without the reader.
mod gguf {
    pub use crate::dtype::GgmlType;
}

pub use error::{Error, ErrorKind, Result};
