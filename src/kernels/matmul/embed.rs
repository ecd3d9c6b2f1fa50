//! Single rows of a matrix, as numbers: the embeddings of tokens.

use super::block_kernel::{self, BlockPanel};
use super::format::{
    BLOCK, BlockFormat, BlockKind, Q4K, Q5K, Q6K, Q40, Q41, Q80, SPAN, SUPER, SuperFormat, SuperKind,
};
use super::matrix::Matrix;
use super::raw::{self, Iq4Nl, Iq4Xs, Q2K, Q3K, Q50, Q51};
use super::super_kernel::{self, SuperPanel};
use super::{format, pack};
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use crate::kernels::simd::{LANES, Op, Simd, Tier, dispatch};
use crate::kernels::{Compute, DisjointMut, Scratch};

/// One row, from the bytes of a file.
struct Row<'a> {
    kind: GgmlType,
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl Op for Row<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match self.kind {
            GgmlType::Q4_K => self.super_tiles::<S, Q4K>(s),
            GgmlType::Q5_K => self.super_tiles::<S, Q5K>(s),
            GgmlType::Q6_K => self.super_tiles::<S, Q6K>(s),
            GgmlType::Q2_K => self.super_rows::<Q2K>(),
            GgmlType::Q3_K => self.super_rows::<Q3K>(),
            GgmlType::IQ4_XS => self.super_rows::<Iq4Xs>(),
            GgmlType::Q4_0 => self.block_tiles::<S, Q40>(s),
            GgmlType::Q4_1 => self.block_tiles::<S, Q41>(s),
            GgmlType::Q8_0 => self.block_tiles::<S, Q80>(s),
            GgmlType::Q5_0 => self.block_rows::<Q50>(),
            GgmlType::Q5_1 => self.block_rows::<Q51>(),
            GgmlType::IQ4_NL => self.block_rows::<Iq4Nl>(),
            _ => self.floats(),
        }
    }
}

impl Row<'_> {
    /// The row as tiles whose other 15 rows are zero.
    fn tiles(&mut self) -> &[u8] {
        let tiles = self.scratch.bytes(pack::group_bytes(self.kind, self.out.len()).unwrap_or_default());
        tiles.fill(0);
        pack::pack_strip(self.kind, self.out.len(), self.bytes, tiles);
        tiles
    }

    #[inline(always)]
    fn super_tiles<S: Simd, F: SuperFormat>(&mut self, s: S) {
        let mut panel = SuperPanel::ZERO;
        let tiles = self.tiles().as_ptr();
        for (i, out) in self.out.chunks_mut(SUPER).enumerate() {
            // SAFETY: there is a tile for each super-block.
            unsafe { super_kernel::unpack::<S, F>(s, tiles.add(i * F::TILE), &mut panel) };
            read_super::<F>(&panel, out);
        }
    }

    fn super_rows<F: raw::RawSuper>(&mut self) {
        let mut panel = SuperPanel::ZERO;
        for (i, out) in self.out.chunks_mut(SUPER).enumerate() {
            raw::super_panel::<F>(self.bytes, self.bytes.len(), i, &mut panel);
            read_super::<F>(&panel, out);
        }
    }

    #[inline(always)]
    fn block_tiles<S: Simd, F: BlockFormat>(&mut self, s: S) {
        let mut panel = BlockPanel::ZERO;
        let tiles = self.tiles().as_ptr();
        for (i, out) in self.out.chunks_mut(SPAN).enumerate() {
            // SAFETY: there is a tile for every 64 values.
            unsafe { block_kernel::unpack::<S, F>(s, tiles.add(i * F::TILE), &mut panel) };
            read_blocks::<F>(&panel, out);
        }
    }

    fn block_rows<F: raw::RawBlock>(&mut self) {
        let mut panel = BlockPanel::ZERO;
        for (i, out) in self.out.chunks_mut(SPAN).enumerate() {
            raw::block_panel::<F>(self.bytes, self.bytes.len(), i, &mut panel);
            read_blocks::<F>(&panel, out);
        }
    }

    fn floats(&mut self) {
        let values = self.bytes.chunks_exact(self.kind.type_size());
        for (out, value) in self.out.iter_mut().zip(values) {
            *out = match *value {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                [a, b] if self.kind == GgmlType::BF16 => half::bf16::from_le_bytes([a, b]).to_f32_const(),
                [a, b] => half::f16::from_le_bytes([a, b]).to_f32_const(),
                _ => f32::NAN,
            };
        }
    }
}

/// Byte `k` of the panel's first row.
fn value(values: &[u8], k: usize) -> f32 {
    f32::from(values[k / 4 * LANES * 4 + k % 4])
}

/// The first row of a panel.
fn read_super<K: SuperKind>(panel: &SuperPanel, out: &mut [f32]) {
    let scales = &panel.scales;
    let (d, dmin) = (scales.d[0], scales.dmin[0]);
    for (k, out) in out.iter_mut().enumerate() {
        let sub = k / K::SUB;
        // The low half of a prepared scale is the scale itself, in every tier.
        let scale = f32::from(scales.sub[sub][0] as i16);
        let pair = scales.mins[sub / 2][0];
        let min = if sub.is_multiple_of(2) { pair as i16 } else { (pair >> 16) as i16 };
        let q = value(&panel.values, k);
        *out = if K::MINS { d * scale * q - dmin * f32::from(min) } else { d * (scale * q - f32::from(min)) };
    }
}

/// The first row of a panel.
fn read_blocks<K: BlockKind>(panel: &BlockPanel, out: &mut [f32]) {
    for (k, out) in out.iter_mut().enumerate() {
        let block = k / BLOCK;
        *out = panel.d[block][0] * (value(&panel.values, k) - K::OFFSET as f32) + panel.mins[block][0];
    }
}

impl Compute {
    /// Writes the rows `ids` of `matrix`, which is as its file has it, to `out`: `[id][k]`.
    ///
    /// # Errors
    /// `Internal` for a row that is not there, and those of the pool.
    pub(crate) fn embed(&self, matrix: &Matrix, ids: &[u32], out: &mut [f32]) -> Result<()> {
        let (k, bytes) = (matrix.k, matrix.row_bytes());
        if matrix.packed || out.len() != ids.len() * k || ids.iter().any(|&id| id as usize >= matrix.rows) {
            return Err(Error::internal(format!("{} embeddings do not fit into {}.", ids.len(), out.len())));
        }
        let rows = matrix.data();
        let out = DisjointMut::new(out);
        self.pool.for_each(ids.len(), &|unit, scratch| {
            let at = ids[unit] as usize * bytes;
            // SAFETY: each unit has a row of its own.
            let out = unsafe { out.slice(unit * k..(unit + 1) * k) };
            row(self.tier, matrix.kind, &rows[at..at + bytes], scratch, out);
        })
    }
}

fn row(tier: Tier, kind: GgmlType, bytes: &[u8], scratch: &mut Scratch, out: &mut [f32]) {
    debug_assert!(format::layout(kind).is_some());
    dispatch(tier, Row { kind, bytes, scratch, out });
}
