//! Attention: new keys and values are appended to each sequence's cache, and queries attend to what it holds.
//!
//! The result for a query depends on its own sequence and nothing else, to the last bit: blocks of 64 positions, counted from
//! the beginning of the sequence, are taken in ascending order, and within a block every sum has one order, whatever the tier,
//! the number of threads, the other rows of the batch, or the pieces in which a prompt came.

mod append;
mod cache;
mod dtype;
mod product;
mod quantised;
mod softmax;
mod spare;
#[cfg(test)]
mod tests;
mod tile;

use append::{Append, Piece};
use cache::BLOCK;
pub use cache::KvBlock;
pub(crate) use cache::{BLOCK as KV_BLOCK, KvCache, KvShape};
pub use dtype::KvDtype;
pub(crate) use spare::{PREPARED, Spare};
use tile::{Context, DIRECT, TILE, Tile};

use std::ops::Range;

use super::guided::share;
use super::rope::Rotation;
use super::simd::dispatch;
use super::{Compute, DisjointMut, Halt, Scratch, Stop};
use crate::error::{Error, Result};

/// Rows of one head that make an append worth a unit of work.
const APPEND: usize = 16;
/// Most that a thread takes at a time, if it is more than one tile: queries times positions.
const MOST_COST: usize = 4096;

/// The heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Query heads, a multiple of `n_kv_head`: query head `h` reads key and value head `h / (n_head / n_kv_head)`.
    pub(crate) n_head: usize,
    /// Key and value heads.
    pub(crate) n_kv_head: usize,
    /// Elements of a head.
    pub(crate) head_dim: usize,
    /// How many positions a query sees, its own included; `None` for all.
    pub(crate) window: Option<usize>,
}

/// Rows of a batch that are consecutive positions of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first row in the batch.
    pub(crate) row: usize,
    /// How many.
    pub(crate) rows: usize,
    /// Position of the first row in its sequence: the cache holds all before it.
    pub(crate) position: usize,
}

/// Queries, keys and values of a batch, as the projections left them: neither turned nor scaled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Rows of `stride` numbers.
    pub(crate) data: &'a [f32],
    /// Numbers from one row to the next.
    pub(crate) stride: usize,
    /// Where a row's queries begin: `n_head * head_dim` numbers.
    pub(crate) q: usize,
    /// Where its keys begin: `n_kv_head * head_dim` numbers.
    pub(crate) k: usize,
    /// Where its values begin: as many.
    pub(crate) v: usize,
}

/// How the work of one batch is shared out: the same for all layers.
#[derive(Debug, Clone)]
pub(crate) struct AttentionPlan {
    heads: Heads,
    runs: Vec<Run>,
    /// Rows that the batch must have.
    rows: usize,
    tiles: Vec<Tile>,
    /// Tiles that a thread computes one after another.
    units: Vec<Range<usize>>,
    pieces: Vec<Piece>,
}

impl Heads {
    /// Positions that a query sees at most.
    fn window(&self) -> usize {
        self.window.unwrap_or(usize::MAX)
    }

    /// The first position that a query at `position` sees. Those that it sees are fewer than `window` positions away, as in
    /// transformers.
    pub(crate) fn first_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window())
    }

    /// Positions that the last of `rows` queries, all of those before `end`, see at most, together with the first ones.
    fn span(&self, end: usize, rows: usize) -> usize {
        end.min(self.window().saturating_add(rows))
    }

    /// By what queries are multiplied: `1 / sqrt(head_dim)`.
    fn scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }

    /// Query heads of each key and value head.
    fn group(&self) -> usize {
        self.n_head / self.n_kv_head
    }
}

impl Rows<'_> {
    /// Where `row` begins.
    fn row(&self, row: usize) -> usize {
        row * self.stride
    }
}

