//! The `native` backend: phicandle's own kernels, keys and values, on the CPU.

mod plan;

pub use plan::{Needs, memory};
