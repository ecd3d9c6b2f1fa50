//! Microsoft's Phi models, from GGUF files, inside your process.
//!
//! Data goes down once and up once: prompt, template, tokens, request, batch, logits, token, text. [`engine::Engine`] is
//! the one object that every door (Python, the command, your program) shares:
//!
//! ```no_run
//! use std::time::Duration;
//! use phicandle::engine::{Engine, Event, LoadOptions, ModelSource, Poll, Prompt, Request};
//! use phicandle::sampling::SamplingParams;
//!
//! # fn main() -> phicandle::Result<()> {
//! let engine = Engine::load(&LoadOptions::new(ModelSource::File("model.gguf".into())))?;
//! let prompt = Prompt::Text("Write a haiku about ice hockey".to_owned());
//! let answer = engine.submit(Request { prompt, params: SamplingParams::default() })?;
//! loop {
//!     match answer.next(Duration::from_secs(1)) {
//!         Poll::Event(Event::Chunk(chunk)) => print!("{}", chunk.text),
//!         Poll::Event(Event::Finish(_)) | Poll::Pending => {}
//!         Poll::Event(Event::Failed(error)) => return Err(error),
//!         Poll::End => return Ok(()),
//!     }
//! }
//! # }
//! ```
//!
//! Layers only look down: [`gguf`] and [`kernels`], then [`tokenizer`], [`chat`], [`model`], [`sampling`] and `hub`, then
//! [`engine`], then the doors. See `DESIGN.md`.

pub mod chat;
#[cfg(feature = "cli")]
pub mod cli;
pub mod engine;
pub mod env;
pub mod error;
pub mod gguf;
#[cfg(feature = "hub")]
pub mod hub;
pub mod kernels;
pub mod model;
#[cfg(feature = "python")]
mod python;
pub mod sampling;
mod sync;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
