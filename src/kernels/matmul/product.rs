//! Matrices times activations, over all threads.

use std::ops::Range;

use super::acts::Activations;
use super::format::{GROUPS, layout};
use super::matrix::Matrix;
use super::strip::{self, Home, PIECE, Strip, WIDTH};
use crate::error::Error;
use crate::gguf::GgmlType;
use crate::kernels::activation::silu_mul_row;
use crate::kernels::guided::share;
use crate::kernels::simd::{LANES, Op, Simd, Tier, dispatch, load_some, store_some};
use crate::kernels::{Compute, DisjointMut, Halt, Scratch, Stop, view_mut};

/// Most bytes of weights that a thread takes at a time. Each time it begins in memory that nobody has asked for, so few times are
/// better.
const MOST_BYTES: usize = 1 << 20;
/// Fewest bytes, if a strip has no more: enough to hide the taking.
const FEWEST_BYTES: usize = 16 << 10;

/// Most tokens that a strip is computed for at a time: their activations stay in the second-level cache while they meet all
/// strips of a piece of work, and their results in the first-level one. Panels then take them without a rest.
const TOKENS: usize = 16 * PIECE;

/// Most of `rows` tokens that a strip is computed for at a time, so that all times have about as many. Weights that have to be
/// brought into tiles first meet all of them at once.
fn most_tokens(is_tiled: bool, rows: usize) -> usize {
    if is_tiled && rows > TOKENS {
        rows.div_ceil(rows.div_ceil(TOKENS)).next_multiple_of(PIECE)
    } else {
        rows
    }
}

/// The tokens before `count`, at most `most` at a time.
fn pieces(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(most.max(1)).map(move |first| first..(first + most).min(count))
}

/// What is done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It replaces what is there.
    Store,
    /// It is added to what is there.
    Add,
}

/// Strips of one matrix.
struct Strips<'a> {
    matrix: &'a Matrix,
    acts: &'a Activations,
    /// The strips, by the number of their first group.
    groups: Range<usize>,
    /// `[token][width]`.
    out: &'a DisjointMut<'a, f32>,
    width: usize,
    /// The column of the matrix's first row.
    column: usize,
    then: Then,
    scratch: &'a mut Scratch,
}

impl Strips<'_> {
    fn compute(self, tier: Tier) {
        let Self { matrix, acts, groups, out, width, column, then, scratch } = self;
        let [panels, tiles] = matrix.strip_scratch();
        let most = most_tokens(matrix.is_tiled(), acts.rows);
        let [results, panels, tiles] = scratch.split([most * WIDTH * 4, panels, tiles]);
        let results = view_mut::<f32>(results);
        for tokens in pieces(acts.rows, most) {
            for group in groups.clone().step_by(GROUPS) {
                let results = &mut results[..tokens.len() * WIDTH];
                let first = group * (WIDTH / GROUPS);
                let home = Home { first: out.place(tokens.start * width + column + first), width };
                let tokens = tokens.clone();
                Strip { matrix, group, acts, tokens: tokens.clone(), results, panels, tiles, home }
                    .compute(tier);
                let rows = (matrix.rows - first).min(WIDTH);
                dispatch(tier, Deliver { results, out, width, column: column + first, rows, tokens, then });
            }
        }
    }
}

/// Brings the results of a strip home.
struct Deliver<'a> {
    results: &'a [f32],
    out: &'a DisjointMut<'a, f32>,
    width: usize,
    /// The column of the strip's first row.
    column: usize,
    /// Rows of the matrix in the strip.
    rows: usize,
    tokens: Range<usize>,
    then: Then,
}

impl Op for Deliver<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { results, out, width, column, rows, tokens, then } = self;
        for (token, results) in tokens.zip(results.chunks_exact(WIDTH)) {
            let at = token * width + column;
            // SAFETY: every row of every matrix has a column of its own.
            let out = unsafe { out.slice(at..at + rows) };
            let mut at = 0;
            while at < rows {
                let mut result = load_some(s, &results[at..rows]);
                if then == Then::Add {
                    result = s.add(load_some(s, &out[at..]), result);
                }
                store_some(s, result, &mut out[at..]);
                at += LANES;
            }
        }
    }
}

