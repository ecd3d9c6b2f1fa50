//! Kernel tiers: which instructions this CPU has, found once per process.

use super::cpus::default_threads;
use crate::env::PHICANDLE_ISA;
use crate::error::{Error, ErrorKind, Result};

/// A tier of instructions, from the one every CPU has to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: the reference, on every CPU.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 and 8-bit dot products on 256-bit vectors.
    AvxVnni,
    /// AVX-512 (F, BW, VL) and 8-bit dot products on 512-bit vectors.
    Avx512Vnni,
    /// Arm NEON with half-precision arithmetic.
    Neon,
    /// NEON and 8-bit dot products.
    Dotprod,
    /// NEON, dot products and 8-bit matrix products.
    I8mm,
}

/// The instructions of this CPU, and the tier chosen from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuInfo {
    /// `x86_64`, `aarch64` ... as Rust names the architecture.
    pub arch: &'static str,
    /// Features found that matter to a kernel, by their names in the vendor's manuals.
    pub features: Vec<&'static str>,
    /// Tiers that run here, the best last.
    pub tiers: Vec<Isa>,
    /// The tier in use: the best one, or the one that `PHICANDLE_ISA` names.
    pub tier: Isa,
    /// Threads used by default: physical cores within this process's affinity and container quota.
    pub threads: usize,
}

impl Isa {
    /// Every tier, the widest of each architecture last.
    pub const ALL: [Self; 7] =
        [Self::Scalar, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni, Self::Neon, Self::Dotprod, Self::I8mm];

    /// The name used by `PHICANDLE_ISA` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
        }
    }

    /// Whether this CPU has it.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedCpu`] with what is missing.
    pub fn check(self) -> Result<()> {
        let missing = self.missing(&features());
        if missing.is_empty() { Ok(()) } else { Err(unsupported(self.name(), &missing)) }
    }

    fn missing(self, features: &[&'static str]) -> Vec<&'static str> {
        self.needs().iter().copied().filter(|need| !features.contains(need)).collect()
    }

    /// The features that a CPU needs for this tier.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Scalar => &[],
            Self::Avx2 => &["avx2", "fma", "f16c"],
            Self::AvxVnni => &["avx2", "fma", "f16c", "avxvnni"],
            Self::Avx512Vnni => &["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni"],
            Self::Neon => &["neon", "fp16"],
            Self::Dotprod => &["neon", "fp16", "dotprod"],
            Self::I8mm => &["neon", "fp16", "dotprod", "i8mm"],
        }
    }
}

impl CpuInfo {
    /// Looks at this CPU and at `PHICANDLE_ISA`.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedCpu`] when `PHICANDLE_ISA` names a tier that this CPU lacks;
    /// [`ErrorKind::InvalidParameter`] for an unknown name. (That an Arm CPU has the half-precision arithmetic of this build is
    /// checked in Python before the library is loaded: here the compiler takes it for granted.)
    pub fn detect() -> Result<Self> {
        Self::choose(features(), std::env::var(PHICANDLE_ISA).ok().as_deref())
    }

    fn choose(features: Vec<&'static str>, forced: Option<&str>) -> Result<Self> {
        let has = |isa: Isa| isa.missing(&features).is_empty();
        let tiers: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| has(*isa)).collect();
        let best = tiers.last().copied().unwrap_or(Isa::Scalar);
        let tier = match forced.filter(|name| !name.is_empty()) {
            None => best,
            Some(name) => named(name, &features)?,
        };
        Ok(Self { arch: std::env::consts::ARCH, features, tiers, tier, threads: default_threads() })
    }
}

/// The tier called `name`, if a CPU with `features` has it.
fn named(name: &str, features: &[&'static str]) -> Result<Isa> {
    let Some(isa) = Isa::ALL.into_iter().find(|isa| isa.name() == name) else {
        let known: Vec<_> = Isa::ALL.into_iter().map(Isa::name).collect();
        return Err(Error::invalid(
            PHICANDLE_ISA,
            format!("The environment variable {PHICANDLE_ISA} names an unknown tier {name:?}."),
            format!("Unset it, or use one of: {}.", known.join(", ")),
        ));
    };
    let missing = isa.missing(features);
    if missing.is_empty() { Ok(isa) } else { Err(unsupported(name, &missing)) }
}

fn unsupported(tier: &str, missing: &[&str]) -> Error {
    Error::new(
        ErrorKind::UnsupportedCpu { missing: missing.iter().map(ToString::to_string).collect() },
        format!("The tier {tier} needs CPU features that this machine lacks: {}.", missing.join(", ")),
        format!(
            "Unset {PHICANDLE_ISA}, or use a machine that has them; `phicandle doctor` lists this one's."
        ),
    )
}

/// The features of this CPU that any tier asks for.
fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! look {
        ($detect:ident: $($name:tt),+) => { $( if std::arch::$detect!($name) { found.push($name); } )+ };
    }
    #[cfg(target_arch = "x86_64")]
    look!(is_x86_feature_detected: "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    look!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm");
    found
}

/// Whether this CPU has units of 256 bits for vectors of 512: AMD's Zen 4, family 19h, whose other members have no such vectors.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "safe in later versions of Rust")]
pub(super) fn has_halves() -> bool {
    use std::arch::x86_64::__cpuid;

    // SAFETY: every x86-64 CPU has the instruction, and these two leaves.
    let (vendor, version) = unsafe { (__cpuid(0), __cpuid(1).eax) };
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD" && (version >> 8 & 0xf) + (version >> 20 & 0xff) == 0x19
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_halves() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEN5: [&str; 8] =
        ["avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni"];

    #[test]
    fn the_best_tier_wins() {
        let tier = |features: &[&'static str]| CpuInfo::choose(features.to_vec(), None).unwrap().tier;
        assert_eq!(tier(&[]), Isa::Scalar);
        assert_eq!(tier(&["avx2", "fma"]), Isa::Scalar, "F16C is part of the tier");
        assert_eq!(tier(&["avx2", "fma", "f16c"]), Isa::Avx2);
        assert_eq!(tier(&ZEN5), Isa::Avx512Vnni);
        assert_eq!(tier(&["neon", "fp16", "dotprod"]), Isa::Dotprod);
    }

    #[test]
    fn a_forced_tier_is_used_or_refused() {
        assert_eq!(CpuInfo::choose(ZEN5.to_vec(), Some("avx2")).unwrap().tier, Isa::Avx2);
        let refused = CpuInfo::choose(ZEN5.to_vec(), Some("i8mm")).unwrap_err();
        assert!(
            matches!(refused.kind(), ErrorKind::UnsupportedCpu { missing } if missing.contains(&"i8mm".to_owned()))
        );
        let unknown = CpuInfo::choose(ZEN5.to_vec(), Some("sse9")).unwrap_err();
        assert!(matches!(unknown.kind(), ErrorKind::InvalidParameter { .. }));
    }
}
