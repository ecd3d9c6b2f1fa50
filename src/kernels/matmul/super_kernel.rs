//! Products with K-quants: the integer sums of a super-block, then one fused multiply-add, or two, per row and super-block.
//!
//! Both ways to get there, straight from a tile for a few tokens and from an unpacked panel for many, make the same sums and
//! the same float operations in the same order, so a row of results does not depend on how many tokens it was computed with.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers: plain indices with bounds known to the compiler are what it unrolls"
)]

use std::hint::black_box;
use std::mem::offset_of;

use super::acts::SuperActs;
use super::format::{CHUNK, Dots, GROUPS, SUPER, Scales, SuperFormat, SuperKind};
use crate::kernels::ahead::{Ahead, ask_ahead};
use crate::kernels::simd::{LANES, Simd, keep_order};

/// 16 rows of a super-block, unpacked to one byte per value: chunk `i` has elements `4 i` to `4 i + 3`.
#[repr(C, align(64))]
pub(super) struct SuperPanel {
    pub(super) values: [u8; LANES * SUPER],
    pub(super) scales: Scales,
}

impl SuperPanel {
    pub(super) const ZERO: Self = Self { values: [0; LANES * SUPER], scales: Scales::ZERO };
}

/// How sums are added up: those of any activations, each times its scale.
const ANY: u8 = 0;
/// [Short](is_short) ones, each times its scale.
const SHORT: u8 = 1;
/// Short ones, two at a time: an instruction for the ports that multiply, and two for others, in place of two for those that multiply.
const PAIRED: u8 = 2;

/// Unpacks a tile.
///
/// # Safety
/// `tile` is a whole tile.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, F: SuperFormat>(s: S, tile: *const u8, panel: &mut SuperPanel) {
    // SAFETY: a whole tile.
    unsafe {
        F::scales(s, tile, &mut panel.scales);
        if is_paired(s) {
            pair_scales::<S, F>(s, &mut panel.scales);
        }
        unpack_group::<S, F, 0>(s, tile, panel);
        unpack_group::<S, F, 1>(s, tile, panel);
        unpack_group::<S, F, 2>(s, tile, panel);
        unpack_group::<S, F, 3>(s, tile, panel);
    }
}

#[inline(always)]
unsafe fn unpack_group<S: Simd, F: SuperFormat, const GROUP: usize>(
    s: S,
    tile: *const u8,
    panel: &mut SuperPanel,
) {
    let to = panel.values.as_mut_ptr();
    for step in 0..F::SUB / 4 {
        // SAFETY: the caller gives a whole tile; every sub-block and step is one chunk of the panel.
        unsafe {
            let weights = F::weights::<S, GROUP>(s, tile, step);
            for v in 0..F::VECTORS {
                let chunk = F::sub_block(GROUP, v) * (F::SUB / 4) + step;
                s.store_b(weights[v], to.add(chunk * CHUNK));
            }
        }
    }
}

/// Turns scales that are plain numbers into what [`Simd::drain`] wants.
#[inline(always)]
pub(super) fn prepare_scales<S: Simd, K: SuperKind>(s: S, panel: &mut SuperPanel) {
    for scale in &mut panel.scales.sub {
        // SAFETY: 16 values are read and written.
        unsafe { s.store_i(s.scale(s.load_i(scale.as_ptr())), scale.as_mut_ptr()) }
    }
    if is_paired(s) {
        pair_scales::<S, K>(s, &mut panel.scales);
    }
}

/// Whether short sums are scaled two at a time, in panels.
#[inline(always)]
pub(super) fn is_paired<S: Simd>(s: S) -> bool {
    S::SHORT && s.in_halves()
}

/// Fills the scales of pairs from those of sub-blocks.
#[inline(always)]
fn pair_scales<S: Simd, K: SuperKind>(s: S, scales: &mut Scales) {
    for pair in 0..SUPER / K::SUB / 2 {
        let (low, high) = (2 * pair, 2 * pair + 1);
        // SAFETY: all are 16 numbers.
        unsafe {
            let both = s.pair(s.load_i(scales.sub[low].as_ptr()), s.load_i(scales.sub[high].as_ptr()));
            s.store_i(both, scales.pairs[pair].as_mut_ptr());
        }
    }
}

/// The sums of activations that go with the mins, as pairs of i16.
#[inline(always)]
fn sums<K: SuperKind>(acts: &SuperActs) -> *const i32 {
    if K::SUB == 32 { acts.sums32.as_ptr().cast() } else { acts.sums16.as_ptr().cast() }
}

