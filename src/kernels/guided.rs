//! Guided self-scheduling (Polychronopoulos and Kuck, 1987): threads take pieces of work that become smaller towards its end, so that
//! few of them have to be begun, and all threads are done at about the same time.

/// A thread takes one part of so many of what would be its share of the rest, and not all of it: it may be put aside.
const PARTS: usize = 2;

/// How much of the `rest` of some work one of `threads` threads takes next.
pub(super) fn share(rest: usize, threads: usize) -> usize {
    rest / (PARTS * threads)
}
