//! The two products of attention on one block of 64 positions: queries with keys, probabilities with values.
//!
//! A few queries at a time, whose sums stay in registers while the block passes once. Each sum takes its terms in ascending
//! order, alone or beside others, so a query's result does not depend on how many there are.

#![allow(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "functions without the tier's features must vanish into one that has them; arrays of sums are indexed by constants"
)]

use std::ops::Range;

use super::super::ALIGNMENT;
use super::super::ahead::Ahead;
use super::super::simd::{LANES, Op, Simd};
use super::cache::{BESIDE, BLOCK};

/// Groups of 16 positions in a block.
pub(super) const GROUPS: usize = BLOCK / LANES;
/// Most queries that pass over a block together.
pub(super) const ROWS: usize = 6;

/// Numbers of a block as they lie in memory.
pub(super) trait Element: Copy {
    /// Reads 16.
    ///
    /// # Safety
    /// 16 can be read at `from`.
    unsafe fn read<S: Simd>(s: S, from: *const Self) -> S::F;
    /// Whether they come from memory rather than from scratch: then what comes next is asked for in time.
    const STREAMED: bool;
}

/// Half precision.
impl Element for u16 {
    #[inline(always)]
    unsafe fn read<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(from) }
    }
    const STREAMED: bool = true;
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn read<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        s.to_f(unsafe { s.load_i8(from) })
    }
    const STREAMED: bool = true;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn read<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(from) }
    }
    const STREAMED: bool = false;
}

/// Whether `rows` queries ask for the next block at their own pace, and not for each line of it when they read the one in its place:
/// one query has more to read than to compute, and so have more where a number is a byte.
pub(super) const fn is_paced<E>(rows: usize) -> bool {
    rows == 1 || size_of::<E>() == 1
}

/// Products of `R` queries with keys.
pub(super) struct Scores<'a, E, const R: usize> {
    /// `R` rows of `dim`.
    pub(super) queries: &'a [f32],
    pub(super) dim: usize,
    /// `[2][dim][32 positions]`.
    pub(super) keys: &'a [E],
    /// Which groups are wanted.
    pub(super) groups: Range<usize>,
    /// `R` rows of 64.
    pub(super) out: &'a mut [f32],
    /// What to ask for meanwhile.
    pub(super) ahead: &'a mut Ahead<1>,
}

impl<E: Element, const R: usize> Op for Scores<'_, E, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.dim;
        assert!(self.queries.len() >= R * dim && self.keys.len() >= BLOCK * dim);
        assert!(self.out.len() >= R * BLOCK && self.groups.end <= GROUPS);
        // In registers, not in memory.
        let mut ahead = *self.ahead;
        let mut group = self.groups.start;
        while group < self.groups.end {
            let left = self.groups.end - group;
            // SAFETY: queries, keys of the groups and places for the scores are in the slices, whose lengths were checked.
            unsafe {
                let (q, k) = (self.queries.as_ptr(), self.keys.as_ptr());
                let out = self.out.as_mut_ptr().add(group * LANES);
                group += if left >= 4 && R * 4 <= S::SUMS.max(4) {
                    scores::<S, E, R, 4>(s, q, dim, k, group, out, &mut ahead)
                } else if left >= 3 && R * 3 <= S::SUMS {
                    scores::<S, E, R, 3>(s, q, dim, k, group, out, &mut ahead)
                } else if left >= 2 && R * 2 <= S::SUMS {
                    scores::<S, E, R, 2>(s, q, dim, k, group, out, &mut ahead)
                } else {
                    scores::<S, E, R, 1>(s, q, dim, k, group, out, &mut ahead)
                };
            }
        }
        *self.ahead = ahead;
    }
}

/// Scores of `R` queries with the `G` groups of positions from `first` on; gives `G`.
///
/// # Safety
/// `R * dim` numbers can be read at `q`, those of the groups at `k`, and at `out` can be written 16 `G` of every 64 of `R` rows.
#[inline(always)]
unsafe fn scores<S: Simd, E: Element, const R: usize, const G: usize>(
    s: S,
    q: *const f32,
    dim: usize,
    k: *const E,
    first: usize,
    out: *mut f32,
    ahead: &mut Ahead<1>,
) -> usize {
    let start = std::array::from_fn::<_, G, _>(|g| {
        let place = (first + g) * LANES;
        place / BESIDE * dim * BESIDE + place % BESIDE
    });
    let mut sums = [[s.splat(0.0); G]; R];
    let mut at = 0;
    while at < dim {
        if E::STREAMED && is_paced::<E>(R) {
            ahead.go_on(s);
        }
        let mut keys = [s.splat(0.0); G];
        for g in 0..G {
            let offset = start[g] + at * BESIDE;
            // SAFETY: `at < dim`, so the caller's promise covers it.
            keys[g] = unsafe { E::read(s, k.add(offset)) };
            // A line holds two groups of half precision.
            if E::STREAMED && !is_paced::<E>(R) && g.is_multiple_of(2) {
                ahead.ask(s, offset * size_of::<E>());
            }
        }
        for r in 0..R {
            // SAFETY: as above.
            let query = s.splat(unsafe { *q.add(r * dim + at) });
            for g in 0..G {
                sums[r][g] = s.fma(query, keys[g], sums[r][g]);
            }
        }
        at += 1;
    }
    for r in 0..R {
        for g in 0..G {
            // SAFETY: the caller's promise.
            unsafe { s.store(sums[r][g], out.add(r * BLOCK + g * LANES)) };
        }
    }
    G
}

