//! The one memory map of the crate.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;

/// A read-only view of a whole file.
#[derive(Debug)]
pub(super) struct Map(memmap2::Mmap);

impl Map {
    /// Maps `file`, which must not be empty.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the map is private and read-only, so nothing in this process can write through it. Another process
        // that writes into the file while it is mapped can change bytes under our eyes, and one that shortens it can
        // raise SIGBUS; no check here can rule that out, so it is a documented condition of use (README, "How it
        // fails"), and the cache never writes into a file after it has its name. Bytes that change are harmless to
        // memory safety: the header is parsed once into owned data, offsets come from that copy only, and every bit
        // pattern of a block of weights is a valid value.
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
