//! Logits to probabilities, with the float operations in Candle's order so that the bits are equal.

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{SUM_LANES, divide, exp_below, greatest, running_sum};

/// How many logits are compared before a look at whether one of them was it.
const COMPARED: usize = 64;

/// The index of the largest of `logits`, the first one among equals.
///
/// # Errors
/// [`ErrorKind::Numerical`] when a logit is NaN or plus infinity, when all are minus infinity, or when there are none.
pub(super) fn argmax(logits: &[f32]) -> Result<usize> {
    let max = greatest(logits).ok_or_else(|| bad_row(logits))?;
    let has = |part: &[f32]| part.iter().fold(false, |has, logit| has | (*logit == max));
    let part = logits.chunks(COMPARED).position(has).unwrap_or(0) * COMPARED;
    logits[part..].iter().position(|logit| *logit == max).map(|at| part + at).ok_or_else(|| bad_row(logits))
}

/// Replaces `logits` by `softmax(logits / temperature)`.
///
/// Equal in every bit to `candle_nn::ops::softmax_last_dim(&(logits / temperature)?)` on the CPU: Candle divides by
/// multiplying with the reciprocal rounded to `f32`, subtracts the maximum, and sums with `cpu::vec_sum`. The exponential is
/// glibc's.
///
/// # Errors
/// As [`argmax`].
pub(super) fn softmax(logits: &mut [f32], temperature: f64) -> Result<()> {
    let total = powers(logits, temperature)?;
    divide(logits, total);
    Ok(())
}

/// [`softmax`] but for its last step: the probabilities are the new `logits`, each divided by the sum that is returned.
///
/// # Errors
/// As [`argmax`].
pub(super) fn powers(logits: &mut [f32], temperature: f64) -> Result<f32> {
    let scale = scale(temperature);
    // Scaling by a positive number keeps the order, rounding included, so the scaled maximum is the maximum scaled.
    let max = greatest(logits).ok_or_else(|| bad_row(logits))? * scale;
    if !max.is_finite() {
        return Err(Error::new(
            ErrorKind::Numerical,
            format!(
                "Divided by the temperature {temperature}, the model's largest logit is too large for a 32-bit number."
            ),
            "Set `temperature` to 0 for the likeliest token every time.",
        ));
    }
    let sums = exp_below(logits, scale, max);
    Ok(sum(logits, &sums))
}

/// The factor that [`softmax`] scales logits with: Candle divides a tensor by `v` by multiplying with `(1 / v) as f32`.
pub(super) fn scale(temperature: f64) -> f32 {
    (1.0 / temperature) as f32
}

#[cold]
fn bad_row(logits: &[f32]) -> Error {
    let unfit = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    let (message, hint) = if let Some(first) = logits.iter().position(unfit) {
        let count = logits.iter().filter(|logit| unfit(logit)).count();
        (
            format!(
                "The model computed {count} of {} logits that are not finite numbers, the first for token {first}.",
                logits.len()
            ),
            "Check the model file with `phicandle show FILE`; if it is sound, try another quantisation or backend.",
        )
    } else {
        (
            format!("All {} tokens are ruled out, so none can be chosen.", logits.len()),
            "Loosen what rules tokens out: `min_tokens`, `ignore_eos`, stop token ids or a grammar.",
        )
    };
    Error::new(ErrorKind::Numerical, message, hint)
}

/// The sum of `values` in the order of Candle's `cpu::vec_sum` on this CPU: blocks of 32 (`STEP` of its `cpu/avx.rs` and
/// `cpu/neon.rs`) into separate lanes, whose sums are `lane_sums`, the lanes folded as its AVX2 or NEON code folds them, then the
/// rest one by one. Without those instructions, one by one.
fn sum(values: &[f32], lane_sums: &[f32; SUM_LANES]) -> f32 {
    match Lanes::of_this_cpu() {
        Lanes::One => running_sum(values, 1.0, &mut Vec::new()),
        lanes => {
            let (_, rest) = values.as_chunks::<SUM_LANES>();
            rest.iter().fold(lanes.fold(lane_sums), |sum, value| sum + value)
        }
    }
}

/// Which of Candle's summation orders applies.
#[derive(Clone, Copy, PartialEq)]
enum Lanes {
    /// One running sum.
    One,
    /// Four vectors of eight.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2,
    /// Eight vectors of four.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Lanes {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    fn of_this_cpu() -> Self {
        if std::is_x86_feature_detected!("avx2") { Self::Avx2 } else { Self::One }
    }

    #[cfg(target_arch = "aarch64")]
    fn of_this_cpu() -> Self {
        Self::Neon
    }

    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    fn of_this_cpu() -> Self {
        Self::One
    }

    fn fold(self, sums: &[f32; SUM_LANES]) -> f32 {
        // Four partial sums; both instruction sets then add neighbours twice.
        let quarter: [f32; 4] = match self {
            Self::One => return sums.iter().sum(),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx2 => {
                let eighth = |i: usize| (sums[i] + sums[i + 8]) + (sums[i + 16] + sums[i + 24]);
                std::array::from_fn(|i| eighth(i) + eighth(i + 4))
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::array::from_fn(|i| {
                let pair = |j: usize| sums[i + 4 * j] + sums[i + 4 * (j + 1)];
                (pair(0) + pair(2)) + (pair(4) + pair(6))
            }),
        };
        (quarter[0] + quarter[1]) + (quarter[2] + quarter[3])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_equal_candles_softmax(
            logits in prop::collection::vec(-30.0f32..30.0, 1..3000),
            temperature in 0.01f64..5.0,
        ) {
            let tensor = Tensor::from_slice(&logits, logits.len(), &Device::Cpu).unwrap();
            let expected = candle_nn::ops::softmax_last_dim(&(tensor / temperature).unwrap()).unwrap();
            let expected = expected.to_vec1::<f32>().unwrap();
            let mut actual = logits;
            softmax(&mut actual, temperature).unwrap();
            let bits = |row: &[f32]| row.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&actual), bits(&expected));
        }
    }
}
