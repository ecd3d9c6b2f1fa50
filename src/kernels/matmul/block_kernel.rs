//! Products with types that have one scale for 32 values: an integer sum per block, then one fused multiply-add, or two.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers: plain indices with bounds known to the compiler are what it unrolls"
)]

use super::acts::BlockActs;
use super::format::{BlockFormat, BlockKind, CHUNK, Dots, GROUPS, SPAN};
use super::strip::is_wide;
use crate::kernels::ahead::{Ahead, ask_ahead};
use crate::kernels::simd::{LANES, Simd, keep_order};

/// 16 rows of two blocks, unpacked to one byte per value: chunk `i` has elements `4 i` to `4 i + 3`.
#[repr(C, align(64))]
pub(super) struct BlockPanel {
    pub(super) values: [u8; LANES * SPAN],
    pub(super) d: [[f32; LANES]; 2],
    pub(super) mins: [[f32; LANES]; 2],
}

impl BlockPanel {
    pub(super) const ZERO: Self =
        Self { values: [0; LANES * SPAN], d: [[0.0; LANES]; 2], mins: [[0.0; LANES]; 2] };
}

/// Unpacks a tile.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, F: BlockFormat>(s: S, tile: *const u8, panel: &mut BlockPanel) {
    // SAFETY: the caller gives a whole tile; 16 chunks make a panel.
    unsafe {
        let to = panel.values.as_mut_ptr();
        for block in 0..2 {
            let (d, min) = scales::<S, F>(s, tile, block);
            s.store(d, panel.d[block].as_mut_ptr());
            s.store(min, panel.mins[block].as_mut_ptr());
            for step in 0..4 {
                let [low, high] = F::weights(s, tile, block, step);
                s.store_b(low, to.add((8 * block + step) * CHUNK));
                s.store_b(high, to.add((8 * block + 4 + step) * CHUNK));
            }
        }
    }
}

/// The scale of a block of a tile, and its least value (zero where there is none).
#[inline(always)]
unsafe fn scales<S: Simd, F: BlockFormat>(s: S, tile: *const u8, block: usize) -> (S::F, S::F) {
    // SAFETY: the caller gives a whole tile, which begins with two halves, or four.
    unsafe {
        let d = tile.cast::<u16>();
        let min = if F::MINS { s.load_f16(d.add((2 + block) * LANES)) } else { s.splat(0.0) };
        (s.load_f16(d.add(block * LANES)), min)
    }
}

/// Adds one block to a result.
#[inline(always)]
fn finish<S: Simd, K: BlockKind>(
    s: S,
    total: S::I,
    (d, min): (S::F, S::F),
    acts: &BlockActs,
    block: usize,
    acc: S::F,
) -> S::F {
    let total = if K::OFFSET == 0 {
        total
    } else {
        s.sub_i(total, s.splat_i(K::OFFSET.wrapping_mul(acts.sums[block])))
    };
    let acc = s.fma(s.mul(d, s.splat(acts.d[block])), s.to_f(total), acc);
    if K::MINS { s.fma(min, s.splat(acts.dsums[block]), acc) } else { acc }
}

