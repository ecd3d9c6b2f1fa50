//! One unit of work: some queries of one key and value head, over all the blocks that they see.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use std::ops::Range;

use super::super::ahead::Ahead;
use super::super::rope::{Rotation, turn};
use super::super::simd::{LANES, Op, Simd, Tier, dispatch};
use super::super::{ALIGNMENT, Scratch, view, view_mut};
use super::cache::{BLOCK, KvCache, KvShape, Layout};
use super::dtype::KvDtype;
use super::product::{GROUPS, ROWS, Scores, Values, Widen, is_paced, most_columns};
use super::quantised::{WideScores, round};
use super::softmax::{Divide, NO_SCORE, Softmax, seen};
use super::{Heads, Rows};

/// Up to so many queries read a block as it is; more have it written as f32 first, once for all.
pub(super) const DIRECT: usize = 12;
/// Most queries of a tile, if more than one head's worth: a whole number of passes, whose scratch stays in the L2 cache.
pub(super) const TILE: usize = 66;

/// Bytes of the next block that are asked for at a time: two lines side by side, in the order of the memory. With one, or with more
/// at some times than at others, a block takes longer, up to twice as long.
const ASKED: usize = 2 * ALIGNMENT;
/// How often a softmax asks at most.
const MOST_ASKS: usize = 32;
/// `Simd::SUMS` of the widest tier: with narrower vectors a block takes longer, and asking need not keep up with as much.
const SUMS: usize = 24;

/// What a tile computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// Which run, and so which cache.
    pub(super) run: usize,
    /// The first of its rows in the batch.
    pub(super) row: usize,
    /// That row's position.
    pub(super) position: usize,
    pub(super) rows: usize,
    pub(super) kv_head: usize,
    /// The first of its heads, and how many.
    pub(super) head: usize,
    pub(super) heads: usize,
}

/// What tiles have in common, and the cache of this one.
pub(super) struct Context<'a> {
    pub(super) tier: Tier,
    pub(super) heads: &'a Heads,
    pub(super) layer: usize,
    pub(super) cache: &'a KvCache,
    pub(super) rows: Rows<'a>,
    pub(super) rotation: &'a Rotation,
}

/// Scratch of a tile. Queries are in rows: those of one position together, head by head.
struct Work<'s> {
    queries: &'s mut [f32],
    /// 8-bit queries, their scales and sums.
    rounded: &'s mut [i8],
    scales: &'s mut [f32],
    rounded_sums: &'s mut [i32],
    positions: &'s mut [u32],
    greatest: &'s mut [f32],
    totals: &'s mut [f32],
    factors: &'s mut [f32],
    weights: &'s mut [f32],
    sums: &'s mut [f32],
    /// A block as f32.
    keys: &'s mut [f32],
    values: &'s mut [f32],
}

/// Some rows of a tile that pass over a block together, and what they see of it.
struct Pass {
    from: usize,
    to: usize,
    first: usize,
    last: usize,
}

impl Pass {
    /// The groups of positions that are seen.
    fn groups(&self) -> Range<usize> {
        self.first / LANES..self.last.div_ceil(LANES)
    }
}

impl Tile {
    /// Its queries.
    pub(super) fn queries(&self) -> usize {
        self.rows * self.heads
    }

    /// About how long it takes: products.
    pub(super) fn cost(&self, heads: &Heads) -> usize {
        self.queries() * heads.span(self.position + self.rows, self.rows)
    }

