//! Products of quantised weights and activations.
//!
//! Activations are quantised to i8 in blocks ([`Activations`]), weights stay as they are ([`Matrix`]). A strip of 32 rows is one
//! piece of work: for a few tokens straight from its tiles, for many through panels that are unpacked once for all tokens.

mod acts;
mod block_kernel;
mod embed;
mod float_kernel;
mod format;
mod matrix;
mod pack;
mod panels;
mod product;
mod raw;
mod source;
mod strip;
mod super_kernel;
#[cfg(test)]
mod tests;

pub(crate) use acts::{Activations, Forms};
pub(crate) use format::{family, is_weight};
pub(crate) use matrix::{Matrix, Memory};
pub(crate) use product::Then;
pub(crate) use source::{Copied, Gelu, Norm, Picked, RowSource};
