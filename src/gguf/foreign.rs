//! What a file may ask for beyond its architecture: keys and tensors that would change the numbers, refused by name.
//!
//! llama.cpp has a few hundred keys for all its architectures, and its tools copy what they do not know. A key is let through
//! when its value changes nothing; others stop the file, as leaving them out would give text that is wrong without a word.

#![forbid(unsafe_code)]

use super::keys::Keys;
use super::metadata::shown;
use super::plan::Architecture;
use crate::error::{Error, ErrorKind, Result};

/// Floats, each with the values that change nothing.
const FLOATS: &[(&str, &[f64])] = &[
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.output_scale", &[0.0, 1.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("expert_weights_scale", &[0.0, 1.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("router_logit_softcapping", &[0.0]),
];
/// Whole numbers, each with the largest one that changes nothing.
const COUNTS: &[(&str, usize)] = &[
    ("attention.shared_kv_layers", 0),
    ("attention.temperature_length", 0),
    // None, and softmax over all experts: what the file says when it leaves the router to the architecture.
    ("expert_gating_func", 1),
    ("expert_group_count", 1),
    ("expert_shared_count", 0),
    ("interleave_moe_layer_step", 1),
    ("leading_dense_block_count", 0),
    ("nextn_predict_layers", 0),
];
/// Keys that change something whatever they hold.
const ALWAYS: &[&str] =
    &["attention.sliding_window_pattern", "rope.dimension_sections", "rope.freq_base_swa"];
/// Tensors outside of the layers that would change the numbers, by the beginning of their names.
const TENSORS: &[&str] = &["output.scale", "position_embd.", "token_embd_norm.", "token_types."];
/// Tables that old converters wrote and nobody reads.
const LEFT_OVER: &[&str] = &["attn_rot_embd.weight", "rope_freqs.weight"];

/// Refuses keys that no backend knows what to do with.
pub(super) fn check_keys(keys: &Keys<'_>, architecture: Architecture, head_dim: usize) -> Result<()> {
    for &(key, neutral) in FLOATS {
        if let Some(value) = keys.number(key)?
            && !neutral.contains(&value)
        {
            return Err(refused(keys, key, &format!("is {value}")));
        }
    }
    for &(key, most) in COUNTS {
        if let Some(value) = keys.count(key, 0..=u64::from(u32::MAX))?
            && value > most
        {
            return Err(refused(keys, key, &format!("is {value}")));
        }
    }
    if let Some(&key) = ALWAYS.iter().find(|key| keys.contains(key)) {
        return Err(refused(keys, key, "is there"));
    }
    const SCALE: &str = "attention.scale";
    if let Some(value) = keys.number(SCALE)?
        && value != 0.0
        && !within(value * (head_dim as f64).sqrt(), 1.0)
    {
        return Err(refused(keys, SCALE, &format!("is {value}, and not one over the root of the head size")));
    }
    let flags = [
        ("attention.causal", true),
        ("expert_weights_norm", false),
        ("use_parallel_residual", architecture.is_parallel()),
    ];
    for (key, expected) in flags {
        if let Some(value) = keys.flag(key)?
            && value != expected
        {
            return Err(refused(keys, key, &format!("is {value}")));
        }
    }
    Ok(())
}

/// Whether two numbers are the same but for the rounding of an f32. No number is, if one of them is none.
fn within(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5
}

/// Refuses tensors that the architecture does not have and that are no mere ornament.
pub(super) fn check_tensors(extra: &[String], architecture: Architecture) -> Result<()> {
    let changes = |name: &&String| match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((_, part)) => !LEFT_OVER.contains(&part),
        None => TENSORS.iter().any(|beginning| name.starts_with(beginning)),
    };
    let Some(name) = extra.iter().find(changes) else { return Ok(()) };
    let kind = ErrorKind::UnsupportedModel {
        arch: Some(architecture.name().to_owned()),
        tensor: Some(name.clone()),
        quant: None,
    };
    Err(Error::new(
        kind,
        format!(
            "The file has the tensor `{}`, which a `{}` model does not.",
            shown(name),
            architecture.name()
        ),
        "Choose another file of this model; leaving the tensor out would give wrong text.",
    ))
}

#[cold]
fn refused(keys: &Keys<'_>, key: &str, what: &str) -> Error {
    let (name, architecture) = (keys.name(key), keys.architecture());
    keys.unsupported(format!("The metadata key `{name}` {what}; a `{architecture}` model runs without it."))
}
