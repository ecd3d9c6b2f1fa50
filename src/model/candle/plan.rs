//! What a model costs on this backend: memory, and how much of a prompt goes through at once.

use crate::gguf::{Architecture, GgmlType, ModelPlan};
use crate::model::{Device, MemoryPlan, available_memory};

/// Tokens of a prompt per pass on a GPU.
const GPU_RUN: usize = 512;

/// Tokens of a prompt that go through in one pass.
///
/// Candle cannot be interrupted inside a pass, so a pass on the CPU is kept to about a quarter of a second on two cores
/// (27 tokens a second at 3.8 billion parameters). It depends on the file only, never on time: another split may round
/// differently.
pub(super) fn run_tokens(plan: &ModelPlan, device: Device) -> usize {
    match (device, plan.parameters) {
        (Device::Cuda(_) | Device::Metal, _) => GPU_RUN,
        (Device::Cpu, ..=400_000_000) => 128,
        (Device::Cpu, ..=1_600_000_000) => 32,
        (Device::Cpu, _) => 8,
    }
}

/// Bytes of keys and values per token: both in f32, in every layer.
pub(super) fn kv_token_bytes(plan: &ModelPlan) -> u64 {
    let per_layer = (plan.n_head_kv as u64).saturating_mul(plan.head_dim as u64).saturating_mul(2 * 4);
    per_layer.saturating_mul(plan.n_layer as u64)
}

/// The memory plan of this backend.
pub(super) fn memory(plan: &ModelPlan, context_length: usize) -> MemoryPlan {
    // The embedding table is turned into f32, and so is every F16 or BF16 matrix.
    let table = (plan.vocab_size as u64).saturating_mul(plan.n_embd as u64).saturating_mul(4);
    let matrices = plan
        .type_mix
        .iter()
        .map(|&(kind, _, bytes)| bytes.saturating_add(extra_copy(kind, bytes)))
        .fold(0_u64, u64::saturating_add);
    let kv = kv_token_bytes(plan).saturating_mul(context_length as u64);
    // llama caches are concatenated anew for each token: the old and the new one are there at once.
    let kv_bytes = if plan.architecture == Architecture::Llama { kv.saturating_mul(2) } else { kv };
    let run = run_tokens(plan, Device::Cpu) as u64;
    let widest = (plan.n_ff as u64 * 2).max(plan.n_embd as u64 * 4);
    let scores = (plan.n_head as u64).saturating_mul(context_length as u64);
    let scratch_bytes = run.saturating_mul(widest.saturating_mul(4).saturating_add(scores.saturating_mul(8)));
    MemoryPlan {
        weights_bytes: matrices.saturating_add(table),
        mapped_bytes: 0,
        kv_bytes,
        scratch_bytes,
        available_bytes: available_memory(),
        context_length,
    }
}

/// Bytes of the copy that Candle 0.11.1 makes of `bytes` of `kind` beside the original, for speed.
fn extra_copy(kind: GgmlType, bytes: u64) -> u64 {
    match kind {
        GgmlType::F16 | GgmlType::BF16 => bytes.saturating_mul(2),
        GgmlType::Q4_K => bytes.saturating_mul(4) / 3,
        GgmlType::Q6_K => bytes.saturating_mul(3) / 2,
        GgmlType::Q8_0 => bytes,
        _ => 0,
    }
}
