//! Memory that is asked for while something else is computed.

use super::format::CHUNK;
use super::strip::GROUPS;
use crate::kernels::simd::Simd;

/// Asks for the tiles of a strip's groups bit by bit: all at once, that would have to wait for a place in the queue, and every
/// other load behind it.
pub(super) struct Ahead {
    tiles: [*const u8; GROUPS],
    bytes: usize,
    next: usize,
    /// Bytes of each group at a time.
    step: usize,
}

impl Ahead {
    /// For `bytes` bytes of each group, in `calls` calls at most.
    #[inline(always)]
    pub(super) fn new(tiles: [*const u8; GROUPS], bytes: usize, calls: usize) -> Self {
        Self { tiles, bytes, next: 0, step: bytes.div_ceil(calls).next_multiple_of(CHUNK) }
    }

    /// Asks for the next bit, if there is one.
    #[inline(always)]
    pub(super) fn go_on<S: Simd>(&mut self, s: S) {
        let end = (self.next + self.step).min(self.bytes);
        for tile in self.tiles {
            for at in (self.next..end).step_by(CHUNK) {
                s.prefetch_far(tile.wrapping_add(at));
            }
        }
        self.next = end;
    }
}
