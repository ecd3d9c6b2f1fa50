//! The extension module `phicandle._phicandle`: thin doors from Python onto the engine. The typed classes that users
//! see are Python (`python/phicandle`); this is the only folder that names `pyo3`.

mod bar;
mod command;
mod error;
mod facts;
mod generator;
mod gil;
mod likelihood;
mod loader;
mod log;
mod options;
mod params;
mod prompt;
mod stream;
mod tokenizer;
mod waker;

use pyo3::prelude::*;

/// The private extension module.
#[pymodule(gil_used = false)]
mod _phicandle {
    #[pymodule_export]
    use super::bar::RawBar;
    #[pymodule_export]
    use super::command::run_cli;
    #[pymodule_export]
    use super::facts::cpu_info;
    #[pymodule_export]
    use super::generator::{RawGenerator, estimate};
    #[pymodule_export]
    use super::gil::{leave, panic_for_test};
    #[pymodule_export]
    use super::likelihood::windows;
    #[pymodule_export]
    use super::params::check_params;
    #[pymodule_export]
    use super::stream::RawStream;
    #[pymodule_export]
    use super::tokenizer::RawTokenizer;
    #[pymodule_export]
    use super::waker::RawWaker;

    #[pymodule_export]
    const PENDING: u8 = super::stream::PENDING;
    #[pymodule_export]
    const CHUNK: u8 = super::stream::CHUNK;
    #[pymodule_export]
    const LAST: u8 = super::stream::LAST;
    #[pymodule_export]
    const END: u8 = super::stream::END;

    /// The version of the package, from `Cargo.toml`.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
