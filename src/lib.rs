//! Microsoft's Phi models, from GGUF files, inside your process.

pub mod chat;
#[cfg(feature = "cli")]
pub mod cli;
pub mod error;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "python")]
mod python;
pub mod sampling;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
