//! The one memory map of the crate.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;

/// A read-only view of a whole file, and the file.
#[derive(Debug)]
pub(super) struct Map {
    map: memmap2::Mmap,
    #[cfg(unix)]
    file: File,
}

impl Map {
    /// Maps `file`, which must not be empty.
    pub(super) fn of(file: File) -> io::Result<Self> {
        // SAFETY: the map is private and read-only, so nothing in this process can write through it. Another process
        // that writes into the file while it is mapped can change bytes under our eyes, and one that shortens it can
        // raise SIGBUS; no check here can rule that out, so it is a documented condition of use (README, "How it
        // fails"), and the cache never writes into a file after it has its name. Bytes that change are harmless to
        // memory safety: the header is parsed once into owned data, offsets come from that copy only, and every bit
        // pattern of a block of weights is a valid value.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self {
            map,
            #[cfg(unix)]
            file,
        })
    }

    /// Copies the bytes from `at` on to `to`. Not through the map: pages that are looked at once are not worth a place in this
    /// process, and a file that has become shorter is an error here.
    #[cfg(unix)]
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, to, at as u64)
    }

    /// The same, through the map.
    #[cfg(not(unix))]
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        let bytes = self.map.get(at..).and_then(|bytes| bytes.get(..to.len()));
        to.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Has the system begin to read `range` of the file. A hint: the bytes are the same without it.
    #[cfg(unix)]
    pub(super) fn read_ahead(&self, range: Range<usize>) {
        let hint = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        if let Err(error) = hint {
            log::debug!("The system takes no hint to read ahead: {error}.");
        }
    }

    /// No such hint on this system.
    #[cfg(not(unix))]
    pub(super) fn read_ahead(&self, _: Range<usize>) {}
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
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
        let map = Map::of(File::open(path).unwrap()).unwrap();
        (folder, map, bytes)
    }

    #[test]
    fn reading_gives_the_bytes_of_the_map() {
        let (_folder, map, bytes) = map("read");
        for range in [0..bytes.len(), 5..6, 4096..8192, 1_000_001..2_999_999, 3_000_122..3_000_123] {
            map.read_ahead(range.clone());
            let mut read = vec![0; range.len()];
            map.read(range.start, &mut read).unwrap();
            assert!(read == bytes[range.clone()] && read == map[range.clone()], "{range:?}");
        }
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let (folder, map, bytes) = map("end");
        let mut read = [0; 10];
        let error = map.read(bytes.len() - 9, &mut read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        // What is mapped of it can not be looked at any more.
        #[cfg(unix)]
        {
            File::options().write(true).open(folder.path().join("end")).unwrap().set_len(1000).unwrap();
            assert_eq!(map.read(2_000_000, &mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            map.read(990, &mut read).unwrap();
            assert_eq!(read, bytes[990..1000]);
        }
        drop(folder);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reading_takes_no_pages() {
        let (_folder, map, bytes) = map("no-pages");
        map.read_ahead(0..bytes.len());
        map.read(0, &mut vec![0; bytes.len()]).unwrap();
        assert_eq!(resident("no-pages"), 0);
        assert_eq!(map[1_500_000], bytes[1_500_000]);
        assert!(resident("no-pages") > 0);
    }

    /// KiB of the map of `name` that this process holds, as the kernel counts them.
    #[cfg(target_os = "linux")]
    fn resident(name: &str) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.lines().skip_while(|line| !line.ends_with(name));
        let rss = own.into_iter().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
