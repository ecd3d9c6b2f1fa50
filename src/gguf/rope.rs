//! What a file says of rotary position embedding.

#![forbid(unsafe_code)]

use super::header::Header;
use super::keys::Keys;
use crate::error::{Error, ErrorKind, Result};

/// Base of the rotation's frequencies when the file does not say (the GGUF specification).
const DEFAULT_FREQ_BASE: f64 = 10_000.0;
/// Largest factor by which a context may be stretched.
const MAX_FACTOR: f64 = 65_536.0;
/// Factors for contexts longer than the original one, and for those that are not.
pub const LONG_FACTORS: &str = "rope_factors_long.weight";
/// See [`LONG_FACTORS`].
pub const SHORT_FACTORS: &str = "rope_factors_short.weight";
/// Llama 3.1's factors, one for each frequency, at every context length.
pub const FREQUENCY_FACTORS: &str = "rope_freqs.weight";

/// The rotation that the model was trained with.
#[derive(Debug, Clone, PartialEq)]
pub struct RopePlan {
    /// Elements of each head that are rotated: even, at most `head_dim`.
    pub dimension_count: usize,
    /// Base of the frequencies, 1 to 1e12.
    pub freq_base: f32,
    /// How the rotation is stretched beyond the context of the first training.
    pub scaling: RopeScaling,
    /// Whether the file has `rope_freqs.weight`: one divisor for each frequency.
    pub frequency_factors: bool,
}

/// Ways to stretch a rotation to longer contexts. Factors are finite and > 0.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// Divisor of positions.
        factor: f32,
    },
    /// Phi-3's: each frequency is divided by its own factor, from `rope_factors_long.weight` or
    /// `rope_factors_short.weight` (`dimension_count / 2` values each).
    LongRope {
        /// Tokens of the first training: the short factors hold up to here.
        original_context: usize,
        /// Multiplies the rotated values; `None` when the file leaves it to the formula of the model's paper,
        /// `sqrt(1 + ln(context / original) / ln(original))`.
        attention_factor: Option<f32>,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Ratio of the new context to the original one.
        factor: f32,
        /// Tokens of the first training.
        original_context: usize,
        /// Multiplies the rotated values; `None` when the file does not say.
        attention_factor: Option<f32>,
        /// Rotations over the original context above which a frequency is kept (32 by default).
        beta_fast: f32,
        /// Rotations below which a frequency is divided by the whole factor (1 by default).
        beta_slow: f32,
    },
}

/// Reads the rotation of a model with heads of `head_dim` and `context` tokens.
pub(super) fn read_rope(
    header: &Header,
    keys: &Keys<'_>,
    head_dim: usize,
    context: usize,
) -> Result<RopePlan> {
    let dimension_count = keys.count_or("rope.dimension_count", 2..=512, head_dim)?;
    if dimension_count % 2 != 0 || dimension_count > head_dim {
        let what = format!("is {dimension_count}; it should be even and at most the head size, {head_dim}.");
        return Err(keys.bad("rope.dimension_count", what));
    }
    let freq_base = keys.float("rope.freq_base", 1.0..=1e12)?.unwrap_or(DEFAULT_FREQ_BASE) as f32;
    let scaling = read_scaling(header, keys, context)?;
    let frequency_factors = header.tensor(FREQUENCY_FACTORS).is_some();
    if frequency_factors && matches!(scaling, RopeScaling::LongRope { .. }) {
        let message =
            format!("The file has `{FREQUENCY_FACTORS}`, and `{LONG_FACTORS}` too; one is too many.");
        return Err(Error::corrupt(FREQUENCY_FACTORS, None, message));
    }
    Ok(RopePlan { dimension_count, freq_base, scaling, frequency_factors })
}

fn read_scaling(header: &Header, keys: &Keys<'_>, context: usize) -> Result<RopeScaling> {
    const TYPE: &str = "rope.scaling.type";
    let kind = keys.text(TYPE)?;
    // Zero stands for "not set", as in llama.cpp.
    let named =
        |key: &str| keys.float(key, 0.0..=MAX_FACTOR).map(|factor| factor.filter(|&factor| factor > 0.0));
    let factor = match (named("rope.scaling.factor")?, named("rope.scale_linear")?) {
        (Some(new), Some(old)) if new.to_bits() != old.to_bits() => {
            return Err(keys.bad("rope.scale_linear", format!("is {old}, and rope.scaling.factor is {new}.")));
        }
        (new, old) => new.or(old).map(|factor| factor as f32),
    };
    let original = keys.count("rope.scaling.original_context_length", 1..=1 << 24)?;
    let attention_factor = keys
        .float("rope.scaling.attn_factor", 0.0..=MAX_FACTOR)?
        .filter(|&factor| factor > 0.0)
        .map(|factor| factor as f32);
    let tables = (header.tensor(LONG_FACTORS).is_some(), header.tensor(SHORT_FACTORS).is_some());

    // Converters of Phi-3 write the two tables and no type.
    if kind == Some("longrope") || (kind.is_none() && (tables.0 || tables.1)) {
        if tables != (true, true) {
            let message = format!(
                "The file uses longrope, which needs both `{LONG_FACTORS}` and `{SHORT_FACTORS}`; it lacks {}.",
                if tables == (false, false) {
                    "both"
                } else if tables.0 {
                    "the second"
                } else {
                    "the first"
                }
            );
            return Err(Error::corrupt(keys.name(TYPE), None, message));
        }
        let original_context = original.ok_or_else(|| {
            let what = format!("is absent; `{LONG_FACTORS}` needs it.");
            keys.bad("rope.scaling.original_context_length", what)
        })?;
        if original_context > context {
            let what = format!("is {original_context}, more than the context_length, {context}.");
            return Err(keys.bad("rope.scaling.original_context_length", what));
        }
        return Ok(RopeScaling::LongRope { original_context, attention_factor });
    }
    if tables.0 || tables.1 {
        let what = format!("is not longrope, and yet the file has `{LONG_FACTORS}` or `{SHORT_FACTORS}`.");
        return Err(keys.bad(TYPE, what));
    }
    match kind {
        Some("none") => Ok(RopeScaling::None),
        // Without a type, a factor means linear scaling (llama.cpp).
        Some("linear") | None => Ok(match factor {
            Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        }),
        Some("yarn") => Ok(RopeScaling::Yarn {
            factor: factor.ok_or_else(|| {
                keys.bad("rope.scaling.factor", format!("is absent; `{TYPE}` yarn needs it."))
            })?,
            original_context: original.unwrap_or(context),
            attention_factor,
            beta_fast: keys.float("rope.scaling.yarn_beta_fast", 0.0..=MAX_FACTOR)?.unwrap_or(32.0) as f32,
            beta_slow: keys.float("rope.scaling.yarn_beta_slow", 0.0..=MAX_FACTOR)?.unwrap_or(1.0) as f32,
        }),
        Some(_) => Err(Error::new(
            ErrorKind::UnsupportedModel {
                arch: Some(keys.architecture().to_owned()),
                tensor: None,
                quant: None,
            },
            format!(
                "The metadata key `{}` names a scaling that is none of: none, linear, longrope, yarn.",
                keys.name(TYPE)
            ),
            "Choose another file of this model; running it without its scaling would give wrong text.",
        )),
    }
}
