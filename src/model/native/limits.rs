//! What this backend does not run yet, refused by name.

use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{ModelPlan, RopeScaling};
use crate::kernels::is_weight;

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
    Ok(match plan.rope.scaling {
        // Past it a sequence has to be computed again with the other factors.
        RopeScaling::LongRope { original_context, .. } => plan.context_length.min(original_context),
        _ => plan.context_length,
    })
}

/// The longest context, when `asked` is within it.
///
/// # Errors
/// [`ErrorKind::UnsupportedModel`].
pub(super) fn check(plan: &ModelPlan, asked: usize) -> Result<()> {
    let longest = longest_context(plan)?;
    match plan.rope.scaling {
        RopeScaling::LongRope { original_context, .. } if asked > longest => Err(Error::new(
            ErrorKind::UnsupportedModel {
                arch: Some(plan.architecture.name().to_owned()),
                tensor: None,
                quant: None,
            },
            format!(
                "A context of {asked} tokens needs the long rope factors of this model, which apply past {original_context} tokens."
            ),
            format!("Use context_length={original_context} or less; longer ones come in a later version."),
        )),
        _ => Ok(()),
    }
}
