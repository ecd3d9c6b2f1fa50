//! The online softmax (arXiv 2112.05682): scores of a block become weights, relative to the greatest score so far.

#![allow(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "functions without the tier's features must vanish into one that has them; arrays of vectors are indexed by constants"
)]

use super::super::ahead::Ahead;
use super::super::exp::exp;
use super::super::simd::{LANES, Op, Simd};
use super::cache::BLOCK;
use super::product::GROUPS;

/// The greatest score before there is one. Finite, so that a block without visible positions changes nothing.
pub(super) const NO_SCORE: f32 = -1e30;

/// Turns the scores of some queries with a block into weights.
pub(super) struct Softmax<'a> {
    /// Rows of 64 scores, in whose place the weights are written.
    pub(super) scores: &'a mut [f32],
    /// For each row the position of its query.
    pub(super) queries: &'a [u32],
    /// The block's first position.
    pub(super) block: usize,
    /// How many positions a query sees, its own included.
    pub(super) window: usize,
    /// For each row the greatest score so far.
    pub(super) greatest: &'a mut [f32],
    /// For each row 16 sums of weights so far.
    pub(super) totals: &'a mut [f32],
    /// For each row what its sums of earlier blocks are to be multiplied by: written.
    pub(super) factors: &'a mut [f32],
    /// 64 scales of the values, by which the weights are multiplied after they were summed.
    pub(super) scales: Option<&'a [f32]>,
    /// What to ask for meanwhile.
    pub(super) ahead: &'a mut Ahead<1>,
    /// How often.
    pub(super) asks: usize,
}

impl Op for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rows = self.queries.len();
        assert!(self.scores.len() == rows * BLOCK && self.totals.len() == rows * LANES);
        assert!(self.greatest.len() == rows && self.factors.len() == rows);
        assert!(self.scales.is_none_or(|scales| scales.len() == BLOCK));
        for _ in 0..self.asks {
            self.ahead.go_on(s);
        }
        let mut from = 0;
        while from < rows {
            let to = rows.min(from + LANES);
            // Lengths were checked above.
            self.some(s, from, to);
            from = to;
        }
    }
}

impl Softmax<'_> {
    /// Rows `from` to `to`, at most 16: one vector of factors.
    #[inline(always)]
    fn some<S: Simd>(&mut self, s: S, from: usize, to: usize) {
        let mut growth = [0.0; LANES];
        let mut row = from;
        while row < to {
            let (first, last) = self.seen(row);
            let scores = self.masked(s, row, first, last);
            let greatest = s.greatest(s.max(s.max(scores[0], scores[1]), s.max(scores[2], scores[3])));
            let before = self.greatest[row];
            let now = if greatest > before { greatest } else { before };
            growth[row - from] = before - now;
            self.greatest[row] = now;
            row += 1;
        }
        // SAFETY: the array has 16 numbers.
        unsafe { s.store(exp(s, s.load(growth.as_ptr())), growth.as_mut_ptr()) };
        row = from;
        while row < to {
            let factor = growth[row - from];
            self.factors[row] = factor;
            let (first, last) = self.seen(row);
            let scores = self.masked(s, row, first, last);
            let greatest = s.splat(self.greatest[row]);
            let mut weights = scores;
            for g in 0..GROUPS {
                weights[g] = exp(s, s.sub(scores[g], greatest));
            }
            let sum = s.add(s.add(weights[0], weights[1]), s.add(weights[2], weights[3]));
            let total = &mut self.totals[row * LANES..(row + 1) * LANES];
            // SAFETY: there are 16 numbers.
            unsafe { s.store(s.fma(s.load(total.as_ptr()), s.splat(factor), sum), total.as_mut_ptr()) };
            let out = &mut self.scores[row * BLOCK..(row + 1) * BLOCK];
            for g in 0..GROUPS {
                let mut weight = weights[g];
                if let Some(scales) = self.scales {
                    // SAFETY: there are 64 scales.
                    let scale = unsafe { s.load(scales.as_ptr().add(g * LANES)) };
                    // What is not seen weighs nothing, whatever its scale is.
                    weight = mask(s, g, first, last, s.mul(weight, scale), s.splat(0.0));
                }
                // SAFETY: the row has 64 places.
                unsafe { s.store(weight, out.as_mut_ptr().add(g * LANES)) };
            }
            row += 1;
        }
    }

    /// Which positions of the block the query of `row` sees: from the first to before the second.
    #[inline(always)]
    fn seen(&self, row: usize) -> (usize, usize) {
        seen(self.queries[row], self.block, self.window)
    }

    /// The scores of `row`; minus infinity where it does not see.
    #[inline(always)]
    fn masked<S: Simd>(&self, s: S, row: usize, first: usize, last: usize) -> [S::F; GROUPS] {
        let scores = &self.scores[row * BLOCK..(row + 1) * BLOCK];
        let mut out = [s.splat(0.0); GROUPS];
        for g in 0..GROUPS {
            // SAFETY: the row has 64 scores.
            let scores = unsafe { s.load(scores.as_ptr().add(g * LANES)) };
            out[g] = mask(s, g, first, last, scores, s.splat(f32::NEG_INFINITY));
        }
        out
    }
}

/// Which positions of the block that begins at `block` a query at position `query` sees.
#[inline(always)]
pub(super) fn seen(query: u32, block: usize, window: usize) -> (usize, usize) {
    let end = query as usize + 1;
    let first = end.saturating_sub(window).saturating_sub(block).min(BLOCK);
    (first, end.saturating_sub(block).min(BLOCK))
}

/// `x` in the lanes of group `g` whose positions are from `first` to before `last`, `y` in the others.
#[inline(always)]
fn mask<S: Simd>(s: S, g: usize, first: usize, last: usize, x: S::F, y: S::F) -> S::F {
    let start = g * LANES;
    let x = if last >= start + LANES { x } else { s.first(last.saturating_sub(start), x, y) };
    if first <= start { x } else { s.first((first - start).min(LANES), y, x) }
}

/// Divides the sums of values by the sums of weights.
pub(super) struct Divide<'a> {
    /// The 16 sums of weights of a row.
    pub(super) totals: &'a [f32],
    pub(super) sums: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl Op for Divide<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        use super::super::simd::{load_some, store_some};
        let scale = s.splat(1.0 / s.sum(load_some(s, self.totals)));
        let n = self.out.len().min(self.sums.len());
        let mut at = 0;
        while at < n {
            // The sign of a zero may depend on the neighbours; so make it plus.
            let y = s.add(s.mul(load_some(s, &self.sums[at..n]), scale), s.splat(0.0));
            store_some(s, y, &mut self.out[at..n]);
            at += LANES;
        }
    }
}
