//! How weights lie in memory: tiles of 16 rows, so that a lane is a row and nothing is summed across lanes. Two such groups of rows
//! make a strip, whose tiles take turns: the first of both groups, the second of both. So memory is read in its order, and a
//! tile finds its activations in the first-level cache, where the tile before it has left them. At the end of a matrix a group may
//! be alone.
//!
//! A chunk is 64 bytes: four bytes of each of 16 rows. A tile of a K-quant is 16 rows by one super-block of 256; of the other
//! types, 16 rows by 64. A tile has the bytes of the blocks it came from, in another order (Q6_K: and 32 bytes of padding).

use crate::gguf::GgmlType;
use crate::kernels::simd::{LANES, Simd};

/// Elements of a super-block.
pub(super) const SUPER: usize = 256;
/// Elements of a row in a tile that is not of a K-quant.
pub(super) const SPAN: usize = 64;
/// Elements of a block with one scale in the types that are not K-quants.
pub(super) const BLOCK: usize = 32;
/// Bytes of a chunk.
pub(super) const CHUNK: usize = 64;
/// Groups of 16 rows in a strip.
pub(super) const GROUPS: usize = 2;

/// What the activations of a product must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// i8 with one scale for 256 values.
    Super,
    /// i8 with one scale for 32 values.
    Block,
    /// f32.
    Float,
}

/// The family of weights of type `kind`, and the bytes of its tile. Types without a tile stay as the file has them and are
/// unpacked, row by row, whenever they are used. `None` for what is no type of weights.
pub(crate) fn layout(kind: GgmlType) -> Option<(Family, Option<usize>)> {
    use Family::*;
    Some(match kind {
        GgmlType::Q4_K => (Super, Some(Q4K::TILE)),
        GgmlType::Q5_K => (Super, Some(Q5K::TILE)),
        GgmlType::Q6_K => (Super, Some(Q6K::TILE)),
        GgmlType::Q2_K | GgmlType::Q3_K | GgmlType::IQ4_XS => (Super, None),
        GgmlType::Q4_0 => (Block, Some(Q40::TILE)),
        GgmlType::Q4_1 => (Block, Some(Q41::TILE)),
        GgmlType::Q8_0 => (Block, Some(Q80::TILE)),
        GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::IQ4_NL => (Block, None),
        GgmlType::F16 | GgmlType::BF16 => (Float, Some(LANES * SPAN * 2)),
        GgmlType::F32 => (Float, Some(LANES * SPAN * 4)),
        _ => return None,
    })
}

/// Whether there are kernels for weights of type `kind`.
pub(crate) fn is_weight(kind: GgmlType) -> bool {
    layout(kind).is_some()
}

/// What the activations for weights of type `kind` must look like; `None` for what is no type of weights.
pub(crate) fn family(kind: GgmlType) -> Option<Family> {
    layout(kind).map(|(family, _)| family)
}

impl Family {
    /// Elements of a row in one tile.
    pub(super) fn tile_k(self) -> usize {
        match self {
            Self::Super => SUPER,
            Self::Block | Self::Float => SPAN,
        }
    }
}

/// Sums of products of bytes, narrow or wide, as one kernel sees them.
pub(super) trait Dots<S: Simd> {
    /// The sums.
    type Acc: Copy;
    /// As [`Simd::SHORT`].
    const SHORT: bool;
    /// Steps that may be summed before draining.
    fn limit() -> usize;
    fn zero(s: S) -> Self::Acc;
    /// A sum that begins at `x`, where sums may be [short](Self::SHORT).
    fn from(s: S, x: i32) -> Self::Acc;
    fn dot(s: S, acc: Self::Acc, w: S::B, a: S::A) -> Self::Acc;
    fn drain(s: S, total: S::I, acc: Self::Acc, scale: S::I) -> S::I;
    /// The same for sums that fit into i16.
    fn drain_short(s: S, total: S::I, acc: Self::Acc, scale: S::I) -> S::I;
    /// As [`Simd::settle`].
    fn settle(s: S, acc: Self::Acc) -> Self::Acc;
    fn sum(s: S, acc: Self::Acc) -> S::I;
}

/// Weights of `BITS` bits, at most 6.
pub(super) struct Narrow<const BITS: usize>;
/// Weights of 8 bits.
pub(super) struct Wide;

