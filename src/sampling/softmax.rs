//! Logits to probabilities, with the float operations in Candle's order so that the bits are equal.

use crate::error::{Error, ErrorKind, Result};
use crate::kernels::exp_below;

/// How many sums Candle's SIMD kernels keep at once (`STEP` of its `cpu/avx.rs` and `cpu/neon.rs`).
const STEP: usize = 32;

/// The index of the largest of `logits`, the first one among equals.
///
/// # Errors
/// [`ErrorKind::Numerical`] when a logit is NaN or plus infinity, when all are minus infinity, or when there are none.
pub(super) fn argmax(logits: &[f32]) -> Result<usize> {
    let max = checked_max(logits)?;
    logits.iter().position(|logit| *logit == max).ok_or_else(|| bad_row(logits))
}

/// Writes `softmax(logits / temperature)` to `probabilities`.
///
/// Equal in every bit to `candle_nn::ops::softmax_last_dim(&(logits / temperature)?)` on the CPU: Candle divides by
/// multiplying with the reciprocal rounded to `f32`, subtracts the maximum, and sums with [`sum`]. The exponential is glibc's.
///
/// # Errors
/// As [`argmax`].
pub(super) fn softmax(logits: &[f32], temperature: f64, probabilities: &mut Vec<f32>) -> Result<()> {
    let scale = scale(temperature);
    // Scaling by a positive number keeps the order, rounding included, so the scaled maximum is the maximum scaled.
    let max = checked_max(logits)? * scale;
    if !max.is_finite() {
        return Err(Error::new(
            ErrorKind::Numerical,
            format!(
                "Divided by the temperature {temperature}, the model's largest logit is too large for a 32-bit number."
            ),
            "Set `temperature` to 0 for the likeliest token every time.",
        ));
    }
    exp_below(logits, scale, max, probabilities);
    let total = sum(probabilities);
    for probability in probabilities.iter_mut() {
        *probability /= total;
    }
    Ok(())
}

/// The factor that [`softmax`] scales logits with: Candle divides a tensor by `v` by multiplying with `(1 / v) as f32`.
pub(super) fn scale(temperature: f64) -> f32 {
    (1.0 / temperature) as f32
}

/// The maximum of a row that is fit to draw from.
fn checked_max(logits: &[f32]) -> Result<f32> {
    // Lanes of plain comparisons, which compile to SIMD; a NaN never wins one, so it is looked for separately.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut nan = [false; 16];
    let (blocks, rest) = logits.as_chunks::<16>();
    for block in blocks {
        for ((lane, nan), logit) in lanes.iter_mut().zip(&mut nan).zip(block) {
            *lane = if *logit > *lane { *logit } else { *lane };
            *nan |= logit.is_nan();
        }
    }
    let mut max = f32::NEG_INFINITY;
    for value in lanes.iter().chain(rest) {
        max = if *value > max { *value } else { max };
    }
    if max.is_finite() && !nan.contains(&true) && !rest.iter().any(|logit| logit.is_nan()) {
        Ok(max)
    } else {
        Err(bad_row(logits))
    }
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

/// The sum of `values` in the order of Candle's `cpu::vec_sum` on this CPU: blocks of 32 into separate lanes, the lanes
/// folded as its AVX2 or NEON code folds them, then the rest one by one. Without those instructions, one by one.
fn sum(values: &[f32]) -> f32 {
    match Lanes::of_this_cpu() {
        Lanes::One => values.iter().fold(0.0, |sum, value| sum + value),
        lanes => {
            let (blocks, rest) = values.as_chunks::<STEP>();
            let mut sums = [0.0f32; STEP];
            for block in blocks {
                for (sum, value) in sums.iter_mut().zip(block) {
                    *sum += value;
                }
            }
            rest.iter().fold(lanes.fold(&sums), |sum, value| sum + value)
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

    fn fold(self, sums: &[f32; STEP]) -> f32 {
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
            let mut actual = Vec::new();
            softmax(&logits, temperature, &mut actual).unwrap();
            let bits = |row: &[f32]| row.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&actual), bits(&expected));
        }
    }
}
