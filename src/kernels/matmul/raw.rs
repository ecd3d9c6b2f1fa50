//! Types without a tile: their blocks, as the file has them, unpacked into panels. Plain code, complete rather than fast.
//!
//! Layouts from ggml's `ggml-common.h`, order of elements from its `ggml-quants.c`.

use half::f16;

use super::block_kernel::BlockPanel;
use super::format::{BLOCK, BlockKind, CHUNK, Narrow, SUPER, SuperKind, Wide};
use super::super_kernel::SuperPanel;
use crate::kernels::simd::Simd;

/// The values that the nibbles of IQ4_NL and IQ4_XS stand for.
const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// A K-quant without a tile.
pub(super) trait RawSuper: SuperKind {
    /// Bytes of a block.
    const BYTES: usize;
    /// Reads one block of one row. `bytes` has `BYTES` bytes.
    fn read(bytes: &[u8]) -> SuperRow;
}

/// One super-block of one row.
pub(super) struct SuperRow {
    values: [u8; SUPER],
    scales: [i16; 16],
    mins: [i16; 16],
    d: f32,
    dmin: f32,
}

/// A type with blocks of 32 and no tile.
pub(super) trait RawBlock: BlockKind {
    /// Bytes of a block.
    const BYTES: usize;
    /// Reads one block of one row: values, scale and least value. `bytes` has `BYTES` bytes.
    fn read(bytes: &[u8]) -> ([u8; BLOCK], f32, f32);
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32_const()
}

