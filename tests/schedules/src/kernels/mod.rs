//! The threads that compute.

#[path = "../../../../src/kernels/aside.rs"]
mod aside;
#[path = "../../../../src/kernels/budget.rs"]
mod budget;
#[path = "../../../../src/kernels/halt.rs"]
mod halt;
#[path = "../../../../src/kernels/lane.rs"]
mod lane;
#[path = "../../../../src/kernels/pool.rs"]
mod pool;
#[path = "../../../../src/kernels/scratch.rs"]
mod scratch;
#[path = "../../../../src/kernels/turn.rs"]
mod turn;
#[path = "../../../../src/kernels/worker.rs"]
mod worker;

pub mod pool_models;
pub mod turn_models;

/// There are no processors to share.
mod time_slice {
    pub(crate) fn lengthen_time_slice() {}
}

/// The cores of a machine that is not there.
mod cpus {
    pub(crate) fn default_threads() -> usize {
        2
    }
}