impl Matrix {
    /// Bytes of scratch that a thread needs for a product of `rows` rows with a matrix of this kind, in tiles or as a file has
    /// it, or with two such matrices at once.
    pub(crate) fn scratch_bytes(kind: GgmlType, k: usize, packed: bool, rows: usize) -> usize {
        let is_tiled = packed && layout(kind).is_some_and(|(_, tile)| tile.is_some());
        let strip: usize = strip::scratch_bytes(kind, k, is_tiled).into_iter().sum();
        2 * most_tokens(is_tiled, rows) * WIDTH * 4 + strip
    }

    fn strip_scratch(&self) -> [usize; 2] {
        strip::scratch_bytes(self.kind, self.k, self.is_tiled())
    }
}

impl Compute {
    /// Multiplies the matrices of `stack` with every row of `acts`; their outputs stand side by side in `out`:
    /// `[token][rows of the first, rows of the second ...]`.
    ///
    /// # Errors
    /// Those of [`Pool::for_each_until`].
    pub(crate) fn matmul(
        &self,
        stack: &[&Matrix],
        acts: &Activations,
        then: Then,
        out: &mut [f32],
        stop: &Stop<'_>,
    ) -> Result<(), Halt> {
        let width = stack.iter().map(|matrix| matrix.rows).sum();
        let out = DisjointMut::new(out);
        let sizes: Vec<_> = stack.iter().map(|matrix| (matrix.groups(), matrix.group_bytes())).collect();
        let units = units(&sizes, self.threads());
        let work = |unit: usize, scratch: &mut Scratch| {
            let Unit { matrix: number, groups } = units[unit].clone();
            let matrix = stack[number];
            let column = stack[..number].iter().map(|matrix| matrix.rows).sum();
            Strips { matrix, acts, groups, out: &out, width, column, then, scratch }.compute(self.tier);
        };
        self.pool.for_each_until(units.len(), &work, stop)
    }

    /// Multiplies gate and up, two matrices alike, with every row of `acts`, adds their biases, and writes `silu(gate) * up` to
    /// `out`: `[token][rows]`.
    ///
    /// # Errors
    /// `Internal` when they are not alike, and those of [`Pool::for_each_until`].
    pub(crate) fn gated(
        &self,
        [gate, up]: [&Matrix; 2],
        biases: [Option<&[f32]>; 2],
        acts: &Activations,
        out: &mut [f32],
        stop: &Stop<'_>,
    ) -> Result<(), Halt> {
        if gate.rows != up.rows || gate.k != up.k {
            return Err(
                Error::internal("The two halves of a feed-forward layer have different sizes.").into()
            );
        }
        let width = gate.rows;
        let out = DisjointMut::new(out);
        let units = units(&[(gate.groups(), gate.group_bytes() + up.group_bytes())], self.threads());
        let work = |unit: usize, scratch: &mut Scratch| {
            let (scratch_gate, scratch_up) = (gate.strip_scratch(), up.strip_scratch());
            let most = most_tokens(gate.is_tiled() && up.is_tiled(), acts.rows);
            let results = most * WIDTH * 4;
            let [panels, tiles] = [0, 1].map(|i| scratch_gate[i].max(scratch_up[i]));
            let [gates, ups, panels, tiles] = scratch.split([results, results, panels, tiles]);
            let (gates, ups) = (view_mut::<f32>(gates), view_mut::<f32>(ups));
            for tokens in pieces(acts.rows, most) {
                for group in units[unit].groups.clone().step_by(GROUPS) {
                    let first = group * (WIDTH / GROUPS);
                    for ((matrix, results), bias) in
                        [(gate, &mut *gates), (up, &mut *ups)].into_iter().zip(biases)
                    {
                        let results = &mut results[..tokens.len() * WIDTH];
                        let home = Home { first: out.place(tokens.start * width + first), width };
                        Strip { matrix, group, acts, tokens: tokens.clone(), results, panels, tiles, home }
                            .compute(self.tier);
                        add_bias(results, bias, first);
                    }
                    dispatch(self.tier, Gate { gates, ups, out: &out, width, first, tokens: tokens.clone() });
                }
            }
        };
        self.pool.for_each_until(units.len(), &work, stop)
    }
}

