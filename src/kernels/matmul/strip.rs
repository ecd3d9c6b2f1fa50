//! The results of up to 32 rows for all tokens.

use std::marker::PhantomData;
use std::ops::Range;

use super::acts::{Activations, BlockActs, SuperActs};
use super::block_kernel::{self, BlockPanel};
use super::float_kernel::{self, BF16, F16, F32, FloatFormat};
use super::format::{
    BlockFormat, BlockKind, CHUNK, GROUPS, Q4K, Q5K, Q6K, Q40, Q41, Q80, SPAN, SUPER, SuperFormat, SuperKind,
};
use super::matrix::Matrix;
use super::pack;
use super::panels::{FromRows, FromTiles, Panels};
use super::raw::{Iq4Nl, Iq4Xs, Q2K, Q3K, Q50, Q51, RawBlock, RawSuper};
use super::super_kernel::{self, SuperPanel};
use crate::gguf::GgmlType;
use crate::kernels::simd::{LANES, Op, Simd, Tier, dispatch};

/// Results that a strip has for each token.
pub(super) const WIDTH: usize = GROUPS * LANES;
/// Panels of a group that are unpacked at a time, for types with blocks of 32: 256 elements of each row.
const BLOCK_PANELS: usize = 4;
/// Most tokens that panels are used for at once.
pub(super) const PIECE: usize = 6;
/// The same where sums are scaled in pairs, of which twice as many are in registers.
const PAIRED_PIECE: usize = 4;
/// Tiles of floats that are used for all tokens before the next are read, to find them in the first-level cache.
const FLOAT_TILES: usize = 4;

/// Whether the sums of both groups of a strip stay in registers for several tokens.
#[inline(always)]
pub(super) fn is_wide<S: Simd>() -> bool {
    S::SUMS >= 8 * GROUPS
}

/// Bytes of scratch that a strip of a matrix with rows of `k` values needs: panels, and tiles where the matrix has none.
pub(super) fn scratch_bytes(kind: GgmlType, k: usize, is_tiled: bool) -> [usize; 2] {
    let tiles = if is_tiled { 0 } else { pack::group_bytes(kind, k).unwrap_or(0) * GROUPS };
    [GROUPS * size_of::<SuperPanel>().max(BLOCK_PANELS * size_of::<BlockPanel>()), tiles]
}

/// What a strip is computed from, and with.
pub(super) struct Strip<'a> {
    pub(super) matrix: &'a Matrix,
    /// The first group of 16 rows; a strip has [`GROUPS`] of them, or one at the end of a matrix.
    pub(super) group: usize,
    pub(super) acts: &'a Activations,
    /// The tokens to compute.
    pub(super) tokens: Range<usize>,
    /// `[token][WIDTH]`.
    pub(super) results: &'a mut [f32],
    pub(super) panels: &'a mut [u8],
    pub(super) tiles: &'a mut [u8],
    pub(super) home: Home,
}

/// Where the results of a strip will go, to be asked for: the place of the first token's, and numbers to the next one's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) first: *const f32,
    pub(super) width: usize,
}

impl Home {
    /// Asks for the places of some tokens, of which every other thread has other parts: unasked, writing would wait for each.
    #[inline(always)]
    fn ask<S: Simd>(self, s: S, tokens: Range<usize>) {
        for token in tokens {
            let to = self.first.wrapping_add(token * self.width).cast::<u8>();
            for at in (0..WIDTH * 4).step_by(CHUNK) {
                s.prefetch(to.wrapping_add(at));
            }
            s.prefetch(to.wrapping_add(WIDTH * 4 - 1));
        }
    }
}

/// Runs `$call` for pieces of `$count` tokens, about as many in each, as one alone costs as much as three at once; `$at` is the first
/// of a piece, and `T` how many it has: `$most` or one of `$t`, which go down to 2, or 1.
macro_rules! pieces {
    ($count:expr, $at:ident, [$most:literal $(, $t:literal)*], $call:expr) => {{
        let (count, mut $at) = ($count, 0);
        for left in (1..=count.div_ceil($most)).rev() {
            let piece = (count - $at).div_ceil(left);
            match piece {
                $most => {
                    const T: usize = $most;
                    $call;
                }
                $($t => {
                    const T: usize = $t;
                    $call;
                })*
                _ => {
                    const T: usize = 1;
                    $call;
                }
            }
            $at += piece;
        }
    }};
}