impl<S: Simd, const BITS: usize> Dots<S> for Narrow<BITS> {
    type Acc = S::Dot;
    const SHORT: bool = S::SHORT;
    #[inline(always)]
    fn limit() -> usize {
        S::dot_limit(BITS)
    }
    #[inline(always)]
    fn zero(s: S) -> S::Dot {
        s.dot_zero()
    }
    #[inline(always)]
    fn from(s: S, x: i32) -> S::Dot {
        s.dot_from(x)
    }
    #[inline(always)]
    fn dot(s: S, acc: S::Dot, w: S::B, a: S::A) -> S::Dot {
        s.dot(acc, w, a)
    }
    #[inline(always)]
    fn drain(s: S, total: S::I, acc: S::Dot, scale: S::I) -> S::I {
        s.drain(total, acc, scale)
    }
    #[inline(always)]
    fn drain_short(s: S, total: S::I, acc: S::Dot, scale: S::I) -> S::I {
        s.drain_short(total, acc, scale)
    }
    #[inline(always)]
    fn settle(s: S, acc: S::Dot) -> S::Dot {
        s.settle(acc)
    }
    #[inline(always)]
    fn sum(s: S, acc: S::Dot) -> S::I {
        s.dot_sum(acc)
    }
}

impl<S: Simd> Dots<S> for Wide {
    type Acc = S::Wide;
    const SHORT: bool = false;
    #[inline(always)]
    fn limit() -> usize {
        8
    }
    #[inline(always)]
    fn zero(s: S) -> S::Wide {
        s.wide_zero()
    }
    #[inline(always)]
    fn from(s: S, _: i32) -> S::Wide {
        s.wide_zero()
    }
    #[inline(always)]
    fn dot(s: S, acc: S::Wide, w: S::B, a: S::A) -> S::Wide {
        s.wide_dot(acc, w, a)
    }
    #[inline(always)]
    fn drain(s: S, total: S::I, acc: S::Wide, scale: S::I) -> S::I {
        s.wide_drain(total, acc, scale)
    }
    #[inline(always)]
    fn drain_short(s: S, total: S::I, acc: S::Wide, scale: S::I) -> S::I {
        s.wide_drain(total, acc, scale)
    }
    #[inline(always)]
    fn settle(_: S, acc: S::Wide) -> S::Wide {
        acc
    }
    #[inline(always)]
    fn sum(s: S, acc: S::Wide) -> S::I {
        s.wide_sum(acc)
    }
}

/// Scales of one tile of a K-quant, lane by lane.
#[repr(C, align(64))]
pub(super) struct Scales {
    /// Of each sub-block, as [`Simd::scale`] gives them.
    pub(super) sub: [[i32; LANES]; 16],
    /// The same in pairs of i16, of neighbouring sub-blocks. Filled where sums are scaled in pairs.
    pub(super) pairs: [[i32; LANES]; 8],
    /// What the sums of activations are multiplied with, in pairs of i16 of neighbouring sub-blocks.
    pub(super) mins: [[i32; LANES]; 8],
    /// Scales of 32 values times the middle of their range, in such pairs. Filled where sums may be [short](Simd::SHORT).
    pub(super) middles: [[i32; LANES]; 4],
    /// Of the super-block.
    pub(super) d: [f32; LANES],
    /// Of the mins.
    pub(super) dmin: [f32; LANES],
}

impl Scales {
    pub(super) const ZERO: Self = Self {
        sub: [[0; LANES]; 16],
        pairs: [[0; LANES]; 8],
        mins: [[0; LANES]; 8],
        middles: [[0; LANES]; 4],
        d: [0.0; LANES],
        dmin: [0.0; LANES],
    };
}

/// What a kernel needs to know of the values of a K-quant.
pub(super) trait SuperKind {
    /// Elements with one scale: 16 or 32.
    const SUB: usize;
    /// Whether the file has minima of its own, scaled by `dmin`. Else the mins stand for an offset of the values, and are
    /// scaled as the values are.
    const MINS: bool;
    /// The middle of the values' range, where it is so wide that sums with [mild](super::acts::SuperActs) activations would leave
    /// i16 if it stayed in them.
    const MIDDLE: Option<i32>;
    /// The values' width.
    type Bits<S: Simd>: Dots<S>;
}

