//! The one memory map of the crate.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;

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

    /// Has the system read `range` of the file and put its pages into this process at once, rather than one at a time as
    /// they are touched. A hint: the bytes are the same without it.
    #[cfg(unix)]
    pub(super) fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if self.0.advise_range(memmap2::Advice::PopulateRead, range.start, range.len()).is_ok() {
            return;
        }
        // Before Linux 5.14, and elsewhere: at least the file is read ahead.
        let hint = self.0.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        if let Err(error) = hint {
            log::debug!("The system takes no hint to read ahead: {error}.");
        }
    }

    /// Takes the pages of `range` out of this process; the system keeps them as it sees fit, and they come back when they
    /// are touched. Pages that reach over an end of the range go too.
    #[cfg(unix)]
    pub(super) fn release(&self, range: Range<usize>) {
        // SAFETY: what this drops of a private map is what the process wrote into it. It cannot have written: the map
        // is read-only. So every page that is touched again is the file's, as it was before.
        let hint = unsafe {
            self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        if let Err(error) = hint {
            log::debug!("The system does not take pages of a file back: {error}.");
        }
    }

    /// No such hint on this system.
    #[cfg(not(unix))]
    pub(super) fn populate(&self, _: Range<usize>) {}

    /// No such hint on this system.
    #[cfg(not(unix))]
    pub(super) fn release(&self, _: Range<usize>) {}
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A map of 3 MB and a bit, with what it holds.
    fn map(name: &str) -> (tempfile::TempDir, Map, Vec<u8>) {
        let bytes: Vec<u8> =
            (0..3_000_123_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        let map = Map::of(&File::open(path).unwrap()).unwrap();
        (folder, map, bytes)
    }

    #[test]
    fn hints_change_no_byte() {
        let (_folder, map, bytes) = map("hints");
        for range in [0..bytes.len(), 5..6, 4096..8192, 1_000_001..2_999_999, 3_000_122..3_000_123] {
            map.populate(range.clone());
            assert!(*map == *bytes, "populated {range:?}");
            map.release(range.clone());
            assert!(*map == *bytes, "released {range:?}");
        }
    }

    /// KiB of the map of `name` that this process holds, as the kernel counts them.
    #[cfg(target_os = "linux")]
    fn resident(name: &str) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.lines().skip_while(|line| !line.ends_with(name));
        let rss = own.into_iter().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_come_and_go() {
        let (_folder, map, bytes) = map("come-and-go");
        let all = 0..bytes.len();
        assert_eq!(resident("come-and-go"), 0);
        map.populate(all.clone());
        assert!(resident("come-and-go") >= 2930, "every page is there, or this kernel is older than 5.14");
        map.release(all);
        assert_eq!(resident("come-and-go"), 0);
        assert_eq!(map[1_500_000], bytes[1_500_000]);
        assert!(resident("come-and-go") > 0);
    }
}