/// Whether sums with the activations of `M` tokens are short, where that is of use.
///
/// # Safety
/// `acts` points to M blocks of activations.
#[inline(always)]
unsafe fn is_short<S: Simd, K: SuperKind, const M: usize>(acts: *const SuperActs) -> bool {
    // SAFETY: the caller's.
    <K::Bits<S> as Dots<S>>::SHORT && (0..M).fold(true, |all, m| all & unsafe { (*acts.add(m)).is_mild })
}

/// Whether sums, if short, begin below zero, so that they end as those of weights without the middle of their range.
#[inline(always)]
fn is_centred<K: SuperKind, const SUMS: u8>() -> bool {
    SUMS != ANY && K::MIDDLE.is_some()
}

/// Whether `tokens` tokens are so few that their sums, and all that they need, stay in registers.
const fn is_lean(tokens: usize) -> bool {
    tokens <= 2
}

/// Scales a sum and adds it up.
#[inline(always)]
fn drain<S: Simd, K: SuperKind, const SUMS: u8>(
    s: S,
    total: S::I,
    acc: <K::Bits<S> as Dots<S>>::Acc,
    scale: S::I,
) -> S::I {
    if SUMS == SHORT {
        <K::Bits<S> as Dots<S>>::drain_short(s, total, acc, scale)
    } else {
        <K::Bits<S> as Dots<S>>::drain(s, total, acc, scale)
    }
}

/// Scales the sums of a pair of sub-blocks and adds them up.
#[inline(always)]
fn drain_pair<S: Simd, K: SuperKind>(
    s: S,
    total: S::I,
    [low, high]: [<K::Bits<S> as Dots<S>>::Acc; 2],
    scales: S::I,
) -> S::I {
    let (low, high) = (<K::Bits<S> as Dots<S>>::sum(s, low), <K::Bits<S> as Dots<S>>::sum(s, high));
    s.dot_pairs(total, s.pair(low, high), scales)
}

/// Steps that are summed before they are scaled.
#[inline(always)]
fn steps<S: Simd, K: SuperKind>() -> usize {
    <K::Bits<S> as Dots<S>>::limit().min(K::SUB / 4)
}

/// Where the sum of a sub-block begins. Centred, its upper half is what lies behind the number in memory, as a short sum is scaled
/// by its lower half alone.
///
/// # Safety
/// `acts` points to activations.
#[inline(always)]
unsafe fn begin<S: Simd, K: SuperKind, const SUMS: u8>(
    s: S,
    acts: *const SuperActs,
    sub: usize,
) -> <K::Bits<S> as Dots<S>>::Acc {
    if !is_centred::<K, SUMS>() {
        return <K::Bits<S> as Dots<S>>::zero(s);
    }
    // SAFETY: the caller's; there is a number for each sub-block, and another behind the last.
    let middle = unsafe {
        let middles: *const i16 = match K::SUB {
            32 => (&raw const (*acts).middle5).cast(),
            _ => (&raw const (*acts).middle6).cast(),
        };
        middles.add(sub).cast::<i32>().read_unaligned()
    };
    <K::Bits<S> as Dots<S>>::from(s, middle)
}

/// The scaled sums before the first step: what centred sums lack, where the file's values have no middle.
///
/// # Safety
/// `acts` points to activations.
#[inline(always)]
unsafe fn total<S: Simd, K: SuperKind, const SUMS: u8>(
    s: S,
    acts: *const SuperActs,
    scales: &Scales,
) -> S::I {
    let mut total = s.splat_i(0);
    if is_centred::<K, SUMS>() && K::MINS {
        for pair in 0..4 {
            // SAFETY: the caller's; 16 lanes, and 8 sums.
            unsafe {
                let sums = s.splat_i((&raw const (*acts).sums32).cast::<i32>().add(pair).read());
                total = s.dot_pairs(total, s.load_i(scales.middles[pair].as_ptr()), sums);
            }
        }
    }
    total
}

/// What a super-block's minima, or the offset of its values, take away.
///
/// # Safety
/// `acts` points to activations.
#[inline(always)]
unsafe fn minima<S: Simd, K: SuperKind, const SUMS: u8>(
    s: S,
    acts: *const SuperActs,
    scales: &Scales,
) -> S::I {
    let mut mins = s.splat_i(0);
    if is_centred::<K, SUMS>() && !K::MINS {
        return mins;
    }
    for pair in 0..SUPER / K::SUB / 2 {
        // SAFETY: the caller's; 16 lanes, and as many sums.
        unsafe {
            let sums = s.splat_i(sums::<K>(&*acts).add(pair).read());
            mins = s.dot_pairs(mins, s.load_i(scales.mins[pair].as_ptr()), sums);
        }
    }
    mins
}