/// A K-quant with a tile.
///
/// Its values come in four groups of `STEPS` steps; each step gives four elements of each of `VECTORS` sub-blocks.
pub(super) trait SuperFormat: SuperKind {
    /// Bytes of a tile.
    const TILE: usize;
    /// Sub-blocks of a group.
    const VECTORS: usize;
    /// The sub-block of a group's vector.
    fn sub_block(group: usize, vector: usize) -> usize;
    /// The values of a step; vectors past `VECTORS` repeat others.
    ///
    /// # Safety
    /// `tile` has `TILE` bytes; `GROUP` < 4, `step` < `SUB / 4`.
    unsafe fn weights<S: Simd, const GROUP: usize>(s: S, tile: *const u8, step: usize) -> [S::B; 4];
    /// The scales of a tile.
    ///
    /// # Safety
    /// `tile` has `TILE` bytes.
    unsafe fn scales<S: Simd>(s: S, tile: *const u8, scales: &mut Scales);
}

/// Q4_K: the scales, `d`, `dmin`, then 32 chunks of nibbles (sub-block pair, then step).
///
/// Kernels begin with the scales, so these come first in every tile of a K-quant: read in any order but that of the addresses, a
/// tile has its first lines too late.
pub(super) struct Q4K;
/// Q5_K: as Q4_K, with a chunk of fifth bits before each of the first 8 chunks of nibbles, which are used with them first.
pub(super) struct Q5K;
/// Q6_K: the scales, `d`, padding, then for each half and step two chunks of low bits and one of high bits.
pub(super) struct Q6K;

impl SuperKind for Q4K {
    const SUB: usize = 32;
    const MINS: bool = true;
    const MIDDLE: Option<i32> = None;
    type Bits<S: Simd> = Narrow<4>;
}
impl SuperKind for Q5K {
    const SUB: usize = 32;
    const MINS: bool = true;
    const MIDDLE: Option<i32> = Some(16);
    type Bits<S: Simd> = Narrow<5>;
}
impl SuperKind for Q6K {
    const SUB: usize = 16;
    const MINS: bool = false;
    const MIDDLE: Option<i32> = Some(32);
    type Bits<S: Simd> = Narrow<6>;
}

/// Bytes of the packed 6-bit scales and mins of Q4_K and Q5_K: low four bits of both, sub-block by sub-block, then the high
/// two bits: sub-block `t`'s in bits 0 to 3, `t + 4`'s in bits 4 to 7, scale before min.
const SIX_BIT: usize = 8 * LANES + 4 * LANES;
/// Bytes before the values of Q4_K and Q5_K: those, `d` and `dmin`.
pub(super) const SIX_BIT_HEAD: usize = SIX_BIT + 4 * LANES;
/// The same of Q6_K: 16 scales, `d` and padding.
pub(super) const Q6_K_HEAD: usize = 16 * LANES + CHUNK;

/// Reads the scales of Q4_K and Q5_K, with `d` and `dmin` behind them.
#[inline(always)]
unsafe fn six_bit_scales<S: Simd, K: SuperKind>(s: S, from: *const u8, scales: &mut Scales) {
    #[repr(align(64))]
    struct Bytes([u8; 16 * LANES]);
    let mut bytes = Bytes([0; 16 * LANES]);
    let to = bytes.0.as_mut_ptr();
    // SAFETY: 192 bytes of scales and 64 of `d` and `dmin` are at `from`; `to` has four chunks.
    unsafe {
        let (low, high) = (s.splat_b(0x0f), s.splat_b(0x30));
        let (a, b, c) = (s.load_b(from), s.load_b(from.add(CHUNK)), s.load_b(from.add(2 * CHUNK)));
        s.store_b(s.or_b(s.and_b(a, low), s.shl_b::<4>(c, high)), to);
        s.store_b(s.or_b(s.and_b(b, low), s.and_b(c, high)), to.add(CHUNK));
        s.store_b(s.or_b(s.shr_b::<4>(a, low), s.shl_b::<2>(c, high)), to.add(2 * CHUNK));
        s.store_b(s.or_b(s.shr_b::<4>(b, low), s.shr_b::<2>(c, high)), to.add(3 * CHUNK));
        for sub in 0..8 {
            let scale = s.scale(s.load_u8(to.add(sub * LANES)));
            s.store_i(scale, scales.sub[sub].as_mut_ptr());
        }
        for pair in 0..4 {
            let mins = to.add(2 * CHUNK + 2 * pair * LANES);
            let mins = s.pair(s.load_u8(mins), s.load_u8(mins.add(LANES)));
            s.store_i(mins, scales.mins[pair].as_mut_ptr());
            if let (true, Some(middle)) = (S::SHORT, K::MIDDLE) {
                let scale = to.add(2 * pair * LANES);
                let pairs = s.pair(s.load_u8(scale), s.load_u8(scale.add(LANES)));
                s.store_i(s.mul_i(pairs, s.splat_i(middle)), scales.middles[pair].as_mut_ptr());
            }
        }
        let d = from.add(SIX_BIT).cast();
        s.store(s.load_f16(d), scales.d.as_mut_ptr());
        s.store(s.load_f16(d.add(LANES)), scales.dmin.as_mut_ptr());
    }
}

