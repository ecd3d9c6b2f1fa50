//! From the crate's error to the Python class of the same name.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Error, ErrorKind};

/// The Python exception for `error`: a class of `phicandle.errors`, with the error's facts as attributes.
#[cold]
pub(super) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    // When even the exception cannot be made (the interpreter is ending, say), that failure is the one to raise.
    build(py, error).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let facts = PyDict::new(py);
    facts.set_item("hint", error.hint())?;
    let class = class(error.kind(), &facts)?;
    let class = py.import("phicandle.errors")?.getattr(class)?;
    Ok(PyErr::from_value(class.call((error.message(),), Some(&facts))?))
}

/// The name of the class for `kind`; its facts go into `facts`. No wildcard: a new kind needs its class to compile.
fn class(kind: &ErrorKind, facts: &Bound<'_, PyDict>) -> PyResult<&'static str> {
    Ok(match kind {
        ErrorKind::ModelNotFound { candidates } => {
            facts.set_item("candidates", candidates)?;
            "ModelNotFoundError"
        }
        ErrorKind::ModelRead => "ModelReadError",
        ErrorKind::Download { url, status, resumable } => {
            facts.set_item("url", url)?;
            facts.set_item("status", status)?;
            facts.set_item("resumable", resumable)?;
            "DownloadError"
        }
        ErrorKind::Offline { url } => {
            facts.set_item("url", url)?;
            "OfflineError"
        }
        ErrorKind::GatedModel { url, status } => {
            facts.set_item("url", url)?;
            facts.set_item("status", status)?;
            "GatedModelError"
        }
        ErrorKind::CorruptModel { place, offset, expected_sha256 } => {
            facts.set_item("place", place)?;
            facts.set_item("offset", offset)?;
            facts.set_item("expected_sha256", expected_sha256)?;
            "CorruptModelError"
        }
        ErrorKind::UnsupportedModel { arch, tensor, quant } => {
            facts.set_item("arch", arch)?;
            facts.set_item("tensor", tensor)?;
            facts.set_item("quant", quant)?;
            "UnsupportedModelError"
        }
        ErrorKind::UnsupportedCpu { missing } => {
            facts.set_item("missing", missing)?;
            "UnsupportedCpuError"
        }
        ErrorKind::Device => "DeviceError",
        ErrorKind::OutOfMemory { needed, available } => {
            facts.set_item("needed", needed)?;
            facts.set_item("available", available)?;
            "OutOfMemoryError"
        }
        ErrorKind::InvalidParameter { parameter, suggestion } => {
            facts.set_item("parameter", parameter)?;
            facts.set_item("suggestion", suggestion)?;
            "InvalidParameterError"
        }
        ErrorKind::Tokenizer => "TokenizerError",
        ErrorKind::Template { line } => {
            facts.set_item("line", line)?;
            "TemplateError"
        }
        ErrorKind::ContextOverflow { prompt_tokens, limit } => {
            facts.set_item("prompt_tokens", prompt_tokens)?;
            facts.set_item("limit", limit)?;
            "ContextOverflowError"
        }
        ErrorKind::Numerical => "NumericalError",
        ErrorKind::QueueFull { retry_after } => {
            facts.set_item("retry_after", retry_after.as_secs_f64())?;
            "QueueFullError"
        }
        ErrorKind::Closed => "ClosedError",
        ErrorKind::Fork => "ForkError",
        ErrorKind::Internal => "InternalError",
    })
}