/// Adds one super-block to a result.
#[inline(always)]
fn finish<S: Simd, K: SuperKind>(
    s: S,
    total: S::I,
    mins: S::I,
    d: S::F,
    dmin: S::F,
    da: f32,
    acc: S::F,
) -> S::F {
    let da = s.splat(da);
    if K::MINS {
        let acc = s.fma(s.mul(d, da), s.to_f(total), acc);
        s.fnma(s.mul(dmin, da), s.to_f(mins), acc)
    } else {
        s.fma(s.mul(d, da), s.to_f(s.sub_i(total, mins)), acc)
    }
}

/// Cache lines of activations that a kernel reads.
#[inline(always)]
fn lines<K: SuperKind>() -> usize {
    let bytes = if K::SUB == 32 { offset_of!(SuperActs, sums16) } else { size_of::<SuperActs>() };
    bytes.div_ceil(CHUNK)
}

/// Adds the super-block of `R` panels to the results of `T` tokens; token `t`'s, `16 R` of them, are at `results + t * stride`.
/// `next` are the activations that come after these, to be asked for meanwhile, and so is what lies `ahead`. With `PAIRS` as
/// [`is_paired`] says.
///
/// # Safety
/// All pointers are valid; those to results do not overlap.
#[inline(always)]
pub(super) unsafe fn panels<S: Simd, K: SuperKind, const R: usize, const T: usize, const PAIRS: bool>(
    s: S,
    panels: &[SuperPanel; R],
    acts: *const SuperActs,
    next: *const SuperActs,
    ahead: &mut Ahead<1>,
    results: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if !is_short::<S, K, T>(acts) {
            panels_with::<S, K, R, T, ANY>(s, panels, acts, next, ahead, results, stride);
        } else if PAIRS {
            panels_with::<S, K, R, T, PAIRED>(s, panels, acts, next, ahead, results, stride);
        } else {
            panels_with::<S, K, R, T, SHORT>(s, panels, acts, next, ahead, results, stride);
        }
    }
}

/// The sums of the next [`steps`] steps from `first` on, which are those of sub-block `sub` or a part of them.
#[inline(always)]
unsafe fn panel_sums<S: Simd, K: SuperKind, const R: usize, const T: usize, const SUMS: u8>(
    s: S,
    panels: &[SuperPanel; R],
    acts: *const SuperActs,
    sub: usize,
    first: usize,
) -> [[<K::Bits<S> as Dots<S>>::Acc; R]; T] {
    // SAFETY: chunks are within the panels; the caller gives T blocks of activations.
    unsafe {
        let mut acc = [[<K::Bits<S> as Dots<S>>::zero(s); R]; T];
        for t in 0..T {
            acc[t] = [begin::<S, K, SUMS>(s, acts.add(t), sub); R];
        }
        for step in first..first + steps::<S, K>() {
            let mut w = [s.splat_b(0); R];
            for r in 0..R {
                w[r] = s.load_b(panels[r].values.as_ptr().add(step * CHUNK));
            }
            for t in 0..T {
                let a = s.splat4((*acts.add(t)).q.as_ptr().add(4 * step));
                for r in 0..R {
                    acc[t][r] = <K::Bits<S> as Dots<S>>::dot(s, acc[t][r], w[r], a);
                }
            }
        }
        acc
    }
}

