//! The extension module `phicandle._phicandle`: thin doors from Python onto the engine.

use pyo3::prelude::*;

/// The private extension module.
#[pymodule(gil_used = false)]
mod _phicandle {}