    /// What it reads first.
    pub(super) fn first<'c>(&self, context: &Context<'c>) -> &'c [u8] {
        self.seen(context, context.heads.first_seen(self.position) / BLOCK)
    }

    /// What it reads of a block, from the block's beginning.
    fn seen<'c>(&self, context: &Context<'c>, block: usize) -> &'c [u8] {
        let bytes = context.cache.head(block, context.layer, self.kv_head);
        let positions = self.position + self.rows - block * BLOCK;
        &bytes[..context.cache.shape().layout().end(positions.min(BLOCK))]
    }

    /// Computes it; `out(row, head)` is where the result of a row of the batch goes. `then` is what the thread will read after it.
    pub(super) fn run<'o>(
        &self,
        context: &Context<'_>,
        then: Option<&[u8]>,
        scratch: &mut Scratch,
        out: &mut dyn FnMut(usize, usize) -> &'o mut [f32],
    ) {
        let layout = context.cache.shape().layout();
        let direct = self.queries() <= DIRECT;
        let mut work = Work::new(self.queries(), direct, context, &layout, scratch);
        self.prepare(context, &layout, &mut work);
        let end = self.position + self.rows;
        let start = context.heads.first_seen(self.position);
        let mut block = start / BLOCK;
        while block * BLOCK < end {
            let bytes = context.cache.head(block, context.layer, self.kv_head);
            let is_last = (block + 1) * BLOCK >= end;
            let next = if is_last { then.unwrap_or_default() } else { self.seen(context, block + 1) };
            Step { tile: self, context, layout: &layout, block, bytes, next, direct }.run(&mut work);
            block += 1;
        }
        for query in 0..self.queries() {
            let out = out(self.row + query / self.heads, self.head + query % self.heads);
            let totals = &work.totals[query * LANES..(query + 1) * LANES];
            let sums = &work.sums[query * layout.width..(query + 1) * layout.width];
            dispatch(context.tier, Divide { totals, sums, out });
        }
    }

    /// Turns, scales and if need be rounds the queries, and clears what will be summed.
    fn prepare(&self, context: &Context<'_>, layout: &Layout, work: &mut Work<'_>) {
        let dim = context.heads.head_dim;
        work.greatest.fill(NO_SCORE);
        work.totals.fill(0.0);
        work.factors.fill(0.0);
        work.weights.fill(0.0);
        work.sums.fill(0.0);
        work.queries[self.queries() * dim..].fill(0.0);
        work.rounded_sums.fill(0);
        work.scales.fill(0.0);
        for query in 0..self.queries() {
            let (row, head) = (query / self.heads, self.head + query % self.heads);
            work.positions[query] = (self.position + row) as u32;
            let from = context.rows.row(self.row + row) + context.rows.q + head * dim;
            dispatch(
                context.tier,
                Query {
                    context,
                    row: self.row + row,
                    from: &context.rows.data[from..from + dim],
                    to: &mut work.queries[query * dim..(query + 1) * dim],
                },
            );
        }
        if context.cache.shape().dtype == KvDtype::Q8 {
            let width = layout.width;
            // Where values will be: a query in whole vectors.
            let padded = &mut work.values[..width];
            padded.fill(0.0);
            for query in 0..self.queries() {
                padded[..dim].copy_from_slice(&work.queries[query * dim..(query + 1) * dim]);
                let to = &mut work.rounded[query * width..(query + 1) * width];
                (work.scales[query], work.rounded_sums[query]) =
                    dispatch(context.tier, Round { from: padded, to });
            }
            work.rounded[self.queries() * width..].fill(0);
        }
    }

    /// How many passes its queries make over a block, and how many rows each of them has at most.
    fn passes(&self) -> (usize, usize) {
        let n = self.queries();
        // Few queries are shared out evenly; of many, all passes but the last are full.
        let rows = if n <= DIRECT { n.div_ceil(n.div_ceil(ROWS)) } else { ROWS };
        (n.div_ceil(rows), rows)
    }
}

/// Bytes of the parts of [`Work`] for a tile of `queries` queries, in their order.
pub(super) fn scratch(queries: usize, direct: bool, shape: &KvShape, layout: &Layout) -> [usize; 12] {
    let (dim, width) = (shape.head_dim, layout.width);
    let q8 = shape.dtype == KvDtype::Q8;
    // Passes over f32 always have all their rows.
    let rows = if direct { queries } else { queries.next_multiple_of(ROWS) };
    let keys = if direct || q8 { 0 } else { BLOCK * dim };
    let values = if direct { width } else { BLOCK * width };
    [
        rows * dim * 4,
        if q8 { rows * width } else { 0 },
        rows * 4,
        rows * 4,
        rows * 4,
        rows * 4,
        rows * LANES * 4,
        rows * 4,
        rows * BLOCK * 4,
        rows * width * 4,
        keys * 4,
        values * 4,
    ]
}

impl<'s> Work<'s> {
    fn new(
        queries: usize,
        direct: bool,
        context: &Context<'_>,
        layout: &Layout,
        scratch: &'s mut Scratch,
    ) -> Self {
        let parts = scratch.split(self::scratch(queries, direct, context.cache.shape(), layout));
        let [
            q,
            rounded,
            scales,
            rounded_sums,
            positions,
            greatest,
            totals,
            factors,
            weights,
            sums,
            keys,
            values,
        ] = parts;
        Self {
            queries: view_mut(q),
            rounded: view_mut(rounded),
            scales: view_mut(scales),
            rounded_sums: view_mut(rounded_sums),
            positions: view_mut(positions),
            greatest: view_mut(greatest),
            totals: view_mut(totals),
            factors: view_mut(factors),
            weights: view_mut(weights),
            sums: view_mut(sums),
            keys: view_mut(keys),
            values: view_mut(values),
        }
    }
}

