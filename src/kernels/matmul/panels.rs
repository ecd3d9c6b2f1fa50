//! Where the panels of a strip come from: tiles, or the rows of a file.

use std::marker::PhantomData;

use super::block_kernel::{self, BlockPanel};
use super::format::{BlockFormat, CHUNK, SuperFormat};
use super::matrix::Matrix;
use super::raw::{self, RawBlock, RawSuper};
use super::super_kernel::{self, SuperPanel};
use crate::kernels::ahead::Ahead;
use crate::kernels::simd::Simd;

/// Fills panels of a strip.
pub(super) trait Panels<P> {
    /// Unpacks tile `index` of the strip's group `group`.
    fn fill<S: Simd>(&self, s: S, group: usize, index: usize, panel: &mut P);
    /// Asks for `count` tiles of each group from `index` on, in `calls` calls. Past the end of a strip they are those of the next one,
    /// or nobody's.
    fn ahead(&self, index: usize, count: usize, calls: usize) -> Ahead<1>;
}

/// Panels from tiles in the layout of `F`.
pub(super) struct FromTiles<F> {
    pub(super) tiles: *const u8,
    pub(super) groups: usize,
    pub(super) format: PhantomData<F>,
}

impl<F> FromTiles<F> {
    /// Where tile `index` of group `group` lies, if a tile has `bytes` bytes.
    #[inline(always)]
    fn tile(&self, group: usize, index: usize, bytes: usize) -> *const u8 {
        self.tiles.wrapping_add((index * self.groups + group) * bytes)
    }

    /// [`Panels::ahead`] for tiles of `tile` bytes.
    #[inline(always)]
    fn ahead(&self, index: usize, count: usize, calls: usize, tile: usize) -> Ahead<1> {
        let bytes = count * self.groups * tile;
        Ahead::new([self.tile(0, index, tile)], bytes, bytes.div_ceil(calls).next_multiple_of(CHUNK))
    }
}

impl<F: SuperFormat> Panels<SuperPanel> for FromTiles<F> {
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, group: usize, index: usize, panel: &mut SuperPanel) {
        // SAFETY: the tile is one of the strip's.
        unsafe { super_kernel::unpack::<S, F>(s, self.tile(group, index, F::TILE), panel) }
    }
    #[inline(always)]
    fn ahead(&self, index: usize, count: usize, calls: usize) -> Ahead<1> {
        self.ahead(index, count, calls, F::TILE)
    }
}

impl<F: BlockFormat> Panels<BlockPanel> for FromTiles<F> {
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, group: usize, index: usize, panel: &mut BlockPanel) {
        // SAFETY: the tile is one of the strip's.
        unsafe { block_kernel::unpack::<S, F>(s, self.tile(group, index, F::TILE), panel) }
    }
    #[inline(always)]
    fn ahead(&self, index: usize, count: usize, calls: usize) -> Ahead<1> {
        self.ahead(index, count, calls, F::TILE)
    }
}

/// Panels from the rows of a file, of type `F`.
pub(super) struct FromRows<'a, F> {
    pub(super) matrix: &'a Matrix,
    /// The strip's first group.
    pub(super) first: usize,
    pub(super) format: PhantomData<F>,
}

impl<F> FromRows<'_, F> {
    fn rows(&self, group: usize) -> &[u8] {
        self.matrix.group_data(self.first + group..self.first + group + 1)
    }
}

impl<F: RawSuper> Panels<SuperPanel> for FromRows<'_, F> {
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, group: usize, index: usize, panel: &mut SuperPanel) {
        raw::super_panel::<F>(self.rows(group), self.matrix.row_bytes(), index, panel);
        super_kernel::prepare_scales::<S, F>(s, panel);
    }
    #[inline(always)]
    fn ahead(&self, _: usize, _: usize, _: usize) -> Ahead<1> {
        Ahead::new([std::ptr::null()], 0, CHUNK)
    }
}

impl<F: RawBlock> Panels<BlockPanel> for FromRows<'_, F> {
    #[inline(always)]
    fn fill<S: Simd>(&self, _: S, group: usize, index: usize, panel: &mut BlockPanel) {
        raw::block_panel::<F>(self.rows(group), self.matrix.row_bytes(), index, panel);
    }
    #[inline(always)]
    fn ahead(&self, _: usize, _: usize, _: usize) -> Ahead<1> {
        Ahead::new([std::ptr::null()], 0, CHUNK)
    }
}