/// Adds the first `count` of the `N` panels of each of `R` groups of rows to the results of `T` tokens. Token `t`'s activations
/// for panel `i` are at `acts + i * tokens + t`; its results, `16 R` of them, at `results + t * stride`. What lies `ahead` is asked for meanwhile.
///
/// # Safety
/// All pointers are valid; those to results do not overlap.
#[expect(
    clippy::too_many_arguments,
    reason = "what is multiplied, what is asked for, and the results with their stride"
)]
#[inline(always)]
pub(super) unsafe fn panels<S: Simd, K: BlockKind, const R: usize, const T: usize, const N: usize>(
    s: S,
    panels: &[[BlockPanel; N]; R],
    count: usize,
    acts: *const BlockActs,
    tokens: usize,
    ahead: &mut Ahead<1>,
    results: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller promised; chunks are within the panels.
    unsafe {
        let mut result = [[s.splat(0.0); R]; T];
        for t in 0..T {
            for r in 0..R {
                result[t][r] = s.load(results.add(t * stride + r * LANES));
            }
        }
        for i in 0..count {
            for block in 0..2 {
                ahead.go_on(s);
                let mut acc = [[<K::Bits<S> as Dots<S>>::zero(s); R]; T];
                for step in 8 * block..8 * block + 8 {
                    // One group leaves registers to spare, and gains by the compiler's own order.
                    if R > 1 {
                        keep_order();
                    }
                    let mut w = [s.splat_b(0); R];
                    for r in 0..R {
                        w[r] = s.load_b(panels[r][i].values.as_ptr().add(step * CHUNK));
                    }
                    for t in 0..T {
                        let a = s.splat4((*acts.add(i * tokens + t)).q.as_ptr().add(4 * step));
                        for r in 0..R {
                            acc[t][r] = <K::Bits<S> as Dots<S>>::dot(s, acc[t][r], w[r], a);
                        }
                    }
                }
                if R > 1 {
                    keep_order();
                }
                for r in 0..R {
                    let panel = &panels[r][i];
                    let scales = (s.load(panel.d[block].as_ptr()), s.load(panel.mins[block].as_ptr()));
                    for t in 0..T {
                        let total = <K::Bits<S> as Dots<S>>::sum(s, acc[t][r]);
                        let acts = &*acts.add(i * tokens + t);
                        result[t][r] = finish::<S, K>(s, total, scales, acts, block, result[t][r]);
                    }
                }
            }
        }
        for t in 0..T {
            for r in 0..R {
                s.store(result[t][r], results.add(t * stride + r * LANES));
            }
        }
    }
}

/// Adds a block of a tile to the results.
#[inline(always)]
unsafe fn block<S: Simd, F: BlockFormat, const M: usize, const BLOCK: usize>(
    s: S,
    tile: *const u8,
    scales: Option<(S::F, S::F)>,
    acts: *const BlockActs,
    result: &mut [S::F; M],
) {
    // SAFETY: the caller gives a whole tile and M blocks of activations.
    unsafe {
        let mut acc = [<F::Bits<S> as Dots<S>>::zero(s); M];
        for step in 0..4 {
            let w = F::weights(s, tile, BLOCK, step);
            for m in 0..M {
                let q = (*acts.add(m)).q.as_ptr().add(BLOCK * (SPAN / 2) + 4 * step);
                acc[m] = <F::Bits<S> as Dots<S>>::dot(s, acc[m], w[0], s.splat4(q));
                acc[m] = <F::Bits<S> as Dots<S>>::dot(s, acc[m], w[1], s.splat4(q.add(16)));
            }
        }
        let scales = scales.unwrap_or_else(|| self::scales::<S, F>(s, tile, BLOCK));
        for m in 0..M {
            let total = <F::Bits<S> as Dots<S>>::sum(s, acc[m]);
            result[m] = finish::<S, F>(s, total, scales, &*acts.add(m), BLOCK, result[m]);
        }
    }
}

/// The results of a strip's groups, `tiles` tiles each, for `M` tokens, straight from the tiles. Token `m`'s results are at
/// `results + m * stride`; its activations for tile `i` of each group at `acts + i * tokens + m`.
///
/// # Safety
/// All pointers are valid.
#[inline(always)]
pub(super) unsafe fn direct<S: Simd, F: BlockFormat, const M: usize>(
    s: S,
    mut tile: *const u8,
    [tiles, groups]: [usize; 2],
    mut acts: *const BlockActs,
    tokens: usize,
    results: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller gives `tiles` tiles of each group, which take turns, and their activations.
    unsafe {
        let mut results_of = [[s.splat(0.0); M]; GROUPS];
        for _ in 0..tiles {
            for result in results_of.iter_mut().take(groups) {
                for line in 0..F::TILE / CHUNK {
                    ask_ahead(s, tile, line, is_wide::<S>() && M == 1);
                }
                // Scales come first, and where there are registers for them they are read first: the processor's own
                // prefetcher loses the trail of lines that are not met in their order.
                let early = is_wide::<S>().then(|| [scales::<S, F>(s, tile, 0), scales::<S, F>(s, tile, 1)]);
                if is_wide::<S>() {
                    keep_order();
                }
                block::<S, F, M, 0>(s, tile, early.map(|of| of[0]), acts, result);
                block::<S, F, M, 1>(s, tile, early.map(|of| of[1]), acts, result);
                tile = tile.add(F::TILE);
            }
            acts = acts.add(tokens);
        }
        for (group, result) in results_of.iter().enumerate().take(groups) {
            for m in 0..M {
                s.store(result[m], results.add(m * stride + group * LANES));
            }
        }
    }
}