/// The same with sums of one kind.
#[inline(always)]
unsafe fn panels_with<S: Simd, K: SuperKind, const R: usize, const T: usize, const SUMS: u8>(
    s: S,
    panels: &[SuperPanel; R],
    acts: *const SuperActs,
    next: *const SuperActs,
    ahead: &mut Ahead<1>,
    results: *mut f32,
    stride: usize,
) {
    // SAFETY: chunks are within the panels; the caller gives T blocks of activations and T x 16 R results.
    unsafe {
        let mut total = [[s.splat_i(0); R]; T];
        for t in 0..T {
            for r in 0..R {
                total[t][r] = self::total::<S, K, SUMS>(s, acts.add(t), &panels[r].scales);
            }
        }
        let mut ask = |number: usize| {
            ahead.go_on(s);
            if number < lines::<K>() {
                for t in 0..T {
                    s.prefetch(next.wrapping_add(t).cast::<u8>().wrapping_add(number * CHUNK));
                }
            }
        };
        if SUMS == PAIRED {
            for pair in 0..SUPER / K::SUB / 2 {
                let (low, high) = (2 * pair, 2 * pair + 1);
                ask(low);
                let mut lows = panel_sums::<S, K, R, T, SUMS>(s, panels, acts, low, low * (K::SUB / 4));
                for t in 0..T {
                    for r in 0..R {
                        lows[t][r] = <K::Bits<S> as Dots<S>>::settle(s, lows[t][r]);
                    }
                }
                ask(high);
                let highs = panel_sums::<S, K, R, T, SUMS>(s, panels, acts, high, high * (K::SUB / 4));
                for r in 0..R {
                    let scales = s.load_i(panels[r].scales.pairs[pair].as_ptr());
                    for t in 0..T {
                        total[t][r] = drain_pair::<S, K>(s, total[t][r], [lows[t][r], highs[t][r]], scales);
                    }
                }
            }
        } else {
            for sub in 0..SUPER / K::SUB {
                ask(sub);
                for step in (0..K::SUB / 4).step_by(steps::<S, K>()) {
                    let acc = panel_sums::<S, K, R, T, SUMS>(s, panels, acts, sub, sub * (K::SUB / 4) + step);
                    for r in 0..R {
                        let scale = s.load_i(panels[r].scales.sub[sub].as_ptr());
                        for t in 0..T {
                            total[t][r] = drain::<S, K, SUMS>(s, total[t][r], acc[t][r], scale);
                        }
                    }
                }
            }
        }
        for r in 0..R {
            let scales = &panels[r].scales;
            let (d, dmin) = (s.load(scales.d.as_ptr()), s.load(scales.dmin.as_ptr()));
            for t in 0..T {
                let to = results.add(t * stride + r * LANES);
                let mins = minima::<S, K, SUMS>(s, acts.add(t), scales);
                let acc = finish::<S, K>(s, total[t][r], mins, d, dmin, (*acts.add(t)).d, s.load(to));
                s.store(acc, to);
            }
        }
    }
}

/// Adds the scaled sums of a quarter of a tile.
#[inline(always)]
unsafe fn group<S: Simd, F: SuperFormat, const M: usize, const GROUP: usize, const SUMS: u8>(
    s: S,
    tile: *const u8,
    acts: *const SuperActs,
    scales: &Scales,
    total: &mut [S::I; M],
) {
    let mut acc = [[<F::Bits<S> as Dots<S>>::zero(s); M]; 4];
    // A loop the compiler leaves as one from three tokens on, and then it counts more than it multiplies.
    // SAFETY: the caller's.
    unsafe {
        step::<S, F, M, GROUP, 0, SUMS>(s, tile, acts, scales, &mut acc, total);
        step::<S, F, M, GROUP, 1, SUMS>(s, tile, acts, scales, &mut acc, total);
        step::<S, F, M, GROUP, 2, SUMS>(s, tile, acts, scales, &mut acc, total);
        step::<S, F, M, GROUP, 3, SUMS>(s, tile, acts, scales, &mut acc, total);
        if F::SUB > 16 {
            step::<S, F, M, GROUP, 4, SUMS>(s, tile, acts, scales, &mut acc, total);
            step::<S, F, M, GROUP, 5, SUMS>(s, tile, acts, scales, &mut acc, total);
            step::<S, F, M, GROUP, 6, SUMS>(s, tile, acts, scales, &mut acc, total);
            step::<S, F, M, GROUP, 7, SUMS>(s, tile, acts, scales, &mut acc, total);
        }
    }
}

/// One step of [`group`]: sums begin with the first of each [`steps`], and are scaled after the last.
#[inline(always)]
unsafe fn step<
    S: Simd,
    F: SuperFormat,
    const M: usize,
    const GROUP: usize,
    const STEP: usize,
    const SUMS: u8,