/// Adds probabilities times values to `R` rows of sums, each of which is first multiplied by a factor of its own.
pub(super) struct Values<'a, E, const R: usize> {
    /// `R` rows of 64: a weight for each position.
    pub(super) weights: &'a [f32],
    /// `R` factors.
    pub(super) factors: &'a [f32],
    /// `[64 positions][width]`.
    pub(super) values: &'a [E],
    /// Bytes of the block before them.
    pub(super) offset: usize,
    /// A multiple of 16.
    pub(super) width: usize,
    /// Which positions are wanted.
    pub(super) positions: Range<usize>,
    /// `R` rows of `width`.
    pub(super) sums: &'a mut [f32],
    /// What to ask for meanwhile.
    pub(super) ahead: &'a mut Ahead<1>,
}

impl<E: Element, const R: usize> Op for Values<'_, E, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.width;
        assert!(self.weights.len() >= R * BLOCK && self.factors.len() >= R && width.is_multiple_of(LANES));
        assert!(self.values.len() >= BLOCK * width && self.sums.len() >= R * width);
        assert!(self.positions.end <= BLOCK);
        let most = most_columns(S::SUMS, R);
        // In registers, not in memory.
        let mut ahead = *self.ahead;
        let mut at = 0;
        while at < width {
            let left = (width - at) / LANES;
            // Parts of about equal size.
            let part = left.div_ceil(left.div_ceil(most));
            // SAFETY: the part lies within the rows, and they within the slices, whose lengths were checked.
            let done = unsafe {
                let of = Columns {
                    weights: self.weights.as_ptr(),
                    factors: self.factors.as_ptr(),
                    values: self.values.as_ptr().add(at),
                    width,
                    positions: self.positions.clone(),
                    sums: self.sums.as_mut_ptr().add(at),
                    offset: self.offset + at * size_of::<E>(),
                };
                if part >= 6 && R * 6 <= S::SUMS {
                    values::<S, E, R, 6>(s, of, &mut ahead)
                } else if part >= 5 && R * 5 <= S::SUMS {
                    values::<S, E, R, 5>(s, of, &mut ahead)
                } else if part >= 4 && R * 4 <= S::SUMS {
                    values::<S, E, R, 4>(s, of, &mut ahead)
                } else if part >= 3 && R * 3 <= S::SUMS {
                    values::<S, E, R, 3>(s, of, &mut ahead)
                } else if part >= 2 && R * 2 <= S::SUMS {
                    values::<S, E, R, 2>(s, of, &mut ahead)
                } else {
                    values::<S, E, R, 1>(s, of, &mut ahead)
                }
            };
            at += done * LANES;
        }
        *self.ahead = ahead;
    }
}

/// Vectors of values that `rows` rows take at once, with so many `sums` in registers.
#[inline(always)]
pub(super) const fn most_columns(sums: usize, rows: usize) -> usize {
    match sums / rows {
        0 => 1,
        most @ 1..=6 => most,
        _ => 6,
    }
}

/// Some columns of [`Values`].
struct Columns<E> {
    weights: *const f32,
    factors: *const f32,
    values: *const E,
    width: usize,
    positions: Range<usize>,
    sums: *mut f32,
    /// Bytes of the block before the columns.
    offset: usize,
}

/// Does `16 C` columns of `R` rows; gives `C`.
///
/// # Safety
/// The columns can be read and written in all rows; there are `R` rows of weights and factors.
#[inline(always)]
unsafe fn values<S: Simd, E: Element, const R: usize, const C: usize>(
    s: S,
    of: Columns<E>,
    ahead: &mut Ahead<1>,
) -> usize {
    let mut sums = [[s.splat(0.0); C]; R];
    for r in 0..R {
        // SAFETY: the caller's promise.
        let factor = s.splat(unsafe { *of.factors.add(r) });
        for c in 0..C {
            // SAFETY: the caller's promise.
            sums[r][c] = s.mul(unsafe { s.load(of.sums.add(r * of.width + c * LANES)) }, factor);
        }
    }
    let mut at = of.positions.start;
    while at < of.positions.end {
        if E::STREAMED && is_paced::<E>(R) {
            ahead.go_on(s);
        }
        let mut row = [s.splat(0.0); C];
        for c in 0..C {
            let offset = at * of.width + c * LANES;
            // SAFETY: the caller's promise.
            row[c] = unsafe { E::read(s, of.values.add(offset)) };
            if E::STREAMED && !is_paced::<E>(R) && (c * LANES * size_of::<E>()).is_multiple_of(ALIGNMENT) {
                ahead.ask(s, of.offset + offset * size_of::<E>());
            }
        }
        for r in 0..R {
            // SAFETY: the caller's promise.
            let weight = s.splat(unsafe { *of.weights.add(r * BLOCK + at) });
            for c in 0..C {
                sums[r][c] = s.fma(weight, row[c], sums[r][c]);
            }
        }
        at += 1;
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the caller's promise.
            unsafe { s.store(sums[r][c], of.sums.add(r * of.width + c * LANES)) };
        }
    }
    C
}

/// Writes numbers of a block as f32; a multiple of 16.
pub(super) struct Widen<'a, E> {
    pub(super) from: &'a [E],
    pub(super) to: &'a mut [f32],
}

impl<E: Element> Op for Widen<'_, E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.from.len();
        assert!(n == self.to.len() && n.is_multiple_of(LANES));
        let mut at = 0;
        while at < n {
            // SAFETY: 16 numbers are left in both slices.
            unsafe { s.store(E::read(s, self.from.as_ptr().add(at)), self.to.as_mut_ptr().add(at)) };
            at += LANES;
        }
    }
}
