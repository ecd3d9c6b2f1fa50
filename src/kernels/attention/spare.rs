//! Memory that blocks of keys and values have given back, for the next ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::Arena;
use crate::error::Result;

/// Memory for the blocks of one model, all of one size. Fresh memory from the system costs a fault for each page, which a
/// machine that has lent its memory elsewhere makes slow: a step in which many sequences begin a block would wait for it.
#[derive(Debug)]
pub(crate) struct Spare {
    arenas: Mutex<Vec<Arena>>,
    most: usize,
    /// Blocks whose memory was given out and has not come back.
    lent: AtomicUsize,
}

impl Spare {
    /// Keeps at most `most` blocks' memory.
    pub(crate) fn new(most: usize) -> Self {
        Self { arenas: Mutex::default(), most, lent: AtomicUsize::new(0) }
    }

    /// Memory of `bytes` bytes: zero, or as a block of the same model left it.
    ///
    /// # Errors
    /// Those of [`Arena::new`].
    pub(super) fn take(&self, bytes: usize) -> Result<Arena> {
        let kept = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let arena = kept.map_or_else(|| Arena::new(bytes), Ok)?;
        self.lent.fetch_add(1, Ordering::Relaxed);
        Ok(arena)
    }

    /// Takes a block's memory back, and keeps it if there is room.
    pub(super) fn give(&self, arena: Arena) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        if arenas.len() < self.most {
            arenas.push(arena);
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
        let spare = Spare::new(2);
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
}