/// One way to compute a strip, compiled for each tier on its own.
trait Way {
    /// Computes the results of `strip`.
    fn compute<S: Simd>(s: S, strip: &mut Strip<'_>);
}

/// Tiles, which a few tokens are multiplied with as they are, and more through panels.
trait Tiled {
    /// The activations of one token for one tile.
    type Acts;

    /// Those of all tokens.
    fn acts(acts: &Activations) -> *const Self::Acts;
    /// Most tokens that unpacking into panels does not pay for.
    fn few<S: Simd>(s: S) -> usize;
    /// How many of them have their sums in registers: 8, 5 or 2.
    fn at_once<S: Simd>() -> usize;
    /// Computes the results of `T` tokens from `[tiles, groups]` tiles at `base`, as [`super_kernel::direct`].
    ///
    /// # Safety
    /// All pointers are valid.
    unsafe fn direct<S: Simd, const T: usize>(
        s: S,
        base: *const u8,
        counts: [usize; 2],
        acts: *const Self::Acts,
        tokens: usize,
        results: *mut f32,
    );
    /// Computes `strip` through panels from the tiles at `base`.
    fn panels<S: Simd>(s: S, strip: &mut Strip<'_>, base: *const u8);
}

impl<F: SuperFormat> Tiled for SuperTiles<F> {
    type Acts = SuperActs;

    #[inline(always)]
    fn acts(acts: &Activations) -> *const SuperActs {
        acts.supers.as_ptr()
    }

    /// As many as have their sums in registers, or several times as many where it takes long to write panels.
    #[inline(always)]
    fn few<S: Simd>(s: S) -> usize {
        match (is_wide::<S>(), F::VECTORS > 2) {
            (true, false) if s.in_halves() => 20,
            (true, true) if s.in_halves() => 10,
            (true, false) => 8,
            (true, true) => 5,
            (false, _) => 4,
        }
    }

    #[inline(always)]
    fn at_once<S: Simd>() -> usize {
        match (is_wide::<S>(), F::VECTORS > 2) {
            (true, false) => 8,
            (true, true) => 5,
            (false, _) => 2,
        }
    }

    #[inline(always)]
    unsafe fn direct<S: Simd, const T: usize>(
        s: S,
        base: *const u8,
        counts: [usize; 2],
        acts: *const SuperActs,
        tokens: usize,
        results: *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe { super_kernel::direct::<S, F, T>(s, base, counts, acts, tokens, results, WIDTH) }
    }

    #[inline(always)]
    fn panels<S: Simd>(s: S, strip: &mut Strip<'_>, tiles: *const u8) {
        let source = FromTiles { tiles, groups: strip.groups(), format: PhantomData::<F> };
        strip.super_panels::<S, F>(s, &source);
    }
}

impl<F: BlockFormat> Tiled for BlockTiles<F> {
    type Acts = BlockActs;

    #[inline(always)]
    fn acts(acts: &Activations) -> *const BlockActs {
        acts.blocks.as_ptr()
    }

    #[inline(always)]
    fn few<S: Simd>(_: S) -> usize {
        16
    }

    #[inline(always)]
    fn at_once<S: Simd>() -> usize {
        if is_wide::<S>() { 8 } else { 2 }
    }

    #[inline(always)]
    unsafe fn direct<S: Simd, const T: usize>(
        s: S,
        base: *const u8,
        counts: [usize; 2],
        acts: *const BlockActs,
        tokens: usize,
        results: *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe { block_kernel::direct::<S, F, T>(s, base, counts, acts, tokens, results, WIDTH) }
    }

