//! Arithmetic of our own, and what it stands on: instructions, threads, memory. Imports nothing of the crate but its errors and
//! the types of weights.

#![allow(unsafe_code)]

mod arena;
mod compute;
mod cpus;
mod disjoint;
mod isa;
mod matmul;
mod pool;
#[cfg(test)]
mod pool_tests;
mod scratch;
mod simd;
mod worker;

pub use arena::Arena;
pub use compute::Compute;
pub use cpus::default_threads;
pub use disjoint::DisjointMut;
pub use isa::{CpuInfo, Isa};
pub use pool::{Pool, Work, check_threads};
pub use scratch::{ALIGNMENT, Plain, Scratch, view, view_mut};
