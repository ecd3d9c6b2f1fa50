//! The rotary embedding that a file describes.

use crate::error::{Error, Result};
use crate::gguf::{
    Architecture, FREQUENCY_FACTORS, GgufFile, LONG_FACTORS, ModelPlan, RopeScaling, SHORT_FACTORS,
};
use crate::kernels::{Pairs, Rope, Stretch, long_rope_magnitude};

use super::weights::vector;

/// Reads it.
pub(super) fn rope(file: &GgufFile, plan: &ModelPlan) -> Result<Rope> {
    let table = |name: &str| {
        let lacks = || Error::internal(format!("The tensor `{name}` of the plan is not in the file."));
        vector(file, file.header().tensor(name).ok_or_else(lacks)?)
    };
    let stretch = match plan.rope.scaling {
        RopeScaling::None => Stretch::None,
        RopeScaling::Linear { factor } => Stretch::Linear { factor: factor.into() },
        RopeScaling::LongRope { original_context, attention_factor } => Stretch::LongRope {
            short: table(SHORT_FACTORS)?,
            long: table(LONG_FACTORS)?,
            magnitude: attention_factor
                .map_or_else(|| long_rope_magnitude(plan.context_length, original_context), f64::from),
        },
        RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
            Stretch::Yarn {
                factor: factor.into(),
                original_context,
                beta_fast: beta_fast.into(),
                beta_slow: beta_slow.into(),
                magnitude: attention_factor.unwrap_or(1.0).into(),
            }
        }
    };
    let divisors = if plan.rope.frequency_factors { Some(table(FREQUENCY_FACTORS)?) } else { None };
    let pairs = match plan.architecture {
        Architecture::Llama => Pairs::Interleaved,
        Architecture::Phi2 | Architecture::Phi3 | Architecture::PhiMoe => Pairs::Halves,
    };
    Rope::new(plan.rope.dimension_count, plan.rope.freq_base.into(), pairs, &stretch, divisors.as_deref())
}
