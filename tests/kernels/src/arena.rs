//! Memory for weights, keys and values as `src/kernels/arena.rs` gives it, but from the heap and of exactly the size asked
//! for: a sanitizer sees whoever leaves it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::scratch::ALIGNMENT;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are zero at first, aligned to 64.
#[derive(Debug)]
pub struct Arena {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes are its own.
unsafe impl Send for Arena {}
// SAFETY: as above; writing needs `&mut`.
unsafe impl Sync for Arena {}

impl Arena {
    /// `bytes` bytes; for none, one that is not given out.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] for more than a machine has.
    pub fn new(bytes: usize) -> Result<Self> {
        let refused = || {
            let kind = ErrorKind::OutOfMemory { needed: bytes as u64, available: 0 };
            Error::new(kind, "The heap refused memory.", "Ask for less.")
        };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok().filter(|_| bytes < 1 << 40);
        let layout = layout.ok_or_else(refused)?;
        let at = if bytes == 0 {
            NonNull::<u64>::dangling().cast()
        } else {
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?
        };
        Ok(Self { at, layout })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.at.as_ptr(), self.layout) }
        }
    }
}

impl AsRef<[u8]> for Arena {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Arena {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialised bytes of its own.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: initialised bytes of its own, borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.layout.size()) }
    }
}
