//! Vectors to and from the ends of slices, where fewer than 16 numbers may be left.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::{LANES, Simd};

/// The first numbers of `from`, at most 16; zeros in the other lanes.
#[inline(always)]
pub(crate) fn load_some<S: Simd>(s: S, from: &[f32]) -> S::F {
    if from.len() >= LANES {
        // SAFETY: there are 16 numbers.
        unsafe { s.load(from.as_ptr()) }
    } else {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        // SAFETY: the array has 16 numbers.
        unsafe { s.load(lanes.as_ptr()) }
    }
}

/// Writes the first lanes of `x` to `to`, as many as it has room for, at most 16.
#[inline(always)]
pub(crate) fn store_some<S: Simd>(s: S, x: S::F, to: &mut [f32]) {
    if to.len() >= LANES {
        // SAFETY: there is room for 16 numbers.
        unsafe { s.store(x, to.as_mut_ptr()) }
    } else {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has room for 16 numbers.
        unsafe { s.store(x, lanes.as_mut_ptr()) };
        to.copy_from_slice(&lanes[..to.len()]);
    }
}
