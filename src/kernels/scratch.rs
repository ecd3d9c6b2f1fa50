//! Memory of one thread for intermediate values: aligned, grown when asked for more, never given back.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a cache line, and of the widest vector register.
pub const ALIGNMENT: usize = 64;

/// One cache line; a vector of them is aligned as the kernels need it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// Numbers for which every pattern of bits is a value, so that bytes may be read as them.
///
/// # Safety
/// The type has no padding and no invalid bit pattern, and its alignment divides [`ALIGNMENT`].
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($number:ty),+) => { $(
        // SAFETY: a primitive number of at most 8 bytes: no padding, and every bit pattern is a value.
        unsafe impl Plain for $number {}
    )+ };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// Bytes of a thread's own, 64-byte aligned. What they hold at first is unspecified: zeros, or what the last user left.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
    /// Bytes of all the scratch that is counted together.
    total: Arc<AtomicUsize>,
}

impl Scratch {
    /// An empty one, whose size is added to `total` as it grows.
    pub(super) fn counted(total: Arc<AtomicUsize>) -> Self {
        Self { lines: Vec::new(), total }
    }

    /// `len` bytes, aligned to 64.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        let lines = len.div_ceil(ALIGNMENT);
        if lines > self.lines.len() {
            self.grow(lines);
        }
        // SAFETY: the lines are initialised bytes without padding, at least `len` of them, and are borrowed as long as the
        // slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<u8>(), len) }
    }

    /// `len` numbers, aligned to 64 bytes.
    pub fn slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        view_mut(self.bytes(len.saturating_mul(size_of::<T>())))
    }

    /// `len` floats, aligned to 64 bytes.
    pub fn f32s(&mut self, len: usize) -> &mut [f32] {
        self.slice(len)
    }

    /// Several buffers at once, of the given bytes, each aligned to 64. [`view_mut`] reads one as numbers.
    pub fn split<const N: usize>(&mut self, lens: [usize; N]) -> [&mut [u8]; N] {
        let padded = |len: usize| len.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1);
        let total = lens.iter().fold(0_usize, |sum, &len| sum.saturating_add(padded(len)));
        let mut rest = self.bytes(total);
        lens.map(|len| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(padded(len));
            rest = after;
            &mut part[..len]
        })
    }

    /// Bytes that this scratch holds: the most ever asked for, in whole lines.
    pub fn held(&self) -> usize {
        self.lines.len() * ALIGNMENT
    }

    #[cold]
    fn grow(&mut self, lines: usize) {
        let more = lines - self.lines.len();
        // The old contents need not survive: giving them back first keeps the peak low.
        self.lines = Vec::new();
        self.lines = vec![Line([0; ALIGNMENT]); lines];
        self.total.fetch_add(more * ALIGNMENT, Ordering::Relaxed);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.total.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

/// Reads aligned bytes, as [`Scratch`] and [`Arena`](super::Arena) give them, as numbers.
///
/// # Panics
/// When the bytes are not aligned for `T`. A rest that is shorter than one number is left out.
pub fn view_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: `T` is `Plain`: any bytes are values of it, and any values of it are bytes.
    let (before, numbers, _) = unsafe { bytes.align_to_mut::<T>() };
    assert!(before.is_empty(), "a buffer of numbers is not aligned");
    numbers
}

/// Reads aligned bytes as numbers, without writing.
///
/// # Panics
/// When the bytes are not aligned for `T`. A rest that is shorter than one number is left out.
pub fn view<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: `T` is `Plain`: any bytes are values of it.
    let (before, numbers, _) = unsafe { bytes.align_to::<T>() };
    assert!(before.is_empty(), "a buffer of numbers is not aligned");
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_and_keeps_what_it_has() {
        let total = Arc::new(AtomicUsize::new(0));
        let mut scratch = Scratch::counted(Arc::clone(&total));
        assert_eq!(scratch.bytes(0).len(), 0);
        scratch.bytes(65).fill(7);
        assert_eq!(scratch.held(), 128);
        assert_eq!(scratch.f32s(4).len(), 4);
        assert_eq!(scratch.held(), 128, "a smaller buffer gives nothing back");
        scratch.slice::<u16>(1000);
        assert_eq!(scratch.held(), 2048);
        assert_eq!(total.load(Ordering::Relaxed), 2048);
    }

    #[test]
    fn numbers_written_are_read_back() {
        let mut scratch = Scratch::default();
        let [floats, bytes] = scratch.split([12, 3]);
        view_mut::<f32>(floats).copy_from_slice(&[1.0, -2.5, 0.25]);
        bytes.fill(255);
        assert_eq!(view::<f32>(floats), [1.0, -2.5, 0.25]);
        assert_eq!(view::<u32>(floats)[0], 0x3F80_0000);
    }

    proptest! {
        #[test]
        fn parts_are_aligned_and_apart(lens in proptest::array::uniform5(0_usize..500)) {
            let mut scratch = Scratch::default();
            let parts = scratch.split(lens);
            for (number, part) in parts.into_iter().enumerate() {
                prop_assert_eq!(part.len(), lens[number]);
                prop_assert_eq!(part.as_ptr() as usize % ALIGNMENT, 0);
                part.fill(number as u8);
            }
            // Had two parts shared a byte, the later one would have overwritten it.
            for (number, part) in scratch.split(lens).into_iter().enumerate() {
                prop_assert!(part.iter().all(|&byte| byte == number as u8));
            }
        }
    }
}