    #[inline(always)]
    fn panels<S: Simd>(s: S, strip: &mut Strip<'_>, tiles: *const u8) {
        let source = FromTiles { tiles, groups: strip.groups(), format: PhantomData::<F> };
        strip.block_panels::<S, F>(s, &source);
    }
}

impl<T: Tiled> Way for T {
    #[inline(always)]
    fn compute<S: Simd>(s: S, strip: &mut Strip<'_>) {
        strip.tiled::<S, T>(s);
    }
}

struct SuperTiles<F>(PhantomData<F>);
struct SuperRows<F>(PhantomData<F>);
struct BlockTiles<F>(PhantomData<F>);
struct BlockRows<F>(PhantomData<F>);
struct Floats<F>(PhantomData<F>);

macro_rules! ways {
    ($($way:ident: $bound:ident, $method:ident;)+) => { $(
        impl<F: $bound> Way for $way<F> {
            #[inline(always)]
            fn compute<S: Simd>(s: S, strip: &mut Strip<'_>) {
                strip.$method::<S, F>(s);
            }
        }
    )+ };
}
ways! {
    SuperRows: RawSuper, super_raw;
    BlockRows: RawBlock, block_raw;
    Floats: FloatFormat, floats;
}

/// A strip, and the way to compute it.
struct Compute<'s, 'a, W>(&'s mut Strip<'a>, PhantomData<W>);

impl<W: Way> Op for Compute<'_, '_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        W::compute(s, self.0);
    }
}

