//! What candle-transformers' models leave out, refused where it would give wrong text.

use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{Architecture, GgmlType, ModelPlan, RopeScaling};

use super::content;

/// `quantized_phi3` computes its rope with this base, whatever the file says.
const PHI3_ROPE_BASE: f32 = 10_000.0;

/// `quantized_llama` makes its rope table for this many positions, whatever the file says.
const LLAMA_POSITIONS: usize = candle_transformers::models::quantized_llama::MAX_SEQ_LEN;

/// Refuses a model, or a context, that would give wrong text.
pub(super) fn check(plan: &ModelPlan, context_length: usize) -> Result<()> {
    let longest = longest_context(plan)?;
    if context_length <= longest {
        return Ok(());
    }
    let why = match plan.sliding_window {
        Some(window) if window == longest => {
            format!(
                "the model's attention looks back over {window} tokens only, which Candle's model ignores"
            )
        }
        _ if plan.architecture == Architecture::Llama && longest == LLAMA_POSITIONS => {
            format!("Candle's llama model has rope tables for {LLAMA_POSITIONS} positions")
        }
        _ => format!("the model was made for {longest} tokens"),
    };
    Err(unsupported(
        plan,
        format!("A context of {context_length} tokens would give wrong text past {longest}: {why}."),
        format!("Use context_length={longest} or less."),
    ))
}

/// The longest context that Candle runs `plan` right with, in tokens; an error when there is none.
pub(super) fn longest_context(plan: &ModelPlan) -> Result<usize> {
    if !matches!(plan.architecture, Architecture::Phi3 | Architecture::Llama) {
        let arch = plan.architecture.name();
        return Err(unsupported(
            plan,
            format!(
                "The candle backend has no model for the architecture `{arch}`; it runs `phi3` and `llama`."
            ),
            "Use the native backend, which runs this model on the CPU.".to_owned(),
        ));
    }
    if let Some(&(kind, ..)) = plan.type_mix.iter().find(|&&(kind, ..)| content::dtype(kind).is_none()) {
        return Err(unread(plan, kind));
    }
    if let Some(lack) = lack(plan) {
        return Err(unsupported(
            plan,
            format!("The candle backend would run this {} model wrongly: {lack}.", plan.architecture.name()),
            "Use a model without it, such as Phi-3-mini-4k-instruct or Phi-3-medium-4k-instruct.".to_owned(),
        ));
    }
    let positions = match plan.architecture {
        Architecture::Llama => plan.context_length.min(LLAMA_POSITIONS),
        _ => plan.context_length,
    };
    // Up to the window, attention with and without it is the same.
    Ok(plan.sliding_window.map_or(positions, |window| positions.min(window)))
}

/// The first thing that Candle's model ignores in this one.
fn lack(plan: &ModelPlan) -> Option<String> {
    let rope = &plan.rope;
    match rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } if (factor - 1.0).abs() < f32::EPSILON => {}
        RopeScaling::Linear { factor } => return Some(format!("its rope positions are scaled by {factor}")),
        RopeScaling::LongRope { .. } => {
            return Some("it has long-context rope factors (LongRoPE)".to_owned());
        }
        RopeScaling::Yarn { .. } => return Some("it has YaRN rope scaling".to_owned()),
    }
    if rope.frequency_factors {
        return Some("it has rope frequency factors (rope_freqs.weight)".to_owned());
    }
    if rope.dimension_count != plan.head_dim {
        let (rotated, all) = (rope.dimension_count, plan.head_dim);
        return Some(format!("it rotates {rotated} of {all} dimensions of a head (partial rotary)"));
    }
    if plan.n_head * plan.head_dim != plan.n_embd {
        return Some(format!(
            "its {} heads of {} are not as wide as its {} embeddings",
            plan.n_head, plan.head_dim, plan.n_embd
        ));
    }
    if plan.biases {
        return Some("it has biases".to_owned());
    }
    if plan.architecture == Architecture::Phi3 {
        if (rope.freq_base - PHI3_ROPE_BASE).abs() > f32::EPSILON {
            return Some(format!(
                "its rope base is {}, and Candle's phi3 model has {PHI3_ROPE_BASE} fixed",
                rope.freq_base
            ));
        }
        if plan.tied_embeddings {
            return Some("its output and input embeddings are tied (no output.weight)".to_owned());
        }
    }
    None
}

/// Refuses a type of weights that Candle does not have, or does not multiply by.
fn unread(plan: &ModelPlan, kind: GgmlType) -> Error {
    let hint = match kind {
        GgmlType::IQ4_NL | GgmlType::IQ4_XS => {
            "Use the native backend, which runs this type, or a file in Q4_K_M of the same model."
        }
        _ => "Choose a file in Q4_K_M, Q5_K_M, Q6_K, Q8_0 or F16 of the same model.",
    };
    let error_kind = ErrorKind::UnsupportedModel {
        arch: Some(plan.architecture.name().to_owned()),
        tensor: None,
        quant: Some(kind.name().to_owned()),
    };
    Error::new(error_kind, format!("The candle backend does not run weights of the type {kind}."), hint)
}

fn unsupported(plan: &ModelPlan, message: String, hint: String) -> Error {
    let kind = ErrorKind::UnsupportedModel {
        arch: Some(plan.architecture.name().to_owned()),
        tensor: None,
        quant: None,
    };
    Error::new(kind, message, hint)
}
