//! The core's facts as Python dicts, by the field names of the Python classes that they fill.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::error::raise;
use super::gil;
use crate::engine::{Metrics, ModelInfo, Stats, Usage};
use crate::kernels::{CpuInfo, Isa};
use crate::model::MemoryPlan;

type Facts<'py> = PyResult<Bound<'py, PyDict>>;

/// For `phicandle.MemoryPlan`.
pub(super) fn memory<'py>(py: Python<'py>, plan: &MemoryPlan) -> Facts<'py> {
    let facts = PyDict::new(py);
    facts.set_item("weights_bytes", plan.weights_bytes)?;
    facts.set_item("mapped_bytes", plan.mapped_bytes)?;
    facts.set_item("kv_bytes", plan.kv_bytes)?;
    facts.set_item("scratch_bytes", plan.scratch_bytes)?;
    facts.set_item("total_bytes", plan.total_bytes())?;
    facts.set_item("available_bytes", plan.available_bytes)?;
    facts.set_item("context_length", plan.context_length)?;
    facts.set_item("fits", plan.fits())?;
    Ok(facts)
}

/// For `phicandle.ModelInfo`.
pub(super) fn model<'py>(py: Python<'py>, info: &ModelInfo) -> Facts<'py> {
    let facts = PyDict::new(py);
    facts.set_item("name", &info.name)?;
    facts.set_item("source", &info.source)?;
    facts.set_item("architecture", &info.architecture)?;
    facts.set_item("parameters", info.parameters)?;
    facts.set_item("quantisation", PyTuple::new(py, &info.quantisation)?)?;
    facts.set_item("vocab_size", info.vocab_size)?;
    facts.set_item("context_length", info.context_length)?;
    facts.set_item("trained_context_length", info.trained_context_length)?;
    facts.set_item("layers", info.layers)?;
    facts.set_item("embedding_length", info.embedding_length)?;
    facts.set_item("heads", info.heads.0)?;
    facts.set_item("kv_heads", info.heads.1)?;
    facts.set_item("rope_base", info.rope_base)?;
    facts.set_item("rope_scaling", info.rope_scaling)?;
    facts.set_item("sliding_window", info.sliding_window)?;
    facts.set_item("chat_template", &info.chat_template)?;
    facts.set_item("has_chat_template", info.has_chat_template)?;
    facts.set_item("backend", info.backend)?;
    facts.set_item("device", &info.device)?;
    facts.set_item("memory", memory(py, &info.memory)?)?;
    facts.set_item("load_s", info.load_s)?;
    Ok(facts)
}

/// For `phicandle.EngineStats`.
pub(super) fn stats<'py>(py: Python<'py>, stats: &Stats) -> Facts<'py> {
    let facts = PyDict::new(py);
    facts.set_item("queued", stats.queued)?;
    facts.set_item("active", stats.active)?;
    facts.set_item("finished", stats.finished)?;
    facts.set_item("preempted", stats.preempted)?;
    facts.set_item("prompt_tokens", stats.prompt_tokens)?;
    facts.set_item("cached_tokens", stats.cached_tokens)?;
    facts.set_item("completion_tokens", stats.completion_tokens)?;
    facts.set_item("accepted_guesses", stats.accepted_guesses)?;
    facts.set_item("kv_bytes", stats.kv_bytes)?;
    facts.set_item("cache_bytes", stats.cache_bytes)?;
    facts.set_item("hit_rate", stats.hit_rate())?;
    facts.set_item("passes", stats.passes)?;
    facts.set_item("batch_size", stats.batch_size)?;
    facts.set_item("tokens_per_second", stats.tokens_per_second)?;
    Ok(facts)
}

/// For `phicandle.Usage`.
pub(super) fn usage<'py>(py: Python<'py>, usage: &Usage) -> Facts<'py> {
    let facts = PyDict::new(py);
    facts.set_item("prompt_tokens", usage.prompt_tokens)?;
    facts.set_item("completion_tokens", usage.completion_tokens)?;
    facts.set_item("cached_tokens", usage.cached_tokens)?;
    Ok(facts)
}

/// For `phicandle.Metrics`.
pub(super) fn metrics<'py>(py: Python<'py>, metrics: &Metrics) -> Facts<'py> {
    let facts = PyDict::new(py);
    facts.set_item("queue_s", metrics.queue_s)?;
    facts.set_item("load_s", metrics.load_s)?;
    facts.set_item("ttft_s", metrics.ttft_s)?;
    facts.set_item("prefill_s", metrics.prefill_s)?;
    facts.set_item("decode_s", metrics.decode_s)?;
    facts.set_item("total_s", metrics.total_s)?;
    facts.set_item("prefill_tps", metrics.prefill_tps)?;
    facts.set_item("decode_tps", metrics.decode_tps)?;
    facts.set_item("accepted_guesses", metrics.accepted_guesses)?;
    facts.set_item("kv_bytes", metrics.kv_bytes)?;
    facts.set_item("peak_rss", metrics.peak_rss)?;
    Ok(facts)
}

/// For `phicandle.CpuInfo`.
#[pyfunction]
pub(super) fn cpu_info(py: Python<'_>) -> Facts<'_> {
    gil::guard(py, || {
        let cpu = CpuInfo::detect().map_err(|error| raise(py, &error))?;
        let facts = PyDict::new(py);
        facts.set_item("arch", cpu.arch)?;
        facts.set_item("features", PyTuple::new(py, cpu.features)?)?;
        facts.set_item("tiers", PyTuple::new(py, cpu.tiers.into_iter().map(Isa::name))?)?;
        facts.set_item("tier", cpu.tier.name())?;
        facts.set_item("threads", cpu.threads)?;
        Ok(facts)
    })
}
