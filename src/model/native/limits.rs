//! What this backend runs: which models, how long, and with how many keys and values at once.

use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{ModelPlan, RopeScaling};
use crate::kernels::{KV_BLOCK, is_weight};

use super::RUN_TOKENS;

/// The longest context that this backend runs `plan` right with, in tokens.
///
/// # Errors
/// [`ErrorKind::UnsupportedModel`] when there is none.
pub(super) fn longest_context(plan: &ModelPlan) -> Result<usize> {
    if let Some(&(kind, ..)) = plan.type_mix.iter().find(|&&(kind, ..)| !is_weight(kind)) {
        let kind = kind.name().to_owned();
        return Err(Error::new(
            ErrorKind::UnsupportedModel {
                arch: Some(plan.architecture.name().to_owned()),
                tensor: None,
                quant: Some(kind.clone()),
            },
            format!("The file has tensors of type {kind}, which the native backend does not run."),
            "Choose a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16 of the same model.",
        ));
    }
    Ok(plan.context_length)
}

/// The longest sequence that uses the short factors of a long-rope model, in tokens; `None` when all of at most `context` tokens
/// are turned alike. Hugging Face transformers compares in the same way: longer than `original_max_position_embeddings`.
pub(super) fn original_context(plan: &ModelPlan, context: usize) -> Option<usize> {
    match plan.rope.scaling {
        RopeScaling::LongRope { original_context, .. } if original_context < context => {
            Some(original_context)
        }
        _ => None,
    }
}

/// Positions whose keys and values a sequence holds at most, in whole blocks, when attention looks back over a window: those
/// that the first token of a pass sees, and those of the pass.
pub(super) fn kept_tokens(plan: &ModelPlan) -> Option<usize> {
    let window = plan.sliding_window?;
    // Wherever the first of them is in its block.
    Some(window.saturating_add(RUN_TOKENS).div_ceil(KV_BLOCK).saturating_add(1).saturating_mul(KV_BLOCK))
}

/// Tokens for whose keys and values memory is planned: `context` of them, which all sequences share; fewer where the windows of
/// `slots` sequences hold no more; and no less than what a sequence needs that nears the end of its original context, whose
/// tokens it then holds twice.
pub(super) fn kv_tokens(plan: &ModelPlan, context: usize, slots: usize) -> usize {
    let kept = kept_tokens(plan).unwrap_or(usize::MAX);
    let all = context.min(kept.saturating_mul(slots.max(1)));
    match original_context(plan, context) {
        Some(original) => all.max(2 * original.next_multiple_of(KV_BLOCK).min(kept)),
        None => all,
    }
}
