//! Memory for weights, from the system: aligned, zeroed, in huge pages where there are any.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use super::scratch::ALIGNMENT;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a huge page on x86-64, and on aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// From this size on, memory is aligned to huge pages and asks for them.
const HUGE_FROM: usize = 4 << 20;

/// Bytes from the system, zero at first. They take no memory until they are written.
#[derive(Debug)]
pub struct Arena {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Arena {
    /// `bytes` bytes: aligned to 64, and from 4 MiB on to 2 MiB.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when the system refuses.
    pub fn new(bytes: usize) -> Result<Self> {
        let alignment = if bytes >= HUGE_FROM { HUGE_PAGE } else { ALIGNMENT };
        // The system aligns to its pages, which are multiples of 64.
        let room = if bytes >= HUGE_FROM { bytes.checked_add(HUGE_PAGE) } else { Some(bytes.max(1)) };
        let map = room.and_then(|room| MmapMut::map_anon(room).ok()).ok_or_else(|| refused(bytes))?;
        let start = map.as_ptr().align_offset(alignment);
        // `align_offset` may give up, by its contract; it does not for bytes.
        if start.checked_add(bytes).is_none_or(|end| end > map.len()) {
            return Err(Error::internal("Memory from the system could not be aligned."));
        }
        // A kernel without huge pages says no, which changes nothing but speed.
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_FROM
            && let Err(error) = map.advise_range(memmap2::Advice::HugePage, start, bytes)
        {
            log::debug!("The system gives no huge pages: {error}.");
        }
        Ok(Self { map, start, len: bytes })
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
        &self.map[self.start..self.start + self.len]
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }
}

#[cold]
fn refused(bytes: usize) -> Error {
    Error::new(
        // How much it would have given, the system does not say.
        ErrorKind::OutOfMemory { needed: bytes as u64, available: 0 },
        format!("The system refused {} MiB of memory for weights.", bytes.div_ceil(1 << 20)),
        "Raise the process's memory limit, use memory=\"mmap\", or use a smaller model.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_writable() {
        for (bytes, alignment) in [
            (0, 64),
            (1, 64),
            (100_000, 64),
            (HUGE_FROM - 1, 64),
            (HUGE_FROM, HUGE_PAGE),
            (9_000_001, HUGE_PAGE),
        ] {
            let mut arena = Arena::new(bytes).unwrap();
            assert_eq!(arena.len(), bytes);
            assert_eq!(arena.as_ptr() as usize % alignment, 0, "{bytes} bytes");
            assert!(arena.iter().all(|&byte| byte == 0));
            arena.fill(0xA5);
            assert!(arena.iter().all(|&byte| byte == 0xA5));
        }
    }

    #[test]
    fn too_much_is_an_error() {
        for bytes in [usize::MAX, usize::MAX - 1, isize::MAX as usize, 1 << 60] {
            let error = Arena::new(bytes).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::OutOfMemory { needed, .. } if *needed == bytes as u64));
        }
    }
}
