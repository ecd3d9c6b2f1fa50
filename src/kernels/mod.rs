//! What this CPU can do, and the place of phicandle's own arithmetic: threads, memory, vectors, kernels. Imports nothing of
//! the crate but its errors and the types of weights.

#![allow(unsafe_code)]

mod activation;
mod arena;
mod attention;
mod cpus;
mod disjoint;
mod exp;
mod isa;
mod norm;
mod pool;
#[cfg(test)]
mod pool_tests;
mod rope;
mod scratch;
mod simd;
mod worker;

pub use arena::Arena;
pub use cpus::default_threads;
pub use disjoint::DisjointMut;
pub use isa::{CpuInfo, Isa};
pub use pool::{Pool, Work};
pub use scratch::{ALIGNMENT, Plain, Scratch, view, view_mut};
