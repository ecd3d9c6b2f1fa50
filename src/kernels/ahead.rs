//! Memory that is asked for while something else is computed.

#![allow(
    clippy::inline_always,
    reason = "functions without the tier's features must vanish into one that has them"
)]

use super::scratch::ALIGNMENT;
use super::simd::Simd;

/// Asks for a cache line that lies ahead of line `line` of a tile: 8 KiB ahead for every line, or, if `sparse`, 4 KiB for every second
/// one. What is computed very soon keeps the processor up by itself when it is shown the way, and is held up by more.
#[inline(always)]
pub(super) fn ask_ahead<S: Simd>(s: S, tile: *const u8, line: usize, sparse: bool) {
    let (ahead, every) = if sparse { (4096, 2) } else { (8192, 1) };
    if line.is_multiple_of(every) {
        s.prefetch_far(tile.wrapping_add(ahead + line * ALIGNMENT));
    }
}

/// Asks for `N` pieces of memory bit by bit: all at once, that would have to wait for a place in the queue, and every other load
/// behind it.
#[derive(Clone, Copy)]
pub(super) struct Ahead<const N: usize> {
    pieces: [*const u8; N],
    /// Of each piece, as the next two: all, before what is to be asked for next, and asked for at a time.
    bytes: usize,
    next: usize,
    step: usize,
}

impl<const N: usize> Ahead<N> {
    /// For `bytes` bytes of each piece, `step` of them at a time: a multiple of 64.
    #[inline(always)]
    pub(super) fn new(pieces: [*const u8; N], bytes: usize, step: usize) -> Self {
        Self { pieces, bytes, next: 0, step }
    }

    /// Asks for the line at byte `offset` of each piece, if it has one, whatever was asked for bit by bit.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(&self, s: S, offset: usize) {
        if offset < self.bytes {
            for piece in self.pieces {
                s.prefetch_far(piece.wrapping_add(offset));
            }
        }
    }

    /// Asks for the next bit, if there is one.
    #[inline(always)]
    pub(super) fn go_on<S: Simd>(&mut self, s: S) {
        let end = (self.next + self.step).min(self.bytes);
        for piece in self.pieces {
            for at in (self.next..end).step_by(ALIGNMENT) {
                s.prefetch_far(piece.wrapping_add(at));
            }
        }
        self.next = end;
    }
}
