//! Every environment variable that phicandle itself defines. The hub's variables are Hugging Face's, in `hub::options`.

/// Forces a kernel tier, for tests and comparisons: one of the names of [`crate::kernels::Isa`].
///
/// A tier that this CPU lacks is an [`UnsupportedCpu`](crate::ErrorKind::UnsupportedCpu) error, never a crash.
pub const PHICANDLE_ISA: &str = "PHICANDLE_ISA";

/// The model used when the caller names none: a path, a hub id or `demo`.
pub const PHICANDLE_MODEL: &str = "PHICANDLE_MODEL";
