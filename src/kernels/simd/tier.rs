//! From a tier found at run time to code compiled for it.

use std::sync::LazyLock;

use super::super::isa::{CpuInfo, Isa, has_halves};
use super::{Simd, scalar};
use crate::error::Result;

/// A tier that this CPU has: the proof that [`dispatch`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tier {
    isa: Isa,
    /// As [`Simd::in_halves`].
    in_halves: bool,
    /// AVX-VNNI as AVX-512 encodes it: lets a CPU that has only the latter test that tier.
    #[cfg(test)]
    evex: bool,
}

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
        isa.check().map(|()| Self {
            isa,
            in_halves: isa == Isa::Avx512Vnni && has_halves(),
            #[cfg(test)]
            evex: false,
        })
    }

    /// Plain Rust, which every CPU runs.
    #[cfg(test)]
    pub(crate) const SCALAR: Self = Self { isa: Isa::Scalar, in_halves: false, evex: false };

    /// Which one it is.
    pub(crate) fn isa(self) -> Isa {
        self.isa
    }

    /// Every tier of this CPU, with what it does otherwise on another one: AVX-512 in halves or not, AVX-VNNI in the other encoding.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut tiers: Vec<Self> = Isa::ALL.into_iter().filter_map(|isa| Self::new(isa).ok()).collect();
        if let Ok(tier) = Self::new(Isa::Avx512Vnni) {
            tiers.push(Self { in_halves: !tier.in_halves, ..tier });
            tiers.push(Self { isa: Isa::AvxVnni, in_halves: false, evex: true });
        }
        tiers
    }
}

/// Runs `op` with the instructions of `tier`.
#[inline]
pub(crate) fn dispatch<O: Op>(tier: Tier, op: O) -> O::Out {
    match tier.isa {
        // SAFETY: such a `Tier` exists only for a CPU with AVX-512.
        #[cfg(all(test, target_arch = "x86_64"))]
        Isa::AvxVnni if tier.evex => unsafe { super::avx2::run_evex_vnni(op) },
        // SAFETY: a `Tier` exists only for features that this CPU has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => unsafe { super::avx512::run(op, tier.in_halves) },
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

/// Runs `op` with the best instructions of this CPU, or those that the environment names. What the environment names and the CPU
/// lacks is refused where the model is loaded; here it is plain Rust.
pub(crate) fn dispatch_best<O: Op>(op: O) -> O::Out {
    static BEST: LazyLock<Option<Tier>> = LazyLock::new(|| Tier::new(CpuInfo::detect().ok()?.tier).ok());
    match *BEST {
        Some(tier) => dispatch(tier, op),
        None => op.run(scalar::Scalar),
    }
}
