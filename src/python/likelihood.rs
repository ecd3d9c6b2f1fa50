//! How likely tokens are, for `phicandle.TokenLogprob` and what is made of it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::gil;
use crate::engine::stride_windows;
use crate::sampling::TokenLogprob;
use crate::tokenizer::Tokenizer;

/// Tokens with what the model said of them, as `TokenLogprob` takes it: id, logprob, bytes, and the same of the likeliest ones.
pub(super) fn tokens<'py>(
    py: Python<'py>,
    tokenizer: &Arc<Tokenizer>,
    found: &[TokenLogprob],
) -> PyResult<Bound<'py, PyTuple>> {
    // Control tokens have a name in place of text, and rows of padding neither.
    let spelling = |token| {
        let bytes = tokenizer.token_bytes(token).filter(|bytes| !bytes.is_empty());
        bytes.or_else(|| tokenizer.token_text(token).map(String::into_bytes)).unwrap_or_default()
    };
    let one = |token: u32, logprob: f64| (token, logprob, PyBytes::new(py, &spelling(token)));
    let rows = found
        .iter()
        .map(|found| {
            let (token, logprob, bytes) = one(found.token, found.logprob);
            let top = PyTuple::new(py, found.top.iter().map(|&(token, logprob)| one(token, logprob)))?;
            (token, logprob, bytes, top).into_pyobject(py)
        })
        .collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, rows)
}

/// The windows of a text of `length` tokens: where each begins, where its first scored token is, and where it ends.
#[pyfunction]
pub(super) fn windows(
    py: Python<'_>,
    length: usize,
    window: usize,
    stride: usize,
) -> PyResult<Vec<(usize, usize, usize)>> {
    gil::guard(py, || {
        Ok(stride_windows(length, window, stride)
            .map(|window| (window.begin, window.scored, window.end))
            .collect())
    })
}
