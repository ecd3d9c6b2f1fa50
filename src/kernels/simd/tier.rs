//! From a tier found at run time to code compiled for it.

use super::super::isa::Isa;
use super::{Simd, scalar};
use crate::error::Result;

/// A tier that this CPU has: the proof that [`dispatch`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tier(Isa);

/// A kernel with its arguments. `run` must be `#[inline(always)]`, and so must everything in it that is generic over `S`:
/// else the compiler may not use the tier's instructions there.
pub(crate) trait Op {
    /// What it gives.
    type Out;
    /// Computes with the vectors of one tier.
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

impl Tier {
    /// `isa`, if this CPU has it.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedCpu`](crate::ErrorKind::UnsupportedCpu).
    pub(crate) fn new(isa: Isa) -> Result<Self> {
        isa.check().map(|()| Self(isa))
    }

    /// Plain Rust, which every CPU runs.
    #[cfg(test)]
    pub(crate) const SCALAR: Self = Self(Isa::Scalar);

    /// Which one it is.
    pub(crate) fn isa(self) -> Isa {
        self.0
    }

    /// Every tier of this CPU.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        Isa::ALL.into_iter().filter_map(|isa| Self::new(isa).ok()).collect()
    }
}

/// Runs `op` with the instructions of `tier`.
#[inline]
pub(crate) fn dispatch<O: Op>(tier: Tier, op: O) -> O::Out {
    match tier.0 {
        // SAFETY: a `Tier` exists only for features that this CPU has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => unsafe { super::avx512::run(op) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => unsafe { super::avx2::run_vnni(op) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { super::avx2::run(op) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => unsafe { super::neon::run_i8mm(op) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod => unsafe { super::neon::run_dotprod(op) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { super::neon::run(op) },
        _ => op.run(scalar::Scalar),
    }
}
