//! `python -m phicandle` and the installed command: the same command line as the `phicandle` program.

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;

use super::gil;
use crate::cli::{self, Demo};

/// Runs the command line and returns its exit code. `argv[0]` is the program's name; `demo` is the file of the demo model.
#[pyfunction]
pub(super) fn run_cli(py: Python<'_>, argv: Vec<OsString>, demo: PathBuf) -> PyResult<i32> {
    gil::enter(py, || Ok(py.detach(|| cli::run(argv, &Demo::File(demo)))))
}
