//! `python -m phicandle` and the installed command: the same command line as the `phicandle` program.

use std::path::PathBuf;

use pyo3::prelude::*;

use super::gil;

/// Runs the command line and returns its exit code. `argv[0]` is the program's name; `demo` is the file of the demo model.
#[pyfunction]
pub(super) fn run_cli(py: Python<'_>, argv: Vec<String>, demo: PathBuf) -> PyResult<i32> {
    gil::enter(py, || Ok(py.detach(|| crate::cli::run(&argv, Some(&demo)))))
}
