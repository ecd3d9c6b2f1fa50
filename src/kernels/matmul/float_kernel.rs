//! Products with plain floats: one fused multiply-add per weight, elements in ascending order.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers: plain indices with bounds known to the compiler are what it unrolls"
)]

use super::format::SPAN;
use crate::kernels::simd::{LANES, Simd};

/// A float type with tiles of `[64][16 rows]`.
pub(super) trait FloatFormat {
    /// Bytes of a value.
    const SIZE: usize;
    /// The values of 16 rows.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl FloatFormat for F32 {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(from.cast()) }
    }
}
impl FloatFormat for F16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(from.cast()) }
    }
}
impl FloatFormat for BF16 {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(from.cast()) }
    }
}

/// Adds `tiles` tiles of each of `R` groups of 16 rows to the results of `T` tokens. Those of the groups are side by side at `tile`,
/// and again every `step` bytes; token `t`'s activations are at `acts + t * stride`; its results, `16 R` of them, at `results + t * results_stride`.
///
/// # Safety
/// All pointers are valid; those to results do not overlap.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices and a result, each with its stride")]
pub(super) unsafe fn tiles<S: Simd, F: FloatFormat, const R: usize, const T: usize>(
    s: S,
    tile: *const u8,
    step: usize,
    tiles: usize,
    acts: *const f32,
    stride: usize,
    results: *mut f32,
    results_stride: usize,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let mut acc = [[s.splat(0.0); R]; T];
        for t in 0..T {
            for r in 0..R {
                acc[t][r] = s.load(results.add(t * results_stride + r * LANES));
            }
        }
        for i in 0..tiles {
            let (tile, acts) = (tile.add(i * step), acts.add(i * SPAN));
            for k in 0..SPAN {
                let mut w = [s.splat(0.0); R];
                for r in 0..R {
                    w[r] = F::load(s, tile.add((r * SPAN + k) * LANES * F::SIZE));
                }
                for t in 0..T {
                    let a = s.splat(*acts.add(t * stride + k));
                    for r in 0..R {
                        acc[t][r] = s.fma(w[r], a, acc[t][r]);
                    }
                }
            }
        }
        for t in 0..T {
            for r in 0..R {
                s.store(acc[t][r], results.add(t * results_stride + r * LANES));
            }
        }
    }
}
