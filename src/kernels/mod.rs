//! Arithmetic of our own, and what it stands on: instructions, threads, memory. Imports nothing of the crate but its errors and
//! the types of weights.

#![allow(unsafe_code)]

mod activation;
mod ahead;
// Alone, they take memory from the heap, whose borders sanitizers watch.
#[cfg_attr(kernels_alone, path = "../../tests/kernels/src/arena.rs")]
mod arena;
mod aside;
mod attention;
mod budget;
#[cfg(test)]
mod budget_tests;
mod compute;
mod cpus;
mod disjoint;
mod exp;
mod guided;
mod halt;
mod isa;
mod lane;
mod limits;
mod matmul;
mod norm;
mod pool;
#[cfg(test)]
mod pool_tests;
mod rope;
mod router;
mod running_sum;
mod scratch;
mod simd;
mod softmax;
mod time_slice;
mod turn;
mod worker;

pub(crate) use attention::{AttentionPlan, Heads, KV_BLOCK, KvCache, KvShape, PREPARED, Rows, Run, Spare};
pub(crate) use halt::{Halt, Stop};
pub(crate) use matmul::{
    Activations, Copied, Forms, Gelu, Matrix, Memory, Norm, Picked, RowSource, Then, family, is_weight,
};
pub(crate) use norm::NormKind;
#[cfg(test)]
pub(crate) use pool::FAULT;
pub(crate) use rope::{Pairs, Rope, Rotation, Stretch, long_rope_magnitude};
pub(crate) use router::Choice;
pub(crate) use running_sum::{SUM_BLOCK, running_sum};
pub(crate) use softmax::{SUM_LANES, divide, exp_below, greatest};
pub(crate) use time_slice::lengthen_time_slice;

pub use arena::Arena;
pub use aside::Chore;
pub use attention::{KvBlock, KvDtype};
pub use compute::Compute;
pub use cpus::default_threads;
pub use disjoint::DisjointMut;
pub use isa::{CpuInfo, Isa};
pub use limits::{Rates, measure_rates};
pub use pool::{Pool, Work, check_threads};
pub use rope::Factors;
pub use scratch::{ALIGNMENT, Plain, Scratch, view, view_mut};
