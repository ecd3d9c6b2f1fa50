//! The rotary embedding that a file describes.

use crate::error::{Error, Result};
use crate::gguf::{
    Architecture, FREQUENCY_FACTORS, GgufFile, LONG_FACTORS, ModelPlan, RopeScaling, SHORT_FACTORS,
};
use crate::kernels::{Pairs, Rope, Stretch, long_rope_magnitude};

use super::weights::vector;

/// Reads it.
///
/// # Errors
/// [`ErrorKind::CorruptModel`](crate::ErrorKind::CorruptModel) for factors that are not numbers above zero.
pub(super) fn rope(file: &GgufFile, plan: &ModelPlan) -> Result<Rope> {
    let table = |name: &str| {
        let lacks = || Error::internal(format!("The tensor `{name}` of the plan is not in the file."));
        let factors = vector(file, file.header().tensor(name).ok_or_else(lacks)?)?;
        match factors.iter().find(|&&factor| factor <= 0.0) {
            None => Ok(factors),
            Some(factor) => {
                let what =
                    format!("The tensor `{name}` has the factor {factor}; frequencies are divided by it.");
                Err(Error::corrupt(name, None, what))
            }
        }
    };
    let stretch = match plan.rope.scaling {
        RopeScaling::None => Stretch::None,
        RopeScaling::Linear { factor } => Stretch::Linear { factor: factor.into() },
        RopeScaling::LongRope { original_context, attention_factor } => Stretch::LongRope {
            short: table(SHORT_FACTORS)?,
            long: table(LONG_FACTORS)?,
            magnitude: magnitude(plan, original_context, attention_factor),
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

/// What turned elements are multiplied by in a long-rope model.
///
/// Phi-3.5-MoE's configuration names a number of its own (`long_mscale` and `short_mscale`), which transformers uses at every
/// length. llama.cpp's converter does not know these names, and writes what the formula gives for the model's lengths.
fn magnitude(plan: &ModelPlan, original_context: usize, named: Option<f32>) -> f64 {
    const PUBLISHED: (usize, usize, f64) = (4096, 131_072, 1.243_163_121_016_122);
    let (original, context, own) = PUBLISHED;
    let formula = long_rope_magnitude(plan.context_length, original_context);
    let named = named.map_or(formula, f64::from);
    let is_published = plan.architecture == Architecture::PhiMoe
        && (original_context, plan.context_length) == (original, context);
    if is_published && (named - formula).abs() < 1e-4 { own } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::RopePlan;

    fn plan(architecture: Architecture, context_length: usize) -> ModelPlan {
        let scaling = RopeScaling::LongRope { original_context: 4096, attention_factor: None };
        ModelPlan {
            architecture,
            name: None,
            n_layer: 32,
            n_embd: 4096,
            n_head: 32,
            n_head_kv: 8,
            head_dim: 128,
            n_ff: 6400,
            context_length,
            vocab_size: 32_064,
            norm_eps: 1e-5,
            rope: RopePlan { dimension_count: 128, freq_base: 10_000.0, scaling, frequency_factors: false },
            sliding_window: None,
            tied_embeddings: false,
            biases: true,
            n_expert: 16,
            n_expert_used: 2,
            parameters: 0,
            weight_bytes: 0,
            type_mix: Vec::new(),
            extra_tensors: Vec::new(),
        }
    }

    #[test]
    fn phi_3_5_moe_has_the_magnitude_of_its_configuration() {
        let moe = plan(Architecture::PhiMoe, 131_072);
        // sqrt(1 + ln 32 / ln 4096), as the converter writes it and as it is where the file has none.
        let formula = (1.0 + 5.0 / 12.0_f64).sqrt();
        for named in [None, Some(formula as f32)] {
            assert_eq!(magnitude(&moe, 4096, named), 1.243_163_121_016_122);
        }
        assert_eq!(magnitude(&moe, 4096, Some(1.5)), 1.5);
    }

    #[test]
    fn others_have_what_the_file_says_or_the_formula() {
        let formula = (1.0 + 5.0 / 12.0_f64).sqrt();
        let phi3 = plan(Architecture::Phi3, 131_072);
        assert!((magnitude(&phi3, 4096, None) - formula).abs() < 1e-12);
        assert_eq!(magnitude(&phi3, 4096, Some(1.19)), f64::from(1.19_f32));
        assert_eq!(magnitude(&plan(Architecture::PhiMoe, 4096), 4096, None), 1.0);
    }
}