/// Adds the bias of the rows from `first` on to a strip.
fn add_bias(results: &mut [f32], bias: Option<&[f32]>, first: usize) {
    let Some(bias) = bias.and_then(|bias| bias.get(first..)) else { return };
    for results in results.chunks_exact_mut(WIDTH) {
        results.iter_mut().zip(bias).for_each(|(result, bias)| *result += bias);
    }
}

/// The end of a strip of [`Compute::gated`].
struct Gate<'a> {
    gates: &'a [f32],
    ups: &'a [f32],
    out: &'a DisjointMut<'a, f32>,
    width: usize,
    /// The strip's first row.
    first: usize,
    tokens: Range<usize>,
}

impl Op for Gate<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = (self.width - self.first).min(WIDTH);
        let halves = self.gates.chunks_exact(WIDTH).zip(self.ups.chunks_exact(WIDTH));
        for (token, (gate, up)) in self.tokens.zip(halves) {
            let at = token * self.width + self.first;
            // SAFETY: every strip has rows of its own.
            let out = unsafe { self.out.slice(at..at + rows) };
            silu_mul_row(s, &gate[..rows], &up[..rows], out);
        }
    }
}

/// A piece of work: some groups of one matrix of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    matrix: usize,
    groups: Range<usize>,
}

/// The pieces that `threads` threads take a stack in, whose matrices have so many groups of so many bytes: whole strips, large ones
/// first.
fn units(sizes: &[(usize, usize)], threads: usize) -> Vec<Unit> {
    let mut rest: usize = sizes.iter().map(|(groups, bytes)| groups * bytes).sum();
    let mut units = Vec::new();
    for (matrix, &(groups, bytes)) in sizes.iter().enumerate() {
        let mut first = 0;
        while first < groups {
            let wanted = share(rest, threads).clamp(FEWEST_BYTES, MOST_BYTES);
            let count = (wanted / bytes.max(1)).max(1).next_multiple_of(GROUPS);
            let end = groups.min(first + count);
            units.push(Unit { matrix, groups: first..end });
            rest -= (end - first) * bytes;
            first = end;
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_group_is_in_one_unit(
            sizes in prop::collection::vec((0_usize..2000, 1_usize..400_000), 0..4),
            threads in 1_usize..100,
        ) {
            let units = units(&sizes, threads);
            let mut next = (0, 0);
            for Unit { matrix, groups } in &units {
                while next.1 == sizes[next.0].0 {
                    next = (next.0 + 1, 0);
                }
                prop_assert_eq!((*matrix, groups.start), next);
                prop_assert!(groups.start.is_multiple_of(GROUPS) && !groups.is_empty());
                let bytes = groups.len() * sizes[*matrix].1;
                prop_assert!(groups.len() <= GROUPS || bytes <= MOST_BYTES + GROUPS * sizes[*matrix].1);
                next.1 = groups.end;
            }
            let there: usize = sizes.iter().map(|(groups, _)| groups).sum();
            prop_assert_eq!(units.iter().map(|unit| unit.groups.len()).sum::<usize>(), there);
        }
    }

    #[test]
    fn the_last_pieces_are_small() {
        // 3072 x 3072 values of Q4_K.
        let units = units(&[(192, 27_648)], 2);
        let first = units[0].groups.len() * 27_648;
        assert!((1_000_000..1_100_000).contains(&first), "{first}");
        let last = &units[units.len() - 4..];
        assert!(last.iter().all(|unit| unit.groups.len() == GROUPS), "{units:?}");
        assert!(units.windows(2).all(|two| two[0].groups.len() >= two[1].groups.len()), "{units:?}");
    }
}
