//! Heads in 8 bits: rounding, and integer products with keys.

#![allow(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "functions without the tier's features must vanish into one that has them; arrays of sums are indexed by constants"
)]

use std::ops::Range;

use super::super::ahead::Ahead;
use super::super::simd::{BYTES, LANES, Op, Simd};
use super::cache::BLOCK;
use super::product::GROUPS;

/// What keys are kept above their value, so that they are bytes.
pub(super) const BIAS: u8 = 128;

/// Rounds `x` to 8 bits: `d = max|x| / 127`, `q = round(x * (127 / max|x|))`, ties to even; `d = 0` for zeros, and not a
/// number where one of `x` is none or infinite. Gives `d` and the sum of `q`. The length is a multiple of 16.
#[inline(always)]
pub(super) fn round<S: Simd>(s: S, x: &[f32], q: &mut [i8]) -> (f32, i32) {
    assert!(x.len() == q.len() && x.len().is_multiple_of(LANES));
    let zero = s.splat(0.0);
    let (mut greatest, mut fault) = (zero, zero);
    let mut at = 0;
    while at < x.len() {
        // SAFETY: 16 numbers are left.
        let v = unsafe { s.load(x.as_ptr().add(at)) };
        greatest = s.max(s.abs(v), greatest);
        fault = s.fma(v, zero, fault);
        at += LANES;
    }
    let (greatest, fault) = (s.greatest(greatest), s.sum(fault));
    let inverse = s.splat(if greatest > 0.0 { 127.0 / greatest } else { 0.0 });
    // Tiny numbers have an infinite inverse; nothing lies beyond 127.
    let (low, high) = (s.splat(-127.0), s.splat(127.0));
    let mut sums = s.splat_i(0);
    at = 0;
    while at < x.len() {
        // SAFETY: 16 numbers are left, in both slices.
        unsafe {
            let v = s.mul(s.load(x.as_ptr().add(at)), inverse);
            let v = s.to_i(s.max(s.min(v, high), low));
            sums = s.add_i(sums, v);
            s.store_i8(v, q.as_mut_ptr().add(at));
        }
        at += LANES;
    }
    let mut lanes = [0; LANES];
    // SAFETY: the array has 16 numbers.
    unsafe { s.store_i(sums, lanes.as_mut_ptr()) };
    let mut sum = 0_i32;
    for lane in lanes {
        sum += lane;
    }
    (greatest / 127.0 + fault, sum)
}

/// Products of `R` rounded queries with keys.
pub(super) struct WideScores<'a, const R: usize> {
    /// `R` rows of `width`.
    pub(super) queries: &'a [i8],
    pub(super) width: usize,
    /// For each row its scale.
    pub(super) scales: &'a [f32],
    /// For each row the sum of its elements.
    pub(super) sums: &'a [i32],
    /// `[4][quads][16 positions][4 elements]`, with [`BIAS`].
    pub(super) keys: &'a [u8],
    pub(super) quads: usize,
    /// 64 scales.
    pub(super) key_scales: &'a [f32],
    /// Which groups are wanted.
    pub(super) groups: Range<usize>,
    /// `R` rows of 64.
    pub(super) out: &'a mut [f32],
    /// What to ask for meanwhile.
    pub(super) ahead: &'a mut Ahead<1>,
}

impl<const R: usize> Op for WideScores<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        assert!(self.queries.len() >= R * self.width && self.width >= 4 * self.quads);
        assert!(self.scales.len() >= R && self.sums.len() >= R && self.key_scales.len() >= BLOCK);
        assert!(self.keys.len() >= BLOCK * 4 * self.quads && self.groups.end <= GROUPS);
        assert!(self.out.len() >= R * BLOCK);
        let mut group = self.groups.start;
        while group < self.groups.end {
            let left = self.groups.end - group;
            // SAFETY: the groups are in the slices, whose lengths were checked for `R` rows from row 0 on.
            group += unsafe {
                if left >= 4 && R * 4 <= S::WIDE_SUMS.max(4) {
                    self.some::<S, R, 4>(s, 0, group)
                } else if left >= 2 && R * 2 <= S::WIDE_SUMS {
                    self.some::<S, R, 2>(s, 0, group)
                } else if R <= S::WIDE_SUMS {
                    self.some::<S, R, 1>(s, 0, group)
                } else {
                    let mut row = 0;
                    while row < R {
                        self.some::<S, 1, 1>(s, row, group);
                        row += 1;
                    }
                    1
                }
            };
        }
    }
}

impl<const R: usize> WideScores<'_, R> {
    /// `N` queries from `row` on with `G` groups; gives `G`.
    ///
    /// # Safety
    /// There are that many, in slices of the lengths that were checked.
    #[inline(always)]
    unsafe fn some<S: Simd, const N: usize, const G: usize>(
        &mut self,
        s: S,
        row: usize,
        group: usize,
    ) -> usize {
        let mut totals = [[s.splat_i(0); G]; N];
        let mut at = 0;
        while at < self.quads {
            let end = self.quads.min(at.saturating_add(S::WIDE_LIMIT));
            let mut sums = [[s.wide_zero(); G]; N];
            while at < end {
                // As often for all groups together, however many there are at once.
                if row == 0 && (at * G) % GROUPS < G {
                    self.ahead.go_on(s);
                }
                let mut keys = [s.splat_b(0); G];
                for g in 0..G {
                    let offset = ((group + g) * self.quads + at) * BYTES;
                    // SAFETY: it is one of the block's groups.
                    keys[g] = unsafe { s.load_b(self.keys.as_ptr().add(offset)) };
                }
                for n in 0..N {
                    // SAFETY: it is one of the rows, and `4 * quads <= width`.
                    let query =
                        unsafe { s.splat4(self.queries.as_ptr().add((row + n) * self.width + 4 * at)) };
                    for g in 0..G {
                        sums[n][g] = s.wide_dot(sums[n][g], keys[g], query);
                    }
                }
                at += 1;
            }
            for n in 0..N {
                for g in 0..G {
                    totals[n][g] = s.add_i(totals[n][g], s.wide_sum(sums[n][g]));
                }
            }
        }
        for n in 0..N {
            let biased = s.splat_i(self.sums[row + n] * i32::from(BIAS));
            let scale = s.splat(self.scales[row + n]);
            for g in 0..G {
                let lane = (group + g) * LANES;
                // SAFETY: there are 64 scales and 64 places in each row.
                unsafe {
                    let scale = s.mul(s.load(self.key_scales.as_ptr().add(lane)), scale);
                    let score = s.mul(s.to_f(s.sub_i(totals[n][g], biased)), scale);
                    s.store(score, self.out.as_mut_ptr().add((row + n) * BLOCK + lane));
                }
            }
        }
        G
    }
}
