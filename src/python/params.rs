//! Sampling parameters, from Python's dict to the core's struct.

use pyo3::prelude::*;

use super::error::raise;
use super::gil;
use crate::error::Result;
use crate::sampling::{SamplingParams, timeout};

/// `phicandle._phicandle._Params`: types are checked in Python, ranges in [`SamplingParams::validate`].
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Params {
    max_tokens: Option<usize>,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    typical_p: Option<f64>,
    repeat_penalty: f32,
    repeat_last_n: usize,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    seed: Option<u64>,
    stop: Vec<String>,
    stop_token_ids: Vec<u32>,
    include_stop: bool,
    ignore_eos: bool,
    min_tokens: usize,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    timeout: Option<f64>,
    overflow: String,
    priority: i32,
}

impl Params {
    /// The core's parameters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for a timeout that is no length of time.
    pub(super) fn into_core(self) -> Result<SamplingParams> {
        Ok(SamplingParams {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias,
            seed: self.seed,
            stop: self.stop,
            stop_token_ids: self.stop_token_ids,
            include_stop: self.include_stop,
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_tokens,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            timeout: self.timeout.map(timeout).transpose()?,
            overflow: self.overflow.parse()?,
            priority: self.priority,
        })
    }
}

/// Checks the ranges of sampling parameters that belong to no model yet.
#[pyfunction]
pub(super) fn check_params(py: Python<'_>, params: Params) -> PyResult<()> {
    gil::guard(py, || {
        params.into_core().and_then(|params| params.validate(usize::MAX)).map_err(|error| raise(py, &error))
    })
}
