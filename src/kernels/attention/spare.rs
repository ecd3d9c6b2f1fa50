//! Memory that blocks of keys and values have given back, for the next ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::Arena;
use super::cache::BLOCK;
use crate::error::Result;

/// Tokens within which memory for a block is touched: half of those of the block before it.
pub(crate) const PREPARED: usize = BLOCK / 2;

/// Memory for the blocks of one model, all of one size. Fresh memory from the system costs a fault for each page, which a
/// machine that has lent its memory elsewhere makes slow: a step in which a sequence begins a block would wait for it, for half a
/// step of Phi-3-mini, and one in which many do for all of theirs.
#[derive(Debug)]
pub(crate) struct Spare {
    shelf: Mutex<Shelf>,
    /// Blocks' memory that is kept, at most.
    most: usize,
    /// Blocks for which there is memory at once, at most.
    planned: usize,
    /// Blocks whose memory was given out and has not come back.
    lent: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Ready to be given out.
    arenas: Vec<Arena>,
    /// Fresh memory, and how many bytes of it have been touched.
    fresh: Option<(Arena, usize)>,
}

impl Spare {
    /// Keeps at most `most` blocks' memory, of `planned` blocks that there are at once.
    pub(crate) fn new(most: usize, planned: usize) -> Self {
        Self { shelf: Mutex::default(), most, planned, lent: AtomicUsize::new(0) }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Touches a little of the memory of the next blocks, until there is some for `wanted` blocks of `bytes` bytes. Called once a
    /// token, it is done within [`PREPARED`].
    pub(crate) fn prepare(&self, wanted: usize, bytes: usize) {
        let mut shelf = self.shelf();
        let wanted = wanted.min(self.planned.saturating_sub(self.lent()));
        let mut left = wanted * bytes.div_ceil(PREPARED);
        while left > 0 && shelf.arenas.len() < wanted {
            let fresh = shelf.fresh.take().or_else(|| Some((Arena::new(bytes).ok()?, 0)));
            // Whoever needs a block will say that there is no memory.
            let Some((mut arena, touched)) = fresh else { return };
            let end = bytes.min(touched + left);
            arena[touched..end].fill(0);
            left -= end - touched;
            if end < bytes {
                shelf.fresh = Some((arena, end));
                return;
            }
            shelf.arenas.push(arena);
        }
    }

    /// Memory of `bytes` bytes: zero, or as a block of the same model left it.
    ///
    /// # Errors
    /// Those of [`Arena::new`].
    pub(super) fn take(&self, bytes: usize) -> Result<Arena> {
        let mut shelf = self.shelf();
        let kept = shelf.arenas.pop().or_else(|| shelf.fresh.take().map(|(arena, _)| arena));
        drop(shelf);
        let arena = kept.map_or_else(|| Arena::new(bytes), Ok)?;
        self.lent.fetch_add(1, Ordering::Relaxed);
        Ok(arena)
    }

    /// Takes a block's memory back, and keeps it if there is room.
    pub(super) fn give(&self, arena: Arena) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
        let mut shelf = self.shelf();
        if shelf.arenas.len() < self.most {
            shelf.arenas.push(arena);
        }
    }

    /// Blocks that exist, whoever holds them.
    pub(crate) fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_kept_and_given_out_again() {
        let spare = Spare::new(2, 9);
        let mut arenas: Vec<_> = (0..3).map(|_| spare.take(64).unwrap()).collect();
        for (arena, mark) in arenas.iter_mut().zip(1..) {
            arena[0] = mark;
        }
        assert_eq!(spare.lent(), 3);
        arenas.into_iter().for_each(|arena| spare.give(arena));
        assert_eq!(spare.lent(), 0);
        let marks: Vec<u8> = (0..3).map(|_| spare.take(64).unwrap()[0]).collect();
        assert_eq!(marks, [2, 1, 0], "two as they were left, then fresh ones");
    }

    #[test]
    fn the_next_blocks_are_ready_when_they_are_needed_and_not_before() {
        const BYTES: usize = 5000;
        let spare = Spare::new(4, 3);
        let count = || {
            let shelf = spare.shelf();
            (shelf.arenas.len(), shelf.fresh.as_ref().map(|(_, touched)| *touched))
        };
        spare.prepare(0, BYTES);
        assert_eq!(count(), (0, None));
        spare.prepare(1, BYTES);
        assert_eq!(count(), (0, Some(BYTES.div_ceil(PREPARED))));
        for _ in 1..PREPARED {
            spare.prepare(2, BYTES);
        }
        spare.prepare(2, BYTES);
        assert_eq!(count(), (2, None), "two in as many tokens as one");
        spare.prepare(2, BYTES);
        assert_eq!(count(), (2, None));
        // Half-way is better than nothing.
        spare.prepare(3, BYTES);
        let mut lent: Vec<_> = (0..3).map(|_| spare.take(BYTES).unwrap()).collect();
        assert_eq!((count(), spare.lent()), ((0, None), 3));
        assert!(lent.iter().all(|arena| arena.len() == BYTES && arena.iter().all(|&byte| byte == 0)));
        // There is memory for no more.
        spare.prepare(3, BYTES);
        assert_eq!(count(), (0, None));
        spare.give(lent.remove(0));
        spare.prepare(3, BYTES);
        assert_eq!(count(), (1, None), "what came back is ready");
    }
}