impl Strip<'_> {
    /// Computes the results with the instructions of `tier`.
    pub(super) fn compute(&mut self, tier: Tier) {
        match self.matrix.kind {
            GgmlType::Q4_K => self.go::<SuperTiles<Q4K>>(tier),
            GgmlType::Q5_K => self.go::<SuperTiles<Q5K>>(tier),
            GgmlType::Q6_K => self.go::<SuperTiles<Q6K>>(tier),
            GgmlType::Q2_K => self.go::<SuperRows<Q2K>>(tier),
            GgmlType::Q3_K => self.go::<SuperRows<Q3K>>(tier),
            GgmlType::IQ4_XS => self.go::<SuperRows<Iq4Xs>>(tier),
            GgmlType::Q4_0 => self.go::<BlockTiles<Q40>>(tier),
            GgmlType::Q4_1 => self.go::<BlockTiles<Q41>>(tier),
            GgmlType::Q8_0 => self.go::<BlockTiles<Q80>>(tier),
            GgmlType::Q5_0 => self.go::<BlockRows<Q50>>(tier),
            GgmlType::Q5_1 => self.go::<BlockRows<Q51>>(tier),
            GgmlType::IQ4_NL => self.go::<BlockRows<Iq4Nl>>(tier),
            GgmlType::F16 => self.go::<Floats<F16>>(tier),
            GgmlType::BF16 => self.go::<Floats<BF16>>(tier),
            _ => self.go::<Floats<F32>>(tier),
        }
    }

    fn go<W: Way>(&mut self, tier: Tier) {
        dispatch(tier, Compute::<W>(self, PhantomData));
    }

    #[inline(always)]
    fn groups(&self) -> usize {
        (self.matrix.groups() - self.group).min(GROUPS)
    }

    /// The tiles of the strip: those of the matrix, or made from its rows.
    #[inline(always)]
    fn tiles(&mut self) -> *const u8 {
        let (matrix, groups) = (self.matrix, self.groups());
        let data = matrix.group_data(self.group..self.group + groups);
        if matrix.is_tiled() {
            return data.as_ptr();
        }
        let bytes = groups * matrix.tiles() * matrix.tile().unwrap_or_default();
        let tiles = &mut self.tiles[..bytes];
        let whole = data.len() == groups * LANES * matrix.row_bytes()
            && matrix.k.is_multiple_of(matrix.family.tile_k());
        if !whole {
            tiles.fill(0);
        }
        pack::pack_strip(matrix.kind, matrix.k, data, tiles);
        self.tiles.as_ptr()
    }

    #[inline(always)]
    fn tiled<S: Simd, W: Tiled>(&mut self, s: S) {
        let (base, counts) = (self.tiles(), [self.matrix.tiles(), self.groups()]);
        let tokens = self.tokens.len();
        if tokens > W::few(s) {
            return W::panels(s, self, base);
        }
        // SAFETY: every group has as many tiles; activations and results are there for every token.
        unsafe {
            let acts = W::acts(self.acts).add(self.tokens.start);
            let results = self.results.as_mut_ptr();
            macro_rules! direct {
                ($at:ident) => {
                    W::direct::<S, T>(
                        s,
                        base,
                        counts,
                        acts.add($at),
                        self.acts.rows,
                        results.add($at * WIDTH),
                    )
                };
            }
            match W::at_once::<S>() {
                2 => pieces!(tokens, at, [2], direct!(at)),
                5 => pieces!(tokens, at, [5, 4, 3, 2], direct!(at)),
                _ => pieces!(tokens, at, [8, 7, 6, 5, 4, 3, 2], direct!(at)),
            }
        }
    }

    #[inline(always)]
    fn super_raw<S: Simd, F: RawSuper>(&mut self, s: S) {
        let rows = FromRows { matrix: self.matrix, first: self.group, format: PhantomData::<F> };
        self.super_panels::<S, F>(s, &rows);
    }

    /// Unpacks one super-block of the strip's rows after another, each for all tokens.
    #[inline(always)]
    fn super_panels<S: Simd, K: SuperKind>(&mut self, s: S, source: &impl Panels<SuperPanel>) {
        let (groups, tokens, tiles) = (self.groups(), self.tokens.len(), self.matrix.tiles());
        self.results.fill(0.0);
        // SAFETY: `panels` is aligned, initialised, and large enough for two panels of plain numbers.
        let panels = unsafe { &mut *self.panels.as_mut_ptr().cast::<[SuperPanel; GROUPS]>() };
        for index in 0..tiles {
            for (group, panel) in panels.iter_mut().enumerate().take(groups) {
                source.fill(s, group, index, panel);
            }
            let most = if super_kernel::is_paired(s) { PAIRED_PIECE } else { PIECE };
            let calls = tokens.div_ceil(most) * (SUPER / K::SUB);
            let mut ahead = source.ahead(index + 1, 1, calls);
            // SAFETY: activations are there for every tile and token, and results for every token.
            unsafe {
                let acts = self.acts.supers.as_ptr().add(index * self.acts.rows + self.tokens.start);
                // Of the tokens from `at` on, or of the first in the next tile.
                let next = |at| acts.wrapping_add(if at < tokens { at } else { self.acts.rows });
                let results = self.results.as_mut_ptr();
                macro_rules! both {
                    ($at:ident, $pairs:literal) => {{
                        if index + 1 == tiles {
                            self.home.ask(s, $at..$at + T);
                        }
                        super_kernel::panels::<S, K, GROUPS, T, $pairs>(
                            s,
                            panels,
                            acts.add($at),
                            next($at + T),
                            &mut ahead,
                            results.add($at * WIDTH),
                            WIDTH,
                        )
                    }};
                }
                if super_kernel::is_paired(s) {
                    pieces!(tokens, at, [4, 3, 2], both!(at, true));
                } else if is_wide::<S>() {
                    pieces!(tokens, at, [6, 5, 4, 3, 2], both!(at, false));
                } else {
                    for (group, panel) in panels.as_chunks::<1>().0.iter().enumerate().take(groups) {
                        let results = results.add(group * LANES);
                        pieces!(tokens, at, [3, 2], {
                            super_kernel::panels::<S, K, 1, T, false>(
                                s,
                                panel,
                                acts.add(at),
                                next(at + T),
                                &mut ahead,
                                results.add(at * WIDTH),
                                WIDTH,
                            )
                        });
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn block_raw<S: Simd, F: RawBlock>(&mut self, s: S) {
        let rows = FromRows { matrix: self.matrix, first: self.group, format: PhantomData::<F> };
        self.block_panels::<S, F>(s, &rows);
    }

    /// Unpacks a few blocks of the strip's rows after another, each time for all tokens.
    #[inline(always)]
    fn block_panels<S: Simd, K: BlockKind>(&mut self, s: S, source: &impl Panels<BlockPanel>) {
        let (groups, tokens, tiles) = (self.groups(), self.tokens.len(), self.matrix.tiles());
        let stride = self.acts.rows;
        self.results.fill(0.0);
        // SAFETY: `panels` is aligned, initialised, and large enough for these panels of plain numbers.
        let panels = unsafe { &mut *self.panels.as_mut_ptr().cast::<[[BlockPanel; BLOCK_PANELS]; GROUPS]>() };
        let mut index = 0;
        while index < tiles {
            let count = (tiles - index).min(BLOCK_PANELS);
            for (group, panels) in panels.iter_mut().enumerate().take(groups) {
                for (i, panel) in panels.iter_mut().enumerate().take(count) {
                    source.fill(s, group, index + i, panel);
                }
            }
            let calls = tokens.div_ceil(PIECE) * BLOCK_PANELS * 2;
            let mut ahead = source.ahead(index + count, BLOCK_PANELS, calls);
            // SAFETY: activations are there for every tile and token, and results for every token.
            unsafe {
                let acts = self.acts.blocks.as_ptr().add(index * stride + self.tokens.start);
                let results = self.results.as_mut_ptr();
                if is_wide::<S>() {
                    pieces!(tokens, at, [6, 5, 4, 3, 2], {
                        if index + count == tiles {
                            self.home.ask(s, at..at + T);
                        }
                        block_kernel::panels::<S, K, GROUPS, T, BLOCK_PANELS>(
                            s,
                            panels,
                            count,
                            acts.add(at),
                            stride,
                            &mut ahead,
                            results.add(at * WIDTH),
                            WIDTH,
                        )
                    });
                } else {
                    for (group, panels) in panels.as_chunks::<1>().0.iter().enumerate().take(groups) {
                        let results = results.add(group * LANES);
                        pieces!(tokens, at, [3, 2], {
                            block_kernel::panels::<S, K, 1, T, BLOCK_PANELS>(
                                s,
                                panels,
                                count,
                                acts.add(at),
                                stride,
                                &mut ahead,
                                results.add(at * WIDTH),
                                WIDTH,
                            )
                        });
                    }
                }
            }
            index += count;
        }
    }

    #[inline(always)]
    fn floats<S: Simd, F: FloatFormat>(&mut self, s: S) {
        let (base, tiles, groups) = (self.tiles(), self.matrix.tiles(), self.groups());
        let tokens = self.tokens.len();
        let bytes = SPAN * LANES * F::SIZE;
        let stride = self.matrix.k.next_multiple_of(SPAN);
        self.results.fill(0.0);
        let mut index = 0;
        while index < tiles {
            let count = (tiles - index).min(FLOAT_TILES);
            // SAFETY: every group has `tiles` tiles; activations and results are there for every token.
            unsafe {
                let tile = base.add(index * groups * bytes);
                let acts = self.acts.floats.as_ptr().add(index * SPAN + self.tokens.start * stride);
                let results = self.results.as_mut_ptr();
                macro_rules! tiles {
                    ($r:literal, $group:expr, $at:ident) => {
                        float_kernel::tiles::<S, F, $r, T>(
                            s,
                            tile.add($group * bytes),
                            groups * bytes,
                            count,
                            acts.add($at * stride),
                            stride,
                            results.add($at * WIDTH + $group * LANES),
                            WIDTH,
                        )
                    };
                }
                if is_wide::<S>() && groups == GROUPS {
                    pieces!(tokens, at, [6, 5, 4, 3, 2], tiles!(2, 0, at));
                } else {
                    for group in 0..groups {
                        pieces!(tokens, at, [4, 3, 2], tiles!(1, group, at));
                    }
                }
            }
            index += count;
        }
    }
}
