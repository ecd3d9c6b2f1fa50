//! What this CPU can do, and the place of phicandle's own arithmetic: threads, memory, kernels. Imports nothing of the crate
//! but its errors.

#![allow(unsafe_code)]

mod arena;
mod cpus;
mod disjoint;
mod isa;
mod pool;
#[cfg(test)]
mod pool_tests;
mod scratch;
mod worker;

pub use arena::Arena;
pub use cpus::default_threads;
pub use disjoint::DisjointMut;
pub use isa::{CpuInfo, Isa};
pub use pool::{Pool, Work, check_threads};
pub use scratch::{ALIGNMENT, Plain, Scratch, view, view_mut};
