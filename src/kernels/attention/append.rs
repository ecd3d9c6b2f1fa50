//! New keys and values go to their cache: keys turned, both rounded.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::super::rope::{Rotation, turn};
use super::super::simd::{LANES, Op, Simd, load_some};
use super::super::{ALIGNMENT, Scratch, view_mut};
use super::cache::{BESIDE, BESIDE_Q8, KvShape, Layout};
use super::dtype::KvDtype;
use super::quantised::{BIAS, round};
use super::{Heads, Rows};

/// Rows of a batch that go to one block of one cache, and the heads that one unit of work does of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which run, and so which cache.
    pub(super) run: usize,
    /// Which of the blocks that the batch writes to, in the order of the runs.
    pub(super) block: usize,
    /// The first of its rows in the batch.
    pub(super) row: usize,
    /// That row's place in the block.
    pub(super) place: usize,
    pub(super) rows: usize,
    pub(super) head: usize,
    pub(super) heads: usize,
}

/// Writes the rows of a piece for one head.
pub(super) struct Append<'a> {
    pub(super) shape: &'a KvShape,
    pub(super) heads: &'a Heads,
    pub(super) rows: Rows<'a>,
    pub(super) rotation: &'a Rotation,
    pub(super) piece: Piece,
    pub(super) head: usize,
    /// That head of the block.
    pub(super) to: &'a mut [u8],
    pub(super) scratch: &'a mut Scratch,
}

impl Op for Append<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let layout = self.shape.layout();
        let dim = self.heads.head_dim;
        ask(s, &self.to[layout.beside(self.piece.place).0]);
        let [key, value, rounded] = self.scratch.split(scratch(&layout));
        let (key, value) = (view_mut::<f32>(key), view_mut::<f32>(value));
        key[dim..].fill(0.0);
        value[dim..].fill(0.0);
        let mut row = 0;
        while row < self.piece.rows {
            let from = self.rows.row(self.piece.row + row);
            let k = from + self.rows.k + self.head * dim;
            let v = from + self.rows.v + self.head * dim;
            let turned = self.rotation.row(self.piece.row + row);
            turn(s, turned, &self.rows.data[k..k + dim], 1.0, &mut key[..dim]);
            value[..dim].copy_from_slice(&self.rows.data[v..v + dim]);
            let place = self.piece.place + row;
            match self.shape.dtype {
                KvDtype::F16 => halves(s, key, value, dim, &layout, place, rounded, self.to),
                KvDtype::Q8 => bytes(s, key, value, &layout, place, rounded, self.to),
            }
            row += 1;
        }
    }
}

/// Asks for the lines that a position's key goes to. They lie in no cache, and a processor waits for one or two stores at a time.
#[inline(always)]
fn ask<S: Simd>(s: S, keys: &[u8]) {
    let mut at = 0;
    while at < keys.len() {
        s.prefetch(keys[at..].as_ptr());
        at += ALIGNMENT;
    }
}

/// Bytes of scratch: a key, a value, and one of them rounded.
pub(super) fn scratch(layout: &Layout) -> [usize; 3] {
    [layout.width * 4, layout.width * 4, layout.width * 2]
}

/// Stores a key and a value of whole vectors in half precision.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call, of the two ways to store")]
fn halves<S: Simd>(
    s: S,
    key: &[f32],
    value: &[f32],
    dim: usize,
    layout: &Layout,
    place: usize,
    rounded: &mut [u8],
    to: &mut [u8],
) {
    let (keys, values) = to.split_at_mut(layout.values);
    let rounded = view_mut::<u16>(rounded);
    half_row(s, key, rounded);
    let (beside, lane) = layout.beside(place);
    let keys = &mut view_mut::<u16>(&mut keys[beside])[..dim * BESIDE];
    let mut at = 0;
    while at < dim {
        keys[at * BESIDE + lane] = rounded[at];
        at += 1;
    }
    half_row(s, value, &mut view_mut::<u16>(values)[place * layout.width..][..layout.width]);
}

/// Rounds whole vectors to half precision.
#[inline(always)]
fn half_row<S: Simd>(s: S, from: &[f32], to: &mut [u16]) {
    assert!(from.len() == to.len() && to.len().is_multiple_of(LANES));
    let mut at = 0;
    while at < to.len() {
        // SAFETY: 16 numbers are left.
        unsafe { s.store_f16(load_some(s, &from[at..]), to.as_mut_ptr().add(at)) };
        at += LANES;
    }
}

/// Stores a key and a value of whole vectors in 8 bits.
#[inline(always)]
fn bytes<S: Simd>(
    s: S,
    key: &[f32],
    value: &[f32],
    layout: &Layout,
    place: usize,
    rounded: &mut [u8],
    to: &mut [u8],
) {
    let (keys, values) = to.split_at_mut(layout.values);
    let (keys, key_scales) = keys.split_at_mut(layout.key_scales);
    let (values, value_scales) = values.split_at_mut(layout.value_scales - layout.values);
    let rounded = &mut view_mut::<i8>(rounded)[..layout.width];
    (view_mut::<f32>(key_scales)[place], _) = round(s, key, rounded);
    let (beside, lane) = layout.beside(place);
    let keys = &mut keys[beside];
    let mut quad = 0;
    while quad < layout.quads {
        let to = &mut keys[(quad * BESIDE_Q8 + lane) * 4..][..4];
        let mut i = 0;
        while i < 4 {
            to[i] = rounded[4 * quad + i].cast_unsigned().wrapping_add(BIAS);
            i += 1;
        }
        quad += 1;
    }
    let values = &mut view_mut::<i8>(values)[place * layout.width..][..layout.width];
    (view_mut::<f32>(value_scales)[place], _) = round(s, value, values);
}