>(
    s: S,
    tile: *const u8,
    acts: *const SuperActs,
    scales: &Scales,
    acc: &mut [[<F::Bits<S> as Dots<S>>::Acc; M]; 4],
    total: &mut [S::I; M],
) {
    keep_order();
    let (all, steps) = (F::SUB / 4, steps::<S, F>());
    if STEP.is_multiple_of(steps) {
        for v in 0..F::VECTORS {
            for m in 0..M {
                // SAFETY: the caller gives M blocks of activations.
                acc[v][m] = unsafe { begin::<S, F, SUMS>(s, acts.add(m), F::sub_block(GROUP, v)) };
            }
        }
    }
    // In the order of the memory, or the processor's own prefetcher loses the trail, and a few lines at a time, or loads have
    // to wait for them.
    let lines = F::TILE / CHUNK;
    let (first, end) = (GROUP * lines / 4, (GROUP + 1) * lines / 4);
    for line in first + STEP * (end - first) / all..first + (STEP + 1) * (end - first) / all {
        ask_ahead(s, tile, line, M == 1);
    }
    // SAFETY: the caller gives a whole tile and M blocks of activations.
    unsafe {
        let w = F::weights::<S, GROUP>(s, tile, STEP);
        for v in 0..F::VECTORS {
            let at = F::sub_block(GROUP, v) * F::SUB + 4 * STEP;
            for m in 0..M {
                let a = s.splat4((*acts.add(m)).q.as_ptr().add(at));
                acc[v][m] = <F::Bits<S> as Dots<S>>::dot(s, acc[v][m], w[v], a);
            }
        }
    }
    if (STEP + 1).is_multiple_of(steps) {
        for v in 0..F::VECTORS {
            // SAFETY: the scales are 16 lanes.
            let scale = unsafe { s.load_i(scales.sub[F::sub_block(GROUP, v)].as_ptr()) };
            for m in 0..M {
                total[m] = drain::<S, F, SUMS>(s, total[m], acc[v][m], scale);
            }
        }
    }
}

/// Adds a tile to the results of `M` tokens, with sums of one kind.
#[inline(always)]
unsafe fn tile<S: Simd, F: SuperFormat, const M: usize, const SUMS: u8>(
    s: S,
    tile: *const u8,
    acts: *const SuperActs,
    scales: &Scales,
    results: &mut [S::F; M],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut total = [s.splat_i(0); M];
        for m in 0..M {
            total[m] = self::total::<S, F, SUMS>(s, acts.add(m), scales);
        }
        group::<S, F, M, 0, SUMS>(s, tile, acts, scales, &mut total);
        group::<S, F, M, 1, SUMS>(s, tile, acts, scales, &mut total);
        group::<S, F, M, 2, SUMS>(s, tile, acts, scales, &mut total);
        group::<S, F, M, 3, SUMS>(s, tile, acts, scales, &mut total);
        let (d, dmin) = (s.load(scales.d.as_ptr()), s.load(scales.dmin.as_ptr()));
        for m in 0..M {
            let (da, mins) = ((*acts.add(m)).d, minima::<S, F, SUMS>(s, acts.add(m), scales));
            results[m] = finish::<S, F>(s, total[m], mins, d, dmin, da, results[m]);
        }
    }
}

/// Activations of one token that stay in the first-level cache while weights pass through it, as each line is asked for again
/// long before its turn to go. Else a strip that is larger than the cache brings them back once, between lines of
/// weights, and the processor's own prefetcher loses the trail of these.
struct Kept {
    first: *const u8,
    bytes: usize,
    next: usize,
}

impl Kept {
    /// Bytes of activations that it pays for.
    const MOST: usize = 5 << 10;
    /// Lines that are asked for with each tile.
    const LINES: usize = 24;

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        for _ in 0..Self::LINES {
            s.prefetch(self.first.wrapping_add(self.next));
            self.next += CHUNK;
            if self.next >= self.bytes {
                self.next = 0;
            }
        }
    }
}

/// The results of a strip's groups, `tiles` tiles each, for `M` tokens, straight from the tiles. Token `m`'s results are at
/// `results + m * stride`; its activations for tile `i` of each group at `acts + i * tokens + m`.
///
/// # Safety
/// All pointers are valid.
#[inline(always)]
pub(super) unsafe fn direct<S: Simd, F: SuperFormat, const M: usize>(
    s: S,
    mut tile: *const u8,
    [tiles, groups]: [usize; 2],
    mut acts: *const SuperActs,
    tokens: usize,
    results: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller gives `tiles` tiles of each group, which take turns, and their activations.
    unsafe {
        let mut results_of = [[s.splat(0.0); M]; GROUPS];
        let mut scales = Scales::ZERO;
        // Left to the compiler, all of them are kept at once, on a stack that is not aligned to their size.
        let scales = if is_lean(M) { &mut scales } else { black_box(&mut scales) };
        let mut kept = Kept { first: acts.cast(), bytes: tiles * size_of::<SuperActs>(), next: 0 };
        let keeps = M == 1 && s.in_halves() && kept.bytes <= Kept::MOST;
        for _ in 0..tiles {
            let is_short = is_short::<S, F, M>(acts);
            for result in results_of.iter_mut().take(groups) {
                if keeps {
                    kept.ask(s);
                }
                F::scales(s, tile, scales);
                if !is_short {
                    self::tile::<S, F, M, ANY>(s, tile, acts, scales, result);
                } else {
                    self::tile::<S, F, M, SHORT>(s, tile, acts, scales, result);
                }
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
