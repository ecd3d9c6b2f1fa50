//! Arithmetic of our own on vectors, and what this CPU can do. Imports nothing of the crate but its errors and the types of weights.

#![allow(unsafe_code)]

mod isa;
mod simd;

pub use isa::{CpuInfo, Isa};
