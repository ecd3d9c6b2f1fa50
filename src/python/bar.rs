//! A bar for a loop in Python, such as that of a batch: `phicandle._phicandle.RawBar`.

use indicatif::ProgressBar;
use pyo3::prelude::*;

use super::gil;
use crate::hub::count_bar;

/// A bar on standard error, drawn when that is a terminal.
#[pyclass(frozen, module = "phicandle._phicandle")]
pub(super) struct RawBar {
    bar: ProgressBar,
}

#[pymethods]
impl RawBar {
    /// A bar at 0 of `total` prompts, where their number is known.
    #[new]
    fn new(py: Python<'_>, total: Option<u64>) -> PyResult<Self> {
        gil::enter(py, || Ok(Self { bar: count_bar("answering", "prompts", total) }))
    }

    /// Says how many are done.
    fn set(&self, py: Python<'_>, done: u64) -> PyResult<()> {
        gil::enter(py, || {
            self.bar.set_position(done);
            Ok(())
        })
    }

    /// Leaves the bar as it is.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        gil::enter(py, || {
            self.bar.abandon();
            Ok(())
        })
    }
}