/// Q2_K: 16 scales and mins of 4 bits, 2-bit values, `d`, `dmin`.
pub(super) struct Q2K;
impl SuperKind for Q2K {
    const SUB: usize = 16;
    const MINS: bool = true;
    const MIDDLE: Option<i32> = None;
    type Bits<S: Simd> = Narrow<6>;
}
impl RawSuper for Q2K {
    const BYTES: usize = 84;
    fn read(bytes: &[u8]) -> SuperRow {
        let (scales, values) = (&bytes[..16], &bytes[16..80]);
        SuperRow {
            values: std::array::from_fn(|i| (values[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3),
            scales: std::array::from_fn(|i| i16::from(scales[i] & 15)),
            mins: std::array::from_fn(|i| i16::from(scales[i] >> 4)),
            d: half(bytes, 80),
            dmin: half(bytes, 82),
        }
    }
}

/// Q3_K: third bits, 2-bit values, 16 signed scales of 6 bits, `d`. Values are 4 too large.
pub(super) struct Q3K;
impl SuperKind for Q3K {
    const SUB: usize = 16;
    const MINS: bool = false;
    const MIDDLE: Option<i32> = None;
    type Bits<S: Simd> = Narrow<6>;
}
impl RawSuper for Q3K {
    const BYTES: usize = 110;
    fn read(bytes: &[u8]) -> SuperRow {
        let (third, values, packed) = (&bytes[..32], &bytes[32..96], &bytes[96..108]);
        let scales: [i16; 16] = std::array::from_fn(|i| {
            let low = (packed[i % 8] >> (4 * (i / 8))) & 15;
            let high = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
            i16::from(low | high << 4) - 32
        });
        SuperRow {
            values: std::array::from_fn(|i| {
                let low = (values[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
                low | ((third[i % 32] >> (i / 32)) & 1) << 2
            }),
            scales,
            mins: scales.map(|scale| 4 * scale),
            d: half(bytes, 108),
            dmin: 0.0,
        }
    }
}

/// IQ4_XS: `d`, 8 signed scales of 6 bits, nibbles that index [`IQ4_VALUES`]. Values are 128 too large.
pub(super) struct Iq4Xs;
impl SuperKind for Iq4Xs {
    const SUB: usize = 32;
    const MINS: bool = false;
    const MIDDLE: Option<i32> = None;
    type Bits<S: Simd> = Wide;
}
impl RawSuper for Iq4Xs {
    const BYTES: usize = 136;
    fn read(bytes: &[u8]) -> SuperRow {
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (low, nibbles) = (&bytes[4..8], &bytes[8..136]);
        let scales: [i16; 16] = std::array::from_fn(|i| {
            // Eight of the sixteen are in use.
            let i = i % 8;
            let low = i16::from((low[i / 2] >> (4 * (i % 2))) & 15);
            (low | (high >> (2 * i) & 3).cast_signed() << 4) - 32
        });
        SuperRow {
            values: std::array::from_fn(|i| iq4((nibbles[i / 32 * 16 + i % 16] >> (4 * (i / 16 % 2))) & 15)),
            scales,
            mins: scales.map(|scale| 128 * scale),
            d: half(bytes, 0),
            dmin: 0.0,
        }
    }
}

/// The value of a nibble of IQ4, 128 added.
fn iq4(nibble: u8) -> u8 {
    (IQ4_VALUES[usize::from(nibble & 15)] as u8) ^ 0x80
}

/// Q5_0: `d`, fifth bits, nibbles. Values are 16 too large.
pub(super) struct Q50;
impl BlockKind for Q50 {
    const OFFSET: i32 = 16;
    const MINS: bool = false;
    type Bits<S: Simd> = Wide;
}
impl RawBlock for Q50 {
    const BYTES: usize = 22;
    fn read(bytes: &[u8]) -> ([u8; BLOCK], f32, f32) {
        (five_bits(&bytes[2..]), half(bytes, 0), 0.0)
    }
}

/// Q5_1: `d`, the least value, fifth bits, nibbles.
pub(super) struct Q51;
impl BlockKind for Q51 {
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    type Bits<S: Simd> = Wide;
}
impl RawBlock for Q51 {
    const BYTES: usize = 24;
    fn read(bytes: &[u8]) -> ([u8; BLOCK], f32, f32) {
        (five_bits(&bytes[4..]), half(bytes, 0), half(bytes, 2))
    }
}

/// 4 bytes of fifth bits, then 16 of nibbles.
fn five_bits(bytes: &[u8]) -> [u8; BLOCK] {
    let (fifth, nibbles) = (&bytes[..4], &bytes[4..20]);
    std::array::from_fn(|i| (nibbles[i % 16] >> (4 * (i / 16))) & 15 | ((fifth[i / 8] >> (i % 8)) & 1) << 4)
}

/// IQ4_NL: `d`, nibbles that index [`IQ4_VALUES`]. Values are 128 too large.
pub(super) struct Iq4Nl;
impl BlockKind for Iq4Nl {
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    type Bits<S: Simd> = Wide;
}
impl RawBlock for Iq4Nl {
    const BYTES: usize = 18;
    fn read(bytes: &[u8]) -> ([u8; BLOCK], f32, f32) {
        let values = std::array::from_fn(|i| iq4((bytes[2 + i % 16] >> (4 * (i / 16))) & 15));
        (values, half(bytes, 0), 0.0)
    }
}

/// Unpacks super-block `index` of up to 16 rows of `row_bytes` bytes each. Scales are plain numbers.
pub(super) fn super_panel<F: RawSuper>(rows: &[u8], row_bytes: usize, index: usize, panel: &mut SuperPanel) {
    *panel = SuperPanel::ZERO;
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let block = F::read(&row[index * F::BYTES..][..F::BYTES]);
        for (chunk, four) in panel.values.chunks_exact_mut(CHUNK).zip(block.values.as_chunks::<4>().0) {
            chunk[4 * r..4 * r + 4].copy_from_slice(four);
        }
        for i in 0..SUPER / F::SUB {
            panel.scales.sub[i][r] = i32::from(block.scales[i]);
        }
        for (i, mins) in block.mins[..SUPER / F::SUB].as_chunks::<2>().0.iter().enumerate() {
            panel.scales.mins[i][r] = i32::from(mins[0]) & 0xffff | i32::from(mins[1]) << 16;
        }
        panel.scales.d[r] = block.d;
        panel.scales.dmin[r] = block.dmin;
    }
}

/// Unpacks blocks `2 index` and `2 index + 1` of up to 16 rows of `row_bytes` bytes each; past the end they are zero.
pub(super) fn block_panel<F: RawBlock>(rows: &[u8], row_bytes: usize, index: usize, panel: &mut BlockPanel) {
    *panel = BlockPanel::ZERO;
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        for (b, bytes) in row.chunks_exact(F::BYTES).skip(2 * index).take(2).enumerate() {
            let (values, d, min) = F::read(bytes);
            let chunks = panel.values[b * BLOCK / 4 * CHUNK..].chunks_exact_mut(CHUNK);
            for (chunk, four) in chunks.zip(values.as_chunks::<4>().0) {
                chunk[4 * r..4 * r + 4].copy_from_slice(four);
            }
            (panel.d[b][r], panel.mins[b][r]) = (d, min);
        }
    }
}