/// One block of one tile.
struct Step<'a> {
    tile: &'a Tile,
    context: &'a Context<'a>,
    layout: &'a Layout,
    block: usize,
    bytes: &'a [u8],
    /// What will be read after it, to be asked for.
    next: &'a [u8],
    direct: bool,
}

/// Calls a kernel that is generic over the number of rows of a pass.
macro_rules! for_rows {
    ($tier:expr, $rows:expr, $name:ident { $($field:tt)* }) => {
        match $rows {
            1 => dispatch($tier, $name::<'_, 1> { $($field)* }),
            2 => dispatch($tier, $name::<'_, 2> { $($field)* }),
            3 => dispatch($tier, $name::<'_, 3> { $($field)* }),
            4 => dispatch($tier, $name::<'_, 4> { $($field)* }),
            5 => dispatch($tier, $name::<'_, 5> { $($field)* }),
            _ => dispatch($tier, $name::<'_, ROWS> { $($field)* }),
        }
    };
}

type HalfScores<'a, const R: usize> = Scores<'a, u16, R>;
type HalfValues<'a, const R: usize> = Values<'a, u16, R>;
type ByteValues<'a, const R: usize> = Values<'a, i8, R>;

impl Step<'_> {
    fn run(&self, work: &mut Work<'_>) {
        let (mut ahead, asks) = self.ahead();
        let q8 = self.context.cache.shape().dtype == KvDtype::Q8;
        let tier = self.context.tier;
        let (passes, _) = self.tile.passes();
        if !self.direct {
            let (mut first, mut last) = (BLOCK, 0);
            for pass in (0..passes).filter_map(|pass| self.pass(pass, work.positions)) {
                (first, last) = (first.min(pass.first), last.max(pass.last));
            }
            if first < last {
                self.widen(q8, work, first, last);
            }
        }
        for pass in 0..passes {
            let Some(pass) = self.pass(pass, work.positions) else { continue };
            if q8 { self.wide_scores(work, &pass, &mut ahead) } else { self.scores(work, &pass, &mut ahead) }
        }
        let scales = if q8 { Some(self.floats(self.layout.value_scales)) } else { None };
        for pass in 0..passes {
            let Some(Pass { from, to, .. }) = self.pass(pass, work.positions) else { continue };
            let softmax = Softmax {
                scores: &mut work.weights[from * BLOCK..to * BLOCK],
                queries: &work.positions[from..to],
                block: self.block * BLOCK,
                window: self.context.heads.window(),
                greatest: &mut work.greatest[from..to],
                totals: &mut work.totals[from * LANES..to * LANES],
                factors: &mut work.factors[from..to],
                scales,
                ahead: &mut ahead,
                asks,
            };
            dispatch(tier, softmax);
        }
        for pass in 0..passes {
            if let Some(pass) = self.pass(pass, work.positions) {
                self.values(q8, work, &pass, &mut ahead);
            }
        }
    }

    /// The next block, to be asked for while this one is read, and how often a softmax asks, which reads nothing itself: for what
    /// the products leave over, if they do not ask for each line in its place.
    fn ahead(&self) -> (Ahead<1>, usize) {
        let (_, rows) = self.tile.passes();
        let (keys, is_paced) = match self.context.cache.shape().dtype {
            KvDtype::F16 => (self.context.heads.head_dim, is_paced::<u16>(rows)),
            KvDtype::Q8 => (self.layout.quads, is_paced::<i8>(rows)),
        };
        let ahead = Ahead::new([self.next.as_ptr()], self.next.len(), ASKED);
        if !is_paced {
            return (ahead, 0);
        }
        let parts = (self.layout.width / LANES).div_ceil(most_columns(SUMS, rows));
        let left = (self.next.len() / ASKED).saturating_sub(keys + BLOCK * parts);
        (ahead, left.min(MOST_ASKS))
    }

    /// Pass `number`, if its rows see anything of the block. `positions` are those of the queries.
    fn pass(&self, number: usize, positions: &[u32]) -> Option<Pass> {
        let (_, rows) = self.tile.passes();
        let from = number * rows;
        let to = self.tile.queries().min(from + rows);
        let (block, window) = (self.block * BLOCK, self.context.heads.window());
        // Queries are in the order of their positions.
        let (first, _) = seen(positions[from], block, window);
        let (_, last) = seen(positions[to - 1], block, window);
        (first < last).then_some(Pass { from, to, first, last })
    }

    /// The 64 scales at `offset`.
    fn floats(&self, offset: usize) -> &[f32] {
        &view::<f32>(&self.bytes[offset..])[..BLOCK]
    }

    /// Writes as f32 what is needed of positions `first` to `last`.
    fn widen(&self, q8: bool, work: &mut Work<'_>, first: usize, last: usize) {
        let (tier, dim, width) = (self.context.tier, self.context.heads.head_dim, self.layout.width);
        let values = &self.bytes[self.layout.values..];
        let range = first * width..last * width;
        if q8 {
            let from = &view::<i8>(values)[range.clone()];
            dispatch(tier, Widen { from, to: &mut work.values[range] });
        } else {
            let from = &view::<u16>(values)[range.clone()];
            dispatch(tier, Widen { from, to: &mut work.values[range] });
            let from = &view::<u16>(self.bytes)[..BLOCK * dim];
            dispatch(tier, Widen { from, to: &mut work.keys[..BLOCK * dim] });
        }
    }

    fn scores(&self, work: &mut Work<'_>, pass: &Pass, ahead: &mut Ahead<1>) {
        let groups = pass.groups();
        let dim = self.context.heads.head_dim;
        let queries = &work.queries[pass.from * dim..];
        let out = &mut work.weights[pass.from * BLOCK..];
        let tier = self.context.tier;
        if self.direct {
            let keys = view::<u16>(self.bytes);
            for_rows!(tier, pass.to - pass.from, HalfScores { queries, dim, keys, groups, out, ahead });
        } else {
            let keys = &*work.keys;
            dispatch(tier, Scores::<'_, f32, ROWS> { queries, dim, keys, groups, out, ahead });
        }
    }

    fn wide_scores(&self, work: &mut Work<'_>, pass: &Pass, ahead: &mut Ahead<1>) {
        let groups = pass.groups();
        let (width, quads) = (self.layout.width, self.layout.quads);
        let queries = &work.rounded[pass.from * width..];
        let scales = &work.scales[pass.from..];
        let sums = &work.rounded_sums[pass.from..];
        let (keys, key_scales) = (self.bytes, self.floats(self.layout.key_scales));
        let out = &mut work.weights[pass.from * BLOCK..];
        let rows = if self.direct { pass.to - pass.from } else { ROWS };
        for_rows!(
            self.context.tier,
            rows,
            WideScores { queries, width, scales, sums, keys, quads, key_scales, groups, out, ahead }
        );
    }

    fn values(&self, q8: bool, work: &mut Work<'_>, pass: &Pass, ahead: &mut Ahead<1>) {
        let (tier, width) = (self.context.tier, self.layout.width);
        let weights = &work.weights[pass.from * BLOCK..];
        let factors = &work.factors[pass.from..];
        let sums = &mut work.sums[pass.from * width..];
        let positions = pass.first..pass.last;
        let offset = self.layout.values;
        let bytes = &self.bytes[offset..];
        if !self.direct {
            let values = &*work.values;
            dispatch(
                tier,
                Values::<'_, f32, ROWS> { weights, factors, values, width, positions, sums, ahead, offset },
            );
        } else if q8 {
            let values = view::<i8>(bytes);
            let rows = pass.to - pass.from;
            for_rows!(
                tier,
                rows,
                ByteValues { weights, factors, values, width, positions, sums, ahead, offset }
            );
        } else {
            let values = view::<u16>(bytes);
            let rows = pass.to - pass.from;
            for_rows!(
                tier,
                rows,
                HalfValues { weights, factors, values, width, positions, sums, ahead, offset }
            );
        }
    }
}

/// Turns and scales a query.
struct Query<'a> {
    context: &'a Context<'a>,
    row: usize,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl Op for Query<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = self.context.heads.scale();
        turn(s, self.context.rotation.row(self.row), self.from, scale, self.to);
    }
}

/// [`round`], on its own.
struct Round<'a> {
    from: &'a [f32],
    to: &'a mut [i8],
}

impl Op for Round<'_> {
    type Out = (f32, i32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        round(s, self.from, self.to)
    }
}

const _: () = assert!(GROUPS * LANES == BLOCK && TILE.is_multiple_of(ROWS));