impl SuperFormat for Q4K {
    const TILE: usize = SIX_BIT_HEAD + 32 * CHUNK;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn sub_block(group: usize, vector: usize) -> usize {
        2 * group + vector
    }
    #[inline(always)]
    unsafe fn weights<S: Simd, const GROUP: usize>(s: S, tile: *const u8, step: usize) -> [S::B; 4] {
        // SAFETY: the chunk is within the tile.
        let nibbles = unsafe { s.load_b(tile.add(SIX_BIT_HEAD + (8 * GROUP + step) * CHUNK)) };
        let mask = s.splat_b(0x0f);
        let (low, high) = (s.and_b(nibbles, mask), s.shr_b::<4>(nibbles, mask));
        [low, high, low, high]
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, tile: *const u8, scales: &mut Scales) {
        // SAFETY: the tile begins with them.
        unsafe { six_bit_scales::<S, Self>(s, tile, scales) }
    }
}

impl SuperFormat for Q5K {
    const TILE: usize = SIX_BIT_HEAD + 40 * CHUNK;
    const VECTORS: usize = 2;

    #[inline(always)]
    fn sub_block(group: usize, vector: usize) -> usize {
        2 * group + vector
    }
    #[inline(always)]
    unsafe fn weights<S: Simd, const GROUP: usize>(s: S, tile: *const u8, step: usize) -> [S::B; 4] {
        // SAFETY: both chunks are within the tile.
        let (nibbles, fifth) = unsafe {
            let values = tile.add(SIX_BIT_HEAD);
            let chunk = if GROUP == 0 { 2 * step + 1 } else { 8 + 8 * GROUP + step };
            (s.load_b(values.add(chunk * CHUNK)), s.load_b(values.add(2 * step * CHUNK)))
        };
        let (mask, bit) = (s.splat_b(0x0f), s.splat_b(0x10));
        let (low, high) = (s.and_b(nibbles, mask), s.shr_b::<4>(nibbles, mask));
        // Bit `sub-block` of `fifth` is bit 4 of the value.
        let (even, odd) = match GROUP {
            0 => (s.shl_b::<4>(fifth, bit), s.shl_b::<3>(fifth, bit)),
            1 => (s.shl_b::<2>(fifth, bit), s.shl_b::<1>(fifth, bit)),
            2 => (s.and_b(fifth, bit), s.shr_b::<1>(fifth, bit)),
            _ => (s.shr_b::<2>(fifth, bit), s.shr_b::<3>(fifth, bit)),
        };
        let (low, high) = (s.or_b(low, even), s.or_b(high, odd));
        [low, high, low, high]
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, tile: *const u8, scales: &mut Scales) {
        // SAFETY: the tile begins with them.
        unsafe { six_bit_scales::<S, Self>(s, tile, scales) }
    }
}

impl SuperFormat for Q6K {
    const TILE: usize = Q6_K_HEAD + 48 * CHUNK;
    const VECTORS: usize = 4;

