//! The threads and the instructions that kernels run on.

use super::isa::Isa;
use super::pool::Pool;
use super::simd::Tier;
use crate::error::Result;

/// A pool of threads and a tier of instructions.
#[derive(Debug)]
pub struct Compute {
    pub(crate) pool: Pool,
    pub(crate) tier: Tier,
}

impl Compute {
    /// `threads` threads that use the instructions of `isa`; a part of the process's, as [`Pool::shared`] says.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedCpu`](crate::ErrorKind::UnsupportedCpu) when this CPU lacks them, and those of [`Pool::shared`].
    pub fn new(threads: usize, isa: Isa) -> Result<Self> {
        Ok(Self { pool: Pool::shared(threads)?, tier: Tier::new(isa)? })
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.tier.isa()
    }
}
