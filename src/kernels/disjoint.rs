//! One buffer, written by several threads at once, each in a part of its own.

use std::marker::PhantomData;
use std::ops::Range;

/// A `&mut [T]` that units of work share when no two of them touch the same element.
///
/// The borrow lasts as long as this value, so the buffer cannot be used otherwise meanwhile.
#[derive(Debug)]
pub struct DisjointMut<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, which may go to another thread when `T` may.
unsafe impl<T: Send> Send for DisjointMut<'_, T> {}
// SAFETY: a shared reference only gives out slices that the caller of `slice` promised to be disjoint: each element is in the
// hands of one thread at a time, as if it had been sent there.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    /// Shares `buffer`.
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// Elements of the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where element `index` is, which need not exist.
    pub(crate) fn place(&self, index: usize) -> *const T {
        self.start.wrapping_add(index)
    }

    /// The elements of `range`, to write.
    ///
    /// # Panics
    /// When the range is not within the buffer.
    ///
    /// # Safety
    /// While the slice is in use, no other slice that shares an element with it may be.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a range outside its buffer");
        // SAFETY: the range is within the buffer, which is borrowed for as long as `self`; that nobody else has these
        // elements is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_their_own_parts() {
        let mut numbers = vec![0_u32; 1000];
        let shared = DisjointMut::new(&mut numbers);
        assert_eq!((shared.len(), shared.is_empty()), (1000, false));
        std::thread::scope(|scope| {
            for part in 0..4 {
                let shared = &shared;
                scope.spawn(move || {
                    let range = part * 250..(part + 1) * 250;
                    // SAFETY: the four ranges do not overlap.
                    let slice = unsafe { shared.slice(range.clone()) };
                    slice.iter_mut().zip(range).for_each(|(number, at)| *number = at as u32);
                });
            }
        });
        assert!(numbers.iter().enumerate().all(|(at, &number)| number == at as u32));
    }

    #[test]
    #[should_panic(expected = "outside its buffer")]
    fn a_range_beyond_the_end_is_refused() {
        let mut numbers = [0_u8; 4];
        let shared = DisjointMut::new(&mut numbers);
        // SAFETY: there is only this slice, and it is refused.
        let _ = unsafe { shared.slice(3..5) };
    }
}