    #[inline(always)]
    fn sub_block(group: usize, vector: usize) -> usize {
        8 * (group / 2) + 2 * vector + group % 2
    }
    #[inline(always)]
    unsafe fn weights<S: Simd, const GROUP: usize>(s: S, tile: *const u8, step: usize) -> [S::B; 4] {
        // SAFETY: the three chunks are within the tile.
        let (a, b, top) = unsafe {
            let at = tile.add(Q6_K_HEAD + 3 * (4 * GROUP + step) * CHUNK);
            (s.load_b(at), s.load_b(at.add(CHUNK)), s.load_b(at.add(2 * CHUNK)))
        };
        let (low, high) = (s.splat_b(0x0f), s.splat_b(0x30));
        [
            s.or_b(s.and_b(a, low), s.shl_b::<4>(top, high)),
            s.or_b(s.and_b(b, low), s.shl_b::<2>(top, high)),
            s.or_b(s.shr_b::<4>(a, low), s.and_b(top, high)),
            s.or_b(s.shr_b::<4>(b, low), s.shr_b::<2>(top, high)),
        ]
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, tile: *const u8, scales: &mut Scales) {
        // SAFETY: the tile begins with 256 bytes of scales and 32 of `d`.
        unsafe {
            let offset = s.splat_i(32);
            for pair in 0..8 {
                let a = s.load_i8(tile.add(2 * pair * LANES).cast());
                let b = s.load_i8(tile.add((2 * pair + 1) * LANES).cast());
                s.store_i(s.scale(a), scales.sub[2 * pair].as_mut_ptr());
                s.store_i(s.scale(b), scales.sub[2 * pair + 1].as_mut_ptr());
                let mins = s.pair(s.mul_i(a, offset), s.mul_i(b, offset));
                s.store_i(mins, scales.mins[pair].as_mut_ptr());
            }
            s.store(s.load_f16(tile.add(16 * LANES).cast()), scales.d.as_mut_ptr());
        }
    }
}

/// What a kernel needs to know of the values of a type with blocks of 32.
pub(super) trait BlockKind {
    /// What is taken from each value.
    const OFFSET: i32;
    /// Whether each block has a least value to add.
    const MINS: bool;
    /// The values' width.
    type Bits<S: Simd>: Dots<S>;
}

/// A type with blocks of 32 and a tile: `d` of two blocks, then the least values of both, then the chunks of both.
pub(super) trait BlockFormat: BlockKind {
    /// Bytes of a tile.
    const TILE: usize;
    /// Bytes before the chunks.
    const HEAD: usize;
    /// The values of step `step` < 4 of block `block` < 2: elements `4 step` and `16 + 4 step` on.
    ///
    /// # Safety
    /// `tile` has `TILE` bytes.
    unsafe fn weights<S: Simd>(s: S, tile: *const u8, block: usize, step: usize) -> [S::B; 2];
}

/// Q4_0: eight chunks of nibbles.
pub(super) struct Q40;
/// Q4_1: eight chunks of nibbles.
pub(super) struct Q41;
/// Q8_0: sixteen chunks of bytes, 128 added to each.
pub(super) struct Q80;

impl BlockKind for Q40 {
    const OFFSET: i32 = 8;
    const MINS: bool = false;
    type Bits<S: Simd> = Narrow<4>;
}
impl BlockKind for Q41 {
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    type Bits<S: Simd> = Narrow<4>;
}
impl BlockKind for Q80 {
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    type Bits<S: Simd> = Wide;
}

#[inline(always)]
unsafe fn nibbles<S: Simd>(s: S, chunks: *const u8, block: usize, step: usize) -> [S::B; 2] {
    // SAFETY: the caller's promise: eight chunks.
    let both = unsafe { s.load_b(chunks.add((4 * block + step) * CHUNK)) };
    let mask = s.splat_b(0x0f);
    [s.and_b(both, mask), s.shr_b::<4>(both, mask)]
}

impl BlockFormat for Q40 {
    const TILE: usize = Self::HEAD + 8 * CHUNK;
    const HEAD: usize = 4 * LANES;
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, tile: *const u8, block: usize, step: usize) -> [S::B; 2] {
        // SAFETY: eight chunks come after the head.
        unsafe { nibbles(s, tile.add(Self::HEAD), block, step) }
    }
}
impl BlockFormat for Q41 {
    const TILE: usize = Self::HEAD + 8 * CHUNK;
    const HEAD: usize = 8 * LANES;
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, tile: *const u8, block: usize, step: usize) -> [S::B; 2] {
        // SAFETY: eight chunks come after the head.
        unsafe { nibbles(s, tile.add(Self::HEAD), block, step) }
    }
}
impl BlockFormat for Q80 {
    const TILE: usize = Self::HEAD + 16 * CHUNK;
    const HEAD: usize = 4 * LANES;
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, tile: *const u8, block: usize, step: usize) -> [S::B; 2] {
        // SAFETY: sixteen chunks come after the head.
        unsafe {
            let at = tile.add(Self::HEAD + (8 * block + step) * CHUNK);
            [s.load_b(at), s.load_b(at.add(4 * CHUNK))]
        }
    }
}
