//! What this CPU can do, and the place of phicandle's own arithmetic. Imports nothing of the crate but its errors.

mod isa;

pub use isa::{CpuInfo, Isa};
