//! Arithmetic of our own on vectors, its threads and its memory, and what this CPU can do. Imports nothing of the crate but its
//! errors and the types of weights.

#![allow(unsafe_code)]

mod arena;
mod cpus;
mod disjoint;
mod isa;
mod limits;
mod pool;
#[cfg(test)]
mod pool_tests;
mod scratch;
mod simd;
mod worker;

pub use arena::Arena;
pub use cpus::default_threads;
pub use disjoint::DisjointMut;
pub use isa::{CpuInfo, Isa};
pub use limits::{Rates, measure_rates};
pub use pool::{Pool, Work};
pub use scratch::{ALIGNMENT, Plain, Scratch, view, view_mut};