impl AttentionPlan {
    /// Plans for a batch of `runs`, which have no row in common, each of a sequence of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when the heads make no groups, or a run is empty or overlaps another.
    pub(crate) fn new(heads: Heads, runs: &[Run], threads: usize) -> Result<Self> {
        if heads.n_kv_head == 0
            || heads.n_head == 0
            || !heads.n_head.is_multiple_of(heads.n_kv_head)
            || heads.window == Some(0)
        {
            return Err(Error::internal(format!(
                "Attention with {} heads for {} of keys and values.",
                heads.n_head, heads.n_kv_head
            )));
        }
        let mut ranges: Vec<_> = runs.iter().map(|run| run.row..run.row.saturating_add(run.rows)).collect();
        ranges.sort_by_key(|range| range.start);
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let last = |run: &Run| run.position.checked_add(run.rows).and_then(|end| u32::try_from(end).ok());
        if !apart || runs.iter().any(|run| run.rows == 0 || last(run).is_none()) {
            return Err(Error::internal("A batch has runs that are empty or overlap."));
        }
        let rows = ranges.last().map_or(0, |range| range.end);
        let tiles = tiles(&heads, runs, threads);
        let units = units(&heads, &tiles, threads);
        let pieces = pieces(&heads, runs);
        Ok(Self { heads, runs: runs.to_vec(), rows, tiles, units, pieces })
    }

    /// Appends keys and values to the caches of the runs, which have [reserved](KvCache::reserve) room. `rotation` has the
    /// rows of the batch in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when the parts do not agree, or as [`Pool::for_each`](super::Pool::for_each).
    pub(crate) fn append(
        &self,
        compute: &Compute,
        layer: usize,
        rows: Rows<'_>,
        rotation: &Rotation,
        caches: &mut [&mut KvCache],
    ) -> Result<()> {
        self.check(layer, rows, rotation, caches)?;
        let Some(shape) = caches.first().map(|cache| *cache.shape()) else { return Ok(()) };
        let mut blocks = Vec::new();
        for (run, cache) in self.runs.iter().zip(caches) {
            let range = run.position / BLOCK..(run.position + run.rows).div_ceil(BLOCK);
            blocks.extend(cache.blocks_mut(range)?.map(|block| DisjointMut::new(block.bytes_mut())));
        }
        let Compute { pool, tier } = compute;
        pool.for_each(self.pieces.len(), &|unit, scratch| {
            let piece = self.pieces[unit];
            for head in piece.head..piece.head + piece.heads {
                // SAFETY: each unit has its own heads of a block, or the same heads of another block: runs have caches of
                // their own, and the pieces of a run differ in one or the other.
                let to = unsafe { blocks[piece.block].slice(shape.head(layer, head)) };
                let heads = &self.heads;
                dispatch(*tier, Append { shape: &shape, heads, rows, rotation, piece, head, to, scratch });
            }
        })
    }

    /// Attends with the queries, after [`AttentionPlan::append`]: `out` has `n_head * head_dim` numbers for each row.
    ///
    /// # Errors
    /// As [`AttentionPlan::append`], and when `stop` says so.
    #[expect(clippy::too_many_arguments, reason = "what it works on, what it reads and what it writes")]
    pub(crate) fn attend(
        &self,
        compute: &Compute,
        layer: usize,
        rows: Rows<'_>,
        rotation: &Rotation,
        caches: &[&mut KvCache],
        out: &mut [f32],
        stop: &Stop<'_>,
    ) -> Result<(), Halt> {
        self.check(layer, rows, rotation, caches)?;
        let width = self.heads.n_head * self.heads.head_dim;
        if out.len() < self.rows * width {
            return Err(Error::internal("The results of attention have no room.").into());
        }
        let out = DisjointMut::new(out);
        let Compute { pool, tier } = compute;
        let context = |tile: &Tile| {
            let cache = &*caches[tile.run];
            Context { tier: *tier, heads: &self.heads, layer, cache, rows, rotation }
        };
        let work = |unit: usize, scratch: &mut Scratch| {
            let tiles = &self.tiles[self.units[unit].clone()];
            for (i, tile) in tiles.iter().enumerate() {
                let next = tiles.get(i + 1).map(|next| next.first(&context(next)));
                tile.run(&context(tile), next, scratch, &mut |row, head| {
                    let start = row * width + head * self.heads.head_dim;
                    // SAFETY: no two tiles have a head of a row in common, and a tile asks for each once.
                    unsafe { out.slice(start..start + self.heads.head_dim) }
                });
            }
        };
        pool.for_each_until(self.units.len(), &work, stop)
    }

    /// Bytes of scratch that a thread needs at most, whatever the batch.
    pub(crate) fn scratch_bytes(heads: &Heads, shape: &KvShape) -> usize {
        let layout = shape.layout();
        let most = TILE.max(heads.group()).max(DIRECT);
        [(DIRECT, true), (most, false)]
            .map(|(queries, direct)| tile::scratch(queries, direct, shape, &layout).into_iter().sum())
            .into_iter()
            .fold(append::scratch(&layout).into_iter().sum(), usize::max)
    }

