//! From the blocks of a file to tiles: the same bytes in another order.

use super::format::{CHUNK, GROUPS, Q6_K_HEAD, SIX_BIT_HEAD, SPAN, SUPER, layout};
use crate::gguf::GgmlType;
use crate::kernels::simd::LANES;

/// Lays out up to 32 rows of `k` values as the tiles of a strip. `rows` holds whole rows, as the file does; `to` has
/// [`group_bytes`] for every 16 of them, or fewer at the end, and must be zero where rows are missing or `k` ends within a tile.
pub(super) fn pack_strip(kind: GgmlType, k: usize, rows: &[u8], to: &mut [u8]) {
    let Some((family, Some(tile))) = layout(kind) else { return };
    let (block, size) = (kind.block_size(), kind.type_size());
    let row_bytes = k / block * size;
    let per_tile = family.tile_k() / block;
    let groups = if rows.len() > LANES * row_bytes { GROUPS } else { 1 };
    // One tile after another: rows after rows, each would be in the first-level cache no longer when its next row comes.
    for (i, tiles) in to.chunks_exact_mut(groups * tile).enumerate() {
        let blocks = i * per_tile * size..row_bytes.min((i + 1) * per_tile * size);
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (blocks, r, tile) = (&row[blocks.clone()], r % LANES, &mut tiles[r / LANES * tile..][..tile]);
            match kind {
                GgmlType::Q4_K => q4_k(blocks, r, tile),
                GgmlType::Q5_K => q5_k(blocks, r, tile),
                GgmlType::Q6_K => q6_k(blocks, r, tile),
                GgmlType::Q4_0 => small::<2, 18>(blocks, r, tile, 0),
                GgmlType::Q4_1 => small::<4, 20>(blocks, r, tile, 0),
                GgmlType::Q8_0 => small::<2, 34>(blocks, r, tile, 0x80),
                _ => floats(blocks, size, r, tile),
            }
        }
    }
}

/// Spreads dwords over chunks: number `i` to row `r` of chunk `i`.
#[inline(always)]
fn spread(dwords: &[u8], r: usize, chunks: &mut [u8]) {
    for (four, chunk) in dwords.as_chunks::<4>().0.iter().zip(chunks.as_chunks_mut::<CHUNK>().0) {
        chunk[4 * r..4 * r + 4].copy_from_slice(four);
    }
}

/// Row `r` of an array of f16.
#[inline(always)]
fn put_half(half: &[u8], r: usize, to: &mut [u8]) {
    to[2 * r..2 * r + 2].copy_from_slice(half);
}

/// `d`, `dmin` and 12 bytes of 6-bit scales, at the front of a block, to the front of a tile.
#[inline(always)]
fn six_bit(block: &[u8], r: usize, to: &mut [u8]) {
    let packed = &block[4..16];
    let (low, rest) = to.split_at_mut(8 * LANES);
    let (high, ds) = rest.split_at_mut(4 * LANES);
    for sub in 0..4 {
        let (a, b, c) = (packed[sub], packed[sub + 4], packed[sub + 8]);
        // Scale and min of this sub-block, low and high bits, and of the fourth after it.
        low[sub * LANES + r] = (a & 15) | (b & 15) << 4;
        low[(sub + 4) * LANES + r] = c;
        high[sub * LANES + r] = (a >> 4 & 3) | (b >> 4 & 3) << 2 | (a >> 6) << 4 | (b >> 6) << 6;
    }
    put_half(&block[..2], r, ds);
    put_half(&block[2..4], r, &mut ds[2 * LANES..]);
}

fn q4_k(block: &[u8], r: usize, tile: &mut [u8]) {
    let (head, values) = tile.split_at_mut(SIX_BIT_HEAD);
    six_bit(block, r, head);
    spread(&block[16..144], r, values);
}

fn q5_k(block: &[u8], r: usize, tile: &mut [u8]) {
    let (head, values) = tile.split_at_mut(SIX_BIT_HEAD);
    six_bit(block, r, head);
    let (fifth, nibbles) = (&block[16..48], &block[48..176]);
    let (first, others) = values.split_at_mut(16 * CHUNK);
    for (step, chunks) in first.as_chunks_mut::<{ 2 * CHUNK }>().0.iter_mut().enumerate() {
        let (bits, values) = chunks.split_at_mut(CHUNK);
        spread(&fifth[4 * step..4 * step + 4], r, bits);
        spread(&nibbles[4 * step..4 * step + 4], r, values);
    }
    spread(&nibbles[32..], r, others);
}

fn q6_k(block: &[u8], r: usize, tile: &mut [u8]) {
    let (head, values) = tile.split_at_mut(Q6_K_HEAD);
    let (scales, d) = head.split_at_mut(SUPER);
    for (sub, &scale) in block[192..208].iter().enumerate() {
        scales[sub * LANES + r] = scale;
    }
    put_half(&block[208..210], r, d);
    let (low, high) = (block[..128].as_chunks::<4>().0, block[128..192].as_chunks::<4>().0);
    for (i, chunks) in values.as_chunks_mut::<{ 3 * CHUNK }>().0.iter_mut().enumerate() {
        let at = i / 8 * 16 + i % 8;
        chunks[4 * r..4 * r + 4].copy_from_slice(&low[at]);
        chunks[CHUNK + 4 * r..CHUNK + 4 * r + 4].copy_from_slice(&low[at + 8]);
        chunks[2 * CHUNK + 4 * r..2 * CHUNK + 4 * r + 4].copy_from_slice(&high[i]);
    }
}

/// One or two blocks of 32 of `BYTES` bytes: `HEAD` bytes of scales, then values, each byte changed by `flip`. In the tile, too, all
/// scales come first.
#[inline(always)]
fn small<const HEAD: usize, const BYTES: usize>(blocks: &[u8], r: usize, tile: &mut [u8], flip: u8) {
    let chunks = (BYTES - HEAD) / 4;
    let (scales, values) = tile.split_at_mut(2 * HEAD * LANES);
    for (b, block) in blocks.as_chunks::<BYTES>().0.iter().enumerate() {
        let mut bytes = *block;
        bytes.iter_mut().skip(HEAD).for_each(|byte| *byte ^= flip);
        spread(&bytes[HEAD..], r, &mut values[b * chunks * CHUNK..]);
        for (i, half) in bytes[..HEAD].as_chunks::<2>().0.iter().enumerate() {
            put_half(half, r, &mut scales[(2 * i + b) * 2 * LANES..]);
        }
    }
}

fn floats(values: &[u8], size: usize, r: usize, tile: &mut [u8]) {
    for (value, lanes) in values.chunks_exact(size).zip(tile.chunks_exact_mut(size * LANES)) {
        lanes[size * r..size * (r + 1)].copy_from_slice(value);
    }
}

/// Bytes of the tiles of a group, 16 rows of `k` values, for a type that has tiles.
pub(super) fn group_bytes(kind: GgmlType, k: usize) -> Option<usize> {
    let (family, tile) = layout(kind)?;
    Some(k.div_ceil(family.tile_k()) * tile?)
}

const _: () = assert!(SPAN == 64 && SUPER == 256, "the layouts above are written for these");