    /// Refuses what does not fit together, so that no unit of work panics.
    fn check(
        &self,
        layer: usize,
        rows: Rows<'_>,
        rotation: &Rotation,
        caches: &[&mut KvCache],
    ) -> Result<()> {
        let Heads { n_head, n_kv_head, head_dim, .. } = self.heads;
        let (q, kv) = (n_head * head_dim, n_kv_head * head_dim);
        let fits = |start: usize, len: usize| start.checked_add(len).is_some_and(|end| end <= rows.stride);
        let batch = fits(rows.q, q)
            && fits(rows.k, kv)
            && fits(rows.v, kv)
            && self.rows.checked_mul(rows.stride).is_some_and(|len| len <= rows.data.len())
            && rotation.rows() >= self.rows
            && rotation.dims() <= head_dim;
        let agrees = |(run, cache): (&Run, &&mut KvCache)| {
            let shape = cache.shape();
            shape.kv_heads == n_kv_head
                && shape.head_dim == head_dim
                && shape.dtype == caches[0].shape().dtype
                && shape.layers == caches[0].shape().layers
                && layer < shape.layers
                && run.position + run.rows <= cache.capacity()
                && self.heads.first_seen(run.position) >= cache.start()
        };
        if batch && caches.len() == self.runs.len() && self.runs.iter().zip(caches).all(agrees) {
            return Ok(());
        }
        Err(Error::internal("The rows, heads and caches of a batch do not agree."))
    }
}

/// Cuts the queries of the runs into units of work, the longest first.
fn tiles(heads: &Heads, runs: &[Run], threads: usize) -> Vec<Tile> {
    let group = heads.group();
    // Of one run for one key and value head.
    let cost = |run: &Run| run.rows * group * heads.span(run.position + run.rows, run.rows);
    let all: usize = runs.iter().map(|run| heads.n_kv_head * cost(run)).sum();
    let mut tiles = Vec::new();
    for (run, of @ &Run { row, rows, position }) in runs.iter().enumerate() {
        // Where one unit would be much of the whole, query heads of a group go apart, though each then reads the same keys.
        let unit = cost(of) / (rows * group).div_ceil(TILE);
        let parts = if threads > 1 { (3 * threads * unit).div_ceil(all.max(1)).clamp(1, group) } else { 1 };
        let part = group.div_ceil(parts);
        let most = if rows * part <= DIRECT { rows } else { (TILE / part).max(1) };
        let size = rows.div_ceil(rows.div_ceil(most));
        for first in (0..rows).step_by(size) {
            for kv_head in 0..heads.n_kv_head {
                for head in (0..group).step_by(part) {
                    tiles.push(Tile {
                        run,
                        row: row + first,
                        position: position + first,
                        rows: size.min(rows - first),
                        kv_head,
                        head: kv_head * group + head,
                        heads: part.min(group - head),
                    });
                }
            }
        }
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.cost(heads)));
    tiles
}

/// Which tiles a thread takes at a time: several, where they are short, so that it asks for the next while it computes one.
fn units(heads: &Heads, tiles: &[Tile], threads: usize) -> Vec<Range<usize>> {
    let costs: Vec<_> = tiles.iter().map(|tile| tile.cost(heads)).collect();
    let mut rest: usize = costs.iter().sum();
    let mut units = Vec::new();
    let mut first = 0;
    while first < costs.len() {
        let most = share(rest, threads).min(MOST_COST);
        let (mut end, mut cost) = (first + 1, costs[first]);
        while let Some(sum) = costs.get(end).map(|next| cost + next).filter(|sum| *sum <= most) {
            (end, cost) = (end + 1, sum);
        }
        units.push(first..end);
        rest -= cost;
        first = end;
    }
    units
}

/// Cuts the rows of the runs at the borders of blocks, and the heads where there is enough to do.
fn pieces(heads: &Heads, runs: &[Run]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut block = 0;
    for (run, &Run { row, rows, position }) in runs.iter().enumerate() {
        let mut at = 0;
        while at < rows {
            let place = (position + at) % BLOCK;
            let here = (BLOCK - place).min(rows - at);
            let part = APPEND.div_ceil(here);
            for head in (0..heads.n_kv_head).step_by(part) {
                let heads = part.min(heads.n_kv_head - head);
                pieces.push(Piece { run, block, row: row + at, place, rows: here, head, heads });
            }
            at += here;
            block += 1;
        }
    }
    pieces
}
